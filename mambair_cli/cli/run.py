"""A run over images, and what it prints for people and scripts: its start, each image, its end."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.compare_results import ResultPages
from mambair_cli.cli.jobs import name_jobs, written_formats
from mambair_cli.cli.notices import (
    explain_end,
    explain_gone,
    explain_level,
    explain_look,
    explain_quality,
    explain_unused,
    name_better,
)
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, print_event, print_json, report_failure, say
from mambair_cli.cli.streams import ReaderGoneError
from mambair_cli.cli.summary import Summary
from mambair_cli.errors import ServerError, UsageError
from mambair_cli.system.signals import cleaning_up, stop_requests

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.cli.progress import Progress
    from mambair_cli.errors import ImageError
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.inspection.need import Need
    from mambair_cli.runs.arrivals import Arrivals
    from mambair_cli.runs.executors.protocol import Executor, ExecutorInfo
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.outcomes import Outcome
    from mambair_cli.runs.policy import RunPolicy
    from mambair_cli.runs.run import IsStopped, Perform, PreparedJob

_MADE_SMALLER = "made smaller without the network, which adds nothing at half the width and height or less"
MOST_EXPLAINED = 10  # images of a run up to which it is said what was seen of each
WAKE_SECONDS = 0.2  # after which a signal is seen while nothing is to do
EVENT_SCHEMA = 1  # of the JSON lines: docs/events.md; it grows when a line loses or changes what it tells


class Run:
    """A run over images: the jobs, who does them, and what is printed.

    Args:
        asked: What is asked for.
        sources: The images.
        output: How results are written.
        file_filter: Filter that found the images.
        options: Options of the command.
        policy: What the run may do.
    """

    def __init__(
        self,
        asked: "Asked",
        sources: list["Source"],
        output: "WriteOptions",
        file_filter: "FileFilter",
        options: Options,
        policy: "RunPolicy",
    ) -> None:
        self._asked, self._options, self._policy = asked, options, policy
        self._sources, self._output, self._file_filter = sources, output, file_filter
        self._jobs: list[Job] | None = None
        self._exit_code = 0
        self._summary = Summary(0)
        self._has_explained_smaller = False
        self._usual_model = ""
        self._notices: dict[str, str] = {}
        self._better: dict[str, str] = {}  # sentences that name a better model, by the model that is used
        self._explained: set[str] = set()
        self._unused: list[str] = []  # sentences about options without effect
        self._pages: ResultPages | None = None
        self._arrivals: Arrivals | None = None

    def watch(self, folders: list["Path"]) -> None:
        """Restore the images in folders, and those that arrive there, until Ctrl-C."""
        from mambair_cli.images.left_out import LeftOut
        from mambair_cli.runs.arrivals import Arrivals

        def make_filter() -> "FileFilter":
            return replace(self._file_filter, matched=set(), left_out=LeftOut())

        self._arrivals = Arrivals(folders, make_filter)
        self.perform()

    def name(self, scale: int) -> None:
        """Settle where each result goes, and say what is left out.

        Args:
            scale: Scale of the network.
        """
        self._jobs = name_jobs(
            self._asked.task, scale, self._sources, self._output, self._options, self._file_filter
        )
        if self._options.compare:
            policy = self._policy
            self._pages = ResultPages(self._jobs, policy.overwrite or policy.resume, policy.max_pixels)
            self._pages.check()
        if not self._options.quiet:
            for remark in self._file_filter.remarks():
                say(remark)
        self._tell_unused(self._jobs)

    def _tell_unused(self, jobs: "Iterable[Job]") -> None:
        """Say once which options of writing have no effect on results."""
        for sentence in explain_unused(self._options, written_formats(jobs)):
            if sentence not in self._unused:
                self._unused.append(sentence)
                if not self._options.quiet:
                    say(sentence)

    def perform(self) -> None:
        """Restore the images; no model is loaded where all of them fail whatever the model."""
        try:
            self._perform()
        except ReaderGoneError:
            if (sentence := explain_gone(self._summary)) is not None:
                say(sentence)
            raise

    def _perform(self) -> None:
        from mambair_cli.runs.run import foresee_failures

        options = self._options
        failures = foresee_failures(self._jobs, self._policy) if self._jobs else None
        if failures is not None:
            self._tell_start(None, len(failures))
            self._tell(failures)
        else:
            self._compute()
        if self._pages is not None:
            self._exit_code = max(
                self._exit_code, self._pages.write(options.json, options.quiet, options.open)
            )
        if options.json:
            print_event("summary", **self._summary.facts())
        elif self._summary.files > 1 and not options.quiet:
            say(str(self._summary))
            has_lost_server = bool(options.server) and self._exit_code == ServerError.exit_code
            for sentence in explain_end(self._summary, has_lost_server):
                say(sentence)
        if self._exit_code:
            raise typer.Exit(self._exit_code)

    def _compute(self) -> None:
        """Load the model, and restore the images."""
        from mambair_cli.cli.executors import open_executor
        from mambair_cli.cli.progress import Progress
        from mambair_cli.runs.output_size import check_reach

        options = self._options
        progress = Progress(
            not options.quiet,
            lambda image: self._explain(str(image.source), image.need, image.model),
            in_lines=not options.json,
        )
        executor = open_executor(self._asked, options, progress)
        with closing(executor), cleaning_up():
            info = executor.info
            self._usual_model, self._notices = info.model, dict(info.notices)
            if info.others and not options.offline:
                better = {
                    name: name_better(self._asked.task, name, info.place)
                    for name in (info.model, *info.others)
                }
                self._better = {name: sentence for name, sentence in better.items() if sentence is not None}
            check_reach(self._output.size, info.scale)
            if self._arrivals is not None:
                self._tell_start(info, 0)
                self._watch(self._arrivals, executor, progress)
                return
            if self._jobs is None:
                self.name(info.scale)
            jobs = self._jobs or []
            progress.expect([job.source for job in jobs])
            stops = self._policy.fail_fast and self._file_filter.left_out.unreadable
            outcomes = self._run([] if stops else jobs, info, executor.perform)
            # The executor ends before the journals: nobody writes without one.
            with progress, closing(outcomes), closing(executor):
                self._tell_start(info, len(jobs))
                self._tell(outcomes, info, progress)

    def _run(self, jobs: list["Job"], info: "ExecutorInfo", perform: "Perform") -> "Generator[Outcome]":
        from mambair_cli.runs.run import run_jobs

        notify = say if not self._options.quiet else lambda sentence: None
        return run_jobs(jobs, self._output, self._policy, info.fingerprint, perform, notify, info.scale)

    def _watch(self, arrivals: "Arrivals", executor: "Executor", progress: "Progress") -> None:
        """Restore what is in the folders and what arrives, until a signal or, with --fail-fast, a failure."""
        is_shown, fails_fast = not self._options.quiet, self._policy.fail_fast
        answer = "ending after the images that have begun; Ctrl-C again ends at once" if is_shown else None
        lost: set[Path] = set()
        printed: set[Path] = set()
        failed: set[str] = set()  # folders that could not be read at the last look
        if is_shown:
            say(f"watching {', '.join(map(str, arrivals.folders))}; Ctrl-C ends")
        with stop_requests(answer) as is_asked:

            def perform(jobs: "Iterable[PreparedJob]", is_stopped: "IsStopped") -> "Generator[Outcome]":
                return executor.perform(jobs, lambda: is_stopped() or is_asked())

            while not is_asked() and not (fails_fast and self._exit_code):
                complete = arrivals.take()
                for folder in arrivals.missing:
                    if folder not in lost and is_shown:
                        say(f"{folder} is gone; waiting for it to come back")
                lost = set(arrivals.missing)
                left_out = arrivals.file_filter.left_out
                unreadable = dict(left_out.failures())
                for name in unreadable.keys() - failed:
                    if Path(name) not in lost:
                        self._fail(name, unreadable[name])
                failed = set(unreadable)
                for what, paths in (("a clip", left_out.clips), ("a pipe or device", left_out.special)):
                    for path in paths if is_shown else ():
                        if path not in printed:
                            say(f"left out {what}: {path}; name it in a command of its own to restore it")
                    printed.update(paths)
                if complete:
                    self._restore_arrived(arrivals, set(complete), executor.info, perform, progress)
                _sleep(arrivals.pause, is_asked)

    def _restore_arrived(
        self,
        arrivals: "Arrivals",
        complete: "set[Source]",
        info: "ExecutorInfo",
        perform: "Perform",
        progress: "Progress",
    ) -> None:
        """Restore images that have arrived; names of results depend on the other images in the folders."""
        try:
            found, file_filter = arrivals.found, arrivals.file_filter
            named = name_jobs(self._asked.task, info.scale, found, self._output, self._options, file_filter)
        except UsageError as error:  # of the names; others may come
            complain(error)
            self._exit_code = max(self._exit_code, error.exit_code)
            return
        jobs = self._jobs = [job for job in named if job.source in complete]
        self._tell_unused(jobs)
        self._summary.expect(len(jobs))
        progress.expect([job.source for job in jobs])
        outcomes = self._run(jobs, info, perform)
        with progress, closing(outcomes):
            self._tell(outcomes, info, progress)

    def _tell(
        self,
        outcomes: Iterable["Outcome"],
        info: "ExecutorInfo | None" = None,
        progress: "Progress | None" = None,
    ) -> None:
        """Print what becomes of each image."""
        options = self._options
        printed: set[str] = set()  # errors: that of a folder is the same for all of its images
        for outcome in outcomes:
            self._summary.add(outcome, info and info.model)
            if self._pages is not None:
                self._pages.add(outcome, info and info.model)
            if progress is not None:
                progress.count(outcome)
            if outcome.error is not None:
                if str(outcome.error) not in printed:
                    complain(outcome.error)
                    printed.add(str(outcome.error))
                self._exit_code = max(self._exit_code, outcome.error.exit_code)
            elif not options.quiet:
                if outcome.warnings:
                    say(f"warning: {outcome.job.source}: {'; '.join(outcome.warnings)}")
                if outcome.report is not None:  # a server tells it only now
                    report = outcome.report
                    self._explain(str(outcome.job.source), report.need, report.model)
                if outcome.report and not len(outcome.report.plan) and not self._has_explained_smaller:
                    self._has_explained_smaller = True
                    say(f"{outcome.job.source}: {_MADE_SMALLER}")
            _print_outcome(outcome, info, options.json)

    def _explain(self, name: str, need: "Need | None", model: str | None) -> None:
        """Say once what was seen of an image, if that matters and the run has few images.

        Args:
            name: Name of the image.
            need: What was seen, and what the image needs; None where nobody looked.
            model: Name of the model that a look chose; None for the usual one.
        """
        if need is None or self._options.quiet:
            return
        if (notice := self._notices.pop(model or self._usual_model, None)) is not None:
            say(notice)
        if len(self._jobs or []) <= MOST_EXPLAINED and name not in self._explained:
            self._explained.add(name)
            used = model or self._usual_model
            if (sentence := explain_look(self._asked.task, need, used)) is not None:
                say(f"{name}: {sentence}")
            if need.kind == "real" and used in self._better:
                say(self._better.pop(used))

    def _tell_start(self, info: "ExecutorInfo | None", files: int) -> None:
        """Say what restores the images, and what was left out of them."""
        self._summary = Summary(files)
        notices = [info.notice] if info and info.notice else []
        notices += info.notices.values() if info else ()
        if info and (remark := explain_level(self._asked.task, self._asked.level, info.model)):
            notices.append(remark)
            if not self._options.quiet:
                say(remark)
        if info and not self._options.quiet and not info.notice:
            models = " or ".join((info.model, *info.others))
            say(f"using {models} on {info.place}" + (", by a look at each image" if info.others else ""))
        if trap := explain_quality(self._asked.task, self._options.quality, self._asked.level):
            notices.append(trap)  # said before anything was loaded
        notices += self._unused
        left_out = self._file_filter.left_out
        if self._options.json:
            print_event(
                "start",
                schema=EVENT_SCHEMA,
                model=info and info.model,
                other_models=list(info.others) if info else [],
                weights=info and info.fingerprint.weights,
                device=info and info.place,
                files=files + len(left_out.unreadable),
                notices=notices,
            )
            for facts in left_out.facts():
                print_event("left_out", **facts)
        for name, error in left_out.failures():
            self._fail(name, error)

    def _fail(self, folder: str, error: "ImageError") -> None:
        """Count and report a folder that cannot be read."""
        self._summary.fail_folder(folder)
        self._exit_code = max(self._exit_code, error.exit_code)
        report_failure(folder, error, self._options.json)


def _sleep(seconds: float, is_asked: Callable[[], bool]) -> None:
    """Sleep, and wake up soon after a stop was asked for."""
    end = time.monotonic() + seconds
    while not is_asked() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, WAKE_SECONDS))


def _print_outcome(outcome: "Outcome", info: "ExecutorInfo | None", as_json: bool) -> None:
    """Print what became of a job: the path of a new result, or an event."""
    if as_json:
        from mambair_cli.runs.outcomes import describe

        print_json(describe(outcome, info and info.model, info and info.scale))
    elif outcome.error is None and not outcome.is_skipped and outcome.job.target is not None:
        print(outcome.job.place, flush=True)
