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
from mambair_cli.kernels.operands import ScanOperands, ScanParams
from mambair_cli.kernels.scan_operator import ScanGradients, define_operator, define_scan
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
    operands = ScanOperands(u, dt, B, C, paths, params)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, B, C, *params)):
        if has_nvrtc(u.device):
            from mambair_cli.kernels import cuda_training

            if cuda_training.choose_shape(u.shape[-1], B.shape[-1], dt.shape[-1]):
                return cuda_training.selective_scan(*operands)
        return _scan_with_gradient(*operands)
    if torch.compiler.is_compiling():
        return _scan_as_operator(*operands[:-1], *params)[0]
    return _scan_plainly(operands)[0]  # the first call of an operator takes a second: it imports a compiler


def _scan(operands: ScanOperands, keep_states: bool) -> tuple[Tensor, Tensor]:
    """Return the sum over paths, (b, l, d), and the states at chunk starts, (b, k, chunks, d, n), or (0,)."""
    u = operands.u
    b, length, d = u.shape
    k = len(operands.params.A)
    channels = min(FORWARD_BLOCK.channels, triton.next_power_of_2(d))
    y = u.new_empty(b, k, length, d, dtype=torch.float32)
    states = u.new_empty(_shape_of_states(operands) if keep_states else (0,), dtype=torch.float32)
    arguments = _arguments(operands)
    # Without a gradient bits must not depend on the number of images, of which that of stretches is made.
    stretch = _choose_stretch(b * k, length, d) if keep_states else max(1, length)
    with torch.cuda.device_of(u):
        ends, sums = _find_ends(arguments, b, stretch, None)
        launch(
            forward_kernel,
            (b * k, triton.cdiv(d, channels), ends.shape[1]),
            **arguments,
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
    arguments: dict[str, Any], b: int, stretch: int, grad_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return what leaves each stretch, (b·k, stretches, d, n), and sums of its steps, (b·k, stretches, d).

    A single stretch leaves nothing to others, and both have no values then.

    Args:
        arguments: Those of all programs.
        b: Number of images.
        stretch: Tokens of a stretch.
        grad_y: Gradient of y, for the backward pass.
    """
    u, d = arguments["u_ptr"], arguments["channels"]
    stretches = triton.cdiv(arguments["length"], stretch)
    sums = u.new_empty(b * arguments["K"], stretches, d, dtype=torch.float32)
    ends = u.new_empty(*sums.shape, arguments["N"], dtype=torch.float32)
    if stretches > 1:
        channels = min(ENDS_BLOCK.channels, triton.next_power_of_2(d))
        launch(
            ends_kernel,
            (len(sums), triton.cdiv(d, channels), stretches),
            **arguments,
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


def _scan_plainly(operands: ScanOperands) -> tuple[Tensor, Tensor]:
    return _scan(operands, keep_states=False)


def _scan_and_keep(operands: ScanOperands) -> tuple[Tensor, Tensor]:
    return _scan(operands, keep_states=True)


def _shape_of_states(operands: ScanOperands) -> tuple[int, ...]:
    b, length, d = operands.u.shape
    k, _, n = operands.params.A.shape
    return b, k, -(-length // BACKWARD_BLOCK.steps), d, n


def _differentiate(grad_y: Tensor, operands: ScanOperands, states: Tensor) -> ScanGradients:
    u = operands.u
    b, length, d = u.shape
    k, _, n = operands.params.A.shape
    r = operands.dt.shape[-1]
    channels = min(BACKWARD_BLOCK.channels, triton.next_power_of_2(d))
    blocks = triton.cdiv(d, channels)
    grad_u = u.new_empty(b, k, length, d, dtype=torch.float32)
    grad_projected = u.new_empty(blocks, b, length, k, r + 2 * n, dtype=torch.float32)
    arguments = _arguments(operands)
    stretch = _choose_stretch(b * k, length, d)
    parts = triton.cdiv(length, stretch) * b
    grad_weight = u.new_empty(parts, k, d, r, dtype=torch.float32)
    grad_bias = u.new_empty(parts, k, d, dtype=torch.float32)
    grad_A = u.new_empty(parts, k, d, n, dtype=torch.float32)
    with torch.cuda.device_of(u):
        ends, sums = _find_ends(arguments, b, stretch, grad_y)
        launch(
            backward_kernel,
            (b * k, blocks, ends.shape[1]),
            **arguments,
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
    return ScanGradients(
        grad_u.sum(1), grad_projected.sum(0), grad_weight.sum(0), grad_bias.sum(0), grad_A.sum(0)
    )


_scan_as_operator = define_operator("plain_scan", _scan_plainly, lambda operands: (0,))
_scan_with_gradient = define_scan("selective_scan", _scan_and_keep, _differentiate, _shape_of_states)


def _arguments(operands: ScanOperands) -> dict[str, Any]:
    """Return the arguments that all programs share; dt, B and C may be slices of one tensor."""
    u, dt, B, C, paths, params = operands
    k, d, n = params.A.shape
    r = dt.shape[-1]
    dt, B, C = (x if x.stride(-1) == 1 else x.contiguous() for x in (dt, B, C))
    paths = paths.contiguous()
    return {
        "u_ptr": u.contiguous(),
        "dt_ptr": dt,
        "B_ptr": B,
        "C_ptr": C,
        "paths_ptr": paths,
        "weight_ptr": params.dt_weight.float().contiguous(),
        "bias_ptr": params.dt_bias.float().contiguous(),
        "A_ptr": params.A.float().contiguous(),
        "D_ptr": params.D.float().contiguous(),
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
