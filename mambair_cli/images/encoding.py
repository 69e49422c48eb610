"""Write pictures to image files: whole, or row by row as the rows come."""

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.errors import ImageError, NoRoomError
from mambair_cli.images.background import Colour, is_gray
from mambair_cli.images.formats import DEFAULT_QUALITY, FORMATS, Format, settle_format
from mambair_cli.images.libvips import LibvipsError, explained, pyvips
from mambair_cli.images.metadata import add_iptc, restate_exif
from mambair_cli.images.photoshop import find_paths
from mambair_cli.images.picture import Header, InputFrames, Picture
from mambair_cli.images.plain_alpha import PlainAlpha
from mambair_cli.images.resize_and_convert import FrameReducer, choose_input_dtype, resize_and_convert
from mambair_cli.images.room import explain_transparency, fit_header
from mambair_cli.images.row_stream import RowStream, RowStreamClosedError
from mambair_cli.images.samples import from_float, to_float
from mambair_cli.images.writers import WRITERS
from mambair_cli.images.xmp import restate_xmp
from mambair_cli.system.files import open_atomic
from mambair_cli.system.wording import show

_NO_DPI = (72, 72)  # is taken out again
_MM_PER_INCH = 25.4
_SAMPLES_AT_ONCE = 2**22


def encode_picture(picture: Picture, format: str, quality: int | None = None) -> bytes:
    """Encode a picture as a file of a format, with its metadata.

    Samples deeper than the format allows are rounded to its largest depth. Alpha is left out if all pixels
    are opaque and the format has no alpha. Gray stays gray, except in formats that have only RGB.

    Args:
        picture: Picture to encode.
        format: Format of the file, such as ``"png"``.
        quality: Quality, 1 to 100, of formats that have one; None for the default.

    Raises:
        ImageError: The format cannot be written, or has no room for the picture's size, alpha or metadata.
    """
    name = f"the image as {format}"
    file = io.BytesIO()
    with Writer(file, fit_header(picture.header, format, name), format, quality, name) as writer:
        writer.write(0, picture.samples)
        writer.finish()
    return file.getvalue()


def write_picture(
    picture: Picture,
    target: Path,
    *,
    overwrite: bool = False,
    format: str | None = None,
    quality: int | None = None,
    temporary: Path | None = None,
) -> None:
    """Write a picture to a file, complete or not at all; see :func:`encode_picture` and :func:`open_atomic`.

    Args:
        picture: Picture to write.
        target: The file; its suffix names the format.
        overwrite: Whether to replace an existing file.
        format: Format of a file whose suffix names none.
        quality: See :func:`encode_picture`.
        temporary: Its name while it is written, on the same disk; None for one next to it.

    Raises:
        ImageError: The picture does not fit the format, the format not the suffix, or the file cannot be
            written.
    """
    format = settle_format(target, format)
    header = fit_header(picture.header, format, show(target))
    with (
        open_atomic(target, temporary, overwrite=overwrite) as file,
        Writer(file, header, format, quality, show(target)) as writer,
    ):
        writer.write(0, picture.samples)
        writer.finish()


class Writer:
    """Encodes a picture from rows that come one after another, in its own thread.

    Args:
        file: File to write; for TIFF it is read, too. Its position is its start.
        header: Header from :func:`fit_header`.
        format: Format of the file.
        quality: See :func:`encode_picture`.
        name: Name of the file, for errors.
        strip: Whether to convert to sRGB instead of keeping a profile.
        frames: The frames as they come, if they are to be reduced to the header's size.
        background: Colour behind transparent pixels, where the format has no transparency.

    Attributes:
        dtype: Type of the rows that need no conversion; others are rounded to it.

    Raises:
        ImageError: The quality is not from 1 to 100.
    """

    def __init__(
        self,
        file: BinaryIO,
        header: Header,
        format: str,
        quality: int | None,
        name: str,
        *,
        strip: bool = False,
        frames: InputFrames | None = None,
        background: Colour | None = None,
    ) -> None:
        quality = DEFAULT_QUALITY if quality is None else quality
        if not 1 <= quality <= 100:
            raise ImageError(f"cannot write {name}: the quality is {quality}; 1 to 100 works")
        row = FORMATS[format]
        self._file = file
        self._paths = find_paths(header.metadata.iptc) if row.has_paths and not row.has_iptc else b""
        self._header = header = _restate(header, row)
        self._format = format
        self._quality = quality
        self._name = name
        self._frames = frames or InputFrames(header.width, header.height)
        if row.has_alpha or not header.has_alpha:
            background = None
        self._background = background
        has_gray = row.has_gray and (background is None or is_gray(background))
        convert = header.icc is not None and (
            strip or not row.has_profile or (not has_gray and header.icc[16:20] == b"GRAY")
        )
        self._to_srgb = convert
        self.dtype = choose_input_dtype(header, self._frames, convert, background)
        has_alpha = header.has_alpha and (row.has_alpha or background is not None)
        self._extra = has_alpha + len(header.masks)
        self._reducer: FrameReducer | None = None
        self._plain: PlainAlpha | None = None
        if not self._frames.fit(header) and header.frames > 1:
            self._reducer = FrameReducer(header, self._frames, header.bands + self._extra)
            self._frames = InputFrames(header.width, header.height)
        elif not self._frames.fit(header) and has_alpha:
            self._plain = PlainAlpha(header, self._frames)
        self._stream: RowStream | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._rows = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def write(self, top: int, rows: np.ndarray) -> None:
        """Add the next rows, or start again with the first ones.

        Args:
            top: Number of the first row; frames lie one below another.
            rows: (n, width, c), alpha and masks last; floats in [0, 1], or integers of any depth. They are
                rounded once.

        Raises:
            ImageError: The rows are transparent and the format has no transparency, or libvips fails.
            OSError: The file cannot be written.
        """
        if top == 0:
            self._start()
        if top != self._rows or self._stream is None:
            raise ValueError(f"row {top} came where row {self._rows} is the next one")
        at_once = max(1, _SAMPLES_AT_ONCE // (rows.shape[1] * rows.shape[2]))
        for start in range(0, len(rows), at_once):
            piece = rows[start : start + at_once]
            if self._header.bands + self._extra < piece.shape[2]:
                self._check_opaque(piece[..., -1])
                piece = piece[..., :-1]
            if piece.dtype != self.dtype:
                piece = from_float(to_float(piece), self.dtype)
            if self._plain is not None:
                self._plain.note(top + start, piece[..., self._header.bands])
            try:
                for ready in (piece,) if self._reducer is None else self._reducer.take(piece):
                    self._stream.put(ready)
            except RowStreamClosedError as error:
                self._raise_error()
                raise ValueError("libvips stopped before the last row") from error
        self._rows += len(rows)

    def finish(self) -> None:
        """Wait until the file is complete.

        Raises:
            ImageError: libvips fails.
            OSError: The file cannot be written.
        """
        if self._thread is None:
            raise ValueError("no row came")
        self._thread.join()
        self._raise_error()

    def _check_opaque(self, alpha: np.ndarray) -> None:
        opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        if alpha.min() < opaque:
            raise NoRoomError(f"cannot write {self._name}: {explain_transparency(self._format)}")

    def _raise_error(self) -> None:
        if isinstance(self._error, LibvipsError):
            raise ImageError(
                f"cannot write {self._name}: {self._error}; another format may work"
            ) from self._error
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        """Start, or start again."""
        self._stop()
        self._file.seek(0)
        self._file.truncate()
        width, height, _ = self._frames
        self._stream = RowStream(
            width, height * self._header.frames, self._header.bands, self._extra, self.dtype
        )
        thread = threading.Thread(target=self._encode, args=(self._stream,), name="mambair-encode")
        self._rows, self._error = 0, None
        for notes in filter(None, (self._plain, self._reducer)):
            notes.forget()
        thread.start()  # where its stack has no room, there is no thread to wait for
        self._thread = thread

    def _stop(self) -> None:
        if self._stream is not None and self._thread is not None:
            self._stream.close()
            self._thread.join()

    def _encode(self, stream: RowStream) -> None:
        """Have libvips encode the rows; this runs in the thread."""
        try:
            source = stream.source()  # must live as long as libvips may call it
            with explained():
                image = pyvips.Operation.call("tiffload_source", source, access="sequential", fail_on="error")
                image = resize_and_convert(
                    image,
                    self._header,
                    self._frames,
                    self._to_srgb,
                    self._background,
                    len(self._header.masks),
                    self._plain,
                )
                WRITERS[self._format](self._file, self._describe(image), self._header, self._quality)
        except BaseException as error:  # the main thread raises it
            self._error = error
        finally:
            stream.close()

    def _describe(self, image: Any) -> Any:
        """Add the metadata of the file, except EXIF."""
        header = self._header
        x, y = header.metadata.dpi or _NO_DPI
        image = image.copy(xres=x / _MM_PER_INCH, yres=y / _MM_PER_INCH)
        blocks = {
            "icc-profile-data": None if self._to_srgb else header.icc,
            "xmp-data": header.metadata.xmp,
            "iptc-data": header.metadata.iptc,
            "photoshop-data": self._paths,
        }
        for field, block in blocks.items():
            if block:
                image.set_type(pyvips.GValue.blob_type, field, block)
            elif image.get_typeof(field):
                image.remove(field)
        if header.frames > 1:
            image.set_type(pyvips.GValue.gint_type, "page-height", header.height)
            if header.delays:
                image.set_type(pyvips.GValue.array_int_type, "delay", list(header.delays))
                image.set_type(pyvips.GValue.gint_type, "loop", header.loop)
        return image


def _restate(header: Header, row: Format) -> Header:
    """Return the header of a file with metadata that tell its size, and with IPTC where the format has it."""
    size, metadata = (header.width, header.height), header.metadata
    exif = restate_exif(metadata.exif, *size) if metadata.exif else None
    if metadata.iptc and not row.has_iptc:
        exif = add_iptc(exif, metadata.iptc)
    xmp = restate_xmp(metadata.xmp, *size) if metadata.xmp else None
    metadata = replace(metadata, exif=exif, xmp=xmp, iptc=metadata.iptc if row.has_iptc else None)
    return replace(header, metadata=metadata)
