"""The command that checks an installation: what it can do, and whether its results are right."""

import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from mambair_cli.cli.options import AsJson, Offline
from mambair_cli.cli.output import print_json
from mambair_cli.errors import MambairError
from mambair_cli.system.control_groups import read_limits
from mambair_cli.system.process import count_own_processors, count_processors, is_set_here, machine_memory
from mambair_cli.system.wording import format_bytes, show_count

HUB_SECONDS = 5  # limit for an answer
EXTRAS = {  # the optional extras of pyproject.toml, and all packages that each needs and mambair does not
    "heic": ("pillow-heif",),
    "exr": ("OpenEXR",),
    "video": ("av",),
    "distributed": ("accelerate",),
    "ray": ("ray",),
    "spandrel": ("spandrel", "torchvision", "einops"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
}
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")

SCANS = {
    "reference": "step by step, slow",
    "torch": "plain PyTorch",
    "cpu": "vector code compiled at run time",
    "triton": "Triton",
}

# The result of tiny-x4 for the picture of _make_picture, in float32 on a CPU, at every eighth row and column.
SAMPLED_EVERY = 8
EXPECTED = bytes.fromhex(
    "00031612001c2c00ac3a00d73c002c62001a7600a58a00d68c002eb20019c700a2d700d70017171119182d25bb"
    "3b18d04c123e62181f7c24b98b18cf9c113bb31720cb21b5d918cf0037b01734ac23462f3633294b42b3643dcf"
    "70473a8232269b3fafb53ccec44539d433150054cb1055cb2553373b531f5363c56255d07654428a5220a062c6"
    "b255d0c5523cda541a007031106c282279a7397ace437f36626740757fb7897bd3928139ae6933c37eb6da7cd9"
    "00931d108f1a2d99b63991cd4d8d3c628f1f789ec28991cf9f8d37b28f21c49dc9d991d000aca30eb3b722b72c"
    "39a52e47b4a65db4c96eb83c8a9f409ab8acadb5cdbfbb40d7a61e00cbd30bcdd11cc43038cc1a52cfa25fcdd0"
    "70c53688cc1ba2d6b7afcdd1c5c737d9cc17"
)
TOLERANCE = 3  # of 255: 16-bit products change a sample by one or two


@dataclass
class Finding:
    """The result of checking a part of the installation.

    Attributes:
        name: Name of the part.
        text: Result as text.
        facts: Result for JSON.
        is_broken: Whether the part does not work.
    """

    name: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    is_broken: bool = False


def doctor(offline: Offline = False, as_json: AsJson = False) -> None:
    """Check what this installation can do, and try it.

    Exits with 1 if something is broken; a missing optional extra is not an error.

    Example: mambair doctor --offline
    """
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("mambair", _check_versions),
        ("torch", _check_torch),
        ("devices", _check_devices),
        ("scan", _check_scan),
        ("images", _check_images),
        ("extras", _check_extras),
        ("models", _check_models),
        ("hub", lambda: _check_hub(offline)),
        ("room", _check_room),
        ("self-test", _run_model),
    )
    is_broken, findings = False, {}
    for name, check in checks:
        try:
            finding = check()
        except Exception as error:  # any error is a finding
            reason = str(error) if isinstance(error, MambairError) else f"{type(error).__name__}: {error}"
            finding = Finding(name, reason, is_broken=True)
        is_broken |= finding.is_broken
        findings[name] = {"ok": not finding.is_broken, "text": finding.text, **finding.facts}
        if not as_json:
            print(f"{name:10}  {'BROKEN: ' if finding.is_broken else ''}{finding.text}", flush=True)
    if as_json:
        print_json({"ok": not is_broken, **findings})
    if is_broken:
        raise typer.Exit(1)


def _check_versions() -> Finding:
    from importlib.metadata import version

    own, system = version("mambair-cli"), platform.platform(terse=True)
    given = (name for name in VARIABLES if name in os.environ and not is_set_here(name))
    variables = {name: os.environ[name] for name in given}
    facts = {"version": own, "python": platform.python_version(), "system": system, "variables": variables}
    return Finding("mambair", f"{own}; Python {facts['python']} on {system}, in {sys.prefix}", facts)


def _check_torch() -> Finding:
    import torch

    toolkit = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    if torch.version.hip:
        toolkit = f"ROCm {torch.version.hip}"
    facts = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
    return Finding("torch", f"{torch.__version__}, {toolkit}", facts)


def _check_devices() -> Finding:
    import torch

    from mambair_cli.restore.devices import choose_device

    devices = {"cpu": show_count(torch.get_num_threads(), "thread")}
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        devices[f"cuda:{number}"] = f"{properties.name}, {format_bytes(properties.total_memory)}"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    auto = str(choose_device("auto"))
    text = "; ".join(f"{name}: {what}" for name, what in devices.items())
    own, allowed = count_own_processors(), read_limits().processors
    facts = {"devices": devices, "auto": auto, "processors": count_processors(), "processor_limit": allowed}
    limit = "" if allowed is None else f"; the container may use {allowed:.3g} of {own} processors"
    return Finding("devices", f"{text}; --device auto uses {auto}{limit}", facts)


def _check_scan() -> Finding:
    """Find what computes the scan on the device of --device auto, and whether its fast path is available."""
    from mambair_cli.kernels import choose_backend, has_nvrtc, has_triton
    from mambair_cli.restore.devices import choose_device

    device = choose_device("auto")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend = choose_backend(device)
        by_cuda, is_fused = has_nvrtc(device), has_triton(device)
    reasons = [str(warning.message) for warning in caught]
    text = f"{SCANS[backend]} on {device}"
    if device.type == "cuda":
        text += "; fused networks" if is_fused else "; no fused networks, which need triton and a C compiler"
        text += ", with a scan in CUDA C++" if by_cuda else ", without the scan in CUDA C++"
    facts = {"backend": backend, "fused": is_fused, "cuda_scan": by_cuda, "reasons": reasons}
    return Finding("scan", "; ".join([text, *reasons]), facts, is_broken=bool(reasons))


def _check_images() -> Finding:
    """Write a small picture in each format, and read it back."""
    import numpy as np

    from mambair_cli.images import FORMATS, Picture, encode_picture, read_picture
    from mambair_cli.images.libvips import pyvips

    picture = Picture(_make_picture()[:, :, :3])
    broken = {}
    for format in FORMATS:
        try:
            shape = read_picture(encode_picture(picture, format)).pixels.shape
            if shape != np.shape(picture.pixels):
                broken[format] = f"came back as {shape}"
        except MambairError as error:
            broken[format] = str(error)
    numbers = ".".join(str(pyvips.version(part)) for part in range(3))
    read_only = [
        *("bmp", "tga", "dds", "pcx"),
        "ppm",
        *(["jpeg2000"] if _has_jpeg2000() else []),
        *(["heic"] if _version_of("pillow-heif") else []),
        *(["exr"] if _version_of("OpenEXR") else []),
    ]
    written = [format for format in FORMATS if format not in broken]
    text = f"libvips {numbers}; reads and writes {', '.join(written)}; reads {', '.join(read_only)}"
    text += "".join(f"; {format} fails: {why}" for format, why in broken.items())
    facts = {"libvips": numbers, "written": written, "read": [*written, *read_only], "failed": broken}
    return Finding("images", text, facts, is_broken=bool(broken))


def _has_jpeg2000() -> bool:
    from PIL import features

    return bool(features.check("jpg_2000"))


def _check_extras() -> Finding:
    """Look for all packages of each extra, without importing them: some take seconds."""
    versions, lacking, here = {}, {}, []
    for extra, packages in EXTRAS.items():
        found = {package: _version_of(package) for package in packages}
        missing = [package for package in packages if not found[package]]
        versions[extra] = None if missing else found[packages[0]]
        if not missing:
            here.append(f"{extra} ({', '.join(f'{package} {found[package]}' for package in packages)})")
        elif len(missing) < len(packages):
            lacking[extra] = missing
    text = ", ".join(here) or "none"
    if lacking:
        parts = (f"{extra} (lacks {' and '.join(missing)})" for extra, missing in lacking.items())
        text += f"; incomplete: {', '.join(parts)}"
    absent = [extra for extra, version in versions.items() if not version and extra not in lacking]
    if absent:
        text += f"; not installed: {', '.join(absent)}"
    return Finding("extras", text, {"extras": versions, "lacking": lacking})


def _version_of(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _check_models() -> Finding:
    """Verify the built-in models, and list the others that are on this machine."""
    from huggingface_hub import constants

    from mambair_cli.checkpoints import catalog, hub, mirror

    here = {}
    for model in catalog.load_catalog():
        if model.bundled:
            hub.fetch(model)  # it verifies the hash
        else:
            path = hub.cached(model)
            if path is not None:
                here[model.name] = path.stat().st_size
    size = format_bytes(sum(here.values()))
    cache = constants.HF_HUB_CACHE
    text = f"built-in models verified; in the cache {cache}: " + (
        f"{', '.join(here)}, {size}" if here else "none"
    )
    if homeless := mirror.explain_homeless(cache):
        text += f"; none can be downloaded to {homeless}"
    return Finding("models", text, {"cache": cache, "cached": here})


def _check_hub(offline: bool) -> Finding:
    from huggingface_hub import constants

    from mambair_cli.checkpoints import catalog, hub
    from mambair_cli.errors import DownloadError

    facts = {"endpoint": constants.ENDPOINT, "reachable": None, "message": None}
    if hub.is_offline(offline):
        return Finding("hub", f"{constants.ENDPOINT} not checked: offline", facts)
    start = time.perf_counter()
    try:
        hub.reach(catalog.find_model("mambairv2-light-x4"), HUB_SECONDS)
    except DownloadError as error:  # not an error: the built-in models need no Hub
        return Finding("hub", f"unreachable: {error}", {**facts, "reachable": False, "message": str(error)})
    text = f"{constants.ENDPOINT} answers in {time.perf_counter() - start:.1f} s"
    return Finding("hub", text, {**facts, "reachable": True})


def _check_room() -> Finding:
    facts = {"disk_free": shutil.disk_usage(".").free, "memory": None, "memory_free": None}
    text = f"{format_bytes(facts['disk_free'])} free on the disk of {Path.cwd()}"
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        memory = os.sysconf("SC_PHYS_PAGES") * page
        facts["memory"] = machine_memory() or memory
        facts["memory_free"] = min(facts["memory"], os.sysconf("SC_AVPHYS_PAGES") * page)
        text += f"; {format_bytes(facts['memory_free'])} of {format_bytes(memory)} of memory unused"
        if facts["memory"] < memory:
            text += f", and the container may use {format_bytes(facts['memory'])}"
    return Finding("room", text, facts)


def _run_model() -> Finding:
    """Restore a picture with a built-in model on each kind of device, and compare the result."""
    import numpy as np

    from mambair_cli.restore.devices import choose_device
    from mambair_cli.restore.restorer import Restorer

    texts, facts, is_broken = [], {}, False
    for device in dict.fromkeys(("cpu", str(choose_device("auto")))):
        restore = Restorer(model="tiny-x4", device=device, offline=True)
        start = time.perf_counter()
        got = restore(_make_picture())[::SAMPLED_EVERY, ::SAMPLED_EVERY].astype(int)
        seconds = time.perf_counter() - start
        wanted = np.frombuffer(EXPECTED, np.uint8).reshape(got.shape)
        apart = int(abs(got - wanted).max())
        is_broken |= apart > TOLERANCE
        facts[device] = {"apart": apart, "seconds": round(seconds, 3)}
        texts.append(
            f"tiny-x4 on {device} differs by {apart} of 255 from the expected result, in {seconds:.1f} s"
        )
    return Finding("self-test", "; ".join(texts), {"devices": facts}, is_broken)


def _make_picture() -> Any:
    """Make a picture with edges and slopes, (16, 24, 3) uint8, the same on every machine."""
    import numpy as np

    y, x = np.mgrid[:16, :24]
    return np.stack([x * 10, y * 15, (x // 4 + y // 4) % 2 * 200 + 20], axis=2).astype(np.uint8)
