"""The page of a measurement: its worst and its best images, where they differ most from the truth."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.images.samples import from_float, to_float
from mambair_cli.pages.document import mark_pictures, write_document
from mambair_cli.pages.screen import to_address

SIDE = 128  # of what is shown of an image, in pixels of the truth
STEP = 16  # pixels between two places that are tried
MOST_WORST, MOST_BEST = 8, 4


@dataclass(frozen=True)
class Measured:
    """An image that was measured, and the part of it with the largest error.

    Attributes:
        name: Name of the image.
        psnr: PSNR, in dB; infinite where nothing differs.
        ssim: SSIM.
        place: Left column and top row of the part, in pixels of the truth.
        pictures: The part, (h, w, 3) uint8 each, by what it is: the input, the result, the truth; empty for
            images of which the page shows none.
    """

    name: str
    psnr: float
    ssim: float
    place: tuple[int, int]
    pictures: dict[str, np.ndarray]


def note_image(
    name: str, psnr: float, ssim: float, given: np.ndarray | None, image: np.ndarray, truth: np.ndarray
) -> Measured:
    """Keep of an image what the page may show.

    Args:
        name: Name of the image.
        psnr: PSNR, in dB.
        ssim: SSIM.
        given: Input of the network, (h / s, w / s, c); None where finished images are measured.
        image: The result, (h, w, c).
        truth: The ground truth, (h, w, c); all of them uint8, uint16 or floats in [0, 1].
    """
    shown, wanted = _to_screen(image), _to_screen(truth)
    top, left = find_largest_error(shown, wanted)
    part = np.s_[top : top + SIDE, left : left + SIDE]
    pictures = {}
    if given is not None:
        height, width = truth.shape[:2]
        enlarged = Image.fromarray(_to_screen(given)).resize((width, height), Image.Resampling.NEAREST)
        pictures["input"] = np.asarray(enlarged)[part]
    pictures |= {"result": shown[part], "truth": wanted[part]}
    pictures = {kind: picture.copy() for kind, picture in pictures.items()}  # a view would keep the image
    return Measured(name, psnr, ssim, (left, top), pictures)


def keep_image(measured: list[Measured], image: Measured) -> None:
    """Add an image to those measured; only the worst and the best ones keep their pictures.

    Args:
        measured: The images so far, the worst first.
        image: The new one.
    """
    place = bisect_right(measured, image.psnr, key=lambda each: each.psnr)
    measured.insert(place, image)
    end = len(measured) - MOST_BEST
    for index in {MOST_WORST, place, end - 1}:
        if MOST_WORST <= index < end:
            measured[index] = replace(measured[index], pictures={})


def find_largest_error(image: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Return the top row and left column of the square with the largest mean square error.

    Args:
        image: (h, w, c) uint8.
        truth: The same.
    """
    error = ((image.astype(np.int32) - truth) ** 2).sum(axis=2, dtype=np.int64)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = (min(SIDE, length) for length in error.shape)
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    tried = boxes[::STEP, ::STEP]
    row, column = divmod(int(tried.argmax()), tried.shape[1])
    return row * STEP, column * STEP


def write_evaluation(title: str, summary: str, measured: list[Measured], folders: list[Path]) -> str:
    """Write the page.

    Args:
        title: What was measured.
        summary: The means, in a sentence.
        measured: All images, as :func:`keep_image` keeps them.
        folders: What was measured, by which ``check_page`` knows the page again.
    """
    worst = measured[:MOST_WORST]
    best = measured[max(MOST_WORST, len(measured) - MOST_BEST) :][::-1]
    rows = "".join(
        f'<tr><th scope="row">{escape(each.name)}</th><td class="short">{_show(each.psnr)}</td>'
        f'<td class="short">{each.ssim:.4f}</td></tr>'
        for each in measured
    )
    body = [
        f"<header {mark_pictures(folders)}><h1>{escape(title)}</h1></header><main><p>{escape(summary)}</p>",
        f"<p>The {SIDE}×{SIDE} pixels of each image with the largest error are shown.</p>",
        f"<h2>Worst</h2>{_write_examples(worst)}",
        f"<h2>Best</h2>{_write_examples(best)}" if best else "",
        '<h2>All, the worst first</h2><div class="wide"><table><thead><tr><th scope="col">Image</th>'
        '<th scope="col">PSNR</th><th scope="col">SSIM</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></main>",
    ]
    return write_document(f"{title} - mambair", "\n".join(body), ["viewer.css", "report.css"], [])


def _write_examples(some: list[Measured]) -> str:
    heads = "".join(f'<th scope="col">{kind}</th>' for kind in ("", *some[0].pictures))
    rows = []
    for each in some:
        left, top = each.place
        about = f"{escape(each.name)}<br>{_show(each.psnr)}, {each.ssim:.4f}<br>at {left}, {top}"
        cells = "".join(
            f'<td><img src="{to_address(np.ascontiguousarray(picture))}" '
            f'alt="{escape(f"{each.name}, {kind}", quote=True)}"></td>'
            for kind, picture in each.pictures.items()
        )
        rows.append(f'<tr><th scope="row">{about}</th>{cells}</tr>')
    return (
        f'<div class="wide"><table class="examples large"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _show(psnr: float) -> str:
    return f"{psnr:.2f} dB" if math.isfinite(psnr) else "equal"


def _to_screen(image: np.ndarray) -> np.ndarray:
    """Return an image as (h, w, 3) uint8; alpha is left out."""
    colours = image[..., : 3 if image.shape[2] >= 3 else 1]
    pixels = from_float(to_float(colours) if colours.dtype != np.float64 else colours, np.uint8)
    return np.ascontiguousarray(pixels.repeat(3 // pixels.shape[2], axis=2))
