"""Graphs that are exported: their results are the network's, and a bad request is one line."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoints import save_random
from error_lines import is_one_line
from file_limit import limited_files
from networks import CONFIGS, V1, V2
from PIL import Image
from repository import ROOT

from mambair_cli import load_network
from mambair_cli.cli import main
from mambair_cli.export import write
from mambair_cli.export.graph import TileGraph
from mambair_cli.networks import Config, MambaIRUNetConfig, build_network

TOLERANCE = 1e-4
TILE = 20  # no multiple of the windows and of the U-Net's halvings

# One small network for each family, and for each part in which families differ.
NETWORKS: dict[str, Config] = {
    "v1": replace(V1, depths=(1,), upsampler="pixelshuffle", upscale=3),
    "v1 light": replace(CONFIGS["v1 light"], depths=(1,)),
    "v1 gray, nearest": replace(
        V1, depths=(1,), in_chans=1, resi_connection="3conv", upsampler="nearest+conv", upscale=4
    ),
    "v2": replace(V2, depths=(1,), num_heads=(3,)),
    "v2 light, window 5": replace(CONFIGS["v2 light"], depths=(2,), num_heads=(3,), window_size=5),
    # Not all levels have blocks: each block takes a second to convert.
    "U-Net": MambaIRUNetConfig(
        dim=30, num_blocks=(0, 0, 0, 1), num_refinement_blocks=0, d_inner=(31, 60, 120, 240), d_state=2
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a small network that enlarges, with random weights."""
    path = tmp_path_factory.mktemp("export") / "small.safetensors"
    return save_random(path, replace(V1, depths=(1,), upsampler="pixelshuffledirect", upscale=2))


def random_picture(channels, tile=TILE):
    return np.random.default_rng(1).random((1, channels, tile, tile), dtype=np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_has_the_result_of_the_network(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = build_network(NETWORKS[name]).eval().requires_grad_(False)
    scale, channels = net.info.scale, net.info.channels
    path = tmp_path / "net.onnx"
    written = write.write_graph(TileGraph(net, TILE, {"version": "0"}), path)
    assert written.opset == 20
    assert written.bytes == path.stat().st_size
    assert written.difference is not None
    assert 0 < written.difference < TOLERANCE

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    picture = random_picture(channels)
    (result,) = session.run(None, {"image": picture})
    own = net(torch.from_numpy(picture)).numpy()
    assert result.shape == own.shape == (1, channels, scale * TILE, scale * TILE)
    assert np.abs(own - own.mean()).max() > 0.01  # not a constant, which anything would match
    assert np.abs(result - own).max() < TOLERANCE


def test_a_graph_for_pytorch_runs_without_this_package(run, tmp_path):
    # Two layers: the second one shifts its windows. The tile is no multiple of their side.
    config = replace(V2, depths=(2,), num_heads=(3,), feed_forward="gated", in_chans=1)
    weights = save_random(tmp_path / "net.safetensors", config)
    code, out, err = run("export", "--weights", weights, "--tile", 17, "-o", "new/net.pt2", "--json")
    assert code == 0, err
    event = json.loads(out[0])
    assert (event["opset"], event["output"]) == (None, "new/net.pt2")

    picture = random_picture(1, 17)
    np.save(tmp_path / "picture.npy", picture)
    script = """
import json, sys
sys.modules["mambair_cli"] = None  # an import of it fails
import numpy as np, torch
facts = {"mambair.json": ""}
net = torch.export.load("new/net.pt2", extra_files=facts).module()
with torch.no_grad():
    np.save("result.npy", net(torch.from_numpy(np.load("picture.npy"))).numpy())
print(json.loads(facts["mambair.json"])["architecture"])
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MambaIRv2"]
    own = load_network(weights)(torch.from_numpy(picture)).numpy()
    assert np.abs(np.load(tmp_path / "result.npy") - own).max() < TOLERANCE


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """Return an ONNX file, of opset 18, of a network that repeats pixels; another file had its name."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("exported") / "tiny-x4.onnx"
    path.write_bytes(b"old")
    options = ("--tile", "16", "--opset", "18", "-o", str(path), "--overwrite", "--quiet")
    assert main(["export", "--weights", str(weights / "x4.safetensors"), *options]) == 0
    return path


def test_the_file_says_what_it_is_and_names_no_folder_of_the_machine(exported, weights):
    onnx = pytest.importorskip("onnx")
    content = exported.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert {each.domain: each.version for each in model.opset_import} == {"": 18}
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["image", "restored"]
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts.items() >= {
        ("model", "x4.safetensors"),
        ("task", "upscale"),
        ("architecture", "MambaIR"),
        ("scale", "4"),
        ("channels", "3"),
        ("tile", "16"),
    }
    assert model.producer_name == "mambair"
    for folder in (os.path.dirname(write.__file__), str(weights), sys.prefix):
        assert folder.encode() not in content


@pytest.mark.parametrize(("width", "height"), [(40, 23), (5, 50)])
def test_the_example_in_the_documents_restores_a_picture_of_any_size(
    width, height, exported, tmp_path, monkeypatch
):
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "ramp" in block)
    assert not re.search("torch|mambair", example)
    (tmp_path / "tiny-x4.onnx").symlink_to(exported)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    with Image.open("photo_x4.png") as restored:
        assert np.array_equal(restored, pixels.repeat(4, 0).repeat(4, 1))


def test_a_wrong_graph_is_not_written(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "run_pt2", lambda content, picture: torch.zeros(1, 3, 32, 32))
    code, out, err = run("export", "--weights", checkpoint, "--tile", 16, "-o", "net.pt2", "-q")
    assert (code, out) == (3, [])
    assert is_one_line(err)
    assert "the exported graph is wrong by" in err
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(run, checkpoint, tmp_path):
    with limited_files(20_000):
        code, out, err = run("export", "--weights", checkpoint, "--tile", 16, "-o", "net.pt2", "-q")
    assert (code, out) == (1, [])
    assert is_one_line(err)
    assert "net.pt2: it would be larger than files may be here" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ("tiny-x4 -o net.pb", 2, ("net.pb", "net.onnx or net.pt2")),
        ("tiny-x4 -o net", 2, ("net.onnx or net.pt2",)),
        ("tiny-x4 -o old.onnx/net.onnx", 2, ("old.onnx is no folder; choose another folder with -o",)),
        (
            "tiny-x4 -o -",
            2,
            ("no graph goes to standard output: -o -; name a file, such as -o model.onnx",),
        ),
        ("tiny-x4 -o folder", 2, ("folder", "name a file in it")),
        ("tiny-x4 -o old.onnx", 2, ("old.onnx", "--overwrite")),
        ("tiny-x4 --tile 0", 2, ("--tile", "0", "16")),
        ("tiny-x4 --tile 15", 2, ("--tile", "15", "16")),
        ("tiny-x4 --tile many", 2, ("--tile", "many")),
        ("tiny-x4 --opset 17", 2, ("--opset", "17", "18")),
        ("tiny-x4 --opset 20 -o net.pt2", 2, ("--opset 20", "leave it out")),
        ("tiny-x4 --force", 2, ("--force", "--overwrite")),
        ("tiny-x9 -o net.pt2", 3, ("tiny-x9",)),
        ("", 2, ("--weights", "models list")),
        ("tiny-x4 --weights broken.pth", 2, ("not both",)),
        ("--weights missing.pth -o net.pt2", 3, ("missing.pth",)),
        ("--weights broken.pth -o net.pt2", 3, ("broken.pth",)),
        ("--weights old.onnx -o old.onnx --overwrite", 2, ("old.onnx", "it is an input")),
        ("mambair-classic-x4 --offline -o net.pt2", 3, ("mambair-classic-x4",)),
    ],
)
def test_a_bad_request_is_one_line_and_writes_nothing(arguments, code, parts, run, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.onnx").write_bytes(b"old")
    (tmp_path / "broken.pth").write_bytes(b"no network")
    before = sorted(tmp_path.iterdir())
    got, out, err = run("export", *arguments.split())
    assert (got, out) == (code, []), err
    assert is_one_line(err)
    for part in parts:
        assert part in err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_a_tile_must_hold_a_window(run, tmp_path):
    weights = save_random(
        tmp_path / "net.safetensors", replace(V2, window_size=20, depths=(1,), num_heads=(3,))
    )
    code, out, err = run("export", "--weights", weights, "--tile", 16, "-o", "net.pt2")
    assert (code, out) == (2, [])
    assert is_one_line(err)
    assert "--tile 16" in err
    assert "20 or more" in err


def test_a_folder_that_forbids_writing_is_named(run, checkpoint, tmp_path):
    if os.geteuid() == 0:
        folder = "/proc"  # not even root may write there
    else:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
    code, out, err = run("export", "--weights", checkpoint, "--tile", 16, "-o", f"{folder}/net.pt2", "-q")
    assert (code, out) == (1, [])
    assert is_one_line(err)
    assert f"cannot write {folder}/net.pt2" in err


def test_a_missing_extra_is_named(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "find_spec", lambda name: None)
    code, out, err = run("export", "--weights", checkpoint, "-o", "net.onnx")
    assert (code, out) == (2, [])
    assert is_one_line(err)
    assert 'pip install "mambair-cli[export]"' in err
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    code, out, err = run("export", "--weights", checkpoint, "-o", "net.pt2")
    assert (code, out) == (2, [])
    assert is_one_line(err)
    assert "2.9.1+cpu" in err


def test_what_follows_a_network_leaves_nothing_behind(checkpoint):
    net = load_network(checkpoint)
    picture = torch.rand(1, 3, 16, 16)
    before = net(picture)
    TileGraph(net, 16, {}).trace()
    assert torch.equal(net(picture), before)  # not even tensors without values, kept for their shape
