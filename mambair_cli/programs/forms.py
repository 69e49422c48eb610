"""What models launch on a GPU: ``forms.json``, as ``tests/launched_forms.py`` records it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("forms.json")


class TritonForm(NamedTuple):
    """A Triton program as a launch asks for it.

    Attributes:
        program: Module and name of the program, in this package.
        operands: For a tensor the name of its type, with ``@8`` or the like where its address leaves that
            remainder by 16; numbers, in place of which others of their kind may stand; and None.
        options: Constants of the program and settings of the compiler.
    """

    program: str
    operands: tuple[Any, ...]
    options: dict[str, Any]


class CudaForm(NamedTuple):
    """CUDA C++ as a launch asks for it, for cards of about as many multiprocessors as an H100 or H200 has.

    Attributes:
        files: Names of the source's files, in this package.
        settings: Macros.
    """

    files: tuple[str, ...]
    settings: dict[str, int]


class Launches(NamedTuple):
    """What a model launches, in the order in which it does first."""

    triton: list[TritonForm]
    cuda: list[CudaForm]


def read_launches(model: str) -> Launches:
    """Return what a model of the catalogue launches; nothing if it is not there."""
    networks = json.loads(FILE.read_text(encoding="utf-8"))
    found = next((network for network in networks if model in network["models"]), {})
    triton = [TritonForm(*form) for form in found.get("triton", [])]
    return Launches(triton, [CudaForm(tuple(files), settings) for files, settings in found.get("cuda", [])])
