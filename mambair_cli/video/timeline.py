"""Times of joined clips: when each frame is shown and decoded, and where everything begins."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mambair_cli.errors import VideoError
from mambair_cli.system.wording import show
from mambair_cli.video.segments import read_times

MATROSKA = ("matroska", "webm")

_MILLISECOND = Fraction(1, 1000)
_WITHOUT_START = ("mpegts", "mpeg", "vob")  # the clock of these may begin anywhere
_NEEDED_BEFORE = Fraction(1, 10)  # seconds of sound before the first one that is heard


@dataclass(frozen=True)
class Timeline:
    """Times of all pictures of a clip, in ticks.

    Attributes:
        time_base: Length of a tick, in seconds.
        shown: Times at which frames are shown, in order.
        delay: Number of frames by which decoding begins before showing.
    """

    time_base: Fraction
    shown: tuple[int, ...]
    delay: int

    def rank(self, pts: int) -> int:
        """Return the number of a frame in order of time, by its time."""
        return bisect.bisect_left(self.shown, pts)

    def decoding_time(self, number: int) -> int:
        """Return when a packet is decoded, by its number in the file; never after its frame is shown."""
        if number >= self.delay:
            return self.shown[number - self.delay]
        # Before the first frame there are no times; these steps are as long as those between the first.
        later = min(self.delay, len(self.shown) - 1)
        step = max(1, (self.shown[later] - self.shown[0]) // max(1, later))
        return self.shown[0] - (self.delay - number) * step

    def duration(self, rank: int, last: int) -> int:
        """Return how long a frame is shown, by its number in order of time; ``last`` is the last one's."""
        return self.shown[rank + 1] - self.shown[rank] if rank + 1 < len(self.shown) else last

    def in_milliseconds(self) -> "Timeline":
        """Return the times as Matroska holds them: rounded, but never two of them the same."""
        times: list[int] = []
        for pts in self.shown:
            time = round(pts * self.time_base / _MILLISECOND)
            times.append(max(time, times[-1] + 1) if times else time)
        return Timeline(_MILLISECOND, tuple(times), self.delay)


def make_timeline(segments: Sequence[Path]) -> Timeline:
    """Read the times of all packets of segments that follow one another.

    Raises:
        VideoError: A segment is damaged, or does not begin after the one before.
    """
    shown: list[int] = []
    delay, time_base = 0, None
    for path in segments:
        times = read_times(path)
        ordered = sorted(times.pts)
        if not ordered or time_base not in (None, times.time_base) or (shown and ordered[0] <= shown[-1]):
            raise VideoError(
                f"cannot join {show(path)}: it does not follow the segment before; make it again"
            )
        time_base = times.time_base
        rank = {pts: number for number, pts in enumerate(ordered)}
        delay = max(delay, *(number - rank[pts] for number, pts in enumerate(times.pts)))
        shown += ordered
    if time_base is None:
        raise VideoError("cannot join segments: there are none; write one at least")
    return Timeline(time_base, tuple(shown), delay)


def find_shift(original: Any, again: Any, timeline: Timeline, format: str) -> Fraction:
    """Return by how many seconds all packets are moved to an earlier time; less than 0 for a later one.

    Transport streams begin at zero. Matroska has no times before zero, as that of sound which begins with
    samples to skip, so there all begins later.

    Args:
        original: The source, open; None if there is none.
        again: The same, opened once more to read its first packets.
        timeline: Times of the pictures.
        format: FFmpeg's name of the target's format.
    """
    first = timeline.shown[0] * timeline.time_base
    if original is None:
        return min(Fraction(0), first)
    if original.format.name in _WITHOUT_START:
        starts = (
            each.start_time * each.time_base for each in original.streams if each.start_time is not None
        )
        return min(first, *starts)
    if format not in MATROSKA:
        return Fraction(0)
    starts = [first]
    # What the container tells of its start leaves such samples out.
    waiting = {
        stream.index for stream in again.streams if stream.type == "audio" and not _tells_delay(stream)
    }
    for packet in again.demux([again.streams[index] for index in waiting]) if waiting else ():
        if packet.pts is not None and packet.stream_index in waiting and not is_cut_away(packet):
            waiting.remove(packet.stream_index)
            starts.append(packet.pts * packet.time_base)
        if not waiting:
            break
    return min(Fraction(0), *starts)


def _tells_delay(stream: Any) -> bool:
    """Tell whether the number of samples to skip is known, so that Matroska has a field for it."""
    context = stream.codec_context
    return "matroska" in stream.container.format.name or (context is not None and context.name == "opus")


def is_cut_away(packet: Any) -> bool:
    """Tell whether an edit list leaves a packet out, except where it may be needed to decode the next one."""
    return packet.is_discard and packet.pts is not None and packet.pts * packet.time_base < -_NEEDED_BEFORE


def settle_decoding(packets: Iterable[Any]) -> Iterator[Any]:
    """Yield packets; those of pictures get times of decoding that go forward, if some of them have any.

    Matroska does not store these times. FFmpeg cannot tell those of the first packets of a stream, and has
    one time twice where two frames have.
    """
    held: dict[int, list[Any]] = {}
    last: dict[int, Any] = {}
    for packet in packets:
        index = packet.stream_index
        if packet.stream.type != "video" or not packet.size:
            yield packet
        elif packet.dts is None and index not in last:
            held.setdefault(index, []).append(packet)
        else:
            waiting, first = held.pop(index, []), packet.dts or 0
            for steps, early in enumerate(reversed(waiting), start=1):
                early.dts = first - steps * max(1, early.duration)
            before = last.get(index)
            if packet.dts is not None and before is not None:
                packet.dts = max(packet.dts, before + 1)
            last[index] = packet.dts if packet.dts is not None else before
            yield from waiting
            yield packet
    for waiting in held.values():
        yield from waiting


class SampleClock:
    """Times of sound in samples, where the source rounds them to milliseconds.

    Without it, the lengths of packets in MP4 would go up and down by the rounding.
    """

    def __init__(self, stream: Any) -> None:
        context = stream.codec_context
        self._rate = context.sample_rate if context else 0
        self._samples = context.frame_size if context else 0
        self._expected: int | None = None

    def refine(self, packet: Any) -> None:
        """Set the times of a packet to the sample, if packets all have one length."""
        base = packet.time_base
        if not self._samples or not self._rate or base <= Fraction(1, self._rate) or packet.pts != packet.dts:
            return
        stated = packet.pts * base * self._rate
        expected = self._expected
        if expected is None or abs(expected - stated) > base * self._rate:
            expected = round(stated)
        packet.time_base = Fraction(1, self._rate)
        packet.pts = packet.dts = expected
        packet.duration = self._samples
        self._expected = expected + self._samples
