"""The command that measures quality."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mambair_cli.cli.evaluation_failures import Failures
from mambair_cli.cli.evaluation_page import EvaluationPage
from mambair_cli.cli.options import (
    AsJson,
    Device,
    Ensemble,
    ModelName,
    Offline,
    Overlap,
    Precision,
    Quiet,
    Seed,
    Tile,
    Weights,
    finite,
    network_scale,
    refuse,
    typed,
    with_options,
)
from mambair_cli.cli.output import column_width, print_event, say
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.system.files import identify_files, refuse_input

if TYPE_CHECKING:
    from mambair_cli.quality.evaluate import PaperProtocol, Score
    from mambair_cli.quality.pairs import ImagePair
    from mambair_cli.restore.restorer import Restorer


# Options that choose a network and how it runs; finished images need no network.
_NETWORK_OPTIONS = (
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
    "ensemble",
    "offline",
)


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of ``evaluate``."""

    task: Annotated[Literal["upscale", "denoise", "dejpeg"] | None, typer.Option(help="Task to measure.")] = (
        None
    )
    scale: Annotated[
        int | None,
        network_scale(
            "Enlargement for --task upscale, or by which --restored was enlarged: 2, 3 or 4.",
            "4 for --task upscale",
        ),
    ] = None
    degradation: Annotated[
        Literal["papers", "real"],
        typer.Option(
            help="How inputs are made: as in the papers, or blurred, noisy and compressed like real images."
        ),
    ] = "papers"
    sigma: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=255,
            metavar="SIGMA",
            callback=finite,
            help="Standard deviation of the noise added for denoise, for samples from 0 to 255.",
        ),
    ] = None
    jpeg_quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="QUALITY", help="JPEG quality to compress with for dejpeg."),
    ] = None
    receptive_field: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw how far around a pixel the network looks, as PNG, instead of measuring quality.",
        ),
    ] = None
    seams: Annotated[
        bool,
        typer.Option(
            "--seams", help="Measure what tiles change along their borders, instead of measuring quality."
        ),
    ] = False
    seams_picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw what tiles change in the worst image, as PNG, with --seams."),
    ] = None
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with the worst and the best images."),
    ] = None
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of inputs to restore, instead of making them."),
    ] = None
    restored: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of restored images to compare, instead of --task."),
    ] = None
    border: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Border of each image that is not compared.",
            show_default="the scale of enlarged images, else 0",
        ),
    ] = None
    luma: Annotated[
        bool | None,
        typer.Option(
            "--luma/--rgb",
            help="Compare luma (Y) only, or all channels.",
            show_default="--luma for enlarged images, else --rgb",
        ),
    ] = None
    model: ModelName = "auto"
    weights: Weights = None
    device: Device = "auto"
    precision: Precision = "auto"
    tile: Tile = None
    overlap: Overlap = None
    seed: Seed = 0
    ensemble: Ensemble = parameters.ENSEMBLE.default
    offline: Offline = False
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False
    quiet: Quiet = False
    json: AsJson = False

    @property
    def level(self) -> float | None:
        """Noise sigma or JPEG quality of the inputs, for the tasks that have one."""
        return {"denoise": self.sigma, "dejpeg": self.jpeg_quality}.get(self.task or "")


@with_options
def evaluate(
    context: typer.Context,
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder of ground-truth images.")],
    *,
    options: EvaluateOptions,
) -> None:
    """Measure PSNR and SSIM by the protocols of the papers.

    Without --inputs, the inputs are made from the ground truth: with MATLAB's bicubic imresize for upscale,
    Gaussian noise of numpy's seed 0 for denoise (gray noise for gray pictures), Pillow's JPEG for dejpeg.
    With --degradation real, the name of an image decides what is done to it, and the PSNR of the input is
    shown too. The bare output of the network is measured, rounded to 8 bits, as in the papers, or to 16 where
    the truth has more than 8. The other commands also correct it towards the input in smooth areas.

    The partner of x/baby.png in the folder of --inputs or --restored is x/baby.png, else any x/baby with
    another suffix, else in x/ a name with a mark, such as babyx4.png or baby_denoised.jpg, else one of these
    names in any folder. No image is the partner of two.

    Enlarged images are compared on Y, without a border of --scale pixels, others in all channels and whole.
    Give --scale with --restored, too, if these images were enlarged. The last line says what was compared.

    --receptive-field and --seams look at the network itself, with the same inputs; to use pictures as they
    are, give their folder to --inputs too. --receptive-field averages the gradient of a result's centre pixel
    over crops of --tile pixels, by default 63. --seams restores each image, or the middle 512×512 of it, in
    tiles and whole, as the other commands do; the exit code is 1 if a seam may be seen.

    Example: mambair evaluate Set5/ --task upscale --scale 4
    """
    _check(options, typed(context))
    pairs, inputs = _find_images(truth, options)
    folders = [truth, *filter(None, [options.restored, options.inputs])]
    page = EvaluationPage(options.page, options.overwrite, inputs, folders)
    page.check()
    restorer = _make_restorer(options)
    protocol = _settle_protocol(options, restorer)
    if restorer is not None and (options.receptive_field or options.seams):
        from mambair_cli.cli.network_pictures import show_receptive_field, show_seams

        show = show_receptive_field if options.receptive_field else show_seams
        show(restorer, pairs, protocol, options)
        return
    _measure_all(truth, pairs, protocol, restorer, options, page)


def _measure_all(
    truth: Path,
    pairs: "list[ImagePair]",
    protocol: "PaperProtocol",
    restorer: "Restorer | None",
    options: EvaluateOptions,
    page: EvaluationPage,
) -> None:
    """Measure pairs of images, and print the score of each and the mean.

    Raises:
        typer.Exit: Some cannot be measured.
    """
    from mambair_cli.quality.evaluate import average, measure

    width = column_width(["mean", *(pair.name for pair in pairs)])
    scores, failures = [], Failures(options.json)
    model = restorer.model.name if restorer else None
    # White noise, as the papers add it, leaves the range from 0 to 1.
    restore = None if restorer is None else lambda image: restorer.restore(image, any_range=True)[0]
    for score in measure(pairs, protocol, restore, page.add, failures.add):
        scores.append(score)
        if options.json:
            print_event("image", **_facts(score))
        else:
            print(_line(score, width), flush=True)
    if scores:
        mean, published = average(scores), _find_published(options, restorer, truth)
        if options.json:
            counts = {"images": len(scores), "failed": failures.count}
            _print_mean(mean, protocol, model, published, counts)
        else:
            how = f"  ({protocol.describe()})" + failures.remark(len(scores))
            print(_line(mean, width) + how + _remark(published))
        page.write(truth, mean, protocol.describe(), model)
    failures.end()


def _check(options: EvaluateOptions, given: dict[str, Any]) -> None:
    """Refuse options that contradict each other or would do nothing.

    Args:
        options: The options, with their defaults.
        given: Those on the command line, from ``typed``.
    """
    task = options.task
    if (task is None) == (options.restored is None):
        raise UsageError("what is to be measured? give either --task, or --restored with finished images")
    if task is None:
        refuse(given, _NETWORK_OPTIONS, "finished images need no network")
    if task in ("denoise", "dejpeg"):
        refuse(given, ["scale"], f"{task} keeps the size")
    if task in ("upscale", "dejpeg"):
        refuse(given, ["sigma"], f"{task} is measured without noise")
    if task in ("upscale", "denoise"):
        refuse(given, ["jpeg_quality"], f"{task} is measured without JPEG")
    if options.degradation == "real":
        refuse(given, ["sigma", "jpeg_quality", "inputs"], "--degradation real makes the inputs")
    _check_pictures(options, given)


def _find_images(truth: Path, options: EvaluateOptions) -> "tuple[list[ImagePair], list[Path]]":
    """Find the pairs of images, and list all files in them.

    Raises:
        UsageError: There are none, none has a partner, or one would be replaced.
    """
    from mambair_cli.quality.pairs import find_pairs

    pairs = find_pairs(truth, options.inputs if options.restored is None else options.restored)
    inputs = [path for pair in pairs for path in (pair.truth, pair.other) if path is not None]
    read = identify_files(inputs)
    for written in (options.page, options.receptive_field, options.seams_picture):
        if written is not None:
            refuse_input(written, read)
    return pairs, inputs


def _check_pictures(options: EvaluateOptions, given: dict[str, Any]) -> None:
    """Refuse what contradicts --receptive-field and --seams, and files that cannot be written."""
    from mambair_cli.cli.network_pictures import check_picture

    if options.receptive_field is not None:
        others = ["restored", "seams", "seams_picture", "border", "luma", "overlap", "precision"]
        others += ["ensemble", "page"]
        refuse(given, others, "--receptive-field measures one thing, in float32 and without tiles")
        check_picture(options.receptive_field, options.overwrite, "--receptive-field")
    elif options.seams:
        refuse(given, ["restored", "border", "luma", "page"], "--seams compares no truth")
        if options.seams_picture is not None:
            check_picture(options.seams_picture, options.overwrite, "--seams-picture")
    else:
        refuse(given, ["seams_picture"], "only --seams draws it")
        if options.page is None:
            refuse(given, ["overwrite"], "no file is written")


def _make_restorer(options: EvaluateOptions) -> "Restorer | None":
    """Load the network to measure; None where the images are finished."""
    if options.task is None:
        return None
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.restore.settings import RestoreSettings

    asked = Asked(options.task, options.scale, options.level, options.model, options.weights)
    # The papers measure what the network itself gives; seams are measured in what users get.
    settings = RestoreSettings.pick(options, asked=asked, bare=not options.seams, others={})
    if options.receptive_field:
        settings = replace(settings, own=replace(settings.own, tile=None))
    restorer = Restorer.from_settings(settings, say if not options.quiet else lambda sentence: None)
    if options.weights is None and restorer.notice is None and not options.quiet:
        say(f"using {restorer.model.name} on {restorer.device}")
    return restorer


def _settle_protocol(options: EvaluateOptions, restorer: "Restorer | None") -> "PaperProtocol":
    """Return the protocol of the task, changed where the options say so."""
    from mambair_cli.quality.evaluate import choose_protocol

    if restorer is None:
        return choose_protocol(None, options.scale or 1, None, options.border, options.luma)
    return choose_protocol(
        options.task, restorer.info.scale, options.level, options.border, options.luma, options.degradation
    )


def _find_published(
    options: EvaluateOptions, restorer: "Restorer | None", truth: Path
) -> tuple[str, float] | None:
    """Return the data set and the PSNR published for it, where the catalogue has one for this measurement."""
    from mambair_cli.checkpoints.catalog import load_catalog
    from mambair_cli.quality.evaluate import published_psnr

    if restorer is None or options.degradation == "real":
        return None
    model = next((model for model in load_catalog() if model.name == restorer.model.name), None)
    return None if model is None else published_psnr(model, truth, options.level)


def _facts(score: "Score") -> dict[str, Any]:
    """Return a score for JSON, which has no infinity."""
    before = {} if score.before is None else {"input_psnr": _finite(score.before)}
    return {"name": score.name, "psnr": _finite(score.psnr), "ssim": score.ssim, **before}


def _finite(psnr: float) -> float | None:
    return psnr if math.isfinite(psnr) else None


def _remark(published: tuple[str, float] | None) -> str:
    """Return the end of the last line: the figure that was published, if any."""
    return f"  (published for {published[0]}: {published[1]:.2f} dB)" if published else ""


def _print_mean(
    mean: "Score",
    protocol: "PaperProtocol",
    model: str | None,
    published: tuple[str, float] | None,
    counts: dict[str, int],
) -> None:
    """Print the event of the mean, with what was compared and the figure that was published, if any."""
    figure = {"data": published[0], "psnr": published[1]} if published else None
    how = {"luma": protocol.luma, "border": protocol.border}
    print_event("mean", **_facts(mean), model=model, published=figure, **counts, **how)


def _line(score: "Score", width: int) -> str:
    """Return a line of the table."""
    before = "" if score.before is None else f"  (input {score.before:.2f} dB)"
    return f"{score.name:{width}}  {score.psnr:6.2f} dB  {score.ssim:.4f}{before}"
