import inspect
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from checkpoints import save_identity, save_nearest, save_random
from networks import V1
from pictures import noise
from torch import nn

from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.errors import MambairError, MemoryLimitError, ModelError, UsageError
from mambair_cli.images import split_luma
from mambair_cli.kernels import cuda_scan
from mambair_cli.networks import MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config
from mambair_cli.restore import engine, loaded_network, tile_cost
from mambair_cli.restore.device_buffers import DeviceBuffers
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import ImageSettings, RestoreSettings
from mambair_cli.restore.tile_size import choose_tiles
from mambair_cli.restore.tiling import plan_tiles

V2 = MambaIRv2Config(30, (2,), (3,), 4, 30, 8, 6, "gated", upscale=2, upsampler="pixelshuffledirect")


@pytest.fixture(scope="module")
def nearest(tmp_path_factory):
    return save_nearest(tmp_path_factory.mktemp("weights") / "nearest.safetensors", 2)


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return save_identity(tmp_path_factory.mktemp("weights") / "identity.safetensors")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_every_kind_of_array_comes_back_as_its_kind(nearest, dtype, channels):
    shape = (37, 50) if channels is None else (37, 50, channels)
    image = noise(*shape, dtype=dtype)
    restored = Restorer(weights=nearest, tile=24, overlap=5)(image)
    assert restored.dtype == image.dtype
    expected = image.repeat(2, axis=0).repeat(2, axis=1)
    if channels in (2, 4):  # colours that nobody sees are nobody's
        visible = expected[..., -1:] > 0
        restored, expected = restored * visible, expected * visible
    if dtype == "float32":
        np.testing.assert_allclose(restored, expected, atol=1e-6)
    else:
        np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (129, 2)])
def test_no_image_is_too_small_or_too_thin(nearest, size):
    image = noise(*size, 3)
    expected = image.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(Restorer(weights=nearest)(image), expected)


def test_input_is_left_alone(identity):
    image = noise(20, 20, 3)
    before = image.copy()
    Restorer(task="denoise", weights=identity)(image)
    np.testing.assert_array_equal(image, before)


def test_colour_through_a_gray_network_keeps_its_chroma(tmp_path):
    path = save_random(tmp_path / "gray.safetensors", MambaIRConfig(32, (1,), 4, 32, in_chans=1))
    image = noise(40, 40, 3, dtype="float32") * 0.2 + 0.4  # so that nothing is clipped
    restorer = Restorer(task="dejpeg", weights=path)
    restored = restorer(image)
    luma, chroma = split_luma(image)
    new_luma, new_chroma = split_luma(restored)
    np.testing.assert_allclose(new_luma, restorer(luma), atol=1e-5)
    assert np.abs(new_luma - luma).max() > 1e-3
    np.testing.assert_allclose(new_chroma, chroma, atol=1e-5)


def test_gray_network_refuses_to_enlarge_colour(tmp_path):
    config = MambaIRConfig(32, (1,), 4, 32, in_chans=1, upscale=2, upsampler="pixelshuffledirect")
    restorer = Restorer(weights=save_random(tmp_path / "gray.safetensors", config))
    with pytest.raises(UsageError, match="gray"):
        restorer(noise(8, 8, 3))


def test_a_record_of_settings_has_the_arguments_of_a_restorer_and_their_defaults(nearest):
    parameters = dict(inspect.signature(Restorer).parameters)
    assert parameters.pop("notify")
    assert {name: parameter.default for name, parameter in parameters.items()} == RestoreSettings().arguments
    settings = RestoreSettings(Asked("denoise", weights=nearest), device="cpu")
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ModelError, match="denoise was asked for"):
        Restorer.from_settings(settings)


def test_threads_that_ask_at_once_get_one_engine(nearest, monkeypatch):
    made = []

    def make(*arguments):
        made.append(engine.Engine(*arguments))
        time.sleep(0.05)  # as going to a device does
        return made[-1]

    monkeypatch.setattr(loaded_network, "Engine", make)
    restorer = Restorer(weights=nearest)
    with ThreadPoolExecutor(4) as threads:
        computers = list(threads.map(lambda _: restorer.computer, range(4)))
    assert len(made) == 1
    assert all(computer is made[0] for computer in computers)


def test_threads_take_turns_at_giving_a_gpu_work():
    inside, most, rounded = [], [], []

    def work(number):
        with engine._exact_convolutions(torch.device("cuda")):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            rounded.append(torch.backends.cudnn.allow_tf32)
            inside.remove(number)

    before = torch.backends.cudnn.allow_tf32
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(8)))
    assert max(most) == 1
    assert not any(rounded)
    assert torch.backends.cudnn.allow_tf32 == before


def test_opaque_alpha_stays_opaque_and_constant_alpha_constant(nearest):
    image = noise(9, 9, 4)
    image[:, :, 3] = 77
    assert (Restorer(weights=nearest)(image)[:, :, 3] == 77).all()


def test_alpha_is_left_alone_where_the_size_stays(identity):
    image = noise(9, 9, 4)
    np.testing.assert_array_equal(Restorer(task="denoise", weights=identity)(image)[:, :, 3], image[:, :, 3])


def test_progress_ends_at_all_tiles(nearest):
    seen = []
    image = noise(60, 100, 3)
    _, report = Restorer(weights=nearest, tile=32, overlap=8).restore(image, lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert seen[-1] == (len(report.plan), len(report.plan))


class Cramped(nn.Module):
    """A network on a device that holds so many pixels at once and no more."""

    def __init__(self, net, pixels):
        super().__init__()
        self.net, self.info, self.pixels = net, net.info, pixels
        self.attempts = []

    def forward(self, x, **options):
        batch, _, height, width = x.shape
        self.attempts.append((batch, height, width))
        if batch * height * width > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(x, **options)


def cramp(restorer, pixels):
    cramped = restorer.loaded.net = Cramped(restorer.net, pixels)
    return cramped


def test_out_of_memory_halves_the_batch_then_the_tile_and_goes_on(nearest, monkeypatch):
    monkeypatch.setitem(tile_cost.TILES_AT_ONCE, "cpu", 4)
    restorer = Restorer(weights=nearest, tile=64, overlap=8)
    net = cramp(restorer, 64 * 64 // 4)
    image = noise(176, 176, 3)
    restored, report = restorer.restore(image)
    np.testing.assert_array_equal(restored, image.repeat(2, axis=0).repeat(2, axis=1))
    assert net.attempts[:4] == [(3, 64, 64), (2, 64, 64), (1, 64, 64), (1, 32, 32)]
    assert report.shrunk
    assert report.plan.tile_height == 32
    assert report.batch == 1


def test_a_shrunk_image_does_not_shrink_the_next_one(nearest, monkeypatch):
    monkeypatch.setitem(tile_cost.TILES_AT_ONCE, "cpu", 4)
    restorer = Restorer(weights=nearest, tile=64, overlap=8)
    cramp(restorer, 2 * 64 * 64)
    _, first = restorer.restore(noise(150, 170, 3))
    _, second = restorer.restore(noise(60, 60, 3))
    assert first.shrunk
    assert not second.shrunk


def test_memory_that_holds_nothing_is_an_error_of_its_own(nearest):
    restorer = Restorer(weights=nearest, tile=64)
    cramp(restorer, 10)
    with pytest.raises(MemoryLimitError, match="32×32"):
        restorer(noise(176, 176, 3))


def test_a_tile_that_overflows_in_float16_is_done_again_in_float32(tmp_path):
    path = save_nearest(tmp_path / "a.safetensors", 2)
    exact = Restorer(weights=path)
    image = noise(40, 40, 3)
    expected = exact(image)
    overflowing = Restorer(weights=path, precision="fp16")
    net = overflowing.net
    weights = net.state_dict()
    weights["conv_first.weight"] *= 1e6  # which has no float16; in float32 the two factors cancel
    weights["upsample.0.weight"] /= 1e6
    with torch.autocast("cpu", torch.float16), torch.no_grad():
        assert not net(torch.rand(1, 3, 40, 40)).isfinite().all()
    np.testing.assert_array_equal(overflowing(image), expected)


def test_only_the_tiles_that_overflow_are_done_again(tmp_path):
    path = save_nearest(tmp_path / "a.safetensors", 2)
    half = Restorer(weights=path, precision="fp16", tile=32, overlap=0)
    full = Restorer(weights=path, precision="fp32", tile=32, overlap=0)
    for restorer in (half, full):
        weights = restorer.net.state_dict()
        weights["conv_first.weight"][:3, :, 1, 1] = 6e4  # for bright images the sum of three has no float16
        weights["upsample.0.weight"] /= 1e6
    image = noise(32, 64, 3, dtype="float32")
    image[:, :32] = image[:, :32] * 0.01 + 0.45  # near the mean that is subtracted: small numbers
    image[:, 32:] = image[:, 32:] * 0.01 + 0.99
    restored, expected = half(image), full(image)
    assert np.isfinite(restored).all()
    np.testing.assert_array_equal(restored[:, 64:], expected[:, 64:])
    calm, exact = restored[:, :64], expected[:, :64]
    assert 0 < np.abs(calm - exact).max() < 1e-3  # float16's own rounding: these were not done again


def test_values_that_are_never_finite_are_an_error(nearest):
    restorer = Restorer(weights=nearest)
    restorer.net.state_dict()["conv_first.bias"].fill_(float("inf"))
    with pytest.raises(MambairError, match="not finite"):
        restorer(noise(8, 8, 3))


def test_noise_follows_the_seed_and_nothing_else(tmp_path):
    path = save_random(tmp_path / "v2.safetensors", V2)
    image = noise(70, 90, 3, dtype="float32")
    first = Restorer(weights=path, seed=1, tile=32, overlap=16)(image)
    again = Restorer(weights=path, seed=1, tile=32, overlap=16)(image)
    other = Restorer(weights=path, seed=2, tile=32, overlap=16)(image)
    none = Restorer(weights=path, seed=None, tile=32, overlap=16)(image)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0
    assert np.abs(first - none).max() > 0


def test_batch_does_not_move_the_result(tmp_path, monkeypatch):
    path = save_random(tmp_path / "v2.safetensors", V2)
    image = noise(70, 90, 3, dtype="float32")
    results = []
    for batch in (1, 3, 8):
        monkeypatch.setitem(tile_cost.TILES_AT_ONCE, "cpu", batch)
        results.append(Restorer(weights=path, tile=32, overlap=16)(image))
    np.testing.assert_allclose(results[0], results[1], atol=2e-6)
    np.testing.assert_allclose(results[0], results[2], atol=2e-6)


@pytest.mark.parametrize(
    ("task", "scale", "fits"),
    [("upscale", None, True), ("upscale", 2, True), ("upscale", 4, False), ("denoise", None, False)],
)
def test_a_network_that_enlarges_fits_its_scale_alone(nearest, task, scale, fits):
    if fits:
        assert Restorer(task=task, scale=scale, weights=nearest).info.scale == 2
    else:
        with pytest.raises(ModelError, match="does upscale ×2"):
            Restorer(task=task, scale=scale, weights=nearest)


def test_a_network_that_keeps_the_size_fits_what_its_file_says(tmp_path, identity):
    assert Restorer(task="denoise", weights=identity).info.task == "restore"
    assert Restorer(task="dejpeg", weights=identity).info.task == "restore"
    denoiser = save_identity(tmp_path / "denoise.safetensors", task="denoise")
    assert Restorer(task="denoise", weights=denoiser).info.task == "denoise"
    for task in ("dejpeg", "upscale"):
        with pytest.raises(ModelError, match=f"does denoise, at the same size; {task} was asked for"):
            Restorer(task=task, weights=denoiser)


@pytest.mark.parametrize("device", ["gpu", "cuda:77", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(nearest, device):
    with pytest.raises(UsageError, match="no such device"):
        Restorer(weights=nearest, device=device)


@pytest.mark.parametrize(("tile", "overlap"), [(32, 32), (16, 40), (0, 0), (32, -1)])
def test_tiles_that_cannot_be_are_refused(nearest, tile, overlap):
    with pytest.raises(UsageError, match=r"overlap|tile is 0; it must be"):
        Restorer(weights=nearest, tile=tile, overlap=overlap)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 5), (8, 8, 0), (1, 3, 8, 8)])
def test_arrays_that_are_no_images_are_refused(nearest, shape):
    with pytest.raises(ValueError, match="an image is"):
        Restorer(weights=nearest)(np.zeros(shape, np.uint8))


def test_model_and_weights_exclude_each_other(nearest):
    with pytest.raises(UsageError, match="exclude each other"):
        Restorer(model="mambair-light-x4", weights=nearest)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_blending_where_it_is_computed_gives_the_same_bits(tmp_path, monkeypatch, dtype, samples):
    path = save_random(tmp_path / "x.safetensors", replace(V1, upscale=2, upsampler="pixelshuffle"))
    image = noise(50, 70, samples, dtype=dtype)
    expected = Restorer(weights=path, device="cpu", tile=32, overlap=8)(image)
    monkeypatch.setattr(engine, "BLENDING_DEVICES", ("cpu",))  # as results on a GPU do
    there = Restorer(weights=path, device="cpu", tile=32, overlap=8)
    assert isinstance(there.computer.buffers, DeviceBuffers)
    restored = there(image)
    assert restored.dtype == expected.dtype
    np.testing.assert_array_equal(restored, expected)


def test_what_overflows_is_done_again_where_it_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BLENDING_DEVICES", ("cpu",))
    test_only_the_tiles_that_overflow_are_done_again(tmp_path)


def test_the_wider_a_network_the_fewer_tiles_it_computes_at_once_on_a_gpu():
    plan = plan_tiles(720, 1280, 136, 16)
    classic, light = replace(V1, embed_dim=180), replace(V1, embed_dim=60)
    unet = MambaIRUNetConfig(48, (1, 1, 1, 1), 1, (96, 192, 384, 768))
    counts = [tile_cost.choose_batch(plan, config, "cuda") for config in (light, classic, unet)]
    assert counts == sorted(counts, reverse=True)
    assert counts[:2] == [66, 33]  # all of them, and two batches alike
    huge = plan_tiles(5000, 5000, 5000, 0)
    assert tile_cost.choose_batch(huge, classic, "cuda") == 1
    assert tile_cost.choose_batch(plan, classic, "cpu") == 1


def test_tiles_go_by_the_device_and_the_network():
    v1, v2, named = (choose_tiles(None, None, "cuda", name) for name in ("MambaIR", "MambaIRv2", "mambairv2"))
    assert v2 == named
    assert v2.side > v1.side
    assert v2.side % 16 == 0  # of windows that are not whole, the rest is computed for nothing
    for tiles in (v1, v2):
        assert len(tiles.plan(256, 256)) == 1
        assert len(tiles.plan(256, 257)) > 1
    assert choose_tiles(64, None, "cuda", "MambaIRv2") == (64, 16, 0, None, "none")
    assert choose_tiles(None, 200, "cpu") == (256, 200, 0, None, "none")
    assert choose_tiles(20, None, "cpu").overlap == 10
    with pytest.raises(UsageError, match="136 of 136"):
        choose_tiles(None, 136, "cuda", "MambaIR")


def test_memory_for_the_smallest_tile_alone_is_enough(nearest):
    restorer = Restorer(weights=nearest, tile=40, overlap=8)
    net = cramp(restorer, 32 * 32)
    image = noise(100, 100, 3)
    restored, report = restorer.restore(image)
    np.testing.assert_array_equal(restored, image.repeat(2, axis=0).repeat(2, axis=1))
    assert report.plan.tile_width <= 32 < net.attempts[0][2]


CLASSIC = replace(V1, embed_dim=180, d_inner=360, d_state=16, depths=(6,) * 6)
LIGHT = replace(V1, embed_dim=60, d_inner=72, d_state=10, depths=(6,) * 4)


def test_tiles_are_fitted_to_what_a_network_takes_on_a_gpu():
    tiles = choose_tiles(None, None, "cuda", "MambaIR", CLASSIC)
    plan = tiles.plan(720, 1280)
    # Twice 22: two blocks of threads for each of 132 multiprocessors; measured, 2·33 squares took 3% longer.
    assert (len(plan), tile_cost.choose_batch(plan, CLASSIC, "cuda")) == (44, 22)
    assert len(tiles.plan(256, 256)) == 1
    assert tiles.side == 256  # the largest there is


@pytest.mark.parametrize("config", [CLASSIC, LIGHT], ids=["classic", "light"])
@pytest.mark.parametrize(("height", "width"), [(257, 257), (300, 2000), (1080, 1920), (4000, 3000)])
def test_fitted_tiles_take_hardly_longer_than_squares_of_any_side(height, width, config):
    plan = tile_cost.fit_tiles(height, width, 16, config)
    least = tile_cost.estimate_cycles(plan, config)
    for side in (96, 136, 192, 256):
        assert least < 1.03 * tile_cost.estimate_cycles(plan_tiles(height, width, side, 16), config)
    assert max(plan.tile_height, plan.tile_width) <= 256
    assert plan.overlap == 16


def test_only_a_mambair_on_a_gpu_has_fitted_tiles():
    assert choose_tiles(None, None, "cuda", "MambaIR", CLASSIC).fitted == CLASSIC
    assert choose_tiles(136, None, "cuda", "MambaIR", CLASSIC).fitted is None
    assert choose_tiles(None, None, "cpu", "MambaIR", CLASSIC).fitted is None
    assert choose_tiles(None, None, "cuda", "MambaIRv2", V2).fitted is None


def test_a_restorer_fits_tiles_to_its_network(tmp_path, monkeypatch):
    monkeypatch.setitem(tile_cost.VALUES_AT_ONCE, "cpu", 10**6)  # as if it were a GPU
    restorer = Restorer(weights=save_random(tmp_path / "x.safetensors", V1), task="denoise", device="cpu")
    assert restorer.tiles.fitted == restorer.info.config
    assert restorer.with_settings(ImageSettings(overlap=8)).tiles.fitted == restorer.info.config
    assert restorer.with_settings(ImageSettings(64, 8)).tiles.fitted is None
    assert restorer.plan(300, 500) == tile_cost.fit_tiles(300, 500, 16, restorer.info.config)


def test_results_say_what_their_tiles_were_fitted_by():
    fitted, squares = (choose_tiles(tile, None, "cuda", "MambaIR", CLASSIC) for tile in (None, 256))
    assert fitted.computing["fit"] == tile_cost.digest_costs()
    assert squares.computing["fit"] is None
    assert fitted.computing["tile"] == squares.computing["tile"]


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (tile_cost, "VALUES_AT_ONCE", {"cuda": 10**8}),
        (tile_cost, "SIDES", range(96, 257, 16)),
        (tile_cost, "PATHS", 2),
        (tile_cost, "MULTIPROCESSORS", 114),
        (tile_cost, "INNER_CYCLES", 0.017),
        (tile_cost, "OUTER_CYCLES", 0.032),
        (tile_cost, "PREFERENCE", 0.2),
        (cuda_scan, "COSTS", cuda_scan.COSTS[:2]),
        (cuda_scan, "EXPONENTIAL", 11),
        (cuda_scan, "STAGING", 800),
        (cuda_scan, "TWO_PASSES", 1.9),
        (cuda_scan, "LEAST_CHUNK", 128),
    ],
)
def test_tiles_that_are_fitted_by_other_costs_have_another_digest(monkeypatch, module, name, value):
    before = tile_cost.digest_costs()
    assert tile_cost.digest_costs() == before
    monkeypatch.setattr(module, name, value)
    assert tile_cost.digest_costs() != before


def test_an_overlap_that_some_default_has_room_for_is_not_refused_too_early():
    assert choose_tiles(None, 200, "cuda").overlap == 200
    with pytest.raises(UsageError, match="256 of 256"):
        choose_tiles(None, 256, "cuda")


@pytest.mark.parametrize("overlap", [0, 40, 200])
def test_fitted_tiles_share_what_they_are_asked_to(overlap):
    plan = tile_cost.fit_tiles(600, 500, overlap, LIGHT)
    for starts, side in ((plan.tops, plan.tile_height), (plan.lefts, plan.tile_width)):
        assert all(a + side - b >= overlap for a, b in pairwise(starts))
