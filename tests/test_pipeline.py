"""Images one after another: read ahead, computed, written behind, the small ones together."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_nearest, save_random
from networks import V1
from pictures import save_photo
from PIL import Image

from mambair_cli.images.discovery import find_sources
from mambair_cli.networks import MambaIR
from mambair_cli.restore import small_images
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs import image_job, pipeline
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.pipeline import Pipeline
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import run_jobs

PATIENCE_SECONDS = 30


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(small_images.MOST_TOGETHER, "cpu", 4)  # as on a GPU, where 16 are
    monkeypatch.setitem(small_images.PIXELS_TOGETHER, "cpu", 4 * 48**2)
    return save_random(Path("x2.safetensors"), replace(V1, upscale=2, upsampler="pixelshuffle"))


def save(name, height, width, mode="RGB", seed=0):
    return save_photo(f"photos/{name}.png", (width, height), mode, seed)


class Recorder:
    """Passes tiles on to a computer, and remembers the shapes of the batches."""

    def __init__(self, computer, most_pixels=2**30, is_moved_by_place=False):
        self.scale, self.ahead, self.buffers = computer.scale, computer.ahead, computer.buffers
        self.allocate, self.split = computer.allocate, computer.split
        self.computer, self.most_pixels, self.is_moved_by_place = computer, most_pixels, is_moved_by_place
        self.shapes = []
        self.before = lambda: None

    def launch(self, tiles, corners, seed):
        self.before()
        self.shapes.append(tiles.shape[:3])
        if tiles[..., 0].size > self.most_pixels:
            raise torch.OutOfMemoryError("no room")
        return self.computer.launch(tiles, corners, seed)

    def collect(self, launched):
        results = self.computer.collect(launched)
        for place, result in enumerate(results):
            result += place / 64 * self.is_moved_by_place
        return results


def record(weights, **options):
    restorer = Restorer(weights=weights, device="cpu")
    recorder = Recorder(restorer.computer, **options)
    return restorer.by(recorder), recorder


def run(restorer, fail_fast=False, **callbacks):
    jobs = name_targets(find_sources(["photos"]), "out", "_x2")

    def perform(prepared, is_stopped):
        return Pipeline(prepared, is_stopped, restorer, **callbacks).outcomes()

    policy = RunPolicy(fail_fast=fail_fast)
    return run_jobs(jobs, WriteOptions(), policy, Fingerprint.of(restorer), perform)


def written(name):
    return np.asarray(Image.open(f"out/{name}.png"))


@pytest.mark.parametrize("is_moved_by_place", [False, True])
def test_small_images_of_one_size_share_batches_and_come_out_as_alone(weights, is_moved_by_place):
    pixels = {f"{index}": save(index, 20, 30, seed=index) for index in range(6)}
    pixels["7"] = save("7", 30, 20)
    pixels["8"] = save("8", 30, 20, mode="L")[..., 0]
    save_nearest(weights, 2)  # exact wherever it is computed
    restorer, recorder = record(weights, is_moved_by_place=is_moved_by_place)
    assert [outcome.error for outcome in run(restorer)] == [None] * 8
    for name, image in pixels.items():
        np.testing.assert_array_equal(written(name), Restorer(weights=weights, device="cpu")(image))
    assert {shape[0] for shape in recorder.shapes} == {4}
    # Six of one size take two batches, and one that shows that they may be trusted; the other two are alone.
    assert len(recorder.shapes) == (2 + 1 + 4 + 2 + 2 if is_moved_by_place else 2 + 1 + 2)


def test_small_images_are_computed_side_by_side_on_a_cpu(weights, one_thread, monkeypatch):
    torch.set_num_threads(3)
    monkeypatch.setattr(pipeline, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    pixels = {f"{index}": save(index, 40, 30, seed=index) for index in range(7)}
    alone = {name: Restorer(weights=weights, device="cpu")(image) for name, image in pixels.items()}
    together, forward, batches = threading.Barrier(3), MambaIR.forward, []

    def see(net, x, **options):
        batches.append(len(x))
        if len(batches) <= 6:  # the seventh has nobody to wait for
            together.wait(PATIENCE_SECONDS)
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", see)
    assert [outcome.error for outcome in run(Restorer(weights=weights, device="cpu"))] == [None] * 7
    assert batches == [1] * 7
    for name, image in alone.items():
        np.testing.assert_array_equal(written(name), image)


def test_images_that_are_not_small_or_not_opaque_are_computed_by_themselves(weights):
    for name in ("a", "b"):
        save(name, 20, 30, mode="RGBA")
        save(f"large_{name}", 100, 110)
    restorer, recorder = record(weights)
    assert [outcome.error for outcome in run(restorer)] == [None] * 4
    assert {shape[0] for shape in recorder.shapes} == {1}


def test_one_bad_image_among_small_ones_costs_itself_alone(weights):
    for index in range(4):
        save(index, 20, 30, seed=index)
    Path("photos/1.png").write_text("no picture")
    restorer, _ = record(weights)
    outcomes = list(run(restorer))
    assert [_name_of_outcome(outcome) for outcome in outcomes] == [f"{index}.png" for index in range(4)]
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, True]
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["0.png", "2.png", "3.png"]


def test_small_images_that_memory_does_not_hold_at_once_are_done_one_by_one(weights):
    for index in range(2):
        save(index, 20, 30, seed=index)
    restorer, recorder = record(weights, most_pixels=20 * 30)
    outcomes = list(run(restorer))
    assert [outcome.report is not None and outcome.report.shrunk for outcome in outcomes] == [True, True]
    assert recorder.shapes == [(4, 20, 30), *[(4, 20, 30), (1, 20, 30)] * 2]


def test_the_next_image_is_decoded_while_one_is_computed(weights):
    for name in ("a", "b"):
        save(name, 100, 110)
    restorer, recorder = record(weights)
    opened = {name: threading.Event() for name in ("a.png", "b.png")}
    recorder.before = lambda: assert_true(opened["b.png"].wait(PATIENCE_SECONDS))
    open_work = ImageJob.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageJob, "open", lambda work: (open_work(work), opened[_name(work)].set()))
        assert [outcome.error for outcome in run(restorer)] == [None] * 2


def test_a_result_is_written_while_the_next_image_is_computed(weights, monkeypatch):
    for name in ("a", "b", "c"):
        save(name, 100, 110)
    restorer, recorder = record(weights)
    begun = threading.Semaphore(0)
    finish = ImageJob.finish

    def wait_for_the_next(work):
        if _name(work) != "c.png":
            assert begun.acquire(timeout=PATIENCE_SECONDS)  # its own, long since
            assert begun.acquire(timeout=PATIENCE_SECONDS)
            begun.release()
        return finish(work)

    recorder.before = begun.release
    monkeypatch.setattr(ImageJob, "finish", wait_for_the_next)
    names = [_name_of_outcome(outcome) for outcome in run(restorer)]
    assert names == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("height", [20, 100], ids=["small", "large"])
def test_a_gpu_has_the_next_image_before_one_is_collected(weights, height):
    for index in range(10):
        save(index, height, 110 if height == 100 else 30, seed=index)
    restorer, recorder = record(weights)
    recorder.ahead = 2
    recorder.before = lambda: time.sleep(0.05)  # in which the other thread opens images
    under_way = []
    collect = recorder.collect

    def look(launched):
        under_way.append(len(recorder.shapes) - len(under_way) - 1)
        return collect(launched)

    recorder.collect = look
    assert [outcome.error for outcome in run(restorer)] == [None] * 10
    assert max(under_way) >= 1
    assert sum(count >= 1 for count in under_way) >= len(under_way) // 2  # not the first and the last ones
    for index in range(10):
        image = np.asarray(Image.open(f"photos/{index}.png"))
        np.testing.assert_array_equal(written(index), Restorer(weights=weights, device="cpu")(image))


@pytest.mark.parametrize("ahead", [0, 2])
def test_progress_is_that_of_the_image_whose_turn_has_come(weights, ahead):
    for index in range(6):
        save(f"a{index}", 20, 30, seed=index)  # small ones, which share batches
    for name in ("b", "c"):
        save(name, 100, 110)
    restorer, recorder = record(weights)
    recorder.ahead = ahead
    started, tiles = [], []

    def tell(done, total):
        tiles.append((started[-1], total))

    outcomes = list(
        run(restorer, on_start=lambda image: started.append(image.source.path.name), on_tiles=tell)
    )
    assert [outcome.error for outcome in outcomes] == [None] * 8
    assert started == [*[f"a{index}.png" for index in range(6)], "b.png", "c.png"]
    plans = {_name_of_outcome(each): len(each.report.plan) for each in outcomes if each.report}
    assert {name for name, _ in tiles} == {"b.png", "c.png"}
    assert all(total == plans[name] for name, total in tiles)


def test_no_more_is_decoded_ahead_than_is_allowed(weights, monkeypatch):
    monkeypatch.setattr(pipeline, "PIXELS_AHEAD", 3 * 100 * 110)
    for index in range(9):
        save(index, 100, 110, seed=index)
    restorer, recorder = record(weights)
    opened, ahead = [], []
    open_work = ImageJob.open

    def look():
        time.sleep(0.05)  # in which the other thread could open all of them
        ahead.append(len(opened) - len(ahead) - 1)

    recorder.before = look
    monkeypatch.setattr(ImageJob, "open", lambda work: (open_work(work), opened.append(None)))
    assert len(list(run(restorer))) == 9
    assert max(ahead) == 3


def test_a_large_image_is_not_decoded_before_its_turn(weights, monkeypatch):
    monkeypatch.setattr(image_job, "DECODED_BYTES", 100 * 110 * 3 - 1)
    image = save("a", 100, 110)
    save("b", 20, 30)
    restorer, _ = record(weights)
    decoded = {}
    open_work = ImageJob.open
    monkeypatch.setattr(
        ImageJob,
        "open",
        lambda work: (open_work(work), decoded.update({_name(work): work.samples is not None})),
    )
    assert [outcome.error for outcome in run(restorer)] == [None] * 2
    assert decoded == {"a.png": False, "b.png": True}
    np.testing.assert_array_equal(written("a"), Restorer(weights=weights, device="cpu")(image))


def test_a_run_that_is_broken_off_keeps_what_was_computed_and_nothing_half_done(weights):
    for index in range(5):
        save(index, 100, 110, seed=index)
    restorer, recorder = record(weights)
    outcomes = run(restorer)
    next(outcomes)

    def interrupt():
        if len(recorder.shapes) >= 4:
            raise KeyboardInterrupt

    recorder.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(outcomes)
    assert sorted(path.name for path in Path("out").glob("*")) == [
        ".mambair.jsonl",
        *(f"{index}.png" for index in range(4)),
    ]


def test_an_interrupt_between_the_last_row_and_the_end_leaves_nothing_half_done(weights, monkeypatch):
    for index in range(3):
        save(index, 100, 110, seed=index)
    submit = pipeline.ThreadPoolExecutor.submit

    def interrupt(executor, finish):
        if finish.__self__.prepared.job.source.path.name == "1.png":
            raise KeyboardInterrupt
        return submit(executor, finish)

    monkeypatch.setattr(pipeline.ThreadPoolExecutor, "submit", interrupt)
    restorer, _ = record(weights)
    outcomes = run(restorer)
    with pytest.raises(KeyboardInterrupt) as held:  # as the frames of a traceback hold what they were at
        list(outcomes)
    assert held.traceback
    assert {path.name for path in Path("out").glob("*")} == {".mambair.jsonl", "0.png", "1.png"}


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_run_that_nobody_follows_to_its_end_leaves_nothing_half_done(weights, ahead):
    for index in range(5):
        save(index, 100, 110, seed=index)
    restorer, recorder = record(weights)
    recorder.ahead = ahead
    outcomes = run(restorer)
    held = outcomes  # as the frames of a traceback hold what they were at
    next(outcomes)
    outcomes.close()
    assert held is outcomes
    names = sorted(path.name for path in Path("out").glob("*"))
    assert names[0] == ".mambair.jsonl"
    assert set(names[1:]) <= {f"{index}.png" for index in range(5)}
    assert 1 <= len(names[1:]) < 5


def test_after_a_failure_a_run_that_fails_fast_reports_all_that_it_has_written(weights):
    for index in range(30):
        save(f"{index:02}", 100, 110, seed=index)
    Path("photos/03.png").write_text("no picture")
    restorer, _ = record(weights)
    outcomes = list(run(restorer, fail_fast=True))
    reported = sorted(_name_of_outcome(outcome) for outcome in outcomes if outcome.error is None)
    assert reported == sorted(path.name for path in Path("out").glob("*.png"))
    assert 3 <= len(reported) < 10


def test_a_bug_in_another_thread_is_raised_here(weights, monkeypatch):
    save("a", 20, 30)
    restorer, _ = record(weights)
    monkeypatch.setattr(image_job, "plan_result", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(run(restorer))


def assert_true(value):
    assert value


def _name(job):
    return job.prepared.job.source.path.name


def _name_of_outcome(outcome):
    return outcome.job.source.path.name
