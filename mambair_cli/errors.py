"""The errors a user can cause or mend; everything else that escapes is a bug of ours.

A message is one line, ``what failed: the value; what would work``. The command line prints it after
``mambair: error:`` and exits with the class's ``exit_code``.
"""


class MambairError(Exception):
    """Something went wrong that its message explains."""

    exit_code = 1


class ImageError(MambairError):
    """An image cannot be read or written."""


class OutputError(MambairError):
    """Standard output cannot be written."""


class UsageError(MambairError):
    """The request itself makes no sense."""

    exit_code = 2


class ModelError(MambairError):
    """No model can be had for the request."""

    exit_code = 3


class DownloadError(ModelError):
    """A checkpoint cannot be fetched or is not the file it should be."""


class CheckpointError(ModelError):
    """A file is not a checkpoint of a network known here."""


class ServerError(MambairError):
    """A server does not answer, or not as it should."""

    exit_code = 3


class MemoryLimitError(MambairError):
    """The device's memory does not hold even the smallest tile."""

    exit_code = 4
