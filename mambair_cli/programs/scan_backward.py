"""The backward kernel of the Triton scan: the gradients of all operands, in one walk in reverse."""

import triton.language as tl

from mambair_cli.programs.rows import jit
from mambair_cli.programs.scan_forward import (
    load_params,
    load_rows,
    load_tokens,
    pass_stretch,
    softplus,
)


@jit
def backward_kernel(
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
    ends_ptr,
    sums_ptr,
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
    stretch,
    K: tl.constexpr,
    N: tl.constexpr,
    R: tl.constexpr,
    STATES: tl.constexpr,
    RANKS: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Write the gradients that one stretch of one path has for one block of channels.

    With ``g[t]`` the gradient of ``h[t]``, its recurrence runs backwards along the path::

        g[t] = grad_y[t] * C[t] + exp(step[t+1] * A) * g[t+1]

    Long because every helper would need all its registers as arguments.
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
    weight, bias, A, D = load_params(
        weight_ptr, bias_ptr, A_ptr, D_ptr, path, channel, state, rank, channels, N, R
    )
    of_states = channel[:, None] * N + state[None, :]
    has_states = (channel < channels)[:, None] & (state < N)[None, :]

    g_end = tl.zeros(
        (CHANNELS, STATES), tl.float32
    )  # gradient of this chunk's last states, from later chunks
    grad_weight = tl.zeros((CHANNELS, RANKS), tl.float32)
    grad_bias = tl.zeros((CHANNELS,), tl.float32)
    grad_A = tl.zeros((CHANNELS, STATES), tl.float32)
    for later in range(0, tl.num_programs(2) - 1 - tl.program_id(2)):
        number = tl.num_programs(2) - 1 - later
        g_end = pass_stretch(
            g_end, number, ends_ptr, sums_ptr, A, channel, of_states, has_states, channels, N
        )
    first_chunk = tl.program_id(2) * (stretch // STEPS)
    chunks = tl.minimum(first_chunk + stretch // STEPS, tl.cdiv(length, STEPS))
    position = (chunks - 1) * STEPS + steps
    pixel = tl.load(paths_ptr + position, mask=position < length, other=0).to(tl.int64)
    tokens = load_tokens(u_ptr, pixel, position < length, channel, channels)
    grads = load_tokens(grad_y_ptr, pixel, position < length, channel, channels)
    ranks = load_rows(dt_ptr, pixel, position < length, dt_token, rank, R)
    enters = load_rows(B_ptr, pixel, position < length, B_token, state, N)
    leaves = load_rows(C_ptr, pixel, position < length, C_token, state, N)
    starts = _load_states(states_ptr, chunks - 1, of_states, has_states, channels * N)
    next_pixel = tl.load(paths_ptr + position - STEPS, mask=position >= STEPS, other=0).to(tl.int64)
    for chunk in range(chunks - 1, first_chunk - 1, -1):
        # Load the next chunk, which is the one before on the path, before computing this one.
        here, valid = pixel, chunk * STEPS + steps < length
        u, dt = tokens.to(tl.float32), ranks.to(tl.float32)
        B, C = enters.to(tl.float32), leaves.to(tl.float32)
        grad_y, h_start = grads, starts
        pixel, next_valid = next_pixel, (chunk - 1) * STEPS + steps >= 0
        tokens = load_tokens(u_ptr, pixel, next_valid, channel, channels)
        grads = load_tokens(grad_y_ptr, pixel, next_valid, channel, channels)
        ranks = load_rows(dt_ptr, pixel, next_valid, dt_token, rank, R)
        enters = load_rows(B_ptr, pixel, next_valid, B_token, state, N)
        leaves = load_rows(C_ptr, pixel, next_valid, C_token, state, N)
        starts = _load_states(states_ptr, chunk - 1, of_states, has_states, channels * N)
        after = (chunk - 2) * STEPS + steps
        next_pixel = tl.load(paths_ptr + after, mask=after >= 0, other=0).to(tl.int64)

        raw = tl.sum(dt[:, None, :] * weight[None, :, :], 2) + bias[None, :]
        step = tl.where(valid[:, None], softplus(raw), 0.0)
        decay = tl.exp(step[:, :, None] * A[None, :, :])
        enter = (step * u)[:, :, None] * B[:, None, :]
        nothing = tl.zeros((STEPS, CHANNELS, STATES), tl.float32)
        decays, kept, _ = tl.associative_scan((decay, nothing, enter), 0, _advance_apart)
        kept += decays * h_start[None, :, :]  # pyright: ignore[reportArgumentType]: it is a tensor
        h = kept + enter
        ask = grad_y[:, :, None] * C[:, None, :]
        no_decay = nothing + 1.0  # within a single step there is no other decay
        _, decays_after, g = tl.associative_scan((decay, no_decay, ask), 0, _retreat, reverse=True)
        g += decays_after * g_end[None, :, :]  # pyright: ignore[reportArgumentType]: it is a tensor
        g_end = tl.sum(tl.where((steps == 0)[:, None, None], decay * g, 0.0), 0)

        grad_exponent = g * kept  # of step[t] * A, since kept = exp(step[t] * A) * h[t-1]
        entered = tl.sum(g * B[:, None, :], 2)
        grad_step = u * entered + tl.sum(grad_exponent * A[None, :, :], 2)
        grad_raw = grad_step * _sigmoid(raw)  # 0 past the end: no gradient, no input
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

    first = ((tl.program_id(2) * images + image) * K + path) * channels
    of_ranks = channel[:, None] * R + rank[None, :]
    has_ranks = (channel < channels)[:, None] & (rank < R)[None, :]
    tl.store(grad_weight_ptr + first * R + of_ranks, grad_weight, mask=has_ranks)
    tl.store(grad_bias_ptr + first + channel, grad_bias, mask=channel < channels)
    tl.store(grad_A_ptr + first * N + of_states, grad_A, mask=has_states)


@jit
def _load_states(pointer, chunk, of_states, has_states, size):
    """Load the states from which a chunk starts; zeros beyond the path's ends."""
    of_chunk = tl.cast(chunk, tl.int64) * size + of_states
    return tl.load(pointer + of_chunk, mask=has_states & (of_chunk >= 0), other=0.0)


@jit
def _advance_apart(decay, kept, entered, next_decay, next_kept, next_entered):
    """Join as the forward kernel does, but with the last step's input apart from what it kept of the state.

    A difference of the two sums would have few correct digits where almost nothing is kept.
    """
    return decay * next_decay, next_decay * (kept + entered) + next_kept, next_entered


@jit
def _retreat(first, rest, g, earlier_first, earlier_rest, earlier_g):
    """Join a stretch with the one before it, walking in reverse.

    For each: the decay of its first step, the decay of its other steps, and the gradient at its first step.
    A step's decay does not multiply its own gradient, but that of the step before.
    """
    between = earlier_rest * first
    return earlier_first, between * rest, earlier_g + between * g


@jit
def _sigmoid(x):
    """Return 1 / (1 + exp(-x)), without overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)
