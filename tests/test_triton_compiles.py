"""Triton's kernels are accepted by its compiler for NVIDIA cards, which it needs no GPU for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("triton_without_gpu.py")
KERNELS = {
    *("advance_kernel", "gate_kernel", "gelu_kernel", "label_kernel", "merge_kernel"),
    *("sort_kernel", "sum_kernel", "forward_kernel", "ends_kernel", "backward_kernel"),
}


def test_the_kernels_of_networks_and_their_training_are_compiled_without_a_word(tmp_path):
    pytest.importorskip("triton")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(PROGRAM.parents[1])}
    done = subprocess.run(
        [sys.executable, PROGRAM, "90"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert set(done.stdout.split()) >= KERNELS
