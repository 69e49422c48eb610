"""Disks that take several names for one: no input is replaced there, and no result by another one."""

import os
import sys
from pathlib import Path

import pytest
from checkpoints import save_identity
from disks import ignore_both, ignore_case, take_for_one
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.errors import ImageError
from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Journal, is_waiting
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.policy import Action, RunPolicy, decide
from mambair_cli.runs.result_guard import ResultGuard
from mambair_cli.system.disk_names import DiskNames

COMPOSED, APART = "caf\u00e9.png", "cafe\u0301.png"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other disks may take several names for one")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a network that changes nothing."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    save_identity(tmp_path / "same.safetensors")
    return tmp_path


def denoise(*arguments: str) -> int:
    return main(["denoise", *arguments, "--weights", "../same.safetensors", "-q"])


def paint(name: str) -> bytes:
    Path(name).parent.mkdir(exist_ok=True)
    Image.new("RGB", (9, 7), "teal").save(name)
    return Path(name).read_bytes()


@pytest.mark.parametrize("target", ["photo.png", "../WORK/photo.PNG", "../Work/Photo.Png"])
@pytest.mark.parametrize("mode", ["--overwrite", "--resume"])
def test_an_input_that_is_named_in_another_case_stays(target: str, mode: str, monkeypatch, capsys) -> None:
    before = paint("photo.PNG")
    take_for_one(monkeypatch, ignore_case)
    assert denoise("photo.PNG", "-o", target, mode) == 2
    assert f"{target}; choose another output with -o" in capsys.readouterr().err
    assert Path("photo.PNG").read_bytes() == before
    assert os.listdir() == ["photo.PNG"]


def test_names_are_distinct_where_they_are_on_the_disk(capsys) -> None:
    before = paint("photo.PNG")
    assert denoise("photo.PNG", "-o", "photo.png") == 0
    assert Path("photo.PNG").read_bytes() == before
    for name in ("in/a.png", "in/A.png", f"in/{COMPOSED}", f"in/{APART}"):
        paint(name)
    assert denoise("in") == 0
    assert len(os.listdir("in_denoised")) == 4 + 1  # and the journal


@pytest.mark.parametrize("names", [("a.png", "A.png"), (COMPOSED, APART), (COMPOSED, APART.upper())])
@pytest.mark.parametrize("there", ["", "out/first.png", f"out/{COMPOSED}"])
def test_results_that_a_disk_takes_for_one_are_refused(names, there: str, monkeypatch, capsys) -> None:
    inputs = [f"{folder}/{name}" for folder, name in zip("xy", names, strict=True)]
    for name in (*inputs, there):
        if name:
            paint(name)
    take_for_one(monkeypatch, ignore_both)
    assert denoise(*inputs, "-o", "out/", "--overwrite") == 2
    err = capsys.readouterr().err
    assert "would both be written as" in err
    assert "restore them into different folders" in err


def test_accents_count_where_only_case_does_not(monkeypatch) -> None:
    paint(f"out/{COMPOSED}")
    take_for_one(monkeypatch, ignore_case)
    names = DiskNames()
    assert names.key(f"out/{COMPOSED}") == names.key(f"OUT/{COMPOSED.upper()}")
    assert names.key(f"out/{COMPOSED}") != names.key(f"out/{APART}")


def test_a_suffix_is_kept_where_names_differ_only_in_case(monkeypatch) -> None:
    for name in ("x/a.png", "y/A.bmp"):
        paint(name)
    take_for_one(monkeypatch, ignore_case)
    jobs = name_targets([Source(Path("x/a.png")), Source(Path("y/A.bmp"))], "out", "_denoised")
    assert [job.target for job in jobs] == [Path("out/a.png"), Path("out/A.bmp.png")]


def test_a_folder_that_shows_nothing_is_taken_for_one_that_ignores_case(monkeypatch) -> None:
    Path("1/2").mkdir(parents=True)
    stat, top = os.stat, Path("1").absolute()

    def stat_mounted(path, *given, **named):
        status = stat(path, *given, **named)
        if not Path(path).absolute().is_relative_to(top):
            return status
        return os.stat_result([*status[:2], status.st_dev + 1, *status[3:]])

    monkeypatch.setattr(os, "stat", stat_mounted)
    assert DiskNames().key("1/2/a.png") == DiskNames().key("1/2/A.png")
    paint("1/2/3.png")
    assert DiskNames().key("1/2/a.png") != DiskNames().key("1/2/A.png")


@pytest.mark.parametrize("target", ["frames/%01d.png", "frames/%d.png", "Frames/%d.PNG"])
def test_images_of_a_clip_are_not_replaced_by_their_results(target: str, monkeypatch, capsys) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    names = [f"frames/{number}.png" for number in (1, 2, 10)]
    before = [paint(name) for name in names]
    take_for_one(monkeypatch, ignore_case)
    assert denoise("frames/%d.png", "-o", target, "--overwrite") != 0
    assert "cannot " in capsys.readouterr().err
    assert [Path(name).read_bytes() for name in names] == before


@pytest.mark.parametrize("target", ["clip.mkv", "../Work/Clip.MKV", "link.mkv"])
def test_a_clip_that_is_named_otherwise_stays(target: str, monkeypatch, capsys) -> None:
    pytest.importorskip("av", reason="needs the extra video")
    from clips import make_clip

    make_clip(Path("clip.MKV"), "matroska", times=[0, 3003], size=(48, 32))
    os.link("clip.MKV", "link.mkv")
    before = Path("clip.MKV").read_bytes()
    take_for_one(monkeypatch, ignore_case)
    assert denoise("clip.MKV", "-o", target, "--overwrite") != 0
    assert target in capsys.readouterr().err
    assert Path("clip.MKV").read_bytes() == before
    assert sorted(os.listdir()) == ["clip.MKV", "link.mkv"]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_input_is_known_as_the_file_that_it_is(link, monkeypatch, capsys) -> None:
    before = paint("photo.png")
    link("photo.png", "other.png")
    assert denoise("photo.png", "-o", "other.png", "--overwrite") != 0
    assert "other.png; choose another output with -o" in capsys.readouterr().err.replace(
        ": it is an input", ""
    )
    assert Path("photo.png").read_bytes() == before
    job = Job(Source(Path("photo.png")), Path("other.png"))
    for policy in (RunPolicy(), RunPolicy(overwrite=True), RunPolicy(resume=True)):
        assert decide(job, None, policy, "settings").action is Action.REFUSE


def test_an_input_is_looked_for_again_before_a_result_gets_its_name() -> None:
    paint("photo.png")
    paint("temporary.png")
    guard = ResultGuard(Path("photo.png"), Path("other.png"), None, "settings")
    guard.look()
    os.link("photo.png", "other.png")
    with pytest.raises(ImageError, match=r"other\.png: it is an input"):
        guard.end(Path("temporary.png"))


def test_runs_wait_for_each_other_whatever_the_case_of_names(tmp_path: Path) -> None:
    journal = Journal(tmp_path, [tmp_path / COMPOSED])
    assert is_waiting(tmp_path, [tmp_path / APART.upper()])
    assert not is_waiting(tmp_path, [tmp_path / "other.png"])
    journal.close()


def test_names_that_no_text_may_hold_can_be_claimed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, [tmp_path / "half\ud83d.png", tmp_path / "bytes\udcff.png"])
    assert is_waiting(tmp_path, [tmp_path / "half\ud83d.png"])
    assert not is_waiting(tmp_path, [tmp_path / "half\ud83c.png"])
    journal.close()
