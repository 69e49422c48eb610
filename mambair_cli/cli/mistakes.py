"""Explain what is wrong with a command line, and what would work."""

import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperOption

from mambair_cli.cli.other_tools import find_counterpart, find_value
from mambair_cli.errors import UsageError
from mambair_cli.runs.parameters import SHARED
from mambair_cli.system.values import ValueKind, describe_kind, read_value

_QUALITIES = {"--quality": "(of results)", "--jpeg-quality": "(of inputs)"}
_KINDS: Mapping[Any, ValueKind] = {int: "integer", float: "number"}


def check_dashes(arguments: Sequence[str], options: Collection[str], command: str) -> None:
    """Refuse what would be read as other options: several letters after one dash, and -q with a number.

    Args:
        arguments: Arguments of a command.
        options: Names of its options.
        command: Its name, e.g. ``mambair upscale``.

    Raises:
        UsageError: There is such an option.
    """
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == "--":
            return
        name = argument.partition("=")[0]
        if len(name) > 2 and f"-{name}" in options:
            raise UsageError(f"no such option: {name}; did you mean -{name}?")
        is_short = len(name) > 2 and name[0] == "-" != name[1]
        for theirs in (name, f"-{name}") if is_short else ():
            if (hint := find_counterpart(theirs, command, options, arguments)) is not None:
                raise UsageError(f"no such option: {name}; {hint}")
        if argument == "-q" and following.isdecimal() and not os.path.lexists(following):
            qualities = [f"{each} {what}" for each, what in _QUALITIES.items() if each in options]
            if qualities:
                advice = f"it is --quiet; a quality is {' or '.join(qualities)}"
                raise UsageError(f"-q takes no value: {following}; {advice}")


def explain_mistake(
    error: typer.TyperException,
    command: str,
    parameters: Sequence[Any],
    values: Mapping[str, Any],
    arguments: Sequence[str],
) -> UsageError:
    """Explain what the parser has refused.

    Args:
        error: Error of the parser.
        command: Name of the command, e.g. ``mambair upscale``.
        parameters: Parameters of the command.
        values: Texts of the values by names of parameters, as far as they are known.
        arguments: All arguments of the command.
    """
    options = {name: p for p in parameters if isinstance(p, TyperOption) for name in p.opts}
    name = getattr(error, "option_name", None)
    if name is not None and name not in options:
        hint = _explain_unknown(name, command, options, arguments)
        files = [each for each in arguments if each.startswith("-") and each != "-" and os.path.lexists(each)]
        named = "".join(f"; to name the file, write {shlex.quote(f'./{file}')}" for file in files[:1])
        return UsageError(f"no such option: {name}; {hint}{named}")
    if name is not None:
        return UsageError(f"{name} {_describe_values(options[name], command)}")
    parameter = getattr(error, "param", None)
    if parameter is None:
        return UsageError(f"{error.format_message()}; see `{command} --help`")
    if hasattr(error, "param_type"):  # it is missing
        return UsageError(f"{_name(parameter)} is not given; see `{command} --help`")
    return _explain_value(error, parameter, values.get(parameter.name))


def explain_unknown_command(name: str, command: str, commands: Sequence[str]) -> UsageError:
    """Explain that there is no such command, and name similar ones.

    Args:
        name: Name that was given.
        command: Group of commands, e.g. ``mambair``.
        commands: Names of its commands.
    """
    see = f"`{command} --help` lists the commands"
    if command == "mambair" and (os.path.lexists(name) or os.path.splitext(name)[1]):
        return UsageError(
            f"no such command: {name}; to enlarge an image: {command} upscale {shlex.quote(name)} ({see})"
        )
    if command == "mambair" and name.lower() == "preview":
        return UsageError(
            f"no such command: {name}; to restore a part: {command} upscale photo.jpg --preview"
        )
    close = get_close_matches(name.lower(), commands)
    hint = f"did you mean {' or '.join(close)}? {see}" if close else see
    return UsageError(f"no such command: {name}; {hint}")


def _explain_unknown(name: str, command: str, options: Collection[str], arguments: Sequence[str]) -> str:
    close = _find_similar(name, options)
    hint = find_counterpart(name, command, options, arguments)
    if hint is None and close:
        hint = f"did you mean {' or '.join(close)}?"
    if hint is None and " " not in command:
        hint = f"options stand after a command, as in {command} upscale --scale 2"
    return hint or f"see `{command} --help`"


def _find_similar(name: str, options: Collection[str]) -> list[str]:
    """Return the options that a name may have been meant for: it begins them, or has few other letters.

    The two dashes, which all have, count for nothing, and nobody mistakes the first letter.
    """
    word = name.removeprefix("--").lower()
    words = [each[2:] for each in options if each.startswith(f"--{word[:1]}")]
    begun = [each for each in words if len(word) > 2 and each.startswith(word)]
    return [f"--{each}" for each in begun or get_close_matches(word, words, cutoff=0.75)]


def _explain_value(error: typer.TyperException, parameter: Any, value: Any) -> UsageError:
    kind, choices = parameter.type_descriptor.annotation, parameter.type_descriptor.choices
    if get_origin(kind) is list:  # it may be repeated
        (kind,) = get_args(kind)
    name = _name(parameter)
    if isinstance(value, str) and choices:
        if (ours := find_value(name, value)) is not None:
            return UsageError(f"{name} is {value}; here it is {ours}")
        return UsageError(f"{name} is {value}; {', '.join(map(str, choices))} would work")
    texts = value if isinstance(value, list) else [value]  # an option that may be repeated has a list
    if kind in _KINDS and all(isinstance(text, str) for text in texts):
        for text in texts:
            try:
                read_value(name, text, _KINDS[kind], parameter.min, parameter.max)
            except UsageError as ours:
                return ours
        wanted = describe_kind(_KINDS[kind], parameter.min, parameter.max)
        return UsageError(f"{name} is {' and '.join(texts)}; it must be {wanted}")
    if isinstance(value, tuple):
        return UsageError(f"{name} is {' '.join(value)}; it must be {len(value)} numbers")
    message = str(getattr(error, "message", "") or error.format_message())
    return UsageError(f"{name}: {message[:1].lower()}{message[1:].rstrip('.')}")


def _describe_values(option: TyperOption, command: str) -> str:
    if option.is_flag:
        return f"takes no value; see `{command} --help`"
    known = {each.option: each.choices for each in SHARED}  # the parser of --format hides its choices
    choices = option.type_descriptor.choices or known.get(max(option.opts, key=len))
    if choices and option.nargs == 1:
        return f"needs a value; {', '.join(map(str, choices))} would work"
    return f"needs {'a value' if option.nargs == 1 else f'{option.nargs} values'}; see `{command} --help`"


def _name(parameter: Any) -> str:
    """Return the name of a parameter: of an option the longest."""
    return max(parameter.opts, key=len) if isinstance(parameter, TyperOption) else parameter.metavar
