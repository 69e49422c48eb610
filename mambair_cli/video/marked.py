"""Frames that a survey has marked, found again segment by segment."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from mambair_cli.video.frames import DecodedFrame, FrameMark, changed, has_mark

Frames = Generator[DecodedFrame]


class MarkedReader:
    """Finds frames again, mostly those of one segment after another.

    A jump is tried first. Where it leads to other frames, they come from a reader that has begun with the
    first frame. It stays open, and goes on with the segments that follow: begun anew for each of them, it
    would decode a long clip hundreds of times.

    Args:
        name: Name of the clip in messages.
        jump: Yields the frames from a number on by a jump to its mark; none if no jump leads there.
        read: Yields all frames of the clip.
    """

    def __init__(
        self, name: str, jump: Callable[[int, FrameMark], Frames], read: Callable[[], Frames]
    ) -> None:
        self._name, self._jump, self._read = name, jump, read
        self._reader: Frames | None = None
        self._next = 0  # number of the frame that the reader yields next
        self._is_needed = False  # whether a jump has failed
        self._failures = self._left_out = 0  # jumps that failed in a row, and those not tried after them

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._next = None, 0

    def frames(self, start: int, marks: Sequence[FrameMark]) -> Frames:
        """Yield marked frames.

        Args:
            start: Number of the first one.
            marks: Their marks.

        Raises:
            VideoError: The clip has no such frames any more.
        """
        number, end = start, start + len(marks)
        if self._is_jump_better(start):
            with closing(self._jump(start, marks[0])) as found:
                for mark, shown in zip(marks, found, strict=False):
                    if not has_mark(shown, mark):
                        break
                    yield shown
                    number += 1
            self._note_jump(number == end)
        if number < end:
            yield from self._go_on(number, marks[number - start :])

    def _is_jump_better(self, start: int) -> bool:
        """Tell whether to try a jump.

        After jumps that failed, one, two, four ... segments do without: so a clip where none leads anywhere
        costs few of them, and after a broken part there are jumps again.
        """
        if start == self._next:  # the reader is there already, or begins there
            return False
        if self._left_out and start > self._next:
            self._left_out -= 1
            return False
        return True

    def _note_jump(self, is_right: bool) -> None:
        if is_right:
            self._failures = self._left_out = 0
            if not self._is_needed:  # it has only read what comes first
                self.close()
        else:
            self._is_needed = True
            self._left_out = 1 << self._failures
            self._failures += 1

    def _go_on(self, number: int, marks: Sequence[FrameMark]) -> Frames:
        """Yield marked frames as they are decoded from the beginning of the clip."""
        if self._reader is None or number < self._next:
            self.close()
            self._reader = self._read()
        first, end = number, number + len(marks)
        for shown in self._reader:
            self._next = shown.number + 1
            if shown.number < first:
                continue
            mark = marks[shown.number - first]
            # Broken data, or what comes after it, may look otherwise here than after the jump of a survey.
            if not (has_mark(shown, mark) if mark.is_repeatable else shown.pts == mark.pts):
                break
            yield shown
            if self._next == end:
                return
        self.close()
        raise changed(self._name)
