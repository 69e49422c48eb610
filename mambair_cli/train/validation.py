"""The PSNR of a network in training, as the papers count it."""

from typing import NamedTuple

import numpy as np
import torch

from mambair_cli.degradation.apply import degrade_image
from mambair_cli.degrade import add_noise, compress_jpeg, imresize, modcrop
from mambair_cli.engine import Engine, restore_image
from mambair_cli.errors import UsageError
from mambair_cli.metrics import psnr
from mambair_cli.model import Network
from mambair_cli.tiling import plan_tiles
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.photographs import find_images, read_image

NOISE_LEVELS = (15, 25, 50)  # that the papers report
QUALITY_LEVELS = (10, 30, 40)
TILE = 128  # pixels; as a restoration has it if nobody says otherwise
OVERLAP = 32
TILES_AT_ONCE = 4


class Pair(NamedTuple):
    """An input, (h, w, c) float32 in [0, 1], and the truth behind it, (s·h, s·w, c) uint8."""

    image: np.ndarray
    truth: np.ndarray


def load_validation(config: TrainConfig, channels: int) -> dict[str, list[Pair]]:
    """Make the images to measure on, under the name of their level of degradation.

    Raises:
        UsageError: Where there are none.
        ImageError: Where one cannot be read.
    """
    if config.validation is None:
        return {}
    files = find_images(config.validation)
    if not files:
        raise UsageError(f"no images to measure on: {config.validation}; --validation takes a folder of them")
    truths = [modcrop(read_image(file, channels), config.scale) for file in files]
    if config.degradation == "real":
        return {
            "real": [Pair(_to_float(degrade_image(t, config.scale, (0, n))), t) for n, t in enumerate(truths)]
        }
    if config.task == "upscale":
        return {f"x{config.scale}": [Pair(_to_float(imresize(t, 1 / config.scale)), t) for t in truths]}
    if config.task == "denoise":
        levels = _levels(NOISE_LEVELS, config.sigma)
        return {
            f"sigma{sigma:g}": [Pair(add_noise(_to_float(t), sigma), t) for t in truths] for sigma in levels
        }
    levels = _levels(QUALITY_LEVELS, config.quality)
    return {f"q{q}": [Pair(_to_float(compress_jpeg(t, int(q))), t) for t in truths] for q in levels}


def measure(net: Network, validation: dict[str, list[Pair]], config: TrainConfig) -> dict[str, float]:
    """Return the mean PSNR at each level; of upscaling, that of the Y channel."""
    engine = Engine(net, torch.device(config.device), "fp32")
    upscale = config.task == "upscale"
    record = {}
    for level, pairs in validation.items():
        total = 0.0
        for image, truth in pairs:
            plan = plan_tiles(image.shape[0], image.shape[1], TILE, OVERLAP)
            restored = restore_image(engine, image, plan, TILES_AT_ONCE, seed=None)
            total += psnr(restored, truth, border=config.scale if upscale else 0, luma=upscale)
        record[f"psnr_{level}"] = round(total / len(pairs), 4)
    return record


def _levels(usual: tuple[int, ...], trained: tuple[float, float]) -> list[float]:
    """Return the usual levels among the trained ones, or else the ends of these."""
    low, high = trained
    return [level for level in usual if low <= level <= high] or sorted({low, high})


def _to_float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255
