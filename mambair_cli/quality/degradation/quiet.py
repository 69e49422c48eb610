"""Parts of a picture without its noise: frames, rectangles, and areas that are burnt out or all black."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.quality.degradation.transfer import send

NARROWEST = 2  # pixels of the input: width of a frame, and side of a rectangle
OFF = 24  # steps of 8 bits by which black and white may be off, as a scanner's are; half of them are not
DIMMEST = 0.5  # of light that burns out: from less, whole pictures would become dull or much too contrasty


@dataclass(frozen=True)
class Frame:
    """One level beyond a window, or within it.

    Attributes:
        widths: Width at the top, bottom, left and right, 0 for 2 pixels to 1 for half of the side, by their
            logarithm; None for none.
        inside: Whether the level is within the window instead, as of a sheet or a label.
        level: Red, green and blue, multiples of 1/255.
        sigma: Standard deviation of the noise in it, in [0, 1].
    """

    widths: tuple[float | None, float | None, float | None, float | None]
    inside: bool
    level: tuple[float, float, float]
    sigma: float


@dataclass(frozen=True)
class Burn:
    """One level where the picture is brightest, or darkest.

    Attributes:
        share: Share of the pixels that reach the level in all channels; fewer if they are around middle gray.
        lift: How far this level goes towards white or black, with all of the picture: 0 to 1.
        turn: Mean of the picture below which it is the darkest pixels.
        sigma: Standard deviation of the noise in it, in [0, 1].
    """

    share: float
    lift: float
    turn: float
    sigma: float


Part = Frame | Burn


def draw_part(random: np.random.Generator, sigma: tuple[float, float]) -> Part:
    """Draw a quiet part.

    Args:
        random: Source of random numbers.
        sigma: Limits of the standard deviation of its noise, in steps of 8 bits; half have none.
    """
    own = float(random.uniform(*sigma)) / 255 if random.random() < 0.5 else 0.0
    kind = random.choice(["frame", "rectangle", "burnt"], p=[0.45, 0.15, 0.4])
    if kind == "burnt":
        share, lift, turn = random.uniform((0.05, 0.0, 0.2), (0.6, 1.0, 0.5)).tolist()
        return Burn(share, 1.0 if random.random() < 0.7 else lift, turn, own)
    level = _draw_level(random)
    if kind == "rectangle":
        top, bottom, left, right = random.random(4).tolist()
        return Frame((top, bottom, left, right), True, level, own)
    widths = random.random(4) if random.random() < 0.5 else np.full(4, random.random())
    sides = random.permutation(4) < random.integers(1, 5)
    top, bottom, left, right = (
        float(width) if side else None for width, side in zip(widths, sides, strict=True)
    )
    return Frame((top, bottom, left, right), False, level, own)


def put(truth: Tensor, parts: Sequence[Part], scale: int) -> tuple[Tensor, Tensor]:
    """Put a quiet part into each picture.

    Args:
        truth: (b, 3, s·h, s·w) in [0, 1].
        parts: One for each picture.
        scale: ``s``.

    Returns:
        The pictures with their parts, the shape of ``truth``; and the levels where inputs are to have no
        noise, (b, 4, h, w): red, green and blue, and 1 there or else 0. A burnt area leaves out its
        outermost pixel, where noise fades.
    """
    changed = torch.empty_like(truth)
    levels = truth.new_empty(len(truth), 4, truth.shape[2] // scale, truth.shape[3] // scale)
    frames = [(n, part) for n, part in enumerate(parts) if isinstance(part, Frame)]
    burns = [(n, part) for n, part in enumerate(parts) if isinstance(part, Burn)]
    if frames:
        index = send([n for n, _ in frames], truth.device)
        changed[index], levels[index] = _frame(truth[index], [part for _, part in frames], scale)
    if burns:
        index = send([n for n, _ in burns], truth.device)
        changed[index], levels[index] = _burn(truth[index], [part for _, part in burns], scale)
    return changed, levels


def lay_over(x: Tensor, levels: Tensor, parts: Sequence[Part], white: Tensor | None) -> Tensor:
    """Lay the quiet parts over noisy pictures.

    Args:
        x: (b, 3, h, w).
        levels: Levels from :func:`put`, (b, 4, h, w).
        parts: One for each picture.
        white: Independent normal random numbers, (b, 4, h, w); None if no part has noise.
    """
    level = levels[:, :3]
    if white is not None:
        sigma = send([part.sigma for part in parts], x.device)[:, None, None, None]
        level = level + sigma * white[:, 1:]
    return torch.where(levels[:, 3:] > 0, level, x)


def _draw_level(random: np.random.Generator) -> tuple[float, float, float]:
    kind = random.choice(["black", "white", "gray", "colour"], p=[0.3, 0.25, 0.25, 0.2])
    if kind == "colour":
        red, green, blue = random.integers(256, size=3).tolist()
    else:
        off = max(0, int(random.integers(-OFF, OFF + 1)))
        red = green = blue = {"black": off, "white": 255 - off, "gray": int(random.integers(256))}[kind]
    return red / 255, green / 255, blue / 255


def _frame(truth: Tensor, parts: Sequence[Frame], scale: int) -> tuple[Tensor, Tensor]:
    height, width = truth.shape[2] // scale, truth.shape[3] // scale
    sides = (height, height, width, width)
    widths = [
        [_in_pixels(share, side) for share, side in zip(part.widths, sides, strict=True)] for part in parts
    ]
    top, bottom, left, right = send(widths, truth.device).T[:, :, None, None]
    y = torch.arange(height, device=truth.device)[:, None]
    x = torch.arange(width, device=truth.device)
    within = (y >= top) & (y < height - bottom) & (x >= left) & (x < width - right)
    inside = send([part.inside for part in parts], truth.device)[:, None, None] > 0
    quiet = (within == inside)[:, None]
    level = send([part.level for part in parts], truth.device)[:, :, None, None]
    large = quiet.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    levels = torch.cat([level.expand(-1, -1, height, width), quiet.to(truth.dtype)], 1)
    return torch.where(large, level, truth), levels


def _in_pixels(share: float | None, side: int) -> int:
    """Return a width from 2 pixels to half of a side; nothing without a share."""
    if share is None:
        return 0
    return round(NARROWEST * max(1.0, side / 2 / NARROWEST) ** share)


def _burn(truth: Tensor, parts: Sequence[Burn], scale: int) -> tuple[Tensor, Tensor]:
    turn = send([part.turn for part in parts], truth.device)[:, None, None, None]
    dark = truth.mean((1, 2, 3), keepdim=True) < turn
    light = torch.where(dark, 1 - truth, truth)
    lowest = light.amin(1, keepdim=True)
    places = [int((1 - part.share) * (lowest[0].numel() - 1)) for part in parts]
    limit = lowest.flatten(1).sort(1).values.gather(1, send(places, truth.device)[:, None])
    limit = limit[:, :, None, None].clamp(min=DIMMEST)
    lift = send([part.lift for part in parts], truth.device)[:, None, None, None]
    gain = 1 + lift * (1 / limit - 1)
    level = (limit * gain * 255).round() / 255
    burnt = lowest >= limit
    light = torch.where(burnt, level, torch.minimum(light, limit) * gain)
    margin = F.max_pool2d((~burnt).to(truth.dtype), 3 * scale, scale, scale)
    level = torch.where(dark, 1 - level, level)
    levels = torch.cat([level.expand(-1, 3, *margin.shape[2:]), 1 - margin], 1)
    return torch.where(dark, 1 - light, light), levels
