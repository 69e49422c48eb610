"""Runs that go on where another stopped, as users meet them."""

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from checkpoints import save_identity, save_nearest
from file_limit import limited_files
from folders import read_files
from forked import start_forked
from pictures import save_photo
from PIL import Image

from benchmarks import kill
from mambair_cli.cli import main
from mambair_cli.errors import ImageError
from mambair_cli.runs import journal
from mambair_cli.runs.claims import GATE_FILE
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.journal_entry import JournalEntry, describe_entry
from mambair_cli.runs.record import JOURNAL_FILE, PARTS_FOLDER, Record
from mambair_cli.runs.stamps import Stamp, stamp_of
from mambair_cli.system.files import hash_of

NAMES = ["a.png", "b.png", "sub/c.jpg"]


@pytest.fixture
def run(run):
    save_identity(Path("same.safetensors"))
    save_nearest(Path("x4.safetensors"), 4)
    for index, name in enumerate(NAMES):
        save_photo(f"photos/{name}", seed=index)

    def call(*arguments):
        """Denoise the photographs; return the exit code, what became of which file, and stderr."""
        arguments = arguments or ("photos", "--resume")
        code, out, err = run("denoise", *arguments, "--weights", "same.safetensors", "--json", "-q")
        events = [json.loads(line) for line in out]
        became = {Path(e["input"]).name: e["event"] for e in events if "input" in e}
        return code, became, err

    return call


def results(folder="photos_denoised"):
    return read_files(folder)


ALL_DONE = {"a.png": "done", "b.png": "done", "c.jpg": "done"}
ALL_SKIPPED = dict.fromkeys(ALL_DONE, "skipped")


def test_what_is_done_is_not_done_again(run):
    assert run("photos")[:2] == (0, ALL_DONE)  # a first run need not say that another may come
    before = {path: path.stat().st_mtime_ns for path in Path("photos_denoised").rglob("*.*")}
    assert run()[:2] == (0, ALL_SKIPPED)
    for path, time_ns in before.items():
        assert path.name == JOURNAL_FILE or path.stat().st_mtime_ns == time_ns


def test_what_is_missing_is_done(run):
    run("photos")
    wanted = results()
    Path("photos_denoised/b.png").unlink()
    save_photo("photos/d.png", seed=9)
    assert run()[:2] == (0, {**ALL_SKIPPED, "b.png": "done", "d.png": "done"})
    assert {name: data for name, data in results().items() if name != "d.png"} == wanted


def test_what_has_changed_is_done_again(run):
    run("photos")
    save_photo("photos/a.png", seed=7)
    os.utime("photos/b.png", ns=(1, 1))  # its content is as it was
    assert run()[:2] == (0, {**ALL_SKIPPED, "a.png": "done"})
    assert (np.array(Image.open("photos_denoised/a.png")) == np.array(Image.open("photos/a.png"))).all()
    assert run()[:2] == (0, ALL_SKIPPED)


@pytest.mark.parametrize("option", [("--overlap", "8"), ("--tile", "64"), ("--depth", "8"), ("--strip",)])
def test_other_settings_make_other_results(run, option):
    run("photos", "--resume")
    others = {**ALL_DONE, "c.jpg": "skipped"} if "--depth" in option else ALL_DONE  # JPEG has no other depth
    assert run("photos", "--resume", *option)[:2] == (0, others)
    assert run("photos", "--resume", *option)[:2] == (0, ALL_SKIPPED)


def test_a_quality_and_a_background_count_where_a_format_has_them(run):
    run("photos", "--resume")
    others = {**ALL_SKIPPED, "c.jpg": "done"}
    for option in (["--quality", "80"], ["--quality", "80", "--background", "white"]):
        assert run("photos", "--resume", "--dry-run", *option)[1]["c.jpg"] == "plan_file"
        assert run("photos", "--resume", *option)[:2] == (0, others)
        assert run("photos", "--resume", *option)[:2] == (0, ALL_SKIPPED)


@pytest.mark.parametrize(
    "option",
    [
        ("--precision", "fp32"),
        ("--tile", "256"),
        ("--overlap", "16"),
        ("--seed", "7"),  # this network draws no noise
        ("--strength", "1"),
        ("--quality", "95"),
        ("--depth", "auto"),
        ("--device", "cpu"),
    ],
)
def test_what_is_done_stays_where_an_option_changes_nothing(run, option):
    """What a command takes anyway may be written out."""
    run("photos", "--device", "cpu", "--resume")
    before = read_files("photos_denoised")
    assert run("photos", "--device", "cpu", "--resume", *option)[:2] == (0, ALL_SKIPPED)
    planned = run("photos", "--device", "cpu", "--resume", "--dry-run", *option)[1]
    assert planned == dict.fromkeys(ALL_DONE, "plan_skipped")
    assert run("photos", "--device", "cpu", "--overwrite", *option)[:2] == (0, ALL_DONE)
    after = read_files("photos_denoised")
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in NAMES)


def test_what_is_done_stays_where_the_format_is_that_of_the_names(run):
    run("photos", "--resume")
    assert run("photos", "--resume", "--format", "png")[:2] == (0, {**ALL_SKIPPED, "c.jpg": "done"})


@pytest.mark.parametrize("model", [["--weights", "x4.safetensors"], ["--model", "tiny-x4", "--offline"]])
def test_what_is_done_stays_where_the_scale_is_that_of_the_network(run, capsys, model):
    def upscale(*options):
        code = main(["upscale", "photos", *model, "--resume", "--json", "-q", *options])
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, {Path(event["input"]).name: event["event"] for event in events if "input" in event}

    assert upscale() == (0, ALL_DONE)
    assert upscale("-s", "4") == (0, ALL_SKIPPED)
    assert upscale("-s", "4", "--dry-run") == (0, dict.fromkeys(ALL_DONE, "plan_skipped"))
    assert upscale("-s", "4", "--overwrite") == (0, ALL_SKIPPED)


def test_other_weights_make_other_results(run):
    run("photos")
    save_identity(Path("same.safetensors"), task="denoise")
    assert run()[:2] == (0, ALL_DONE)


def test_that_a_file_is_there_proves_nothing(run):
    save_photo("photos_denoised/a.png", seed=3)
    stranger = Path("photos_denoised/a.png").read_bytes()
    code, became, err = run()
    assert (code, became) == (1, {**ALL_DONE, "a.png": "failed"})
    assert "a.png: it exists already, and no earlier run has noted it: " in err
    assert err.count("; --overwrite replaces it") == 1
    assert Path("photos_denoised/a.png").read_bytes() == stranger
    assert run("photos", "--resume", "--overwrite")[:2] == (0, {**ALL_SKIPPED, "a.png": "done"})


def test_a_run_of_one_file_notes_its_result_only_if_it_may_be_resumed(run):
    assert run("photos/a.png", "-o", "one.png")[0] == 0
    code, _, err = run("photos/a.png", "-o", "one.png", "--resume")
    assert code == 1
    assert (
        "cannot write one.png: it exists already, and no earlier run has noted it: a run of one file notes "
        "its result only with --resume; --overwrite replaces it" in err
    )
    assert run("photos/a.png", "-o", "one.png", "--resume", "--overwrite")[0] == 0
    assert run("photos/a.png", "-o", "one.png", "--resume")[:2] == (0, {"a.png": "skipped"})


def test_a_result_that_somebody_has_changed_is_left_to_them(run):
    run("photos")
    save_photo("photos_denoised/a.png", seed=3)
    changed = "cannot write photos_denoised/a.png: it was changed after an earlier run wrote it; "
    for options in (["--resume"], ["--resume", "--dry-run"]):
        code, became, err = run("photos", *options)
        assert (code, became["a.png"]) == (1, "plan_failed" if "--dry-run" in options else "failed")
        assert f"{changed}--overwrite replaces it" in err
    assert run("photos", "--resume", "--overwrite")[:2] == (0, {**ALL_SKIPPED, "a.png": "done"})


def copy_plainly(source, target):
    shutil.copytree(source, target, copy_function=shutil.copy)


def copy_in_whole_seconds(source, target):
    shutil.copytree(source, target)
    for path in filter(Path.is_file, Path(target).rglob("*")):
        os.utime(path, (int(path.stat().st_mtime), int(path.stat().st_mtime)))


@pytest.mark.parametrize("copy", [copy_plainly, copy_in_whole_seconds])
def test_copies_of_results_are_done_too(run, copy):
    run("photos")
    copy("photos_denoised", "copied")
    assert run("photos", "-o", "copied", "--resume")[:2] == (0, ALL_SKIPPED)
    planned = run("photos", "-o", "copied", "--resume", "--dry-run")[:2]
    assert planned == (0, dict.fromkeys(ALL_DONE, "plan_skipped"))
    again = run("photos", "-o", "copied", "--resume", "--overlap", "8")
    assert again[:2] == (0, ALL_DONE)  # and they are ours


def test_a_copy_with_another_pixel_is_no_result(run):
    run("photos")
    path = Path("photos_denoised/a.png")
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)  # of the same size
    code, became, err = run()
    assert (code, became) == (1, {**ALL_SKIPPED, "a.png": "failed"})
    assert "it was changed after an earlier run wrote it" in err


def test_journals_without_hashes_know_what_has_kept_its_time(run):
    run("photos")
    path = Path("photos_denoised", JOURNAL_FILE)
    lines = [json.loads(line) for line in path.read_text().splitlines() if line]
    for line in lines:
        line.pop("sha256", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.utime("photos_denoised/a.png")
    code, became, err = run()
    assert (code, became) == (1, {**ALL_SKIPPED, "a.png": "failed"})
    assert "a.png: it exists already" in err


def test_of_two_lines_that_of_a_copied_file_counts(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"first")
    entry = JournalEntry("settings", "content", Stamp(1, 1), stamp_of(target), None, hash_of(target))
    target.write_bytes(b"later")
    late = JournalEntry("other", "content", Stamp(1, 1), stamp_of(target), None, hash_of(target))
    target.write_bytes(b"first")
    os.utime(target, (1, 1))
    for entries in ([entry, late], [late, entry]):
        lines = [json.dumps(describe_entry("a.png", each)) for each in entries]
        (tmp_path / JOURNAL_FILE).write_text("\n".join(lines))
        assert Record(tmp_path).entries["a.png"] == entry


def test_results_next_to_their_inputs_are_known_too(run):
    os.chdir("photos")
    inputs = ("a.png", "b.png", "--resume")
    arguments = ["--weights", "../same.safetensors", "--json", "-q"]
    assert main(["denoise", *inputs, *arguments]) == 0
    before = Path("a_denoised.png").stat().st_mtime_ns
    assert main(["denoise", *inputs, *arguments]) == 0
    assert Path("a_denoised.png").stat().st_mtime_ns == before


def test_one_file_alone_leaves_no_journal(run):
    assert run("photos/a.png")[0] == 0
    assert sorted(os.listdir("photos")) == ["a.png", "a_denoised.png", "b.png", "sub"]


def test_the_times_of_inputs_are_kept_and_known(run):
    os.utime("photos/a.png", ns=(10**18, 10**18))
    run("photos", "--preserve-times")
    assert Path("photos_denoised/a.png").stat().st_mtime_ns == 10**18
    assert run("photos", "--resume", "--preserve-times")[:2] == (0, ALL_SKIPPED)


def test_a_run_waits_for_another_that_writes_the_same_results(run):
    folder = Path("photos_denoised")
    first = Journal(folder, [folder / "b.png", folder / "d.png"])
    threading.Timer(0.5, first.close).start()
    begun = time.monotonic()
    code, became, err = run()
    assert time.monotonic() - begun > 0.4
    assert (code, became, err) == (0, ALL_DONE, "")  # it was to be quiet
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [JOURNAL_FILE]


def test_a_run_that_waits_says_so_once(tmp_path):
    notices = []
    first = Journal(tmp_path, [tmp_path / "a.png"])
    threading.Timer(0.6, first.close).start()
    Journal(tmp_path, [tmp_path / "b.png", tmp_path / "a.png"], notices.append).close()
    assert notices == [f"another run is writing the same results into {tmp_path}; waiting for it to end"]


def test_runs_that_write_different_results_do_so_side_by_side(tmp_path):
    notices = []
    first = Journal(tmp_path, [tmp_path / "a.png"], notices.append)
    second = Journal(tmp_path, [tmp_path / "b.png"], notices.append)
    temporary = tmp_path / ".mambair-0123456789abcdef.tmp"
    first.pen.begin(tmp_path / "a.png", temporary)
    temporary.write_bytes(b"half")
    entry = JournalEntry("settings", "content", Stamp(1, 1), Stamp(5, 1))
    second.pen.finish(tmp_path / "b.png", entry)
    second.close()
    assert temporary.exists()
    third = Journal(tmp_path, [tmp_path / "c.png"], notices.append)
    assert temporary.exists()  # whose run lasts
    assert list(third.record.entries) == ["b.png"]
    first.abandon()  # as the system does with a run that is killed
    third.close()
    assert notices == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [JOURNAL_FILE]
    assert list(Record(tmp_path).entries) == ["b.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
def test_several_commands_fill_one_folder_and_one_that_is_killed_blocks_none(run):
    for number in range(12):
        save_photo(f"many/{number:02}.png", seed=number)
    names = sorted(map(str, Path("many").iterdir()))
    command = ["-m", "mambair_cli", "denoise", "-o", "out", "--weights", "same.safetensors"]

    def start(names):
        return start_forked(*command, *names, stdout=subprocess.DEVNULL)

    killed = start(names[:3])
    while not list(Path("out").glob(f"{PARTS_FOLDER}/*/*.jsonl")):
        time.sleep(0.005)
    killed.kill()
    killed.communicate()
    for path in Path("out").glob("*.png"):  # it may have come so far
        path.unlink()
    running = [start(names[at : at + 3]) for at in range(0, 12, 3)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert sorted(path.name for path in Path("out").iterdir()) == [
        JOURNAL_FILE,
        *(Path(name).name for name in names),
    ]
    assert len(Record(Path("out")).entries) == 12


def test_what_processes_write_side_by_side_is_put_together(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
    journal = Journal(target.parent)
    for path in (source, target):
        path.write_bytes(path.parent.name.encode())
    entry = JournalEntry("settings", "content", stamp_of(source), stamp_of(target))
    late = JournalEntry(
        "settings", "content", stamp_of(source), Stamp(3, 1)
    )  # taken for dead, it published nothing
    assert not journal.pen.has_written(target)
    processes = multiprocessing.get_context("spawn")
    writers = [processes.Process(target=journal.pen.finish, args=(target, e)) for e in (entry, late)]
    for writer in writers:
        writer.start()
        writer.join()
    assert journal.pen.has_written(target)
    assert len(list(Path(tmp_path, "out", PARTS_FOLDER).rglob("*.jsonl"))) == 2
    journal.abandon()  # as if it had been killed
    for _ in range(2):
        again = Journal(target.parent)
        assert again.record.is_done(source, target, "settings")
        again.close()
        assert sorted(os.listdir(target.parent)) == [JOURNAL_FILE, "a.png"]


@pytest.mark.parametrize("fate", ["changed", "vanished"])
def test_an_input_that_changes_during_the_run_is_its_own_error(run, monkeypatch, fate):
    rows = ImageJob.rows

    def meddle(job):
        yield from rows(job)
        path = job.prepared.job.source.path
        if path.name == "b.png":
            path.write_bytes(b"more") if fate == "changed" else path.unlink()

    monkeypatch.setattr(ImageJob, "rows", meddle)
    code, became, err = run("photos")
    assert (code, became) == (1, {**ALL_DONE, "b.png": "failed"})
    assert "photos/b.png: it changed or vanished meanwhile; try it again" in err
    assert sorted(results()) == ["a.png", "sub/c.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
@pytest.mark.parametrize("bytes", [0, 50])
def test_a_journal_that_cannot_grow_is_named_with_the_true_reason(tmp_path, bytes):
    journal = Journal(tmp_path / "out")
    with (
        closing(journal),
        limited_files(bytes),
        pytest.raises(ImageError, match="File too large; choose another folder") as failure,
    ):
        journal.pen.begin(tmp_path / "out" / "a.png", tmp_path / "out" / ".mambair-0123456789abcdef.tmp")
    assert f"cannot keep a journal in {tmp_path / 'out'}: " in str(failure.value)


def test_a_journal_that_lies_removes_nothing_else(run):
    Path("photos_denoised").mkdir()
    precious = [Path("precious.txt"), Path("photos_denoised/precious.tmp")]
    lines = ['{"begun": "../x", "temporary": "precious.txt"}', '{"begun": "x", "temporary": "precious.tmp"}']
    lines += [
        "no JSON",
        "[]",
        '{"result": 5}',
        '{"begun": "x", "temporary": ".mambair-0123456789abcdef.tmp"}',
    ]
    for path in precious:
        path.write_text("mine")
    left = Path("photos_denoised/.mambair-0123456789abcdef.tmp")
    left.write_text("half")
    Path("photos_denoised", JOURNAL_FILE).write_text("\n".join(lines) + '\n{"result": "cut o')
    assert run()[:2] == (0, ALL_DONE)
    assert all(path.read_text() == "mine" for path in precious)
    assert not left.exists()


def test_the_first_failure_ends_a_run_that_is_to_fail_fast(run):
    Path("photos/a.png").write_text("no picture")
    code, became, _ = run("photos", "--fail-fast")
    assert (code, became) == (1, {"a.png": "failed"})
    assert run("photos", "--resume")[:2] == (1, {**ALL_DONE, "a.png": "failed"})


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
@pytest.mark.parametrize(("workers", "kills"), [(1, 4), (2, 2)])
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path, workers, kills):
    save_identity(tmp_path / "same.safetensors")
    kill.make_photographs(tmp_path / "photos", 12, 60, 40)
    options = ["--weights", "same.safetensors"]

    def start(arguments, folder):
        return start_forked(*arguments, cwd=folder, stderr=subprocess.DEVNULL)

    findings = kill.kill_and_resume(tmp_path, options, kills, longest=0.06, workers=workers, start=start)
    assert findings == kill.Findings(kills, [], [], [])
    assert len(kill.contents(tmp_path / "results")) == 12


def test_a_folder_without_a_journal_costs_its_images_alone(run):
    Path("photos/sub", JOURNAL_FILE).mkdir()  # as if the folder could not be written
    code, became, err = run("photos/a.png", "photos/sub/c.jpg")
    assert (code, became) == (1, {"a.png": "done", "c.jpg": "failed"})
    assert "error: cannot keep a journal in photos/sub: Is a directory; choose another folder" in err
    assert not Path("photos/sub", GATE_FILE).exists()
    code, became, _ = run("photos/sub/c.jpg", "photos/b.png", "--fail-fast")
    assert (code, became) == (1, {"c.jpg": "failed"})


def test_a_disk_without_room_for_a_journal_is_to_be_given_some(run, small_disk):
    arguments = ("photos", "--resume", "-o", small_disk)
    assert run("photos/a.png", *arguments[1:])[1] == {"a.png": "done"}
    fill = small_disk / "fill"
    with fill.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    code, became, err = run(*arguments)
    assert (code, became) == (1, {**dict.fromkeys(ALL_DONE, "failed"), "a.png": "skipped"})
    (line,) = err.splitlines()
    assert line.endswith(f"{os.strerror(errno.ENOSPC)}; free some space")
    fill.unlink()
    assert run(*arguments)[:2] == (0, {**ALL_DONE, "a.png": "skipped"})


def test_a_dry_run_knows_what_was_done(run, capsys):
    run("photos")
    Path("photos_denoised/a.png").unlink()
    Path("photos/bad.png").write_text("no picture")
    save_photo("photos/b.png", seed=9)
    before = {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")}
    arguments = ["--weights", "same.safetensors", "--json", "-q", "--dry-run"]

    def plan(*options):
        code = main(["denoise", "photos", *arguments, *options])
        events = map(json.loads, capsys.readouterr().out.splitlines())
        return code, {Path(e["input"]).name: (e["event"], e.get("replaces")) for e in events if "input" in e}

    new, failed, skipped = ("plan_file", False), ("plan_failed", None), ("plan_skipped", None)
    known = {"a.png": new, "b.png": ("plan_file", True), "bad.png": failed, "c.jpg": skipped}
    assert plan("--resume") == (1, known)
    other = {**known, "c.jpg": ("plan_file", True)}
    assert plan("--resume", "--overlap", "8") == (1, other)
    assert plan() == (1, {"a.png": new, "b.png": failed, "bad.png": failed, "c.jpg": failed})
    assert plan("--overwrite", "--workers", "2") == (1, other)
    assert {path: path.stat().st_mtime_ns for path in Path(".").rglob("*")} == before


def test_who_lives_on_after_a_run_publishes_nothing_that_the_next_one_does_not_know(run):
    folder = Path("photos_denoised")
    first = Journal(folder)
    first.abandon()  # as the system does where it is killed
    temporary = folder / ".mambair-0123456789abcdef.tmp"
    first.pen.begin(folder / "a.png", temporary)
    temporary.write_bytes(b"whole")
    second = Journal(folder)
    entry = JournalEntry("settings", "content", Stamp(1, 1), Stamp(5, 1))
    with pytest.raises(ImageError, match="cannot keep a journal in photos_denoised: No such file"):
        first.pen.finish(folder / "a.png", entry)
    second.pen.finish(folder / "b.png", entry)
    second.close()
    assert list(Record(folder).entries) == ["b.png"]
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL_FILE]


def test_what_is_noted_while_the_parts_are_put_together_is_not_lost(run, monkeypatch):
    folder = Path("photos_denoised")
    first = Journal(folder)
    first.abandon()
    entry = JournalEntry("settings", "content", Stamp(1, 1), Stamp(5, 1))
    first.pen.begin(folder / "a.png", folder / ".mambair-0123456789abcdef.tmp")
    other = Journal(Path("other"))
    other.pen.finish(Path("other/a.png"), entry)
    line = next(other.pen.parts.glob("*.jsonl")).read_bytes()
    other.abandon()
    (part,) = first.pen.parts.glob("*.jsonl")
    file = part.open("ab")  # it was open before the next run came
    synchronize = os.fsync

    def write_late(number):
        synchronize(number)
        if not file.closed:
            file.write(line)
            file.close()

    monkeypatch.setattr(journal.os, "fsync", write_late)
    Journal(folder).close()
    assert list(Record(folder).entries) == ["a.png"]


def test_a_name_that_was_claimed_and_not_filled_is_free_again(tmp_path):
    folder = tmp_path / "results"
    first = Journal(folder)
    for name, content in (("claimed.png", b""), ("full.png", b"whose?"), ("elsewhere.png", b"")):
        temporary = folder / f".mambair-{len(list(folder.iterdir())):016x}.tmp"
        first.pen.begin(folder / name, temporary)
        if name != "elsewhere.png":
            temporary.write_bytes(b"a result")
        (folder / name).write_bytes(content)
    first.abandon()  # as where it was killed
    Journal(folder).close()
    assert sorted(path.name for path in folder.glob("*")) == ["elsewhere.png", "full.png"]
    assert (folder / "full.png").read_bytes() == b"whose?"


def test_threads_add_to_the_journal_one_at_a_time(tmp_path, monkeypatch):
    folder, busy = tmp_path / "results", threading.Lock()
    opened = Journal(folder)
    really = os.fsync

    def synchronize(number):
        assert busy.acquire(blocking=False), "two threads are at it"
        time.sleep(0.01)
        really(number)
        busy.release()

    monkeypatch.setattr(journal.os, "fsync", synchronize)
    entry = JournalEntry("s", "c", Stamp(1, 1), Stamp(1, 1))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: opened.pen.finish(folder / f"{number}.png", entry), range(16)))
    monkeypatch.undo()
    opened.close()
    assert set(Record(folder).entries) == {f"{number}.png" for number in range(16)}
