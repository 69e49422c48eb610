"""What a picture needs: the kind of model that suits what was seen of it."""

from dataclasses import dataclass
from typing import Any, Literal

from mambair_cli.images.stretch import FAINT
from mambair_cli.inspection.look import Look

Kind = Literal["clean", "real", "white"]
"""A kind of picture: clean; noisy, compressed or old; or with white noise and nothing else."""

# Edition of these rules and of the features: a journal tells by it, and by the estimator's hash, which
# results to make anew.
EDITION = 11

# From this JPEG quality on, and below this sigma of 255, models for clean pictures give the higher PSNR;
# measured by training/measure_choices.py.
CLEAN_QUALITY = 93
SEEN_QUALITY = 92  # by an estimate from pixels, which may be wrong
NOISY = 2.5
TEXTURED = 7.0  # the same for coarse noise without traces of compression, which is more often texture
COARSE_GRAIN = 0.5  # likeness of neighbours in coarse noise
TEXTURED_QUALITY = 95  # least quality of such a picture
WHITE_GRAIN = 0.2  # largest likeness of neighbours in white noise
# Largest share of white noise that channels may have in common, and the least one in gray noise. What lies
# between is for models for noise of any kind, which are better there by up to 2 dB; measured.
WHITE_COMMON, GRAY_COMMON = 0.15, 0.94
WHITE_QUALITY = 97  # least quality of a picture whose noise can still be white
# Largest share without any noise of a picture whose noise can still be white; models for that know few such
# pictures, and keep up to half of the noise next to them; measured.
MOST_QUIET = 0.15
SOFT = 0.72  # share of the resolution in use, from which on a picture was enlarged before


@dataclass(frozen=True)
class Need:
    """What a picture needs.

    Attributes:
        kind: Kind of the picture.
        reasons: What was seen of it, in a few words each; empty for a clean picture.
        sigma: Sigma of white noise of its own in each colour, of 255; None for other pictures.
        reduce: Factor by which to reduce it first, since it was enlarged by that before; 1 for none.
        look: The estimates; None for a picture that is too small to tell, or of which too little can be seen.
        jpeg_quality: Quality by the tables of its file; None where it is no JPEG.
    """

    kind: Kind
    reasons: tuple[str, ...] = ()
    sigma: float | None = None
    reduce: float = 1.0
    look: Look | None = None
    jpeg_quality: int | None = None

    @property
    def damages(self) -> tuple[str, ...]:
        """Those reasons that speak for the model for real pictures; softness, which is the last, does not."""
        return self.reasons[: len(self.reasons) - (self.reduce > 1)]

    @property
    def is_compressed_alone(self) -> bool:
        """Whether compression is all that speaks for the model for real pictures."""
        has_traces = self.look is not None and self.look.quality < SEEN_QUALITY
        is_alone = self.kind == "real" and len(self.damages) == 1
        return is_alone and (is_compressed(self.jpeg_quality) or has_traces)


def find_need(look: Look | None, jpeg_quality: int | None) -> Need:
    """Tell what a picture needs.

    Args:
        look: What was seen of its pixels; None where that is too little.
        jpeg_quality: Quality by the tables of its file; None where it is no JPEG.
    """
    reasons = []
    if is_compressed(jpeg_quality):
        reasons.append(f"a JPEG of quality {jpeg_quality}")
    elif look is not None and look.quality < SEEN_QUALITY:
        reasons.append(f"traces of compression, as in a JPEG of quality {look.quality}")
    if look is not None and look.two_valued:  # what looks like noise and softness is its stairs
        return Need("real", ("only two values, as in a scan of 1 bit",), None, 1.0, look, jpeg_quality)
    kind: Kind = "real" if reasons else "clean"
    sigma, reduce = None, 1.0
    is_noisy = look is not None and look.noise >= _least_noise(look)
    if look is not None and is_noisy:
        is_alike = look.common <= WHITE_COMMON or is_gray_noise(look)
        is_white = kind == "clean" and is_fine(look) and is_alike and look.quiet <= MOST_QUIET
        kind = "white" if is_white and look.quality >= WHITE_QUALITY else "real"
        sigma = look.noise if kind == "white" and not is_gray_noise(look) else None
        flat = ", and areas without noise" if look.quiet > MOST_QUIET else ""
        reasons.append(f"{name_noise(look)} of sigma {look.noise:.0f}{flat}")
    if look is not None and look.resolution < SOFT and not is_noisy:  # noise hides the detail
        reduce = round(1 / look.resolution, 1)
        reasons.append(f"as soft as a picture that was enlarged {reduce:g} times")
    return Need(kind, tuple(reasons), sigma, reduce, look, jpeg_quality)


def _least_noise(look: Look) -> float:
    """Return the least sigma that counts as noise."""
    is_texture = look.grain > COARSE_GRAIN and look.quality >= TEXTURED_QUALITY
    return TEXTURED if is_texture else NOISY


def is_fine(look: Look) -> bool:
    """Tell whether noise differs from pixel to pixel, and has no grains."""
    return look.grain <= WHITE_GRAIN


def is_gray_noise(look: Look) -> bool:
    """Tell whether noise is alike in all colours, as in every gray picture."""
    return look.common >= GRAY_COMMON


def name_noise(look: Look) -> str:
    """Name a picture's noise."""
    if not is_fine(look):
        return "coarse noise"
    partly = "" if is_gray_noise(look) else "partly "
    return f"fine {partly}gray noise" if look.common > WHITE_COMMON else "fine noise"


def is_faint(look: Look) -> bool:
    """Tell whether a picture fills little of the range of its samples, as data of 12 bits in files of 16."""
    return 0 < look.filled < FAINT


def is_compressed(jpeg_quality: int | None) -> bool:
    """Tell whether a file of that JPEG quality, None for any other file, shows traces of compression."""
    return jpeg_quality is not None and jpeg_quality < CLEAN_QUALITY


def describe_need(need: Need) -> dict[str, Any]:
    """Describe what was seen of a picture, and what it needs, as JSON; :func:`read_need` undoes that."""
    look = need.look
    return {
        "kind": need.kind,
        "reasons": list(need.reasons),
        "damages": list(need.damages),
        "compressed_alone": need.is_compressed_alone,
        "jpeg_quality": need.jpeg_quality,
        "quality_in_pixels": look and look.quality,
        "sigma": look and [round(sigma, 2) for sigma in look.sigma],
        "tones": look and list(look.tones),
        "grain": look and look.grain,
        "common": look and look.common,
        "filled": look and look.filled,
        "quiet": look and look.quiet,
        "two_valued": look and look.two_valued,
        "stretched": look and look.stretched,
        "resolution": look and look.resolution,
        "reduce": look and need.reduce,
        "denoise_sigma": need.sigma,
    }


def read_need(facts: dict[str, Any]) -> Need:
    """Undo :func:`describe_need`.

    Raises:
        TypeError, KeyError: The facts do not come from it.
    """
    look = None
    if facts["sigma"] is not None:
        look = Look(
            sigma=tuple(facts["sigma"]),
            grain=facts["grain"],
            tones=tuple(facts["tones"]),
            quality=facts["quality_in_pixels"],
            resolution=facts["resolution"],
            common=facts["common"],
            filled=facts["filled"],
            quiet=facts["quiet"],
            two_valued=facts["two_valued"],
            stretched=facts["stretched"],
        )
    reasons = tuple(facts["reasons"])
    reduce = facts["reduce"] or 1.0
    return Need(facts["kind"], reasons, facts["denoise_sigma"], reduce, look, facts["jpeg_quality"])
