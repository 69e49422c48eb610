"""The scan for training in CUDA C++ against the plain loop in float64, with its gradient.

Without a GPU its source is compiled for the CPU, as that of ``test_cuda_scan`` is.
"""

import pytest
import scans
import torch
from scans import check, make_operands, run

from mambair_cli.kernels import cuda_training, nvrtc

pytestmark = pytest.mark.usefixtures("cuda_kernels")
TOLERANCE = 2e-5  # relative, float32 against float64
TOLERANCE_16_BIT = 8e-3

CASES = {
    **scans.CASES,
    "one stage exactly": {"length": 32},
    "a stage and one": {"length": 33},
    "channels beyond a warp": {"d": 35, "length": 9, "b": 1},
    "channels beyond a block": {"d": 131, "length": 5, "b": 2, "k": 1, "n": 2, "r": 1},
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_plain_loop_and_its_gradient(case):
    check(cuda_training.selective_scan, *make_operands(**CASES[case]), TOLERANCE)


@pytest.mark.parametrize(
    ("case", "length"),
    [
        ("ordinary", 64),
        ("ordinary", 65),
        ("path of each image", 100),
        ("very slow", 100),
        ("slow next to fast", 100),
    ],
)
def test_agrees_where_paths_are_walked_in_chunks(case, length, monkeypatch):
    monkeypatch.setattr(cuda_training, "SHORTEST_CHUNK", 32)
    check(cuda_training.selective_scan, *make_operands(**{**CASES[case], "length": length}), TOLERANCE)


def test_takes_16_bit_operands():
    operands, paths, params = make_operands(dtype=torch.bfloat16)
    check(cuda_training.selective_scan, operands, paths, params, TOLERANCE_16_BIT)


def test_repeats_to_the_bit():
    operands, paths, params = make_operands()
    weights = torch.ones_like(operands[0])
    results = [run(cuda_training.selective_scan, operands, paths, params, weights) for _ in range(2)]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(("d", "n", "r"), [(64, 4, 6), (64, 8, 5), (72, 10, 4), (360, 16, 12), (128, 8, 4)])
def test_blocks_hold_networks_that_are_trained(d, n, r):
    shape = cuda_training.choose_shape(d, n, r)
    assert shape is not None
    assert cuda_training.shared_bytes(shape, n, r) <= nvrtc.SHARED_BYTES


def test_no_block_holds_any_number_of_states():
    assert cuda_training.choose_shape(1024, 128, 4) is None


def test_trains_where_source_can_be_compiled(monkeypatch):
    triton_scan = pytest.importorskip("mambair_cli.kernels.triton_scan")
    operands, paths, params = make_operands(length=5, d=2)
    monkeypatch.setattr(triton_scan, "has_nvrtc", lambda device: True)
    monkeypatch.setattr(triton_scan, "_scan", None)
    monkeypatch.setattr(triton_scan, "_scan_with_gradient", None)
    weights = torch.ones_like(operands[0])
    got = run(triton_scan.selective_scan, operands, paths, params, weights)
    wanted = run(cuda_training.selective_scan, operands, paths, params, weights)
    assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [(-8.0, -2.0), (-3.0, 3.0)])
@pytest.mark.parametrize("side", [48, 128])
def test_agrees_at_the_size_of_training(side, bias):
    operands = make_operands(b=4, length=side**2, d=64, k=4, n=8, r=5, bias=bias)
    check(cuda_training.selective_scan, *operands, 5 * TOLERANCE)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # PyTorch's own use
def test_compiles_into_a_graph_with_its_neighbours():
    operands, paths, params = make_operands(length=100, d=16)
    for x in operands:
        x.requires_grad_()

    def scan(u, dt, B, C):
        return cuda_training.selective_scan(u * 2, dt, B, C, paths, params).sin()

    compiled = torch.compile(scan, fullgraph=True)
    assert torch.allclose(compiled(*operands), scan(*operands), atol=1e-5)


def test_its_gradient_is_an_operator_that_torch_can_trace():
    (u, *others), paths, params = make_operands(length=10, d=2)
    u = u.transpose(1, 2).contiguous().transpose(1, 2)  # in another order in memory
    _, kept = torch.ops.mambair.training_scan(u, *others, paths, *params)
    given = (torch.ones_like(u), u, *others, paths, *params, kept)
    torch.library.opcheck(torch.ops.mambair.training_scan_backward.default, given)


def test_is_an_operator_that_torch_can_trace():
    operands, paths, params = make_operands(length=10, d=2)
    torch.library.opcheck(torch.ops.mambair.training_scan.default, (*operands, paths, *params))
