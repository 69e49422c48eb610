"""Who of several workers does what, where some die; and a network that waits for tasks."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from checkpoints import save_nearest
from PIL import Image

from mambair_cli.errors import ModelError
from mambair_cli.images.discovery import find_sources
from mambair_cli.images.source import Source
from mambair_cli.runs.executors import scheduler
from mambair_cli.runs.executors.ray_worker import Station, Unseen
from mambair_cli.runs.executors.scheduler import InFlight, Scheduler
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.run import PreparedJob, run_jobs


@pytest.fixture
def tasks(tmp_path):
    made = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        path.write_bytes(bytes(10 - index))
        made.append(PreparedJob(Job(Source(path), tmp_path / "out" / path.name)))
    return made


def draw_all(shares, hand):
    return [task.job.source.path.stem for task in iter(lambda: shares.draw(hand), None)]


def test_a_hand_holds_many_small_tasks_and_few_large_ones(tasks, monkeypatch):
    assert draw_all(Scheduler(reversed(tasks), lambda: False), InFlight()) == list(
        "012345"
    )  # large ones first
    monkeypatch.setattr(scheduler, "BYTES_AHEAD", 20)
    shares, hand = Scheduler(tasks, lambda: False), InFlight()
    assert draw_all(shares, hand) == list("012")
    hand.put_down(hand.tasks[1])
    assert draw_all(shares, hand) == ["3"]


def test_what_a_worker_died_over_is_tried_alone_and_given_up(tasks, monkeypatch):
    monkeypatch.setattr(scheduler, "BYTES_AHEAD", 1)
    shares, first, second = Scheduler(tasks, lambda: False), InFlight(), InFlight()
    assert (draw_all(shares, first), draw_all(shares, second)) == (["0", "1"], ["2", "3"])
    assert shares.bury(first) is None
    third = InFlight()
    assert draw_all(shares, second) == []  # it has something else in hand
    assert draw_all(shares, third) == ["0"]
    assert shares.is_suspect(third.tasks[0])
    given_up = shares.bury(third)
    assert given_up is not None
    assert str(given_up.error).endswith("0.png: 2 workers died over it; leave it out")
    third = InFlight()
    assert draw_all(shares, third) == ["1"]
    third.put_down(third.tasks[0])
    assert draw_all(shares, third) == ["4", "5"]
    shares.return_all(second)
    assert not shares.is_over
    assert draw_all(shares, InFlight()) == ["2", "3"]
    assert shares.is_over


def test_nothing_begins_once_it_is_stopped(tasks):
    assert draw_all(Scheduler(tasks, lambda: True), InFlight()) == []


@pytest.fixture
def station(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for index in range(4):
        Image.new("RGB", (30, 20), (index, 0, 0)).save(f"photos/{index}.png")
    checkpoint = save_nearest(Path("x4.safetensors"), 4).read_bytes()
    station = Station({"device": "cpu", "scale": 4}, checkpoint, "x4.safetensors", 1, os.getcwd())
    yield station
    station.close()


def test_a_station_does_tasks_that_come_at_once(station):
    def perform(tasks, is_stopped):
        with ThreadPoolExecutor() as threads:
            yield from threads.map(station.perform, tasks)

    jobs = name_targets(find_sources(["photos"]), "out", "_x4")
    outcomes = list(run_jobs(jobs, WriteOptions(), RunPolicy(), station.fingerprint, perform))
    assert [(outcome.job, outcome.error) for outcome in outcomes] == [(job, None) for job in jobs]
    for index in range(4):
        assert Image.open(f"out/{index}.png").getpixel((0, 0)) == (index, 0, 0)


def test_a_station_tells_of_what_it_does_not_see(station, tmp_path):
    jobs = name_targets([*find_sources(["photos"]), Source(Path("gone.png"))], "out", "_x4")
    said = []

    def perform(tasks, is_stopped):
        tasks = list(tasks)
        said.append(station.perform(tasks[-1]))
        (tmp_path / "out").rename(tmp_path / "elsewhere")
        said.append(station.perform(tasks[0]))
        (tmp_path / "elsewhere").rename(tmp_path / "out")
        yield from ()

    list(run_jobs(jobs, WriteOptions(), RunPolicy(), station.fingerprint, perform))
    assert said == [Unseen(Path("gone.png")), Unseen(Path("out"))]


def test_a_station_without_a_network_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"x4\.safetensors"):
        Station({"device": "cpu"}, b"no checkpoint", "x4.safetensors", 1, str(tmp_path))
