"""Make the README's pictures from docs/cat.png: a crop enlarged by bicubic interpolation, and by mambair.

python docs/pictures.py
"""

import tempfile
from pathlib import Path

from PIL import Image

from mambair_cli.cli import main

HERE = Path(__file__).parent
CROP = (50, 22, 120, 82)  # left, top, right, bottom in the small picture
SCALE = 4


def make_pictures() -> None:
    """Write docs/before.png and docs/after.png."""
    corners = tuple(SCALE * corner for corner in CROP)
    with Image.open(HERE / "cat.png") as small, tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "cat_x4.png")
        main(["upscale", str(HERE / "cat.png"), "-s", str(SCALE), "-o", str(target), "--model", "tiny-x4"])
        large = small.resize((SCALE * small.width, SCALE * small.height), Image.Resampling.BICUBIC)
        large.crop(corners).save(HERE / "before.png")
        with Image.open(target) as restored:
            restored.crop(corners).save(HERE / "after.png")


if __name__ == "__main__":
    make_pictures()
