"""Folders of results that cannot be written: one line for all images, and what is done is skipped."""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pictures import save_photo

from mambair_cli.runs.record import JOURNAL_FILE

# Windows closes no folder by its mode, and the superuser is bound only where Linux takes a right away.
CAN_CLOSE = sys.platform == "linux" or (sys.platform != "win32" and os.geteuid() != 0)
pytestmark = pytest.mark.skipif(not CAN_CLOSE, reason="no folder can be closed to who runs the tests")

CAPABILITIES_VERSION = 0x20080522  # of Linux's structures, with six numbers
OVERRIDE = 1 << 1 | 1 << 2  # permissions to write, and to read, do not bind who may that
CLOSED = (
    "mambair: error: cannot write into the folder {}: its permissions forbid it; change them, "
    "or choose another folder with -o"
)


@pytest.fixture
def denoise(run: Any, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in a folder, and return (exit code, events by image, stderr)."""
    place = tmp_path / "closed"
    (place / "photos/sub").mkdir(parents=True)
    monkeypatch.chdir(place)
    for name in ("a", "b", "sub/c"):
        save_photo(f"photos/{name}.png", size=(20, 16))

    def call(*arguments: str) -> tuple[int, dict[str, str], list[str]]:
        given = ("--weights", str(weights / "same.safetensors"), "--json", "-q")
        code, out, err = run("denoise", *arguments, *given)
        events = [event for event in map(json.loads, out) if "input" in event]
        return code, {Path(event["input"]).stem: event["event"] for event in events}, err.splitlines()

    return call


@contextmanager
def closed(folder: str) -> Iterator[None]:
    """Close a folder, also to the superuser, whom permissions do not bind by themselves."""
    Path(folder).chmod(0o555)
    is_superuser = os.geteuid() == 0
    if is_superuser:
        _let_override(False)
    try:
        yield
    finally:
        if is_superuser:
            _let_override(True)
        Path(folder).chmod(0o755)


@contextmanager
def closed_file(path: str) -> Iterator[None]:
    """Close a file, as one of another user, in a folder that is open."""
    folder = Path(path).parent
    mode = folder.stat().st_mode
    with closed(str(folder)):
        folder.chmod(mode)
        Path(path).chmod(0o000)
        yield
        Path(path).chmod(0o644)


def _let_override(may: bool) -> None:
    """Take from this thread, and those that it starts, the right to override permissions, or give it back."""
    system = ctypes.CDLL(None, use_errno=True)
    who, rights = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert system.capget(who, rights) == 0
    rights[0] = rights[0] | OVERRIDE if may else rights[0] & ~OVERRIDE  # of those in effect
    assert system.capset(who, rights) == 0, os.strerror(ctypes.get_errno())


ALL = ("a", "b", "c")


@pytest.mark.parametrize("target", ["out", "out/new/newer"])
@pytest.mark.parametrize("options", [(), ("--resume",), ("--overwrite",)])
def test_a_closed_folder_is_one_line(denoise: Any, target: str, options: tuple[str, ...]) -> None:
    Path("out").mkdir()
    with closed("out"):
        for dry, event in (((), "failed"), (("--dry-run",), "plan_failed")):
            code, became, err = denoise("photos", "-o", target, *options, *dry)
            assert (code, became) == (1, dict.fromkeys(ALL, event))
            assert err == [CLOSED.format("out")]
    assert os.listdir("out") == []


def test_what_is_done_in_a_closed_folder_is_skipped(denoise: Any) -> None:
    assert denoise("photos", "-o", "out")[0] == 0
    with closed("out"):
        assert denoise("photos", "-o", "out", "--resume") == (0, dict.fromkeys(ALL, "skipped"), [])
    save_photo("photos/a.png", size=(20, 16), seed=5)
    Path("out/b.png").unlink()
    with closed("out"):
        code, became, err = denoise("photos", "-o", "out", "--resume")
    assert (code, became) == (1, {"a": "failed", "b": "failed", "c": "skipped"})
    assert err == [CLOSED.format("out")]


def test_a_closed_folder_within_the_results_costs_its_images_alone(denoise: Any) -> None:
    save_photo("photos/sub/d.png", size=(20, 16))
    Path("out/sub").mkdir(parents=True)
    with closed("out/sub"):
        code, became, err = denoise("photos", "-o", "out")
    assert (code, became) == (1, {"a": "done", "b": "done", "c": "failed", "d": "failed"})
    assert err == [CLOSED.format("out/sub")]


def test_a_file_in_the_place_of_a_folder_is_one_line(denoise: Any) -> None:
    Path("file").write_text("")
    code, became, err = denoise("photos", "-o", "file/out")
    assert (code, became) == (1, dict.fromkeys(ALL, "failed"))
    assert err == ["mambair: error: cannot write results: file is no folder; choose another folder with -o"]


def test_open_files_and_devices_need_no_open_folder(denoise: Any) -> None:
    Path("closed").mkdir()
    os.mkfifo("closed/pipe.png")
    reader = os.open("closed/pipe.png", os.O_RDONLY | os.O_NONBLOCK)
    with closed("closed"):
        assert denoise("photos/a.png", "-o", "closed/pipe.png")[0] == 0
    assert os.read(reader, 4) == b"\x89PNG"
    os.close(reader)


def test_a_journal_that_cannot_be_read_is_named_and_not_its_folder(denoise: Any) -> None:
    assert denoise("photos", "-o", "out", "--resume")[0] == 0
    journal = os.path.join("out", JOURNAL_FILE)
    with closed_file(journal):
        code, became, err = denoise("photos", "-o", "out", "--resume")
    assert (code, set(became.values())) == (1, {"failed"})
    assert err == [
        f"mambair: error: cannot use the journal {journal}: its permissions forbid it; change them, or "
        "choose another folder with -o"
    ]
    assert denoise("photos", "-o", "out", "--resume")[0] == 0
