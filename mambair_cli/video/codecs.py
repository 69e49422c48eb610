"""Codecs of clips: what each can hold, which one suits a clip, and what it loses."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePath
from types import MappingProxyType

from mambair_cli.errors import VideoError
from mambair_cli.system.wording import show
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.pixels import PixelLayout, layout_of, planar_name

DEFAULT_QUALITY = 75


@dataclass(frozen=True)
class Codec:
    """What a codec can hold.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        bits: Bits of a sample that it can hold.
        factors: Subsamplings of chroma, vertical and horizontal, the smallest planes first.
        has_alpha: Whether it holds transparency.
        preset: Preset where the user names none; empty where there are no presets.
        places_chroma: Whether it tells where chroma samples lie.
        tells_hdr: Whether it tells the display that an HDR clip was graded on.
        has_fields: Whether its encoder takes frames of two fields.
        least: Shortest side that its encoder takes, in pixels.
        most: Longest width and height that it takes; None where it takes all.
    """

    encoder: str
    bits: tuple[int, ...]
    factors: tuple[tuple[int, int], ...]
    _: KW_ONLY
    has_alpha: bool = False
    preset: str = ""
    places_chroma: bool = False
    tells_hdr: bool = False
    has_fields: bool = False
    least: int = 1
    most: tuple[int, int] | None = None


_420, _422, _440, _444 = (2, 2), (1, 2), (2, 1), (1, 1)
_NAMES = {_420: "4:2:0", _422: "4:2:2", _440: "4:4:0", _444: "4:4:4", (4, 4): "4:1:0", (1, 4): "4:1:1"}

CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "h264": Codec(
            "libx264",
            (8, 10),
            (_420, _422, _444),
            preset="medium",
            places_chroma=True,
            tells_hdr=True,
            has_fields=True,
            most=(16384, 16384),
        ),
        "hevc": Codec(
            "libx265",
            (8, 10, 12),
            (_420, _422, _444),
            preset="medium",
            places_chroma=True,
            tells_hdr=True,
            least=16,
        ),
        "av1": Codec(
            "libsvtav1",
            (8, 10),
            (_420,),
            preset="6",
            places_chroma=True,
            tells_hdr=True,
            least=4,
            most=(16384, 8704),
        ),
        "vp9": Codec("libvpx-vp9", (8,), (_420, _422, _440, _444), has_alpha=True, preset="2"),
        "ffv1": Codec(
            "ffv1",
            (8, 10, 12, 16),
            ((4, 4), (1, 4), _420, _422, _440, _444),
            has_alpha=True,
            has_fields=True,
        ),
        "prores": Codec("prores_ks", (10,), (_422, _444), has_alpha=True, has_fields=True),
    }
)

# Names of FFmpeg's formats, and the codecs that players expect in them.
CONTAINERS: Mapping[str, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        ".mp4": ("mp4", ("h264", "hevc", "av1", "vp9")),
        ".m4v": ("mp4", ("h264", "hevc", "av1")),
        ".mov": ("mov", ("h264", "hevc", "prores")),
        ".mkv": ("matroska", ("h264", "hevc", "av1", "vp9", "ffv1", "prores")),
        ".webm": ("webm", ("vp9", "av1")),
    }
)


@dataclass(frozen=True)
class VideoOptions:
    """How frames are encoded.

    Attributes:
        codec: A key of ``CODECS``.
        quality: 1 to 100; FFV1 is lossless whatever it is.
        pixel_format: FFmpeg's name of the format of samples.
        preset: Preset of the encoder: "medium" and others for H.264 and HEVC, a number for AV1 and VP9.
        siting: Place of chroma samples.
        notes: Sentences about what the codec cannot hold.
        fields: "tff" or "bff" where frames have two fields, the upper or the lower one first; else empty.
    """

    codec: str
    quality: int
    pixel_format: str
    preset: str
    siting: str = "left"
    notes: tuple[str, ...] = ()
    fields: str = ""

    @property
    def layout(self) -> PixelLayout:
        """Layout of the frames that are encoded."""
        return layout_of(self.pixel_format)


def container_of(target: PurePath) -> str:
    """Return FFmpeg's name of the format that a file's suffix means.

    Raises:
        VideoError: The suffix is not one of a clip.
    """
    try:
        return CONTAINERS[target.suffix.lower()][0]
    except KeyError:
        suffix = f"as {show(target.suffix)}" if target.suffix else "without a suffix"
        raise VideoError(
            f"cannot write {show(str(target))}: a clip cannot be written {suffix}; "
            f"{', '.join(CONTAINERS)} work"
        ) from None


def check_codec(target: PurePath, codec: str | None) -> None:
    """Check that a file's suffix is one of a clip, and that its container holds a codec, if one is named.

    Raises:
        VideoError: It is not, or does not.
    """
    container_of(target)
    fitting = CONTAINERS[target.suffix.lower()][1]
    if codec is not None and codec not in fitting:
        raise VideoError(
            f"cannot write {show(str(target))}: no place for the codec {codec}; {', '.join(fitting)} work"
        )


def choose_options(
    facts: ClipFacts,
    target: PurePath,
    *,
    size: tuple[int, int],
    codec: str | None = None,
    quality: int | None = None,
    preset: str | None = None,
    deinterlaced: bool = False,
) -> VideoOptions:
    """Choose how a clip is encoded: what holds its bits and its alpha, and what most players show.

    Args:
        facts: The source.
        target: The file; its suffix names the container.
        size: Width and height of a frame of the result, in pixels.
        codec: A key of ``CODECS``; None for the one that suits.
        quality: 1 to 100; None for 75.
        preset: Preset of the encoder; None for the usual one.
        deinterlaced: Whether frames are whole ones by then.

    Raises:
        VideoError: The container does not hold the codec, its encoder takes no such size, or the quality is
            wrong.
    """
    check_codec(target, codec)
    container, fitting = CONTAINERS[target.suffix.lower()]
    codec = codec or _choose_codec(facts, container, fitting)
    notes: list[str] = []
    if codec == "ffv1" and quality is not None:
        notes.append(f"quality {quality} has no effect: ffv1 is lossless")
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 1 <= quality <= 100:
        raise VideoError(f"cannot write {show(str(target))}: the quality is {quality}; 1 to 100 works")
    kind = CODECS[codec]
    _check_size(codec, size, target, fitting)
    bits = _choose_bits(facts, codec, fitting, notes)
    has_alpha = facts.has_alpha and kind.has_alpha and container != "mp4"
    if facts.has_alpha and not has_alpha:
        notes.append(f"{codec} in {target.suffix} has no transparency; it is left out")
    factors = _choose_factors(facts, codec, has_alpha)
    if codec in ("h264", "hevc") and ((factors[0] > 1 and size[1] % 2) or (factors[1] > 1 and size[0] % 2)):
        other = "--codec av1 stores 4:2:0, as do" if "av1" in fitting else "4:2:0 needs"
        notes.append(
            f"the width or height is odd, so {codec} stores 4:4:4, which some players cannot show; "
            f"{other} even sides, such as upscale --width sets"
        )
        factors = _444
    _note_chroma(facts, codec, bits, factors, fitting, notes)
    if facts.mastering is not None and not kind.tells_hdr:
        notes.append(f"{codec} does not tell the display that an HDR clip was graded on; it is left out")
    if facts.dynamic_hdr:
        notes.append(f"{' and '.join(facts.dynamic_hdr)} metadata is left out; {_explain_dynamic(facts)}")
    pixel_format = _name_format(facts, codec, bits, factors, has_alpha)
    # Samples in the middle of the block are right for JPEG only; few players look for them in clips.
    siting = "topleft" if facts.siting == "topleft" and kind.places_chroma and factors == _420 else "left"
    if preset is not None and not kind.preset:
        raise VideoError(f"cannot use the preset {preset}: {codec} has no presets; leave it out")
    fields = "" if deinterlaced else _find_fields(facts, kind, factors, size)
    return VideoOptions(codec, quality, pixel_format, preset or kind.preset, siting, tuple(notes), fields)


def _explain_dynamic(facts: ClipFacts) -> str:
    """Say what becomes of colours without metadata that differs from frame to frame."""
    # Dolby Vision of profile 5 has colours of its own, and its stream tells no others; the metadata does.
    tells_none = facts.hdr is None or "matrix" in facts.colour.assumed
    if "Dolby Vision" in facts.dynamic_hdr and tells_none:
        return "the colours may change: of Dolby Vision alone, as in profile 5, nothing else tells them"
    return "the colours stay"


def takes_size(kind: Codec, size: tuple[int, int]) -> bool:
    """Tell whether an encoder takes frames of a width and height."""
    return min(size) >= kind.least and (
        kind.most is None or (size[0] <= kind.most[0] and size[1] <= kind.most[1])
    )


def _check_size(codec: str, size: tuple[int, int], target: PurePath, fitting: Sequence[str]) -> None:
    """Refuse frames of a size that the encoder does not take.

    Raises:
        VideoError: It takes none such.
    """
    if takes_size(CODECS[codec], size):
        return
    others = [key for key in fitting if takes_size(CODECS[key], size)]
    works = "works" if len(others) == 1 else "work"
    remedy = f"{', '.join(others)} {works}" if others else "ffv1 in .mkv and numbered images work"
    raise VideoError(
        f"cannot write {show(str(target))}: {codec} takes no frames of {size[0]}×{size[1]} pixels; {remedy}"
    )


def _choose_codec(facts: ClipFacts, container: str, fitting: tuple[str, ...]) -> str:
    wanted: tuple[str, ...] = ()
    if facts.has_alpha and container != "mp4":
        # ProRes in Matroska is rare. VP9 has 8 bits, but to lose the others costs less than transparency.
        wanted = ("prores",) if container == "mov" else ("ffv1", "vp9") if facts.bits > 8 else ("vp9",)
    # 10 bits of H.264 are shown by few players.
    wanted += ("h264", "vp9") if facts.bits == 8 else ("hevc", "av1")
    return next(codec for codec in wanted if codec in fitting)


def _choose_bits(facts: ClipFacts, codec: str, fitting: tuple[str, ...], notes: list[str]) -> int:
    held = CODECS[codec].bits
    # Pictures of 16 bits, which clips of lossy codecs never have, are shown in 10.
    wanted = 10 if facts.bits > 12 and codec != "ffv1" else facts.bits
    bits = next((bits for bits in held if bits >= wanted), held[-1])
    if bits < facts.bits:
        keeping = [key for key in fitting if CODECS[key].bits[-1] >= facts.bits]
        if facts.has_alpha and CODECS[codec].has_alpha:
            keeping = [key for key in keeping if CODECS[key].has_alpha]
        notes.append(f"{facts.bits} bits of a sample become {bits} in {codec}{_name_others(keeping)}")
    return bits


def _name_others(codecs: Sequence[str]) -> str:
    """Name codecs of the same container that keep what is lost, as the end of a sentence."""
    if not codecs:
        return "; ffv1 in .mkv keeps them"
    if len(codecs) == 1:
        return f"; {codecs[0]} keeps them"
    return f"; {', '.join(codecs[:-1])} and {codecs[-1]} keep them"


def _note_chroma(
    facts: ClipFacts,
    codec: str,
    bits: int,
    factors: tuple[int, int],
    fitting: tuple[str, ...],
    notes: list[str],
) -> None:
    """Note that a result has fewer samples of colour than the clip."""
    # Images and raw frames are RGB whatever they come from; nobody expects of a clip that it is.
    if layout_of(facts.pixel_format).is_gray or facts.container in ("image2", "rawvideo"):
        return
    is_rgb = facts.colour.matrix == 0
    given = _444 if is_rgb else facts.chroma

    def loses(held: tuple[int, int]) -> bool:
        return held[0] > given[0] or held[1] > given[1]

    if loses(factors):
        keeping = [
            key
            for key in fitting
            if CODECS[key].bits[-1] >= bits
            and (CODECS[key].has_alpha or not facts.has_alpha)
            and not loses(_choose_factors(facts, key, facts.has_alpha))
        ]
        name = "RGB" if is_rgb else _NAMES.get(given, "chroma")
        others = _name_others(keeping)
        notes.append(f"{name} becomes {_NAMES[factors]} in {codec}, with fewer samples of colour{others}")


def _choose_factors(facts: ClipFacts, codec: str, has_alpha: bool) -> tuple[int, int]:
    held = CODECS[codec].factors
    is_rgb = facts.colour.matrix == 0
    if "gray" in facts.pixel_format and codec != "ffv1":  # what most players show
        return _422 if codec == "prores" else _420
    if codec == "prores":
        return _444 if has_alpha or is_rgb or facts.chroma == _444 else _422
    if has_alpha and codec == "vp9":
        return _420
    if is_rgb and codec != "ffv1":
        return _420
    fits = [each for each in held if each[0] <= facts.chroma[0] and each[1] <= facts.chroma[1]]
    return fits[0] if fits else held[-1]


def _find_fields(facts: ClipFacts, kind: Codec, factors: tuple[int, int], size: tuple[int, int]) -> str:
    """Return the order of the fields that frames still have; empty where they are lost.

    FFmpeg writes "tb" and "bt" into files in a sense opposite to their meaning, so these tell nothing.
    """
    has_room = kind.has_fields and size[1] % (2 * factors[0]) == 0
    if not facts.interlaced or not has_room or size != (facts.width, facts.height):
        return ""
    return {"tt": "tff", "bb": "bff"}.get(facts.field_order, "")


def _name_format(facts: ClipFacts, codec: str, bits: int, factors: tuple[int, int], has_alpha: bool) -> str:
    """Return the pixel format; FFV1 keeps R'G'B' and gray what they are."""
    if codec != "ffv1":
        return planar_name("yuv", bits, factors, has_alpha)
    if facts.colour.matrix == 0:
        if bits == 8:
            return "bgra" if has_alpha else "bgr0"
        return planar_name("rgb", bits, _444, has_alpha)
    if "gray" in facts.pixel_format:
        return planar_name("gray", bits, _444, False)
    if has_alpha:
        bits = 16 if bits == 12 and factors == _420 else bits
        factors = factors if factors in (_420, _422) else _444
    elif factors in ((4, 4), (1, 4)) and bits > 8:
        factors = _420 if factors == (4, 4) else _422
    return planar_name("yuv", bits, factors, has_alpha)
