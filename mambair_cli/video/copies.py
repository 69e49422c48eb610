"""What a joined clip has of its source except pictures: sound, subtitles, covers, attachments, tags."""

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from mambair_cli.video.description import is_picture
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.subtitles import add_text_stream
from mambair_cli.video.timeline import MATROSKA, SampleClock, is_cut_away, settle_decoding

_MICROSECONDS = 1_000_000
_KINDS = {"audio": "sound", "subtitle": "subtitles", "video": "picture"}
_OF_THE_FILE = ("encoder", "major_brand", "minor_version", "compatible_brands", "vendor_id")
_STATISTICS = ("BPS", "NUMBER_OF_", "_STATISTICS", "DURATION")  # starts of tags that tell of the old packets


class CopiedStreams:
    """Streams of a source that go into another container packet by packet.

    Args:
        original: The source, open; None if there is none.
        covers: Covers of the source, from :func:`read_covers`.
        result: Output container of PyAV.
        format: FFmpeg's name of its format.

    Attributes:
        warnings: Sentences about what the container cannot hold.
    """

    def __init__(self, original: Any, covers: dict[int, bytes], result: Any, format: str) -> None:
        self.warnings: list[str] = []
        self._original = original
        self._result = result
        self._format = format
        self._streams: dict[int, Any] = {}
        self._converters: dict[int, Callable[[bytes], bytes]] = {}
        self._covers = covers
        self._refused: Counter[int] = Counter()

    def add(self, old: Any) -> None:
        """Add a stream of the source to the result, or warn that it has no place."""
        try:
            added = self._add(old)
        except (ValueError, import_av().FFmpegError):
            codec = old.codec_context.name if old.codec_context else "unknown codec"
            kind = _KINDS.get(old.type, old.type)
            self.warnings.append(
                f"stream {old.index} ({kind}, {codec}) has no place in {self._format}; it is left out"
            )
            return
        if added is not None:
            added.metadata.update(kept_tags(old.metadata))
            added.disposition = old.disposition
        if old.type == "video" and not is_picture(old):
            self.warnings.append(
                f"stream {old.index} (picture) is copied as it is; the first one is restored"
            )

    def _add(self, old: Any) -> Any:
        if old.type == "attachment" or (old.index in self._covers and self._format in MATROSKA):
            return self._add_attachment(old)
        if (
            old.type == "video"
            and is_picture(old)
            and (self._format == "mov" or old.index not in self._covers)
        ):
            raise ValueError("no covers")
        if old.codec_context is None:
            if self._is_made_anew(old):
                return None
            raise ValueError("unknown codec")
        try:
            added = self._result.add_stream_from_template(old, opaque=True)
        except ValueError:
            convert = add_text_stream(self._result, old, self._format) if old.type == "subtitle" else None
            if convert is None:
                raise
            added = self._result.streams[-1]
            self._converters[old.index] = convert
            codec = old.codec_context.name
            if codec in ("ass", "ssa"):
                self.warnings.append(
                    f"stream {old.index} (subtitles, {codec}) becomes plain text in {self._format}"
                )
        self._streams[old.index] = added
        return added

    def _add_attachment(self, old: Any) -> Any:
        if self._format != "matroska":
            raise ValueError("only Matroska has attachments")
        tags = old.metadata
        if old.type == "attachment":
            name, kind, data = "attachment", old.mimetype or "application/octet-stream", old.data
        else:
            codec, data = old.codec_context.name, self._covers[old.index]
            name, kind = f"cover.{codec.replace('mjpeg', 'jpg')}", f"image/{codec.replace('mjpeg', 'jpeg')}"
        return self._result.add_attachment(tags.get("filename", name), tags.get("mimetype", kind), data)

    def _is_made_anew(self, old: Any) -> bool:
        """Tell whether FFmpeg writes a data stream itself: chapters, and the time code of the first frame."""
        return old.type == "data" and ("timecode" in old.metadata or bool(self._original.chapters()))

    def copy_tags(self, shift: Fraction) -> None:
        """Copy the tags and the chapters of the source, which begin earlier by some seconds."""
        self._result.metadata.update(kept_tags(self._original.metadata))
        chapters = []
        for chapter in self._original.chapters():
            base = chapter["time_base"] or Fraction(1, _MICROSECONDS)
            moved = round(shift / base)
            start, end = max(0, chapter["start"] - moved), max(0, chapter["end"] - moved)
            chapters.append({**chapter, "start": start, "end": end})
        if chapters:
            self._result.set_chapters(chapters)

    def packets(self, shift: Fraction) -> Iterator[tuple[Any, Fraction]]:
        """Yield all packets, earlier by some seconds, each with its time in seconds; covers come first."""
        for index, data in self._covers.items():
            if index in self._streams:
                packet = import_av().Packet(data)
                packet.pts = packet.dts = 0
                packet.time_base = Fraction(1, _MICROSECONDS)
                packet.is_keyframe = True
                packet.stream = self._streams[index]
                yield packet, Fraction(0)
        streams = [self._original.streams[index] for index in self._streams if index not in self._covers]
        clocks: dict[int, SampleClock] = {}
        for packet in settle_decoding(self._demux(streams)) if streams else ():
            stream = packet.stream
            packet.dts = packet.pts if packet.dts is None else packet.dts
            packet.pts = packet.dts if packet.pts is None else packet.pts
            if packet.dts is None or not packet.size or (self._format in MATROSKA and is_cut_away(packet)):
                continue
            if stream.type == "audio":
                clocks.setdefault(stream.index, SampleClock(stream)).refine(packet)
            if stream.index in self._converters:
                packet = _replace_data(packet, self._converters[stream.index](bytes(packet)))
                if packet is None:
                    continue
            moved = round(shift / packet.time_base)
            packet.pts -= moved
            packet.dts -= moved
            time = packet.dts * packet.time_base
            packet.stream = self._streams[stream.index]
            yield packet, time

    def _demux(self, streams: list[Any]) -> Iterator[Any]:
        """Yield packets; where the source cannot be read any more, they end with a warning."""
        packets = self._original.demux(streams)
        while True:
            try:
                packet = next(packets, None)
            except import_av().FFmpegError as error:
                self.warnings.append(f"sound and the rest cannot be copied to their end: {first_line(error)}")
                return
            if packet is None:
                return
            yield packet

    def write(self, packet: Any) -> None:
        """Write a packet of :meth:`packets`, unless it is so broken that the container refuses it."""
        av = import_av()
        index = packet.stream.index
        try:
            self._result.mux(packet)
        except (av.InvalidDataError, av.ArgumentError):
            self._refused[index] += 1

    def end(self) -> list[str]:
        """Return the sentences about what is left out, when all is written."""
        for old, new in self._streams.items():
            if count := self._refused[new.index]:
                kind = self._original.streams[old].type
                stream = f"stream {old} ({_KINDS.get(kind, kind)})"
                what = (
                    f"a broken packet of {stream} is"
                    if count == 1
                    else f"{count} broken packets of {stream} are"
                )
                self.warnings.append(f"{what} left out")
        return self.warnings


def _replace_data(packet: Any, data: bytes) -> Any:
    """Return a packet of other data, at the same time; None if there is no text in it."""
    if len(data) <= 2 and not data.strip(b"\0"):
        return None
    changed = import_av().Packet(data)
    changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
    changed.time_base, changed.is_keyframe = packet.time_base, True
    return changed


def read_covers(source: Any) -> dict[int, bytes]:
    """Return the data of covers, by the numbers of their streams.

    Args:
        source: Input container of PyAV, of which nothing was read before.
    """
    covers = {}
    for stream in source.streams:
        if stream.type == "video" and is_picture(stream):  # FFmpeg hands these out before all else
            packet = next((packet for packet in source.demux(stream) if packet.size), None)
            if packet is not None:
                covers[stream.index] = bytes(packet)
    return covers


def kept_tags(metadata: Any) -> dict[str, str]:
    """Return the tags that stay true; FFmpeg writes the others anew."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_FILE and not key.startswith(_STATISTICS)
    }
