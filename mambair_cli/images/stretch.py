"""Stretch faint pictures over the whole range: networks know pictures that fill it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mambair_cli.images.row_reader import Reader
from mambair_cli.images.samples import to_float

FAINT = 1 / 8  # of the range; data of 12 bits in files of 16 fill a sixteenth
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Stretch:
    """A map from the samples of a faint picture to the whole range.

    Attributes:
        lowest: Smallest sample of all colours that are seen, which becomes 0.
        highest: Largest one, which becomes 1.
    """

    lowest: float
    highest: float

    def apply(self, samples: np.ndarray, colours: int) -> np.ndarray:
        """Stretch the colours of samples.

        Args:
            samples: (..., c), colours first, of any type that :func:`to_float` takes.
            colours: Number of colours.

        Returns:
            (..., c) float32; alpha and masks are only converted.
        """
        stretched = to_float(samples)
        return self._change(stretched, colours, (stretched[..., :colours] - self.lowest) / self._width)

    def undo(self, samples: np.ndarray, colours: int) -> np.ndarray:
        """Undo :meth:`apply` in float32 samples, which need not be in [0, 1]."""
        return self._change(samples, colours, samples[..., :colours] * self._width + self.lowest)

    @property
    def _width(self) -> np.float32:
        return np.float32(self.highest - self.lowest)

    @staticmethod
    def _change(samples: np.ndarray, colours: int, changed: np.ndarray) -> np.ndarray:
        changed = changed.astype(np.float32)
        return np.concatenate([changed, samples[..., colours:]], axis=-1)


def find_stretch(bands: Iterable[np.ndarray], colours: int, has_alpha: bool | None = None) -> Stretch | None:
    """Return the stretch of a picture; None for one that fills more than ``FAINT``, or has 8 bits.

    Colours where alpha is 0 do not count: nobody sees them, and networks get those around.

    Args:
        bands: Rows of the picture, (n, w, c), colours first; no more are taken than are needed.
        colours: Number of colours.
        has_alpha: Whether alpha comes next; None: a single sample after the colours is it, as in arrays.
    """
    lowest, highest = np.inf, -np.inf
    for band in bands:
        if band.dtype == np.uint8:  # of so few steps, there is not more to be seen
            return None
        samples = band[..., :colours]
        if band.shape[-1] == colours + 1 if has_alpha is None else has_alpha:
            samples = samples[band[..., colours] > 0]
        if not samples.size:
            continue
        extremes = to_float(np.array([samples.min(), samples.max()], band.dtype))
        lowest, highest = min(lowest, float(extremes[0])), max(highest, float(extremes[1]))
        if highest - lowest >= FAINT:
            return None
    return Stretch(lowest, highest) if highest > lowest else None


def read_stretch(reader: Reader) -> Stretch | None:
    """Return the stretch of an image in a file, one for all its frames; most are read for a few rows only.

    Args:
        reader: Reads the image; what is read next is decoded from the top again.

    Raises:
        ImageError: The rows cannot be read.
    """
    header = reader.header
    if header.dtype == "uint8":
        return None
    rows = read_bands(reader.read, header.height * header.frames)
    return find_stretch(rows, header.bands, header.has_alpha)


def read_bands(read: Callable[[int, int], np.ndarray], height: int) -> Iterator[np.ndarray]:
    """Read a picture some rows at a time, from the top.

    Args:
        read: Reads rows from one to another.
        height: Number of rows.
    """
    for top in range(0, height, _ROWS_AT_ONCE):
        yield read(top, min(top + _ROWS_AT_ONCE, height))
