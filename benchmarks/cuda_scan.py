"""Time the scan in CUDA C++ with each way to divide the work, compared with the least time on an H200.

The least time is the limit for exponentials: one for each path, channel, state and token. The choice of
``choose_cut`` is printed first, then the others, the fastest first.

    python benchmarks/cuda_scan.py [--turns 5]
"""

import argparse
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from floor import H200
from gpu import measure

from mambair_cli.kernels import cuda_scan
from mambair_cli.kernels.cuda_scan import ScanShape

CHUNKS = (1, 11, 22, 44, 132)


class Case(NamedTuple):
    """Square tiles of a network.

    Attributes:
        network: Name of the network.
        tiles: Tiles at once.
        side: Side of a tile, in pixels.
        paths: 4 along rows and columns, or 1 that is sorted by label and has a dictionary.
        d: Channels.
        n: States of a channel.
    """

    network: str
    tiles: int
    side: int
    paths: int
    d: int
    n: int


CASES = (
    Case("v1-classic", 66, 136, 4, 360, 16),
    Case("v1-classic", 33, 132, 4, 360, 16),
    Case("v1-classic", 1, 256, 4, 360, 16),
    Case("v1-denoise", 33, 132, 4, 216, 16),
    Case("v1-light", 66, 132, 4, 72, 10),
    Case("v1-light", 1, 256, 4, 72, 10),
    Case("v2-base", 16, 184, 1, 352, 16),
    Case("v2-light", 32, 184, 1, 48, 8),
)
TOKENS = 64  # rows of a dictionary


def main() -> None:
    """Parse the command line, and print a line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    device = torch.device("cuda")
    print(torch.cuda.get_device_name(device))
    for case in CASES:
        print(describe(case, device, turns), flush=True)


def describe(case: Case, device: torch.device, turns: int) -> str:
    """Time a case with every cut, and return a line about it."""
    length = case.side**2
    work = case.tiles * case.paths, length, case.d, case.n
    chosen = cuda_scan.choose_cut(*work, cuda_scan.multiprocessors(device))
    operands = make_operands(case, device)
    times = {
        (shape, chunks): measure(
            lambda shape=shape, chunks=chunks: cuda_scan.scan_paths(**operands, shape=shape, chunks=chunks),
            turns,
            device,
        ).ms
        for shape, chunks in {chosen, *cuts_of(case)}
    }
    least = 1e3 * math.prod(work) / H200.exponentials
    own = times.pop(chosen)
    others = ", ".join(
        f"{ms:.3f} ({name_cut(*cut)})" for cut, ms in sorted(times.items(), key=lambda item: item[1])[:4]
    )
    return (
        f"{case.network:11} {case.tiles:3} of {case.side}×{case.side}: least {least:.3f} ms, "
        f"{own:.3f} ({name_cut(*chosen)}), {least / own:.0%}; others {others}"
    )


def cuts_of(case: Case) -> Iterator[tuple[ScanShape, int]]:
    """Yield all cuts of ``COSTS``, with several numbers of chunks if one would leave the card idle."""
    for cost in cuda_scan.COSTS:
        for warps in cost.warps:
            shape = ScanShape(cost.lanes, cost.steps, threads=32 * warps, blocks=cost.threads // (32 * warps))
            for chunks in CHUNKS if case.tiles == 1 or case.paths == 1 else CHUNKS[:1]:
                yield shape, chunks


def make_operands(case: Case, device: torch.device) -> dict[str, Any]:
    """Draw the operands of ``scan_paths``."""
    generator = torch.Generator(device).manual_seed(0)
    b, length, k, d, n = case.tiles, case.side**2, case.paths, case.d, case.n

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, device=device) - 0.5

    u, steps, projected = draw(b, length, d), draw(b, length, k, d).abs(), draw(b, length, k, 2 * n)
    if k == 4:
        along = torch.arange(length, dtype=torch.int32, device=device)
        across = along.view(case.side, case.side).T.reshape(-1)
        paths = torch.stack([along, across, along.flip(0), across.flip(0)])
        labels = dictionary = None
    else:
        paths = draw(b, 1, length).argsort(-1).int()
        labels = (draw(b, length) * TOKENS + TOKENS / 2).int()
        dictionary = draw(TOKENS, n)
    tokens = {"u": u.half(), "steps": steps.half(), "projected": projected.half(), "paths": paths}
    A, D = -16 * draw(k, d, n).abs(), draw(k, d)
    return tokens | {"A": A, "D": D, "labels": labels, "dictionary": dictionary}


def name_cut(shape: ScanShape, chunks: int) -> str:
    """Describe a cut briefly."""
    lanes = "1 lane" if shape.lanes == 1 else f"{shape.lanes} lanes"
    return f"{lanes}, {shape.threads} threads" + (f", {chunks} chunks" if chunks > 1 else "")


if __name__ == "__main__":
    main()
