"""An image from another decoder than libvips: its header now, its samples on demand."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mambair_cli.images.picture import Metadata


@dataclass(frozen=True)
class LazyImage:
    """An image whose header was read and whose samples are decoded when ``load`` is called.

    Attributes:
        shape: Shape of a frame, (h, w, c).
        dtype: Type of its samples.
        load: Function that decodes the samples, frames one below another.
        bands: Number of colour bands; None: all samples, without the last of an even number, which is alpha.
        masks: See :class:`mambair_cli.images.picture.Header`.
        frames, delays, loop: See :class:`mambair_cli.images.picture.Header`.
        icc: See :class:`mambair_cli.images.picture.Header`.
        metadata: What the file says of it, as it is stored.
        warnings: Sentences about what is damaged or left out.
    """

    shape: tuple[int, int, int]
    dtype: str
    load: Callable[[], np.ndarray]
    bands: int | None = None
    masks: tuple[int, ...] = ()
    frames: int = 1
    delays: tuple[int, ...] | None = None
    loop: int = 0
    icc: bytes | None = None
    metadata: Metadata = field(default_factory=Metadata)
    warnings: tuple[str, ...] = ()
