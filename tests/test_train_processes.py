"""Several processes that train one network give what one process gives."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import train_runs
from train_runs import RESTORER, load_weights, read_log

from mambair_cli.errors import UsageError
from mambair_cli.train import TrainConfig, loop, train
from mambair_cli.train.trainer import Trainer

STEPS = 6
INTERRUPTED_AT = 4
WORKER = """
import os, signal, sys
from pathlib import Path
from test_train_processes import INTERRUPTED_AT, make_config
from mambair_cli.train import loop, train

loop.LOG_EVERY = loop.AGREE_EVERY = 2

def interrupt(record):
    if record["step"] == INTERRUPTED_AT and not resume:
        os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    resume = sys.argv[2] == "resume"
    try:
        path = train(make_config(Path(sys.argv[1])), resume, interrupt)
    except KeyboardInterrupt:
        path = "interrupted"
    os.write(1, f"{os.environ['RANK']} {path}\\n".encode())  # at once: both write into one pipe
"""


def make_config(folder: Path) -> TrainConfig:
    # Denoising draws noise in addition to its crops.
    return train_runs.make_config(folder, task="denoise", scale=1, network=RESTORER, batch=4, steps=STEPS)


@pytest.fixture
def config(photos):
    return make_config(photos.parent)


def launch(folder, resume):
    worker = folder / "worker.py"
    worker.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, worker, folder, "resume" if resume else "begin"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.splitlines())


def test_two_processes_interrupted_and_resumed_give_the_weights_of_one(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    alone = train(dataclasses.replace(config, output=tmp_path / "alone"))
    assert alone is not None

    assert launch(tmp_path, resume=False) == ["0 interrupted", "1 interrupted"]
    assert read_log(config.output)[-1]["step"] == INTERRUPTED_AT
    weights = config.output / "weights.safetensors"
    assert launch(tmp_path, resume=True) == [f"0 {weights}", "1 None"]

    wanted, got = load_weights(alone), load_weights(weights)
    differences = [(wanted[name] - got[name]).abs().max().item() for name in wanted]
    assert max(differences) < 1e-5  # the mean of two means is rounded otherwise than one mean
    moved = load_weights(alone)["conv_first.weight"] - Trainer(config).net.state_dict()["conv_first.weight"]
    assert moved.abs().max() > 1e-3
    losses = [[record["loss"] for record in read_log(folder)] for folder in (alone.parent, config.output)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_crops_that_cannot_be_shared_out_evenly_are_refused(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="4 crops a step among 3 processes; take a multiple of 3"):
        Trainer(config)
