"""The probabilities of all degradations, and the steps drawn from them for each picture, from a seed."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mambair_cli.quality.degradation import filters
from mambair_cli.quality.degradation.quiet import Part, draw_part
from mambair_cli.quality.degradation.resample import FILTERS
from mambair_cli.quality.degradation.tone import Tone, draw_tone

Range = tuple[float, float]

CAMERA_SHARE = 0.4  # of a sigma, in linear light: conversion to samples amplifies it in shadows
DRAWS_PARTS, DRAWS_TONES = 1, 2  # streams of random numbers apart from that of all other draws


@dataclass(frozen=True)
class Recipe:
    """The degradations and their probabilities; all shares are from 0 to 1.

    The input of an enlarging network was blurred, resized to a resolution near that of the input, degraded
    there, resized to the input's resolution, degraded again and saved. The input of a network that keeps the
    size has only the second round, or both at its own resolution. Some pictures have a single fault, and some
    none, so that the network does not damage these.

    Attributes:
        clean: Share of pictures that are only reduced, by bicubic interpolation, or unchanged.
        white: Share with only white Gaussian noise, as in the papers: independent in each channel, on a sharp
            picture; half of these are neither clipped nor rounded.
        compressed: Share with only JPEG or WebP, once or twice.
        gray: Share of pictures, of all kinds, without colour.
        soft: Share of pictures of unchanged size with a soft truth, since most photographs are soft at full
            size: noise is to be removed, and no detail invented.
        soft_colour: Share of pictures of unchanged size with colours in the truth that are softer than its
            luma, as a camera's mosaic and JPEG at half the colour resolution leave them.
        colour_blur: Standard deviation of the blur of those colours, in pixels.
        blur: Share that is blurred before it is reduced.
        blur_sigma: Standard deviation of that blur, in pixels of the network's input.
        resolution: Pixels of the first round for each pixel of the input.
        elsewhere: Share whose first round has another resolution than the input.
        noise: Share with noise, in each round.
        noise_sigma: Standard deviation of noise, in steps of 8 bits; its logarithm is uniform, so small
            values are more frequent.
        white_sigma: Standard deviation where there is only white noise, in steps of 8 bits.
        noise_blur: Standard deviation of the blur of coloured noise, in pixels.
        blotch: Standard deviation of the blur of colours in the noise that a camera's own noise reduction
            leaves, in pixels.
        camera: Share of noise that goes through a camera's mosaic in linear light.
        sharpened: Share that is sharpened, in each round.
        sharpening: Amount of that unsharp mask.
        saved: Share that is saved in a lossy format in the second round; half of it in the first.
        quality: Quality of JPEG and WebP, in each round.
        low_quality: Quality of pictures that are compressed more than usual.
        low: Share of pictures with low quality.
        webp: Share of WebP in the last saving.
        subsampled: Share of JPEG with half the colour resolution.
        quiet: Share of pictures, of all kinds, with a part that has no noise but compression: a frame along
            one to four sides, 2 pixels to half of the crop wide, or a rectangle, of one black, white, gray or
            colour; or all that is brighter or darker than a level, at this level.
        quiet_sigma: Standard deviation of noise in half of these parts, in steps of 8 bits; the others are
            exactly flat.
        toned: Share of gray pictures that a curve for each channel tones, with their noise: sepia, selenium,
            cyanotype and others.
    """

    clean: float = 0.12
    white: float = 0.0
    compressed: float = 0.08
    gray: float = 0.06
    soft: float = 0.0
    soft_colour: float = 0.0
    colour_blur: Range = (0.6, 1.5)
    blur: float = 0.8
    blur_sigma: Range = (0.05, 0.75)
    resolution: Range = (0.5, 2.0)
    elsewhere: float = 0.6
    noise: float = 0.5
    noise_sigma: Range = (1.0, 28.0)
    white_sigma: Range = (0.0, 55.0)
    noise_blur: Range = (0.35, 1.3)
    blotch: Range = (1.2, 3.5)
    camera: float = 0.2
    sharpened: float = 0.12
    sharpening: Range = (0.2, 1.5)
    saved: float = 0.8
    quality: Range = (40.0, 96.0)
    low_quality: Range = (10.0, 40.0)
    low: float = 0.15
    webp: float = 0.08
    subsampled: float = 0.7
    quiet: float = 0.15
    quiet_sigma: Range = (0.0, 2.5)
    toned: float = 0.3


ENLARGING = Recipe()

# No fault that a network would undo by sharpening: removing noise must not change the detail.
SAME_SIZE = Recipe(
    clean=0.08,
    white=0.16,
    compressed=0.15,
    soft=0.7,
    soft_colour=0.85,
    blur=0.0,
    elsewhere=0.0,
    noise=0.9,
    noise_sigma=(1.5, 45.0),
    camera=0.12,
    sharpened=0.0,
    saved=0.7,
)


@dataclass(frozen=True)
class Noise:
    """Noise of a look; see :class:`mambair_cli.quality.degradation.noise.Field` and ``Strength``."""

    sigma: float
    shot: float
    gray: float
    kernels: np.ndarray
    gains: tuple[float, float, float]
    grain: float


@dataclass(frozen=True)
class Camera:
    """Noise behind a mosaic; see :func:`mambair_cli.quality.degradation.noise.photograph`."""

    sigma: float
    shot: float
    balance: tuple[float, float]
    mosaic: float


@dataclass(frozen=True)
class Filter:
    """Blur or sharpening by a kernel, (21, 21)."""

    kernel: np.ndarray


@dataclass(frozen=True)
class Jpeg:
    """See :func:`mambair_cli.quality.degradation.codecs.jpeg`."""

    quality: float
    shift: tuple[int, int]
    subsampled: bool


Step = Noise | Camera | Filter | Jpeg


@dataclass(frozen=True)
class Fate:
    """The steps for one picture, in this order.

    Attributes:
        gray: Whether the result and the truth lose their colour, at the end.
        soft: Kernels that soften the luma and the colours of the truth, too, (2, 21, 21); None for no change.
        blur: Kernel at the resolution of the truth; None for no blur.
        resolution: Pixels of the first round for each pixel of the input.
        filters: Numbers of the filters of both resizings.
        first: Steps of the first round.
        second: Steps of the second round, at the resolution of the input.
        rounded: Whether it is clipped and rounded to 8 bits at the end.
        webp: Quality of WebP after all else; None for no WebP.
        part: Part without noise, before the last compression; None for none.
        tone: Tone of truth and input if the picture is gray, before the last compression; None for none.
    """

    gray: bool = False
    soft: np.ndarray | None = None
    blur: np.ndarray | None = None
    resolution: float = 1.0
    filters: tuple[int, int] = (0, 0)
    first: tuple[Step, ...] = ()
    second: tuple[Step, ...] = ()
    rounded: bool = True
    webp: int | None = None
    part: Part | None = None
    tone: Tone | None = None


@dataclass
class Drawing:
    """Draws fates by a recipe.

    Attributes:
        recipe: Probabilities of the degradations.
        scale: Output pixels per input pixel and side.
        random: Source of random numbers.
    """

    recipe: Recipe
    scale: int
    random: np.random.Generator

    def draw(self) -> Fate:
        """Draw the steps for a picture."""
        recipe, chance = self.recipe, self.random.random()
        gray = self._is(recipe.gray)
        # A share of zero draws nothing: pictures for measuring stay the same over the years.
        soft = self._soften(self._is(recipe.soft), bool(recipe.soft_colour) and self._is(recipe.soft_colour))
        if chance < recipe.clean:
            return Fate(gray, soft)
        if chance < recipe.clean + recipe.white:
            return self._draw_white(gray)
        if chance < recipe.clean + recipe.white + recipe.compressed:
            return self._draw_compressed(gray, soft)
        return self._draw_real(gray, soft)

    def _draw_white(self, gray: bool) -> Fate:
        sigma = self._between(self.recipe.white_sigma) / 255
        white = Noise(sigma, 0.0, 0.0, _no_blur(), (1.0, 1.0, 1.0), 1.0)
        return Fate(gray, second=(white,), rounded=self._is(0.5))

    def _draw_compressed(self, gray: bool, soft: np.ndarray | None) -> Fate:
        low, high = self.recipe.low_quality[0], self.recipe.quality[1]
        if self._is(self.recipe.webp):
            return Fate(gray, soft, webp=int(self._between((low, high))))
        saved = [self._jpeg((low, high)) for _ in range(1 + self._is(0.25))]
        return Fate(gray, soft, second=tuple(saved))

    def _draw_real(self, gray: bool, soft: np.ndarray | None) -> Fate:
        recipe = self.recipe
        blur = self._blur() if self._is(recipe.blur) else None
        resolution, by = 1.0, (self._filter(), 0)
        if self._is(recipe.elsewhere):
            low, high = recipe.resolution
            resolution = math.exp(self._between((math.log(low), math.log(high))))
            by = (self._filter(), self._filter())
        first = self._round(0.5 * recipe.saved, again=resolution == 1 and self.scale == 1)
        second = self._round(0.0)
        webp = None
        if self._is(recipe.saved):
            if self._is(recipe.webp):
                webp = int(self._between(self._quality()))
            else:
                second.append(self._jpeg(self._quality()))
        return Fate(gray, soft, blur, resolution, by, tuple(first), tuple(second), webp=webp)

    def _round(self, saved: float, again: bool = False) -> list[Step]:
        """Draw the steps of a round, in any order.

        Args:
            saved: Share that is saved within it.
            again: Whether a round at the same resolution follows, which will add the noise.
        """
        recipe, steps = self.recipe, []
        if not again and self._is(recipe.noise):
            steps.append(self._noise())
        if self._is(recipe.sharpened):
            steps.append(Filter(filters.sharpen(self._between(recipe.sharpening), self._between((0.4, 1.5)))))
        if self._is(saved):
            steps.append(self._jpeg(self._quality()))
        return [steps[place] for place in self.random.permutation(len(steps))]

    def _noise(self) -> Noise | Camera:
        recipe, random = self.recipe, self.random
        low, high = recipe.noise_sigma
        sigma = math.exp(self._between((math.log(low), math.log(high)))) / 255
        shot = random.random() if self._is(0.5) else 0.0
        if self._is(recipe.camera):
            balance = (self._between((1.2, 2.4)), self._between((1.2, 2.4)))
            return Camera(CAMERA_SHARE * sigma, self._between((0.3, 1)), balance, float(self._is(0.25)))
        gains = (1.0, 1.0, 1.0)
        kinds = ["white", "gray", "coloured", "mixed", "blotchy"]
        kind = random.choice(kinds, p=[0.1, 0.1, 0.22, 0.26, 0.32])
        kernels, gray = _no_blur(), 1.0 if kind == "gray" else 0.0
        if kind in ("coloured", "mixed") or self._is(0.3):
            own, colours = self._between(recipe.noise_blur), self._between(recipe.noise_blur)
            both = (own, colours) if kind == "mixed" else (own, own)
            kernels = np.stack([filters.gaussian(sigma) for sigma in both])
        if kind == "blotchy":
            return self._blotchy_noise(sigma, shot)
        if kind == "mixed":
            gray = self._between((0.2, 0.95))
            gains = (self._between((0.7, 1.4)), self._between((0.7, 1.2)), self._between((0.7, 1.6)))
        grain = self._between((1.0, 2.5)) if self._is(0.2) else 1.0
        return Noise(sigma, shot, gray, kernels, gains, grain)

    def _blotchy_noise(self, sigma: float, shot: float) -> Noise:
        """Draw noise as a camera's own noise reduction leaves it: fine in luma, coarse in colour.

        In 55 crops of five cameras, neighbours at 1, 2, 4 and 8 pixels correlate by 0.60, 0.24, 0.13 and 0.07
        in luma, by 0.91, 0.81, 0.57 and 0.23 in chroma, whose deviation is 0.4 of luma's.
        """
        fine = self._between((0.35, 0.9))
        luma = filters.gaussian(fine) + self._between((0.0, 2.0)) * filters.gaussian(4 * fine)
        kernels = np.stack([luma, filters.gaussian(self._between(self.recipe.blotch))])
        gains = (self._between((0.8, 1.3)), 1.0, self._between((0.8, 1.4)))
        return Noise(sigma, shot, self._between((0.6, 0.95)), kernels, gains, 1.0)

    def _blur(self) -> np.ndarray:
        random = self.random
        sigma = self._between(self.recipe.blur_sigma) * self.scale
        kind = random.choice(["round", "long", "relative", "disc", "ringing"], p=[0.4, 0.3, 0.12, 0.08, 0.1])
        if kind == "round":
            return filters.gaussian(sigma)
        aspect, angle = self._between((0.3, 1.0)), self._between((0, math.pi))
        if kind == "long":
            return filters.gaussian(sigma, aspect, angle)
        if kind == "relative":
            power = self._between((0.6, 4.0)) if self._is(0.5) else self._between((2.0, 4.0))
            return filters.gaussian(sigma, aspect, angle, power, plateau=power >= 2 and self._is(0.5))
        if kind == "disc":
            return filters.disc(1.5 * sigma)
        return filters.low_pass(self._between((math.pi / 3, math.pi)) if self.scale > 1 else math.pi)

    def _soften(self, luma: bool, colours: bool) -> np.ndarray | None:
        if not (luma or colours):
            return None
        all_blur = self._between((0.35, 1.4)) if luma else 0.0
        colour_blur = self._between(self.recipe.colour_blur) if colours else 0.0
        sigmas = (all_blur, math.hypot(all_blur, colour_blur))
        return np.stack([filters.gaussian(sigma) if sigma else _no_blur()[0] for sigma in sigmas])

    def _jpeg(self, quality: Range) -> Jpeg:
        shift = (0, 0)
        if self._is(0.5):
            shift = (int(self.random.integers(16)), int(self.random.integers(16)))
        return Jpeg(float(round(self._between(quality))), shift, self._is(self.recipe.subsampled))

    def _quality(self) -> Range:
        return self.recipe.low_quality if self._is(self.recipe.low) else self.recipe.quality

    def _filter(self) -> int:
        return int(self.random.choice(len(FILTERS), p=[0.4, 0.15, 0.15, 0.1, 0.1, 0.1]))

    def _between(self, limits: Range) -> float:
        return float(self.random.uniform(*limits))

    def _is(self, share: float) -> bool:
        return bool(self.random.random() < share)


def draw_fates(recipe: Recipe, scale: int, seed: tuple[int, ...], count: int) -> list[Fate]:
    """Draw the steps for several pictures.

    Args:
        recipe: Probabilities of the degradations.
        scale: Output pixels per input pixel and side.
        seed: Seed of all random numbers: the same seed gives the same fates.
        count: Number of pictures.
    """
    drawing = Drawing(recipe, scale, np.random.default_rng(seed))
    fates = [drawing.draw() for _ in range(count)]
    # By numbers of their own, so that the rest of a fate is the same with them and without.
    parts, tones = (np.random.default_rng((*seed, stream)) for stream in (DRAWS_PARTS, DRAWS_TONES))
    for place in np.flatnonzero(parts.random(count) < recipe.quiet):
        fates[place] = replace(fates[place], part=draw_part(parts, recipe.quiet_sigma))
    for place in np.flatnonzero(tones.random(count) < recipe.toned):
        fates[place] = replace(fates[place], tone=draw_tone(tones))
    return fates


def recipe_for(scale: int) -> Recipe:
    """Return the recipe for networks of a scale; those of scale 1 keep the size."""
    return ENLARGING if scale > 1 else SAME_SIZE


def recipe_for_measuring(scale: int) -> Recipe:
    """Return the recipe for measuring: several faults in each picture, and an unchanged truth."""
    none = dict.fromkeys(
        ("clean", "white", "compressed", "gray", "soft", "soft_colour", "quiet", "toned"), 0.0
    )
    recipe = replace(recipe_for(scale), **none)
    return recipe if scale > 1 else replace(recipe, noise=1.0)


def _no_blur() -> np.ndarray:
    kernels = np.zeros((2, filters.SIDE, filters.SIDE))
    kernels[:, filters.RADIUS, filters.RADIUS] = 1
    return kernels
