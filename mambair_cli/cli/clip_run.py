"""What is printed of clips: before, meanwhile and at the end."""

import os
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.dry_run import format_time
from mambair_cli.cli.notices import explain_look
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, format_bytes, format_rate, print_event, say
from mambair_cli.cli.summary import Summary
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.files import show
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.values import show_count

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.inspection.need import Need
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.clip_job import ClipJob, ClipOutcome
    from mambair_cli.runs.clip_sharing import SegmentWorkers
    from mambair_cli.video import ClipFacts, VideoOptions


class ClipRun:
    """Restores clips, and prints what becomes of them."""

    def __init__(self, options: Options, clips: int) -> None:
        self._options, self._clips = options, clips
        self._exit_code = 0
        self._summary = Summary(clips)
        self._has_told_model = False
        self._noticed: set[str] = set()  # sentences about models that a look chose

    def facts(self, restorer: "Restorer") -> dict[str, object]:
        """Return the facts of the first line of JSON."""
        from mambair_cli.cli.run import EVENT_SCHEMA
        from mambair_cli.runs.fingerprint import Fingerprint

        return {
            "schema": EVENT_SCHEMA,
            "model": restorer.model.name,
            "other_models": [model.name for model in restorer.others.values()],
            "weights": Fingerprint.of(restorer).weights,
            "device": str(restorer.device),
            "files": self._clips,
            "notices": [restorer.notice] if restorer.notice else [],
        }

    def restore(
        self, job: "ClipJob", restorer: "Restorer", task: "Task", workers: "SegmentWorkers | None"
    ) -> None:
        """Restore one clip, by workers that make its segments where there are some."""
        from mambair_cli.cli.progress import show_clip
        from mambair_cli.runs.clip_job import restore_clip
        from mambair_cli.runs.unfinished_clip import is_begun

        options = self._options
        if self._exit_code and options.fail_fast:
            return
        notify = (lambda sentence: None) if options.quiet else say

        def tell(
            facts: "ClipFacts", chosen: "Restorer", need: "Need | None", encoding: "VideoOptions | None"
        ) -> None:
            if options.quiet:
                return
            notice = None if need is None else chosen.model.tell(options.offline)  # else it is told already
            if notice is not None and notice not in self._noticed:
                self._noticed.add(notice)
                say(notice)
            if need is not None and (sentence := explain_look(task, need, chosen.model.name, of_clip=True)):
                say(f"{job.input}: {sentence}")
            elif not self._has_told_model:
                say(f"using {chosen.model.name} on {chosen.device}")
            self._has_told_model = True
            if facts.interlaced and not job.deinterlace:
                stays = encoding is not None and encoding.fields
                fate = "so is the result" if stays else "the result is not, and keeps its combs"
                say(f"{job.input} is interlaced, {fate}; --deinterlace makes whole frames of its fields")
            if facts.hdr:
                say(f"{job.input} is {facts.hdr}: the model sees its signal as it is stored, and it stays so")

        try:
            shown, in_lines = not options.quiet, not options.json
            with explaining_memory(job.input), show_clip(job.input, shown, in_lines) as progress:
                outcome = restore_clip(job, restorer, tell, progress.advance, notify, workers)
        except MambairError as error:
            self._fail(job, error)
            return
        except KeyboardInterrupt:
            if job.target is not None and is_begun(job.target) and not options.quiet:
                say(f"what is finished of {show(job.target)} is kept; --resume goes on with it")
            raise
        if outcome is None:
            self._summary.skip()
            if options.json:
                print_event("skipped", input=job.input, output=job.output)
            elif not options.quiet:
                say(f"{job.output} is done already")
            return
        self._summary.finish(job.input, outcome.model, outcome.seconds, bool(outcome.warnings))
        self._tell(outcome)

    def foresee(self, job: "ClipJob", restorer: "Restorer") -> None:
        """Print what restoring a clip would give and take."""
        from mambair_cli.runs.clip_forecast import foresee_clip

        if job.source is None:
            raise UsageError("--dry-run cannot look at standard input: it can be read only once; name a file")
        try:
            with explaining_memory(job.input):
                forecast = foresee_clip(job, restorer)
        except MambairError as error:
            self._fail(job, error)
            return
        is_there = job.target is not None and os.path.lexists(job.target)
        replaces = is_there and job.overwrite
        codec = None if forecast.options is None else forecast.options.codec
        if self._options.json:
            facts = {"model": forecast.model, "width": forecast.width, "height": forecast.height}
            facts |= {"frames": forecast.facts.frames, "codec": codec, "disk": forecast.disk}
            seconds = None if forecast.seconds is None else round(forecast.seconds, 3)
            print_event(
                "plan_clip", input=job.input, output=job.output, replaces=replaces, **facts, seconds=seconds
            )
            return
        size = "" if forecast.disk is None else f"about {format_bytes(forecast.disk)} on the disk, "
        fate = " (replaced)" if replaces else " (kept if it is done)" if is_there else ""
        frames = show_count(forecast.facts.frames or 0, "frame")
        print(
            f"{job.input} -> {job.output}{fate}: {frames} of "
            f"{forecast.width}×{forecast.height}, {codec or 'images'}, by {forecast.model}, each from "
            f"{forecast.plan}; {size}{format_time(forecast.seconds)}"
        )

    def _fail(self, job: "ClipJob", error: MambairError) -> None:
        """Print why a clip has failed, and count it."""
        from mambair_cli.runs.outcomes import describe_error

        self._summary.fail(job.input)
        self._exit_code = max(self._exit_code, error.exit_code)
        complain(error)
        if self._options.json:
            print_event("failed", input=job.input, **describe_error(error))

    def _tell(self, outcome: "ClipOutcome") -> None:
        options, job = self._options, outcome.job
        if outcome.warnings and not options.quiet:
            name = "standard input" if job.source is None else show(job.source)
            is_named = all(name in sentence for sentence in outcome.warnings)
            say(f"warning: {'' if is_named else f'{job.input}: '}{'; '.join(outcome.warnings)}")
        if options.json:
            print_event("done", **describe_clip(outcome))
            return
        kind = "images" if job.target else "a pipe"
        codec = kind if outcome.options is None else outcome.options.codec
        if not options.quiet:
            new = outcome.frames - outcome.resumed
            repeated = f", {outcome.repeated} of them repeated" if outcome.repeated else ""
            name = f"{job.input}: " if self._clips > 1 else ""
            say(
                f"{name}{show_count(new, 'frame')}{repeated} in {outcome.seconds:.0f} s, "
                f"{format_rate(new / max(outcome.seconds, 1e-9))}; {codec}"
            )
        if job.target is not None:
            print(job.output, flush=True)

    def end(self) -> None:
        """Print the end, and end the command with the exit code.

        Raises:
            typer.Exit: A clip has failed.
        """
        if self._options.json and not self._options.dry_run:
            print_event("summary", **self._summary.facts())
        if self._exit_code:
            raise typer.Exit(self._exit_code)


def describe_clip(outcome: "ClipOutcome") -> dict[str, object]:
    """Describe a finished clip as JSON."""
    from mambair_cli.inspection.need import describe_need

    job, options = outcome.job, outcome.options
    return {
        "input": job.input,
        "output": job.output,
        "model": outcome.model,
        "width": outcome.width,
        "height": outcome.height,
        "frames": outcome.frames,
        "repeated": outcome.repeated,
        "resumed": outcome.resumed,
        "codec": options and options.codec,
        "pixel_format": options and options.pixel_format,
        "seconds": round(outcome.seconds, 3),
        "need": None if outcome.need is None else describe_need(outcome.need),
        "warnings": list(outcome.warnings),
    }
