"""The table of parameters: options of the commands and queries of the server are made from it, and agree."""

from contextlib import suppress
from dataclasses import fields
from inspect import signature
from typing import get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mambair_cli.cli import restore
from mambair_cli.cli.options import Options
from mambair_cli.errors import UsageError
from mambair_cli.images import MAX_PIXELS
from mambair_cli.restore.settings import ImageSettings
from mambair_cli.runs import parameters
from mambair_cli.runs.parameters import SHARED, TASK_PARAMETERS
from mambair_cli.server.query import QUERIES, QUERY_PARAMETERS, TASKS, read_request

REPEATED = {"models": "model", "strengths": "strength"}  # fields of options that may be repeated

KINDS = {int: "integer", float: "number", bool: "boolean", str: "string"}


def read_annotation(annotation):
    """Return the kind of an option, as JSON Schema names it, the words it may be, and its typer option."""
    hint, option = get_args(annotation)
    (hint,) = (
        [each for each in get_args(hint) if each is not type(None)]
        if type(None) in get_args(hint)
        else [hint]
    )
    if get_origin(hint) is list:  # the option may be repeated
        (hint,) = get_args(hint)
    words = get_args(hint)
    return KINDS[type(words[0]) if words else hint], words, option


@pytest.mark.parametrize("task", TASKS)
def test_options_of_a_command_and_parameters_of_a_query_agree(task):
    shared = {REPEATED.get(field.name, field.name): (field.type, field.default) for field in fields(Options)}
    own = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in signature(getattr(restore, task)).parameters.items()
        if name not in {*shared, *REPEATED, "inputs", "real", "clean"}
    }
    assert own.keys() == {parameter.name for parameter in TASK_PARAMETERS[task]}
    schemas = QUERIES[task].model_json_schema()["properties"]
    assert [*schemas] == [parameter.name for parameter in (*QUERY_PARAMETERS[task], *SHARED)]
    for parameter in (*TASK_PARAMETERS[task], *SHARED):
        annotation, default = {**shared, **own}[parameter.name]
        kind, words, option = read_annotation(annotation)
        schema = schemas[parameter.name]
        assert (kind, option.help) == (schema["type"], parameter.help)
        assert schema["description"].startswith(parameter.help.replace("--", ""))
        assert parameter.option in (option.default, *option.param_decls)
        assert words in ((), parameter.choices)
        assert schema.get("enum", []) == list(parameter.choices)
        assert (parameter.least, parameter.most) == (schema.get("minimum"), schema.get("maximum"))
        if option.parser is None:
            assert (option.min, option.max) == (parameter.least, parameter.most)
        if parameter.name == "quality":  # a command has to know whether it was given
            assert (default, option.show_default, schema["default"]) == (None, "95", parameter.default)
        elif parameter.name in REPEATED.values():
            assert (default, option.show_default) == (None, str(parameter.default))
            assert getattr(Options(), parameter.name) == schema["default"] == parameter.default
        else:
            assert default == parameter.default
            assert schema["default"] == (None if parameter.name == "precision" else parameter.default)


def test_parameters_are_those_of_the_modules_that_use_them():
    assert parameters.MAX_PIXELS.default == MAX_PIXELS
    for task in TASKS:
        request = read_request(task, [])
        assert request.own == ImageSettings.pick(Options()) == ImageSettings()  # else a default is not sent
        assert request.policy.max_pixels == Options().max_pixels


NAMES = st.sampled_from([parameter.name for parameter in (*SHARED, *TASK_PARAMETERS["upscale"])]) | st.text(
    max_size=5
)


VALUES = (
    st.text(max_size=5) | st.floats().map(str) | st.integers().map(str) | st.sampled_from(["png", "true"])
)


@given(st.sampled_from(TASKS), st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_any_query_is_a_request_or_an_error(task, query):
    with suppress(UsageError):
        request = read_request(task, query)
        assert request.output.quality in range(1, 101)
        assert request.own.tile is None or request.own.tile >= 16
