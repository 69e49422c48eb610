"""A run over clips, and what it prints: before, meanwhile and at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.notices import explain_gone, explain_left, explain_look
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import format_rate, print_event, report_failure, say, warn_of_clip
from mambair_cli.cli.streams import ReaderGoneError
from mambair_cli.cli.summary import Summary
from mambair_cli.errors import MambairError
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.wording import show, show_count

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.inspection.need import Need
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.clip_job import ClipOutcome
    from mambair_cli.runs.clip_plan import ClipJob
    from mambair_cli.runs.clip_sharing import SegmentWorkers
    from mambair_cli.video import ClipFacts, VideoOptions


class ClipRemarks:
    """Says what is seen of clips before they are restored, in a run and in a dry run.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        options: Options of the command.
    """

    def __init__(self, task: "Task", options: Options) -> None:
        self._task: Task = task
        self._options = options
        self._noticed: set[str] = set()  # sentences about models that a look chose

    def tell(
        self, job: "ClipJob", facts: "ClipFacts", chosen: "Restorer", need: "Need | None", has_fields: bool
    ) -> bool:
        """Say what was seen of a clip, if that matters; tell whether its model was named.

        Args:
            job: The job.
            facts: Its clip.
            chosen: Restorer with the model.
            need: What was seen, and what the clip needs; None where nobody looked.
            has_fields: Whether the frames of the result have fields as those of the clip.
        """
        if self._options.quiet:
            return True
        name = str(job.job.source)
        notice = None if need is None else chosen.model.tell(self._options.offline)  # else printed already
        if notice is not None and notice not in self._noticed:
            self._noticed.add(notice)
            say(notice)
        look = need and explain_look(self._task, need, chosen.model.name, of_clip=True)
        if look:
            say(f"{name}: {look}")
        if facts.interlaced and not job.deinterlace:
            fate = "so is the result" if has_fields else "the result is not, and keeps its combs"
            say(f"{name} is interlaced, {fate}; --deinterlace makes whole frames of its fields")
        if facts.hdr:
            say(f"{name} is {facts.hdr}: the model sees its signal as it is stored, and it stays so")
        return bool(look)


class ClipRun:
    """Restores clips, and prints what becomes of them.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        options: Options of the command.
        clips: Number of the clips.
    """

    def __init__(self, task: "Task", options: Options, clips: int) -> None:
        self._options, self._clips = options, clips
        self._exit_code = 0
        self._summary = Summary(clips, "clip")
        self._has_named_model = False
        self._remarks = ClipRemarks(task, options)

    def start(self, restorer: "Restorer", notices: Sequence[str]) -> None:
        """Print the first line of JSON.

        Args:
            restorer: The restorer.
            notices: Sentences about options without effect.
        """
        from mambair_cli.cli.run import EVENT_SCHEMA
        from mambair_cli.runs.executors.protocol import describe_restorer

        if not self._options.json:
            return
        info = describe_restorer(restorer, str(restorer.device))
        known = [info.notice] if info.notice else []
        print_event(
            "start",
            schema=EVENT_SCHEMA,
            model=info.model,
            other_models=list(info.others),
            weights=info.fingerprint.weights,
            device=info.place,
            files=self._clips,
            notices=[*known, *info.notices.values(), *notices],
        )

    def restore(self, job: "ClipJob", restorer: "Restorer", workers: "SegmentWorkers | None") -> None:
        """Restore one clip, by workers that make its segments where there are some."""
        from mambair_cli.cli.progress import show_clip
        from mambair_cli.runs.clip_job import restore_clip
        from mambair_cli.runs.unfinished_clip import is_begun

        options, name = self._options, str(job.job.source)
        if self._exit_code and options.fail_fast:
            return
        notify = (lambda sentence: None) if options.quiet else say

        def tell(
            facts: "ClipFacts", chosen: "Restorer", need: "Need | None", encoding: "VideoOptions | None"
        ) -> None:
            has_fields = encoding is not None and bool(encoding.fields)
            if not self._remarks.tell(job, facts, chosen, need, has_fields) and not self._has_named_model:
                say(f"using {chosen.model.name} on {chosen.device}")
            self._has_named_model = True

        try:
            shown, in_lines = not options.quiet, not options.json
            with explaining_memory(name), show_clip(name, shown, in_lines) as progress:
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
                print_event("skipped", input=name, output=job.job.place)
            elif not options.quiet:
                say(f"{job.job.place} is done already")
            return
        self._summary.finish(name, outcome.model, outcome.seconds, bool(outcome.warnings))
        try:
            self._tell(outcome)
        except ReaderGoneError:
            if (sentence := explain_gone(self._summary)) is not None:
                say(sentence)
            raise

    def _fail(self, job: "ClipJob", error: MambairError) -> None:
        """Print why a clip has failed, and count it."""
        name = str(job.job.source)
        self._summary.fail(name)
        self._exit_code = max(self._exit_code, error.exit_code)
        report_failure(name, error, self._options.json)

    def _tell(self, outcome: "ClipOutcome") -> None:
        options, job, input = self._options, outcome.job, str(outcome.job.job.source)
        if not options.quiet:
            warn_of_clip(input, outcome.warnings)
        if options.json:
            print_event("done", **describe_clip(outcome))
            return
        kind = "images" if job.target else "a pipe"
        codec = kind if outcome.options is None else outcome.options.codec
        if not options.quiet:
            new = outcome.frames - outcome.resumed
            repeated = f", {outcome.repeated} of them repeated" if outcome.repeated else ""
            name = f"{input}: " if self._clips > 1 else ""
            say(
                f"{name}{show_count(new, 'frame')}{repeated} in {outcome.seconds:.0f} s, "
                f"{format_rate(new / max(outcome.seconds, 1e-9))}; {codec}"
            )
        if job.target is not None:
            print(job.job.place, flush=True)

    def end(self) -> None:
        """Print the end, and end the command with the exit code.

        Raises:
            typer.Exit: A clip has failed.
        """
        if self._options.json:
            print_event("summary", **self._summary.facts())
        elif self._clips > 1 and not self._options.quiet:
            say(str(self._summary))
            for sentence in explain_left(self._summary):
                say(sentence)
        if self._exit_code:
            raise typer.Exit(self._exit_code)


def describe_clip(outcome: "ClipOutcome") -> dict[str, object]:
    """Describe a finished clip as JSON."""
    from mambair_cli.inspection.need import describe_need

    job, options = outcome.job, outcome.options
    return {
        "input": str(job.job.source),
        "output": job.job.place,
        "model": outcome.model,
        "width": outcome.width,
        "height": outcome.height,
        "frames": outcome.frames,
        "repeated": outcome.repeated,
        "resumed": outcome.resumed,
        "codec": options and options.codec,
        "pixel_format": options and options.pixel_format,
        "seconds": round(outcome.seconds, 3),
        "sha256": outcome.sha256,
        "need": None if outcome.need is None else describe_need(outcome.need),
        "warnings": list(outcome.warnings),
    }
