"""FFmpeg, by the package PyAV of the extra ``video``: its import, and its errors as one line."""

from types import ModuleType

from mambair_cli.errors import VideoError


def import_av() -> ModuleType:
    """Import PyAV.

    Raises:
        VideoError: It is not installed.
    """
    try:
        import av
        import av.filter
        import av.logging
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("av"):
            raise
        raise VideoError(
            "clips need the package av, which is missing; pip install 'mambair-cli[video]' brings it"
        ) from error
    return av


def first_line(error: BaseException) -> str:
    """Return the reason that FFmpeg gives for an error, in a few words."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split()).rstrip(".")
