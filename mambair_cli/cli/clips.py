"""Clips among the inputs of the restoring commands: named by their suffixes, restored one after the other."""

import io
import os
import re
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from mambair_cli.cli.clip_dry_run import ClipDryRun
from mambair_cli.cli.clip_names import find_namesakes, is_one_file, leave_out_results, name_apart, name_target
from mambair_cli.cli.clip_run import ClipRun
from mambair_cli.cli.dry_run import open_model
from mambair_cli.cli.notices import EIGHT_TIMES, explain_level, explain_quality, explain_unused
from mambair_cli.cli.options import Options, refuse
from mambair_cli.cli.output import remark, say
from mambair_cli.cli.preview import show_preview
from mambair_cli.cli.preview_image import PreviewClip
from mambair_cli.cli.streams import is_stdout_closed
from mambair_cli.errors import UsageError, VideoError
from mambair_cli.system.clips import CLIP_SUFFIXES, read_rate, read_time
from mambair_cli.system.files import is_special
from mambair_cli.system.patterns import expand, explain_no_match, must_be_expanded
from mambair_cli.system.signals import cleaning_up

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked, Task
    from mambair_cli.runs.clip_plan import ClipJob
    from mambair_cli.runs.output_size import Size
    from mambair_cli.video import RawInput

_OF_IMAGES = (
    "format",
    "depth",
    "strip",
    "note",
    "background",
    "damaged",
    "max_pixels",
    "compare",
    "from_file",
    "null",
    "include",
    "exclude",
    "watch",
    "preserve_times",
)
_OF_CLIPS = ("codec", "deinterlace", "fps", "raw", "at")
_YUV4MPEG = b"YUV4MPEG2"
_PEEKED = 16  # bytes


def take_clips(inputs: list[str] | None, options: Options) -> list[str]:
    """Return the clips among the inputs; none where there are images, too: then clips are left out.

    Raises:
        UsageError: There are other inputs, too, or an option has no effect on what there is.
    """
    names = expand_patterns(inputs or [])
    clips = [name for name in names if _is_clip(name, options)]
    plain = Options()
    given = {name: value for name, value in vars(options).items() if value != vars(plain)[name]}
    if not clips:
        refuse(given, _OF_CLIPS, "there is no clip among the inputs")
        return []
    if len(clips) < len(names):
        others = [name for name in names if name not in clips]
        wants_clips = options.is_preview or any(name in given for name in _OF_CLIPS)
        if not wants_clips and _is_mixture(clips, others):
            return []
        raise UsageError(
            f"{clips[0]} is a clip and {others[0]} is none; name {clips[0]} in a command of its own"
        )
    if given.get("server") == os.environ.get("MAMBAIR_SERVER"):  # that one is for images
        given.pop("server", None)
    refuse(given, _OF_IMAGES, "no effect on clips")
    refuse(given, ["server"], "a server takes no clips")
    refuse(given, ["ray"], "a Ray cluster takes no clips")
    if options.raw is not None and names != ["-"]:
        raise UsageError(f"--raw {options.raw} is for standard input; name -, or leave it out")
    _check_effects(names, options)
    return clips


def _is_mixture(clips: list[str], others: list[str]) -> bool:
    """Tell whether clips lie among images, as the shell's ``DCIM/*`` names them."""
    are_files = all(os.path.isfile(name) for name in clips)
    return are_files and any(name != "-" and not os.path.isdir(name) for name in others)


def _check_effects(names: list[str], options: Options) -> None:
    """Refuse options that have no effect on these clips, or go together with no others.

    Raises:
        UsageError: There is one.
    """
    from mambair_cli.video import is_pattern

    if options.at is not None and not options.is_preview:
        raise UsageError(f"--at {options.at} is for --preview; give both, or leave it out")
    if options.fps is not None and all(os.path.isfile(name) or name == "-" for name in names):
        raise UsageError(f"--fps {options.fps:g} is for numbered images, and clips tell theirs; leave it out")
    if options.codec is not None and (options.output == "-" or is_pattern(Path(options.output or ""))):
        raise UsageError(f"--codec {options.codec} has no effect on {options.output}; leave it out")
    if options.output == "-" or (options.output is None and "-" in names):
        if is_stdout_closed():
            raise UsageError("standard output is closed: -; give -o a file")
        if options.json:
            raise UsageError("standard output takes a clip or JSON; give -o a file, or leave out --json")


def expand_patterns(names: list[str]) -> list[str]:
    """Replace patterns of clips that the shell has not expanded, such as ``*.mp4``, by what they match.

    Pipes, devices and linked folders are left out, which a notice says.

    Raises:
        UsageError: A pattern matches nothing.
    """
    from mambair_cli.images.left_out import LeftOut

    expanded: list[str] = []
    left_out = LeftOut()
    for name in names:
        if not (name.lower().endswith(CLIP_SUFFIXES) and must_be_expanded(name)):
            expanded.append(name)
            continue
        matches = expand(name)
        if not matches.names:
            raise UsageError(f"no file matches the pattern: {name}; {explain_no_match(name)}")
        left_out.links += matches.links
        left_out.special += map(Path, filter(is_special, matches.names))
        expanded += [each for each in matches.names if not is_special(each)]
    left_out.settle()
    for sentence in left_out.remarks():
        remark(sentence)
    return expanded


def _is_clip(name: str, options: Options) -> bool:
    """Tell whether an input is a clip: by its suffix, its number, its first bytes, or what becomes of it."""
    output = options.output or ""
    gives_clip = output.lower().endswith(CLIP_SUFFIXES) and not os.path.isdir(output)
    if name == "-":
        if options.raw is not None or (head := _peek()).startswith(_YUV4MPEG):
            return True
        if gives_clip or _is_other_clip(head):
            raise UsageError(
                "standard input takes a clip as YUV4MPEG, which ffmpeg -f yuv4mpegpipe writes, or as frames "
                "of --raw, and this is neither; name the file"
            )
        return False
    if os.path.isdir(name):
        return gives_clip
    return is_clip_name(name)


def is_clip_name(name: str) -> bool:
    """Tell whether a name is that of a clip, or stands for numbered images."""
    if os.path.isdir(name):
        return False
    return name.lower().endswith(CLIP_SUFFIXES) or (_is_numbered(name) and not os.path.exists(name))


def _peek() -> bytes:
    """Return the first bytes of standard input, which stay there."""
    buffer = getattr(sys.stdin, "buffer", None)
    return buffer.peek(_PEEKED) if isinstance(buffer, io.BufferedReader) else b""


def _is_other_clip(head: bytes) -> bool:
    """Tell whether standard input is a clip that only a file can be."""
    from mambair_cli.images.signatures import is_clip

    return is_clip(head)


def _is_numbered(name: str) -> bool:
    """Tell whether a name stands for numbered images, such as frames/%06d.png."""
    if "%" not in name:  # most names: nothing is imported for them
        return False
    from mambair_cli.video import is_pattern

    return is_pattern(Path(name))


def restore_clips(asked: "Asked", clips: list[str], options: Options, size: "Size | None") -> None:
    """Restore clips.

    Args:
        asked: What is asked for.
        clips: Names of the clips; "-" for standard input.
        options: Options of the command.
        size: Size of the results; None for the network's own.
    """
    from mambair_cli.cli.executors import open_restorer
    from mambair_cli.runs.output_size import Size, check_reach
    from mambair_cli.video.ffmpeg import import_av

    if options.ensemble and not options.quiet:
        say(EIGHT_TIMES)
    import_av()  # says at once where it is missing
    size = size or Size()
    if options.is_preview:
        _preview(asked, clips, options, size)
        return
    _check_targets(clips, options)
    if options.dry_run:
        model = open_model(asked, options)
        check_reach(size, model.scale)
        jobs = _name(asked.task, clips, model.scale, size, options)
        _tell(_remarks(asked, model.name, jobs, options), options)
        ClipDryRun(asked.task, options, model).perform(jobs)
        return
    with cleaning_up(), open_restorer(asked, options) as (restorer, workers):
        check_reach(size, restorer.info.scale)
        jobs = _name(asked.task, clips, restorer.info.scale, size, options)
        remarks = _remarks(asked, restorer.model.name, jobs, options)
        _tell(remarks, options)
        run = ClipRun(asked.task, options, len(jobs))
        run.start(restorer, remarks)
        for job in jobs:
            run.restore(job, restorer, workers)
        run.end()


def _remarks(asked: "Asked", model: str, jobs: list["ClipJob"], options: Options) -> list[str]:
    """Return sentences about options that may not do what the user expects."""
    sentences = (
        explain_level(asked.task, asked.level, model),
        explain_quality(asked.task, options.quality, asked.level),
    )
    return [*filter(None, sentences), *explain_unused(options, _image_formats(jobs))]


def _tell(sentences: list[str], options: Options) -> None:
    for sentence in sentences if not options.quiet else ():
        say(sentence)


def _check_targets(clips: list[str], options: Options) -> None:
    """Check that results of such names hold the codec that was asked for.

    Raises:
        UsageError: One does not, or its suffix is no clip's.
    """
    from mambair_cli.video import check_codec, is_pattern

    for clip in clips:
        target = options.output if is_one_file(options.output) else name_target(clip, "", options.output)
        if target is not None and target != "-" and not is_pattern(Path(target)):
            try:
                check_codec(Path(target), options.codec)
            except VideoError as error:
                raise UsageError(str(error)) from error


def _image_formats(jobs: list["ClipJob"]) -> set[str]:
    """Return the formats of results that are numbered images or a pipe, and so have no codec."""
    from mambair_cli.images import format_of
    from mambair_cli.video import is_pattern

    targets = {job.target for job in jobs}
    formats = {format_of(target) for target in targets if target is not None and is_pattern(target)}
    return formats | ({"standard output"} if None in targets else set())


def _preview(asked: "Asked", clips: list[str], options: Options, size: "Size") -> None:
    """Show a part of one frame before and after.

    Raises:
        UsageError: There are several clips, or it is a pipe.
        VideoError: The clip cannot be read, or ends before the time that was asked for.
    """
    from mambair_cli.images.source import Source
    from mambair_cli.inspection.clip import find_need_of_clip
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.video import name_frame, open_clip, write_frame

    if len(clips) != 1 or clips[0] == "-":
        what = "standard input" if clips[0] == "-" else f"{len(clips)} clips"
        raise UsageError(f"a preview shows one frame of one clip, not of {what}; name one file")
    path = Path(clips[0])
    rate = None if options.fps is None else read_rate(options.fps)
    with (
        open_clip(path, rate=rate, deinterlace=options.deinterlace) as clip,
        tempfile.TemporaryDirectory() as folder,
    ):
        length = clip.facts.duration
        time = (length or Fraction(0)) / 3 if options.at is None else read_time(options.at, "--at")
        if length is not None and time >= length:
            raise VideoError(f"cannot show {path} at {float(time):g} s: it ends after {float(length):.5g} s")
        frame = clip.frame_at(time)
        pattern = Path(folder, "%d.png")
        write_frame(pattern, 0, frame.pixels, bits=clip.facts.bits)
        label = f"{path.name} at {float(clip.time_of(frame)):.2f} s"
        image = Source(name_frame(pattern, 0), label=label)
        shown = PreviewClip(clips[0], lambda: find_need_of_clip(clip.first_frames()), clip.warnings)
        show_preview(asked, [image], WriteOptions(size=size), options, shown)


def _name(task: "Task", clips: list[str], scale: int, size: "Size", options: Options) -> list["ClipJob"]:
    """Say where each result goes.

    Raises:
        UsageError: Several results would have one name, or one that of an input.
    """
    from mambair_cli.images.source import Source
    from mambair_cli.runs.clip_plan import ClipJob
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.naming import suffix_of
    from mambair_cli.runs.policy import RunPolicy
    from mambair_cli.system.disk_names import DiskNames

    suffix, output = suffix_of(task, scale, size), options.output
    is_one = is_one_file(output)
    if is_one and len(clips) > 1:
        raise UsageError(f"{len(clips)} clips do not go into one file: {output}; give -o a folder")
    if not is_one:
        clips = leave_out_results(clips, suffix, output, options.quiet)
    targets, namesakes = name_apart(clips, suffix, output), find_namesakes(clips, suffix, output)
    jobs: dict[str, ClipJob] = {}
    names = DiskNames()
    inputs = {names.key(clip) for clip in clips if clip != "-"}
    for clip in clips:
        target = output if is_one and output is not None else targets[clip]
        key = target if target == "-" else names.key(target)
        if key in jobs or key in inputs:
            raise UsageError(f"the result of {clip} cannot be {target}; name another with -o")
        source, place = None if clip == "-" else Path(clip), None if target == "-" else Path(target)
        others = tuple(Path(other) for other in namesakes.get(target, ()) if other not in (clip, "-"))
        jobs[key] = ClipJob(
            Job(Source(source), place, namesakes=others),
            WriteOptions(quality=options.quality, size=size),
            RunPolicy(
                overwrite=options.overwrite,
                resume=options.resume,
                digest=options.json,
                fail_fast=options.fail_fast,
                keep_journal=len(clips) > 1,
            ),
            codec=options.codec,
            deinterlace=options.deinterlace,
            rate=None if options.fps is None else read_rate(options.fps),
            raw=None if options.raw is None else _read_raw(options.raw),
        )
    return list(jobs.values())


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
