"""The jobs of a run: the scale of its network, and where each result goes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from mambair_cli.cli.options import Options

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked, Task
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.output_size import Size


def choose_scale(asked: "Asked", sources: list["Source"], output: "WriteOptions", max_pixels: int) -> "Asked":
    """Choose the scale of the network by the sizes of its results, where these were asked for.

    Args:
        asked: What is asked for.
        sources: The images.
        output: How results are written.
        max_pixels: Images with more pixels are refused, and do not count.

    Returns:
        What is asked for, with that scale.
    """
    from mambair_cli.checkpoints.catalog import is_named
    from mambair_cli.runs.output_size import Size

    if output.size == Size() or is_named(asked.model) or asked.weights is not None:
        return asked
    return replace(asked, scale=_smallest_scale(sources, output.size, max_pixels))


def name_jobs(
    task: "Task",
    scale: int,
    sources: list["Source"],
    output: "WriteOptions",
    options: Options,
    file_filter: "FileFilter",
) -> list["Job"]:
    """Name the result of each image; a run and a dry run name them alike.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Scale of the network.
        sources: The images.
        output: How results are written.
        options: Options of the command.
        file_filter: Filter that found the images; it counts which of them are left out.
    """
    from mambair_cli.runs.naming import name_targets, suffix_of

    suffix = suffix_of(task, scale, output.size)
    is_list = options.from_file is not None
    return name_targets(sources, options.output, suffix, options.format, is_list, file_filter.left_out)


def written_formats(jobs: Iterable["Job"]) -> set[str]:
    """Return the formats of the results, as far as names tell them."""
    from mambair_cli.images.formats import find_format

    named = (job.format or (job.target and find_format(job.target.suffix)) for job in jobs)
    return set(filter(None, named))


def _smallest_scale(sources: list["Source"], size: "Size", max_pixels: int) -> int:
    """Choose the smallest network that enlarges as far as any of the images needs."""
    from mambair_cli.runs.job_files import largest_factor
    from mambair_cli.runs.output_size import NETWORK_SCALES, network_scale

    factor = largest_factor(sources, size, max_pixels) if size.depends_on_image else size.scale
    return NETWORK_SCALES[-1] if factor is None else network_scale(factor)
