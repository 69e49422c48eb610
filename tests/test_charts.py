"""Charts of pages: points where they belong, and axes with round numbers."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair_cli.pages.charts import draw_chart, find_ticks
from mambair_cli.pages.document import FOLDER

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@given(low=FINITE, length=st.floats(1e-3, 1e6))
def test_ticks_enclose_the_range_at_equal_steps(low: float, length: float) -> None:
    high = low + length
    ticks = find_ticks(low, high)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    slack = 1e-6 * max(abs(low), abs(high), steps[0])
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert steps == pytest.approx([steps[0]] * len(steps), abs=slack)
    assert 2 <= len(ticks) <= 8


def test_ticks_are_round_numbers() -> None:
    assert find_ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert find_ticks(31.62, 32.1) == pytest.approx([31.6, 31.7, 31.8, 31.9, 32.0, 32.1])
    assert len(find_ticks(5, 5)) >= 2


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline points="([^"]*)"', chart)
    pairs = [[point.split(",") for point in line.split()] for line in lines]
    return [[(float(x), float(y)) for x, y in line] for line in pairs]


def test_lines_lie_where_the_axes_say() -> None:
    chart = draw_chart("Loss", {"a": [(0, 0.0), (50, 10.0), (100, 5.0)]}, "step", "dB")
    (first, second, third) = points_of(chart)[0]
    assert second[0] - first[0] == pytest.approx(third[0] - second[0], abs=0.2)
    assert first[1] - second[1] == pytest.approx(2 * (third[1] - second[1]), abs=0.2)
    grid = sorted({float(y) for y in re.findall(r'class="grid"[^>]*y1="([\d.]*)"', chart)})
    assert (second[1], first[1]) == (grid[0], grid[-1])
    labels = re.findall(r'text-anchor="end">(\d+)<', chart)
    assert labels[:1] == ["0"]
    assert labels[-1] == "10"


def test_names_are_text_and_no_part_of_the_page() -> None:
    chart = draw_chart("<b>", {"<i>": [(0, 1)], "&": [(0, 2), (1, 3)]}, "<x>", "<y>")
    assert "<b>" not in chart
    assert "<i>" not in chart
    assert "&lt;x&gt;" in chart
    assert "&amp;" in chart


def test_without_a_finite_point_there_is_no_chart() -> None:
    assert draw_chart("Loss", {"a": [(1, math.nan)]}, "step", "dB") == ""
    assert draw_chart("Loss", {}, "step", "dB") == ""
    assert points_of(draw_chart("Loss", {"a": [(0, 1), (1, math.inf), (2, 3)]}, "step", "dB"))[0][0][0] > 0


def test_lines_are_seen_on_a_light_and_on_a_dark_page() -> None:
    styles = (FOLDER / "viewer.css").read_text()
    papers = re.findall(r"--paper: (#\w{6})", styles)
    assert len(papers) == 2
    lines = {str(number): [(0.0, 1.0), (1.0, float(number))] for number in range(6)}
    colours = set(re.findall(r'stroke="(#\w{6})"', draw_chart("a", lines, "x", "y")))
    assert len(colours) == 6
    for colour in colours:
        for paper in papers:
            low, high = sorted((luminance(colour), luminance(paper)))
            assert (high + 0.05) / (low + 0.05) >= 3, (colour, paper)


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [
        (value + 0.055) ** 2.4 / 1.055**2.4 if value > 0.04 else value / 12.92 for value in (red, green, blue)
    ]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
