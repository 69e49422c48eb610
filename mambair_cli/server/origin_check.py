"""Refuse web pages: a page in the user's browser can send requests to ports of this machine, too."""

import re
from dataclasses import asdict

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mambair_cli.errors import UsageError
from mambair_cli.server.protocol import report_error

_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class OriginCheck:
    """Refuses requests from pages of other sites, and requests that name another host.

    A browser sends the site of the page in ``Origin`` and the name of the server in ``Host``. A hostile site
    can make its own name lead to 127.0.0.1, but then ``Host`` has that name.

    Args:
        app: Application that gets all other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        why = _find_fault(Headers(scope=scope)) if scope["type"] == "http" else None
        if why is None:
            await self._app(scope, receive, send)
        else:
            error = report_error(UsageError(f"{why}; only programs on this machine are served"))
            await JSONResponse(asdict(error), 403)(scope, receive, send)


def _find_fault(headers: Headers) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _LOCAL.fullmatch(host):
        return f"the request names another host: {host!r}"
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return f"the request is from a page of another site: {origin!r}"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "the request is from a page of another site"
    return None
