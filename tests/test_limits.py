"""Results that are held to their input: flat colours and slopes stay, up to the rim, whatever the network."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_random
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from repository import ROOT

from mambair_cli import Restorer, load_network
from mambair_cli.checkpoints.catalog import Task, load_catalog
from mambair_cli.errors import MambairError
from mambair_cli.images import read_picture
from mambair_cli.networks import MambaIRConfig
from mambair_cli.restore.engine import Engine, run_image
from mambair_cli.restore.limits import REACH, limit
from mambair_cli.restore.tiling import plan_tiles

BUILT_IN = [(model.name, model.task, model.scale) for model in load_catalog() if model.bundled]
COLOURS = [(0, 0, 0), (255, 255, 255), (0, 255, 0), (254, 1, 128)]
built_in = pytest.mark.parametrize(("model", "task", "scale"), BUILT_IN)


@cache
def restorer(model: str, task: Task, scale: int, **options: Any) -> Restorer:
    return Restorer(task, scale if task == "upscale" else None, model=model, device="cpu", **options)


def enlarge(x: torch.Tensor, scale: int) -> torch.Tensor:
    return torch.nn.functional.interpolate(x, scale_factor=scale, mode="bilinear") if scale > 1 else x


@built_in
@pytest.mark.parametrize("size", [(1, 1), (1, 61), (35, 33)])
def test_a_flat_colour_stays_what_it_is_at_every_edge(model: str, task: Task, scale: int, size: Any) -> None:
    for colour in COLOURS:
        image = np.full((*size, 3), colour, np.uint8)
        restored = restorer(model, task, scale, tile=32)(image)
        assert restored.shape == (size[0] * scale, size[1] * scale, 3)
        assert np.unique(restored.reshape(-1, 3), axis=0).tolist() == [list(colour)]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_flat_areas_of_every_kind_of_samples_stay(dtype: str, channels: int) -> None:
    most = 1 if dtype == "float32" else 65535
    image = np.full((24, 40, channels), most, dtype)
    image[:, 20:] = 0
    if channels % 2 == 0:
        image[..., -1] = most
    restored = restorer("tiny-x4", "upscale", 4)(image)
    far = 4 * (REACH + 2)
    np.testing.assert_array_equal(restored[:, : 80 - far], np.full_like(restored[:, : 80 - far], most))
    assert not restored[:, 80 + far :, : channels - (channels % 2 == 0)].any()


@built_in
def test_a_slope_of_pure_colours_stays_straight_up_to_the_corners(model: str, task: Task, scale: int) -> None:
    image = np.zeros((40, 56, 3), np.uint8)
    image[..., 1] = 255
    image[..., 0] = np.linspace(0, 40, 56).round()
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    straight = enlarge(x, scale)[0].permute(1, 2, 0).numpy()
    restored = restorer(model, task, scale)(image)
    assert np.abs(restored - straight).max() <= 3


@built_in
def test_pictures_are_left_alone(model: str, task: Task, scale: int) -> None:
    image = read_picture(ROOT / "docs" / "cat.png").pixels[:48, :64]
    held, bare = (restorer(model, task, scale, bare=bare)(image).astype(int) for bare in (False, True))
    assert np.abs(held - bare).max() <= 3
    assert (held != bare).mean() < 0.01


@given(
    arrays.arrays(np.float32, (1, 2, 5, 12), elements=st.floats(0, 1, width=32)),
    st.integers(1, 3),
    st.floats(-2, 2, width=32),
)
def test_what_is_held_lies_within_the_bend_of_its_surroundings(x: Any, scale: int, level: float) -> None:
    held = limit(torch.from_numpy(x), torch.full((1, 2, 5 * scale, 12 * scale), level), scale)
    padded = np.pad(x[0].astype(float), ((0, 0), (1, 1), (1, 1)), mode="edge")
    bend = np.zeros((2, 5, 12))
    for row in range(5):
        for column in range(12):
            nine = padded[:, row : row + 3, column : column + 3]
            for three in (nine[:, :, 1], nine[:, 1]):
                size = np.abs(three[:, 0] + three[:, 2] - 2 * three[:, 1])
                bend[:, row, column] = np.maximum(bend[:, row, column], size)
    for row in range(5):
        for column in range(12):
            nine = padded[:, row : row + 3, column : column + 3].reshape(2, 9)
            around = np.s_[
                :, max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1
            ]
            most = bend[around].max((1, 2))
            expected = np.clip(level, nine.min(1) - most, nine.max(1) + most)[:, None, None]
            block = np.s_[:, row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            np.testing.assert_allclose(
                held[0].numpy()[block], np.broadcast_to(expected, (2, scale, scale)), atol=1e-5
            )


def test_a_network_called_as_such_and_a_bare_engine_are_exact(tmp_path: Any) -> None:
    config = MambaIRConfig(32, (1,), 4, 32, upscale=2, upsampler="pixelshuffledirect")
    path = save_random(tmp_path / "random.safetensors", config)
    net = load_network(path)
    image = np.full((9, 12, 3), 0.25, np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        own = net(x)[0].permute(1, 2, 0).numpy()
    assert np.abs(own - 0.25).max() > 0.01
    plan = plan_tiles(9, 12, 64, 0)
    bare, held = (
        run_image(Engine(net, torch.device("cpu"), is_bare=is_bare), image, plan, 1, None)
        for is_bare in (True, False)
    )
    np.testing.assert_allclose(bare, own.clip(0, 1), atol=1e-5)
    np.testing.assert_array_equal(held, np.full_like(held, 0.25))
    np.testing.assert_allclose(Restorer(weights=path, bare=True)(image), own.clip(0, 1), atol=1e-5)


def test_values_that_are_not_finite_are_still_found(tmp_path: Any) -> None:
    net = load_network(save_random(tmp_path / "random.safetensors", MambaIRConfig(32, (1,), 4, 32)))
    net.state_dict()["conv_last.bias"].fill_(float("inf"))
    engine = Engine(net, torch.device("cpu"), is_bare=False)
    with pytest.raises(MambairError, match="not finite"):
        run_image(engine, np.zeros((8, 8, 3), np.float32), plan_tiles(8, 8, 8, 0), 1, None)
