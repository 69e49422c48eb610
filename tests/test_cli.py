"""The command line as a whole: help, version, models, and events in JSON."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from pictures import save_photo
from repository import ROOT


def test_json_reports_all_in_lines(run, weights):
    save_photo("a.png")
    Path("b.png").write_bytes(b"")
    code, out, _ = run("upscale", "a.png", "b.png", "--weights", weights / "x4.safetensors", "--json")
    assert code == 1
    start, done, failed, summary = map(json.loads, out)
    assert start["event"] == "start"
    assert start["model"] == done["model"] == "x4.safetensors"
    assert (done["event"], done["input"], done["output"]) == ("done", "a.png", "a_x4.png")
    assert (done["width"], done["height"], done["tiles"], done["shrunk"]) == (48, 36, 1, False)
    assert done["sha256"] == hashlib.sha256(Path("a_x4.png").read_bytes()).hexdigest()
    assert start["weights"] == hashlib.sha256((weights / "x4.safetensors").read_bytes()).hexdigest()
    assert done["warnings"] == []
    assert (failed["event"], failed["input"], failed["kind"]) == ("failed", "b.png", "ImageError")
    assert (summary["done"], summary["failed"]) == (1, 1)


def test_every_key_of_every_event_is_documented(run, weights):
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    apart = ("inspected", "inspected_clip", "plan_clip")  # a page and tests of their own
    rows = [(event, keys) for event, keys in rows if event not in apart]
    documented = {event: re.findall(r"`(\w+)`", re.sub(r" \(.*?\)", "", keys)) for event, keys in rows}
    save_photo("in/a.png")
    Path("in/b.png").write_text("no picture")
    Path("in/c.cr2").touch()
    save_photo("truth/a.png", size=(20, 20))
    save_photo("compressed/a.jpg")
    save_photo("others/a.png", size=(20, 20))
    save_photo("truth/b.png", size=(20, 20))
    save_photo("others/b.png", size=(40, 20))
    upscale = ("upscale", "in", "--weights", weights / "x4.safetensors")
    ways, real = (["--dry-run"], [], ["--resume"], ["--resume", "--dry-run"]), ("--degradation", "real")
    found = {}
    for command in (
        *((*upscale, *way) for way in ways),
        ("upscale", "compressed", "-s", 2),
        ("evaluate", "truth", "--restored", "truth"),
        ("evaluate", "truth", "--task", "upscale", "--weights", weights / "x4.safetensors", *real),
        ("upscale", "truth/a.png", "--preview"),
        ("compare", "truth", "others"),
        ("export", "--weights", weights / "x4.safetensors", "-o", "x4.pt2", "--tile", "16"),
    ):
        _, out, _ = run(*command, "--json")
        for event in map(json.loads, out):
            found[event["event"]] = list(event)[1:]
    assert found == documented


def test_every_key_of_what_is_seen_of_a_network_is_documented(run, weights):
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` with `(--[\w-]+)` \| .* \| (.*) \|$", text, re.MULTILINE)
    documented = {
        (option, event): re.findall(r"`(\w+)`", re.sub(r" \([^()]*(\([^()]*\)[^()]*)*\)", "", keys))
        for event, option, keys in rows
    }
    save_photo("in/a.png", size=(40, 40))
    found = {}
    for option, *more in (
        ("--seams", "--tile", 24, "--overlap", 4),
        ("--receptive-field", "f.png", "--tile", 17),
    ):
        command = ("evaluate", "in", "--inputs", "in", "--task", "upscale", option, *more)
        _, out, _ = run(*command, "--weights", weights / "x4.safetensors", "--json")
        found |= {(option, event["event"]): list(event)[1:] for event in map(json.loads, out)}
    assert found == documented


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from mambair_cli.cli import main; main(['upscale', '--help'])\n"
        "print([name for name in ('torch', 'huggingface_hub', 'numpy', 'pyvips', 'rich.progress')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--scale" in done.stdout


def test_a_bare_call_shows_the_help(run):
    code, out, err = run()
    assert code == 2
    assert any("upscale" in line for line in [*out, *err.splitlines()])
    assert "error" not in err


def test_version(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out[0].startswith("mambair 0.")


def test_models_list_and_show(run):
    code, out, _ = run("models", "list")
    assert code == 0
    assert out[0].split()[:2] == ["name", "task"]
    code, lines, _ = run("models", "list", "--json")
    models = [json.loads(line) for line in lines]
    assert len(models) == len(out) - 1
    assert all(line.endswith(f"  {model['where']}") for model, line in zip(models, out[1:], strict=True))
    code, out, _ = run("models", "show", models[0]["name"], "--json")
    shown = json.loads(out[0])
    assert shown.pop("multiply_adds")["width"] == 1280
    assert shown == models[0]
    code, out, _ = run("models", "show", models[0]["name"])
    assert any(models[0]["files"][0] in line for line in out)
