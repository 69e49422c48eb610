"""Photographs in the device's memory, whole and degraded, and the drawing of random crops from them.

All lie there as bytes, with what they are degraded to beside them, so that a batch is one gather and the
device never waits for files.
"""

import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mambair_cli.errors import MemoryLimitError
from mambair_cli.images import read_srgb
from mambair_cli.images.discovery import find_images
from mambair_cli.quality.degrade import compress_jpeg, imresize, modcrop
from mambair_cli.train.config import TrainConfig

JPEG_VARIANTS = 12  # compressed forms of each photograph, at qualities spread over the range


class Pool(NamedTuple):
    """Images of any sizes in one tensor, so that crops of many are one gather.

    Attributes:
        pixels: Of all images, one after the other, (pixels, ch) uint8.
        first: Where each image begins, (images,).
        heights: Of the images, (images,).
        widths: Of the images, (images,).
    """

    pixels: Tensor
    first: Tensor
    heights: Tensor
    widths: Tensor

    def crop(self, image: Tensor, top: Tensor, left: Tensor, side: int, orientation: Tensor) -> Tensor:
        """Cut out squares, each turned or mirrored its own way.

        Args:
            image: Number of each crop's image, (b,).
            top: First row of each crop, (b,).
            left: First column of each crop, (b,).
            side: Of all crops.
            orientation: 0 to 7, the symmetries of the square, (b,).

        Returns:
            (b, ch, side, side) float32 in [0, 1], channels last in memory.
        """
        place = torch.arange(side, device=self.pixels.device)
        y, x = place[None, :, None], place[None, None, :]
        turn = orientation[:, None, None]
        y, x = torch.where(turn & 4 > 0, x, y), torch.where(turn & 4 > 0, y, x)
        y = torch.where(turn & 1 > 0, side - 1 - y, y) + top[:, None, None]
        x = torch.where(turn & 2 > 0, side - 1 - x, x) + left[:, None, None]
        pixel = self.first[image][:, None, None] + y * self.widths[image][:, None, None] + x
        return (self.pixels[pixel].float() / 255).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Photographs:
    """What is trained on.

    Attributes:
        clean: The photographs.
        degraded: What they are degraded to, one or more of each; None where noise is drawn instead.
        original: Number of the photograph behind each degraded image, or behind itself, (images,).
        share: Running sum of the areas of the network's inputs, (images,) float64.
    """

    clean: Pool
    degraded: Pool | None
    original: Tensor
    share: Tensor

    def draw(
        self, config: TrainConfig, generator: torch.Generator, part: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch: crops of the network's input and of what it should make of them.

        An image is drawn as often as it is large.

        Args:
            config: Says how many crops, how large, and how degraded.
            generator: Of all random numbers; it moves on by those of a whole batch.
            part: Of the batch, to cut out; the rest is only drawn.

        Returns:
            (b, ch, crop, crop) and (b, ch, s·crop, s·crop), float32 in [0, 1]; noise may leave that range.
        """
        device = self.share.device
        chance = torch.rand(5, config.batch, dtype=torch.float64, device=device, generator=generator)
        chance = chance[:, part]
        inputs = self.degraded or self.clean
        image = torch.searchsorted(self.share, chance[0] * self.share[-1], right=True)
        image = image.clamp(max=len(self.share) - 1)
        top = (chance[1] * (inputs.heights[image] - config.crop + 1)).long()
        left = (chance[2] * (inputs.widths[image] - config.crop + 1)).long()
        orientation = (chance[3] * 8).long()
        s = config.scale
        wanted = self.clean.crop(self.original[image], top * s, left * s, config.crop * s, orientation)
        if self.degraded:
            return self.degraded.crop(image, top, left, config.crop, orientation), wanted
        low, high = config.sigma
        sigma = (low + (high - low) * chance[4]).float()[:, None, None, None] / 255
        noise = torch.randn(config.batch, *wanted.shape[1:], device=device, generator=generator)
        return wanted + sigma * noise[part], wanted


def load_photographs(config: TrainConfig, channels: int, device: torch.device) -> Photographs:
    """Read all photographs, degrade them for the task and bring both to the device.

    Args:
        config: Names the folders and the task.
        channels: 3 for colour, 1 for gray.
        device: Where the run computes.

    Raises:
        UsageError: Where there are none.
        ImageError: Where one cannot be read.
        MemoryLimitError: Where the device does not hold them.
    """
    files = [file for folder in config.images for file in find_images(folder)]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        prepared = list(threads.map(lambda file: list(_prepare(file, channels, config)), files))
    pairs = [pair for of_file in prepared for pair in of_file]
    try:
        clean = _make_pool((image for image, _ in pairs), device)
        degraded, original = None, torch.arange(len(pairs), device=device)
        if config.task != "denoise" and config.degradation == "papers":
            degraded = _make_pool((image for _, images in pairs for image in images), device)
            original = original.repeat_interleave(len(pairs[0][1]))
    except torch.OutOfMemoryError as error:
        raise MemoryLimitError(
            f"cannot hold {len(files)} photographs in the memory of {device}: they are used from there; "
            "take fewer or smaller ones"
        ) from error
    inputs = degraded or clean
    return Photographs(clean, degraded, original, (inputs.heights * inputs.widths).double().cumsum(0))


def _prepare(file: Path, channels: int, config: TrainConfig) -> Iterable[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield a photograph at each of its sizes, with what it is degraded to."""
    whole = read_srgb(file, channels)
    shortest = config.crop * config.scale
    for size in config.shrink:
        clean = modcrop(whole if size == 1 else imresize(whole, size), config.scale)
        if size != 1 and min(clean.shape[:2]) < shortest:
            continue
        clean = _mirror_to(clean, shortest)
        if config.degradation == "real":
            yield clean, []
        elif config.task == "upscale":
            yield clean, [imresize(clean, 1 / config.scale)]
        elif config.task == "dejpeg":
            yield clean, _compress_variously(clean, config.quality, f"{config.seed} {file.name} {size}")
        else:
            yield clean, []


def _compress_variously(image: np.ndarray, quality: tuple[int, int], seed: str) -> list[np.ndarray]:
    """Compress an image at a random quality from each of equal parts of the range."""
    low, high = quality
    draw = random.Random(seed)
    shares = [(part + draw.random()) / JPEG_VARIANTS for part in range(JPEG_VARIANTS)]
    return [compress_jpeg(image, low + int(share * (high - low + 1))) for share in shares]


def _make_pool(images: Iterable[np.ndarray], device: torch.device) -> Pool:
    images = list(images)
    heights, widths = (
        torch.tensor([image.shape[axis] for image in images], device=device) for axis in (0, 1)
    )
    areas = heights * widths
    pixels = np.concatenate([image.reshape(-1, image.shape[2]) for image in images])
    return Pool(torch.from_numpy(pixels).to(device), areas.cumsum(0) - areas, heights, widths)


def _mirror_to(image: np.ndarray, shortest: int) -> np.ndarray:
    """Extend an image by its mirror image where a side is too short for a crop."""
    missing = [max(0, shortest - side) for side in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")
