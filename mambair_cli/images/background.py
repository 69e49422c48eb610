"""Read background colours, and convert them to the profile of a picture."""

import io

from mambair_cli.errors import UsageError
from mambair_cli.system.wording import show

Colour = tuple[int, int, int]
"""Red, green and blue of sRGB, 0 to 255."""


def parse_colour(text: str) -> Colour:
    """Read a colour: a name of CSS, such as white, or #rrggbb.

    Raises:
        UsageError: It is no colour.
    """
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(text)
    except ValueError:
        colour = ()
    if len(colour) != 3:  # a fourth number would be alpha
        raise UsageError(f"no colour: {show(text)}; names such as white and numbers such as #f0f0f0 work")
    red, green, blue = colour
    return red, green, blue


def show_colour(colour: Colour) -> str:
    """Write a colour so that :func:`parse_colour` reads it."""
    return f"#{bytes(colour).hex()}"


def is_gray(colour: Colour) -> bool:
    """Tell whether a gray picture can hold a colour."""
    return len(set(colour)) == 1


def convert_colour(colour: Colour, icc: bytes | None) -> list[float]:
    """Return the samples, in [0, 1], of an sRGB colour in a gray or RGB profile; None stands for sRGB."""
    samples: tuple[float, ...] = colour
    if icc is not None:
        from PIL import Image, ImageCms

        kind = "L" if icc[16:20] == b"GRAY" else "RGB"
        try:
            transform = ImageCms.buildTransform(
                ImageCms.createProfile("sRGB"),
                ImageCms.ImageCmsProfile(io.BytesIO(icc)),
                "RGB",
                kind,
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            pixel = ImageCms.applyTransform(Image.new("RGB", (1, 1), colour), transform)
        except (ImageCms.PyCMSError, OSError):  # an unreadable profile is taken for sRGB
            pixel = None
        if pixel is not None:
            value = pixel.getpixel((0, 0))
            samples = value if isinstance(value, tuple) else (float(value or 0),)
    return [sample / 255 for sample in samples]
