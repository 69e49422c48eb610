"""The selective scan and its gradient in CUDA C++, for training on NVIDIA cards; compiled at run time.

Paths are walked in chunks side by side, so that few large images fill a card, too: a first pass finds what
each chunk leaves to the next one. There are no atomic additions: the same operands give the same bits.
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

SOURCES = ("elements.cuh", "cuda_training.cu")
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
KERNELS = ("forward_ends", "forward", "backward_ends", "backward")
POINTERS = (
    *("u", "steps", "projected", "paths", "A", "D", "y", "kept"),
    *("grad_y", "grad_u", "grad_steps", "grad_projected", "grad_A", "ends", "sums"),
)
BLOCKS = 1024  # that fill a card
SHORTEST_CHUNK = 256  # tokens
SHARED_BYTES = 48 * 1024  # of shared memory, which every block may use
WARP = 32


class TrainingShape(NamedTuple):
    """How the work is divided; see the source.

    Attributes:
        threads: Threads of a block, and channels at most.
        group: Tokens of which the states are in registers at once.
        stage: Tokens of which the projections are in shared memory at once; a multiple of ``group``.
    """

    threads: int
    group: int
    stage: int


class _Operands(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("paths_stride", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("k", "length", "channels", "chunk", "chunks")),
    )


def choose_shape(d: int, n: int) -> TrainingShape | None:
    """Divide the work for d channels of n states; None where a block's shared memory does not hold it."""
    threads = -(-d // WARP) * WARP
    for group, stage in ((4, 32), (4, 16), (2, 16), (2, 8)):
        if shared_bytes(TrainingShape(threads, group, stage), n) <= SHARED_BYTES:
            return TrainingShape(threads, group, stage)
    return None


def shared_bytes(shape: TrainingShape, n: int) -> int:
    """Return the size of a block's shared memory; see ``Shared`` in the source."""
    rows = shape.stage * (2 * n + 1)
    starts = shape.stage // shape.group * n * shape.threads
    return 4 * (rows + starts + shape.group * 2 * n * (shape.threads + 1))


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    ranks, weight = dt.float(), params.dt_weight.float()
    steps = F.softplus(torch.einsum("blkr,kdr->blkd", ranks, weight) + params.dt_bias.float())
    projected = torch.cat([B, C], dim=-1).to(u.dtype)
    return _scan(u.contiguous(), steps, projected, paths.contiguous(), params.A.float(), params.D.float())[0]


@torch.library.custom_op("mambair::training_scan", mutates_args=())
def _scan(
    u: Tensor, steps: Tensor, projected: Tensor, paths: Tensor, A: Tensor, D: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the sum over paths, (b, l, d), and the states at the start of each stage."""
    work = _Work(u, steps, projected, paths, A, D)
    y = steps.new_empty(steps.shape)
    kept = _empty_states(u, A)
    if work.chunks > 1:
        work.launch("forward_ends")
    work.launch("forward", y=y, kept=kept)
    return y.sum(2), kept


@_scan.register_fake
def _scan_shapes(u, steps, projected, paths, A, D):
    return u.new_empty(u.shape, dtype=torch.float32), _empty_states(u, A)


@torch.library.custom_op("mambair::training_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    u: Tensor,
    steps: Tensor,
    projected: Tensor,
    paths: Tensor,
    A: Tensor,
    D: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u, steps, projected and A."""
    work = _Work(u, steps, projected, paths, A, D)
    grad_y = grad_y.contiguous()
    grad_u, grad_steps = (steps.new_empty(steps.shape) for _ in range(2))
    grad_projected = steps.new_empty(projected.shape)
    grad_A = steps.new_empty(work.states)
    if work.chunks > 1:
        work.launch("backward_ends", grad_y=grad_y)
    work.launch(
        "backward",
        grad_y=grad_y,
        kept=kept,
        grad_u=grad_u,
        grad_steps=grad_steps,
        grad_projected=grad_projected,
        grad_A=grad_A,
    )
    summed = grad_A.sum((0, 2)).transpose(1, 2).contiguous()
    return grad_u.sum(2).to(u.dtype), grad_steps, grad_projected.to(projected.dtype), summed


@_scan_backward.register_fake
def _scan_backward_shapes(grad_y, u, steps, projected, paths, A, D, kept):
    return tuple(each.new_empty(each.shape) for each in (u, steps, projected, A))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    u, steps, projected, paths, A, D, kept = ctx.saved_tensors
    grad_u, grad_steps, grad_projected, grad_A = _scan_backward(
        grad_y, u, steps, projected, paths, A, D, kept
    )
    grad_D = (grad_y * u).sum((0, 1)).expand_as(D)  # every path adds the same D * u to y
    return grad_u, grad_steps, grad_projected, None, grad_A, grad_D


_scan.register_autograd(_backward, setup_context=_keep_for_backward)


class _Work:
    """A scan's operands, and how it is divided."""

    def __init__(
        self, u: Tensor, steps: Tensor, projected: Tensor, paths: Tensor, A: Tensor, D: Tensor
    ) -> None:
        b, length, d = u.shape
        k, _, n = A.shape
        shape = choose_shape(d, n)
        if shape is None:
            raise ValueError(f"no block holds {d} channels of {n} states")
        self.kernels = _load(n, TYPES[u.dtype], shape, u.device)
        tensors = {"u": u, "steps": steps, "projected": projected, "paths": paths, "A": A, "D": D}
        self._tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        count = max(1, min(BLOCKS // (b * k), length // SHORTEST_CHUNK))
        self.chunk = -(-math.ceil(length / count) // shape.stage) * shape.stage
        self.chunks = -(-length // self.chunk)
        self.states = b, k, self.chunks, n, d
        self._tensors["ends"] = steps.new_empty(self.states)
        self._tensors["sums"] = steps.new_empty(b, k, self.chunks, d)
        self._numbers = (k * length if paths.ndim == 3 else 0, k, length, d, self.chunk, self.chunks)
        self._grid = 1, b * k, self.chunks

    def launch(self, name: str, **tensors: Tensor) -> None:
        """Run a kernel with further tensors."""
        given = self._tensors | tensors
        places = (given[each].data_ptr() if each in given else None for each in POINTERS)
        self.kernels[name].launch(self._grid, _Operands(*places, *self._numbers))


def _empty_states(u: Tensor, A: Tensor) -> Tensor:
    k, d, n = A.shape
    shape = choose_shape(d, n)
    stages = -(-u.shape[1] // shape.stage) if shape else 0
    return u.new_empty(u.shape[0], k, stages, n, d, dtype=torch.float32)


@functools.cache
def _load(n: int, input: int, shape: TrainingShape, device: torch.device) -> dict[str, nvrtc.Kernel]:
    """Compile or find the kernels for these settings; see the source."""
    settings = {"N": n, "INPUT": input, **{name.upper(): value for name, value in shape._asdict().items()}}
    loaded = nvrtc.load_kernels(nvrtc.read_source(*SOURCES), settings, KERNELS, device)
    return dict(zip(KERNELS, loaded, strict=True))
