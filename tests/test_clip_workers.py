"""Workers that restore whole segments of a clip: the bytes, counts and warnings of one process."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from checkpoints import save_nearest
from clips import Sound, av, make_clip, read_packets, stopping_after
from file_limit import WITHOUT_BYTECODE
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.cli import main
from mambair_cli.cli.executors import WORKER_MODULE
from mambair_cli.errors import MambairError, VideoError
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs import clip_segments
from mambair_cli.runs.clip_job import ClipOutcome, restore_clip
from mambair_cli.runs.clip_plan import ClipJob
from mambair_cli.runs.clip_sharing import ClipForWorkers, ClipSegment
from mambair_cli.runs.executors import clip_workers
from mambair_cli.runs.executors.clip_workers import ClipWorkers
from mambair_cli.runs.executors.messages import (
    FrameEncoded,
    RestoreSegment,
    SegmentFailed,
    SegmentFinished,
)
from mambair_cli.runs.executors.processes import WorkerProcesses
from mambair_cli.runs.executors.segment_worker import restore_segments
from mambair_cli.runs.executors.starting import prepare
from mambair_cli.runs.executors.worker import Worker
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.stamps import stamp_of
from mambair_cli.runs.unfinished_clip import UnfinishedClip
from mambair_cli.video import FrameMark, SegmentWriter, choose_options, open_clip

Said = list[tuple[Worker, Any]]
TIMES = [0, 3003, 6006, 9009, 15015, 18018, 21021, 24024, 27027, 36036, 39039, 42042]  # not evenly


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    prepare([WORKER_MODULE])  # as commands do


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nearest(tmp_path_factory.mktemp("weights") / "double.safetensors", 2)


@contextmanager
def start_workers(count: int, weights: Path, notify: Any = lambda sentence: None) -> Iterator[ClipWorkers]:
    """Start worker processes; their processes keep the folder of the tests."""
    settings = RestoreSettings(Asked(weights=weights), device="cpu")
    restorer = Restorer.from_settings(settings)
    with closing(WorkerProcesses(["cpu"] * count, restorer, settings, 1, notify)) as workers:
        yield ClipWorkers(workers)


@pytest.fixture(scope="module")
def two(weights: Path) -> Iterator[ClipWorkers]:
    with start_workers(2, weights) as workers:
        yield workers


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder; segments are short there."""
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 5)
    return tmp_path


@pytest.fixture
def one(weights: Path, place: Path) -> Callable[..., ClipOutcome]:
    """Restore a clip in this process."""
    restorer = Restorer(weights=weights, device="cpu")

    def restore(source: Path, target: str, workers: ClipWorkers | None = None, **job: Any) -> ClipOutcome:
        policy = RunPolicy(resume=job.pop("resume", False), overwrite=job.pop("overwrite", False))
        outcome = restore_clip(
            ClipJob(Job(Source(source), place / target), policy=policy, **job), restorer, workers=workers
        )
        assert outcome is not None
        return outcome

    return restore


@contextmanager
def by_workers() -> Iterator[Said]:
    """Note what workers say in the block; this process must not encode a frame itself."""
    said: Said = []
    deal = clip_workers._SegmentLoop._deal_with

    def note(sharing: Any, worker: Worker, message: Any) -> None:
        said.append((worker, message))
        deal(sharing, worker, message)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("this process encodes")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_workers._SegmentLoop, "_deal_with", note)
        patch.setattr(clip_segments.SegmentEncoder, "add", refuse)
        yield said


def finished(work: Said) -> dict[int, int]:
    """Return the worker of each finished segment."""
    return {said.number: worker.number for worker, said in work if isinstance(said, SegmentFinished)}


def compare(outcome: ClipOutcome, other: ClipOutcome) -> None:
    """Compare files and facts of two results."""
    assert outcome.job.target is not None
    assert other.job.target is not None
    if outcome.job.target.suffix == ".mp4":
        assert outcome.job.target.read_bytes() == other.job.target.read_bytes()
    else:  # FFmpeg gives each Matroska file a number by chance
        assert read_packets(outcome.job.target) == read_packets(other.job.target)
    same = {"job": outcome.job, "seconds": 0}
    assert replace(outcome, **same) == replace(other, **same)
    assert not list(outcome.job.target.parent.glob(".*.mambair"))


def test_workers_make_the_segments_of_a_clip(place: Path, one, two) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[*TIMES, 45045, 48048, 50000, 53003], sound=Sound("aac"), size=(48, 32))
    alone = one(source, "one.mp4")
    with by_workers() as work:
        shared = one(source, "two.mp4", two)
    compare(shared, alone)
    assert shared.frames == 16
    assert set(finished(work)) == {0, 1, 2, 3}
    assert set(finished(work).values()) == {0, 1}
    assert sorted(said.number for _, said in work if isinstance(said, FrameEncoded)) == list(range(16))
    assert read_packets(place / "two.mp4", "audio") == read_packets(place / "one.mp4", "audio")


def test_few_segments_are_made_by_tiles_unless_workers_are_gpus(place: Path, one, two, monkeypatch) -> None:
    save_images(place / "frames", [0, 1, 2, 3])
    alone = one(place / "frames/%d.png", "one.mp4")
    with by_workers() as work, pytest.raises(AssertionError, match="this process encodes"):
        one(place / "frames/%d.png", "two.mp4", two)
    monkeypatch.setattr(two._workers, "are_gpus", True)
    with by_workers() as work:
        compare(one(place / "frames/%d.png", "three.mp4", two), alone)
    assert set(finished(work)) == {0}


def test_a_frame_repeats_none_of_another_segment(place: Path, one, two) -> None:
    pictures = [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3]
    save_images(place / "frames", pictures)
    alone = one(place / "frames/%d.png", "one.mp4")
    with by_workers():
        compare(one(place / "frames/%d.png", "two.mp4", two), alone)
    assert alone.repeated == len(pictures) - 4 - 2  # the first ones of two segments repeat none


def save_images(folder: Path, colours: list[int]) -> None:
    folder.mkdir()
    for number, colour in enumerate(colours, 1):
        Image.new("RGB", (24, 16), (15 * colour, 90, 0)).save(folder / f"{number}.png")


def test_numbered_images_with_gaps_and_broken_ones(place: Path, one, two) -> None:
    save_images(place / "frames", list(range(16)))
    for number in (9, 10):
        (place / f"frames/{number}.png").unlink()
    for number in (6, 13, 15):  # the first one of a segment, and others
        (place / f"frames/{number}.png").write_bytes(b"no image")
    alone = one(place / "frames/%d.png", "one.mp4")
    with by_workers() as work:
        compare(one(place / "frames/%d.png", "two.mp4", two), alone)
    assert len(alone.warnings) == 4
    assert set(finished(work)) == {0, 1, 2}


def test_an_error_in_a_worker_is_that_of_one_process(place: Path, one, two) -> None:
    save_images(place / "frames", list(range(12)))
    Image.new("RGB", (24, 17)).save(place / "frames/7.png")
    with pytest.raises(VideoError) as alone:
        one(place / "frames", "one.mkv")
    with by_workers(), pytest.raises(VideoError) as shared:
        one(place / "frames", "two.mkv", two)
    assert str(shared.value) == str(alone.value)
    assert "7.png: it has 24×17 pixels, and the first image of the clip 24×16" in str(shared.value)
    assert not list(place.glob(".two.mkv.mambair/.mambair-*"))
    Image.new("RGB", (24, 16)).save(place / "frames/7.png")
    with by_workers():  # those that were ended are there again
        assert one(place / "frames", "two.mkv", two).frames == 12


@pytest.mark.parametrize(("damage", "byte"), [(3, 0), (6, 255), (10, 255), (13, 0), (20, 255)])
def test_a_broken_clip_gives_the_same_pictures_and_warnings(
    place: Path, one, two, damage: int, byte: int
) -> None:
    source = place / "in.mp4"
    make_clip(
        source, "mp4", options={"preset": "ultrafast", "g": "10", "bf": "2" if byte else "0", "crf": "5"}
    )
    with av.open(str(source)) as container:
        broken = [packet for packet in container.demux(video=0) if packet.size][damage]
    data = bytearray(source.read_bytes())
    part = slice(broken.pos + bool(byte) * broken.size // 3, broken.pos + broken.size)
    data[part] = bytes([byte]) * (part.stop - part.start)
    source.write_bytes(data)
    alone = one(source, "one.mkv", codec="ffv1")
    with by_workers() as work:
        compare(one(source, "two.mkv", two, codec="ffv1"), alone)
    assert set(finished(work).values()) == {0, 1}
    assert bool(alone.warnings) == (damage in (3, 10, 13))


def test_fields_of_a_clip_become_whole_frames(place: Path, one, two) -> None:
    source = place / "in.mkv"
    options = {"preset": "ultrafast", "x264-params": "tff=1"}
    make_clip(source, "matroska", times=[3003 * n for n in range(17)], options=options, size=(48, 32))
    alone = one(source, "one.mkv", codec="ffv1", deinterlace=True)
    with by_workers() as work:
        compare(one(source, "two.mkv", two, codec="ffv1", deinterlace=True), alone)
    assert set(finished(work)) == {0, 1, 2, 3}


class DeadlyOnce(type(Path())):
    """Ends the first worker that uses it."""

    def __fspath__(self) -> str:
        name = super().__fspath__()
        mark = os.path.join(os.path.dirname(name), "died")
        is_worker = multiprocessing.parent_process() is not None
        if is_worker and name.endswith(".mkv") and not os.path.exists(mark):
            open(mark, "x").close()
            os._exit(9)
        return name


class Deadly(type(Path())):
    """Ends every worker that uses it."""

    def __fspath__(self) -> str:
        if multiprocessing.parent_process() is not None:
            os._exit(9)
        return super().__fspath__()


def poison(kind: type[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the second segment end any process that makes it."""
    path_of = UnfinishedClip.path_of
    monkeypatch.setattr(
        UnfinishedClip,
        "path_of",
        lambda unfinished, number: (kind if number == 1 else Path)(path_of(unfinished, number)),
    )


def test_the_segments_of_a_worker_that_dies_go_to_another(place: Path, one, weights, monkeypatch) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[3003 * n for n in range(32)], sound=Sound("aac"), size=(48, 32))
    alone, notices = one(source, "one.mp4"), []
    poison(DeadlyOnce, monkeypatch)
    with start_workers(2, weights, notices.append) as workers, by_workers() as work:
        compare(one(source, "two.mp4", workers), alone)
    assert len(notices) == 1
    assert notices[0].startswith("the worker on cpu died while it had frames ")
    assert "frames 6 to 10" in notices[0]
    assert set(finished(work)) == set(range(7))


def test_a_segment_over_which_workers_die_is_given_up(place: Path, one, weights, monkeypatch) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[3003 * n for n in range(32)], size=(48, 32))
    alone = one(source, "one.mp4")
    with monkeypatch.context() as patch, start_workers(3, weights) as workers:
        poison(Deadly, patch)
        why = "2 workers died over frames 6 to 10; see their messages, use fewer, and go on with --resume"
        with pytest.raises(MambairError, match=why):
            one(source, "two.mp4", workers)
    left = sorted(path.name for path in place.glob(".two.mp4.mambair/*.mkv"))
    assert "000001.mkv" not in left
    resumed = one(source, "two.mp4", resume=True)
    assert resumed.resumed == (5 if "000000.mkv" in left else 0)
    compare(replace(resumed, resumed=0), alone)


def test_workers_that_died_begin_again_with_the_next_clip(place: Path, one, weights, monkeypatch) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[3003 * n for n in range(12)], size=(48, 32))
    alone = one(source, "one.mp4")
    with start_workers(2, weights) as workers:
        with monkeypatch.context() as patch:
            poison(Deadly, patch)
            with pytest.raises(MambairError, match="2 workers died over frames 6 to 10"):
                one(source, "bad.mp4", workers)
        assert workers.count == 2
        with by_workers() as work:
            resumed = one(source, "bad.mp4", workers, resume=True)
    compare(replace(resumed, resumed=0), alone)
    assert 1 in finished(work)


def test_a_worker_refuses_a_clip_that_is_another_by_now(place: Path) -> None:
    source, sent = place / "in.mp4", []
    make_clip(source, "mp4", times=[3003 * n for n in range(5)], size=(24, 16))
    with open_clip(source) as clip:
        marks, facts = tuple(clip.survey()), clip.facts
    options = choose_options(facts, place / "out.mp4", size=(48, 32))
    order = ClipForWorkers(source, stamp_of(source), None, False, facts, options, None, (32, 48), 5, 1)
    os.utime(source, (1, 1))
    restore_segments(
        RestoreSegment(order, ClipSegment(0, 0, place / "0.mkv", marks)),
        lambda waits: None,
        Restorer(model="tiny-x2", scale=2, device="cpu", offline=True),
        sent.append,
    )
    assert [str(said.error) for said in sent] == [
        f"cannot read {source} again: it has changed; restore it anew"
    ]
    assert not (place / "0.mkv").exists()


def test_the_worker_that_ends_first_makes_a_segment_that_was_lost() -> None:
    given: list[tuple[int, int]] = []

    def worker(number: int) -> Any:
        def send(message: RestoreSegment) -> None:
            given.append((number, message.segment.number))

        return SimpleNamespace(segments=[], frames_left=0, send=send)

    segments = iter(
        [ClipSegment(number, 4 * number, Path("x"), (FrameMark(0, 1, 0),) * 4) for number in range(9)]
    )
    shared = SimpleNamespace(
        order=SimpleNamespace(length=4, source=Path("clip.mp4")),
        is_over=False,
        next_segment=lambda: next(segments),
        segment_lost=lambda number: None,
        segment_finished=lambda number, warnings: None,
    )
    workers: Any = [worker(number) for number in range(3)]
    loop = clip_workers._SegmentLoop(cast(Any, SimpleNamespace(present=workers)), cast(Any, shared))
    loop._hand_out()
    loop._lose(workers.pop(0))
    for each in workers:
        each.frames_left = 2  # in the second half of its segment
    loop._hand_out()
    assert given == [(0, 0), (1, 1), (2, 2)]
    workers[1].frames_left = 0
    loop._deal_with(workers[1], SegmentFinished(2, ()))
    loop._hand_out()
    assert given[3:] == [(2, 0), (1, 3)]  # the other one may go on, too


class StopError(Exception):
    """Stands for what ends a run at any moment."""


@pytest.mark.parametrize("missing", [None, 0, 1])
@pytest.mark.parametrize("goes_on", ["workers", "one process"])
def test_another_number_of_workers_goes_on(
    place: Path, one, two, monkeypatch, goes_on: str, missing: int | None
) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[3003 * n + n % 3 for n in range(33)], sound=Sound("aac"), size=(48, 32))
    alone = one(source, "one.mp4")
    left = iter(range(22))

    def stop(*arguments: Any) -> None:
        if next(left, None) is None:
            raise StopError
        write(*arguments)

    write = SegmentWriter.encode
    with monkeypatch.context() as patch:  # four segments are finished
        patch.setattr(SegmentWriter, "encode", stop)
        with pytest.raises(StopError):
            one(source, "two.mp4")
    folder = place / ".two.mp4.mambair"
    if missing is not None:
        (folder / f"{missing:06d}.mkv").unlink()
    (folder / ".mambair-0123456789abcdef.tmp").touch()  # of a process that was killed
    if goes_on == "one process":
        resumed = one(source, "two.mp4", resume=True)
        assert resumed.resumed == {None: 20, 0: 0, 1: 5}[missing]
    else:
        with by_workers() as work:
            resumed = one(source, "two.mp4", two, resume=True)
        assert resumed.resumed == 20 - (missing is not None) * 5
        assert set(finished(work)) == {4, 5, 6} | ({missing} - {None})
    compare(replace(resumed, resumed=0), alone)


def test_a_run_that_has_all_segments_joins_them(place: Path, one, two, monkeypatch) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=[3003 * n for n in range(12)], sound=Sound("aac"), size=(48, 32))
    alone = one(source, "one.mp4")

    def stop(*arguments: Any, **options: Any) -> list[str]:
        raise StopError

    from mambair_cli.runs import clip_writers

    with monkeypatch.context() as patch, by_workers():
        patch.setattr(clip_writers, "join_segments", stop)
        with pytest.raises(StopError):
            one(source, "two.mp4", two)
    resumed = one(source, "two.mp4", two, resume=True)
    assert resumed.resumed == 12
    compare(replace(resumed, resumed=0), alone)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), VideoError("why")])
def test_a_worker_reports_why_a_segment_fails(place: Path, weights, monkeypatch, error: Exception) -> None:
    source = place / "in.mp4"
    make_clip(source, "mp4", times=TIMES[:7], size=(24, 16))
    with open_clip(source) as clip:
        marks, facts = tuple(clip.survey()), clip.facts
    options = choose_options(facts, place / "out.mkv", size=(48, 32), codec=None, quality=None)
    order = ClipForWorkers(source, None, None, False, facts, options, None, (32, 48), 5, 1)
    first = ClipSegment(0, 0, place / "0.mkv", marks[:5])
    waiting = iter([RestoreSegment(order, ClipSegment(1, 5, place / "1.mkv", marks[5:]))])
    write, sent = SegmentWriter.encode, []

    def fail(writer: SegmentWriter, frame: Any, pts: int, duration: int) -> None:
        if pts == TIMES[2]:
            raise error
        write(writer, frame, pts, duration)

    monkeypatch.setattr(SegmentWriter, "encode", fail)
    restore_segments(
        RestoreSegment(order, first),
        lambda waits: next(waiting, None) if waits else None,
        Restorer(weights=weights, device="cpu"),
        sent.append,
    )
    [failed] = [message for message in sent if isinstance(message, SegmentFailed)]
    assert (type(failed.error), str(failed.error)) == (type(error), str(error))
    assert [message.number for message in sent if isinstance(message, SegmentFinished)] == [1]
    assert [path.name for path in place.glob("*.mkv")] == ["1.mkv"]
    assert not list(place.glob(".mambair-*"))


def test_a_worker_that_misses_an_image_finishes_no_segment(place: Path, weights) -> None:
    save_images(place / "frames", list(range(8)))
    source = place / "frames/%d.png"
    with open_clip(source) as clip:
        marks, facts = tuple(clip.survey()), clip.facts
    (place / "frames/8.png").unlink()
    options = choose_options(facts, place / "out.mkv", size=(48, 32), codec=None, quality=None)
    order = ClipForWorkers(source, None, None, False, facts, options, None, (32, 48), 5, 1)
    first = RestoreSegment(order, ClipSegment(1, 5, place / "1.mkv", marks[5:]))
    waiting = iter([RestoreSegment(order, ClipSegment(0, 0, place / "0.mkv", marks[:5]))])
    sent = []
    restore_segments(
        first,
        lambda waits: next(waiting, None) if waits else None,
        Restorer(weights=weights, device="cpu"),
        sent.append,
    )
    [failed] = [message for message in sent if isinstance(message, SegmentFailed)]
    assert str(failed.error) == f"cannot read {source} again: it has changed; restore it anew"
    assert [message.number for message in sent if isinstance(message, SegmentFinished)] == [0]
    assert [path.name for path in place.glob("*.mkv")] == ["0.mkv"]


def test_joined_recordings_are_restored_by_workers(place: Path, one, two) -> None:
    source = place / "in.ts"
    make_clip(source, "mpegts", times=[3003 * n for n in range(14)], size=(48, 32))
    source.write_bytes(source.read_bytes() * 2)  # times begin anew
    alone = one(source, "one.mkv")
    assert alone.frames == 28
    with by_workers():
        compare(one(source, "two.mkv", two), alone)


@pytest.mark.parametrize("second", [14, 45])
@pytest.mark.parametrize("by_two", [False, True])
def test_no_frame_of_joined_recordings_is_lost_by_a_run_that_goes_on(
    place: Path, one, two, second: int, by_two: bool
) -> None:
    parts = []
    for length in (14, second):
        make_clip(place / "in.ts", "mpegts", times=[3003 * n for n in range(length)], size=(48, 32))
        parts.append((place / "in.ts").read_bytes())
    source = place / "in.ts"
    source.write_bytes(b"".join(parts))  # the second part has the times, and frames, of the first one
    alone = one(source, "one.mkv")
    assert alone.frames == 14 + second
    for stop in (7, 22):
        with stopping_after(stop):
            one(source, "two.mkv", resume=True)
        resumed = one(source, "two.mkv", two if by_two else None, resume=True)
        assert resumed.resumed == stop // 5 * 5
        compare(replace(resumed, resumed=0), alone)
        (place / "two.mkv").unlink()


def upscale(*arguments: str) -> int:
    return main(["upscale", "in.mp4", "-s", "2", "--offline", *arguments])


@pytest.mark.parametrize("crf", ["45", "5"])
def test_the_model_that_a_look_chooses_is_that_of_the_workers(
    place: Path, monkeypatch, capsys, crf: str
) -> None:
    monkeypatch.chdir(place)
    make_clip(place / "in.mp4", "mp4", times=TIMES, size=(64, 48), options={"crf": crf})
    assert upscale("--device", "cpu", "--json", "-o", "one.mp4") == 0
    with by_workers() as work:
        assert upscale("--workers", "2", "--json", "-o", "two.mp4") == 0
    assert set(finished(work)) == {0, 1, 2}
    one, two = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"done", "in' in line]
    assert one["model"] == two["model"] == {"45": "tiny-real-x2", "5": "tiny-x2"}[crf]
    assert Path("one.mp4").read_bytes() == Path("two.mp4").read_bytes()


@pytest.fixture
def long_clip(tmp_path: Path, weights: Path, monkeypatch) -> list[str]:
    """Make a clip of some segments, and return a command that restores it by two workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clip_segments, "SEGMENT_FRAMES", 24)
    make_clip(tmp_path / "in.mp4", "mp4", times=[3003 * n for n in range(200)], size=(48, 32))
    program = (
        "import sys; from mambair_cli.cli import main; from mambair_cli.runs import clip_segments;"
        "clip_segments.SEGMENT_FRAMES = 24; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "upscale", "in.mp4", "-s", "2", "--workers", "2"]
    return [*command, "--offline", "--weights", str(weights), "-o", "two.mp4"]


def await_segments(running: subprocess.Popen[str], count: int) -> None:
    end = time.monotonic() + 60
    while len(list(Path(".two.mp4.mambair").glob("*.mkv"))) < count:
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def processes_of(command: list[str]) -> list[str]:
    """Return the processes that work in the folder of a test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(folder / "cwd") == os.getcwd() and folder.name != str(os.getpid()):
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_segments_for_the_next(long_clip, weights, number: int) -> None:
    running = subprocess.Popen(long_clip, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    await_segments(running, 2)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    segments = list(Path(".two.mp4.mambair").glob("*.mkv"))
    assert 2 <= len(segments) < 9
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert said.splitlines()[-2:] == [
            "mambair: what is finished of two.mp4 is kept; --resume goes on with it",
            "mambair: interrupted",
        ]
        assert not list(Path(".two.mp4.mambair").glob(".mambair-*"))
        assert not [each for each in processes_of(long_clip) if "mambair" in each]
    min(segments).unlink()  # others come after a gap
    done = subprocess.run([*long_clip, "--resume", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[1])
    assert (facts["frames"], facts["resumed"]) == (200, 24 * (len(segments) - 1))
    assert upscale("--device", "cpu", "--weights", str(weights), "-o", "one.mp4") == 0
    assert Path("one.mp4").read_bytes() == Path("two.mp4").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limits")
def test_a_disk_that_takes_no_more_is_reported_in_a_line(long_clip) -> None:
    command = ["bash", "-c", 'ulimit -f 2; exec "$@"', "-", *long_clip]
    done = subprocess.run(command, env={**os.environ, **WITHOUT_BYTECODE}, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    why = "File too large; see to the folder, and go on with --resume"
    assert done.stderr.splitlines()[-1] == f"mambair: error: cannot write two.mp4: {why}"
    assert "Traceback" not in done.stderr
    assert not Path("two.mp4").exists()
