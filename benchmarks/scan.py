"""Compare the speed of the scan's CPU backends: elements per second and core, and the ratio to ``reference``.

An element is one state of one channel at one position of one path. The backends take turns, and the median of
several turns counts, so that other work on the machine affects all alike.

    python benchmarks/scan.py [--turns 7]
"""

import argparse
import statistics
import time
from typing import NamedTuple, get_args

import torch

from mambair_cli.kernels import NEED_GPU, Backend, ScanParams, selective_scan

PATHS = 4


class Size(NamedTuple):
    """The scan of a network, over the tokens of a small tile."""

    network: str
    d: int
    n: int
    r: int
    tokens: int


SIZES = (Size("classic", d=360, n=16, r=12, tokens=2048), Size("light", d=72, n=10, r=4, tokens=4096))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=7, help="turns of each backend; the median counts [7]")
    turns = parser.parse_args().turns
    backends = [backend for backend in get_args(Backend) if backend not in NEED_GPU]
    all_threads = torch.get_num_threads()
    print(f"{'network':10}{'d':>5}{'n':>4}{'threads':>9}  {'backend':12}{'elements/s/core':>16}{'ratio':>8}")
    for size in SIZES:
        operands = make_operands(size)
        for threads in sorted({1, all_threads}):
            torch.set_num_threads(threads)
            seconds = time_in_turns(backends, operands, turns)
            elements = PATHS * size.tokens * size.d * size.n
            for backend in backends:
                print(
                    f"{size.network:10}{size.d:5}{size.n:4}{threads:9}  {backend:12}"
                    f"{elements / seconds[backend] / threads:16.2e}"
                    f"{seconds['reference'] / seconds[backend]:8.1f}"
                )


def make_operands(size: Size) -> tuple:
    """Make operands with the steps of trained networks, from slow channels to fast ones."""
    torch.manual_seed(0)
    tokens, d, n, r = size.tokens, size.d, size.n, size.r
    paths = torch.stack([torch.randperm(tokens) for _ in range(PATHS)]).int()
    params = ScanParams(
        dt_weight=torch.randn(PATHS, d, r) / r**0.5,
        dt_bias=torch.empty(PATHS, d).uniform_(-7, -1),
        A=-torch.arange(1.0, n + 1).expand(PATHS, d, n),
        D=torch.ones(PATHS, d),
    )
    u, dt = torch.randn(1, tokens, d), torch.randn(1, tokens, PATHS, r)
    B, C = torch.randn(2, 1, tokens, PATHS, n)
    return u, dt, B, C, paths, params


def time_in_turns(backends: list[Backend], operands: tuple, turns: int) -> dict[Backend, float]:
    """Return the median seconds of each backend, after a first turn that is not counted."""
    seconds: dict[Backend, list[float]] = {backend: [] for backend in backends}
    with torch.inference_mode():
        for _ in range(turns + 1):
            for backend in backends:
                start = time.perf_counter()
                selective_scan(*operands, backend=backend)
                seconds[backend].append(time.perf_counter() - start)
    return {backend: statistics.median(times[1:]) for backend, times in seconds.items()}


if __name__ == "__main__":
    main()
