"""Write the graph of a network to a file, and check the file before it gets its name."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from mambair_cli.errors import ModelError, UsageError
from mambair_cli.export.graph import TileGraph, run_pt2, write_pt2
from mambair_cli.export.onnx_model import DEFAULT_OPSET, run_onnx, write_onnx
from mambair_cli.system.files import open_atomic
from mambair_cli.system.new_folders import removing_empty
from mambair_cli.system.result_folders import make_folder
from mambair_cli.system.wording import show

LARGEST_DIFFERENCE = 1e-4  # from the network itself; a pixel's step is 4e-3
OLDEST_TORCH = (2, 13)  # older ones were not tried
INSTALL = 'pip install "mambair-cli[export]"'
ONNX, PT2 = ".onnx", ".pt2"


@dataclass(frozen=True)
class WrittenGraph:
    """A file that was written.

    Attributes:
        bytes: Size of the file.
        opset: Version of ONNX's operators; None for a .pt2 file.
        difference: Largest one from the network, for a random picture; None where onnxruntime is missing.
    """

    bytes: int
    opset: int | None
    difference: float | None


def check_target(path: Path, opset: int | None = None) -> None:
    """Refuse a file that cannot be made here, by its suffix, before a model is loaded.

    Raises:
        UsageError: The suffix is unknown, an opset is given for a .pt2 file, or a package is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in (ONNX, PT2):
        name = show(path.stem or "model")
        raise UsageError(f"no graph is written as {show(path.name)}; {name}{ONNX} or {name}{PT2} would work")
    if suffix == PT2 and opset is not None:
        raise UsageError(f"--opset {opset} is for {ONNX} files, and {show(path.name)} is none; leave it out")
    release = tuple(int(number) for number in torch.__version__.split(".")[:2])
    if release < OLDEST_TORCH:
        raise UsageError(f"PyTorch {torch.__version__} is too old to export; {INSTALL} installs a newer one")
    missing = [name for name in ("onnx", "onnxscript") if suffix == ONNX and find_spec(name) is None]
    if missing:
        raise UsageError(f"cannot export to ONNX: {' and '.join(missing)} not installed; {INSTALL} helps")


def write_graph(
    graph: TileGraph, path: Path, opset: int | None = None, overwrite: bool = False
) -> WrittenGraph:
    """Write a network's graph to an .onnx or .pt2 file, which appears only if it gives the right result.

    Args:
        graph: The network and its tile.
        path: The file; its suffix says what is written.
        opset: Version of ONNX's operators; None for the default.
        overwrite: Whether to replace an existing file.

    Raises:
        ImageError: The file cannot be written.
        ModelError: Its result differs from the network's.
    """
    differences: list[float] = []
    with ExitStack() as stack:
        stack.enter_context(removing_empty([path.absolute().parent]))
        make_folder(path.absolute().parent)
        check = _checker(graph, path, differences)
        file = stack.enter_context(open_atomic(path, overwrite=overwrite, in_new_folder=True, on_end=check))
        if path.suffix.lower() == PT2:
            content, opset = write_pt2(graph), None
        else:
            opset = DEFAULT_OPSET if opset is None else opset
            content = write_onnx(graph, opset)
        file.write(content)
    return WrittenGraph(len(content), opset, differences[0] if differences else None)


def _checker(graph: TileGraph, path: Path, differences: list[float]) -> Callable[[Path], None]:
    """Return what runs a complete file, and notes how far its result is off."""

    def check(temporary: Path) -> None:
        picture = graph.make_picture()
        if path.suffix.lower() == PT2:
            result = run_pt2(temporary.read_bytes(), picture)
        elif find_spec("onnxruntime") is None:
            return
        else:
            result = run_onnx(temporary, picture)
        with torch.no_grad():
            own = graph.net(picture)
        difference = (result - own).abs().max().item() if result.shape == own.shape else float("nan")
        if not difference <= LARGEST_DIFFERENCE:
            raise ModelError(
                f"the exported graph is wrong by {difference:.1e}, and {show(path)} is not written; "
                "please report this, with the name of the model"
            )
        differences.append(difference)

    return check
