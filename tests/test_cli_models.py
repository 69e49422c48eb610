"""Models by name, from a Hub on the loopback to a restored picture, each command in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image

from mambair_cli.catalog import find_model
from mambair_cli.model import MambaIRv2Config, build_network

MODEL = find_model("mambairv2-light-x2")
NETWORK = MambaIRv2Config(30, (1,), (3,), 4, 30, 8, 6, "gated", upscale=2, upsampler="pixelshuffledirect")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "weights.pth"
    torch.manual_seed(0)
    torch.save({"params": build_network(NETWORK).state_dict()}, path)
    small = find_model("mambairv2-small-x4")
    assert small.sha256
    with HubServer() as server:
        server.add_repo(
            MODEL.repo or "", {MODEL.files[0]: path.read_bytes(), small.files[0]: b"another file altogether"}
        )
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Run a command as on a machine whose cache is empty at first."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
        tmp_path / "in.png"
    )

    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "mambair_cli", *arguments],
            cwd=tmp_path,
            env=hub.environment(tmp_path / "cache"),
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return call


def test_auto_fetches_the_model_once_and_then_needs_no_hub(run, hub, tmp_path):
    before = len(hub.downloads())
    code, out, err = run("upscale", "in.png", "-s", "2", "--device", "cpu")
    assert (code, out) == (0, ["in_x2.png"])
    assert err[-1] == f"mambair: using {MODEL.name} on cpu"
    assert len(hub.downloads()) > before
    first = np.array(Image.open(tmp_path / "in_x2.png"))
    assert first.shape == (40, 60, 3)

    asked = len(hub.requests)
    code, out, _ = run(
        "upscale", "in.png", "-s", "2", "--offline", "--overwrite", "--json", "--device", "cpu"
    )
    assert code == 0
    assert json.loads(out[0])["model"] == MODEL.name
    assert len(hub.requests) == asked
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "in_x2.png")), first)


def test_download_path_verify_and_list_agree(run):
    code, out, _ = run("models", "download", MODEL.name, "--json")
    assert code == 0
    path = json.loads(out[0])["path"]
    assert run("models", "path", MODEL.name) == (0, [path], [])
    code, out, _ = run("models", "verify", "--json")
    verified = {fact["name"]: fact for fact in map(json.loads, out)}
    assert code == 0
    assert verified[MODEL.name]["ok"]
    assert verified[MODEL.name]["architecture"] == "MambaIRv2"
    _, out, _ = run("models", "list")
    assert [line.split()[0] for line in out if line.endswith("cached")] == [MODEL.name]
    assert all(line.endswith("bundled") == line.startswith("tiny") for line in out)


def test_a_damaged_file_is_found_and_removed(run):
    run("models", "download", MODEL.name)
    _, out, _ = run("models", "path", MODEL.name)
    with open(out[0], "r+b") as file:
        file.seek(2000)
        file.write(b"damage")
    code, out, err = run("models", "verify", MODEL.name)
    assert (code, out) == (3, [])
    assert "has been removed" in err[0]
    code, _, err = run("models", "path", MODEL.name)
    assert code == 3
    assert "not in the cache" in err[0]


def test_a_file_with_another_hash_is_refused_whole(run):
    code, out, err = run("upscale", "in.png", "--model", "mambairv2-small-x4")
    assert (code, out) == (3, [])
    assert len(err) == 1
    assert "not the file that mambairv2-small-x4 should be" in err[0]


def test_what_the_repository_holds_is_listed_when_a_file_is_not_there(run):
    code, _, err = run("models", "download", "mambairv2-large-x3")
    assert code == 3
    assert MODEL.files[0] in err[0]


def test_doctor_asks_the_hub(run, hub):
    code, out, err = run("doctor", "--json")
    report = json.loads(out[0])
    assert (code, err) == (0, [])
    assert report["hub"]["reachable"] is True
    assert "answers in" in report["hub"]["text"]
    assert list(report["models"]["cached"]) == []
