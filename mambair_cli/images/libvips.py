"""Call libvips with nothing printed on stderr, and with its reason in each error."""

import atexit
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyvips

from mambair_cli.images.temporary import explain_unkept, find_temporary_folder, restore_error
from mambair_cli.system.wording import show

_logger = logging.getLogger("pyvips")  # has a handler that prints nothing
_LOG_DOMAINS = (b"VIPS", b"GLib", b"GLib-GObject")
_FULL = ("vips_tracked: out of memory", "glib: Error creating thread")
# The system did not let libvips keep an image in a file of its own, which ends in ".v".
_UNSTORED = re.compile(
    r"(?:VipsImage: unable to (?:write to|open) \"(?P<path>[^\n]*)[/\\][^\n]*\.v\"|\w+: write failed)\n"
    r"\w+ error: (?!Success)(?P<reason>.*)"
)
_ALL_LEVELS = 0xFF  # GLib's flags, from fatal to debug


pyvips.cache_set_max(0)  # nothing is computed twice here, and a cache would only hold memory


class LibvipsError(Exception):
    """libvips failed; the message is its reason, in one line."""


@contextmanager
def explained(room: int | None = None) -> Iterator[None]:
    """Run libvips, and turn its errors into :class:`LibvipsError`.

    libvips keeps one list of reasons for all threads: the reason may come from another thread's call.

    Args:
        room: Bytes that it may keep in a temporary file; None where that is not known.

    Raises:
        LibvipsError: libvips failed.
        MemoryError: It found no memory, for an image or for the stack of a thread.
        ShortageError: It could not write a temporary file.
    """
    pyvips.vips_lib.vips_error_clear()  # or warnings of an earlier call would be the reason
    try:
        yield
    except pyvips.Error as error:
        if unstored := _UNSTORED.match(error.detail or ""):
            cause = restore_error(unstored["reason"])
            raise explain_unkept(unstored["path"] or find_temporary_folder(), cause, room) from cause
        reason = _first_line(error.detail or error.message)
        raise (MemoryError if reason.startswith(_FULL) else LibvipsError)(reason) from error
    except UnicodeDecodeError as error:  # pyvips expects UTF-8, but some messages quote bytes of the file
        raise LibvipsError(_first_line(error.object.decode(errors="replace"))) from error


def _first_line(text: str) -> str:
    return show(text.strip().partition("\n")[0])


@pyvips.ffi.callback("GLogFunc")
def _log(domain: Any, level: int, message: Any, data: Any) -> None:
    """Log messages at debug level; what matters comes as an error."""
    _logger.debug("%s", pyvips.ffi.string(message).decode(errors="replace") if message else "")


# pyvips would fail on messages that are not UTF-8, and GLib would print its own.
for _domain in _LOG_DOMAINS:
    _handler = pyvips.glib_lib.g_log_set_handler(_domain, _ALL_LEVELS, _log, pyvips.ffi.NULL)
    # GLib must not call back into Python after it has ended.
    atexit.register(pyvips.glib_lib.g_log_remove_handler, _domain, _handler)
