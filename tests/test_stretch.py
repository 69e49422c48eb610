"""Faint pictures are stretched to the whole range for the network, and back."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from checkpoints import save_nearest
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.images.source import Source
from mambair_cli.images.stretch import Stretch, find_stretch
from mambair_cli.inspection.inspect_image import inspect_image
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs import image_job

KITTEN = Path(__file__).parents[1] / "docs" / "kitten_sharp.png"
LOCAL = ("--device", "cpu", "--offline")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Return a gray photograph, (128, 128) in [0, 1]."""
    return np.asarray(Image.open(KITTEN).convert("L").resize((128, 128))) / 255.0


def dim(photo: np.ndarray) -> np.ndarray:
    noisy = photo * 200 + 100 + np.random.default_rng(1).normal(0, 10, photo.shape)
    return noisy.round().astype(np.uint16)


def error(picture: np.ndarray, photo: np.ndarray) -> float:
    return float(np.sqrt(np.square(picture - (photo * 200 + 100)).mean()))


@pytest.mark.parametrize("options", [(), ("--clean",), ("--real",), ("--sigma", "25")])
def test_the_noise_of_a_dim_picture_is_removed(tmp_path: Path, photo: np.ndarray, options) -> None:
    tifffile.imwrite(tmp_path / "in.tif", dim(photo), photometric="minisblack", metadata=None)
    command = ["denoise", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.tif"), *LOCAL, *options]
    assert main(command) == 0
    restored = tifffile.imread(tmp_path / "out.tif")
    assert restored.dtype == np.uint16
    assert error(dim(photo), photo) > 9.5
    assert error(restored, photo) < 7
    assert abs(restored.mean() - dim(photo).mean()) < 0.5


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_enlarging_a_dim_picture_keeps_its_mean(photo: np.ndarray, dtype: str) -> None:
    counts = dim(photo)
    image = counts if dtype == "uint16" else (counts / 65535).astype(np.float32)
    for restorer in (Restorer(scale=2, offline=True, device="cpu"), Restorer(model="tiny-x2", device="cpu")):
        enlarged = restorer(image)
        assert enlarged.dtype == dtype
        assert abs(enlarged.mean() / image.mean() - 1) < 0.005


def test_photons_are_not_lost(tmp_path: Path, photo: np.ndarray) -> None:
    counts = np.random.default_rng(0).poisson(photo * 12).astype(np.uint16)
    restored = Restorer("denoise", offline=True, device="cpu")(counts)
    assert np.sqrt(np.square(counts - photo * 12).mean()) > 1.9
    assert np.sqrt(np.square(restored - photo * 12).mean()) < 1


def test_a_picture_does_not_depend_on_how_it_is_scaled(photo: np.ndarray) -> None:
    noisy = (photo + np.random.default_rng(2).normal(0, 0.05, photo.shape)).clip(0, 1).astype(np.float32)
    noisy.flat[:2] = 0, 1  # so that it fills its range
    restore = Restorer("denoise", offline=True, device="cpu")
    np.testing.assert_allclose(restore(noisy / 1024) * 1024, restore(noisy), atol=2e-5)


def test_alpha_and_masks_are_not_stretched(tmp_path: Path) -> None:
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    image = np.zeros((16, 12, 4), np.uint16)
    image[..., :3] = np.random.default_rng(0).integers(3000, 5000, (16, 12, 3))
    image[..., 3] = 60000
    image[:8, :, 3] = 300
    restored = Restorer(weights=weights, device="cpu")(image)
    np.testing.assert_array_equal(restored, image.repeat(2, 0).repeat(2, 1))


def with_hidden(value: int) -> np.ndarray:
    """Return a faint picture with alpha, (40, 40, 4), whose right part is not seen and has a colour."""
    image = np.random.default_rng(3).integers(2000, 3500, (40, 40, 4)).astype(np.uint16)
    image[..., 3] = 65535
    image[:, 25:] = (value, value, value, 0)
    return image


def test_hidden_colours_do_not_count() -> None:
    seen = Stretch(2000 / 65535, 3499 / 65535)
    for image in (with_hidden(65535), with_hidden(0)):
        found = find_stretch([image], 3)
        assert found is not None
        np.testing.assert_allclose([found.lowest, found.highest], [seen.lowest, seen.highest], rtol=1e-2)
    assert find_stretch([with_hidden(65535)], 3, has_alpha=False) is None  # where that sample is a mask
    assert find_stretch([with_hidden(65535)[:, 25:]], 3) is None


def test_hidden_colours_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = Restorer(model="tiny-x2", device="cpu")
    np.testing.assert_array_equal(restore(with_hidden(65535)), restore(with_hidden(2500)))
    for most in (image_job.DECODED_BYTES, 1000):
        monkeypatch.setattr(image_job, "DECODED_BYTES", most)
        restored = []
        for value in (65535, 2500):
            tifffile.imwrite(
                tmp_path / "in.tif", with_hidden(value), photometric="rgb", extrasamples=["unassalpha"]
            )
            command = ["upscale", str(tmp_path / "in.tif"), "-s", "2", "--model", "tiny-x2", "--overwrite"]
            assert main([*command, "-o", str(tmp_path / "out.tif"), *LOCAL]) == 0
            restored.append(tifffile.imread(tmp_path / "out.tif"))
        np.testing.assert_array_equal(*restored)


def test_all_pages_are_stretched_alike(tmp_path: Path) -> None:
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    pages = np.random.default_rng(0).integers(1000, 1400, (3, 64, 72), dtype=np.uint16)
    pages[1] += 900
    tifffile.imwrite(tmp_path / "in.tif", pages, photometric="minisblack")
    command = ["upscale", str(tmp_path / "in.tif"), "-s", "2", "--weights", str(weights)]
    assert main([*command, "-o", str(tmp_path / "out.tif"), *LOCAL]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pages.repeat(2, 1).repeat(2, 2))
    inspected = inspect_image(Source(tmp_path / "in.tif"), 10**9)
    assert inspected.need.look is not None
    assert inspected.need.look.filled == pytest.approx(1300 / 65535, rel=0.02)


def test_large_and_small_files_are_stretched_alike(
    tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(dim(photo)).save(tmp_path / "in.png")
    events = []
    for most, name in ((image_job.DECODED_BYTES, "whole.png"), (1000, "by_rows.png")):
        monkeypatch.setattr(image_job, "DECODED_BYTES", most)
        command = ["denoise", str(tmp_path / "in.png"), "-o", str(tmp_path / name), "--json", *LOCAL]
        assert main(command) == 0
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        events.append(next(line for line in lines if line["event"] == "done"))
    assert [event["need"]["stretched"] for event in events] == [True, True]
    assert events[0]["need"] == events[1]["need"]
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "by_rows.png").read_bytes()


@pytest.mark.parametrize(
    ("values", "dtype", "wanted"),
    [
        ((100, 300), "uint16", Stretch(100 / 65535, 300 / 65535)),
        ((0, 9000), "uint16", None),
        ((7, 7), "uint16", None),
        ((10, 20), "uint8", None),
        ((0.25, 0.26), "float32", Stretch(0.25, 0.26)),
    ],
)
def test_what_is_stretched(values: tuple[float, float], dtype: str, wanted: Stretch | None) -> None:
    bands = [np.full((2, 3, 1), value, dtype) for value in values]
    found = find_stretch(bands, 1)
    assert (found is None) == (wanted is None)
    if found and wanted:
        np.testing.assert_allclose([found.lowest, found.highest], [wanted.lowest, wanted.highest], rtol=1e-6)


def test_a_picture_that_fills_its_range_is_read_no_further_than_needed() -> None:
    read = []

    def bands():
        for number in range(5):
            read.append(number)
            yield np.array([[[0], [60000]]], np.uint16)

    assert find_stretch(bands(), 1) is None
    assert read == [0]
