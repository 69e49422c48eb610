import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise

from mambair_cli.restore.tiling import Plan, axis_weights, blend_tiles, plan_tiles, ramp


@st.composite
def plans(draw: st.DrawFn, longest: int = 90, largest: int = 40) -> Plan:
    sides = st.integers(1, longest)
    tile = draw(st.integers(1, largest))
    return plan_tiles(draw(sides), draw(sides), tile, draw(st.integers(0, tile - 1)))


# Small enough that blending stays quick and that, where dozens of tiles meet in a pixel, the rounding of
# their sum stays below 1e-6.
small_plans = plans(longest=24, largest=9)
scales = st.integers(1, 4)


def cut(plan: Plan, image: np.ndarray, scale: int = 1) -> list[np.ndarray]:
    height, width = scale * plan.tile_height, scale * plan.tile_width
    return [
        image[scale * top : scale * top + height, scale * left : scale * left + width] for top, left in plan
    ]


def join(plan: Plan, tiles: list[np.ndarray], scale: int = 1) -> np.ndarray:
    return np.concatenate(list(blend_tiles(plan, tiles, scale)))


# The plan


@given(plans())
def test_equal_tiles_cover_the_image_exactly(plan: Plan):
    covered = np.zeros((plan.height, plan.width), bool)
    for top, left in plan:
        part = covered[top : top + plan.tile_height, left : left + plan.tile_width]
        assert part.shape == (plan.tile_height, plan.tile_width)
        part[...] = True
    assert covered.all()


@given(plans())
def test_neighbours_share_the_overlap_and_are_spread_evenly(plan: Plan):
    for starts, side in ((plan.tops, plan.tile_height), (plan.lefts, plan.tile_width)):
        steps = np.diff(starts)
        assert (steps > 0).all()
        assert (side - steps >= plan.overlap).all()
        assert steps.size == 0 or steps.max() - steps.min() <= 1


@given(st.integers(1, 90), st.integers(2, 40), st.data())
def test_one_tile_less_would_not_reach(length: int, tile: int, data: st.DataObject):
    overlap = data.draw(st.integers(0, tile - 1))
    count = len(plan_tiles(length, 1, tile, overlap))
    assert count == 1 or (count - 1) * (tile - overlap) + overlap < length


@given(plans())
def test_tiles_are_no_larger_than_need_be(plan: Plan):
    for starts, side, length in (
        (plan.tops, plan.tile_height, plan.height),
        (plan.lefts, plan.tile_width, plan.width),
    ):
        shared = len(starts) * side - length
        assert 0 <= shared - (len(starts) - 1) * plan.overlap < len(starts)


@given(plans())
def test_the_tiles_of_a_plan_make_the_same_plan_again(plan: Plan):
    sides = max(plan.tile_height, plan.overlap + 1), max(plan.tile_width, plan.overlap + 1)
    assert plan_tiles(plan.height, plan.width, sides, plan.overlap) == plan


def test_a_small_image_is_one_tile():
    assert plan_tiles(20, 30, 64, 16) == Plan(20, 30, 20, 30, 16, (0,), (0,))
    assert plan_tiles(20, 112, 64, 16) == Plan(20, 112, 20, 64, 16, (0,), (0, 48))


def test_tiles_come_row_by_row():
    plan = plan_tiles(10, 14, 8, 2)
    assert len(plan) == 4
    assert list(plan) == [(0, 0), (0, 6), (4, 0), (4, 6)]


def test_a_plan_reads_as_a_line():
    plan = plan_tiles(2000, 3000, 256, 32)
    assert str(plan) == "3000×2000: 14×9 tiles of 244×251, overlap 32"
    assert plan.redundancy == pytest.approx(14 * 9 * 244 * 251 / (2000 * 3000))
    assert plan_tiles(20, 30, 64, 16).redundancy == 1


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap", "message"),
    [
        (0, 5, 8, 2, "5×0"),
        (5, -1, 8, 2, "-1×5"),
        (5, 5, 8, 8, "8 of 8"),
        (5, 5, 8, 9, "9 of 8"),
        (5, 5, 8, -1, "-1 of 8"),
        (5, 5, 0, 0, "0 of 0"),
    ],
)
def test_a_senseless_plan_is_refused(height: int, width: int, tile: int, overlap: int, message: str):
    with pytest.raises(ValueError, match=message):
        plan_tiles(height, width, tile, overlap)


# The weights


@given(plans(), st.integers(1, 4))
def test_weights_sum_to_one(plan: Plan, scale: int):
    for starts, side in ((plan.tops, plan.tile_height), (plan.lefts, plan.tile_width)):
        starts, side = [scale * start for start in starts], scale * side
        weights = axis_weights(starts, side).astype(np.float64)
        total, count = np.zeros((2, starts[-1] + side))
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + side] += weight
            count[start : start + side] += 1
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)
        assert (weights >= 0).all()
        for start, weight in zip(starts, weights, strict=True):
            assert (weight[count[start : start + side] == 1] == 1).all()


@pytest.mark.parametrize("length", [1, 2, 7, 32, 256])
def test_the_ramp_and_its_mirror_image_sum_to_one(length: int):
    rise = ramp(length)
    assert rise.shape == (length,)
    assert (np.diff(rise) > 0).all()
    np.testing.assert_allclose(rise + rise[::-1], 1, rtol=0, atol=1e-12)
    assert rise[0] == pytest.approx((np.pi / 4 / length) ** 2, rel=0.3)


def test_weights_fall_to_the_rim_but_not_at_the_border():
    first, middle, last = axis_weights([0, 24, 48], 32)
    assert (first[:24] == 1).all()
    assert (last[8:] == 1).all()
    assert (middle[8:24] == 1).all()
    assert (np.diff(middle[:8]) > 0).all()
    assert middle[0] < 0.01
    np.testing.assert_array_equal(middle[:8], middle[:-9:-1])
    np.testing.assert_array_equal(middle[:8], last[:8])


# The blending


@given(small_plans, scales, st.integers(1, 4), st.sampled_from([np.positive, np.sqrt]))
def test_a_pointwise_network_leaves_no_trace(plan: Plan, scale: int, channels: int, network: np.ufunc):
    image = noise(scale * plan.height, scale * plan.width, channels, dtype=np.float32)
    joined = join(plan, [network(tile) for tile in cut(plan, image, scale)], scale)
    assert joined.dtype == np.float32
    assert joined.shape == image.shape
    np.testing.assert_allclose(joined, network(image), rtol=0, atol=1e-6)


@given(small_plans, scales)
def test_a_constant_stays_constant(plan: Plan, scale: int):
    tile = np.full((scale * plan.tile_height, scale * plan.tile_width, 1), 0.7, np.float32)
    np.testing.assert_allclose(join(plan, [tile] * len(plan), scale), 0.7, rtol=0, atol=1e-6)


def test_a_pixel_of_one_tile_is_that_tiles_to_the_bit():
    plan = plan_tiles(20, 20, 8, 2)
    image = noise(20, 20, 3, dtype=np.float32)
    alone = np.ones(20, bool)
    for start in plan.tops[1:]:
        alone[start : start + 2] = False
    joined = join(plan, cut(plan, image))
    np.testing.assert_array_equal(joined[np.ix_(alone, alone)], image[np.ix_(alone, alone)])


def test_tiles_that_disagree_are_mixed_by_weight():
    plan = plan_tiles(4, 12, 8, 4)
    tiles = [np.full((4, 8, 1), value, np.float32) for value in (0, 1)]
    expected = [0] * 4 + [np.sin(np.pi / 2 * (i + 0.5) / 4) ** 2 for i in range(4)] + [1] * 4
    for row in join(plan, tiles)[:, :, 0]:
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)


def test_an_error_at_the_rim_counts_for_next_to_nothing():
    plan = plan_tiles(56, 56, 32, 8)
    tile = np.zeros((32, 32, 1), np.float32)
    tile[[0, -1]] = tile[:, [0, -1]] = 1
    inside = join(plan, [tile] * len(plan))[1:-1, 1:-1]
    assert 0 < inside.max() < 0.02


def test_layout_and_owner_of_a_tile_do_not_matter():
    plan = plan_tiles(20, 30, 8, 3)
    tiles = cut(plan, noise(20, 30, 3, dtype=np.float32))
    turned = [np.ascontiguousarray(tile.transpose(2, 0, 1)).transpose(1, 2, 0) for tile in tiles]
    for tile in turned:
        tile.flags.writeable = False
    np.testing.assert_array_equal(join(plan, turned), join(plan, tiles))


@given(small_plans, scales)
def test_bands_come_in_order_and_as_early_as_possible(plan: Plan, scale: int):
    came = 0
    image = noise(scale * plan.height, scale * plan.width, 1, dtype=np.float32)

    def compute():
        for (top, _), tile in zip(plan, cut(plan, image, scale), strict=True):
            # Every row above this row of tiles is final, and none below its top can be.
            assert came == scale * top
            yield tile

    for band in blend_tiles(plan, compute(), scale):
        assert band.shape[1:] == (scale * plan.width, 1)
        assert len(band) > 0
        np.testing.assert_allclose(band, image[came : came + len(band)], rtol=0, atol=1e-6)
        came += len(band)
    assert came == scale * plan.height


def test_a_band_given_away_is_not_touched_again():
    plan = plan_tiles(40, 16, 8, 3)
    image = noise(40, 16, 3, dtype=np.float32)
    bands, copies = [], []
    for band in blend_tiles(plan, cut(plan, image), 1):
        copies.append(band.copy())
        bands.append(band)
    for band, copy in zip(bands, copies, strict=True):
        np.testing.assert_array_equal(band, copy)
        band[...] = 0
    assert all((band == 0).all() for band in bands)


@pytest.mark.parametrize("overlap", [0, 16, 32, 48])
def test_memory_is_a_row_of_tiles_and_one_tile(overlap: int):
    plan, scale = plan_tiles(640, 1280, 64, overlap), 2
    tile = noise(scale * plan.tile_height, scale * plan.tile_width, 3, dtype=np.float32)
    row_of_tiles = scale * plan.tile_height * (1280 * scale) * 3 * 4
    weights_and_objects = 400_000
    tracemalloc.start()
    try:
        for band in blend_tiles(plan, (tile for _ in plan), scale):
            del band
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert row_of_tiles < peak < row_of_tiles + tile.nbytes + weights_and_objects


def test_a_tile_is_let_go_before_the_next_is_computed():
    plan = plan_tiles(20, 20, 8, 2)

    def compute():
        for _ in plan:
            held = [noise(8, 8, 3, dtype=np.float32)]
            tile = weakref.ref(held[0])
            yield held.pop()
            assert tile() is None

    assert sum(len(band) for band in blend_tiles(plan, compute(), 1)) == 20


@given(small_plans, scales)
def test_the_same_tiles_give_the_same_bytes(plan: Plan, scale: int):
    tiles = cut(plan, noise(scale * plan.height, scale * plan.width, 3, dtype=np.float32), scale)
    assert join(plan, tiles, scale).tobytes() == join(plan, tiles, scale).tobytes()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), r"tile 0 has the shape \(8, 8, 3\), the plan needs \(16, 16, 3\)"),
        ((16, 16), r"tile 0 has the shape \(16, 16\), the plan needs \(16, 16, c\)"),
        ((1, 16, 16, 3), r"\(1, 16, 16, 3\), the plan needs \(16, 16, c\)"),
    ],
)
def test_a_tile_of_another_shape_is_refused(shape: tuple[int, ...], message: str):
    plan = plan_tiles(20, 20, 8, 2)
    with pytest.raises(ValueError, match=message):
        join(plan, [np.zeros(shape, np.float32)] * len(plan), 2)


def test_the_first_tile_says_how_many_channels_there_are():
    plan = plan_tiles(20, 20, 8, 2)
    tiles = [np.zeros((8, 8, channels), np.float32) for channels in (1, 1, 3)]
    with pytest.raises(ValueError, match=r"tile 2 has the shape \(8, 8, 3\), the plan needs \(8, 8, 1\)"):
        join(plan, tiles)


@pytest.mark.parametrize(("count", "message"), [(0, "0 came"), (8, "8 came"), (10, "10 or more came")])
def test_a_wrong_number_of_tiles_is_refused(count: int, message: str):
    plan = plan_tiles(20, 20, 8, 2)
    received: list[np.ndarray] = []

    def receive():
        for band in blend_tiles(plan, [np.zeros((8, 8, 1), np.float32)] * count, 1):
            received.append(band)

    with pytest.raises(ValueError, match=f"{message}, the plan has 9"):
        receive()
    # Nobody can take what came for a whole image.
    assert sum(len(band) for band in received) < 20


def test_a_scale_below_one_is_refused():
    plan = plan_tiles(20, 20, 8, 2)
    with pytest.raises(ValueError, match="0"):
        join(plan, [], 0)


def test_a_tile_without_neighbours_shares_nothing() -> None:
    alone, neighbours = plan_tiles(30, 40, 64, 16), plan_tiles(30, 100, 64, 16)
    assert (alone.shared, neighbours.shared) == (0, 16)
    assert str(alone).endswith("1×1 tiles of 40×30, overlap 0")
