"""Load checkpoint files: read tensors safely, infer the network from them, and build it strictly."""

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mambair_cli.checkpoints.foreign_files import is_text, name_foreign
from mambair_cli.checkpoints.shown_names import list_names, show_name
from mambair_cli.checkpoints.wrapping import WRAPPERS, bare_names, unwrap
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import (
    Config,
    MambaIRConfig,
    MambaIRUNetConfig,
    MambaIRv2Config,
    Network,
    build_network,
)
from mambair_cli.networks.config import CabForm, ResidualConv, Upsampler
from mambair_cli.networks.layers import CAB_HIDDEN_DIVISOR

Shapes = Mapping[str, tuple[int, ...]]

HEAD_BYTES = 256  # enough to identify a file
LEAST_TENSORS = 20  # of a block in any network; to build one takes milliseconds
MOST_USES = 2  # of a stored value: a network and its running average may share them

# Other networks that users may try, by a key that no supported network has.
FOREIGN_NETWORKS = (
    (r"\.overlap_attn\.", "HAT"),
    (r"\.attn\.(relative_position_bias_table|relative_position_index)$", "SwinIR"),
    (r"^(model\.1\.sub\.\d+\.RDB|RRDB_trunk|body\.\d+\.rdb\d)", "ESRGAN or Real-ESRGAN"),
    (r"^encoder_level1\.\d+\.attn\.temperature$", "Restormer"),
    (r"^intro\.weight$", "NAFNet"),
    (r"\.(ss2d|mamba)\.|^backbone\.layers\.\d+\.mixer\.", "another Mamba network"),
)


def load_network(path: str | Path) -> Network:
    """Load any checkpoint of the MambaIR family, whatever program wrote it.

    Args:
        path: A .pth, .pt or .safetensors file.

    Returns:
        The network in eval mode, float32, on the CPU; ``net.info`` says what it is.

    Raises:
        CheckpointError: The file is damaged, unsafe, or of another network.
    """
    if path == "":  # Path would take it for the folder here
        raise CheckpointError("cannot load a file: its path is empty; give a .pth or .safetensors file")
    path = Path(path)
    tensors, metadata = read_tensors(path)
    try:
        return network_of(tensors, metadata.get("task"))
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error


def network_of(tensors: dict[str, Tensor], task: str | None = None) -> Network:
    """Build the network of plain tensors, which it keeps, as :func:`load_network` returns it.

    Raises:
        CheckpointError: They are not exactly those of one network of the MambaIR family.
    """
    config = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    _check_count(config, len(tensors))
    with torch.device("meta"):  # no memory and no random numbers for weights that the tensors replace
        net = build_network(config, task)
    _check_tensors(tensors, net)
    net.load_state_dict(tensors, strict=True, assign=True)
    net.reset_buffers()
    return net.eval().requires_grad_(False)


def read_scale(path: Path) -> int:
    """Return the scale of a checkpoint's network, which is not built for that.

    Raises:
        CheckpointError: Same as in :func:`load_network`, but for tensors that belong to no network.
    """
    tensors, _ = read_tensors(path)
    try:
        config = infer_config({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error
    return 1 if isinstance(config, MambaIRUNetConfig) else config.upscale


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint's metadata and tensors, by their bare names, floating-point as float32.

    The file's content decides how it is read, not its name. No code in it is run.

    Raises:
        CheckpointError: It is no checkpoint, is damaged, or would run code.
    """
    if path.is_dir():
        raise CheckpointError(f"cannot load {path}: it is a folder; give a .pth or .safetensors file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        from mambair_cli.checkpoints.own_models import explain_name  # which loads networks, too

        named = explain_name(str(path)) if isinstance(error, FileNotFoundError) else None
        raise named or CheckpointError(f"cannot load {path}: {error.strerror}") from error
    try:
        if not head:
            raise CheckpointError("the file is empty; download it again")
        if head[8:9] == b"{" and not is_text(head):  # after the length of the header, any eight bytes
            tensors, metadata = _read_safetensors(path)
        elif head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
            tensors, metadata = _read_pickle(path), {}
        else:
            raise CheckpointError(name_foreign(head))
        _check_stored(tensors, path.stat().st_size)
        return plain_tensors(tensors), metadata
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error.__cause__


def plain_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copy a checkpoint's tensors to the CPU, by their bare names, floating-point as float32.

    Raises:
        CheckpointError: There is anything but tensors, or a tensor that cannot be computed with.
    """
    _check_all_tensors(content)
    names = bare_names(content)
    bare = {name: _plain(full, content[full]) for name, full in zip(names, content, strict=True)}
    if len(bare) < len(content):
        raise CheckpointError("it holds tensors of the same name, with and without a prefix such as module.")
    return bare


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()  # an open file is not a mapping and cannot be iterated
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        if "not valid UTF-8" in str(error):
            raise CheckpointError("its path is not UTF-8, which safetensors refuses; rename it") from error
        raise CheckpointError("the safetensors file is truncated or damaged; download it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
        with path.open("rb") as file, warnings.catch_warnings():  # with a path, torch would use its suffix
            warnings.simplefilter("ignore")  # about old formats, which can still be read
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"would run code ({show_name(culprit[1])})" if culprit else "could run code"
        raise CheckpointError(
            f"it is a pickle that {what}, which is refused; ask its author for a file of tensors alone, "
            "best a .safetensors"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise any error
        raise CheckpointError("the PyTorch file is truncated or damaged; download it again") from error
    content = unwrap(content)
    if not isinstance(content, dict):
        raise CheckpointError(f"it holds one {type(content).__name__}, not a dictionary of tensors")
    _check_all_tensors(content)
    return content


def _check_all_tensors(content: Mapping[Any, Any]) -> None:
    """Raise unless a dictionary holds tensors by name and nothing else."""
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"it is a dictionary of {list_names(content)}, not of tensors alone; "
                f"tensors are looked for at the top and under {', '.join(WRAPPERS[:-1])} and {WRAPPERS[-1]}"
            )


def _check_archive(path: Path) -> None:
    """Raise unless a zip archive is like those of ``torch.save``: a pickle, and uncompressed tensors."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = {PurePosixPath(member.filename).name for member in members}
    if "constants.pkl" in names:
        raise CheckpointError("it is a TorchScript program, which is refused; save its state_dict() instead")
    if "data.pkl" not in names:
        raise CheckpointError("it is a zip archive, not a PyTorch file; unpack it first")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError("it is compressed, which PyTorch files never are; save it with torch.save")


def _check_stored(tensors: dict[str, Tensor], file_bytes: int) -> None:
    """Raise if a file describes tensors that it does not hold: sparse ones, or many views of few values."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(
                f"the tensor {show_name(name)} is not stored value by value; save it as it is"
            )
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > MOST_USES * file_bytes:
        raise CheckpointError("its tensors claim to be larger than the file; save it with torch.save")


def _plain(name: str, tensor: Tensor) -> Tensor:
    """Return a copy of a tensor from a file on the CPU, float32 if it is floating-point."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    try:
        plain = tensor.detach().to("cpu", dtype, memory_format=torch.contiguous_format, copy=True)
    except NotImplementedError as error:
        raise CheckpointError(
            f"the tensor {show_name(name)} has an unsupported type, {tensor.dtype}"
        ) from error
    if not plain.isfinite().all():
        what = f"the tensor {show_name(name)} holds values that are not finite"
        raise CheckpointError(f"{what}; the file is damaged")
    return plain


def infer_config(shapes: Shapes) -> Config:
    """Infer the architecture and its configuration from the names and shapes of the tensors.

    Nothing is guessed: ``img_range``, which no tensor shows, is 1.0 in every official network.

    Raises:
        CheckpointError: The tensors are not of a network of the MambaIR family.
    """
    for name, shape in shapes.items():
        if 0 in shape:
            raise CheckpointError(f"the tensor {show_name(name)} is empty, {tuple(shape)}")
    try:
        if _has(shapes, r"encoder_level1\.0\.self_attention\."):
            return _infer_unet(shapes)
        if _has(shapes, r"layers\.0\.residual_group\.blocks\.0\.self_attention\."):
            return _infer_mambair(shapes)
        if _has(shapes, r"layers\.0\.residual_group\.layers\.0\.assm\."):
            return _infer_mambair_v2(shapes)
    except KeyError as error:
        raise CheckpointError(f"the tensor {error.args[0]} is missing from it") from error
    except IndexError as error:
        raise CheckpointError("the shapes of its tensors do not belong to one network") from error
    except ValueError as error:  # raised by the inferred configuration
        raise CheckpointError(f"the shapes of its tensors make no network: {error}") from error
    for pattern, network in FOREIGN_NETWORKS:
        if any(re.search(pattern, name) for name in shapes):
            raise CheckpointError(f"it is a checkpoint of {network}; mambair runs only MambaIR and MambaIRv2")
    if not shapes:
        raise CheckpointError("it holds no tensors")
    raise CheckpointError(f"it is not a network of the MambaIR family (its tensors: {list_names(shapes)})")


def _infer_mambair(shapes: Shapes) -> MambaIRConfig:
    embed_dim = shapes["conv_first.weight"][0]
    scan = "layers.0.residual_group.blocks.0.self_attention"
    return MambaIRConfig(
        embed_dim=embed_dim,
        depths=_depths(shapes, "blocks"),
        d_state=shapes[f"{scan}.A_logs"][1],
        d_inner=shapes[f"{scan}.x_proj_weight"][2],
        cab=_cab_form(shapes, "layers.0.residual_group.blocks.0.conv_blk.cab"),
        **_trunk_settings(shapes),
    )


def _infer_mambair_v2(shapes: Shapes) -> MambaIRv2Config:
    layer = "layers.0.residual_group.layers.0"
    depths = _depths(shapes, "layers")
    table = "win_mhsa.relative_position_bias_table"
    gated = _has(shapes, rf"{layer}\.convffn1\.sg\.")
    kernel = f"{layer}.convffn1.{'sg.conv' if gated else 'dwconv.depthwise_conv.0'}.weight"
    return MambaIRv2Config(
        embed_dim=shapes["conv_first.weight"][0],
        depths=depths,
        num_heads=tuple(shapes[f"layers.{i}.residual_group.layers.0.{table}"][1] for i in range(len(depths))),
        d_state=shapes[f"{layer}.assm.selectiveScan.A_logs"][1],
        d_inner=shapes[f"{layer}.assm.selectiveScan.x_proj_weight"][2],
        inner_rank=shapes[f"{layer}.assm.embeddingB.weight"][1],
        num_tokens=shapes[f"{layer}.assm.embeddingB.weight"][0],
        feed_forward="gated" if gated else "conv",
        window_size=(math.isqrt(shapes[f"{layer}.{table}"][0]) + 1) // 2,
        convffn_kernel_size=shapes[kernel][2],
        **_trunk_settings(shapes),
    )


def _infer_unet(shapes: Shapes) -> MambaIRUNetConfig:
    if _has(shapes, r"skip_conv\."):
        raise CheckpointError("it is a dual-pixel network (6 input channels); photographs have 3")
    levels = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
    n1, n2, n3, n4 = (_count(shapes, rf"{level}\.(\d+)\.") for level in levels)
    scans = [f"{level}.0.self_attention" for level in levels]
    d1, d2, d3, d4 = (shapes[f"{scan}.x_proj_weight"][2] for scan in scans)
    return MambaIRUNetConfig(
        dim=shapes["patch_embed.proj.weight"][0],
        num_blocks=(n1, n2, n3, n4),
        num_refinement_blocks=_count(shapes, r"refinement\.(\d+)\."),
        d_inner=(d1, d2, d3, d4),
        d_state=shapes[f"{scans[0]}.A_logs"][1],
        in_chans=shapes["patch_embed.proj.weight"][1],
    )


def _trunk_settings(shapes: Shapes) -> dict:
    in_chans = shapes["conv_first.weight"][1]
    upsampler: Upsampler = ""
    upscale = 1
    if _has(shapes, r"conv_up1\."):
        upsampler, upscale = "nearest+conv", 4
    elif _has(shapes, r"conv_before_upsample\."):
        upsampler = "pixelshuffle"
        factor = math.isqrt(shapes["upsample.0.weight"][0] // shapes["upsample.0.weight"][1])
        upscale = factor ** _count(shapes, r"upsample\.(\d+)\.")
    elif _has(shapes, r"upsample\."):
        upsampler = "pixelshuffledirect"
        upscale = math.isqrt(shapes["upsample.0.weight"][0] // in_chans)
    resi_connection: ResidualConv = "3conv" if _has(shapes, r"conv_after_body\.\d") else "1conv"
    return {
        "in_chans": in_chans,
        "upsampler": upsampler,
        "upscale": upscale,
        "resi_connection": resi_connection,
    }


def _cab_form(shapes: Shapes, cab: str) -> CabForm:
    if _has(shapes, rf"{cab}\.1\.attention\."):
        return "light-2024-02"
    if _has(shapes, rf"{cab}\.5\.attention\."):
        return "light"
    hidden, channels = shapes[f"{cab}.0.weight"][0], shapes[f"{cab}.0.weight"][1]
    for form in ("classic", "light-2024-03"):
        if hidden == channels // CAB_HIDDEN_DIVISOR[form]:
            return form
    raise CheckpointError(
        f"its channel attention squeezes {channels} channels to {hidden}, which no official form does"
    )


def _depths(shapes: Shapes, blocks: str) -> tuple[int, ...]:
    found: dict[str, set[str]] = {}
    for name in shapes:
        if match := re.match(rf"layers\.(\d+)\.residual_group\.{blocks}\.(\d+)\.", name):
            found.setdefault(match[1], set()).add(match[2])
    return tuple(len(found.get(str(i), ())) for i in range(_count(shapes, r"layers\.(\d+)\.")))


def _count(shapes: Shapes, pattern: str) -> int:
    """Count the different numbers in the names whose start matches ``pattern``."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _has(shapes: Shapes, pattern: str) -> bool:
    """Tell whether the start of a name matches ``pattern``."""
    return any(re.match(pattern, name) for name in shapes)


def _check_count(config: Config, count: int) -> None:
    """Raise, before the network is built, if a file names many more blocks than it has tensors for."""
    if isinstance(config, MambaIRUNetConfig):
        blocks = sum(config.num_blocks) + config.num_refinement_blocks
    else:
        blocks = sum(config.depths)
    if blocks * LEAST_TENSORS > count:
        raise CheckpointError(f"it names {blocks} blocks, and has only {count} tensors for them")


def _check_tensors(tensors: dict[str, Tensor], net: Network) -> None:
    """Raise unless the tensors are exactly those of the network, by name, shape and type."""
    wanted = net.state_dict()
    both = [name for name in wanted if name in tensors]
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)}, not {tuple(wanted[name].shape)}"
            for name in both
            if tensors[name].shape != wanted[name].shape
        ],
        "not of floating-point numbers": [
            name
            for name in both
            if wanted[name].is_floating_point() and not tensors[name].is_floating_point()
        ],
    }
    problems = [f"{kind}: {list_names(names)}" for kind, names in problems.items() if names]
    if problems:
        raise CheckpointError(f"its tensors are not those of a {type(net).__name__}; {'; '.join(problems)}")
