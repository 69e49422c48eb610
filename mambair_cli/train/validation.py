"""The PSNR of a network in training, measured as in the papers."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mambair_cli.images import from_float, split_luma, to_float
from mambair_cli.networks import Network
from mambair_cli.quality.degrade import modcrop
from mambair_cli.quality.evaluate import ImagePair, choose_protocol, read_input
from mambair_cli.quality.metrics import choose_bits, psnr
from mambair_cli.quality.pairs import name_apart
from mambair_cli.restore.channels import from_channels, to_channels
from mambair_cli.restore.engine import Engine, blend_rows
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_size import choose_tiles
from mambair_cli.restore.tiling import Plan, shrink
from mambair_cli.system.memory import is_out_of_memory, release_memory_of
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.files import PageFacts, explain_files, find_pictures, read_all, read_page

NOISE_LEVELS = (15, 25, 50)  # levels in the papers
QUALITY_LEVELS = (10, 30, 40)
TILES_AT_ONCE = 4  # limit: the training itself needs most of the memory


class ValidationPair(NamedTuple):
    """An input and the truth behind it.

    Attributes:
        image: Input, (h, w, c) float32 in [0, 1]; noise may leave that range. Gray pictures have one channel.
        truth: (s·h, s·w, c), uint8 or float32 in [0, 1].
        name: Path of the file within its folder, without its suffix where that is enough to tell it apart.
    """

    image: np.ndarray
    truth: np.ndarray
    name: str = ""


OnRestored = Callable[[str, ValidationPair, np.ndarray], None]
"""Called with a level, a pair, and what the network made of its input, (s·h, s·w, c) float32, not clipped."""


def load_validation(
    config: TrainConfig, channels: int, notify: Callable[[str], None] = lambda sentence: None
) -> dict[str, list[ValidationPair]]:
    """Make the image pairs to measure on, by the name of their level of degradation.

    They are those of ``mambair evaluate``, at the depth and in the colours of their files; but a gray network
    is measured on the luma of colours.

    Args:
        config: Settings of the run.
        channels: Channels of the network.
        notify: Called with sentences on pictures, pages and frames that are not used or should not be.

    Raises:
        UsageError: There are no images.
        ImageError: Images cannot be read, or are too small.
    """
    if config.validation is None:
        return {}
    files, examples = find_pictures([config.validation])

    def read(file: Path) -> tuple[PageFacts, np.ndarray]:
        page = read_page(file, config.scale)
        return PageFacts.of(page), _prepare_truth(page.pixels, config, channels)

    pages = dict(zip(files, read_all(files, read), strict=True))
    facts = {file: facts for file, (facts, _) in pages.items()}
    names = name_apart(config.validation, files)
    for sentence in explain_files(examples, facts, "measure"):
        notify(sentence)

    def pair_up(level: float | None = None) -> list[ValidationPair]:
        protocol = choose_protocol(config.task, config.scale, level, degradation=config.degradation)

        def pair(file: Path) -> ValidationPair:
            truth = pages[file][1]
            image = to_float(read_input(ImagePair(file), protocol, truth))
            truth = modcrop(truth, config.scale)
            return ValidationPair(image, truth if truth.dtype == np.uint8 else to_float(truth), names[file])

        return [pair(file) for file in files]

    if config.degradation == "real":
        return {"real": pair_up()}
    if config.task == "upscale":
        return {f"x{config.scale}": pair_up()}
    if config.task == "denoise":
        return {f"sigma{sigma:g}": pair_up(sigma) for sigma in _levels(NOISE_LEVELS, config.sigma)}
    return {f"q{q}": pair_up(q) for q in _levels(QUALITY_LEVELS, config.quality)}


def _prepare_truth(truth: np.ndarray, config: TrainConfig, channels: int) -> np.ndarray:
    """Return what a network can be measured on: luma for a gray one, and 8 bits for JPEG."""
    dtype = truth.dtype
    if channels < truth.shape[2]:
        truth = from_float(split_luma(to_float(truth))[0], dtype)
    if config.task == "dejpeg" and config.degradation == "papers" and dtype != np.uint8:
        truth = from_float(to_float(truth), np.uint8)
    return truth


def measure(
    net: Network,
    validation: dict[str, list[ValidationPair]],
    config: TrainConfig,
    is_stopped: Callable[[], bool] = lambda: False,
    on_restored: OnRestored = lambda level, pair, restored: None,
) -> dict[str, float]:
    """Return the mean PSNR at each level; for upscaling, that of the Y channel.

    Images are cut into the same tiles as when they are restored on this device, or into smaller ones where
    its memory is full.

    Args:
        net: Network in training.
        validation: Pairs by level, from :func:`load_validation`.
        config: Settings of the run.
        is_stopped: Tells whether to stop at once.
        on_restored: Called with each result.

    Returns:
        PSNR in dB by name, such as "psnr_x2"; empty if it was stopped.

    Raises:
        Exception: The device's memory does not hold even the smallest tile, see ``is_out_of_memory``.
    """
    device = torch.device(config.device)
    engine = Engine(net, device, "fp32")
    tiles = choose_tiles(None, None, device.type, net.info.architecture, net.info.config)
    upscale = config.task == "upscale"
    record = {}
    for level, pairs in validation.items():
        total = 0.0
        for pair in pairs:
            if is_stopped():
                return {}
            image, truth, _ = pair
            colors, channels = image.shape[2], net.info.channels
            plan = tiles.plan(image.shape[0], image.shape[1])
            batch = min(TILES_AT_ONCE, choose_batch(plan, net.info.config, device.type))
            rows = _restore(engine, to_channels(image, colors, channels), plan, batch)
            restored = from_channels(rows, image, colors, channels)
            on_restored(level, pair, restored)
            border = config.scale if upscale else 0
            total += psnr(restored, truth, border=border, luma=upscale, bits=choose_bits(truth))
        record[f"psnr_{level}"] = round(total / len(pairs), 4)
    return record


def _restore(engine: Engine, image: np.ndarray, plan: Plan, batch: int) -> np.ndarray:
    """Return what a network makes of an image, (s·h, s·w, c) float32, not clipped."""
    while True:
        try:
            blended = blend_rows(engine, image, plan, batch, seed=None)
            return np.concatenate([engine.buffers.fetch(band) for band in blended])
        except Exception as error:
            smaller = shrink(plan, batch) if is_out_of_memory(error) else None
            if smaller is None:
                raise
            release_memory_of(error)
            plan, batch = smaller
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _levels(usual: tuple[int, ...], trained: tuple[float, float]) -> list[float]:
    """Return the usual levels within the trained range, or else the ends of that range."""
    low, high = trained
    return [level for level in usual if low <= level <= high] or sorted({low, high})
