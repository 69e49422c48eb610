"""What a picture needs: the kind of model that suits what was seen of it."""

from dataclasses import dataclass
from typing import Literal

from mambair_cli.inspection.look import Look

Kind = Literal["clean", "real", "white"]
"""A kind of picture: clean; noisy, compressed or old; or with white noise and nothing else."""

# Edition of these rules and of the estimator: a journal tells by it which results another one would choose
# a model for anew.
EDITION = 1

CLEAN_QUALITY = 90  # from here on, enlarged traces of compression are not visible
NOISY = 3.0  # sigma, in steps of 8 bits: below, models for clean pictures are the better ones
WHITE_GRAIN = 0.2  # largest likeness of neighbours in white noise
WHITE_QUALITY = 97  # least quality of a picture whose noise can still be white
SOFT = 0.72  # share of the resolution in use, from which on a picture was enlarged before


@dataclass(frozen=True)
class Need:
    """What a picture needs.

    Attributes:
        kind: Kind of the picture.
        reasons: What was seen of it, in a few words each; empty for a clean picture.
        sigma: Sigma of its white noise, of 255; None for other pictures.
        reduce: Factor by which to reduce it first, since it was enlarged by that before; 1 for none.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()
    sigma: float | None = None
    reduce: float = 1.0


def is_compressed(jpeg_quality: int | None) -> bool:
    """Tell whether a file of that JPEG quality, None for any other file, shows traces of compression."""
    return jpeg_quality is not None and jpeg_quality < CLEAN_QUALITY


def find_need(look: Look | None, jpeg_quality: int | None) -> Need:
    """Tell what a picture needs.

    Args:
        look: What was seen of its pixels; None where it is too small.
        jpeg_quality: Quality by the tables of its file; None where it is no JPEG.
    """
    reasons = []
    seen = look.quality if look is not None else 100
    has_traces = True
    if is_compressed(jpeg_quality):
        reasons.append(f"a JPEG of quality {jpeg_quality}")
    elif not is_compressed(seen):
        has_traces = False
    else:
        reasons.append(f"traces of compression, as in a JPEG of quality {seen}")
    if look is None:
        return Need("real" if has_traces else "clean", tuple(reasons))
    is_noisy = look.noise >= NOISY
    is_white = look.grain <= WHITE_GRAIN and look.quality >= WHITE_QUALITY and not has_traces
    if is_noisy:
        reasons.append(f"{'white' if is_white else 'coarse'} noise of sigma {look.noise:.0f}")
    reduce = 1.0
    if look.resolution < SOFT:
        reduce = round(1 / look.resolution, 1)
        reasons.append(f"enlarged about {reduce:g} times before, or as soft")
    if is_noisy and is_white:
        return Need("white", tuple(reasons), look.noise, reduce)
    return Need("real" if is_noisy or has_traces else "clean", tuple(reasons), None, reduce)
