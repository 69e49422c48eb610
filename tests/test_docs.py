"""The documents: nothing that a command can do is missing, and links lead somewhere."""

import re
import shlex

import pytest
import typer
from repository import ROOT
from typer.core import TyperOption

from mambair_cli.cli import app, main

DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "*/*.md", "mambair_cli/*/*.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith(".")  # tools leave texts in folders of their own
)


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def walk(command, path):
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from walk(child, f"{path} {name}")


COMMANDS = dict(walk(typer.main.get_command(app), "mambair"))


def anchors(text):
    """Return the anchors of a page's headings, as GitHub and others make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_in_the_reference(path):
    text = read("docs/commands.md")
    sections = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    options = [each for each in COMMANDS[path].params if isinstance(each, TyperOption) and not each.hidden]
    written = set(re.findall(r"(?<![\w-])-{1,2}[A-Za-z][a-z-]*", sections[path]))
    if path.split()[-1] in ("upscale", "denoise", "dejpeg"):
        common = sections["Shared options"].split("### Other commands")[0]
        written |= set(re.findall(r"(?<![\w-])-{1,2}[A-Za-z][a-z-]*", common))
    missing = {name for option in options for name in option.opts + option.secondary_opts} - written
    assert not missing
    assert (COMMANDS[path].help or "no help").splitlines()[0] in sections[path]


def test_an_option_that_commands_share_is_explained_once():
    rows = re.findall(r"^\| `(-[^`]*)` \| (.*?) \|", read("docs/commands.md"), re.M)
    assert len(rows) == len(set(rows))
    assert (
        len([name for name, _ in rows if name.startswith("-o")]) == 4
    )  # those of compare, train and export are others


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    text = re.sub(r"^```.*?^```|<!--.*?-->", "", read(name), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (ROOT / name).parent / file if file else ROOT / name
        assert page.exists(), target
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), target


def test_the_first_command_of_the_readme_prints_what_is_shown(tmp_path, monkeypatch, capsys):
    _, block, after = read("README.md").split("```", 2)
    command = next(line for line in block.splitlines() if line.startswith("mambair "))
    shown = re.findall(r"^    (.*)$", after.split("##")[0], re.M)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main([*shlex.split(command)[1:], "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert (err + out).splitlines() == shown


@pytest.mark.parametrize(
    ("value", "is_shown"), [(None, False), ("", False), ("0", False), ("1", True)], ids=repr
)
def test_mambair_debug_shows_the_traceback_behind_an_error(value, is_shown, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAMBAIR_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("MAMBAIR_DEBUG", value)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for command in (
        "upscale missing.png",  # ends the command
        "upscale broken.png --offline --device cpu",  # an image of a run
        "upscale broken.png --workers none",  # found by the parser
        "models path tiny-x4 --unknown",
    ):
        assert main(command.split()) != 0
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("mambair: error: ")
        assert ("Traceback (most recent call last):" in lines) is is_shown, command


def test_tests_that_documents_name_exist():
    for document in DOCUMENTS:
        file = None
        for path, name in re.findall(r"`(tests/\w+\.py|…)(?:::(\w+))?`", read(document)):
            file = path if path != "…" else file
            assert (ROOT / str(file)).exists(), f"{document}: {file}"
            assert not name or f"def {name}(" in read(file), f"{document}: {file}::{name}"
