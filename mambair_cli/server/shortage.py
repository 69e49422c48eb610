"""What the server itself lacks, space or open files, in contrast to the faults of images."""

import errno
from contextlib import suppress

from mambair_cli.errors import ImageError, MambairError, ServerError, ShortageError
from mambair_cli.server.log import say_seldom
from mambair_cli.system.file_errors import lacks_space

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

MOST_FILES = 4096  # that the server asks the system for

_MORE_FILES = "start it with a larger `ulimit -n`"


def raise_file_limit() -> None:
    """Let the process open more files, as far as the system allows it: systems begin with 256 or 1024."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def lacks_files(error: BaseException | None) -> bool:
    """Tell whether a process, or its system, had too many files open."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def explain_unstored(error: OSError) -> MambairError:
    """Phrase why the server did not get a temporary file written, and log it.

    Returns:
        A ServerError where it may work soon, a ShortageError where somebody has to see to it.
    """
    if lacks_files(error):
        say_seldom(f"an image is refused, since too many files are open; {_MORE_FILES}")
        return ServerError("the server has too many files open; try again later")
    remedy = "free some space for its temporary files"
    if error.errno == errno.EFBIG:
        remedy = "start it with a larger `ulimit -f`"
    elif not lacks_space(error):
        remedy = "see to its folder of temporary files"
    reason = f"{error.strerror or error}; {remedy}"
    say_seldom(f"cannot store an image: {reason}")
    return ShortageError(f"the server cannot store the image: {reason}")


def find_shortage(error: Exception) -> MambairError | None:
    """Return what the server lacked where that, and no image, caused an error; None if it did not.

    Args:
        error: The error of a request.
    """
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:  # causes may run in a circle
        if isinstance(cause, OSError):
            is_unwritten = isinstance(error, ImageError) and _lacks_disk(cause)
            if lacks_files(cause) or is_unwritten or isinstance(error, ShortageError):
                return explain_unstored(cause)
        seen.append(cause)
        cause = cause.__cause__
    return None


def tell_no_connections() -> None:
    """Log that no connection can be taken in."""
    say_seldom(f"no connection is taken in, since too many files are open; {_MORE_FILES}")


def _lacks_disk(error: OSError) -> bool:
    return lacks_space(error) or error.errno == errno.EFBIG
