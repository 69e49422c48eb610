"""Write pictures to image files: as a whole, or row after row as they come."""

import io
import threading
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips

from mambair_cli.errors import ImageError
from mambair_cli.images.avif_frames import write_avif_frames
from mambair_cli.images.background import Colour, is_gray
from mambair_cli.images.file_patches import (
    complete_avif,
    complete_gif,
    complete_jpeg,
    complete_png,
    complete_webp,
    has_png_pixels,
    hold_exif_place,
)
from mambair_cli.images.formats import CONTAINERS, fit_header, settle_format
from mambair_cli.images.libvips import LibvipsError, explained
from mambair_cli.images.metadata import add_iptc, restate_exif
from mambair_cli.images.picture import Header, Picture
from mambair_cli.images.resize_and_convert import finish, samples_wanted
from mambair_cli.images.row_stream import Feed, FeedClosedError
from mambair_cli.images.samples import from_float, to_float
from mambair_cli.images.vips_output import Front, describe_tiff_file, name_extra_samples, save_to
from mambair_cli.images.xmp import restate_xmp
from mambair_cli.system.files import open_atomic, show

DEFAULT_QUALITY = 95

_NO_DPI = (72, 72)  # what libvips, too, takes for granted where a file does not tell
_MM_PER_INCH = 25.4
_BIGTIFF_BYTES = 3 * 2**30  # offsets end at 4 GiB; the rest is for alpha and what does not compress
_SAMPLES_AT_ONCE = 2**22
_JPEG_HEAD_BYTES = 64
_STRAIGHT_ALPHA = 2  # as TIFF numbers the kinds of samples


def encode_picture(picture: Picture, format: str, quality: int | None = None) -> bytes:
    """Encode a picture as a file of the given format, metadata included.

    Samples deeper than the format holds are rounded to its deepest. Alpha is left out where it is opaque
    throughout and the format has none. Gray stays gray, except in WebP and AVIF, which have only RGB.

    Args:
        picture: What to encode.
        format: ``"png"``, ``"jpeg"`` (never subsampled), ``"webp"``, ``"tiff"`` (deflate), ``"avif"`` or
            ``"gif"``.
        quality: 1 to 100 for JPEG, WebP and AVIF, 95 if None; 100 is lossless for the last two. Others
            ignore it.

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
) -> None:
    """Write a picture to a file, whole or not at all, as :func:`encode_picture` and :func:`open_atomic` do.

    Args:
        picture: What to write.
        target: The file; its suffix names the format.
        overwrite: Replace the file if there is one.
        format: For a name whose suffix names none.
        quality: As for :func:`encode_picture`.

    Raises:
        ImageError: The picture does not fit the format, the format not the suffix, or the file cannot be
            written.
    """
    format = settle_format(target, format)
    header = fit_header(picture.header, format, show(target))
    with (
        open_atomic(target, overwrite=overwrite) as file,
        Writer(file, header, format, quality, show(target)) as writer,
    ):
        writer.write(0, picture.samples)
        writer.finish()


class Writer:
    """Encodes a picture from rows that come one after another, in a thread of its own.

    Args:
        file: To write to; to read from, too, for TIFF. Positioned at its start.
        header: From :func:`fit_header`.
        format: Of the file.
        quality: As for :func:`encode_picture`.
        name: Of the file, for errors.
        strip: Write sRGB in place of a profile.
        size: Width and height of the frames that come, where they are to be reduced to the header's.
        background: To be seen through what is transparent, where the format has no transparency.

    Attributes:
        dtype: In which rows are best given; others are rounded to it.

    Raises:
        ImageError: For a quality beyond 1 to 100.
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
        size: tuple[int, int] | None = None,
        background: Colour | None = None,
    ) -> None:
        quality = DEFAULT_QUALITY if quality is None else quality
        if not 1 <= quality <= 100:
            raise ImageError(f"cannot write {name}: the quality is {quality}; 1 to 100 works")
        self._file = file
        self._header = header
        self._format = format
        self._container = CONTAINERS[format]
        self._quality = quality
        self._name = name
        self._size = size or (header.width, header.height)
        if self._container.has_alpha or not header.has_alpha:
            background = None
        self._background = background
        has_gray = self._container.has_gray and (background is None or is_gray(background))
        convert = header.icc is not None and (
            strip or not self._container.has_profile or (not has_gray and header.icc[16:20] == b"GRAY")
        )
        self._to_srgb = convert
        self.dtype = samples_wanted(header, self._size, convert, background)
        has_alpha = header.has_alpha and (self._container.has_alpha or background is not None)
        self._extra = has_alpha + len(header.masks)
        exif = restate_exif(header.exif, header.width, header.height) if header.exif else None
        if header.iptc and format != "jpeg":
            exif = add_iptc(exif, header.iptc)
        self._exif = exif
        self._feed: Feed | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._rows = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def write(self, top: int, rows: np.ndarray) -> None:
        """Add rows, or begin anew with those of the top.

        Args:
            top: Number of the first row; frames lie one below the other.
            rows: (n, width, c), alpha and masks last; floats in [0, 1], or integers of whatever depth.
                They are rounded once.

        Raises:
            ImageError: The rows are transparent, and the format cannot be; or libvips fails.
            OSError: The file cannot be written.
        """
        if top == 0:
            self._start()
        if top != self._rows or self._feed is None:
            raise ValueError(f"row {top} came where row {self._rows} is the next one")
        at_once = max(1, _SAMPLES_AT_ONCE // (rows.shape[1] * rows.shape[2]))
        for start in range(0, len(rows), at_once):
            piece = rows[start : start + at_once]
            if self._header.bands + self._extra < piece.shape[2]:
                self._check_opaque(piece[..., -1])
                piece = piece[..., :-1]
            if piece.dtype != self.dtype:
                piece = from_float(to_float(piece), self.dtype)
            try:
                self._feed.put(piece)
            except FeedClosedError as error:
                self._raise_error()
                raise ValueError("libvips ended before the picture did") from error
        self._rows += len(rows)

    def finish(self) -> None:
        """Wait until everything is written."""
        if self._thread is None:
            raise ValueError("no row came")
        self._thread.join()
        self._raise_error()

    def _check_opaque(self, alpha: np.ndarray) -> None:
        opaque = 1 if alpha.dtype.kind == "f" else np.iinfo(alpha.dtype).max
        if alpha.min() < opaque:
            raise ImageError(
                f"cannot write {self._name}: {self._format} has no room for transparency; "
                "png, webp and tiff keep it, and --background white fills it"
            )

    def _raise_error(self) -> None:
        if isinstance(self._error, LibvipsError):
            raise ImageError(
                f"cannot write {self._name}: {self._error}; another format may work"
            ) from self._error
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        """Begin, or begin anew."""
        self._stop()
        self._file.seek(0)
        self._file.truncate()
        width, height = self._size
        self._feed = Feed(width, height * self._header.frames, self._header.bands, self._extra, self.dtype)
        self._thread = threading.Thread(target=self._encode, args=(self._feed,), name="mambair-encode")
        self._rows, self._error = 0, None
        self._thread.start()

    def _stop(self) -> None:
        if self._feed is not None and self._thread is not None:
            self._feed.close()
            self._thread.join()

    def _encode(self, feed: Feed) -> None:
        """Run libvips over what comes; this is the thread."""
        try:
            source = feed.source()  # to be held as long as libvips may call it
            with explained():
                image = pyvips.Operation.call("tiffload_source", source, access="sequential", fail_on="error")
                image = finish(
                    image,
                    self._header,
                    self._size,
                    self._to_srgb,
                    self._format,
                    self._background,
                    len(self._header.masks),
                )
                self._save(self._describe(image))
        except BaseException as error:  # the main thread raises it
            self._error = error
        finally:
            feed.close()

    def _describe(self, image: Any) -> Any:
        """Add what the file is to say beside its pixels, but for EXIF."""
        header = self._header
        x, y = header.dpi or _NO_DPI
        image = image.copy(xres=x / _MM_PER_INCH, yres=y / _MM_PER_INCH)
        blocks = {
            "icc-profile-data": None if self._to_srgb else header.icc,
            "xmp-data": restate_xmp(header.xmp, header.width, header.height) if header.xmp else None,
            "iptc-data": header.iptc if self._format == "jpeg" else None,
            "exif-data": b"Exif\0\0" + hold_exif_place(self._exif)
            if self._exif and self._format == "avif"
            else None,
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

    def _save(self, image: Any) -> None:
        header, container, format = self._header, self._container, self._format
        kept = pyvips.enums.ForeignKeep
        options = {"keep": kept.ICC | kept.XMP | kept.IPTC | kept.OTHER, **container.options}
        if format in ("webp", "avif") and self._quality == 100:
            options["lossless"] = True
        elif format in ("jpeg", "webp", "avif"):
            options["Q"] = self._quality
        if format == "tiff":
            # Of floats, many readers know no predictor.
            options["predictor"] = "none" if header.dtype == "float32" else "horizontal"
            size = image.width * image.height * image.bands * np.dtype(header.dtype).itemsize
            options["bigtiff"] = size > _BIGTIFF_BYTES
        elif format == "avif":
            options["keep"] |= kept.EXIF
            options["bitdepth"] = 8 if header.dtype == "uint8" else 12

        exif = self._exif
        save = f"{container.saver}save"
        if format == "avif" and header.frames > 1:
            self._file.write(self._encode_avif_frames(image))
            return
        if format in ("webp", "avif", "gif"):  # these come as a whole
            data: bytes = pyvips.Operation.call(f"{save}_buffer", image, **options)
            if format == "gif":
                data = complete_gif(data, header.texts)
            if exif and format == "webp":
                data = complete_webp(data, exif, header.width, header.height, has_alpha=image.bands > 3)
            elif exif and format == "avif":
                data = complete_avif(data, exif)
            self._file.write(data)
            return
        if format == "tiff":
            save_to(self._file, save, image, options)
            if header.masks:  # libvips takes all that is beside colours for alpha
                name_extra_samples(self._file, ((_STRAIGHT_ALPHA,) * header.has_alpha) + header.masks)
            if exif:
                describe_tiff_file(self._file, exif)
            return
        complete = complete_png if format == "png" else complete_jpeg
        ready = has_png_pixels if format == "png" else lambda data: len(data) >= _JPEG_HEAD_BYTES
        front = Front(self._file, lambda data: complete(data, exif, header.dpi, header.texts), ready)
        save_to(front, save, image, options)
        front.flush()

    def _encode_avif_frames(self, image: Any) -> bytes:
        header = self._header
        blocks = {"icc_profile": "icc-profile-data", "xmp": "xmp-data"}
        held = {key: image.get(name) if image.get_typeof(name) else None for key, name in blocks.items()}
        samples = image.colourspace("srgb").numpy() if image.bands < 3 else image.numpy()
        frames = samples.reshape(header.frames, header.height, header.width, -1)
        return write_avif_frames(frames, header.delays, self._quality, {**held, "exif": self._exif})
