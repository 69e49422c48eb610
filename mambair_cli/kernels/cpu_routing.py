"""The routing of MambaIRv2 on CPUs: its noise, and the token with the largest logit, each in one pass."""

from types import SimpleNamespace

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, run_shares
from mambair_cli.kernels.llvm_bits import Bits
from mambair_cli.kernels.llvm_builder import Code, count_lanes
from mambair_cli.kernels.llvm_math import log
from mambair_cli.kernels.once import Once

LANES = count_lanes()
NUMBERS = (COUNTER, "shares", "rows")
NOISE_POINTERS = ("pixels", "counters", "y")
LABEL_POINTERS = ("logits", "noise", "y")
LOWEST, BEYOND = float("-inf"), float("inf")


def draw_gumbel(pixels: Tensor, counters: Tensor) -> Tensor:
    """Draw the noise of ``networks.noise.gumbel_noise`` for pixels whose own numbers are known.

    Args:
        pixels: Number of each pixel, (..., ) int32, all bits of which are random.
        counters: What each token adds to it, (t,) int32.

    Returns:
        (..., t) float32, finite.
    """
    tokens = len(counters)
    y = pixels.new_empty(*pixels.shape, tokens, dtype=torch.float32)
    operands = {
        "pixels": pixels.contiguous().view(torch.float32),
        "counters": counters.contiguous().view(torch.float32),
        "y": y,
    }
    threads = min(torch.get_num_threads(), max(1, pixels.numel()))
    numbers = {"rows": pixels.numel()}
    run_shares(_compile_noise(tokens), operands, numbers, threads)
    return y


def find_largest(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Find the token with the largest sum of logit and noise; the first one where several are as large.

    Args:
        logits: (..., t) float32.
        noise: The same shape; None for no noise.

    Returns:
        (...) int64; 0 where no sum is a number.
    """
    tokens = logits.shape[-1]
    y = logits.new_empty(logits.shape[:-1])
    logits = logits.contiguous()
    operands = {"logits": logits, "noise": logits if noise is None else noise.contiguous(), "y": y}
    threads = min(torch.get_num_threads(), max(1, y.numel()))
    kernel = _compile_label(tokens, noise is not None)
    run_shares(kernel, operands, {"rows": y.numel()}, threads)
    return y.long()


@Once
def _compile_noise(tokens: int) -> CpuFunction:
    code = Code("draw_gumbel", NOISE_POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    lanes = code.lanes_of(tokens)
    with code.loop_units(COUNTER, job.shares, job.rows) as (_, row):
        pixel = Bits.of(job.pixels.at(row).load_spread())
        for place, mask in lanes.items():
            counter = Bits.of(job.counters.at(place).load(mask))
            uniform = ((_scramble(pixel + counter) >> 9).to_floats() + 0.5) * 2.0**-23
            gumbel = log(log(uniform) * -1.0) * -1.0
            job.y.at(row * tokens + place).store(gumbel, mask)
    return code.compile()


@Once
def _compile_label(tokens: int, has_noise: bool) -> CpuFunction:
    code = Code("find_largest", LABEL_POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    lanes = code.lanes_of(tokens)
    one_lane = code.first_lanes(code.index(1))
    with code.loop_units(COUNTER, job.shares, job.rows) as (_, row):
        best, token = code.constant(LOWEST), code.constant(0.0)
        for place, mask in lanes.items():
            value = job.logits.at(row * tokens + place).load(mask)
            if has_noise:
                value = value + job.noise.at(row * tokens + place).load(mask)
            if mask is not None:
                value = value.where(mask, LOWEST)
            is_larger = best < value
            best = value.where(is_larger, best)
            token = (code.lane_numbers() + float(place)).where(is_larger, token)
        largest = best.fold_lanes(lambda x, y: y.where(x < y, x))
        first = code.constant(BEYOND).where(best < largest, token).fold_lanes(lambda x, y: y.where(y < x, x))
        job.y.at(row).store(first, one_lane)
    return code.compile()


def _scramble(x: Bits) -> Bits:
    """Do what ``networks.noise`` does to scramble a number."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
