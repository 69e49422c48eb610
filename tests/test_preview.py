"""A part of an image before and after: which part, by which models and strengths, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from pages import pixels_of, read_data
from PIL import Image
from profiles import DISPLAY_P3

from mambair_cli.images.picture import Header
from mambair_cli.inspection.telling_part import choose_telling_part
from mambair_cli.pages.screen import read_for_screen
from mambair_cli.system.geometry import Region

ONLY_A_PREVIEW = (
    "mambair: this is a preview: no image is written; without --preview and --region the whole is restored\n"
)


def smooth(height: int, width: int, bands: int = 3) -> np.ndarray:
    """Return a picture with slopes of its own in each band, uint8."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(rows / (7 + band) + columns / (11 + 3 * band)) for band in range(bands)]
    return np.stack(waves, axis=2).astype(np.uint8)


def save(name: str, pixels: np.ndarray, **options) -> str:
    Image.fromarray(pixels.squeeze()).save(name, **options)
    return name


def pictures_of(page: str) -> dict[str, np.ndarray]:
    return {picture["name"]: pixels_of(picture) for picture in read_data(Path(page))["pictures"]}


# Which part


def choose(pixels: np.ndarray, has_alpha: bool = False) -> Region:
    height, width, samples = pixels.shape
    header = Header(width, height, samples - has_alpha, str(pixels.dtype), has_alpha)
    tops = []

    def read(top: int, bottom: int) -> np.ndarray:
        tops.append(top)
        return pixels[top:bottom]

    region = choose_telling_part(header, read)
    assert tops == sorted(tops)
    return region


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_part_has_edges_next_to_smooth_areas(dtype):
    pixels = np.full((640, 640, 3), 0.5)
    pixels[320:448, 288:416] = np.random.default_rng(0).random((128, 128, 3))  # a quarter of a part
    scale = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    region = choose((pixels * scale).astype(dtype))
    assert (region.width, region.height) == (256, 256)
    across = min(region.left + 256, 416) - max(region.left, 288)
    down = min(region.top + 256, 448) - max(region.top, 320)
    assert min(across, down) > 0
    assert across * down >= 0.1 * 256 * 256  # the share that the 90th percentile sees


def test_detail_everywhere_is_not_telling():
    pixels = np.full((300, 1200, 1), 128, np.uint8)
    pixels[:, :600] = np.random.default_rng(0).integers(0, 256, (300, 600, 1), dtype=np.uint8)
    assert 600 - 256 < choose(pixels).left < 600


def test_a_flat_picture_shows_its_centre_and_a_small_one_all():
    assert choose(np.full((700, 1000, 3), 200, np.uint8)) == (372, 222, 256, 256)
    assert choose(smooth(200, 256)) == (0, 0, 256, 200)
    assert choose(smooth(1, 1)) == (0, 0, 1, 1)


@pytest.mark.parametrize("shape", [(3000, 3, 1), (3, 3000, 1), (257, 256, 3), (300, 40, 3)])
def test_the_part_lies_in_pictures_of_any_shape(shape):
    height, width, _ = shape
    region = choose(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert (region.width, region.height) == (min(width, 256), min(height, 256))
    assert 0 <= region.left <= width - region.width
    assert 0 <= region.top <= height - region.height


def test_what_is_transparent_does_not_count():
    pixels = np.zeros((512, 1024, 4), np.uint8)
    pixels[:256, :128] = np.random.default_rng(0).integers(0, 256, (256, 128, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[256:, 896:, :3] = smooth(256, 128)
    pixels[256:, 896:, 3] = 255
    region = choose(pixels, has_alpha=True)
    assert region.left >= 512
    assert region.top >= 32


# What the page shows


def test_a_part_is_that_of_the_image_and_of_the_result(restore):
    pixels = smooth(300, 400)
    save("in.png", pixels)
    code, out, _ = restore("upscale", "x2", "in.png", "--region", "50,60,70,40")
    assert (code, out) == (0, ["in_preview.html"])
    shown = pictures_of("in_preview.html")
    part = pixels[60:100, 50:120]
    np.testing.assert_array_equal(shown["in.png, as pixels"], part)
    repeated = part.repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(shown["x2.safetensors"].astype(int) - repeated).max() <= 1
    assert sorted(Path().iterdir()) == [Path("in.png"), Path("in_preview.html")]


@pytest.mark.parametrize("strengths", [(), ("--strength", "0.3")])
def test_a_whole_image_is_shown_as_a_run_restores_it(run, strengths):
    save("in.png", smooth(40, 60))
    options = ["-s", "2", "--model", "tiny-x2", "--offline", *strengths]
    assert run("upscale", "in.png", *options, "-o", "out.png")[0] == 0
    assert run("upscale", "in.png", *options, "--preview")[0] == 0
    name = "tiny-x2, strength 0.3" if strengths else "tiny-x2"
    shown = pictures_of("in_preview.html")[name]
    np.testing.assert_array_equal(shown, np.asarray(Image.open("out.png")))


def test_the_network_sees_what_is_around_the_part(run):
    save("in.png", smooth(120, 120))
    options = ["--model", "tiny-x2", "--offline", "-q"]
    assert run("upscale", "in.png", *options, "-o", "out.png")[0] == 0
    assert run("upscale", "in.png", *options, "--region", "40,40,40,40")[0] == 0
    Image.open("in.png").crop((40, 40, 80, 80)).save("cut.png")
    assert run("upscale", "cut.png", *options, "-o", "cut_out.png")[0] == 0
    run_result = np.asarray(Image.open("out.png"))[80:160, 80:160].astype(int)
    shown = pictures_of("in_preview.html")["tiny-x2"]
    alone = np.asarray(Image.open("cut_out.png"))

    def rim(pixels: np.ndarray) -> float:
        difference = np.abs(pixels - run_result)
        difference[4:-4, 4:-4] = 0
        return difference.sum()

    assert rim(shown) < 0.2 * rim(alone)


def test_several_models_and_strengths_become_pictures_of_their_own(run):
    save("in.png", smooth(40, 60))
    models = ["--model", "tiny-x2", "--model", "tiny-real-x2"]
    code, _, err = run(
        "upscale", "in.png", *models, "--strength", 0.5, "--strength", 1, "--preview", "--offline"
    )
    assert code == 0
    assert err == f"mambair: using tiny-x2 on cpu\nmambair: using tiny-real-x2 on cpu\n{ONLY_A_PREVIEW}"
    shown = pictures_of("in_preview.html")
    assert [*shown] == ["in.png, bicubic", "in.png, as pixels"] + [
        f"{model}, strength {strength}" for model in ("tiny-x2", "tiny-real-x2") for strength in ("0.5", "1")
    ]
    assert (
        run("upscale", "in.png", *models[2:], "--strength", 0.5, "-o", "out.png", "-q", "--offline")[0] == 0
    )
    np.testing.assert_array_equal(shown["tiny-real-x2, strength 0.5"], np.asarray(Image.open("out.png")))


def test_a_model_that_auto_chooses_is_shown_once(run):
    save("in.png", smooth(40, 60))
    args = ["--model", "auto", "--model", "tiny-x2", "-s", "2", "--preview", "--offline"]
    code, _, err = run("upscale", "in.png", *args)
    assert (code, err) == (0, f"mambair: using tiny-x2 on cpu, by a look at the image\n{ONLY_A_PREVIEW}")
    assert [*pictures_of("in_preview.html")][2:] == ["tiny-x2"]


def test_auto_looks_at_the_whole_image(run):
    Image.fromarray(smooth(300, 300)).save("in.jpg", quality=40)
    region = ["--region", "0,0,16,16"]  # too small to tell
    code, _, err = run("upscale", "in.jpg", *region, "-s", "2", "--offline")
    assert code == 0
    assert "in.jpg: a JPEG of quality 40" in err
    assert "tiny-real-x2" in pictures_of("in_preview.html")


@pytest.mark.parametrize(("options", "size"), [(["-s", "1.5"], (60, 45)), (["--width", "150"], (60, 45))])
def test_a_size_is_that_of_the_whole_result(restore, options, size):
    save("in.png", smooth(80, 100))
    assert restore("upscale", "x2", "in.png", "--region", "10,20,40,30", *options)[0] == 0
    shown = pictures_of("in_preview.html")["x2.safetensors"]
    assert shown.shape[1::-1] == size
    expected = Image.fromarray(smooth(80, 100)[20:50, 10:50]).resize(size, Image.Resampling.BILINEAR)
    assert np.abs(shown.astype(int) - np.asarray(expected)).mean() < 3


def test_sixteen_bits_and_a_profile_are_converted_for_the_screen(restore):
    pixels = (smooth(60, 60, 1).astype(np.uint16) * 257)[..., 0] + 77
    Image.fromarray(pixels).save("gray.png")
    assert restore("denoise", "same", "gray.png", "--region", "10,10,40,40")[0] == 0
    data = read_data(Path("gray_preview.html"))["pictures"]
    assert [picture["notes"] for picture in data] == [["from 16 bits"]] * 2
    np.testing.assert_array_equal(
        pixels_of(data[0])[..., 0], np.rint(pixels[10:50, 10:50] / 257).astype(np.uint8)
    )
    save("wide.png", smooth(60, 60), icc_profile=DISPLAY_P3)
    assert restore("denoise", "same", "wide.png", "--preview")[0] == 0
    before, after = pictures_of("wide_preview.html").values()
    np.testing.assert_array_equal(before, read_for_screen(Path("wide.png")).pixels)
    assert np.abs(after.astype(int) - before).max() <= 2


def test_transparency_stays(restore):
    pixels = smooth(60, 60, 4)
    pixels[:30, :, 3] = 0
    pixels[30:, :, 3] = 255
    save("in.png", pixels)
    assert restore("upscale", "x2", "in.png", "--region", "0,20,60,20", "--strength", "0.5")[0] == 0
    shown = pictures_of("in_preview.html")["x2.safetensors, strength 0.5"]
    assert shown.shape == (40, 120, 4)
    assert shown[:12, :, 3].max() == 0
    assert shown[28:, :, 3].min() == 255


def test_the_first_frame_of_an_animation_is_shown(restore):
    first, second = (Image.fromarray(smooth(60, 60) // part) for part in (1, 2))
    first.save("in.gif", save_all=True, append_images=[second])
    assert restore("denoise", "same", "in.gif", "--region", "8,8,32,32")[0] == 0
    picture = read_data(Path("in_preview.html"))["pictures"][0]
    assert picture["notes"] == ["the first of 2 frames"]
    with Image.open("in.gif") as file:
        expected = np.asarray(file.convert("RGB"))[8:40, 8:40]
    np.testing.assert_array_equal(pixels_of(picture), expected)


def test_an_image_that_is_not_kept_in_memory_gives_the_same_page(restore, monkeypatch):
    save("in.png", smooth(600, 700))
    assert restore("upscale", "x2", "in.png", "--preview", "-o", "a.html")[0] == 0
    monkeypatch.setattr("mambair_cli.runs.image_job.DECODED_BYTES", 0)
    assert restore("upscale", "x2", "in.png", "--preview", "-o", "b.html")[0] == 0
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_an_event_says_what_was_shown(run, weights):
    save("in.png", smooth(80, 100))
    code, out, _ = run(
        *("upscale", "in.png", "--region", "10,20,40,30", "--json", "--strength", 0.5),
        *("--weights", weights / "x2.safetensors"),
    )
    event = json.loads(out[0])
    assert (code, len(out)) == (0, 1)
    assert (
        event.pop("results")[0].items()
        >= {"model": "x2.safetensors", "strength": 0.5, "scale": 2, "width": 80, "height": 60}.items()
    )
    assert event == {
        "event": "preview",
        "input": "in.png",
        "page": "in_preview.html",
        "region": [10, 20, 40, 30],
        "need": None,
        "warnings": [],
    }


# What is refused

THREE_STRENGTHS = ["--strength", "0", "--strength", "0.2", "--strength", "0.4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--region", "90,0,20,20"], "the region 90,0,20,20 leaves the picture in.png: it has 100×80 pixels"),
        (["--region", "0,0,0,20"], "--region is 0,0,0,20; it must be the left column"),
        (["--preview", "-o", "out.png"], "not an image: -o out.png; give a name that ends in .html"),
        (["--preview", "-o", "-"], "not an image: -o -; give a name that ends in .html"),
        (["--preview", "--resume"], "--preview writes a page and no result: --resume; leave it out"),
        (["--region", "0,0,9,9", "--format", "png"], "--region writes a page and no result: --format png;"),
        (["--preview", "--compare"], "--preview writes a page and no result: --compare; leave it out"),
        (["--preview", "--dry-run"], "--preview writes a page and no result: --dry-run; leave it out"),
        (["--preview", "--workers", "2"], "--preview computes in one process: --workers 2; leave it out"),
        (["--preview", "--server", "auto"], "--preview computes in one process: --server auto; leave it out"),
        (
            [
                "--preview",
                *["--strength", "0", "--strength", ".2", "--strength", ".4"],
                *["--model", "a", "--model", "b"],
            ],
            "--preview shows up to 5 results, not 6; name fewer",
        ),
        (["--preview", "--width", "20"], "results of half the width and height or less of in.png are made"),
        (
            ["--model", "tiny-x2", "--model", "tiny-x4"],
            "--model tiny-x2 and --model tiny-x4: a run takes one; give one, or compare them with --preview",
        ),
        (["--strength", "0.5", "--strength", "1"], "--strength 0.5 and --strength 1: a run takes one"),
        (
            ["--preview", "--strength", "1", "--strength", "2"],
            "--strength is 2; it must be a number from 0 to 1",
        ),
        (["--preview", "--real", "--model", "tiny-x2"], "--real chooses a model, and --model tiny-x2 is one"),
        (["other.png", "--preview"], "a preview shows one image, and there are 2; name one"),
    ],
)
def test_a_mistake_is_refused_in_a_line_and_leaves_nothing(run, arguments, message):
    save("in.png", smooth(80, 100))
    save("other.png", smooth(80, 100))
    code, out, err = run("upscale", "in.png", *arguments, "--offline", "-q")
    assert (code, out) == (2, [])
    assert message in err
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == [Path("in.png"), Path("other.png")]


def test_an_unknown_model_is_refused_before_the_others_restore(run):
    save("in.png", smooth(20, 20))
    code, _, err = run(
        "upscale", "in.png", "--preview", "--model", "tiny-x2", "--model", "no-such", "--offline"
    )
    assert (code, err) == (
        3,
        "mambair: error: unknown model: no-such; `mambair models list` shows all names\n",
    )


def test_a_page_that_exists_is_replaced_only_where_that_is_asked_for(restore):
    save("in.png", smooth(20, 20))
    Path("in_preview.html").write_text("mine")
    code, _, err = restore("upscale", "x2", "in.png", "--preview")
    assert (code, Path("in_preview.html").read_text()) == (2, "mine")
    assert err == "mambair: error: cannot write in_preview.html: it exists already; --overwrite replaces it\n"
    assert restore("upscale", "x2", "in.png", "--preview", "--overwrite")[0] == 0
    assert [*pictures_of("in_preview.html")][2:] == ["x2.safetensors"]
    save("other.png", smooth(20, 20))
    for output in ("page.html", "page.html"):
        assert restore("upscale", "x2", "in.png", "--preview", "-o", output)[0] == 0
    code, _, err = restore("upscale", "x2", "other.png", "--preview", "-o", "page.html")
    assert (code, "cannot write page.html: it shows other pictures; --overwrite replaces it" in err) == (
        2,
        True,
    )
    Path("link.html").symlink_to("in.png")
    code, _, err = restore("upscale", "x2", "in.png", "--preview", "-o", "link.html", "--overwrite")
    assert (code, err) == (2, "mambair: error: cannot write link.html: it is an input; choose another name\n")


def test_a_page_has_a_place_of_its_own(restore):
    Path("photos").mkdir()
    Path("pages").mkdir()
    save("photos/in.png", smooth(20, 20))
    for more, page in (([], "photos/in_preview.html"), (["-o", "pages"], "pages/in_preview.html")):
        assert restore("upscale", "x2", "photos/in.png", "--preview", *more) == (0, [page], "")
    assert restore("upscale", "x2", "photos/in.png", "--preview", "-o", "a/b.html")[:2] == (0, ["a/b.html"])


def test_a_server_that_the_environment_names_is_for_runs(restore, monkeypatch):
    monkeypatch.setenv("MAMBAIR_SERVER", "http://127.0.0.1:9")
    save("in.png", smooth(20, 20))
    args = ["--device", "cpu", "--preview"]
    assert restore("upscale", "x2", "in.png", *args) == (0, ["in_preview.html"], "")


def test_a_broken_image_has_no_page(run):
    Path("in.png").write_bytes(b"no picture")
    code, _, err = run("upscale", "in.png", "--preview", "--offline")
    assert code == 1
    assert err.startswith("mambair: error: cannot read in.png")
    assert not Path("in_preview.html").exists()


def test_what_is_left_of_a_damaged_image_is_shown_with_damaged(run):
    Image.fromarray(smooth(300, 300)).save("whole.jpg", quality=90)
    data = Path("whole.jpg").read_bytes()
    Path("in.jpg").write_bytes(data[: len(data) // 2])
    args = ["upscale", "in.jpg", "--region", "0,0,40,40", "--model", "tiny-x2", "--offline"]
    assert run(*args)[0] == 1
    code, _, err = run(*args, "--damaged")
    assert code == 0
    assert "mambair: warning: in.jpg: " in err


def test_a_page_of_an_earlier_preview_is_replaced(restore):
    save("in.png", smooth(20, 20))
    assert restore("upscale", "x2", "in.png", "--preview")[0] == 0
    first = Path("in_preview.html").read_text()
    assert restore("upscale", "x2", "in.png", "--preview", "--strength", "0.5")[0] == 0
    assert Path("in_preview.html").read_text() != first


def test_the_page_is_opened_in_the_browser_if_there_is_one(run, weights, monkeypatch):
    import webbrowser

    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or len(opened) > 1)
    save("in.png", smooth(20, 20))
    command = ("upscale", "in.png", "--preview", "--open", "--weights", weights / "x2.safetensors")
    _, _, err = run(*command)
    address = Path("in_preview.html").resolve().as_uri()
    assert opened == [address]
    assert f"no browser was found: {address}; open it yourself" in err
    opened.clear()
    assert run(*command, "-q")[2] == ""
    _, _, err = run(*command)
    assert "no browser" not in err


def test_open_needs_a_page(run):
    save("in.png", smooth(20, 20))
    code, _, err = run("upscale", "in.png", "--open", "--offline")
    assert code == 2
    assert "--open shows a page, and none is written; add --preview, --region or --compare" in err
