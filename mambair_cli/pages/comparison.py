"""A page that compares pictures: a slider, flicker, side by side, zoom, and where they differ."""

import math
from collections.abc import Sequence
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.pages.document import mark_pictures, write_document
from mambair_cli.pages.screen import ScreenPicture, enlarge, to_address
from mambair_cli.quality.metrics import SSIM_WINDOW, psnr, ssim

FEWEST_PICTURES, MOST_PICTURES = 2, 6
MOST_SCORED = 12_000_000  # pixels of all pairs together whose SSIM is computed
ASPECT_TOLERANCE = 0.01
OPAQUE = 255  # alpha
_GROUNDS = (0, 255)  # black and white: what is equal on both is equal on every ground
_ALPHA_NOTE = "transparent: compared on black and on white, and the larger difference counts"
PIXELS, BICUBIC = "as pixels", "bicubic"


def write_comparison(
    pictures: Sequence[ScreenPicture],
    title: str = "",
    back: str = "",
    with_ssim: bool = True,
    files: Sequence[Path] = (),
) -> str:
    """Write the page that compares pictures.

    A picture that is smaller than the largest one is shown twice: as pixels, and enlarged by bicubic
    interpolation.

    Args:
        pictures: Two to six pictures of one shape, the one before all others first.
        title: Title of the page; by default the names of the pictures.
        back: Address of the page that leads here; none by default.
        with_ssim: Whether to measure the SSIM, too, which takes two seconds a million pixels.
        files: Files of the pictures, by which the page is known again.

    Raises:
        UsageError: There are too few or too many.
        ImageError: Their shapes differ.
    """
    check_count(len(pictures))
    check_shapes(pictures)
    title = title or " and ".join(picture.name for picture in pictures)
    shown = _lay_out(pictures)
    height, width = max((picture.pixels.shape[:2] for picture in pictures), key=lambda shape: shape[0])
    data = {
        "width": width,
        "height": height,
        "pictures": [
            {
                "name": picture.name,
                "notes": [*picture.notes, *([_ALPHA_NOTE] if _is_transparent(picture.pixels) else [])],
                "width": picture.size[0],
                "height": picture.size[1],
                "pixelated": picture.pixels.shape[1] < width,
                "source": to_address(picture.pixels),
            }
            for picture in shown
        ],
        "scores": score_pairs(shown, with_ssim),
    }
    link = f'<a href="{escape(back, quote=True)}">All pictures</a>' if back else ""
    body = f"<header {mark_pictures(files)}><h1>{escape(title)}</h1>{link}</header><main id=viewer></main>"
    return write_document(f"{title} - mambair", body, ["viewer.css"], ["viewer.js", "compare.js"], data)


def check_count(count: int) -> None:
    """Refuse a number of pictures that no page compares.

    Raises:
        UsageError: There are too few or too many.
    """
    if not FEWEST_PICTURES <= count <= MOST_PICTURES:
        raise UsageError(f"a page compares {FEWEST_PICTURES} to {MOST_PICTURES} pictures, not {count}")


def check_shapes(pictures: Sequence[ScreenPicture]) -> None:
    """Refuse pictures of different shapes.

    Raises:
        ImageError: Their shapes differ.
    """
    first, *others = pictures
    for other in others:
        (a, b), (c, d) = first.size, other.size
        # Sides may be rounded to whole pixels of the smaller picture.
        allowed = math.log1p(ASPECT_TOLERANCE + 1 / min(a, b, c, d))
        if abs(math.log(a * d / (b * c))) > allowed:
            raise ImageError(
                f"cannot compare {first.name} ({a}×{b}) and {other.name} ({c}×{d}): their shapes differ; "
                "crop one of them"
            )


def _lay_out(pictures: Sequence[ScreenPicture]) -> list[ScreenPicture]:
    """Give each picture that is smaller than the largest one a second form, enlarged."""
    height, width = max((picture.pixels.shape[:2] for picture in pictures), key=lambda shape: shape[0])
    shown = []
    for picture in pictures:
        if picture.pixels.shape[0] >= height:
            shown.append(picture)
            continue
        shown.append(enlarge(picture, width, height, f"{picture.name}, {BICUBIC}"))
        name = f"{picture.name}, {PIXELS}"
        shown.append(ScreenPicture(name, picture.pixels, picture.size, picture.notes))
    return shown


def score_pairs(pictures: Sequence[ScreenPicture], with_ssim: bool = True) -> list[dict[str, Any]]:
    """Measure all pairs of pictures of equal size, in red, green and blue, as they are seen.

    Transparent pictures are laid on black and on white, and the lower figure counts.

    Args:
        pictures: The pictures.
        with_ssim: Whether to compute the SSIM, too, which takes two seconds a million pixels.

    Returns:
        For each pair its places ``a`` and ``b``, its ``psnr`` in dB (None for equal pictures), and its
        ``ssim`` (None where the pictures are too small, or all pairs together too large to take the time).
    """
    pairs = [
        (a, b)
        for a, b in combinations(range(len(pictures)), 2)
        if pictures[a].pixels.shape[:2] == pictures[b].pixels.shape[:2]
    ]
    transparent = [_is_transparent(picture.pixels) for picture in pictures]
    grounds = [_GROUNDS if transparent[a] or transparent[b] else _GROUNDS[:1] for a, b in pairs]
    area = sum(
        math.prod(pictures[a].pixels.shape[:2]) * len(on) for (a, _), on in zip(pairs, grounds, strict=True)
    )
    scores = []
    for (a, b), on in zip(pairs, grounds, strict=True):
        seen = [[_lay_on(pictures[place].pixels, ground) for place in (a, b)] for ground in on]
        noise = min(psnr(*both) for both in seen)
        smallest = min(pictures[a].pixels.shape[:2])
        is_measured = with_ssim and area <= MOST_SCORED and smallest >= SSIM_WINDOW
        likeness = min(ssim(*both) for both in seen) if is_measured else None
        scores.append({"a": a, "b": b, "psnr": noise if np.isfinite(noise) else None, "ssim": likeness})
    return scores


def _is_transparent(pixels: np.ndarray) -> bool:
    return pixels.shape[2] == 4 and bool((pixels[..., 3] < OPAQUE).any())


def _lay_on(pixels: np.ndarray, ground: int) -> np.ndarray:
    """Return what is seen of (h, w, 3 or 4) uint8 on a ground of that brightness, (h, w, 3) uint8."""
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:].astype(np.uint16)
    seen = pixels[..., :3] * alpha + np.uint16(ground) * (OPAQUE - alpha)
    return ((seen + OPAQUE // 2) // OPAQUE).astype(np.uint8)
