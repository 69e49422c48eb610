"""The quality of a JPEG file is read from its tables, and a hint is given where it is low."""

import io

import pytest
from pictures import encode, noise
from PIL import Image

from mambair_cli.images.jpeg_quality import read_jpeg_quality


def encoded(quality=75, mode="RGB", format="jpeg", **options):
    return encode(noise(16, 16, 3), format, mode, quality=quality, **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("quality", [1, 5, 25, 50, 75, 89, 90, 95, 100])
def test_the_quality_is_that_it_was_saved_with(quality, mode):
    assert read_jpeg_quality(encoded(quality, mode)) == quality


def test_tables_of_another_make_have_the_nearest_quality():
    tables = getattr(Image.open(io.BytesIO(encoded(60))), "quantization", {})
    finer = {number: [max(1, step - step % 2) for step in table] for number, table in tables.items()}
    other = encoded(quality=-1, qtables=finer)
    assert abs((read_jpeg_quality(other) or 0) - 60) <= 6


def test_what_is_no_jpeg_has_none(tmp_path):
    assert read_jpeg_quality(encoded(format="png")) is None
    assert read_jpeg_quality(b"\xff\xd8\xff") is None
    assert read_jpeg_quality(b"") is None
    assert read_jpeg_quality(tmp_path / "nothing.jpg") is None
    (tmp_path / "a.jpg").write_bytes(encoded(40))
    assert read_jpeg_quality(tmp_path / "a.jpg") == 40
