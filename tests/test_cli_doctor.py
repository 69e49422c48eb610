import importlib
import json
import re

import pytest
from repository import ROOT

from mambair_cli.images import FORMATS


@pytest.fixture
def run(run):
    """Run the command, which has no errors to tell; return (exit code, stdout)."""

    def call(*arguments):
        code, lines, err = run("doctor", *arguments)
        assert err == ""
        return code, "\n".join(lines)

    return call


def test_a_sound_installation_is_described_and_tried(run):
    code, out = run("--offline")
    assert code == 0
    lines = {line[:12].rstrip(): line[12:] for line in out.splitlines()}
    assert re.match(r"cpu: (1 thread|([2-9]|\d\d+) threads);", lines["devices"])
    assert f"reads and writes {', '.join(FORMATS)}; " in lines["images"]
    assert lines["models"].startswith("built-in models verified")
    assert lines["hub"].endswith("not checked: offline")
    assert "tiny-x4 on cpu differs by 0 of 255 from the expected result" in lines["self-test"]
    code, out = run("--offline", "--json")
    report = json.loads(out)
    assert (code, report.pop("ok")) == (0, True)
    assert list(report) == list(lines)
    assert all(part["ok"] for part in report.values())
    assert report["hub"]["reachable"] is None
    assert report["self-test"]["devices"]["cpu"]["apart"] == 0


def test_wrong_pixels_are_found(run, monkeypatch):
    module = importlib.import_module("mambair_cli.cli.doctor")
    monkeypatch.setattr(module, "EXPECTED", bytes(len(module.EXPECTED)))
    code, out = run("--offline")
    assert code == 1
    assert "self-test   BROKEN: tiny-x4 on cpu differs by 2" in out
    assert out.count("BROKEN") == 1
    code, out = run("--offline", "--json")
    report = json.loads(out)
    assert (code, report["ok"], report["self-test"]["ok"], report["models"]["ok"]) == (1, False, False, True)


def test_a_cache_without_a_home_is_reported(monkeypatch):
    module = importlib.import_module("mambair_cli.cli.doctor")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")
    assert "; none can be downloaded to ~/.cache/huggingface/hub, where no" in module._check_models().text


def test_a_part_that_fails_does_not_hide_the_others(run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: 1 / 0)
    code, out = run("--offline")
    assert code == 1
    assert "room        BROKEN: ZeroDivisionError: division by zero" in out
    assert "self-test   tiny-x4" in out


def test_an_extra_counts_only_with_all_of_its_packages(monkeypatch):
    module = importlib.import_module("mambair_cli.cli.doctor")
    here = {"av": "17.1", "spandrel": "0.4.2", "einops": "0.8", "onnxscript": "0.7", "onnx": "1.20"}
    monkeypatch.setattr(module, "_version_of", here.get)
    finding = module._check_extras()
    assert finding.text == (
        "video (av 17.1); incomplete: spandrel (lacks torchvision), export (lacks onnxruntime); "
        "not installed: heic, exr, distributed, ray"
    )
    assert finding.facts["lacking"] == {"spandrel": ["torchvision"], "export": ["onnxruntime"]}
    assert {extra for extra, version in finding.facts["extras"].items() if version} == {"video"}
    assert not finding.is_broken


def test_the_packages_of_all_extras_are_known():
    module = importlib.import_module("mambair_cli.cli.doctor")
    project = (ROOT / "pyproject.toml").read_text()
    extras = project[project.index("[project.optional-dependencies]") : project.index("benchmarks = [")]
    wanted = {
        name: set(re.findall(r'"([\w-]+)', packages)) - {"torch"}
        for name, packages in re.findall(r"^(\w+) = \[(.*)\]", extras, re.MULTILINE)
    }
    assert wanted.keys() == module.EXTRAS.keys()
    for name, packages in wanted.items():
        assert packages <= set(module.EXTRAS[name])
