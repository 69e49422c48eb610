"""Time networks of the official shapes on a GPU, with random weights: milliseconds, memory, share of a floor.

An image in memory is restored by tiles of the default size. "network" is the time of the GPU alone, summed
over the batches; "image" is the time from the image to the blended result. With --plain, the network takes
part in float32, by PyTorch's kernels and the scan that is chosen for them, one tile after the other.

    python benchmarks/gpu.py [NETWORK ...] [--plain] [--profile] [--turns 5]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from mambair_cli import kernels
from mambair_cli.choice import OVERLAP, TILE_SIDE
from mambair_cli.engine import Engine, restore_rows
from mambair_cli.model import (
    Config,
    MambaIRConfig,
    MambaIRUNetConfig,
    MambaIRv2Config,
    Network,
    build_network,
)
from mambair_cli.restore import TILES_AT_ONCE, WHOLE_SIDE
from mambair_cli.tiling import plan_tiles

SIX = (6,) * 6
LIGHT = {"upscale": 4, "upsampler": "pixelshuffledirect"}
CLASSIC = {"upscale": 4, "upsampler": "pixelshuffle"}
SIZES = ((256, 256), (720, 1280))
EXPONENTIALS_PER_SECOND = 16 * 132 * 1.98e9  # an H200's: per clock and multiprocessor


class Case(NamedTuple):
    """A network, and what the authors' code takes for it on an H200 in float32, in milliseconds by size."""

    config: Config
    official: tuple[float, float]


CASES = {
    "v1-classic": Case(MambaIRConfig(180, SIX, 16, 360, **CLASSIC), (287, 4418)),
    "v1-light": Case(MambaIRConfig(60, (6,) * 4, 10, 72, cab="light", **LIGHT), (43.5, 624)),
    "v1-denoise": Case(MambaIRConfig(180, SIX, 16, 216), (204, 3136)),
    "v2-base": Case(MambaIRv2Config(174, SIX, SIX, 16, 348, 64, 128, **CLASSIC), (414, 6909)),
    "v2-light": Case(MambaIRv2Config(48, (5,) * 4, (4,) * 4, 8, 48, 32, 64, "gated", **LIGHT), (108, 1465)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(CASES)}; by default all of them")
    parser.add_argument("--plain", action="store_true", help="time PyTorch's own kernels, too")
    parser.add_argument("--profile", action="store_true", help="show where a batch spends its time")
    parser.add_argument("--turns", type=int, default=5, help="of which the median counts [5]")
    parser.add_argument("--tile", type=int, help="side of a tile, by default the device's")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, scan {choose_scan()}")
    print(
        f"{'network':11}{'input':>10}{'tiles':>12}{'network ms':>12}{'image ms':>10}"
        f"{'GiB':>6}{'official ms':>13}{'times':>7}{'scan floor':>12}"
    )
    for name in options.networks or CASES:
        net = make_network(CASES[name].config)
        for (height, width), official in zip(SIZES, CASES[name].official, strict=True):
            compare(name, net, height, width, official, options)


def compare(
    name: str, net: Network, height: int, width: int, official: float, options: argparse.Namespace
) -> None:
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    whole = max(height, width) <= WHOLE_SIDE["cuda"]
    side = options.tile or (WHOLE_SIDE if whole else TILE_SIDE)["cuda"]
    plan = plan_tiles(height, width, side, min(OVERLAP, side // 2))
    engine = Engine(net, torch.device("cuda"))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    restore = lambda: [None for _ in restore_rows(engine, image, plan, TILES_AT_ONCE["cuda"], 0)]  # noqa: E731 - it is what is timed
    seconds = time_of(restore, options.turns)
    memory = torch.cuda.max_memory_allocated() / 2**30
    batches = -(-len(plan) // TILES_AT_ONCE["cuda"])
    batch = -(-len(plan) // batches)
    tiles = torch.rand(batch, 3, plan.tile_height, plan.tile_width, device="cuda")

    def forward() -> None:
        for _ in range(batches):
            engine.run(tiles, torch.zeros(batch, 2, dtype=torch.int64), 0)

    with torch.inference_mode():
        network = time_of(forward, options.turns)
        floor = exponentials(net, batches * tiles[:, 0].numel()) / EXPONENTIALS_PER_SECOND
        print(
            f"{name:11}{f'{width}×{height}':>10}{f'{batches}·{batch}·{plan.tile_width}':>12}"
            f"{network * 1e3:12.1f}{seconds * 1e3:10.1f}{memory:6.2f}"
            f"{official:13.0f}{official / network / 1e3:7.2f}{floor / network:12.0%}",
            flush=True,
        )
        if options.profile:
            profile(forward)
        if options.plain:
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                plain = time_of(lambda: net(tiles[:1], seed=0), 3) * len(plan)
            print(
                f"{'':11}  PyTorch's own kernels in float32, tile by tile: {plain * 1e3:.0f} ms", flush=True
            )


def make_network(config: Config) -> Network:
    torch.manual_seed(0)
    net = build_network(config).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    return net


def choose_scan() -> str:
    return kernels.choose_backend(torch.device("cuda"))


def exponentials(net: Network, pixels: int) -> float:
    """Count those of the scans: one for each path, channel, state and pixel."""
    config = net.config
    assert not isinstance(config, MambaIRUNetConfig)
    paths = 4 if isinstance(config, MambaIRConfig) else 1
    return float(pixels) * sum(config.depths) * paths * config.d_inner * config.d_state


def time_of(function: Callable[[], object], turns: int) -> float:
    """Return the median seconds, after two turns that do not count but compile kernels and record graphs."""
    times = []
    for _ in range(turns + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def profile(function: Callable[[], object], rows: int = 14) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        function()
        torch.cuda.synchronize()
    kernels = sorted(
        ((event.self_device_time_total / 1e3, event.count, event.key) for event in recorded.key_averages()),
        reverse=True,
    )
    for milliseconds, count, name in kernels[:rows]:
        print(f"{'':11}{milliseconds:9.2f} ms {count:6}× {name[:70]}", flush=True)


if __name__ == "__main__":
    main()
