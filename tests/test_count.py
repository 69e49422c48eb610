"""Parameters and multiply-adds of networks, and `mambair models show`, which tells them."""

import gzip
import json

import pytest
import torch
from networks import CONFIGS
from recordings import FIXTURES

from mambair_cli.checkpoints.catalog import find_model, load_catalog
from mambair_cli.checkpoints.load import infer_config, load_network
from mambair_cli.checkpoints.official import official_config
from mambair_cli.networks import MambaIRConfig, MambaIRv2Config, build_network, layers
from mambair_cli.networks.count import count

OFFICIAL = json.loads(gzip.decompress((FIXTURES / "official_checkpoints.json.gz").read_bytes()))
NAMES = {  # of the official configurations that have models in the catalogue
    **{f"v1_classic_x{scale}": f"mambair-classic-x{scale}" for scale in (2, 3, 4)},
    **{f"v1_light_x{scale}": f"mambair-light-x{scale}" for scale in (2, 3, 4)},
    **{f"v2_light_x{scale}": f"mambairv2-light-x{scale}" for scale in (2, 3, 4)},
    **{
        f"v2_classic_{size}_x{scale}": f"mambairv2-{size}-x{scale}"
        for size in ("small", "base", "large")
        for scale in (2, 3, 4)
    },
    "v1_denoise_color": "mambair-denoise-25",
    "v1_jpeg_gray": "mambair-jpeg-10",
    "v1_unet_real_denoise": "mambair-real-denoise",
    "v2_denoise_color": "mambairv2-denoise-15",
    "v2_jpeg_gray": "mambairv2-jpeg-40",
}


@pytest.fixture
def nothing_cached(monkeypatch):
    monkeypatch.setattr("mambair_cli.checkpoints.hub.cached", lambda model: None)


def test_a_small_mambair_is_counted_by_hand():
    counted = count(MambaIRConfig(embed_dim=30, depths=(1,), d_state=2, d_inner=30), width=5, height=3)
    block = 30 * 60 + 30 * 9 + 4 * (2 + 2 * 2) * 30 + 30 * 30 + 2 * 30 * 10 * 9
    convolutions = 3 * 30 * 9 + 2 * 30 * 30 * 9 + 30 * 3 * 9
    gate = 2 * 30  # once for all pixels
    assert counted.products == 15 * (block + convolutions) + gate == 403_710
    assert counted.scan == 15 * 4 * 30 * (2 + 2 + 4 * 2) == 21_600
    assert counted.attention == 0
    assert counted.total == 403_710 + 21_600
    norms = 5 * 30  # five of 30 channels
    assert counted.papers == 403_710 + 15 * 5 * norms + 15 * 4 * 30 * (2 + 1 + 9 * 2) == 452_760


def test_a_small_mambair_v2_is_counted_by_hand_in_whole_windows():
    config = MambaIRv2Config(
        embed_dim=12,
        depths=(1,),
        num_heads=(2,),
        d_state=2,
        d_inner=12,
        inner_rank=4,
        num_tokens=5,
        window_size=4,
        convffn_kernel_size=3,
        feed_forward="gated",
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    counted = count(config, width=5, height=3)
    pixels = 8 * 4
    assert counted.attention == pixels * 2 * 4**2 * 12 == 12_288
    assert counted.scan == pixels * 12 * (1 + 2 + 4 * 2) == 4_224
    assert counted.products == pixels * 5_852 + 5 * 4 * 2 == 187_304
    norms, look_up = 5 * (12 * 7 + 6 * 2), 5 * 2
    assert counted.papers == 187_304 + 12_288 + pixels * (norms + look_up + 12 * (1 + 1 + 9 * 2)) == 222_952


@pytest.mark.parametrize("size", [(16, 16), (21, 10)])
@pytest.mark.parametrize("name", CONFIGS)
def test_products_are_those_that_pytorch_counts(name, size, monkeypatch):
    # The scan, the windows' attention and products are kernels of this package, which PyTorch does not see.
    monkeypatch.setattr(layers, "has_vector_kernels", lambda x: False)
    monkeypatch.setattr(layers, "has_product_kernel", lambda x: False)
    net = build_network(CONFIGS[name])
    x = torch.rand(1, net.info.channels, size[1], size[0])
    from torch.utils.flop_counter import FlopCounterMode  # it imports Triton, which other tests prepare

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x)
    counted = count(CONFIGS[name], *size)
    assert counted.products == counter.get_total_flops() // 2
    assert counted.parameters == net.info.parameters


@pytest.mark.parametrize(
    ("name", "parameters", "giga"),
    [
        ("mambair-light-x4", "924K", "84.6"),
        ("mambairv2-light-x2", "774K", "286.3"),
        ("mambairv2-light-x3", "781K", "126.7"),
        ("mambairv2-light-x4", "790K", "75.6"),
    ],
)
def test_the_tables_of_the_papers_are_met(name, parameters, giga):
    model = find_model(name)
    config = official_config(model)
    assert config is not None
    counted = count(config, 1280 // model.scale, 720 // model.scale)
    assert f"{counted.parameters / 1e3:.0f}K" == parameters
    assert f"{counted.papers / 1e9:.1f}" == giga


@pytest.mark.parametrize("official", NAMES)
def test_configurations_are_those_of_the_official_files(official):
    shapes = {tensor: tuple(shape) for tensor, shape in OFFICIAL[official]["shapes"].items()}
    assert official_config(find_model(NAMES[official])) == infer_config(shapes)


@pytest.mark.parametrize("model", load_catalog(), ids=lambda model: model.name)
def test_a_model_is_shown_with_what_it_computes(run, nothing_cached, model):
    code, out, err = run("models", "show", model.name, "--size", "64x48", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out[0])
    counted = facts["multiply_adds"]
    assert (counted["width"], counted["height"]) == (63 if model.scale == 3 else 64, 48)
    assert counted["total"] == counted["products"] + counted["attention"] + counted["scan"]
    assert (counted["attention"] > 0) == (model.architecture == "mambairv2")
    assert counted["certain"] == (model.parameters is not None)
    assert model.parameters in (counted["parameters"], None)
    assert facts["parameters"] == model.parameters


def test_a_built_in_model_is_counted_by_its_file(run, tmp_path):
    from mambair_cli.checkpoints.hub import fetch

    model = find_model("tiny-x4")
    counted = count(load_network(fetch(model).path).info.config, 320, 180)
    _, out, _ = run("models", "show", "tiny-x4")
    assert out[-2] == (
        f"multiply-adds: {counted.total / 1e9:.1f} G for a result of 1280×720 (input 320×180): "
        f"{counted.scan / 1e9:.1f} G in the scan"
    )
    assert out[-1].startswith(f"in papers:     {counted.papers / 1e9:.1f} G, ")


def test_a_network_of_several_published_forms_is_shown_as_in_the_paper(run, nothing_cached):
    _, out, _ = run("models", "show", "mambair-light-x4")
    assert "parameters:    924492 in the paper; known for sure when the model is downloaded" in out


@pytest.mark.parametrize("size", ["0x0", "1280", "axb", "-1x3", "100001x1", "", "1280x720x3"])
def test_a_size_that_is_none_is_refused(run, size):
    code, out, err = run("models", "show", "tiny-x4", "--size", size)
    assert (code, out) == (2, [])
    assert err == f"mambair: error: --size is {size or 'empty'}; it must be WIDTHxHEIGHT, such as 1280x720\n"


def test_a_size_may_be_written_with_a_sign(run):
    _, plain, _ = run("models", "show", "tiny-x4", "--size", "640x480")
    _, other, _ = run("models", "show", "tiny-x4", "--size", "640 × 480")
    assert plain == other
    assert "for a result of 640×480 (input 160×120)" in plain[-2]
