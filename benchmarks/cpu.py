"""Compare networks on the CPU in one run: seconds, ratios, peak memory, and how fast the scan is.

Each network is made with fresh weights in a separate process, since memory is counted by process, and the
processes take turns, so that other work on the machine affects all alike. Memory and threads are set up as in
the commands. SwinIR and RRDB come from spandrel (``pip install -e .[benchmarks]``; without torchvision
``pip install einops`` and ``pip install --no-deps spandrel``):

    python benchmarks/cpu.py [--side 128] [--threads 2] [--turns 3] [--networks v1-light swinir-light ...]
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rivals import make_rival

BASELINE = "swinir-light"
BUNDLED = "tiny-x4"
OFFICIAL = {
    "v1-light": "v1_light_x4",
    "v2-light": "v2_light_x4",
    "v1-classic": "v1_classic_x4",
    "u-net": "v1_unet_real_denoise",
}
FOREIGN = (BASELINE, "swinir-m", "rrdb")
QUICK = (BUNDLED, "v1-light", "v2-light", "u-net", BASELINE)
SHAPES = Path(__file__).parents[1] / "tests" / "fixtures" / "official_checkpoints.json.gz"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (BUNDLED, *OFFICIAL, *FOREIGN)
    parser.add_argument("--side", type=int, default=128, help="side of the input, in pixels [128]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="processes for each network [3]")
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--alone", action="store_true", help=argparse.SUPPRESS
    )  # one network, in this process
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measure(options.networks[0], options.side, options.threads)))
        return
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in options.networks}
    for turn in range(options.turns):
        for name in options.networks:
            if turn == 0 or name in QUICK:
                turns[name].append(in_a_process(name, options.side, options.threads))
    print(f"{options.side}×{options.side}, {options.threads} threads")
    print(
        f"{'network':14}{'seconds':>9}{'first':>8}{'ratio':>8}{'peak MiB':>10}{'scan, elements/s/core':>23}"
    )
    middle = {name: median_of(results) for name, results in turns.items()}
    for name, result in middle.items():
        ratio = f"{result['seconds'] / middle[BASELINE]['seconds']:.2f}" if BASELINE in middle else "-"
        scan = f"{result['elements_per_second_and_core']:.2e}" if result["scan_share"] else "-"
        print(
            f"{name:14}{result['seconds']:9.3f}{result['first']:8.2f}{ratio:>8}{result['peak_mib']:10.0f}"
            f"{scan:>23}"
        )


def in_a_process(name: str, side: int, threads: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--alone", "--networks", name]
    command += ["--side", str(side), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def median_of(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def measure(name: str, side: int, threads: int, passes: int = 5) -> dict[str, float]:
    """Time a network's first pass and later ones, of which the median counts, in this process."""
    from mambair_cli.system.process import settle_process

    settle_process()  # before PyTorch is imported
    import torch

    torch.set_num_threads(threads)
    net = make_network(name)
    scans = watch_scans()
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    arguments = {} if name in FOREIGN else {"seed": 0}
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + (passes if name in QUICK else 1)):
            begun = time.perf_counter()
            net(x, **arguments)
            seconds.append(time.perf_counter() - begun)
    scans = scans[len(scans) // len(seconds) :]  # those of the first pass compile
    scan_seconds = sum(scan for scan, _ in scans)
    return {
        "first": seconds[0],
        "seconds": statistics.median(seconds[1:]),
        "peak_mib": peak_memory(),
        "scan_share": scan_seconds / sum(seconds[1:]),
        "elements_per_second_and_core": sum(n for _, n in scans) / max(scan_seconds, 1e-9) / threads,
    }


def watch_scans() -> list[tuple[float, int]]:
    """Return a list that receives seconds and elements (path, channel, state, token) of each later scan."""
    from mambair_cli.kernels import cpu_scan

    scan, noted = cpu_scan.selective_scan, []

    def timed(u: Any, dt: Any, B: Any, C: Any, paths: Any, params: Any) -> Any:
        begun = time.perf_counter()
        y = scan(u, dt, B, C, paths, params)
        noted.append((time.perf_counter() - begun, u.shape[0] * u.shape[1] * params.A.numel()))
        return y

    cpu_scan.selective_scan = timed
    return noted


def make_network(name: str) -> Any:
    if name in FOREIGN:
        return make_rival(name)
    from mambair_cli.checkpoints.catalog import find_model
    from mambair_cli.checkpoints.hub import fetch
    from mambair_cli.checkpoints.load import infer_config, load_network
    from mambair_cli.networks import build_network

    if name == BUNDLED:
        return load_network(fetch(find_model(BUNDLED)).path)
    shapes = json.loads(gzip.decompress(SHAPES.read_bytes()))[OFFICIAL[name]]["shapes"]
    return build_network(infer_config({key: tuple(shape) for key, shape in shapes.items()})).eval()


def peak_memory() -> float:
    """Return the peak memory of this process, in MiB; 0 if the system does not tell."""
    if os.name == "nt":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main()
