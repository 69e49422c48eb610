"""The command that tells what pictures are and need: what it sees, and how it says so."""

import codecs
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import encode, save_photo
from PIL import Image
from profiles import DISPLAY_P3
from repository import ROOT
from terminal import run_in_terminal

from mambair_cli.images import open_picture
from mambair_cli.images.icc_profile import P3, describe_profile, make_profile
from mambair_cli.inspection.features import place_windows

KEYS = {
    *("event", "input", "format", "bytes", "width", "height", "frames", "bits", "float", "channels", "alpha"),
    *(
        "profile",
        "note",
        "jpeg_quality",
        "quality_in_pixels",
        "sigma",
        "tones",
        "grain",
        "common",
        "filled",
        "quiet",
        "stretched",
        "two_valued",
        "resolution",
        "reduce",
    ),
    *("kind", "reasons", "damages", "compressed_alone", "upscale", "denoise", "denoise_sigma", "warnings"),
}


def photo() -> np.ndarray:
    """Return a clean photograph, (320, 320, 3) float64, 0 to 255."""
    with Image.open(ROOT / "docs" / "kitten_sharp.png") as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


def noise(sigma: float, is_blurred: bool = False) -> np.ndarray:
    """Return noise of that sigma for the photograph: white, or with coarse grains."""
    values = np.random.default_rng(3).standard_normal((320, 320, 3))
    for axis in (0, 1) if is_blurred else ():
        values = np.roll(values, 1, axis) + 2 * values + np.roll(values, -1, axis)
    return sigma * values / values.std()


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def save(name: str, pixels: np.ndarray, **options) -> None:
    Image.fromarray(to_bytes(pixels)).save(name, **options)


def compressed(quality: int) -> np.ndarray:
    """Return the photograph as a JPEG file shows it."""
    with Image.open(io.BytesIO(encode(to_bytes(photo()), "JPEG", quality=quality))) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)


@pytest.fixture
def inspect(run):
    """Inspect pictures, of which none fails, and return their facts."""

    def call(*arguments):
        code, out, _ = run("inspect", *arguments, "--json")
        assert code == 0
        return [json.loads(line) for line in out]

    return call


# What is seen


def test_a_clean_photograph_is_said_to_be_clean(inspect, run):
    save("a.png", photo())
    (facts,) = inspect("a.png")
    assert facts.keys() == KEYS
    assert (facts["kind"], facts["upscale"], facts["denoise"]) == ("clean", "clean", "real")
    assert max(facts["sigma"]) < 3
    assert facts["quality_in_pixels"] >= 90
    assert facts["resolution"] > 0.75
    assert (facts["width"], facts["height"], facts["bits"], facts["channels"]) == (320, 320, 8, 3)
    assert (facts["format"], facts["frames"], facts["alpha"], facts["float"]) == ("png", 1, False, False)
    assert (facts["jpeg_quality"], facts["profile"], facts["reasons"]) == (None, None, [])


def test_white_noise_is_reported_with_its_sigma(inspect):
    save("a.png", photo() + noise(15))
    (facts,) = inspect("a.png")
    assert all(10 < sigma < 21 for sigma in facts["sigma"])
    assert (facts["kind"], facts["upscale"], facts["denoise"]) == ("white", "real", "white")
    assert 10 < facts["denoise_sigma"] < 21


def test_blurred_noise_is_coarse(inspect):
    save("a.png", photo() + noise(15, is_blurred=True))
    (facts,) = inspect("a.png")
    assert facts["grain"] > 0.3
    assert np.mean(facts["sigma"]) > 6
    assert (facts["kind"], facts["denoise_sigma"]) == ("real", None)


def test_compression_is_seen_in_the_tables_of_a_file_and_in_pixels(inspect):
    save("a.jpg", photo(), quality=40)
    save("b.png", compressed(40))
    save("c.jpg", compressed(40), quality=97)
    one, two, three = inspect("a.jpg", "b.png", "c.jpg")
    assert [each["jpeg_quality"] for each in (one, two, three)] == [40, None, 97]
    assert one["quality_in_pixels"] < 80
    assert two["quality_in_pixels"] < 80
    assert {each["kind"] for each in (one, two, three)} == {"real"}


def test_an_enlarged_picture_is_reported_with_the_factor_to_reduce_it_by(inspect, run):
    with Image.open(ROOT / "docs" / "kitten_sharp.png") as image:
        image.convert("RGB").crop((0, 0, 200, 200)).resize((600, 600), Image.Resampling.BICUBIC).save("a.png")
    (facts,) = inspect("a.png")
    assert facts["resolution"] < 0.6
    assert 1.7 < facts["reduce"] < 5
    text = "\n".join(run("inspect", "a.png")[1])
    side = round(600 / facts["reduce"])
    assert f"reduced to {side}×{side} pixels" in text


def test_gray_and_16_bit_pictures_are_seen_alike(inspect):
    noisy = np.clip(photo() + noise(15), 0, 255)
    gray = noisy.mean(2)  # of three channels: the sigma is smaller
    Image.fromarray(to_bytes(gray)).save("gray.png")
    tifffile.imwrite("deep.tif", np.rint(noisy * 257).astype(np.uint16), photometric="rgb")
    tifffile.imwrite("float.tif", (noisy / 255).astype(np.float32), photometric="rgb")
    deep, floats, one = inspect("deep.tif", "float.tif", "gray.png")
    assert (deep["bits"], deep["float"], floats["bits"], floats["float"]) == (16, False, 32, True)
    assert one["channels"] == 1
    for facts in (deep, floats):
        assert all(10 < sigma < 21 for sigma in facts["sigma"])
    assert 15 / 3**0.5 * 0.66 < np.mean(one["sigma"]) < 15 / 3**0.5 * 1.5


def test_alpha_is_no_part_of_what_is_seen(inspect):
    alpha = np.random.default_rng(0).integers(16, 256, (320, 320, 1))  # nothing is hidden
    save("a.png", photo())
    save("b.png", np.concatenate([photo(), alpha], axis=2))
    one, two = inspect("a.png", "b.png")
    assert two["alpha"]
    assert not one["alpha"]
    for key in ("sigma", "quality_in_pixels", "resolution", "kind"):
        assert one[key] == two[key]


def test_a_tiny_picture_is_unknown(inspect, run):
    save_photo("a.png", (8, 8))
    save_photo("b.jpg", (8, 8))
    for facts in inspect("a.png", "b.jpg"):
        assert facts.keys() == KEYS
        unknown = ("sigma", "tones", "grain", "common", "quality_in_pixels", "resolution", "reduce")
        assert {facts[key] for key in unknown} == {None}
        assert facts["kind"] == ("clean" if facts["jpeg_quality"] is None else "real")
    assert "pixels:      too few to look at; 48×48 in one piece are needed" in run("inspect", "a.png")[1]
    assert "too small to look at" in run("inspect", "a.png", "b.jpg")[1][1]


def test_frames_are_counted_and_the_first_is_looked_at(inspect):
    first, *others = [Image.fromarray(to_bytes(photo() + i)) for i in range(3)]
    first.save("a.webp", save_all=True, append_images=others, lossless=True)
    (facts,) = inspect("a.webp")
    assert (facts["frames"], facts["height"]) == (3, 320)
    assert facts["resolution"] > 0.75


@pytest.mark.parametrize(
    ("profile", "name"),
    [(None, None), (DISPLAY_P3, "test"), (make_profile(P3, 2.2, "A wide one"), "A wide one")],
    ids=["none", "test", "own"],
)
def test_a_colour_profile_is_printed_by_its_name(inspect, run, profile, name):
    save("a.png", photo(), icc_profile=profile)
    assert inspect("a.png")[0]["profile"] == name
    line = next(line for line in run("inspect", "a.png")[1] if line.startswith("profile:"))
    assert (name or "none") in line


def test_what_is_no_profile_has_no_name():
    assert describe_profile(b"") is None
    assert describe_profile(bytes(200)) is None


# Inputs


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + "a.png\r\nbär.png\r\n".encode(),
        codecs.BOM_UTF16_LE + "a.png\r\nbär.png\r\n".encode("utf-16-le"),  # PowerShell's >
        codecs.BOM_UTF16_BE + "a.png\nbär.png".encode("utf-16-be"),
    ],
    ids=["UTF-8", "UTF-16", "UTF-16 of the other order"],
)
def test_a_list_may_begin_with_a_byte_order_mark(inspect, data):
    for name in ("a.png", "bär.png"):
        save(name, photo())
    Path("names.txt").write_bytes(data)
    assert [each["input"] for each in inspect("--from-file", "names.txt")] == ["a.png", "bär.png"]


def test_a_mark_that_begins_the_name_of_a_file_stays(inspect):
    save("\ufeffa.png", photo())
    Path("names.txt").write_bytes(codecs.BOM_UTF8 + b"a.png\n")
    assert [each["input"] for each in inspect("--from-file", "names.txt")] == ["\ufeffa.png"]


@pytest.mark.parametrize("data", ["a.png\n".encode("utf-16-le"), codecs.BOM_UTF16_LE + b"a\0.\0p\0n"])
def test_a_list_in_an_unknown_encoding_is_refused_with_what_would_work(run, data):
    Path("names.txt").write_bytes(data)
    code, _, err = run("inspect", "--from-file", "names.txt")
    assert (code, err) == (
        2,
        "mambair: error: no list of names: names.txt; name images themselves, without --from-file, or save a "
        "list as UTF-8\n",
    )


def test_files_folders_lists_patterns_and_standard_input_are_taken(inspect, tmp_path, monkeypatch):
    save("a.png", photo())
    (tmp_path / "photos" / "more").mkdir(parents=True)
    save("photos/b.jpg", photo(), quality=95)
    save("photos/more/c.png", photo())
    (tmp_path / "names.txt").write_text("a.png\n")
    assert [each["input"] for each in inspect("a.png", "photos")] == [
        *("a.png", "photos/b.jpg", "photos/more/c.png")
    ]
    assert [each["input"] for each in inspect("photos", "--exclude", "more")] == ["photos/b.jpg"]
    assert [each["input"] for each in inspect("photos", "--include", "*.png")] == ["photos/more/c.png"]
    assert [each["input"] for each in inspect("--from-file", "names.txt")] == ["a.png"]
    (tmp_path / "names.txt").write_bytes(b"a.png\0photos/b.jpg\0")
    assert len(inspect("--from-file", "names.txt", "--null")) == 2
    (tmp_path / "a\nb.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "names.txt").write_bytes(b"a\nb.png")
    assert [each["input"] for each in inspect("--from-file", "names.txt", "--null")] == ["a\nb.png"]

    class Stdin:
        buffer = io.BytesIO((tmp_path / "photos" / "b.jpg").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin)
    (facts,) = inspect("-")
    assert (facts["input"], facts["format"], facts["jpeg_quality"]) == ("-", "jpeg", 95)
    assert facts["bytes"] == (tmp_path / "photos" / "b.jpg").stat().st_size


@pytest.mark.parametrize("names", [b"a.png\n", b"a.png\nb.png\n", b"a.png\r\nb.png"])
def test_a_list_by_lines_needs_no_null(run, names):
    save_photo("a.png")
    Path("names.txt").write_bytes(names)
    code, _, err = run("inspect", "--from-file", "names.txt", "--null")
    said = "mambair: error: the names in names.txt are separated by lines; leave out --null\n"
    assert (code, err) == (2, said)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "nothing to inspect"),
        ("empty", "no images in the folder: empty"),
        ("a.png --null", "--null has no effect without --from-file"),
        ("https://example.org/a.png", "download it first"),
        ("a.png --max-pixels none", "--max-pixels is none"),
    ],
)
def test_wrong_usage_is_refused(run, tmp_path, arguments, says):
    (tmp_path / "empty").mkdir()
    save_photo("a.png")
    code, out, err = run("inspect", *arguments.split())
    assert (code, out) == (2, [])
    assert err.startswith("mambair: error: ")
    assert says in err
    assert len(err.splitlines()) == 1


def test_a_file_that_cannot_be_read_fails_alone(run, tmp_path):
    save("a.png", photo())
    save("z.png", photo())
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "cut.jpg").write_bytes(encode(to_bytes(photo()), "JPEG")[:9000])
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:9000])
    names = ["a.png", "broken.png", "cut.jpg", "cut.png", "z.png"]
    code, out, err = run("inspect", *names)
    assert code == 1
    assert [line.split()[0] for line in out] == ["image", "a.png", "z.png"]
    errors = [line for line in err.splitlines() if line.startswith("mambair: error: cannot read ")]
    assert [name for name, line in zip(names[1:4], errors, strict=True) if name in line] == names[1:4]
    assert err.splitlines()[-1] == "mambair: 5 images: 2 clean, 3 failed"
    code, out, err = run("inspect", *names, "--json", "--quiet")
    assert code == 1
    events = [json.loads(line) for line in out]
    assert [(each["event"], each["input"]) for each in events] == [
        ("failed" if name in names[1:4] else "inspected", name) for name in names
    ]
    assert all(each["message"] for each in events[1:4])
    assert len(err.splitlines()) == 3


def test_where_no_file_can_be_read_there_is_no_table(run, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    save("b.png", photo())
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("inspect", "a.png", "b.png")
    assert (code, out) == (1, [])
    assert "or --damaged of upscale, denoise and dejpeg restores what is there" in err
    assert err.splitlines()[-1] == "mambair: 2 images: 2 failed"


def test_an_image_with_too_many_pixels_is_refused(run):
    save_photo("a.png", (30, 20))
    code, out, err = run("inspect", "a.png", "--max-pixels", 599)
    assert (code, out) == (1, [])
    assert "600 pixels" in err or "30×20 pixels" in err


def test_what_is_left_out_is_named(run, tmp_path):
    (tmp_path / "photos").mkdir()
    save("photos/a.png", photo())
    save("photos/a_x4.png", photo())
    code, out, err = run("inspect", "photos", "--json")
    assert code == 0
    assert [json.loads(line)["event"] for line in out] == ["left_out", "inspected"]
    assert "photos/a_x4.png" in err
    assert run("inspect", "photos", "--quiet")[2] == ""


# What is printed


def test_one_picture_is_described_in_full(run):
    save("a.jpg", photo() + noise(15), quality=60)
    code, out, err = run("inspect", "a.jpg")
    assert (code, err) == (0, "")
    lines = dict(line.split(":", 1) for line in out)
    assert list(lines) == [
        *("image", "file", "size", "samples", "profile", "compression", "noise", "detail"),
        *("upscale", "denoise"),
    ]
    assert lines["file"].strip().startswith("JPEG of quality 60 by its tables, ")
    assert lines["size"].strip() == "320×320 pixels, 0.102 megapixels"
    assert lines["samples"].strip() == "8 bits, RGB"
    assert "a JPEG of quality 60" in lines["upscale"]
    assert lines["upscale"].endswith("--clean overrules.")
    assert "--sigma" in lines["denoise"]


def test_several_pictures_are_rows_of_a_table(run):
    save("a.png", photo())
    save("b.png", photo() + noise(15))
    save("c.jpg", photo(), quality=40)
    code, (title, *rows), err = run("inspect", "a.png", "b.png", "c.jpg")
    assert code == 0
    assert title.split() == [
        *("image", "pixels", "samples", "format", "JPEG", "seen", "noise", "detail", "upscale", "denoise"),
        "why",
    ]
    assert [row.split()[0] for row in rows] == ["a.png", "b.png", "c.jpg"]
    assert {row.index("320×320") for row in rows} == {rows[0].index("320×320")}
    assert "noise of sigma" in rows[1]
    assert rows[2].endswith("a JPEG of quality 40")
    assert err == "mambair: 3 images: 1 clean, 1 noisy or compressed, 1 with white noise\n"


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lines_fit_into_a_terminal(tmp_path, columns):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a picture with a long name.png", "日本語の長い名前の写真です.png", "c.png"):
        save(str(folder / name), photo() + noise(12))
    least = 75  # columns, which the table has at least
    for arguments in (["photos"], ["photos/c.png"]):
        seen = run_in_terminal(["inspect", *arguments], tmp_path, columns, shows_stdout=True)
        assert seen.code == 0
        lines = [line for line in seen.shown.decode().splitlines() if not line.startswith("mambair: ")]
        assert max(map(cells, lines)) <= max(columns, least if arguments == ["photos"] else 0)
    assert any(line.startswith("noise:") for line in lines)


def cells(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def test_every_key_of_json_is_explained():
    page = (ROOT / "docs" / "inspect.md").read_text(encoding="utf-8")
    table = page.split("## JSON")[1]
    assert {key for key in KEYS if f"`{key}`" not in table} == set()


def test_pytorch_is_not_imported(tmp_path):
    save(str(tmp_path / "a.png"), photo())
    code = "import sys; from mambair_cli.cli import main; main(['inspect', 'a.png'])"
    code += "; print('torch' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ended.stdout.splitlines()[-1] == "False"


@pytest.mark.skipif(sys.platform == "win32", reason="has no named pipes")
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_pipe_is_inspected_like_a_file(run, kind):
    options = {"quality": 50} if kind == "jpeg" else {}
    save("a.bin", photo()[:128, :128], format=kind, **options)
    os.mkfifo("pipe.bin")
    writer = threading.Thread(target=lambda: Path("pipe.bin").write_bytes(Path("a.bin").read_bytes()))
    writer.start()
    code, piped, _ = run("inspect", "pipe.bin", "--json")
    writer.join()
    assert code == 0
    event = json.loads(piped[0])
    assert event["input"] == "pipe.bin"
    assert {**event, "input": "a.bin"} == json.loads(run("inspect", "a.bin", "--json")[1][0])


@pytest.mark.parametrize("format", ["png", "jpeg"])
@pytest.mark.parametrize("shape", [(200, 4000), (4000, 200), (255, 3090)])
def test_panoramas_with_one_narrow_side_are_looked_at_in_windows(run, shape, format):
    pixels = np.tile(to_bytes(photo() + noise(12)), (13, 13, 1))[: shape[0], : shape[1]]
    Path("wide").write_bytes(encode(pixels, format))
    code, out, err = run("inspect", "wide", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out[0])["sigma"] is not None
    with open_picture(Path("wide")) as reader, pytest.raises(ValueError, match="rows"):
        reader.read(0, shape[0] + 1)


def test_windows_lie_within_the_picture():
    for height in (48, 200, 255, 256, 300, 5000):
        for width in (48, 200, 255, 256, 3100, 20000):
            for rows, columns in place_windows(height, width):
                assert 0 <= rows.start < rows.stop <= height
                assert 0 <= columns.start < columns.stop <= width


def test_the_noise_of_a_gray_picture_is_one_number_for_all_channels(run):
    gray = to_bytes(photo().mean(axis=2) + noise(14)[..., 0])
    Path("gray.png").write_bytes(encode(gray))
    Path("rgb.png").write_bytes(encode(gray, mode="RGB"))
    for name in ("gray.png", "rgb.png"):
        found = json.loads(run("inspect", name, "--json")[1][0])
        assert len(set(found["sigma"])) == 1
        assert 10 < found["sigma"][0] < 20
