"""Open a file or a pipe by FFmpeg, and find its moving pictures."""

from pathlib import Path
from typing import Any, BinaryIO

from mambair_cli.errors import VideoError
from mambair_cli.system.file_errors import explain_unreadable
from mambair_cli.video.counted import CountedPipe
from mambair_cli.video.description import is_picture
from mambair_cli.video.ffmpeg import first_line, import_av
from mambair_cli.video.frames import RawInput

_NOT_CLIPS = ("tty", "image2")  # demuxers that take almost any file, and those of single images


def open_container(source: Path | BinaryIO | CountedPipe, raw: RawInput | None, name: str) -> Any:
    """Open a clip, and return a container of PyAV.

    Args:
        source: The clip.
        raw: What raw frames do not tell, if it is a stream of them.
        name: Its name in messages.

    Raises:
        VideoError: FFmpeg cannot read it.
    """
    av = import_av()
    options, format = {}, None
    if raw is not None:
        format = "rawvideo"
        size = f"{raw.width}x{raw.height}"
        options = {"pixel_format": raw.format, "video_size": size, "framerate": str(raw.rate)}
    try:
        opened: Any = source
        if isinstance(source, Path):
            with source.open("rb"):  # its errors are plainer than those of FFmpeg
                pass
            # With the protocol, a colon in a name is no protocol.
            opened = f"file:{source}"
        return av.open(opened, "r", format=format, options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(f"cannot read {name}: {first_line(error)}; it is no clip, or is cut off") from error
    except OSError as error:
        if isinstance(source, Path):
            raise VideoError(str(explain_unreadable(source, error))) from error
        raise


def find_pictures(container: Any, name: str) -> Any:
    """Return the first stream of moving pictures, ready to be decoded.

    Args:
        container: The clip.
        name: Its name in messages.

    Raises:
        VideoError: There is none.
    """
    format = container.format.name
    streams = [stream for stream in container.streams.video if not is_picture(stream)]
    if not streams or format in _NOT_CLIPS or format.endswith("_pipe") or not streams[0].codec_context:
        raise VideoError(f"cannot read {name}: it has no moving pictures; name a clip")
    stream = streams[0]
    # How FFmpeg conceals broken data depends on the number of its threads. With threads for frames, such a
    # frame shows what its memory happens to hold; with several for slices, no error is reported. One thread
    # decodes far more frames a second than a network restores.
    stream.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    return stream
