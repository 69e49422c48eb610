"""Read image files into arrays and write them: depth, alpha, colour, metadata; without torch."""

TYPE_CHECKING = False  # type checkers take it as true; importing typing would make each command start later

if TYPE_CHECKING:
    from mambair_cli.images.alpha import bleed, is_opaque
    from mambair_cli.images.background import Colour, parse_colour, show_colour
    from mambair_cli.images.decoding import MAX_PIXELS, open_picture, read_picture
    from mambair_cli.images.encoding import Writer, encode_picture, write_picture
    from mambair_cli.images.formats import DEFAULT_QUALITY, FORMATS, choose_format, format_of, settle_format
    from mambair_cli.images.picture import Header, InputFrames, Picture
    from mambair_cli.images.room import find_losses, find_risk, fit_header
    from mambair_cli.images.row_reader import Reader
    from mambair_cli.images.samples import from_float, is_gray, join_luma, split_luma, to_float
    from mambair_cli.images.signatures import IMAGE_SUFFIXES, READABLE_SUFFIXES
    from mambair_cli.images.srgb import FirstPage, read_first_page

__all__ = [
    "DEFAULT_QUALITY",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "READABLE_SUFFIXES",
    "Colour",
    "FirstPage",
    "Header",
    "InputFrames",
    "Picture",
    "Reader",
    "Writer",
    "bleed",
    "choose_format",
    "encode_picture",
    "find_losses",
    "find_risk",
    "fit_header",
    "format_of",
    "from_float",
    "is_gray",
    "is_opaque",
    "join_luma",
    "open_picture",
    "parse_colour",
    "read_first_page",
    "read_picture",
    "settle_format",
    "show_colour",
    "split_luma",
    "to_float",
    "write_picture",
]

_HOMES = {
    "alpha": ("bleed", "is_opaque"),
    "background": ("Colour", "parse_colour", "show_colour"),
    "decoding": ("MAX_PIXELS", "open_picture", "read_picture"),
    "encoding": ("Writer", "encode_picture", "write_picture"),
    "formats": ("DEFAULT_QUALITY", "FORMATS", "choose_format", "format_of", "settle_format"),
    "picture": ("Header", "InputFrames", "Picture"),
    "room": ("find_losses", "find_risk", "fit_header"),
    "row_reader": ("Reader",),
    "samples": ("from_float", "is_gray", "join_luma", "split_luma", "to_float"),
    "signatures": ("IMAGE_SUFFIXES", "READABLE_SUFFIXES"),
    "srgb": ("FirstPage", "read_first_page"),
}


def __getattr__(name: str) -> object:
    """Return a name, imported at its first use: the table of formats is needed where libvips is not."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
