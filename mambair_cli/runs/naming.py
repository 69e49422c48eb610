"""Where results go: images -> jobs, each with the name of its result, or why it is refused."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.errors import ImageError, UsageError
from mambair_cli.images import FORMATS, IMAGE_SUFFIXES, READABLE_SUFFIXES, choose_format, settle_format
from mambair_cli.images.formats import find_format, find_formats
from mambair_cli.images.left_out import LeftOut
from mambair_cli.images.signatures import HEIF_SUFFIXES, START_BYTES, identify
from mambair_cli.images.source import STANDARD_STREAM, Source
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal_entry import JournalEntry
from mambair_cli.runs.output_size import Size
from mambair_cli.runs.record import Record
from mambair_cli.runs.stamps import find_stamp
from mambair_cli.system.clips import CLIP_SUFFIXES
from mambair_cli.system.disk_names import DiskNames
from mambair_cli.system.file_errors import explain_input
from mambair_cli.system.files import is_stream
from mambair_cli.system.wording import enumerate_names

_TELL_APART = "restore them into different folders"
_MOVING = (".gif", ".apng", ".png")  # animations that FFmpeg reads
_LIKE_JPEG = (".mpo",)  # several in one file, of which the first is restored
_MOST_NAMED = 5  # in an error


def suffix_of(task: Task, scale: int, size: Size) -> str:
    """Return what is added to names of results, such as ``_x4``, ``_upscaled`` or ``_denoised``.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Scale of the network.
        size: Size of the results that was asked for.
    """
    if task == "upscale" and size.depends_on_image:
        return "_upscaled"
    if task == "upscale" and size.scale is not None:
        return f"_x{size.scale:g}"
    return {"upscale": f"_x{scale}", "denoise": "_denoised", "dejpeg": "_dejpeg"}[task]


def name_targets(
    sources: Sequence[Source],
    output: str | None,
    suffix: str,
    format: str | None = None,
    is_list: bool = False,
    left_out: LeftOut | None = None,
) -> list[Job]:
    """Say where each result goes.

    Without an output, ``in.png`` becomes ``in_x4.png`` next to it, and a folder ``photos`` becomes
    ``photos_x4`` next to it, its tree and names kept. An output that is a folder receives results under
    their inputs' names. Where ``a.bmp`` and ``a.png`` would both become ``a.png``, the one that is written
    as another format becomes ``a.bmp.png``.

    Inputs that are the results of other inputs are left out, as in a second run over ``*.png``, or over a
    folder whose results go into itself. A job whose result cannot have its name is refused; the others are
    done.

    Args:
        sources: The images.
        output: A file (one input), a folder, "-" for standard output, or None.
        suffix: Added to names where there is no output, such as ``_x4``.
        format: Format of all results; by default each is written as its input is, or as PNG. A file without a
            suffix of images, or with one of HEIF, is looked at for that.
        is_list: Whether the images come from a list, which may be of any length: then an output is a folder,
            also for one image.
        left_out: Collects the inputs that are results.

    Raises:
        UsageError: No result can have its name, because others have the same or an input has it; several
            results would go into one file; or the file's name stands for another format or for none.
    """
    if output == STANDARD_STREAM or (output is None and sources[0].path is None):
        if len(sources) > 1:
            raise UsageError(f"standard output takes one image: {len(sources)} inputs; give -o a folder")
        return [Job(sources[0], None, format)]

    left_out, places = left_out or LeftOut(), _Places()
    file = target_file(sources, output, is_list)
    if file is not None and is_stream(file):
        jobs = [Job(sources[0], file, settle_file(file, format), is_stream=True)]
    elif file is not None:
        jobs = [Job(sources[0], file, settle_file(file, format), file.parent)]
    else:
        jobs = [_name_target(source, output, suffix, format) for source in sources]
        if output is not None:
            jobs = _leave_out_written(jobs, Path(output), places, left_out)
        jobs = _tell_apart(jobs, places)
        if output is None:
            jobs = _leave_out_results(jobs, places, left_out)
    return _refuse_collisions(jobs, places, left_out)


def target_file(sources: Sequence[Source], output: str | None, is_list: bool = False) -> Path | None:
    """Return the file that an output names; None for a folder, for standard output or without an output.

    Args:
        sources: The images.
        output: A file, a folder, "-" for standard output, or None.
        is_list: Whether the images come from a list; see :func:`name_targets`.

    Raises:
        UsageError: The output names a file, and the results need a folder; or it names a clip.
    """
    if output in (None, STANDARD_STREAM):
        return None
    path = sources[0].path
    is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    if is_list or len(sources) != 1 or sources[0].folder is not None:
        if not is_folder and Path(output).suffix.lower() in CLIP_SUFFIXES:
            raise UsageError(
                f"-o names a clip: {output}; for a clip of images, name their folder, or frames/%06d.png"
            )
        if not is_folder and Path(output).suffix.lower() in READABLE_SUFFIXES:
            many = (
                f"there are {len(sources)} images" if len(sources) > 1 else "the input is a folder or a list"
            )
            raise UsageError(f"-o names one file: {output}, and {many}; give a folder")
        return None
    if path is not None and not os.path.lexists(path):  # the error is the input, not the output's suffix
        is_folder = is_folder or not Path(output).suffix
    if not is_folder and Path(output).suffix.lower() in CLIP_SUFFIXES and not is_stream(Path(output)):
        raise UsageError(_explain_clip(sources[0], Path(output)))
    return None if is_folder else Path(output)


def _explain_clip(source: Source, target: Path) -> str:
    """Say why the result of an image cannot be a clip, and what would work."""
    remedy = "a clip is made of a folder of images, or of frames/%06d.png"
    if source.path is not None and source.path.suffix.lower() in _MOVING:
        clip = source.path.with_suffix(".mp4")
        remedy = f"make a clip of it first, as with ffmpeg -i {source.path} {clip}"
    moving = enumerate_names(find_formats(lambda row: row.has_frames), "or")
    return (
        f"cannot write {target}: an image becomes an image, and a moving one {moving}, "
        f"not {target.suffix.lower()}; {remedy}"
    )


def settle_file(target: Path, format: str | None) -> str | None:
    """Return the format of a file that an output names; None for a stream whose name tells none.

    Raises:
        UsageError: The name stands for another format, or for none.
    """
    if format is None and find_format(target.suffix) is None and is_stream(target):
        return None
    try:
        return settle_format(target, format)
    except ImageError as error:
        is_known = target.suffix.lower() in IMAGE_SUFFIXES
        raise UsageError(f"{error}" + ("" if is_known else f"; {target}/ writes into a folder")) from error


def _name_target(source: Source, output: str | None, suffix: str, format: str | None) -> Job:
    if source.path is None:
        raise UsageError("the result of standard input needs a name: give -o a file, or - alone")
    path = source.path
    if output is not None:
        root = Path(output)
        target = root / (path.relative_to(source.folder) if source.folder else path.name)
    elif source.folder is not None:
        folder = source.folder.resolve()
        if not folder.name:
            raise UsageError(f"no place for results next to the root folder: {folder}; give -o a folder")
        root = folder.with_name(folder.name + suffix)
        if not source.folder.is_absolute():
            root = Path(os.path.relpath(root))
        target = root / path.relative_to(source.folder)
    else:
        root = path.parent
        target = path.with_name(path.stem + suffix + path.suffix)
    named = find_format(path.suffix)
    if format is None and named is None:
        format = choose_format(_find_own_format(path))
    if format == named:  # the name gives it; so the result is known as the same that it is without --format
        format = None
    if format is not None:
        target = target.with_name(target.name.removesuffix(path.suffix) + FORMATS[format].suffixes[0])
    return Job(source, target, format, root)


def _find_own_format(path: Path) -> str | None:
    """Return the format of a file whose suffix tells none, where its start does; a pipe is not touched.

    A file with a suffix of HEIF may be AVIF.
    """
    suffix = path.suffix.lower()
    if suffix in _LIKE_JPEG:
        return "jpeg"
    is_certain = suffix in IMAGE_SUFFIXES and suffix not in HEIF_SUFFIXES
    if is_certain or not os.path.isfile(path):  # pathlib's raises errors, as of long names
        return None
    with suppress(OSError, ImageError), path.open("rb") as file:
        return identify(file.read(START_BYTES), str(path))
    return None


class _Places:
    """Tells files apart, whatever they are named."""

    def __init__(self) -> None:
        self.names = DiskNames()

    def of_target(self, job: Job) -> str | None:
        """Return the key of a result."""
        return self.names.key(job.target) if job.target else None

    def of_source(self, job: Job) -> str | None:
        """Return the key of an image."""
        return self.names.key(job.source.path) if job.source.path else None

    def group(self, jobs: Sequence[Job]) -> dict[str | None, list[Job]]:
        """Group jobs by the keys of their results."""
        groups: dict[str | None, list[Job]] = {}
        for job in jobs:
            groups.setdefault(self.of_target(job), []).append(job)
        return groups


def _leave_out_results(jobs: Sequence[Job], places: _Places, left_out: LeftOut) -> list[Job]:
    """Drop the jobs of images that are the results of other inputs."""
    targets = {places.of_target(job) for job in jobs}
    named = {places.of_source(job): job.source.path for job in jobs if job.source.folder is None}
    results = {place: path for place, path in named.items() if place in targets and path is not None}
    left_out.results.extend(results.values())
    return [
        replace(job, replaces_input=places.of_target(job) in results)
        for job in jobs
        if job.source.folder is not None or places.of_source(job) not in results
    ]


def _leave_out_written(jobs: list[Job], root: Path, places: _Places, left_out: LeftOut) -> list[Job]:
    """Drop the jobs of images that runs have written into the folder of results, by its journal.

    They are results of other inputs: they have the names that these give now, or were made of them.
    """
    inside = os.path.join(os.path.realpath(root), "")
    written: dict[str | None, JournalEntry] = {}
    record: Record | None = None
    with suppress(OSError):  # without a journal all are inputs
        for path in (job.source.path for job in jobs):
            if path is not None and (place := places.names.place(path)).startswith(inside):
                record = record or Record(root)
                if (entry := record.entry_of(Path(place))) is not None:
                    written[places.names.key(path)] = entry
    if not written or record is None:
        return jobs
    others = [job for job in jobs if places.of_source(job) not in written]
    targets = {places.of_target(job) for job in _tell_apart(others, places)}
    inputs = {places.of_source(job) for job in others}
    stamps = set(filter(None, (find_stamp(job.source.path) for job in others)))

    def is_made_of_them(entry: JournalEntry) -> bool:
        made_of = None if entry.input is None else record.inputs.find(entry.input)
        return (
            entry.source in stamps if made_of is None else places.names.key(made_of) in inputs
        )  # else moved

    results = {place for place, entry in written.items() if place in targets or is_made_of_them(entry)}
    left_out.results += [
        job.source.path for job in jobs if job.source.path and places.of_source(job) in results
    ]
    return [job for job in jobs if places.of_source(job) not in results]


def _tell_apart(jobs: Sequence[Job], places: _Places) -> list[Job]:
    """Keep the suffix of an input in the name of its result, where another result would have that name."""
    groups = places.group(jobs)
    others: dict[str | None, tuple[Path, ...]] = {}  # that get another name
    renamed = []
    for job in jobs:
        source, target = job.source.path, job.target
        place = places.of_target(job)
        if source and target and len(groups[place]) > 1:
            if source.suffix != target.suffix:
                mark = target.stem.removeprefix(source.stem)
                job = replace(job, target=target.with_name(source.name + mark + target.suffix))
            else:
                if place not in others:
                    paths = [other.source.path for other in groups[place]]
                    others[place] = tuple(path for path in paths if path and path.suffix != target.suffix)
                job = replace(job, namesakes=others[place])
        renamed.append(job)
    return renamed


def _refuse_collisions(jobs: Sequence[Job], places: _Places, left_out: LeftOut) -> list[Job]:
    """Refuse the jobs whose results would have one name, or the name of an input.

    Raises:
        UsageError: All jobs are refused.
    """
    inputs = {places.of_source(job) for job in jobs if job.source.path}
    groups = {place: group for place, group in places.group(jobs).items() if len(group) > 1}
    repeated = {place for place, group in groups.items() if len(set(map(places.of_source, group))) == 1}
    settled: list[Job] = []
    for job in jobs:
        place = places.of_target(job)
        group = groups.get(place, [job])
        if job.target and place in inputs:
            job = replace(job, refusal=str(explain_input(job.target)))
        elif place in repeated and job is not group[0]:  # one image, named several times by links
            left_out.repeated.extend([job.source.path] if job.source.path else [])
            continue
        elif place in groups and place not in repeated:
            other = group[group[0] is job].source
            more = f" and {len(group) - 2} more" if len(group) > 2 else ""
            clash = f"{other}{more} would be written as {job.target}, too"
            job = replace(job, refusal=f"cannot restore {job.source}: {clash}; {_TELL_APART}")
        settled.append(job)
    if all(job.refusal for job in settled):
        clashes = [group for place, group in groups.items() if place not in inputs]
        if clashes:
            raise UsageError(f"{_enumerate(map(_describe_clash, clashes))}; {_TELL_APART}")
        targets = _enumerate(dict.fromkeys(str(job.target) for job in settled))
        raise UsageError(f"an input is never overwritten: {targets}; choose another output with -o")
    return settled


def _describe_clash(group: Sequence[Job]) -> str:
    each = "both" if len(group) == 2 else "all"
    return f"{_enumerate(str(job.source) for job in group)} would {each} be written as {group[0].target}"


def _enumerate(words: Iterable[str]) -> str:
    """Name the first of several, and count the rest."""
    first = list(words)
    more = f" and {len(first) - _MOST_NAMED} more" if len(first) > _MOST_NAMED else ""
    if not more and len(first) > 1:
        return enumerate_names(first)
    return ", ".join(first[:_MOST_NAMED]) + more
