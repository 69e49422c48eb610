"""Two models mixed by --mix, in a file that lasts as long as the command."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mambair_cli.cli.options import Options
from mambair_cli.errors import UsageError

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.checkpoints.select import ChosenModel


def settle_mix(asked: "Asked", options: Options, opened: ExitStack) -> Options:
    """Return options whose checkpoint is the mix that was asked for; the same ones where none was.

    Args:
        asked: What is asked for, by either of them.
        options: Options of the command.
        opened: Removes the file of the mix at its end.

    Raises:
        CheckpointError: The two do not mix.
        ModelError: One of them is not available.
        UsageError: They are not two, or mixed by somebody else.
    """
    if options.mix is None:
        return options
    given = f"--mix {options.mix:g}"
    if options.server:
        raise UsageError(
            f"--server {options.server} and {given} exclude each other: the server has its own models; "
            "give one (--server '' overrides MAMBAIR_SERVER)"
        )
    names, files = tuple(options.models or ()), tuple(options.weight_files or ())
    if len(names) + len(files) != 2:
        raise UsageError(
            f"{given} needs two models, not {len(names) + len(files)}: "
            "give --model or --weights twice, or each once"
        )
    from mambair_cli.checkpoints.mixing import mix_checkpoints

    first, second = (
        *(_find(replace(asked, model=name), options) for name in names),
        *(_find(asked.by_file(file), options) for file in files),
    )
    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="mambair-"))
    name = "-".join([Path(first.name).stem, Path(second.name).stem, f"{options.mix:g}"])
    target = Path(folder, f"{name}.safetensors")
    mix_checkpoints(first, second, options.mix, target)
    return replace(options, models=None, weight_files=[str(target)], mix=None)


def _find(asked: "Asked", options: Options) -> "ChosenModel":
    from mambair_cli.checkpoints.catalog import is_named
    from mambair_cli.checkpoints.select import choose_model

    if asked.weights is None and not is_named(asked.model):
        raise UsageError(f"--mix needs two models by name, and --model {asked.model} may be any; name one")
    is_offline = options.offline or options.dry_run
    return choose_model(asked, "cpu", is_offline, options.quiet)
