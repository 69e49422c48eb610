"""Read the samples of an open image, row after row."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyvips

from mambair_cli.errors import ImageError
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header
from mambair_cli.images.samples import widen


class Reader:
    """An image that is read row after row, from the top; frames lie one below the other.

    What is decoded at a time is what a format allows: rows of most, all of WebP, AVIF and whatever libvips
    does not read, of interlaced PNG and progressive JPEG. An image that EXIF turns is laid out in memory or,
    beyond 100 MB, in a file of the system's temporary folder.

    Attributes:
        header: All but the samples.
        is_whole: Whether all of it is in memory when rows are read.
        is_turned: Whether it is laid out as a whole to be turned, in memory or on the disk.
        warnings: Sentences about what is damaged or left out; more may come while rows are read.
    """

    def __init__(
        self,
        header: Header,
        load: Callable[[], Any],
        name: str,
        bits: int = 16,
        *,
        is_whole: bool = False,
        is_turned: bool = False,
        warnings: Iterable[str] = (),
    ) -> None:
        self.header = header
        self.warnings = list(warnings)
        self.is_whole = is_whole
        self.is_turned = is_turned
        self._load = load
        self._name = name
        self._bits = bits
        self._image: Any = None
        self._region: Any = None
        self._next = 0

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read rows, which lie below those read before, or else it begins anew at the top.

        Returns:
            (bottom - top, width, 1 to 4), of the header's dtype, alpha last.

        Raises:
            ImageError: The data is broken, or its floats are no fractions of white.
        """
        header = self.header
        try:
            with explained():
                if self._region is None or top < self._next:
                    self.close()
                    self._image = self._load()  # held: a region does not hold the memory below it
                    self._region = pyvips.Region.new(self._image)
                data = self._region.fetch(0, top, header.width, bottom - top)
        except LibvipsError as error:
            raise broken(self._name, header.format, str(error)) from error
        self._next = bottom
        samples = np.frombuffer(data, header.dtype).reshape(bottom - top, header.width, header.samples)
        if header.dtype == "float32":
            _check_range(samples, self._name)
        elif self._bits < 16:
            samples = widen(samples, self._bits)
        return samples

    def warn(self, sentence: str) -> None:
        """Add a warning, once: what is read anew must not be told again."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def close(self) -> None:
        """Let go of what is held; reading begins anew."""
        self._region = self._image = None
        self._next = 0


def wrap(samples: np.ndarray) -> Any:
    """Wrap (h, w, 1 to 4) samples as a libvips image."""
    height, width, count = samples.shape
    dtype = samples.dtype.name
    memory = np.ascontiguousarray(samples).data.cast("B")
    image = pyvips.Image.new_from_memory(memory, width, height, count, BAND_FORMATS[dtype])
    return image.copy(interpretation=INTERPRETATIONS[count - (count % 2 == 0), dtype])


def _check_range(samples: np.ndarray, name: str) -> None:
    """Refuse floats that are no fractions of white: to clip them unasked would lose what they mean."""
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= 1):  # NaN, too, comes out of min() and max()
        raise ImageError(
            f"cannot read {name}: its floats lie between {low:g} and {high:g}; scale them to 0 to 1 first"
        )


def broken(name: str, format: str, reason: str) -> ImageError:
    """Phrase that a file is no image of its format."""
    return ImageError(
        f"cannot read {name}: its {format} data is broken, cut short or of a rare kind ({reason}); "
        "try another copy, or save it as PNG in an image editor"
    )
