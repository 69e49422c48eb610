"""The training images, whole and degraded, in the device's memory, and random crops of them.

All are stored there as bytes, or as 16 bits where one has more than 8, with their degraded forms, so that a
batch is one gather and the device never waits for files.
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mambair_cli.errors import MemoryLimitError, UsageError
from mambair_cli.images import FirstPage, from_float, is_gray, to_float
from mambair_cli.quality.degrade import compress_jpeg, imresize, modcrop
from mambair_cli.system.memory import is_out_of_memory
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.files import PageFacts, explain_files, find_pictures, read_all, read_page

JPEG_VARIANTS = 12  # compressed forms of each image, with qualities spread over the range


class ImagePool(NamedTuple):
    """Images of any sizes in one tensor, so that crops of many are one gather.

    Attributes:
        pixels: Pixels of all images, one after another, (pixels, ch): uint8; or int16 with the bits of
            uint16, of which not all devices gather elements.
        first: Index of each image's first pixel, (images,).
        heights: Height of each image, in pixels, (images,).
        widths: Width of each image, in pixels, (images,).
    """

    pixels: Tensor
    first: Tensor
    heights: Tensor
    widths: Tensor

    def crop(self, image: Tensor, top: Tensor, left: Tensor, side: int, orientation: Tensor) -> Tensor:
        """Cut out squares, each with its own rotation or reflection.

        Args:
            image: Index of each crop's image, (b,).
            top: First row of each crop, (b,).
            left: First column of each crop, (b,).
            side: Side of all crops, in pixels.
            orientation: Symmetry of the square for each crop, 0 to 7, (b,).

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
        samples = self.pixels[pixel]
        if samples.dtype == torch.uint8:
            samples = samples.float() / 255
        else:
            samples = (samples.int() & 0xFFFF).float() / 0xFFFF
        return samples.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Dataset:
    """The images to train on.

    Attributes:
        clean: The images as they are.
        degraded: Their degraded forms, one or more for each; None where crops are degraded when drawn.
        original: Index of the clean image of each input, (images,).
        cumulative_areas: Running sum of the areas of the inputs, in pixels, (images,) float64.
        largest_crop: Largest crop that an image holds by itself; images that are too small are mirrored.
        digest: Digest of the images at all their sizes, in their order.
        gray: Whether each image is gray, (images,) bool; None where none is, or the network is for gray.
        remarks: Sentences on pictures, pages and frames that are not used, and on what should not be.
    """

    clean: ImagePool
    degraded: ImagePool | None
    original: Tensor
    cumulative_areas: Tensor
    largest_crop: int
    digest: str = ""
    gray: Tensor | None = None
    remarks: tuple[str, ...] = ()

    def explain_mirrored(self, config: TrainConfig) -> str | None:
        """Say that no image is as large as a crop; None if one is."""
        if config.crop <= self.largest_crop:
            return None
        factor = f" times {config.scale}" if config.scale > 1 else ""
        return (
            f"no image is as large as --crop {config.crop}{factor}: all are mirrored beyond their borders, "
            f"which teaches little; larger images, or --crop {self.largest_crop}, would work better"
        )

    def draw_batch(
        self, config: TrainConfig, generator: torch.Generator, share: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch: crops of inputs, and the target of each.

        The chance of an image is proportional to its area. The noise of a gray image is the same in all
        channels.

        Args:
            config: Settings of the run: number, size and degradation of crops.
            generator: Source of random numbers; it always advances by those of a whole batch.
            share: Crops of the batch to return; for the others only random numbers are drawn.

        Returns:
            (b, ch, crop, crop) and (b, ch, s·crop, s·crop), float32 in [0, 1]; noise may leave that range.
        """
        device = self.cumulative_areas.device
        numbers = 6 if config.clipped else 5
        chance = torch.rand(numbers, config.batch, dtype=torch.float64, device=device, generator=generator)
        chance = chance[:, share]
        inputs = self.degraded or self.clean
        image = torch.searchsorted(self.cumulative_areas, chance[0] * self.cumulative_areas[-1], right=True)
        image = image.clamp(max=len(self.cumulative_areas) - 1)
        top = (chance[1] * (inputs.heights[image] - config.crop + 1)).long()
        left = (chance[2] * (inputs.widths[image] - config.crop + 1)).long()
        orientation = (chance[3] * 8).long()
        s = config.scale
        target = self.clean.crop(self.original[image], top * s, left * s, config.crop * s, orientation)
        if self.degraded:
            return self.degraded.crop(image, top, left, config.crop, orientation), target
        low, high = config.sigma
        sigma = (low + (high - low) * chance[4]).float()[:, None, None, None] / 255
        noise = torch.randn(config.batch, *target.shape[1:], device=device, generator=generator)
        noise = noise[share]
        if self.gray is not None:
            noise = torch.where(self.gray[image][:, None, None, None], noise[:, :1], noise)
        x = target + sigma * noise
        if config.clipped:
            stored = (x.clamp(0, 1) * 255).round() / 255
            x = torch.where((chance[5] < config.clipped)[:, None, None, None], stored, x)
        return x, target


def load_dataset(config: TrainConfig, channels: int, device: torch.device) -> Dataset:
    """Read all images, degrade them for the task and copy both to the device.

    Args:
        config: Settings of the run, with the folders and the task.
        channels: 3 for colour, 1 for gray.
        device: Device of the run.

    Raises:
        UsageError: There are no images, or all are too small to shrink.
        ImageError: Images cannot be read, or are too small.
        MemoryLimitError: The device's memory cannot hold them.
    """
    files, examples = find_pictures(config.images)

    def read(file: Path) -> tuple[PageFacts, list[_Prepared]]:
        page = read_page(file, config.scale)
        return PageFacts.of(page), list(_prepare(page, channels, config))

    try:
        prepared = read_all(files, read)
        images = [image for _, images_of_file in prepared for image in images_of_file]
        if not images:
            raise UsageError(
                f"no image is as large as a crop, {config.crop * config.scale} pixels, where it shrinks to "
                f"{' or '.join(f'{size:g}' for size in config.shrink)} of its size; larger sizes would work"
            )
        digest = _digest([image.clean for image in images])
        clean = _make_pool((image.clean for image in images), device)
        degraded, original = None, torch.arange(len(images), device=device)
        if config.task != "denoise" and config.degradation == "papers":
            degraded = _make_pool((form for image in images for form in image.degraded), device)
            original = original.repeat_interleave(len(images[0].degraded))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryLimitError(
            f"cannot load {len(files)} images into the memory of {device}: all must fit; "
            "use fewer or smaller ones"
        ) from error
    inputs = degraded or clean
    areas = (inputs.heights * inputs.widths).double()
    facts = {file: facts for file, (facts, _) in zip(files, prepared, strict=True)}
    are_gray = [channels > 1 and image.is_gray for image in images]
    return Dataset(
        clean,
        degraded,
        original,
        areas.cumsum(0),
        max(image.largest_crop for image in images),
        digest,
        torch.tensor(are_gray, device=device) if any(are_gray) else None,
        tuple(explain_files(examples, facts, "train")),
    )


class _Prepared(NamedTuple):
    """An image, its degraded forms, and facts about it.

    Attributes:
        clean: Image, (h, w, ch).
        degraded: Its degraded forms.
        largest_crop: Largest crop that it holds without a mirrored border.
        is_gray: Whether all its channels are equal.
    """

    clean: np.ndarray
    degraded: list[np.ndarray]
    largest_crop: int
    is_gray: bool


def _prepare(page: FirstPage, channels: int, config: TrainConfig) -> Iterable[_Prepared]:
    """Yield an image at each of its sizes, with its degraded forms."""
    whole = page.to_srgb(channels)
    shortest = config.crop * config.scale
    for size in config.shrink:
        clean = modcrop(whole if size == 1 else imresize(whole, size), config.scale)
        if size != 1 and min(clean.shape[:2]) < shortest:
            continue
        largest_crop = min(clean.shape[:2]) // config.scale
        clean, degraded = _mirror_to(clean, shortest), []
        if config.degradation == "papers" and config.task == "upscale":
            degraded = [imresize(clean, 1 / config.scale)]
        elif config.degradation == "papers" and config.task == "dejpeg":
            degraded = _compress_at_qualities(clean, config.quality, f"{config.seed} {page.path.name} {size}")
        yield _Prepared(clean, degraded, largest_crop, is_gray(whole))


def _compress_at_qualities(image: np.ndarray, quality: tuple[int, int], seed: str) -> list[np.ndarray]:
    """Compress an image, as 8 bits, at random qualities, one from each of equal parts of the range."""
    low, high = quality
    draw = random.Random(seed)
    places = [(part + draw.random()) / JPEG_VARIANTS for part in range(JPEG_VARIANTS)]
    image = from_float(to_float(image), np.uint8)
    return [compress_jpeg(image, low + int(place * (high - low + 1))) for place in places]


def _make_pool(images: Iterable[np.ndarray], device: torch.device) -> ImagePool:
    images = list(images)
    heights, widths = (
        torch.tensor([image.shape[axis] for image in images], device=device) for axis in (0, 1)
    )
    areas = heights * widths
    is_deep = any(image.dtype != np.uint8 for image in images)
    pixels = np.concatenate(
        [(_deepen(image) if is_deep else image).reshape(-1, image.shape[2]) for image in images]
    )
    return ImagePool(torch.from_numpy(pixels).to(device), areas.cumsum(0) - areas, heights, widths)


def _digest(images: Iterable[np.ndarray]) -> str:
    """Digest the shapes, the types and the pixels of images: a second for some GB."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.shape} {image.dtype} ".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def _deepen(image: np.ndarray) -> np.ndarray:
    """Return samples as int16 with the bits of uint16; bytes are scaled to the range of 16 bits."""
    wide = image if image.dtype == np.uint16 else image.astype(np.uint16) * 257
    return wide.view(np.int16)


def _mirror_to(image: np.ndarray, shortest: int) -> np.ndarray:
    """Extend an image by reflection where a side is too short for a crop."""
    missing = [max(0, shortest - side) for side in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")
