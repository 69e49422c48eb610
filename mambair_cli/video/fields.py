"""Frames of two fields: whole ones are made of them, by FFmpeg's bwdif, or they are marked."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.ffmpeg import import_av

TimedFrame = tuple[Any, int | None, int, bool]
"""Frame of FFmpeg, its time and its length in ticks, and whether it is broken."""


def deinterlace(frames: Iterator[Any], facts: ClipFacts) -> Iterator[TimedFrame]:
    """Yield one whole frame for each frame.

    Args:
        frames: Frames of FFmpeg.
        facts: What their clip is.
    """
    av = import_av()
    graph, times = None, deque()
    for frame in chain(frames, [None]):
        if graph is None and frame is not None:
            graph = _build_graph(frame, facts)
        if graph is None:
            return
        if frame is not None:
            times.append((frame.pts, frame.duration, frame.is_corrupt))
        graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield graph.pull(), *times.popleft()


def mark_fields(frame: Any, facts: ClipFacts, order: str) -> Any:
    """Return a graph that tells frames which field is shown first; PyAV cannot set it.

    Args:
        frame: The first frame.
        facts: What its clip is.
        order: "tff" or "bff", the upper or the lower field first.
    """
    return _connect(frame, facts, "setfield", f"mode={order}")


def _build_graph(frame: Any, facts: ClipFacts) -> Any:
    # Where frames tell which of them have fields, the others stay as they are.
    which = "interlaced" if facts.interlaced else "all"
    return _connect(frame, facts, "bwdif", f"mode=send_frame:parity=auto:deint={which}")


def _connect(frame: Any, facts: ClipFacts, filter: str, settings: str) -> Any:
    graph = import_av().filter.Graph()
    options = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
    options += f":time_base={facts.time_base}:colorspace={frame.colorspace}:range={frame.color_range}"
    first = graph.add("buffer", options)
    middle = graph.add(filter, settings)
    last = graph.add("buffersink")
    first.link_to(middle)
    middle.link_to(last)
    graph.configure()
    return graph
