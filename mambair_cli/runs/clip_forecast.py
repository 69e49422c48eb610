"""What restoring a clip would give and take, before it is done."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mambair_cli.errors import ImageError
from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.restore.strength import enlarge
from mambair_cli.restore.tiling import Plan
from mambair_cli.runs.clip_images import check_images, refuse_inputs
from mambair_cli.runs.clip_job import OnClip
from mambair_cli.runs.clip_plan import (
    ClipJob,
    ClipWay,
    choose_form,
    choose_way,
    decide_clip,
    shown_size,
    tell_losses,
)
from mambair_cli.runs.clip_writers import begins_anew
from mambair_cli.runs.dry_run import RunModel
from mambair_cli.runs.estimate import Trial, try_network
from mambair_cli.runs.policy import Action
from mambair_cli.runs.record import Record, read_record
from mambair_cli.runs.unfinished_clip import LeftOver, find_left_over
from mambair_cli.video import (
    Clip,
    ClipFacts,
    NumberedFrames,
    SegmentWriter,
    VideoOptions,
    name_frame,
    open_clip,
)

ENCODED = 12  # frames that are encoded to see how large they become


@dataclass(frozen=True)
class ClipForecast:
    """What restoring a clip would give and take.

    Attributes:
        job: The job.
        facts: The clip.
        model: Name of the model.
        width: Width of a frame of the result, in pixels.
        height: Height of a frame of the result, in pixels.
        plan: Tiles of a frame.
        options: How frames are encoded; None for images.
        replaces: Whether the result replaces a file, or images.
        resumed: Number of frames that an earlier run has made.
        disk: Bytes of the pictures, by the first of them; None for images.
        trial: What the network took; None where it is not here.
        warnings: Sentences about what is damaged, as far as the first frames show, and what is left out.
    """

    job: ClipJob
    facts: ClipFacts
    model: str
    width: int
    height: int
    plan: Plan
    options: VideoOptions | None
    replaces: bool
    resumed: int
    disk: int | None
    trial: Trial | None
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Time for the frames that are left; None where their number, or the network, is not known."""
        facts = self.facts
        if self.trial is None or facts.frames is None:
            return None
        pixels = facts.height * facts.width * max(0, facts.frames - self.resumed)
        return self.trial.seconds * pixels * self.plan.redundancy


def foresee_clip(
    job: ClipJob,
    model: RunModel,
    on_start: OnClip = lambda facts, restorer, need, options: None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> ClipForecast | None:
    """Foresee what restoring a clip gives and takes; nothing is written but a temporary file.

    Args:
        job: The clip, which is a file or images.
        model: The model that a run would restore with, or first choice of several.
        on_start: Called when the model and the encoder are chosen, as in a run.
        notify: Called with a sentence that the user should read.

    Returns:
        The forecast; None if an earlier run has done it.

    Raises:
        VideoError: The clip cannot be read, or the result not be encoded.
        ImageError: The run would be refused: the result exists, for example, and is not to be replaced.
    """
    if job.source is None:
        raise ValueError("a pipe can be read only once")
    with open_clip(job.source, rate=job.rate, deinterlace=job.deinterlace) as clip:
        facts = clip.count()
        way = None if model.restorer is None else choose_way(job, clip, model.restorer)
        action = decide_clip(job, way and way.result.settings, *_read_journal(job))
        if action is Action.SKIP:
            return None
        left = _find_left_over(job, way, clip, facts, action, notify)
        if way is None:
            scale, plan = model.scale, model.tiles.plan(facts.height, facts.width)
            height, width, options = choose_form(job, facts, scale, scale)
        else:
            scale, plan = way.restorer.info.scale, way.restorer.plan(facts.height, facts.width)
            (height, width), options = way.size, way.result.options
            on_start(facts, way.restorer, way.need, options)
        disk = None
        if options is not None and facts.frames:
            frames = [_resize(frame.pixels, scale, height, width) for frame in islice(clip.frames(), ENCODED)]
            disk = round(_measure(frames, facts, options) * facts.frames / len(frames))
        warnings = (*clip.warnings, *tell_losses(job, facts, options))
    trial = None if way is None else try_network(way.restorer, facts.height, facts.width)
    height, width = shown_size(facts, (height, width), options)
    resumed = left.count_images(job.target) if job.target and job.gives_images else left.frames
    return ClipForecast(
        job,
        facts,
        model.name if way is None else way.restorer.model.name,
        width=width,
        height=height,
        plan=plan,
        options=options,
        replaces=action is Action.REPLACE and _is_there(job),
        resumed=resumed,
        disk=disk,
        trial=trial,
        warnings=warnings,
    )


def _read_journal(job: ClipJob) -> tuple[Record | None, ImageError | None]:
    """Return what the journal says, where a run would ask it, and why it cannot be read."""
    if not job.policy.resume or job.journal_folder is None:
        return None, None
    try:
        return read_record(job.journal_folder), None
    except ImageError as error:
        return None, error


def _find_left_over(
    job: ClipJob,
    way: ClipWay | None,
    clip: Clip | NumberedFrames,
    facts: ClipFacts,
    action: Action,
    notify: Callable[[str], None],
) -> LeftOver:
    """Return what a run would go on with; only a model that is here can have made anything.

    Raises:
        ImageError: There is an image that is not to be replaced.
    """
    left = LeftOver()
    if job.target is None:
        return left
    if job.gives_images:
        refuse_inputs(job.target, clip)
    if way is not None:
        left = find_left_over(job.target, way.result.plan, job.policy.resume)
    if job.gives_images and action is not Action.REPLACE:
        check_images(job.target, left.images_begun, facts)
    if left.is_other:
        notify(begins_anew(job.target))
    return left


def _is_there(job: ClipJob) -> bool:
    """Tell whether the result, or the first of its images, exists."""
    if job.target is None:
        return False
    return os.path.lexists(name_frame(job.target, 0) if job.gives_images else job.target)


def _resize(pixels: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """Enlarge a frame without the network."""
    enlarged = enlarge(pixels, scale).clip(0, 1)
    return enlarged if enlarged.shape[:2] == (height, width) else reduce_samples(enlarged, height, width)


def _measure(frames: list[np.ndarray], facts: ClipFacts, options: VideoOptions) -> int:
    """Encode frames, and return how many bytes they take."""
    with tempfile.TemporaryDirectory(prefix="mambair-") as folder:
        path = Path(folder, "frames.mkv")
        with SegmentWriter(path, facts, options) as writer:
            for number, pixels in enumerate(frames):
                length = facts.ticks_per_frame
                writer.write(pixels, number * length, length)
        return path.stat().st_size
