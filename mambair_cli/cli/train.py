"""The command that trains networks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mambair_cli.cli.options import NetworkScale, Quiet, finite, refuse, typed
from mambair_cli.cli.output import print_json, say
from mambair_cli.errors import UsageError
from mambair_cli.train.config import TrainConfig

if TYPE_CHECKING:
    from mambair_cli.networks import MambaIRConfig


def train(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of photographs, with their subfolders.")
    ],
    task: Annotated[Literal["upscale", "denoise", "dejpeg"], typer.Option(help="Task to train for.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for weights, log and state.")
    ],
    scale: NetworkScale = None,
    degradation: Annotated[
        Literal["papers", "real"],
        typer.Option(help="Damage to remove: that of the task in the papers, or all that real images have."),
    ] = "papers",
    sigma: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", callback=finite, help="Range of noise for denoise, for samples from 0 to 255."
        ),
    ] = TrainConfig.sigma,
    jpeg_quality: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Range of JPEG quality for dejpeg.")
    ] = TrainConfig.quality,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Checkpoint to start from.", show_default="a new network"),
    ] = None,
    embed_dim: Annotated[int, typer.Option(min=30, metavar="N", help="Channels of a new network.")] = 48,
    depths: Annotated[
        str, typer.Option(metavar="N,N,...", help="Number of blocks in each group of a new network.")
    ] = "3,3,3",
    d_state: Annotated[int, typer.Option(min=1, metavar="N", help="States per channel of its scans.")] = 8,
    d_inner: Annotated[int, typer.Option(min=1, metavar="N", help="Channels of its scans.")] = 72,
    validation: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of photographs to measure PSNR on.")
    ] = None,
    crop: Annotated[
        int, typer.Option(min=8, metavar="PIXELS", help="Side of a crop of the input.")
    ] = TrainConfig.crop,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Crops per step.")] = TrainConfig.batch,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Total number of steps.")
    ] = TrainConfig.steps,
    learning_rate: Annotated[
        float, typer.Option(min=0, metavar="RATE", callback=finite, help="Peak learning rate.")
    ] = TrainConfig.learning_rate,
    warmup: Annotated[
        int, typer.Option(min=0, metavar="N", help="Steps until the peak learning rate.")
    ] = TrainConfig.warmup,
    ema_decay: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            callback=finite,
            help="Decay per step of the moving average of the weights.",
        ),
    ] = TrainConfig.ema_decay,
    loss: Annotated[Literal["l1", "charbonnier"], typer.Option(help="Loss function.")] = TrainConfig.loss,
    precision: Annotated[
        Literal["bf16", "fp32"], typer.Option(help="Precision of matrix products and convolutions.")
    ] = TrainConfig.precision,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the blocks: slower start (a minute), faster steps.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output folder; --steps may be larger.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Random seed of weights, crops and damage.")] = (
        TrainConfig.seed
    ),
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device to train on: auto, cpu, cuda or cuda:1.")
    ] = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a small network, or train a checkpoint further.

    Prints its log as lines of JSON: loss, learning rate and, with --validation, PSNR; the last line is the
    path of the weights. Ctrl-C saves the state; --resume continues where the run stopped. With --resume,
    --steps may be larger than before: within as many steps as the warm-up has, the learning rate moves to
    its value in a run of that length.

    To use several GPUs: torchrun --nproc-per-node 2 -m mambair_cli train ...

    Example: mambair train photos/ --task upscale --scale 2 --output run/
    """
    given = typed(context)
    if task != "upscale":
        refuse(given, ["scale"], f"{task} keeps the size")
    if task != "denoise":
        refuse(given, ["sigma"], f"{task} is trained without noise")
    if task != "dejpeg":
        refuse(given, ["jpeg_quality"], f"{task} is trained without JPEG")
    if degradation == "real":
        refuse(given, ["sigma", "jpeg_quality"], "--degradation real draws all that is done to pictures")
    if weights is not None:
        refuse(given, ["embed_dim", "depths", "d_state", "d_inner"], f"{weights} has its own network")
    from mambair_cli import train as training
    from mambair_cli.cli.progress import show_training
    from mambair_cli.restore.choice import choose_device, default_scale

    config = TrainConfig(
        task=task,
        images=tuple(images),
        output=output,
        scale=default_scale(task) if scale is None else scale,
        degradation=degradation,
        sigma=sigma,
        quality=jpeg_quality,
        network=None if weights else _new_network(task, scale, embed_dim, depths, d_state, d_inner),
        weights=weights,
        validation=validation,
        crop=crop,
        batch=batch,
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        ema_decay=ema_decay,
        loss=loss,
        precision=precision,
        compile=compile,
        seed=seed,
        device=str(choose_device(device)),
    )
    with show_training(steps, shown=not quiet) as progress:

        def report(record: "training.Record") -> None:
            if "loss" in record:
                progress.report(record["loss"])
            if not quiet:
                print_json(record)

        path = training.train(
            config, resume, report, progress.advance, say if not quiet else lambda sentence: None
        )
    if path:
        print(path)


def _new_network(
    task: str, scale: int | None, embed_dim: int, depths: str, d_state: int, d_inner: int
) -> "MambaIRConfig":
    """Return the settings of a small MambaIR for the task."""
    from mambair_cli.networks import MambaIRConfig

    groups = tuple(int(depth) if depth.isdecimal() else 0 for depth in depths.split(","))
    if 0 in groups:
        raise UsageError(f"--depths are numbers from 1 on with commas between: {depths}; 3,3,3 would work")
    upscale = task == "upscale"
    return MambaIRConfig(
        embed_dim=embed_dim,
        depths=groups,
        d_state=d_state,
        d_inner=d_inner,
        upscale=(scale or 4) if upscale else 1,
        upsampler="pixelshuffledirect" if upscale else "",
    )
