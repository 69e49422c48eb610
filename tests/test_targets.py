"""Where results go other than ordinary files: pipes, devices, open files, and files that are replaced."""

import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_identity
from forked import start_forked
from PIL import Image

from mambair_cli.cli import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="these are Unix's")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in a folder with an image, and return (exit code, lines, stderr)."""
    monkeypatch.chdir(tmp_path)
    save_identity(tmp_path / "same.safetensors")
    Image.fromarray(pixels()).save("in.png")

    def call(*arguments: str) -> tuple[int, list[str], str]:
        code = main(["denoise", *arguments, "--weights", "same.safetensors", "-q"])
        out, err = capfd.readouterr()
        return code, out.splitlines(), err

    return call


def pixels() -> np.ndarray:
    return np.arange(24 * 32 * 3).reshape(24, 32, 3).astype(np.uint8)


def decoded(data: bytes) -> tuple[str | None, np.ndarray]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, np.array(image)


class Listener:
    """Reads a named pipe until it ends."""

    def __init__(self, path: str) -> None:
        self.data = b""
        self._path = path
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self.data = Path(self._path).read_bytes()

    def wait(self) -> bytes:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.data


@pytest.mark.parametrize(("name", "format"), [("pipe", "PNG"), ("pipe.tif", "TIFF")])
def test_a_named_pipe_is_written_to_and_stays(run: Any, name: str, format: str) -> None:
    os.mkfifo(name)
    listener = Listener(name)
    code, out, _ = run("in.png", "-o", name)
    found, image = decoded(listener.wait())
    assert (code, out) == (0, [name])
    assert found == format
    assert np.array_equal(image, pixels())
    assert stat.S_ISFIFO(os.stat(name).st_mode)
    assert sorted(os.listdir()) == sorted(["in.png", name, "same.safetensors"])


def test_a_pipe_is_written_to_whatever_else_was_asked_for(run: Any) -> None:
    os.mkfifo("pipe")
    for option in ("--resume", "--overwrite", "--preserve-times", "--json"):
        listener = Listener("pipe")
        assert run("in.png", "-o", "pipe", option)[0] == 0
        assert np.array_equal(decoded(listener.wait())[1], pixels())
    assert sorted(os.listdir()) == ["in.png", "pipe", "same.safetensors"]


def test_an_open_file_is_written_on_where_it_stands(run: Any) -> None:
    with open("out", "wb") as file:
        file.write(b"before")
        file.flush()
        assert run("in.png", "-o", f"/dev/fd/{file.fileno()}")[0] == 0
        file.write(b"after")
    data = Path("out").read_bytes()
    assert data.startswith(b"before")
    assert data.endswith(b"after")
    assert np.array_equal(decoded(data.removeprefix(b"before"))[1], pixels())


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
@pytest.mark.parametrize("goes_to_file", [True, False])
def test_standard_output_by_its_name_is_standard_output(run: Any, name: str, goes_to_file: bool) -> None:
    command = ["-m", "mambair_cli", "denoise", "in.png", "--weights", "same.safetensors"]
    command += ["-o", name, "-q", "--overwrite"]
    with open("out.png", "wb") as file:
        with start_forked(*command, stdout=file if goes_to_file else subprocess.PIPE) as process:
            piped = b"" if process.stdout is None else bytes(process.stdout.buffer.read())
        assert process.returncode == 0
    data = piped or Path("out.png").read_bytes()
    assert np.array_equal(decoded(data)[1], pixels())
    assert data.endswith(b"IEND\xaeB`\x82")  # and no path after it
    assert os.path.exists("/dev/stdout")


def test_a_device_takes_it(run: Any) -> None:
    assert run("in.png", "-o", "/dev/null")[:2] == (0, ["/dev/null"])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_device_is_an_error(run: Any) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    code, out, err = run("in.png", "-o", "/dev/full")
    assert (code, out) == (1, [])
    assert "cannot write /dev/full: the disk is full" in err


def test_a_pipe_that_nobody_reads_any_more_is_an_error(run: Any) -> None:
    out, into = os.pipe()
    os.close(out)
    code, _, err = run("in.png", "-o", f"/dev/fd/{into}")
    os.close(into)
    assert code == 1
    assert f"cannot write /dev/fd/{into}: the program that reads it has ended" in err


def test_a_file_that_is_not_open_is_an_error(run: Any) -> None:
    code, _, err = run("in.png", "-o", "/dev/fd/987")
    assert code == 1
    assert "cannot write /dev/fd/987: no such file is open" in err


def test_a_pipe_takes_one_image(run: Any) -> None:
    os.mkfifo("pipe")
    Path("other.png").write_bytes(Path("in.png").read_bytes())
    code, _, err = run("in.png", "other.png", "-o", "pipe")
    assert code == 2
    assert "-o pipe" in err or "pipe is a file" in err


def test_a_run_that_waits_for_a_reader_can_be_interrupted(run: Any) -> None:
    os.mkfifo("pipe")
    command = [sys.executable, "-m", "mambair_cli", "denoise", "in.png", "--weights", "same.safetensors"]
    with subprocess.Popen([*command, "-o", "pipe"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "using" in process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_what_is_replaced_keeps_its_permissions(run: Any, mode: int) -> None:
    Path("out.png").write_bytes(b"old")
    os.chmod("out.png", mode)
    assert run("in.png", "-o", "out.png", "--overwrite")[0] == 0
    assert stat.S_IMODE(os.stat("out.png").st_mode) == mode
    assert np.array_equal(decoded(Path("out.png").read_bytes())[1], pixels())


def test_what_is_new_has_the_permissions_of_new_files(run: Any) -> None:
    Path("new").touch()
    assert run("in.png", "-o", "out.png", "--overwrite")[0] == 0
    assert os.stat("out.png").st_mode == os.stat("new").st_mode


def test_what_is_replaced_keeps_its_owner_where_that_is_allowed(run: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    Path("out.png").write_bytes(b"old")
    os.chown("out.png", 1234, 2345)
    assert run("in.png", "-o", "out.png", "--overwrite")[0] == 0
    status = os.stat("out.png")
    assert (status.st_uid, status.st_gid) == (1234, 2345)


def test_what_another_group_might_do_the_new_one_may_not(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    Path("out.png").write_bytes(b"old")
    os.chown("out.png", 1234, 2345)
    os.chmod("out.png", 0o664)

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    assert run("in.png", "-o", "out.png", "--overwrite")[0] == 0
    status = os.stat("out.png")
    assert status.st_gid != 2345
    assert stat.S_IMODE(status.st_mode) == 0o644
