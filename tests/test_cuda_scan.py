"""The scan in CUDA C++ against the plain loop in float64.

Without a GPU its source is compiled for the CPU, where a block's threads are threads: what is computed is
checked to the last index, how fast and how exactly a card does it is not.
"""

import pytest
import torch
import torch.nn.functional as F

from mambair_cli.kernels import ScanParams, cuda_scan, nvrtc, reference
from mambair_cli.kernels.cuda_scan import ScanShape

pytestmark = pytest.mark.usefixtures("cuda_kernels")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = 2e-5  # relative, float32 against float64
SMALL = ScanShape(lanes=1, steps=4, stage=8, threads=32, blocks=1)


def make_operands(b=1, length=20, d=6, k=2, n=4, r=3, bias=(-2.0, 1.0), batch_paths=False, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    count = b * k if batch_paths else k
    paths = torch.stack([torch.randperm(length, generator=generator) for _ in range(count)]).int()
    low, high = bias
    u, projected = normal(b, length, d), normal(b, length, k, r + 2 * n)
    params = ScanParams(
        dt_weight=normal(k, d, r) * 0.5,
        dt_bias=low + (high - low) * torch.rand(k, d, generator=generator),
        A=-torch.exp(normal(k, d, n)),
        D=normal(k, d),
    )
    paths = (paths.view(b, k, length) if batch_paths else paths).to(DEVICE)
    return u.to(DEVICE), projected.to(DEVICE), paths, ScanParams(*(x.to(DEVICE) for x in params))


def scan(u, projected, paths, params, dtype=torch.float32, **settings):
    """Return each path's results, (b, l, k, d)."""
    r = params.dt_weight.shape[-1]
    ranks = projected[..., :r].float()
    steps = F.softplus(torch.einsum("blkr,kdr->blkd", ranks, params.dt_weight) + params.dt_bias)
    steps = (steps * cuda_scan.LOG2_E).to(dtype).contiguous()
    return cuda_scan.scan_paths(u, steps, projected[..., r:], paths, params.A, params.D, **settings)


def solve(u, projected, paths, params):
    r, n = params.dt_weight.shape[-1], params.A.shape[-1]
    dt, B, C = projected.double().split([r, n, n], -1)
    return reference.selective_scan(u.double(), dt, B, C, paths, ScanParams(*(x.double() for x in params)))


def check(u, projected, paths, params, tolerance=TOLERANCE, **settings):
    got = scan(u, projected, paths, params, **settings).double().sum(2)
    wanted = solve(u, projected, paths, params)
    error = ((got - wanted).norm() / wanted.norm()).item()
    assert error < tolerance, f"{error:.1e}"


@pytest.mark.parametrize("chunks", [1, 2, 3])
@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, TOLERANCE), (torch.float16, 2e-3)])
def test_every_cut_of_the_work_gives_the_same(dtype, tolerance, lanes, chunks):
    u, projected, paths, params = make_operands(b=2, length=19, n=5)
    shape = SMALL._replace(lanes=lanes)
    u, projected = u.to(dtype), projected.to(dtype)
    check(u, projected, paths, params, tolerance, dtype=dtype, shape=shape, chunks=chunks)


@pytest.mark.parametrize("cost", cuda_scan.COSTS)
@pytest.mark.parametrize("d", [5, 6, 44, 72])
def test_the_cuts_that_are_shipped_give_the_same(cost, d):
    shape = ScanShape(cost.lanes, cost.steps, threads=64, blocks=1)
    u, projected, paths, params = make_operands(length=75, d=d, k=1, n=5)
    u, projected = u.half(), projected.half()
    check(u, projected, paths, params, 2e-3, dtype=torch.float16, shape=shape, chunks=2)


@pytest.mark.parametrize("offset", [1, 2, 4])
def test_tokens_may_lie_anywhere(offset):
    u, projected, paths, params = make_operands(d=16)
    u, projected = u.half(), projected.half()
    shape = SMALL._replace(steps=8, stage=16)  # which copies eight at once where it can
    wanted = scan(u, projected, paths, params, torch.float16, shape=shape, chunks=1)
    moved = torch.empty(u.numel() + offset, dtype=u.dtype, device=u.device)[offset:].view(u.shape).copy_(u)
    assert torch.equal(scan(moved, projected, paths, params, torch.float16, shape=shape, chunks=1), wanted)


@pytest.mark.parametrize(
    ("input", "output"), [(torch.float32, torch.float16), (torch.float16, torch.float32)]
)
def test_tokens_and_steps_may_differ_in_dtype(input, output):
    u, projected, paths, params = make_operands()
    check(u.to(input), projected.to(input), paths, params, 2e-3, dtype=output, shape=SMALL, chunks=1)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("n", [16, 32, 64, 128])
def test_stages_fit_into_a_block_s_memory(n, itemsize):
    for cost in cuda_scan.COSTS:
        for warps in cost.warps:
            shape = ScanShape(cost.lanes, cost.steps, threads=32 * warps)
            fitted = cuda_scan._fit(shape, 360, n, itemsize)
            assert fitted.stage in (shape.stage, shape.stage // 2, shape.stage // 4)
            assert fitted.stage >= 2 * shape.steps
            if n <= 64:
                assert cuda_scan.shared_bytes(fitted, n, itemsize) <= nvrtc.SHARED_BYTES


CASES = {
    "one token": {"length": 1},
    "one stage exactly": {"length": 8},
    "a stage and one": {"length": 9},
    "channels beyond a block": {"d": 70},
    "odd channels": {"d": 5},
    "one of everything": {"d": 1, "k": 1, "n": 1, "r": 1, "length": 3},
    "rows that are read four at a time": {"n": 4, "r": 4},
    "path of each image": {"b": 2, "batch_paths": True},
    "very slow": {"bias": (-18.0, -14.0)},
    "very fast": {"bias": (25.0, 160.0)},
    "slow next to fast": {"bias": (-16.0, 30.0)},
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_plain_loop(case):
    check(*make_operands(**CASES[case]), shape=SMALL, chunks=1)


def test_adds_the_dictionary_to_what_leaves():
    u, projected, paths, params = make_operands(b=2, k=1, batch_paths=True, length=19)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (2, 19), generator=generator).int().to(DEVICE)
    dictionary = torch.randn(3, 4, generator=generator).to(DEVICE)
    got = scan(u, projected, paths, params, shape=SMALL, chunks=2, labels=labels, dictionary=dictionary)
    place = torch.argsort(paths[:, 0].long(), dim=1)  # of each pixel on the path
    projected = projected.clone()
    projected[..., 0, -4:] += dictionary[labels.long().gather(1, place)]
    wanted = scan(u, projected, paths, params, shape=SMALL, chunks=1)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_takes_and_gives_16_bits(dtype, tolerance):
    u, projected, paths, params = make_operands()
    u, projected = u.to(dtype), projected.to(dtype)
    check(u, projected, paths, params, tolerance, dtype=dtype, shape=SMALL, chunks=2)


def test_the_operator_takes_slices_and_whatever_lies_apart():
    u, projected, paths, params = make_operands()
    dt, B, C = projected.split([3, 4, 4], -1)
    wanted = reference.selective_scan(u, dt, B, C, paths, params)
    for operands in ((dt, B, C), (dt.clone(), B.clone(), C.clone())):
        got = cuda_scan.selective_scan(u, *operands, paths, params)
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_cuts_up_paths_where_few_images_are_at_work():
    shape, chunks = cuda_scan.choose_cut(4, 65536, 360, 16, 132)  # MambaIR on one image
    assert chunks > 30
    shape, chunks = cuda_scan.choose_cut(264, 16384, 360, 16, 132)  # on sixty-six tiles
    assert chunks == 1
    assert shape.lanes == 1
    assert cuda_scan.choose_cut(1, 100, 360, 16, 132)[1] == 1  # hardly any steps


@pytest.mark.parametrize("d", [1, 5, 72, 360])
@pytest.mark.parametrize("lines", [1, 23, 500])
def test_every_cut_fits_a_card(lines, d):
    shape, chunks = cuda_scan.choose_cut(lines, 25600, d, 16, 132)
    assert shape.stage <= shape.threads
    assert shape.stage % shape.steps == 0
    assert shape.steps % shape.lanes == 0
    assert 1 <= chunks <= 25600 // cuda_scan.LEAST_CHUNK
    kept = 2 * shape.stage // shape.lanes * shape.threads * 4  # bytes of tokens and of steps
    assert kept <= 40_000  # of the 48 KiB that a block has


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("b", "side", "chunks"), [(4, 64, None), (1, 96, None), (1, 96, 1)])
def test_agrees_at_the_size_of_networks(dtype, b, side, chunks):
    u, projected, paths, params = make_operands(b, side * side, 360, 4, 16, 12, (-7.0, -1.0))
    u, projected = u.to(dtype), projected.to(dtype)
    check(u, projected, paths, params, TOLERANCE if dtype == torch.float32 else 1e-3, chunks=chunks)
