"""Let libvips write to files of Python, and complete these files."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

import pyvips

from mambair_cli.images.metadata import describe_tiff
from mambair_cli.images.tiff import restate_extra_samples


def save_to(file: Any, operation: str, image: Any, options: dict[str, Any]) -> None:
    """Let libvips write to a file of Python, and raise the file's own errors."""
    errors: list[BaseException] = []

    def guard(action: Callable[..., Any], failed: Any) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return action(*arguments)
            except BaseException as error:  # must not pass through C
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


class Front:
    """Holds the beginning of a file back until it can be completed, and passes on the rest."""

    def __init__(
        self, file: BinaryIO, complete: Callable[[bytes], bytes], is_ready: Callable[[bytes], bool]
    ) -> None:
        self._file = file
        self._complete = complete
        self._is_ready = is_ready
        self._held: bytes | None = b""

    def write(self, data: Any) -> int:
        """Take the file's next bytes."""
        if self._held is None:
            self._file.write(data)
        else:
            self._held += bytes(data)
            if self._is_ready(self._held):
                self.flush()
        return len(data)

    def flush(self) -> None:
        """Complete and pass on what is held back."""
        if self._held is not None:
            self._file.write(self._complete(self._held))
            self._held = None


def name_extra_samples(file: BinaryIO, kinds: tuple[int, ...]) -> None:
    """Write into a TIFF file of what kinds the samples beside its colours are."""
    with _written(file) as data:
        changes = restate_extra_samples(data, kinds)
    for at, value in changes:
        file.seek(at)
        file.write(value)


@contextmanager
def _written(file: BinaryIO) -> Iterator[bytes | mmap]:
    """Look at what has been written."""
    file.flush()
    if isinstance(file, io.BytesIO):
        yield file.getvalue()
        return
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def describe_tiff_file(file: BinaryIO, exif: bytes) -> None:
    """Add EXIF to a TIFF file that is finished otherwise."""
    with _written(file) as data:
        head, tail = describe_tiff(data, exif)
    file.seek(0, io.SEEK_END)
    file.write(tail)
    file.seek(0)
    file.write(head)
