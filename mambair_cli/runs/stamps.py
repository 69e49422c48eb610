"""What changes with a file: known without reading it, or by its content."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mambair_cli.system.files import hash_of
from mambair_cli.video import name_frame


class Stamp(NamedTuple):
    """What changes with a file, without reading it: its size in bytes, and its time in nanoseconds."""

    size: int
    mtime_ns: int


def stamp_of(path: Path, images: int | None = None) -> Stamp:
    """Return what changes with a file, or with numbered images.

    Args:
        path: The file, or the pattern of the images.
        images: Number of images; None for a file.

    Returns:
        Size and time; of images the sum of the sizes, and in place of a time a number made from all of them.

    Raises:
        OSError: There is no such file, or one of the images is missing.
    """
    if images is None:
        status = path.stat()
        return Stamp(status.st_size, status.st_mtime_ns)
    stamps = [stamp_of(name_frame(path, number)) for number in range(images)]
    digest = hashlib.sha256(repr(stamps).encode()).digest()
    return Stamp(sum(stamp.size for stamp in stamps), int.from_bytes(digest[:7], "big"))


def find_stamp(path: Path | None) -> Stamp | None:
    """Return what changes with a file; None where there is none, or nothing may be known of it."""
    with suppress(OSError):
        return stamp_of(path) if path else None
    return None


def hash_result(path: Path, images: int | None = None) -> str:
    """Return the SHA-256 of a file, in hexadecimal; of numbered images, that of their hashes in order.

    Args:
        path: The file, or the pattern of the images.
        images: Number of images; None for a file.

    Raises:
        OSError: There is no such file, or one of the images is missing.
    """
    if images is None:
        return hash_of(path)
    digest = hashlib.sha256()
    for number in range(images):
        digest.update(hash_of(name_frame(path, number)).encode())
    return digest.hexdigest()
