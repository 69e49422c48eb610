"""HTML documents in one file: their styles, scripts and data inside, and nothing loaded from elsewhere."""

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def write_document(title: str, body: str, styles: list[str], scripts: list[str], data: Any = None) -> str:
    """Write a document that a browser shows from a disk or a mail as from a server.

    Its policy forbids every script but its own, whose hashes it names, and everything from elsewhere.

    Args:
        title: Title, as plain text.
        body: Content, as HTML.
        styles: Names of style sheets of this package.
        scripts: Names of scripts of this package, in their order.
        data: What the scripts read from the element ``data``: anything that JSON has.
    """
    style = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in styles)
    codes = [(FOLDER / name).read_text(encoding="utf-8") for name in scripts]
    allowed = " ".join(f"'{_hash(code)}'" for code in codes) or "'none'"
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src '{_hash(style)}'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    held = "" if data is None else f'<script type="application/json" id="data">{_write_json(data)}</script>'
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            body,
            held,
            *(f"<script>{code}</script>" for code in codes),
            "</body></html>\n",
        ]
    )


def _write_json(data: Any) -> str:
    """Write JSON that cannot end the element that it stands in."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
