"""The command that tells what images are and what they need."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from mambair_cli.cli.inputs import (
    Exclude,
    FromFile,
    Include,
    Inputs,
    Null,
    check_addresses,
    check_null,
    find_inputs,
)
from mambair_cli.cli.options import AsJson, MaxPixels, Quiet, with_options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.errors import MambairError
from mambair_cli.runs import parameters

if TYPE_CHECKING:
    import numpy as np

    from mambair_cli.cli.inspect_text import Inspection
    from mambair_cli.images import Reader
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.inspection.look import Look

_KINDS = {"clean": "clean", "real": "noisy or compressed", "white": "with white noise"}


@dataclass(frozen=True)
class InspectOptions:
    """The options of ``inspect``."""

    from_file: FromFile = None
    null: Null = False
    include: Include = None
    exclude: Exclude = None
    max_pixels: MaxPixels = parameters.MAX_PIXELS.default
    quiet: Quiet = False
    json: AsJson = False


@with_options
def inspect(inputs: Inputs = None, *, options: InspectOptions) -> None:
    """Show what images are, and what they need.

    Shows size, depth, colours and file format; JPEG quality, noise, and how much of the resolution holds
    detail; and the models that suit, with reasons. One image is shown in full, several in a table, which has
    more columns in a wide terminal. Nothing is written, and no model is loaded.

    Example: mambair inspect photo.jpg
    """
    from mambair_cli.images import discovery

    check_null(options.null, options.from_file)
    check_addresses(inputs or [])
    file_filter = discovery.FileFilter(tuple(options.include or ()), tuple(options.exclude or ()))
    sources = find_inputs(inputs or [], options.from_file, options.null, file_filter, "inspect")
    _report_left_out(file_filter, options)
    show = _choose_output(sources, options)
    kinds: Counter[str] = Counter()
    exit_code = 0
    for source in sources:
        try:
            inspection = _inspect(source, options.max_pixels)
        except MambairError as error:
            exit_code = max(exit_code, error.exit_code)
            kinds["failed"] += 1
            _report_error(source, error, options.json)
            continue
        kinds[_KINDS[inspection.need.kind]] += 1
        show(inspection)
        if inspection.warnings and not options.quiet:
            say(f"warning: {source}: {'; '.join(inspection.warnings)}")
    if len(sources) > 1 and not options.quiet:
        counts = [f"{kinds[what]} {what}" for what in (*_KINDS.values(), "failed") if kinds[what]]
        say(f"{len(sources)} images: {', '.join(counts)}")
    if exit_code:
        raise typer.Exit(exit_code)


def _choose_output(sources: list["Source"], options: InspectOptions) -> "Callable[[Inspection], None]":
    """Return a function that shows an inspection: as JSON, in full, or as a row of a table."""
    if options.json:
        return lambda inspection: print_event("inspected", **describe(inspection))
    from mambair_cli.cli.inspect_text import Table, print_in_full

    if len(sources) == 1:
        return print_in_full
    return Table([str(source) for source in sources]).print_row


def _inspect(source: "Source", max_pixels: int) -> "Inspection":
    """Inspect an image; all of it is decoded, so that damage is found.

    Raises:
        ImageError: It cannot be read.
    """
    from mambair_cli.cli.inspect_text import Inspection
    from mambair_cli.images.icc_profile import describe_profile
    from mambair_cli.images.jpeg_quality import read_jpeg_quality
    from mambair_cli.inspection.need import find_need
    from mambair_cli.runs.job_files import open_source

    held = source.hold()
    file = held.path or held.data or b""
    with open_source(held, max_pixels) as reader:
        header = reader.header
        look = _look(reader)
        warnings = tuple(reader.warnings)
    return Inspection(
        source=source,
        size=_find_size(held),
        header=header,
        profile=None if header.icc is None else describe_profile(header.icc) or "unnamed",
        need=find_need(look, read_jpeg_quality(file)),
        warnings=warnings,
    )


def _look(reader: "Reader") -> "Look | None":
    """Look at the pixels of an image, of several frames at those of the first, and decode the rest."""
    from mambair_cli.images import to_float
    from mambair_cli.inspection.look import look_at

    header = reader.header
    held: tuple[int, int, np.ndarray] | None = None  # windows beside each other need the same rows

    def read(rows: slice, columns: slice) -> "np.ndarray":
        nonlocal held
        if held is None or held[:2] != (rows.start, rows.stop):
            held = rows.start, rows.stop, reader.read(rows.start, rows.stop)
        return to_float(held[2][:, columns, : header.bands])

    look = look_at(header.height, header.width, read)
    end = header.height * header.frames
    if held is None or held[1] < end:
        reader.read(end - 1, end)
    return look


def _find_size(source: "Source") -> int | None:
    if source.path is None:
        return len(source.data or b"")
    try:
        return source.path.stat().st_size or None
    except OSError:  # it is gone since
        return None


def describe(inspection: "Inspection") -> dict[str, Any]:
    """Return an inspection in types that JSON has; what cannot be told is None."""
    from mambair_cli.inspection.need import describe_need

    header, need = inspection.header, inspection.need
    return {
        "input": str(inspection.source),
        "format": header.format,
        "bytes": inspection.size,
        "width": header.width,
        "height": header.height,
        "frames": header.frames,
        "bits": inspection.bits,
        "float": inspection.is_float,
        "channels": header.bands,
        "alpha": header.has_alpha,
        "profile": inspection.profile,
        **describe_need(need),
        "upscale": "clean" if need.kind == "clean" else "real",
        "denoise": "white" if need.kind == "white" else "real",
        "warnings": list(inspection.warnings),
    }


def _report_left_out(file_filter: "FileFilter", options: InspectOptions) -> None:
    """Say what is among the inputs and is not inspected."""
    if options.json:
        for facts in file_filter.left_out.facts():
            print_event("left_out", **facts)
    if not options.quiet:
        for remark in file_filter.remarks():
            say(remark)


def _report_error(source: "Source", error: MambairError, as_json: bool) -> None:
    """Say that an image cannot be inspected."""
    complain(error)
    if as_json:
        from mambair_cli.runs.outcomes import describe_error

        print_event("failed", input=str(source), **describe_error(error))
