"""Find and read all files to train or to measure on; lines tell which are left out, or not used whole."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import FirstPage, read_first_page
from mambair_cli.images.discovery import find_images
from mambair_cli.system.process import count_processors
from mambair_cli.system.wording import enumerate_names, show
from mambair_cli.train.folder import is_example
from mambair_cli.train.pairs import explain_pairs

MOST_NAMES = 10  # in one error

Result = TypeVar("Result")


def find_pictures(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """List the pictures of folders and, apart from them, the examples of runs among them.

    A run that trained on its own examples would learn from its results, and from what it is measured on.

    Args:
        folders: Folders, or single images.

    Returns:
        The pictures, and the examples, which are not to be used.

    Raises:
        UsageError: A folder does not exist, cannot be read, or has no pictures.
    """
    pictures: list[Path] = []
    examples: list[Path] = []
    for folder in folders:
        found = find_images(folder)
        used: list[Path] = []
        for file in found:
            (examples if is_example(file) else used).append(file)
        if not used:
            raise UsageError(f"no pictures in {show(folder)}: all are examples of a run; give another folder")
        pictures += used
    return pictures, examples


def read_all(files: Sequence[Path], read: Callable[[Path], Result]) -> list[Result]:
    """Call a function with each file, several at a time, and return what it made of them, in order.

    Args:
        files: The files.
        read: Function that raises an ImageError for a file that cannot be used.

    Raises:
        ImageError: Files cannot be used; all of them are named, or the first ones and the number of others.
    """

    def attempt(file: Path) -> Result | ImageError:
        try:
            return read(file)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(count_processors()) as threads:
        results = list(threads.map(attempt, files))
    failed = {file: x for file, x in zip(files, results, strict=True) if isinstance(x, ImageError)}
    if failed:
        raise _join(failed, len(files)) from next(iter(failed.values()))
    return [x for x in results if not isinstance(x, ImageError)]


def read_page(file: Path, scale: int) -> FirstPage:
    """Read the first page or frame of a file.

    Args:
        file: File of any readable format.
        scale: Pixels for each pixel of the network's input, and side.

    Raises:
        ImageError: It cannot be read, or is too small.
    """
    page = read_first_page(file)
    height, width = page.pixels.shape[:2]
    if min(height, width) < scale:
        raise ImageError(
            f"cannot use {show(file)}: {width}×{height} pixels are less than one of the input; leave it out"
        )
    return page


class PageFacts(NamedTuple):
    """What is known of a file.

    Attributes:
        frames: Number of its pages or frames.
        height: Height of the first, in pixels.
        width: Its width, in pixels.
        is_transparent: Whether parts of it are transparent.
    """

    frames: int
    height: int
    width: int
    is_transparent: bool = False

    @classmethod
    def of(cls, page: FirstPage) -> "PageFacts":
        """Return the facts on a file whose first page was read."""
        height, width = page.pixels.shape[:2]
        return cls(page.header.frames, height, width, page.is_transparent)


def explain_files(
    examples: Sequence[Path], facts: Mapping[Path, PageFacts], purpose: Literal["train", "measure"]
) -> Iterator[str]:
    """Yield sentences on files that are not used, or not whole, and on those that should not be used.

    Args:
        examples: Pictures that are examples of runs.
        facts: Facts on each file that is used.
        purpose: Verb for what they are used for.
    """
    sizes = {file: (each.height, each.width) for file, each in facts.items()}
    used = "learned" if purpose == "train" else "measured"
    yield from explain_pairs(sizes, used)
    transparent = [file for file, each in facts.items() if each.is_transparent]
    if transparent:
        count, first = len(transparent), show(transparent[0])
        which = f"parts of {first} are" if count == 1 else f"parts of {count} pictures, such as {first}, are"
        yield (
            f"{which} transparent, and the colours there, which nobody sees, are {used}, too; "
            "put them on a background, or leave them out"
        )
    yield from _explain_left_out(examples, {file: each.frames for file, each in facts.items()}, purpose)


def _explain_left_out(examples: Sequence[Path], frames: Mapping[Path, int], purpose: str) -> Iterator[str]:
    """Yield a sentence on examples of runs, and one on files of which only the first page or frame is used.

    Args:
        examples: Pictures that are examples of runs.
        frames: Number of pages or frames of each file.
        purpose: Verb for what they are used for.
    """
    if examples:
        count = len(examples)
        them = "an example of a run: " if count == 1 else f"{count} pictures, examples of a run, such as "
        yield f"left out {them}{show(examples[0])}"
    several = {file: count for file, count in frames.items() if count > 1}
    if not several:
        return
    first, left = show(next(iter(several))), sum(several.values()) - len(several)
    files = first if len(several) == 1 else f"{len(several)} files, such as {first}"
    others = "another is" if left == 1 else f"{left} others are"
    yield (
        f"used only the first page or frame of {files}; {others} left out; "
        f"split them into single images to {purpose} on all"
    )


def _join(failed: dict[Path, ImageError], count: int) -> ImageError:
    """Return one error for all files that failed, of a number of files."""
    names = [show(file) for file in failed]
    first = str(failed[next(iter(failed))])
    if len(failed) == 1:
        return ImageError(first)
    others = [f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    reason = first.split(f"{names[0]}: ", 1)[-1].partition(";")[0]
    return ImageError(
        f"cannot use {len(names)} of {count} images: {enumerate_names([*names[:MOST_NAMES], *others])}; "
        f"leave them out, or try other copies (the first: {reason})"
    )
