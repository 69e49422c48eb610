"""Workers of a Ray cluster do what one process does, also where a node is lost."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoints import save_nearest
from forked import start_forked
from PIL import Image

from benchmarks.batch import make_photographs
from benchmarks.cluster import lose_a_node, running_nodes
from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.checkpoints.select import ChosenModel
from mambair_cli.cli import main
from mambair_cli.errors import UsageError
from mambair_cli.images.discovery import find_sources
from mambair_cli.images.source import Source
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.record import JOURNAL_FILE
from mambair_cli.runs.run import PreparedJob, run_jobs

IMAGES = 12


@pytest.fixture(scope="module")
def nodes():
    pytest.importorskip("ray")
    with running_nodes() as nodes:
        yield nodes


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photographs(Path("photos"), IMAGES, 48, 48)
    return save_nearest(Path("x4.safetensors"), 4)


def start(arguments, folder):
    return start_forked(*arguments, cwd=folder)


def test_a_node_that_is_killed_costs_nothing(nodes, tmp_path):
    weights = save_nearest(tmp_path / "x4.safetensors", 4)
    make_photographs(tmp_path / "photos", 16, 160, 160)
    findings = lose_a_node(tmp_path, ["--weights", str(weights)], nodes, 2, start)
    assert findings.is_sound, findings
    assert "was lost while it had photos/" in findings.said[0]


def test_images_that_kill_and_nodes_that_see_other_files_are_left_out(nodes, weights, monkeypatch):
    from mambair_cli.runs.executors import ray_cluster

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray_cluster, "OTHERS_SECONDS", ray_cluster.START_SECONDS)  # on a busy machine
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    notices = []
    cluster = ray_cluster.RayCluster(nodes.address, notices.append)
    try:
        cluster.start(RestoreSettings(Asked(scale=4)), ChosenModel(weights.name, weights))
        assert cluster.info.place == "cpu (2 workers on 2 Ray nodes)"
        blind = ray.get_runtime_context().get_node_id()

        def spoil(tasks, is_stopped):
            tasks = list(tasks)
            for task in tasks:
                task.guard.sees_journal = Elsewhere(blind)
            tasks[2].guard.begin = Deadly()
            return cluster.perform(tasks, is_stopped)

        jobs = name_targets(find_sources(["photos"]), "out", "_x4")
        outcomes = list(run_jobs(jobs, WriteOptions(), RunPolicy(), cluster.info.fingerprint, spoil))
        here_alone = PreparedJob(Job(Source(None), Path("out.png")))
        with pytest.raises(UsageError, match="cannot use standard input or output"):
            next(cluster.perform([here_alone], lambda: False))
    finally:
        cluster.close()
        cluster.close()
    errors = {str(outcome.job.source): str(outcome.error) for outcome in outcomes if outcome.error}
    assert errors == {
        "photos/0002.png": "cannot restore photos/0002.png: 2 workers died over it; leave it out"
    }
    assert sorted(str(outcome.job.source) for outcome in outcomes) == [
        f"photos/{index:04}.png" for index in range(IMAGES)
    ]
    assert sorted(os.listdir("out")) == sorted(
        [JOURNAL_FILE, *(f"{index:04}.png" for index in range(IMAGES) if index != 2)]
    )
    assert sum("is left out: it does not see out as this machine does" in line for line in notices) == 1
    assert sum("was lost while it had photos/" in line and line.endswith("it died") for line in notices) == 2


class Elsewhere:
    """Says no on one node."""

    def __init__(self, node):
        self._node = node

    def __call__(self):
        import ray  # pyright: ignore[reportMissingImports]: optional

        return ray.get_runtime_context().get_node_id() != self._node


class Deadly:
    """Ends the process that calls it."""

    def __call__(self, temporary):
        os._exit(9)


def test_an_interrupt_ends_the_workers_and_leaves_nothing_half_done(nodes, weights):
    for index in range(4):
        Image.new("RGB", (500, 500)).save(f"photos/large{index}.png")
    command = ["-m", "mambair_cli", "upscale", "photos", "--ray", nodes.address, "-o", "out"]
    with start_forked(*command, "--weights", weights) as process:
        assert process.stderr
        # On a busy machine the other worker may not be ready yet.
        place = r"\((2 workers on 2 Ray nodes|1 worker on 1 Ray node)\)"
        assert re.fullmatch(rf"mambair: using x4\.safetensors on cpu {place}\n", process.stderr.readline())
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "mambair: interrupted\n")
    out_files = Path("out").iterdir() if Path("out").exists() else ()  # none, if no image was done
    whole = [path for path in out_files if path.name != JOURNAL_FILE]
    assert all(path.suffix == ".png" for path in whole)
    assert len(out.splitlines()) <= len(whole) < IMAGES + 4


def test_a_cluster_takes_the_name_of_an_own_model(nodes, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert main(["models", "add", "film-x4", str(weights), "--quiet"]) == 0
    command = ["upscale", "photos/0000.png", "--model", "film-x4", "--ray", nodes.address, "-o", "out.png"]
    assert main(command) == 0
    pixels = np.asarray(Image.open("photos/0000.png"))
    np.testing.assert_array_equal(np.asarray(Image.open("out.png")), pixels.repeat(4, 0).repeat(4, 1))


def test_a_cluster_that_is_not_there_is_an_error_at_once(weights, capsys):
    pytest.importorskip("ray")
    for address, why in {
        "127.0.0.1:9": "no Ray cluster answers at 127.0.0.1:9: ",
        "ray://head:10001": "no address of a Ray cluster: ray://head:10001; use auto, or HOST:PORT",
    }.items():
        assert main(["upscale", "photos", "--weights", str(weights), "--ray", address]) == 2
        assert capsys.readouterr().err.startswith(f"mambair: error: {why}")


def test_without_ray_it_says_what_to_install(weights, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["upscale", "photos", "--weights", str(weights), "--ray", "auto"]) == 2
    assert capsys.readouterr().err == (
        'mambair: error: --ray needs the package ray: pip install "mambair-cli[ray]"\n'
    )


def test_a_cluster_and_other_places_exclude_each_other(weights, capsys):
    assert main(["upscale", "photos", "--weights", str(weights), "--ray", "auto", "--workers", "2"]) == 2
    assert "--ray auto and --workers 2 exclude each other; give one" in capsys.readouterr().err
