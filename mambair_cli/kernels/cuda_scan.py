"""The selective scan in CUDA C++, for inference on NVIDIA cards; its source is compiled at run time.

Where too few images are at work to fill a card, each path is cut into chunks: a first pass finds what every
chunk does to the states it starts from, a second one starts each from what the chunks before it leave.
"""

import ctypes
import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import nvrtc
from mambair_cli.kernels.operands import ScanParams

SOURCES = ("elements.cuh", "cuda_scan.cu")
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
LOG2_E = math.log2(math.e)


class ScanShape(NamedTuple):
    """How the work is cut up; see the source.

    Attributes:
        lanes: Threads that share a channel's states: 1, 2 or 4.
        steps: Read, computed and written at once; a multiple of ``lanes`` and of 4.
        stage: Steps whose projections are staged at once; a multiple of ``steps``, no more than ``threads``.
        threads: Of a block.
        blocks: That a multiprocessor must hold at once: a bound on registers.
    """

    lanes: int = 1
    steps: int = 8
    stage: int = 32
    threads: int = 128
    blocks: int = 4


class _ScanOperands(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("u", "projected", "paths", "A", "D")),
        *((name, ctypes.c_void_p) for name in ("labels", "dictionary", "values", "ends", "sums")),
        ("image_stride", ctypes.c_longlong),
        ("paths_stride", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("token_stride", "path_stride", "k", "length", "channels")),
        *((name, ctypes.c_int) for name in ("chunk", "chunks")),
    )


def check_usable() -> None:
    """Raise an OSError where CUDA C++ cannot be compiled at run time."""
    nvrtc.open_compiler()


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    weight, bias, A, D = (param.detach().float() for param in params)
    leaving = torch.cat([B.to(u.dtype), C.to(u.dtype)], dim=-1)
    total = u.new_empty(u.shape, dtype=torch.float32)
    for i, ranks in enumerate(dt.detach().float()):  # (l, k, r); one image's steps at a time
        steps = F.softplus(torch.einsum("lkr,kdr->lkd", ranks, weight) + bias).mul_(LOG2_E).contiguous()
        along = paths[i : i + 1] if paths.ndim == 3 else paths
        results = scan_paths(u[i : i + 1], steps[None], leaving[i : i + 1], along, A, D)
        torch.sum(results[0], 1, out=total[i])
    return total


def scan_paths(
    u: Tensor,
    steps: Tensor,
    projected: Tensor,
    paths: Tensor,
    A: Tensor,
    D: Tensor,
    labels: Tensor | None = None,
    dictionary: Tensor | None = None,
    shape: ScanShape | None = None,
    chunks: int | None = None,
) -> Tensor:
    """Run a scan along each path, and write the paths' results over their steps.

    Args:
        u: Tokens in pixel order, (b, l, d).
        steps: log2(e) times each path's steps, (b, l, k, d), contiguous; overwritten.
        projected: B and C side by side, (b, l, k, 2n), in the dtype of ``u``.
        paths: Pixel visited at each step, (k, l) or (b, k, l), int32.
        A: Rate of decay, negative, (k, d, n) float32.
        D: Weight of the token's own way, (k, d) float32.
        labels: Row of the dictionary that is added to C at each step of the path, (b, l) int32.
        dictionary: (t, n) float32.
        shape: How to cut up the work; by default what was measured to be fast.
        chunks: Of each path; by default as many as the card can use.

    Returns:
        ``steps``, which now holds each path's results.
    """
    b, length, d = u.shape
    k, _, n = A.shape
    if not steps.is_contiguous():
        raise ValueError(f"steps to be overwritten must be contiguous, not of strides {steps.stride()}")
    u, paths, A, D = (x.contiguous() for x in (u, paths, A, D))
    if shape is None:
        shape, best_chunks = choose_cut(b * k, length, d, n, multiprocessors(u.device))
        chunks = best_chunks if chunks is None else chunks
    shape = _fit(shape, d, n, max(u.itemsize, steps.itemsize))
    image_stride, token_stride, path_stride, _ = projected.stride()
    addresses = (projected.data_ptr() // u.itemsize, image_stride, token_stride, path_stride, 2 * n)
    vector = next(v for v in (4, 2, 1) if all(x % v == 0 for x in addresses))
    types = TYPES[u.dtype], TYPES[steps.dtype]
    places = (d, *(x.data_ptr() // x.itemsize for x in (u, steps)))
    widest = min(16 // max(u.itemsize, steps.itemsize), shape.steps // shape.lanes)  # every lane has work
    each = next(e for e in (8, 4, 2, 1) if e <= widest and all(x % e == 0 for x in places))
    scan, scan_ends = _load(n, vector, *types, int(labels is not None), each, shape, u.device)

    blocks = -(-d // (shape.threads // shape.lanes))
    chunk = -(-length // (chunks or 1))
    chunk = -(-chunk // shape.stage) * shape.stage  # every chunk but the last is made of full stages
    chunks = -(-length // chunk)
    ends = u.new_empty(b, k, chunks, n, d, dtype=torch.float32) if chunks > 1 else None
    sums = u.new_empty(b, k, chunks, d, dtype=torch.float32) if chunks > 1 else None
    tensors = (u, projected, paths, A, D, labels, dictionary, steps, ends, sums)
    operands = _ScanOperands(
        *(None if x is None else x.data_ptr() for x in tensors),
        image_stride,
        paths.stride(0) if paths.ndim == 3 else 0,
        token_stride,
        path_stride,
        k,
        length,
        d,
        chunk,
        chunks,
    )
    if chunks > 1:
        scan_ends.launch((blocks, b * k, chunks - 1), operands)
    scan.launch((blocks, b * k, chunks), operands)
    return steps


class _Cost(NamedTuple):
    """What a form of the kernel takes, in clock cycles of one of a multiprocessor's four schedulers.

    Measured on an H200; other cards share their proportions. Copies have become wider since: one and two
    lanes take a tenth less, alike.

    Attributes:
        lanes: As of a shape, like the next one.
        steps: Likewise.
        step: Of a warp, where there are warps enough, beside what follows.
        exponential: Of each state of its threads.
        least: Of a step, however few warps there are, beside its exponentials one after the other.
        threads: That a multiprocessor holds at once, by the registers they need.
        warps: Of a block.
    """

    lanes: int
    steps: int
    step: float
    exponential: float
    least: int
    threads: int
    warps: tuple[int, ...]


# Tiles are fitted by these, too: with others, images become others (``fitting.digest_costs``).
COSTS = (
    _Cost(1, 8, 71, 7.1, 150, 512, (3, 4)),
    _Cost(2, 8, 20, 11.4, 67, 640, (3, 4, 5)),
    _Cost(4, 8, 55, 1.2, 207, 576, (3, 9)),
)
EXPONENTIAL = 10  # cycles, where nothing else is done meanwhile
STAGING = 900  # cycles for a step's projections, divided among a block's threads
SHARED_BYTES = 48 * 1024  # that a block may have without asking
TWO_PASSES = 1.85  # times the cost of one
LEAST_CHUNK = 256  # steps


def choose_cut(lines: int, length: int, d: int, n: int, processors: int) -> tuple[ScanShape, int]:
    """Cut up the work such that it is estimated to take the least time.

    What decides is how evenly blocks fall on the multiprocessors: the fullest one is waited for.

    Args:
        lines: Paths of all images.
        length: Steps of each.
        d: Channels of each.
        n: States of each channel.
        processors: Multiprocessors of the card.

    Returns:
        The shape, and the number of chunks.
    """
    return _find_cut(lines, length, d, n, processors)[1:]


def estimate_scan(lines: int, length: int, d: int, n: int, processors: int) -> float:
    """Estimate what the best cut takes, in clock cycles; see :func:`choose_cut`."""
    return length * _find_cut(lines, length, d, n, processors)[0]


def _find_cut(lines: int, length: int, d: int, n: int, processors: int) -> tuple[float, ScanShape, int]:
    """Find the best cut: cycles for each step of a path, shape and number of chunks."""
    best: tuple[float, ScanShape, int] | None = None
    for cost in COSTS:
        exponentials = -(-n // cost.lanes)
        for warps in cost.warps:
            threads = 32 * warps
            resident = cost.threads // threads
            blocks = lines * -(-d // (threads // cost.lanes))
            shape = ScanShape(cost.lanes, cost.steps, threads=threads, blocks=resident)
            fill = min(processors * resident // blocks, length // LEAST_CHUNK)
            for chunks in {1, max(1, fill)}:
                busy = -(-(-(-blocks * chunks // processors) * warps) // 4)  # warps of the fullest scheduler
                each = cost.step + cost.exponential * exponentials + STAGING / threads
                cycles = max(cost.least + EXPONENTIAL * exponentials, busy * each) / chunks
                cycles *= TWO_PASSES if chunks > 1 else 1
                if best is None or cycles < best[0]:
                    best = cycles, shape, chunks
    assert best is not None
    return best


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Return how many multiprocessors a card has."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def _fit(shape: ScanShape, d: int, n: int, itemsize: int) -> ScanShape:
    """Give a block no more threads than it needs, and stages that its shared memory holds."""
    shape = shape._replace(threads=min(shape.threads, -(-d * shape.lanes // 32) * 32))
    while shared_bytes(shape, n, itemsize) > SHARED_BYTES and shape.stage > 2 * shape.steps:
        shape = shape._replace(stage=shape.stage // 2)
    return shape


def shared_bytes(shape: ScanShape, n: int, itemsize: int) -> int:
    """Count what a block holds of tokens, steps, projections and places, as the source lays them out."""
    row = shape.threads // shape.lanes * itemsize
    row = row + 64 if shape.lanes == 1 else -(-row // 128) * 128 + 128 // shape.lanes
    slots = -(-n // shape.lanes // 4) * 4
    return shape.stage * (2 * row + 2 * 2 * shape.lanes * slots * 4 + 4 * 4)


@functools.cache
def _load(
    n: int,
    vector: int,
    input: int,
    output: int,
    dictionary: int,
    each: int,
    shape: ScanShape,
    device: torch.device,
) -> tuple[Any, Any]:
    settings = {"N": n, "VECTOR": vector, "INPUT": input, "OUTPUT": output}
    settings |= {"DICTIONARY": dictionary, "EACH": each}
    settings |= {name.upper(): value for name, value in shape._asdict().items()}
    scan, scan_ends = nvrtc.load_kernels(nvrtc.read_source(*SOURCES), settings, ("scan", "scan_ends"), device)
    return scan, scan_ends
