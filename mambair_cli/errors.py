"""The errors that a user can cause or fix; every other error is a bug.

A message is one line, ``what failed: the value; what would work``. The command line prints it after
``mambair: error:`` and exits with the class's ``exit_code``.
"""

from collections.abc import Mapping


class MambairError(Exception):
    """An error that its message explains."""

    exit_code = 1


class ImageError(MambairError):
    """An image cannot be read or written."""


class NoRoomError(ImageError):
    """The format of a result has no room for what the picture has."""


class VideoError(MambairError):
    """A clip cannot be read or written."""


class OutputError(MambairError):
    """Standard output cannot be written."""


class UsageError(MambairError):
    """The request is impossible or contradicts itself."""

    exit_code = 2


class ModelError(MambairError):
    """There is no model for the request.

    Attributes:
        remedies: More that would work, by the option that it needs; commands that have the option tell it.
    """

    exit_code = 3

    def __init__(self, message: str, remedies: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.remedies = remedies or {}


class DownloadError(ModelError):
    """A checkpoint cannot be downloaded, or is the wrong file."""


class CheckpointError(ModelError):
    """A file is not a checkpoint of a supported network."""


class ServerError(MambairError):
    """A server does not answer, or answers wrongly."""

    exit_code = 3


class ShortageError(MambairError):
    """There is no space for an image, on a server or in the temporary folder: no fault of the image."""


class MemoryLimitError(MambairError):
    """The device's memory cannot hold even the smallest tile, a step of training, or what else is needed."""

    exit_code = 4
