"""Tell what an open clip is, from its container and its first frame."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from mambair_cli.video.colour import FULL, settle_tags
from mambair_cli.video.facts import FIELD_ORDERS, ClipFacts, MasteringDisplay, StreamFacts
from mambair_cli.video.pixels import layout_of
from mambair_cli.video.siting import find_siting

_MICROSECONDS = 1_000_000
_DEFAULT_RATE = Fraction(25)
_UNKNOWN_RATES = 1000  # frames a second; FFmpeg's guess is then the time base, not a rate
_FRAMES_SHORTER = 3  # a clip may end by so many frames before the time that its header tells
_SECONDS_SHORTER = 2  # the same, where that time may be of sound
_MOST_TICKS = 2**24  # ticks; programs that write AVI into a pipe put a larger number into its header
_DYNAMIC_HDR = {
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DOVI_RPU_BUFFER": "Dolby Vision",
    "DOVI_METADATA": "Dolby Vision",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
}
_SIDE_MATRIX = struct.Struct("=9i")
_SIDE_MASTERING = struct.Struct("=22i")
_SIDE_LIGHT = struct.Struct("=2I")


def describe_clip(container: Any, stream: Any, frame: Any) -> ClipFacts:
    """Tell what a clip is.

    Args:
        container: Open input container of PyAV.
        stream: Its video stream.
        frame: The first frame that was decoded.
    """
    layout = layout_of(frame.format.name)
    time_base = stream.time_base
    rate = next(
        (rate for rate in (stream.average_rate, stream.guessed_rate) if _is_rate(rate)), _DEFAULT_RATE
    )
    frame_range = FULL if "yuvj" in frame.format.name or (layout.is_gray and not frame.color_range) else 0
    facts = ClipFacts(
        container=container.format.name,
        streams=tuple(_describe_stream(each) for each in container.streams),
        codec=stream.codec_context.name,
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        bits=layout.bits,
        chroma=layout.factors,
        siting=find_siting(stream, frame),
        has_alpha=layout.has_alpha,
        colour=settle_tags(
            frame.colorspace,
            frame.color_primaries,
            frame.color_trc,
            frame_range or frame.color_range,
            is_rgb=layout.is_rgb,
            size=(frame.width, frame.height),
        ),
        time_base=time_base,
        frame_rate=rate,
        duration=find_duration(stream)
        or (Fraction(container.duration, _MICROSECONDS) if container.duration else None),
        pixel_aspect=stream.sample_aspect_ratio or Fraction(1),
        field_order=FIELD_ORDERS[getattr(stream.codec_context, "field_order", 0)],  # since PyAV 18
        interlaced=bool(frame.interlaced_frame),
    )
    return _add_side_data(_add_number(facts, stream), frame)


def count_packets(facts: ClipFacts, number: int, times: Sequence[int]) -> ClipFacts:
    """Complete facts by the number of all packets of pictures, and those of their times that are known."""
    steps = _steps(times)
    duration = facts.duration
    if steps:
        span = max(times) - min(times) + steps[-1]
        duration = span * facts.time_base
    return replace(facts, frames=number, frames_exact=True, variable=_is_variable(steps), duration=duration)


def count_held(facts: ClipFacts, container: Any, stream: Any) -> int | None:
    """Return how many frames the file has, by its index, whatever its header tells: it may be cut off.

    Args:
        facts: What the clip is.
        container: The clip.
        stream: Its pictures.
    """
    entries = stream.index_entries if facts.frames_exact else ()
    lost = sum(each.pos + each.size > container.size > 0 and not each.is_discard for each in entries)
    return facts.frames if facts.frames is None else facts.frames - lost


def is_picture(stream: Any) -> bool:
    """Tell whether a stream is a cover, or another single picture."""
    disposition = stream.disposition
    return bool(disposition & type(disposition).attached_pic)


def find_slack(facts: ClipFacts, stream: Any) -> Fraction:
    """Return by how many seconds a clip may end before the time that its header tells."""
    own = find_duration(stream) is not None
    return _FRAMES_SHORTER / facts.frame_rate if own else Fraction(_SECONDS_SHORTER)


def explain_missing(facts: ClipFacts, frames: int, seconds: Fraction, slack: Fraction) -> str | None:
    """Say how much is missing of a clip that was read to its end; None if nothing is.

    Args:
        facts: What its header tells.
        frames: Number of frames that it has.
        seconds: Its length.
        slack: Seconds by which its header may tell more.
    """
    if facts.frames_exact and facts.frames is not None:
        return (
            f"has {frames} of {facts.frames} frames; the others are missing"
            if frames < facts.frames
            else None
        )
    if facts.duration is None or facts.duration - seconds <= slack:
        return None
    return f"ends after {float(seconds):.2f} s of {float(facts.duration):.2f} s; it may be cut off"


def tells_alpha(metadata: Mapping[str, str]) -> bool:
    """Tell whether a stream of VP8 or VP9 says that it is transparent.

    FFmpeg writes this tag twice, and reads the second one, in capitals, over the first.
    """
    return any(key.lower() == "alpha_mode" and value == "1" for key, value in metadata.items())


def _is_rate(rate: Fraction | None) -> bool:
    return rate is not None and 0 < rate < _UNKNOWN_RATES


def _describe_stream(stream: Any) -> StreamFacts:
    metadata = dict(stream.metadata)
    context = stream.codec_context
    kind = "picture" if stream.type == "video" and is_picture(stream) else stream.type
    title = metadata.get("title") or metadata.get("filename")
    return StreamFacts(stream.index, kind, context.name if context else "", stream.language, title)


def find_duration(stream: Any) -> Fraction | None:
    """Return the length of a stream in seconds, if the container tells it of this very stream."""
    if stream.duration:
        return stream.duration * stream.time_base
    for key, value in stream.metadata.items():
        if key.startswith("DURATION"):  # Matroska's: 00:00:01.500000000
            with suppress(ValueError):
                hours, minutes, seconds = value.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    return None


def _add_number(facts: ClipFacts, stream: Any) -> ClipFacts:
    number = stream.frames
    is_avi = facts.container == "avi"
    if is_avi or "mov" in facts.container.split(","):
        entries = list(stream.index_entries)
        times = [each.timestamp for each in entries if not each.is_discard]
        steps = _steps(times)
        # The header of an AVI file counts ticks; the index has no entry where the frame before lasts.
        lasts = number - max(times, default=0)
        if times and (0 < lasts <= max(steps, default=1) if is_avi else len(entries) == number):
            return replace(facts, frames=len(times), frames_exact=True, variable=_is_variable(steps))
        # There is no index, as in a file that is cut off, or only a part was read, as of one in fragments.
        if is_avi:  # FFmpeg guesses a length from what there is of the file
            facts = replace(facts, duration=number * stream.time_base if 0 < number <= _MOST_TICKS else None)
        number = 0
    for key, value in stream.metadata.items():
        if key.startswith("NUMBER_OF_FRAMES") and value.isdecimal():
            return replace(facts, frames=int(value))
    if not number and facts.duration is not None:
        number = max(1, round(facts.duration * facts.frame_rate))
    return replace(facts, frames=number or None)


def _steps(times: Iterable[int]) -> list[int]:
    ordered = sorted(times)
    return [after - before for before, after in pairwise(ordered)]


def _is_variable(steps: Sequence[int]) -> bool:
    """Tell whether steps differ by more than the rounding of a constant rate to ticks."""
    return bool(steps) and max(steps) - min(steps) > 1


def _add_side_data(facts: ClipFacts, frame: Any) -> ClipFacts:
    for data in frame.side_data:
        name, content = data.type.name, bytes(data)
        if name == "DISPLAYMATRIX" and len(content) >= _SIDE_MATRIX.size:
            matrix = _SIDE_MATRIX.unpack_from(content)
            facts = replace(facts, display_matrix=matrix, rotation=frame.rotation)
        elif name == "MASTERING_DISPLAY_METADATA" and len(content) >= _SIDE_MASTERING.size:
            facts = replace(facts, mastering=_read_mastering(_SIDE_MASTERING.unpack_from(content)))
        elif name == "CONTENT_LIGHT_LEVEL" and len(content) >= _SIDE_LIGHT.size:
            facts = replace(facts, light_level=_SIDE_LIGHT.unpack_from(content))
        elif name in _DYNAMIC_HDR and _DYNAMIC_HDR[name] not in facts.dynamic_hdr:
            facts = replace(facts, dynamic_hdr=(*facts.dynamic_hdr, _DYNAMIC_HDR[name]))
    return facts


def _read_mastering(numbers: tuple[int, ...]) -> MasteringDisplay:
    *pairs, has_primaries, has_luminance = numbers
    values = [Fraction(n, d) if d else Fraction(0) for n, d in zip(pairs[::2], pairs[1::2], strict=True)]
    points: list[tuple[Fraction, Fraction] | None] = [None] * 4
    if has_primaries:
        points = [(values[i], values[i + 1]) for i in (0, 2, 4, 6)]
    luminance = (values[8], values[9]) if has_luminance else None
    return MasteringDisplay(*points, luminance=luminance)
