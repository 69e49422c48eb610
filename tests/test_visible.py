"""Colours that alpha hides say nothing of a picture to a look at it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mambair_cli.inspection.look import look_at_pixels
from mambair_cli.inspection.need import find_need
from mambair_cli.inspection.visible import cut_visible
from mambair_cli.restore.restorer import Restorer

DOCS = Path(__file__).parents[1] / "docs"
SIDE = 320


def kitten(sigma: float = 0) -> np.ndarray:
    """Return a photo, perhaps with noise, (320, 320, 3) uint8."""
    photo = np.asarray(Image.open(DOCS / "kitten_sharp.png").convert("RGB"), np.float64)
    return (
        np.rint(photo + np.random.default_rng(1).normal(0, sigma, photo.shape)).clip(0, 255).astype(np.uint8)
    )


def hide(pixels: np.ndarray, hidden: str, alpha: np.ndarray, least: int = 0) -> np.ndarray:
    """Return a picture with alpha; of what that hides, the colours are replaced."""
    random = np.random.default_rng(2)
    colours = {
        "noise": random.integers(0, 256, pixels.shape, np.uint8),
        "black": np.zeros_like(pixels),
        "repeated": np.kron(random.integers(0, 256, (40, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8)),
    }
    changed = np.where(alpha[..., None] > 0, pixels, colours[hidden])
    return np.dstack([changed, np.maximum(alpha, least)])


def disc() -> np.ndarray:
    alpha = Image.new("L", (SIDE, SIDE))
    ImageDraw.Draw(alpha).ellipse((30, 30, 290, 290), fill=255)
    return np.asarray(alpha)


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[top:bottom, left:right] = 255
    return alpha


def logo() -> np.ndarray:
    image = Image.new("RGB", (4 * SIDE, 4 * SIDE), (200, 30, 40))
    ImageDraw.Draw(image).rectangle((500, 400, 900, 1000), fill=(250, 250, 250))
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def see(pixels: np.ndarray) -> Any:
    return look_at_pixels(pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("least", [0, 1, 12])
@pytest.mark.parametrize("hidden", ["noise", "black", "repeated"])
def test_what_is_hidden_changes_nothing(hidden: str, least: int) -> None:
    noisy = kitten(15)
    found = see(hide(noisy, hidden, disc(), least))
    assert found == see(np.dstack([noisy, disc()]))
    assert 12 < found.noise < 19
    assert find_need(found, None).kind == "white"
    assert find_need(see(hide(logo(), hidden, disc(), least)), None).kind == "clean"


def test_what_is_seen_is_the_same_as_if_it_were_alone() -> None:
    alpha = rectangle(43, 301, 20, 200)
    assert see(hide(kitten(6), "noise", alpha)) == see(kitten(6)[48:296, 24:200])


@pytest.mark.parametrize("level", [255, 128, 13])
def test_what_is_seen_of_an_opaque_picture_is_what_it_is_without_alpha(level: int) -> None:
    pixels = kitten(4)
    assert see(np.dstack([pixels, np.full((SIDE, SIDE), level, np.uint8)])) == see(pixels)
    gray = pixels[..., :1]
    assert see(np.dstack([gray, np.full((SIDE, SIDE), level, np.uint8)])) == see(gray)


def test_where_too_little_is_visible_there_are_no_estimates() -> None:
    stripes = np.tile(np.array([[255] * 47 + [0]], np.uint8).repeat(SIDE, 0), (1, 7))[:, :SIDE]
    for alpha in (np.zeros((SIDE, SIDE), np.uint8), stripes, rectangle(0, 47, 0, SIDE)):
        assert see(hide(kitten(30), "noise", alpha)) is None


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_the_largest_and_hide_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = random.integers(6, 15, 2)
    marks = random.random((rows, columns)) > 0.03
    alpha = np.kron(marks, np.ones((8, 8)))[: 8 * rows - 3 * (seed % 2)]
    places = np.moveaxis(np.indices(alpha.shape), 0, -1)
    parts = cut_visible(places, alpha)
    if marks.all():
        assert len(parts) == 1
        return
    whole = marks[: alpha.shape[0] // 8]
    sizes = [
        (bottom - top) * (right - left)
        for top in range(rows)
        for bottom in range(top + 6, len(whole) + 1)
        for left in range(columns)
        for right in range(left + 6, columns + 1)
        if whole[top:bottom, left:right].all()
    ]
    assert [part.shape[0] * part.shape[1] // 64 for part in parts[:1]] == ([max(sizes)] if sizes else [])
    for part in parts:
        assert min(part.shape[:2]) >= 48
        assert not (part[0, 0] % 8).any()
        assert alpha[part[..., 0], part[..., 1]].all()
    seen = np.concatenate([part.reshape(-1, 2) for part in parts]) if parts else np.empty((0, 2))
    assert len(np.unique(seen, axis=0)) == len(seen)


def test_commands_see_the_logo_and_not_what_it_hides(run: Any) -> None:
    Image.fromarray(hide(logo(), "noise", disc())).save("logo.png")
    Image.fromarray(hide(kitten(15), "black", disc())).save("cut.png")
    Image.fromarray(hide(kitten(), "noise", rectangle(0, 40, 0, SIDE))).save("thin.png")
    code, out, _ = run("inspect", "logo.png", "cut.png", "thin.png", "-q")
    assert code == 0
    kinds = {line.split()[0]: line for line in out}
    assert "clean" in kinds["logo.png"]
    assert "fine noise of sigma 1" in kinds["cut.png"]
    assert "too little of it is visible to look at" in kinds["thin.png"]
    (pixels,) = (line for line in run("inspect", "thin.png")[1] if line.startswith("pixels"))
    assert pixels.endswith("too few are visible; 48×48 in one piece are needed")


def test_an_image_in_memory_is_looked_at_so_too() -> None:
    restorer = Restorer("denoise", offline=True, device="cpu")
    part = np.s_[60:140, 24:120]
    for pixels, kind in ((logo(), "clean"), (kitten(15), "white")):
        hidden = hide(pixels, "noise" if kind == "clean" else "black", disc())[part]
        need = restorer.restore(hidden)[1].need
        assert need is not None
        assert need.kind == kind
        assert need.look == see(hidden)
