"""The selective scan in CUDA C++, for inference on NVIDIA cards; its source is compiled at run time.

If there are too few images to fill a card, each path is cut into chunks: a first pass computes how each chunk
changes the states it starts from, and a second pass starts each chunk from the states that result.
"""

import ctypes
import functools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import nvrtc
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.programs.cuda_source import compile_source

SOURCES = ("elements.cuh", "cuda_scan.cu")
LOG2_E = math.log2(math.e)
SMALLEST_SOURCE = 'extern "C" __global__ void nothing() {}'


class ScanShape(NamedTuple):
    """How the work is divided among threads; see the source.

    Attributes:
        lanes: Threads that share a channel's states: 1, 2 or 4.
        steps: Steps that are read, computed and written at once; a multiple of ``lanes`` and of 4.
        stage: Steps whose projections are staged at once; a multiple of ``steps``, at most ``threads``.
        threads: Threads of a block.
        blocks: Blocks that a multiprocessor must hold at once, which limits their registers.
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


def check_usable(card: int | None) -> None:
    """Raise an OSError if CUDA C++ cannot be compiled at run time for a card; None is the current one."""
    compile_source(SMALLEST_SOURCE, {}, torch.cuda.get_device_capability(card))


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    weight, bias, A, D = (param.detach().float() for param in params)
    projected = torch.cat([B.to(u.dtype), C.to(u.dtype)], dim=-1)
    total = u.new_empty(u.shape, dtype=torch.float32)
    for i, ranks in enumerate(dt.detach().float()):  # (l, k, r): one image at a time, to save memory
        steps = F.softplus(torch.einsum("lkr,kdr->lkd", ranks, weight) + bias).mul_(LOG2_E).contiguous()
        along = paths[i : i + 1] if paths.ndim == 3 else paths
        results = scan_paths(u[i : i + 1], steps[None], projected[i : i + 1], along, A, D)
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
    """Run a scan along each path, and overwrite the steps with the results.

    Long because it has many arguments, all of which it documents.

    Args:
        u: Tokens in pixel order, (b, l, d).
        steps: log2(e) times each path's steps, (b, l, k, d), contiguous; overwritten.
        projected: B and C, joined, (b, l, k, 2n), in the dtype of ``u``.
        paths: Pixel visited at each step, (k, l) or (b, k, l), int32.
        A: Rate of decay, negative, (k, d, n) float32.
        D: Weight with which a token is added to its output directly, (k, d) float32.
        labels: Row of the dictionary that is added to C at each step of the path, (b, l) int32.
        dictionary: Rows that are added to C, (t, n) float32.
        shape: How the work is divided; by default by ``choose_cut``.
        chunks: Number of chunks of each path; by default by ``choose_cut``.

    Returns:
        ``steps``, which now holds each path's results.

    Raises:
        ValueError: ``steps`` is not contiguous.
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
    vector, each = _find_widths(u, steps, projected, shape)
    types = nvrtc.TYPES[u.dtype], nvrtc.TYPES[steps.dtype]
    scan, scan_ends = _load(n, vector, *types, int(labels is not None), each, shape, u.device)

    blocks = -(-d // (shape.threads // shape.lanes))
    chunk = -(-length // (chunks or 1))
    chunk = -(-chunk // shape.stage) * shape.stage  # only the last chunk may end with a part of a stage
    chunks = -(-length // chunk)
    ends = u.new_empty(b, k, chunks, n, d, dtype=torch.float32) if chunks > 1 else None
    sums = u.new_empty(b, k, chunks, d, dtype=torch.float32) if chunks > 1 else None
    tensors = (u, projected, paths, A, D, labels, dictionary, steps, ends, sums)
    operands = _ScanOperands(
        *(None if x is None else x.data_ptr() for x in tensors),
        projected.stride(0),
        paths.stride(0) if paths.ndim == 3 else 0,
        *projected.stride()[1:3],
        *(k, length, d, chunk, chunks),
    )
    if chunks > 1:
        scan_ends.launch((blocks, b * k, chunks - 1), operands)
    scan.launch((blocks, b * k, chunks), operands)
    return steps


def _find_widths(u: Tensor, steps: Tensor, projected: Tensor, shape: ScanShape) -> tuple[int, int]:
    """Return how many elements may be read at once: of a row of projections, and of tokens and steps."""
    addresses = (projected.data_ptr() // u.itemsize, *projected.stride()[:3], projected.shape[-1])
    vector = next(v for v in (4, 2, 1) if all(x % v == 0 for x in addresses))
    widest = min(
        16 // max(u.itemsize, steps.itemsize), shape.steps // shape.lanes
    )  # so that each lane copies
    addresses = (u.shape[-1], *(x.data_ptr() // x.itemsize for x in (u, steps)))
    each = next(e for e in (8, 4, 2, 1) if e <= widest and all(x % e == 0 for x in addresses))
    return vector, each


class _Cost(NamedTuple):
    """The cost of a form of the kernel, in clock cycles of one of a multiprocessor's four schedulers.

    Measured on an H200; the proportions hold for other cards. Copies have become wider since: with one and
    with two lanes it takes a tenth less.

    Attributes:
        lanes: ``ScanShape.lanes`` of this form.
        steps: ``ScanShape.steps`` of this form.
        step: Cycles of a warp for a step if there are enough warps, without its exponentials.
        exponential: Cycles of a warp for each exponential of its threads.
        least: Cycles of a step, however few warps there are, without its exponentials.
        threads: Threads that a multiprocessor holds at once, limited by their registers.
        warps: Possible numbers of warps of a block.
    """

    lanes: int
    steps: int
    step: float
    exponential: float
    least: int
    threads: int
    warps: tuple[int, ...]


# Tile sizes depend on these, too: other costs give other images (``restore.tile_cost.digest_costs``).
COSTS = (
    _Cost(1, 8, 71, 7.1, 150, 512, (3, 4)),
    _Cost(2, 8, 20, 11.4, 67, 640, (3, 4, 5)),
    _Cost(4, 8, 55, 1.2, 207, 576, (3, 9)),
)
EXPONENTIAL = 10  # cycles, if nothing else is computed meanwhile
STAGING = 900  # cycles for a step's projections, shared by a block's threads
TWO_PASSES = 1.85  # times the cost of one pass
LEAST_CHUNK = 256  # steps


def choose_cut(lines: int, length: int, d: int, n: int, processors: int) -> tuple[ScanShape, int]:
    """Divide the work so that its estimated time is the shortest.

    The time depends most on how evenly blocks are spread over the multiprocessors: the fullest one finishes
    last.

    Args:
        lines: Number of paths, of all images together.
        length: Steps of each path.
        d: Channels of each path.
        n: States of each channel.
        processors: Multiprocessors of the card.

    Returns:
        The shape, and the number of chunks of each path.
    """
    return _find_cut(lines, length, d, n, processors)[1:]


def estimate_scan(lines: int, length: int, d: int, n: int, processors: int) -> float:
    """Estimate the time of the best cut, in clock cycles; the arguments are those of ``choose_cut``."""
    return length * _find_cut(lines, length, d, n, processors)[0]


def _find_cut(lines: int, length: int, d: int, n: int, processors: int) -> tuple[float, ScanShape, int]:
    """Find the best cut; return cycles per step of a path, shape and number of chunks."""
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
    """Reduce a block's threads to those it needs, and its stages to those that fit shared memory."""
    shape = shape._replace(threads=min(shape.threads, -(-d * shape.lanes // 32) * 32))
    while shared_bytes(shape, n, itemsize) > nvrtc.SHARED_BYTES and shape.stage > 2 * shape.steps:
        shape = shape._replace(stage=shape.stage // 2)
    return shape


def shared_bytes(shape: ScanShape, n: int, itemsize: int) -> int:
    """Return the size of a block's shared memory, in bytes; see ``Shared`` in the source."""
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
) -> tuple[nvrtc.Kernel, nvrtc.Kernel]:
    """Compile or find the kernels for these settings; see the source."""
    settings = {"N": n, "VECTOR": vector, "INPUT": input, "OUTPUT": output}
    settings |= {"DICTIONARY": dictionary, "EACH": each}
    settings |= {name.upper(): value for name, value in shape._asdict().items()}
    scan, scan_ends = nvrtc.load_kernels(SOURCES, settings, ("scan", "scan_ends"), device)
    return scan, scan_ends
