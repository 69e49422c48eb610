"""--note: what made a picture is noted in its file, and inspect shows it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from restore_server import PHOTO, ask, error_message, serving

from mambair_cli.checkpoints.catalog import find_model
from mambair_cli.cli import main
from mambair_cli.images import read_picture
from mambair_cli.images.provenance import add_note, read_note

LOCAL = ("--offline", "--device", "cpu")
XMP = (
    b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    b"<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    b"xmlns:dc='http://purl.org/dc/elements/1.1/' dc:creator='Ada'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("in.png")
    return "in.png"


def inspect(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["inspect", name, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
def test_every_format_with_room_holds_the_note(photo: str, suffix: str, capsys) -> None:
    out = f"out.{suffix}"
    assert main(["upscale", photo, "-s", "2", "-o", out, "--note", "--strength", "0.5", *LOCAL]) == 0
    note = inspect(out, capsys)["note"]
    assert note["tool"].startswith("mambair ")
    assert (note["model"], note["sha256"]) == ("tiny-x2", find_model("tiny-x2").sha256)
    assert (note["task"], note["scale"], note["strength"]) == ("upscale", 2, 0.5)
    assert (note["device"], note["precision"], note["size"]) == ("cpu", "fp32", "48×40")
    assert "ensemble" not in note
    assert main(["inspect", out]) == 0
    assert "made by:     tool mambair" in capsys.readouterr().out


def test_a_format_without_room_is_named(photo: str, capsys) -> None:
    assert main(["upscale", photo, "-s", "2", "-o", "out.gif", "--note", *LOCAL]) == 0
    assert "gif has no room for the note of what made it; png has" in capsys.readouterr().err
    assert inspect("out.gif", capsys)["note"] is None


def test_without_it_nothing_is_noted_and_pixels_are_the_same(photo: str, capsys) -> None:
    for name, more in (("plain.png", ()), ("noted.png", ("--note",))):
        assert main(["denoise", photo, "--sigma", "15", "-o", name, *more, *LOCAL]) == 0
    assert inspect("plain.png", capsys)["note"] is None
    np.testing.assert_array_equal(np.asarray(Image.open("plain.png")), np.asarray(Image.open("noted.png")))
    assert str(Path.cwd()).encode() not in Path("noted.png").read_bytes()


def test_the_same_run_gives_the_same_bytes(photo: str) -> None:
    for name in ("one.png", "two.png"):
        assert main(["denoise", photo, "--sigma", "15", "-o", name, "--note", *LOCAL]) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_other_metadata_stays_and_a_second_note_takes_the_place_of_the_first(photo: str) -> None:
    first = add_note(XMP, {"model": "a"})
    second = add_note(first, {"model": "b"})
    assert b"dc:creator='Ada'" in second
    assert read_note(first) == {"model": "a"}
    assert read_note(second) == {"model": "b"}
    assert second.count(b"mambair:made") == 1


@pytest.mark.parametrize("value", ["a \"quoted\" 'name' <&>", "ü × 名", "]]>", ""])
def test_any_text_comes_back(value: str) -> None:
    assert read_note(add_note(None, {"model": value})) == {"model": value}


@pytest.mark.parametrize("xmp", [None, b"", b"no packet", b'mambair:made="no JSON"', b'mambair:made="[1]"'])
def test_what_is_no_note_is_none(xmp: bytes | None) -> None:
    assert read_note(xmp) is None


def test_a_note_is_metadata_and_strip_leaves_none(photo: str, capsys) -> None:
    assert main(["denoise", photo, "--note", "--strip", *LOCAL]) == 2
    assert "--note and --strip exclude each other" in capsys.readouterr().err
    with serving() as address:
        answer = ask(address, "POST", "/v1/denoise?note=true&strip=true", PHOTO)
        assert "note and strip exclude each other" in error_message(answer)
        status, _, body = ask(address, "POST", "/v1/denoise?note=true&sigma=15", PHOTO)
    assert status == 200
    note = read_note(read_picture(body).metadata.xmp)
    assert note is not None
    assert note["model"] == "tiny-denoise"


@pytest.mark.parametrize(
    "made",
    [
        b"<rdf:Description xmlns:dc='d' xmlns:mambair='urn:mambair:1.0:'%b><dc:a/></rdf:Description>",
        b'<rdf:Description dc:a="1" xmlns:mambair="urn:mambair:1.0:"%b/>',
        b'<rdf:Description xmlns:mambair="urn:mambair:1.0:">%b<dc:a/></rdf:Description>',
    ],
)
def test_what_other_programs_have_put_next_to_a_note_stays(made: bytes) -> None:
    note = b"<mambair:made>{}</mambair:made>" if b">%b" in made else b' mambair:made="{}"'
    packet = b"<rdf:RDF>" + made % note + b"</rdf:RDF>"
    noted = add_note(packet, {"version": "1"})
    assert noted.startswith(b"<rdf:RDF>" + (made % b"") + b"<rdf:Description")
    assert read_note(noted) == {"version": "1"}
