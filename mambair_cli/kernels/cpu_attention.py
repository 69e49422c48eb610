"""Attention within windows for CPUs, in vector instructions, from one image directly into another.

A vector holds neighbouring queries of a window, one in each lane: no product or sum crosses lanes, whatever
the number of channels, and the scores of a vector's queries stay in the nearest cache until they are weights.
No window is cut out of the image: shifted windows only have other addresses.
"""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, SHARES_PER_THREAD, run_in_threads
from mambair_cli.kernels.llvm_builder import Code, Index, Pointer, Vector, count_lanes
from mambair_cli.kernels.llvm_math import LOG2_E, exp2, keep_nan
from mambair_cli.kernels.once import Once

LANES = count_lanes()
KEYS_AT_ONCE = 4  # keys before the sums go back to memory; more compile longer and are no faster

# The kernel's arguments, in this order. Strides and sizes count values of 4 bytes.
POINTERS = ("qkv", "bias", "y", "scratch")
NUMBERS = (
    *(COUNTER, "shares", "units", "scratch_share", "heads", "rows", "columns", "height", "width", "shift"),
    *("qkv_image", "qkv_row", "qkv_pixel", "y_image", "y_row", "y_pixel"),
    *("bias_head", "bias_last_row", "bias_last_column"),
)


@torch.no_grad()
def attend(qkv: Tensor, bias: Tensor, window: int, shift: int) -> Tensor:
    """Attend within the windows of images, without a gradient.

    Args:
        qkv: Queries, keys and values of e channels for each head, (b, h, w, 3·heads·e) float32; h and w are
            multiples of the window.
        bias: Added to the score of each query and key, (1, heads, window², window²); or (4, ...): for
            windows not in the last row or column, in the last column, in the last row, in the corner.
        window: Side of a window, in pixels.
        shift: Distance of the first window from the image's corner, to the right and down, in pixels; the
            last windows continue at the opposite border.

    Returns:
        (b, h, w, heads·e) float32
    """
    b, h, w, channels = qkv.shape
    variants, heads, tokens, _ = bias.shape
    e = channels // 3 // heads
    qkv = qkv if qkv.stride(-1) == 1 else qkv.contiguous()
    y = qkv.new_empty(b, h, w, heads * e)
    keys, queries = _fill_up(tokens, KEYS_AT_ONCE), _fill_up(tokens, LANES)
    bias = F.pad((bias * LOG2_E).transpose(2, 3), (0, queries - tokens))
    bias = F.pad(bias, (0, 0, 0, keys - tokens), value=-math.inf).contiguous()  # no weight for added keys
    units = heads * b * (h // window) * (w // window)
    threads = min(torch.get_num_threads(), units)
    shares = min(SHARES_PER_THREAD * threads, units)
    scratch = y.new_zeros(shares, 2 * (keys * e) + queries * e + (keys + e + 2) * LANES)
    tensors = {"qkv": qkv, "bias": bias, "y": y, "scratch": scratch}
    numbers = {
        COUNTER: 0,
        "shares": shares,
        "units": units,
        "scratch_share": scratch.stride(0),
        "heads": heads,
        "rows": h // window,
        "columns": w // window,
        "height": h,
        "width": w,
        "shift": shift,
        "bias_head": bias.stride(1),
        "bias_last_row": 2 * bias.stride(0) if variants > 1 else 0,
        "bias_last_column": bias.stride(0) if variants > 1 else 0,
    }
    for name in ("qkv", "y"):
        strides = zip(("image", "row", "pixel"), tensors[name].stride(), strict=False)
        numbers |= {f"{name}_{along}": stride for along, stride in strides}
    run_in_threads(_compile_kernel(window, e), tensors, numbers, threads)
    return y


def _fill_up(count: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-count // multiple) * multiple


@Once
def _compile_kernel(window: int, e: int) -> CpuFunction:
    """Compile the attention of heads with e channels in windows of a given side.

    A unit of work is one head in one window; a share is a run of units for one thread.
    """
    tokens = window**2
    key_count, query_count = _fill_up(tokens, KEYS_AT_ONCE), _fill_up(tokens, LANES)
    code = Code("attend", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    with code.loop_units(COUNTER, job.shares, job.units) as (share, unit):
        keys = job.scratch.at(share * job.scratch_share)  # (keys, e)
        values = keys.at(key_count * e)  # (keys, e)
        queries = values.at(key_count * e)  # (e, queries)
        scores = queries.at(query_count * e)  # (keys, lanes)
        largest = scores.at(key_count * LANES)  # (lanes)
        sums = largest.at(LANES)  # (e + 1, lanes); the last row sums the weights
        head, place = _divide(unit, job.units // job.heads)  # a head's bias stays in the cache
        image, place = _divide(place, job.rows * job.columns)
        row, column = _divide(place, job.columns)

        def find(token: Index, of: Pointer, strides: tuple[Index, Index, Index]) -> Pointer:
            """Return the address of a token of the window, at the head's first channel."""
            y, x = _divide(token, code.index(window))
            _, y = _divide(row * window + y + job.shift, job.height)
            _, x = _divide(column * window + x + job.shift, job.width)
            return of.at(image * strides[0] + y * strides[1] + x * strides[2] + head * e)

        with code.loop(0, code.index(tokens)) as token:
            source = find(token, job.qkv, (job.qkv_image, job.qkv_row, job.qkv_pixel))
            for i in range(e):
                source.at(i).copy_to(queries.at(token + i * query_count))
            for number, target in ((1, keys), (2, values)):
                for i in range(0, e, LANES):
                    lanes = code.first_lanes(code.index(e - i))
                    vector = source.at(job.heads * (number * e) + i).load(lanes)
                    target.at(token * e + i).store(vector, lanes)

        bias = job.bias.at(
            head * job.bias_head
            + (row + 2 - job.rows).at_least(0) * job.bias_last_row
            + (column + 2 - job.columns).at_least(0) * job.bias_last_column
        )
        with code.loop(0, code.index(tokens), by=LANES) as first:
            scaled = [queries.at(first + i * query_count).load() * (LOG2_E / e**0.5) for i in range(e)]
            _write_scores(code, tokens, scaled, keys, bias.at(first), scores, largest)
            _write_sums(code, tokens, e, values, scores, largest, sums)
            with code.loop(0, (code.index(tokens) - first).at_most(LANES)) as lane:
                target = find(first + lane, job.y, (job.y_image, job.y_row, job.y_pixel))
                for i in range(e):
                    sums.at(lane + i * LANES).copy_to(target.at(i))
    return code.compile()


def _write_scores(
    code: Code, tokens: int, q: list[Vector], keys: Pointer, bias: Pointer, scores: Pointer, largest: Pointer
) -> None:
    """Write the code that scores each key for a vector of queries, and finds each query's largest score."""
    e, query_count = len(q), _fill_up(tokens, LANES)
    largest.store(code.constant(-math.inf))
    with code.loop(0, code.index(tokens), by=KEYS_AT_ONCE) as first:
        most = largest.load()
        for j in range(KEYS_AT_ONCE):
            key = first + j
            score = bias.at(key * query_count).load()
            for i in range(e):
                score = q[i].times_plus(keys.at(key * e + i).load_spread(), score)
            scores.at(key * LANES).store(score)
            most = most.at_least(score)
        largest.store(most)


def _write_sums(
    code: Code, tokens: int, e: int, values: Pointer, scores: Pointer, largest: Pointer, sums: Pointer
) -> None:
    """Write the code that turns the scores into weights, and averages the values by them."""
    most = largest.load()
    for i in range(e + 1):
        sums.at(i * LANES).store(code.constant(0.0))
    with code.loop(0, code.index(tokens), by=KEYS_AT_ONCE) as first:
        totals = [sums.at(i * LANES).load() for i in range(e + 1)]
        for j in range(KEYS_AT_ONCE):
            key = first + j
            exponent = scores.at(key * LANES).load() - most
            weight = keep_nan(exp2(exponent), exponent)
            for i in range(e):
                totals[i] = weight.times_plus(values.at(key * e + i).load_spread(), totals[i])
            totals[e] = totals[e] + weight
        for i in range(e + 1):
            sums.at(i * LANES).store(totals[i])
    share = code.constant(1.0) / sums.at(e * LANES).load()
    for i in range(e):
        sums.at(i * LANES).store(sums.at(i * LANES).load() * share)


def _divide(number: Index, by: Index) -> tuple[Index, Index]:
    """Return quotient and remainder."""
    quotient = number // by
    return quotient, number - quotient * by
