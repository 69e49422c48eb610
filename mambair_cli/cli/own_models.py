"""The commands that change the user's own models."""

import shlex
from typing import Annotated, Literal

import typer

from mambair_cli.cli.options import AsJson, Quiet
from mambair_cli.cli.output import print_json, say


def add_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="New name, for --model.")],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file, hf:OWNER/REPO/FILE[@REVISION] on the Hub, or https://HOST/FILE[#sha256=HASH].",
        ),
    ],
    task: Annotated[
        Literal["upscale", "denoise", "dejpeg"] | None,
        typer.Option(
            help="Task of the model, needed where its tensors do not say it.",
            show_default="read from its tensors",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=255,
            metavar="N",
            help="Noise sigma or JPEG quality that a model for denoise or dejpeg was trained for.",
            show_default="any",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Give a checkpoint a name, which --model takes everywhere.

    It is downloaded and checked now, and its hash is noted, so that the name always means this file. Task and
    scale are read from its tensors. Without --model, your own models are never chosen.

    Example: mambair models add film-x4 hf:somebody/film/film_x4.pth
    """
    from mambair_cli.checkpoints import own_models

    model, fetched = own_models.add_model(name, source, task, level, quiet)
    if not quiet:
        does = f"{model.task} ×{model.scale}" if model.scale > 1 else model.task
        at = f" at {model.level}" if model.level else ""
        say(f"added {name}: {model.architecture} for {does}{at}, sha256 {model.sha256}")
    print_json({"name": name, "path": str(fetched.path)}) if as_json else print(fetched.path)


def remove_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of one of your own models.")],
    quiet: Quiet = False,
) -> None:
    """Forget one of your own models; its file stays.

    Example: mambair models remove film-x4
    """
    from mambair_cli.checkpoints import own_models

    model = own_models.remove_model(name)
    if not quiet:
        say(f"removed {name}; `mambair models add {name} {shlex.quote(model.source or '')}` adds it again")
