"""What clips are and what they need, as text or JSON."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambair_cli.cli.inspect_text import print_lines
from mambair_cli.cli.output import print_event, report_failure, warn_of_clip
from mambair_cli.errors import MambairError
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.wording import format_bytes, show_count

if TYPE_CHECKING:
    from mambair_cli.inspection.need import Need
    from mambair_cli.video import ClipFacts

_RANGES = {1: "limited range", 2: "full range"}


def inspect_clips(names: list[str], as_json: bool, quiet: bool) -> int:
    """Show what clips are and what they need; return the exit code.

    Args:
        names: Names of the clips.
        as_json: Whether to print JSON instead of text.
        quiet: Whether to say nothing of what is damaged.
    """
    from mambair_cli.inspection.clip import find_need_of_clip
    from mambair_cli.video import open_clip

    exit_code = 0
    for place, name in enumerate(names):
        try:
            with explaining_memory(name), open_clip(Path(name)) as clip:
                need = find_need_of_clip(clip.first_frames())
                facts = clip.count()
        except MambairError as error:
            exit_code = max(exit_code, error.exit_code)
            report_failure(name, error, as_json)
            continue
        if as_json:
            print_event("inspected_clip", **describe_clip_facts(name, facts, need), warnings=clip.warnings)
        else:
            if place:
                print()
            print_lines(_describe(name, facts, need))
        if not quiet:
            warn_of_clip(name, clip.warnings)
    return exit_code


def _describe(name: str, facts: "ClipFacts", need: "Need") -> Iterator[tuple[str, str]]:
    """Yield the parts of a description: a label and a text."""
    size = f", {format_bytes(os.path.getsize(name))}" if os.path.isfile(name) else ""
    yield "clip", name
    yield "file", f"{facts.container}{size}"
    varying = ", not evenly" if facts.variable else ""
    length = "" if facts.duration is None else f", {float(facts.duration):.1f} s"
    about = "" if facts.frames_exact else "about "
    number = "" if facts.frames is None else f", {about}{show_count(facts.frames, 'frame')}"
    rate = f"{float(facts.frame_rate):.5g} frames a second{varying}"
    yield "pictures", f"{facts.codec}, {facts.width}×{facts.height} pixels, {rate}{number}{length}"
    yield "samples", ", ".join(_describe_samples(facts))
    shape = [] if facts.pixel_aspect == 1 else [f"pixels {facts.pixel_aspect} times as wide as high"]
    shape += [f"turned by {facts.rotation}°"] if facts.rotation else []
    shape += ["interlaced; --deinterlace makes whole frames"] if facts.interlaced else []
    if shape:
        yield "shape", ", ".join(shape)
    others = [stream for stream in facts.streams if stream.kind != "video"]
    for stream in others:
        facts_of = (stream.codec, stream.language, stream.title)
        yield stream.kind, ", ".join(str(fact) for fact in facts_of if fact) or "of unknown form"
    why, overruling = "; ".join(need.reasons), "--clean overrules."
    if need.kind == "clean":
        why, overruling = "little noise, no visible compression", "--real overrules."
    kind = "clean" if need.kind == "clean" else "real"
    yield "upscale", f"model for {kind} pictures: {why}. {overruling}"


def _describe_samples(facts: "ClipFacts") -> Iterator[str]:
    colour = facts.colour
    yield f"{facts.bits} bits ({facts.pixel_format})"
    yield f"matrix {colour.matrix_name}" + (" (assumed)" if "matrix" in colour.assumed else "")
    yield _RANGES.get(colour.range, "unknown range") + (" (assumed)" if "range" in colour.assumed else "")
    if facts.hdr:
        yield facts.hdr
    if facts.has_alpha:
        yield "with transparency"


def describe_clip_facts(name: str, facts: "ClipFacts", need: "Need") -> dict[str, Any]:
    """Describe a clip as JSON."""
    from mambair_cli.inspection.need import describe_need

    plain = {key: _plain(value) for key, value in asdict(facts).items()}
    return {"input": name, **plain, "hdr": facts.hdr, "need": describe_need(need)}


def _plain(value: Any) -> Any:
    """Turn fractions into text, and the rest into what JSON has."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
