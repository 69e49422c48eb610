"""The house as a whole: what is where, how large its parts may be, and the words of its texts."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer
from repository import ROOT

from mambair_cli.cli import app

PACKAGE = ROOT / "mambair_cli"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))

MOST_LINES_OF_MODULE = 400
MOST_LINES_OF_FUNCTION = 60
MOST_BRANCHES = 12
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case)
# So a docstring says why a function is long. In the docstring of a command that sentence comes after a form
# feed, so that it is not in the help.
REASON = re.compile(r"\blong (function, )?(because|for|since)\b", re.IGNORECASE)

# Words that the house does not use, in names neither, and what to write in their place.
PLAINER = {
    "told": "what was done: printed, named, reported, recognised, given, known",
    "beside": "next to, with, at the same time as",
    "besides": "except, in addition to",
    "whoever": "who, the one that",
    "hence": "so",
    "henceforth": "from now on",
    "in hand": "what it is: begun, held, left",
    "lest": "so that ... not",
    "thereof": "of it",
    "to be had": "available",
    "upon": "on",
    "wherein": "in which",
    "whilst": "while",
}
GAP = r"(?:\s[\s#/*]*|_)"  # between words, also at the end of a line of a comment
AVOIDED = re.compile(rf"(?<![a-z])({'|'.join(PLAINER).replace(' ', GAP)})(?![a-z])", re.IGNORECASE)
DANGLING = re.compile(r"\bOf(?=\s|$)")  # "Of these, the first ..." makes readers wait for the subject
TEXTS = ("*", ".ci/*", "docs/*", "mambair_cli/**/*", "tests/**/*", "training/**/*", "benchmarks/**/*")
TYPES = (".py", ".md", ".toml", ".js", ".css", ".html", ".cu", ".cuh", ".hpp")


@cache
def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Definition:
    """A function or class of the package, by its module and its name inside."""

    module: str
    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

    def __str__(self) -> str:
        return f"{self.module}: {self.name}"


@cache
def definitions() -> tuple[Definition, ...]:
    return tuple(each for module in MODULES for each in _find(parse(module), module, ""))


def _find(parent: ast.AST, module: str, prefix: str) -> Iterator[Definition]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Definition(module, prefix + node.name, node)
            yield from _find(node, module, f"{prefix}{node.name}.")
        else:
            yield from _find(node, module, prefix)


def count_branches(function: ast.AST) -> int:
    """Count the branches of a function, without those of functions inside."""
    count = 0
    for node in ast.iter_child_nodes(function):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            count += isinstance(node, BRANCHES) + count_branches(node)
    return count


def is_dangling(text: str) -> bool:
    return text.startswith(("Of ", "As "))


def dangling_parts(docstring: str) -> list[str]:
    """Return what begins in the middle of a sentence: the first line, or the text of an argument."""
    first = docstring.partition("\n")[0]
    sections = re.findall(r"^ *(?:Args|Attributes):\n(.*?)(?=\n *\n|\Z)", docstring, re.M | re.S)
    texts = re.findall(r"^ *[\w*, ]+: (.*)$", "\n".join(sections), re.M)
    return [text for text in (first, *texts) if is_dangling(text)]


def find_texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file whose words are checked; of CHANGELOG.md, the top section."""
    for path in sorted(path for pattern in TEXTS for path in ROOT.glob(pattern)):
        is_text = path.suffix in TYPES or path.parent.name == ".ci"
        if is_text and path != Path(__file__):  # which has the words themselves
            text = path.read_text(encoding="utf-8")
            if path.name == "CHANGELOG.md":
                text = "\n## ".join(text.split("\n## ")[:2])
            yield path.relative_to(ROOT).as_posix(), text


def find_avoided(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line with a word that is not used, and what to write in its place."""
    for found in AVOIDED.finditer(text):
        words = re.sub(r"[\W_]+", " ", found[0].lower())
        yield text.count("\n", 0, found.start()) + 1, f"{words}: write {PLAINER[words]}"
    for found in DANGLING.finditer(text):
        yield text.count("\n", 0, found.start()) + 1, "a sentence begins with Of: begin with its subject"


def test_the_top_of_the_package_has_its_rooms_and_three_modules() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert {path.name for path in entries if path.is_file()} == {"__init__.py", "__main__.py", "errors.py"}
    assert {path.name for path in entries if path.is_dir()} == {
        *("cli", "server", "runs", "train", "quality", "restore", "checkpoints", "export", "video"),
        *("inspection", "networks", "images", "kernels", "programs", "pages", "spandrel_support"),
        *("system", "weights"),
    }
    assert not list((PACKAGE / "weights").glob("*.py"))


def test_modules_are_short() -> None:
    lengths = {module: len((PACKAGE / module).read_bytes().splitlines()) for module in MODULES}
    assert {m for m, length in lengths.items() if length > MOST_LINES_OF_MODULE} == set()


def test_functions_are_short_or_say_why_not() -> None:
    long = set()
    for each in definitions():
        if isinstance(each.node, ast.ClassDef):
            continue
        lines = (each.node.end_lineno or 0) - each.node.lineno + 1
        docstring = ast.get_docstring(each.node) or ""
        has_reason = REASON.search(" ".join(docstring.split())) is not None
        if (lines > MOST_LINES_OF_FUNCTION or count_branches(each.node) > MOST_BRANCHES) and not has_reason:
            long.add(str(each))
    assert long == set()


def test_no_two_classes_have_one_name() -> None:
    public = [
        node.name
        for module in MODULES
        for node in parse(module).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {name for name, times in Counter(public).items() if times > 1} == set()


def test_docstrings_begin_with_a_noun_or_an_imperative() -> None:
    found = set()
    for module in MODULES:
        nodes = [parse(module), *(each.node for each in definitions() if each.module == module)]
        if any(dangling_parts(ast.get_docstring(node) or "") for node in nodes):
            found.add(module)
    assert found == set()


def test_help_begins_with_a_noun_or_an_imperative() -> None:
    texts, commands = [], [typer.main.get_command(app)]
    for command in commands:  # which grow by those of each group
        commands += getattr(command, "commands", {}).values()
        texts.append((str(command.name), command.help or ""))
        texts += [(each.opts[0], getattr(each, "help", None) or "") for each in command.params]
    assert {"upscale", "--tile"} <= {name for name, _ in texts}
    assert {name for name, text in texts if is_dangling(text)} == set()


def test_words_are_plain() -> None:
    texts = list(find_texts())
    seen = {".ci/check", "pyproject.toml", "docs/formats.md", "mambair_cli/errors.py", "tests/clips.py"}
    assert seen | {"mambair_cli/programs/elements.cuh"} <= dict(texts).keys()
    found = [f"{name}:{number}: {advice}" for name, text in texts for number, advice in find_avoided(text)]
    assert not found, "\n".join(found)


def test_libvips_is_imported_where_it_is_set_up_alone() -> None:
    imported = [
        module
        for module in MODULES
        for node in ast.walk(parse(module))
        if isinstance(node, ast.Import) and "pyvips" in {alias.name for alias in node.names}
    ]
    assert imported == ["images/libvips.py"]


@pytest.mark.parametrize(
    ("docstring", "count"),
    [
        ("Of the house.", 1),
        ("Office.\n\nArgs:\n    x: As it is.\n    y, z: The others.\n", 1),
        ("Draw.\n\nAttributes:\n    a: A thing\n        of two lines.\n    b: Of a.\n\nReturns:\n    A.", 1),
        ("Assume nothing.", 0),
    ],
)
def test_dangling_texts_are_seen(docstring: str, count: int) -> None:
    assert len(dangling_parts(docstring)) == count


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("def test_it_is_told_once():", [1]),
        ("Besides,\nwork in_hand.\nOf these, two.", [1, 2, 3]),
        ("    # work in\n    # hand, not to\nbe\nhad", [1, 2]),
        ("| Two of these | OfThese | soldiers | handbeside |", []),
    ],
)
def test_words_that_are_not_used_are_seen(text: str, lines: list[int]) -> None:
    assert [number for number, _ in find_avoided(text)] == lines


def test_branches_are_counted_once() -> None:
    source = """
def f(x):
    for y in x:
        if y:
            pass
        elif x:
            pass

    def inner():
        while True:
            pass

    return 1 if x else 2
"""
    assert count_branches(ast.parse(source).body[0]) == 3
