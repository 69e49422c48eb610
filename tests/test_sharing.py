"""The order of jobs among several workers, some of which die; and a worker of a cluster."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import save_nearest
from PIL import Image

from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.errors import ModelError
from mambair_cli.images.discovery import find_sources
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors import scheduler as scheduler_module
from mambair_cli.runs.executors.messages import Done, Unseen
from mambair_cli.runs.executors.ray_worker import RayWorker
from mambair_cli.runs.executors.scheduler import InFlight, Scheduler
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import PreparedJob, run_jobs


@pytest.fixture
def jobs(tmp_path):
    made = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        path.write_bytes(bytes(10 - index))
        made.append(PreparedJob(Job(Source(path), tmp_path / "out" / path.name)))
    return made


def draw_all(scheduler, given):
    return [job.job.source.path.stem for job in iter(lambda: scheduler.next_job(given), None)]


def test_a_worker_is_given_many_small_tasks_and_few_large_ones(jobs, monkeypatch):
    assert draw_all(Scheduler(reversed(jobs), lambda: False), InFlight()) == list(
        "012345"
    )  # large ones first
    monkeypatch.setattr(scheduler_module, "BYTES_AHEAD", 20)
    shared, given = Scheduler(jobs, lambda: False), InFlight()
    assert draw_all(shared, given) == list("012")
    given.remove(given.jobs[1])
    assert draw_all(shared, given) == ["3"]


def test_what_a_worker_died_over_is_tried_alone_and_given_up(jobs, monkeypatch):
    monkeypatch.setattr(scheduler_module, "BYTES_AHEAD", 1)
    shared, first, second = Scheduler(jobs, lambda: False), InFlight(), InFlight()
    assert (draw_all(shared, first), draw_all(shared, second)) == (["0", "1"], ["2", "3"])
    assert shared.worker_died(first) is None
    third = InFlight()
    assert draw_all(shared, second) == []  # it has other jobs
    assert draw_all(shared, third) == ["0"]
    assert shared.is_suspect(third.jobs[0])
    given_up = shared.worker_died(third)
    assert given_up is not None
    assert str(given_up.error).endswith("0.png: 2 workers died over it; leave it out")
    third = InFlight()
    assert draw_all(shared, third) == ["1"]
    third.remove(third.jobs[0])
    assert draw_all(shared, third) == ["4", "5"]
    shared.take_back(second)
    assert not shared.is_over
    assert draw_all(shared, InFlight()) == ["2", "3"]
    assert shared.is_over


@pytest.mark.parametrize("is_on_trial", [True, False])
def test_what_is_taken_back_may_have_been_written(jobs, is_on_trial):
    class Written:
        def is_written(self):
            return True

    written = [replace(job, guard=Written()) for job in jobs[:2]]
    shared, first, second = Scheduler(written, lambda: False), InFlight(), InFlight()
    draw_all(shared, first)
    if is_on_trial:
        assert shared.worker_died(first) is None
        draw_all(shared, first)
    shared.take_back(first)
    draw_all(shared, second)
    assert second.jobs
    assert all(job.overwrite for job in second.jobs)


def hand_out(scheduler, given):
    return [(place, job.job.source.path.stem) for place, job in scheduler.hand_out(given)]


def test_workers_are_given_tasks_in_turns(jobs):
    shared, given = Scheduler(jobs, lambda: False), [InFlight() for _ in range(4)]
    assert hand_out(shared, given) == [*zip(range(4), "0123", strict=True), (0, "4"), (1, "5")]
    assert shared.is_over


def test_a_worker_is_given_no_more_small_tasks_than_its_share(jobs):
    shared, given = Scheduler(jobs, lambda: False), [InFlight(), InFlight()]
    given[1].is_on_trial = True
    assert hand_out(shared, given) == [(0, "0"), (0, "1"), (0, "2")]  # three of six
    assert hand_out(shared, []) == []


def test_nothing_begins_once_it_is_stopped(jobs):
    assert draw_all(Scheduler(jobs, lambda: True), InFlight()) == []


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(4):
        Image.new("RGB", (30, 20), (index, 0, 0)).save(f"photos/{index}.png")
    checkpoint = save_nearest(Path("x4.safetensors"), 4).read_bytes()
    worker = RayWorker(
        RestoreSettings(Asked(scale=4), device="cpu"), checkpoint, "x4.safetensors", 1, os.getcwd()
    )
    yield worker
    worker.close()


def test_a_worker_does_jobs_that_come_at_once(worker):
    def perform(jobs, is_stopped):
        with ThreadPoolExecutor() as threads:
            for message in threads.map(worker.perform, jobs):
                assert isinstance(message, Done)
                yield message.outcome

    jobs = name_targets(find_sources(["photos"]), "out", "_x4")
    outcomes = list(run_jobs(jobs, WriteOptions(), RunPolicy(), worker.loaded.fingerprint, perform))
    assert [(outcome.job, outcome.error) for outcome in outcomes] == [(job, None) for job in jobs]
    for index in range(4):
        assert Image.open(f"out/{index}.png").getpixel((0, 0)) == (index, 0, 0)


def test_a_worker_reports_what_it_does_not_see(worker, tmp_path):
    jobs = name_targets([*find_sources(["photos"]), Source(Path("gone.png"))], "out", "_x4")
    said = []

    def perform(jobs, is_stopped):
        jobs = list(jobs)
        said.append(worker.perform(jobs[-1]))
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        said.append(worker.perform(jobs[0]))
        (tmp_path / "elsewhere").rename(tmp_path / "out")
        yield from ()

    list(run_jobs(jobs, WriteOptions(), RunPolicy(), worker.loaded.fingerprint, perform))
    assert said == [Unseen(Path("gone.png")), Unseen(Path("out"))]


def test_a_worker_without_a_network_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"x4\.safetensors"):
        RayWorker(RestoreSettings(device="cpu"), b"no checkpoint", "x4.safetensors", 1, str(tmp_path))
