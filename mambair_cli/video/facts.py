"""What is known of a clip before its frames are decoded."""

from dataclasses import dataclass
from fractions import Fraction

from mambair_cli.video.colour import ColourTags

FIELD_ORDERS = ("unknown", "progressive", "tt", "bb", "tb", "bt")  # by FFmpeg's numbers


@dataclass(frozen=True)
class StreamFacts:
    """One stream of a clip.

    Attributes:
        index: Number in the container.
        kind: "video", "audio", "subtitle", "attachment", "data", or "picture" for a cover.
        codec: FFmpeg's name of the codec; empty where there is none.
        language: Code of the language; None where unknown.
        title: Title or file name; None where there is none.
    """

    index: int
    kind: str
    codec: str
    language: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class MasteringDisplay:
    """The display that a clip was graded on, in units of CIE 1931 and cd/m².

    Attributes:
        red, green, blue, white: Chromaticities (x, y); None where unknown.
        luminance: Lowest and highest luminance; None where unknown.
    """

    red: tuple[Fraction, Fraction] | None
    green: tuple[Fraction, Fraction] | None
    blue: tuple[Fraction, Fraction] | None
    white: tuple[Fraction, Fraction] | None
    luminance: tuple[Fraction, Fraction] | None


@dataclass(frozen=True)
class ClipFacts:
    """What a clip is.

    Attributes:
        container: FFmpeg's name of the container's format.
        streams: All streams, in the order of the container.
        codec: FFmpeg's name of the codec of the pictures.
        width, height: Size of a frame as stored, in pixels; the rotation is not applied.
        pixel_format: FFmpeg's name of the format of samples.
        bits: Bits of a sample.
        chroma: Luma samples for each chroma sample, vertically and horizontally.
        siting: Place of the chroma samples: "left", "centre" or "topleft".
        has_alpha: Whether frames are transparent in parts.
        colour: How samples stand for colours.
        time_base: Length of a tick, in seconds; times of frames are counted in ticks.
        frame_rate: Frames a second on average.
        frames: Number of frames; None where nothing tells it.
        frames_exact: Whether the number was counted; else it is an estimate.
        variable: Whether frames last differently long; None where that is not known before all is read.
        duration: Length in seconds; None where nothing tells it.
        rotation: Degrees, counter-clockwise, by which players turn frames.
        display_matrix: The nine numbers by which players turn and mirror frames; None where there are none.
        pixel_aspect: Width of a pixel divided by its height.
        field_order: One of ``FIELD_ORDERS``.
        interlaced: Whether the first frame says that it has two fields.
        mastering: Display that an HDR clip was graded on; None where unknown.
        dynamic_hdr: Names of HDR metadata that differ from frame to frame, such as "Dolby Vision".
        light_level: Highest light of a pixel and of a frame's mean, in cd/m²; None where unknown.
    """

    container: str
    streams: tuple[StreamFacts, ...]
    codec: str
    width: int
    height: int
    pixel_format: str
    bits: int
    chroma: tuple[int, int]
    siting: str
    has_alpha: bool
    colour: ColourTags
    time_base: Fraction
    frame_rate: Fraction
    frames: int | None = None
    frames_exact: bool = False
    variable: bool | None = None
    duration: Fraction | None = None
    rotation: int = 0
    display_matrix: tuple[int, ...] | None = None
    pixel_aspect: Fraction = Fraction(1)
    field_order: str = "unknown"
    interlaced: bool = False
    mastering: MasteringDisplay | None = None
    light_level: tuple[int, int] | None = None
    dynamic_hdr: tuple[str, ...] = ()

    @property
    def hdr(self) -> str | None:
        """Kind of HDR: "HDR10" (PQ), "HLG" or None."""
        return {"PQ": "HDR10", "HLG": "HLG"}.get(self.colour.hdr or "")

    @property
    def ticks_per_frame(self) -> int:
        """Length of a frame at the average rate, in ticks, at least 1."""
        return max(1, round(1 / (self.frame_rate * self.time_base)))
