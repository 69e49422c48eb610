"""What the server says of itself: the OpenAPI document, and a page to read that fetches nothing."""

from html import escape
from importlib.metadata import version
from typing import Any

from mambair_cli.images import WRITABLE_SUFFIXES
from mambair_cli.server.protocol import REPORT_HEADER
from mambair_cli.server.query import OF_TASK, SHARED, TASKS, Parameter

_SUMMARIES = {
    "upscale": "Enlarge an image up to 4 times.",
    "denoise": "Remove noise from an image.",
    "dejpeg": "Remove the artefacts of JPEG compression from an image.",
}
_REFUSALS = {
    "400": "The request makes no sense.",
    "403": "The request is from a page of another site.",
    "404": "There is no such model, or it cannot be had.",
    "408": "The image has not come in time.",
    "413": "The image has more bytes than the server takes.",
    "422": "The image cannot be read, or the result not written.",
    "503": "Too many images wait; Retry-After tells the seconds.",
    "507": "The device's memory does not hold the image.",
}
_STYLE = (
    "body{font:16px/1.5 system-ui;max-width:50em;margin:2em auto}td{padding-right:1em;vertical-align:top}"
)
_HEAD = f"<!doctype html><html lang=en><meta charset=utf-8><title>mambair</title><style>{_STYLE}</style>"
_EXAMPLE = "curl --data-binary @photo.jpg 'http://127.0.0.1:8765/v1/upscale?scale=4' -o photo_x4.jpg"


def describe_api(max_bytes: int) -> dict[str, Any]:
    """Write the OpenAPI document.

    Args:
        max_bytes: Of an image that is sent.
    """
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {status: {"description": text, "content": error} for status, text in _REFUSALS.items()}
    paths: dict[str, Any] = {
        "/v1/health": {"get": _answer("Say that the server is there, and what it has loaded.", "Health")},
        "/v1/models": {"get": _answer("List the models known by name.", "Models")},
    }
    binary = {"schema": {"type": "string", "format": "binary", "maxLength": max_bytes}}
    for task in TASKS:
        parameters = [_describe(parameter) for parameter in (*OF_TASK[task], *SHARED)]
        report = {
            "description": "How the result came about, as JSON.",
            "schema": {"$ref": "#/components/schemas/Report"},
        }
        result = {
            "description": "The result, a file.",
            "headers": {REPORT_HEADER: report},
            "content": {f"image/{format}": {} for format in WRITABLE_SUFFIXES},
        }
        paths[f"/v1/{task}"] = {
            "get": {
                **_answer("Say by what it would be done, and load that.", "Means"),
                "parameters": parameters,
            },
            "post": {
                "summary": _SUMMARIES[task],
                "parameters": parameters,
                "requestBody": {
                    "description": "The image, a file as it is.",
                    "required": True,
                    "content": {"image/*": binary, "application/octet-stream": binary},
                },
                "responses": {"200": result, **refusals},
            },
        }
    text, whole, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    pair = {"type": "array", "items": whole, "minItems": 2, "maxItems": 2}
    schemas = {
        "Error": _object(kind=text, message=text),
        "Health": _object(version=text, device=text, loaded={"type": "array", "items": text}, waiting=whole),
        "Models": {
            "type": "array",
            "items": _object(name=text, task=text, scale=whole, loaded=flag, here=flag),
        },
        "Means": _object(
            version=text, model=text, scale=whole, device=text, computing={"type": "object"}, max_bytes=whole
        ),
        "Report": _object(
            model=text,
            scale=whole,
            computing=text,
            width=whole,
            height=whole,
            reduced=flag,
            input=pair,
            tiles=whole,
            tile=pair,
            overlap=whole,
            batch=whole,
            shrunk=flag,
            warnings={"type": "array", "items": text},
            seconds={"type": "number"},
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mambair",
            "version": version("mambair-cli"),
            "description": "Restores images. What is sent is a file, what comes back is a file; no path of "
            "the server's machine can be named.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def write_page(api: dict[str, Any]) -> str:
    """Turn the OpenAPI document into a page for people."""
    info = api["info"]
    lines = [
        _HEAD,
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}",
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a>. For example:',
        f"<pre>{escape(_EXAMPLE)}</pre>",
    ]
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            lines.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{escape(operation['summary'])}")
            rows = [
                f"<tr><td><code>{parameter['name']}</code><td>{escape(parameter['description'])}"
                f"<td>{escape(_say(parameter['schema']))}"
                for parameter in operation.get("parameters", ())
            ]
            lines.append(f"<table>{''.join(rows)}</table>" if rows else "")
            answers = (
                f"<li>{status}: {escape(answer['description'])}"
                for status, answer in operation["responses"].items()
            )
            lines.append(f"<ul>{''.join(answers)}</ul>")
    return "\n".join(filter(None, lines))


def _answer(summary: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"summary": summary, "responses": {"200": {"description": "It is told.", "content": content}}}


def _describe(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "description": parameter.help,
        "schema": parameter.schema,
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _say(schema: dict[str, Any]) -> str:
    """Put a schema into a line."""
    parts = [", ".join(schema["enum"]) if "enum" in schema else schema["type"]]
    if "minimum" in schema:
        parts.append(f"from {schema['minimum']:g}")
    if "maximum" in schema:
        parts.append(f"to {schema['maximum']:g}")
    if "default" in schema:
        parts.append(f"(default {str(schema['default']).lower()})")
    return " ".join(parts)
