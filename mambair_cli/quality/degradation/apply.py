"""Apply the drawn steps to a batch of pictures, one kind of step at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mambair_cli.images import is_gray
from mambair_cli.images.samples import LUMA
from mambair_cli.quality.degradation import codecs, noise, quiet
from mambair_cli.quality.degradation.filters import convolve
from mambair_cli.quality.degradation.recipe import (
    Camera,
    Fate,
    Filter,
    Jpeg,
    Noise,
    Step,
    draw_fates,
    recipe_for_measuring,
)
from mambair_cli.quality.degradation.resample import resize
from mambair_cli.quality.degradation.tone import apply_tones
from mambair_cli.quality.degradation.transfer import send

MOST_STEPS = 8  # in a round

Occasion = tuple[int, int, int]
"""When noise is added: 1 if the first round has its own resolution, else 0; the turn; the kind of noise."""

OVERLAY: Occasion = (0, 2 * MOST_STEPS, 0)  # after both rounds: noise of quiet parts

Draw = Callable[[tuple[int, int], list[int], Occasion], Tensor]
"""Function from height and width, indices of pictures and the occasion to white noise, (n, 4, h, w)."""


def degrade(
    truth: Tensor, fates: Sequence[Fate], scale: int, draw: Draw, finest: float
) -> tuple[Tensor, Tensor]:
    """Make a network's inputs and targets from clean pictures.

    WebP is left to :func:`finish`, since its library needs the pictures in main memory.

    Args:
        truth: Clean pictures, (b, 3, s·h, s·w) in [0, 1].
        fates: Steps for each picture.
        scale: ``s``.
        draw: Source of white noise. The noise of a picture must not depend on the others of the batch, nor on
            other occasions.
        finest: Largest resolution of a first round in any fate, 1 at least.

    Returns:
        Inputs (b, 3, h, w), in [0, 1] except for pictures that are not rounded, and targets (b, 3, s·h, s·w).
    """
    truth = truth.clone()
    _soften(truth, [fate.soft for fate in fates])
    parts = {n: fate.part for n, fate in enumerate(fates) if fate.part}
    levels = _put_parts(truth, parts, scale)
    x = truth.clone()
    _filter(x, [fate.blur for fate in fates])
    height, width = truth.shape[2] // scale, truth.shape[3] // scale
    resolutions = np.array([fate.resolution for fate in fates], dtype=np.float32)
    here = [n for n, resolution in enumerate(resolutions) if resolution == 1]
    there = [n for n, resolution in enumerate(resolutions) if resolution != 1]
    result = x.new_empty(len(x), 3, height, width)
    for group in (here, there):
        if not group:
            continue
        of_group = [fates[n] for n in group]
        reduced = x[send(group, x.device)]
        largest = finest if group is there else 1
        shape = (round(height * largest), round(width * largest))
        if scale > 1 or group is there:
            reduced = _resize(reduced, scale / resolutions[group], [f.filters[0] for f in of_group], shape)
        elsewhere = int(group is there)
        _round(reduced, group, [fate.first for fate in of_group], (elsewhere, 0), draw)
        if group is there:
            by = [fate.filters[1] for fate in of_group]
            reduced = _resize(reduced, resolutions[group], by, (height, width))
        programs = [fate.second[: _find_pause(fate)] for fate in of_group]
        _round(reduced, group, programs, (elsewhere, MOST_STEPS), draw)
        result[send(group, x.device)] = reduced
    _lay_over(result, parts, levels, draw)
    for pictures in (result, truth):
        _tone(pictures, fates)
    _go_on(result, fates, draw)
    for pictures in (result, truth):
        _at(pictures, [n for n, fate in enumerate(fates) if fate.gray and not fate.tone], _without_colour)
    _at(result, [n for n, fate in enumerate(fates) if fate.rounded], codecs.round_to_bytes)
    return result, truth


def finish(inputs: np.ndarray, fates: Sequence[Fate]) -> np.ndarray:
    """Compress pictures by WebP whose fates say so.

    Args:
        inputs: (b, h, w, 3) uint8.
        fates: Steps for each picture.

    Returns:
        (b, h, w, 3) uint8; the other pictures are unchanged.
    """
    chosen = [n for n, fate in enumerate(fates) if fate.webp is not None]
    if not chosen:
        return inputs
    finished = inputs.copy()
    finished[chosen] = codecs.webp(inputs[chosen], [fates[n].webp or 0 for n in chosen])
    return finished


def degrade_image(truth: np.ndarray, scale: int, seed: tuple[int, ...]) -> np.ndarray:
    """Degrade one picture on the CPU, by the recipe for measuring.

    Args:
        truth: (h, w, 1 or 3), uint8 or float32 in [0, 1]; both sides are multiples of the scale.
        scale: Output pixels per input pixel and side.
        seed: Seed of all random numbers: the same seed gives the same input.

    Returns:
        The network's input, (h / s, w / s, 1 or 3) uint8.
    """
    fate = draw_fates(recipe_for_measuring(scale), scale, seed, 1)[0]
    fate = replace(fate, gray=is_gray(truth))
    state = np.random.SeedSequence((*seed, 1)).generate_state(1, np.uint64)
    generator = torch.Generator("cpu").manual_seed(int(state[0]))
    x = torch.from_numpy(truth.astype(np.float32) / (255 if truth.dtype == np.uint8 else 1))
    x = x.permute(2, 0, 1)[None].expand(-1, 3, -1, -1)

    def draw(shape: tuple[int, int], numbers: list[int], occasion: Occasion) -> Tensor:
        return torch.randn(1, 4, *shape, generator=generator, dtype=torch.float32, device="cpu")

    y, _ = degrade(x, [fate], scale, draw, max(1, fate.resolution))
    pixels = (y.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    return np.ascontiguousarray(finish(pixels, [fate])[0, :, :, : truth.shape[2]])


def _round(
    x: Tensor, numbers: list[int], programs: Sequence[Sequence[Step]], when: tuple[int, int], draw: Draw
) -> None:
    """Apply the steps of a round to pictures, in place; at each turn those of one kind together.

    Args:
        x: Pictures, (n, 3, h, w).
        numbers: Their indices in the batch.
        programs: Steps of each picture, in order.
        when: 1 if the first round has its own resolution, else 0; and the number of the first turn.
        draw: Source of white noise.
    """
    for turn in range(max(map(len, programs), default=0)):
        groups: dict[tuple, list[int]] = {}
        for place, steps in enumerate(programs):
            if turn < len(steps):
                step = steps[turn]
                kind = (type(step), step.subsampled if isinstance(step, Jpeg) else None)
                groups.setdefault(kind, []).append(place)
        for places in groups.values():
            steps = [programs[place][turn] for place in places]
            index = send(places, x.device)
            white = None
            if isinstance(steps[0], Noise | Camera):
                occasion = (when[0], when[1] + turn, int(isinstance(steps[0], Camera)))
                white = draw((x.shape[2], x.shape[3]), [numbers[place] for place in places], occasion)
            x[index] = _apply_step(x[index], steps, white)


def _apply_step(x: Tensor, steps: Sequence[Step], white: Tensor | None) -> Tensor:
    """Apply one step to each picture; all steps are of one kind."""

    def collect(name: str) -> Tensor:
        return send([getattr(step, name) for step in steps], x.device)

    step = steps[0]
    if isinstance(step, Filter):
        return convolve(x, collect("kernel"))
    if isinstance(step, Jpeg):
        return codecs.jpeg(x, collect("quality"), collect("shift"), step.subsampled)
    assert white is not None
    strength = noise.Strength(collect("sigma"), collect("shot"))
    if isinstance(step, Camera):
        return noise.photograph(x, white, strength, collect("balance"), collect("mosaic"))
    look = noise.Field(collect("gray"), collect("kernels"), collect("gains"), collect("grain"))
    return noise.add(x, noise.make_field(white, look), strength)


def _resize(x: Tensor, steps: np.ndarray, by: list[int], shape: tuple[int, int]) -> Tensor:
    return resize(x, send(steps, x.device), send(by, x.device), shape, float(steps.max()))


def _filter(x: Tensor, kernels: Sequence[np.ndarray | None]) -> None:
    chosen = [n for n, kernel in enumerate(kernels) if kernel is not None]
    _at(x, chosen, lambda y: convolve(y, send([kernels[n] for n in chosen], x.device)))


def _soften(x: Tensor, kernels: Sequence[np.ndarray | None]) -> None:
    """Blur luma and colours, each by its own kernel, in place."""
    chosen = [n for n, pair in enumerate(kernels) if pair is not None]

    def soften(y: Tensor) -> Tensor:
        pairs = send([kernels[n] for n in chosen], x.device)
        gray = _without_colour(y)
        return (convolve(gray, pairs[:, 0]) + convolve(y - gray, pairs[:, 1])).clamp(0, 1)

    _at(x, chosen, soften)


def _put_parts(truth: Tensor, parts: Mapping[int, quiet.Part], scale: int) -> Tensor | None:
    """Put quiet parts into the truth, in place, and return the levels for :func:`_lay_over`."""
    if not parts:
        return None
    index = send(list(parts), truth.device)
    truth[index], levels = quiet.put(truth[index], list(parts.values()), scale)
    return levels


def _lay_over(x: Tensor, parts: Mapping[int, quiet.Part], levels: Tensor | None, draw: Draw) -> None:
    """Lay quiet parts over noisy pictures, in place."""
    if levels is None:
        return
    white = None
    if any(part.sigma for part in parts.values()):
        white = draw((x.shape[2], x.shape[3]), list(parts), OVERLAY)
    _at(x, list(parts), lambda y: quiet.lay_over(y, levels, list(parts.values()), white))


def _tone(x: Tensor, fates: Sequence[Fate]) -> None:
    """Tone the gray pictures whose fates say so, in place."""
    tones = {n: fate.tone for n, fate in enumerate(fates) if fate.gray and fate.tone}
    _at(x, list(tones), lambda y: apply_tones(_without_colour(y), list(tones.values())))


def _find_pause(fate: Fate) -> int:
    """Return how many steps of the second round come before a quiet part and a tone; all without them."""
    if not (fate.part or (fate.gray and fate.tone)):
        return len(fate.second)
    return max((n for n, step in enumerate(fate.second, 1) if isinstance(step, Noise | Camera)), default=0)


def _go_on(x: Tensor, fates: Sequence[Fate], draw: Draw) -> None:
    """Apply the steps after quiet parts and tones, in place."""
    left = {n: fate.second[_find_pause(fate) :] for n, fate in enumerate(fates)}
    left = {n: steps for n, steps in left.items() if steps}
    if left:
        index = send(list(left), x.device)
        pictures = x[index]
        _round(pictures, list(left), list(left.values()), OVERLAY[:2], draw)
        x[index] = pictures


def _without_colour(x: Tensor) -> Tensor:
    weights = x.new_tensor(LUMA)[:, None, None]
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def _at(x: Tensor, numbers: list[int], change: Callable[[Tensor], Tensor]) -> None:
    """Change some pictures of a batch, in place."""
    if numbers:
        index = send(numbers, x.device)
        x[index] = change(x[index])
