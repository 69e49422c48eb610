"""Keep the web out: a page in the user's browser can send requests to ports of this machine, too."""

import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class OriginCheck:
    """Refuses what was not sent to this machine by its name, and what a page of another site sends.

    A browser names the site of a page in ``Origin`` and the server that it believes to speak to in ``Host``:
    by a name of its own, a hostile site can lead to 127.0.0.1, but then ``Host`` has that name.

    Args:
        app: Gets the rest.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        why = _find_fault(Headers(scope=scope)) if scope["type"] == "http" else None
        if why is None:
            await self._app(scope, receive, send)
        else:
            facts = {"kind": "UsageError", "message": f"{why}; only programs of this machine are served"}
            await JSONResponse(facts, 403)(scope, receive, send)


def _find_fault(headers: Headers) -> str | None:
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _LOCAL.fullmatch(host):
        return f"the server is called {host!r} in the request"
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return f"the request is from a page of {origin!r}"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "the request is from a page of another site"
    return None
