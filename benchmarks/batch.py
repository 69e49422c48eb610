"""Compare the time of a run over a folder with that of the network alone on the same images.

    python benchmarks/batch.py --images 200
    python benchmarks/batch.py --images 40 --rounds 2 --size 1280x720 --network v1-classic

On a GPU, one more run measures how long the GPU is idle between its first and its last kernel.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from mambair_cli.images.discovery import find_sources
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.executors.this_process import ThisProcess
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import run_jobs


def make_photographs(folder: Path, images: int, width: int, height: int) -> list[np.ndarray]:
    """Make pictures with edges and grain, which take as long to compress as photographs."""
    folder.mkdir()
    pictures = []
    for index in range(images):
        random = np.random.default_rng(index)
        coarse = random.integers(0, 256, (height // 16, width // 16, 3)).repeat(16, 0).repeat(16, 1)
        pictures.append((coarse + random.normal(0, 8, coarse.shape)).clip(0, 255).astype(np.uint8))
        Image.fromarray(pictures[-1]).save(folder / f"{index:04}.png")
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument(
        "--size", default="256x256", help="size of an image, multiples of 16 pixels [256x256]"
    )
    parser.add_argument("--network", help="a network of gpu.py, with random weights; by default tiny-x4")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of both, in turn, each over a part of the images"
    )
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    images = max(1, arguments.images // arguments.rounds)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        restorer = make_restorer(arguments.network, arguments.device, Path(name))
        for number in range(arguments.rounds):
            folder = Path(name, str(number))
            pictures = make_photographs(folder, images, width, height)
            restorer(pictures[0])  # work that is done only once
            network = time_of(lambda pictures=pictures: [restorer(picture) for picture in pictures])
            run = time_of(lambda folder=folder: restore_folder(folder, restorer))
            ratios.append(run / network)
            print(
                f"{len(pictures)} images of {width}×{height} on {restorer.device}: "
                f"network alone {network:.2f} s, run {run:.2f} s, {run / network:.3f} times",
                flush=True,
            )
        print(f"the run takes {statistics.median(ratios):.3f} times the network's time (median)")
        if restorer.device.type == "cuda":
            folder = Path(name, "profiled")
            make_photographs(folder, images, width, height)
            idle = idle_share(lambda: restore_folder(folder, restorer))
            print(f"the GPU is idle {idle:.1%} of the time between its first and its last kernel")


def make_restorer(network: str | None, device: str, folder: Path) -> Restorer:
    if network is None:
        return Restorer(task="upscale", scale=4, model="tiny-x4", device=device, offline=True)
    from gpu import CASES, make_network  # in this script's folder, which may not be that of its importer

    net, weights = make_network(CASES[network], torch.device("cpu")), folder / "random.safetensors"
    save_file(net.state_dict(), weights)
    task, scale = ("upscale", net.info.scale) if net.info.scale > 1 else ("denoise", 1)
    return Restorer(task=task, scale=scale, weights=weights, device=device)


def idle_share(function: Callable[[], object]) -> float:
    """Return the share of the time between the first and the last kernel in which no kernel runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as recorded:
        function()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in recorded.events() or ()
        if event.device_type.name == "CUDA"
    )
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - busy / (reached - spans[0][0])


def restore_folder(folder: Path, restorer: Restorer) -> None:
    jobs = name_targets(find_sources([str(folder)]), f"{folder}_results", "_x4")
    perform = ThisProcess(restorer).perform
    for outcome in run_jobs(jobs, WriteOptions(), RunPolicy(), Fingerprint.of(restorer), perform):
        if outcome.error is not None:
            raise outcome.error


def time_of(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
