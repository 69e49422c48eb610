"""The command that tells what images are and what they need."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.clips import expand_patterns, is_clip_name
from mambair_cli.cli.inputs import (
    Exclude,
    FromFile,
    Include,
    Inputs,
    Null,
    check_names,
    check_null,
    find_inputs,
)
from mambair_cli.cli.options import AsJson, MaxPixels, Quiet, with_options
from mambair_cli.cli.output import print_event, report_failure, say
from mambair_cli.errors import MambairError
from mambair_cli.runs import parameters
from mambair_cli.system.memory import explaining_memory

if TYPE_CHECKING:
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.inspection.inspect_image import Inspection

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
    more columns in a wide terminal. A clip is shown with its streams. Nothing is written, and no model
    is loaded.

    Example: mambair inspect photo.jpg
    """
    from mambair_cli.images import discovery
    from mambair_cli.inspection.inspect_image import inspect_image

    check_null(options.null, options.from_file)
    check_names(inputs or [])
    inputs = expand_patterns(inputs or [])
    clips = [name for name in inputs if is_clip_name(name)]
    exit_code = 0
    if clips:
        from mambair_cli.cli.inspect_clip import inspect_clips

        exit_code = inspect_clips(clips, options.json, options.quiet)
    inputs = [name for name in inputs if name not in clips]
    if clips and not inputs and options.from_file is None:
        if exit_code:
            raise typer.Exit(exit_code)
        return
    file_filter = discovery.FileFilter(tuple(options.include or ()), tuple(options.exclude or ()))
    sources = find_inputs(inputs, options.from_file, options.null, file_filter, "inspect")
    _report_left_out(file_filter, options)
    show = _choose_output(sources, options)
    kinds: Counter[str] = Counter()
    for name, error in file_filter.left_out.failures():
        exit_code = max(exit_code, error.exit_code)
        kinds["failed"] += 1
        report_failure(name, error, options.json)
    for source in sources:
        try:
            with explaining_memory(str(source)):
                inspection = inspect_image(source, options.max_pixels)
        except MambairError as error:
            exit_code = max(exit_code, error.exit_code)
            kinds["failed"] += 1
            report_failure(str(source), error, options.json)
            continue
        kinds[_KINDS[inspection.need.kind]] += 1
        show(inspection)
        if inspection.warnings and not options.quiet:
            say(f"warning: {source}: {'; '.join(inspection.warnings)}")
    if kinds.total() > 1 and not options.quiet:
        counts = [f"{kinds[what]} {what}" for what in (*_KINDS.values(), "failed") if kinds[what]]
        say(f"{kinds.total()} images: {', '.join(counts)}")
    if exit_code:
        raise typer.Exit(exit_code)


def _choose_output(sources: list["Source"], options: InspectOptions) -> "Callable[[Inspection], None]":
    """Return a function that shows an inspection: as JSON, in full, or as a row of a table."""
    if options.json:
        from mambair_cli.inspection.inspect_image import describe_inspection

        return lambda inspection: print_event("inspected", **describe_inspection(inspection))
    from mambair_cli.cli.inspect_text import Table, print_in_full

    if len(sources) == 1:
        return print_in_full
    return Table([str(source) for source in sources]).print_row


def _report_left_out(file_filter: "FileFilter", options: InspectOptions) -> None:
    """Say what is among the inputs and is not inspected."""
    if options.json:
        for facts in file_filter.left_out.facts():
            print_event("left_out", **facts)
    if not options.quiet:
        for remark in file_filter.remarks():
            say(remark)
