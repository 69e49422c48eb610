"""The shape of every error: one line that says what failed, the value, and what would work."""

import re

import pytest

from mambair_cli.errors import ImageError


def assert_line(error: pytest.ExceptionInfo[ImageError], *parts: str) -> None:
    """Check that an error of an image has the shape, and that its line has these parts."""
    message = str(error.value)
    assert "\n" not in message
    assert re.fullmatch(r"cannot (read|write) .+: .+; .+", message)
    for part in parts:
        assert part in message


def is_one_line(stderr: str) -> bool:
    """Tell whether a command said one error, and nothing else."""
    return len(stderr.splitlines()) == 1 and stderr.startswith("mambair: error: ")
