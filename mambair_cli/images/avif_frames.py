"""Read and write animated AVIF with Pillow, since libvips does neither."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.iso_boxes import Box, find_box, find_in_track, read_boxes
from mambair_cli.images.lazy_image import LazyImage
from mambair_cli.images.picture import Metadata
from mambair_cli.images.tiff_directories import ORIENTATION

_HIGH_DEPTH = 0x40  # a flag in the third byte of a codec's configuration
_FOLDERS = ((b"moov",), (b"trak",), (b"mdia", b"edts"))  # by how deep they lie
_DATED = (b"mvhd", b"tkhd", b"mdhd")
_DURATIONS = {b"mvhd": 24, b"tkhd": 28}  # where it is in the form of 64 bits
_SHORT_DURATION = 20  # the same for tkhd, in the form of 32 bits
_TRACK, _TABLE = (b"moov", b"trak", b"mdia"), (b"minf", b"stbl", b"stts")
_REPEATS = 1  # a flag of the edit list
_MOST_TIMES = 2**16 - 1  # as often as GIF and WebP can tell
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
    if image.getexif().get(ORIENTATION, 1) != 1:
        raise ImageError(f"cannot read {name}: its frames are rotated; split it into single images")

    def load() -> np.ndarray:
        return np.concatenate([np.array(image) for _ in _decode_frames(image)])

    configuration = find_in_track(data, b"av1C")
    is_deep = configuration is not None and data[configuration.start + 2] & _HIGH_DEPTH
    return LazyImage(
        (image.height, image.width, len(image.mode)),
        "uint8",
        load,
        frames=image.n_frames,
        delays=_read_delays(data, image.n_frames),
        loop=_read_loop(data),
        icc=image.info.get("icc_profile"),
        metadata=Metadata(exif=image.info.get("exif"), xmp=image.info.get("xmp")),
        warnings=("its frames have more than 8 bits per sample and are read with 8",) if is_deep else (),
    )


def write_avif_frames(
    frames: Sequence[np.ndarray],
    delays: Sequence[int] | None,
    loop: int,
    quality: int,
    blocks: dict[str, bytes | None],
) -> bytes:
    """Encode an animation.

    Args:
        frames: (h, w, 3 or 4) uint8 each.
        delays: Duration of each frame, in milliseconds; None for the usual one.
        loop: Number of times that it is shown; 0: without end.
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
    return _restate_times(file.getvalue(), loop)


def _restate_times(data: bytes, loop: int) -> bytes:
    """Tell in a file how often it is shown, and set its dates to zero: the same frames give the same bytes.

    Args:
        data: File of libavif, which repeats without end; Pillow has no option for that.
        loop: Number of times that it is shown; 0: without end. A file of libavif before 1.0, which has no
            list of edits, stays without.

    Source: ISO/IEC 14496-12, 8.2.2, 8.3.2 and 8.6.6.
    """
    changed = bytearray(data)
    boxes = list(_read_times(data, 0, len(data)))
    once = next((_read_edit(data, start)[0] for kind, start, _ in boxes if kind == b"elst"), 0)
    for kind, start, _ in boxes:
        if kind in _DATED:
            length = 16 if data[start] else 8  # twice 64 bits, or twice 32, behind a version and flags
            changed[start + 4 : start + 4 + length] = bytes(length)
        if kind in _DURATIONS and loop and once:
            struct.pack_into(">Q", changed, start + _DURATIONS[kind], once * loop)
        if kind == b"elst" and loop == 1:
            changed[start + 3] &= ~_REPEATS
    return bytes(changed)


def _read_loop(data: bytes) -> int:
    """Return how often an animation is shown; 0: without end, also where the file does not tell it.

    Source: ISO/IEC 14496-12, 8.3.2 and 8.6.6.
    """
    try:
        every = list(_read_times(data, 0, len(data)))
        boxes = {box.kind: box.start for box in reversed(every)}  # the first of each kind
        if b"elst" not in boxes:
            return 0
        once, repeats = _read_edit(data, boxes[b"elst"])
        start = boxes[b"tkhd"]
        form, at = (">Q", _DURATIONS[b"tkhd"]) if data[start] else (">I", _SHORT_DURATION)
        (total,) = struct.unpack_from(form, data, start + at)
    except (struct.error, IndexError, KeyError):
        return 0
    if not repeats:
        return 1
    is_endless = not once or total == 2 ** (8 * struct.calcsize(form)) - 1
    return 0 if is_endless else min(max(-(-total // once), 1), _MOST_TIMES)


def _read_delays(data: bytes, count: int) -> tuple[int, ...]:
    """Return the durations of frames in milliseconds, without decoding any.

    Frames that have none get that of the one before, as in libavif, or else the usual one.

    Source: ISO/IEC 14496-12, 8.4.2 and 8.6.1.2.
    """
    delays: list[int] = []
    last = _USUAL_MS
    header, table = (find_box(data, _TRACK + path, 0, len(data)) for path in ((b"mdhd",), _TABLE))
    if header is not None and table is not None:
        with suppress(struct.error, IndexError, ZeroDivisionError):
            (scale,) = struct.unpack_from(">I", data, header.start + (20 if data[header.start] else 12))
            (entries,) = struct.unpack_from(">I", data, table.start + 4)
            for at in range(table.start + 8, table.start + 8 + 8 * min(entries, count), 8):
                number, ticks = struct.unpack_from(">II", data, at)
                last = round(1000 * ticks / scale)
                delays += [last] * min(number, count - len(delays))
                if len(delays) == count:
                    break
    return (*delays, *[last] * (count - len(delays)))


def _read_times(
    data: bytes, start: int, end: int, folders: Sequence[Sequence[bytes]] = _FOLDERS
) -> Iterator[Box]:
    """Yield the boxes that may tell a date or a duration, in the order of the file."""
    for box in read_boxes(data, start, end):
        if folders and box.kind in folders[0]:
            yield from _read_times(data, box.start, box.end, folders[1:])
        else:
            yield box


def _read_edit(data: bytes, start: int) -> tuple[int, bool]:
    """Return the duration of the first edit in a list, and whether it is repeated."""
    (once,) = struct.unpack_from(">Q" if data[start] else ">I", data, start + 8)
    return once, bool(data[start + 3] & _REPEATS)


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
