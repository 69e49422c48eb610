"""Self-ensemble: the mean of eight forms, whatever cuts the image and computes the tiles."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mambair_cli import Restorer
from mambair_cli.cli import main
from mambair_cli.restore.engine import split_evenly
from mambair_cli.restore.ensemble import SYMMETRIES, EnsembleComputer

LOCAL = ("--offline", "--device", "cpu")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def forms(image: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(each, turns) for each in (image, image[:, ::-1]) for turns in range(4)]


def undo(number: int, result: np.ndarray) -> np.ndarray:
    upright = np.rot90(result, -(number % 4))
    return upright[:, ::-1] if number >= 4 else upright


@pytest.mark.parametrize(("task", "model"), [("upscale", "tiny-x2"), ("denoise", "tiny-denoise")])
def test_it_is_the_mean_of_the_results_of_all_forms(task, model) -> None:
    image = 0.35 + 0.3 * noise(20, 28)  # no result is clipped
    options = {"task": task, "model": model, "device": "cpu", "offline": True, "bare": True}
    single = Restorer(**options)
    wanted = np.mean(
        [undo(n, single(np.ascontiguousarray(form))) for n, form in enumerate(forms(image))], axis=0
    )
    got = Restorer(**options, ensemble=True)(image)
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert np.abs(got - single(image)).max() > 1e-3


def test_a_mirrored_image_gives_the_mirrored_result() -> None:
    image = noise(18, 24)
    restore = Restorer("upscale", 2, model="tiny-x2", device="cpu", offline=True, ensemble=True)
    there, back = restore(image), restore(np.ascontiguousarray(image[::-1].swapaxes(0, 1)))
    np.testing.assert_allclose(back, there[::-1].swapaxes(0, 1), atol=2e-5)


class Recorder:
    """Computes nothing, and notes what it is given."""

    def __init__(self) -> None:
        self.scale, self.ahead = 2, 1
        self.buffers: Any = None
        self.seeds: list[Any] = []
        self.inputs: list[np.ndarray] = []

    def split(self, count, most):
        return split_evenly(count, most)

    def allocate(self, shape):
        return np.empty(shape, np.float32)

    def launch(self, tiles, corners, seed):
        self.seeds.append(seed)
        self.inputs.append(tiles.copy())
        return tiles.copy()

    def collect(self, launched):
        return launched.repeat(2, 1).repeat(2, 2)


def test_each_form_has_its_own_pixels_and_its_own_noise() -> None:
    tiles = noise(6, 9)[None]
    recorder = Recorder()
    computer = EnsembleComputer(recorder)
    result = computer.collect(computer.launch(tiles, [(0, 0)], 5))
    assert len(recorder.inputs) == SYMMETRIES
    assert len({each.tobytes() for each in recorder.inputs}) == SYMMETRIES
    assert sorted({each.shape[1:3] for each in recorder.inputs}) == [(6, 9), (9, 6)]
    assert recorder.seeds[0] == 5
    assert len(set(recorder.seeds)) == SYMMETRIES
    assert all(0 <= seed < 2**63 for seed in recorder.seeds)
    np.testing.assert_allclose(result, tiles.repeat(2, 1).repeat(2, 2), atol=1e-6)
    recorder.seeds.clear()
    computer.collect(computer.launch(tiles, [(0, 0)], None))
    assert set(recorder.seeds) == {None}


def test_results_that_stay_on_a_device_are_averaged_there() -> None:
    class Device(Recorder):
        def collect(self, launched):
            return torch.from_numpy(launched)

    tiles = noise(4, 7)[None]
    computer = EnsembleComputer(Device())
    result = computer.collect(computer.launch(tiles, [(0, 0)], None))
    assert isinstance(result, torch.Tensor)
    torch.testing.assert_close(result, torch.from_numpy(tiles))


def test_tiles_and_workers_give_the_bytes_of_one_process(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray((noise(40, 56) * 255).astype(np.uint8)).save("in.png")
    command = ("upscale", "in.png", "-s", "2", "--tile", "32", "--overlap", "8", "--model", "tiny-x2", *LOCAL)
    for name, more in (("one", ()), ("two", ("--workers", "2"))):
        assert main([*command, "--ensemble", *more, "-o", f"{name}.png"]) == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()
    assert main([*command]) == 0
    assert Path("one.png").read_bytes() != Path("in_x2.png").read_bytes()


def test_the_cost_is_said_beforehand(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray((noise(16, 16) * 255).astype(np.uint8)).save("in.png")
    assert main(["denoise", "in.png", "--sigma", "15", "--ensemble", *LOCAL]) == 0
    assert "--ensemble computes each tile eight times" in capsys.readouterr().err


def test_a_restorer_with_an_ensemble_has_another_fingerprint() -> None:
    from mambair_cli.runs.fingerprint import Fingerprint

    restorer = Restorer("upscale", 2, model="tiny-x2", device="cpu", offline=True)
    plain = Fingerprint.of(restorer)
    with_ensemble = Fingerprint.of(
        Restorer("upscale", 2, model="tiny-x2", device="cpu", offline=True, ensemble=True)
    )
    assert plain.digest() != with_ensemble.digest()
    assert replace(with_ensemble, own=replace(with_ensemble.own, ensemble=False)) == plain
    assert "ensemble" not in plain.describe()  # digests of older journals stay
