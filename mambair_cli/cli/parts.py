"""The parts of a run: the images that one model restores, and those that another one does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mambair_cli.cli.options import Options

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.output_size import Size


@dataclass(frozen=True)
class Part:
    """Images that one model restores.

    Attributes:
        sources: The images.
        options: The command's options, with the model of this part.
        output: How results are written.
        scale: Scale of the network, where it was asked for.
        remark: Why this model is used, for the user; None where the user chose it.
    """

    sources: tuple["Source", ...]
    options: Options
    output: "WriteOptions"
    scale: int | None
    remark: str | None = None

    def pick(self, jobs: Iterable["Job"]) -> list["Job"]:
        """Return the jobs of this part's images."""
        mine = set(self.sources)
        return [job for job in jobs if job.source in mine]


def divide(
    task: "Task", sources: list["Source"], options: Options, output: "WriteOptions", scale: int | None
) -> list[Part]:
    """Divide a run by the model for each image: compressed images are enlarged by a model of their own.

    Standard input is read to find out whether it is compressed.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        sources: The images.
        options: The command's options.
        output: How results are written.
        scale: Scale of the network, where it was asked for.
    """
    from mambair_cli.checkpoints.catalog import AUTO, CLEAN, REAL
    from mambair_cli.images.jpeg_quality import read_jpeg_quality
    from mambair_cli.inspection.need import is_compressed
    from mambair_cli.runs.output_size import size_for_real

    if task != "upscale" or options.model != AUTO or options.weights is not None:
        return [_make_part(sources, options, output, scale)]
    held = [source.hold() for source in sources]
    compressed = {
        source for source in held if is_compressed(read_jpeg_quality(source.path or source.data or b""))
    }
    real = [source for source in held if source in compressed]
    clean = [source for source in held if source not in compressed]
    parts = []
    if clean:
        parts.append(_make_part(clean, replace(options, model=CLEAN), output, scale))
    if real:
        output = replace(output, size=size_for_real(output.size, scale))
        remark = _explain(real, len(held))
        parts.append(_make_part(real, replace(options, model=REAL), output, scale, remark))
    return parts


def name_jobs(
    task: "Task", scale: int, parts: Sequence[Part], options: Options, choice: "FileFilter"
) -> list["Job"]:
    """Name the result of each image; a run and a dry run name them alike.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Scale of the network.
        parts: The images, by model.
        options: Options of the command.
        choice: Filter that found the images; it is told which of them are left out.
    """
    from mambair_cli.runs.naming import name_targets, suffix_of

    suffix = suffix_of(task, scale, parts[0].output.size)
    sources = [source for part in parts for source in part.sources]
    is_list = options.from_file is not None
    return name_targets(sources, options.output, suffix, options.format, is_list, choice.left_out)


def _make_part(
    sources: list["Source"],
    options: Options,
    output: "WriteOptions",
    scale: int | None,
    remark: str | None = None,
) -> Part:
    """Make a part, and choose the scale of its network by the sizes of its results."""
    from mambair_cli.checkpoints.catalog import is_named
    from mambair_cli.runs.output_size import Size

    if output.size != Size() and not is_named(options.model) and options.weights is None:
        scale = _choose_scale(sources, output.size, options.max_pixels)
    return Part(tuple(sources), options, output, scale, remark)


def _choose_scale(sources: list["Source"], size: "Size", max_pixels: int) -> int:
    """Choose the smallest network that enlarges as far as any of the images needs."""
    from mambair_cli.runs.job_files import largest_factor
    from mambair_cli.runs.output_size import NETWORK_SCALES, network_scale

    factor = largest_factor(sources, size, max_pixels) if size.depends_on_image else size.scale
    return NETWORK_SCALES[-1] if factor is None else network_scale(factor)


def _explain(compressed: list["Source"], images: int) -> str:
    """Say why some images, or all, are enlarged by the model for real photographs."""
    from mambair_cli.images.jpeg_quality import estimate_jpeg_quality
    from mambair_cli.inspection.need import CLEAN_QUALITY

    advice = "using the model for real photographs; --clean overrules"
    if images == 1:
        source = compressed[0]
        quality = estimate_jpeg_quality(source.path or source.data or b"")
        return f"{source} is a JPEG of quality {quality}: {advice}"
    share = "all" if len(compressed) == images else f"{len(compressed)}"
    return f"{share} of {images} images are JPEGs of quality below {CLEAN_QUALITY}: {advice}"
