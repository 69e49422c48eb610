"""The page of ``evaluate``: collected while images are measured, and written at the end."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mambair_cli.system.files import identify_files
from mambair_cli.system.wording import show_count

if TYPE_CHECKING:
    import numpy as np

    from mambair_cli.pages.evaluation import Measured
    from mambair_cli.quality.evaluate import Score


@dataclass
class EvaluationPage:
    """The page, if one was asked for.

    Attributes:
        path: File of the page; None for none.
        overwrite: Whether it replaces an existing one.
        inputs: The images that are measured, and their truth; never replaced.
        folders: What is measured, and the results or inputs where they are given: pages of others are kept.
    """

    path: Path | None
    overwrite: bool
    inputs: list[Path]
    folders: list[Path]
    _measured: list["Measured"] = field(default_factory=list)

    def add(
        self, score: "Score", given: "np.ndarray | None", image: "np.ndarray", truth: "np.ndarray"
    ) -> None:
        """Note an image that was measured; see ``quality.evaluate.OnMeasured``."""
        if self.path is None:
            return
        from mambair_cli.pages.evaluation import keep_image, note_image

        new = note_image(score.name, score.psnr, score.ssim, given, image, truth)
        keep_image(self._measured, new)

    def check(self) -> None:
        """Refuse a page in the place of another file, before anything is measured.

        Raises:
            UsageError: There is one, or the name or the folder cannot be that of a page.
        """
        if self.path is None:
            return
        from mambair_cli.pages.document import check_page

        check_page(self.path, self.overwrite, identify_files(self.inputs), self.folders, "--page")

    def write(self, truth: Path, mean: "Score", how: str, model: str | None) -> None:
        """Write the page.

        Args:
            truth: Folder of the ground truth.
            mean: Means of all images.
            how: What was compared, in words.
            model: Name of the model; None for finished images.

        Raises:
            ImageError: It cannot be written.
        """
        if self.path is None:
            return
        from mambair_cli.pages.document import write_page
        from mambair_cli.pages.evaluation import write_evaluation

        title = f"{truth.name or truth}: " + (model or "finished images")
        count = show_count(len(self._measured), "image")
        summary = f"{count}: {mean.psnr:.2f} dB, SSIM {mean.ssim:.4f} on average ({how})."
        document = write_evaluation(title, summary, self._measured, self.folders)
        write_page(self.path, document, self.overwrite, identify_files(self.inputs), "--page")
