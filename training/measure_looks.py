"""Measure how far the estimates of ``mambair inspect`` are off, on pictures whose truth is known.

    python training/measure_looks.py --photographs DIR ... --graphics DIR ... --count 3000

The pictures are made as those for training are, from the eighth of the files that training does not use.
"""

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np
from make_looks import Made, Maker, add_folders, find_files

from mambair_cli.inspection.look import SIGMA_OFFSET, STEP_OFFSET, Look, look_at_pixels

SIGMAS = ((0.0, 0.1), (0.1, 1.5), (1.5, 3), (3, 6), (6, 12), (12, 25), (25, 70))
QUALITIES = ((10, 30), (30, 50), (50, 70), (70, 80), (80, 88), (88, 94), (94, 99))
RESOLUTIONS = ((0.2, 0.35), (0.35, 0.5), (0.5, 0.65), (0.65, 0.8), (0.8, 0.99), (0.99, 1.01))
FEWEST = 12  # pictures in a row of a table


def tell_quality(made: Made) -> float:
    """Return the quality that a picture was saved with; 100 for none."""
    step = np.exp(made.truth[7]) - STEP_OFFSET
    return 50 / step if step > 1 else 100 - 50 * step


def tell_sigma(made: Made) -> float:
    """Return the sigma of the noise in a picture, the mean of the channels."""
    return max(0.0, float(np.exp(made.truth[:3]).mean() - SIGMA_OFFSET))


def show_row(label: str, truths: Sequence[float], estimates: Sequence[float], digits: int) -> None:
    """Print a row of a table, if there are enough pictures."""
    if len(truths) < FEWEST:
        return
    low, middle, high = np.quantile(estimates, [0.1, 0.5, 0.9])
    cells = [f"{number:.{digits}f}" for number in (np.median(truths), middle, low, high)]
    print(f"| {label} | {len(truths)} | {cells[0]} | {cells[1]} | {cells[2]} to {cells[3]} |")


def make_pictures(maker: Maker, count: int) -> Iterator[Made]:
    """Make so many pictures."""
    while count:
        if (made := maker.make()) is not None:
            count -= 1
            yield made


def main() -> None:
    """Make pictures, look at them, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_folders(parser)
    parser.add_argument("--count", type=int, default=3000)
    arguments = parser.parse_args()
    photographs, graphics = (
        find_files(each, held_out=True) for each in (arguments.photographs, arguments.graphics)
    )
    maker = Maker(photographs, graphics, seed=20)
    seen: list[tuple[Made, Look]] = []
    seconds = 0.0
    for made in make_pictures(maker, arguments.count):
        picture = made.picture / np.float32(255)
        begun = time.perf_counter()
        look = look_at_pixels(picture)
        seconds += time.perf_counter() - begun
        if look is not None:
            seen.append((made, look))
    head = "pictures | truth, median | estimate, median | estimate, 8 of 10 |\n|---|---|---|---|---|"
    groups = {
        "8 bits, colour, not compressed": lambda made: (
            made.is_rounded and not made.is_gray and not made.is_saved
        ),
        "gray, not compressed": lambda made: made.is_gray and not made.is_saved,
        "more than 8 bits": lambda made: not made.is_rounded,
        "compressed": lambda made: made.is_saved,
    }
    for name, belongs in groups.items():
        print(f"\n**Noise, {name}** (sigma of 255)\n\n| true sigma | {head}")
        for low, high in SIGMAS:
            rows = [(tell_sigma(one), look.noise) for one, look in seen if belongs(one)]
            rows = [row for row in rows if low <= row[0] < high]
            show_row(f"{low:g} to {high:g}", [row[0] for row in rows], [row[1] for row in rows], 1)
    print(f"\n**Compression** (JPEG quality; 100 for none)\n\n| true quality | {head}")
    for low, high in QUALITIES:
        rows = [(tell_quality(one), look.quality) for one, look in seen]
        rows = [row for row in rows if low <= round(row[0]) < high]
        show_row(f"{low} to {high - 1}", [row[0] for row in rows], [row[1] for row in rows], 0)
    rows = [look.quality for one, look in seen if not one.is_saved]
    show_row("not compressed", [100.0] * len(rows), rows, 0)
    print(f"\n**Detail** (share of the resolution)\n\n| true share | {head}")
    for low, high in RESOLUTIONS:
        rows = [(2 ** one.truth[8], look.resolution) for one, look in seen]
        rows = [row for row in rows if low <= row[0] < high]
        show_row(f"{low:g} to {min(high, 1):g}", [row[0] for row in rows], [row[1] for row in rows], 2)
    alike = [(one.truth[3], look.grain) for one, look in seen if tell_sigma(one) > 3]
    errors = [abs(max(truth, 0) - estimate) for truth, estimate in alike]
    middle, high = np.quantile(errors, [0.5, 0.9])
    print(f"\ngrain, where sigma is above 3: off by {middle:.2f} in the median, {high:.2f} in 9 of 10")
    pixels = sum(made.picture[..., 0].size for made, _ in seen)
    print(f"{seconds / pixels * 1e6:.2f} µs a pixel")


if __name__ == "__main__":
    main()
