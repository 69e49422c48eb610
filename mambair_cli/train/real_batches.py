"""Batches of crops degraded like real pictures, made on the device while it trains on earlier ones.

A batch depends only on the seed and the number of its step, so that a resumed run and a run of several
processes get the same batches.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mambair_cli.quality.degradation.apply import Occasion, degrade, finish
from mambair_cli.quality.degradation.recipe import Fate, draw_fates, recipe_for
from mambair_cli.quality.degradation.transfer import send
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.dataset import Dataset

CROPS_TOGETHER = {"cuda": 512}  # made at once: many small kernels take as long for a few crops as for many
DRAWS_CROPS, DRAWS_FATES, DRAWS_NOISE = range(3)  # streams of random numbers


class _Chunk(NamedTuple):
    """The batches of several steps in a row, made together.

    Attributes:
        x: Inputs, (crops, 3, crop, crop).
        target: Targets, (crops, 3, s·crop, s·crop).
        saved: Future crops after compression by WebP, (n, crop, crop, 3) uint8; None if there are none.
        places: Indices of these crops.
        made: Event on a GPU after which all other crops are complete.
    """

    x: Tensor
    target: Tensor
    saved: Future[np.ndarray] | None
    places: list[int]
    made: torch.cuda.Event | None


class RealBatches:
    """Makes the batches of a run.

    Attributes:
        x: Inputs of the step that was loaded last, always in the same memory, (b, 3, crop, crop).
        target: Their targets, (b, 3, s·crop, s·crop).
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, device: torch.device, share: slice) -> None:
        self._dataset = dataset
        self._config = config
        self._recipe = recipe_for(config.scale)
        self._device = device
        self._steps = max(1, CROPS_TOGETHER.get(device.type, 1) // config.batch)  # in a chunk
        mine = np.arange(config.batch)[share]
        self._batch = len(mine)
        self._mine = (np.arange(self._steps)[:, None] * config.batch + mine).ravel()
        self._cumulative_areas = dataset.cumulative_areas.cpu().numpy()
        self._sides = [side.cpu().numpy() for side in (dataset.clean.heights, dataset.clean.widths)]
        self._gray = None if dataset.gray is None else dataset.gray.cpu().numpy()
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._threads = ThreadPoolExecutor(2, "webp")
        self._chunks: dict[int, _Chunk] = {}
        shape = (self._batch, 3, config.crop, config.crop)
        large = (*shape[:2], config.crop * config.scale, config.crop * config.scale)
        self.x, self.target = (
            torch.empty(size, device=device, memory_format=torch.channels_last) for size in (shape, large)
        )

    def load(self, step: int) -> None:
        """Copy the batch of a step to ``x`` and ``target``, and start on the next chunk."""
        number, place = divmod(step, self._steps)
        for needed in (number, number + 1) if self._stream else (number,):
            if needed not in self._chunks:
                self._chunks[needed] = self._begin(needed)
        chunk = self._take(number)
        rows = slice(place * self._batch, (place + 1) * self._batch)
        self.x.copy_(chunk.x[rows])
        self.target.copy_(chunk.target[rows])
        if place == self._steps - 1:
            del self._chunks[number]

    def _take(self, number: int) -> _Chunk:
        """Return a chunk when it is complete."""
        chunk = self._chunks[number]
        if chunk.made:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(chunk.made)
            for tensor in (chunk.x, chunk.target):
                tensor.record_stream(current)
        if chunk.saved:
            pixels = torch.from_numpy(chunk.saved.result()).float().permute(0, 3, 1, 2) / 255
            chunk.x[chunk.places] = pixels.to(self._device)
        self._chunks[number] = chunk._replace(saved=None, made=None)
        return chunk

    def _begin(self, number: int) -> _Chunk:
        config, crops = self._config, self._steps * self._config.batch
        seed = (config.seed, number)
        fates = draw_fates(self._recipe, config.scale, (*seed, DRAWS_FATES), crops)
        fates = [fates[crop] for crop in self._mine]
        generator = torch.Generator(self._device)

        def draw(shape: tuple[int, int], numbers: list[int], occasion: Occasion) -> Tensor:
            state = np.random.SeedSequence((*seed, DRAWS_NOISE, *occasion)).generate_state(1, np.uint64)
            generator.manual_seed(int(state[0]))
            white = torch.randn(crops, 4, *shape, device=self._device, generator=generator)
            return white[send(self._mine[numbers], self._device)]

        with torch.no_grad(), torch.cuda.stream(self._stream) if self._stream else nullcontext():
            truth, image = self._cut(np.random.default_rng((*seed, DRAWS_CROPS)).random((4, crops)))
            if self._gray is not None:  # what is gray stays gray
                are_gray = self._gray[image]
                fates = [
                    replace(fate, gray=fate.gray or bool(is_gray))
                    for fate, is_gray in zip(fates, are_gray, strict=True)
                ]
            x, target = degrade(truth, fates, config.scale, draw, self._recipe.resolution[1])
            places = [place for place, fate in enumerate(fates) if fate.webp is not None]
            saved = self._save(x[places], [fates[place] for place in places]) if places else None
            made = None
            if self._stream:
                made = torch.cuda.Event()
                made.record()
        return _Chunk(x, target, saved, places, made)

    def _cut(self, chance: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Cut the truth of a chunk out of the images, by four random numbers for each crop.

        Returns:
            The crops, and the index of each crop's image.
        """
        config, clean = self._config, self._dataset.clean
        chance = chance[:, self._mine]
        image = np.searchsorted(self._cumulative_areas, chance[0] * self._cumulative_areas[-1], side="right")
        image = image.clip(max=len(self._cumulative_areas) - 1)
        side = config.crop * config.scale
        top, left = (
            (share * (sides[image] - side + 1)).astype(np.int64)
            for share, sides in zip(chance[1:3], self._sides, strict=True)
        )
        place = send(np.stack([image, top, left, (chance[3] * 8).astype(np.int64)]), self._device)
        return clean.crop(place[0], place[1], place[2], side, place[3]), image

    def _save(self, x: Tensor, fates: Sequence[Fate]) -> Future[np.ndarray]:
        """Have the CPU compress crops by WebP as soon as the device has made them."""
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        if not self._stream:
            return self._threads.submit(finish, pixels.numpy(), fates)
        pinned = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(pixels, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def work() -> np.ndarray:
            copied.synchronize()
            return finish(pinned.numpy(), fates)

        return self._threads.submit(work)
