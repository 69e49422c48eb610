"""Enlarge samples that are no colours: alpha, saved selections, spot colours."""

from collections.abc import Iterator

import numpy as np

from mambair_cli.images import to_float
from mambair_cli.restore.engine import TileComputer, run_tiles
from mambair_cli.restore.row_window import Converted, Window
from mambair_cli.restore.tiling import Report, blend_tiles


def enlarge_mask(
    computer: TileComputer, channels: int, window: Window, report: Report, sample: int, seed: int | None
) -> Iterator[np.ndarray]:
    """Enlarge one sample of each pixel as a gray image; it has no noise and no JPEG artefacts to remove.

    Args:
        computer: What computes the tiles.
        channels: Number of the network's channels.
        window: Window on the image.
        report: How the image's colours are computed.
        sample: Index of the sample in each pixel.
        seed: Random seed of MambaIRv2's inference noise.

    Yields:
        (n, s·w, 1) float32, with as many rows as the bands of colours have.
    """
    plan, scale = report.plan, computer.scale
    mask = Converted(window, lambda tile: to_float(tile[..., sample : sample + 1]))
    if scale == 1:
        yield from blend_tiles(
            plan,
            (mask[top : top + plan.tile_height, left : left + plan.tile_width] for top, left in plan),
            1,
        )
        return
    pixels = Converted(mask, lambda tile: tile.repeat(channels, axis=2))

    def restore_varied() -> Iterator[np.ndarray]:
        for top in plan.tops:
            tiles = {
                left: mask[top : top + plan.tile_height, left : left + plan.tile_width] for left in plan.lefts
            }
            varied = [(top, left) for left, tile in tiles.items() if tile.min() < tile.max()]
            restored = run_tiles(computer, pixels, plan, varied, report.batch, seed)
            for left, tile in tiles.items():
                if (top, left) in varied:
                    yield computer.buffers.fetch(next(restored)).mean(axis=2, keepdims=True)
                else:
                    yield tile[:1, :1].repeat(scale * plan.tile_height, 0).repeat(scale * plan.tile_width, 1)

    yield from blend_tiles(plan, restore_varied(), scale)
