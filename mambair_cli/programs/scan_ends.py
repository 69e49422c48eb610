"""The kernel before those that walk a path in stretches side by side: what each leaves to the next."""

import triton.language as tl

from mambair_cli.programs.rows import jit
from mambair_cli.programs.scan_forward import load_params, load_rows, load_tokens, softplus


@jit
def ends_kernel(
    u_ptr,
    dt_ptr,
    B_ptr,
    C_ptr,
    paths_ptr,
    weight_ptr,
    bias_ptr,
    A_ptr,
    D_ptr,
    grad_y_ptr,
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
    IS_BACKWARD: tl.constexpr,
):
    """Write the sum of each stretch's steps, and what leaves the stretch if nothing enters it.

    Forward that is the state after its last token; backward the gradient of the state before its first.

    Long because it takes the arguments of the kernels that follow.
    """
    image = (tl.program_id(0) // K).to(tl.int64)
    path = tl.program_id(0) % K
    token_ptr = (grad_y_ptr if IS_BACKWARD else u_ptr) + image * length * channels
    dt_ptr += image * dt_image + path * dt_path
    paths_ptr += image * paths_image + path * length
    if IS_BACKWARD:
        row_ptr, row_token = C_ptr + image * C_image + path * C_path, C_token
    else:
        row_ptr, row_token = B_ptr + image * B_image + path * B_path, B_token

    steps = tl.arange(0, STEPS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, STATES)
    rank = tl.arange(0, RANKS)
    weight, bias, A, _ = load_params(
        weight_ptr, bias_ptr, A_ptr, D_ptr, path, channel, state, rank, channels, N, R
    )
    first = tl.program_id(2) * stretch
    end = tl.minimum(first + stretch, length)
    before = tl.zeros((CHANNELS,), tl.float32)  # sum of the steps before the chunk
    leaving = tl.zeros((CHANNELS, STATES), tl.float32)
    for start in range(first, end, STEPS):
        valid = start + steps < end
        pixel = tl.load(paths_ptr + start + steps, mask=valid, other=0).to(tl.int64)
        tokens = load_tokens(token_ptr, pixel, valid, channel, channels).to(tl.float32)
        dt = load_rows(dt_ptr, pixel, valid, dt_token, rank, R).to(tl.float32)
        rows = load_rows(row_ptr, pixel, valid, row_token, state, N).to(tl.float32)
        step = softplus(tl.sum(dt[:, None, :] * weight[None, :, :], 2) + bias[None, :])
        step = tl.where(valid[:, None], step, 0.0)
        passed = tl.cumsum(step, 0)
        chunk = tl.sum(step, 0)
        if IS_BACKWARD:  # past all steps from the stretch's first one to the token's own
            decay = tl.exp((before[None, :] + passed)[:, :, None] * A[None, :, :])
            leaving += tl.sum(tokens[:, :, None] * rows[:, None, :] * decay, 0)
        else:  # past all steps after the token's own
            decay = tl.exp((tl.expand_dims(chunk, 0) - passed)[:, :, None] * A[None, :, :])
            leaving *= tl.exp(tl.expand_dims(chunk, 1) * A)
            leaving += tl.sum((step * tokens)[:, :, None] * rows[:, None, :] * decay, 0)
        before += chunk
    place = (tl.program_id(0) * tl.num_programs(2) + tl.program_id(2)).to(tl.int64) * channels
    exists = channel < channels
    tl.store(sums_ptr + place + channel, before, mask=exists)
    of_states = channel[:, None] * N + state[None, :]
    tl.store(ends_ptr + place * N + of_states, leaving, mask=exists[:, None] & (state < N)[None, :])
