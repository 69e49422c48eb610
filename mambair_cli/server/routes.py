"""Routes: a path with all of its methods, and the parameters that it has."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mambair_cli.server.query import refuse_unknown

Answer = Callable[[Request], Awaitable[Response]]


def make_route(path: str, answers: Mapping[str, Answer], parameters: Collection[str] = ()) -> Route:
    """Return the route of a path; Starlette tells only the methods of the first of several routes.

    Args:
        path: The path.
        answers: What answers each method; that of GET answers HEAD, too.
        parameters: Names that the query may have; another one is refused with :class:`UsageError`.
    """

    async def answer(request: Request) -> Response:
        refuse_unknown(request.url.path, request.query_params, parameters)
        return await answers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, answer, methods=list(answers))
