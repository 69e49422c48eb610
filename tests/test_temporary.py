"""The folder of temporary files: without room there, a picture is not called corrupt."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from pictures import encode
from repository import ROOT

from mambair_cli.errors import ShortageError
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.server.shortage import find_shortage

NO_FOLDER = "No such file or directory"
TURN = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: turned by a quarter


def inspect(name: str, folder: Path, most: int | None = None) -> tuple[int, str]:
    """Inspect a picture with a folder of temporary files, which get so many bytes at most.

    libvips keeps turned pictures there from 64 kB on.
    """

    def limit() -> None:
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(
        [sys.executable, "-m", "mambair_cli", "inspect", name],
        env={
            **os.environ,
            "TMPDIR": str(folder),
            "VIPS_DISC_THRESHOLD": "64k",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


@pytest.fixture
def turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (700, 600, 3), np.uint8)
    Path("turned.jpg").write_bytes(encode(pixels, "jpeg", exif=TURN))
    return "turned.jpg"


def test_a_missing_temporary_folder_is_no_fault_of_the_picture(turned: str, tmp_path: Path) -> None:
    assert inspect(turned, tmp_path) == (0, "")
    gone = tmp_path / "gone"
    code, err = inspect(turned, gone)
    assert code == 1
    assert err == (
        f"mambair: error: cannot read turned.jpg: cannot write to the temporary folder {gone} ({NO_FOLDER}); "
        "set TMPDIR to a folder with 2 MiB free\n"
    )


def test_a_server_reports_it_as_its_own_without_its_folder() -> None:
    with pytest.raises(ShortageError) as caught, explained():
        raise pyvips.Error(
            "", f'VipsImage: unable to write to "/own/vips-0-1.v"\nsystem error: {NO_FOLDER}\n'
        )
    assert str(caught.value) == (
        f"cannot write to the temporary folder /own ({NO_FOLDER}); "
        "set TMPDIR to a folder with enough space free"
    )
    message = str(find_shortage(caught.value))
    assert message == f"the server cannot store the image: {NO_FOLDER}; see to its folder of temporary files"


def test_a_limit_of_files_is_no_fault_of_the_picture(turned: str, tmp_path: Path) -> None:
    code, err = inspect(turned, tmp_path, most=20_000)
    assert code == 1
    assert f"the temporary folder {tmp_path} (File too large); allow larger files with `ulimit -f`, or" in err
    assert "corrupt" not in err


def test_open_exr_without_a_temporary_folder_is_not_called_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exr = pytest.importorskip("OpenEXR")
    monkeypatch.chdir(tmp_path)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {"Y": np.full((9, 9), 0.5, np.float32)}) as file:
        file.write("a.exr")
    code, err = inspect("a.exr", Path("/nonexistent"))
    assert code == 1
    assert "cannot read a.exr: cannot write to the temporary folder /nonexistent" in err


# Reasons of other threads' files, which libvips keeps in the same list

UNKEPT = 'VipsImage: unable to write to "/tmp/vips-0-1.v"\nunix error: No space left on device\n'
OF_PNG, OF_TIFF = "vipspng: libpng read error\n", "tiff2vips: Read error at scanline 9\n"


@pytest.mark.parametrize(
    ("room", "detail", "reason"),
    [
        (0, OF_TIFF, "libvips gives no reason"),
        (0, "", "libvips gives no reason"),
        (0, OF_TIFF + OF_PNG, OF_PNG.strip()),
        (0, UNKEPT, "libvips gives no reason"),
        (0, UNKEPT + OF_PNG, OF_PNG.strip()),
        (9, UNKEPT, "libvips gives no reason"),
        (9, UNKEPT + OF_PNG, OF_PNG.strip()),
        (9, "", "libvips gives no reason"),
    ],
)
def test_reasons_that_cannot_be_of_this_file_do_not_count(room: int, detail: str, reason: str) -> None:
    with pytest.raises(LibvipsError) as caught, explained(room, "png"):
        raise pyvips.Error("unable to fetch from region", detail)
    assert str(caught.value) == reason


@pytest.mark.parametrize("detail", [UNKEPT, OF_TIFF + UNKEPT, OF_PNG + UNKEPT, OF_TIFF, ""])
def test_a_folder_without_room_is_found_out_whatever_the_reasons_are(
    detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    with pytest.raises(ShortageError) as caught, explained(3 * 2**20, "png"):
        raise pyvips.Error("unable to fetch from region", detail)
    assert str(caught.value) == (
        f"cannot write to the temporary folder /nonexistent ({NO_FOLDER}); "
        "set TMPDIR to a folder with 3 MiB free"
    )
