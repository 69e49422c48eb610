"""Commands and groups of commands: help in plain words, with an example; errors that say what would work."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from mambair_cli.cli.mistakes import check_dashes, explain_mistake, explain_unknown_command
from mambair_cli.errors import ModelError, UsageError
from mambair_cli.system.values import describe_range

_FAR = 2**20  # a limit that nobody meets; it goes without saying, too
_EXAMPLE = "Example: "  # begins the last paragraph of a command's docstring


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, or say what is wrong with them."""
        rest = _parse(self, super().parse_args, ctx, args)
        if rest and not ctx.resilient_parsing:
            raise UsageError(f"too many arguments: {' '.join(rest)}; see `{ctx.command_path} --help`")
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error about models also names the option that would help, if there is one."""
        try:
            return super().invoke(ctx)
        except ModelError as error:
            options = {name for p in self.get_params(ctx) if isinstance(p, TyperOption) for name in p.opts}
            more = [text for option, text in error.remedies.items() if option in options]
            error.args = (", and ".join([str(error), *more]),)
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the parts of a call."""
        return ["[OPTIONS]", *_name_arguments(self.get_params(ctx))]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the command does."""
        _write_text(self.help, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the help says of each parameter."""
        _write_parameters(self.get_params(ctx), formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example, at the end."""
        _write_example(self.help, formatter)


class CommandGroup(TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments up to the command, or say what is wrong with them."""
        return _parse(self, super().parse_args, ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, or say which ones exist."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            shown = [name for name, command in self.commands.items() if not command.hidden]
            raise explain_unknown_command(args[0], ctx.command_path, shown)
        return super().resolve_command(ctx, args)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write what the commands do."""
        _write_text(self.help, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the help says of each parameter, and the commands."""
        _write_parameters(self.get_params(ctx), formatter)
        self.format_commands(ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the epilog and the example, at the end."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write_text(self.epilog)
        _write_example(self.help, formatter)


def _parse(command: Command | CommandGroup, parse: Any, context: Any, arguments: list[str]) -> list[str]:
    """Have the parser read arguments; explain what it refuses."""
    given = list(arguments)
    parameters = command.get_params(context)
    names = [name for p in parameters if isinstance(p, TyperOption) for name in p.opts]
    own = given  # of a group: those before the command, which checks its own
    if isinstance(command, CommandGroup):
        own = list(takewhile(lambda argument: argument.startswith("-"), given))
    check_dashes(own, names, context.command_path)
    context.allow_extra_args = True  # the caller refuses them, with a better message
    try:
        return parse(context, arguments)
    except typer.TyperException as error:
        values = {}
        if getattr(error, "param", None) is not None:  # the arguments can be split, at least
            values, _, _ = command.make_parser(context).parse_args(list(given))
        raise explain_mistake(error, context.command_path, parameters, values, given) from error


def _split_help(text: str | None) -> tuple[str, str]:
    """Split the text of a command into what it does and its example."""
    does, _, example = (text or "").partition(f"\n\n{_EXAMPLE}")
    return does, " ".join(example.split())


def _write_text(text: str | None, formatter: Any) -> None:
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(_split_help(text)[0])


def _write_example(text: str | None, formatter: Any) -> None:
    example = _split_help(text)[1]
    if example:
        with formatter.section("Example"):
            formatter.write(f"{' ' * formatter.current_indent}{example}\n")  # in one line, to be copied


def _name_arguments(parameters: Sequence[Any]) -> list[str]:
    arguments = [parameter for parameter in parameters if isinstance(parameter, TyperArgument)]
    return [
        (f"{each.metavar}" if each.required else f"[{each.metavar}]") + ("" if each.nargs == 1 else "...")
        for each in arguments
    ]


def _write_parameters(parameters: Sequence[Any], formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for each in parameters:
        if not each.hidden:
            usual = "Options" if isinstance(each, TyperOption) else "Arguments"
            sections.setdefault(each.rich_help_panel or usual, []).append(
                (_show_name(each), _show_help(each))
            )
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _show_name(parameter: Any) -> str:
    if isinstance(parameter, TyperArgument):
        return str(parameter.metavar)
    name = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        name += f" / {', '.join(parameter.secondary_opts)}"
    if parameter.is_flag:
        return name
    choices = parameter.type_descriptor.choices
    return f"{name} {parameter.metavar or '|'.join(map(str, choices or ()))}".rstrip()


def _show_help(parameter: Any) -> str:
    facts = []
    if parameter.envvar:
        facts.append(f"environment variable: {parameter.envvar}")
    default = parameter.default
    if isinstance(parameter.show_default, str):
        facts.append(f"default: {parameter.show_default}")
    elif parameter.show_default and default is not None and default is not False:
        values = default if isinstance(default, tuple) else (default,)
        facts.append("default: " + ", ".join(map(str, values)))
    least, most = parameter.min, parameter.max
    most = None if most is not None and most >= _FAR else most
    if most is not None or (least or 0) > 1:  # a limit of 0 or 1 goes without saying
        facts.append(describe_range(least, most))
    if parameter.required:
        facts.append("required")
    text = parameter.help or ""
    return f"{text}  [{'; '.join(facts)}]" if facts else text
