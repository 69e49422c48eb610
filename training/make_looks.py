"""Make pictures with known faults, and keep what the estimator sees of each and what is true of it.

    python training/make_looks.py OUT.npz --photographs DIR ... --graphics DIR ... --count 14000 --seed 1

A picture is a crop of a reduced photograph or graphic. It may be enlarged or blurred, then noisy, then saved
as JPEG or WebP, then resized and cut, so that blocks begin anywhere. The same crop goes the same way without
noise: the difference is the noise that is left.
"""

import argparse
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.images.samples import LUMA
from mambair_cli.inspection.features import describe
from mambair_cli.inspection.look import SIGMA_OFFSET, STEP_OFFSET

WEIGHTS = np.array(LUMA, dtype=np.float32)  # of red, green and blue in luma
FILTERS = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]
TONES = ((8, 85), (85, 170), (170, 247))  # dark, medium, bright; what is clipped is left out
FEWEST_PIXELS = 400  # of a tone, to tell its noise
MARGIN = 16  # pixels that blurring and cutting may take


@dataclass(frozen=True)
class Made:
    """A picture, and what is true of it.

    Attributes:
        picture: (h, w, 3) float32, 0 to 255.
        truth: What the estimator is to tell, in its own forms; NaN where it is not known.
        is_gray: Whether it has no colour.
        is_rounded: Whether it has samples of 8 bits.
        is_saved: Whether it was compressed.
    """

    picture: np.ndarray
    truth: np.ndarray
    is_gray: bool
    is_rounded: bool
    is_saved: bool


@dataclass(frozen=True)
class Saved:
    """How a picture is saved: as JPEG (subsampling 0 or 2) or WebP, and cut afterwards."""

    quality: int
    subsampling: int
    webp: bool
    cut: tuple[int, int]


class Maker:
    """Makes pictures from files.

    Args:
        photographs: Photographs, some of them soft at full size.
        graphics: Graphics and screenshots.
        seed: Seed of everything.
        share: Share of graphics.

    Attributes:
        random: Source of random numbers.
    """

    def __init__(self, photographs: list[Path], graphics: list[Path], seed: int, share: float = 0.22) -> None:
        self._photographs, self._graphics, self._share = photographs, graphics, share
        self.random = np.random.default_rng(seed)
        self._open: dict[Path, Image.Image] = {}

    def make(self) -> Made | None:
        """Make a picture; None where a file is too small."""
        random = self.random
        cut = self._cut()
        if cut is None:
            return None
        pixels, resolution = cut
        is_gray = self._is(0.15)
        if is_gray:
            pixels = np.repeat((pixels @ WEIGHTS)[..., None], 3, 2)
        clean = np.clip(pixels, 0, 255)
        noisy = clean + self.draw_noise(clean) if self._is(0.5) else clean
        if is_gray:
            noisy = np.repeat(noisy.mean(2, keepdims=True), 3, 2)
        saved = self._draw_saved()
        quality = min((each.quality for each in saved), default=100)
        factor, resampling = 1.0, FILTERS[random.integers(3)]
        if self._is(0.15):
            factor = float(np.exp(random.uniform(np.log(0.5), np.log(2))))
            resolution = min(1, resolution / factor)
        top, left = random.integers(8, size=2) if self._is(0.5) else (0, 0)
        ways = [send(each, saved, factor, resampling)[top:, left:] for each in (noisy, clean)]
        result, without = ways
        noise = result - without
        is_rounded = self._is(0.85) or bool(saved)
        if is_rounded:
            result = np.rint(result)
        if is_gray:
            result = np.repeat(result[..., 1:2], 3, 2)
        if min(result.shape[:2]) < 32:
            return None
        truth = _tell_truth(noise, without, quality, resolution)
        return Made(np.ascontiguousarray(result), truth, is_gray, is_rounded, bool(saved))

    def _is(self, probability: float) -> bool:
        return self.random.random() < probability

    def _between(self, low: float, high: float) -> float:
        """Draw a number whose logarithm is uniform."""
        return float(np.exp(self.random.uniform(np.log(low), np.log(high))))

    def _load(self, path: Path) -> Image.Image:
        if path not in self._open:
            if len(self._open) > 400:
                self._open.clear()
            self._open[path] = Image.open(path).convert("RGB")
        return self._open[path]

    def _cut(self) -> tuple[np.ndarray, float] | None:
        """Return a crop, perhaps enlarged, blurred or sharpened, and the share of its resolution in use."""
        random = self.random
        files = self._graphics if self._is(self._share) else self._photographs
        picture = self._load(files[random.integers(len(files))])
        kind = random.random()
        factor = self._between(1.1, 4) if kind < 0.3 else 1.0
        side = int(self._between(48, 300)) + MARGIN
        needed = int(np.ceil(side / factor)) + 2
        reduced = max(random.uniform(0.22, 1), min(1, (needed + 1) / min(picture.size)))
        size = [max(needed, int(length * reduced)) for length in picture.size]
        if min(picture.size) < needed:
            return None
        if reduced < 1:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = (int(random.integers(length - needed + 1)) for length in picture.size)
        crop = picture.crop((left, top, left + needed, top + needed))
        if self._is(0.5):
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(crop, dtype=np.float32)
        if factor > 1:
            nearest = Image.Resampling.NEAREST
            resampling = nearest if self._is(0.06) else FILTERS[random.integers(3)]
            pixels = _resize(pixels, round(needed * factor), round(needed * factor), resampling)[:side, :side]
            return pixels, 1 / factor
        if kind < 0.42:
            sigma = random.uniform(0.4, 3)
            return _blur(pixels, sigma), min(1, 0.683 / sigma)  # a tenth is left at that frequency
        if kind < 0.49:
            pixels = pixels + random.uniform(0.3, 1.2) * (pixels - _blur(pixels, random.uniform(0.6, 1.5)))
        return pixels, 1.0

    def draw_noise(self, clean: np.ndarray) -> np.ndarray:
        """Draw noise: white, blurred or enlarged; alike in the channels or not; of one strength or not."""
        random = self.random
        height, width, _ = clean.shape
        noise = random.standard_normal(clean.shape).astype(np.float32)
        chance = random.random()
        if chance < 0.4:
            shared = 1.0 if chance < 0.2 else random.uniform(0.2, 0.9)
            noise = shared * noise[..., :1] + np.sqrt(1 - shared**2).astype(np.float32) * noise
        kind = random.random()
        if 0.45 <= kind < 0.8:
            noise = _blur(noise, random.uniform(0.35, 1.3))
        elif kind >= 0.8:
            factor = random.uniform(1.2, 3)
            part = noise[: int(height / factor) + 2, : int(width / factor) + 2]
            noise = _resize(part, width, height, FILTERS[random.integers(3)])
        noise /= noise.std() + 1e-6
        if self._is(0.3):
            noise *= random.uniform(0.5, 1.5, 3).astype(np.float32)
        if self._is(0.45):
            light = np.clip(_blur(clean, 1) / 255, 0, 1)
            share = random.uniform(0, 1)
            gain = np.sqrt(share * light + (1 - share) * random.uniform(0.05, 0.5) + 0.01)
            if self._is(0.3):
                gain = gain * (1.2 - light)
            noise *= gain / gain.mean()
        return noise * self._between(0.7, 50)

    def _draw_saved(self) -> list[Saved]:
        random = self.random
        if not self._is(0.55):
            return []
        saved = []
        for _ in range(1 + self._is(0.2)):
            quality = int(random.integers(15, 98) if self._is(0.5) else random.integers(60, 97))
            cut = (int(random.integers(8)), int(random.integers(8))) if saved else (0, 0)
            saved.append(Saved(quality, int(random.choice([0, 2, 2])), self._is(0.08), cut))
        return saved[::-1]


def send(pixels: np.ndarray, saved: list[Saved], factor: float, resampling: Image.Resampling) -> np.ndarray:
    """Save a picture, and resize it; return what comes of it, 0 to 255."""
    pixels = np.clip(pixels, 0, 255)
    for each in saved:
        file = io.BytesIO()
        picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
        if each.webp:
            picture.save(file, "WEBP", quality=each.quality)
        else:
            picture.save(file, "JPEG", quality=each.quality, subsampling=each.subsampling)
        pixels = np.asarray(Image.open(file).convert("RGB"), dtype=np.float32)
        pixels = pixels[each.cut[0] :, each.cut[1] :]
    if factor != 1:
        height, width = (max(32, int(side * factor)) for side in pixels.shape[:2])
        pixels = _resize(pixels, width, height, resampling)
    return np.clip(pixels, 0, 255)


def _tell_truth(noise: np.ndarray, clean: np.ndarray, quality: int, resolution: float) -> np.ndarray:
    """Return what the estimator is to tell, in its own forms (``look.py``); NaN where it is not known."""
    sigma = noise.std((0, 1))
    luma, light = noise @ WEIGHTS, clean @ WEIGHTS
    alike = np.nan
    if sigma.mean() > 1:
        products = [(luma[:, 1:] * luma[:, :-1]).mean(), (luma[1:] * luma[:-1]).mean()]
        alike = float(np.clip(np.mean(products) / (luma.var() + 1e-9), -1, 1))
    tones = []
    for low, high in TONES:
        some = luma[(light >= low) & (light < high)]
        tones.append(some.std() if len(some) > FEWEST_PIXELS else np.nan)
    step = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    logs = [*np.log(sigma + SIGMA_OFFSET), alike, *np.log(np.array(tones) + SIGMA_OFFSET)]
    return np.array([*logs, np.log(step + STEP_OFFSET), np.log2(max(resolution, 0.2))], dtype=np.float32)


def _resize(pixels: np.ndarray, width: int, height: int, resampling: Image.Resampling) -> np.ndarray:
    """Resize floats, (h, w, 3)."""
    bands = [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(3)]
    return np.stack([np.asarray(band.resize((width, height), resampling)) for band in bands], 2)


def _blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur floats, (h, w, 3), by a Gaussian."""
    radius = max(1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2)).astype(np.float32)
    kernel /= kernel.sum()
    padded = np.pad(pixels, ((radius, radius), (radius, radius), (0, 0)), "symmetric")
    height, width = pixels.shape[:2]
    rows = np.sum([share * padded[i : i + height] for i, share in enumerate(kernel)], axis=0)
    return np.sum([share * rows[:, i : i + width] for i, share in enumerate(kernel)], axis=0)


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options for the folders of pictures."""
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--graphics", type=Path, nargs="+", required=True, help="folders")


def find_files(folders: list[Path], held_out: bool) -> list[Path]:
    """Return the files of folders: an eighth of them is held out, the others are for training.

    A file's name decides, so that no choice of folders trains on what another one measures with.
    """
    files = sorted(file for folder in folders for file in folder.iterdir())
    return [file for file in files if is_held_out(file.name) == held_out]


def is_held_out(name: str) -> bool:
    """Tell whether the file of a name is never trained on."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()[0] % 8 == 0


def main() -> None:
    """Make pictures, and write the features and the truths of all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    add_folders(parser)
    parser.add_argument("--exclude", type=Path, help="file with names of pictures that are not used")
    parser.add_argument("--held-out", action="store_true", help="use the eighth that is not trained on")
    parser.add_argument("--share", type=float, default=0.22, help="share of graphics")
    parser.add_argument("--count", type=int, default=14000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    excluded = set(arguments.exclude.read_text().split()) if arguments.exclude else set()
    photographs, graphics = (
        [file for file in find_files(folders, arguments.held_out) if file.name not in excluded]
        for folders in (arguments.photographs, arguments.graphics)
    )
    maker = Maker(photographs, graphics, arguments.seed, arguments.share)
    features, truths = [], []
    while len(features) < arguments.count:
        made = maker.make()
        if made is not None:
            features.append(describe([made.picture]))
            truths.append(made.truth)
    np.savez(arguments.out, features=np.array(features), truths=np.array(truths))


if __name__ == "__main__":
    main()
