"""Write the files of each format: a function for each row of ``images.formats``.

Such a function gets an image of libvips with the samples, the profile, XMP and IPTC that the file will have,
and what is patched into the file since libvips does not write it as wanted, such as EXIF.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from mambair_cli.images.avif_frames import write_avif_frames
from mambair_cli.images.file_patches import (
    complete_avif,
    complete_gif,
    complete_jpeg,
    complete_png,
    complete_webp,
    has_png_pixels,
    make_exif_placeholder,
)
from mambair_cli.images.libvips import pyvips
from mambair_cli.images.picture import Header
from mambair_cli.images.vips_output import (
    HeaderPatcher,
    add_exif_to_tiff,
    label_extra_samples,
    save_to,
    set_resolutions,
)
from mambair_cli.images.webp_frames import STAND_IN_MS, join_pages, restate_delays
from mambair_cli.images.xmp import restate_xmp

Write = Callable[[BinaryIO, Any, Header, int], None]
"""Called with the file, which is empty; the image; its header, with the EXIF of the file; and the quality."""

_JPEG_HEAD_BYTES = 64
_BIGTIFF_BYTES = 3 * 2**30  # offsets end at 4 GiB; the margin is for alpha and data that grows by compression
_STRAIGHT_ALPHA = 2  # TIFF's number of this kind of sample
_AVIF_BITS = 12
_KINDS = pyvips.enums.ForeignKeep
_KEPT = _KINDS.ICC | _KINDS.XMP | _KINDS.IPTC | _KINDS.OTHER  # not EXIF: libvips would invent a resolution


def _write_png(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    # Each line takes the better of the filters "sub" and "up". Without filters photographs take three times
    # the space; more filters save none and take twice the time. Measured: benchmarks/README.md.
    patcher = HeaderPatcher(file, lambda data: complete_png(data, header.metadata), has_png_pixels)
    save_to(patcher, "pngsave", image, {"keep": _KEPT, "compression": 4, "filter": 0x30})
    patcher.flush()


def _write_jpeg(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    def is_ready(data: bytes) -> bool:
        return len(data) >= _JPEG_HEAD_BYTES

    patcher = HeaderPatcher(file, lambda data: complete_jpeg(data, header.metadata), is_ready)
    save_to(patcher, "jpegsave", image, {"keep": _KEPT, "subsample_mode": "off", "Q": quality})
    patcher.flush()


def _write_webp(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    # exact: colours under transparent pixels are kept.
    options = {"keep": _KEPT, "exact": True, "smart_subsample": True, **_choose_loss(quality)}
    data = _encode_webp(image, header, options)
    if exif := header.metadata.exif:
        data = complete_webp(data, exif, header.width, header.height, header.has_alpha)
    file.write(data)


def _encode_webp(image: Any, header: Header, options: dict[str, Any]) -> bytes:
    if header.frames == 1:
        return _encode("webpsave", image, options)
    if header.delays is None:
        pages = _encode_pages(image, header, {**options, "keep": "none"})
        blocks = _read_blocks(image)
        size = header.width, header.height
        return join_pages(pages, size, header.has_alpha, blocks["icc_profile"], blocks["xmp"])
    image = image.copy()
    image.set_type(pyvips.GValue.array_int_type, "delay", [STAND_IN_MS] * header.frames)
    return restate_delays(_encode("webpsave", image, options), header.delays)


def _encode_pages(image: Any, header: Header, options: dict[str, Any]) -> Iterator[bytes]:
    """Encode each page for itself."""
    region = pyvips.Region.new(image)  # of rows that come once, in order
    for number in range(header.frames):
        rows = region.fetch(0, number * header.height, header.width, header.height)
        page = pyvips.Image.new_from_memory(rows, header.width, header.height, image.bands, image.format)
        yield _encode("webpsave", page.copy(interpretation=image.interpretation), options)


def _write_tiff(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    image = image.copy(xres=1, yres=1)  # set later: libvips knows no unit without a name, and has a limit
    size = image.width * image.height * image.bands * np.dtype(header.dtype).itemsize
    options = {
        "keep": _KEPT,
        "compression": "deflate",
        # Many readers support no predictor for floats.
        "predictor": "none" if header.dtype == "float32" else "horizontal",
        "resunit": "inch",
        "bigtiff": size > _BIGTIFF_BYTES,
    }
    save_to(file, "tiffsave", image, options)
    if header.masks:  # libvips labels all samples except colours as alpha
        label_extra_samples(file, ((_STRAIGHT_ALPHA,) * header.has_alpha) + header.masks)
    set_resolutions(file, header)
    if header.metadata.exif or header.pages:
        sides = header.width, header.height
        others = [(page.exif, page.xmp and restate_xmp(page.xmp, *sides)) for page in header.pages[1:]]
        add_exif_to_tiff(file, header.metadata.exif, others)


def _write_avif(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    exif = header.metadata.exif
    if header.frames > 1:
        samples = image.colourspace("srgb").numpy() if image.bands < 3 else image.numpy()
        frames = samples.reshape(header.frames, header.height, header.width, -1)
        blocks = {**_read_blocks(image), "exif": exif}
        file.write(write_avif_frames(frames, header.delays, header.loop, quality, blocks))
        return
    is_deep = header.dtype != "uint8"
    if is_deep:  # libvips takes the upper bits of 16
        steps, step = 2**_AVIF_BITS - 1, 2 ** (16 - _AVIF_BITS)
        deep = ((image * (steps / 65535)).rint() * step).cast("ushort")
        image = deep.copy(interpretation=image.interpretation)
    options = {
        "keep": _KEPT | _KINDS.EXIF if exif else _KEPT,
        "compression": "av1",
        "subsample_mode": "off",
        "bitdepth": _AVIF_BITS if is_deep else 8,
        **_choose_loss(quality),
    }
    if exif:
        image = image.copy()
        block = b"Exif\0\0" + make_exif_placeholder(exif)
        image.set_type(pyvips.GValue.blob_type, "exif-data", block)
    data = _encode("heifsave", image, options)
    file.write(complete_avif(data, exif) if exif else data)


def _write_gif(file: BinaryIO, image: Any, header: Header, quality: int) -> None:
    # A pixel whose colour moves by no more than 6 (of 256) is not drawn again: each frame has its own
    # palette, and what stands still would shimmer. All frames are kept, also those that are equal.
    options = {"keep": _KEPT, "interframe_maxerror": 6, "keep_duplicate_frames": True}
    file.write(complete_gif(_encode("gifsave", image, options), header.metadata.texts))


WRITERS: Mapping[str, Write] = MappingProxyType(
    {
        "png": _write_png,
        "jpeg": _write_jpeg,
        "webp": _write_webp,
        "tiff": _write_tiff,
        "avif": _write_avif,
        "gif": _write_gif,
    }
)


def _read_blocks(image: Any) -> dict[str, bytes | None]:
    """Return the profile and XMP that a file will have."""
    names = {"icc_profile": "icc-profile-data", "xmp": "xmp-data"}
    return {key: image.get(name) if image.get_typeof(name) else None for key, name in names.items()}


def _encode(operation: str, image: Any, options: dict[str, Any]) -> bytes:
    """Encode an image as one piece."""
    return pyvips.Operation.call(f"{operation}_buffer", image, **options)


def _choose_loss(quality: int) -> dict[str, Any]:
    """Return the options of formats that are lossless at the highest quality."""
    return {"lossless": True} if quality == 100 else {"Q": quality}
