"""The quality of a JPEG file is told from its tables, and a hint is given where it is low."""

import io

import numpy as np
import pytest
from PIL import Image

from mambair_cli.images.jpeg_quality import estimate_jpeg_quality


def encode(quality=75, mode="RGB", format="JPEG", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, quality=quality, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality", [1, 5, 25, 50, 75, 89, 90, 95, 100])
def test_the_quality_is_that_it_was_saved_with(quality, mode):
    assert estimate_jpeg_quality(encode(quality, mode)) == quality


def test_tables_of_another_make_have_the_nearest_quality():
    tables = getattr(Image.open(io.BytesIO(encode(60))), "quantization", {})
    finer = {number: [max(1, step - step % 2) for step in table] for number, table in tables.items()}
    other = encode(quality=-1, qtables=finer)
    assert abs((estimate_jpeg_quality(other) or 0) - 60) <= 6


def test_what_is_no_jpeg_has_none(tmp_path):
    assert estimate_jpeg_quality(encode(format="PNG")) is None
    assert estimate_jpeg_quality(b"\xff\xd8\xff") is None
    assert estimate_jpeg_quality(b"") is None
    assert estimate_jpeg_quality(tmp_path / "nothing.jpg") is None
    (tmp_path / "a.jpg").write_bytes(encode(40))
    assert estimate_jpeg_quality(tmp_path / "a.jpg") == 40
