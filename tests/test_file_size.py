"""The bound of a file's size: no picture gives a larger file."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mambair_cli.images import FORMATS, Header, Writer, fit_header
from mambair_cli.runs.file_size import largest_file

SIZES = ((1, 1), (1, 1000), (1000, 1), (61, 97))  # height and width


def make_noise(shape: tuple[int, ...], dtype: str, two_valued: bool) -> np.ndarray:
    random = np.random.default_rng(0)
    if dtype == "float32":
        return random.random(shape, dtype=np.float32)
    top = np.iinfo(dtype).max
    noise = random.integers(0, 2, shape) * top if two_valued else random.integers(0, top + 1, shape)
    return noise.astype(dtype)


@pytest.mark.parametrize("kind", ["gray", "colour", "transparent", "deep", "many"])
@pytest.mark.parametrize("format", list(FORMATS))
def test_noise_gives_no_larger_file(format: str, kind: str) -> None:
    row = FORMATS[format]
    if (kind == "transparent" and not row.has_alpha) or (kind == "many" and not row.has_frames):
        return
    dtype, bands = row.dtypes[-1] if kind == "deep" else "uint8", 1 if kind == "gray" else 3
    frames = 3 if kind == "many" else 1
    qualities = [1, *(limit for limit, _ in row.noise)] if row.has_quality else [None]
    for height, width in SIZES:
        header = Header(width, height, bands, dtype, has_alpha=kind == "transparent", frames=frames)
        header = fit_header(header, format, "a file")
        for two_valued in (False, True):
            shape = (height * frames, width, header.samples_per_pixel)
            noise = make_noise(shape, header.dtype, two_valued)
            for quality in qualities:
                file = io.BytesIO()
                with Writer(file, header, format, quality, "a file") as writer:
                    writer.write(0, noise)
                    writer.finish()
                assert len(file.getvalue()) <= largest_file(header, format, quality), (shape, quality)


def test_the_bound_is_near_what_noise_takes() -> None:
    header = Header(400, 200, 3, "uint8", format="jpeg")
    assert largest_file(header, "jpeg", 75) < largest_file(header, "jpeg") < 1.2 * 400 * 200 * 3
    assert largest_file(header, "png") < 1.1 * 400 * 200 * 3


@pytest.mark.parametrize("format", list(FORMATS))
def test_the_dry_run_counts_metadata_and_quality(run: Any, weights: Path, format: str) -> None:
    noise = make_noise((24, 32, 3), "uint8", two_valued=True)
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("Description", "ä text of some length " * 2000)
    exif = Image.Exif()
    exif[0x010E] = "a picture " * 3000
    Image.fromarray(noise).save("in.png", pnginfo=texts, exif=exif, icc_profile=None)
    options = ("in.png", "--weights", weights / "same.safetensors", "--format", format, "-o", "out/")
    options = (*options, "--quality", 100) if FORMATS[format].has_quality else options
    code, out, _ = run("denoise", *options, "--dry-run", "--json")
    planned = next(event["disk"] for event in map(json.loads, out) if event["event"] == "plan_file")
    assert (code, run("denoise", *options, "--note")[0]) == (0, 0)
    (written,) = Path("out").iterdir()
    assert written.stat().st_size <= planned < 2 * 10**5
