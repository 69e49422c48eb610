"""The commands that restore images: upscale, denoise, dejpeg."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.options import Inputs, Options, with_options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.errors import MambairError, UsageError

if TYPE_CHECKING:
    from mambair_cli.batch import Job, Outcome
    from mambair_cli.catalog import Task


@with_options
def upscale(
    inputs: Inputs,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", min=2, max=4, help="2, 3 or 4. [default: 4]")
    ] = None,
    *,
    options: Options,
) -> None:
    """Enlarge images 2, 3 or 4 times."""
    _restore("upscale", inputs, options, scale=scale)


@with_options
def denoise(
    inputs: Inputs,
    sigma: Annotated[
        float | None,
        typer.Option(min=0, max=255, help="Standard deviation of the noise, of 255."),
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
    inputs: Inputs,
    jpeg_quality: Annotated[
        int | None,
        typer.Option(
            min=1, max=100, help="Quality that it was saved with. [default: unknown, a model for all]"
        ),
    ] = None,
    *,
    options: Options,
) -> None:
    """Remove the artefacts of JPEG compression."""
    _restore("dejpeg", inputs, options, level=jpeg_quality)


def _restore(
    task: "Task", inputs: list[str], options: Options, scale: int | None = None, level: float | None = None
) -> None:
    """Do what the restoring commands have in common, which is all but their names for things."""
    from mambair_cli import batch

    sources = batch.find_sources(inputs)
    if options.dry_run:
        _plan(task, sources, options, scale, level)
        return
    from mambair_cli.cli.progress import Progress
    from mambair_cli.restore import Restorer

    restorer = Restorer(
        task=task,
        scale=scale,
        level=level,
        model=options.model,
        weights=options.weights,
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        overlap=options.overlap,
        seed=options.seed,
        offline=options.offline,
        quiet=options.quiet,
        notify=say if not options.quiet else lambda sentence: None,
    )
    jobs = batch.name_targets(sources, options.output, _suffix(task, restorer.info.scale), options.format)
    if not options.quiet and not restorer.model.notice:
        say(f"using {restorer.model.name} on {restorer.device}")
    if options.json:
        print_event("start", model=restorer.model.name, device=str(restorer.device), files=len(jobs))
    start = time.perf_counter()
    exit_code = done = 0
    with Progress(len(jobs), shown=not options.quiet) as progress:
        for outcome in batch.run_jobs(
            jobs, restorer, overwrite=options.overwrite, on_start=progress.start, on_tiles=progress.advance
        ):
            if outcome.error is not None:
                complain(outcome.error)
                exit_code = max(exit_code, outcome.error.exit_code)
            else:
                done += 1
                if outcome.report and outcome.report.shrunk and not options.quiet:
                    say(f"{outcome.job.source}: out of memory at first; done as {outcome.report.plan}")
            _print_outcome(outcome, restorer.model.name, options.json)
    if options.json:
        seconds = round(time.perf_counter() - start, 3)
        print_event("summary", done=done, failed=len(jobs) - done, seconds=seconds)
    elif len(jobs) > 1 and done < len(jobs):
        say(f"{len(jobs) - done} of {len(jobs)} images failed")
    if exit_code:
        raise typer.Exit(exit_code)


def _plan(task: "Task", sources: list, options: Options, scale: int | None, level: float | None) -> None:
    """Say what a run would do: model, results, tiles."""
    from mambair_cli import batch, hub
    from mambair_cli.restore import (
        check_fit,
        check_tile,
        choose_device,
        choose_model,
        name_model,
    )
    from mambair_cli.tiling import plan_tiles

    device = choose_device(options.device)
    tile, overlap = check_tile(options.tile, options.overlap)
    if options.weights is not None:
        from mambair_cli.checkpoint import load_network

        chosen = choose_model(task, scale, level, options.model, options.weights, device.type, offline=True)
        info = load_network(chosen.path).info
        check_fit(info, task, scale, chosen)
        name, factor, here = chosen.name, info.scale, True
    else:
        model = name_model(task, scale, level, options.model, device.type)
        name, factor, here = model.name, model.scale, hub.cached(model) is not None
    jobs = batch.name_targets(sources, options.output, _suffix(task, factor), options.format)
    if options.json:
        print_event("plan", model=name, on_this_machine=here, device=str(device), files=len(jobs))
    else:
        print(f"{name} on {device}" + ("" if here else " (not on this machine yet)"))
    exit_code = 0
    for job in jobs:
        try:
            height, width, _ = batch.read_source(job.source).pixels.shape
        except MambairError as error:
            complain(error)
            exit_code = max(exit_code, error.exit_code)
            continue
        plan = plan_tiles(height, width, tile, overlap)
        if options.json:
            print_event(
                "plan_file",
                input=str(job.source),
                output=_target(job),
                width=width * factor,
                height=height * factor,
                tiles=len(plan),
            )
        else:
            print(f"{job.source} -> {_target(job)}: {width * factor}×{height * factor}, from {plan}")
    if exit_code:
        raise typer.Exit(exit_code)


def _suffix(task: "Task", scale: int) -> str:
    """What a task adds to the names of its results."""
    return {"upscale": f"_x{scale}", "denoise": "_denoised", "dejpeg": "_dejpeg"}[task]


def _target(job: "Job") -> str:
    return "-" if job.target is None else str(job.target)


def _print_outcome(outcome: "Outcome", model: str, as_json: bool) -> None:
    """Print what became of a job: a path, or an event."""
    job, report = outcome.job, outcome.report
    if outcome.error is not None:
        if as_json:
            kind = type(outcome.error).__name__
            print_event("failed", input=str(job.source), kind=kind, message=str(outcome.error))
    elif as_json and job.target is not None and outcome.size and report:
        print_event(
            "done",
            input=str(job.source),
            output=_target(job),
            model=model,
            width=outcome.size[0],
            height=outcome.size[1],
            tiles=len(report.plan),
            tile=[report.plan.tile_width, report.plan.tile_height],
            overlap=report.plan.overlap,
            shrunk=report.shrunk,
            seconds=round(outcome.seconds, 3),
        )
    elif job.target is not None:
        print(job.target, flush=True)
