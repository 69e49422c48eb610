"""The command line: parse, call, print; ``main`` maps errors to exit codes.

stdout is data (the paths that were written, or JSON lines), stderr is talk.
"""

import functools
import inspect
import json as json_format
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from mambair_cli.errors import MambairError, UsageError

if TYPE_CHECKING:
    from mambair_cli.batch import Job, Outcome
    from mambair_cli.catalog import Model, Task

EXIT_INTERRUPTED = 130
HELP_WIDTH = 100

app = typer.Typer(
    name="mambair",
    help="Restore images with MambaIR networks: upscale, denoise, remove JPEG artefacts.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
)
models_app = typer.Typer(
    help="List, fetch and check the models known by name.", invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(models_app, name="models")

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Images, folders, patterns, or - for standard input."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notices; errors only.")]


@dataclass(frozen=True)
class Options:
    """What every restoring command takes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File (one input), folder, or - for standard output. [default: beside the input]",
        ),
    ] = None
    model: Annotated[str, typer.Option(metavar="NAME", help="Model by name; see `mambair models list`.")] = (
        "auto"
    )
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Any MambaIR checkpoint in place of a model.")
    ] = None
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")] = "auto"
    precision: Annotated[
        Literal["auto", "fp32", "fp16"],
        typer.Option(help="Of products and convolutions; auto is fp16 on CUDA, else fp32."),
    ] = "auto"
    tile: Annotated[
        int | None,
        typer.Option(min=16, metavar="PIXELS", help="Side of a tile of the input. [default: 128]"),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(min=0, metavar="PIXELS", help="What neighbouring tiles share. [default: 32]"),
    ] = None
    seed: Annotated[int, typer.Option(help="Of the noise that MambaIRv2 draws.")] = 0
    format: Annotated[
        Literal["png", "jpeg", "webp", "tiff"] | None,
        typer.Option(help="Of the results. [default: as the input]"),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False
    quiet: Quiet = False
    json: Annotated[bool, typer.Option("--json", help="Print one JSON line per event, not paths.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = (
        False
    )
    offline: Offline = False


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option of ``Options``, collected in its argument ``options``."""
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "options"]
    shared = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in fields(Options)
    ]

    @functools.wraps(command)
    def collect(**values: Any) -> None:
        options = Options(**{f.name: values.pop(f.name) for f in fields(Options)})
        command(**values, options=options)

    collect.__annotations__ = {p.name: p.annotation for p in own + shared}
    collect.__signature__ = inspect.Signature(own + shared)  # pyright: ignore[reportAttributeAccessIssue] PEP 362
    return collect


@app.command()
@_with_options
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


@app.command()
@_with_options
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


@app.command()
@_with_options
def dejpeg(
    inputs: Inputs,
    jpeg_quality: Annotated[
        int, typer.Option(min=1, max=100, help="Quality that the JPEG was saved with, as far as known.")
    ] = 40,
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
    from mambair_cli.progress import Progress
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
        notify=_say if not options.quiet else lambda sentence: None,
    )
    jobs = batch.name_targets(sources, options.output, _suffix(task, restorer.info.scale), options.format)
    if not options.quiet and not restorer.model.notice:
        _say(f"using {restorer.model.name} on {restorer.device}")
    if options.json:
        _print_event("start", model=restorer.model.name, device=str(restorer.device), files=len(jobs))
    start = time.perf_counter()
    exit_code = done = 0
    with Progress(len(jobs), shown=not options.quiet) as progress:
        for outcome in batch.run_jobs(
            jobs, restorer, overwrite=options.overwrite, on_start=progress.start, on_tiles=progress.advance
        ):
            if outcome.error is not None:
                _complain(outcome.error)
                exit_code = max(exit_code, outcome.error.exit_code)
            else:
                done += 1
            _print_outcome(outcome, restorer.model.name, options.json)
    if options.json:
        seconds = round(time.perf_counter() - start, 3)
        _print_event("summary", done=done, failed=len(jobs) - done, seconds=seconds)
    elif len(jobs) > 1 and done < len(jobs):
        _say(f"{len(jobs) - done} of {len(jobs)} images failed")
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
        _print_event("plan", model=name, on_this_machine=here, device=str(device), files=len(jobs))
    else:
        print(f"{name} on {device}" + ("" if here else " (not on this machine yet)"))
    exit_code = 0
    for job in jobs:
        try:
            height, width, _ = batch.read_source(job.source).pixels.shape
        except MambairError as error:
            _complain(error)
            exit_code = max(exit_code, error.exit_code)
            continue
        plan = plan_tiles(height, width, tile, overlap)
        if options.json:
            _print_event(
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
            _print_event("failed", input=str(job.source), kind=kind, message=str(outcome.error))
    elif as_json and job.target is not None and outcome.size and report:
        _print_event(
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


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List all models."""
    from mambair_cli import catalog, hub

    models = catalog.load_catalog()
    if as_json:
        for model in models:
            _print_json(_describe(model))
        return
    rows = [("name", "task", "scale", "level", "Set5", "on this machine")]
    for model in models:
        rows.append(
            (
                model.name,
                model.task,
                f"×{model.scale}" if model.scale > 1 else "",
                str(model.level or ""),
                f"{model.psnr['Set5']:.2f}" if "Set5" in model.psnr else "",
                "yes" if hub.cached(model) else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@models_app.command("show")
def show_model(name: str, as_json: AsJson = False) -> None:
    """Show all that is known of a model."""
    from mambair_cli import catalog

    facts = _describe(catalog.find_model(name))
    if as_json:
        _print_json(facts)
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{data} {db:.2f} dB" for data, db in value.items())
        elif isinstance(value, list):
            value = " or ".join(value)
        if value not in (None, ""):
            print(f"{key + ':':15}{value}")


@models_app.command("download")
def download_models(names: list[str], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Fetch models, so that they are there without a network."""
    from mambair_cli import catalog, hub

    for model in [catalog.find_model(name) for name in names]:
        path = hub.fetch(model, quiet=quiet)
        _print_json({"name": model.name, "path": str(path)}) if as_json else print(path)


@models_app.command("verify")
def verify_models(
    names: Annotated[list[str] | None, typer.Argument(help="By default, all that are here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check the files of models against their hashes and networks."""
    from mambair_cli import catalog, hub
    from mambair_cli.checkpoint import load_network

    models = [catalog.find_model(name) for name in names] if names else catalog.load_catalog()
    exit_code = 0
    for model in models:
        if not names and hub.cached(model) is None:
            continue
        try:
            path = hub.fetch(model, offline=True)  # which removes a wrong file
            verification = hub.verify(path, model)
            info = load_network(path).info
        except MambairError as error:
            _complain(error)
            exit_code = max(exit_code, error.exit_code)
            if as_json:
                _print_json({"name": model.name, "ok": False, "message": str(error)})
            continue
        if as_json:
            _print_json(
                {
                    "name": model.name,
                    "ok": True,
                    "path": str(path),
                    "sha256": verification.sha256,
                    "source": verification.source,
                    "architecture": info.architecture,
                    "parameters": info.parameters,
                }
            )
        else:
            by = f"as the {verification.source} has it" if verification.source else "not known to anybody"
            print(f"{model.name}: {info.architecture}, sha256 {verification.sha256[:12]}… {by}")
    if exit_code:
        raise typer.Exit(exit_code)


@models_app.command("path")
def print_model_path(name: str, as_json: AsJson = False) -> None:
    """Print where a model's file is on this machine."""
    from mambair_cli import catalog, hub

    path = hub.fetch(catalog.find_model(name), offline=True)
    _print_json({"name": name, "path": str(path)}) if as_json else print(path)


def _describe(model: "Model") -> dict[str, Any]:
    """Turn a catalogue entry into what JSON can hold."""
    facts = {f.name: getattr(model, f.name) for f in fields(model)}
    return {**facts, "files": list(model.files), "psnr": dict(model.psnr)}


@app.callback()
def _global_options(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show_version:
        print(f"mambair {version('mambair-cli')}")
        raise typer.Exit
    _want_command(context)


@models_app.callback()
def _want_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(UsageError.exit_code)


def _print_event(event: str, **facts: Any) -> None:
    _print_json({"event": event, **facts})


def _print_json(facts: dict[str, Any]) -> None:
    print(json_format.dumps(facts, ensure_ascii=False), flush=True)


def _say(sentence: str) -> None:
    print(f"mambair: {sentence}", file=sys.stderr)


def _complain(error: MambairError) -> None:
    _say(f"error: {error}")


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 all done; 1 some input failed; 2 usage; 3 model or download; 4 out of memory; 130 interrupted.

    Args:
        arguments: Those of the command line by default.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        exit_code = app(arguments, prog_name="mambair", standalone_mode=False) or 0
    except MambairError as error:
        _complain(error)
        return error.exit_code
    except typer.TyperException as error:
        _say(f"error: {error.format_message()}")
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has gone; Python would complain once more at exit
        sys.stdout = None
        return 1
    if exit_code == EXIT_INTERRUPTED:
        _say("interrupted")
    return exit_code
