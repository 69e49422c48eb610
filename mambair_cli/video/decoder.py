"""Clips decoded by FFmpeg: opened as often as needed, with notes of what is damaged."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mambair_cli.system.files import is_stream
from mambair_cli.system.wording import show
from mambair_cli.video.container import find_pictures, open_container
from mambair_cli.video.counted import CountedPipe, explain_rest
from mambair_cli.video.damage import DamageNotes
from mambair_cli.video.description import tells_alpha
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.frames import RawInput

IsOver = Callable[[], bool]
"""Tells whether nobody wants the frames any more."""


class OverError(Exception):
    """Nobody wants the frames any more."""


class Decoder:
    """Opens a clip, and decodes its pictures.

    Args:
        source: The file, or a stream.
        raw: What raw frames do not tell, if it is a stream of them.

    Attributes:
        name: Name of the clip in messages.
        file: The file; None for a pipe, which can be opened only once.
        warnings: Sentences about what is damaged, which grow while frames are decoded.
        is_doubtful: Whether frames may look otherwise when decoded from another place on.
    """

    def __init__(self, source: Path | BinaryIO, raw: RawInput | None) -> None:
        self.name = show(source) if isinstance(source, Path) else "standard input"
        self._notes = DamageNotes(self.name)
        self.warnings = self._notes.sentences
        self.is_doubtful = False
        self._opened: BinaryIO | None = None
        if isinstance(source, Path) and is_stream(source):  # a pipe by name
            source = self._opened = source.open("rb")
        self.file = source if isinstance(source, Path) else None
        self._source: Path | BinaryIO | CountedPipe = source
        if not isinstance(source, Path) and not source.seekable():
            self._source = CountedPipe(source)
        self._raw = raw

    def close(self) -> None:
        """Close a pipe that was named; a stream that was given stays open."""
        if self._opened is not None:
            self._opened.close()

    def open(self) -> Any:
        """Return a container of PyAV, to be closed; errors as of :func:`open_container`."""
        return open_container(self._source, self._raw, self.name)

    def find_stream(self, container: Any) -> Any:
        """Return the stream of pictures; errors as of :func:`find_pictures`."""
        return find_pictures(container, self.name)

    def decode(self, container: Any, stream: Any, is_over: IsOver | None = None) -> Iterator[Any]:
        """Yield frames of FFmpeg; broken data is noted, never the end.

        Args:
            container: The clip, from its beginning or from where it was moved to.
            stream: Its pictures.
            is_over: Asked before each packet.

        Raises:
            OverError: Nobody wants the frames any more.
        """
        av = import_av()
        decoder = stream.codec_context
        alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(decoder.name)
        if alpha and tells_alpha(stream.metadata):  # FFmpeg's own decoders leave it out
            decoder = av.CodecContext.create(alpha, "r")
            decoder.thread_count = 1  # as in find_pictures
        packets, end, least = container.demux(stream), 0, self._raw.bytes if self._raw else 1
        while True:
            if is_over is not None and is_over():
                raise OverError
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                self.is_doubtful = True
                self.warn(f"{self.name} cannot be read to its end: {first_line(error)}")
                packet = None
            # The last packet is empty and has no time; others that are empty repeat a frame.
            is_last = packet is None or (not packet.size and packet.dts is None)
            if packet is not None and packet.size < least and not is_last:
                continue
            if packet is not None and packet.size and packet.pos is not None:
                end = packet.pos + packet.size
            try:
                for frame in decoder.decode(None if is_last else packet):
                    self.is_doubtful |= frame.is_corrupt
                    yield frame
            except av.EOFError:
                return
            except av.FFmpegError as error:
                self.is_doubtful = True
                self.warn(f"part of {self.name} is broken: {first_line(error)}", "broken parts")
            if is_last:
                if rest := explain_rest(self._source, container, end, self._raw):
                    self.warn(f"{self.name} {rest}")
                return

    def warn(self, sentence: str, kind: str = "") -> None:
        """Note what is damaged; see :meth:`DamageNotes.add`."""
        self._notes.add(sentence, kind)
