"""Batches of crops degraded as real pictures are, made on the device while it trains on the ones before.

What a batch holds follows from the seed and the number of its step alone, so that a run which goes on, or
which several processes share, sees the same.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mambair_cli.quality.degradation.apply import Occasion, degrade, finish, send
from mambair_cli.quality.degradation.recipe import Fate, draw_fates, recipe_for
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.dataset import Photographs

CROPS_TOGETHER = {"cuda": 512}  # made at once: many small kernels, which take as long for a few as for many
DRAWS_CROPS, DRAWS_FATES, DRAWS_NOISE = range(3)  # streams of random numbers


class _Chunk(NamedTuple):
    """The batches of some steps in a row, made together.

    Attributes:
        x: Inputs, (crops, 3, crop, crop).
        wanted: What the network should make of them, (crops, 3, s·crop, s·crop).
        saved: Crops that go through WebP, once they have, (n, crop, crop, 3) uint8; None without any.
        places: Which those are.
        made: On a GPU, when all but these is there.
    """

    x: Tensor
    wanted: Tensor
    saved: Future[np.ndarray] | None
    places: list[int]
    made: torch.cuda.Event | None


class RealBatches:
    """Makes the batches of a run.

    Attributes:
        x: Inputs of the step that was loaded last, always in one place: (b, 3, crop, crop).
        wanted: What the network should make of them, (b, 3, s·crop, s·crop).
    """

    def __init__(
        self, photographs: Photographs, config: TrainConfig, device: torch.device, part: slice
    ) -> None:
        self._photographs = photographs
        self._config = config
        self._recipe = recipe_for(config.scale)
        self._device = device
        self._steps = max(1, CROPS_TOGETHER.get(device.type, 1) // config.batch)  # of a chunk
        mine = np.arange(config.batch)[part]
        self._batch = len(mine)
        self._mine = (np.arange(self._steps)[:, None] * config.batch + mine).ravel()
        self._shares = photographs.share.cpu().numpy()
        self._sides = [side.cpu().numpy() for side in (photographs.clean.heights, photographs.clean.widths)]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._threads = ThreadPoolExecutor(2, "webp")
        self._chunks: dict[int, _Chunk] = {}
        shape = (self._batch, 3, config.crop, config.crop)
        large = (*shape[:2], config.crop * config.scale, config.crop * config.scale)
        self.x, self.wanted = (
            torch.empty(size, device=device, memory_format=torch.channels_last) for size in (shape, large)
        )

    def load(self, step: int) -> None:
        """Bring the batch of a step to its place, and begin with the chunk after its own."""
        number, place = divmod(step, self._steps)
        for wanted in (number, number + 1) if self._stream else (number,):
            if wanted not in self._chunks:
                self._chunks[wanted] = self._begin(wanted)
        chunk = self._take(number)
        rows = slice(place * self._batch, (place + 1) * self._batch)
        self.x.copy_(chunk.x[rows])
        self.wanted.copy_(chunk.wanted[rows])
        if place == self._steps - 1:
            del self._chunks[number]

    def _take(self, number: int) -> _Chunk:
        """Return a chunk when it is whole."""
        chunk = self._chunks[number]
        if chunk.made:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(chunk.made)
            for tensor in (chunk.x, chunk.wanted):
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
            truth = self._cut(np.random.default_rng((*seed, DRAWS_CROPS)).random((4, crops)))
            x, wanted = degrade(truth, fates, config.scale, draw, self._recipe.resolution[1])
            places = [place for place, fate in enumerate(fates) if fate.webp is not None]
            saved = self._save(x[places], [fates[place] for place in places]) if places else None
            made = None
            if self._stream:
                made = torch.cuda.Event()
                made.record()
        return _Chunk(x, wanted, saved, places, made)

    def _cut(self, chance: np.ndarray) -> Tensor:
        """Cut the truth of a chunk out of the photographs, by four random numbers for each crop of it."""
        config, clean = self._config, self._photographs.clean
        chance = chance[:, self._mine]
        image = np.searchsorted(self._shares, chance[0] * self._shares[-1], side="right")
        image = image.clip(max=len(self._shares) - 1)
        side = config.crop * config.scale
        top, left = (
            (share * (sides[image] - side + 1)).astype(np.int64)
            for share, sides in zip(chance[1:3], self._sides, strict=True)
        )
        place = send(np.stack([image, top, left, (chance[3] * 8).astype(np.int64)]), self._device)
        return clean.crop(place[0], place[1], place[2], side, place[3])

    def _save(self, x: Tensor, fates: Sequence[Fate]) -> Future[np.ndarray]:
        """Have crops sent through WebP on a processor, as soon as the device has made them."""
        pixels = (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        if not self._stream:
            return self._threads.submit(finish, pixels.numpy(), fates)
        kept = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=True)
        kept.copy_(pixels, non_blocking=True)
        there = torch.cuda.Event()
        there.record()

        def work() -> np.ndarray:
            there.synchronize()
            return finish(kept.numpy(), fates)

        return self._threads.submit(work)
