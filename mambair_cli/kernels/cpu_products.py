"""Products of pixels with a matrix on CPUs: the same bits for any number of threads.

Libraries of linear algebra are made for wide matrices. Here a matrix has some ten to some hundred rows, and
the pixels are many: a block of results stays in the registers for twelve pixels at a time.
"""

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import pad

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, run_shares
from mambair_cli.kernels.llvm_builder import Code, Index, Vector, count_lanes
from mambair_cli.kernels.once import Once

LANES = count_lanes()
BLOCK = 2  # vectors of outputs at a time
ROWS = {16: 12, 8: 6}  # pixels of which a block's sums fill the registers, by floats in a vector
IS_FASTER = LANES == 16  # with fewer and shorter registers MKL is: benchmarks/README.md
POINTERS = ("x", "weight", "bias", "y")
NUMBERS = (COUNTER, "shares", "groups", "pixels", "c", "k", "vectors", "x_pixel", "y_pixel")


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the channels of each pixel by a matrix, and add a bias, as PyTorch's ``linear`` does.

    Args:
        x: (..., c) float32; a part of the channels of a larger image will do.
        weight: (k, c) float32.
        bias: (k,) float32; None for zeros.

    Returns:
        (..., k) float32.

    Raises:
        ValueError: A tensor is not float32 on the CPU, or x has another number of channels.
    """
    if x.shape[-1] != weight.shape[1]:
        raise ValueError(f"pixels of {x.shape[-1]} channels do not fit a matrix for {weight.shape[1]}")
    k, c = weight.shape
    rows = x.reshape(-1, c)
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    y = x.new_empty(*x.shape[:-1], k)
    pixels = len(rows)
    if not y.numel():
        return y
    vectors = -(-k // LANES)
    padded = pad(weight, (0, 0, 0, vectors * LANES - k)).T.view(c, vectors, LANES)
    whole = vectors // BLOCK * BLOCK
    blocks = padded[:, :whole].reshape(c, whole // BLOCK, BLOCK * LANES).transpose(0, 1)
    groups = -(-pixels // ROWS[LANES])
    operands = {
        "x": rows,
        "weight": torch.cat([blocks.flatten(), padded[:, whole:].flatten()]),
        "bias": pad(weight.new_zeros(k) if bias is None else bias, (0, vectors * LANES - k)),
        "y": y,
    }
    numbers = {"groups": groups, "pixels": pixels, "c": c, "k": k, "vectors": vectors}
    numbers |= {"x_pixel": rows.stride(0), "y_pixel": k}
    run_shares(_compile_kernel(), operands, numbers, min(torch.get_num_threads(), groups))
    return y


@Once
def _compile_kernel() -> CpuFunction:
    """Compile the products; a unit of work is a group of pixels."""
    code = Code("multiply", POINTERS, NUMBERS, LANES)
    job, rows = SimpleNamespace(**code.job), ROWS[LANES]
    with code.loop_units(COUNTER, job.shares, job.groups) as (_, group):
        # Beyond the last pixel it is the last again.
        places = [(group * rows + row).at_most(job.pixels - 1) for row in range(rows)]
        whole = job.vectors // BLOCK
        with code.loop(0, whole) as block:
            _write_block(code, places, block * BLOCK, BLOCK)
        with code.loop(whole * BLOCK, job.vectors) as vector:
            _write_block(code, places, vector, 1)
    return code.compile()


def _write_block(code: Code, places: list[Index], first: Index, count: int) -> None:
    """Write the code for some vectors of outputs of a group of pixels.

    Args:
        code: The function.
        places: Numbers of the pixels.
        first: Number of the first of the vectors.
        count: Number of the vectors.
    """
    job = SimpleNamespace(**code.job)
    rows = [job.x.at(place * job.x_pixel) for place in places]
    weight = job.weight.at(first * job.c * LANES)

    def add(channel: Index, sums: list[Vector]) -> list[Vector]:
        line = weight.at(channel * (count * LANES))
        factors = [line.at(i * LANES).load() for i in range(count)]
        values = [row.at(channel).load_spread() for row in rows]
        products = [(value, factor) for value in values for factor in factors]
        return [
            value.times_plus(factor, total) for (value, factor), total in zip(products, sums, strict=True)
        ]

    channels = [(first + i) * LANES for i in range(count)]
    sums = code.accumulate(job.c, [job.bias.at(channel).load() for channel in channels] * len(rows), add)
    for i, channel in enumerate(channels):
        lanes = code.first_lanes(job.k - channel)
        for row, place in enumerate(places):
            job.y.at(place * job.y_pixel + channel).store(sums[row * count + i], lanes)
