"""Compare restored images with ground truth, by the protocols of the papers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from zlib import crc32

import numpy as np

from mambair_cli.checkpoints.catalog import Model, Task
from mambair_cli.errors import ImageError, MambairError, UsageError
from mambair_cli.images import is_gray, is_opaque, read_picture, to_float
from mambair_cli.quality import metrics
from mambair_cli.quality.degrade import add_noise, compress_jpeg, imresize, modcrop
from mambair_cli.quality.pairs import ImagePair, check_input, fit_result
from mambair_cli.system.memory import explaining_memory

Degradation = Literal["papers", "real"]


@dataclass(frozen=True)
class PaperProtocol:
    """How a task is measured.

    Attributes:
        task: Task of the network; None for finished images.
        scale: Size of the truth divided by the size of the input.
        level: Noise sigma of 255, or JPEG quality, of made inputs.
        border: Pixels at each side that are not compared.
        luma: Whether colour images are compared only on Y of BT.601.
        degradation: How inputs are made: as in the papers, or degraded like real pictures.
    """

    task: Task | None
    scale: int
    level: float | None
    border: int
    luma: bool
    degradation: Degradation = "papers"

    def describe(self) -> str:
        """Say in words what is compared, such as "Y, border 4"."""
        return f"{'Y' if self.luma else 'all channels'}, border {self.border}"


@dataclass(frozen=True)
class Score:
    """The quality of an image: PSNR in dB, and SSIM.

    Attributes:
        name: Name of the picture, or "mean".
        psnr: PSNR of the restored image.
        ssim: SSIM of the restored image.
        before: PSNR of the input, enlarged by bicubic interpolation if it is smaller; None where inputs are
            not degraded like real pictures.
    """

    name: str
    psnr: float
    ssim: float
    before: float | None = None


OnMeasured = Callable[[Score, np.ndarray | None, np.ndarray, np.ndarray], None]
"""Called with a score, the input of the network (None for finished images), the result and the truth."""


OnFailed = Callable[[ImagePair, MambairError], None]
"""Called with a pair that cannot be measured, and why."""


def choose_protocol(
    task: Task | None,
    scale: int,
    level: float | None,
    border: int | None = None,
    luma: bool | None = None,
    degradation: Degradation = "papers",
) -> PaperProtocol:
    """Return the protocol of the papers for a task, with the given changes.

    Super-resolution is measured on Y without a border of ``scale`` pixels, other tasks on all channels of the
    whole image. Finished images are measured like the task that their scale tells.

    Args:
        task: Task of the network; None for finished images.
        scale: Size of the truth divided by the size of the input; 1 for finished images of unknown origin.
        level: Noise sigma of 255, or JPEG quality, of made inputs; None if there is none.
        border: Pixels at each side that are not compared; None for those of the papers.
        luma: Whether to compare colour images only on Y; None for what the papers do.
        degradation: How inputs are made: as in the papers, or degraded like real pictures.
    """
    upscale = task == "upscale" or (task is None and scale > 1)
    return PaperProtocol(
        task=task,
        scale=scale,
        level=level,
        border=(scale if upscale else 0) if border is None else border,
        luma=upscale if luma is None else luma,
        degradation=degradation,
    )


def make_input(truth: np.ndarray, protocol: PaperProtocol, name: str = "") -> np.ndarray:
    """Degrade the truth as in the papers, or like real pictures.

    Args:
        truth: (h, w, c), uint8, uint16 or float32.
        protocol: Task, with its scale or level.
        name: Name of the picture, which decides how it is degraded like a real one.

    Returns:
        The input: smaller for upscale; float32, also outside [0, 1], for denoise; uint8 for dejpeg.

    Raises:
        UsageError: The protocol has no level, and the task needs one.
        ImageError: The truth is smaller than a pixel of the input, or has more pixels a side than JPEG or
            WebP, or more bits per sample than JPEG, can hold.
    """
    if not modcrop(truth, protocol.scale).size:
        height, width = truth.shape[:2]
        raise ImageError(f"{width}×{height} pixels are less than one of the input; leave it out")
    if protocol.degradation == "real":
        return _make_real_input(truth, protocol, name)
    if protocol.task == "upscale":
        return imresize(modcrop(truth, protocol.scale), 1 / protocol.scale)
    level = check_level(protocol)
    if protocol.task == "denoise":
        if is_gray(truth):  # also where it is stored as colours: a gray picture has gray noise
            return add_noise(to_float(truth)[:, :, :1], level).repeat(truth.shape[2], axis=2)
        # The official scripts draw the noise for images in the order blue, green, red.
        return np.ascontiguousarray(add_noise(to_float(truth)[:, :, ::-1], level)[:, :, ::-1])
    if truth.dtype != np.uint8:
        raise ImageError(f"JPEG holds 8 bits per sample, and it has {truth.dtype}; convert it first")
    return compress_jpeg(truth, int(level)).reshape(truth.shape)


def check_level(protocol: PaperProtocol) -> float:
    """Return the level of inputs to make by noise or JPEG.

    Raises:
        UsageError: It is unknown.
    """
    if protocol.level is None:
        wanted = "--sigma" if protocol.task == "denoise" else "--jpeg-quality"
        raise UsageError(
            f"inputs cannot be made for {protocol.task} of unknown strength; give {wanted} or --inputs"
        )
    return protocol.level


def read_input(pair: ImagePair, protocol: PaperProtocol, truth: np.ndarray | None = None) -> np.ndarray:
    """Read the input of a pair, or make it from the truth as ``make_input`` does.

    Args:
        pair: From ``pairs.find_pairs``.
        protocol: From ``choose_protocol``.
        truth: The truth, if it has been read.

    Raises:
        ImageError: The file is missing, cannot be read or is transparent, or no input can be made from it.
    """
    pair.require_partner()
    if pair.other is not None:
        return _read_opaque(pair.other)
    truth = _read_opaque(pair.truth) if truth is None else truth
    try:
        return make_input(truth, protocol, pair.truth.stem)
    except ImageError as error:
        raise ImageError(f"cannot make an input of {pair.truth}: {error}") from error


def _read_opaque(path: Path) -> np.ndarray:
    """Return the pixels of a file, (h, w, 1 or 3).

    Raises:
        ImageError: It cannot be read, or is transparent somewhere: colours there are not seen, so figures of
            them would say nothing.
    """
    picture = read_picture(path)
    if picture.alpha is not None and not is_opaque(picture.alpha):
        raise ImageError(
            f"cannot measure {path}: parts of it are transparent; put it on a background, or leave it out"
        )
    return picture.pixels


def _make_real_input(truth: np.ndarray, protocol: PaperProtocol, name: str) -> np.ndarray:
    from mambair_cli.quality.degradation.apply import degrade_image

    truth = modcrop(truth if truth.dtype == np.uint8 else to_float(truth), protocol.scale)
    return degrade_image(truth, protocol.scale, (0, crc32(name.encode(errors="surrogatepass"))))


def measure(
    pairs: Sequence[ImagePair],
    protocol: PaperProtocol,
    restore: Callable[[np.ndarray], np.ndarray] | None = None,
    on_measured: OnMeasured = lambda score, given, image, truth: None,
    on_failed: OnFailed | None = None,
) -> Iterator[Score]:
    """Compare images with the truth, after restoring them if a restorer is given.

    Args:
        pairs: From ``pairs.find_pairs``.
        protocol: From ``choose_protocol``.
        restore: Function from an input to a restored image; None for finished images.
        on_measured: Called with each score and the images behind it.
        on_failed: Called with each pair that cannot be measured, after which the next one is; by default its
            error is raised.

    Yields:
        A score per pair that can be measured, in order.

    Raises:
        UsageError: Inputs are to be made, and their level is unknown.
        ImageError: A file cannot be read, is transparent or too small, or its size or its colours do not fit
            the truth's.
    """
    check_made(pairs if restore else (), protocol)
    for pair in pairs:
        try:
            with explaining_memory(str(pair.truth)):
                measured = _measure_pair(pair, protocol, restore)
        except MambairError as error:
            if on_failed is None:
                raise
            on_failed(pair, error)
            continue
        on_measured(*measured)
        yield measured[0]


def check_made(pairs: Sequence[ImagePair], protocol: PaperProtocol) -> None:
    """Refuse to make inputs of an unknown level, before the first one is made.

    Raises:
        UsageError: One would be.
    """
    has_level = protocol.degradation == "papers" and protocol.task in ("denoise", "dejpeg")
    if has_level and any(pair.is_made for pair in pairs):
        check_level(protocol)


def _measure_pair(
    pair: ImagePair, protocol: PaperProtocol, restore: Callable[[np.ndarray], np.ndarray] | None
) -> tuple[Score, np.ndarray | None, np.ndarray, np.ndarray]:
    """Return the score of a pair, and the images behind it, see ``OnMeasured``."""
    pair.require_partner()
    truth = _read_opaque(pair.truth)
    _check_size(pair.truth, truth, protocol)
    compared = modcrop(truth, protocol.scale)
    given = None
    if restore is not None:
        given = read_input(pair, protocol, truth)
        check_input(pair, given, compared, protocol.scale)
        image = restore(given)
    elif pair.other is not None:
        image = _read_opaque(pair.other)
    else:
        raise ValueError("a finished image has a file")
    image, compared = fit_result(pair, image, truth, protocol.scale, is_finished=restore is None)
    score = _score(pair, image, compared, protocol)
    if given is not None and protocol.degradation == "real":
        enlarged = imresize(given, protocol.scale) if protocol.scale > 1 else given
        score = replace(score, before=_score(pair, enlarged, compared, protocol).psnr)
    return score, given, image, compared


def _check_size(path: Path, truth: np.ndarray, protocol: PaperProtocol) -> None:
    """Refuse an image smaller than the window of SSIM, before it is restored."""
    height, width = truth.shape[:2]
    border, scale = protocol.border, protocol.scale
    side = min(height, width) // scale * scale
    if side - 2 * border < metrics.SSIM_WINDOW:
        smallest = -(-(metrics.SSIM_WINDOW + 2 * border) // scale) * scale
        largest = (side - metrics.SSIM_WINDOW) // 2  # border that leaves the window
        raise ImageError(
            f"cannot measure {path}: {width}×{height} with a border of {border} pixels is less than the "
            f"{smallest}×{smallest} that are needed; leave it out"
            + (f", or set --border {largest}" if largest >= 0 else "")
        )


def _score(pair: ImagePair, image: np.ndarray, truth: np.ndarray, protocol: PaperProtocol) -> Score:
    """Compare an image with the truth, whose shape it has."""
    arrays = [x if x.dtype == np.uint8 else to_float(x) for x in (image, truth)]
    bits = metrics.choose_bits(truth)
    luma = protocol.luma and truth.shape[2] == 3

    def measure(by: Callable[..., float]) -> float:
        return by(*arrays, border=protocol.border, luma=luma, bits=bits)

    return Score(name=pair.name, psnr=measure(metrics.psnr), ssim=measure(metrics.ssim))


def average(scores: Sequence[Score]) -> Score:
    """Return the mean of all scores."""
    before = [score.before for score in scores if score.before is not None]
    return Score(
        before=float(np.mean(before)) if before else None,
        name="mean",
        psnr=float(np.mean([score.psnr for score in scores])),
        ssim=float(np.mean([score.ssim for score in scores])),
    )


def published_psnr(model: Model, truth: Path, level: float | None) -> tuple[str, float] | None:
    """Find the PSNR that was published for a model on the data set that a path names.

    Args:
        model: Entry of the catalogue.
        truth: Folder of the truth; a folder in its path has the name of the data set.
        level: Noise sigma of 255, or JPEG quality, of the inputs; None if there is none.

    Returns:
        Name of the data set, and PSNR in dB; None if none was published.
    """
    names = {part.lower() for part in truth.resolve().parts}
    for key, psnr in model.psnr.items():
        data, _, of_level = key.partition(", ")
        if data.lower() in names and (not of_level or float(of_level) == level):
            return data, psnr
    return None
