"""Remarks on options that may not do what the user expects."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from mambair_cli.cli.look_words import (
    BETTER_FOR_JPEG,
    name_faint_traces,
    name_little_noise,
)
from mambair_cli.cli.options import Options

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.cli.summary import Summary
    from mambair_cli.inspection.need import Need

EIGHT_TIMES = "--ensemble computes each tile eight times, and takes eight times as long"
LEVEL_OPTIONS = {"denoise": "--sigma", "dejpeg": "--jpeg-quality"}


def explain_level(task: "Task", level: float | None, model: str) -> str | None:
    """Say what effect a given level of damage has; None where the model is made for that level.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        level: Noise sigma of 255, or JPEG quality, if it was given.
        model: Name of the model.
    """
    from mambair_cli.checkpoints.catalog import load_catalog

    entry = next((entry for entry in load_catalog() if entry.name == model), None)
    if level is None or entry is None or entry.level == level:
        return None
    option = LEVEL_OPTIONS[task]
    if entry.level is None:
        kind = "noise of any strength" if task == "denoise" else "JPEG of any quality"
        return f"{option} {level:g} has no effect: {model} is for {kind}"
    return f"{option} {level:g}: the nearest model is {model}, made for {entry.level}"


def explain_quality(task: "Task", quality: int | None, jpeg_quality: float | None) -> str | None:
    """Explain the two qualities of dejpeg, where only that of the results is given."""
    if task != "dejpeg" or quality is None or jpeg_quality is not None:
        return None
    return (
        f"warning: --quality {quality} is the quality of the results; "
        f"for the quality of the inputs use --jpeg-quality {quality}"
    )


def explain_unused(options: Options, formats: Collection[str]) -> list[str]:
    """Say which options of writing have no effect on files of some formats that will be written.

    Args:
        options: Options of the command.
        formats: The formats, as far as they are known before the images are read.
    """
    from mambair_cli.images.formats import find_formats, say_which_have
    from mambair_cli.system.wording import enumerate_names

    opaque = find_formats(lambda row: not row.has_alpha)
    plain = sorted(set(formats) - {*find_formats(lambda row: row.has_quality)})
    clear = sorted(set(formats) - {*opaque})
    sentences = []
    if options.quality is not None and plain:
        have = say_which_have(lambda row: row.has_quality)
        sentences.append(
            f"--quality {options.quality} has no effect on {enumerate_names(plain)}; {have} a quality"
        )
    if options.background is not None and clear:
        kept, alone = enumerate_names(clear), enumerate_names(opaque)
        have = "has" if len(opaque) == 1 else "have"
        sentences.append(
            f"--background {options.background} has no effect on {kept}; {alone} alone {have} no transparency"
        )
    return sentences


def explain_end(summary: "Summary", has_lost_server: bool) -> list[str]:
    """Say what to do about images that a run has not begun, and about images that several models restored.

    Args:
        summary: What became of the images.
        has_lost_server: Whether a server restored them, and is gone.
    """
    sentences = explain_left(summary, has_lost_server)
    if len(summary.facts()["models"]) > 1:
        sentences.append(
            "for frames or textures that belong together give --clean or --real, "
            "so that all get the same model"
        )
    return sentences


def explain_left(summary: "Summary", has_lost_server: bool = False) -> list[str]:
    """Say what to do about images or clips that a run has not begun; nothing where there are none."""
    left = summary.files - summary.counted
    when = " when the server is back" if has_lost_server else ""
    return [f"{left} not begun; --resume does them{when}"] if left > 0 else []


def explain_gone(summary: "Summary") -> str | None:
    """Say that a run ends early since nobody reads what it prints; None where that leaves nothing undone.

    A single input has been begun when its result, or its name, is written.
    """
    left = explain_left(summary) if summary.files > 1 else []
    return f"nobody reads standard output any more: {left[0]}" if left else None


def explain_look(task: "Task", need: "Need", model: str, of_clip: bool = False) -> str | None:
    """Say what was seen of an image, and what was done; None for a clean image that was enlarged.

    Args:
        task: "upscale" or "denoise".
        need: What was seen, and what the image needs.
        model: Name of the model that restored it.
        of_clip: Whether it is a frame of a clip, whose compression is another than JPEG.
    """
    from mambair_cli.checkpoints.catalog import load_catalog
    from mambair_cli.inspection.need import is_faint

    sentences = []
    seen = " and ".join(need.damages)
    if seen and task == "upscale":
        sentences.append(f"{seen}: using {model} (--clean overrules)")
    elif seen:
        is_for_white = any(each.name == model and not each.is_real for each in load_catalog())
        overruling = " (--real overrules)" if is_for_white else " (--clean overrules)"
        sentences.append(f"{seen}: using {model}{overruling}")
        if need.is_compressed_alone and not of_clip:
            sentences.append(BETTER_FOR_JPEG)
    elif task == "denoise" and need.look is not None:
        sentences.append(f"{name_little_noise(need.look)} and {name_faint_traces(need.look)} were seen")
    if need.look is not None and need.look.stretched:
        share = f"{100 * need.look.filled:.2g} %"
        sentences.append(
            f"its samples fill {share} of their range: the network sees them stretched to all of it"
        )
    elif task == "denoise" and need.look is not None and is_faint(need.look):
        sentences.append(
            f"its samples fill {100 * need.look.filled:.2g} % of their range: scale them to all of it, "
            "or noise is hardly seen"
        )
    if need.reduce > 1 and task == "upscale":
        percent = 100 / need.reduce
        sentences.append(
            f"{need.reasons[-1]}: for a sharper result, reduce it to {percent:.0f}% before it is enlarged"
        )
    return "; ".join(sentences) or None


def name_better(task: "Task", model: str, place: str) -> str | None:
    """Name the official model for real pictures where a CPU uses a built-in one; None elsewhere.

    Args:
        task: "upscale" or "denoise".
        model: Name of the model that is used.
        place: Where it computes.
    """
    from mambair_cli.checkpoints.catalog import find_model, load_catalog

    if not place.startswith("cpu") or not (used := find_model(model)).bundled or not used.is_real:
        return None
    real = (each for each in load_catalog() if each.is_real and each.task == task and not each.bundled)
    better = next((each.name for each in real if each.scale >= used.scale), None)
    return better and f"--model {better} is better than {model}, and takes minutes on a CPU"
