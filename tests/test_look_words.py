"""What `denoise` and `inspect` say of what a look saw: no more than that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.cli.look_words import BETTER_FOR_JPEG
from mambair_cli.cli.notices import explain_look
from mambair_cli.inspection.inspect_image import Inspection, inspect_image
from mambair_cli.inspection.look import CLEAN, Look
from mambair_cli.inspection.need import Need, describe_need, find_need

MODEL = "tiny-real-denoise"


def look(sigma: float, grain: float = 0.0, quality: int = 100, **more: float) -> Look:
    return replace(CLEAN, sigma=(sigma,) * 3, tones=(sigma,) * 3, grain=grain, quality=quality, **more)


@pytest.fixture
def explain_denoise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that returns what ``inspect`` says of ``denoise`` for a look."""

    def explain(seen: Look | None, quality: int | None = None, in_table: bool = False) -> str:
        def inspect_so(source, max_pixels) -> Inspection:
            return replace(inspect_image(source, max_pixels), need=find_need(seen, quality))

        monkeypatch.setattr("mambair_cli.inspection.inspect_image.inspect_image", inspect_so)
        names = [str(tmp_path / f"{name}.png") for name in ("ab" if in_table else "a")]
        for name in names:
            Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(name)
        assert main(["inspect", *names]) == 0
        return capsys.readouterr().out.splitlines()[-1].removeprefix("denoise:").strip()

    return explain


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (look(0.0), "hardly any noise (sigma 0.0 of 255) and no traces of compression were seen"),
        (look(0.5), "hardly any noise (sigma 0.5 of 255) and no traces of compression were seen"),
        (
            look(1.5),
            "hardly any noise (sigma 1.5 of 255; it may be texture) and no traces of compression were seen",
        ),
        (
            look(4.5, 0.6),
            "little noise (sigma 4.5 of 255; it may be texture) and no traces of compression were seen",
        ),
        (
            look(0.5, quality=94),
            "hardly any noise (sigma 0.5 of 255) and faint traces of compression were seen",
        ),
    ],
)
def test_little_noise_is_described_as_it_was_seen_and_nothing_is_promised(seen: Look, words: str) -> None:
    need = find_need(seen, None)
    assert need.kind == "clean"
    assert explain_look("denoise", need, MODEL) == words


def test_what_is_too_small_to_look_at_gets_no_such_line() -> None:
    assert explain_look("denoise", find_need(None, None), MODEL) is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (look(0.5), ": hardly any noise (sigma 0.5 of 255), no visible compression"),
        (look(4.5, 0.6), ": little noise (sigma 4.5 of 255; it may be texture), no visible compression"),
        (None, ": too small to look at"),
    ],
)
def test_inspect_promises_no_little_change(seen: Look | None, words: str, explain_denoise) -> None:
    assert explain_denoise(seen) == f"model for noise of any kind{words}. --clean and --sigma overrule."


def test_inspect_names_for_white_noise_the_model_that_denoise_takes(explain_denoise) -> None:
    colour, gray = look(36.0), replace(look(36.0), common=1.0)
    assert explain_denoise(colour).startswith("model for white noise, with --sigma 36.")
    assert explain_denoise(gray) == "built-in model for white noise. --real overrules."
    assert "sigma 36" in explain_denoise(colour, in_table=True)


@pytest.mark.parametrize(
    ("seen", "quality", "is_named"),
    [
        (look(0.5, quality=60), 60, True),
        (look(1.5, quality=60), None, True),
        (None, 60, True),
        (look(1.5, quality=60, resolution=0.5), 60, True),  # softness is nothing that either model mends
        (look(15.0, quality=60), 60, False),
        (look(15.0, quality=60), None, False),
        (look(15.0, 0.6), None, False),
        (look(15.0), None, False),
        (look(0.5), None, False),
        (look(0.5, resolution=0.5), 95, False),
    ],
)
def test_dejpeg_is_named_where_compression_alone_was_seen(
    seen: Look | None, quality: int | None, is_named: bool, explain_denoise
) -> None:
    need = find_need(seen, quality)
    assert (BETTER_FOR_JPEG in (explain_look("denoise", need, MODEL) or "")) == is_named
    assert (BETTER_FOR_JPEG in explain_denoise(seen, quality)) == is_named
    assert BETTER_FOR_JPEG not in (explain_look("upscale", need, "tiny-real-x4") or "")
    assert BETTER_FOR_JPEG not in (explain_look("denoise", need, MODEL, of_clip=True) or "")


def test_softness_is_no_damage_to_those_who_read_the_facts() -> None:
    reasons = ("a JPEG of quality 60", "as soft as a picture that was enlarged 2 times")
    facts = describe_need(Need("real", reasons, reduce=2.0, jpeg_quality=60))
    assert (facts["damages"], facts["compressed_alone"]) == ([reasons[0]], True)
    facts = describe_need(Need("real", (*reasons[:1], "coarse noise of sigma 9"), jpeg_quality=60))
    assert (len(facts["damages"]), facts["compressed_alone"]) == (2, False)
    assert describe_need(Need("clean", reasons[1:], reduce=2.0))["damages"] == []
