"""Sums and averages on CPUs that take one pass over memory where PyTorch's operations take several."""

from types import SimpleNamespace

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, run_shares
from mambair_cli.kernels.llvm_builder import Code, count_lanes
from mambair_cli.kernels.once import Once

LANES = count_lanes()
RUN = 64  # pixels whose sum one thread makes: the number of threads changes no sum
SUM_POINTERS, SUM_NUMBERS = ("parts", "y"), (COUNTER, "shares", "rows", "part", "row")
GATE_POINTERS, GATE_NUMBERS = ("y", "gate", "x", "scale"), (COUNTER, "shares", "rows", "pixels", "x_row")
AVERAGE_POINTERS, AVERAGE_NUMBERS = ("x", "y"), (COUNTER, "shares", "runs", "runs_image", "pixels", "x_row")


def add_in_order(parts: Tensor) -> Tensor:
    """Return the sum of the parts: the first and the second, to which each next one is added.

    Args:
        parts: (k, ..., c) float32; rows may lie further apart than they are long.

    Returns:
        (..., c) float32; of a single part, this part itself.
    """
    if len(parts) == 1:
        return parts[0]
    y = parts.new_empty(parts.shape[1:])
    if not parts.numel():
        return y.zero_()
    rows = parts.flatten(1, -2) if parts.ndim > 2 else parts[:, None]
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    k, count, c = rows.shape
    numbers = {"rows": count, "part": rows.stride(0), "row": rows.stride(1)}
    threads = min(torch.get_num_threads(), count)
    operands = {"parts": rows, "y": y}
    run_shares(_compile_sum(k, c), operands, numbers, threads)
    return y


def gate_and_add(y: Tensor, gate: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Return ``y * gate + x * scale``, written to the memory of y if its pixels are contiguous.

    Args:
        y: (b, h, w, c) float32.
        gate: Factor of each channel of each image, (b, 1, 1, c) float32.
        x: The shape of y, float32.
        scale: Factor of each channel, (c,) float32.
    """
    y = y.contiguous()
    b, h, w, c = y.shape
    if not y.numel():
        return y
    x = x if x.stride(-1) == 1 else x.contiguous()
    rows = x.flatten(0, 2)
    numbers = {"rows": b * h * w, "pixels": h * w, "x_row": rows.stride(0)}
    operands = {"y": y, "gate": gate.contiguous(), "x": rows, "scale": scale.contiguous()}
    threads = min(torch.get_num_threads(), b * h * w)
    run_shares(_compile_gate(c), operands, numbers, threads)
    return y


def average_pixels(x: Tensor) -> Tensor:
    """Average each channel over the pixels of an image: (b, h, w, c) float32 -> (b, 1, 1, c)."""
    b, h, w, c = x.shape
    if not x.numel():
        return x.mean((1, 2), keepdim=True)
    rows = (x if x.stride(-1) == 1 else x.contiguous()).flatten(0, 2)
    runs = -(-h * w // RUN)
    sums = x.new_empty(b, runs, c)
    numbers = {"runs": b * runs, "runs_image": runs, "pixels": h * w, "x_row": rows.stride(0)}
    threads = min(torch.get_num_threads(), b * runs)
    operands = {"x": rows, "y": sums}
    run_shares(_compile_average(c), operands, numbers, threads)
    # One image after the other: what PyTorch sums first depends on their number.
    totals = [sums_of_image.sum(0) for sums_of_image in sums]
    return torch.stack(totals).div_(h * w).view(b, 1, 1, c)


@Once
def _compile_sum(k: int, c: int) -> CpuFunction:
    code = Code("add_in_order", SUM_POINTERS, SUM_NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    with code.loop_units(COUNTER, job.shares, job.rows) as (_, row):
        for place, lanes in code.lanes_of(c).items():
            total = job.parts.at(row * job.row + place).load(lanes)
            for number in range(1, k):
                total = total + job.parts.at(row * job.row + job.part * number + place).load(lanes)
            job.y.at(row * c + place).store(total, lanes)
    return code.compile()


@Once
def _compile_gate(c: int) -> CpuFunction:
    code = Code("gate_and_add", GATE_POINTERS, GATE_NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    with code.loop_units(COUNTER, job.shares, job.rows) as (_, row):
        gate = job.gate.at(row // job.pixels * c)
        for place, lanes in code.lanes_of(c).items():
            y = job.y.at(row * c + place)
            skipped = job.x.at(row * job.x_row + place).load(lanes) * job.scale.at(place).load(lanes)
            y.store(y.load(lanes).times_plus(gate.at(place).load(lanes), skipped), lanes)
    return code.compile()


@Once
def _compile_average(c: int) -> CpuFunction:
    """Compile the sums of runs of pixels; a unit of work is a run."""
    code = Code("average_pixels", AVERAGE_POINTERS, AVERAGE_NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    places = code.lanes_of(c)
    with code.loop_units(COUNTER, job.shares, job.runs) as (_, run):
        image = run // job.runs_image
        first = (run - image * job.runs_image) * RUN
        row = job.x.at((image * job.pixels + first) * job.x_row)
        zeros = [code.constant(0.0)] * len(places)
        sums = code.accumulate(
            (job.pixels - first).at_most(RUN),
            zeros,
            lambda t, sums: [
                total + row.at(t * job.x_row + place).load(lanes)
                for total, (place, lanes) in zip(sums, places.items(), strict=True)
            ],
        )
        for total, (place, lanes) in zip(sums, places.items(), strict=True):
            job.y.at(run * c + place).store(total, lanes)
    return code.compile()
