"""The quality of a JPEG file is told from its tables, and a hint is given where it is low."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mambair_cli.cli import main
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


@pytest.mark.parametrize(
    ("name", "quality", "arguments", "is_told"),
    [
        ("a.jpg", 60, (), True),
        ("a.jpg", 89, (), True),
        ("a.jpg", 90, (), False),
        ("a.jpg", 60, ("--real",), False),
        ("a.jpg", 60, ("--model", "tiny-x4"), False),
        ("a.png", 60, (), False),
    ],
)
def test_a_compressed_picture_is_told_that_there_are_models_for_it(
    name, quality, arguments, is_told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(encode(quality, format="PNG" if name == "a.png" else "JPEG"))
    common = ["upscale", name, "-o", "out.png", "--offline", "--device", "cpu", "--overwrite"]
    hint = f"{name} is a JPEG of quality {quality}: --real is made for such pictures"
    assert main([*common, *arguments]) == 0
    assert (f"mambair: {hint}\n" in capsys.readouterr().err) == is_told
    assert main([*common, *arguments, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (hint in json.loads(out.splitlines()[0])["notices"]) == is_told
    assert err == ""
