"""Measure the cost of tiling: PSNR of tiled results against the untiled one, and seconds.

    python benchmarks/tiles.py FOLDER [--model NAME | --weights FILE] [--tiles 64 96 128] [--overlaps 8 16 32]

The images of FOLDER are inputs. They should be larger than the largest tile, and fit into memory untiled.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from mambair_cli.images import read_picture
from mambair_cli.restore.restorer import Restorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", default="upscale")
    parser.add_argument("--model", default="auto")
    parser.add_argument("--weights")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 96, 128, 192, 256])
    parser.add_argument("--overlaps", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--images", type=int, default=3, help="number of images to take from the folder [3]")
    options = parser.parse_args()

    paths = sorted(path for path in options.folder.iterdir() if path.is_file())[: options.images]
    images = [read_picture(path).pixels for path in paths]
    side = max(max(image.shape[:2]) for image in images)

    def run(tile: int, overlap: int) -> tuple[list[np.ndarray], float, float]:
        restorer = Restorer(
            task=options.task,
            model=options.model,
            weights=options.weights,
            tile=tile,
            overlap=overlap,
            seed=None,
        )
        start = time.perf_counter()
        results = [restorer(image.astype(np.float32) / np.iinfo(image.dtype).max) for image in images]
        seconds = time.perf_counter() - start
        redundancy = np.mean([restorer.plan(*image.shape[:2]).redundancy for image in images])
        return results, seconds, float(redundancy)

    whole, whole_seconds, _ = run(side, 0)
    print(f"{len(images)} images, untiled {whole_seconds:.1f} s")
    print("tile  overlap  against untiled   worst image   redundancy   time / untiled")
    for tile in options.tiles:
        for overlap in options.overlaps:
            if overlap >= tile:
                continue
            results, seconds, redundancy = run(tile, overlap)
            scores = [float_psnr(a, b) for a, b in zip(results, whole, strict=True)]
            print(
                f"{tile:4}  {overlap:7}  {np.mean(scores):12.2f} dB  {min(scores):9.2f} dB"
                f"  {redundancy:10.2f}  {seconds / whole_seconds:13.2f}",
                flush=True,
            )


def float_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the PSNR of floats in [0, 1]; rounding them to 8 bits first would hide the difference."""
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


if __name__ == "__main__":
    main()
