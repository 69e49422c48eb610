"""An estimate of what a picture will take: memory, room on the disk and time."""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mambair_cli.images import FORMATS, Header, Reader
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.tiling import Plan
from mambair_cli.runs.file_size import largest_file
from mambair_cli.system.process import peak_memory

_MOST_TURNED_IN_MEMORY = 100 * 2**20  # libvips' own bound
_ENCODER_BYTES = 2**28  # pieces that wait, and libvips' own lines and strips
_BLEND_COPIES = 2.5  # the rows of tiles being summed, the finished band, and its samples
_WINDOW_COPIES = 3  # rows of two rows of tiles, and once more while they are joined


@dataclass(frozen=True)
class Trial:
    """Time and memory of a network, measured by a trial.

    Attributes:
        seconds: Seconds per pixel of the input.
        memory: Peak memory of the whole process, in bytes; None if the system does not report it.
    """

    seconds: float
    memory: int | None


@dataclass(frozen=True)
class Cost:
    """Estimated cost of a picture.

    Attributes:
        memory: Bytes in addition to the network's own.
        disk: Largest number of bytes of the result and of temporary files.
        seconds: Seconds; None if there was no trial of the network.
    """

    memory: int
    disk: int
    seconds: float | None


def estimate(
    reader: Reader,
    result: Header,
    format: str,
    plan: Plan,
    scale: int,
    trial: Trial | None,
    quality: int | None = None,
) -> Cost:
    """Estimate the cost of a picture.

    Args:
        reader: Opened reader; nothing is read from it.
        result: Header of the result.
        format: Format of the result.
        plan: Tiles of the picture.
        scale: Scale of the network.
        trial: Trial from :func:`try_network`; None if there was none.
        quality: Quality, 1 to 100, of formats that have one; None for the default.
    """
    header = reader.header
    item = np.dtype(header.dtype).itemsize
    row = header.width * header.samples_per_pixel
    memory = _WINDOW_COPIES * 2 * plan.tile_height * row * item
    memory += _BLEND_COPIES * plan.tile_height * row * scale**2 * np.dtype(np.float32).itemsize
    memory += _ENCODER_BYTES
    pixels = header.width * header.height * header.frames
    image_bytes = pixels * header.samples_per_pixel * item
    in_memory = reader.is_whole or (reader.is_turned and image_bytes < _MOST_TURNED_IN_MEMORY)
    if in_memory:
        memory += image_bytes
    if FORMATS[format].is_whole:
        result_bytes = result.width * result.height * result.frames * result.samples_per_pixel
        memory += 2 * result_bytes * np.dtype(result.dtype).itemsize
    return Cost(
        memory=int(memory),
        disk=largest_file(result, format, quality)
        + (image_bytes if reader.is_turned and not in_memory else 0),
        seconds=_foresee_seconds(plan, pixels, trial),
    )


def _foresee_seconds(plan: Plan, pixels: int, trial: Trial | None) -> float | None:
    if not len(plan):  # no network is needed
        return 0.0
    return None if trial is None else trial.seconds * pixels * plan.redundancy


def try_network(restorer: Restorer, height: int, width: int) -> Trial:
    """Restore noise, as large as one batch of tiles of an image of that size, and measure it.

    Args:
        restorer: The restorer, with the network.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
    """
    restorer = restorer.alone().with_settings(replace(restorer.own, wrap="none"))
    plan = restorer.plan(height, width)
    tiles = restorer.loaded.choose_batch(plan)
    sides = sorted([plan.tile_height, plan.tile_width])  # tiles side by side along their larger one
    shape = (sides[0], sides[1] + (tiles - 1) * (sides[1] - plan.overlap), 3)
    if plan.tile_height > plan.tile_width:
        shape = (shape[1], shape[0], 3)
    noise = np.random.default_rng(0).random(shape, dtype=np.float32)
    if len(plan) > 1:
        restorer = restorer.with_settings(replace(restorer.own, tile=sides[1], overlap=plan.overlap))
    for _ in range(2 if restorer.device.type == "cuda" else 1):  # the first compiles kernels
        restorer(noise)
    start = time.perf_counter()
    _, report = restorer.restore(noise)
    seconds = time.perf_counter() - start
    return Trial(seconds / (report.plan.redundancy * shape[0] * shape[1]), peak_memory())


class Disk(NamedTuple):
    """A disk by its number, and its free bytes."""

    number: int
    free: int


def disk_of(target: Path) -> Disk:
    """Return the disk that a file will be on, even if its folder does not exist yet."""
    folder = next(folder for folder in target.absolute().parents if folder.is_dir())
    return Disk(folder.stat().st_dev, shutil.disk_usage(folder).free)
