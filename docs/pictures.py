"""Make the pictures of the README and of the model card from the small ones in this folder.

python docs/pictures.py
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mambair_cli import Restorer
from mambair_cli.quality.degrade import add_noise, imresize

HERE = Path(__file__).parent
SCALE = 4
CROP = (150, 150, 550, 450)  # of the README's picture: left, top, right, bottom
SIDE = 220  # pixels of a square of the model card
PLACE = (70, 110)  # left and top in the sharp picture of what the card shows
LABEL = 22  # pixels, height of a line of text


def make_readme_pictures() -> None:
    """Write docs/before.png and docs/after.png: enlarged by bicubic interpolation, and by mambair."""
    with Image.open(HERE / "kitten.jpg") as small:
        large = small.resize((SCALE * small.width, SCALE * small.height), Image.Resampling.BICUBIC)
        restored = Restorer("upscale", SCALE, model="tiny-real-x4")(np.asarray(small))
    large.crop(CROP).save(HERE / "before.png")
    Image.fromarray(restored).crop(CROP).save(HERE / "after.png")


def make_card() -> None:
    """Write docs/models.jpg: each built-in model on what it is for, and on what it is not for."""
    sharp, texture = (np.asarray(Image.open(HERE / name)) for name in ("kitten_sharp.png", "spices.png"))
    small = {
        scale: imresize(sharp[: 240 // scale * scale, : 240 // scale * scale], 1 / scale)
        for scale in (2, 3, 4)
    }
    saved = {scale: _save(image, 45) for scale, image in small.items()}
    white, coloured = _noisy(sharp, 25, 0), _save(_noisy(sharp, 25, 2), 80)
    rows = [
        ("tiny-x2", "a clean picture", small[2], "one saved as JPEG", saved[2]),
        ("tiny-x3", "a clean picture", small[3], "one saved as JPEG", saved[3]),
        ("tiny-x4", "a clean picture", small[4], "one saved as JPEG", saved[4]),
        ("tiny-real-x2", "one saved as JPEG", saved[2], "a clean picture (softer)", small[2]),
        ("tiny-real-x4", "one saved as JPEG", saved[4], "a clean picture (softer)", small[4]),
        ("tiny-denoise", "white noise", white, "a camera's noise, saved", coloured),
        (
            "tiny-real-denoise",
            "a camera's noise, saved",
            coloured,
            "texture under noise",
            _noisy(texture, 50, 0),
        ),
        ("tiny-dejpeg", "JPEG of quality 10", _save(sharp, 10), "noise", white),
    ]
    sheet = Image.new("RGB", (4 * SIDE + 30, len(rows) * (SIDE + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, use, good, misuse, bad) in enumerate(rows):
        top = number * (SIDE + LABEL)
        task = "upscale" if "-x" in name else name.rpartition("-")[2]
        restore = Restorer(task, model=name)
        for column, (text, image) in enumerate(((f"{name}: {use}", good), (f"not for: {misuse}", bad))):
            left = column * (2 * SIDE + 30)
            draw.text((left + 4, top + 5), text, fill="black", font_size=14)
            for place, shown in enumerate((image, restore(image))):
                sheet.paste(_show(shown, restore.info.scale), (left + place * SIDE, top + LABEL))
    sheet.save(HERE / "models.jpg", quality=92)


def _noisy(image: np.ndarray, sigma: float, blurred: int) -> np.ndarray:
    """Add noise, blurred by so many means of neighbours, as a camera's is that interpolates its colours."""
    noise = add_noise(np.zeros(image.shape, np.float32), 255) * sigma
    for _ in range(blurred):
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) / 2
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def _save(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _show(image: np.ndarray, scale: int) -> Image.Image:
    """Cut out the same place of an image of any size, and enlarge it so that its pixels are seen."""
    height = image.shape[0]
    part = height * 9 // 16
    left, top = (min(place * height // 320, height - part) for place in PLACE)
    cut = Image.fromarray(image[top : top + part, left : left + part])
    return cut.resize(
        (SIDE, SIDE), Image.Resampling.NEAREST if part * scale < SIDE else Image.Resampling.BICUBIC
    )


if __name__ == "__main__":
    make_readme_pictures()
    make_card()
