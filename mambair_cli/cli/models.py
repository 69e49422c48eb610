"""The commands for models that have names: those of the catalogue, and the user's own."""

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mambair_cli.cli.options import AsJson, Quiet
from mambair_cli.cli.output import complain, print_json, say
from mambair_cli.errors import MambairError, ModelError, UsageError

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Model
    from mambair_cli.checkpoints.source import Wanted
    from mambair_cli.networks.count import Count

LARGEST_SIDE = 100_000  # pixels; larger sizes are mistakes
SOURCES = {  # where the expected hash is from
    "catalogue": "as in the catalogue",
    "user": "as when it was added",
    "hub": "as on the Hub",
    "cache": "as when it was downloaded",
    None: "(no hash known to compare with)",
}
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a model; see `mambair models list`.")]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME", help="Names of models; see `mambair models list`.")
]


def list_models(as_json: AsJson = False) -> None:
    """List all models.

    The columns PSNR (published, in dB) and seconds (a picture of 256×256 on two CPU cores) help to choose.
    The word "own" marks models that you added.

    Example: mambair models list --json
    """
    models = _all_models()
    if as_json:
        for model in models:
            print_json(_describe(model))
        return
    rows = [("name", "task", "scale", "level", "size", "PSNR", "seconds", "where")]
    for model in models:
        rows.append(
            (
                model.name,
                model.task,
                f"×{model.scale}" if model.scale > 1 else "",
                str(model.level or ""),
                f"{model.size / 1e6:.1f} MB" if model.size else "",
                next((f"{db:.2f} ({data})" for data, db in model.psnr.items()), ""),
                f"{model.cpu_seconds:.1f}" if model.cpu_seconds else "",
                _tell_place(model),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _all_models() -> tuple["Model", ...]:
    """Return the models of the catalogue and the user's own; a damaged file of the user's is reported."""
    from mambair_cli.checkpoints import catalog, own_models

    try:
        return (*catalog.load_catalog(), *own_models.load_own_models())
    except ModelError as error:
        say(f"warning: {error}")
        return catalog.load_catalog()


def _tell_place(model: "Model") -> str:
    """Say in a word or two where the file of a model is."""
    from mambair_cli.checkpoints import hub

    if model.bundled:
        return "bundled"
    is_here = hub.cached(model) is not None
    if model.source is None:
        return "cached" if is_here else "remote"
    if model.repo or model.url:
        return "own, cached" if is_here else "own, remote"
    return "own, a file" if is_here else "own, missing"


def _find(name: str) -> "Wanted":
    """Return what a name or a source means, where the file alone counts."""
    from mambair_cli.checkpoints.own_models import find_model
    from mambair_cli.checkpoints.source import parse_source

    return parse_source(name) or find_model(name)


def _read_size(text: str) -> tuple[int, int]:
    """Read the size of a picture, such as 1280x720."""
    found = re.fullmatch(r"\s*([0-9]{1,6})\s*[x×]\s*([0-9]{1,6})\s*", text.lower())
    width, height = (int(side) for side in found.groups()) if found else (0, 0)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
        raise UsageError(f"--size is {text or 'empty'}; it must be WIDTHxHEIGHT, such as 1280x720")
    return width, height


def show_model(
    name: Name,
    size: Annotated[
        Any,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            parser=_read_size,
            help="Size of the restored picture for which multiply-adds are counted.",
        ),
    ] = "1280x720",
    as_json: AsJson = False,
) -> None:
    """Show all details of a model, and how much it computes.

    Multiply-adds are counted layer by layer, those of the scan included, also for models that are not
    downloaded. The papers count more for the scan and for norms; both numbers are shown.

    Example: mambair models show tiny-x4 --size 1920x1080
    """
    from mambair_cli.checkpoints.own_models import find_model

    model = find_model(name)
    counted, is_certain = _count(model, *size)
    if as_json:
        print_json({**_describe(model), "multiply_adds": _list_counts(model, counted, is_certain)})
        return
    for key, value in {**_describe(model), **_tell_counts(model, counted, is_certain)}.items():
        if isinstance(value, dict):
            value = ", ".join(f"{db:.2f} dB ({data})" for data, db in value.items())
        elif isinstance(value, list):
            value = " or ".join(value)
        if value not in (None, ""):
            print(f"{key + ':':15}{value}")


def download_models(names: Names, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Download models, for use without a network.

    Sources, as --weights takes them, are downloaded too.

    Example: mambair models download mambairv2-light-x4
    """
    from mambair_cli.checkpoints import hub

    for model in [_find(name) for name in names]:
        fetched = hub.fetch(model, quiet=quiet)
        if fetched.notice and not quiet:
            say(fetched.notice)
        _print_place(model.name, fetched.path, as_json)


def verify_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names of models; by default all on this machine."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check model files: their hashes, and that their networks load.

    Example: mambair models verify tiny-x4
    """
    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.load import load_network
    from mambair_cli.checkpoints.own_models import find_model

    models = [find_model(name) for name in names] if names else _all_models()
    exit_code = 0
    for model in models:
        if not names and hub.cached(model) is None:
            continue
        try:
            fetched = hub.fetch(model, offline=True)  # it removes a wrong file
            info = load_network(fetched.path).info
        except MambairError as error:
            complain(error)
            exit_code = max(exit_code, error.exit_code)
            if as_json:
                print_json({"name": model.name, "ok": False, "message": str(error)})
            continue
        sha256, source = fetched.verification.sha256, fetched.verification.source
        if as_json:
            print_json(
                {
                    "name": model.name,
                    "ok": True,
                    "path": str(fetched.path),
                    "sha256": sha256,
                    "source": source,
                    "architecture": info.architecture,
                    "parameters": info.parameters,
                }
            )
        else:
            print(f"{model.name}: {info.architecture}, sha256 {sha256[:12]}… {SOURCES[source]}")
    if exit_code:
        raise typer.Exit(exit_code)


def print_path(name: Name, as_json: AsJson = False) -> None:
    """Print the path of a model's file on this machine.

    Example: mambair models path tiny-x4
    """
    from mambair_cli.checkpoints import hub

    _print_place(name, hub.fetch(_find(name), offline=True).path, as_json)


def _print_place(name: str, path: Path, as_json: bool) -> None:
    print_json({"name": name, "path": str(path)}) if as_json else print(path)


def _count(model: "Model", width: int, height: int) -> tuple["Count", bool]:
    """Count the parameters of a model, and its multiply-adds for a result of a size, in pixels.

    As in the papers, the input has the whole pixels of the result's size divided by the scale.

    Returns:
        The counts, and whether they are certainly those of the model's file: official files without a known
        number of parameters may hold an earlier form of their network.
    """
    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.load import load_network
    from mambair_cli.checkpoints.official import official_config
    from mambair_cli.networks.count import count

    config, is_certain = official_config(model), model.parameters is not None
    if config is None or not is_certain:
        path = hub.fetch(model).path if model.bundled else hub.cached(model)
        if path is not None:
            config, is_certain = load_network(path).info.config, True
    if config is None:  # a model of the user's, whose file is not here: this raises
        config = load_network(hub.fetch(model, offline=True).path).info.config
    return count(config, max(1, width // model.scale), max(1, height // model.scale)), is_certain


def _list_counts(model: "Model", counted: "Count", is_certain: bool) -> dict[str, Any]:
    """Return counts for JSON."""
    return {
        "width": counted.width * model.scale,
        "height": counted.height * model.scale,
        "total": counted.total,
        "products": counted.products,
        "attention": counted.attention,
        "scan": counted.scan,
        "papers": counted.papers,
        "parameters": counted.parameters,
        "certain": is_certain,
    }


def _tell_counts(model: "Model", counted: "Count", is_certain: bool) -> dict[str, str]:
    """Return counts in words, by the names of their lines."""
    doubt = "" if is_certain else " in the paper; known for sure when the model is downloaded"
    parts = {"attention": counted.attention, "scan": counted.scan}
    shares = ", ".join(f"{_giga(number)} in the {part}" for part, number in parts.items() if number)
    result = f"{counted.width * model.scale}×{counted.height * model.scale}"
    return {
        "parameters": f"{counted.parameters}{doubt}",
        "multiply-adds": f"{_giga(counted.total)} for a result of {result} "
        f"(input {counted.width}×{counted.height}): {shares}",
        "in papers": f"{_giga(counted.papers)}, since they count more for the scan and for norms",
    }


def _giga(number: int) -> str:
    """Write a number of operations, in thousand millions."""
    return f"{number / 1e9:.1f} G" if number >= 1e8 else f"{number / 1e9:.2g} G"


def _describe(model: "Model") -> dict[str, Any]:
    """Return a catalogue entry in types that JSON has."""
    facts = {f.name: getattr(model, f.name) for f in fields(model)}
    return {**facts, "files": list(model.files), "psnr": dict(model.psnr), "where": _tell_place(model)}
