"""Clips among the inputs of the restoring commands: named by their suffixes, restored one after the other."""

import io
import os
import re
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.dry_run import format_time
from mambair_cli.cli.notices import explain_look
from mambair_cli.cli.options import Options, refuse
from mambair_cli.cli.output import complain, format_bytes, print_event, say
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.signals import cleaning_up

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.inspection.need import Need
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.clip_job import ClipJob, ClipOutcome
    from mambair_cli.runs.output_size import Size
    from mambair_cli.video import ClipFacts, RawInput

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".mts", ".m2ts", ".ts"),
    *(".wmv", ".flv", ".vob", ".3gp", ".ogv", ".dv", ".mxf", ".y4m"),
)
_OF_IMAGES = (
    "format",
    "depth",
    "strip",
    "note",
    "background",
    "damaged",
    "max_pixels",
    "compare",
    "open",
    "preview",
    "region",
    "from_file",
    "null",
    "include",
    "exclude",
    "watch",
    "preserve_times",
)
_OF_EXECUTORS = ("server", "ray")
_OF_CLIPS = ("codec", "deinterlace", "fps", "raw")
_YUV4MPEG = b"YUV4MPEG2"


def take_clips(inputs: list[str] | None, options: Options) -> list[str]:
    """Return the clips among the inputs; none where these are images.

    Raises:
        UsageError: There are images, too, or an option has no effect on what there is.
    """
    names = inputs or []
    clips = [name for name in names if _is_clip(name, options)]
    plain = Options()
    given = {name: value for name, value in vars(options).items() if value != vars(plain)[name]}
    if not clips:
        refuse(given, _OF_CLIPS, "there is no clip among the inputs")
        return []
    if len(clips) < len(names):
        other = next(name for name in names if name not in clips)
        raise UsageError(f"{clips[0]} is a clip and {other} is none; restore them by two commands")
    if given.get("server") == os.environ.get("MAMBAIR_SERVER"):  # that one is for images
        given.pop("server", None)
    refuse(given, _OF_IMAGES, "of no effect on clips")
    refuse(given, _OF_EXECUTORS, "clips are restored on this machine")
    if options.raw is not None and names != ["-"]:
        raise UsageError(f"--raw {options.raw} is for standard input; name -, or leave it out")
    return clips


def _is_clip(name: str, options: Options) -> bool:
    """Tell whether an input is a clip: by its suffix, its number, its first bytes, or what becomes of it."""
    if name == "-":
        return options.raw is not None or _starts_as_yuv4mpeg()
    if os.path.isdir(name):
        return (options.output or "").lower().endswith(SUFFIXES) and not os.path.isdir(options.output or "")
    return is_clip_name(name)


def is_clip_name(name: str) -> bool:
    """Tell whether a name is that of a clip, or stands for numbered images."""
    if os.path.isdir(name):
        return False
    return name.lower().endswith(SUFFIXES) or (_has_number(name) and not os.path.exists(name))


def _starts_as_yuv4mpeg() -> bool:
    buffer = getattr(sys.stdin, "buffer", None)
    return isinstance(buffer, io.BufferedReader) and buffer.peek(len(_YUV4MPEG)).startswith(_YUV4MPEG)


def _has_number(name: str) -> bool:
    """Tell whether a name stands for numbered images, such as frames/%06d.png."""
    return re.search(r"%0?\d*d", os.path.basename(name)) is not None


def restore_clips(
    task: "Task",
    clips: list[str],
    options: Options,
    scale: int | None,
    level: float | None,
    size: "Size | None",
) -> None:
    """Restore clips.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        clips: Names of the clips; "-" for standard input.
        options: Options of the command.
        scale: Scale of the network; None for the model's own, or the default.
        level: Noise sigma of 255, or JPEG quality, if it was given.
        size: Size of the results; None for the network's own.
    """
    from mambair_cli.cli.executors import open_restorer
    from mambair_cli.runs.output_size import Size, check_reach
    from mambair_cli.video.ffmpeg import import_av

    import_av()  # says at once where it is missing
    size = size or Size()
    with cleaning_up(), open_restorer(task, scale, level, options) as restorer:
        check_reach(size, restorer.info.scale)
        jobs = _name(task, clips, restorer.info.scale, size, options)
        run = _ClipRun(options, len(jobs))
        if options.dry_run:
            for job in jobs:
                run.foresee(job, restorer)
            run.end()
            return
        if options.json:
            print_event("start", **run.facts(restorer))
        for job in jobs:
            run.restore(job, restorer, task)
        run.end()


def _name(task: "Task", clips: list[str], scale: int, size: "Size", options: Options) -> list["ClipJob"]:
    """Say where each result goes.

    Raises:
        UsageError: Several results would have one name, or a clip its own.
    """
    from mambair_cli.runs.clip_job import ClipJob
    from mambair_cli.runs.naming import suffix_of

    suffix, output = suffix_of(task, scale, size), options.output
    is_one = output is not None and not os.path.isdir(output) and bool(Path(output).suffix or output == "-")
    if is_one and len(clips) > 1:
        raise UsageError(f"{len(clips)} clips do not go into one file: {output}; give -o a folder")
    jobs: dict[str, ClipJob] = {}
    for clip in clips:
        target = output if is_one and output is not None else _name_target(clip, suffix, output)
        if target in jobs or (target != "-" and os.path.realpath(target) == os.path.realpath(clip)):
            raise UsageError(f"the result of {clip} cannot be {target}; name another with -o")
        jobs[target] = ClipJob(
            source=None if clip == "-" else Path(clip),
            target=None if target == "-" else Path(target),
            size=size,
            codec=options.codec,
            quality=options.quality,
            deinterlace=options.deinterlace,
            rate=None if options.fps is None else Fraction(options.fps).limit_denominator(1001),
            raw=None if options.raw is None else _read_raw(options.raw),
            overwrite=options.overwrite,
            resume=options.resume,
            keep_journal=len(clips) > 1,
        )
    return list(jobs.values())


def _name_target(clip: str, suffix: str, folder: str | None) -> str:
    """Name the result of a clip where none was named."""
    from mambair_cli.video import CONTAINERS

    if clip == "-":
        return "-"
    path = Path(clip)
    if _has_number(clip):  # frames/%06d.png becomes frames_x2/%06d.png
        below = path.parent.with_name(f"{path.parent.name}{suffix}") if folder is None else Path(folder)
        return str(below / path.name)
    kind = path.suffix if path.suffix.lower() in CONTAINERS else ".mkv"
    if folder is None:
        return str(path.with_name(f"{path.stem}{suffix}{kind}"))
    return str(Path(folder, f"{path.stem}{kind}"))


def _read_raw(text: str) -> "RawInput":
    """Read the format of raw frames, such as 640x480@25, or rgb48le:640x480@30000/1001.

    Raises:
        UsageError: It is no such text.
    """
    from mambair_cli.video import RawInput

    found = re.fullmatch(r"(?:(rgb24|rgb48le):)?(\d{1,5})x(\d{1,5})@(\d{1,6}(?:/\d{1,6}|\.\d{1,6})?)", text)
    if found is None or re.search(r"(?:^|[:x])0+(?=[x@])|@[0.]+(?:/|$)|/0+$", text):
        raise UsageError(
            f"--raw is {text or 'empty'}; it must be the width, the height and the frames a second, such as "
            "640x480@25, or rgb48le:640x480@30000/1001 for 16 bits"
        )
    return RawInput(found[1] or "rgb24", int(found[2]), int(found[3]), Fraction(found[4]))


class _ClipRun:
    """Restores clips, and prints what becomes of them."""

    def __init__(self, options: Options, clips: int) -> None:
        self._options, self._clips = options, clips
        self._done = self._skipped = self._failed = self._exit_code = 0
        self._begun = time.perf_counter()
        self._has_told_model = False

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

    def restore(self, job: "ClipJob", restorer: "Restorer", task: "Task") -> None:
        """Restore one clip."""
        from mambair_cli.cli.progress import show_clip
        from mambair_cli.runs.clip_job import restore_clip

        options = self._options
        if self._failed and options.fail_fast:
            return
        notify = (lambda sentence: None) if options.quiet else say

        def tell(facts: "ClipFacts", chosen: "Restorer", need: "Need | None") -> None:
            if options.quiet:
                return
            if need is not None and (sentence := explain_look(task, need, chosen.model.name)):
                say(f"{job.input}: {sentence}")
            elif not self._has_told_model:
                say(f"using {chosen.model.name} on {chosen.device}")
            self._has_told_model = True
            if facts.interlaced and not job.deinterlace:
                say(f"{job.input} is interlaced; --deinterlace makes whole frames of its fields")
            if facts.hdr:
                say(f"{job.input} is {facts.hdr}: the model sees its signal as it is stored, and it stays so")

        try:
            with show_clip(job.input, not options.quiet) as progress:
                outcome = restore_clip(job, restorer, tell, progress.advance, notify)
        except MambairError as error:
            self._fail(job, error)
            return
        if outcome is None:
            self._skipped += 1
            if options.json:
                print_event("skipped", input=job.input, output=job.output)
            elif not options.quiet:
                say(f"{job.output} is done already")
            return
        self._done += 1
        self._tell(outcome)

    def foresee(self, job: "ClipJob", restorer: "Restorer") -> None:
        """Print what restoring a clip would give and take."""
        from mambair_cli.runs.clip_forecast import foresee_clip

        if job.source is None:
            raise UsageError("--dry-run cannot look at standard input: it can be read only once; name a file")
        try:
            forecast = foresee_clip(job, restorer)
        except MambairError as error:
            self._fail(job, error)
            return
        replaces = job.target is not None and os.path.lexists(job.target)
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
        place = f"{job.output} (replaced)" if replaces else job.output
        print(
            f"{job.input} -> {place}: {forecast.facts.frames} frames of "
            f"{forecast.width}×{forecast.height}, {codec or 'images'}, by {forecast.model}, each from "
            f"{forecast.plan}; {size}{format_time(forecast.seconds)}"
        )

    def _fail(self, job: "ClipJob", error: MambairError) -> None:
        """Print why a clip has failed, and count it."""
        from mambair_cli.runs.outcomes import describe_error

        self._failed += 1
        self._exit_code = max(self._exit_code, error.exit_code)
        complain(error)
        if self._options.json:
            print_event("failed", input=job.input, **describe_error(error))

    def _tell(self, outcome: "ClipOutcome") -> None:
        options, job = self._options, outcome.job
        if outcome.warnings and not options.quiet:
            say(f"warning: {job.input}: {'; '.join(outcome.warnings)}")
        if options.json:
            print_event("done", **describe_clip(outcome))
            return
        kind = "images" if job.target else "a pipe"
        codec = kind if outcome.options is None else outcome.options.codec
        if not options.quiet:
            new = outcome.frames - outcome.resumed
            repeated = f", {outcome.repeated} of them repeated" if outcome.repeated else ""
            say(
                f"{new} frames{repeated} in {outcome.seconds:.0f} s, "
                f"{new / max(outcome.seconds, 1e-9):.2g} a second; {codec}"
            )
        if job.target is not None:
            print(job.target, flush=True)

    def end(self) -> None:
        """Print the end, and end the command with the exit code.

        Raises:
            typer.Exit: A clip has failed.
        """
        if self._options.json and not self._options.dry_run:
            print_event(
                "summary",
                done=self._done,
                skipped=self._skipped,
                failed=self._failed,
                left=self._clips - self._done - self._skipped - self._failed,
                seconds=round(time.perf_counter() - self._begun, 3),
            )
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
