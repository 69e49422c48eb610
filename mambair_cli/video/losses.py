"""What frames lose that become numbered images, or go into a pipe."""

from pathlib import Path

from mambair_cli.images.formats import FORMATS, format_of
from mambair_cli.video.colour import RGB
from mambair_cli.video.facts import ClipFacts
from mambair_cli.video.streams import layout_for_pipe
from mambair_cli.video.upright import UprightFrames

_PIPE = "YUV4MPEG"
_WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "P3"}  # primaries of H.273
_FORMS = ("image2", "rawvideo")  # of which nobody expects that they stay what they are


def name_losses(facts: ClipFacts, target: Path | None) -> tuple[str, ...]:
    """Say what is lost of a clip whose frames become images, or go into a pipe as YUV4MPEG.

    Args:
        facts: What the clip is.
        target: Such as ``frames/%06d.png``; None for a pipe.
    """
    form = _PIPE if target is None else format_of(target)
    losses = [_name_bits(facts, form), *_name_colours(facts, form)]
    if target is None:
        losses += [_name_alpha(facts), _name_chroma(facts)]
    elif facts.pixel_aspect != 1:
        losses.append(f"{form} does not tell that pixels are {facts.pixel_aspect} as wide as high")
    if facts.variable:
        losses.append(explain_times(target))
    if not UprightFrames(facts).is_possible:
        losses.append(
            f"{form} does not tell that players turn frames by {facts.rotation}°; they stay as stored"
        )
    return tuple(sentence for sentence in losses if sentence)


def explain_times(target: Path | None) -> str:
    """Say that frames last differently long, which images and pipes do not tell."""
    form = _PIPE if target is None else format_of(target)
    return f"frames last differently long, which {form} does not tell; a file such as .mkv keeps their times"


def _name_bits(facts: ClipFacts, form: str) -> str:
    held = layout_for_pipe(facts).bits if form == _PIPE else 16 if "uint16" in FORMATS[form].dtypes else 8
    if facts.bits <= held:
        return ""
    keeping = "numbered .png images keep them" if form == _PIPE else "png and tiff keep them"
    return f"{facts.bits} bits of a sample become {held} in {form}; {keeping}"


def _name_colours(facts: ClipFacts, form: str) -> list[str]:
    what = facts.hdr or _WIDE.get(facts.colour.primaries)
    return [f"{form} does not tell that colours are those of {what}; they stay as stored"] if what else []


def _name_alpha(facts: ClipFacts) -> str:
    if not facts.has_alpha:
        return ""
    return f"{_PIPE} has no transparency; it is left out, and numbered .png images keep it"


def _name_chroma(facts: ClipFacts) -> str:
    factors = layout_for_pipe(facts).factors
    is_rgb = facts.colour.matrix == RGB
    given = (1, 1) if is_rgb else facts.chroma
    is_coarser = factors[0] > given[0] or factors[1] > given[1]
    if facts.container in _FORMS or "gray" in facts.pixel_format or not is_coarser:
        return ""
    return f"{'RGB' if is_rgb else 'chroma'} becomes 4:2:0 in {_PIPE}, with fewer samples of colour"
