"""An image as its file holds it: header, samples and metadata."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mambair_cli.system.geometry import Wrap

# libvips' names for the meaning of samples, by bands (without alpha) and dtype.
INTERPRETATIONS = {
    (1, "uint8"): "b-w",
    (1, "uint16"): "grey16",
    (1, "float32"): "b-w",
    (3, "uint8"): "srgb",
    (3, "uint16"): "rgb16",
    (3, "float32"): "scrgb",
}
# libvips' names for the dtypes.
BAND_FORMATS = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}


ReadRows = Callable[[int, int], np.ndarray]
"""Called with the first row and the row after the last one; returns (n, w, samples), alpha and masks last."""

COMMENT = "Comment"
"""Keyword of a text that has no keyword of its own."""


class Text(NamedTuple):
    """A text in a file: a title, a comment, or how the picture was made.

    Attributes:
        keyword: Keyword as in PNG files; "Comment" for texts of other files.
        text: The text, of any number of lines.
        language: Code of the language, such as "de"; empty where unknown.
        translated: The keyword in that language.
    """

    keyword: str
    text: str
    language: str = ""
    translated: str = ""


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture, or of one of its pages, except the samples and what these mean.

    Attributes:
        exif: EXIF block from its byte order mark on; its orientation is 1, its thumbnail unlinked.
        xmp: XMP packet; its orientation is 1.
        iptc: IPTC in a Photoshop block, as in JPEG files; from such files with Photoshop's other resources.
        dpi: Pixels per inch, horizontal and vertical; None where the file has none.
        density: The same per a unit without a name, where there is no ``dpi``; in PNG and JPEG files only the
            ratio of the two has a meaning.
        texts: Texts of the file that are not in EXIF, XMP or IPTC.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    density: tuple[float, float] | None = None
    texts: tuple[Text, ...] = ()


def decode_text(data: bytes) -> str:
    """Decode a text of unknown encoding: as UTF-8, or else as Latin-1."""
    data = data.rstrip(b"\0")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@dataclass(frozen=True)
class Header:
    """Everything about an image except its samples.

    Attributes:
        width: Width, in pixels.
        height: Height of one frame, in pixels.
        bands: Number of colour bands: 1 gray, 3 RGB; alpha is not counted.
        dtype: uint8, uint16 or float32.
        has_alpha: Whether there is alpha; it is straight, not premultiplied.
        masks: Kinds of the samples of each pixel after alpha, as TIFF numbers them: 0 for saved selections,
            spot colours and everything else that is neither colour nor alpha.
        format: Format of the file it came from, such as ``"png"``.
        frames: Number of pages of a document or frames of an animation, all of one size.
        delays: Duration of each frame, in milliseconds; None for pages.
        loop: Number of times that an animation is shown; 0: without end.
        icc: Colour profile of the pixels.
        metadata: What the file says of the picture.
        pages: What each page says of itself, as its file has it; for the first one, ``metadata`` counts.
            Empty where the others say nothing of their own.
        left_out: Names of metadata that no result has, such as "georeferencing (GeoTIFF, GDAL)".
        unmoved: Names of measures in EXIF and XMP that tell of the picture as it was before it was turned.
        is_from_cmyk: Whether the file holds amounts of ink, of which colours were made.
    """

    width: int
    height: int
    bands: int
    dtype: str
    has_alpha: bool = False
    masks: tuple[int, ...] = ()
    format: str = "png"
    frames: int = 1
    delays: tuple[int, ...] | None = None
    loop: int = 0
    icc: bytes | None = None
    metadata: Metadata = Metadata()
    pages: tuple[Metadata, ...] = ()
    left_out: tuple[str, ...] = ()
    unmoved: tuple[str, ...] = ()
    is_from_cmyk: bool = False

    @property
    def samples_per_pixel(self) -> int:
        """Number of samples of a pixel, with alpha and masks."""
        return self.bands + self.has_alpha + len(self.masks)


class InputFrames(NamedTuple):
    """Frames of a result as they come from the network, before they are reduced.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        wrap: Directions in which their edges meet: a reduced edge is made from both sides, too.
    """

    width: int
    height: int
    wrap: Wrap = "none"

    def fit(self, header: Header) -> bool:
        """Tell whether they have the size of the file."""
        return (self.width, self.height) == (header.width, header.height)


@dataclass(frozen=True, eq=False)
class Picture:
    """A whole image in memory, upright, with everything that is needed to write it back.

    Pixels and alpha have the depth of the file's samples, whatever their values; floats are in [0, 1]. Alpha
    is straight, not premultiplied.

    Attributes:
        pixels: (h, w, 1) gray or (h, w, 3) RGB; uint8, uint16 or float32.
        alpha: (h, w), of the same dtype; None without transparency.
        format, icc, metadata: See :class:`Header`.
        warnings: Sentences about what was damaged in its file or left out of it.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = "png"
    icc: bytes | None = None
    metadata: Metadata = Metadata()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arrays of other shapes or types."""
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or 0 in shape or (shape[2], dtype.name) not in INTERPRETATIONS:
            raise ValueError(
                f"pixels are (h, w, 1) or (h, w, 3) of uint8, uint16 or float32, not {shape} of {dtype}"
            )
        alpha = self.alpha
        if alpha is not None and (alpha.shape != shape[:2] or alpha.dtype != dtype):
            raise ValueError(f"alpha is {shape[:2]} of {dtype} here, not {alpha.shape} of {alpha.dtype}")

    @property
    def header(self) -> Header:
        """Everything except the samples."""
        height, width, bands = self.pixels.shape
        return Header(
            width=width,
            height=height,
            bands=bands,
            dtype=self.pixels.dtype.name,
            has_alpha=self.alpha is not None,
            format=self.format,
            icc=self.icc,
            metadata=self.metadata,
        )

    @property
    def samples(self) -> np.ndarray:
        """Pixels with alpha as their last band, (h, w, 1 to 4)."""
        if self.alpha is None:
            return self.pixels
        return np.concatenate([self.pixels, self.alpha[..., None]], axis=2)
