"""Enlarge samples that are no colours: alpha, saved selections, spot colours."""

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mambair_cli.images import to_float
from mambair_cli.restore.engine import TileComputer, run_tiles
from mambair_cli.restore.row_window import Converted, Window
from mambair_cli.restore.tiling import Report, blend_tiles

NEAR = 1  # pixels of the input to each side whose values an enlarged pixel may take


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


def hold_masks(rows: np.ndarray, window: Window, top: int, height: int, scale: int) -> np.ndarray:
    """Clip rows of enlarged masks to the range of the input's values within ``NEAR`` pixels.

    What is empty stays empty, and what is opaque stays opaque, right up to an edge.

    Args:
        rows: Rows of the result, (n, s·w, m) float32; only the masks.
        window: Window on the image, whose last m samples are those of the masks.
        top: Number of the first row of the result.
        height: Number of rows of the image.
        scale: s.
    """
    bottom = top + len(rows)
    first, end = top // scale, -(-bottom // scale)  # rows of the input that these rows show
    above, below = min(NEAR, first), min(NEAR, height - end)
    given = to_float(window[first - above : end + below, :][..., -rows.shape[2] :])
    edges = ((NEAR - above, NEAR - below), (NEAR, NEAR), (0, 0))
    near = sliding_window_view(np.pad(given, edges, "edge"), (2 * NEAR + 1, 2 * NEAR + 1), (0, 1))
    shown = slice(top - first * scale, bottom - first * scale)
    lowest, highest = (
        extreme(near, axis=(3, 4)).repeat(scale, 0)[shown].repeat(scale, 1) for extreme in (np.min, np.max)
    )
    return np.clip(rows, lowest, highest)
