"""The selective scan in Triton, forward and backward, for GPUs.

One program runs one path of one image for a block of channels. It walks along the path in chunks and holds
all states of its channels in registers; within a chunk the recurrence is an associative scan. Tokens are
read and results written at the pixels that the path names, so nothing is reordered in memory, and the step is
computed from its low-rank form on the way. For a gradient the forward pass stores the states at the start of
each chunk of the backward pass, which walks in reverse and computes everything else again. Few large images
have too few paths for a GPU: with a gradient, their paths are walked in stretches side by side, after a pass
that finds what each stretch leaves to the next.

There are no atomic additions: the same operands give the same bits.
"""

import os
import shutil
import sys
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mambair_cli.kernels import has_nvrtc
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.kernels.triton_rows import launch
from mambair_cli.programs.scan_backward import backward_kernel
from mambair_cli.programs.scan_ends import ends_kernel
from mambair_cli.programs.scan_forward import forward_kernel


class Block(NamedTuple):
    """Size of one program.

    Attributes:
        steps: Steps of a chunk.
        channels: Channels, at most.
        warps: Warps that share them.
    """

    steps: int
    channels: int
    warps: int


FORWARD_BLOCK = Block(steps=16, channels=16, warps=4)
BACKWARD_BLOCK = Block(steps=8, channels=8, warps=1)
ENDS_BLOCK = Block(steps=16, channels=8, warps=1)
# Measured on an H200: training/README.md.
PROGRAMS = 2048  # of the backward pass, that fill a GPU
SHORTEST_STRETCH = 256  # tokens
FEWEST_STRETCHES = 4  # that are worth the pass before


def check_usable() -> None:
    """Raise an OSError if Triton finds no compiler of C, with which it builds what launches its programs.

    It looks for CC, else for gcc and clang; on Windows it brings its own.
    """
    names = (os.environ["CC"],) if "CC" in os.environ else ("gcc", "clang")
    if sys.platform != "win32" and not any(map(shutil.which, names)):
        raise OSError(f"no C compiler ({', '.join(names)}) is found; install gcc, or set CC")


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    operands = (u, dt, B, C, *params)
    keep_states = torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)
    if keep_states and has_nvrtc(u.device):
        from mambair_cli.kernels import cuda_training

        if cuda_training.choose_shape(u.shape[-1], B.shape[-1], dt.shape[-1]):
            return cuda_training.selective_scan(u, dt, B, C, paths, params)
    # The first call of a custom operator imports PyTorch's compiler, which takes a second.
    scan = _scan if keep_states or torch.compiler.is_compiling() else _scan_plainly
    return scan(u, dt, B, C, paths, *params, keep_states)[0]


def _scan_plainly(
    u: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    paths: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """Return the sum over paths, (b, l, d), and the states at chunk starts, (b, k, chunks, d, n), or (0,)."""
    b, length, d = u.shape
    k = len(A)
    channels = min(FORWARD_BLOCK.channels, triton.next_power_of_2(d))
    y = u.new_empty(b, k, length, d, dtype=torch.float32)
    states = _empty_states(u, A, keep_states)
    operands = _operands(u, dt, B, C, paths, dt_weight, dt_bias, A, D)
    # Without a gradient bits must not depend on the number of images, of which that of stretches is made.
    stretch = _choose_stretch(b * k, length, d) if keep_states else max(1, length)
    with torch.cuda.device_of(u):
        ends, sums = _find_ends(operands, b, stretch, None)
        launch(
            forward_kernel,
            (b * k, triton.cdiv(d, channels), ends.shape[1]),
            **operands,
            y_ptr=y,
            states_ptr=states,
            ends_ptr=ends,
            sums_ptr=sums,
            stretch=stretch,
            KEPT_STEPS=BACKWARD_BLOCK.steps if keep_states else 0,
            STEPS=FORWARD_BLOCK.steps,
            CHANNELS=channels,
            num_warps=FORWARD_BLOCK.warps,
        )
    return y.sum(1), states


def _choose_stretch(paths: int, length: int, d: int) -> int:
    """Return the number of tokens of a stretch, so that there are programs enough for a GPU."""
    programs = max(1, paths * triton.cdiv(d, BACKWARD_BLOCK.channels))
    count = min(PROGRAMS // programs, length // SHORTEST_STRETCH)
    if count < FEWEST_STRETCHES:
        count = 1
    most = max(FORWARD_BLOCK.steps, BACKWARD_BLOCK.steps)  # one is a multiple of the other
    return max(1, triton.cdiv(triton.cdiv(length, count), most)) * most


def _find_ends(
    operands: dict[str, Any], b: int, stretch: int, grad_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what leaves each stretch, (b·k, stretches, d, n), and sums of its steps, (b·k, stretches, d).

    A single stretch leaves nothing to others, and both have no values then.

    Args:
        operands: Arguments of the kernels.
        b: Number of images.
        stretch: Tokens of a stretch.
        grad_y: Gradient of y, for the backward pass.
    """
    u, d = operands["u_ptr"], operands["channels"]
    stretches = triton.cdiv(operands["length"], stretch)
    sums = u.new_empty(b * operands["K"], stretches, d, dtype=torch.float32)
    ends = u.new_empty(*sums.shape, operands["N"], dtype=torch.float32)
    if stretches > 1:
        channels = min(ENDS_BLOCK.channels, triton.next_power_of_2(d))
        launch(
            ends_kernel,
            (len(sums), triton.cdiv(d, channels), stretches),
            **operands,
            grad_y_ptr=u if grad_y is None else grad_y,
            ends_ptr=ends,
            sums_ptr=sums,
            stretch=stretch,
            STEPS=ENDS_BLOCK.steps,
            CHANNELS=channels,
            IS_BACKWARD=grad_y is not None,
            num_warps=ENDS_BLOCK.warps,
        )
    return ends, sums


# Custom operators, so that torch.compile does not look inside.
_scan = torch.library.custom_op("mambair::selective_scan", _scan_plainly, mutates_args=())


@_scan.register_fake
def _scan_shapes(u, dt, B, C, paths, dt_weight, dt_bias, A, D, keep_states):
    return u.new_empty(u.shape, dtype=torch.float32), _empty_states(u, A, keep_states)


@torch.library.custom_op("mambair::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    u: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    paths: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    states: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of u; of dt, B and C joined, (b, l, k, r + 2n); of dt_weight, dt_bias and A."""
    b, length, d = u.shape
    k, _, n = A.shape
    r = dt_weight.shape[-1]
    channels = min(BACKWARD_BLOCK.channels, triton.next_power_of_2(d))
    blocks = triton.cdiv(d, channels)
    grad_u = u.new_empty(b, k, length, d, dtype=torch.float32)
    grad_projected = u.new_empty(blocks, b, length, k, r + 2 * n, dtype=torch.float32)
    operands = _operands(u, dt, B, C, paths, dt_weight, dt_bias, A, D)
    stretch = _choose_stretch(b * k, length, d)
    grad_y = grad_y.contiguous()
    parts = triton.cdiv(length, stretch) * b
    grad_weight = u.new_empty(parts, k, d, r, dtype=torch.float32)
    grad_bias = u.new_empty(parts, k, d, dtype=torch.float32)
    grad_A = u.new_empty(parts, k, d, n, dtype=torch.float32)
    with torch.cuda.device_of(u):
        ends, sums = _find_ends(operands, b, stretch, grad_y)
        launch(
            backward_kernel,
            (b * k, blocks, ends.shape[1]),
            **operands,
            states_ptr=states,
            ends_ptr=ends,
            sums_ptr=sums,
            stretch=stretch,
            grad_y_ptr=grad_y,
            grad_u_ptr=grad_u,
            grad_projected_ptr=grad_projected,
            grad_weight_ptr=grad_weight,
            grad_bias_ptr=grad_bias,
            grad_A_ptr=grad_A,
            STEPS=BACKWARD_BLOCK.steps,
            CHANNELS=channels,
            num_warps=BACKWARD_BLOCK.warps,
        )
    projected = grad_projected.sum(0).to(dt.dtype)
    return grad_u.sum(1).to(u.dtype), projected, grad_weight.sum(0), grad_bias.sum(0), grad_A.sum(0)


@_scan_backward.register_fake
def _scan_backward_shapes(grad_y, u, dt, B, C, paths, dt_weight, dt_bias, A, D, states):
    projected = dt.new_empty(*dt.shape[:-1], dt.shape[-1] + 2 * A.shape[-1])
    params = (p.new_empty(p.shape, dtype=torch.float32) for p in (dt_weight, dt_bias, A))
    return u.new_empty(u.shape), projected, *params


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *operands, _ = inputs
    ctx.save_for_backward(*operands, output[1])


def _backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    u, dt, B, C, paths, dt_weight, dt_bias, A, D, states = ctx.saved_tensors
    grad_u, projected, *grad_params = _scan_backward(
        grad_y, u, dt, B, C, paths, dt_weight, dt_bias, A, D, states
    )
    grad_dt, grad_B, grad_C = projected.split([dt.shape[-1], A.shape[-1], A.shape[-1]], dim=-1)
    grad_D = (grad_y * u).sum((0, 1)).expand_as(D)  # every path adds the same D * u to y
    return grad_u, grad_dt, grad_B, grad_C, None, *grad_params, grad_D, None


_scan.register_autograd(_backward, setup_context=_keep_for_backward)


def _empty_states(u: Tensor, A: Tensor, keep_states: bool) -> Tensor:
    chunks = (u.shape[1] + BACKWARD_BLOCK.steps - 1) // BACKWARD_BLOCK.steps
    shape = (u.shape[0], A.shape[0], chunks, *A.shape[1:]) if keep_states else (0,)
    return u.new_empty(shape, dtype=torch.float32)


def _operands(
    u: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    paths: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
) -> dict[str, Any]:
    """Return the arguments that both kernels share; dt, B and C may be slices of one tensor."""
    k, d, n = A.shape
    r = dt_weight.shape[-1]
    dt, B, C = (x if x.stride(-1) == 1 else x.contiguous() for x in (dt, B, C))
    paths = paths.contiguous()
    return {
        "u_ptr": u.contiguous(),
        "dt_ptr": dt,
        "B_ptr": B,
        "C_ptr": C,
        "paths_ptr": paths,
        "weight_ptr": dt_weight.float().contiguous(),
        "bias_ptr": dt_bias.float().contiguous(),
        "A_ptr": A.float().contiguous(),
        "D_ptr": D.float().contiguous(),
        "length": u.shape[1],
        "channels": d,
        "dt_image": dt.stride(0),
        "dt_token": dt.stride(1),
        "dt_path": dt.stride(2),
        "B_image": B.stride(0),
        "B_token": B.stride(1),
        "B_path": B.stride(2),
        "C_image": C.stride(0),
        "C_token": C.stride(1),
        "C_path": C.stride(2),
        "paths_image": paths.stride(0) if paths.ndim == 3 else 0,
        "K": k,
        "N": n,
        "R": r,
        "STATES": triton.next_power_of_2(n),
        "RANKS": triton.next_power_of_2(r),
    }
