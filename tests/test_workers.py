"""Several workers do what one process does, also where some of them die."""

import json
import multiprocessing
import os
import re
import subprocess
import time
from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_nearest, save_random
from folders import read_files
from forked import start_forked
from networks import V2
from pictures import save_photo
from PIL import Image

from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.cli import main
from mambair_cli.cli.executors import WORKER_MODULE
from mambair_cli.errors import MambairError, ModelError, UsageError
from mambair_cli.images.discovery import find_sources
from mambair_cli.images.source import Source
from mambair_cli.restore import devices
from mambair_cli.restore.devices import choose_devices
from mambair_cli.restore.output_buffers import HostBuffers
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import ImageSettings, RestoreSettings
from mambair_cli.runs.executors import process_worker, worker
from mambair_cli.runs.executors.messages import Advanced, Done, Noticed, TilesFailed
from mambair_cli.runs.executors.processes import WorkerProcesses
from mambair_cli.runs.executors.scheduler import MOST_LOSSES
from mambair_cli.runs.executors.starting import prepare
from mambair_cli.runs.executors.this_process import ThisProcess
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.record import JOURNAL_FILE
from mambair_cli.runs.run import run_jobs
from mambair_cli.system.notices import SlowerWarning

IMAGES = 6


@pytest.fixture(scope="module", autouse=True)
def prepared():
    prepare([WORKER_MODULE])  # as commands do


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(IMAGES):
        save_photo(f"photos/{index}.png", (30, 20), seed=index)
    return save_nearest(Path("x4.safetensors"), 4)


def restore(perform, weights, output):
    """Restore the photographs into a folder; return the error of each that has one."""
    jobs = name_targets(find_sources(["photos"]), output, "_x4")
    fingerprint = Fingerprint.of(Restorer(weights=weights, device="cpu"))
    outcomes = list(run_jobs(jobs, WriteOptions(), RunPolicy(), fingerprint, perform))
    assert sorted(outcome.job.place for outcome in outcomes) == sorted(job.place for job in jobs)
    return {str(outcome.job.source): str(outcome.error) for outcome in outcomes if outcome.error}


def workers():
    """Return the worker processes that are alive."""
    return [child for child in multiprocessing.active_children() if child.name.startswith("mambair-")]


def journal(folder):
    lines = map(json.loads, filter(None, Path(folder, JOURNAL_FILE).read_text().splitlines()))
    return sorted((line["result"], line["content"]) for line in lines if "result" in line)


def test_a_worker_that_dies_hands_its_image_to_another(weights):
    for index in range(IMAGES, 4 * IMAGES):  # some are left when one is done
        save_photo(f"photos/{index}.png", (30, 20), seed=index)
    alone = Restorer(weights=weights, device="cpu")
    assert restore(ThisProcess(alone).perform, weights, "alone") == {}
    notices = []
    executor = WorkerProcesses(
        ["cpu", "cpu"], alone, RestoreSettings(Asked(weights=weights)), threads=1, notify=notices.append
    )
    try:
        assert restore(executor.perform, weights, "side_by_side") == {}
        Path("photos/3.png").write_text("no picture")

        def kill_one(tasks, is_stopped):
            for number, outcome in enumerate(executor.perform(tasks, is_stopped)):
                if number == 0:
                    workers()[0].kill()
                yield outcome

        errors = restore(kill_one, weights, "one_killed")
        assert len(notices) == 1
        assert re.search("the worker on cpu died while it had (photos/|tiles of an image)", notices[0])
        assert list(errors) == ["photos/3.png"]
        for worker in workers():
            worker.kill()
        assert list(restore(executor.perform, weights, "all_killed")) == ["photos/3.png"]
        assert len(workers()) == 2

        def kill_for_good(tasks, is_stopped):
            weights.unlink()
            for worker in workers():
                worker.kill()
            return executor.perform(tasks, is_stopped)

        with pytest.raises(MambairError, match=r"all workers have died.*--resume"):
            restore(kill_for_good, weights, "none")
        assert "the worker on cpu died at its start: " in notices[-2]
        assert notices[-1] == f"no further worker is started on cpu: {MOST_LOSSES} were lost"
    finally:
        executor.close()
    assert read_files("side_by_side") == read_files("alone")
    assert journal("side_by_side") == journal("alone")
    wanted = {name: data for name, data in read_files("alone").items() if name != "3.png"}
    assert read_files("one_killed") == read_files("all_killed") == wanted
    assert read_files("none") == {}


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("deadly", [{2}, {2, 3}])
def test_an_image_that_kills_each_worker_is_given_up(weights, count, deadly):
    executor = WorkerProcesses(
        ["cpu"] * count, Restorer(weights=weights), RestoreSettings(Asked(weights=weights)), threads=1
    )

    def poison(tasks, is_stopped):
        tasks = list(tasks)
        for number in deadly:
            tasks[number].guard.begin = Deadly()
        return executor.perform(tasks, is_stopped)

    try:
        errors = restore(poison, weights, "out")
    finally:
        executor.close()
    assert errors == {
        f"photos/{number}.png": f"cannot restore photos/{number}.png: 2 workers died over it; leave it out"
        for number in deadly
    }
    assert len(read_files("out")) == IMAGES - len(deadly)


def test_only_a_death_is_taken_for_one(weights, monkeypatch):
    notices = []
    executor = WorkerProcesses(
        ["cpu", "cpu"], Restorer(weights=weights), RestoreSettings(Asked(weights=weights)), 1, notices.append
    )
    outcome = Outcome(Job(Source(Path("photos/0.png")), Path("0.png")), None, (1, 1))
    receive = worker.receive

    def say_first(*messages):
        waiting = iter(messages)
        monkeypatch.setattr(worker, "receive", lambda pipe: next(waiting, None) or receive(pipe))

    try:
        tiles = np.zeros((1, 8, 8, 3), np.float32)
        say_first(Noticed("it is slow"), Advanced(1, 2))
        batch = executor.launch(tiles, [(0, 0)], None)
        with pytest.warns(SlowerWarning, match="it is slow"):
            assert executor.collect(batch).shape == (1, 32, 32, 3)
        assert batch.deaths == 0
        for message, error in {
            "what?": "no message of a worker: 'what",
            Done(outcome): "given only tiles",
        }.items():
            say_first(message)
            with pytest.raises(ValueError, match=error):
                executor.collect(executor.launch(tiles, [(0, 0)], None))
        assert notices == []
        assert len(workers()) == 2
    finally:
        executor.close()


class Deadly:
    """Ends the process that calls it."""

    def __call__(self, temporary):
        os._exit(9)


class Failing:
    """Does as a GPU that has fallen off the bus."""

    def __call__(self):
        raise getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: launch failure\nCompile with")


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this PyTorch has no name for it")
def test_a_device_that_fails_hands_its_images_to_another(weights):
    notices = []
    executor = WorkerProcesses(
        ["cpu", "cpu", "cpu"],
        Restorer(weights=weights),
        RestoreSettings(Asked(weights=weights)),
        threads=1,
        notify=notices.append,
    )

    def fail_once(tasks, is_stopped):
        for task in tasks:
            if task.job.source.path.name == "4.png":
                task.guard.look = Failing()
        return executor.perform(tasks, is_stopped)

    try:
        errors = restore(fail_once, weights, "out")
    finally:
        executor.close()
    assert len(read_files("out")) == IMAGES - 1  # it fails wherever it goes; the others are done all the same
    assert list(errors) == ["photos/4.png"]
    assert all("CUDA error: launch failure" in sentence for sentence in notices)
    assert "Compile" not in "".join(notices)


@pytest.fixture
def tiled(tmp_path, monkeypatch):
    """A network whose values depend on what could go wrong: the place of a tile and its neighbours."""
    monkeypatch.chdir(tmp_path)
    for name, size in {"large": (130, 100), "small": (30, 20), "other": (20, 24)}.items():
        save_photo(f"photos/{name}.png", size)
    weights = save_random(Path("x.safetensors"), replace(V2, upscale=2, upsampler="pixelshuffle"))
    return RestoreSettings(Asked(weights=weights), device="cpu", own=ImageSettings(overlap=8))


def with_tiles(settings, side):
    return replace(settings, own=replace(settings.own, tile=side))


def test_the_tiles_of_a_large_image_are_spread_over_the_workers(tiled, monkeypatch):
    settings = with_tiles(tiled, 32)
    alone = Restorer.from_settings(settings)
    assert restore(ThisProcess(alone).perform, tiled.asked.weights, "alone") == {}
    seen = []
    executor = WorkerProcesses(
        ["cpu", "cpu"], alone, settings, threads=1, on_tiles=lambda *facts: seen.append(facts)
    )
    batches = []
    launch = executor.launch
    monkeypatch.setattr(executor, "launch", lambda *given: batches.append(launch(*given)) or batches[-1])
    try:
        assert restore(executor.perform, tiled.asked.weights, "spread") == {}
    finally:
        executor.close()
    assert read_files("spread") == read_files("alone")
    tiles = len(alone.plan(100, 130))
    counts = Counter(batch.worker for batch in batches)
    assert counts.total() == tiles  # of the large image: the others are given out as a whole
    assert min(counts[0], counts[1]) >= tiles // 4
    assert (0, tiles, tiles) in seen
    assert {total for _, _, total in seen} == {1, tiles}


def test_each_worker_does_one_of_as_many_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        save_photo(f"photos/{number}.png", (40 + 4 * number, 30))  # some larger than the mean
    weights = save_nearest(Path("x4.safetensors"), 4)
    settings = RestoreSettings(Asked(weights=weights), device="cpu", own=ImageSettings(16, 4))
    begun = []
    executor = WorkerProcesses(
        ["cpu"] * 3,
        Restorer.from_settings(settings),
        settings,
        1,
        on_start=lambda *facts: begun.append(facts),
    )
    try:
        assert restore(executor.perform, weights, "side_by_side") == {}
    finally:
        executor.close()
    assert sorted(number for number, _ in begun) == [0, 1, 2]


@pytest.mark.parametrize("survivors", [1, 0])
def test_a_worker_that_dies_over_tiles_hands_them_to_another(tiled, survivors):
    settings = with_tiles(tiled, 32)
    alone = Restorer.from_settings(settings)
    restore(ThisProcess(alone).perform, tiled.asked.weights, "alone")
    notices = []

    def kill(number, done, total):
        if done == 5:
            for worker in workers()[survivors:]:
                worker.kill()

    executor = WorkerProcesses(
        ["cpu", "cpu"], alone, settings, threads=1, notify=notices.append, on_tiles=kill
    )
    try:
        errors = restore(executor.perform, tiled.asked.weights, "spread")
    finally:
        executor.close()
    assert list(errors) == ([] if survivors else ["photos/large.png"])  # over which both have died
    assert len(notices) == 2 - survivors
    assert "the worker on cpu died while it had tiles of an image" in notices[0]
    wanted = read_files("alone").items()
    assert read_files("spread") == {name: data for name, data in wanted if survivors or name != "large.png"}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no room"), RuntimeError("could not create a primitive")]
)
def test_memory_that_does_not_hold_a_workers_tiles_makes_them_smaller(tiled, monkeypatch, error):
    settings = with_tiles(tiled, 64)
    alone = Restorer.from_settings(settings)
    executor = WorkerProcesses(["cpu", "cpu"], alone, settings, threads=1)

    def launch(executor, tiles, corners, seed, kind):
        batch = launch_batch(executor, tiles, corners, seed, kind)
        if tiles.shape[1] > 32:
            batch.error = error
        return batch

    launch_batch = WorkerProcesses.launch
    monkeypatch.setattr(WorkerProcesses, "launch", launch)
    try:
        jobs = name_targets(find_sources(["photos/large.png"]), "out/", "_x2")
        (outcome,) = run_jobs(jobs, WriteOptions(), RunPolicy(), Fingerprint.of(alone), executor.perform)
    finally:
        executor.close()
    assert outcome.report
    assert outcome.report.shrunk
    small = Restorer.from_settings(with_tiles(settings, 32))
    np.testing.assert_array_equal(
        np.asarray(Image.open("out/large.png")), small(np.asarray(Image.open("photos/large.png")))
    )


def test_a_worker_sends_errors_about_tiles_and_raises_others():
    class Computer:
        buffers = HostBuffers()

        def collect(self, launched):
            raise launched[0]

    computer: Any = Computer()
    for error in (RuntimeError("std::bad_alloc"), MambairError("not finite")):
        assert process_worker._collect(computer, [error]) == TilesFailed(error)
    with pytest.raises(RuntimeError, match="shapes differ"):
        process_worker._collect(computer, [RuntimeError("shapes differ")])


def test_a_run_that_fails_fast_ends_its_workers_with_what_they_have_begun(weights):
    for index in range(40):
        Image.new("RGB", (200, 200), (index, 0, 0)).save(f"photos/more{index}.png")
    Path("photos/bad.png").write_bytes(bytes(10**6))  # the largest, so the first
    restorer = Restorer(weights=weights)
    notices = []
    executor = WorkerProcesses(
        ["cpu", "cpu"], restorer, RestoreSettings(Asked(weights=weights)), threads=1, notify=notices.append
    )
    try:
        jobs = name_targets(find_sources(["photos"]), "out", "_x4")
        fingerprint, policy = Fingerprint.of(restorer), RunPolicy(fail_fast=True)
        outcomes = list(run_jobs(jobs, WriteOptions(), policy, fingerprint, executor.perform))
    finally:
        executor.close()
    done = sorted(Path(outcome.job.place).name for outcome in outcomes if outcome.error is None)
    assert done == sorted(read_files("out"))
    assert len(done) < 40
    assert notices == []


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_the_workers_of_a_run_that_ends_early_end_before_its_journal(weights, monkeypatch, is_interrupted):
    alive = []
    close = Journal.close

    def count_and_close(journal):
        alive.append(len(workers()))
        close(journal)

    def interrupt(number, image):
        if is_interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "close", count_and_close)
    restorer = Restorer(weights=weights)
    settings = RestoreSettings(Asked(weights=weights))
    with closing(WorkerProcesses(["cpu", "cpu"], restorer, settings, 1, on_start=interrupt)) as executor:
        jobs = name_targets(find_sources(["photos"]), "out", "_x4")
        outcomes = run_jobs(jobs, WriteOptions(), RunPolicy(), Fingerprint.of(restorer), executor.perform)
        with closing(outcomes), pytest.raises(KeyboardInterrupt) if is_interrupted else nullcontext():
            next(outcomes)
            list(outcomes if is_interrupted else ())
    assert alive == [0]
    assert {path.name for path in Path("out").glob(".*")} <= {JOURNAL_FILE}


def test_what_a_worker_cannot_load_is_an_error_here(weights):
    restorer = Restorer(weights=weights)
    weights.write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match=r"x4\.safetensors"):
        WorkerProcesses(["cpu"], restorer, RestoreSettings(Asked(weights=weights)))


def test_the_command_shares_images_out(weights, capsys):
    arguments = ["upscale", "photos", "--weights", str(weights), "--json", "-o", "out"]
    assert main([*arguments, "--workers", "2"]) == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert events[0]["device"] == "cpu (2 workers)"
    assert sorted(event["output"] for event in events if event["event"] == "done") == [
        f"out/{index}.png" for index in range(IMAGES)
    ]
    assert events[-1]["done"] == IMAGES
    assert err == "mambair: using x4.safetensors on cpu (2 workers)\n"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_workers_end_with_a_parent_that_is_killed(weights):
    for index in range(4):
        Image.new("RGB", (500, 500)).save(f"photos/large{index}.png")
    command = ["-m", "mambair_cli", "upscale", "photos", "--workers", "2", "-o", "out"]
    with start_forked(*command, "--weights", weights, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        process.stdout.readline()
        workers = descendants(process.pid)
        process.kill()
    assert len(workers) >= 3  # and the process from which they are forked
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def descendants(process):
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [*children, *(each for child in children for each in descendants(child))]


def is_running(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_devices_that_are_not_there_are_refused():
    assert choose_devices(None, None) == []
    assert choose_devices(None, 3) == ["cpu"] * 3
    assert choose_devices("cpu, cpu", None) == ["cpu", "cpu"]
    with pytest.raises(UsageError, match="exclude each other"):
        choose_devices("cpu", 2)
    with pytest.raises(UsageError, match="no such device: tpu"):
        choose_devices("cpu,tpu", None)


def test_devices_of_different_kinds_are_refused(monkeypatch):
    monkeypatch.setattr(devices, "choose_device", torch.device)  # as if all of them were there
    assert choose_devices("cuda:0,cuda:1", None) == ["cuda:0", "cuda:1"]
    with pytest.raises(UsageError, match="of one kind: cpu,cuda; results differ between kinds"):
        choose_devices("cpu,cuda", None)


@pytest.mark.skipif("__import__('torch').cuda.is_available()")
def test_all_devices_are_none_without_a_gpu():
    with pytest.raises(UsageError, match="there is no GPU"):
        choose_devices("all", None)
