"""Limits of a server where it is given no others; nothing heavy is imported here, for ``--help``."""

MAX_BYTES = 2**30  # of an image file
MOST_WAITING = 32  # images at a time
MOST_MODELS = 4  # that are kept loaded
