"""Compare the time of a run over a folder with that of the network alone on the same images.

python benchmarks/batch.py --images 200
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.batch import computing_of, run_jobs, settings_of
from mambair_cli.endpoints import Output
from mambair_cli.jobs import find_sources, name_targets
from mambair_cli.pipeline import perform_alone
from mambair_cli.restore import Restorer


def make_photographs(folder: Path, images: int, side: int) -> list[np.ndarray]:
    """Make pictures with edges and grain, as costly to compress as photographs are."""
    folder.mkdir()
    pictures = []
    for index in range(images):
        random = np.random.default_rng(index)
        coarse = random.integers(0, 256, (side // 16, side // 16, 3)).repeat(16, 0).repeat(16, 1)
        pictures.append((coarse + random.normal(0, 8, coarse.shape)).clip(0, 255).astype(np.uint8))
        Image.fromarray(pictures[-1]).save(folder / f"{index:04}.png")
    return pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of both by turns, over a part of the images each"
    )
    arguments = parser.parse_args()
    restorer = Restorer(task="upscale", scale=4, model="tiny-x4", device=arguments.device, offline=True)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(arguments.rounds):
            folder = Path(name, str(number))
            pictures = make_photographs(folder, arguments.images // arguments.rounds, arguments.side)
            restorer(pictures[0])  # what is done once
            network = time_of(lambda pictures=pictures: [restorer(picture) for picture in pictures])
            run = time_of(lambda folder=folder: restore_folder(folder, restorer))
            ratios.append(run / network)
            print(
                f"{len(pictures)} images of {arguments.side}×{arguments.side} on {restorer.device}: "
                f"network alone {network:.2f} s, run {run:.2f} s, {run / network:.3f} times",
                flush=True,
            )
    print(f"the run takes {statistics.median(ratios):.3f} times the network's time (median)")


def restore_folder(folder: Path, restorer: Restorer) -> None:
    jobs = name_targets(find_sources([str(folder)]), f"{folder}_results", "_x4")
    output = Output()
    settings = settings_of(computing_of(restorer), output)
    for outcome in run_jobs(jobs, output, settings, partial(perform_alone, restorer=restorer)):
        if outcome.error is not None:
            raise outcome.error


def time_of(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
