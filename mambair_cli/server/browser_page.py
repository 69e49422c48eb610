"""The page for people without a shell: its files, and the policy that keeps it on this machine."""

from importlib.metadata import version
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from mambair_cli.images import FORMATS, READABLE_SUFFIXES
from mambair_cli.images.formats import Format
from mambair_cli.pages.document import FOLDER as PAGES
from mambair_cli.server.routes import Answer

_FOLDER = Path(__file__).parent / "browser"
# Where each file of the page lies, and its type; nothing else is served.
_FILES = {
    "/": (_FOLDER / "index.html", "text/html"),
    "/page/style.css": (_FOLDER / "style.css", "text/css"),
    "/page/app.js": (_FOLDER / "app.js", "text/javascript"),
    "/page/requests.js": (_FOLDER / "requests.js", "text/javascript"),
    "/page/looks.js": (_FOLDER / "looks.js", "text/javascript"),
    "/page/incoming.js": (_FOLDER / "incoming.js", "text/javascript"),
    "/page/zip.js": (_FOLDER / "zip.js", "text/javascript"),
    "/page/icon.svg": (_FOLDER / "icon.svg", "image/svg+xml"),
    "/page/viewer.css": (PAGES / "viewer.css", "text/css"),
    "/page/viewer.js": (PAGES / "viewer.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_answers() -> dict[str, Answer]:
    """Return what answers at each address of the page and its parts."""
    return {address: _answer(*file) for address, file in _FILES.items()}


def _fill() -> dict[str, str]:
    """Return what stands in the place of names in double braces."""
    return {
        "version": version("mambair-cli"),
        "suffixes": " ".join(sorted(READABLE_SUFFIXES)),
        "formats": "".join(_offer(name, row) for name, row in FORMATS.items()),
    }


def _offer(name: str, row: Format) -> str:
    """Return the choice of a format to save as."""
    remark = "" if row.colours is None else f" ({row.colours} colours)"
    return f'<option value="{name}" data-suffix="{row.suffixes[0]}">{row.title}{remark}</option>'


def _answer(path: Path, kind: str) -> Answer:
    """Return an endpoint that answers with a file of the page."""

    async def answer(request: Request) -> Response:
        text = path.read_text(encoding="utf-8")
        for name, value in _fill().items():
            text = text.replace(f"{{{{{name}}}}}", value)
        return Response(text, media_type=kind, headers=_HEADERS)

    return answer
