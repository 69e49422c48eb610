"""What happens to a picture around the network, as users meet it: colour, alpha, size, metadata, memory."""

import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from checkpoints import save_identity, save_nearest
from PIL import Image, ImageCms
from profiles import ADOBE_RGB, DISPLAY_P3, PROPHOTO, gray_profile
from skimage.color import deltaE_ciede2000

from mambair_cli.checkpoints.load import load_network
from mambair_cli.cli import main
from mambair_cli.images import read_picture

MAKE, ORIENTATION, GPS = 0x010F, 0x0112, 0x8825


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_nearest(folder / "x2.safetensors", 2)
    save_nearest(folder / "x4.safetensors", 4)
    save_identity(folder / "same.safetensors")
    return folder


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> Any:
    """Run a command with a checkpoint, and return (exit code, JSON lines or lines, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(command: str, checkpoint: str, *arguments: object) -> tuple[int, list[str], str]:
        path = weights / f"{checkpoint}.safetensors"
        code = main([command, *map(str, arguments), "--weights", str(path), "-q"])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return call


def colours(height: int = 48, width: int = 64) -> np.ndarray:
    """Return smooth colours of middling saturation, and gray."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    rgb = np.stack([0.2 + 0.6 * x, 0.3 + 0.5 * y, 0.7 - 0.4 * x * y], axis=2)
    rgb[-8:] = x[-8:, :, None]
    return (rgb * 255).round().astype(np.uint8)


def opened(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


# Colour


def shown(path: str) -> np.ndarray:
    """Return the colours that a file shows, as littleCMS sees them through its profile, in Lab."""
    image = opened(path)
    embedded = image.info.get("icc_profile")
    if embedded:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
    else:
        profile = ImageCms.createProfile("sRGB")
        image = image.convert("RGB")
    # By way of sRGB for CMYK, as a screen does it; else what lies beyond it counts, too.
    if image.mode == "CMYK":
        screen = ImageCms.createProfile("sRGB")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        transform = ImageCms.buildTransform(
            profile, screen, "CMYK", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC, flags
        )
        image, profile = ImageCms.applyTransform(image, transform), screen
        assert image is not None
    to_lab = ImageCms.buildTransform(profile, ImageCms.createProfile("LAB"), image.mode, "LAB")
    lab_image = ImageCms.applyTransform(image, to_lab)
    assert lab_image is not None
    lab = np.asarray(lab_image).astype(float)
    lab[..., 0] *= 100 / 255
    lab[..., 1:] = np.where(lab[..., 1:] > 127, lab[..., 1:] - 256, lab[..., 1:])
    return lab


def assert_looks_the_same(before: str, after: str, mean: float = 0.5) -> None:
    difference = deltaE_ciede2000(shown(before), shown(after))
    assert difference.mean() < mean


PROFILES = {"p3": DISPLAY_P3, "adobe": ADOBE_RGB, "prophoto": PROPHOTO}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_profile_stays_and_the_picture_looks_the_same(run: Any, profile: str, suffix: str) -> None:
    Image.fromarray(colours()).save("in.png", icc_profile=PROFILES[profile])
    code, _, _ = run("denoise", "same", "in.png", "-o", f"out{suffix}", "--quality", 100)
    assert code == 0
    assert opened(f"out{suffix}").info["icc_profile"] == PROFILES[profile]
    assert_looks_the_same("in.png", f"out{suffix}")


def test_what_has_no_profile_gets_none(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    for suffix in (".png", ".tif", ".jpg", ".webp", ".avif"):
        assert run("denoise", "same", "in.png", "-o", f"out{suffix}")[0] == 0
        assert "icc_profile" not in opened(f"out{suffix}").info


@pytest.mark.parametrize("gamma", [1.8, 2.2])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_gray_of_any_gamma_looks_the_same(run: Any, gamma: float, suffix: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(8, 0).repeat(8, 1)
    Image.fromarray(ramp).save("in.png", icc_profile=gray_profile(gamma))
    assert run("denoise", "same", "in.png", "-o", f"out{suffix}", "--quality", 100)[0] == 0
    assert_looks_the_same("in.png", f"out{suffix}")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_looks_the_same_and_is_srgb_then(run: Any, suffix: str) -> None:
    image = pyvips.Image.new_from_array(colours(), interpretation="srgb")
    printed = image.icc_transform("cmyk", input_profile="srgb", intent="relative")
    printed.write_to_file(f"in{suffix}", **({"Q": 100} if suffix == ".jpg" else {}))
    assert opened(f"in{suffix}").mode == "CMYK"
    assert run("denoise", "same", f"in{suffix}", "-o", "out.png")[0] == 0
    assert opened("out.png").mode == "RGB"
    assert opened("out.png").info["icc_profile"][16:20] == b"RGB "
    assert_looks_the_same(f"in{suffix}", "out.png")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_stripped_of_its_profile_a_picture_still_looks_the_same(run: Any, profile: str, suffix: str) -> None:
    muted = (colours() * 0.5 + 64).round().astype(np.uint8)  # within sRGB, whatever the profile
    block = Image.Exif()
    block[MAKE] = "Camera works"
    Image.fromarray(muted).save("in.png", icc_profile=PROFILES[profile], exif=block, dpi=(300, 300))
    assert run("denoise", "same", "in.png", "-o", f"out{suffix}", "--strip", "--quality", 100)[0] == 0
    info = opened(f"out{suffix}").info
    assert not {"icc_profile", "exif", "xmp", "photoshop", "dpi"} & set(info)
    assert_looks_the_same("in.png", f"out{suffix}", mean=1.0 if profile == "prophoto" else 0.6)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_stripped_gray_stays_gray_and_alpha_alpha(run: Any, suffix: str, mode: str, depth: int) -> None:
    values = np.dstack([colours(), np.arange(64, dtype=np.uint8)[None].repeat(48, 0) * 4])
    values = values[..., [0, 3]] if mode == "LA" else values
    profile = gray_profile(1.8) if mode == "LA" else DISPLAY_P3
    Image.fromarray(values).save("in.png", icc_profile=profile)
    code, _, _ = run("denoise", "same", "in.png", "-o", f"out{suffix}", "--strip", "--depth", depth)
    assert code == 0
    after = read_picture(Path(f"out{suffix}"))
    assert after.samples.dtype == f"uint{depth}"
    assert after.pixels.shape[2] == len(mode) - 1
    assert after.alpha is not None
    np.testing.assert_array_equal(after.alpha // (after.alpha.max() // 252), values[..., -1])


# Alpha


def disc(side: int = 64, garbage: tuple[int, int, int] = (0, 255, 0)) -> np.ndarray:
    """Return a red disc with a soft edge on transparent ground, and garbage where nothing shows."""
    y, x = np.mgrid[0:side, 0:side] - (side - 1) / 2
    alpha = np.clip(side / 3 - np.hypot(x, y) + 0.5, 0, 1)
    image = np.zeros((side, side, 4), np.uint8)
    image[..., 3] = (alpha * 255).round()
    image[..., :3] = np.where(image[..., 3:] > 0, (200, 30, 30), garbage)
    return image


def tiny(task: str, scale: int | None = None) -> list[str]:
    folder = Path(__file__).parents[1] / "mambair_cli" / "weights"
    return [str(folder / f"tiny-{f'x{scale}' if scale else task}.safetensors")]


@pytest.mark.parametrize("command", ["upscale", "denoise"])
@pytest.mark.parametrize("mode", ["RGBA", "P", "one bit"])
def test_a_disc_on_transparent_ground_gets_no_fringe(tmp_path: Path, command: str, mode: str) -> None:
    image = Image.fromarray(disc())
    if mode == "P":  # a colour of the palette is transparent
        hidden = np.asarray(image)[..., 3] < 128
        indexed = Image.fromarray(hidden.astype(np.uint8), "P")
        indexed.putpalette([200, 30, 30, 0, 255, 0])
        indexed.save(tmp_path / "in.png", transparency=1)
    else:
        if mode == "one bit":
            array = np.asarray(image).copy()
            array[..., 3] = np.where(array[..., 3] < 128, 0, 255)
            image = Image.fromarray(array)
        image.save(tmp_path / "in.png")
    model = "tiny-x2" if command == "upscale" else "tiny-denoise"
    code = main([command, str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--model", model, "-q"])
    assert code == 0
    restored = np.asarray(opened(tmp_path / "out.png")).astype(int)
    seen = restored[restored[..., 3] > 8][:, :3]
    assert np.abs(seen - (200, 30, 30)).max() <= 24  # the network's own ringing; garbage would be 225 away
    factor = restored.shape[0] // 64
    ideal = disc()[..., 3].repeat(factor, 0).repeat(factor, 1) / 255
    assert np.abs(restored[..., 3] / 255 - ideal).mean() < 0.03


def test_a_reduction_mixes_no_garbage_into_edges(run: Any) -> None:
    Image.fromarray(disc()).save("in.png")
    assert run("upscale", "x2", "in.png", "-o", "out.png", "--scale", 1.3)[0] == 0
    restored = np.asarray(opened("out.png")).astype(int)
    assert restored.shape == (83, 83, 4)
    seen = restored[restored[..., 3] > 8][:, :3]
    assert np.abs(seen - (200, 30, 30)).max() <= 8  # rounding where alpha is slight; garbage would be 225


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
    run: Any, arguments: list[object], size: tuple[int, int]
) -> None:
    Image.fromarray(colours()).save("in.png")
    code, out, _ = run("upscale", "x4", "in.png", "-o", "out.png", "--json", *arguments)
    assert code == 0
    done = json.loads(out[1])
    assert (done["width"], done["height"]) == size
    assert (done["scale"], done["reduced"]) == (4, True)
    restored = opened("out.png")
    assert restored.size == size
    plain = Image.fromarray(colours()).resize(size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(restored).astype(int) - np.asarray(plain)).mean() < 2


@pytest.mark.parametrize(("scale", "network"), [(1.5, 2), (2, 2), (2.5, 3), (3.01, 4), (4, 4)])
def test_the_next_larger_network_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scale: float, network: int
) -> None:
    Image.fromarray(colours(16, 16)).save(tmp_path / "in.png")
    arguments = ["upscale", str(tmp_path / "in.png"), "--scale", str(scale), "--offline", "--json", "-q"]
    assert main(arguments) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (done["model"], done["scale"]) == (f"tiny-x{network}", network)
    assert (done["width"], done["reduced"]) == (round(16 * scale), network != scale)


def test_the_image_that_grows_most_chooses_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for side in (16, 30):
        Image.fromarray(colours(side, side)).save(tmp_path / f"{side}.png")
    assert main(["upscale", str(tmp_path), "--width", "40", "--offline", "--json", "-q"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines()[1:3])
    assert first["model"] == second["model"] == "tiny-x3"
    assert (first["width"], second["width"]) == (40, 40)


def test_a_size_beyond_the_network_is_refused(run: Any) -> None:
    Image.fromarray(colours(16, 16)).save("in.png")
    code, _, err = run("upscale", "x4", "in.png", "--width", 65)
    assert code == 1
    assert "cannot enlarge 16×16 pixels 4.062 times: the network enlarges 4 times" in err
    code, _, err = run("upscale", "x4", "in.png", "--width", 65, "--megapixels", 2)
    assert code == 2
    assert "asked for more than once" in err
    assert os.listdir() == ["in.png"]


def test_a_reduction_is_done_in_light_as_it_adds_up(run: Any) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # half of the light
    Image.fromarray(stripes).save("in.png")
    assert run("upscale", "x2", "in.png", "-o", "out.png", "--width", 32)[0] == 0
    middle = np.asarray(opened("out.png"))[8:-8, 8:-8]
    assert abs(int(np.median(middle)) - 188) <= 1  # sRGB's value for half of the light; 128 is a fifth of it


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_frames_are_reduced_each_for_itself(run: Any, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ((250, 0, 0), (0, 0, 250), (0, 250, 0))]
    options: dict[str, Any] = {} if suffix == ".tif" else {"duration": [50, 90, 70]}
    frames[0].save(f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    assert run("upscale", "x2", f"in{suffix}", "-o", f"out{suffix}", "--scale", 1.5, "--quality", 100)[0] == 0
    with Image.open(f"out{suffix}") as after:
        assert (after.size, getattr(after, "n_frames", 1)) == ((48, 36), 3)
        for number, frame in enumerate(frames):
            after.seek(number)
            after.load()
            assert np.abs(np.asarray(after.convert("RGB")).astype(int) - frame.getpixel((0, 0))).max() <= 4


# Frames, depth, quality, format


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tif"])
def test_every_frame_is_restored_and_keeps_its_time(run: Any, suffix: str) -> None:
    frames = [Image.fromarray(np.roll(colours(), 9 * number, axis=1) // 64 * 64) for number in range(4)]
    options: dict[str, Any] = {} if suffix == ".tif" else {"duration": [50, 90, 70, 110], "loop": 2}
    frames[0].save(f"in{suffix}", save_all=True, append_images=frames[1:], **options)
    code, out, _ = run("upscale", "x2", f"in{suffix}", "--quality", 100)
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


def test_pages_keep_what_the_first_says_of_all(run: Any) -> None:
    pages = [Image.fromarray(colours()), Image.fromarray(255 - colours())]
    pages[0].save("in.tif", save_all=True, append_images=pages[1:], tiffinfo={MAKE: "Camera works"})
    assert run("upscale", "x2", "in.tif", "-o", "out.tif")[0] == 0
    with tifffile.TiffFile("out.tif") as file:
        assert len(file.pages) == 2
        first, second = (page.asarray() for page in file.pages)
        assert file.pages[0].tags[MAKE].value == "Camera works"  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(first, colours().repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(second, 255 - first)


def test_frames_do_not_go_where_there_is_room_for_one(run: Any) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save("in.gif", save_all=True, append_images=frames[1:])
    code, _, err = run("upscale", "x2", "in.gif", "--format", "png")
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
def test_depth_is_the_inputs_or_what_is_asked_for(run: Any, suffix: str, depth: str, expected: str) -> None:
    dark = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) // 16
    Image.fromarray(dark).save("in.png")
    assert run("denoise", "same", "in.png", "-o", f"out{suffix}", "--depth", depth)[0] == 0
    seen = np.asarray(opened(f"out{suffix}"))
    assert seen.dtype == expected
    if expected == "uint16":
        np.testing.assert_array_equal(seen, dark)


def test_eight_bits_become_sixteen_without_being_rounded_first(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    code, _, _ = run("upscale", "x2", "in.png", "-o", "out.tif", "--depth", 16, "--scale", 1.5)
    assert code == 0
    seen = tifffile.imread("out.tif")
    assert seen.dtype == np.uint16
    assert len(np.unique(seen)) > 1000  # values between those of 8 bits


def test_a_depth_that_a_format_has_not_is_refused(run: Any) -> None:
    Image.fromarray(colours()).save("in.jpg")
    code, _, err = run("denoise", "same", "in.jpg", "--depth", 16)
    assert code == 1
    assert "jpeg cannot store 16 bits per sample; png, tiff and avif can" in err


def test_quality_is_passed_on(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    for suffix in (".jpg", ".webp", ".avif"):
        for quality in (20, 90):
            name = f"{quality}{suffix}"
            assert run("denoise", "same", "in.png", "-o", name, "--quality", quality)[0] == 0
        assert os.path.getsize(f"20{suffix}") < os.path.getsize(f"90{suffix}")


def test_floats_stay_floats(run: Any) -> None:
    values = colours().astype(np.float32) / 255
    tifffile.imwrite("in.tif", values, photometric="rgb")
    assert run("upscale", "x2", "in.tif", "-o", "out.tif")[0] == 0
    seen = tifffile.imread("out.tif")
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, values.repeat(2, 0).repeat(2, 1), atol=1e-6)


def test_running_out_of_memory_midway_begins_anew(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path) -> Any:
        net = load_network(path)
        forward, calls = net.forward, []

        def failing(x: torch.Tensor, **options: Any) -> torch.Tensor:
            calls.append(x)
            if len(calls) == 4:  # rows are in the file by then
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(x, **options)

        monkeypatch.setattr(net, "forward", failing)
        return net

    monkeypatch.setattr("mambair_cli.restore.restorer.load_network", load)
    values = np.random.default_rng(0).integers(0, 256, (200, 60, 3), dtype=np.uint8)
    for suffix in (".png", ".tif"):
        Image.fromarray(values).save(f"in{suffix}")
        code, out, _ = run("upscale", "x2", f"in{suffix}", "--tile", 64, "--json")
        assert code == 0
        assert json.loads(out[1])["shrunk"]
        np.testing.assert_array_equal(np.asarray(opened(f"in_x2{suffix}")), values.repeat(2, 0).repeat(2, 1))


# Metadata


def test_all_metadata_stays_and_tells_of_the_result(run: Any) -> None:
    block = Image.Exif()
    block[MAKE], block[ORIENTATION] = "Camera works", 6
    block.get_ifd(GPS)[2] = (48.0, 8.0, 12.5)
    block.get_ifd(0x8769)[0xA002] = 64
    Image.fromarray(colours()).save("in.jpg", exif=block, quality=95, dpi=(300, 300))
    for suffix in (".jpg", ".png", ".webp", ".tif", ".avif"):
        assert run("upscale", "x2", "in.jpg", "-o", f"out{suffix}")[0] == 0
        after = opened(f"out{suffix}")
        tags = after.getexif()
        assert after.size == (96, 128)
        assert (tags[MAKE], tags.get(ORIENTATION, 1)) == ("Camera works", 1)
        assert tags.get_ifd(GPS)[2] == (48.0, 8.0, 12.5)
        assert tags.get_ifd(0x8769)[0xA002] == 96


def test_times_are_kept_on_demand(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    os.utime("in.png", ns=(10**18, 10**18 + 5))
    assert run("denoise", "same", "in.png", "-o", "with.png", "--preserve-times")[0] == 0
    assert run("denoise", "same", "in.png", "-o", "without.png")[0] == 0
    assert os.stat("with.png").st_mtime_ns == 10**18 + 5
    assert os.stat("without.png").st_mtime_ns > 10**18 + 10**9


# Limits


def test_more_pixels_than_allowed_are_refused(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    code, _, err = run("denoise", "same", "in.png", "--max-pixels", 64 * 48 - 1)
    assert code == 1
    assert "it has 64×48 pixels, more than 3071; cut it into parts, or allow more with --max-pixels" in err
    assert run("denoise", "same", "in.png", "--max-pixels", 64 * 48)[0] == 0


BUDGET = """
import resource, sys
from mambair_cli.checkpoints.load import load_network
from mambair_cli.cli import main
from mambair_cli.images import read_picture
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mebibytes(folder: Path, *arguments: object) -> int:
    command = [sys.executable, "-c", BUDGET, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    code, peak = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    return int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="counts in kibibytes of Linux")
def test_memory_is_that_of_the_rows_at_work(tmp_path: Path, weights: Path) -> None:
    noise = pyvips.Image.gaussnoise(512, 512, mean=128, sigma=20, seed=1).cast("uchar")
    for name, times in (("low", 1), ("tall", 8)):
        image = noise.replicate(1, times)
        image = image.bandjoin([image, image]).copy(interpretation="srgb")
        image.write_to_file(str(tmp_path / f"{name}.tif"))
    options = ["--weights", weights / "x4.safetensors", "-q"]
    low = peak_mebibytes(tmp_path, "upscale", "low.tif", *options)
    tall = peak_mebibytes(tmp_path, "upscale", "tall.tif", *options)
    # The result has 29 megapixels more: 84 MiB of samples, 336 MiB of floats.
    assert tall - low < 80
    with Image.open(tmp_path / "tall_x4.tif") as image:
        assert image.size == (2048, 16384)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_full_disk_is_exit_1_and_leaves_nothing(run: Any, small_disk: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in.png")
    code, out, err = run("denoise", "same", "in.png", "-o", small_disk / f"out{suffix}", "--quality", 100)
    assert (code, out) == (1, [])
    assert "the disk is full; free some space or write elsewhere" in err
    assert len(err.splitlines()) == 1
    assert os.listdir(small_disk) == []


def test_a_full_disk_for_standard_output_is_exit_1(
    run: Any, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in.png")
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    code, out, err = run("denoise", "same", "in.png", "-o", "-")
    assert (code, out) == (1, [])
    assert "cannot write -: No space left" in err


# The dry run


def test_the_dry_run_says_memory_disk_and_time_from_headers(run: Any) -> None:
    Image.fromarray(colours()).save("in.png")
    data = Path("in.png").read_bytes()
    Path("cut.png").write_bytes(data[: len(data) // 2])  # whoever decoded it would stumble
    code, out, err = run("upscale", "x2", "in.png", "cut.png", "--dry-run", "--json", "--scale", 1.5)
    assert (code, err) == (0, "")
    plan, first, second, total = map(json.loads, out)
    assert plan["on_this_machine"]
    assert (first["width"], first["height"]) == (96, 72)
    assert first["disk"] == second["disk"] == 96 * 72 * 3
    assert first["seconds"] > 0
    assert first["memory"] > 0
    assert total["disk"] == 2 * first["disk"]
    assert total["network_memory"] > 10**8
    assert sorted(os.listdir()) == ["cut.png", "in.png"]
    code, out, _ = run("upscale", "x2", "in.png", "--dry-run")
    assert out[-1].startswith("in all: ")


def test_the_dry_run_of_a_vast_image_reads_its_header_alone(run: Any) -> None:
    vast = pyvips.Image.black(30000, 20000, bands=3).copy(interpretation="srgb")
    vast.tiffsave("vast.tif", compression="deflate")
    code, out, _ = run("upscale", "x2", "vast.tif", "--dry-run", "--json")
    assert code == 0
    file = json.loads(out[1])
    assert (file["width"], file["height"]) == (60000, 40000)
    assert file["disk"] == 60000 * 40000 * 3
    assert file["memory"] < 2**31


# Bad input


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".avif", ".bmp", ".ppm", ".jp2"])
def test_a_wrong_suffix_changes_nothing(run: Any, suffix: str) -> None:
    format = {".jpg": "JPEG", ".tif": "TIFF", ".jp2": "JPEG2000"}.get(suffix, suffix[1:].upper())
    Image.fromarray(colours()).save("in.dat", format)
    os.rename("in.dat", "in.png")
    assert run("denoise", "same", "in.png", "-o", "out.tif")[0] == 0
    assert opened("out.tif").size == (64, 48)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".avif", ".bmp", ".ppm", ".jp2"])
@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.9])
def test_a_file_cut_short_is_one_line_and_no_result(run: Any, suffix: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(f"in{suffix}")
    data = Path(f"in{suffix}").read_bytes()
    Path(f"in{suffix}").write_bytes(data[: int(len(data) * part)])
    code, out, err = run("denoise", "same", f"in{suffix}", "-o", "out.png")
    assert (code, out) == (1, [])
    assert len(err.splitlines()) == 1
    assert err.startswith(f"mambair: error: cannot read in{suffix}: ")
    assert os.listdir() == [f"in{suffix}"]


def test_places_that_cannot_be_are_one_line_each(run: Any, tmp_path: Path) -> None:
    Image.fromarray(colours()).save("in.png")
    os.symlink("gone.png", "broken.png")
    os.mkdir("folder.png")
    long = "x" * 252 + ".png"
    for arguments, part in (
        (["broken.png", "-o", "out.png"], "it is a link to gone.png, which is missing"),
        (["in.png", "-o", long], "its name is too long; shorten it"),
        ([long, "-o", "out.png"], "its name is too long; shorten it"),
        (["in.png", "-o", "in.png/out.png"], "in.png is no folder; choose another folder with -o"),
        (["in.png", "-o", "/proc/none/out.png"], "/proc/none"),
    ):
        code, out, err = run("denoise", "same", *arguments)
        assert (code, out) == (1, [])
        assert len(err.splitlines()) == 1
        assert part in err
    code, _, err = run("denoise", "same", "folder.png")
    assert code == 2
    assert "no images in the folder: folder.png" in err


def test_names_as_long_as_names_can_be(run: Any) -> None:
    name = "é" * 125 + "x.png"  # 255 bytes
    Image.fromarray(colours()).save(name)
    assert run("denoise", "same", name, "-o", "out/")[0] == 0
    assert os.listdir("out") == [name]
    code, _, err = run("denoise", "same", name)  # with the mark it is too long
    assert code == 1
    assert "its name is too long; shorten it" in err


def test_a_limit_of_file_sizes_is_exit_1(run: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save("in.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, out, err = run("denoise", "same", "in.png", "-o", "out.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (code, out) == (1, [])
    assert "larger than files may be here" in err
    assert os.listdir() == ["in.png"]
