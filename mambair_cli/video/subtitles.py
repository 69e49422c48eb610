"""Subtitles of text, from the form of one container to that of another; styles become plain text."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_TAGS = (re.compile(r"<[^>]*>"), ">"), (re.compile(r"\{\\[^}]*\}"), "}")  # and how they end
_ASS_FIELDS = 8  # before the text of a packet of ASS
_MOST_BYTES = 65535  # of one text in MP4 and MOV
_TEXT_OF_FORMAT = MappingProxyType(
    {"matroska": "subrip", "webm": "webvtt", "mp4": "mov_text", "mov": "mov_text"}
)
_STYLE_FIELDS = (
    *(
        "Name",
        "Fontname",
        "Fontsize",
        "PrimaryColour",
        "SecondaryColour",
        "OutlineColour",
        "BackColour",
        "Bold",
    ),
    *("Italic", "Underline", "StrikeOut", "ScaleX", "ScaleY", "Spacing", "Angle", "BorderStyle", "Outline"),
    *("Shadow", "Alignment", "MarginL", "MarginR", "MarginV", "Encoding"),
)
_STYLE = "Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1"
_EVENT_FIELDS = ("Layer", "Start", "End", "Style", "Name", "MarginL", "MarginR", "MarginV", "Effect", "Text")
# FFmpeg's encoder of subtitles in MP4 reads the usual style in the form of ASS.
_HEADER = "\r\n".join(
    (
        *("[Script Info]", "ScriptType: v4.00+", "", "[V4+ Styles]", f"Format: {', '.join(_STYLE_FIELDS)}"),
        *(f"Style: {_STYLE}", "", "[Events]", f"Format: {', '.join(_EVENT_FIELDS)}", ""),
    )
).encode()


def _read_mov_text(data: bytes) -> str:
    length = int.from_bytes(data[:2], "big")  # styles follow after the text
    return data[2 : 2 + length].decode("utf-8", "replace")


def _read_ass(data: bytes) -> str:
    text = data.decode("utf-8", "replace").split(",", _ASS_FIELDS)[-1]
    return text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")


def _read_plain(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# By the names of decoders.
_READERS: Mapping[str, Callable[[bytes], str]] = MappingProxyType(
    {
        "mov_text": _read_mov_text,
        "ass": _read_ass,
        "ssa": _read_ass,
        "srt": _read_plain,
        "subrip": _read_plain,
        "text": _read_plain,
        "webvtt": _read_plain,
    }
)


def _drop_tags(text: str) -> str:
    """Remove tags; what begins as one behind the last end of any is left, and not looked at."""
    for tag, mark in _TAGS:
        before, end, behind = text.rpartition(mark)
        text = tag.sub("", before + end) + behind
    return text


def add_text_stream(result: Any, old: Any, format: str) -> Callable[[bytes], bytes] | None:
    """Add a stream for subtitles that a format holds in another form only.

    Args:
        result: Output container of PyAV.
        old: Stream of the source.
        format: FFmpeg's name of the target's format.

    Returns:
        What converts a packet's data; None if they are no text. The stream is the last one of the container.
    """
    codec = old.codec_context.name if old.codec_context else ""
    if codec not in _READERS or format not in _TEXT_OF_FORMAT:
        return None
    read, form = _READERS[codec], _TEXT_OF_FORMAT[format]
    if form == "mov_text":
        stream = result.add_stream(form)  # only its encoder makes the description that players need
        stream.codec_context.subtitle_header = _HEADER
    else:
        result.add_mux_stream(form)

    def convert(data: bytes) -> bytes:
        text = _drop_tags(read(data)).replace("\r\n", "\n").strip("\n").encode()
        if form == "mov_text" and len(text) > _MOST_BYTES:  # of a damaged clip
            text = text[:_MOST_BYTES].decode("utf-8", "ignore").encode()
        return len(text).to_bytes(2, "big") + text if form == "mov_text" else text

    return convert
