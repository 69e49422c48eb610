"""What a command settles about its process, each time in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

IS_GLIBC = platform.libc_ver()[0] == "glibc"


def run(script, **environment):
    settled = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MKL_CBWR")
    kept = {name: value for name, value in os.environ.items() if name not in settled}
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


# What settle_process does shows before the command does anything else.
COMMAND = """
import os, sys
from mambair_cli.cli import main
main(["models", "path", "tiny-x4"])
assert "torch" not in sys.modules  # which would have read the environment already
print(os.environ.get("GOMP_SPINCOUNT"))
"""


def test_threads_of_a_command_sleep_soon():
    assert run(COMMAND)[-1] == "1000"


def test_user_decides_how_threads_wait():
    assert run(COMMAND, GOMP_SPINCOUNT="7")[-1] == "7"
    assert run(COMMAND, OMP_WAIT_POLICY="active")[-1] == "None"


# A network whose products are narrow, as those of the steps and routes: MKL shares these out in several ways.
NETWORK = """
from mambair_cli.system.process import settle_process
settle_process()
import torch
from mambair_cli.checkpoints.catalog import find_model
from mambair_cli.checkpoints.official import official_config
from mambair_cli.networks import build_network
torch.manual_seed(0)
net = build_network(official_config(find_model("mambairv2-light-x4"))).eval()
x = torch.rand(1, 3, 40, 40)
results = []
with torch.inference_mode():
    for threads in (1, 2, 3, 5, 8):
        torch.set_num_threads(threads)
        results.append(net(x))
print(*[torch.equal(result, results[0]) for result in results])
"""


def test_results_do_not_depend_on_the_number_of_threads():
    assert run(NETWORK) == ["True"] * 5


ENDING = """
import gc, sys
from mambair_cli.__main__ import main
sys.argv[1:] = ["models", "path", "tiny-x4"]
before = gc.get_freeze_count()
main()
gc.collect()
print(gc.get_freeze_count() - before)
"""


def test_the_end_of_a_command_looks_for_no_garbage():
    assert int(run(ENDING)[-1]) > 1000


# Memory that comes from the system is mapped page by page, each at its first use.
ALLOCATE = """
import resource, sys
import numpy as np
from mambair_cli.system.process import settle_process
if {settle}:
    settle_process()
np.ones(2**25, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**25, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not IS_GLIBC, reason="other C libraries have no such setting")
def test_freed_memory_is_kept():
    huge_pages = 8 * 2**25 // 2**21
    assert int(*run(ALLOCATE.format(settle=False))) >= huge_pages
    assert int(*run(ALLOCATE.format(settle=True))) < huge_pages // 4


@pytest.mark.parametrize("is_loaded", [False, True])
def test_where_triton_is_loaded_its_bindings_are_freed_at_the_end(is_loaded):
    program = """
import gc, sys
from mambair_cli.system.process import leave_process
if sys.argv[1] == "True":
    sys.modules["triton"] = sys
leave_process()
print(gc.get_freeze_count() > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(is_loaded)], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(not is_loaded)]
