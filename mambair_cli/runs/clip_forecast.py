"""What restoring a clip would give and take, before it is done."""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.images.source import Source
from mambair_cli.inspection.need import Need
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.strength import enlarge
from mambair_cli.restore.tiling import Plan
from mambair_cli.runs.clip_job import ClipJob, choose_way, refuse_other
from mambair_cli.runs.estimate import try_network
from mambair_cli.runs.job_files import check_target
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Record
from mambair_cli.video import ClipFacts, SegmentWriter, VideoOptions, open_clip

ENCODED = 12  # frames that are encoded to see how large they become


@dataclass(frozen=True)
class ClipForecast:
    """What restoring a clip would give and take.

    Attributes:
        job: The job.
        facts: The clip.
        model: Name of the model.
        need: What was seen of it; None where nobody looked.
        width: Width of a frame of the result, in pixels.
        height: Height of a frame of the result, in pixels.
        plan: Tiles of a frame.
        options: How frames are encoded; None for images.
        disk: Bytes of the pictures, by the first of them; None for images.
        seconds: Time for all frames; None where their number is unknown.
    """

    job: ClipJob
    facts: ClipFacts
    model: str
    need: Need | None
    width: int
    height: int
    plan: Plan
    options: VideoOptions | None
    disk: int | None
    seconds: float | None


def foresee_clip(job: ClipJob, restorer: Restorer) -> ClipForecast:
    """Foresee what restoring a clip gives and takes; nothing is written but a temporary file.

    Args:
        job: The clip, which is a file or images.
        restorer: The restorer, or one that chooses among several models.

    Raises:
        VideoError: The clip cannot be read, or the result not be encoded.
        ImageError: The result exists, or was changed, and is not to be replaced.
    """
    if job.source is None:
        raise ValueError("a pipe can be read only once")
    with open_clip(job.source, rate=job.rate, deinterlace=job.deinterlace) as clip:
        facts = clip.facts if clip.facts.frames_exact else clip.count()
        chosen, need, (height, width), result = choose_way(job, clip, restorer)
        disk = None
        if result.options is not None and facts.frames:
            frames = [
                _resize(frame.pixels, chosen.info.scale, height, width)
                for frame in islice(clip.frames(), ENCODED)
            ]
            disk = round(_measure(frames, facts, result.options) * facts.frames / len(frames))
    if job.target is not None and result.options is not None:
        if not job.resume:
            check_target(Job(Source(job.source), job.target), job.overwrite)
        elif not job.overwrite:
            with suppress(OSError):  # the run will say why the journal cannot be read
                refuse_other(Record(job.target.parent), job.target)
    trial = try_network(chosen, facts.height, facts.width)
    plan = chosen.plan(facts.height, facts.width)
    seconds = trial.seconds * facts.height * facts.width * plan.redundancy
    return ClipForecast(
        job,
        facts,
        chosen.model.name,
        need,
        width,
        height,
        plan,
        result.options,
        disk,
        None if facts.frames is None else seconds * facts.frames,
    )


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
