"""Names of the results of clips, where the user gives none."""

import os
from contextlib import suppress
from pathlib import Path

from mambair_cli.cli.output import say


def is_one_file(output: str | None) -> bool:
    """Tell whether a place for results is one file, or a pipe, and no folder."""
    if output is None or output.endswith("/") or os.path.isdir(output):
        return False
    return bool(Path(output).suffix or output == "-")


def leave_out_results(clips: list[str], suffix: str, output: str | None, quiet: bool) -> list[str]:
    """Leave out clips that are results of others, as in a second run over ``*.mp4``.

    Where they go into a folder of results, they must be what runs have written there, by its journal.

    Args:
        clips: The clips.
        suffix: Added to names of results, where no folder is given.
        output: Folder of the results; None for those of the clips.
        quiet: Whether to say nothing of what is left out.
    """
    from mambair_cli.system.disk_names import DiskNames

    others = clips if output is None else [clip for clip in clips if not _is_written(clip)]
    targets, names = name_apart(others, suffix, output), DiskNames()
    places = {names.key(target): clip for clip, target in targets.items() if target != "-"}
    results = [clip for clip in clips if places.get(names.key(clip), clip) != clip]
    if output is not None:
        results = [clip for clip in results if clip not in targets]
    for clip in results if not quiet else ():
        say(f"left out a clip that is a result: {clip}; name it alone to restore it, too")
    return [clip for clip in clips if clip not in results]


def _is_written(clip: str) -> bool:
    """Tell whether a run has written a clip."""
    from mambair_cli.runs.record import Record

    with suppress(OSError):  # without a journal nothing tells
        return Record(Path(clip).parent).is_ours(Path(clip))
    return False


def name_apart(clips: list[str], suffix: str, folder: str | None) -> dict[str, str]:
    """Return the name of the result of each clip; of those that would have one name, each keeps its suffix.

    Args:
        clips: The clips.
        suffix: Added to names, where no folder is given.
        folder: Folder of the results; None for those of the clips.
    """
    return {
        clip: name_target(clip, suffix, folder, apart=True) if len(namesakes) > 1 else target
        for target, namesakes in find_namesakes(clips, suffix, folder).items()
        for clip in namesakes
    }


def find_namesakes(clips: list[str], suffix: str, folder: str | None) -> dict[str, list[str]]:
    """Return the clips whose results would have one name alone, by that name; see :func:`name_apart`."""
    namesakes: dict[str, list[str]] = {}
    for clip in dict.fromkeys(clips):
        namesakes.setdefault(name_target(clip, suffix, folder), []).append(clip)
    return namesakes


def name_target(clip: str, suffix: str, folder: str | None, apart: bool = False) -> str:
    """Name the result of a clip where none was named.

    Args:
        clip: The clip.
        suffix: Added to the name, where no folder is given.
        folder: Folder of the results; None for that of the clip.
        apart: Whether to keep the suffix of a clip that becomes one of another container, as ``a.avi.mkv``.
    """
    from mambair_cli.video import CONTAINERS, is_pattern

    if clip == "-":
        return "-"
    path = Path(clip)
    if is_pattern(path) and not path.is_file():  # frames/%06d.png becomes frames_x2/%06d.png
        if folder is not None:
            return str(Path(folder, path.name))
        below = path.parent if path.parent.name else Path("..", Path.cwd().name)
        below = below.with_name(f"{below.name}{suffix}")
        return str(below / path.name)
    kind = path.suffix if path.suffix.lower() in CONTAINERS else ".mkv"
    stem = path.name if apart and kind != path.suffix else path.stem
    return str(path.with_name(f"{stem}{suffix}{kind}") if folder is None else Path(folder, f"{stem}{kind}"))
