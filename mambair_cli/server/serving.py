"""Serve the application: by uvicorn, with an eye on clients that keep it waiting."""

import asyncio
import socket
from typing import Any

import uvicorn

from mambair_cli.server.app import ENDING_SECONDS, App
from mambair_cli.server.connections import Connection, Patience
from mambair_cli.server.log import open_log
from mambair_cli.server.shortage import lacks_files, tell_no_connections

LOOK_SECONDS = 0.5
SHORT_SECONDS = 1.0  # for a request, where connections are too many
ENDING_ANSWER_SECONDS = 30.0  # for a client to take its answer while the server ends
LEAST_QUEUE = 100  # connections that the system holds until they are taken in, where it is asked for no more


class _Server(uvicorn.Server):
    """Closes connections of clients that do nothing, and tells its application first that it ends.

    By itself uvicorn waits for all requests alike, and without end.

    Args:
        config: Settings of the server.
        app: The application.
    """

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self._ending: float | None = None
        self._short_until = 0.0
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and watch the connections up to the end of the loop."""
        asyncio.get_running_loop().set_exception_handler(self._handle_mishap)
        self._watching = asyncio.create_task(self._watch())
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End after the images that have arrived."""
        self._ending = asyncio.get_running_loop().time()
        self._app.begin_to_end()
        await super().shutdown(sockets)

    async def _watch(self) -> None:
        """Look at the connections, again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            patience = self._choose_patience()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.look(patience, self._ending or 0.0)

    def _choose_patience(self) -> Patience:
        if self._ending is not None:
            return Patience(ENDING_SECONDS, ENDING_SECONDS, ENDING_ANSWER_SECONDS)
        idle = self._app.idle_seconds
        is_short = asyncio.get_running_loop().time() < self._short_until
        return Patience(min(SHORT_SECONDS, idle) if is_short else idle, idle, float("inf"))

    def _handle_mishap(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle what goes wrong outside of requests: where connections are too many, close idle ones.

        asyncio tries again to take connections in, each second and as often as its queue is long, and would
        log each of these mishaps with its traceback.
        """
        error = context.get("exception")
        if lacks_files(error):
            self._short_until = loop.time() + 2 * SHORT_SECONDS
            tell_no_connections()
        elif not (self._short_until and self._ending is not None and isinstance(error, ValueError)):
            # Such an error is that of a try while the server ends, at a socket that is closed by now.
            loop.default_exception_handler(context)


def build_server(app: App) -> uvicorn.Server:
    """Return the server of the application; ``run(sockets=[...])`` serves at open sockets."""
    config = uvicorn.Config(
        app.asgi,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=max(LEAST_QUEUE, app.most_waiting),
    )
    open_log()
    return _Server(config, app)
