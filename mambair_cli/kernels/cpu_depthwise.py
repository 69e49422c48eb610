"""Depthwise convolution of 3×3 pixels on CPUs, and SiLU or a gate, in one pass over memory."""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, new_on_lines, run_shares
from mambair_cli.kernels.llvm_builder import Code, Condition, Index, Pointer, Vector, count_lanes
from mambair_cli.kernels.llvm_math import sigmoid, silu
from mambair_cli.kernels.once import Once

LANES = count_lanes()
POINTERS = ("x", "weight", "bias", "zeros", "y")
NUMBERS = (COUNTER, "shares", "b", "h", "w", "x_image", "x_row", "x_pixel", "y_row", "y_pixel")
TAPS = (-1, 0, 1)


def convolve_and_activate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel by a filter of its own, and apply SiLU; beyond the borders are zeros.

    Args:
        x: (b, h, w, c) float32; a part of the channels of a larger image will do.
        weight: (c, 1, 3, 3) float32.
        bias: (c,) float32.

    Returns:
        (b, h, w, c) float32; its pixels may lie further apart than c values.
    """
    return _convolve_image(x, weight, bias, is_gate=False)


def convolve_and_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each channel by a filter of its own, and multiply ``x`` by the sigmoid of that.

    The arguments and the result are those of :func:`convolve_and_activate`.
    """
    return _convolve_image(x, weight, bias, is_gate=True)


def _convolve_image(x: Tensor, weight: Tensor, bias: Tensor, is_gate: bool) -> Tensor:
    x = x if x.stride(-1) == 1 else x.contiguous()
    b, h, w, c = x.shape
    y = new_on_lines(x, b, h, w, c)
    if not y.numel():
        return y
    operands = {
        "x": x,
        "weight": weight.reshape(c, 9).T.contiguous(),
        "bias": bias.contiguous(),
        "zeros": x.new_zeros(c),
        "y": y,
    }
    numbers = {"b": b, "h": h, "w": w, "x_image": x.stride(0), "x_row": x.stride(1), "x_pixel": x.stride(2)}
    numbers |= {"y_row": y.stride(1), "y_pixel": y.stride(2)}
    threads = min(torch.get_num_threads(), b * h)
    run_shares(_compile_kernel(c, is_gate), operands, numbers, threads)
    return y


@Once
def _compile_kernel(c: int, is_gate: bool) -> CpuFunction:
    """Compile the convolution of c channels; a unit of work is a row of an image."""
    code = Code("convolve_and_gate" if is_gate else "convolve_and_activate", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    rows = job.b * job.h
    with code.loop_units(COUNTER, job.shares, rows) as (_, row):
        image = row // job.h
        top = row - image * job.h
        # A row beyond the border is one pixel of zeros, again and again.
        sources: list[tuple[Pointer, Index]] = []
        for down in TAPS:
            line = top + down
            is_inside = line.is_inside(job.h)
            place = job.x.at(image * job.x_image + line * job.x_row)
            sources.append((place.where(is_inside, job.zeros), job.x_pixel.where(is_inside, 0)))
        whole = c // LANES * LANES
        with code.loop(0, code.index(whole), by=LANES) as first:
            _write_part(code, _Part(first, None, sources), row, c, is_gate)
        if whole < c:
            left = code.first_lanes(code.index(c - whole))
            _write_part(code, _Part(code.index(whole), left, sources), row, c, is_gate)
    return code.compile()


class _Part(NamedTuple):
    """A vector of channels of a row, and what its pixels are computed from."""

    first: Index  # its first channel
    lanes: Condition | None  # those that are channels; None for all
    sources: list[tuple[Pointer, Index]]  # rows above, at and below, and the distance of their pixels


def _write_part(code: Code, part: _Part, row: Index, c: int, is_gate: bool) -> None:
    """Write the code for a vector of channels of a row."""
    job = SimpleNamespace(**code.job)
    weights = [job.weight.at(part.first + tap * c).load(part.lanes) for tap in range(9)]
    bias = job.bias.at(part.first).load(part.lanes)
    target = job.y.at(row * job.y_row + part.first)

    def finish(column: Index, result: Vector) -> None:
        if is_gate:
            source, step = part.sources[TAPS.index(0)]  # the row itself
            activated = source.at(column * step + part.first).load(part.lanes) * sigmoid(result)
        else:
            activated = silu(result)
        target.at(column * job.y_pixel).store(activated, part.lanes)

    with code.loop(0, code.index(2)) as end:
        column = end * (job.w - 1)
        finish(column, _convolve(part, weights, bias, column, (job.w, job.zeros)))
    with code.loop(1, job.w - 1) as column:
        finish(column, _convolve(part, weights, bias, column))


def _convolve(
    part: _Part,
    weights: list[Vector],
    bias: Vector,
    column: Index,
    border: tuple[Index, Pointer] | None = None,
) -> Vector:
    """Write the code for a pixel.

    Args:
        part: The channels.
        weights: Weight of each tap.
        bias: Added to the sum.
        column: Column of the pixel.
        border: Number of columns, and zeros, where the pixel may be at the border.
    """
    total = bias
    for down, (source, step) in enumerate(part.sources):
        for right in TAPS:
            place = source.at((column + right) * step + part.first)
            if border is not None:
                place = place.where((column + right).is_inside(border[0]), border[1])
            total = place.load(part.lanes).times_plus(weights[3 * down + right + 1], total)
    return total
