"""Join segments to a clip, with all that its source has except pictures; no packet is encoded again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from mambair_cli.errors import VideoError
from mambair_cli.system.files import open_atomic
from mambair_cli.system.wording import show
from mambair_cli.video.codecs import container_of
from mambair_cli.video.copies import CopiedStreams, kept_tags, read_covers
from mambair_cli.video.description import is_picture, tells_alpha
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.matroska import RESERVED, write_shape
from mambair_cli.video.pixels import layout_of, tags_for_layout
from mambair_cli.video.segments import SegmentReader, explained
from mambair_cli.video.timeline import MATROSKA, Timeline, find_shift, make_timeline

_LARGEST_TIMESCALE = 2**31 - 1  # of MP4 and MOV


def join_segments(
    segments: Sequence[Path],
    source: Path | None,
    target: Path,
    facts: ClipFacts,
    *,
    last_duration: int | None = None,
    overwrite: bool = False,
    temporary: Path | None = None,
    on_end: Callable[[Path], None] = lambda temporary: None,
) -> list[str]:
    """Write a clip: the pictures of segments, and everything else of the source, packet by packet.

    Sound, subtitles, covers, attachments, chapters and tags are copied, and stay where they were in time.
    Subtitles of text are written in the container's own form. Transport streams, whose clocks begin anywhere,
    begin at zero. MP4 and MOV keep all times to the tick; Matroska and WebM count milliseconds.

    Args:
        segments: Files of :class:`mambair_cli.video.segments.SegmentWriter`, in order.
        source: The clip that they were made from; None for pictures only.
        target: The file; its suffix names the container.
        facts: The source.
        last_duration: Length of the last frame, in ticks; None for that of the average.
        overwrite: Whether to replace an existing file.
        temporary: Name of the file while it is written, on the same disk; None for one in its folder.
        on_end: Called with that name when the file is complete and on the disk, before it gets its own.

    Returns:
        Sentences about what the container cannot hold, and is left out.

    Raises:
        VideoError: A segment or the source cannot be read, or the file not be written.
        ImageError: The name is taken, or the system refuses to write.
    """
    format = container_of(target)
    timeline = make_timeline(segments)
    with ExitStack() as files:
        original = again = None
        if source is not None:
            original, again = (files.enter_context(_open_source(source)) for _ in range(2))
        written: list[Path] = []
        files.enter_context(
            open_atomic(target, temporary, overwrite=overwrite, on_begin=written.append, on_end=on_end)
        )
        with explained(target):
            covers = read_covers(again) if again is not None else {}
            shift = find_shift(original, again, timeline, format)
            # By name, not by the open file: FFmpeg reads the file once more to move its index to the front.
            name, options = f"file:{written[0]}", _muxer_options(format, timeline, original)
            with import_av().open(name, "w", format=format, options=options) as result:
                join = _Join(result, format, timeline, facts, last_duration or facts.ticks_per_frame)
                join.run(segments, CopiedStreams(original, covers, result, format), original, shift)
            if join.size is not None and not write_shape(written[0], join.size, facts.pixel_aspect):
                join.warnings.append(
                    f"{format} does not tell that pixels are {facts.pixel_aspect} as wide as high"
                )
    return join.warnings


def _open_source(source: Path) -> Any:
    av = import_av()
    try:
        return av.open(f"file:{source}", "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(
            f"cannot read {show(source)}: {first_line(error)}; put the clip back where it was"
        ) from error


def _muxer_options(format: str, timeline: Timeline, original: Any) -> dict[str, str]:
    if format in MATROSKA:
        # Else all would begin later, by times of decoding that Matroska does not even store.
        return {"avoid_negative_ts": "disabled"}
    # Keys of Apple, as of the place where a clip was taken, are tags of another kind than the usual ones.
    has_keys = original is not None and any(key.startswith("com.apple.") for key in original.metadata)
    keys = "+use_metadata_tags" if has_keys and format == "mov" else ""
    options = {"movflags": f"+faststart+write_colr{keys}"}
    scale = timeline.time_base.denominator
    if scale <= _LARGEST_TIMESCALE:
        options |= {"video_track_timescale": str(scale), "movie_timescale": str(scale)}
    return options


class _Join:
    """One clip that is written.

    Attributes:
        warnings: Sentences about what is left out.
        size: Width and height of a frame whose pixels' shape is still to be written; None if it is written.
    """

    def __init__(
        self, result: Any, format: str, timeline: Timeline, facts: ClipFacts, last_duration: int
    ) -> None:
        self.warnings: list[str] = []
        self.size: tuple[int, int] | None = None
        self._result = result
        self._format = format
        self._timeline = timeline
        self._facts = facts
        self._last_duration = last_duration

    def run(self, segments: Sequence[Path], copies: CopiedStreams, original: Any, shift: Fraction) -> None:
        video = None
        with SegmentReader(segments[0]) as first:
            # The order of streams is that of the source.
            for old in original.streams if original is not None else ():
                if old.type == "video" and not is_picture(old) and video is None:
                    video = self._add_video(first.stream, old)
                else:
                    copies.add(old)
            if video is None:
                video = self._add_video(first.stream, None)
            if original is not None:
                copies.copy_tags(shift)
            # The header needs what the open segment holds.
            self._result.start_encoding()
        pictures = self._pictures(segments, video, shift)
        ready = next(pictures, None)
        for packet, time in copies.packets(shift):
            while ready is not None and ready[1] <= time:
                self._result.mux(ready[0])
                ready = next(pictures, None)
            copies.write(packet)
        while ready is not None:
            self._result.mux(ready[0])
            ready = next(pictures, None)
        self.warnings += copies.end()

    def _add_video(self, stream: Any, old: Any) -> Any:
        facts = self._facts
        video = self._result.add_stream_from_template(stream, opaque=True)
        context, name = video.codec_context, stream.codec_context.name
        layout = layout_of(stream.codec_context.pix_fmt)
        tags = tags_for_layout(facts.colour, layout, (stream.width, stream.height))
        context.colorspace, context.color_range = tags.matrix, tags.range
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.sample_aspect_ratio = facts.pixel_aspect
        if facts.variable is not True:
            context.framerate = facts.frame_rate
        if facts.display_matrix is not None:
            video.set_display_matrix(facts.display_matrix)
        if self._format in ("mp4", "mov") and name == "hevc":
            context.codec_tag = "hvc1"  # players of Apple want it
        video.time_base = self._timeline.time_base
        if tells_alpha(stream.metadata):
            video.metadata["alpha_mode"] = "1"
        if old is not None:
            tags_of_old = kept_tags(old.metadata).items()
            video.metadata.update({key: tag for key, tag in tags_of_old if key.lower() != "alpha_mode"})
            video.disposition = old.disposition
        if self._format in MATROSKA and facts.pixel_aspect != 1:
            video.metadata["title"] = video.metadata.get("title", "") + RESERVED
            self.size = (stream.width, stream.height)
        return video

    def _pictures(
        self, segments: Iterable[Path], video: Any, shift: Fraction
    ) -> Iterator[tuple[Any, Fraction]]:
        """Yield packets of pictures, each with the time when it is decoded, in seconds."""
        source = self._timeline
        timeline = source.in_milliseconds() if self._format in MATROSKA else source
        last = max(1, round(self._last_duration * source.time_base / timeline.time_base))
        moved = round(shift / timeline.time_base)
        number = 0
        for path in segments:
            with SegmentReader(path) as segment:
                for packet, pts in segment.packets():
                    rank = source.rank(pts)
                    packet.pts = timeline.shown[rank] - moved
                    packet.dts = timeline.decoding_time(number) - moved
                    packet.duration = timeline.duration(rank, last)
                    packet.time_base = timeline.time_base
                    packet.stream = video
                    yield packet, packet.dts * timeline.time_base
                    number += 1
