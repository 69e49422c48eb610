"""Find the images among the inputs, for restoring, evaluating and training, and note what is left out."""

import codecs
import fnmatch
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath, PurePosixPath

from mambair_cli.errors import UsageError
from mambair_cli.images import READABLE_SUFFIXES
from mambair_cli.images.left_out import LeftOut, describe_kinds, explain_unreadable
from mambair_cli.images.source import STANDARD_STREAM, Source
from mambair_cli.system.clips import CLIP_SUFFIXES
from mambair_cli.system.files import is_special
from mambair_cli.system.patterns import expand, explain_braces, explain_no_match, must_be_expanded
from mambair_cli.system.real_folders import RealFolders

# Names that runs.naming.suffix_of makes.
_RESULT = re.compile(r"(.+)_(?:x\d+(?:\.\d+)?|upscaled|denoised|dejpeg)")


@dataclass(frozen=True)
class FileFilter:
    """Which images in folders are taken, and what was left out.

    Patterns are matched with names of files and of their folders; patterns with a slash, with paths below the
    input folder.

    Attributes:
        include: Patterns; an image must match one of them, if there are any.
        exclude: Patterns; an image must match none of them.
        output: Folder of the results, which are no inputs.
        matched: Patterns that something has matched.
        left_out: What is not restored.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    output: str | None = None
    matched: set[str] = field(default_factory=set)
    left_out: LeftOut = field(default_factory=LeftOut)

    def excludes(self, path: PurePath) -> bool:
        """Tell whether a file or folder, by its path below the input folder, is left out."""
        return self._matches_one(path, self.exclude)

    def matches(self, path: PurePath) -> bool:
        """Tell whether an image, by its path below the input folder, is taken."""
        is_included = not self.include or self._matches_one(path, self.include)
        return not self.excludes(path) and is_included

    def _matches_one(self, path: PurePath, patterns: tuple[str, ...]) -> bool:
        matched = {pattern for pattern in patterns if _matches(path, pattern)}
        self.matched.update(matched)
        return bool(matched)

    def remarks(self) -> Iterator[str]:
        """Yield sentences about what was left out and about patterns without a match."""
        yield from self.left_out.remarks()
        for option, patterns in (("--include", self.include), ("--exclude", self.exclude)):
            for pattern in patterns:
                if pattern not in self.matched:
                    hint = explain_braces(pattern, f"give {option} for each name")
                    yield f"no file or folder matches {option} {pattern}{hint and f'; {hint}'}"


def _matches(path: PurePath, pattern: str) -> bool:
    """Match a pattern with the names in a path or, if it has a slash, with the path and its parents."""
    if "/" not in pattern.rstrip("/"):
        return any(_fits(part, pattern.rstrip("/")) for part in path.parts)
    plain = PurePosixPath(pattern).as_posix()  # without a leading ./ and a final /
    return any(_fits(part.as_posix(), plain) for part in (path, *path.parents))


def _fits(path: str, pattern: str) -> bool:
    """Match a whole path; the pattern may also begin with its first folders as they are, brackets and all."""
    if path == pattern or fnmatch.fnmatch(path, pattern):
        return True
    (first, slash, below), (same, _, rest) = path.partition("/"), pattern.partition("/")
    return first == same and bool(slash and rest) and _fits(below, rest)


def find_sources(inputs: Sequence[str], file_filter: FileFilter | None = None) -> list[Source]:
    """Find the images of the inputs, in the order given, those of a folder by name.

    A folder stands for all images in it and below it, without hidden files and folders, and without results:
    files in the output folder, and ``a_x4.png`` if there is an ``a.png`` or ``a.jpg``. Linked folders are not
    followed, and pipes and devices are not read. A pattern that the shell has not expanded is expanded here,
    also without these. Clips are no images. What is left out is counted.

    Args:
        inputs: Files, folders, patterns, or "-" for standard input.
        file_filter: Filter for the images in folders; by default all are taken.

    Raises:
        UsageError: A folder or pattern has no image, a name is empty, or standard input is given twice.
    """
    file_filter = file_filter or FileFilter()
    sources: list[Source] = []
    for name in inputs:
        if not name:
            raise UsageError("an input has an empty name; see what the shell makes of the command")
        if name == STANDARD_STREAM:
            sources.append(Source(None))
        elif must_be_expanded(name):
            matches = expand(name)
            if not matches.names:
                raise UsageError(f"no file matches the pattern: {name}; {explain_no_match(name)}")
            file_filter.left_out.links += matches.links
            file_filter.left_out.unreadable += matches.unreadable
            for match in _choose_matches(matches.names, file_filter):
                sources.extend(_take_named(match, file_filter))
        else:
            sources.extend(_take_named(name, file_filter))
    file_filter.left_out.settle()
    if [source.path for source in sources].count(None) > 1:
        raise UsageError("standard input can be read once: - is given twice; give it once")
    return sources


def read_names(list_file: str, null: bool = False, file_filter: FileFilter | None = None) -> list[Source]:
    """Read names of images and folders from a file; each is taken as it stands.

    Args:
        list_file: The file, or "-" for standard input.
        null: Whether names are separated by NUL bytes, as ``find -print0`` writes them, not by lines.
        file_filter: Filter for the images in folders; by default all are taken.

    Raises:
        UsageError: The file cannot be read, is empty, or holds no such names.
    """
    try:
        data = sys.stdin.buffer.read() if list_file == STANDARD_STREAM else Path(list_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the names in {list_file}: {error.strerror}; check its name") from error
    data = _as_utf8(data)
    parts = data.split(b"\0")
    if len(parts) > 1 and not null:
        if os.path.lexists(parts[0]):
            raise UsageError(f"the names in {list_file} are separated by NUL bytes; add --null")
        raise UsageError(
            f"no list of names: {list_file}; name images themselves, without --from-file, or save a list as "
            "UTF-8"
        )
    if null and len(parts) == 1 and re.search(rb"[\r\n]", data) and not os.path.lexists(data):
        raise UsageError(f"the names in {list_file} are separated by lines; leave out --null")
    names = list(map(os.fsdecode, filter(None, parts if null else data.splitlines())))
    if not names:
        raise UsageError(f"no names in {list_file}; write one per line")
    file_filter = file_filter or FileFilter()
    return [source for name in names for source in _take_named(name, file_filter)]


def _as_utf8(data: bytes) -> bytes:
    """Return a list of names without a byte order mark and in UTF-8: PowerShell and editors write others.

    A first name that a file has is taken as it stands.
    """
    if os.path.lexists(re.split(rb"[\r\n\0]", data, maxsplit=1)[0]):
        return data
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        with suppress(UnicodeDecodeError):
            return data.decode("utf-16").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _take_named(name: str, file_filter: FileFilter) -> list[Source]:
    """Return the images that a name of a file or folder means; a clip, which is none, is left out."""
    if os.path.isdir(name):
        return _find_in_folder(Path(name), file_filter)
    if name.lower().endswith(CLIP_SUFFIXES) and os.path.isfile(name):
        file_filter.left_out.clips.append(Path(name))
        return []
    return [Source(Path(name))]


def take_once(sources: Sequence[Source], left_out: LeftOut) -> list[Source]:
    """Keep only the first of several sources with the same path."""
    folders = RealFolders()
    seen: set[str] = set()
    taken: list[Source] = []
    for source in sources:
        if source.path is not None:
            place = folders.place(source.path)
            if place in seen:
                left_out.repeated.append(source.path)
                continue
            seen.add(place)
        taken.append(source)
    return taken


def _choose_matches(names: Sequence[str], file_filter: FileFilter) -> list[str]:
    """Leave out pipes, devices and files that are results of others among those that match a pattern."""
    images: dict[str, set[str]] = {}
    for name in names:
        folder, file = os.path.split(name)
        images.setdefault(folder, set()).update((file, Path(file).stem))
    kept = []
    for name in names:
        folder, file = os.path.split(name)
        if _is_result(file, images[folder]) and os.path.isfile(name):
            file_filter.left_out.results.append(Path(name))
        elif is_special(name):
            file_filter.left_out.special.append(Path(name))
        else:
            kept.append(name)
    return kept


def _is_result(name: str, images: Collection[str]) -> bool:
    """Tell whether a file has the name of a result of one of these images, given by names and stems."""
    result = _RESULT.fullmatch(Path(name).stem)
    return result is not None and result[1] in images


def look_into(folder: Path, file_filter: FileFilter) -> list[Source]:
    """Find the images in a folder and below it, as :func:`find_sources` does; there may be none.

    Args:
        folder: A folder, which need not exist.
        file_filter: Filter for the images; it counts what is left out.
    """
    return _walk(folder, file_filter)[0]


def _find_in_folder(folder: Path, file_filter: FileFilter) -> list[Source]:
    own = replace(file_filter, left_out=LeftOut())
    found, is_empty = _walk(folder, own)
    if not found:
        hidden = own.left_out.hidden
        more = f"; what is hidden is not read, such as {hidden}" if hidden else ""
        raise UsageError(f"no images in the folder: {folder}; {_explain_nothing(own, is_empty)}{more}")
    file_filter.left_out.update(own.left_out)
    return found


def _walk(folder: Path, file_filter: FileFilter) -> tuple[list[Source], bool]:
    """Return the images in a folder and below it, and whether there are none of any name."""
    found: list[Source] = []
    is_empty, left_out = True, file_filter.left_out
    results = os.path.realpath(file_filter.output) if file_filter.output else None
    for root, folders, files in os.walk(folder, onerror=left_out.unreadable.append):
        below = Path(root).relative_to(folder)
        images = [name for name in sorted(files) if Path(name).suffix.lower() in READABLE_SUFFIXES]
        hidden = (Path(root, name) for name in (*images, *sorted(folders)) if name.startswith("."))
        left_out.hidden = left_out.hidden or next(hidden, None)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(root, name)) != results
            and not file_filter.excludes(below / name)
        )
        left_out.links += [Path(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
        shown = [name for name in sorted(files) if not name.startswith(".")]
        images = [name for name in images if not name.startswith(".")]
        is_empty = is_empty and not images
        known = {*images, *(Path(name).stem for name in images)}
        for name in shown:
            if not file_filter.matches(below / name):
                continue
            if Path(name).suffix.lower() not in READABLE_SUFFIXES:
                left_out.add_unread(Path(root, name))
            elif is_special(os.path.join(root, name)):
                left_out.special.append(Path(root, name))
            elif _is_result(name, known):
                left_out.results.append(Path(root, name))
            else:
                found.append(Source(Path(root, name), folder))
    return found, is_empty


def find_images(folder: Path) -> list[Path]:
    """List all images in a folder and below it, for measuring and training.

    They are the images that restoring the folder would find, and the results among them.

    Args:
        folder: A folder, or a single image.

    Raises:
        UsageError: The folder does not exist, has no images, or holds a folder that cannot be read.
    """
    if not folder.is_dir():
        if not folder.exists():
            raise UsageError(f"no such file or folder: {folder}; check its name")
        return [folder]
    file_filter = FileFilter()
    found = [Path(str(source)) for source in _find_in_folder(folder, file_filter)]
    for error in file_filter.left_out.unreadable:
        raise UsageError(explain_unreadable(error))
    return sorted(found + file_filter.left_out.results)


def _explain_nothing(file_filter: FileFilter, is_empty: bool) -> str:
    left_out = file_filter.left_out
    if left_out.unreadable:
        return explain_unreadable(left_out.unreadable[-1])
    if left_out.clips:
        return f"it has clips; name each, such as {left_out.clips[0]}"
    if left_out.special:
        return f"it has pipes or devices; name each, such as {left_out.special[0]}"
    if left_out.kinds:
        return f"it has only files of formats that are not supported: {describe_kinds(left_out.kinds)}"
    patterns = [f"--include {pattern}" for pattern in file_filter.include]
    patterns += [f"--exclude {pattern}" for pattern in file_filter.exclude]
    if patterns:
        hint = explain_braces(" ".join(patterns), "give the option for each name")
        return f"nothing matches {' and '.join(patterns)}{hint and f'; {hint}'}"
    if is_empty:
        return f"these are read: {', '.join(sorted(READABLE_SUFFIXES))}"
    return "all are results; name those to restore"
