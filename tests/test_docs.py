"""The documents: nothing that a command can do is missing, and links lead somewhere."""

import ast
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import typer
from repository import ROOT
from typer.core import TyperOption

import mambair_cli
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


PACKAGE = ROOT / "mambair_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def names_in(body):
    """Return the names that statements define, each with the statement."""
    names = {}
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names[node.name] = node
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name: node for alias in node.names}
            case ast.If():
                names |= names_in(node.body)
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {each.id: node for each in targets if isinstance(each, ast.Name)}
    return names


DEFINED = {module: names_in(ast.parse(path.read_text("utf-8")).body) for module, path in MODULES.items()}
CLASSES = {
    name: {*names_in(node.body), *re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", ast.unparse(node))}
    for names in DEFINED.values()
    for name, node in names.items()
    if isinstance(node, ast.ClassDef)
}


def is_defined(name):
    """Tell whether a dotted name is a module of the package, or a name in one, or in one of its classes."""
    if name in MODULES:
        return True
    place, _, last = name.rpartition(".")
    if any(last in names for module, names in DEFINED.items() if f".{module}".endswith(f".{place}")):
        return True
    return last in CLASSES.get(place.rpartition(".")[2], ()) and ("." not in place or is_defined(place))


def test_modules_and_names_in_the_map_exist():
    sources = "".join(
        path.read_text("utf-8")
        for path in (*MODULES.values(), *(ROOT / "tests").glob("*.py"), *PACKAGE.rglob("*.js"))
    )
    words = set(re.findall(r"\w+", sources))
    unknown = []
    for text in re.findall(r"`([^`\n]+)`", read("ARCHITECTURE.md")):
        name = text.partition("(")[0]
        if " " in text:  # a command
            continue
        if "/" in name or re.fullmatch(r"[\w-]+\.(toml|md|json)", name):
            is_there = any((folder / name).exists() for folder in (ROOT, PACKAGE))
        elif not re.fullmatch(r"[A-Za-z_][\w.]*", name):  # an option, a suffix
            continue
        elif "." in name:
            first = name.partition(".")[0]
            is_there = is_defined(name) or (
                not (PACKAGE / first).exists() and first.islower() and find_spec(first)
            )
        else:
            is_there = name in words or find_spec(name.replace("-", "_")) is not None
        if not is_there:
            unknown.append(text)
    assert unknown == []


USER_DOCUMENTS = [name for name in DOCUMENTS if name.startswith(("README", "docs/", "mambair_cli/weights/"))]


def documented_code():
    """Return the statements that users may copy: names below the package, and imports from it."""
    texts = [read(name) for name in USER_DOCUMENTS]
    names = {name for text in texts for name in re.findall(r"(?<!from )\bmambair_cli(?:\.\w+)+", text)}
    imports = {
        line for text in texts for line in re.findall(r"^from mambair_cli[\w.]* import [\w, ]+$", text, re.M)
    }
    assert {"mambair_cli.errors", "mambair_cli.spandrel_support.install"} <= names
    return sorted(f"import mambair_cli; {name}" for name in names) + sorted(imports)


@pytest.mark.parametrize("code", [*documented_code(), "import mambair_cli; mambair_cli.__version__"])
def test_names_that_documents_tell_exist_where_nothing_else_was_imported(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_public_names_that_need_no_pytorch_import_nothing_heavy():
    code = (
        "import sys, mambair_cli\n"
        "from mambair_cli import MambairError, errors, spandrel_support\n"
        "mambair_cli.__version__\n"
        "print([name for name in ('torch', 'numpy', 'pyvips', 'typer') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
    for name in dir(mambair_cli):
        assert getattr(mambair_cli, name) is not None
    assert not hasattr(mambair_cli, "nothing")
    assert mambair_cli.__version__ == version("mambair-cli")
