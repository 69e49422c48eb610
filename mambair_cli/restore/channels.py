"""Samples of an image <-> channels of a network: gray networks see luma, hidden colours are filled in."""

import numpy as np

from mambair_cli.images import bleed, join_luma, split_luma, to_float


def to_channels(tile: np.ndarray, colors: int, channels: int) -> np.ndarray:
    """Convert samples to what a network takes.

    Args:
        tile: Samples, (h, w, c): the colours, and alpha if there is one.
        colors: Number of colours, 1 or 3.
        channels: Number of the network's channels, 1 or 3.

    Returns:
        (h, w, channels) float32.
    """
    tile = visible_colors(tile, colors)
    if colors == 3 and channels == 1:
        return split_luma(tile)[0]
    return tile.repeat(channels // colors, axis=2)


def from_channels(rows: np.ndarray, samples: np.ndarray, colors: int, channels: int) -> np.ndarray:
    """Convert what a network gave to colours.

    Args:
        rows: Result of the network, (n, w, channels) float32.
        samples: The input's samples at these rows, of which a gray network needs the chroma.
        colors: Number of colours, 1 or 3.
        channels: Number of the network's channels, 1 or 3.

    Returns:
        (n, w, colors) float32.
    """
    if colors == 3 and channels == 1:
        return join_luma(rows, split_luma(visible_colors(samples, colors))[1])
    return rows.mean(axis=2, keepdims=True) if colors < rows.shape[2] else rows


def visible_colors(tile: np.ndarray, colors: int) -> np.ndarray:
    """Return the colours of samples as float32; where alpha is 0, the colours around."""
    pixels = to_float(tile[..., :colors])
    return pixels if tile.shape[2] == colors else bleed(pixels, to_float(tile[..., colors:]))
