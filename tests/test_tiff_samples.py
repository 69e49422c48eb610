"""Alpha by which colours are multiplied, and negatives, in TIFF files of every type of sample."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mambair_cli.errors import ImageError
from mambair_cli.images import open_picture, read_picture

TYPES = {np.uint8: 255, np.uint16: 65535, np.float32: 1, np.float64: 1}
PREMULTIPLIED, STRAIGHT, MASK = "assocalpha", "unassalpha", "unspecified"


def save(samples: list[float], dtype: Any, **options: Any) -> bytes:
    """Return a file of one colour: shares of the largest sample."""
    pixels = np.full((8, 8, len(samples)), samples) * TYPES[dtype]
    pixels = np.round(pixels) if TYPES[dtype] > 1 else pixels
    options = {"photometric": "rgb", "planarconfig": "contig", **options}
    if options["planarconfig"] == "separate":
        pixels = np.moveaxis(pixels, 2, 0).copy()
    file = io.BytesIO()
    tifffile.imwrite(file, (pixels if len(samples) > 1 else pixels[..., 0]).astype(dtype), **options)
    return file.getvalue()


def read(data: bytes) -> list[float]:
    """Return the samples of a pixel, as shares of the largest one."""
    with open_picture(data) as reader:
        pixel = reader.read(0, 8)[4, 4]
    return (pixel / TYPES[pixel.dtype.type]).tolist()


@pytest.mark.parametrize(
    ("stored", "kinds", "read_as"),
    [
        ([0.2, 0.1, 0, 0.4], [PREMULTIPLIED], [0.5, 0.25, 0, 0.4]),
        ([0.2, 0.1, 0, 0.4], [STRAIGHT], [0.2, 0.1, 0, 0.4]),
        ([0.2, 0.1, 0, 0], [PREMULTIPLIED], [0, 0, 0, 0]),
        ([0.2, 0.1, 0, 0.8, 0.4], [MASK, PREMULTIPLIED], [0.5, 0.25, 0, 0.4, 0.8]),
        ([0.2, 0.1, 0, 0.4, 0.8], [PREMULTIPLIED, MASK], [0.5, 0.25, 0, 0.4, 0.8]),
        ([0.2, 0.1, 0, 0.8, 0.4], [STRAIGHT, PREMULTIPLIED], [0.2, 0.1, 0, 0.8, 0.4]),
        ([0.2, 0.1, 0, 0.4, 0.8], [PREMULTIPLIED, STRAIGHT], [0.5, 0.25, 0, 0.4, 0.8]),
        ([0.2, 0.4], [PREMULTIPLIED], [0.5, 0.4]),
    ],
)
@pytest.mark.parametrize("dtype", TYPES)
def test_colours_are_divided_by_the_alpha_that_is_read_and_masks_are_not(
    dtype: Any, stored: list[float], kinds: list[str], read_as: list[float]
) -> None:
    gray = {"photometric": "minisblack"} if len(stored) == 2 else {}
    for layout in ({}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}):
        data = save(stored, dtype, extrasamples=kinds, **gray, **layout)
        np.testing.assert_allclose(read(data), read_as, atol=0.006 if dtype is np.uint8 else 3e-5)
    if not gray:
        data = save(stored, dtype, extrasamples=kinds, planarconfig="separate")
        np.testing.assert_allclose(read(data), read_as, atol=0.006 if dtype is np.uint8 else 3e-5)


def test_every_share_of_every_level_comes_back() -> None:
    colours, alpha = np.meshgrid(np.arange(256), np.arange(256))
    samples = np.stack([np.minimum(colours, alpha)] * 3 + [alpha], axis=2).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, samples, photometric="rgb", extrasamples=[PREMULTIPLIED])
    after = read_picture(file.getvalue())
    exact = np.minimum(colours, alpha) * 255 / np.maximum(alpha, 1)
    assert np.abs(after.pixels - exact[..., None]).max() <= 0.5 + 1e-4
    assert after.alpha is not None
    np.testing.assert_array_equal(after.alpha, alpha)


def test_inks_are_divided_before_they_become_colours() -> None:
    inks, more = [0.0, 0.2, 0.1, 0.0], {"photometric": "separated"}
    straight = save([0.0, 0.5, 0.25, 0.0, 0.4], np.uint8, extrasamples=[STRAIGHT], **more)
    data = save([*inks, 0.4], np.uint8, extrasamples=[PREMULTIPLIED], **more)
    np.testing.assert_allclose(read(data), read(straight), atol=0.01)


@pytest.mark.parametrize("kind", ["B", "I"])
def test_kinds_of_samples_are_read_whatever_their_type(kind: str) -> None:
    data = bytearray(save([0.2, 0.1, 0, 0.4], np.uint8, extrasamples=[PREMULTIPLIED]))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        at = file.pages.first.tags[338].offset
    struct.pack_into(f"<HI{kind}", data, at + 2, {"B": 1, "I": 4}[kind], 1, 1)
    np.testing.assert_allclose(read(bytes(data)), [0.5, 0.25, 0, 0.4], atol=0.006)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("stored", "kinds", "read_as"),
    [
        ([0.2], [], [0.8]),
        ([0.2, 0.4], [STRAIGHT], [0.8, 0.4]),
        ([0.2, 0.4], [MASK], [0.8, 0.4]),
        ([0.2, 0.4], [PREMULTIPLIED], [0.5, 0.4]),
    ],
)
def test_a_negative_becomes_a_positive(
    dtype: Any, stored: list[float], kinds: list[str], read_as: list[float], tmp_path: Path
) -> None:
    path = tmp_path / "in.tif"
    path.write_bytes(save(stored, dtype, photometric="miniswhite", extrasamples=kinds or None))
    np.testing.assert_allclose(read(path.read_bytes()), read_as, atol=0.004)
    first = read_picture(path).pixels[0, 0, 0]
    np.testing.assert_allclose(first / TYPES[first.dtype.type], read_as[0], atol=0.004)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_negative_and_a_positive_are_no_pages_of_one_document(dtype: Any) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for photometric in ("miniswhite", "minisblack"):
            writer.write(np.zeros((8, 8), dtype), photometric=photometric, metadata=None)
    with pytest.raises(ImageError, match="its 2 pages differ in size or kind"), open_picture(file.getvalue()):
        pass
