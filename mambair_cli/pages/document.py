"""HTML documents in one file: their styles, scripts and data inside, and nothing loaded from elsewhere."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from mambair_cli.errors import UsageError
from mambair_cli.system.files import FileIds, open_atomic, refuse_input
from mambair_cli.system.result_folders import make_folder, require_folder
from mambair_cli.system.wording import show

FOLDER = Path(__file__).parent
_MARK = '<meta name="generator" content="mambair">'
_MARKED_WITHIN = 20_000  # bytes: the styles come before the pictures' mark
_NEEDS_SCRIPTS = "JavaScript is off, and this page shows its pictures by it: allow it for this file."
_SUFFIXES = (".html", ".htm")
_LONGEST_NAME = 255  # bytes, on most disks
_SURROGATES = re.compile("[\ud800-\udfff]")  # Python's form of bytes that are not UTF-8, as in names


def write_document(title: str, body: str, styles: list[str], scripts: list[str], data: Any = None) -> str:
    """Write a document that a browser shows from a disk or a mail as from a server.

    Its policy forbids every script but its own, whose hashes it names, and everything from elsewhere. What no
    file in UTF-8 can hold, as of names of files in another encoding, is shown as the sign for that.

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
    without = f"<noscript><p>{_NEEDS_SCRIPTS}</p></noscript>" if codes else ""
    held = "" if data is None else f'<script type="application/json" id="data">{_write_json(data)}</script>'
    document = "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            _MARK,
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{style}</style></head><body>",
            body,
            without,
            held,
            *(f"<script>{code}</script>" for code in codes),
            "</body></html>\n",
        ]
    )
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", document)


def name_page(about: str, ending: str = ".html") -> str:
    """Name the file of a page; what would be too long is cut, and a digest tells it from its like.

    Args:
        about: What the page is about: a name without folders.
        ending: What stands after it.
    """
    name = f"{about}{ending}"
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    ending = f"~{hashlib.sha256(os.fsencode(about)).hexdigest()[:8]}{ending}"
    while len(os.fsencode(name := f"{about}{ending}")) > _LONGEST_NAME:
        about = about[:-1]
    return name


def is_page_name(path: Path) -> bool:
    """Tell whether a file has the name of a page."""
    return path.suffix.lower() in _SUFFIXES


def mark_pictures(files: Iterable[Path]) -> str:
    """Return an attribute of an element by which :func:`check_page` knows the pictures of a page again.

    Args:
        files: The pictures, or their folders, in the order of the page.
    """
    paths = b"\0".join(os.fsencode(os.path.realpath(file)) for file in files)
    return f'data-pictures="{hashlib.sha256(paths).hexdigest()}"'


def is_ours(path: Path, mark: str = _MARK) -> bool:
    """Tell whether a file is a page that this module has made, or one with another mark near its begin."""
    try:
        with path.open("rb") as file:
            return mark.encode() in file.read(_MARKED_WITHIN)
    except OSError:
        return False


def check_page(
    path: Path,
    overwrite: bool,
    inputs: FileIds,
    pictures: Iterable[Path] | None = None,
    option: str = "-o",
) -> None:
    """Refuse a page that cannot be written, before anything is computed for it.

    Args:
        path: File of the page.
        overwrite: Whether it may replace any file but the inputs.
        inputs: Files that are read for it, by :func:`identify_files`.
        pictures: What it will show, as for :func:`mark_pictures`: a page of other pictures is kept. None
            where the name of the page is that of its picture.
        option: Option that named it.

    Raises:
        UsageError: There is another file, the name is not that of a page, or no folder can be there.
        ImageError: Its folder, or the one that it would be made in, cannot be written to.
    """
    _check_file(path, overwrite, inputs, pictures)
    require_folder(path.absolute().parent, option)


def _check_file(path: Path, overwrite: bool, inputs: FileIds, pictures: Iterable[Path] | None = None) -> None:
    """Refuse a page in the place of another file; a page that was made by this module may be made anew."""
    if not is_page_name(path):
        raise UsageError(f"a page is an HTML file: {show(path)}; give a name that ends in .html")
    refuse_input(path, inputs)
    if overwrite or not os.path.lexists(path):
        return
    if not is_ours(path):
        raise UsageError(f"cannot write {show(path)}: it exists already; --overwrite replaces it")
    if pictures is not None and not is_ours(path, mark_pictures(pictures)):
        raise UsageError(f"cannot write {show(path)}: it shows other pictures; --overwrite replaces it")


def write_page(path: Path, document: str, overwrite: bool, inputs: FileIds, option: str = "-o") -> None:
    """Write a page, complete or not at all; its folder is made if need be.

    Args:
        path: File of the page.
        document: What :func:`write_document` returned.
        overwrite: Whether to replace a file that is no page of ours, and no input.
        inputs: Files that were read for it, by :func:`identify_files`.
        option: Option that named it.

    Raises:
        UsageError: There is such a file, or the name is not that of a page.
        ImageError: The system refuses.
    """
    _check_file(path, overwrite, inputs)
    make_folder(path.parent, option)
    with open_atomic(path, overwrite=True, in_new_folder=True) as file:
        file.write(document.encode())


def _write_json(data: Any) -> str:
    """Write JSON that cannot end the element that it stands in."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
