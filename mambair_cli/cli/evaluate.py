"""The command that measures quality."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mambair_cli.cli.options import (
    AsJson,
    Device,
    ModelName,
    NetworkScale,
    Offline,
    Overlap,
    Precision,
    Quiet,
    Seed,
    Tile,
    Weights,
    finite,
    refuse,
    typed,
)
from mambair_cli.cli.output import print_event, say
from mambair_cli.errors import UsageError

if TYPE_CHECKING:
    from mambair_cli.quality.evaluate import Score


# What a network is chosen by and runs with: finished images need none.
_OF_NETWORKS = (
    "inputs",
    "degradation",
    "sigma",
    "jpeg_quality",
    "model",
    "weights",
    "device",
    "precision",
    "tile",
    "overlap",
    "seed",
    "offline",
)


def evaluate(
    context: typer.Context,
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder of ground-truth images.")],
    task: Annotated[
        Literal["upscale", "denoise", "dejpeg"] | None, typer.Option(help="Task to measure.")
    ] = None,
    scale: NetworkScale = None,
    degradation: Annotated[
        Literal["papers", "real"],
        typer.Option(
            help="How inputs are made: as in the papers, or blurred, noisy and compressed like real images."
        ),
    ] = "papers",
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=255,
            metavar="SIGMA",
            callback=finite,
            help="Standard deviation of the noise added for denoise, for samples from 0 to 255.",
        ),
    ] = None,
    jpeg_quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="QUALITY", help="JPEG quality to compress with for dejpeg."),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of inputs to restore, instead of making them."),
    ] = None,
    restored: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of restored images to compare, instead of --task."),
    ] = None,
    border: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Border of each image that is not compared.",
            show_default="the scale for upscale, else 0",
        ),
    ] = None,
    luma: Annotated[
        bool | None,
        typer.Option(
            "--luma/--rgb",
            help="Compare luma (Y) only, or all channels.",
            show_default="--luma for upscale, else --rgb",
        ),
    ] = None,
    model: ModelName = "auto",
    weights: Weights = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = None,
    overlap: Overlap = None,
    seed: Seed = 0,
    offline: Offline = False,
    quiet: Quiet = False,
    json: AsJson = False,
) -> None:
    """Measure PSNR and SSIM by the protocols of the papers.

    Without --inputs, the inputs are made from the ground truth: with MATLAB's bicubic imresize for upscale,
    Gaussian noise of numpy's seed 0 for denoise, Pillow's JPEG for dejpeg. With --degradation real, the
    name of an image decides what is done to it, and the PSNR of the input is shown too. The bare output of
    the network is measured; the other commands also correct it towards the input in smooth areas.

    Example: mambair evaluate Set5/ --task upscale --scale 4
    """
    if (task is None) == (restored is None):
        raise UsageError("what is to be measured? give either --task, or --restored with finished images")
    given = typed(context)
    if task is None:
        refuse(given, _OF_NETWORKS, "finished images need no network")
    if task in ("denoise", "dejpeg"):
        refuse(given, ["scale"], f"{task} keeps the size")
    if task in ("upscale", "dejpeg"):
        refuse(given, ["sigma"], f"{task} is measured without noise")
    if task in ("upscale", "denoise"):
        refuse(given, ["jpeg_quality"], f"{task} is measured without JPEG")
    if degradation == "real":
        refuse(given, ["sigma", "jpeg_quality", "inputs"], "--degradation real makes the inputs")
    from mambair_cli.quality.evaluate import average, choose_protocol, find_pairs, measure, published_psnr

    restorer = published = None
    if task is not None:
        from mambair_cli.checkpoints import catalog
        from mambair_cli.restore.restorer import Restorer

        level = {"upscale": None, "denoise": sigma, "dejpeg": jpeg_quality}[task]
        restorer = Restorer(
            task=task,
            scale=scale,
            level=level,
            model=model,
            weights=weights,
            device=device,
            precision=precision,
            tile=tile,
            overlap=overlap,
            seed=seed,
            offline=offline,
            quiet=quiet,
            notify=say if not quiet else lambda sentence: None,
            bare=True,  # the papers measure what the network itself gives
        )
        if offline and not quiet:
            say(f"using {restorer.model.name} on {restorer.device}")
        protocol = choose_protocol(task, restorer.info.scale, level, border, luma, degradation)
        known = {entry.name: entry for entry in catalog.load_catalog()}
        if restorer.model.name in known:
            published = (
                None if degradation == "real" else published_psnr(known[restorer.model.name], truth, level)
            )
    else:
        protocol = choose_protocol(None, scale or 1, None, scale or 0 if border is None else border, luma)

    scores = []
    pairs = find_pairs(truth, inputs if restored is None else restored)
    width = max(len("mean"), *(len(pair.truth.stem) for pair in pairs))
    for score in measure(pairs, protocol, restorer):
        scores.append(score)
        if json:
            print_event("image", **_facts(score))
        else:
            print(_line(score, width), flush=True)
    mean = average(scores)
    if json:
        name = restorer.model.name if restorer else None
        figure = {"data": published[0], "psnr": published[1]} if published else None
        print_event("mean", **_facts(mean), model=name, published=figure)
    else:
        remark = f"  (published for {published[0]}: {published[1]:.2f} dB)" if published else ""
        print(_line(mean, width) + remark)


def _facts(score: "Score") -> dict[str, Any]:
    """Return a score as JSON knows it, which has no infinity."""
    psnr = score.psnr if math.isfinite(score.psnr) else None
    before = {"input_psnr": score.before} if score.before is not None else {}
    return {"name": score.name, "psnr": psnr, "ssim": score.ssim, **before}


def _line(score: "Score", width: int) -> str:
    """Return a line of the table."""
    before = "" if score.before is None else f"  (input {score.before:.2f} dB)"
    return f"{score.name:{width}}  {score.psnr:6.2f} dB  {score.ssim:.4f}{before}"
