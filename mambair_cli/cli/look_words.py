"""Words for what a look saw of a picture, which several commands share."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mambair_cli.inspection.look import Look

HARDLY = 1.0  # sigma, of 255; less is not seen
LITTLE = 2.0  # sigma; less is seen in smooth areas alone
BETTER_FOR_JPEG = "`mambair dejpeg` does better where there is no noise"  # measured on JPEG files


def name_little_noise(look: "Look") -> str:
    """Name noise that is too little to count, which may be much: coarse noise looks like texture."""
    how_much = "hardly any noise" if look.noise < LITTLE else "little noise"
    doubt = "" if look.noise < HARDLY else "; it may be texture"
    return f"{how_much} (sigma {look.noise:.1f} of 255{doubt})"


def name_faint_traces(look: "Look") -> str:
    """Name traces of compression that are too faint to count."""
    from mambair_cli.inspection.need import WHITE_QUALITY

    return "no traces of compression" if look.quality >= WHITE_QUALITY else "faint traces of compression"
