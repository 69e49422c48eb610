"""Sizes that no network gives by itself: between its scales, beyond them, and below the image's own."""

import io
import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile
from checkpoints import save_nearest
from PIL import Image

from mambair_cli.images import Header, InputFrames, open_picture, read_picture
from mambair_cli.images.encoding import Writer
from mambair_cli.images.plain_alpha import PlainAlpha
from mambair_cli.images.resize_and_convert import reduce_samples
from mambair_cli.images.source import Source
from mambair_cli.restore.engine import Engine
from mambair_cli.restore.tiling import Report, plan_nothing
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.server.protocol import ResultReport, describe_report, read_record, read_report
from mambair_cli.system.geometry import Wrap


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(Engine, "launch", launch)


class Touched(np.ndarray):
    """An array that notes the numbers of rows that are written."""

    rows: ClassVar[list[int]] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.rows.append(len(self[key]))
        super().__setitem__(key, value)


def colours(height: int, width: int, depth: int = 8) -> np.ndarray:
    """Return smooth colours, with some detail in them."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    rgb = np.stack([0.2 + 0.6 * x, 0.3 + 0.5 * y, 0.6 - 0.3 * x * y], axis=2)
    rgb += np.random.default_rng(0).normal(0, 0.03, rgb.shape)
    return (rgb.clip(0, 1) * (2**depth - 1)).round().astype(f"uint{depth}")


def pixels(path: str) -> np.ndarray:
    return read_picture(Path(path)).pixels.astype(int)


@pytest.mark.parametrize("by", ["model", "weights"])
def test_a_larger_model_does_a_smaller_scale(run: Any, tmp_path: Path, by: str) -> None:
    Image.fromarray(colours(18, 24)).save("in.png")
    model = "tiny-x4" if by == "model" else save_nearest(tmp_path / "x4.safetensors", 4)
    code, out, _ = run("upscale", "in.png", f"--{by}", model, "-s", 2, "--json", "--offline", "-q")
    done = json.loads(out[1])
    assert (code, done["output"], done["width"], done["height"]) == (0, "in_x2.png", 48, 36)
    assert (done["scale"], done["reduced"]) == (4, True)
    code, _, _ = run(
        "upscale", "in.png", f"--{by}", model, "--width", 48, "-o", "other.png", "--offline", "-q"
    )
    assert code == 0
    np.testing.assert_array_equal(pixels("in_x2.png"), pixels("other.png"))
    plain = np.asarray(Image.fromarray(colours(18, 24)).resize((48, 36), Image.Resampling.BICUBIC)).astype(
        int
    )
    assert np.abs(pixels("in_x2.png") - plain).mean() < 4


def test_a_scale_that_the_named_model_has_is_its_own(run: Any) -> None:
    Image.fromarray(colours(18, 24)).save("in.png")
    code, out, _ = run("upscale", "in.png", "--model", "tiny-x2", "-s", 2, "--json", "-q")
    assert (code, json.loads(out[1])["reduced"]) == (0, False)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_scale_beyond_the_named_model_is_said_once_and_first(run: Any, more: list[str]) -> None:
    for name in "ab":
        Image.fromarray(colours(8, 8)).save(f"{name}.png")
    code, out, err = run("upscale", "a.png", "b.png", "--model", "tiny-x2", "-s", 3, "-q", *more)
    assert (code, out) == (3, [])
    assert err == (
        "mambair: error: the model does not fit the scale: it enlarges 2 times, and -s 3 was asked for; "
        "ask for less, or choose a larger model\n"
    )


@pytest.mark.parametrize("scale", ["8", "6", "16"])
def test_what_is_said_of_a_larger_scale_does_it(run: Any, scale: str) -> None:
    Image.fromarray(colours(4, 6)).save("in.png")
    code, out, err = run("upscale", "in.png", "-s", scale)
    assert (code, out, len(err.splitlines())) == (2, [], 1)
    advice = err.split("do it in two steps: ")[1].strip()
    for command in advice.split("; "):
        name, *arguments = shlex.split(command)
        assert name == "mambair"
        assert run(*arguments, "--offline", "-q")[0] == 0
    with Image.open("out.png") as image:
        assert image.size == (6 * int(scale), 4 * int(scale))


def test_scales_that_are_too_small_and_far_too_large_are_said_to_be_so(run: Any) -> None:
    Image.fromarray(colours(4, 6)).save("in.png")
    assert run("upscale", "in.png", "-s", 0.5)[::2] == (
        2,
        "mambair: error: cannot enlarge by -s 0.5: it is less than 1; "
        "--width, --height and --megapixels make images smaller\n",
    )
    code, _, err = run("upscale", "in.png", "-s", 100)
    assert code == 2
    assert "networks enlarge up to 4 times; run them one after the other" in err


@pytest.mark.parametrize("depth", [8, 16])
def test_half_the_size_or_less_takes_no_network(run: Any, no_network: None, depth: int) -> None:
    image = colours(600, 64, depth)  # more rows than are handed on at once
    tifffile.imwrite("in.tif", image)
    code, out, err = run("upscale", "in.tif", "--width", 32, "--offline", "--json")
    done = json.loads(out[1])
    assert code == 0
    assert (done["width"], done["height"], done["reduced"]) == (32, 300, True)
    assert (done["tiles"], done["tile"]) == (0, [0, 0])
    assert done["warnings"] == []
    assert "mambair: in.tif: made smaller without the network" in err
    picture = read_picture(Path("in.tif"))
    file = io.BytesIO()
    header = replace(picture.header, width=32, height=300)
    with Writer(file, header, "tiff", None, "wanted", frames=InputFrames(64, 600)) as writer:
        writer.write(0, picture.samples)
        writer.finish()
    np.testing.assert_array_equal(
        read_picture(Path("in_upscaled.tif")).pixels, read_picture(file.getvalue()).pixels
    )


def test_a_dry_run_knows_that_no_network_is_needed(run: Any, no_network: None) -> None:
    Image.fromarray(colours(60, 80)).save("in.png")
    code, out, _ = run("upscale", "in.png", "--megapixels", 0.001, "--offline", "--dry-run", "--json", "-q")
    planned, total = map(json.loads, out[1:])
    assert code == 0
    assert (planned["width"], planned["height"], planned["tiles"]) == (37, 27, 0)
    assert planned["seconds"] == total["seconds"] == 0
    code, out, _ = run("upscale", "in.png", "--megapixels", 0.001, "--offline", "--dry-run", "-q")
    assert "37×27, from 80×60 without the network; " in out[1]


def test_a_result_of_more_than_half_the_size_is_enlarged_first(run: Any) -> None:
    Image.fromarray(colours(30, 40)).save("in.png")
    code, out, _ = run("upscale", "in.png", "--width", 24, "--offline", "--json", "-q")
    assert code == 0
    assert json.loads(out[1])["tiles"] == 1
    assert json.loads(out[1])["warnings"] == []


@pytest.mark.parametrize("wrap", ["none", "x", "both"])
@pytest.mark.parametrize(("size", "wanted"), [((60, 80), 120), ((60, 80), 36), ((1500, 1200), 300)])
def test_transparency_ends_where_it_did_at_every_size(
    run: Any, tmp_path: Path, size: tuple[int, int], wanted: int, wrap: str
) -> None:
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / height
    full = ((y - 0.5) ** 2 + (x - 0.5) ** 2 < 0.09) | ((abs(x - 1) < 0.2) & (abs(y - 0.4) < 0.3))
    alpha = (255 * full).astype(np.uint8)
    Image.fromarray(np.dstack([colours(*size), alpha])).save("in.png")
    weights = save_nearest(tmp_path / "x4.safetensors", 4)
    options = ["--weights", weights, "--width", wanted, "--wrap", wrap, "-o", "out.png", "-q"]
    assert run("upscale", "in.png", *options)[0] == 0
    reduced = np.asarray(Image.open("out.png"))[..., 3]
    for share, kept in ((alpha, 0), (255 - alpha, 255)):
        near = Image.fromarray(share).resize(reduced.shape[::-1], Image.Resampling.BOX)
        border = np.pad(np.asarray(near), 2, mode="edge" if wrap == "none" else "wrap")
        rows, columns = np.indices(reduced.shape)
        most = np.max(
            [border[rows + down, columns + right] for down in range(5) for right in range(5)], axis=0
        )
        assert (most == 0).any()
        assert (reduced[most == 0] == kept).all()
    assert ((reduced > 0) & (reduced < 255)).any()


@pytest.mark.parametrize("wrap", ["none", "both"])
def test_each_few_rows_touch_only_what_lies_around_them(wrap: Wrap) -> None:
    header = Header(50, 2000, 3, "uint8", has_alpha=True)
    alpha = np.random.default_rng(0).random((4001, 100)).round()
    whole = PlainAlpha(header, InputFrames(100, 4001, wrap))
    whole.note(0, alpha)
    plain = PlainAlpha(header, InputFrames(100, 4001, wrap))
    plain._seen, touched = np.zeros_like(plain._seen).view(Touched), Touched.rows
    touched.clear()
    for top in range(0, 4001, 8):
        plain.note(top, alpha[top : top + 8])
    assert sum(touched) < 5 * 2 * 2000
    np.testing.assert_array_equal(plain._seen, whole._seen)


@pytest.mark.parametrize("width", [30, 400])
def test_masks_and_transparency_of_a_large_file_are_reduced_with_it(run: Any, width: int) -> None:
    mask = np.repeat(np.array([0, 255], np.uint8), 1000)[:, None].repeat(1200, 1)
    planes = np.dstack([colours(2000, 1200), np.full_like(mask, 255), mask])
    tifffile.imwrite("in.tif", planes, photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    assert run("upscale", "in.tif", "--width", width, "-o", "out.tif", "-q")[0] == 0
    reduced = tifffile.imread("out.tif")
    height = len(reduced)
    assert (reduced[..., 3] == 255).all()
    assert abs(reduced[: height // 2 - 4, :, 4].astype(int)).max() <= 1
    assert reduced[height // 2 + 4 :, :, 4].min() >= 254


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 255), ("uint16", 65535)])
def test_alpha_of_less_than_half_a_step_is_plain_in_stills_and_animations(dtype: str, steps: int) -> None:
    samples = np.full((60, 60, 4), 0.5, np.float32)
    samples[:, :30, 3], samples[:, 30:, 3] = 0.4 / steps, 1 - 0.4 / steps
    for count in (1, 2):
        header = Header(40, 40, 3, dtype, has_alpha=True, format="tiff", frames=count)
        file = io.BytesIO()
        with Writer(file, header, "tiff", None, "out", frames=InputFrames(60, 60)) as writer:
            for number in range(count):
                samples[number, number, 0] = 0.9  # or they would be one frame
                writer.write(60 * number, samples)
            writer.finish()
        with open_picture(file.getvalue()) as reader:
            alpha = reader.read(0, 40 * count)[..., 3]
        assert (alpha[:, :18] == 0).all()
        assert (alpha[:, 22:] == steps).all()
        assert set(np.unique(alpha)) - {0, steps}  # between them
    reduced = reduce_samples(samples, 40, 40, dtype=dtype)
    assert set(np.unique(reduced[:, :18, 3])) == {0}


@pytest.mark.parametrize("suffix", ["tif", "webp", "avif"])
@pytest.mark.parametrize("size", [["-s", 1.5], ["--width", 40]])
def test_many_frames_are_reduced_as_each_alone(
    run: Any, tmp_path: Path, size: list[Any], suffix: str
) -> None:
    alpha = np.pad(np.full((60, 80), 255, np.uint8), 20)
    frames = [
        Image.fromarray(np.dstack([np.roll(colours(100, 120), 9 * number, 1), alpha])) for number in range(12)
    ]
    frames[0].save("in.tif", save_all=True, append_images=frames[1:])
    for number, frame in enumerate(frames):
        frame.save(f"{number}.png")
    weights = save_nearest(tmp_path / "x4.safetensors", 4)
    options = ["--weights", weights, *size, "--quality", 100, "-q", "-o"]
    assert run("upscale", "in.tif", *options, f"out.{suffix}")[0] == 0
    assert run("upscale", *(f"{number}.png" for number in range(12)), *options, "alone/")[0] == 0
    with Image.open(f"out.{suffix}") as image:
        assert getattr(image, "n_frames", 1) == 12
        for number in range(12):
            image.seek(number)
            alone = np.asarray(Image.open(f"alone/{number}.png")).astype(int)
            shown, visible = np.asarray(image.convert("RGBA")).astype(int), alone[..., 3] > 0
            assert abs(shown - alone)[visible].max() <= 2 * (suffix == "avif")
            np.testing.assert_array_equal(shown[..., 3], alone[..., 3])


def test_every_frame_of_an_animation_is_made_smaller(run: Any, no_network: None) -> None:
    frames = [Image.new("RGB", (48, 40), colour) for colour in ("red", "lime", "blue")]
    frames[0].save("in.webp", save_all=True, append_images=frames[1:], duration=[50, 60, 70], lossless=True)
    assert run("upscale", "in.webp", "--width", 12, "--quality", 100, "--offline", "-q")[0] == 0
    with Image.open("in_upscaled.webp") as image:
        assert (image.size, getattr(image, "n_frames", 1)) == ((12, 10), 3)
        for number, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
            image.seek(number)
            assert np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0).tolist() == [
                list(colour)
            ]


def test_a_server_can_say_that_no_network_was_needed() -> None:
    job, report = Job(Source(None), None), Report(plan_nothing(40, 30), 0, False)
    outcome = Outcome(job, size=(3, 4), reduced=True, report=report)
    said = json.dumps(asdict(describe_report(outcome, "tiny-x2", 2, "digest")))
    assert read_report(read_record(ResultReport, json.loads(said)), job) == outcome
