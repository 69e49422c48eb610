"""The kernels in CUDA C++ through the compiler that a user's PyTorch compiles them with: it needs no GPU."""

import _ctypes
import shutil
import sys

import pytest
import torch

from mambair_cli.kernels import cuda_depthwise, cuda_scan, has_nvrtc, nvrtc
from mambair_cli.programs import cuda_source
from mambair_cli.system.notices import SlowerWarning

OLD, CARD, OTHERS = (7, 5), (9, 0), [(8, 6), (12, 0)]  # the source has a branch for cards before 8.0
WIDTHS = [(1, 5), (72, 10), (216, 16), (360, 16), (48, 8), (348, 16)]  # channels and states


class Unlaunched:
    def launch(self, grid, operands):
        pass


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Return a folder that keeps what was compiled, since several tests need the same."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def compiled(monkeypatch, kept):
    """Yield a function that says for which card to compile, and a list of what was compiled."""
    folder, version = cuda_source.find_torch()
    monkeypatch.setattr(cuda_source, "find_torch", lambda: (folder, version or "13.0"))
    cuda_source.open_compiler.cache_clear()
    loaders = cuda_scan._load, cuda_depthwise._load
    for load in loaders:
        load.cache_clear()
    try:
        cuda_source.open_compiler()
    except cuda_source.CompilerError:
        pytest.skip("needs NVRTC, for instance as nvidia-cuda-nvrtc")
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    codes = []

    def compile_for(card):
        def load(files, settings, names, device):
            source = cuda_source.read_source(*files)
            codes.append(cuda_source.compile_source(source, settings, card))
            assert all(name.encode() in codes[-1] for name in names)
            return tuple(Unlaunched() for _ in names)

        monkeypatch.setattr(nvrtc, "load_kernels", load)
        monkeypatch.setattr(cuda_scan, "multiprocessors", lambda device: 132)

    yield compile_for, codes
    cuda_source.open_compiler.cache_clear()
    for load in loaders:
        load.cache_clear()


def scan(d, n, dtype=torch.float16, dictionary=False, **settings):
    u, steps, projected = torch.zeros(1, 32, d), torch.zeros(1, 32, 1, d), torch.zeros(1, 32, 1, 2 * n)
    u, steps, projected = (x.to(dtype) for x in (u, steps, projected))
    paths = torch.arange(32, dtype=torch.int32)[None]
    words = (torch.zeros(1, 32, dtype=torch.int32), torch.zeros(4, n)) if dictionary else (None, None)
    A, D = torch.zeros(1, d, n), torch.zeros(1, d)
    cuda_scan.scan_paths(u, steps, projected, paths, A, D, *words, **settings)


@pytest.mark.parametrize(
    ("card", "d", "n"),
    [(card, *width) for card in (OLD, CARD) for width in WIDTHS] + [(card, 360, 16) for card in OTHERS],
)
def test_scan_is_accepted_for_every_card_and_width(compiled, card, d, n):
    compile_for, codes = compiled
    compile_for(card)
    scan(d, n)
    scan(d, n, torch.float32, dictionary=True)
    assert all(code.startswith(b"\x7fELF") for code in codes)


@pytest.mark.parametrize("cost", cuda_scan.COSTS)
def test_every_form_of_the_scan_is_accepted(compiled, cost):
    compile_for, codes = compiled
    compile_for(CARD)
    for warps in cost.warps:
        shape = cuda_scan.ScanShape(cost.lanes, cost.steps, threads=32 * warps, blocks=1)
        scan(360, 16, shape=shape)
    assert len(codes) == len(cost.warps)


FORM = {"N": 16, "VECTOR": 4, "INPUT": 1, "OUTPUT": 1, "DICTIONARY": 0, "EACH": 8}
SHAPE = {"LANES": 1, "STEPS": 8, "STAGE": 32, "THREADS": 96, "BLOCKS": 4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LANES": 8}, "LANES is 1, 2 or 4"),
        ({"LANES": 4, "STEPS": 6, "STAGE": 48}, "STEPS is a multiple"),
        ({"STAGE": 8}, "groups are fetched ahead"),
        ({"STAGE": 48}, "STAGE is a power of 2"),
        ({"STAGE": 128}, "STAGE is at most THREADS"),
        ({"THREADS": 80}, "THREADS is a multiple of 32"),
        ({"N": 15}, "VECTOR divides"),
        ({"EACH": 3}, "EACH divides the channels"),
        ({"EACH": 16}, "EACH elements have 16 bytes"),
        ({"VECTOR": 16}, "VECTOR elements have 16 bytes"),
        ({"N": 64, "STAGE": 64}, "48 KiB of shared memory"),
    ],
)
def test_a_shape_that_the_scan_would_go_wrong_with_is_not_compiled(compiled, changes, said):
    source = cuda_source.read_source(*cuda_scan.SOURCES)
    cuda_source.compile_source(source, {**FORM, **SHAPE}, (9, 0))
    with pytest.raises(cuda_source.CompilerError, match=said):
        cuda_source.compile_source(source, {**FORM, **SHAPE, **changes}, (9, 0))


@pytest.mark.parametrize(
    ("card", "activation", "side"),
    [(CARD, activation, side) for activation in cuda_depthwise.ACTIVATIONS for side in (3, 5)]
    + [(card, "gelu_add", 5) for card in (OLD, *OTHERS)],
)
def test_depthwise_convolution_is_accepted_for_every_card(compiled, card, activation, side):
    compile_for, codes = compiled
    compile_for(card)
    for channels, dtype in ((64, torch.float16), (63, torch.float32)):
        x, weight = torch.zeros(1, 4, 4, channels, dtype=dtype), torch.zeros(side**2, channels)
        cuda_depthwise.convolve_depthwise(x, weight, torch.zeros(channels), activation, other=x)
    assert len(codes) == 2


def test_a_library_that_only_has_the_compiler_s_name_is_none(monkeypatch, tmp_path):
    folder = tmp_path / "nvidia" / "cu99" / "lib"
    folder.mkdir(parents=True)
    shutil.copy(_ctypes.__file__, folder / "libnvrtc.so.99")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(cuda_source, "find_torch", lambda: (tmp_path, "99.0"))
    cuda_source.open_compiler.cache_clear()
    try:
        with pytest.raises(cuda_source.CompilerError, match=r"CUDA 99\.0 came without its run-time compiler"):
            cuda_source.compile_source(SOURCE, {"TIMES": 2}, (9, 0))
    finally:
        cuda_source.open_compiler.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
def test_a_card_that_the_compiler_does_not_know_is_found_before_anything_is_launched(monkeypatch):
    cards = {0: (9, 0), 1: (99, 0)}

    def compile_source(source, settings, capability):
        if capability == cards[1]:
            raise cuda_source.CompilerError("the run-time compiler gave up: invalid value for sm_990")
        return b""

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", cards.__getitem__)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda_scan, "compile_source", compile_source)
    assert has_nvrtc(torch.device("cuda", 0))
    with pytest.warns(SlowerWarning, match=r"the scan in CUDA C\+\+ .*not used.* invalid value for sm_990"):
        assert not has_nvrtc(torch.device("cuda", 1))
    assert has_nvrtc(torch.device("cuda", 0))
    assert not has_nvrtc(torch.device("cuda", 1))  # and says so once


def test_the_smallest_source_is_accepted(compiled):
    assert cuda_source.compile_source(cuda_scan.SMALLEST_SOURCE, {}, CARD).startswith(b"\x7fELF")


def test_what_was_compiled_is_kept_and_a_refused_source_is_said(compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cuda_source.compile_source(SOURCE, {"TIMES": 2}, (9, 0)).startswith(b"\x7fELF")
    (kept,) = tmp_path.glob("mambair/kernels/*.cubin")
    kept.write_bytes(b"kept")
    assert cuda_source.compile_source(SOURCE, {"TIMES": 2}, (9, 0)) == b"kept"
    assert cuda_source.compile_source(SOURCE, {"TIMES": 3}, (9, 0)) != b"kept"
    with pytest.raises(cuda_source.CompilerError, match=r"gave up: mambair\.cu.*TIMES"):
        cuda_source.compile_source(SOURCE, {}, (9, 0))


SOURCE = 'extern "C" __global__ void scale(float* x) { x[threadIdx.x] *= TIMES; }'
