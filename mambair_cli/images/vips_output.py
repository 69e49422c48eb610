"""Let libvips write to Python files, and patch these files."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

from mambair_cli.images.libvips import pyvips
from mambair_cli.images.metadata import add_exif_directories
from mambair_cli.images.picture import Header
from mambair_cli.images.tiff import restate_extra_samples
from mambair_cli.images.tiff_resolution import restate_tiff_resolution


def save_to(file: Any, operation: str, image: Any, options: dict[str, Any]) -> None:
    """Let libvips write to a Python file, and raise the file's own errors."""
    errors: list[BaseException] = []

    def guard(action: Callable[..., Any], failed: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except BaseException as error:  # exceptions must not pass through C
                errors.append(error)
                return failed

        return call

    target = pyvips.TargetCustom()
    target.on_write(guard(file.write, -1))
    if isinstance(image, pyvips.Image) and operation == "tiffsave":
        target.on_read(guard(file.read, None))
        target.on_seek(guard(file.seek, -1))
    try:
        pyvips.Operation.call(f"{operation}_target", image, target, **options)
    except pyvips.Error:
        if errors:
            raise errors[0] from None
        raise
    if errors:
        raise errors[0]


class HeaderPatcher:
    """Holds back the start of a file until it can be patched, and passes on the rest."""

    def __init__(
        self, file: BinaryIO, complete: Callable[[bytes], bytes], is_ready: Callable[[bytes], bool]
    ) -> None:
        self._file = file
        self._complete = complete
        self._is_ready = is_ready
        self._held: bytes | None = b""

    def write(self, data: Any) -> int:
        """Write the next bytes of the file."""
        if self._held is None:
            self._file.write(data)
        else:
            self._held += bytes(data)
            if self._is_ready(self._held):
                self.flush()
        return len(data)

    def flush(self) -> None:
        """Patch and pass on the bytes that are held back."""
        if self._held is not None:
            self._file.write(self._complete(self._held))
            self._held = None


def label_extra_samples(file: BinaryIO, kinds: tuple[int, ...]) -> None:
    """Set the kinds of the extra samples in a TIFF file."""
    with _written(file) as data:
        changes = restate_extra_samples(data, kinds)
    _change(file, changes)


def set_resolutions(file: BinaryIO, header: Header) -> None:
    """Set the resolutions of the pages of a TIFF file; see :func:`restate_tiff_resolution`."""
    with _written(file) as data:
        resolutions = [(each.dpi, each.density) for each in (header.metadata, *header.pages[1:])]
        changes = restate_tiff_resolution(data, resolutions)
    _change(file, changes)


def _change(file: BinaryIO, changes: Sequence[tuple[int, bytes]]) -> None:
    """Write bytes at offsets."""
    for at, value in changes:
        file.seek(at)
        file.write(value)


@contextmanager
def _written(file: BinaryIO) -> Iterator[bytes | mmap]:
    """Give read access to the bytes that were written."""
    file.flush()
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def add_exif_to_tiff(
    file: BinaryIO, exif: bytes | None, others: Sequence[tuple[bytes | None, bytes | None]]
) -> None:
    """Add EXIF and XMP to the pages of a finished TIFF file; see :func:`add_exif_directories`."""
    with _written(file) as data:
        head, tail = add_exif_directories(data, exif, others)
    file.seek(0, io.SEEK_END)
    file.write(tail)
    file.seek(0)
    file.write(head)
