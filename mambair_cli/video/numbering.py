"""Numbers and times of decoded frames, and one size for all of them."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.fields import TimedFrame, deinterlace
from mambair_cli.video.frames import DecodedFrame
from mambair_cli.video.pixels import reformat

_NEAR = 10  # frames; times that go back by more begin anew
CONCEALED = "what is missing is concealed"


class Numbering:
    """Gives frames of one clip their numbers and times.

    Args:
        facts: What the clip is.
        name: Its name in messages.
        deinterlaces: Whether to make whole frames of fields.
        warn: Called with a sentence about what is damaged, and its kind or "".
    """

    def __init__(
        self, facts: ClipFacts, name: str, deinterlaces: bool, warn: Callable[[str, str], None]
    ) -> None:
        self._facts, self._name, self._warn = facts, name, warn
        self._deinterlaces = deinterlaces

    def number(
        self, frames: Iterator[Any], start: int, start_pts: int | None = None, needed: int = 0
    ) -> Iterator[DecodedFrame]:
        """Give frames numbers and times, and yield those from a number on.

        Args:
            frames: Frames of FFmpeg, from the first one of the clip or from any one before the start.
            start: Number of the first frame to yield.
            start_pts: Its time, if the frames do not begin with the first one. Nothing is yielded if no
                frame has that time.
            needed: Least number of frames before it.
        """
        number, held, usual = 0, None, self._facts.ticks_per_frame
        is_counted = start_pts is None
        # A frame lasts until the next one; its own length is often that of another, by the order of decoding.
        for frame, pts, duration, is_corrupt in chain(self.settle(frames), [(None, None, 0, False)]):
            time = pts  # as the container has it
            if held is not None:
                before, shown, stated, own, was_corrupt = held
                if frame is None:
                    lasts = own or usual
                elif pts is None:
                    pts = time = shown + (own or usual)
                    lasts = pts - shown
                elif pts <= shown:
                    if pts <= stated:  # else it only follows a frame whose time was made up
                        sentence = f"times of frames in {self._name} go backwards at frame {number + 1}"
                        self._warn(sentence, "times that go backwards")
                    pts = shown + (1 if shown - pts < _NEAR * usual else usual)
                    lasts = pts - shown
                else:
                    lasts = pts - shown
                if start_pts is not None and not is_counted and shown >= start_pts:
                    if shown > start_pts or number < needed:
                        return
                    number, is_counted = start, True
                if is_counted and number >= start:
                    if was_corrupt:
                        self._warn(f"frame {number} of {self._name} is broken; {CONCEALED}", "broken frames")
                    yield DecodedFrame(number, shown, lasts, self.fit(before), was_corrupt)
                number += 1
            held = (frame, pts or 0, time or 0, duration, is_corrupt)

    def settle(self, frames: Iterator[Any]) -> Iterator[TimedFrame]:
        """Yield frames with their times; deinterlaced if asked for, one for each frame."""
        if self._deinterlaces:
            return deinterlace(frames, self._facts)
        return ((frame, frame.pts, frame.duration, frame.is_corrupt) for frame in frames)

    def fit(self, frame: Any) -> Any:
        """Return a frame in the size of the first one."""
        facts = self._facts
        if (frame.width, frame.height) != (facts.width, facts.height):
            self._warn(f"the size of frames changes in {self._name}; all get the size of the first", "")
            frame = reformat(frame, width=facts.width, height=facts.height, interpolation="BICUBIC")
        return frame
