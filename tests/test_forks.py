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
        answers = pool.map(work, range(2))
    assert [threads for threads, _ in answers] == [1, 1], answers
    assert torch.get_num_threads() == 4
    for _, result in answers:
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


FORK_WHILE_LOCKS_ARE_HELD = """
import os, signal, threading, time
from mambair_cli.kernels.once import Once
from mambair_cli.networks import layers
from mambair_cli.programs import ahead
from mambair_cli.restore import engine

held, forking, forked = threading.Event(), threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the last one is called first

@Once
def compile(number):
    if not number:
        held.set()
        forking.wait()
        time.sleep(0.2)  # in which a fork that does not wait is done
    return number

def hold():
    with layers._transforming, ahead._waiting, engine._turns:
        compile(0)
        forked.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    signal.alarm(30)
    assert compile(1) == 1
    assert compile(0) == 0
    with layers._transforming, ahead._waiting, engine._turns:
        os._exit(0)
forked.set()
thread.join()
assert os.waitpid(child, 0)[1] == 0
assert compile(1) == 1
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_no_lock_of_another_thread_stops_a_forked_process() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK_WHILE_LOCKS_ARE_HELD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


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
