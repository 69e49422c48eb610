"""What a clip needs, by a look at some of its first frames."""

from collections.abc import Iterable
from itertools import islice

from mambair_cli.inspection.look import look_at
from mambair_cli.inspection.need import Need, find_need
from mambair_cli.video import VideoFrame

LOOKED_AT = (0, 24, 48, 72)  # numbers of frames


def find_need_of_clip(frames: Iterable[VideoFrame]) -> Need:
    """Look at some of the first frames, and return what most of them need.

    Args:
        frames: All frames, from the first one on; there is one at least.
    """
    needs: list[Need] = []
    for frame in islice(frames, LOOKED_AT[-1] + 1):
        if frame.number in LOOKED_AT:
            height, width, _ = frame.pixels.shape
            look = look_at(height, width, lambda rows, columns, p=frame.pixels: p[rows, columns, :3])
            needs.append(find_need(look, None))
    kinds = [need.kind for need in needs]
    return max(needs, key=lambda need: kinds.count(need.kind))
