"""Ranges of the numbers that a restorer takes, for options, too; nothing heavy is imported here."""

# Smallest and largest numbers of options that are also arguments of a restorer; None for no such bound.
RANGES: dict[str, tuple[int | None, int | None]] = {
    "sigma": (0, 255),
    "jpeg_quality": (1, 100),
    "tile": (16, 2**20),
    "overlap": (0, 2**20),
    "seed": (-(2**63), 2**63 - 1),
    "strength": (0, 1),
}
