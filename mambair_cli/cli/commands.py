"""Commands and groups of them: help without the types of a language, mistakes in words of ours."""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from mambair_cli.cli.mistakes import check_dashes, explain_mistake, explain_unknown_command
from mambair_cli.errors import UsageError
from mambair_cli.system.values import describe_range


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, or say what is wrong with them."""
        rest = _parse(self, super().parse_args, ctx, args)
        if rest and not ctx.resilient_parsing:
            raise UsageError(f"too many arguments: {' '.join(rest)}; see `{ctx.command_path} --help`")
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name the parts of a call."""
        return ["[OPTIONS]", *_name_arguments(self.get_params(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the help says of each parameter."""
        _write_parameters(self.get_params(ctx), formatter)


class CommandGroup(TyperGroup):
    """A group of commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments up to the command, or say what is wrong with them."""
        return _parse(self, super().parse_args, ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find a command, or say what there is in its place."""
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            shown = [name for name, command in self.commands.items() if not command.hidden]
            raise explain_unknown_command(args[0], ctx.command_path, shown)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write what the help says of each parameter, and the commands."""
        _write_parameters(self.get_params(ctx), formatter)
        self.format_commands(ctx, formatter)


def _parse(command: Command | CommandGroup, parse: Any, context: Any, arguments: list[str]) -> list[str]:
    """Have the parser read arguments; what it refuses is said in our words."""
    given = list(arguments)
    parameters = command.get_params(context)
    check_dashes(given, [name for p in parameters if isinstance(p, TyperOption) for name in p.opts])
    context.allow_extra_args = True  # whether there may be any is for the caller to say
    try:
        return parse(context, arguments)
    except typer.TyperException as error:
        values = {}
        if getattr(error, "param", None) is not None:  # the arguments can be told apart, at least
            values, _, _ = command.make_parser(context).parse_args(list(given))
        raise explain_mistake(error, context.command_path, parameters, values, given) from error


def _name_arguments(parameters: Sequence[Any]) -> list[str]:
    arguments = [parameter for parameter in parameters if isinstance(parameter, TyperArgument)]
    return [
        (f"{each.metavar}" if each.required else f"[{each.metavar}]") + ("" if each.nargs == 1 else "...")
        for each in arguments
    ]


def _write_parameters(parameters: Sequence[Any], formatter: Any) -> None:
    shown = [parameter for parameter in parameters if not parameter.hidden]
    for title, kind in (("Arguments", TyperArgument), ("Options", TyperOption)):
        rows = [(_show_name(each), _show_help(each)) for each in shown if isinstance(each, kind)]
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
    if parameter.show_default and default is not None and default is not False:
        values = default if isinstance(default, tuple) else (default,)
        facts.append("default: " + ", ".join(map(str, values)))
    if parameter.max is not None or (parameter.min or 0) > 1:  # that there are no -3 pixels, everybody knows
        facts.append(describe_range(parameter.min, parameter.max))
    if parameter.required:
        facts.append("required")
    text = parameter.help or ""
    return f"{text}  [{'; '.join(facts)}]" if facts else text
