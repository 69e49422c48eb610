"""The commands that restore images: upscale, denoise, dejpeg."""

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.options import Inputs, Options, check_format, check_options, finite, with_options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.cli.planning import print_plan
from mambair_cli.cli.streams import is_stdout_closed
from mambair_cli.cli.summary import Summary
from mambair_cli.errors import UsageError
from mambair_cli.interrupts import cleaning_up

if TYPE_CHECKING:
    from mambair_cli.batch import Outcome
    from mambair_cli.catalog import Task
    from mambair_cli.cli.progress import Progress
    from mambair_cli.cli.services import Service
    from mambair_cli.endpoints import Output
    from mambair_cli.jobs import Source
    from mambair_cli.size import Size


_STDOUT = 1
EVENT_SCHEMA = 1  # of the JSON lines: docs/events.md; it grows when a line loses or changes what it tells


@with_options
def upscale(
    inputs: Inputs = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            "-s",
            min=1,
            max=4,
            metavar="FACTOR",
            callback=finite,
            help="1 to 4, such as 2 or 2.5. [default: 4]",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Of the results at most, in place of a scale.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Of the results at most, in place of a scale.")
    ] = None,
    megapixels: Annotated[
        float | None,
        typer.Option(min=1e-6, metavar="N", callback=finite, help="Of the results, in place of a scale."),
    ] = None,
    *,
    options: Options,
) -> None:
    """Enlarge images up to 4 times.

    What no network does exactly is done by the next larger one, and reduced.
    """
    from mambair_cli.size import settle_scale

    network, size = settle_scale(scale, width, height, megapixels)
    _restore("upscale", inputs, options, scale=network, size=size)


@with_options
def denoise(
    inputs: Inputs = None,
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0, max=255, metavar="SIGMA", callback=finite, help="Standard deviation of the noise, of 255."
        ),
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Noise of a real camera; the default without --sigma.")
    ] = False,
    *,
    options: Options,
) -> None:
    """Remove noise."""
    if real and sigma is not None:
        raise UsageError(f"--real and --sigma {sigma:g} exclude each other; give one")
    _restore("denoise", inputs, options, level=sigma)


@with_options
def dejpeg(
    inputs: Inputs = None,
    jpeg_quality: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="QUALITY",
            help="Quality that it was saved with. [default: unknown, a model for all]",
        ),
    ] = None,
    *,
    options: Options,
) -> None:
    """Remove the artefacts of JPEG compression."""
    _restore("dejpeg", inputs, options, level=jpeg_quality)


def _restore(
    task: "Task",
    inputs: list[str] | None,
    options: Options,
    scale: int | None = None,
    level: float | None = None,
    size: "Size | None" = None,
) -> None:
    """Do what the restoring commands have in common, which is all but their names for things."""
    from mambair_cli import endpoints, jobs
    from mambair_cli.images import DEFAULT_QUALITY, parse_colour
    from mambair_cli.size import Size

    options = _settle_output(options)
    check_options(options)
    if level is not None and (options.model != "auto" or options.weights is not None):
        given = f"--weights {options.weights}" if options.weights is not None else f"--model {options.model}"
        strength = f"--sigma {level:g}" if task == "denoise" else f"--jpeg-quality {level}"
        raise UsageError(f"{strength} chooses a model, and {given} is one; leave one out")
    sources = _find_sources(inputs, options)
    file = jobs.target_file(sources, options.output, options.from_file is not None)
    if file is not None:
        if (format := jobs.settle_file(file, options.format)) is not None:
            check_format(format, options)
    elif options.output not in (None, jobs.STANDARD_STREAM) and _is_no_folder(options.output):
        raise UsageError(f"results go to a folder here, and {options.output} is a file; name another with -o")
    output = endpoints.Output(
        quality=DEFAULT_QUALITY if options.quality is None else options.quality,
        depth=None if options.depth == "auto" else int(options.depth),
        strip=options.strip,
        background=None if options.background is None else parse_colour(options.background),
        preserve_times=options.preserve_times,
        overwrite=options.overwrite,
        size=size or Size(),
        max_pixels=options.max_pixels,
        resume=options.resume,
        digest=options.json,
        damaged=options.damaged,
    )
    if output.size != Size() and options.model == "auto" and options.weights is None:
        scale = _network_scale(sources, output)
    _check_server(options)
    if options.dry_run:
        print_plan(task, sources, options, output, scale, level)
        return
    goes_to_stdout = options.output == jobs.STANDARD_STREAM
    goes_to_stdout |= options.output is None and sources[0].path is None
    if goes_to_stdout and is_stdout_closed():
        raise UsageError(f"standard output is closed: {jobs.STANDARD_STREAM}; give -o a file")
    if options.json and goes_to_stdout:
        raise UsageError("standard output takes an image or JSON; give -o a file, or leave out --json")
    from mambair_cli.cli.progress import Progress
    from mambair_cli.cli.services import open_service

    progress = Progress(sources, shown=not options.quiet)
    service = open_service(task, scale, level, options, progress)
    with closing(service), cleaning_up():
        _run(service, sources, output, jobs.suffix_of(task, service.scale, output.size), options, progress)


def _settle_output(options: Options) -> Options:
    """Take names such as /dev/stdout for what they are."""
    from mambair_cli.images import find_descriptor
    from mambair_cli.jobs import STANDARD_STREAM

    if options.output and find_descriptor(Path(options.output)) == _STDOUT:
        return replace(options, output=STANDARD_STREAM)
    return options


def _is_no_folder(name: str) -> bool:
    return os.path.exists(name) and not os.path.isdir(name)


def _run(
    service: "Service",
    sources: list["Source"],
    output: "Output",
    suffix: str,
    options: Options,
    progress: "Progress",
) -> None:
    """Have a service restore images, and print what becomes of each."""
    from mambair_cli import batch, jobs

    is_list = options.from_file is not None
    work = jobs.name_targets(sources, options.output, suffix, options.format, is_list)
    if not options.quiet and not service.notice:
        say(f"using {service.model} on {service.place}")
    if options.json:
        print_event(
            "start",
            schema=EVENT_SCHEMA,
            model=service.model,
            weights=service.computing["weights"],
            device=service.place,
            files=len(work),
        )
    exit_code = 0
    summary = Summary(len(work))
    settings = batch.settings_of(service.computing, output)
    with (
        progress,
        closing(
            batch.run_jobs(
                work,
                output,
                settings,
                service.perform,
                options.fail_fast,
                service.is_remote,
                say if not options.quiet else lambda sentence: None,
            )
        ) as outcomes,
        closing(service),  # before the journals: nobody writes without one
    ):
        for outcome in outcomes:
            summary.add(outcome)
            progress.count(outcome)
            if outcome.error is not None:
                complain(outcome.error)
                exit_code = max(exit_code, outcome.error.exit_code)
            elif outcome.warnings and not options.quiet:
                say(f"warning: {outcome.job.source}: {'; '.join(outcome.warnings)}")
            _print_outcome(outcome, service, options.json)
    if options.json:
        print_event("summary", **summary.facts())
    elif len(work) > 1 and not options.quiet:
        say(str(summary))
    if exit_code:
        raise typer.Exit(exit_code)


def _check_server(options: Options) -> None:
    """Refuse what contradicts that a server does the work."""
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


def _find_sources(inputs: list[str] | None, options: Options) -> list["Source"]:
    """Find the images that arguments and lists of names mean."""
    from mambair_cli import jobs

    for name in (*(inputs or []), options.output or ""):
        if "://" in name and not os.path.lexists(name):
            raise UsageError(f"no file or folder: {name}; mount it, and give the folder (docs/cluster.md)")
    choice = jobs.Choice(tuple(options.include or ()), tuple(options.exclude or ()), options.output)
    sources = jobs.find_sources(inputs or [], choice)
    if options.from_file is not None:
        sources += jobs.read_names(options.from_file, options.null, choice)
    if not sources:
        raise UsageError("nothing to restore: no image is named; give files, folders or --from-file")
    if not options.quiet:
        for remark in choice.remarks():
            say(remark)
    return sources


def _network_scale(sources: list["Source"], output: "Output") -> int:
    """Choose the smallest network that enlarges as far as any of the images needs."""
    from mambair_cli import endpoints
    from mambair_cli.size import NETWORK_SCALES, network_scale

    factor = endpoints.largest_factor(sources, output.size, output.max_pixels)
    return NETWORK_SCALES[-1] if factor is None else network_scale(factor)


def _print_outcome(outcome: "Outcome", service: "Service", as_json: bool) -> None:
    """Print what became of a job: a path, or an event."""
    job, report = outcome.job, outcome.report
    if outcome.error is not None:
        if as_json:
            kind = type(outcome.error).__name__
            print_event("failed", input=str(job.source), kind=kind, message=str(outcome.error))
    elif outcome.is_skipped:
        if as_json:
            print_event("skipped", input=str(job.source), output=job.place)
    elif as_json and job.target is not None and outcome.size and report:
        print_event(
            "done",
            input=str(job.source),
            output=job.place,
            model=service.model,
            scale=service.scale,
            width=outcome.size[0],
            height=outcome.size[1],
            reduced=outcome.reduced,
            tiles=len(report.plan),
            tile=[report.plan.tile_width, report.plan.tile_height],
            overlap=report.plan.overlap,
            shrunk=report.shrunk,
            seconds=round(outcome.seconds, 3),
            peak_memory=outcome.peak_memory,
            sha256=outcome.sha256,
            warnings=list(outcome.warnings),
        )
    elif job.target is not None:
        print(job.target, flush=True)
