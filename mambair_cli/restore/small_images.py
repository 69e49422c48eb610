"""Small images restored together: on a CPU side by side, on a GPU in one batch."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from mambair_cli.images import from_float, to_float
from mambair_cli.restore.channels import from_channels, to_channels
from mambair_cli.restore.checks import check_samples
from mambair_cli.restore.strength import enlarge, mix
from mambair_cli.restore.tile_threads import count_side_by_side
from mambair_cli.restore.tiling import Report, plan_tiles

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer

# Pixels up to which small images of one size are one batch of a GPU, and the largest number of them.
# Both follow from the size alone: the shape of a batch moves bits, the number of images in a run must not.
# On a CPU each of them has a thread of its own, and neither matters.
PIXELS_TOGETHER = {"cuda": 256**2}
MOST_TOGETHER = {"cuda": 16}


def count_together(restorer: "Restorer", shape: tuple[int, ...], masks: int = 0) -> int:
    """Return the number of images of a shape (h, w, c) that are computed at once; 1 for large ones."""
    height, width, samples = shape
    has_more = masks > 0 or samples % 2 == 0  # masks, or alpha
    tiles, loaded = restorer.tiles, restorer.loaded
    if has_more or restorer.own.wrap != "none" or max(height, width) > max(tiles.side, tiles.whole):
        return 1
    if loaded.threads > 1:
        return count_side_by_side((height, width), restorer.info.config, loaded.threads)
    kind = restorer.device.type
    return max(1, min(MOST_TOGETHER.get(kind, 1), PIXELS_TOGETHER.get(kind, 0) // (height * width)))


def restore_together(
    restorer: "Restorer", images: Sequence[np.ndarray], dtype: DTypeLike | None = np.float32
) -> Callable[[], tuple[list[np.ndarray], Report]]:
    """Begin small images of one shape together: on a CPU side by side, on a GPU in one batch.

    A batch is filled up if they are too few; where an image's place in it moves a bit, each image is then
    computed alone.

    Args:
        restorer: The restorer.
        images: Images, no more than :func:`count_together` returns; (h, w, 1 or 3), of any dtype that
            ``Restorer.restore`` takes.
        dtype: Type of the results' samples, as for ``Restorer.open_rows``.

    Returns:
        A function that waits for them and returns them, (s·h, s·w, c) each, and how they were computed.

    Raises:
        torch.OutOfMemoryError: The device does not hold them at once.
        UsageError: The network cannot restore such images.
    """
    shape, loaded = images[0].shape, restorer.loaded
    check_samples(shape[2], restorer.info, restorer.model.name)
    compute = _compute_together(restorer, images)

    def collect() -> tuple[list[np.ndarray], Report]:
        restored = compute()
        if len(images) > 1 and loaded.threads == 1:
            if shape not in loaded.is_neutral:
                alone = _compute_together(restorer, images[-1:])()[0]
                loaded.is_neutral[shape] = np.array_equal(alone, restored[-1])
            if not loaded.is_neutral[shape]:  # a result must not depend on the other images
                restored = [_compute_together(restorer, [image])()[0] for image in images]
        finished = []
        for rows, image in zip(restored, images, strict=True):
            rows = from_channels(rows, image, shape[2], restorer.info.channels)
            if restorer.own.strength < 1:
                rows = mix(rows, enlarge(to_float(image), restorer.info.scale), restorer.own.strength)
            finished.append(rows if dtype is None else from_float(rows, dtype))
        plan = plan_tiles(shape[0], shape[1], max(shape[:2]), 0)
        return finished, Report(plan, count_together(restorer, shape), False)

    return collect


def _compute_together(restorer: "Restorer", images: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    """Begin images, on a GPU in a batch that is filled up with the last one."""
    batch = len(images) if restorer.loaded.threads > 1 else count_together(restorer, images[0].shape)
    filled = [*images, *[images[-1]] * (batch - len(images))]
    prepared = [to_channels(image, images[0].shape[2], restorer.info.channels) for image in filled]
    tiles = np.stack(prepared, out=restorer.computer.allocate((batch, *prepared[0].shape)))
    launched = restorer.computer.launch(tiles, [(0, 0)] * batch, restorer.own.seed)

    def collect() -> list[np.ndarray]:
        with restorer.computer.buffers.blending():
            restored = restorer.computer.collect(launched)[: len(images)]
        return [restorer.computer.buffers.fetch(rows) for rows in restored]

    return collect
