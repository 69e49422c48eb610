"""The selective scan in Triton, forward and backward, for GPUs.

One program runs one path of one image for a block of channels. It walks along the path in chunks, holding all
states of its channels in registers; within a chunk the recurrence is an associative scan. Tokens are read
and results written at the pixels that the path names, so nothing is ever reordered in memory, and the step is
made from its low-rank form on the fly. For a gradient the forward pass keeps the states at the start of each
chunk of the backward pass, which walks in reverse and makes everything else again.

Nothing is added atomically: the same operands give the same bits.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mambair_cli.kernels.operands import ScanParams

_jit: Any = triton.jit  # whose types do not know the options of a launch, such as num_warps


class Block(NamedTuple):
    """What one program holds at a time, steps by channels at most, and the warps that share it."""

    steps: int
    channels: int
    warps: int


FORWARD_BLOCK = Block(steps=16, channels=16, warps=4)
BACKWARD_BLOCK = Block(steps=8, channels=8, warps=1)


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel; see ``kernels.selective_scan``."""
    operands = (u, dt, B, C, *params)
    keep_states = torch.is_grad_enabled() and any(operand.requires_grad for operand in operands)
    # PyTorch's compiler, which takes a second to import, comes with the first call of an operator made here.
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
    with torch.cuda.device_of(u):
        _forward_kernel[(b * k, triton.cdiv(d, channels))](
            **_operands(u, dt, B, C, paths, dt_weight, dt_bias, A, D),
            y_ptr=y,
            states_ptr=states,
            KEPT_STEPS=BACKWARD_BLOCK.steps if keep_states else 0,
            STEPS=FORWARD_BLOCK.steps,
            CHANNELS=channels,
            num_warps=FORWARD_BLOCK.warps,
        )
    return y.sum(1), states


# Operators of their own in PyTorch's eyes, so that torch.compile takes them as they are.
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
    """Return the gradients of u, of dt, B and C side by side, (b, l, k, r + 2n), of dt_weight, dt_bias, A."""
    b, length, d = u.shape
    k, _, n = A.shape
    r = dt_weight.shape[-1]
    channels = min(BACKWARD_BLOCK.channels, triton.next_power_of_2(d))
    blocks = triton.cdiv(d, channels)
    grad_u = u.new_empty(b, k, length, d, dtype=torch.float32)
    grad_projected = u.new_empty(blocks, b, length, k, r + 2 * n, dtype=torch.float32)
    grad_weight = u.new_empty(b, k, d, r, dtype=torch.float32)
    grad_bias = u.new_empty(b, k, d, dtype=torch.float32)
    grad_A = u.new_empty(b, k, d, n, dtype=torch.float32)
    with torch.cuda.device_of(u):
        _backward_kernel[(b * k, blocks)](
            **_operands(u, dt, B, C, paths, dt_weight, dt_bias, A, D),
            states_ptr=states,
            grad_y_ptr=grad_y.contiguous(),
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
    params = (torch.empty_like(p, dtype=torch.float32) for p in (dt_weight, dt_bias, A))
    return torch.empty_like(u), projected, *params


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *operands, _ = inputs
    ctx.save_for_backward(*operands, output[1])


def _backward(ctx: Any, grad_y: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    u, dt, B, C, paths, dt_weight, dt_bias, A, D, states = ctx.saved_tensors
    grad_u, projected, *grad_params = _scan_backward(
        grad_y, u, dt, B, C, paths, dt_weight, dt_bias, A, D, states
    )
    grad_dt, grad_B, grad_C = projected.split([dt.shape[-1], A.shape[-1], A.shape[-1]], dim=-1)
    grad_D = (grad_y * u).sum((0, 1)).expand_as(D)  # every path has the same share in y
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


@_jit
def _forward_kernel(
    u_ptr,
    dt_ptr,
    B_ptr,
    C_ptr,
    paths_ptr,
    weight_ptr,
    bias_ptr,
    A_ptr,
    D_ptr,
    y_ptr,
    states_ptr,
    length,
    channels,
    dt_image,
    dt_token,
    dt_path,
    B_image,
    B_token,
    B_path,
    C_image,
    C_token,
    C_path,
    paths_image,
    K: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    STATES: tl.constexpr,
    RANKS: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEPT_STEPS: tl.constexpr,
):
    """Write y of one path for one block of channels, at the path's pixels.

    With KEPT_STEPS, also the states after every so many steps, each as the start of what follows.
    """
    image = (tl.program_id(0) // K).to(tl.int64)
    path = tl.program_id(0) % K
    u_ptr += image * length * channels
    dt_ptr += image * dt_image + path * dt_path
    B_ptr += image * B_image + path * B_path
    C_ptr += image * C_image + path * C_path
    paths_ptr += image * paths_image + path * length
    y_ptr += (image * K + path) * length * channels
    if KEPT_STEPS:
        states_ptr += (image * K + path) * tl.cdiv(length, KEPT_STEPS) * channels * N

    steps = tl.arange(0, STEPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, STATES)
    rank = tl.arange(0, RANKS)
    weight, bias, A, D = _load_params(
        weight_ptr, bias_ptr, A_ptr, D_ptr, path, channel, state, rank, channels, N, R
    )
    of_states = channel[:, None] * N + state[None, :]
    has_states = (channel < channels)[:, None] & (state < N)[None, :]

    pixel = tl.load(paths_ptr + steps, mask=steps < length, other=0)
    tokens = _load_tokens(u_ptr, pixel, steps < length, channel, channels)
    ranks = _load_rows(dt_ptr, pixel, steps < length, dt_token, rank, R)
    enters = _load_rows(B_ptr, pixel, steps < length, B_token, state, N)
    leaves = _load_rows(C_ptr, pixel, steps < length, C_token, state, N)
    next_pixel = tl.load(paths_ptr + STEPS + steps, mask=STEPS + steps < length, other=0)
    h_start = tl.zeros((CHANNELS, STATES), tl.float32)
    if KEPT_STEPS:
        tl.store(states_ptr + of_states, h_start, mask=has_states)
    for start in range(0, length, STEPS):
        # What the next chunk needs is asked for before this one is computed.
        here, valid = pixel, start + steps < length
        u, dt = tokens.to(tl.float32), ranks.to(tl.float32)
        B, C = enters.to(tl.float32), leaves.to(tl.float32)
        pixel, next_valid = next_pixel, start + STEPS + steps < length
        tokens = _load_tokens(u_ptr, pixel, next_valid, channel, channels)
        ranks = _load_rows(dt_ptr, pixel, next_valid, dt_token, rank, R)
        enters = _load_rows(B_ptr, pixel, next_valid, B_token, state, N)
        leaves = _load_rows(C_ptr, pixel, next_valid, C_token, state, N)
        after = start + 2 * STEPS + steps
        next_pixel = tl.load(paths_ptr + after, mask=after < length, other=0)

        step = _softplus(tl.sum(dt[:, None, :] * weight[None, :, :], 2) + bias[None, :])
        step = tl.where(valid[:, None], step, 0.0)  # past the end the states stay as they are
        decay = tl.exp(step[:, :, None] * A[None, :, :])
        enter = (step * u)[:, :, None] * B[:, None, :]
        decays, h = tl.associative_scan((decay, enter), 0, _advance)
        h += decays * h_start[None, :, :]  # pyright: ignore[reportArgumentType]: it is a tensor
        y = tl.sum(h * C[:, None, :], 2) + D[None, :] * u
        has_tokens = valid[:, None] & (channel < channels)[None, :]
        tl.store(y_ptr + here[:, None] * channels + channel[None, :], y, mask=has_tokens)
        if KEPT_STEPS:
            position = start + steps + 1
            kept = (position % KEPT_STEPS == 0) & (position < length)
            of_kept = (position // KEPT_STEPS * channels * N)[:, None, None] + of_states[None, :, :]
            tl.store(states_ptr + of_kept, h, mask=kept[:, None, None] & has_states[None, :, :])
        h_start = tl.sum(tl.where((steps == STEPS - 1)[:, None, None], h, 0.0), 0)


@_jit
def _backward_kernel(
    u_ptr,
    dt_ptr,
    B_ptr,
    C_ptr,
    paths_ptr,
    weight_ptr,
    bias_ptr,
    A_ptr,
    D_ptr,
    states_ptr,
    grad_y_ptr,
    grad_u_ptr,
    grad_projected_ptr,
    grad_weight_ptr,
    grad_bias_ptr,
    grad_A_ptr,
    length,
    channels,
    dt_image,
    dt_token,
    dt_path,
    B_image,
    B_token,
    B_path,
    C_image,
    C_token,
    C_path,
    paths_image,
    K: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    STATES: tl.constexpr,
    RANKS: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients that one path has for one block of channels.

    With ``g[t]`` the gradient of ``h[t]``, its recurrence runs backwards along the path::

        g[t] = grad_y[t] * C[t] + exp(step[t+1] * A) * g[t+1]
    """
    image = (tl.program_id(0) // K).to(tl.int64)
    path = tl.program_id(0) % K
    images = tl.num_programs(0) // K
    u_ptr += image * length * channels
    dt_ptr += image * dt_image + path * dt_path
    B_ptr += image * B_image + path * B_path
    C_ptr += image * C_image + path * C_path
    paths_ptr += image * paths_image + path * length
    states_ptr += (image * K + path) * tl.cdiv(length, STEPS) * channels * N
    grad_y_ptr += image * length * channels
    grad_u_ptr += (image * K + path) * length * channels
    columns = R + 2 * N
    grad_projected_ptr += ((tl.program_id(1) * images + image) * length * K + path) * columns

    steps = tl.arange(0, STEPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, STATES)
    rank = tl.arange(0, RANKS)
    weight, bias, A, D = _load_params(
        weight_ptr, bias_ptr, A_ptr, D_ptr, path, channel, state, rank, channels, N, R
    )
    of_states = channel[:, None] * N + state[None, :]
    has_states = (channel < channels)[:, None] & (state < N)[None, :]

    g_end = tl.zeros((CHANNELS, STATES), tl.float32)  # what later chunks ask of this one's last states
    grad_weight = tl.zeros((CHANNELS, RANKS), tl.float32)
    grad_bias = tl.zeros((CHANNELS,), tl.float32)
    grad_A = tl.zeros((CHANNELS, STATES), tl.float32)
    chunks = tl.cdiv(length, STEPS)
    position = (chunks - 1) * STEPS + steps
    pixel = tl.load(paths_ptr + position, mask=position < length, other=0)
    tokens = _load_tokens(u_ptr, pixel, position < length, channel, channels)
    grads = _load_tokens(grad_y_ptr, pixel, position < length, channel, channels)
    ranks = _load_rows(dt_ptr, pixel, position < length, dt_token, rank, R)
    enters = _load_rows(B_ptr, pixel, position < length, B_token, state, N)
    leaves = _load_rows(C_ptr, pixel, position < length, C_token, state, N)
    starts = _load_states(states_ptr, chunks - 1, of_states, has_states, channels * N)
    next_pixel = tl.load(paths_ptr + position - STEPS, mask=position >= STEPS, other=0)
    for chunk in range(chunks - 1, -1, -1):
        # What the next chunk needs, the one before on the path, is asked for before this one is computed.
        here, valid = pixel, chunk * STEPS + steps < length
        u, dt = tokens.to(tl.float32), ranks.to(tl.float32)
        B, C = enters.to(tl.float32), leaves.to(tl.float32)
        grad_y, h_start = grads, starts
        pixel, next_valid = next_pixel, (chunk - 1) * STEPS + steps >= 0
        tokens = _load_tokens(u_ptr, pixel, next_valid, channel, channels)
        grads = _load_tokens(grad_y_ptr, pixel, next_valid, channel, channels)
        ranks = _load_rows(dt_ptr, pixel, next_valid, dt_token, rank, R)
        enters = _load_rows(B_ptr, pixel, next_valid, B_token, state, N)
        leaves = _load_rows(C_ptr, pixel, next_valid, C_token, state, N)
        starts = _load_states(states_ptr, chunk - 1, of_states, has_states, channels * N)
        after = (chunk - 2) * STEPS + steps
        next_pixel = tl.load(paths_ptr + after, mask=after >= 0, other=0)

        raw = tl.sum(dt[:, None, :] * weight[None, :, :], 2) + bias[None, :]
        step = tl.where(valid[:, None], _softplus(raw), 0.0)
        decay = tl.exp(step[:, :, None] * A[None, :, :])
        enter = (step * u)[:, :, None] * B[:, None, :]
        nothing = tl.zeros((STEPS, CHANNELS, STATES), tl.float32)
        decays, kept, _ = tl.associative_scan((decay, nothing, enter), 0, _advance_apart)
        kept += decays * h_start[None, :, :]  # pyright: ignore[reportArgumentType]: it is a tensor
        h = kept + enter
        ask = grad_y[:, :, None] * C[:, None, :]
        no_decay = nothing + 1.0  # a single step has only its own
        _, decays_after, g = tl.associative_scan((decay, no_decay, ask), 0, _retreat, reverse=True)
        g += decays_after * g_end[None, :, :]  # pyright: ignore[reportArgumentType]: it is a tensor
        g_end = tl.sum(tl.where((steps == 0)[:, None, None], decay * g, 0.0), 0)

        grad_exponent = g * kept  # of step[t] * A, since kept = exp(step[t] * A) * h[t-1]
        entered = tl.sum(g * B[:, None, :], 2)
        grad_step = u * entered + tl.sum(grad_exponent * A[None, :, :], 2)
        grad_raw = grad_step * _sigmoid(raw)  # 0 past the end: there is no gradient and nothing enters
        grad_raw = tl.where(valid[:, None], grad_raw, 0.0)
        grad_A += tl.sum(grad_exponent * step[:, :, None], 0)
        grad_bias += tl.sum(grad_raw, 0)
        grad_weight += tl.sum(grad_raw[:, :, None] * dt[:, None, :], 0)

        has_tokens = valid[:, None] & (channel < channels)[None, :]
        grad_u = step * entered + D[None, :] * grad_y
        tl.store(grad_u_ptr + here[:, None] * channels + channel[None, :], grad_u, mask=has_tokens)
        rows = grad_projected_ptr + (here * K * columns)[:, None]
        grad_dt = tl.sum(grad_raw[:, :, None] * weight[None, :, :], 1)
        grad_B = tl.sum(g * (step * u)[:, :, None], 1)
        grad_C = tl.sum(h * grad_y[:, :, None], 1)
        tl.store(rows + rank[None, :], grad_dt, mask=valid[:, None] & (rank < R)[None, :])
        tl.store(rows + R + state[None, :], grad_B, mask=valid[:, None] & (state < N)[None, :])
        tl.store(rows + R + N + state[None, :], grad_C, mask=valid[:, None] & (state < N)[None, :])

    first = (image * K + path) * channels
    of_ranks = channel[:, None] * R + rank[None, :]
    has_ranks = (channel < channels)[:, None] & (rank < R)[None, :]
    tl.store(grad_weight_ptr + first * R + of_ranks, grad_weight, mask=has_ranks)
    tl.store(grad_bias_ptr + first + channel, grad_bias, mask=channel < channels)
    tl.store(grad_A_ptr + first * N + of_states, grad_A, mask=has_states)


@_jit
def _load_params(
    weight_ptr,
    bias_ptr,
    A_ptr,
    D_ptr,
    path,
    channel,
    state,
    rank,
    channels,
    N: tl.constexpr,
    R: tl.constexpr,
):
    """Load dt_weight (d, r), dt_bias (d,), A (d, n) and D (d,) of a path for the program's channels."""
    row = path * channels + channel
    exists = channel < channels
    weight = tl.load(
        weight_ptr + row[:, None] * R + rank[None, :], mask=exists[:, None] & (rank < R)[None, :], other=0.0
    )
    A = tl.load(
        A_ptr + row[:, None] * N + state[None, :], mask=exists[:, None] & (state < N)[None, :], other=0.0
    )
    bias = tl.load(bias_ptr + row, mask=exists, other=0.0)
    D = tl.load(D_ptr + row, mask=exists, other=0.0)
    return weight, bias, A, D


@_jit
def _load_rows(pointer, pixel, valid, stride, column, COLUMNS: tl.constexpr):
    """Load the rows of a path's pixels, with zeros beyond the path's ends."""
    mask = valid[:, None] & (column < COLUMNS)[None, :]
    return tl.load(pointer + pixel[:, None] * stride + column[None, :], mask=mask, other=0.0)


@_jit
def _load_tokens(pointer, pixel, valid, channel, channels):
    """Load the program's channels of a path's pixels, with zeros beyond the path's ends."""
    mask = valid[:, None] & (channel < channels)[None, :]
    return tl.load(pointer + pixel[:, None] * channels + channel[None, :], mask=mask, other=0.0)


@_jit
def _load_states(pointer, chunk, of_states, has_states, size):
    """Load the states that a chunk starts from, with zeros beyond the path's ends."""
    of_chunk = chunk * size + of_states
    return tl.load(pointer + of_chunk, mask=has_states & (of_chunk >= 0), other=0.0)


@_jit
def _advance(decay, h, next_decay, next_h):
    """Join two neighbouring stretches of a path: their decay, and the state each ends with from zero."""
    return decay * next_decay, next_decay * h + next_h


@_jit
def _advance_apart(decay, kept, entered, next_decay, next_kept, next_entered):
    """Do as ``_advance``, with what the last step let in apart from what it kept of the state before.

    Their difference would tell little where next to nothing is kept.
    """
    return decay * next_decay, next_decay * (kept + entered) + next_kept, next_entered


@_jit
def _retreat(first, rest, g, earlier_first, earlier_rest, earlier_g):
    """Join a stretch with the one before it: its first step's decay, that of the rest, its first gradient.

    A step's own decay does not weigh on its own gradient, but on that of the step before.
    """
    between = earlier_rest * first
    return earlier_first, between * rest, earlier_g + between * g


@_jit
def _softplus(x):
    """Return log(1 + exp(x)), to full precision also where exp(x) is lost beside 1."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)  # log(1 + e) = 2 artanh(s), s <= 1/3
    s2 = s * s
    series = 1.0 + s2 * (1 / 3 + s2 * (1 / 5 + s2 * (1 / 7 + s2 * (1 / 9 + s2 * (1 / 11 + s2 * (1 / 13))))))
    return tl.maximum(x, 0.0) + 2.0 * s * series


@_jit
def _sigmoid(x):
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)
