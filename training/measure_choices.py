"""Measure what a wrong choice of the model costs: ``upscale`` by a look, against --clean and --real.

    python training/measure_choices.py --photographs DIR ... --graphics DIR ... --scale 4 --count 500

Crops of pictures that the estimator was not trained on are reduced, a fifth of them is left clean, and the
others get noise, or are saved as JPEG, or both. Files are taken for PNG: the pixels alone tell.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from make_looks import Maker, Saved, add_folders, find_files, send
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.inspection.look import look_at_pixels
from mambair_cli.inspection.need import find_need
from mambair_cli.quality.degrade import imresize
from mambair_cli.quality.metrics import psnr

SIDES = (56, 120)  # of the reduced crops, in pixels


def cut(maker: Maker, files: list[Path], scale: int) -> np.ndarray | None:
    """Cut a crop from one of the files; None where it is too small."""
    random = maker.random
    side = int(random.integers(*SIDES)) * scale
    picture = Image.open(files[random.integers(len(files))]).convert("RGB")
    if min(picture.size) < side:
        return None
    left, top = (int(random.integers(length - side + 1)) for length in picture.size)
    return np.asarray(picture.crop((left, top, left + side, top + side)))


def damage(maker: Maker, picture: np.ndarray) -> tuple[np.ndarray, bool]:
    """Leave a fifth of the pictures clean; add noise to others, or save them, or both."""
    random = maker.random
    pixels, chance = np.clip(picture, 0, 255).astype(np.float32), random.random()
    if 0.2 <= chance < 0.65:
        noise = maker.draw_noise(pixels)
        sigma = np.exp(random.uniform(np.log(2), np.log(12)))
        pixels = np.clip(pixels + noise / noise.std() * sigma, 0, 255)
    if chance >= 0.5:
        saved = Saved(int(random.integers(50, 93)), int(random.choice([0, 2])), False, (0, 0))
        pixels = send(pixels, [saved], 1, Image.Resampling.BICUBIC)
    return np.rint(pixels).astype(np.uint8), chance >= 0.2


def main() -> None:
    """Make pictures, restore each by both models, and print what the choices cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folders(parser)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--count", type=int, default=500)
    arguments = parser.parse_args()
    scale = arguments.scale
    restorers = {
        name: Restorer(scale=scale, model=f"tiny-{word}x{scale}", device="cpu", offline=True)
        for name, word in (("clean", ""), ("real", "real-"))
    }
    groups = [find_files(each, held_out=True) for each in (arguments.photographs, arguments.graphics)]
    maker = Maker(groups[0], groups[1], seed=30)
    rows = []
    while len(rows) < arguments.count:
        truth = cut(maker, groups[maker.random.random() < 0.25], scale)
        if truth is None:
            continue
        picture, is_damaged = damage(maker, imresize(truth, 1 / scale))
        with torch.inference_mode():
            quality = {
                name: psnr(restore(picture), truth, border=scale, luma=True)
                for name, restore in restorers.items()
            }
        pixels = picture / np.float32(255)
        look = look_at_pixels(pixels)
        kind = "clean" if find_need(look, None).kind == "clean" else "real"
        rows.append((is_damaged, quality[kind], quality["clean"], quality["real"]))
    damaged, chosen, clean, real = np.array(rows).T
    for name, some in (("clean", damaged == 0), ("damaged", damaged == 1)):
        other = clean if name == "clean" else real
        lost = (other - chosen)[some]
        print(
            f"{name}: {some.sum():.0f} pictures, chosen {chosen[some].mean():.2f} dB, always clean "
            f"{clean[some].mean():.2f}, always real {real[some].mean():.2f}; against the obvious choice "
            f"{lost.mean():+.3f} dB lost, at most {lost.max():.2f}, more than 0.5 in {(lost > 0.5).sum()}"
        )


if __name__ == "__main__":
    main()
