"""The options of FFmpeg's encoders.

Quality is one scale from 1 to 100 for all codecs; what it means to each is :func:`constant_quality`. Threads
are fixed numbers, since results of some encoders depend on them: a clip is the same on every machine.
"""

from collections.abc import Mapping
from fractions import Fraction

from mambair_cli.video.codecs import VideoOptions
from mambair_cli.video.colour import PQ, ColourTags
from mambair_cli.video.facts import MasteringDisplay

_THREADS = 8
_CRF_OF_WORST = 51  # of H.264 and HEVC
_TINY = 8  # pixels of a side
_LONGER = 63 / 51  # scale of AV1 and VP9
_CHROMA_LOCATIONS = {"left": 0, "centre": 1, "topleft": 2}


def constant_quality(codec: str, quality: int) -> int:
    """Return the constant rate factor of an encoder for a quality from 1 to 100.

    ==========  ====  ====  ====  ====  ====  ====
    quality       25    50    75    85    95   100
    ==========  ====  ====  ====  ====  ====  ====
    h264          41    30    18    12     5     1
    hevc          43    32    20    14     7     3
    av1, vp9      51    37    22    15     7     1
    ==========  ====  ====  ====  ====  ====  ====
    """
    factor = _CRF_OF_WORST * (1 - quality / 100) ** 0.75
    if codec in ("av1", "vp9"):
        return max(1, round(factor * _LONGER))
    return min(_CRF_OF_WORST, max(1, round(factor)) + (2 if codec == "hevc" else 0))


def encoder_options(
    options: VideoOptions,
    tags: ColourTags,
    mastering: MasteringDisplay | None,
    light_level: tuple[int, int] | None,
    size: tuple[int, int],
) -> tuple[dict[str, str], int]:
    """Return the options of FFmpeg's encoder, and its number of threads.

    Args:
        options: How frames are encoded.
        tags: Their colours.
        mastering: Display that an HDR clip was graded on.
        light_level: Highest light of a pixel and of a frame's mean.
        size: Width and height of a frame.
    """
    is_tiny = min(size) < _TINY
    codec, quality = options.codec, options.quality
    result = {} if codec in ("ffv1", "prores") else {"crf": str(constant_quality(codec, quality))}
    display = _show_mastering(mastering, codec)
    light = f"{light_level[0]},{light_level[1]}" if light_level else None
    location = _CHROMA_LOCATIONS[options.siting]
    if codec == "h264":
        parts = {"stitchable": "1", "chromaloc": location, "mastering-display": display, "cll": light}
        parts["asm"] = _limit_instructions()
        result |= {"preset": options.preset, "x264-params": _join(parts)}
    elif codec == "hevc":
        parts = {"log-level": "error", "open-gop": "0", "pools": "4", "frame-threads": "3"}
        parts |= {"chromaloc": location, "master-display": display, "max-cll": light}
        parts |= {"hdr10": "1", "hdr10-opt": "1"} if tags.transfer == PQ else {}
        result |= {"preset": options.preset, "x265-params": _join(parts)}
    elif codec == "av1":
        parts = {
            "lp": "4",
            "chroma-sample-position": options.siting,
            "mastering-display": display,
            "content-light": light,
        }
        result |= {"preset": options.preset, "svtav1-params": _join(parts)}
    elif codec == "vp9":
        result |= {
            "b": "0",
            "deadline": "good",
            "cpu-used": options.preset,
            "tile-columns": "2",
            "row-mt": "0",
        }
        result |= {"auto-alt-ref": "0"} if options.layout.has_alpha else {}
    elif codec == "ffv1":
        # Version 3 cuts frames into slices, for which chroma of a few pixels is too small.
        result |= {"level": "1", "g": "1"} if is_tiny else {"level": "3", "slicecrc": "1", "g": "1"}
    else:
        result |= {"profile": _prores_profile(options), "vendor": "apl0"}
    return result, _THREADS


def _limit_instructions() -> str | None:
    """Return the instructions that x264 may use; None for all that the processor has.

    With AVX-512 its macroblock tree gives the same frames other bytes now and then, in one thread, too.
    """
    from llvmlite.binding import get_host_cpu_features

    return "avx2" if get_host_cpu_features().get("avx512f") else None


def _prores_profile(options: VideoOptions) -> str:
    if options.layout.factors == (1, 1):
        return "4444xq" if options.quality >= 95 else "4444"
    steps = ((75, "hq"), (50, "standard"), (25, "lt"), (0, "proxy"))
    return next(name for least, name in steps if options.quality >= least)


def _join(parts: Mapping[str, object]) -> str:
    return ":".join(f"{key}={value}" for key, value in parts.items() if value is not None)


def _show_mastering(display: MasteringDisplay | None, codec: str) -> str | None:
    """Return a mastering display as the encoders read it; AV1's takes real numbers, the others units."""
    if display is None or not (
        display.red and display.green and display.blue and display.white and display.luminance
    ):
        return None
    unit, light = (1, 1) if codec == "av1" else (50000, 10000)

    def number(value: Fraction, unit: int) -> str:
        scaled = float(value) * unit
        return f"{scaled:.5f}" if codec == "av1" else str(round(scaled))

    points = (("G", display.green), ("B", display.blue), ("R", display.red), ("WP", display.white))
    text = "".join(f"{name}({number(x, unit)},{number(y, unit)})" for name, (x, y) in points)
    lowest, highest = display.luminance
    return f"{text}L({number(highest, light)},{number(lowest, light)})"
