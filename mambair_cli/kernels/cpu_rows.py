"""Layer normalisation on CPUs, with or without a gate, in one pass over memory."""

from types import SimpleNamespace

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, run_shares
from mambair_cli.kernels.llvm_builder import Code, Vector, count_lanes
from mambair_cli.kernels.llvm_math import silu
from mambair_cli.kernels.once import Once

LANES = count_lanes()
POINTERS = ("x", "gate", "weight", "bias", "y")
NUMBERS = (COUNTER, "shares", "rows", "x_row", "gate_row", "y_row")


def normalize_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float, gate: Tensor | None = None) -> Tensor:
    """Normalise the channels of each pixel, and multiply them by SiLU of a gate.

    Args:
        x: (..., c) float32.
        weight: (c,) float32.
        bias: (c,) float32.
        eps: Added to the variance.
        gate: (..., c) float32, with the shape of x; None for no gate.

    Returns:
        (..., c) float32

    Source: layer normalisation (arXiv:1607.06450).
    """
    c = x.shape[-1]
    y = x.new_empty(x.shape)
    if not y.numel():
        return y
    rows, gates = _as_rows(x), x if gate is None else _as_rows(gate)
    threads = min(torch.get_num_threads(), len(rows))
    operands = {"x": rows, "gate": gates, "weight": weight.contiguous(), "bias": bias.contiguous(), "y": y}
    numbers = {"rows": len(rows), "x_row": rows.stride(0), "gate_row": gates.stride(0), "y_row": c}
    run_shares(_compile_kernel(c, eps, gate is not None), operands, numbers, threads)
    return y


def _as_rows(x: Tensor) -> Tensor:
    """Return (..., c) as (rows, c), without a copy where rows lie at one distance."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    return x.flatten(0, -2) if x.ndim > 1 else x[None]


@Once
def _compile_kernel(c: int, eps: float, has_gate: bool) -> CpuFunction:
    code = Code("normalize_rows", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    lanes = code.lanes_of(c)
    with code.loop_units(COUNTER, job.shares, job.rows) as (_, row):
        x, gate, y = (
            pointer.at(row * stride)
            for pointer, stride in ((job.x, job.x_row), (job.gate, job.gate_row), (job.y, job.y_row))
        )
        values = {i: x.at(i).load(mask) for i, mask in lanes.items()}
        mean = _add(code, list(values.values())).sum_lanes() * (1.0 / c)
        centred = {i: value - mean for i, value in values.items()}
        squares = [
            square if lanes[i] is None else square.where(lanes[i], 0.0)
            for i, square in ((i, value * value) for i, value in centred.items())
        ]
        variance = _add(code, squares).sum_lanes() * (1.0 / c)
        factor = code.constant(1.0) / (variance + eps).square_root()
        for i in lanes:
            result = (centred[i] * factor).times_plus(
                job.weight.at(i).load(lanes[i]), job.bias.at(i).load(lanes[i])
            )
            if has_gate:
                result = result * silu(gate.at(i).load(lanes[i]))
            y.at(i).store(result, lanes[i])
    return code.compile()


def _add(code: Code, vectors: list[Vector]) -> Vector:
    """Add vectors pairwise: the rounding error grows with the logarithm of their number."""
    while len(vectors) > 1:
        pairs = [one + other for one, other in zip(vectors[::2], vectors[1::2], strict=False)]
        vectors = pairs + vectors[2 * len(pairs) :]
    return vectors[0] if vectors else code.constant(0.0)
