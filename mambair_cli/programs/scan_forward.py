"""The forward kernel of the Triton scan, with the loads and functions that the backward kernel shares."""

import triton.language as tl

from mambair_cli.programs.rows import jit


@jit
def forward_kernel(
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
    ends_ptr,
    sums_ptr,
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
    KEPT_STEPS: tl.constexpr,
):
    """Write y of one stretch of one path for one block of channels, at the path's pixels.

    Where there are several stretches, ``ends`` and ``sums`` say what each does to a state: see scan_ends. If
    KEPT_STEPS is not 0, also write the states from which each stretch of so many steps starts.

    Long because every helper would need all its registers as arguments.
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
    weight, bias, A, D = load_params(
        weight_ptr, bias_ptr, A_ptr, D_ptr, path, channel, state, rank, channels, N, R
    )
    of_states = channel[:, None] * N + state[None, :]
    has_states = (channel < channels)[:, None] & (state < N)[None, :]

    first = tl.program_id(2) * stretch
    end = tl.minimum(first + stretch, length)
    start_valid = first + steps < end
    # Pixels are in 64 bits, since their products with strides may need them.
    pixel = tl.load(paths_ptr + first + steps, mask=start_valid, other=0).to(tl.int64)
    tokens = load_tokens(u_ptr, pixel, start_valid, channel, channels)
    ranks = load_rows(dt_ptr, pixel, start_valid, dt_token, rank, R)
    enters = load_rows(B_ptr, pixel, start_valid, B_token, state, N)
    leaves = load_rows(C_ptr, pixel, start_valid, C_token, state, N)
    after = first + STEPS + steps
    next_pixel = tl.load(paths_ptr + after, mask=after < end, other=0).to(tl.int64)
    h_start = tl.zeros((CHANNELS, STATES), tl.float32)
    for earlier in range(0, tl.program_id(2)):
        h_start = pass_stretch(
            h_start, earlier, ends_ptr, sums_ptr, A, channel, of_states, has_states, channels, N
        )
    if KEPT_STEPS:
        of_start = tl.cast(first // KEPT_STEPS, tl.int64) * channels * N + of_states
        tl.store(states_ptr + of_start, h_start, mask=has_states)
    for start in range(first, end, STEPS):
        # Load the next chunk before computing this one, so that memory and arithmetic overlap.
        here, valid = pixel, start + steps < end
        u, dt = tokens.to(tl.float32), ranks.to(tl.float32)
        B, C = enters.to(tl.float32), leaves.to(tl.float32)
        pixel, next_valid = next_pixel, start + STEPS + steps < end
        tokens = load_tokens(u_ptr, pixel, next_valid, channel, channels)
        ranks = load_rows(dt_ptr, pixel, next_valid, dt_token, rank, R)
        enters = load_rows(B_ptr, pixel, next_valid, B_token, state, N)
        leaves = load_rows(C_ptr, pixel, next_valid, C_token, state, N)
        after = start + 2 * STEPS + steps
        next_pixel = tl.load(paths_ptr + after, mask=after < end, other=0).to(tl.int64)

        step = softplus(tl.sum(dt[:, None, :] * weight[None, :, :], 2) + bias[None, :])
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
            kept = (position % KEPT_STEPS == 0) & (position < end)
            number = (position // KEPT_STEPS).to(tl.int64)
            of_kept = (number * channels * N)[:, None, None] + of_states[None, :, :]
            tl.store(states_ptr + of_kept, h, mask=kept[:, None, None] & has_states[None, :, :])
        h_start = tl.sum(tl.where((steps == STEPS - 1)[:, None, None], h, 0.0), 0)


@jit
def pass_stretch(
    state, number, ends_ptr, sums_ptr, A, channel, of_states, has_states, channels, N: tl.constexpr
):
    """Return what leaves a stretch when a state, or its gradient, enters it."""
    place = (tl.program_id(0) * tl.num_programs(2) + number).to(tl.int64) * channels
    steps = tl.load(sums_ptr + place + channel, mask=channel < channels, other=0.0)
    own = tl.load(ends_ptr + place * N + of_states, mask=has_states, other=0.0)
    return tl.exp(steps[:, None] * A) * state + own


@jit
def load_params(
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


@jit
def load_rows(pointer, pixel, valid, stride, column, COLUMNS: tl.constexpr):
    """Load the rows of a path's pixels, in 64 bits; zeros beyond the path's ends."""
    mask = valid[:, None] & (column < COLUMNS)[None, :]
    return tl.load(pointer + pixel[:, None] * stride + column[None, :], mask=mask, other=0.0)


@jit
def load_tokens(pointer, pixel, valid, channel, channels):
    """Load the program's channels of a path's pixels, in 64 bits; zeros beyond the path's ends."""
    mask = valid[:, None] & (channel < channels)[None, :]
    return tl.load(pointer + pixel[:, None] * channels + channel[None, :], mask=mask, other=0.0)


@jit
def _advance(decay, h, next_decay, next_h):
    """Join two neighbouring stretches of a path.

    For each: its decay, and the state at its end when it starts from zero.
    """
    return decay * next_decay, next_decay * h + next_h


@jit
def softplus(x):
    """Return log(1 + exp(x)), to full precision also where 1 + exp(x) rounds to 1."""
    e = tl.exp(-tl.abs(x))
    s = e / (2.0 + e)  # log(1 + e) = 2 artanh(s), s <= 1/3
    s2 = s * s
    series = 1.0 + s2 * (1 / 3 + s2 * (1 / 5 + s2 * (1 / 7 + s2 * (1 / 9 + s2 * (1 / 11 + s2 * (1 / 13))))))
    return tl.maximum(x, 0.0) + 2.0 * s * series
