"""What is known of an image that another library than libvips decodes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LazyImage:
    """An image of such a format, its header read.

    Attributes:
        shape: Of a frame, (h, w, c).
        dtype: Of its samples.
        load: Decodes them, frames one below the other.
        bands: Of colour; None where all are, or all but an alpha that makes an even number.
        masks: As in :class:`mambair_cli.images.picture.Header`.
        frames, delays: As there.
        icc, exif, xmp, dpi: As in :class:`mambair_cli.images.picture.Header`.
        warnings: Sentences about what is damaged or left out.
    """

    shape: tuple[int, int, int]
    dtype: str
    load: Callable[[], np.ndarray]
    bands: int | None = None
    masks: tuple[int, ...] = ()
    frames: int = 1
    delays: tuple[int, ...] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
