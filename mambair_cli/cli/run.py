"""A run over images: its start, what becomes of each, and its end, as people and scripts are told of it."""

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.notices import explain_level, explain_quality
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.cli.parts import Part
from mambair_cli.cli.summary import Summary
from mambair_cli.system.signals import cleaning_up

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.cli.progress import Progress
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.runs.executors.protocol import ExecutorInfo
    from mambair_cli.runs.job_files import Output
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.run import Outcome

_MADE_SMALLER = "made smaller without the network, which adds nothing at half the width and height or less"
EVENT_SCHEMA = 1  # of the JSON lines: docs/events.md; it grows when a line loses or changes what it tells


class Run:
    """A run over images: what is to be done, who does it, and what is told of it.

    Args:
        task: What is done.
        level: Noise sigma of 255, or JPEG quality, if it was given.
        parts: The images, by the model for them.
        choice: By which they were found.
        options: Of the command.
        output: How results are written.
    """

    def __init__(
        self,
        task: "Task",
        level: float | None,
        parts: list[Part],
        choice: "FileFilter",
        options: Options,
        output: "Output",
    ) -> None:
        self._task: Task = task
        self._level, self._options, self._output = level, options, output
        self._parts, self._choice = parts, choice
        self._jobs: list[Job] | None = None
        self._exit_code = 0
        self._summary: Summary | None = None
        self._is_small_told = False

    def name(self, scale: int) -> None:
        """Settle where each result goes, and say what is left out.

        Args:
            scale: Of the network.
        """
        from mambair_cli.runs import jobs

        suffix = jobs.suffix_of(self._task, scale, self._output.size)
        is_list = self._options.from_file is not None
        left_out = self._choice.left_out
        sources = [source for part in self._parts for source in part.sources]
        self._jobs = jobs.name_targets(
            sources, self._options.output, suffix, self._options.format, is_list, left_out
        )
        if not self._options.quiet:
            for remark in self._choice.remarks():
                say(remark)

    def perform(self) -> None:
        """Do it; without a model, where nothing can come of it whatever the model."""
        from mambair_cli.runs import run

        options = self._options
        failures = run.foresee_failures(self._jobs, self._output) if self._jobs else None
        if failures is not None:
            self._tell_start(None, len(failures), self._parts[0])
            self._tell(failures)
        else:
            for part in self._parts:
                if not (options.fail_fast and self._exit_code):
                    self._perform_part(part)
        if options.json and self._summary is not None:
            print_event("summary", **self._summary.facts())
        elif len(self._jobs or []) > 1 and not options.quiet:
            say(str(self._summary))
        if self._exit_code:
            raise typer.Exit(self._exit_code)

    def _perform_part(self, part: Part) -> None:
        """Load the model of a part, and restore its images."""
        from mambair_cli.cli.executors import open_executor
        from mambair_cli.cli.progress import Progress
        from mambair_cli.runs import run
        from mambair_cli.runs.output_size import check_reach

        if self._jobs is not None and not part.pick(self._jobs):  # all are results of others
            return
        options, output = part.options, part.output
        if part.remark and not options.quiet:
            say(part.remark)
        progress = Progress(shown=not options.quiet)
        executor = open_executor(self._task, part.scale, self._level, options, progress)
        with closing(executor), cleaning_up():
            info = executor.info
            check_reach(output.size, info.scale)
            if self._jobs is None:
                self.name(info.scale)
            everything = self._jobs or []
            work = part.pick(everything)
            settings = run.settings_of(info.computing, output)
            progress.expect([job.source for job in work])
            with (
                progress,
                closing(
                    run.run_jobs(
                        work,
                        output,
                        settings,
                        executor.perform,
                        options.fail_fast,
                        info.is_remote or len(everything) > 1,
                        say if not options.quiet else lambda sentence: None,
                    )
                ) as outcomes,
                closing(executor),  # before the journals: nobody writes without one
            ):
                self._tell_start(info, len(everything), part)
                self._tell(outcomes, info, progress)

    def _tell(
        self,
        outcomes: Iterable["Outcome"],
        info: "ExecutorInfo | None" = None,
        progress: "Progress | None" = None,
    ) -> None:
        """Print what becomes of each image."""
        options = self._options
        for outcome in outcomes:
            if self._summary is not None:
                self._summary.add(outcome)
            if progress is not None:
                progress.count(outcome)
            if outcome.error is not None:
                complain(outcome.error)
                self._exit_code = max(self._exit_code, outcome.error.exit_code)
            elif not options.quiet:
                if outcome.warnings:
                    say(f"warning: {outcome.job.source}: {'; '.join(outcome.warnings)}")
                if outcome.report and not len(outcome.report.plan) and not self._is_small_told:
                    self._is_small_told = True
                    say(f"{outcome.job.source}: {_MADE_SMALLER}")
            _print_outcome(outcome, info, options.json)

    def _tell_start(self, info: "ExecutorInfo | None", files: int, part: Part) -> None:
        """Say what restores the images of a part; for the first, also what was left out of them all."""
        notices = [info.notice] if info and info.notice else []
        notices += [part.remark] if info and part.remark else []
        if info and (remark := explain_level(self._task, self._level, info.model)):
            notices.append(remark)
            if not self._options.quiet:
                say(remark)
        if info and not self._options.quiet and not info.notice:
            say(f"using {info.model} on {info.place}")
        facts = {
            "model": info and info.model,
            "weights": info and info.computing["weights"],
            "device": info and info.place,
        }
        is_first = self._summary is None
        if is_first:
            self._summary = Summary(files)
            if trap := explain_quality(self._task, self._options.quality, self._level):
                notices.append(trap)  # said before anything was loaded
        if not self._options.json:
            return
        if not is_first:
            print_event("model", **facts, notices=notices)
            return
        print_event("start", schema=EVENT_SCHEMA, **facts, files=files, notices=notices)
        for left_out in self._choice.left_out.facts():
            print_event("left_out", **left_out)


def _print_outcome(outcome: "Outcome", info: "ExecutorInfo | None", as_json: bool) -> None:
    """Print what became of a job: a path, or an event."""
    job, report = outcome.job, outcome.report
    if outcome.error is not None:
        if as_json:
            kind = type(outcome.error).__name__
            print_event("failed", input=str(job.source), kind=kind, message=str(outcome.error))
    elif outcome.is_skipped:
        if as_json:
            print_event("skipped", input=str(job.source), output=job.place)
    elif as_json and job.target is not None and outcome.size and report and info:
        print_event(
            "done",
            input=str(job.source),
            output=job.place,
            model=info.model,
            scale=info.scale,
            width=outcome.size[0],
            height=outcome.size[1],
            reduced=outcome.reduced,
            tiles=len(report.plan),
            tile=[report.plan.tile_width, report.plan.tile_height],
            overlap=report.plan.overlap,
            shrunk=report.shrunk,
            seconds=round(outcome.seconds, 3),
            peak_memory=outcome.peak_memory,
            sha256=outcome.sha256,
            warnings=list(outcome.warnings),
        )
    elif job.target is not None:
        print(job.target, flush=True)
