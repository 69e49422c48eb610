"""What ``evaluate`` shows of a network itself: its receptive field, and the seams between its tiles."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from mambair_cli.cli.evaluation_failures import Failures
from mambair_cli.cli.output import print_event, say, width_of
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system.files import open_atomic
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.result_folders import make_folder, require_folder
from mambair_cli.system.wording import show

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from mambair_cli.cli.evaluate import EvaluateOptions
    from mambair_cli.quality.evaluate import ImagePair, PaperProtocol
    from mambair_cli.quality.receptive_field import ReceptiveField
    from mambair_cli.quality.seams import Seams
    from mambair_cli.restore.restorer import Restorer

Taken = TypeVar("Taken")  # from an input

CROP_SIDE = 63  # pixels of the input; odd, so that there is a centre
MOST_CROPS = 24  # of all images together
FULL = 0.8  # of a crop's side: a field that large is cut off by the crop


def check_picture(path: Path, overwrite: bool, option: str) -> None:
    """Refuse a picture that cannot be written, before anything is computed.

    Args:
        path: The file.
        overwrite: Whether it may exist.
        option: Option that named it.

    Raises:
        UsageError: It is no PNG file, or it exists already.
        ImageError: Its folder cannot be written to or made.
    """
    if path.suffix.lower() != ".png":
        stem = "field" if path.stem in ("", "-") else show(path.stem)
        raise UsageError(f"the picture is a PNG file: {show(path)}; name it {stem}.png")
    require_folder(path.absolute().parent, option)
    if path.exists() and not overwrite:
        raise UsageError(f"cannot write {show(path)}: it exists already; --overwrite replaces it")


def show_receptive_field(
    restorer: "Restorer",
    pairs: "Sequence[ImagePair]",
    protocol: "PaperProtocol",
    options: "EvaluateOptions",
) -> None:
    """Measure the receptive field over crops of all images, print its size, and draw it.

    Raises:
        UsageError: All images are smaller than a crop.
    """
    from mambair_cli.quality.receptive_field import cut_crops, draw_field, measure_field

    side = CROP_SIDE if options.tile is None else options.tile - 1 + options.tile % 2
    net = restorer.net.to(restorer.device)
    most = max(1, MOST_CROPS // len(pairs))
    width = width_of(["mean", *(pair.name for pair in pairs)])
    mean: ReceptiveField | None = None
    failures = Failures(options.json)
    fit = partial(_fit_channels, channels=restorer.info.channels)
    for name, image in _take_inputs(pairs, protocol, fit, failures):
        own: ReceptiveField | None = None
        for crop in cut_crops(image, side, most):
            field = measure_field(net, crop, options.seed)
            own = field if own is None else own.join(field)
        if own is None:
            if not options.quiet:
                height, length = image.shape[:2]
                say(f"left out {name}: {length}×{height} pixels are less than the crop of {side}×{side}")
            continue
        _tell_field(name, own, side, width, options.json)
        mean = own if mean is None else mean.join(own)
    if mean is None:
        failures.end()
        raise UsageError(f"no input is as large as the crop of {side}×{side}; give a smaller --tile")
    _tell_field("mean", mean, side, width, options.json, restorer.model.name)
    if mean.side_of(0.9) >= FULL * side and not options.quiet:
        say(f"the field is larger than the crop of {side}×{side}; a larger --tile shows more of it")
    assert options.receptive_field is not None
    crops = "1 crop" if mean.crops == 1 else f"{mean.crops} crops"
    title = _to_ascii(f"{restorer.model.name}: gradient of the centre pixel in {side}x{side}, {crops}")
    _save(draw_field(mean, title), options.receptive_field, options)
    failures.end()


def show_seams(
    restorer: "Restorer",
    pairs: "Sequence[ImagePair]",
    protocol: "PaperProtocol",
    options: "EvaluateOptions",
) -> None:
    """Measure what tiles change along their borders in all images, print it, and draw the worst one.

    Raises:
        UsageError: No image has pixels near borders of tiles and others.
        typer.Exit: A seam may be seen, or an image has failed.
    """
    from mambair_cli.quality.seams import Seams, draw_seams, measure_seams, restore_both

    width = width_of(["all", *(pair.name for pair in pairs)])
    total, verdicts = Seams(), []
    worst, worst_ratio, picture = "", -1.0, None
    failures = Failures(options.json)
    for name, both in _take_inputs(pairs, protocol, partial(restore_both, restorer), failures):
        if both is None:
            if not options.quiet:
                say(f"left out {name}: its input is a single tile")
            continue
        seams = measure_seams(both)
        if not seams.elsewhere.count:
            if not options.quiet:
                say(f"left out {name}: all of its pixels are near the borders of tiles")
            continue
        total += seams
        verdicts.append(seams.passes)
        _tell_seams(name, seams, width, options.json)
        if options.seams_picture and max(seams.ratio, seams.edge_ratio) > worst_ratio:
            worst, worst_ratio = name, max(seams.ratio, seams.edge_ratio)
            plan = both.plan
            tiles = f"tiles of {plan.tile_width}x{plan.tile_height}, overlap {plan.overlap}"
            picture = draw_seams(both, _to_ascii(f"{worst}: change by {tiles}"))
    if not total.near.count:
        failures.end()
        raise UsageError(
            f"no input has borders of tiles: {restorer.tiles.side} pixels, overlap {restorer.tiles.overlap}; "
            "give another --tile, or a smaller --overlap"
        )
    counts = {"images": len(verdicts), "with_seams": verdicts.count(False), "failed": failures.count}
    _tell_seams("all", total, width, options.json, counts, restorer.model.name)
    if picture is not None and options.seams_picture is not None:
        _save(picture, options.seams_picture, options, f" of {worst}")
    failures.end()
    if not all(verdicts):
        raise typer.Exit(1)


def _take_inputs(
    pairs: "Sequence[ImagePair]",
    protocol: "PaperProtocol",
    take: "Callable[[np.ndarray], Taken]",
    failures: Failures,
) -> Iterator[tuple[str, Taken]]:
    """Read or make each input, see ``read_input``, and yield its name and what is taken from it."""
    from mambair_cli.quality.evaluate import check_made, read_input

    check_made(pairs, protocol)
    for pair in pairs:
        try:
            with explaining_memory(str(pair.truth)):
                taken = take(read_input(pair, protocol))
        except MambairError as error:
            failures.add(pair, error)
            continue
        yield pair.name, taken


def _fit_channels(image: "np.ndarray", channels: int) -> "np.ndarray":
    """Return an image with the channels of a network, float32, without transparency."""
    from mambair_cli.restore.channels import to_channels

    return to_channels(image, image.shape[2] - (image.shape[2] % 2 == 0), channels)


def _tell_field(
    name: str, field: "ReceptiveField", side: int, width: int, as_json: bool, model: str | None = None
) -> None:
    """Print how large a field is; with the model's name it is that of all images."""
    half, most = field.side_of(0.5), field.side_of(0.9)
    if as_json:
        facts: dict[str, Any] = {"name": name, "side_50": half, "side_90": most, "crops": field.crops}
        print_event("mean" if model else "image", **facts, crop=side, **({"model": model} if model else {}))
    else:
        print(f"{name:{width}}  50% in {half:2}×{half:<2}  90% in {most:2}×{most:<2}", flush=True)


def _tell_seams(
    name: str,
    seams: "Seams",
    width: int,
    as_json: bool,
    counts: dict[str, int] | None = None,
    model: str | None = None,
) -> None:
    """Print what tiles change; with counts and the model's name it is that of all images."""
    from mambair_cli.quality.seams import MOST_RATIO

    # Each image is judged alone: a seam in one of them is seen, however well the others hide theirs.
    passes = not counts["with_seams"] if counts else seams.passes
    if as_json:
        facts = {
            "name": name,
            "near": seams.near.rms,
            "elsewhere": seams.elsewhere.rms,
            "ratio": _finite(seams.ratio),
            "edge_ratio": _finite(seams.edge_ratio),
            "passes": passes,
        }
        more = {"limit": MOST_RATIO, "model": model, **counts} if counts else {}
        print_event("seams" if counts else "image", **facts, **more)
    else:
        verdict = "no seam" if passes else "seam"
        if counts and not passes:
            verdict += f" in {counts['with_seams']} of {counts['images']} images"
        print(
            f"{name:{width}}  borders {seams.near.rms:6.3f}  elsewhere {seams.elsewhere.rms:6.3f}"
            f"  ratio {seams.ratio:5.2f}  edges {seams.edge_ratio:5.2f}  {verdict}",
            flush=True,
        )


def _to_ascii(title: str) -> str:
    """Replace letters that Pillow's own font may lack."""
    return title.encode("ascii", "replace").decode()


def _finite(ratio: float) -> float | None:
    """Return a ratio for JSON, which has no infinity."""
    return ratio if math.isfinite(ratio) else None


def _save(picture: "Image", path: Path, options: "EvaluateOptions", what: str = "") -> None:
    make_folder(path.absolute().parent, "--seams-picture" if options.seams else "--receptive-field")
    with open_atomic(path, overwrite=options.overwrite, in_new_folder=True) as file:
        picture.save(file, "PNG")
    if not options.quiet:
        say(f"wrote {show(path)}{what}")
