"""Models by name, from a Hub on the loopback to a restored picture, each command in a process of its own."""

import hashlib
import json

import numpy as np
import pytest
import torch
from forked import run_forked
from hub_server import HubServer
from pictures import save_photo
from PIL import Image

from mambair_cli.checkpoints.catalog import find_model
from mambair_cli.checkpoints.hub import cached
from mambair_cli.cli import main
from mambair_cli.networks import MambaIRv2Config, build_network

MODEL = find_model("mambairv2-light-x2")
NETWORK = MambaIRv2Config(30, (1,), (3,), 4, 30, 8, 6, "gated", upscale=2, upsampler="pixelshuffledirect")


RELEASE = "/owner/name/releases/download/v1.0/light.pth"

# The command line, with a second address in the catalogue that is on this machine.
WITH_RELEASE = """
import dataclasses, sys
from mambair_cli.checkpoints import catalog
name, url, *arguments = sys.argv[1:]
models = {model.name: model for model in catalog.load_catalog()}
models[name] = dataclasses.replace(models[name], url=url)
catalog.load_catalog = lambda: tuple(models.values())
from mambair_cli.cli import main
sys.exit(main(arguments))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "weights.pth"
    torch.manual_seed(0)
    torch.save({"params": build_network(NETWORK).state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def hub(checkpoint):
    path = checkpoint
    small = find_model("mambairv2-small-x4")
    assert small.sha256
    with HubServer() as server:
        server.add_repo(
            MODEL.repo or "", {MODEL.files[0]: path.read_bytes(), small.files[0]: b"another file altogether"}
        )
        yield server


@pytest.fixture
def server():
    """Play a Hub that has nothing yet."""
    with HubServer() as server:
        yield server


@pytest.fixture
def run(hub, tmp_path):
    """Run a command as on a machine whose cache is empty at first."""
    return _runner(hub, tmp_path, ["-m", "mambair_cli"])


def _runner(server, tmp_path, program):
    save_photo(tmp_path / "in.png", (30, 20))

    def call(*arguments):
        environment = server.environment(tmp_path / "cache")
        done = run_forked(*program, *arguments, cwd=tmp_path, env=environment)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return call


def test_auto_fetches_the_model_once_and_then_needs_no_hub(run, hub, tmp_path):
    before = len(hub.downloads())
    code, out, err = run("upscale", "in.png", "-s", "2", "--device", "cpu")
    assert (code, out) == (0, ["in_x2.png"])
    assert err[-1] == f"mambair: using {MODEL.name} or tiny-real-x2 on cpu, by a look at each image"
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


def test_the_second_address_serves_every_command(server, checkpoint, tmp_path):
    server.status = 503
    server.releases[RELEASE] = checkpoint.read_bytes()
    url = server.release_host + RELEASE
    run = _runner(server, tmp_path, ["-c", WITH_RELEASE, MODEL.name, url])
    code, out, err = run("upscale", "in.png", "-s", "2", "--device", "cpu", "--json")
    assert code == 0
    assert err == [
        f"mambair: using {MODEL.name} or tiny-real-x2 on cpu, by a look at each image",
        f"mambair: using {MODEL.name} from {url}, not from the Hub: "
        f"cannot download {MODEL.name} from {server.endpoint}: HTTP 503",
    ]
    start = json.loads(out[0])
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (start["model"], start["weights"]) == (MODEL.name, sha256)

    asked = len(server.requests)
    code, out, err = run("upscale", "in.png", "-s", "2", "--device", "cpu", "--offline", "--overwrite")
    assert (code, out, err) == (
        0,
        ["in_x2.png"],
        [f"mambair: using {MODEL.name} or tiny-real-x2 on cpu, by a look at each image"],
    )
    code, (path,), _ = run("models", "path", MODEL.name)
    assert code == 0
    assert run("models", "download", MODEL.name) == (0, [path], [])
    code, out, _ = run("models", "verify", "--json")
    verified = {fact["name"]: fact for fact in map(json.loads, out)}[MODEL.name]
    assert (code, verified["sha256"], verified["source"]) == (0, sha256, "cache")
    assert f"sha256 {sha256[:12]}… as when it was downloaded" in run("models", "verify", MODEL.name)[1][0]
    _, out, _ = run("models", "list")
    assert [line.split()[0] for line in out if line.endswith("cached")] == [MODEL.name]
    assert len(server.requests) == asked

    with open(path, "r+b") as file:
        file.write(b"damage")
    code, _, err = run("models", "verify", MODEL.name)
    assert code == 3
    assert "has been removed" in err[0]
    assert run("models", "path", MODEL.name)[0] == 3


def test_no_command_asks_the_second_address_offline(server, tmp_path):
    run = _runner(server, tmp_path, ["-m", "mambair_cli"])
    code, _, err = run("models", "path", MODEL.name)
    assert code == 3
    assert "is not in the cache, and this is offline" in err[0]
    assert server.requests == []
    assert run("models", "download", MODEL.name)[0] == 3
    assert ("CONNECT", "github.com:443") in [(request.method, request.path) for request in server.requests]


def test_a_file_of_another_spelling_does_the_work_and_is_named(server, checkpoint, tmp_path):
    file = "MambaIRv1_ckpt/SR_light_2x.pth"
    server.add_repo(MODEL.repo, {file: checkpoint.read_bytes(), "MambaIRv1_ckpt/MambaIR_lightSRx4.pth": b"x"})
    run = _runner(server, tmp_path, ["-m", "mambair_cli"])
    notice = f"mambair: using {file} as mambair-light-x2: "
    for more in ([], ["--overwrite", "--offline"]):
        asked = len(server.requests)
        code, out, err = run("upscale", "in.png", "-s", "2", "--model", "mambair-light-x2", *more)
        assert (code, out, len(err)) == (0, ["in_x2.png"], 1)
        assert err[0].startswith(notice)
    assert len(server.requests) == asked
    assert run("models", "download", "mambair-light-x2", "--quiet")[2] == []
    assert run("models", "download", "mambair-light-x2")[2][0].startswith(notice)
    _, out, _ = run("models", "list")
    assert [line.split()[0] for line in out if line.endswith("cached")] == ["mambair-light-x2"]


def test_a_file_of_another_spelling_that_does_another_task_is_refused(server, checkpoint, tmp_path):
    server.add_repo(MODEL.repo, {"MambaIRv1_ckpt/Real_DN.pth": checkpoint.read_bytes()})
    run = _runner(server, tmp_path, ["-m", "mambair_cli"])
    code, out, err = run("denoise", "in.png", "--model", "mambair-real-denoise")
    assert (code, out) == (3, [])
    assert "using MambaIRv1_ckpt/Real_DN.pth as mambair-real-denoise" in err[0]
    assert err[1] == (
        "mambair: error: the model does not fit the task: mambair-real-denoise (MambaIRv2) does upscale ×2; "
        "denoise was asked for"
    )


def test_a_checkpoint_is_hashed_once_at_a_start(checkpoint, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    hashed = []
    real = hashlib.sha256

    class Seen:
        """A hash that notes what it is made of."""

        def __init__(self, *arguments):
            self._hash = real(*arguments)

        def __getattr__(self, name):
            return getattr(self._hash, name)

        def update(self, piece):
            hashed.append(piece)
            self._hash.update(piece)

    monkeypatch.setattr(hashlib, "sha256", Seen)
    shipped = cached(find_model("tiny-x2"))
    assert shipped
    for path, choice in ((shipped, ["--model", "tiny-x2"]), (checkpoint, ["--weights", str(checkpoint)])):
        hashed.clear()
        assert (
            main(["upscale", str(tmp_path / "small.png"), "-s", "2", "--overwrite", "--json", *choice]) == 0
        )
        content = path.read_bytes()
        assert sum(piece[:1000] == content[:1000] for piece in hashed) == 1
        start = json.loads(capsys.readouterr().out.splitlines()[0])
        assert start["weights"] == real(content).hexdigest()


def test_doctor_asks_the_hub(run, hub):
    code, out, err = run("doctor", "--json")
    report = json.loads(out[0])
    assert (code, err) == (0, [])
    assert report["hub"]["reachable"] is True
    assert "answers in" in report["hub"]["text"]
    assert list(report["models"]["cached"]) == []
