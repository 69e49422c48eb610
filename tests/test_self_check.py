"""Checks that have passed: known again with the same sources, and with no others."""

import inspect
import sys
from pathlib import Path

import pytest
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
