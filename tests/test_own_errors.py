"""Errors of a block that writes a file: those of the file are reported as such, others stay as they are."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from file_limit import limited_files
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images.source import Source
from mambair_cli.runs.job_files import open_target
from mambair_cli.runs.jobs import Job
from mambair_cli.system.files import open_atomic, open_stream

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")

Open = Callable[[Path], AbstractContextManager[BinaryIO]]
SOURCE = Source(Path("in.png"))


@contextmanager
def open_result(folder: Path) -> Iterator[BinaryIO]:
    """Open a job's result that has no path, as a server has it."""
    with (
        (folder / "result").open("w+b") as result,
        open_target(Job(SOURCE, None, result=result)) as file,
    ):
        yield file


@contextmanager
def open_open_file(folder: Path) -> Iterator[BinaryIO]:
    with (
        (folder / "open").open("wb") as stream,
        open_stream(Path(f"/dev/fd/{stream.fileno()}")) as file,
    ):
        yield file


WAYS_TO_OPEN: dict[str, Open] = {
    "file": lambda folder: open_atomic(folder / "out.bin"),
    "replaced file": lambda folder: open_atomic(folder / "out.bin", overwrite=True),
    "file of a job": lambda folder: open_target(Job(SOURCE, folder / "new/out.bin")),
    "device": lambda folder: open_stream(Path("/dev/null")),
    "open file": open_open_file,
    "standard output": lambda folder: open_target(Job(SOURCE, None)),
    "result of a server": open_result,
    "result in memory": lambda folder: open_target(Job(SOURCE, None, result=io.BytesIO())),
}
OTHERS = [
    FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "missing.png"),
    FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), "another"),
    ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "another"),
]


@pytest.mark.parametrize("way", WAYS_TO_OPEN)
@pytest.mark.parametrize("other", OTHERS, ids=lambda error: type(error).__name__)
def test_an_error_of_something_else_is_not_blamed_on_the_file(
    way: str, other: OSError, tmp_path: Path
) -> None:
    def write() -> None:
        with WAYS_TO_OPEN[way](tmp_path) as file:
            file.write(b"half")
            raise other

    with pytest.raises(type(other)) as error:
        write()
    assert error.value is other
    assert not (tmp_path / "out.bin").exists()


def save_picture(file: BinaryIO) -> None:
    Image.effect_noise((300, 300), 90).save(file, "PNG")


def flush(file: BinaryIO) -> None:
    file.write(bytes(5000))
    file.flush()


WAYS_TO_WRITE: dict[str, Callable[[BinaryIO], object]] = {
    "write": lambda file: file.write(bytes(100_000)),
    "flush": flush,
    "cut": lambda file: file.truncate(100_000),
    "picture": save_picture,
    "at the end": lambda file: file.write(bytes(5000)),  # of which all stays in the buffer until then
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
@pytest.mark.parametrize("place", [way for way in WAYS_TO_OPEN if way != "result in memory"])
def test_an_error_of_writing_is_reported_as_one_of_the_file(way: str, place: str, tmp_path: Path) -> None:
    def write() -> None:
        with WAYS_TO_OPEN[place](tmp_path) as file:
            WAYS_TO_WRITE[way](file)

    with limited_files(1000), pytest.raises(ImageError) as error:
        write()
    assert str(error.value).startswith("cannot write ")
    assert not (tmp_path / "out.bin").exists()


def test_a_full_device_is_reported() -> None:
    def write() -> None:
        with open_stream(Path("/dev/full")) as file:
            file.write(b"all")

    with pytest.raises(ImageError, match="cannot write /dev/full: the disk is full"):
        write()


def test_what_is_written_to_a_result_is_at_its_place(tmp_path: Path) -> None:
    with (tmp_path / "result").open("w+b") as result:
        result.write(b"before ")
        result.flush()
        with open_target(Job(SOURCE, None, result=result)) as file:
            file.write(b"and after")
        assert result.seek(0, os.SEEK_END) == 16
        result.seek(0)
        assert result.read() == b"before and after"
