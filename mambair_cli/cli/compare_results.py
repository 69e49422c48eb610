"""Pages that compare the results of a run with its inputs: ``--compare`` of the restoring commands."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambair_cli.cli.browser import open_page
from mambair_cli.cli.compare import FOLDER, report_set
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.files import FileIds, identify_files
from mambair_cli.system.wording import as_argument

if TYPE_CHECKING:
    from mambair_cli.pages.screen import ScreenPicture
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.outcomes import Outcome


@dataclass
class ResultPages:
    """The pages of a run: one next to a single result, or a folder of them next to several.

    Attributes:
        jobs: The jobs of the run.
        replaced: Whether pages that exist are replaced.
        max_pixels: Largest number of pixels to read.
    """

    jobs: list["Job"]
    replaced: bool
    max_pixels: int
    _results: list[tuple[Path, Path, str]] = field(default_factory=list)  # input, result, model

    def check(self) -> None:
        """Refuse results that have no page, or whose page exists, before anything is computed.

        Raises:
            UsageError: They are such.
        """
        from mambair_cli.pages.document import check_page

        for job in self.jobs:
            if job.target is None or job.is_stream or job.source.path is None:
                raise UsageError(
                    f"--compare shows files, and {job.source} -> {job.place} is not from a file to a file; "
                    "leave it out"
                )
        inputs = self._identify_inputs()
        for page in {self._page_of(job) for job in self.jobs}:
            check_page(page, self.replaced, inputs, self._shown_in(page))

    def add(self, outcome: "Outcome", model: str | None) -> None:
        """Note a result; failures have no page.

        Args:
            outcome: What became of a job.
            model: Name of the usual model.
        """
        job, report = outcome.job, outcome.report
        if outcome.error is not None or job.source.path is None or job.target is None:
            return
        made_by = (report and report.model) or (report and model) or "the result"
        self._results.append((job.source.path, job.target, made_by))

    def write(self, as_json: bool, quiet: bool, opens: bool) -> int:
        """Write the pages; return the exit code.

        Args:
            as_json: Whether to print events in place of paths.
            quiet: Whether to print no warnings.
            opens: Whether to open a page, or an index, in the browser.
        """
        if not self._results:
            return 0
        try:
            write = self._write_one if len(self.jobs) == 1 else self._write_folders
            exit_code = write(as_json, quiet)
        except MambairError as error:
            complain(error)
            return error.exit_code
        if opens:
            open_page(self._page_of(self.jobs[0]))
        return exit_code

    def _identify_inputs(self) -> FileIds:
        return identify_files(job.source.path for job in self.jobs if job.source.path is not None)

    def _page_of(self, job: "Job") -> Path:
        """Return the page of a single result, or the index of the folder of several."""
        from mambair_cli.pages.document import name_page
        from mambair_cli.pages.folders import INDEX

        assert job.target is not None
        if len(self.jobs) == 1:
            return job.target.with_name(name_page(job.target.stem, "_compare.html"))
        return (job.root or job.target.parent) / FOLDER / INDEX

    def _shown_in(self, page: Path) -> list[Path]:
        """Return what a page shows: the picture and its result, or the folder of results."""
        job = self.jobs[0]
        if len(self.jobs) == 1 and job.source.path is not None and job.target is not None:
            return [job.source.path, job.target]
        return [page.parent.parent]

    def _write_one(self, as_json: bool, quiet: bool) -> int:
        from mambair_cli.pages.comparison import write_comparison
        from mambair_cli.pages.document import write_page
        from mambair_cli.pages.screen import tell_pictures

        page = self._page_of(self.jobs[0])
        source, target, made_by = self._results[0]
        pictures = self._read(source, target, made_by)
        document = write_comparison(pictures, files=self._shown_in(page))
        write_page(page, document, True, self._identify_inputs())
        warnings = tell_pictures([replace(picture, damage=()) for picture in pictures])  # the run printed it
        for sentence in () if quiet else warnings:
            say(f"warning: {sentence}")
        _print_page("compared", page, as_json, input=str(source), warnings=warnings)
        return 0

    def _write_folders(self, as_json: bool, quiet: bool) -> int:
        from mambair_cli.pages.folders import compare_sets

        pages = {job.target: self._page_of(job) for job in self.jobs}
        results: dict[Path, list[tuple[Path, Path, str]]] = {index: [] for index in pages.values()}
        for each in self._results:
            results[pages[each[1]]].append(each)
        inputs, exit_code = self._identify_inputs(), 0
        for index in sorted(results):
            folder = index.parent.parent
            sets = [
                (each[1].relative_to(folder).as_posix(), lambda each=each: self._read(*each))
                for each in results[index]
            ]
            title = folder.name or str(folder)
            shown = self._shown_in(index)
            for compared in compare_sets(sets, index.parent, title, True, inputs, shown):
                if compared.error is not None:
                    report_set(compared, as_json, quiet)
                    exit_code = max(exit_code, compared.error.exit_code)
            _print_page("index", index, as_json)
        return exit_code

    def _read(self, source: Path, target: Path, made_by: str) -> "list[ScreenPicture]":
        from mambair_cli.pages.screen import read_for_screen

        return [
            read_for_screen(source, source.name, self.max_pixels),
            read_for_screen(target, made_by, max_pixels=2**62),
        ]


def _print_page(event: str, page: Path, as_json: bool, **facts: Any) -> None:
    if as_json:
        print_event(event, **facts, page=as_argument(page))
    else:
        print(as_argument(page), flush=True)
