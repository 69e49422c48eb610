"""What a result is, in its size, frames, depth, quality and metadata."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from metadata import EXIF_PART, GPS_PART, MAKE, ORIENTATION, WIDTH
from pictures import load_image, smooth_colours
from PIL import Image

from mambair_cli.cli import main

# Size


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["--scale", 2.5], (160, 120)),
        (["-s", 1], (64, 48)),
        (["--width", 100], (100, 75)),
        (["--height", 100], (133, 100)),
        (["--width", 100, "--height", 100], (100, 75)),
        (["--megapixels", 0.02], (163, 122)),
    ],
)
def test_any_size_by_the_next_larger_network_and_a_reduction(
    restore: Any, arguments: list[object], size: tuple[int, int]
) -> None:
    Image.fromarray(smooth_colours()).save("in.png")
    code, out, _ = restore("upscale", "x4", "in.png", "-o", "out.png", "--json", *arguments)
    assert code == 0
    done = json.loads(out[1])
    assert (done["width"], done["height"]) == size
    assert (done["scale"], done["reduced"]) == (4, True)
    restored = load_image("out.png")
    assert restored.size == size
    plain = Image.fromarray(smooth_colours()).resize(size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(restored).astype(int) - np.asarray(plain)).mean() < 2


@pytest.mark.parametrize(("scale", "network"), [(1.5, 2), (2, 2), (2.5, 3), (3.01, 4), (4, 4)])
def test_the_next_larger_network_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: float, network: int
) -> None:
    Image.fromarray(smooth_colours(16, 16)).save(tmp_path / "in.png")
    arguments = ["upscale", str(tmp_path / "in.png"), "--scale", str(scale), "--offline", "--json", "-q"]
    assert main(arguments) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (done["model"], done["scale"]) == (f"tiny-x{network}", network)
    assert (done["width"], done["reduced"]) == (round(16 * scale), network != scale)


def test_the_image_that_grows_most_chooses_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in (16, 30):
        Image.fromarray(smooth_colours(side, side)).save(tmp_path / f"{side}.png")
    assert main(["upscale", str(tmp_path), "--width", "40", "--offline", "--json", "-q"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines()[1:3])
    assert first["model"] == second["model"] == "tiny-x3"
    assert (first["width"], second["width"]) == (40, 40)


def test_a_size_beyond_the_network_is_refused(restore: Any) -> None:
    Image.fromarray(smooth_colours(16, 16)).save("in.png")
    code, _, err = restore("upscale", "x4", "in.png", "--width", 65)
    assert code == 1
    assert "cannot enlarge 16×16 pixels 4.062 times: the network enlarges 4 times" in err
    code, _, err = restore("upscale", "x4", "in.png", "--width", 65, "--megapixels", 2)
    assert code == 2
    assert "asked for more than once" in err
    assert os.listdir() == ["in.png"]


def test_a_reduction_is_done_in_light_as_it_adds_up(restore: Any) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # half of the light
    Image.fromarray(stripes).save("in.png")
    assert restore("upscale", "x2", "in.png", "-o", "out.png", "--width", 32)[0] == 0
    middle = np.asarray(load_image("out.png"))[8:-8, 8:-8]
    assert abs(int(np.median(middle)) - 188) <= 1  # sRGB's value for half of the light; 128 is a fifth of it


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_frames_are_reduced_each_for_itself(restore: Any, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ((250, 0, 0), (0, 0, 250), (0, 250, 0))]
    options: dict[str, Any] = {} if suffix == ".tif" else {"duration": [50, 90, 70]}
    frames[0].save(f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (
        restore("upscale", "x2", f"in{suffix}", "-o", f"out{suffix}", "--scale", 1.5, "--quality", 100)[0]
        == 0
    )
    with Image.open(f"out{suffix}") as after:
        assert (after.size, getattr(after, "n_frames", 1)) == ((48, 36), 3)
        for number, frame in enumerate(frames):
            after.seek(number)
            after.load()
            assert np.abs(np.asarray(after.convert("RGB")).astype(int) - frame.getpixel((0, 0))).max() <= 4


# Frames, depth, quality, format


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_every_frame_is_restored_and_keeps_its_time(restore: Any, suffix: str) -> None:
    frames = [
        Image.fromarray(np.roll(smooth_colours(), 9 * number, axis=1) // 64 * 64) for number in range(4)
    ]
    options: dict[str, Any] = {} if suffix == ".tif" else {"duration": [50, 90, 70, 110], "loop": 2}
    frames[0].save(f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    code, out, _ = restore("upscale", "x2", f"in{suffix}", "--quality", 100)
    assert (code, out) == (0, [f"in_x2{suffix}"])
    with Image.open(f"in{suffix}") as before, Image.open(out[0]) as after:
        assert getattr(after, "n_frames", 1) == 4
        assert after.size == (128, 96)
        for number in range(4):
            before.seek(number)
            after.seek(number)
            expected = np.asarray(before.convert("RGB")).repeat(2, 0).repeat(2, 1).astype(int)
            assert np.abs(np.asarray(after.convert("RGB")) - expected).mean() < 2
            for key in ("duration", "loop"):
                assert before.info.get(key) == after.info.get(key)


def test_pages_keep_what_the_first_says_of_all(restore: Any) -> None:
    pages = [Image.fromarray(smooth_colours()), Image.fromarray(255 - smooth_colours())]
    pages[0].save("in.tif", save_all=True, append_images=pages[1:], tiffinfo={MAKE: "Camera works"})
    assert restore("upscale", "x2", "in.tif", "-o", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert len(file.pages) == 2
        first, second = (page.asarray() for page in file.pages)
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        assert page.tags[MAKE].value == "Camera works"
    np.testing.assert_array_equal(first, smooth_colours().repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(second, 255 - first)


def test_frames_do_not_go_where_there_is_room_for_one(restore: Any) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save("in.gif", save_all=True, append_images=frames[1:])
    code, _, err = restore("upscale", "x2", "in.gif", "--format", "png")
    assert code == 1
    assert "png holds one image, not 2 pages or frames; webp, tiff, avif and gif hold them" in err
    assert os.listdir() == ["in.gif"]


@pytest.mark.parametrize(
    ("suffix", "depth", "expected"),
    [
        (".png", "auto", "uint16"),
        (".png", "8", "uint8"),
        (".tif", "auto", "uint16"),
        (".tif", "8", "uint8"),
        (".jpg", "auto", "uint8"),
        (".webp", "auto", "uint8"),
    ],
)
def test_depth_is_the_inputs_or_what_is_asked_for(
    restore: Any, suffix: str, depth: str, expected: str
) -> None:
    dark = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) // 16
    Image.fromarray(dark).save("in.png")
    assert restore("denoise", "same", "in.png", "-o", f"out{suffix}", "--depth", depth)[0] == 0
    seen = np.asarray(load_image(f"out{suffix}"))
    assert seen.dtype == expected
    if expected == "uint16":
        np.testing.assert_array_equal(seen, dark)


def test_eight_bits_become_sixteen_without_being_rounded_first(restore: Any) -> None:
    Image.fromarray(smooth_colours()).save("in.png")
    code, _, _ = restore("upscale", "x2", "in.png", "-o", "out.tif", "--depth", 16, "--scale", 1.5)
    assert code == 0
    seen = tifffile.imread("out.tif")
    assert seen.dtype == np.uint16
    assert len(np.unique(seen)) > 1000  # values between those of 8 bits


def test_a_depth_that_a_format_has_not_is_refused(restore: Any) -> None:
    Image.fromarray(smooth_colours()).save("in.jpg")
    code, _, err = restore("denoise", "same", "in.jpg", "--depth", 16)
    assert code == 1
    assert "jpeg cannot store 16 bits per sample; png, tiff and avif can" in err


def test_quality_is_passed_on(restore: Any) -> None:
    Image.fromarray(smooth_colours()).save("in.png")
    for suffix in (".jpg", ".webp", ".avif"):
        for quality in (20, 90):
            name = f"{quality}{suffix}"
            assert restore("denoise", "same", "in.png", "-o", name, "--quality", quality)[0] == 0
        assert os.path.getsize(f"20{suffix}") < os.path.getsize(f"90{suffix}")


def test_floats_stay_floats(restore: Any) -> None:
    values = smooth_colours().astype(np.float32) / 255
    tifffile.imwrite("in.tif", values, photometric="rgb")
    assert restore("upscale", "x2", "in.tif", "-o", "out.tif")[0] == 0
    seen = tifffile.imread("out.tif")
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, values.repeat(2, 0).repeat(2, 1), atol=1e-6)


# Metadata


def test_all_metadata_stays_and_describes_the_result(restore: Any) -> None:
    block = Image.Exif()
    block[MAKE], block[ORIENTATION] = "Camera works", 6
    block.get_ifd(GPS_PART)[2] = (48.0, 8.0, 12.5)
    block.get_ifd(EXIF_PART)[WIDTH] = 64
    Image.fromarray(smooth_colours()).save("in.jpg", exif=block, quality=95, dpi=(300, 300))
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        assert restore("upscale", "x2", "in.jpg", "-o", f"out{suffix}")[0] == 0
        after = load_image(f"out{suffix}")
        tags = after.getexif()
        assert after.size == (96, 128)
        assert (tags[MAKE], tags.get(ORIENTATION, 1)) == ("Camera works", 1)
        assert tags.get_ifd(GPS_PART)[2] == (48.0, 8.0, 12.5)
        assert tags.get_ifd(EXIF_PART)[WIDTH] == 96


def test_times_are_kept_on_demand(restore: Any) -> None:
    Image.fromarray(smooth_colours()).save("in.png")
    os.utime("in.png", ns=(10**18, 10**18 + 5))
    assert restore("denoise", "same", "in.png", "-o", "with.png", "--preserve-times")[0] == 0
    assert restore("denoise", "same", "in.png", "-o", "without.png")[0] == 0
    assert os.stat("with.png").st_mtime_ns == 10**18 + 5
    assert os.stat("without.png").st_mtime_ns > 10**18 + 10**9


def test_orientation_is_applied_once(run, weights):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save("in.jpg", exif=exif, quality=100)
    code, _, _ = run("upscale", "in.jpg", "--weights", weights / "x4.safetensors")
    assert code == 0
    restored = load_image("in_x4.jpg")
    assert restored.size == (32, 64)
    assert restored.getexif().get(0x0112, 1) == 1
    assert np.array(restored)[:16].mean() > 250
