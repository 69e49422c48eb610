"""The command that writes a network as a graph for other software."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mambair_cli.cli.options import AsJson, Offline, Quiet, WeightsForModel, with_options
from mambair_cli.cli.output import print_event, remark, say
from mambair_cli.errors import UsageError
from mambair_cli.runs import parameters
from mambair_cli.system.files import identify_files, refuse_input
from mambair_cli.system.result_folders import require_folder
from mambair_cli.system.signals import cleaning_up
from mambair_cli.system.wording import as_argument, show

if TYPE_CHECKING:
    from mambair_cli.checkpoints.select import ChosenModel
    from mambair_cli.export.graph import TileGraph
    from mambair_cli.export.write import WrittenGraph

TILE = 128  # pixels


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``export``."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write: .onnx, or .pt2 for PyTorch.",
            show_default="MODEL.onnx in this folder",
        ),
    ] = None
    weights: WeightsForModel = None
    tile: Annotated[
        int,
        typer.Option(
            min=parameters.TILE.least,
            metavar="PIXELS",
            help="Side of the input, width and height; the file takes no other size.",
        ),
    ] = TILE
    opset: Annotated[
        int | None,
        typer.Option(
            min=18, max=23, metavar="N", help="Version of ONNX's set of operators.", show_default="20"
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False
    offline: Offline = False
    quiet: Quiet = False
    json: AsJson = False


@with_options
def export(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Name of a model; see `mambair models list`."),
    ] = None,
    *,
    options: ExportOptions,
) -> None:
    """Write a model as a graph that runs without mambair: .onnx for onnxruntime, .pt2 for PyTorch.

    It restores one tile of a fixed size, in float32. The file is run once and compared with the model itself
    before it gets its name. MambaIRv2 is written without its inference noise.

    Example: mambair export tiny-x4 -o tiny-x4.onnx --tile 128
    """
    if (model is None) == (options.weights is None):
        raise UsageError(
            "give a MODEL or --weights, not both; `mambair models list` shows the models"
            if model
            else "no model is named; `mambair models list` shows them, and --weights takes a file"
        )
    output = options.output or Path(f"{model or _stem(options.weights or '')}.onnx")
    _check_name(output, options.overwrite)
    if options.weights is not None:
        refuse_input(output, identify_files([Path(options.weights)]))

    from mambair_cli.export.write import check_target, write_graph

    check_target(output, options.opset)
    graph, chosen = _load(model, options)
    if not options.quiet and graph.net.info.parameters > 500_000:
        say(f"writing {show(output)}: this takes a minute, for large networks some minutes")
    with cleaning_up():
        written = write_graph(graph, output, options.opset, options.overwrite)
    _tell(output, graph, chosen, written, options)


def _stem(weights: str) -> str:
    """Return the name of a file of weights, without folders, address and suffix."""
    from mambair_cli.checkpoints.source import parse_source

    source = parse_source(weights)
    return Path(source.file_name if source else weights).stem


def _check_name(output: Path, overwrite: bool) -> None:
    """Refuse at once, before PyTorch loads, what is no new file."""
    if str(output) == "-":
        raise UsageError("no graph goes to standard output: -o -; name a file, such as -o model.onnx")
    require_folder(output.absolute().parent)
    if output.is_dir():
        raise UsageError(f"cannot write {show(output)}: it is a folder; name a file in it")
    if output.exists() and not overwrite:
        raise UsageError(f"cannot write {show(output)}: it exists already; --overwrite replaces it")


def _load(name: str | None, options: ExportOptions) -> "tuple[TileGraph, ChosenModel]":
    """Fetch and load the model, and gather what the file will say of itself."""
    from importlib.metadata import version

    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.load import load_network
    from mambair_cli.checkpoints.own_models import find_model
    from mambair_cli.checkpoints.select import ChosenModel, choose_file
    from mambair_cli.export.graph import TileGraph, check_tile

    model = None
    if name is None:
        chosen = choose_file(options.weights or "", options.offline, options.quiet)
    else:
        model = find_model(name)
        fetched = hub.fetch(model, offline=options.offline, quiet=options.quiet)
        chosen = ChosenModel(model.name, fetched.path, fetched.notice, fetched.verification.sha256)
    if chosen.notice:
        remark(chosen.notice)
    net = load_network(chosen.path)
    check_tile(net, options.tile)
    facts = {
        "model": chosen.name,
        "task": model.task if model else net.info.task,
        "architecture": net.info.architecture,
        "scale": str(net.info.scale),
        "channels": str(net.info.channels),
        "tile": str(options.tile),
        "tool": "mambair",
        "version": version("mambair-cli"),
        **({"license": model.license} if model and model.license else {}),
        **({"sha256": chosen.sha256} if chosen.sha256 else {}),
    }
    return TileGraph(net, options.tile, facts), chosen


def _tell(
    output: Path,
    graph: "TileGraph",
    chosen: "ChosenModel",
    written: "WrittenGraph",
    options: ExportOptions,
) -> None:
    """Print what was written: its path, and on stderr what it is."""
    if options.json:
        print_event(
            "exported",
            output=as_argument(output),
            model=chosen.name,
            opset=written.opset,
            bytes=written.bytes,
            input_shape=list(graph.input_shape),
            output_shape=list(graph.output_shape),
            difference=written.difference,
        )
        return
    if not options.quiet:
        kind = f"ONNX, opset {written.opset}" if written.opset else "a graph for PyTorch"
        shapes = " → ".join("×".join(map(str, s)) for s in (graph.input_shape, graph.output_shape))
        checked = (
            "not checked, since onnxruntime is not installed"
            if written.difference is None
            else f"differs from {chosen.name} by {written.difference:.1e} at most"
        )
        say(f"{show(output)}: {kind}, {written.bytes / 1e6:.1f} MB, {shapes}, {checked}")
    print(as_argument(output))
