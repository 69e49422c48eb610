"""Line charts as SVG, for pages that no script needs."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 12, 34
# Each has a contrast of three to one at least with a light and with a dark page.
_COLOURS = ("#2f78e8", "#dc4a44", "#2b9450", "#a960f5", "#cc6a00", "#128fa0")

Series = Mapping[str, Sequence[tuple[float, float]]]
"""Lines by name: points (x, y), x rising."""


def draw_chart(title: str, series: Series, x_name: str, y_name: str) -> str:
    """Draw lines over one axis.

    Args:
        title: What the chart shows, also for screen readers.
        series: The lines; values that are not finite are left out.
        x_name: Name of the horizontal axis.
        y_name: Name and unit of the vertical axis.

    Returns:
        A figure, as HTML; an empty text where there is no point.
    """
    lines = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in series.items()
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    across, up = ([point[axis] for point in points] for axis in (0, 1))
    x_ticks, y_ticks = (find_ticks(min(values), max(values)) for values in (across, up))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        rise = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + right * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - rise * (HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_show(tick)}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{_show(tick)}</text>')
    for (name, line), colour in zip(lines.items(), _COLOURS * len(lines), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        last = f"; last {_show(line[-1][1])}" if line else ""
        parts.append(
            f'<polyline points="{path}" stroke="{colour}"><title>{escape(name)}{last}</title></polyline>'
        )
        if len(line) == 1:
            x, y = place(*line[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 1}" text-anchor="end">{escape(x_name)}</text>')
    legend = "".join(
        f'<tspan fill="{colour}" dx="{8 if place else 0}">\N{BLACK CIRCLE}</tspan> {escape(name)}'
        for place, (name, colour) in enumerate(zip(lines, _COLOURS * len(lines), strict=False))
    )
    head = (
        f'<text x="{_LEFT + 6}" y="{_TOP + 10}" font-weight="600">{legend}</text>' if len(lines) > 1 else ""
    )
    return (
        f'<figure><figcaption>{escape(title)}, {escape(y_name)}</figcaption><svg class="chart" role="img" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><title>{escape(title)}</title>{"".join(parts)}{head}</svg></figure>'
    )


def find_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers at equal steps that enclose a range; at least two."""
    if high <= low:
        half = abs(low) * 0.05 or 1.0
        low, high = low - half, high + half
    rough = (high - low) / (most - 1)
    power = 10 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _show(number: float) -> str:
    """Write a number in a few characters."""
    if number and (abs(number) >= 1e6 or abs(number) < 1e-3):
        return f"{number:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{number:.5g}"
