"""An image as its file has it: what it is, its samples, its metadata."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# libvips' names for what the samples mean, by bands (alpha aside) and dtype.
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


COMMENT = "Comment"
"""The keyword of a text of which nothing else is known."""


class Text(NamedTuple):
    """A text that a file holds: a title, a comment, how it was made.

    Attributes:
        keyword: What it is, as PNG files name it; "Comment" for those of other files.
        text: In any number of lines.
        language: Its code, such as "de"; empty where it is not told.
        translated: The keyword in that language.
    """

    keyword: str
    text: str
    language: str = ""
    translated: str = ""


def decode_text(data: bytes) -> str:
    """Read a text of which nobody says how it is written: as UTF-8, or else as Latin-1."""
    data = data.rstrip(b"\0")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


@dataclass(frozen=True)
class Header:
    """All that is known of an image but its samples.

    Attributes:
        width: In pixels.
        height: In pixels, of one frame.
        bands: 1 gray, 3 RGB; alpha aside.
        dtype: uint8, uint16 or float32.
        has_alpha: Whether there is alpha, which is straight, not premultiplied.
        masks: Further samples of each pixel, after alpha, by TIFF's number of their kind: 0 for saved
            selections, spot colours and whatever else is neither colour nor alpha.
        format: Format of the file it came from, such as ``"png"``.
        frames: Pages of a document or frames of an animation, of one size.
        delays: Milliseconds that each frame is shown; None for pages.
        loop: How often an animation is shown; 0 for ever.
        icc: Colour profile that the pixels are in.
        exif: EXIF block from its byte order mark on; its orientation is 1, its thumbnail unlinked.
        xmp: XMP packet; its orientation is 1, too.
        iptc: IPTC in a block of Photoshop's, as JPEG files have it.
        dpi: Pixels per inch, horizontally and vertically, or None where the file does not tell.
        texts: Of the file, but for those that stand in EXIF, XMP or IPTC.
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
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[Text, ...] = ()

    @property
    def samples(self) -> int:
        """Count the samples of a pixel, alpha and masks among them."""
        return self.bands + self.has_alpha + len(self.masks)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image the right way up, in memory as a whole, with what is needed to write it back.

    Pixels and alpha have the depth of the file's type, whatever their values; floats lie in [0, 1]. Alpha
    is straight, not premultiplied.

    Attributes:
        pixels: (h, w, 1) gray or (h, w, 3) RGB; uint8, uint16 or float32.
        alpha: (h, w), of the same dtype, or None.
        format, icc, exif, xmp, iptc, dpi, texts: As in :class:`Header`.
        warnings: Sentences about what was damaged in its file or left out of it.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    format: str = "png"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[Text, ...] = ()
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse arrays that are no image."""
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
        """All but the samples."""
        height, width, bands = self.pixels.shape
        return Header(
            width=width,
            height=height,
            bands=bands,
            dtype=self.pixels.dtype.name,
            has_alpha=self.alpha is not None,
            format=self.format,
            icc=self.icc,
            exif=self.exif,
            xmp=self.xmp,
            iptc=self.iptc,
            dpi=self.dpi,
            texts=self.texts,
        )

    @property
    def samples(self) -> np.ndarray:
        """Pixels with alpha as their last band, (h, w, 1 to 4)."""
        if self.alpha is None:
            return self.pixels
        return np.concatenate([self.pixels, self.alpha[..., None]], axis=2)
