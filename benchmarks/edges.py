"""Compare results that are held to their input with those of bare networks: flat colours, PSNR and time.

    python benchmarks/edges.py [--truth FOLDER] [--turns 5]

FOLDER holds true images, on which the PSNR of every built-in model is measured.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np

from mambair_cli.checkpoints.catalog import load_catalog
from mambair_cli.quality.evaluate import average, choose_protocol, measure
from mambair_cli.quality.pairs import find_pairs
from mambair_cli.restore.restorer import Restorer

LEVELS = {"upscale": None, "denoise": 25, "dejpeg": 10}
SIDE = 256  # of the image that is timed, in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()

    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    print("each twice: bare, held")
    for model in load_catalog():
        if not model.bundled:
            continue
        scale = model.scale if model.task == "upscale" else None
        pair = [
            Restorer(model.task, scale, model=model.name, device="cpu", bare=bare) for bare in (True, False)
        ]
        worst = [_worst_flat(restorer) for restorer in pair]
        print(f"{model.name:14} flat colours, worst of 255: {worst[0]:3} {worst[1]:3}", flush=True)
        if options.truth is not None:
            protocol = choose_protocol(model.task, model.scale, LEVELS[model.task])
            pairs = find_pairs(options.truth)
            # White noise, as the papers add it, leaves the range from 0 to 1.
            restores = [lambda image, one=one: one.restore(image, any_range=True)[0] for one in pair]
            scores = [average(list(measure(pairs, protocol, restore))) for restore in restores]
            print(f"{'':14} PSNR: {scores[0].psnr:.4f} {scores[1].psnr:.4f} dB", flush=True)
        seconds: list[list[float]] = [[], []]
        for _, (restorer, kept) in product(range(options.turns), zip(pair, seconds, strict=True)):
            start = time.process_time()
            restorer(image)
            kept.append(time.process_time() - start)
        bare, held = map(np.median, seconds)
        print(
            f"{'':14} {SIDE}×{SIDE}: {bare:.2f} {held:.2f} s of processor time, {held / bare:.3f}", flush=True
        )


def _worst_flat(restorer: Restorer) -> int:
    """Return the largest error of any sample of a flat image, over a grid of colours."""
    worst = 0
    for colour in product((0, 128, 255), repeat=3):
        image = np.full((12, 16, 3), colour, np.uint8)
        worst = max(worst, int(np.abs(restorer(image).astype(int) - colour).max()))
    return worst


if __name__ == "__main__":
    main()
