"""The dry run of clips, printed: what a run would do with each, and what all of them would take."""

from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.clip_run import ClipRemarks
from mambair_cli.cli.dry_run import format_time, print_model, print_total, warn_of_disks, warn_of_wait
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import print_event, report_failure, say, warn_of_clip
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.files import is_stream
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.wording import format_bytes, show_count

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.inspection.need import Need
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.clip_forecast import ClipForecast
    from mambair_cli.runs.clip_plan import ClipJob
    from mambair_cli.runs.dry_run import RunModel
    from mambair_cli.video import ClipFacts, VideoOptions

_COPIES = 2  # of the pictures, while segments are joined


class ClipDryRun:
    """Foresees what a run over clips would do, and prints it.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        options: Options of the command.
        model: The model that the run would restore with.
    """

    def __init__(self, task: "Task", options: Options, model: "RunModel") -> None:
        self._options, self._model = options, model
        self._remarks = ClipRemarks(task, options)
        self._forecasts: list[ClipForecast] = []
        self._skipped = self._failed = self._exit_code = 0

    def perform(self, jobs: list["ClipJob"]) -> None:
        """Print what a run would do with each clip.

        Raises:
            UsageError: A clip is a pipe.
            typer.Exit: A clip would fail.
        """
        for job in jobs:
            if job.source is None or is_stream(job.source):
                name = "standard input" if job.source is None else str(job.source)
                raise UsageError(f"--dry-run cannot look at {name}: it can be read only once; name a file")
        print_model(self._model, len(jobs), "clip", self._options.json)
        for job in jobs:
            self._foresee(job)
        results = [(each.job.target, _COPIES * (each.disk or 0)) for each in self._forecasts]
        warn_of_disks((target, size) for target, size in results if target is not None)
        for job in jobs:
            folder, policy = job.journal_folder, job.policy
            if folder is not None and job.target is not None and (policy.resume or policy.keep_journal):
                warn_of_wait(folder, [job.target])
        if self._options.json or len(jobs) > 1:
            self._print_total()
        if self._exit_code:
            raise typer.Exit(self._exit_code)

    def _foresee(self, job: "ClipJob") -> None:
        """Print what restoring a clip would give and take."""
        from mambair_cli.runs.clip_forecast import foresee_clip

        options, name, place = self._options, str(job.job.source), job.job.place
        notify = (lambda sentence: None) if options.quiet else say

        def tell(
            facts: "ClipFacts", chosen: "Restorer", need: "Need | None", encoding: "VideoOptions | None"
        ) -> None:
            self._remarks.tell(job, facts, chosen, need, encoding is not None and bool(encoding.fields))

        try:
            with explaining_memory(name):
                forecast = foresee_clip(job, self._model, tell, notify)
        except MambairError as error:
            self._failed += 1
            self._exit_code = max(self._exit_code, error.exit_code)
            report_failure(name, error, options.json, "plan_failed")
            return
        if forecast is None:
            self._skipped += 1
            if options.json:
                print_event("plan_skipped", input=name, output=place)
            else:
                print(f"{name} -> {place}: done before")
            return
        self._forecasts.append(forecast)
        if not options.quiet:
            warn_of_clip(name, forecast.warnings)
        if options.json:
            _print_event(forecast)
        else:
            _print_line(forecast)

    def _print_total(self) -> None:
        """Print what all clips together would take."""
        from mambair_cli.runs.dry_run import Total

        made, devices = self._forecasts, self._model.devices
        seconds = [each.seconds for each in made if each.seconds is not None]
        trials = [each.trial.memory for each in made if each.trial is not None]
        network = max((memory for memory in trials if memory is not None), default=None)
        total = Total(
            memory=None,
            network_memory=None if network is None else network * len(devices),
            disk=sum(each.disk or 0 for each in made),
            seconds=round(sum(seconds) / len(set(devices)), 3) if len(seconds) == len(made) else None,
        )
        print_total(total, self._skipped, self._failed, self._options.json)


def _print_event(forecast: "ClipForecast") -> None:
    """Print a forecast as JSON."""
    print_event(
        "plan_clip",
        input=str(forecast.job.job.source),
        output=forecast.job.job.place,
        replaces=forecast.replaces,
        model=forecast.model,
        width=forecast.width,
        height=forecast.height,
        frames=forecast.facts.frames,
        resumed=forecast.resumed,
        codec=forecast.options and forecast.options.codec,
        disk=forecast.disk,
        seconds=None if forecast.seconds is None else round(forecast.seconds, 3),
        warnings=list(forecast.warnings),
    )


def _print_line(forecast: "ClipForecast") -> None:
    """Print a forecast for people."""
    job, options = forecast.job, forecast.options
    codec = ("images" if job.target else "a pipe") if options is None else options.codec
    size = "" if forecast.disk is None else f"about {format_bytes(forecast.disk)} on the disk, "
    frames = show_count(forecast.facts.frames or 0, "frame")
    done = f", {forecast.resumed} of them done before" if forecast.resumed else ""
    print(
        f"{job.job.source} -> {job.job.place}{' (replaced)' if forecast.replaces else ''}: {frames} of "
        f"{forecast.width}×{forecast.height}{done}, {codec}, by {forecast.model}, each from "
        f"{forecast.plan}; {size}{format_time(forecast.seconds)}"
    )
