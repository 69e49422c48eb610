"""Numbered images as the result of a clip: which names they may have, and what of an earlier one is left."""

from contextlib import suppress
from pathlib import Path

from mambair_cli.errors import ImageError
from mambair_cli.images.source import Source
from mambair_cli.runs.job_files import check_target
from mambair_cli.runs.jobs import Job
from mambair_cli.system.wording import show, show_count
from mambair_cli.video import Clip, ClipFacts, NumberedFrames, find_images, name_frame


def check_images(pattern: Path, begun: int, facts: ClipFacts) -> None:
    """Refuse a result of numbered images where one of them exists, before anything is computed.

    Args:
        pattern: The result.
        begun: Number of those that are ours, from the first one on.
        facts: The clip, which tells how many there will be; only the next one is looked at where it is not
            sure how many.

    Raises:
        ImageError: There is such a file.
    """
    frames = facts.frames if facts.frames is not None and facts.frames_exact else begun + 1
    for number in range(begun, frames):
        check_image(pattern, number)


def check_image(pattern: Path, number: int) -> None:
    """Refuse to write a numbered image that exists.

    Raises:
        ImageError: It exists.
    """
    check_target(Job(Source(None), name_frame(pattern, number)), overwrite=False)


def refuse_inputs(pattern: Path, clip: Clip | NumberedFrames) -> None:
    """Refuse a result one of whose images would have the place of one of the clip's, also by a link.

    Args:
        pattern: The result.
        clip: The clip.

    Raises:
        ImageError: There is one.
    """
    inputs = _places_of(clip)
    for number in range(len(inputs)):
        target = name_frame(pattern, number)
        if _place_of(target) in inputs:
            raise ImageError(
                f"cannot write {show(target)}: it is among the inputs; choose another folder with -o"
            )


def _places_of(clip: Clip | NumberedFrames) -> set[tuple[int, int]]:
    """Return what is the same for all names of the images of a clip; empty for others."""
    paths = clip.paths if isinstance(clip, NumberedFrames) else []
    return {place for place in map(_place_of, paths) if place is not None}


def _place_of(path: Path) -> tuple[int, int] | None:
    """Return what is the same for all names of a file; None if there is no such file."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def settle_rest(pattern: Path, clip: Clip | NumberedFrames, frames: int, ours: int) -> list[str]:
    """Remove images after the last frame that an earlier run is known to have made; say what else there is.

    Args:
        pattern: The result.
        clip: The clip, whose own images are no part of this.
        frames: Number of frames that it has.
        ours: Number of images of the result that it replaces, from the first one on.

    Returns:
        Sentences about them.
    """
    said = []
    for number in range(frames, ours):
        name_frame(pattern, number).unlink(missing_ok=True)
    if ours > frames:
        said.append(f"the result before was longer: its last {show_count(ours - frames, 'image')} removed")
    inputs = _places_of(clip)
    named = [each for each in find_images(pattern) if each[1] == name_frame(pattern, each[0] - 1)]
    rest = [path for number, path in named if number > frames and _place_of(path) not in inputs]
    if rest:
        said.append(
            f"{show_count(len(rest), 'image')} from {show(rest[0])} on {'is' if len(rest) == 1 else 'are'} "
            "not of this result, which ends before; remove what is not needed"
        )
    return said
