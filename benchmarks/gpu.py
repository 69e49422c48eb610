"""Time networks of the official shapes on a GPU, with random weights, and compare them with others.

An image in memory is restored in tiles of the default size. One run prints, in this order:

- "network": the GPU alone, summed over the batches; "image": from the image in memory to the blended result;
- "floor": the least possible time for the image as a share of the network's time, see ``floor.py``;
- "official": the same network computed as in its authors' code, on the whole image, see ``official.py``, and
  how many times longer it takes; in float32 with PyTorch's own settings, and under autocast in bfloat16;
- with --rivals, networks of other authors on the whole image, in float32 and in bfloat16 or autocast.

    python benchmarks/gpu.py [NETWORK ...] [--rivals] [--profile] [--sweep]

With --sweep, it tries tiles and batches instead. If one case fails or runs out of memory, its line says so,
and the others continue.
"""

import argparse
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from floor import H200, least_seconds
from official import Official
from rivals import RIVALS, make_rival
from torch import Tensor

from mambair_cli.kernels.cuda_graph import Replayed
from mambair_cli.networks import (
    Config,
    MambaIR,
    MambaIRConfig,
    MambaIRv2,
    MambaIRv2Config,
    Network,
    build_network,
)
from mambair_cli.restore.engine import Engine, blend_rows
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_size import OVERLAP, choose_tiles
from mambair_cli.restore.tiling import Plan, plan_tiles

SIX = (6,) * 6
LIGHT = {"upscale": 4, "upsampler": "pixelshuffledirect"}
CLASSIC = {"upscale": 4, "upsampler": "pixelshuffle"}
CASES: dict[str, Config] = {
    "v1-classic": MambaIRConfig(180, SIX, 16, 360, **CLASSIC),
    "v1-light": MambaIRConfig(60, (6,) * 4, 10, 72, cab="light", **LIGHT),
    "v1-denoise": MambaIRConfig(180, SIX, 16, 216),
    "v2-base": MambaIRv2Config(174, SIX, SIX, 16, 348, 64, 128, **CLASSIC),
    "v2-light": MambaIRv2Config(48, (5,) * 4, (4,) * 4, 8, 48, 32, 64, "gated", **LIGHT),
    "toy-v1": MambaIRConfig(30, (1,), 3, 7, **LIGHT),  # to try this script
    "toy-v2": MambaIRv2Config(24, (2,), (2,), 3, 30, 4, 5, **LIGHT),
}
SIZES = ((256, 256), (720, 1280))
SWEPT_TILES = (112, 136, 160, 176, 192, 256)  # largest side, in pixels; tiles may be smaller
SWEPT_BATCHES = (3, 2, 1)  # batches into which all tiles are divided


class Measured(NamedTuple):
    """Milliseconds, and GiB of peak memory."""

    ms: float
    gib: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=f"from {', '.join(CASES)}; by default all but the toys")
    parser.add_argument(
        "--rivals",
        nargs="*",
        metavar="NAME",
        help=f"also time networks of other authors: {', '.join(RIVALS)}",
    )
    parser.add_argument("--own", action="store_true", help="do not time the official code's way")
    parser.add_argument("--profile", action="store_true", help="show where a batch spends its time")
    parser.add_argument("--sweep", action="store_true", help="try tiles and batches")
    parser.add_argument("--turns", type=int, default=5, help="turns; the median counts [5]")
    parser.add_argument("--tile", type=int, help="side of a tile, in pixels; by default that of the device")
    parser.add_argument("--batch", type=int, help="tiles at once; by default that of the device")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # cpu: to try this script
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)  # side of a single, square image
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}")
    sizes = ((options.side, options.side),) if options.side else SIZES
    networks = options.networks or [name for name in CASES if not name.startswith("toy")]
    own: dict[tuple[str, tuple[int, int]], float] = {}
    if options.sweep:
        for name, size in product(networks, sizes):
            with errors_printed(f"{name} {size}"):
                sweep(name, *size, device, options)
        return
    print(
        f"{'network':11}{'input':>10}{'tiles':>16}{'network ms':>12}{'image ms':>10}{'GiB':>6}{'floor':>7}"
        f"{'official ms':>13}{'GiB':>6}{'times':>7}{'bf16 ms':>10}{'times':>7}"
    )
    for name, size in product(networks, sizes):
        with errors_printed(f"{name} {size}"), torch.inference_mode():
            own[name, size] = compare(name, *size, device, options)
    if options.rivals is not None:
        print(f"\n{'rival':14}{'input':>10}{'fp32 ms':>10}{'GiB':>6}{'bf16 ms':>10}  times that of")
        for name, size in product(options.rivals or RIVALS, sizes):
            with errors_printed(f"{name} {size}"), torch.inference_mode():
                time_rival(name, *size, device, options.turns, own)


@contextmanager
def errors_printed(what: str) -> Iterator[None]:
    """Print an error, and continue."""
    try:
        yield
    except torch.OutOfMemoryError:
        print(f"{what}: out of memory", flush=True)
    except Exception:
        print(f"{what}: {traceback.format_exc(limit=-4)}", flush=True)


def compare(name: str, height: int, width: int, device: torch.device, options: argparse.Namespace) -> float:
    """Print a line about a network of ours; return its milliseconds."""
    config, net = CASES[name], make_network(CASES[name], device)
    plan, most = plan_as_shipped(config, height, width, device, options)
    engine = Engine(net, device)
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    whole = measure(lambda: restore(engine, image, plan, most), options.turns, device)
    batches = -(-len(plan) // most)
    batch = -(-len(plan) // batches)
    forward = forward_of(engine.run, plan, batches, batch, device)
    network = measure(forward, options.turns, device)
    floor = least_seconds(config, height * width, H200) * 1e3
    print(
        f"{name:11}{f'{width}×{height}':>10}{f'{batches}·{batch}·{plan.tile_width}×{plan.tile_height}':>12}"
        f"{network.ms:12.1f}{whole.ms:10.1f}{whole.gib:6.2f}{floor / network.ms:7.0%}",
        end="",
        flush=True,
    )
    if device.type == "cuda" and engine._fast is None:
        print("  (by PyTorch's own kernels: see the warning)", end="")
    if options.profile:
        print()
        profile(forward)
    if not options.own:
        official, x = Official(net), torch.rand(1, 3, height, width, device=device)
        turns = min(2, options.turns)
        exact = measure(lambda: official(x), turns, device, 1)
        print(f"{exact.ms:13.0f}{exact.gib:6.1f}{exact.ms / network.ms:7.2f}", end="", flush=True)
        with torch.autocast(device.type, torch.bfloat16):
            half = measure(lambda: official(x), turns, device, 1)
        print(f"{half.ms:10.0f}{half.ms / network.ms:7.2f}  scan: {official.scan_name}", end="")
    print(flush=True)
    return network.ms


def sweep(name: str, height: int, width: int, device: torch.device, options: argparse.Namespace) -> None:
    """Time a network with tiles and batches of several sizes."""
    from mambair_cli.networks import fuse_network

    net = make_network(CASES[name], device)
    sides = (options.tile,) if options.tile else (256,) if max(height, width) <= 256 else SWEPT_TILES
    plans = {
        str(plan): plan
        for plan in (plan_tiles(height, width, side, min(OVERLAP, side // 2)) for side in sides)
    }
    for plan, batches in product(plans.values(), SWEPT_BATCHES):
        if batches > len(plan):
            continue
        batch = -(-len(plan) // batches)
        with errors_printed(f"{name} {plan}, {batch} at once"):
            fused = fuse_network(net)
            assert fused is not None
            run = Replayed(fused) if device.type == "cuda" else fused
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                got = measure(forward_of(run, plan, batches, batch, device), options.turns, device)
            tiles = f"{batches}·{batch}·{plan.tile_width}×{plan.tile_height}"
            print(
                f"{name:11}{f'{width}×{height}':>10}{tiles:>16}{got.ms:10.1f} ms{got.gib:7.2f} GiB",
                flush=True,
            )


def time_rival(
    name: str,
    height: int,
    width: int,
    device: torch.device,
    turns: int,
    own: dict[tuple[str, tuple[int, int]], float],
) -> None:
    net, x = make_rival(name).to(device), torch.rand(1, 3, height, width, device=device)
    turns = min(2, turns)
    exact = measure(lambda: net(x), turns, device, 1)
    print(f"{name:14}{f'{width}×{height}':>10}{exact.ms:10.1f}{exact.gib:6.1f}", end="", flush=True)
    by_autocast = name.startswith("swinir")  # its masks are always float32
    if not by_autocast:
        net, x = net.bfloat16(), x.bfloat16()
    with torch.autocast(device.type, torch.bfloat16, enabled=by_autocast):
        half = measure(lambda: net(x), turns, device, 1)
    ratios = (
        f"{ours} {exact.ms / ms:.2f} ({half.ms / ms:.2f})"
        for (ours, size), ms in own.items()
        if size == (height, width)
    )
    print(f"{half.ms:10.1f}  {', '.join(ratios)}", flush=True)


def plan_as_shipped(
    config: Config, height: int, width: int, device: torch.device, options: argparse.Namespace
) -> tuple[Plan, int]:
    """Return the tiles of an image and how many are computed at once."""
    architecture = "MambaIRv2" if isinstance(config, MambaIRv2Config) else None
    plan = choose_tiles(options.tile, None, device.type, architecture, config).plan(height, width)
    return plan, options.batch or choose_batch(plan, config, device.type)


def restore(engine: Engine, image: np.ndarray, plan: Plan, batch: int) -> None:
    """Restore an image from memory, and bring the rows of the result back as 8-bit samples."""
    for rows in blend_rows(engine, image, plan, batch, 0):
        engine.buffers.fetch_samples(rows, np.dtype(np.uint8))


def forward_of(
    run: Callable[[Tensor, Tensor, int | None], Tensor],
    plan: Plan,
    batches: int,
    batch: int,
    device: torch.device,
) -> Callable[[], None]:
    """Return a function that runs a network on as many batches as an image has."""
    tiles = torch.rand(batch, 3, plan.tile_height, plan.tile_width, device=device)
    origin = torch.zeros(batch, 2, dtype=torch.int64)

    def forward() -> None:
        for _ in range(batches):
            run(tiles, origin, 0)

    return forward


def make_network(config: Config, device: torch.device) -> MambaIR | MambaIRv2:
    torch.manual_seed(0)
    net: Network = build_network(config).eval()
    assert isinstance(net, MambaIR | MambaIRv2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return net.to(device)


def measure(function: Callable[[], object], turns: int, device: torch.device, uncounted: int = 2) -> Measured:
    """Return the median time; on a GPU after uncounted turns, which compile and record graphs."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times, uncounted = [], uncounted if on_gpu else 0
    for _ in range(turns + uncounted):
        with synchronized(on_gpu):
            start = time.perf_counter()
            with synchronized(on_gpu):
                function()
            times.append(time.perf_counter() - start)
    gib = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    return Measured(1e3 * statistics.median(times[uncounted:]), gib)


def synchronized(on_gpu: bool) -> AbstractContextManager:
    """Wait for the GPU at the end."""

    @contextmanager
    def wait() -> Iterator[None]:
        yield
        torch.cuda.synchronize()

    return wait() if on_gpu else nullcontext()


def profile(function: Callable[[], object], rows: int = 24) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    kernels = sorted(
        ((event.self_device_time_total / 1e3, event.count, event.key) for event in recorded.key_averages()),
        reverse=True,
    )
    for milliseconds, count, name in kernels[:rows]:
        print(f"{'':11}{milliseconds:9.2f} ms {count:6}× {name[:90]}", flush=True)


if __name__ == "__main__":
    main()
