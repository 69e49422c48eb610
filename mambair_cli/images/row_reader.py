"""Read the samples of an open image row by row."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError, ShortageError
from mambair_cli.images.libvips import LibvipsError, explained, pyvips
from mambair_cli.images.picture import BAND_FORMATS, INTERPRETATIONS, Header
from mambair_cli.images.samples import fit_range, widen

NO_END = "the mark of its end is missing"

_FORGIVING = ("jpeg", "png", "gif", "tiff")  # libvips decodes what comes before damage


@dataclass(frozen=True)
class Loaded:
    """An image that is ready to be decoded.

    Attributes:
        image: Image of libvips; rows below those of the header are decoded, too, but not returned.
        forgives: Whether damage causes only a warning and the rest is still read.
        warnings: Warnings so far.
        fault: What all rows lack, as a sentence; None if nothing is missing.
        place: Where damage is that is passed over, in words that follow "damaged".
    """

    image: Any
    forgives: bool = False
    warnings: tuple[str, ...] = ()
    fault: str | None = None
    place: str = ""


class Reader:
    """An image that is read row by row from the top; frames lie one below another.

    Most formats are decoded a few rows at a time; WebP, AVIF, interlaced PNG, progressive JPEG and formats
    that libvips does not read are decoded whole. An image that EXIF rotates is kept in memory or, above
    100 MB, in a file in the system's temporary folder.

    Attributes:
        header: Everything except the samples.
        is_whole: Whether all of it is in memory while rows are read.
        is_turned: Whether all of it is kept to be rotated, in memory or on the disk.
        warnings: Sentences about what is damaged or left out; more may come while rows are read.
    """

    def __init__(
        self,
        header: Header,
        load: Callable[[bool], Loaded],
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
        self._damage: str | None = None  # libvips' reason of damage that is forgiven
        self._loaded: Loaded | None = None
        self._region: Any = None
        self._rows = 0  # rows of the decoded image
        self._next = 0

    def read(self, top: int, bottom: int) -> np.ndarray:
        """Read rows; where they lie above the last ones, decoding starts again at the top.

        Returns:
            (bottom - top, width, samples), of the header's dtype, alpha and masks last.

        Raises:
            ImageError: The data is corrupt, or its floats are not in [0, 1].
            ShortageError: The picture is turned, and there is no room to keep it.
            ValueError: The picture has no such rows.
        """
        header = self.header
        if not 0 <= top < bottom <= header.height * header.frames:  # libvips would call the file corrupt
            raise ValueError(f"rows {top} to {bottom} of {header.height * header.frames}")
        try:
            with explained(self._room, header.format):
                if self._region is None or top < self._next:
                    self._begin()
                data = self._fetch(top, bottom)
        except ShortageError as error:
            raise ShortageError(f"cannot read {self._name}: {error}") from error.__cause__
        except LibvipsError as error:
            if self._damage is None and self._loaded is not None and self._loaded.forgives:
                self._damage = str(error)
                self.close()
                return self.read(top, bottom)
            if header.format == "png" and self.is_whole:
                raise ImageError(
                    f"cannot read {self._name}: it is an interlaced PNG file, damaged or cut short, "
                    "of which no rows can be saved; try another copy"
                ) from error
            reason = self._damage or str(error)
            raise corrupt_error(self._name, header.format, reason, self._has_rows()) from error
        self._next = bottom
        samples = np.frombuffer(data, header.dtype).reshape(
            bottom - top, header.width, header.samples_per_pixel
        )
        if header.dtype == "float32":
            rows = header.height * header.frames
            place = f" in rows {top + 1} to {bottom} of {rows}" if bottom - top < rows else ""
            samples, reason = fit_range(samples, place)
            if reason:
                raise ImageError(f"cannot read {self._name}: {reason}")
        elif self._bits < 16:
            samples = widen(samples, self._bits)
        return samples

    @property
    def is_damaged(self) -> bool:
        """Whether the rows so far had damage that was forgiven with a warning."""
        return self._damage is not None

    def warn(self, sentence: str) -> None:
        """Add a warning once, also when rows are read again."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def close(self) -> None:
        """Free the decoded image; reading starts again at the top."""
        self._region = self._loaded = None
        self._next = 0

    @property
    def _room(self) -> int:
        """Bytes that are kept: all of the picture as it is decoded, where it is turned, else none."""
        header = self.header
        if not self.is_turned:
            return 0
        samples = header.samples_per_pixel + header.is_from_cmyk
        return header.width * header.height * header.frames * samples * np.dtype(header.dtype).itemsize

    def _begin(self) -> None:
        """Start at the top."""
        self.close()
        self._loaded = loaded = self._load(self.is_damaged)  # a region does not keep its image alive
        for sentence in loaded.warnings:
            self.warn(sentence)
        if self._damage is not None:
            self.warn(f"damaged{loaded.place} ({self._damage.removeprefix('VipsJpeg: ')})")
        if loaded.fault and not loaded.forgives:
            raise LibvipsError(loaded.fault)
        self._rows = loaded.image.height
        self._region = pyvips.Region.new(loaded.image)

    def _fetch(self, top: int, bottom: int) -> Any:
        """Decode rows, and after the last ones the extra rows that show whether those were complete."""
        header = self.header
        data = self._region.fetch(0, top, header.width, bottom - top)
        if bottom == header.height * header.frames and self._rows > bottom:
            self._region.fetch(0, self._rows - 1, header.width, 1)
        return data

    def _has_rows(self) -> bool:
        """Tell whether a file gives rows where damage is forgiven; one of an unsupported kind gives none."""
        if self.is_damaged or self._loaded is None or self.header.format not in _FORGIVING:
            return False
        with suppress(LibvipsError), explained(self._room, self.header.format):
            pyvips.Region.new(self._load(True).image).fetch(0, 0, self.header.width, 1)
            return True
        return False


def wrap(samples: np.ndarray, bands: int) -> Any:
    """Wrap (h, w, c) samples as a libvips image; the first ``bands`` are gray or RGB."""
    height, width, count = samples.shape
    dtype = samples.dtype.name
    memory = np.ascontiguousarray(samples).data.cast("B")
    image = pyvips.Image.new_from_memory(memory, width, height, count, BAND_FORMATS[dtype])
    return image.copy(interpretation=INTERPRETATIONS[bands, dtype])


def leave_out(part: str) -> str:
    """Say that a part of a file other than its picture is not copied to the result."""
    return f"its {part} is left out"


def corrupt_error(name: str, format: str, reason: str, is_partial: bool = False) -> ImageError:
    """Return the error for a file that cannot be decoded.

    Args:
        name: Name of the file.
        format: Format of the file.
        reason: What is wrong, in a few words.
        is_partial: Whether ``--damaged`` would restore a part of it.
    """
    # Commands that only look at images have no such option, and give the same error.
    part = "--damaged of upscale, denoise and dejpeg restores what is there"
    remedy = part if is_partial else "save it as PNG in an image editor"
    return ImageError(
        f"cannot read {name}: its {format} data is corrupt, truncated or unsupported ({reason}); "
        f"try another copy, or {remedy}"
    )
