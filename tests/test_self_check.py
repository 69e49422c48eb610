"""Checks that have passed: known again with the same sources, and with no others."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from interpreted import DEVICE

from mambair_cli.kernels import (
    cuda_depthwise,
    cuda_scan,
    nvrtc,
    self_check,
    triton_residual,
    triton_routing,
)
from mambair_cli.networks import MambaIR
from mambair_cli.networks.fused import FusedMambaIR, FusedMambaIRv2
from mambair_cli.programs import cuda_source, residual
from mambair_cli.system import disk_cache


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(disk_cache, "cache_folder", lambda: tmp_path / "cache")


def test_all_that_a_fused_network_computes_with_is_among_the_sources():
    code = (MambaIR, FusedMambaIR, FusedMambaIRv2, nvrtc, triton_residual, residual, triton_routing)
    files = {Path(inspect.getfile(thing)) for thing in code}
    files |= {
        Path(inspect.getfile(cuda_source)).with_name(name)
        for module in (cuda_scan, cuda_depthwise)
        for name in module.SOURCES
    }
    assert files <= set(self_check.source_files())


def test_a_package_that_has_moved_is_an_error(monkeypatch):
    monkeypatch.setattr(self_check, "PACKAGES", (*self_check.PACKAGES, "mambair_cli.moved"))
    with pytest.raises(ImportError, match=r"no package is called mambair_cli\.moved"):
        self_check.source_files()


@pytest.mark.parametrize("package", ["kernels", "networks"])
def test_another_source_makes_a_check_unknown(package, monkeypatch, tmp_path):
    root = tmp_path / "moved_cli"
    for name in ("kernels", "networks"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").touch()
    (root / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(self_check, "PACKAGES", ("moved_cli.kernels", "moved_cli.networks"))
    self_check.remember("a network", DEVICE)
    assert self_check.is_known("a network", DEVICE)
    assert not self_check.is_known("another", DEVICE)
    (root / package / "deeper").mkdir()
    (root / package / "deeper" / "scan.cu").write_text("// new")
    assert not self_check.is_known("a network", DEVICE)
    sys.modules.pop("moved_cli")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (torch.backends.cudnn, "version"),
        (self_check, "compiler_version"),
        (nvrtc, "driver_version"),
    ],
)
def test_another_library_of_a_card_makes_a_check_unknown(module, name, monkeypatch):
    card = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    self_check.remember("a network", card)
    assert self_check.is_known("a network", card)
    monkeypatch.setattr(module, name, lambda: "another")
    assert not self_check.is_known("a network", card)
