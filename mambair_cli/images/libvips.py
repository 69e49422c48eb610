"""Call libvips with nothing printed on stderr, and with its reason in each error.

Other modules import pyvips from here, so that it is set up wherever it is used.
"""

import atexit
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyvips

from mambair_cli.images.temporary import (
    explain_unkept,
    find_temporary_folder,
    restore_error,
    try_to_keep,
)
from mambair_cli.system.wording import show

_logger = logging.getLogger("pyvips")  # has a handler that prints nothing
_LOG_DOMAINS = (b"VIPS", b"GLib", b"GLib-GObject")
_FULL = ("vips_tracked: out of memory", "glib: Error creating thread")
# The system did not let libvips keep an image in a file of its own, which ends in ".v".
_UNSTORED = re.compile(
    r"(?:VipsImage: unable to (?:write to|open) \"(?P<path>[^\n]*)[/\\][^\n]*\.v\"|\w+: write failed)\n"
    r"\w+ error: (?!Success)(?P<reason>.*)"
)
# How reasons begin that the loader of a format gives; those of other threads' files may be among them.
_LOADERS = {
    "avif": ("heif",),
    "gif": ("gif", "nsgif"),
    "jpeg": ("VipsJpeg", "jpegload"),
    "png": ("vipspng", "pngload", "spng"),
    "tiff": ("tiff2vips", "tiffload", "VipsJpeg"),
    "webp": ("webp",),
}
_NO_REASON = "libvips gives no reason"
_ALL_LEVELS = 0xFF  # GLib's flags, from fatal to debug


pyvips.cache_set_max(0)  # nothing is computed twice here, and a cache would only hold memory


class LibvipsError(Exception):
    """libvips failed; the message is its reason, in one line."""


@contextmanager
def explained(room: int | None = None, format: str | None = None) -> Iterator[None]:
    """Run libvips, and turn its errors into :class:`LibvipsError`.

    libvips keeps one list of reasons for all threads: they may come from another thread's call, and one's
    own may be gone. So a reason counts only if the loader of the format gives it, and a lack of room only if
    it is found here, too. What memory lacks, all threads lack.

    Args:
        room: Bytes that it may keep in a temporary file; None where that is not known.
        format: Format of the file that is read; None where all reasons count.

    Raises:
        LibvipsError: libvips failed.
        MemoryError: It found no memory, for an image or for the stack of a thread.
        ShortageError: It could not write a temporary file.
    """
    pyvips.vips_lib.vips_error_clear()  # or warnings of an earlier call would be the reason
    try:
        yield
    except pyvips.Error as error:
        detail = error.detail or ""
        if detail.startswith(_FULL):
            raise MemoryError(_find_reason(detail, None)) from error
        reason, unstored = _find_reason(detail or error.message, format), _UNSTORED.search(detail)
        if room is None and unstored:
            cause = restore_error(unstored["reason"])
            raise explain_unkept(unstored["path"] or find_temporary_folder(), cause, room) from cause
        if room and (unstored or reason is None) and (cause := try_to_keep(room)) is not None:
            raise explain_unkept(find_temporary_folder(), cause, room) from cause
        raise LibvipsError(reason or _NO_REASON) from error
    except UnicodeDecodeError as error:  # pyvips expects UTF-8, but some messages quote bytes of the file
        text = error.object.decode(errors="replace")
        raise LibvipsError(_find_reason(text, format) or _NO_REASON) from error


def _find_reason(text: str, format: str | None) -> str | None:
    """Return the first line, of a format the first one that its loader gives; None without such a line."""
    first = _LOADERS.get(format or "", "")
    lines = (line for line in text.splitlines() if line.strip() and line.startswith(first))
    return next((show(line.strip()) for line in lines), None)


@pyvips.ffi.callback("GLogFunc")
def _log(domain: Any, level: int, message: Any, data: Any) -> None:
    """Log messages at debug level; what matters comes as an error."""
    _logger.debug("%s", pyvips.ffi.string(message).decode(errors="replace") if message else "")


# pyvips would fail on messages that are not UTF-8, and GLib would print its own.
for _domain in _LOG_DOMAINS:
    _handler = pyvips.glib_lib.g_log_set_handler(_domain, _ALL_LEVELS, _log, pyvips.ffi.NULL)
    # GLib must not call back into Python after it has ended.
    atexit.register(pyvips.glib_lib.g_log_remove_handler, _domain, _handler)
