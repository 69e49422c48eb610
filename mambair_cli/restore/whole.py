"""An image in memory, restored as a whole by the model that it needs."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mambair_cli.images import from_float, to_float
from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.images.stretch import Stretch, find_stretch, read_bands
from mambair_cli.inspection.look import look_at
from mambair_cli.inspection.need import find_need
from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.tiling import Report

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer


def restore_whole(
    restorer: "Restorer", image: np.ndarray, on_tiles: OnTiles | None
) -> tuple[np.ndarray, Report]:
    """Restore an image; look at it first where there are models to choose from.

    Args:
        restorer: The restorer.
        image: (h, w, c), uint8, uint16 or float32; c as for ``Restorer.restore``.
        on_tiles: Called with the progress.

    Returns:
        The restored image, of the same type and (s·h, s·w, c), and how it was computed.

    Raises:
        MemoryLimitError: The device does not hold even the smallest tile.
        UsageError: The network cannot restore such an image.
    """
    height, width, samples = image.shape
    colours = samples - (samples % 2 == 0)
    bands = read_bands(lambda top, bottom: image[top:bottom], height)
    stretch = None if restorer.bare else find_stretch(bands, colours)
    if not restorer.others:
        return _restore(restorer, image, on_tiles, stretch)
    look = look_at(height, width, lambda rows, columns: to_float(image[rows, columns]), stretch)
    need = find_need(look, None)
    chosen, scale = restorer.choose(need).alone(), restorer.info.scale
    if chosen.info.scale == scale:
        restored, report = _restore(chosen, image, on_tiles, stretch)
    else:
        restored, report = _restore(chosen, to_float(image), on_tiles, stretch)
        size, wrap = (height * scale, width * scale), restorer.own.wrap
        restored = reduce_samples(restored, *size, wrap, dtype=image.dtype.name)
        restored = from_float(restored, image.dtype)
    return restored, replace(report, model=chosen.model.name, scale=chosen.info.scale, need=need)


def _restore(
    restorer: "Restorer", image: np.ndarray, on_tiles: OnTiles | None, stretch: Stretch | None
) -> tuple[np.ndarray, Report]:
    """Restore an image by the model of a restorer."""
    height, width, samples = image.shape
    result = np.empty((height * restorer.info.scale, width * restorer.info.scale, samples), image.dtype)
    report = None
    opened = restorer.open_rows(
        lambda top, bottom: image[top:bottom], image.shape, on_tiles, image.dtype, stretch=stretch
    )
    for band in opened.rows():
        result[band.top : band.top + len(band.rows)] = band.rows
        report = band.report
    assert report is not None
    return result, report
