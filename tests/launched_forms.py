"""Launch the programs of the catalogue's models without a GPU: a program that records or compiles the forms.

After a change of what is launched:

    python tests/launched_forms.py > mambair_cli/programs/forms.json

With the name of a model and a compute capability it compiles what that model's launches need; CUDA C++ only
where there is a compiler for it.
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from mambair_cli import kernels
from mambair_cli.checkpoints.catalog import PACKAGE, Model, find_model, load_catalog
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.official import official_config
from mambair_cli.kernels import cuda_depthwise, cuda_scan, nvrtc
from mambair_cli.networks import Network, build_network, fuse_network
from mambair_cli.networks.config import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config
from mambair_cli.networks.fused import convolutions, scan
from mambair_cli.programs import cuda_source
from mambair_cli.programs.cuda_source import CompilerError, compile_source, read_source
from mambair_cli.restore.engine import PROBE_HEIGHT, PROBE_IMAGES, PROBE_WIDTH
from mambair_cli.restore.tile_cost import MULTIPROCESSORS

# Tiles whose channels' averages are summed in 16, 32 and 64 parts, and the probe's in 8; else programs are
# the same for all sizes.
SIDES = (100, 150, 192)
CUDA = "13.0"
DEPTHS = (2, 2)  # the first, a middle and the last of all there is, and MambaIRv2's windows of both kinds


class Record:
    """Keeps what is launched in its order, as text."""

    def __init__(self) -> None:
        self.forms: list[str] = []
        self.sources: list[str] = []

    def load(
        self, files: tuple[str, ...], settings: dict[str, int], names: tuple[str, ...], device: Any
    ) -> Any:
        """Stand for ``nvrtc.load_kernels``."""
        source = json.dumps([files, settings])
        if source not in self.sources:
            self.sources.append(source)
        return load_nothing(files, settings, names, device)

    def run(self, program: JITFunction, *operands: Any, grid: Any, warmup: bool, **options: Any) -> None:
        name = f"{program.__module__.rpartition('.')[2]}.{program.__name__}"
        names = [each.name for each in program.params if not each.is_constexpr]
        operands += tuple(options.pop(each) for each in names[len(operands) :])
        general = {each.num for each in program.params if each.do_not_specialize}
        kinds = [describe(x, i in general) for i, x in enumerate(operands)]
        form = json.dumps([name, kinds, options])
        if form not in self.forms:
            self.forms.append(form)


def describe(x: Any, is_general: bool) -> Any:
    """Describe an operand as ``forms.Form`` does; numbers that Triton does not tell apart become one."""
    if isinstance(x, Tensor):
        remainder = x.data_ptr() % 16
        return str(x.dtype).removeprefix("torch.") + (f"@{remainder}" if remainder else "")
    if isinstance(x, float):
        return 0.5
    if x is None:
        return None
    assert abs(x) < 2**31
    return 2 if is_general else 1 if x == 1 else 16 if x % 16 == 0 else 2


def load_nothing(
    files: tuple[str, ...], settings: dict[str, int], names: tuple[str, ...], device: Any
) -> Any:
    return [SimpleNamespace(launch=lambda *about: None)] * len(names)


def launch_all(
    net: Network,
    run: Callable[..., Any],
    load: Callable[..., Any] = load_nothing,
    sides: tuple[int, ...] = SIDES,
) -> None:
    """Have a network launch what it does on a card for which NVRTC compiles, too; only shapes are computed.

    Args:
        net: The network.
        run: Called instead of Triton's ``JITFunction.run``.
        load: Called instead of ``nvrtc.load_kernels``.
        sides: Sides of the images.
    """
    with ExitStack() as stack, torch.inference_mode():
        for module in (scan, convolutions):
            stack.enter_context(patch.object(module, "has_nvrtc", lambda device: True))
        for module in (cuda_scan, cuda_depthwise):
            module._load.cache_clear()
            stack.callback(module._load.cache_clear)
        stack.enter_context(patch.object(nvrtc, "load_kernels", load))
        stack.enter_context(patch.object(cuda_scan, "multiprocessors", lambda device: MULTIPROCESSORS))
        stack.enter_context(patch.object(JITFunction, "run", run))
        fused = fuse_network(net.to("meta"))
        assert fused is not None
        probe = torch.empty(PROBE_IMAGES, net.info.channels, PROBE_HEIGHT, PROBE_WIDTH, device="meta")
        tiles = [torch.empty(1, net.info.channels, side, side, device="meta") for side in sides]
        for x in (probe, *tiles):
            fused(x, origin=torch.zeros(len(x), 2, dtype=torch.int64), seed=0)
        # The fast path is compared with the plain one once, for which Triton scans.
        stack.enter_context(patch.object(kernels, "choose_backend", lambda *about: "triton"))
        stack.enter_context(patch.object(torch, "autocast", lambda *settings, **more: nullcontext()))
        net(probe, seed=0)


def build(model: Model) -> Network:
    """Make a model's network; if it is not built in, without weights and with two short groups of blocks."""
    config = official_config(model)
    if config is None:
        return load_network(PACKAGE / str(model.bundled))
    if isinstance(config, MambaIRConfig):
        config = replace(config, depths=DEPTHS)
    elif isinstance(config, MambaIRv2Config):
        config = replace(config, depths=DEPTHS, num_heads=config.num_heads[: len(DEPTHS)])
    with torch.device("meta"):
        return build_network(config).eval()


def print_launches() -> None:
    launched: dict[Config, tuple[str, str]] = {}  # networks of one configuration launch the same
    networks: dict[tuple[str, str], list[str]] = {}
    for model in load_catalog():
        net = build(model)
        config = net.info.config
        if isinstance(config, MambaIRUNetConfig):  # which has no fused form
            continue
        if config not in launched:
            record = Record()
            run = record.run
            launch_all(net, lambda *operands, run=run, **options: run(*operands, **options), record.load)
            launched[config] = ",\n  ".join(record.forms), ",\n  ".join(record.sources)
        networks.setdefault(launched[config], []).append(model.name)
    texts = [
        f'{{"models": {json.dumps(models)}, "triton": [\n  {forms}\n], "cuda": [\n  {sources}\n]}}'
        for (forms, sources), models in networks.items()
    ]
    sys.stdout.write(f"[{', '.join(texts)}]\n")


def assume_cuda() -> None:
    """Take this PyTorch for one that is built for CUDA."""
    folder, version = cuda_source.find_torch()
    cuda_source.find_torch = lambda: (folder, version or CUDA)


def compile_launches(model: str, capability: int) -> None:
    """Compile what a model's launches need, in Triton's own way from tensors to the cache."""
    target = GPUTarget("cuda", capability, 32)
    ask = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )
    driver.set_active(cast(Any, ask))
    run = JITFunction.run

    def compile_only(program: JITFunction, *operands: Any, warmup: bool, **options: Any) -> Any:
        return run(program, *operands, warmup=True, **options)

    def compile_cuda(
        files: tuple[str, ...], settings: dict[str, int], names: tuple[str, ...], device: Any
    ) -> Any:
        with suppress(CompilerError):
            compile_source(read_source(*files), settings, divmod(capability, 10))
        return load_nothing(files, settings, names, device)

    launch_all(build(find_model(model)), compile_only, compile_cuda)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        assume_cuda()
        compile_launches(sys.argv[1], int(sys.argv[2]))
    else:
        print_launches()
