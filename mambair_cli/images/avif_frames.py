"""Read and write animated AVIF with Pillow, since libvips does neither."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.iso_boxes import find_box, find_in_track, read_boxes
from mambair_cli.images.lazy_image import LazyImage

_ORIENTATION = 0x0112
_HIGH_DEPTH = 0x40  # a flag in the third byte of a codec's configuration
_FOLDERS, _DATED = (b"moov", b"trak", b"mdia"), (b"mvhd", b"tkhd", b"mdhd")
_USUAL_MS = 100  # duration of a frame whose file gives none


def is_avif_animated(data: Any) -> bool:
    """Tell whether an AVIF file holds a sequence of more than one image."""
    if find_box(data, (b"moov",), 0, len(data)) is None:
        return False
    try:
        return _open(bytes(data)).n_frames > 1
    except (OSError, SyntaxError, ValueError, RuntimeError):
        return True  # libvips would read only the first image of a truncated file


def read_avif_frames(data: bytes, name: str) -> LazyImage:
    """Read the header of an animated AVIF file.

    Args:
        data: Bytes of the file.
        name: Name of the file, for errors.

    Raises:
        ImageError: Its frames are rotated.
    """
    image = _open(data)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        raise ImageError(f"cannot read {name}: its frames are rotated; split it into single images")
    delays = []
    for _ in _decode_frames(image):
        delays.append(round(image.info.get("duration", _USUAL_MS)))

    def load() -> np.ndarray:
        return np.concatenate([np.array(image) for _ in _decode_frames(image)])

    configuration = find_in_track(data, b"av1C")
    is_deep = configuration is not None and data[configuration.start + 2] & _HIGH_DEPTH
    return LazyImage(
        (image.height, image.width, len(image.mode)),
        "uint8",
        load,
        frames=image.n_frames,
        delays=tuple(delays),
        icc=image.info.get("icc_profile"),
        exif=image.info.get("exif"),
        xmp=image.info.get("xmp"),
        warnings=("its frames have more than 8 bits per sample and are read with 8",) if is_deep else (),
    )


def write_avif_frames(
    frames: Sequence[np.ndarray], delays: Sequence[int] | None, quality: int, blocks: dict[str, bytes | None]
) -> bytes:
    """Encode an animation.

    Args:
        frames: (h, w, 3 or 4) uint8 each.
        delays: Duration of each frame, in milliseconds; None for the usual one.
        quality: 1 to 100.
        blocks: Profile, EXIF and XMP, by the names that Pillow gives them.
    """
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    file = BytesIO()
    first.save(
        file,
        "AVIF",
        save_all=True,
        append_images=others,
        duration=list(delays or [_USUAL_MS] * len(frames)),
        quality=quality,
        subsampling="4:4:4",
        autotiling=False,  # the file would depend on the number of processors
        **{key: block for key, block in blocks.items() if block},
    )
    return _forget_times(file.getvalue())


def _forget_times(data: bytes) -> bytes:
    """Set the dates in a file to zero, so that the same frames give the same bytes."""
    changed = bytearray(data)
    pending = list(read_boxes(data, 0, len(data)))
    while pending:
        kind, start, end = pending.pop()
        if kind in _FOLDERS:
            pending += read_boxes(data, start, end)
        elif kind in _DATED:
            length = 16 if data[start] else 8  # twice 64 bits, or twice 32, behind a version and flags
            changed[start + 4 : start + 4 + length] = bytes(length)
    return bytes(changed)


def _decode_frames(image: Any) -> Iterator[int]:
    """Decode one frame after another.

    Raises:
        ValueError: A frame is corrupt.
    """
    for frame in range(image.n_frames):
        try:
            image.seek(frame)
            image.load()
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        yield frame


def _open(data: bytes) -> Any:
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile(BytesIO(data))
