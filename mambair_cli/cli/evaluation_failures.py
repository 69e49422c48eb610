"""Images that ``evaluate`` cannot measure: each costs itself alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.output import report_failure

if TYPE_CHECKING:
    from mambair_cli.errors import MambairError
    from mambair_cli.quality.evaluate import ImagePair


@dataclass
class Failures:
    """Reports and counts failures.

    Attributes:
        as_json: Whether events are printed.
        count: Number of images that failed.
        exit_code: Exit code that follows; 0 without failures.
    """

    as_json: bool
    count: int = 0
    exit_code: int = 0

    def add(self, pair: "ImagePair", error: "MambairError") -> None:
        """Report a pair that cannot be measured."""
        self.count += 1
        self.exit_code = max(self.exit_code, error.exit_code)
        report_failure(str(pair.truth), error, self.as_json)

    def remark(self, measured: int) -> str:
        """Say of how many images a mean is, where some of them failed."""
        return f"  (of {measured} of {measured + self.count} images)" if self.count else ""

    def end(self) -> None:
        """End the command where an image has failed.

        Raises:
            typer.Exit: One has.
        """
        if self.exit_code:
            raise typer.Exit(self.exit_code)
