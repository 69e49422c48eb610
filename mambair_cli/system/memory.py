"""How much memory this process has had."""

import sys


def peak_memory() -> int | None:
    """Return the most memory that the process has had so far, in bytes; None where the system cannot tell."""
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
