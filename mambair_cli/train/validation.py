"""The PSNR of a network in training, measured as in the papers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from mambair_cli.images import read_srgb
from mambair_cli.images.discovery import find_images
from mambair_cli.networks import Network
from mambair_cli.quality.degradation.apply import degrade_image
from mambair_cli.quality.degrade import add_noise, compress_jpeg, imresize, modcrop
from mambair_cli.quality.metrics import psnr
from mambair_cli.restore.engine import Engine, run_image
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_size import choose_tiles
from mambair_cli.train.config import TrainConfig

NOISE_LEVELS = (15, 25, 50)  # levels in the papers
QUALITY_LEVELS = (10, 30, 40)
TILES_AT_ONCE = 4  # limit: the training itself needs most of the memory


class ValidationPair(NamedTuple):
    """An input and the truth behind it.

    Attributes:
        image: Input, (h, w, c) float32 in [0, 1]; noise may leave that range.
        truth: (s·h, s·w, c) uint8.
        name: Name of the file, without its suffix.
    """

    image: np.ndarray
    truth: np.ndarray
    name: str = ""


OnRestored = Callable[[str, ValidationPair, np.ndarray], None]
"""Called with a level, a pair, and what the network made of its input, (s·h, s·w, c) float32."""


def load_validation(config: TrainConfig, channels: int) -> dict[str, list[ValidationPair]]:
    """Make the image pairs to measure on, by the name of their level of degradation.

    Raises:
        UsageError: There are no images.
        ImageError: An image cannot be read.
    """
    if config.validation is None:
        return {}
    files = find_images(config.validation)
    truths = [modcrop(read_srgb(file, channels), config.scale) for file in files]

    def pair_up(degrade: Callable[[np.ndarray, int], np.ndarray]) -> list[ValidationPair]:
        return [
            ValidationPair(_to_float(degrade(truth, number)), truth, file.stem)
            for number, (file, truth) in enumerate(zip(files, truths, strict=True))
        ]

    if config.degradation == "real":
        return {"real": pair_up(lambda truth, number: degrade_image(truth, config.scale, (0, number)))}
    if config.task == "upscale":
        return {f"x{config.scale}": pair_up(lambda truth, _: imresize(truth, 1 / config.scale))}
    if config.task == "denoise":
        levels = _levels(NOISE_LEVELS, config.sigma)
        return {
            f"sigma{sigma:g}": pair_up(lambda truth, _, sigma=sigma: add_noise(_to_float(truth), sigma))
            for sigma in levels
        }
    levels = _levels(QUALITY_LEVELS, config.quality)
    return {f"q{q}": pair_up(lambda truth, _, q=q: compress_jpeg(truth, int(q))) for q in levels}


def measure(
    net: Network,
    validation: dict[str, list[ValidationPair]],
    config: TrainConfig,
    is_stopped: Callable[[], bool] = lambda: False,
    on_restored: OnRestored = lambda level, pair, restored: None,
) -> dict[str, float]:
    """Return the mean PSNR at each level; for upscaling, that of the Y channel.

    Images are cut into the same tiles as when they are restored on this device.

    Args:
        net: Network in training.
        validation: Pairs by level, from :func:`load_validation`.
        config: Settings of the run.
        is_stopped: Tells whether to stop at once.
        on_restored: Called with each result.

    Returns:
        PSNR in dB by name, such as "psnr_x2"; empty if it was stopped.
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
            plan = tiles.plan(image.shape[0], image.shape[1])
            batch = min(TILES_AT_ONCE, choose_batch(plan, net.info.config, device.type))
            restored = run_image(engine, image, plan, batch, seed=None)
            on_restored(level, pair, restored)
            total += psnr(restored, truth, border=config.scale if upscale else 0, luma=upscale)
        record[f"psnr_{level}"] = round(total / len(pairs), 4)
    return record


def _levels(usual: tuple[int, ...], trained: tuple[float, float]) -> list[float]:
    """Return the usual levels within the trained range, or else the ends of that range."""
    low, high = trained
    return [level for level in usual if low <= level <= high] or sorted({low, high})


def _to_float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
