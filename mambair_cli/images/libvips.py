"""Call libvips without a word on stderr, and with an error's own reason."""

import atexit
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyvips

from mambair_cli.system.files import show

_logger = logging.getLogger("pyvips")  # has a handler that says nothing
_LOG_DOMAINS = (b"VIPS", b"GLib", b"GLib-GObject")
_ALL_LEVELS = 0xFF  # GLib's flags, from fatal to debug


pyvips.cache_set_max(0)  # nothing is asked for twice, and what is cached is held


class LibvipsError(Exception):
    """libvips refused; the message is its reason, in one line."""


@contextmanager
def explained() -> Iterator[None]:
    """Run libvips, and turn its errors into :class:`LibvipsError`.

    libvips keeps one record of reasons for all threads: with several at work, the reason may be another's.
    """
    pyvips.vips_lib.vips_error_clear()  # else the warnings of an earlier call would be the reason
    try:
        yield
    except pyvips.Error as error:
        raise LibvipsError(_first_line(error.detail or error.message)) from error
    except UnicodeDecodeError as error:  # pyvips takes messages for UTF-8, but some quote a broken file
        raise LibvipsError(_first_line(error.object.decode(errors="replace"))) from error


def _first_line(text: str) -> str:
    return show(text.strip().partition("\n")[0])


@pyvips.ffi.callback("GLogFunc")
def _log(domain: Any, level: int, message: Any, data: Any) -> None:
    """Log for those who look for it: what matters comes as an error."""
    _logger.debug("%s", pyvips.ffi.string(message).decode(errors="replace") if message else "")


# pyvips would stumble over messages that are not UTF-8, and GLib print its own.
for _domain in _LOG_DOMAINS:
    _handler = pyvips.glib_lib.g_log_set_handler(_domain, _ALL_LEVELS, _log, pyvips.ffi.NULL)
    # After Python has ended, nothing must call back into it.
    atexit.register(pyvips.glib_lib.g_log_remove_handler, _domain, _handler)
