"""PyTorch's global defaults, which programs change for networks of their own, change nothing here."""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_random
from networks import CONFIGS
from repository import ROOT

from mambair_cli.checkpoints.load import load_network
from mambair_cli.networks import Network, build_network
from mambair_cli.restore.restorer import Restorer

DEFAULTS = {"float64": torch.float64, "bfloat16": torch.bfloat16, "meta": torch.device("meta")}
X = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
IMAGE = np.random.default_rng(0).integers(0, 256, (33, 40, 3)).astype(np.uint8)

# Where tensors are made, and which of these calls follow a global default unless they name type or device.
PACKAGES = (
    *("checkpoints", "export", "kernels", "networks", "quality", "restore", "spandrel_support", "system"),
)
FLOATS = {"empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros"}
OTHERS = {"arange", "as_tensor", "asarray", "frombuffer", "randint", "randperm"}  # whose type follows values


@contextmanager
def default(name: str) -> Iterator[None]:
    """Change a default of PyTorch in the block: of types or of devices."""
    value, usual = DEFAULTS[name], torch.get_default_dtype()
    if isinstance(value, torch.device):
        torch.set_default_device(value)
    else:
        torch.set_default_dtype(value)
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(usual)


def enlarge(net: Network) -> torch.Tensor:
    """Return the result for X, with noise if the network has any."""
    x = X[:, : net.info.channels]
    with torch.no_grad():
        return net(x, seed=3)


def gradients(net: Network) -> list[torch.Tensor]:
    """Return the gradients of the weights."""
    net.requires_grad_(True)
    net(X[:, : net.info.channels], seed=3).square().sum().backward()
    return [weight.grad for weight in net.parameters() if weight.grad is not None]


@pytest.mark.parametrize("default_name", DEFAULTS)
@pytest.mark.parametrize("name", ["v1", "v1 light", "v1 nearest", "v2", "v2 light", "U-Net"])
def test_a_network_is_the_same_under_any_default(name: str, default_name: str, tmp_path: Path) -> None:
    path = save_random(tmp_path / "a.safetensors", CONFIGS[name])
    torch.save(load_network(path).state_dict(), tmp_path / "a.pth")
    earlier = load_network(path)
    wanted, wanted_gradients = enlarge(earlier), gradients(load_network(path))
    fresh = load_network(path)  # whose weights are prepared under the default
    with default(default_name):
        results = [
            enlarge(net) for net in (load_network(path), load_network(path.with_suffix(".pth")), fresh)
        ]
        results.append(enlarge(earlier))
        tensors = [tensor for net in (load_network(path),) for tensor in (*net.parameters(), *net.buffers())]
        found = gradients(load_network(path))
    for result in results:
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors} <= {
        ("cpu", torch.float32),
        ("cpu", torch.int64),
    }
    torch.testing.assert_close(found, wanted_gradients)


@pytest.mark.parametrize("default_name", DEFAULTS)
@pytest.mark.parametrize("name", ["v1 ×2", "v2 ×3", "U-Net"])
def test_a_restorer_is_the_same_under_any_default(name: str, default_name: str, tmp_path: Path) -> None:
    path = save_random(tmp_path / "a.safetensors", CONFIGS[name])
    task = "denoise" if load_network(path).info.scale == 1 else "upscale"

    def make() -> Restorer:
        return Restorer(task, weights=path, device="cpu", tile=32, overlap=8, strength=0.9)

    wanted = make()(IMAGE)
    earlier, later = make(), make()
    with default(default_name):
        np.testing.assert_array_equal(make()(IMAGE), wanted)
        np.testing.assert_array_equal(earlier(IMAGE), wanted)
    np.testing.assert_array_equal(later(IMAGE), wanted)


def test_a_fresh_network_has_one_type_and_place_as_other_modules_do() -> None:
    with default("float64"):
        net = build_network(CONFIGS["v2"])
    floats = {tensor.dtype for tensor in (*net.parameters(), *net.buffers()) if tensor.is_floating_point()}
    assert floats == {torch.float64}
    assert net(torch.rand(1, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64


def calls_by_default(path: Path) -> list[str]:
    """Return the calls that make a tensor whose type or device follows a global default.

    Weights of layers follow them on purpose, as those of PyTorch's own layers do.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    weights = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "nn.Parameter")
        or (isinstance(node, ast.FunctionDef) and node.name == "_embedding")
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or id(node) in weights:
            continue
        module, _, name = ast.unparse(node.func).rpartition(".")
        named = {keyword.arg for keyword in node.keywords}
        needed = {"dtype", "device"} if name in FLOATS else {"device"} if name in OTHERS else set()
        if module == "torch" and not needed <= named:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name} without {needed - named}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_tensors_name_their_type_and_device(package: str) -> None:
    paths = sorted((ROOT / "mambair_cli" / package).rglob("*.py"))
    assert paths
    assert [call for path in paths for call in calls_by_default(path)] == []
