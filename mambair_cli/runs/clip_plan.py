"""What becomes of a clip: its model, its encoder, and whether it is restored; a dry run asks the same."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from mambair_cli.errors import ImageError
from mambair_cli.images import DEFAULT_QUALITY
from mambair_cli.inspection.clip import find_need_of_clip
from mambair_cli.inspection.need import Need
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs import clip_segments
from mambair_cli.runs.clip_writers import ClipResult
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions, check_target, leave_out_unused
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.noted_inputs import Noted, NotedInputs
from mambair_cli.runs.output_size import keep_scale
from mambair_cli.runs.policy import Action, RunPolicy, decide
from mambair_cli.runs.record import Record
from mambair_cli.runs.stamps import stamp_of
from mambair_cli.runs.unfinished_clip import check_finished
from mambair_cli.system.files import is_stream
from mambair_cli.system.result_folders import check_folder
from mambair_cli.video import (
    Clip,
    ClipFacts,
    NumberedFrames,
    RawInput,
    UprightFrames,
    VideoOptions,
    choose_options,
    is_pattern,
    name_losses,
)


@dataclass(frozen=True)
class ClipJob:
    """A clip to restore.

    Attributes:
        job: The clip, which is a file, numbered images such as ``frames/%06d.png``, a folder of images, or
            standard input; and where its result goes: a file whose suffix names the container, numbered
            images, or standard output.
        output: How the result is written, of which size and quality count.
        policy: What the run may do.
        codec: Codec of the result; None for the one that suits.
        deinterlace: Whether to make whole frames of interlaced ones.
        rate: Frames a second of images; None for 25.
        raw: Format of raw frames on standard input; None for a clip that tells its own.
    """

    job: Job
    output: WriteOptions = field(default_factory=WriteOptions)
    policy: RunPolicy = field(default_factory=RunPolicy)
    codec: str | None = None
    deinterlace: bool = False
    rate: Fraction | None = None
    raw: RawInput | None = None

    @property
    def source(self) -> Path | None:
        """The clip; None for standard input."""
        return self.job.source.path

    @property
    def target(self) -> Path | None:
        """The result; None for standard output."""
        return self.job.target

    @property
    def gives_images(self) -> bool:
        """Whether the result is numbered images."""
        return self.target is not None and is_pattern(self.target)

    @property
    def journal_folder(self) -> Path | None:
        """Folder of the journal that tells whether the job is done; None where there is none.

        There is one where a file becomes a file or images.
        """
        if self.source is None or self.target is None or not self.source.is_file():
            return None
        return self.target.parent


class ClipWay(NamedTuple):
    """How a clip is restored.

    Attributes:
        restorer: Restorer with the model.
        need: What was seen of the clip, and what it needs; None where nobody looked.
        size: Height and width of a frame of the result, in pixels, before it is turned upright.
        result: The result.
    """

    restorer: Restorer
    need: Need | None
    size: tuple[int, int]
    result: ClipResult


def choose_way(job: ClipJob, clip: Clip | NumberedFrames, restorer: Restorer) -> ClipWay:
    """Choose the model and the encoder for a clip.

    Args:
        job: The job.
        clip: Its clip, of which the first frames are looked at.
        restorer: The restorer, or one that chooses among several models.

    Raises:
        VideoError: The clip cannot be read, or the container does not hold the result.
    """
    scale = restorer.info.scale
    need = find_need_of_clip(clip.first_frames()) if restorer.others else None
    chosen = (restorer if need is None else restorer.choose(need)).alone()
    height, width, options = choose_form(job, clip.facts, chosen.info.scale, scale)
    output = leave_out_unused(job.output, job.job, scale)
    size = output.size if chosen.info.scale == scale else keep_scale(output.size, scale)
    upright = UprightFrames(clip.facts) if options is None else None
    quality = None if options or output.quality == DEFAULT_QUALITY else output.quality
    plan = {
        "schema": 1,
        "pixels": Fingerprint.of(chosen).digest(),
        "size": asdict(size),
        "options": options and _describe(options),
        "quality": quality,
        "deinterlace": job.deinterlace,
        "rate": job.rate and str(job.rate),
        "segment": clip_segments.SEGMENT_FRAMES,
    }
    if upright is not None and upright.is_needed:  # plans of earlier versions, which turned nothing, lack it
        plan["upright"] = True
    settings = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    plan["source"] = _stamp(job.source, clip)
    plan["input"] = _note(job, clip)
    result = ClipResult(job.target, options, settings, plan, job.source, job.raw, job.output.quality)
    return ClipWay(chosen, need, (height, width), result)


def choose_form(
    job: ClipJob, facts: ClipFacts, scale: int, usual_scale: int
) -> tuple[int, int, VideoOptions | None]:
    """Choose the size of a result, and how it is encoded.

    Args:
        job: The job.
        facts: Its clip.
        scale: Scale of the network.
        usual_scale: Scale of the network that is taken where no look chooses another.

    Returns:
        Height and width in pixels, before a frame is turned upright, and the options of the encoder, which
        are None for images and pipes.

    Raises:
        VideoError: The container does not hold the result.
    """
    size = job.output.size if scale == usual_scale else keep_scale(job.output.size, usual_scale)
    if job.target is None or job.gives_images:
        upright = UprightFrames(facts)
        shown = size.target(*upright.turn_size((facts.width, facts.height)), scale)
        width, height = upright.turn_size(shown)
        return height, width, None
    width, height = size.target(facts.width, facts.height, scale)
    options = choose_options(
        facts,
        job.target,
        size=(width, height),
        codec=job.codec,
        quality=job.output.quality,
        deinterlaced=job.deinterlace,
    )
    return height, width, options


def shown_size(facts: ClipFacts, size: tuple[int, int], options: VideoOptions | None) -> tuple[int, int]:
    """Return the height and width of a result as it is written: images, and frames in pipes, are upright."""
    return size if options is not None else UprightFrames(facts).turn_size(size)


def tell_losses(job: ClipJob, facts: ClipFacts, options: VideoOptions | None) -> tuple[str, ...]:
    """Return sentences about what a result cannot hold, whether frames are encoded or not."""
    if options is not None:
        return options.notes
    return () if job.raw is not None else name_losses(facts, job.target)


def decide_clip(
    job: ClipJob, settings: str | None, record: Record | None, closed: ImageError | None = None
) -> Action:
    """Decide what to do with a clip: do it, do it and replace what is there, or skip it; nothing is written.

    Args:
        job: The job.
        settings: Digest of all that the result depends on except the clip; None where no earlier run can
            have had the same.
        record: What earlier runs have noted in the folder of the result; None where nobody knows.
        closed: Why no journal can be kept in that folder; None if one can, or none is wanted.

    Raises:
        ImageError: It is not to be done: there is a file that is not to be replaced, or the folder cannot be
            written to.
        UsageError: An earlier run has finished frames of it, and nobody said what becomes of them.
    """
    decision = decide(job.job, record, job.policy, settings)
    if decision.action is Action.REFUSE:
        raise ImageError(decision.reason)
    if decision.action is Action.SKIP:
        return decision.action
    if job.target is not None:
        check_folder(job.target.parent)
    if closed is not None:
        raise closed
    if job.target is not None:
        check_target(job.job, decision.action is Action.REPLACE)  # a pattern is the name of no file
        if not (job.policy.resume or job.policy.overwrite):
            check_finished(job.target)
    return decision.action


def _describe(options: VideoOptions) -> dict[str, Any]:
    """Return options as JSON: no notes, which change nothing; plans of earlier versions have no fields."""
    described = {**asdict(options), "notes": ()}
    if not options.fields:
        del described["fields"]
    return described


def _note(job: ClipJob, clip: Clip | NumberedFrames) -> Noted | None:
    """Return which clip it is, by its file or first image; None for pipes. Two may have one size and time."""
    first = clip.paths[0] if isinstance(clip, NumberedFrames) else job.source
    if job.target is None or first is None or not first.is_file():
        return None
    return NotedInputs(job.target.parent).note(first)


def _stamp(source: Path | None, clip: Clip | NumberedFrames) -> Any:
    """Return what differs from clip to clip: size and time of the file, or of each image.

    The time of the folder of images would not do: a result in it changes that, too. All that is known of
    a pipe before is the form of its frames.
    """
    if isinstance(clip, NumberedFrames):
        stamps = [(path.name, *stamp_of(path)) for path in clip.paths]
        return hashlib.sha256(json.dumps(stamps).encode()).hexdigest()
    if source is None or is_stream(source):
        facts = clip.facts
        return [facts.width, facts.height, facts.pixel_format, str(facts.frame_rate)]
    return list(stamp_of(source))
