"""Compare the time of a run over a folder with that of the network alone on the same images.

python benchmarks/batch.py --images 200
"""

import argparse
import tempfile
import time
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
    arguments = parser.parse_args()
    restorer = Restorer(task="upscale", scale=4, model="tiny-x4", device=arguments.device, offline=True)
    with tempfile.TemporaryDirectory() as name:
        pictures = make_photographs(Path(name, "photos"), arguments.images, arguments.side)
        restorer(pictures[0])  # what is done once
        begun = time.perf_counter()
        for picture in pictures:
            restorer(picture)
        network = time.perf_counter() - begun

        jobs = name_targets(find_sources([f"{name}/photos"]), f"{name}/results", "_x4")
        begun = time.perf_counter()
        output = Output()
        outcomes = list(
            run_jobs(
                jobs,
                output,
                settings_of(computing_of(restorer), output),
                partial(perform_alone, restorer=restorer),
            )
        )
        run = time.perf_counter() - begun
    failed = sum(outcome.error is not None for outcome in outcomes)
    print(f"{len(outcomes)} images of {arguments.side}×{arguments.side}, {failed} failed, {restorer.device}")
    print(f"network alone {network:8.2f} s, {network / len(outcomes) * 1e3:8.1f} ms an image")
    print(f"run           {run:8.2f} s, {run / len(outcomes) * 1e3:8.1f} ms an image")
    print(f"the run takes {run / network:.3f} times the network's time")


if __name__ == "__main__":
    main()
