"""The command line: parse, call, print; ``main`` maps errors to exit codes.

stdout is data (the paths that were written, or JSON lines), stderr is talk.
"""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mambair_cli.cli import models, own_models
from mambair_cli.cli.commands import Command, CommandGroup
from mambair_cli.cli.compare import compare
from mambair_cli.cli.doctor import doctor
from mambair_cli.cli.evaluate import evaluate
from mambair_cli.cli.export import export
from mambair_cli.cli.inspect import inspect
from mambair_cli.cli.options import AsJson
from mambair_cli.cli.output import complain, hush, remark, say, show_traceback
from mambair_cli.cli.restore import dejpeg, denoise, upscale
from mambair_cli.cli.serve import serve
from mambair_cli.cli.streams import ReaderGoneError, settle_streams
from mambair_cli.cli.train import train
from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system import signals
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.notices import telling
from mambair_cli.system.process import settle_process

app = typer.Typer(
    name="mambair",
    cls=CommandGroup,
    help="Restore images with MambaIR networks: upscale, denoise, remove JPEG artefacts.\n\n"
    "Example: mambair upscale photo.jpg",
    epilog="Exit codes: 0 success; 1 some images failed; 2 wrong usage; 3 no model or no server; "
    "4 out of memory; 130 interrupted.",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(
    cls=CommandGroup,
    help="List, download, check and add the models known by name.\n\nExample: mambair models list",
    invoke_without_command=True,
    rich_markup_mode=None,
)
for command in (upscale, denoise, dejpeg, inspect, compare, evaluate, train, export, serve, doctor):
    app.command(cls=Command)(command)
app.add_typer(models_app, name="models")
for name, command in (
    ("list", models.list_models),
    ("show", models.show_model),
    ("download", models.download_models),
    ("verify", models.verify_models),
    ("path", models.print_path),
    ("add", own_models.add_model),
    ("remove", own_models.remove_model),
):
    models_app.command(name, cls=Command)(command)


@app.callback()
def _global_options(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    if show_version:
        from importlib.metadata import version  # imported here: it takes a tenth of the time of --help

        print(f"mambair {version('mambair-cli')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(UsageError.exit_code)


@app.command("help", cls=Command, hidden=True)
def _show_help(
    names: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Command to explain.")] = None,
) -> None:
    """Show the help of a command.

    Example: mambair help upscale
    """
    app([*(names or []), "--help"], prog_name="mambair", standalone_mode=False)


@models_app.callback()
def _list_models(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        models.list_models(as_json)
    elif as_json:
        meant = f"mambair models {context.invoked_subcommand} --json"
        raise UsageError(f"--json stands before {context.invoked_subcommand}; write it after: {meant}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0 all done; 1 some input failed; 2 usage; 3 model, download or server; 4 out of memory; 130 interrupted.

    Args:
        arguments: Those of the command line by default.
    """
    settle_streams()
    settle_process()
    try:
        hush(False)
        with telling(remark), explaining_memory("this command"):
            exit_code = app(arguments, prog_name="mambair", standalone_mode=False) or 0
        sys.stdout.flush()
    except MambairError as error:
        complain(error)
        return error.exit_code
    except typer.TyperException as error:
        show_traceback(error)
        message = " ".join(error.format_message().split())  # its lists have a line each
        say(f"error: {message}")
        return error.exit_code
    except ReaderGoneError:
        return 1
    if exit_code == signals.EXIT_INTERRUPTED:
        signals.tell()
    return exit_code
