"""The OpenAPI document of the server, made from the models of queries and the records of answers."""

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from mambair_cli.images import FORMATS
from mambair_cli.server import protocol
from mambair_cli.server.progress import PROGRESS_HEADER, ProgressEvent
from mambair_cli.server.query import QUERIES

Json = dict[str, Any]

_SUMMARIES = {
    "upscale": "Enlarge an image up to 4 times.",
    "denoise": "Remove noise from an image.",
    "dejpeg": "Remove JPEG compression artefacts from an image.",
}
_REFUSALS = {
    "400": "A parameter is wrong, or the model that it names does something else.",
    "403": "The request is from a page of another site.",
    "404": "The model is unknown or unavailable.",
    "408": "The image did not arrive in time.",
    "413": "The image file is larger than the server accepts.",
    "415": "The body is a form or is compressed; it must be the file itself.",
    "422": "The image cannot be read, or the result cannot be written.",
    "503": "The server has too many images or open files; Retry-After gives the seconds to wait.",
    "507": "The device has too little memory for the image, or the server too little space on its disk.",
}
_RECORDS = (
    protocol.ErrorReport,
    protocol.Health,
    protocol.ModelState,
    protocol.ServerInfo,
    protocol.ResultReport,
    ProgressEvent,
)
_REFERENCE = "#/components/schemas/{model}"


def describe_api(max_bytes: int) -> Json:
    """Write the OpenAPI document.

    Args:
        max_bytes: Largest file that is accepted.
    """
    models = {"type": "array", "items": _refer(protocol.ModelState)}
    paths: Json = {
        "/v1/health": {"get": _describe_get("State of the server.", _refer(protocol.Health))},
        "/v1/models": {"get": _describe_get("Models that requests can name.", models)},
    }
    for task, query in QUERIES.items():
        parameters = _describe_query(query)
        paths[f"/v1/{task}"] = {
            "get": {
                **_describe_get(
                    "Load the model for such images, and describe it.", _refer(protocol.ServerInfo)
                ),
                "parameters": parameters,
            },
            "post": {
                "summary": _SUMMARIES[task],
                "parameters": parameters,
                **_describe_exchange(max_bytes, _describe_result()),
            },
        }
    paths |= _describe_looks(max_bytes)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mambair",
            "version": version("mambair-cli"),
            "description": "Restores images. Requests and results are image files; a request cannot name a "
            "path on the server's machine.",
        },
        "paths": paths,
        "components": {"schemas": _describe_records()},
    }


def _describe_looks(max_bytes: int) -> Json:
    """Describe the requests about an image that restore nothing."""
    facts = {"application/json": {"schema": {"type": "object"}}}
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "description": f"What the client sent as {PROGRESS_HEADER}.",
        "schema": {"type": "string"},
    }
    follow = _describe_get("Follow an image that is restored: server-sent events, up to its end.", {})
    event = {"text/event-stream": {"schema": _refer(ProgressEvent)}}
    follow["responses"]["200"]["content"] = event
    return {
        "/v1/inspect": {
            "post": {
                "summary": "Tell what an image is and what it needs, as mambair inspect does.",
                **_describe_exchange(max_bytes, {"description": "The facts.", "content": facts}),
            }
        },
        "/v1/show": {
            "post": {
                "summary": "Convert an image to one that every browser shows: WebP, 8 bits, sRGB.",
                **_describe_exchange(max_bytes, {"description": "The image.", "content": {"image/webp": {}}}),
            }
        },
        "/v1/progress/{name}": {"get": {**follow, "parameters": [name]}},
    }


def _describe_query(query: type[BaseModel]) -> list[Json]:
    parameters = []
    for name, schema in query.model_json_schema()["properties"].items():
        description = schema.pop("description")
        kept = {key: value for key, value in schema.items() if key != "title" and value is not None}
        parameters.append({"name": name, "in": "query", "description": description, "schema": kept})
    return parameters


def _describe_get(summary: str, schema: Json) -> Json:
    content = {"application/json": {"schema": schema}}
    return {"summary": summary, "responses": {"200": {"description": "OK", "content": content}}}


def _describe_result() -> Json:
    """Describe the result of restoring an image."""
    report = {"description": "How the result was made, as JSON.", "schema": _refer(protocol.ResultReport)}
    return {
        "description": "The result, an image file.",
        "headers": {protocol.REPORT_HEADER: report},
        "content": {f"image/{format}": {} for format in FORMATS},
    }


def _describe_exchange(max_bytes: int, result: Json) -> Json:
    """Describe the image that is sent, the answer and the errors."""
    image = {"schema": {"type": "string", "format": "binary", "maxLength": max_bytes}}
    error = {"application/json": {"schema": _refer(protocol.ErrorReport)}}
    refusals = {status: {"description": text, "content": error} for status, text in _REFUSALS.items()}
    body = {
        "description": "The image file.",
        "required": True,
        "content": {"image/*": image, "application/octet-stream": image},
    }
    return {"requestBody": body, "responses": {"200": result, **refusals}}


def _describe_records() -> Json:
    adapters: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (record.__name__, "serialization", TypeAdapter(record)) for record in _RECORDS
    ]
    schemas = TypeAdapter.json_schemas(adapters, ref_template=_REFERENCE)[1]["$defs"]
    for schema in schemas.values():
        schema["description"] = schema.get("description", "").partition("\n")[0]  # line 1 of a docstring
    return schemas


def _refer(record: type) -> Json:
    return {"$ref": _REFERENCE.format(model=record.__name__)}
