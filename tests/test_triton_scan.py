"""The Triton scan against the plain loop in float64: on a GPU where there is one, else interpreted."""

import pytest
import scans
import torch
from forked import run_forked
from interpreted import DEVICE
from scans import check, make_operands, run

from mambair_cli.kernels import triton_scan

TOLERANCE = 2e-5  # relative, float32 against float64: some 40 roundings in a row
TOLERANCE_16_BIT = 8e-3  # two roundings of a gradient to bfloat16


CASES = {
    **scans.CASES,
    "one chunk exactly": {"length": triton_scan.BACKWARD_BLOCK.steps},
    "a chunk and one": {"length": triton_scan.BACKWARD_BLOCK.steps + 1},
    "channels beyond a block": {"d": triton_scan.FORWARD_BLOCK.channels + 3, "length": 9, "b": 1},
}


@pytest.fixture(autouse=True)
def without_cuda_sources(monkeypatch):
    """Keep Triton's own gradient in use where there is a compiler of CUDA C++, too."""
    monkeypatch.setattr(triton_scan, "has_nvrtc", lambda device: False)


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_plain_loop_and_its_gradient(case):
    check(triton_scan.selective_scan, *make_operands(**CASES[case]), TOLERANCE)


@pytest.mark.parametrize(
    ("case", "paths", "length", "stretches"),
    [
        ("ordinary", 1, 32, 2),
        ("ordinary", 2, 33, 2),
        ("ordinary", 1, 63, 2),
        ("states no power of two", 1, 70, 3),
        ("path of each image", 2, 70, 3),
        ("very slow", 1, 70, 3),
        ("slow next to fast", 1, 70, 3),
    ],
)
def test_agrees_where_paths_are_walked_in_stretches(case, paths, length, stretches, monkeypatch):
    monkeypatch.setattr(triton_scan, "SHORTEST_STRETCH", 16)
    monkeypatch.setattr(triton_scan, "FEWEST_STRETCHES", 2)
    launched, launch = [], triton_scan.launch

    def watch(kernel, grid, **options):
        launched.append(grid)
        launch(kernel, grid, **options)

    monkeypatch.setattr(triton_scan, "launch", watch)
    settings = {**CASES[case], "length": length, "b": paths, "k": paths}  # a path takes a second
    check(triton_scan.selective_scan, *make_operands(**settings), TOLERANCE)
    assert [grid[2] for grid in launched] == [stretches] * 4


def test_takes_16_bit_operands():
    (u, dt, B, C), paths, params = make_operands(dtype=torch.bfloat16)
    check(triton_scan.selective_scan, (u, dt, B, C), paths, params, TOLERANCE_16_BIT)
    assert triton_scan.selective_scan(u, dt, B, C, paths, params).dtype == torch.float32


def test_reads_slices_of_one_projection_where_they_lie():
    (u, *projected), paths, params = make_operands()
    dt, B, C = torch.cat(projected, -1).split([x.shape[-1] for x in projected], -1)
    assert not dt.is_contiguous()
    apart = triton_scan.selective_scan(u, dt.contiguous(), B.contiguous(), C.contiguous(), paths, params)
    assert torch.equal(triton_scan.selective_scan(u, dt, B, C, paths, params), apart)


def test_repeats_to_the_bit():
    operands, paths, params = make_operands()
    weights = torch.ones_like(operands[0])
    for first, second in zip(
        run(triton_scan.selective_scan, operands, paths, params, weights),
        run(triton_scan.selective_scan, operands, paths, params, weights),
        strict=True,
    ):
        assert torch.equal(first, second)


def test_its_gradient_is_an_operator_that_torch_can_trace():
    (u, *others), paths, params = make_operands(length=10, d=2)
    u = u.transpose(1, 2).contiguous().transpose(1, 2)  # in another order in memory
    _, states = torch.ops.mambair.selective_scan(u, *others, paths, *params)
    given = (torch.ones_like(u), u, *others, paths, *params, states)
    torch.library.opcheck(torch.ops.mambair.selective_scan_backward.default, given)


def test_is_an_operator_that_torch_can_trace():
    operands, paths, params = make_operands(length=10, d=2)
    torch.library.opcheck(torch.ops.mambair.selective_scan.default, (*operands, paths, *params))


@pytest.mark.gpu
@pytest.mark.parametrize("bias", [(-8.0, -2.0), (-3.0, 3.0)])
def test_agrees_at_the_size_of_training(bias):
    check(
        triton_scan.selective_scan,
        *make_operands(b=4, length=48 * 48, d=64, k=4, n=8, r=5, bias=bias),
        5 * TOLERANCE,
    )


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # PyTorch's own use
@pytest.mark.parametrize("needs_grad", [True, False])
def test_the_compiler_sees_one_operator(needs_grad):
    operands, paths, params = make_operands()
    for x in operands:
        x.requires_grad_(needs_grad)
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def scan(u, dt, B, C):
        return triton_scan.selective_scan(u * 2, dt, B, C, paths, params).sin()

    torch._dynamo.reset()
    got = torch.compile(scan, fullgraph=True, backend=keep)(*operands)
    torch.testing.assert_close(got, scan(*operands))
    called = [str(node.target) for node in graphs[0].graph.nodes if "mambair" in str(node.target)]
    assert called == [f"mambair.{'selective' if needs_grad else 'plain'}_scan.default"]


FAR_APART = """
import torch
from mambair_cli.kernels import ScanParams, reference, triton_scan

far = torch.empty(2**31 + 8, dtype=torch.int8)  # touched in a few places only
B = far.as_strided((1, 3, 1, 3), (0, 2**30, 0, 1))
B.copy_(torch.arange(1, 10).view(B.shape))
u, dt, C = torch.rand(1, 3, 2), torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 3)
params = ScanParams(torch.rand(1, 2, 1), torch.rand(1, 2), -torch.rand(1, 2, 3), torch.rand(1, 2))
path = torch.tensor([[2, 0, 1]], dtype=torch.int32)
got = triton_scan.selective_scan(u, dt, B, C, path, params)
torch.testing.assert_close(got, reference.selective_scan(u, dt, B.float(), C, path, params))
"""


@pytest.mark.skipif(DEVICE.type == "cuda", reason="operands are on the CPU, for the interpreter")
def test_pixels_may_lie_further_apart_than_32_bits_count():
    done = run_forked("-c", FAR_APART)
    assert (done.returncode, done.stderr) == (0, "")


CALL_WITHOUT_GRADIENT = """
import sys
import torch
from mambair_cli.kernels import ScanParams, triton_scan

u, C, paths = torch.ones(1, 4, 2), torch.ones(1, 4, 1, 3), torch.arange(4, dtype=torch.int32)[None]
params = ScanParams(torch.ones(1, 2, 1), torch.ones(1, 2), -torch.ones(1, 2, 3), torch.ones(1, 2))
triton_scan.selective_scan(u, torch.ones(1, 4, 1, 1), C, C, paths, params)
sys.exit("torch._dynamo" in sys.modules)
"""


@pytest.mark.skipif(DEVICE.type == "cuda", reason="operands are on the CPU, for the interpreter")
def test_needs_no_compiler_without_a_gradient():
    done = run_forked("-c", CALL_WITHOUT_GRADIENT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # PyTorch's own use
def test_compiles_into_a_graph_with_its_neighbours():
    operands, paths, params = make_operands(length=100, d=16)

    def scan(u, dt, B, C):
        return triton_scan.selective_scan(u * 2, dt, B, C, paths, params).sin()

    compiled = torch.compile(scan, fullgraph=True)
    assert torch.allclose(compiled(*operands), scan(*operands), atol=1e-5)
