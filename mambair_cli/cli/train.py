"""The command that trains networks."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mambair_cli.cli.options import Quiet, check_source, finite, network_scale, refuse, typed, with_options
from mambair_cli.cli.output import print_json, say
from mambair_cli.errors import UsageError
from mambair_cli.system.signals import cleaning_up
from mambair_cli.system.wording import as_argument, show
from mambair_cli.train.config import MOST_SEED, Loss, TrainConfig

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.networks import MambaIRConfig

_NETWORK = ("embed_dim", "depths", "d_state", "d_inner")  # options for a new network
_SETTLED = ("task", "degradation", "weights", "teacher", "device")  # of a run, before other options are read


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``train``."""

    task: Annotated[
        Literal["upscale", "denoise", "dejpeg"] | None,
        typer.Option(help="Task to train for; required, except with --resume."),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for weights, log and state; required."),
    ] = None
    scale: Annotated[
        int | None,
        network_scale("Enlargement for --task upscale: 2, 3 or 4.", "that of --weights, else 4"),
    ] = None
    degradation: Annotated[
        Literal["papers", "real"],
        typer.Option(
            help="What the network learns to undo: the papers' degradation, or all faults of real pictures."
        ),
    ] = "papers"
    sigma: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", callback=finite, help="Range of noise for denoise, for samples from 0 to 255."
        ),
    ] = TrainConfig.sigma
    jpeg_quality: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Range of JPEG qualities for dejpeg.")
    ] = TrainConfig.quality
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=check_source,
            help="Checkpoint to start from: a file, or a source as --weights of the other commands takes it.",
            show_default="a new network",
        ),
    ] = None
    embed_dim: Annotated[int, typer.Option(min=30, metavar="N", help="Channels of a new network.")] = 48
    depths: Annotated[str, typer.Option(metavar="N,N,...", help="Blocks in each group of a new network.")] = (
        "3,3,3"
    )
    d_state: Annotated[
        int, typer.Option(min=1, metavar="N", help="States per channel in the scans of a new network.")
    ] = 8
    d_inner: Annotated[
        int, typer.Option(min=1, metavar="N", help="Channels in the scans of a new network.")
    ] = 72
    validation: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Images to measure the PSNR on.")
    ] = None
    crop: Annotated[int, typer.Option(min=8, metavar="PIXELS", help="Side of a crop of the input.")] = (
        TrainConfig.crop
    )
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Crops in a step.")] = TrainConfig.batch
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Number of steps.")] = TrainConfig.steps
    learning_rate: Annotated[
        float, typer.Option(min=0, metavar="RATE", callback=finite, help="Peak learning rate.")
    ] = TrainConfig.learning_rate
    warmup: Annotated[int, typer.Option(min=0, metavar="N", help="Steps up to the peak learning rate.")] = (
        TrainConfig.warmup
    )
    ema_decay: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="SHARE", callback=finite, help="Decay per step of the averaged weights."
        ),
    ] = TrainConfig.ema_decay
    loss: Annotated[
        Loss,
        typer.Option(help="Loss function; psnr after l1 gives the highest PSNR, psnr-y the highest on luma."),
    ] = TrainConfig.loss
    clipped: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            callback=finite,
            help="Share of crops whose noise is cut off at black and white, as in files of 8 bits.",
        ),
    ] = TrainConfig.clipped
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=check_source,
            help="Checkpoint for the same task, often a larger one: its results are mixed into the targets.",
        ),
    ] = None
    teacher_share: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", callback=finite, help="Share of these results.")
    ] = TrainConfig.teacher_share
    precision: Annotated[
        Literal["auto", "bf16", "fp32"],
        typer.Option(help="Precision of matrix products and convolutions; auto: bf16 on CUDA, else fp32."),
    ] = TrainConfig.precision
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network: a minute at the start, then faster.")
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue the run in the output folder, with its options; --steps may be more."
        ),
    ] = False
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, metavar="NUMBER", help="Random seed.")] = (
        TrainConfig.seed
    )
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, cuda:1.")] = "auto"
    quiet: Quiet = False


@with_options
def train(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of images, with all subfolders.")
    ],
    *,
    options: TrainOptions,
) -> None:
    """Train a small network, or a checkpoint further.

    Prints its log as JSON lines: loss and learning rate, and the PSNR with --validation; the last line is
    the path of the weights. The output folder also gets report.html, a page with charts and examples that
    grows with the run. Ctrl-C saves the state; FOLDER --resume -o RUN continues where the run stopped, with
    the options that it was begun with. --steps may be larger than before: over as many steps as the warm-up
    has, the learning rate moves to that of a run of the new length.

    Pictures are the truth, and inputs are made from them: if you have pairs, give only the large or clean
    halves. Pictures are used at their own depth, up to 16 bits; only the first of several pages or frames
    is used. No run writes into a folder with files of another one.

    All of a network is trained except one part: how MambaIRv2 chooses a token for each pixel stays that of
    the checkpoint, since a choice has no gradient.

    To use several GPUs: torchrun --nproc-per-node 2 -m mambair_cli train ...

    Example: mambair train photos/ --task upscale --scale 2 --output run/
    """
    given = typed(context)
    output = _require(images, options)
    if options.resume:
        config = _continue(images, output, options, given)
    else:
        _check(options, given)
        config = _make_config(images, output, options)
    from mambair_cli.cli.progress import show_training
    from mambair_cli.train import loop  # not below, where a signal would interrupt its imports

    with show_training(config.steps, shown=not options.quiet) as progress:

        def report(line: "loop.LogLine") -> None:
            if "loss" in line:
                progress.report(line["loss"])
            print_json(line)

        notify = say if not options.quiet else lambda sentence: None
        answer = loop.STOP_MESSAGE if not options.quiet else None
        with cleaning_up():  # until the first step; then a signal lets it finish one
            path = loop.train(config, options.resume, report, progress.advance, notify, answer)
    if path:
        print(as_argument(path))


def _require(images: list[Path], options: TrainOptions) -> Path:
    """Return the run's folder; where one was given in the place of pictures, tell the whole command.

    Raises:
        UsageError: An option is missing.
    """
    missing = ["--task"] if options.task is None and not options.resume else []
    if options.output is None:
        missing.append("--output")
    elif not missing:
        return options.output
    from mambair_cli.train.folder import STATE_FILE

    why = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given"
    run = next((folder for folder in images if (folder / STATE_FILE).exists()), None)
    if run is None or not options.resume:
        raise UsageError(f"{why}; see `mambair train --help`")
    from mambair_cli.train.resuming import read_begun

    pictures = shlex.join(as_argument(folder) for folder in read_begun(run).images)
    command = f"mambair train {pictures} --resume -o {shlex.quote(as_argument(run))}"
    raise UsageError(f"{why}: {show(run)} holds a run; this continues it: {command}")


def _continue(images: list[Path], output: Path, options: TrainOptions, given: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run that goes on: its own, but for options that were given.

    Args:
        images: Folders of images.
        output: The run's folder.
        options: The options, with their defaults.
        given: Those on the command line, from ``typed``.

    Raises:
        CheckpointError: The run's state cannot be read.
        UsageError: There is no run, or options would make it another one.
    """
    from mambair_cli.train.config import describe_config
    from mambair_cli.train.resuming import read_begun, refuse_changes

    begun = read_begun(output)
    own = {name: getattr(begun, name) for name in _SETTLED if name not in given}
    options = replace(options, **{name: str(value) for name, value in own.items() if value is not None})
    _check(options, given)
    config = _make_config(images, output, options)
    names = {"images", "output", "device", *({"jpeg_quality": "quality"}.get(name, name) for name in given)}
    settings: dict[str, Any] = {name: getattr(config, name) for name in names & vars(config).keys()}
    if begun.network and config.network:
        changed = {name: getattr(config.network, name) for name in _NETWORK if name in given}
        settings["network"] = replace(begun.network, **changed)
    elif begun.network:
        settings["network"] = None  # --weights
    config = replace(begun, **settings)
    refuse_changes(config, describe_config(begun))
    return config


def _check(options: TrainOptions, given: dict[str, Any]) -> None:
    """Refuse options that would do nothing.

    Args:
        options: The options, with their defaults.
        given: Those on the command line, from ``typed``.
    """
    task = options.task
    if task != "upscale":
        refuse(given, ["scale"], f"{task} keeps the size")
    if task != "denoise":
        refuse(given, ["sigma", "clipped"], f"{task} is trained without noise")
    if task != "dejpeg":
        refuse(given, ["jpeg_quality"], f"{task} is trained without JPEG")
    if options.degradation == "real":
        refuse(
            given,
            ["sigma", "clipped", "jpeg_quality"],
            "--degradation real draws all that is done to pictures",
        )
    if options.weights is not None:
        refuse(given, _NETWORK, f"{options.weights} has its own network")
    if options.teacher is None:
        refuse(given, ["teacher_share"], "there is no --teacher")


def _make_config(images: list[Path], output: Path, options: TrainOptions) -> TrainConfig:
    """Return the settings of a new run for the task of the options."""
    task = options.task
    if task is None:
        raise ValueError("a run needs a task")
    from mambair_cli.restore.devices import choose_device

    weights = None if options.weights is None else _fetch(options.weights, options.quiet)
    return TrainConfig(
        task=task,
        images=tuple(images),
        output=output,
        scale=_settle_scale(task, options, weights),
        degradation=options.degradation,
        sigma=options.sigma,
        quality=options.jpeg_quality,
        network=None if options.weights else _new_network(options),
        weights=weights,
        validation=options.validation,
        crop=options.crop,
        batch=options.batch,
        steps=options.steps,
        learning_rate=options.learning_rate,
        warmup=options.warmup,
        ema_decay=options.ema_decay,
        loss=options.loss,
        clipped=options.clipped,
        teacher=None if options.teacher is None else _fetch(options.teacher, options.quiet).absolute(),
        teacher_share=options.teacher_share,
        precision=options.precision,
        compile=options.compile,
        seed=options.seed,
        device=str(choose_device(options.device)),
    )


def _fetch(weights: str, quiet: bool) -> Path:
    """Return a checkpoint, downloaded if it is not on this machine."""
    from mambair_cli.checkpoints.own_models import explain_name
    from mambair_cli.checkpoints.select import choose_file

    chosen = choose_file(weights, quiet=quiet)
    if chosen.notice and not quiet:
        say(chosen.notice)
    if not chosen.path.exists() and (named := explain_name(weights)):
        raise named
    return chosen.path


def _settle_scale(task: "Task", options: TrainOptions, weights: Path | None) -> int:
    """Return the scale that was asked for, or that of the checkpoint, or the default of the task."""
    from mambair_cli.checkpoints.catalog import default_scale

    if options.scale is not None:
        return options.scale
    if task == "upscale" and weights is not None:
        from mambair_cli.checkpoints.load import read_scale

        scale = read_scale(weights)
        if scale > 1:  # else it is refused later, as with --scale
            return scale
    return default_scale(task)


def _new_network(options: TrainOptions) -> "MambaIRConfig":
    """Return the configuration of a small MambaIR for the task."""
    from mambair_cli.networks import MambaIRConfig

    depths = options.depths
    groups = tuple(int(depth) if depth.isdecimal() else 0 for depth in depths.split(","))
    if 0 in groups:
        raise UsageError(f"--depths are numbers from 1 on with commas between: {depths}; 3,3,3 would work")
    upscale = options.task == "upscale"
    return MambaIRConfig(
        embed_dim=options.embed_dim,
        depths=groups,
        d_state=options.d_state,
        d_inner=options.d_inner,
        upscale=(options.scale or 4) if upscale else 1,
        upsampler="pixelshuffledirect" if upscale else "",
    )
