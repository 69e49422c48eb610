import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair_cli.images import bleed
from mambair_cli.restore.row_window import Converted, Window
from mambair_cli.restore.tiling import plan_tiles
from mambair_cli.runs.output_size import Size, network_scale


def image(height: int, width: int) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint16).reshape(height, width, 3)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 20), st.data())
def test_a_window_cuts_the_tiles_of_the_image_and_reads_each_row_once(
    height: int, width: int, tile: int, data: st.DataObject
) -> None:
    whole, asked = image(height, width), []

    def read(top: int, bottom: int) -> np.ndarray:
        asked.append((top, bottom))
        return whole[top:bottom]

    plan = plan_tiles(height, width, tile, data.draw(st.integers(0, tile - 1)))
    window = Window(read, height)
    for top, left in plan:
        cut = window[top : top + plan.tile_height, left : left + plan.tile_width]
        np.testing.assert_array_equal(cut, whole[top : top + plan.tile_height, left : left + plan.tile_width])
        window.release(top)
    assert [top for top, _ in asked] == [0, *(bottom for _, bottom in asked[:-1])]
    assert asked[-1][1] == height


def test_rows_that_were_released_are_gone() -> None:
    window = Window(lambda top, bottom: image(9, 4)[top:bottom], 9)
    window[0:6, :]
    window.release(3)
    np.testing.assert_array_equal(window[3:9, 1:2], image(9, 4)[3:9, 1:2])
    with pytest.raises(ValueError, match="row 2 was released: what is left begins at 3"):
        window[2:5, :]


def test_tiles_are_converted_when_they_are_cut() -> None:
    pixels = Converted(image(5, 4), lambda tile: tile[..., :1] + 1)
    np.testing.assert_array_equal(pixels[1:3, 2:4], image(5, 4)[1:3, 2:4, :1] + 1)


# Colours under transparency

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@given(SHAPES, st.integers(0, 2**32), st.floats(0, 1))
def test_visible_colours_stay_and_hidden_ones_come_from_them(
    shape: tuple[int, int], seed: int, hidden: float
) -> None:
    generator = np.random.default_rng(seed)
    colours = generator.random((*shape, 3), np.float32)
    alpha = np.where(generator.random((*shape, 1)) < hidden, 0, generator.random((*shape, 1))).astype(
        np.float32
    )
    filled = bleed(colours, alpha)
    visible = alpha[..., 0] > 0
    np.testing.assert_array_equal(filled[visible], colours[visible])
    garbage = np.where(alpha > 0, colours, 7)  # whatever lies there, it shows nowhere
    np.testing.assert_array_equal(bleed(garbage, alpha), filled)
    if visible.any():
        low, high = colours[visible].min(0) - 1e-5, colours[visible].max(0) + 1e-5
        assert ((filled >= low) & (filled <= high)).all()
    else:
        assert (filled == 0).all()


def test_the_nearest_colour_fills_first() -> None:
    colours = np.zeros((8, 8, 1), np.float32)
    colours[:, :2], colours[:, 6:] = 0.2, 0.9
    alpha = np.zeros((8, 8, 1), np.float32)
    alpha[:, :2] = alpha[:, 6:] = 1
    filled = bleed(colours, alpha)
    np.testing.assert_allclose(filled[:, 2:4], 0.2)
    np.testing.assert_allclose(filled[:, 4:6], 0.9)


# Sizes


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 9000), st.integers(1, 9000))
def test_a_result_fits_into_what_is_asked_for(width: int, height: int, wide: int, high: int) -> None:
    size = Size(width=wide, height=high)
    new_width, new_height = size.target(width, height, 10**9)
    assert new_width <= wide
    assert new_height <= high
    assert new_width == wide or new_height == high
    assert new_width >= 1
    assert new_height >= 1


@pytest.mark.parametrize(("factor", "scale"), [(0.3, 2), (2, 2), (2.01, 3), (3, 3), (3.5, 4), (4, 4), (9, 4)])
def test_the_smallest_network_that_reaches_is_the_one(factor: float, scale: int) -> None:
    assert network_scale(factor) == scale
