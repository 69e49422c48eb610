import importlib
import json
import re

import pytest


@pytest.fixture
def run(run):
    """Run the command, which has no errors to tell; return (exit code, stdout)."""

    def call(*arguments):
        code, lines, err = run("doctor", *arguments)
        assert err == ""
        return code, "\n".join(lines)

    return call


def test_a_sound_installation_is_told_and_tried(run):
    code, out = run("--offline")
    assert code == 0
    lines = {line[:12].rstrip(): line[12:] for line in out.splitlines()}
    assert re.match(r"cpu: (1 thread|([2-9]|\d\d+) threads);", lines["devices"])
    assert "reads and writes png, jpeg, webp, tiff, avif, gif" in lines["images"]
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


def test_a_part_that_fails_does_not_hide_the_others(run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: 1 / 0)
    code, out = run("--offline")
    assert code == 1
    assert "room        BROKEN: ZeroDivisionError: division by zero" in out
    assert "self-test   tiny-x4" in out
