"""The names of modules, classes and functions in the documents: each is there, and can be imported."""

import ast
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from forked import run_forked
from repository import ROOT
from test_docs import DOCUMENTS, read

import mambair_cli

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


@cache
def defined():
    """Return the names that each module of the package defines, each with its statement."""
    return {module: names_in(ast.parse(path.read_text("utf-8")).body) for module, path in MODULES.items()}


@cache
def attributes():
    """Return the names that each class defines."""
    return {
        name: {*names_in(node.body), *re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", ast.unparse(node))}
        for names in defined().values()
        for name, node in names.items()
        if isinstance(node, ast.ClassDef)
    }


def is_defined(name):
    """Tell whether a dotted name is a module of the package, or a name in one, or in one of its classes."""
    if name in MODULES:
        return True
    place, _, last = name.rpartition(".")
    if any(last in names for module, names in defined().items() if f".{module}".endswith(f".{place}")):
        return True
    return last in attributes().get(place.rpartition(".")[2], ()) and ("." not in place or is_defined(place))


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


FORGET_THE_PACKAGE = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "mambair_cli"]:
    del sys.modules[name]
"""


@pytest.mark.parametrize("code", [*documented_code(), "import mambair_cli; mambair_cli.__version__"])
def test_names_in_documents_exist_where_nothing_else_was_imported(code):
    done = run_forked("-c", FORGET_THE_PACKAGE + code)
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
