"""The selective scan and its gradient in CUDA C++, for training on NVIDIA cards; compiled at run time.

Paths are walked in chunks side by side, so many that they fill a card: a first pass finds what each chunk
leaves to the next one. There are no atomic additions: the same operands give the same bits.
"""

import ctypes
import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels import nvrtc
from mambair_cli.kernels.operands import ScanOperands
from mambair_cli.kernels.scan_operator import ScanGradients, define_scan

SOURCES = ("elements.cuh", "cuda_training.cu")
KERNELS = ("forward_ends", "forward", "backward_ends", "backward")
POINTERS = (
    *("u", "dt", "B", "C", "paths", "weight", "bias", "A", "D", "grad_y", "y", "kept"),
    *("grad_u", "grad_projected", "grad_weight", "grad_bias", "grad_A", "ends", "sums"),
)
STRIDES = tuple(f"{name}_{along}" for name in ("dt", "B", "C") for along in ("image", "token", "path"))
# Most states of a channel; tokens whose states, and threads whose values, a multiprocessor's registers hold.
ROOM = ((4, 4, 640), (8, 4, 512), (12, 4, 384), (16, 2, 320))
MOST_THREADS = 128
BLOCKS = 1536  # that fill a card
SHORTEST_CHUNK = 128  # tokens
WARP = 32
STAGE = 32  # tokens whose rows are in shared memory at once


class _Operands(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        *((name, ctypes.c_longlong) for name in (*STRIDES, "paths_image")),
        *((name, ctypes.c_int) for name in ("images", "k", "length", "channels", "chunk", "chunks")),
    )


class Shape(NamedTuple):
    """How the work is divided; see the source.

    Attributes:
        threads: Threads of a block, and channels at most.
        resident: Blocks that a multiprocessor should hold at a time.
        part: Tokens whose gradients are summed over channels at once.
        group: Tokens whose states are in registers at once.
    """

    threads: int
    resident: int
    part: int
    group: int


def choose_shape(d: int, n: int, r: int) -> Shape | None:
    """Divide the work for d channels of n states and steps of rank r; None if no block holds it."""
    for most, group, threads_at_once in ROOM:
        if n <= most:
            threads = min(MOST_THREADS if group == 4 else 64, -(-d // WARP) * WARP)
            for part in (4, 2, 1):
                shape = Shape(threads, threads_at_once // threads, part, group)
                if part <= group and shared_bytes(shape, n, r) <= nvrtc.SHARED_BYTES:
                    return shape
    return None


def shared_bytes(shape: Shape, n: int, r: int) -> int:
    """Return the size of a block's shared memory; see ``Shared`` in the source."""
    columns = 2 * n + r
    rows = STAGE * (-(-columns // 4) * 4 + 1)
    return 4 * (rows + shape.part * columns * (shape.threads + 1))


def _scan(operands: ScanOperands) -> tuple[Tensor, Tensor]:
    work = _Work(operands)
    b, length, d = operands.u.shape
    y = work.empty(b, len(operands.params.A), length, d)
    kept = work.empty(*_shape_of_states(operands))
    if work.chunks > 1:
        work.launch("forward_ends")
    work.launch("forward", y=y, kept=kept)
    return y.sum(1), kept


def _shape_of_states(operands: ScanOperands) -> tuple[int, ...]:
    b, length, d = operands.u.shape
    k, _, n = operands.params.A.shape
    shape = choose_shape(d, n, operands.dt.shape[-1])
    return b, k, -(-length // shape.group) if shape else 0, n, d


def _differentiate(grad_y: Tensor, operands: ScanOperands, kept: Tensor) -> ScanGradients:
    work = _Work(operands)
    b, length, d = operands.u.shape
    k, _, n = operands.params.A.shape
    r = operands.dt.shape[-1]
    gradients = {
        "grad_u": work.empty(b, k, length, d),
        "grad_projected": work.empty(work.blocks, b, length, k, r + 2 * n),
        "grad_weight": work.empty(b, k, work.chunks, r, d),
        "grad_bias": work.empty(b, k, work.chunks, d),
        "grad_A": work.empty(b, k, work.chunks, n, d),
    }
    if work.chunks > 1:
        work.launch("backward_ends", grad_y=grad_y)
    work.launch("backward", grad_y=grad_y, kept=kept, **gradients)
    projected = gradients["grad_projected"]
    return ScanGradients(
        gradients["grad_u"].sum(1),
        projected[0] if work.blocks == 1 else projected.sum(0),
        gradients["grad_weight"].sum((0, 2)).transpose(1, 2),
        gradients["grad_bias"].sum((0, 2)),
        gradients["grad_A"].sum((0, 2)).transpose(1, 2),
    )


selective_scan = define_scan("training_scan", _scan, _differentiate, _shape_of_states)
"""The scan of ``kernels.selective_scan``, with a gradient."""


class _Work:
    """A scan's operands, and how it is divided."""

    def __init__(self, operands: ScanOperands) -> None:
        u, dt, B, C, paths, params = operands
        b, length, d = u.shape
        k, _, n = params.A.shape
        r = dt.shape[-1]
        shape = choose_shape(d, n, r)
        if shape is None:
            raise ValueError(f"no block holds {d} channels of {n} states")
        self.kernels = _load(n, r, nvrtc.TYPES[u.dtype], shape, u.device)
        dt, B, C = (x.to(u.dtype) if x.stride(-1) == 1 else x.to(u.dtype).contiguous() for x in (dt, B, C))
        self._tensors = {"u": u.contiguous(), "dt": dt, "B": B, "C": C, "paths": paths.contiguous()}
        names = ("weight", "bias", "A", "D")
        self._tensors |= {name: x.float().contiguous() for name, x in zip(names, params, strict=True)}
        self.blocks = -(-d // shape.threads)
        count = max(1, min(BLOCKS // (b * k * self.blocks), length // SHORTEST_CHUNK))
        self.chunk = -(-math.ceil(length / count) // STAGE) * STAGE
        self.chunks = -(-length // self.chunk)
        self._tensors["ends"] = self.empty(b, k, self.chunks, n, d)
        self._tensors["sums"] = self.empty(b, k, self.chunks, d)
        strides = (stride for x in (dt, B, C) for stride in x.stride()[:-1])
        of_paths = k * length if paths.ndim == 3 else 0
        self._numbers = (*strides, of_paths, b, k, length, d, self.chunk, self.chunks)
        self._grid = self.blocks, b * k, self.chunks

    def empty(self, *shape: int) -> Tensor:
        """Return a tensor without values, for results of the kernels."""
        return self._tensors["u"].new_empty(shape, dtype=torch.float32)

    def launch(self, name: str, **tensors: Tensor) -> None:
        """Run a kernel with further tensors."""
        given = self._tensors | tensors
        places = (given[each].data_ptr() if each in given else None for each in POINTERS)
        self.kernels[name].launch(self._grid, _Operands(*places, *self._numbers))


@functools.cache
def _load(n: int, r: int, input: int, shape: Shape, device: torch.device) -> dict[str, nvrtc.Kernel]:
    """Compile or find the kernels for these settings; see the source."""
    settings = {"N": n, "R": r, "INPUT": input, "STAGE": STAGE}
    settings |= {name.upper(): value for name, value in shape._asdict().items()}
    return dict(zip(KERNELS, nvrtc.load_kernels(SOURCES, settings, KERNELS, device), strict=True))
