"""A restorer in other processes: forked from one that has it, or sent to them."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest

from mambair_cli.restore.restorer import Restorer

CODE = """
import multiprocessing, sys
import numpy as np, torch
import mambair_cli

torch.set_num_threads(4)
image = np.random.default_rng(0).random((48, 48, 3), dtype=np.float32)
restore = mambair_cli.Restorer(task="upscale", scale=2, model="tiny-x2", device="cpu", offline=True)

def work(number):
    return torch.get_num_threads(), restore(image)

if __name__ == "__main__":
    before = restore(image) if sys.argv[1] == "used" else None
    with multiprocessing.get_context("fork").Pool(2) as pool:
        told = pool.map(work, range(2))
    assert [threads for threads, _ in told] == [1, 1], told
    assert torch.get_num_threads() == 4
    for _, result in told:
        assert np.abs(result - restore(image)).max() < 1e-5
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
@pytest.mark.parametrize("state", ["made", "used"])
def test_a_forked_process_restores_images(state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, state], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads cannot be counted")
def test_a_process_that_is_forked_from_one_of_one_thread_keeps_its_threads() -> None:
    code = (
        "import os, torch, mambair_cli.kernels\n"
        "os.register_at_fork(before=lambda: print(len(os.listdir('/proc/self/task')), flush=True))\n"
        "threads = torch.get_num_threads()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(torch.get_num_threads() != threads)\n"
        "assert not os.waitpid(child, 0)[1]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def send_and_receive(restorer: Restorer) -> Restorer:
    return pickle.loads(pickle.dumps(restorer))


@pytest.mark.parametrize("again", [send_and_receive, copy.deepcopy])
@pytest.mark.parametrize("model", ["auto", "clean", "real", "tiny-x2"])
def test_a_restorer_that_is_sent_or_copied_is_the_same(again, model: str) -> None:
    image = np.random.default_rng(0).random((40, 48, 3), dtype=np.float32)
    restorer = Restorer(
        "upscale",
        2,
        model=model,
        device="cpu",
        offline=True,
        tile=32,
        overlap=4,
        seed=3,
        strength=0.7,
        wrap="x",
    )
    other = again(restorer)
    assert (other.model, other.others, other.notice) == (restorer.model, restorer.others, restorer.notice)
    assert (other.own, other.tiles) == (restorer.own, restorer.tiles)
    assert other.net is not restorer.net
    assert np.array_equal(other(image), restorer(image))
    assert restorer.alone().net is restorer.net
