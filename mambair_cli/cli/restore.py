"""The commands that restore images: upscale, denoise, dejpeg."""

import math
import os
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.checkpoints.catalog import AUTO, CLEAN, REAL, Asked
from mambair_cli.cli.clips import restore_clips, take_clips
from mambair_cli.cli.dry_run import print_plan
from mambair_cli.cli.inputs import Inputs, check_names, find_inputs
from mambair_cli.cli.jobs import choose_scale
from mambair_cli.cli.mixing import settle_mix
from mambair_cli.cli.notices import EIGHT_TIMES, explain_quality
from mambair_cli.cli.option_checks import check_format, check_options
from mambair_cli.cli.options import Options, option, with_options
from mambair_cli.cli.output import say
from mambair_cli.cli.preview import check_preview, show_preview
from mambair_cli.cli.run import Run
from mambair_cli.cli.streams import is_stdout_closed
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.system.values import plain_factor, read_percentage, read_value

if TYPE_CHECKING:
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.output_size import Size
    from mambair_cli.runs.policy import RunPolicy


_STDOUT = 1


def _read_scale(text: str) -> float:
    """Read a scale, also where it is written with the sign of multiplication."""
    from mambair_cli.runs.output_size import LARGEST_SCALE, check_scale

    number = plain_factor(text)
    try:
        return read_value("--scale", number, "number", least=1, most=LARGEST_SCALE)
    except UsageError:
        with suppress(ValueError):
            share = read_percentage(number)
            factor = float(number) if share is None else share
            if math.isfinite(factor):
                check_scale(factor)
        raise


@with_options
def upscale(
    inputs: Inputs = None,
    scale: Annotated[
        float | None, option(parameters.SCALE, "-s", parser=_read_scale, min=None, max=None)
    ] = parameters.SCALE.default,
    width: Annotated[int | None, option(parameters.WIDTH)] = parameters.WIDTH.default,
    height: Annotated[int | None, option(parameters.HEIGHT)] = parameters.HEIGHT.default,
    megapixels: Annotated[float | None, option(parameters.MEGAPIXELS)] = parameters.MEGAPIXELS.default,
    real: Annotated[
        bool,
        typer.Option(
            "--real",
            help="Use the model for noisy, compressed or blurred images.",
            show_default="chosen for each image",
        ),
    ] = False,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Use the model for clean images.", show_default="chosen for each image"),
    ] = False,
    *,
    options: Options,
) -> None:
    """Enlarge images up to 4 times.

    Models enlarge 2, 3 or 4 times. For other factors the next larger model runs and its output is scaled
    down.

    Example: mambair upscale photos/ --scale 2 --output large/
    """
    from mambair_cli.runs.output_size import settle_scale

    if real and clean:
        raise UsageError("--real and --clean exclude each other; give one")
    if real or clean:
        options = _take(options, REAL if real else CLEAN)
    may_differ = not {*options.asked_models} <= {AUTO, CLEAN} or options.weights is not None
    network, size = settle_scale(scale, width, height, megapixels, may_differ)
    _restore(Asked("upscale", network), inputs, options, size)


@with_options
def denoise(
    inputs: Inputs = None,
    sigma: Annotated[float | None, option(parameters.SIGMA)] = parameters.SIGMA.default,
    real: Annotated[
        bool,
        typer.Option(
            "--real",
            help="Use the model for noise of any kind and JPEG artefacts.",
            show_default="chosen for each image",
        ),
    ] = False,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="Use the model for white noise of any strength.",
            show_default="chosen for each image",
        ),
    ] = False,
    *,
    options: Options,
) -> None:
    """Remove noise from images.

    Example: mambair denoise scan.png --sigma 25 --output clean.png
    """
    given = [f"--{word}" for word, is_given in (("real", real), ("clean", clean)) if is_given]
    given += [] if sigma is None else [f"--sigma {sigma:g}"]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} exclude each other; give one")
    if real or clean:
        options = _take(options, "real" if real else "clean")
    _restore(Asked("denoise", level=sigma), inputs, options)


@with_options
def dejpeg(
    inputs: Inputs = None,
    jpeg_quality: Annotated[int | None, option(parameters.JPEG_QUALITY)] = parameters.JPEG_QUALITY.default,
    *,
    options: Options,
) -> None:
    """Remove JPEG compression artefacts.

    Example: mambair dejpeg old/*.jpg --format png --output clean/
    """
    _restore(Asked("dejpeg", level=jpeg_quality), inputs, options)


def _restore(asked: Asked, inputs: list[str] | None, options: Options, size: "Size | None" = None) -> None:
    """Do what the restoring commands have in common.

    Args:
        asked: What is asked for, without the model, which the options name.
        inputs: Names of files and folders.
        options: Options that all these commands have.
        size: Size of the results; None for the network's own.
    """
    options = _settle_output(options)
    check_options(options)
    _check_level(asked, options)
    if options.is_preview:
        check_preview(options)
    with ExitStack() as opened:
        options = settle_mix(asked, options, opened)
        _restore_by(replace(asked, model=options.model, weights=options.weights), inputs, options, size)


def _restore_by(asked: Asked, inputs: list[str] | None, options: Options, size: "Size | None") -> None:
    """Restore by one model, or those that it is chosen from; the arguments are those of :func:`_restore`."""
    from mambair_cli.images.source import STANDARD_STREAM
    from mambair_cli.runs.output_size import check_reach

    check_names(inputs or [], options.output, options.output is None and options.from_file is None)
    if clips := take_clips(inputs, options):
        restore_clips(asked, clips, options, size)
        return
    if options.watch:
        _watch(asked, inputs or [], options, size)
        return
    sources, file_filter = _find_sources(inputs, options)
    if options.is_preview:
        show_preview(asked, sources, _write_options(options, size), options)
        return
    if options.resume and any(source.path is None for source in sources):
        raise UsageError(
            f"--resume skips files that are done, and {STANDARD_STREAM} is standard input; leave it out"
        )
    _check_output(sources, options)
    output, policy = _write_options(options, size), _policy(options)
    _check_server(options)
    if not options.quiet and (warning := explain_quality(asked.task, options.quality, asked.level)):
        say(warning)
    if options.ensemble and not options.quiet:
        say(EIGHT_TIMES)
    if options.dry_run:
        asked = choose_scale(asked, sources, output, policy.max_pixels)
        print_plan(asked, sources, options, output, policy, file_filter)
        return
    goes_to_stdout = options.output == STANDARD_STREAM
    goes_to_stdout |= options.output is None and sources[0].path is None
    if goes_to_stdout and is_stdout_closed():
        raise UsageError(f"standard output is closed: {STANDARD_STREAM}; give -o a file")
    if options.json and goes_to_stdout:
        raise UsageError("standard output takes an image or JSON; give -o a file, or leave out --json")
    asked = choose_scale(asked, sources, output, policy.max_pixels)
    run = Run(asked, sources, output, file_filter, options, policy)
    if (known := _known_scale(asked)) is not None:
        check_reach(output.size, known)
        run.name(known)
    run.perform()


def _watch(asked: Asked, names: list[str], options: Options, size: "Size | None") -> None:
    """Restore the images in folders, and those that arrive there; for the rest, see :func:`_restore`.

    Raises:
        UsageError: An input or the output is no folder.
    """
    from mambair_cli.images.discovery import FileFilter

    no_folder = [name for name in names if not os.path.isdir(name)]
    if no_folder or not names:
        what = f"{no_folder[0]} is none" if no_folder else "none is named"
        raise UsageError(f"--watch needs folders: {what}; name one")
    if options.output is not None and _is_no_folder(options.output):
        raise UsageError(f"results go to a folder here, and {options.output} is none; name another with -o")
    _check_server(options)
    file_filter = FileFilter(tuple(options.include or ()), tuple(options.exclude or ()), options.output)
    output, policy = _write_options(options, size), _policy(options)
    asked = choose_scale(asked, [], output, policy.max_pixels)
    if options.ensemble and not options.quiet:
        say(EIGHT_TIMES)
    run = Run(asked, [], output, file_filter, options, policy)
    run.watch([Path(name) for name in names])


def _check_level(asked: Asked, options: Options) -> None:
    """Refuse a level of damage together with a model: each chooses a model.

    Raises:
        UsageError: Both are given.
    """
    named = [model for model in options.asked_models if model != "auto"]
    if asked.level is not None and (named or options.weights is not None):
        given = f"--weights {options.weights}" if options.weights is not None else f"--model {named[0]}"
        strength = f"--sigma {asked.level:g}" if asked.task == "denoise" else f"--jpeg-quality {asked.level}"
        raise UsageError(f"{strength} chooses a model, and {given} is one; leave one out")


def _check_output(sources: list["Source"], options: Options) -> None:
    """Refuse an output that cannot hold the results, as far as its name and kind tell.

    Raises:
        UsageError: The output is such a one.
    """
    from mambair_cli.images.source import STANDARD_STREAM
    from mambair_cli.runs.naming import settle_file, target_file

    file = target_file(sources, options.output, options.from_file is not None)
    if file is not None:
        if (format := settle_file(file, options.format)) is not None:
            check_format(format, options)
    elif options.output not in (None, STANDARD_STREAM) and _is_no_folder(options.output):
        raise UsageError(f"results go to a folder here, and {options.output} is a file; name another with -o")


def _write_options(options: Options, size: "Size | None") -> "WriteOptions":
    from mambair_cli.images import DEFAULT_QUALITY, parse_colour
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.output_size import Size

    return WriteOptions(
        quality=DEFAULT_QUALITY if options.quality is None else options.quality,
        depth=None if options.depth == "auto" else int(options.depth),
        strip=options.strip,
        note=options.note,
        background=None if options.background is None else parse_colour(options.background),
        preserve_times=options.preserve_times,
        size=size or Size(),
    )


def _policy(options: Options) -> "RunPolicy":
    from mambair_cli.runs.policy import RunPolicy

    return RunPolicy(
        overwrite=options.overwrite,
        resume=options.resume or options.watch,
        max_pixels=options.max_pixels,
        damaged=options.damaged,
        digest=options.json,
        fail_fast=options.fail_fast,
        keep_journal=options.ray is not None,
    )


def _take(options: Options, kind: str) -> Options:
    """Choose the model for a kind of pictures: "real" or "clean"."""
    named = [model for model in options.asked_models if model not in ("auto", kind)]
    if options.weights is not None or named:
        given = f"--weights {options.weights}" if options.weights is not None else f"--model {named[0]}"
        raise UsageError(f"--{kind} chooses a model, and {given} is one; leave one out")
    return replace(options, models=[kind])


def _settle_output(options: Options) -> Options:
    """Replace names of standard output, such as /dev/stdout, by "-"."""
    from mambair_cli.images.source import STANDARD_STREAM
    from mambair_cli.system.files import find_descriptor

    if options.output and find_descriptor(Path(options.output)) == _STDOUT:
        return replace(options, output=STANDARD_STREAM)
    return options


def _is_no_folder(name: str) -> bool:
    return os.path.exists(name) and not os.path.isdir(name)


def _known_scale(asked: Asked) -> int | None:
    """Return the scale of the network before it is loaded; None where only its weights tell it."""
    from mambair_cli.checkpoints.own_models import find_model

    if asked.weights is not None:
        return None if asked.task == "upscale" and asked.scale is None else asked.usual_scale
    if asked.model in (AUTO, CLEAN):
        return asked.usual_scale
    if asked.model == REAL:
        return None
    model = find_model(asked.model)
    return model.scale if model.task == asked.task and asked.scale in (None, model.scale) else None


def _check_server(options: Options) -> None:
    """Refuse options that contradict --server."""
    asked = {
        "--weights": options.weights is not None,
        "--device": options.device != "auto",
        "--devices": options.devices is not None,
        "--workers": options.workers is not None,
        "--ray": options.ray is not None,
        "--dry-run": options.dry_run,
    }
    given = [name for name, is_given in asked.items() if is_given]
    if options.server and given:
        raise UsageError(
            f"--server {options.server} and {given[0]} exclude each other: the server has its own models and "
            "devices; give one (--server '' overrides MAMBAIR_SERVER)"
        )


def _find_sources(inputs: list[str] | None, options: Options) -> tuple[list["Source"], "FileFilter"]:
    """Find the images that arguments and lists of names mean; return also the filter that found them."""
    from mambair_cli.images import discovery

    file_filter = discovery.FileFilter(
        tuple(options.include or ()), tuple(options.exclude or ()), options.output
    )
    return find_inputs(inputs or [], options.from_file, options.null, file_filter, "restore"), file_filter
