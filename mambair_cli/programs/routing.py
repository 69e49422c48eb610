"""The programs of MambaIRv2's routing: label each pixel with a token, and sort pixels by label."""

import triton.language as tl

from mambair_cli.programs.rows import gelu, jit


@jit(do_not_specialize=["row_key", "column_key"])
def label_kernel(
    hidden_ptr,
    bias_ptr,
    weight_ptr,
    logit_bias_ptr,
    origin_ptr,
    labels_ptr,
    counts_ptr,
    row_key,
    column_key,
    length,
    width,
    M: tl.constexpr,
    TOKENS: tl.constexpr,
    NOISE: tl.constexpr,
    ROWS: tl.constexpr,
    HIDDEN: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Label ROWS pixels of one image, and count the labels."""
    image = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    m = tl.arange(0, HIDDEN)
    token = tl.arange(0, COLUMNS)
    exists = row < length
    hidden = tl.load(
        hidden_ptr + (image * length + row)[:, None] * M + m[None, :],
        mask=exists[:, None] & (m < M)[None, :],
        other=0.0,
    ).to(tl.float32)
    hidden += tl.load(bias_ptr + m, mask=m < M, other=0.0)[None, :]
    hidden = gelu(hidden, hidden_ptr.dtype.element_ty == tl.float32)
    weight = tl.load(
        weight_ptr + m[:, None] * TOKENS + token[None, :],
        mask=(m < M)[:, None] & (token < TOKENS)[None, :],
        other=0.0,
    )
    logits = tl.dot(hidden.to(weight.dtype), weight, input_precision="ieee")
    logits += tl.load(logit_bias_ptr + token, mask=token < TOKENS, other=0.0)[None, :]
    if NOISE:
        logits += _draw_noise(row, token, origin_ptr + image * 2, row_key, column_key, width)
    # A NaN is never the largest: pixels of nothing else get a token that exists, too.
    logits = tl.where((token < TOKENS)[None, :] & (logits == logits), logits, float("-inf"))
    label = tl.minimum(tl.argmax(logits, 1), TOKENS - 1)
    tl.store(labels_ptr + image * length + row, label, mask=exists)
    is_label = (label[:, None] == token[None, :]) & exists[:, None]
    counts = tl.sum(is_label.to(tl.int32), 0)
    at = (image * TOKENS + token) * tl.num_programs(0) + block
    tl.store(counts_ptr + at, counts, mask=token < TOKENS)


@jit(do_not_specialize=["blocks"])
def sort_kernel(
    labels_ptr,
    counts_ptr,
    ends_ptr,
    path_ptr,
    length,
    blocks,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write ROWS pixels of one image to their places."""
    image = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0)
    row = block * ROWS + tl.arange(0, ROWS)
    label = tl.load(labels_ptr + image * length + row, mask=row < length, other=0)
    other_row = block * ROWS + tl.arange(0, ROWS)
    other = tl.load(labels_ptr + image * length + other_row, mask=other_row < length, other=-1)
    before = (label[:, None] == other[None, :]) & (other_row[None, :] < row[:, None])
    at = (image * TOKENS + label) * blocks + block
    start = tl.load(ends_ptr + at) - tl.load(counts_ptr + at)
    place = start + tl.sum(before.to(tl.int32), 1)  # counted over all images
    tl.store(path_ptr + place, row, mask=row < length)


@jit
def _draw_noise(row, token, origin_ptr, row_key, column_key, width):
    """Draw the Gumbel noise of pixels for each token: the same numbers as in ``networks.noise``."""
    y = row // width + tl.load(origin_ptr)
    x = row % width + tl.load(origin_ptr + 1)
    rows = _scramble(y.to(tl.uint32, bitcast=True) ^ row_key.to(tl.uint32, bitcast=True))
    columns = _scramble(x.to(tl.uint32, bitcast=True) ^ column_key.to(tl.uint32, bitcast=True))
    pixels = _scramble(rows ^ columns)
    counters = token.to(tl.uint32, bitcast=True) * 0x9E3779B9
    bits = _scramble(pixels[:, None] + counters[None, :])
    uniform = ((bits >> 9).to(tl.float32) + 0.5) * (2.0**-23)
    return -tl.log(-tl.log(uniform))


@jit
def _scramble(x):
    """Map 32-bit integers to others that look random; see ``networks.noise``."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
