"""How far images are: sent to those who follow them, as server-sent events."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Literal

from mambair_cli.errors import ServerError, UsageError

PROGRESS_HEADER = "Mambair-Progress"
"""Header of a request: a name, chosen by the client, under which the progress is sent."""

State = Literal["waiting", "loading", "restoring", "saving", "done", "failed"]
_NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")
_MOST = 128  # images that are followed at a time
_ALIVE_SECONDS = 15.0  # after which a line is sent though nothing has changed


@dataclass(frozen=True)
class ProgressEvent:
    """How far an image is.

    Attributes:
        state: What happens to it; "waiting" until its turn comes.
        done: Tiles that are restored.
        total: Tiles of the image, of all frames that are known; 0 before that is known.
        arrived: Whether the server has all of the image; until then, "waiting" means for the image.
    """

    state: State = "waiting"
    done: int = 0
    total: int = 0
    arrived: bool = False


class ImageProgress:
    """The progress of one image; sent from any thread, followed in the thread of the server."""

    def __init__(self) -> None:
        self.last = ProgressEvent()
        self.followers = 0
        self._is_given_up = False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def is_begun(self) -> bool:
        """Whether the image has arrived."""
        return self.last.arrived

    def begin(self) -> None:
        """Say that the image has arrived; in the thread of the server."""
        self._set(ProgressEvent(arrived=True))

    def tell(self, state: State, done: int = 0, total: int = 0) -> None:
        """Say how far the image is."""
        self._loop.call_soon_threadsafe(self._set, ProgressEvent(state, done, total, arrived=True))

    def _set(self, event: ProgressEvent) -> None:
        self.last = event
        self._wake()

    def give_up(self) -> None:
        """End the followers of an image that will not arrive."""
        self._is_given_up = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[str]:
        """Yield the events as lines of an event stream, up to the end of the image."""
        sent = None
        while True:
            changed, event = self._changed, self.last
            if event != sent:
                sent = event
                yield f"data: {json.dumps(asdict(event))}\n\n"
            if event.state in ("done", "failed") or (self._is_given_up and not self.is_begun):
                return
            try:
                await asyncio.wait_for(changed.wait(), _ALIVE_SECONDS)
            except (asyncio.TimeoutError, TimeoutError):  # two before Python 3.11
                yield ": \n\n"
                if not self.is_begun:  # nobody sends the image
                    return


class ProgressBoard:
    """The images that are followed, by the names that clients chose."""

    def __init__(self) -> None:
        self._all: dict[str, ImageProgress] = {}
        self._is_ending = False

    def end_waiting(self) -> None:
        """End the followers of images that have not arrived, now and from now on: the server ends."""
        self._is_ending = True
        for progress in self._all.values():
            progress.give_up()

    def begin(self, name: str | None) -> ImageProgress:
        """Return the progress of an image that arrives; without a name, nobody can follow it.

        Raises:
            UsageError: The name is not allowed, or another image has it.
        """
        progress = ImageProgress() if name is None else self._open(name)
        if progress.is_begun:
            raise UsageError(f"{PROGRESS_HEADER} names another image: {name}; choose a new name")
        progress.begin()
        return progress

    def end(self, name: str | None, state: State) -> None:
        """Tell the end of an image, and forget it."""
        if name is not None and (progress := self._all.pop(name, None)) is not None:
            progress.tell(state)

    async def follow(self, name: str) -> AsyncIterator[str]:
        """Yield the events of an image, which may arrive later.

        Raises:
            UsageError: The name is not allowed.
            ServerError: Too many images are followed.
        """
        progress = self._open(name)
        progress.followers += 1
        if self._is_ending:
            progress.give_up()
        try:
            async for line in progress.follow():
                yield line
        finally:
            progress.followers -= 1
            if not progress.followers and not progress.is_begun and self._all.get(name) is progress:
                del self._all[name]

    def _drop_oldest(self) -> None:
        """Forget the name that has been followed for longest without an image.

        Raises:
            ServerError: All have one.
        """
        name = next((name for name, progress in self._all.items() if not progress.is_begun), None)
        if name is None:
            raise ServerError("too many images are followed; try again later")
        self._all.pop(name).give_up()

    def _open(self, name: str) -> ImageProgress:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{PROGRESS_HEADER} is {name[:80]!r}; 8 to 64 letters, digits, - or _ would work"
            )
        if name not in self._all:
            if len(self._all) >= _MOST:
                self._drop_oldest()
            self._all[name] = ImageProgress()
        return self._all[name]
