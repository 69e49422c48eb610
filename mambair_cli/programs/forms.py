"""The forms in which models launch programs: ``forms.json``, as ``tests/launched_forms.py`` records it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("forms.json")


class Form(NamedTuple):
    """A program as a launch asks for it.

    Attributes:
        program: Module and name of the program, in this package.
        operands: For a tensor the name of its type, with ``@8`` or the like where its address leaves that
            remainder by 16; numbers, in place of which others of their kind may stand; and None.
        options: Constants of the program and settings of the compiler.
    """

    program: str
    operands: tuple[Any, ...]
    options: dict[str, Any]


def read_forms(model: str) -> list[Form]:
    """Return the forms that a model of the catalogue launches, the first ones first; none if unknown."""
    networks = json.loads(FILE.read_text(encoding="utf-8"))
    forms = next((network["forms"] for network in networks if model in network["models"]), [])
    return [Form(*form) for form in forms]
