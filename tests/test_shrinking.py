"""A file that becomes shorter while it is read costs itself alone: nothing ends the process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pictures import encode, noise
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images import open_picture
from mambair_cli.images.file_bytes import FileBytes
from mambair_cli.images.tiff_directories import read_header

FORMATS = ("png", "jpeg", "tiff", "webp", "gif", "avif", "bmp")

# Opens a file, shortens it at a moment, reads on, and says how that ended.
SCRIPT = """
import os, sys
from pathlib import Path
from mambair_cli.errors import ImageError
from mambair_cli.images import decoding, open_picture, vips_image

path, moment = Path(sys.argv[1]), sys.argv[2]

def shorten_after(place, name, number):
    whole, calls = getattr(place, name), []

    def call(*arguments, **options):
        result = whole(*arguments, **options)
        calls.append(name)
        if len(calls) == number:
            os.truncate(path, 100)
        return result

    setattr(place, name, call)

if moment == "known":  # once its format is
    shorten_after(decoding, "identify", 1)
elif moment.startswith("loaded"):  # by libvips, so many times
    shorten_after(vips_image.VipsImage, "_load", int(moment[-1]))
try:
    with open_picture(path) as reader:
        if moment == "opened":
            os.truncate(path, 100)
        reader.read(0, reader.header.height * reader.header.frames)
except ImageError as error:
    print(error)
"""


def save(path: Path, format: str) -> None:
    frames = [Image.fromarray(noise(400, 500, 3, seed=seed)) for seed in range(2)]
    several: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(path, format, **(several if format in ("tiff", "webp", "gif") else {}))


@pytest.mark.parametrize("moment", ["known", "loaded 1", "loaded 2", "loaded 3", "opened"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_becomes_shorter_ends_no_process(tmp_path: Path, format: str, moment: str) -> None:
    path = tmp_path / "a"
    save(path, format)
    command = [sys.executable, "-c", SCRIPT, str(path), moment]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or done.stdout.startswith(f"cannot read {path}: it")
    assert len(done.stdout.splitlines()) <= 1


def test_bytes_of_a_file_are_what_those_in_memory_are(tmp_path: Path) -> None:
    data = encode(noise(40, 50, 3), "png")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        bytes_of = FileBytes(file)
        assert (len(bytes_of), bytes(bytes_of)) == (len(data), data)
        for place in (0, 7, len(data) - 1, -1, -len(data)):
            assert bytes_of[place] == data[place]
        cuts = [slice(None), slice(3, 9), slice(9, 3), slice(-12, None), slice(len(data) - 2, len(data) + 9)]
        for cut in [*cuts, slice(len(data) + 1, len(data) + 5), slice(None, 0), slice(0, 20000)]:
            assert bytes_of[cut] == data[cut]
        for place in (len(data), -len(data) - 1):
            with pytest.raises(IndexError):
                bytes_of[place]
        os.truncate(path, 10)
        with pytest.raises(ImageError, match=r"a\.png: it changes while it is read; try again"):
            bytes_of[len(data) - 40 :]


def test_a_large_file_is_not_read_for_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2000, 1000, 3), np.uint8), photometric="rgb")
    taken: list[int] = []
    read = FileBytes._read

    def count(self: FileBytes, start: int, length: int) -> bytes:
        taken.append(length)
        return read(self, start, length)

    monkeypatch.setattr(FileBytes, "_read", count)
    with open_picture(path) as reader:
        assert reader.header.frames == 1
    assert 0 < sum(taken) < 20_000
    with path.open("rb") as file:
        assert read_header(FileBytes(file)) == read_header(path.read_bytes())


def test_an_empty_file_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="it is empty"), open_picture(tmp_path / "a.png"):
        pass
