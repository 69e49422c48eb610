"""The networks that a server keeps loaded."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mambair_cli.checkpoints import catalog, hub
from mambair_cli.checkpoints.catalog import REAL, is_named
from mambair_cli.checkpoints.select import ChosenModel, check_fit, choose_model, name_model
from mambair_cli.restore.devices import choose_device
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import Precision
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.server.query import RestoreRequest

FALLBACK_SECONDS = 600  # after which the model that could not be had is asked for again


class _Question(NamedTuple):
    """What the choice of a model follows from: one of the catalogue, so that there are not many.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        best: Name of the model that would do it.
        is_named: Whether no other may take its place.
        offline: Whether to fetch none.
    """

    task: catalog.Task
    best: str
    is_named: bool
    offline: bool


class _Key(NamedTuple):
    """What a loaded network is known by."""

    path: Path
    precision: Precision


@dataclass(frozen=True)
class LoadedModel:
    """By what an order is done.

    Attributes:
        restorer: Has the network, the tiles and the seed.
        fingerprint: All that pixels depend on besides the images.
        notice: What the user should know about the choice of the model, if anything.
    """

    restorer: Restorer
    fingerprint: Fingerprint
    notice: str | None = None


class NetworkCache:
    """Finds the network for an order, and keeps those that were used last.

    Args:
        device: "auto", or as torch names it.
        precision: Where an order has none.
        offline: Whether to fetch none.
        most: Networks that are kept.
        notify: Told in a sentence of each that is loaded.

    Attributes:
        device: Of all networks.

    Raises:
        UsageError: There is no such device.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: Precision = "auto",
        offline: bool = False,
        most: int = 4,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.device = choose_device(device)
        self.offline = offline
        self._precision: Precision = precision
        self._most = most
        self._notify = notify
        self._choices: dict[_Question, tuple[ChosenModel, float]] = {}
        self._loaded: OrderedDict[_Key, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, order: RestoreRequest) -> LoadedModel | None:
        """Return by what an order is done, if that is loaded.

        Raises:
            MambairError: There is no such model, or the network does not do it.
        """
        with self._lock:
            choice = self._recall(order)
            if choice is None:
                return None
            key = self._key(choice, order)
            if key not in self._loaded:
                return None
            self._loaded.move_to_end(key)
            loaded = self._loaded[key]
        return self._adapt(loaded, choice, order)

    def choose(self, order: RestoreRequest) -> ChosenModel:
        """Choose the model for an order, and fetch it where it is not on this machine.

        Raises:
            ModelError: There is none.
        """
        with self._lock:
            choice = self._recall(order)
        if choice is None:
            question = self._ask(order)
            choice = choose_model(
                order.task,
                order.scale,
                order.level,
                order.model,
                weights=None,
                device_kind=self.device.type,
                offline=question.offline,
                quiet=True,
            )
            with self._lock:
                self._choices[question] = choice, time.monotonic()
        return choice

    def load(self, order: RestoreRequest, choice: ChosenModel) -> LoadedModel:
        """Return by what an order is done, with the network loaded now if it was not.

        What is done with a device is done by one thread: CUDA's graphs allow nothing beside their recording.

        Raises:
            MambairError: It is no network, or does not do it.
        """
        key = self._key(choice, order)
        with self._lock:
            loaded = self._loaded.get(key)
        if loaded is None:
            restorer = Restorer(
                order.task,
                None if order.model == REAL else order.scale,
                order.level,
                choice.name,
                device=str(self.device),
                precision=key.precision,
                offline=True,
            )
            _ = restorer.computer  # which has all that are made from this one
            loaded = LoadedModel(restorer, Fingerprint.of(restorer))
            self._notify(f"loaded {choice.name} on {self.device}")
        with self._lock:
            self._loaded[key] = loaded
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        return self._adapt(loaded, choice, order)

    def describe(self) -> list[dict[str, Any]]:
        """Say of each model of the catalogue what it is, and where."""
        with self._lock:
            loaded = {one.restorer.model.name for one in self._loaded.values()}
        return [
            {
                "name": model.name,
                "task": model.task,
                "scale": model.scale,
                "level": model.level,
                "loaded": model.name in loaded,
                "here": hub.cached(model) is not None,
            }
            for model in catalog.load_catalog()
        ]

    @property
    def names(self) -> list[str]:
        """Name those that are loaded, the one that was used last at the end."""
        with self._lock:
            return [one.restorer.model.name for one in self._loaded.values()]

    def _ask(self, order: RestoreRequest) -> _Question:
        best = name_model(order.task, order.scale, order.level, order.model, self.device.type)
        return _Question(order.task, best.name, is_named(order.model), self.offline or order.offline)

    def _recall(self, order: RestoreRequest) -> ChosenModel | None:
        """Return what was chosen before, unless it was for want of something better, and long ago."""
        choice, seconds = self._choices.get(self._ask(order), (None, 0.0))
        is_stale = choice and choice.is_fallback and time.monotonic() - seconds > FALLBACK_SECONDS
        return None if is_stale else choice

    def _key(self, choice: ChosenModel, order: RestoreRequest) -> _Key:
        return _Key(choice.path, order.precision or self._precision)

    def _adapt(self, loaded: LoadedModel, choice: ChosenModel, order: RestoreRequest) -> LoadedModel:
        """Set tiles and seed as they were ordered."""
        check_fit(loaded.restorer.info, order.task, None if order.model == REAL else order.scale, choice)
        restorer = loaded.restorer.with_tiles(order.tile, order.overlap, order.seed, order.strength)
        fingerprint = loaded.fingerprint.with_tiles_of(restorer)
        return LoadedModel(restorer, fingerprint, choice.tell(order.offline))
