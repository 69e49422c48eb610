"""The journal as a file: what is read and written when a run begins and ends, and what is removed by it."""

import io
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from mambair_cli.runs import journal as journal_module
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.journal_entry import JournalEntry
from mambair_cli.runs.record import JOURNAL_FILE, Record, read_lines
from mambair_cli.runs.stamps import Stamp, stamp_of

TEMPORARY = ".mambair-0123456789abcdef.tmp"


def finish(journal: Journal, target: Path, settings: str = "settings") -> None:
    """Note a result, and write it, as a process of a run does."""
    journal.pen.begin(target, target.parent / TEMPORARY)
    target.write_text("result")
    journal.pen.finish(target, JournalEntry(settings, "content", Stamp(1, 2), stamp_of(target)))


def run(folder: Path, *names: str, settings: str = "settings") -> None:
    journal = Journal(folder, [folder / name for name in names])
    for name in names:
        finish(journal, folder / name, settings)
    journal.close()


def results(folder: Path) -> list[str]:
    return [line["result"] for line in read_lines(folder / JOURNAL_FILE)]


def test_a_journal_grows_by_what_a_run_has_done_and_is_read_once(tmp_path: Path, monkeypatch) -> None:
    run(tmp_path, "a.png", "b.png")
    before = (tmp_path / JOURNAL_FILE).stat()
    opened: list[str] = []
    real = io.open

    def count(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if Path(str(file)).name == JOURNAL_FILE:
            opened.append(mode)
        return real(file, mode, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", count)
        journal = Journal(tmp_path, [tmp_path / "c.png"])
        assert opened == ["rb"]
    finish(journal, tmp_path / "c.png")
    journal.close()
    assert (tmp_path / JOURNAL_FILE).stat().st_ino == before.st_ino  # it was not written anew
    assert results(tmp_path) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("line", ['{"begun": "x", "temporary": "y"}', "no JSON", '{"result": "cut o', "[]"])
def test_lines_that_nobody_needs_go_when_the_next_run_begins(tmp_path: Path, line: str) -> None:
    run(tmp_path, "a.png", "b.png")
    with (tmp_path / JOURNAL_FILE).open("a") as file:
        file.write(line)
    run(tmp_path, "c.png")
    assert results(tmp_path) == ["a.png", "b.png", "c.png"]
    run(tmp_path, "a.png", settings="others")
    assert results(tmp_path) == ["a.png", "b.png", "c.png", "a.png"]
    run(tmp_path)
    assert results(tmp_path) == ["a.png", "b.png", "c.png"]
    assert Record(tmp_path).entries["a.png"].settings == "others"


def test_what_a_run_that_was_killed_has_done_is_kept_and_the_rest_removed(tmp_path: Path) -> None:
    killed = Journal(tmp_path, [tmp_path / "a.png"])
    finish(killed, tmp_path / "a.png")
    killed.pen.begin(tmp_path / "b.png", tmp_path / TEMPORARY)
    (tmp_path / TEMPORARY).write_text("half")
    (part,) = killed.pen.parts.glob("*.jsonl")
    with part.open("a") as file:
        file.write('\n{"result": "cut o')
    killed.abandon()
    run(tmp_path, "c.png")
    run(tmp_path, "d.png")
    assert results(tmp_path) == ["a.png", "c.png", "d.png"]
    assert not (tmp_path / TEMPORARY).exists()


@pytest.mark.parametrize(
    "name", ["..\\x", "C:\\x", "C:x", "\\\\server\\share\\x", "\\x", "sub\\..\\..\\x", ""]
)
def test_a_journal_that_lies_removes_nothing_elsewhere_on_windows(name: str, monkeypatch) -> None:
    monkeypatch.setattr(journal_module, "PurePath", PureWindowsPath)
    assert not journal_module._is_ours_to_remove(name, TEMPORARY)
    assert journal_module._is_ours_to_remove("sub/x", TEMPORARY)
    assert journal_module._is_ours_to_remove("sub\\x", TEMPORARY)


def test_a_name_with_a_colon_is_one_of_ours_elsewhere() -> None:
    assert journal_module._is_ours_to_remove("1:30.png", TEMPORARY) == (
        not isinstance(Path(), PureWindowsPath)
    )
