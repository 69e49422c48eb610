"""What commands print, where the standard streams are not as they usually are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import save_identity
from pictures import save_photo
from PIL import Image

from mambair_cli.cli import streams

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a shell, and names made of bytes")
NAMES = [b"caf\xc3\xa9.png", b"caf\xe9.png"]  # the second is no UTF-8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    save_identity(folder / "same.safetensors")
    for name in [b"in.png", *NAMES]:
        save_photo(folder / os.fsdecode(name), (8, 8))
    return folder


def shell(folder, arguments, redirection="", **environment):
    """Run a command in a shell; return its exit code, stdout, and the lines on stderr."""
    script = f'"$0" -m mambair_cli {arguments} {redirection}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=folder, env=os.environ | environment, capture_output=True
    )
    return done.returncode, done.stdout, done.stderr.decode(errors="replace").splitlines()


DENOISE = "denoise in.png --weights same.safetensors --overwrite -q"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no full device")
@pytest.mark.parametrize("command", [DENOISE, f"{DENOISE} -o -", "models list", "upscale --help"])
def test_a_full_disk_is_a_line(folder, command):
    code, _, err = shell(folder, command, "> /dev/full")
    wanted = "cannot write to standard output: No space left on device; make room"
    assert (code, err) == (1, [f"mambair: error: {wanted}"])


@pytest.mark.parametrize("stream", [">&-", "<&- 2>&-"])
def test_a_stream_that_is_closed_is_no_obstacle(folder, stream):
    (folder / "in_denoised.png").unlink(missing_ok=True)
    code, out, err = shell(folder, DENOISE.replace(" -q", ""), stream)
    assert code == 0
    assert out == (b"" if ">&-" in stream.split() else b"in_denoised.png\n")
    assert err == ([] if "2>&-" in stream.split() else ["mambair: using same.safetensors on cpu"])
    with Image.open(folder / "in_denoised.png") as image:
        image.load()


def test_an_image_needs_a_standard_output(folder):
    code, _, err = shell(folder, f"{DENOISE} -o -", ">&-")
    assert (code, err) == (2, ["mambair: error: standard output is closed: -; give -o a file"])


@pytest.mark.parametrize(
    "command", ["denoise - -o out.png", "denoise in.png --from-file -", "denoise - -o out.mp4", "inspect -"]
)
def test_what_is_read_needs_a_standard_input(folder, command):
    code, _, err = shell(folder, command, "<&-")
    assert (code, err) == (2, ["mambair: error: standard input is closed: -; name a file"])


@pytest.mark.parametrize("command", [DENOISE, f"{DENOISE} -o -", "models list"])
def test_a_reader_that_has_gone_ends_the_run_without_a_word(folder, command):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "mambair_cli", *command.split()],
        cwd=folder,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_paths_come_out_as_the_bytes_they_are(folder, environment):
    arguments = "denoise caf?*.png --weights same.safetensors -o out --overwrite"
    code, out, _ = shell(folder, arguments, **environment)
    assert code == 0
    assert sorted(out.splitlines()) == [b"out/" + name for name in NAMES]


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("inspect in.png", b"8x8"), (f"{DENOISE} --dry-run", b"8x8")],
)
def test_what_ascii_lacks_has_a_stand_in(folder, command, wanted):
    code, out, err = shell(folder, command, **ASCII)
    assert (code, err) == (0, [])
    assert wanted in out


def test_letters_without_a_stand_in_are_escaped():
    assert "ä×\udce9→".encode("ascii", streams._ERRORS) == b"\\xe4x\xe9\\u2192"


def test_a_run_whose_reader_has_gone_says_what_it_has_not_begun(folder):
    reader, writer = os.pipe()
    os.close(reader)
    command = [
        "denoise",
        "in.png",
        *map(os.fsdecode, NAMES),
        "-o",
        "left",
        *DENOISE.split()[2:],
        "--device",
        "cpu",
    ]
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "mambair_cli", *command], cwd=folder, stdout=stdout, stderr=subprocess.PIPE
        )
    wanted = b"mambair: nobody reads standard output any more: 2 not begun; --resume does them\n"
    assert (done.returncode, done.stderr) == (1, wanted)


def test_paths_in_json_can_be_read_back(folder):
    arguments = "denoise caf?*.png --weights same.safetensors -o out --overwrite --json"
    code, out, _ = shell(folder, arguments, PYTHONIOENCODING="ascii")
    events = [json.loads(line) for line in out.decode().splitlines()]  # JSON is UTF-8
    assert code == 0
    assert sorted(os.fsencode(event["input"]) for event in events if event["event"] == "done") == NAMES
