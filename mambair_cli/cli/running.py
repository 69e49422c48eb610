"""A run over images: its start, what becomes of each, and its end, as people and scripts are told of it."""

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.notices import explain_compression, explain_level, explain_quality
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.cli.summary import Summary
from mambair_cli.interrupts import cleaning_up

if TYPE_CHECKING:
    from mambair_cli.batch import Outcome
    from mambair_cli.catalog import Task
    from mambair_cli.cli.progress import Progress
    from mambair_cli.cli.services import Service
    from mambair_cli.discovery import Choice
    from mambair_cli.endpoints import Output
    from mambair_cli.jobs import Job, Source

_MADE_SMALLER = "made smaller without the network, which adds nothing at half the width and height or less"
EVENT_SCHEMA = 1  # of the JSON lines: docs/events.md; it grows when a line loses or changes what it tells


class Run:
    """A run over images: what is to be done, who does it, and what is told of it.

    Args:
        task: What is done.
        level: Noise sigma of 255, or JPEG quality, if it was given.
        sources: The images.
        choice: By which they were found.
        options: Of the command.
        output: How results are written.
    """

    def __init__(
        self,
        task: "Task",
        level: float | None,
        sources: list["Source"],
        choice: "Choice",
        options: Options,
        output: "Output",
    ) -> None:
        self._task: Task = task
        self._level, self._options, self._output = level, options, output
        self._sources, self._choice = sources, choice
        self._jobs: list[Job] | None = None
        self._exit_code = 0

    def name(self, scale: int) -> None:
        """Settle where each result goes, and say what is left out.

        Args:
            scale: Of the network.
        """
        from mambair_cli import jobs

        suffix = jobs.suffix_of(self._task, scale, self._output.size)
        is_list = self._options.from_file is not None
        left_out = self._choice.left_out
        self._jobs = jobs.name_targets(
            self._sources, self._options.output, suffix, self._options.format, is_list, left_out
        )
        if not self._options.quiet:
            for remark in self._choice.remarks():
                say(remark)

    def perform(self, scale: int | None) -> None:
        """Do it; without a model, where nothing can come of it whatever the model.

        Args:
            scale: Of the network, where it was asked for.
        """
        from mambair_cli import batch
        from mambair_cli.size import check_reach

        options, output = self._options, self._output
        failures = batch.foresee_failures(self._jobs, output) if self._jobs else None
        if failures is not None:
            self._tell(failures)
        else:
            from mambair_cli.cli.progress import Progress
            from mambair_cli.cli.services import open_service

            progress = Progress(shown=not options.quiet)
            service = open_service(self._task, scale, self._level, options, progress)
            with closing(service), cleaning_up():
                check_reach(output.size, service.scale)
                if self._jobs is None:
                    self.name(service.scale)
                work = self._jobs or []
                settings = batch.settings_of(service.computing, output)
                progress.expect([job.source for job in work])
                with (
                    progress,
                    closing(
                        batch.run_jobs(
                            work,
                            output,
                            settings,
                            service.perform,
                            options.fail_fast,
                            service.is_remote,
                            say if not options.quiet else lambda sentence: None,
                        )
                    ) as outcomes,
                    closing(service),  # before the journals: nobody writes without one
                ):
                    self._tell(outcomes, service, progress)
        if self._exit_code:
            raise typer.Exit(self._exit_code)

    def _tell(
        self,
        outcomes: Iterable["Outcome"],
        service: "Service | None" = None,
        progress: "Progress | None" = None,
    ) -> None:
        """Print what becomes of each image, and of all."""
        options, files = self._options, len(self._jobs or [])
        self._tell_start(service, files)
        summary, is_small_told = Summary(files), False
        for outcome in outcomes:
            summary.add(outcome)
            if progress is not None:
                progress.count(outcome)
            if outcome.error is not None:
                complain(outcome.error)
                self._exit_code = max(self._exit_code, outcome.error.exit_code)
            elif not options.quiet:
                if outcome.warnings:
                    say(f"warning: {outcome.job.source}: {'; '.join(outcome.warnings)}")
                if outcome.report and not len(outcome.report.plan) and not is_small_told:
                    is_small_told = True
                    say(f"{outcome.job.source}: {_MADE_SMALLER}")
            _print_outcome(outcome, service, options.json)
        if options.json:
            print_event("summary", **summary.facts())
        elif files > 1 and not options.quiet:
            say(str(summary))

    def _hint_at_real(self) -> list[str]:
        """Say that there are models for real pictures, where one is seen among the inputs."""
        hint = explain_compression(self._sources) if self._options.weights is None else None
        if hint and not self._options.quiet:
            say(hint)
        return [hint] if hint else []

    def _tell_start(self, service: "Service | None", files: int) -> None:
        """Say what restores the images, and what was left out of them."""
        notices = [service.notice] if service and service.notice else []
        if trap := explain_quality(self._task, self._options.quality, self._level):
            notices.append(trap)  # said before anything was loaded
        if service and self._task == "upscale" and self._options.model == "auto":
            notices += self._hint_at_real()
        if service and (remark := explain_level(self._task, self._level, service.model)):
            notices.append(remark)
            if not self._options.quiet:
                say(remark)
        if service and not self._options.quiet and not service.notice:
            say(f"using {service.model} on {service.place}")
        if self._options.json:
            print_event(
                "start",
                schema=EVENT_SCHEMA,
                model=service and service.model,
                weights=service and service.computing["weights"],
                device=service and service.place,
                files=files,
                notices=notices,
            )
            for facts in self._choice.left_out.facts():
                print_event("left_out", **facts)


def _print_outcome(outcome: "Outcome", service: "Service | None", as_json: bool) -> None:
    """Print what became of a job: a path, or an event."""
    job, report = outcome.job, outcome.report
    if outcome.error is not None:
        if as_json:
            kind = type(outcome.error).__name__
            print_event("failed", input=str(job.source), kind=kind, message=str(outcome.error))
    elif outcome.is_skipped:
        if as_json:
            print_event("skipped", input=str(job.source), output=job.place)
    elif as_json and job.target is not None and outcome.size and report and service:
        print_event(
            "done",
            input=str(job.source),
            output=job.place,
            model=service.model,
            scale=service.scale,
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
