"""Let libvips write to files of Python, and complete these files."""

import io
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

import pyvips

from mambair_cli.images.metadata import describe_tiff


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


def describe_tiff_file(file: BinaryIO, exif: bytes) -> None:
    """Add EXIF to a TIFF file that is finished otherwise."""
    file.flush()
    if isinstance(file, io.BytesIO):
        head, tail = describe_tiff(file.getvalue(), exif)
    else:
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            head, tail = describe_tiff(data, exif)
    file.seek(0, io.SEEK_END)
    file.write(tail)
    file.seek(0)
    file.write(head)
