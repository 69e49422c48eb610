"""Connections of clients, which are closed where a client neither asks, nor takes what it asked for."""

from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True)
class Patience:
    """For how long the server waits for a client, in seconds.

    Attributes:
        request: For a whole request but its body.
        progress: For a client to take any more of its answer.
        answer: For a client to take all of it.
    """

    request: float
    progress: float
    answer: float


class Connection(H11Protocol):
    """A connection, made by uvicorn; what that does not see of it is noticed by looks.

    uvicorn closes a connection that brings no second request, but waits for the first one, for the rest of
    one, and for the end of an answer without end.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._drained = 0
        self._state: object = None
        self._changed = self._empty = self.loop.time()

    def resume_writing(self) -> None:
        """Count it, since the client has taken something, and go on."""
        self._drained += 1
        super().resume_writing()

    def look(self, patience: Patience, since: float) -> None:
        """Close the connection if its client has kept the server waiting for too long.

        Args:
            patience: How long is too long.
            since: Time of the loop before which no waiting counts.
        """
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        is_answering = self.cycle is not None and not self.cycle.response_complete
        state = (unsent, self._drained, self.cycle, is_answering)
        if state != self._state:
            self._state, self._changed = state, now
        waited = now - max(self._changed, since)
        if not unsent:
            self._empty = now
            if not is_answering and waited >= patience.request:
                self.transport.close()
        elif waited >= patience.progress or now - max(self._empty, since) >= patience.answer:
            self.transport.abort()  # to close it would wait for the client
