"""What images are and what they need, as text: one in full, or several in a table."""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mambair_cli.cli.look_words import BETTER_FOR_JPEG, HARDLY, name_little_noise
from mambair_cli.cli.progress import shorten
from mambair_cli.images.formats import FORMATS
from mambair_cli.images.provenance import read_note
from mambair_cli.inspection.features import SMALLEST
from mambair_cli.inspection.need import (
    NOISY,
    SEEN_QUALITY,
    SOFT,
    WHITE_COMMON,
    WHITE_QUALITY,
    is_faint,
    is_fine,
)
from mambair_cli.system.wording import format_bytes, show_number

if TYPE_CHECKING:
    from mambair_cli.images import Header
    from mambair_cli.inspection.inspect_image import Inspection
    from mambair_cli.inspection.look import Look

WIDE = 130  # columns of a terminal, from which on the table has all its columns
LONGEST_NAME, SHORTEST_NAME = 40, 12  # in a table, in terminal cells
LABEL_WIDTH = 13
NEARLY_ALL = 0.995  # a share that is shown as 100 %
CLEARLY = 1.4  # ratio of two sigmas that is worth a word
TONES = ("dark", "medium", "bright")
NONE, UNKNOWN = "-", "?"
_TITLES = {"jpeg2000": "JPEG 2000", "exr": "OpenEXR", **{name: row.title for name, row in FORMATS.items()}}


def print_in_full(inspection: "Inspection") -> None:
    """Print all about an image."""
    print_lines(_describe(inspection))


def print_lines(parts: Iterable[tuple[str, str]]) -> None:
    """Print labels and texts; in a terminal, lines are broken between words."""
    width = _terminal_width()
    for label, text in parts:
        start = f"{label + ':':{LABEL_WIDTH}}"
        if width is None:
            print(start + text)
            continue
        print(
            textwrap.fill(
                text,
                max(width - 1, 2 * LABEL_WIDTH),
                initial_indent=start,
                subsequent_indent=" " * LABEL_WIDTH,
                break_on_hyphens=False,
                break_long_words=False,
            )
        )


def _describe(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    """Yield the parts of a description: a label and a text."""
    header, look = inspection.header, inspection.need.look
    quality, size = inspection.need.jpeg_quality, inspection.size
    format = _TITLES.get(header.format, header.format.upper())
    yield "image", shorten(str(inspection.source), sys.maxsize)
    by_tables = "" if quality is None else f" of quality {quality} by its tables"
    yield "file", f"{format}{by_tables}" + ("" if size is None else f", {format_bytes(size)}")
    megapixels = header.width * header.height / 1e6
    count = f", {show_number(megapixels, 3)} megapixels" if megapixels >= 0.001 else ""
    frames = f", {header.frames} frames or pages; the first is looked at" if header.frames > 1 else ""
    yield "size", f"{header.width}×{header.height} pixels{count}{frames}"
    share = f"; they fill {100 * look.filled:.2g} % of their range" if look and is_faint(look) else ""
    yield "samples", f"{_name_depth(inspection)}, {_name_colours(inspection)}{share}"
    yield "profile", inspection.profile or "none; taken for sRGB"
    if (note := read_note(header.metadata.xmp)) is not None:
        yield "made by", ", ".join(f"{name} {value}" for name, value in note.items() if value is not None)
    if look is None:
        shown = "to look at" if _is_small(header) else "are visible"
        yield "pixels", f"too few {shown}; {SMALLEST}×{SMALLEST} in one piece are needed"
    else:
        yield "compression", _describe_compression(look)
        yield "noise", _describe_noise(look, header.bands == 1)
        yield "detail", _describe_detail(inspection, look)
    yield "upscale", _explain_upscale(inspection)
    yield "denoise", _explain_denoise(inspection)


def _name_depth(inspection: "Inspection") -> str:
    return f"{inspection.bits} bits" + (", floats" if inspection.is_float else "")


def _name_colours(inspection: "Inspection") -> str:
    header = inspection.header
    alpha = " with transparency" if header.has_alpha else ""
    masks = f", {len(header.masks)} more channels" if header.masks else ""
    colours = "CMYK, becomes RGB" if header.is_from_cmyk else "gray" if header.bands == 1 else "RGB"
    return colours + alpha + masks


def _describe_compression(look: "Look") -> str:
    if look.quality >= WHITE_QUALITY:
        return "no traces in the pixels"
    visible = "" if look.quality < SEEN_QUALITY else ", hardly visible"
    return f"traces in the pixels, as in a JPEG of quality {look.quality}{visible}"


def _describe_noise(look: "Look", is_gray: bool) -> str:
    if look.noise < HARDLY:
        return f"hardly any (sigma {look.noise:.1f} of 255)"
    channels = zip(("red", "green", "blue"), look.sigma, strict=True)
    parts = [", ".join(f"{name} {_show(sigma)}" for name, sigma in channels)] if not is_gray else []
    parts += ["fine" if is_fine(look) else f"coarse (neighbours alike by {look.grain:.1f})"]
    if look.common > WHITE_COMMON and not is_gray:
        share = f"{100 * look.common:.0f} % of it " if look.common < NEARLY_ALL else ""
        parts += [f"{share}alike in all colours"]
    low, high = min(look.tones), max(look.tones)
    if high > CLEARLY * low and high >= HARDLY:
        most, least = (TONES[look.tones.index(value)] for value in (high, low))
        parts += [f"{high / max(low, 0.1):.1f} times as strong in {most} areas as in {least} ones"]
    little = "" if look.noise >= NOISY else "little, "
    return f"{little}sigma {_show(look.noise)} of 255; " + "; ".join(parts)


def _describe_detail(inspection: "Inspection", look: "Look") -> str:
    share = f"{100 * look.resolution:.0f} % of the resolution is used"
    reduce = inspection.need.reduce
    if look.resolution >= SOFT or reduce <= 1:
        return share
    width, height = (
        max(1, round(side / reduce)) for side in (inspection.header.width, inspection.header.height)
    )
    return (
        f"{share}, as soft as a picture that was enlarged {reduce:g} times; "
        f"reduced to {width}×{height} pixels, it keeps its detail"
    )


def _explain_upscale(inspection: "Inspection") -> str:
    need = inspection.need
    if need.kind != "clean":
        return f"model for real photographs: {'; '.join(need.reasons)}. --clean overrules."
    why = _explain_unseen(inspection) or "little noise, no visible compression"
    return f"model for clean pictures: {why}. --real overrules."


def _explain_denoise(inspection: "Inspection") -> str:
    need, look = inspection.need, inspection.need.look
    if need.kind == "white" and need.sigma is None:
        return "built-in model for white noise. --real overrules."
    if need.sigma is not None:
        return f"model for white noise, with --sigma {need.sigma:.0f}. --real and another --sigma overrule."
    if need.kind == "real":
        better = f"; {BETTER_FOR_JPEG}" if need.is_compressed_alone else ""
        remark = f" and JPEG artefacts{better}"
    elif look is None:
        remark = f": {_explain_unseen(inspection)}"
    else:
        remark = f": {name_little_noise(look)}, no visible compression"
    return f"model for noise of any kind{remark}. --clean and --sigma overrule."


def _explain_unseen(inspection: "Inspection") -> str | None:
    """Say why nothing is known of what an image shows; None where something is."""
    if inspection.need.look is not None:
        return None
    what = "too small" if _is_small(inspection.header) else "too little of it is visible"
    return f"{what} to look at"


def _is_small(header: "Header") -> bool:
    return min(header.width, header.height) < SMALLEST


def _show(sigma: float) -> str:
    """Write a sigma with two digits."""
    return f"{sigma:.1f}" if sigma < 9.95 else f"{sigma:.0f}"


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        title: Title of the column.
        width: Width, in characters.
        cell: Returns the text of a cell.
        is_wide: Whether only wide terminals have it.
        is_text: Whether it is aligned at the left.
    """

    title: str
    width: int
    cell: "Callable[[Inspection], str]"
    is_wide: bool = False
    is_text: bool = False


def _name_samples(inspection: "Inspection") -> str:
    header = inspection.header
    colours = "gray" if header.bands == 1 else "RGB"
    depth = "float" if inspection.is_float else str(inspection.bits)
    return f"{depth} {colours}{'+A' if header.has_alpha else ''}"


def _show_seen(inspection: "Inspection") -> str:
    if inspection.need.look is None:
        return UNKNOWN
    return NONE if inspection.need.look.quality >= WHITE_QUALITY else str(inspection.need.look.quality)


def _show_noise(inspection: "Inspection") -> str:
    look = inspection.need.look
    if look is None:
        return UNKNOWN
    kind = "fine" if is_fine(look) else "coarse"
    return _show(look.noise) + (f" {kind}" if look.noise >= NOISY else "")


def _show_detail(inspection: "Inspection") -> str:
    return UNKNOWN if inspection.need.look is None else f"{100 * inspection.need.look.resolution:.0f} %"


def _show_denoise(inspection: "Inspection") -> str:
    need = inspection.need
    if need.sigma is None:
        return "white" if need.kind == "white" else "real"
    return f"sigma {need.sigma:.0f}"


COLUMNS = (
    Column("pixels", 10, lambda one: f"{one.header.width}×{one.header.height}"),
    Column("samples", 10, _name_samples, is_wide=True, is_text=True),
    Column("format", 8, lambda one: one.header.format, is_wide=True, is_text=True),
    Column("JPEG", 4, lambda one: NONE if one.need.jpeg_quality is None else str(one.need.jpeg_quality)),
    Column("seen", 4, _show_seen),
    Column("noise", 9, _show_noise, is_text=True),
    Column("detail", 6, _show_detail),
    Column("upscale", 7, lambda one: "clean" if one.need.kind == "clean" else "real", is_text=True),
    Column("denoise", 8, _show_denoise, is_text=True),
)


class Table:
    """A table of images that is printed row after row.

    In a terminal, the folder that has all the images is printed once, above the table.

    Args:
        names: Names of all the images.
    """

    def __init__(self, names: Sequence[str]) -> None:
        width = _terminal_width()
        self._is_wide = width is None or width >= WIDE
        self._columns = [column for column in COLUMNS if self._is_wide or not column.is_wide]
        self._width = sys.maxsize if width is None else width - 1
        self._folder = "" if width is None else _find_folder(names)
        longest = max(len(name) - len(self._folder) for name in names)
        others = sum(column.width + 2 for column in self._columns)
        most = longest if width is None else LONGEST_NAME if self._is_wide else self._width - others
        self._name_width = min(longest, max(most, SHORTEST_NAME))
        self._has_begun = False

    def print_row(self, inspection: "Inspection") -> None:
        """Print the row of an image, and what is above the first one."""
        if not self._has_begun:
            self._has_begun = True
            if self._folder:
                print(shorten(self._folder, self._width))
            self._print("image", [column.title for column in self._columns], "why")
        reasons = filter(None, (*inspection.need.reasons, _explain_unseen(inspection)))
        cells = [column.cell(inspection) for column in self._columns]
        self._print(str(inspection.source).removeprefix(self._folder), cells, "; ".join(reasons))

    def _print(self, name: str, cells: Sequence[str], reasons: str) -> None:
        from rich.cells import cell_len

        name = shorten(name, self._name_width)
        row = name + " " * (self._name_width - cell_len(name))
        for column, cell in zip(self._columns, cells, strict=True):
            row += "  " + (cell.ljust(column.width) if column.is_text else cell.rjust(column.width))
        if self._is_wide and reasons:
            row += f"  {shorten(reasons, max(self._width - cell_len(row) - 2, SHORTEST_NAME))}"
        print(row.rstrip())


def _find_folder(names: Sequence[str]) -> str:
    """Return the folder that has all of the images, with a slash at its end; nothing where there is none."""
    folders = [os.path.dirname(name) for name in names]
    if "" in folders or len({os.path.isabs(folder) for folder in folders}) > 1:
        return ""
    folder = os.path.join(os.path.commonpath(folders), "")
    return folder if all(name.startswith(folder) for name in names) else ""


def _terminal_width() -> int | None:
    """Return the columns of the terminal; None where the output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
