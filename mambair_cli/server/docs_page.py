"""A page that describes the server to people; it loads nothing from elsewhere."""

from html import escape
from typing import Any

_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui;max-width:50em;margin:1em auto;padding:0 1em;"
    "overflow-wrap:break-word}td{padding-right:1em;vertical-align:top}"
    "pre,div{overflow-x:auto}"
)
_HEAD = (
    "<!doctype html><html lang=en><meta charset=utf-8>"
    '<meta name=viewport content="width=device-width, initial-scale=1">'
    f"<title>mambair</title><style>{_STYLE}</style>"
)
_EXAMPLE = "curl --data-binary @photo.jpg 'http://127.0.0.1:8765/v1/upscale?scale=4' -o photo_x4.jpg"


def write_page(api: dict[str, Any]) -> str:
    """Write the OpenAPI document as a page."""
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
                f"<td>{escape(_show_schema(parameter['schema']))}"
                for parameter in operation.get("parameters", ())
            ]
            lines.append(f"<div><table>{''.join(rows)}</table></div>" if rows else "")
            answers = (
                f"<li>{status}: {escape(answer['description'])}"
                for status, answer in operation["responses"].items()
            )
            lines.append(f"<ul>{''.join(answers)}</ul>")
    return "\n".join(filter(None, lines))


def _show_schema(schema: dict[str, Any]) -> str:
    """Write a schema in one line."""
    parts = [", ".join(schema["enum"]) if "enum" in schema else schema["type"]]
    if "minimum" in schema:
        parts.append(f"from {schema['minimum']:g}")
    if "maximum" in schema:
        parts.append(f"to {schema['maximum']:g}")
    if "default" in schema:
        parts.append(f"(default {str(schema['default']).lower()})")
    return " ".join(parts)
