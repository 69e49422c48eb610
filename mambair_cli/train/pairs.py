"""Pairs of pictures among those to train on: the small halves, which others take as inputs, are no truth."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from mambair_cli.system.wording import show, show_count

FACTORS = range(2, 9)  # by which small halves are reduced
_FACTOR_IN_NAME = re.compile(r"(?<=\d)x\d$")  # 0001x2.png is the half of 0001.png

Sizes = tuple[tuple[int, int], ...]
"""Heights and widths of the pictures of a folder, in the order of their names."""


def explain_pairs(sizes: Mapping[Path, tuple[int, int]], purpose: str) -> Iterator[str]:
    """Yield a sentence on folders that seem to hold the pictures of other folders, reduced.

    Only the names and sizes of pictures are compared, so many folders cost little.

    Args:
        sizes: Height and width of each picture, in pixels.
        purpose: Participle for what pictures are used for, such as "learned".
    """
    found = dict(_find_pairs(sizes))
    if not found:
        return
    small, (large, factor) = next(iter(found.items()))
    others = len(found) - 1
    seems = f"and {show_count(others, 'other folder')} seem" if others else "seems"
    yield (
        f"{show(small)} {seems} to hold the pictures of {show(large)} {factor} times smaller, and they are "
        f"{purpose} as truth, too; inputs are made from the large pictures alone: give only {show(large)}"
    )


def _find_pairs(sizes: Mapping[Path, tuple[int, int]]) -> Iterator[tuple[Path, tuple[Path, int]]]:
    """Yield a folder with small halves, the folder with the large ones, and the factor between them."""
    pictures: dict[Path, dict[str, tuple[int, int]]] = defaultdict(dict)
    for file, size in sizes.items():
        pictures[file.parent][_FACTOR_IN_NAME.sub("", file.stem)] = size
    alike: dict[tuple[str, ...], dict[Sizes, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder, named in pictures.items():
        names = tuple(sorted(named))
        alike[names][tuple(named[name] for name in names)].append(folder)
    for folders in alike.values():
        for large_sizes, large in folders.items():
            for factor, small_sizes in _reduce(large_sizes):
                for small, partner in _match(folders.get(small_sizes, []), large):
                    yield small, (partner, factor)


def _reduce(sizes: Sizes) -> Iterator[tuple[int, Sizes]]:
    """Yield the sizes that halves of pictures may have, rounded down or up, and their factors."""
    for factor in FACTORS:
        floors = tuple((height // factor, width // factor) for height, width in sizes)
        ceilings = tuple((-(-height // factor), -(-width // factor)) for height, width in sizes)
        yield from ((factor, each) for each in dict.fromkeys((floors, ceilings)) if each != sizes)


def _match(small: list[Path], large: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield each folder with small halves, and that with the large ones whose path ends most alike.

    What both paths end with is dropped: of lr/a and hr/a, lr and hr remain.
    """
    ends = {each.parts[start:]: each for each in large for start in range(len(each.parts))} if small else {}
    for folder in small:
        ours = folder
        tails = (folder.parts[start:] for start in range(len(folder.parts)))
        theirs = next((ends[tail] for tail in tails if tail in ends), large[0])
        while ours.name == theirs.name and ours.parent != theirs.parent:
            ours, theirs = ours.parent, theirs.parent
        yield ours, theirs
