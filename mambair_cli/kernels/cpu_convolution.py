"""Convolutions of 3×3 pixels on CPUs with a quarter of the multiplications, by Winograd's method.

A tile of 4×4 results depends on 6×6 pixels. These, and the weights, are transformed so that the convolution
becomes 36 products of matrices, one for each place of the 6×6; a second transform makes the results of them.
Twelve tiles at a time stay in the nearer caches from the first step to the last.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (arXiv:1509.09308). The transforms
evaluate polynomials at 0, ±3/4, ±3/2 and infinity: a layer's errors are then about twice those of the plain
sum, or, where pixels are not around zero, smaller, and those of whole networks no larger than before.
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_threads import COUNTER, SHARES_PER_THREAD, run_shares
from mambair_cli.kernels.llvm_builder import Code, Condition, Index, Pointer, Vector, count_lanes
from mambair_cli.kernels.once import Once

LANES = count_lanes()
TILE, REACH = 4, 6  # sides of the results, and of the pixels that they depend on
PLACES = REACH * REACH
NEAR, FAR = 0.75, 1.5  # the points other than 0 and infinity
BLOCK = 2  # vectors of output channels at a time
WIDTH = BLOCK * LANES
TILES = 12 if LANES == 16 else 6  # tiles of which a block's sums fill the registers
GROUP = 12  # tiles at a time
GAP = 16  # values between the places' planes: else they would fall on the same lines of the cache

POINTERS = ("x", "weight", "bias", "zeros", "scratch", "y")
NUMBERS = (
    *(COUNTER, "shares", "groups", "tiles", "tile_rows", "tile_columns", "h", "w", "c", "k", "blocks"),
    *("scratch_share", "stride", "plane", "x_image", "x_row", "x_pixel", "y_row", "y_pixel"),
)


class TransformedWeight(NamedTuple):
    """Weights of a convolution in the form that :func:`convolve` takes.

    Attributes:
        values: (blocks, 36, in channels, channels of a block) float32.
        channels: Number of output channels; those beyond them in the last block are zeros.
    """

    values: Tensor
    channels: int


@torch.no_grad()
def transform_weight(weight: Tensor) -> TransformedWeight:
    """Transform the weights of a convolution, (k, c, 3, 3) float32; they become four times as many."""
    k, c = weight.shape[:2]
    points = [0.0, NEAR, -NEAR, FAR, -FAR]
    rows = []
    for point in points:
        scale = 1.0
        for other in points:
            scale *= point - other if other != point else 1.0
        rows.append([1 / scale, point / scale, point**2 / scale])
    matrix = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64, device=weight.device)
    values = torch.einsum("ai,kcij,bj->abck", matrix, weight.double(), matrix).float()
    blocks = -(-k // WIDTH)
    padded = values.new_zeros(PLACES, c, blocks * WIDTH)
    padded[..., :k] = values.reshape(PLACES, c, k)
    return TransformedWeight(padded.view(PLACES, c, blocks, -1).permute(2, 0, 1, 3).contiguous(), k)


def convolve(x: Tensor, weight: TransformedWeight, bias: Tensor | None) -> Tensor:
    """Convolve an image by 3×3 pixels, keeping its size; beyond the borders are zeros.

    Args:
        x: (b, h, w, c) float32; a part of the channels of a larger image will do.
        weight: What :func:`transform_weight` made of the weights.
        bias: (k,) float32; None for zeros.

    Returns:
        (b, h, w, k) float32; NaN, where a pixel is, in all of the 4×4 results that it reaches.

    Raises:
        ValueError: Weights or bias are for another number of channels, or a tensor is not float32 on the CPU.
    """
    x = x if x.stride(-1) == 1 else x.contiguous()
    (b, h, w, c), k = x.shape, weight.channels
    if c != weight.values.shape[2]:
        raise ValueError(f"an image of {c} channels does not fit weights for {weight.values.shape[2]}")
    if bias is not None and bias.shape != (k,):
        raise ValueError(f"a bias of shape {tuple(bias.shape)} does not fit {k} channels")
    y = x.new_empty(b, h, w, k)
    if not y.numel():
        return y
    blocks = len(weight.values)
    rows, columns = -(-h // TILE), -(-w // TILE)
    tiles = b * rows * columns
    groups = -(-tiles // GROUP)
    threads = min(torch.get_num_threads(), groups)
    stride = -(-c // LANES) * LANES
    plane = GROUP * stride + GAP
    size = PLACES * (plane + GROUP * WIDTH + stride) + LANES
    operands = {
        "x": x,
        "weight": weight.values,
        "bias": x.new_zeros(k) if bias is None else bias.contiguous(),
        "zeros": x.new_zeros(c),
        "scratch": x.new_empty(SHARES_PER_THREAD * threads, size),
        "y": y,
    }
    numbers = {"groups": groups, "tiles": tiles, "tile_rows": rows, "tile_columns": columns, "h": h, "w": w}
    numbers |= {"c": c, "k": k, "blocks": blocks, "scratch_share": size, "stride": stride, "plane": plane}
    numbers |= {"x_image": x.stride(0), "x_row": x.stride(1), "x_pixel": x.stride(2)}
    numbers |= {"y_row": w * k, "y_pixel": k}
    run_shares(_compile_kernel(), operands, numbers, threads)
    return y


class _Scratch(NamedTuple):
    """Memory of a share."""

    pixels: Pointer  # (36, tiles, channels): the transformed pixels
    products: Pointer  # (36, tiles, channels of a block)
    lines: Pointer  # (36, channels) of a tile, transformed in one direction
    waste: Pointer  # one vector, for results beyond the image


@Once
def _compile_kernel() -> CpuFunction:
    """Compile the convolution; a unit of work is a group of tiles."""
    code = Code("convolve", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    with code.loop_units(COUNTER, job.shares, job.groups) as (share, group):
        pixels = job.scratch.at(share * job.scratch_share)
        products = pixels.at(job.plane * PLACES)
        waste = products.at(PLACES * GROUP * WIDTH)
        scratch = _Scratch(pixels, products, waste.at(LANES), waste)
        with code.loop(0, code.index(GROUP)) as tile:
            _write_pixels(code, scratch, group, tile)
        with code.loop(0, job.blocks) as block:
            _write_products(code, scratch, block)
            with code.loop(0, code.index(GROUP)) as tile:
                _write_results(code, scratch, block, group, tile)
    return code.compile()


def _find_tile(job: SimpleNamespace, group: Index, tile: Index) -> tuple[Index, Index, Index]:
    """Return a tile's image, and its first row and column; beyond the last tile it is the last again."""
    number = (group * GROUP + tile).at_most(job.tiles - 1)
    line = number // job.tile_columns
    image = line // job.tile_rows
    return image, (line - image * job.tile_rows) * TILE, (number - line * job.tile_columns) * TILE


def _write_pixels(code: Code, scratch: _Scratch, group: Index, tile: Index) -> None:
    """Write the code that transforms the pixels of a tile: each column, then each line."""
    job = SimpleNamespace(**code.job)
    image, top, left = _find_tile(job, group, tile)
    with code.loop(0, code.index(REACH)) as column:
        is_column_inside = (left + column - 1).is_inside(job.w)
        start = job.x.at(image * job.x_image + (left + column - 1) * job.x_pixel)
        places: list[Pointer] = []
        for down in range(REACH):
            row = top + (down - 1)
            place = start.at(row * job.x_row).where(row.is_inside(job.h), job.zeros)
            places.append(place.where(is_column_inside, job.zeros))
        target = scratch.lines.at(column * job.stride)

        def transform(channel: Index, lanes: Condition | None) -> None:
            vectors = _transform_pixels([place.at(channel).load(lanes) for place in places])
            for down, vector in enumerate(vectors):
                target.at(job.stride * (down * REACH) + channel).store(vector)

        whole = job.c // LANES * LANES
        with code.loop(0, whole, by=LANES) as channel:
            transform(channel, None)
        with code.loop(whole, job.c, by=LANES) as channel:
            transform(channel, code.first_lanes(job.c - channel))
    with code.loop(0, code.index(REACH)) as down:
        source = scratch.lines.at(down * job.stride * REACH)
        target = scratch.pixels.at(down * job.plane * REACH + tile * job.stride)
        with code.loop(0, job.stride, by=LANES) as channel:
            line = [source.at(job.stride * right + channel).load() for right in range(REACH)]
            for right, vector in enumerate(_transform_pixels(line)):
                target.at(job.plane * right + channel).store(vector)


def _transform_pixels(x: list[Vector]) -> list[Vector]:
    """Map six pixels in a row to their six places."""
    near, far = NEAR**2, FAR**2
    near_even, near_odd = x[2].times_plus(-far, x[4]), x[1].times_plus(-far, x[3])
    far_even, far_odd = x[2].times_plus(-near, x[4]), x[1].times_plus(-near, x[3])
    return [
        x[0].times_plus(near * far, x[2].times_plus(-near - far, x[4])),
        near_odd.times_plus(NEAR, near_even),
        near_odd.times_plus(-NEAR, near_even),
        far_odd.times_plus(FAR, far_even),
        far_odd.times_plus(-FAR, far_even),
        x[1].times_plus(near * far, x[3].times_plus(-near - far, x[5])),
    ]


def _write_products(code: Code, scratch: _Scratch, block: Index) -> None:
    """Write the code for the 36 products of a block of output channels."""
    job = SimpleNamespace(**code.job)
    with code.loop(0, code.index(PLACES)) as place:
        weight = job.weight.at((block * PLACES + place) * job.c * WIDTH)
        with code.loop(0, code.index(GROUP), by=TILES) as first:
            rows = [
                scratch.pixels.at(job.plane * place + (first + tile) * job.stride) for tile in range(TILES)
            ]

            def add(channel: Index, sums: list[Vector]) -> list[Vector]:
                line = weight.at(channel * WIDTH)
                factors = [line.at(i * LANES).load() for i in range(BLOCK)]
                values = [row.at(channel).load_spread() for row in rows]
                products = [(value, factor) for value in values for factor in factors]
                return [
                    value.times_plus(factor, total)
                    for (value, factor), total in zip(products, sums, strict=True)
                ]

            sums = code.accumulate(job.c, [code.constant(0.0)] * (TILES * BLOCK), add)
            target = scratch.products.at((place * GROUP + first) * WIDTH)
            for i, total in enumerate(sums):
                target.at(i * LANES).store(total)


def _write_results(code: Code, scratch: _Scratch, block: Index, group: Index, tile: Index) -> None:
    """Write the code that makes the results of a tile, in a block of output channels."""
    job = SimpleNamespace(**code.job)
    image, top, left = _find_tile(job, group, tile)
    with code.loop(0, code.index(WIDTH), by=LANES) as part:
        channel = block * WIDTH + part
        lanes = code.first_lanes(job.k - channel)
        with code.loop(0, code.index(REACH)) as column:
            source = scratch.products.at((column * GROUP + tile) * WIDTH + part)
            products = [source.at(down * REACH * GROUP * WIDTH).load() for down in range(REACH)]
            for down, vector in enumerate(_transform_products(products)):
                scratch.lines.at(column * LANES + down * REACH * LANES).store(vector)
        bias = job.bias.at(channel).load(lanes)
        with code.loop(0, code.index(TILE)) as down:
            source = scratch.lines.at(down * (REACH * LANES))
            line = [source.at(right * LANES).load() for right in range(REACH)]
            start = job.y.at((image * job.h + top + down) * job.y_row + channel)
            is_row_inside = top + down < job.h
            for right, vector in enumerate(_transform_products(line)):
                place = start.at((left + right) * job.y_pixel)
                place = place.where(left + right < job.w, scratch.waste).where(is_row_inside, scratch.waste)
                place.store(vector + bias, lanes)


def _transform_products(m: list[Vector]) -> list[Vector]:
    """Map the products at six places to four results in a row."""
    near_sum, near_difference = m[1] + m[2], m[1] - m[2]
    far_sum, far_difference = m[3] + m[4], m[3] - m[4]
    return [
        m[0] + near_sum + far_sum,
        near_difference.times_plus(NEAR, far_difference * FAR),
        near_sum.times_plus(NEAR**2, far_sum * FAR**2),
        near_difference.times_plus(NEAR**3, far_difference.times_plus(FAR**3, m[5])),
    ]
