"""The networks that a server keeps loaded, those used last."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mambair_cli.checkpoints import catalog, hub, own_models
from mambair_cli.checkpoints.catalog import Asked, is_named
from mambair_cli.checkpoints.select import (
    ChosenModel,
    check_fit,
    choose_model,
    choose_others,
    name_model,
)
from mambair_cli.errors import ModelError
from mambair_cli.restore.devices import choose_device
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import Precision, plain_precision
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.server.limits import MOST_MODELS
from mambair_cli.server.protocol import ModelState
from mambair_cli.server.query import RestoreRequest

FALLBACK_SECONDS = 600  # after which a model that was unavailable is tried again


class _ChoiceKey(NamedTuple):
    """What the choice of a model depends on; there are few, since the best model is one of the catalogue.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        best: Name of the best model for the request.
        sha256: Hash of its file; where the user has exchanged a model, another one. None if unknown.
        is_named: Whether the request names it, so that no other may replace it.
        offline: Whether to download nothing.
    """

    task: catalog.Task
    best: str
    sha256: str | None
    is_named: bool
    offline: bool


class _NetworkKey(NamedTuple):
    """What tells loaded networks apart."""

    path: Path
    sha256: str | None
    precision: Precision


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model, with the settings of a request.

    Attributes:
        restorer: The network with tiles, seed and strength.
        fingerprint: All that pixels depend on except the images.
        notice: What the user should know about the choice of the model, if anything.
    """

    restorer: Restorer
    fingerprint: Fingerprint
    notice: str | None = None


@dataclass
class _Kept:
    """A network that is loaded.

    Attributes:
        alone: It restores every image.
        looking: The same network, where a look at an image may choose another one; None until that is asked.
    """

    alone: LoadedModel
    looking: LoadedModel | None = None


class NetworkCache:
    """Loads the network for a request, and keeps those used last.

    Args:
        device: "auto", or torch's name of a device.
        precision: Precision where a request has none.
        offline: Whether to download nothing.
        most: Largest number of networks to keep.
        notify: Called with a sentence for each network that is loaded.

    Attributes:
        device: Device of all networks.

    Raises:
        UsageError: There is no such device.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: Precision = "auto",
        offline: bool = False,
        most: int = MOST_MODELS,
        notify: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.device = choose_device(device)
        self.offline = offline
        self._precision: Precision = precision
        self._most = most
        self._notify = notify
        self._choices: dict[_ChoiceKey, tuple[ChosenModel, float]] = {}
        self._loaded: OrderedDict[_NetworkKey, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # held for long: while a network is read

    def find(self, request: RestoreRequest) -> LoadedModel | None:
        """Return the model for a request, if it is loaded.

        Raises:
            MambairError: There is no such model, or it does not fit the request.
        """
        with self._lock:
            model = self._recall(request)
            if model is None:
                return None
        kept = self._recall_kept(self._key(model, request))
        loaded = kept and (kept.looking if request.asked.is_open else kept.alone)
        return None if loaded is None else self._adapt(loaded, model, request)

    def choose(self, request: RestoreRequest) -> ChosenModel:
        """Choose the model for a request, and download it if it is not on this machine.

        Raises:
            ModelError: There is no such model.
        """
        with self._lock:
            model = self._recall(request)
        if model is None:
            key = self._choice_key(request)
            if request.asked.is_open:  # downloaded now, and found when they are loaded
                choose_others(request.asked, self.device.type, key.offline, quiet=True)
            model = choose_model(request.asked, self.device.type, key.offline, quiet=True)
            with self._lock:
                self._choices[key] = model, time.monotonic()
        return model

    def load(self, request: RestoreRequest, model: ChosenModel) -> LoadedModel:
        """Return the model for a request, loaded now if it was not.

        All calls must come from one thread: CUDA allows no other work while it records a graph.

        Args:
            request: The request.
            model: The model that :meth:`choose` returned for it.

        Raises:
            MambairError: It is not a network, or does not fit the request.
        """
        key, asked = self._key(model, request), request.asked
        with self._loading:
            kept = self._recall_kept(key)
            if kept is None:
                restorer = Restorer(
                    asked.task,
                    asked.exact_scale,
                    asked.level,
                    model.name,
                    device=str(self.device),
                    precision=key.precision,
                    offline=True,
                )
                _ = restorer.computer  # made once, for all restorers that are copies of this one
                kept = self._keep(key, restorer)
            loaded = kept.alone
            if asked.is_open:
                loaded = kept.looking = kept.looking or self._open(kept.alone.restorer, asked, key.precision)
        return self._adapt(loaded, model, request)

    def _open(self, restorer: Restorer, asked: Asked, precision: Precision) -> LoadedModel:
        """Let a look at each image choose among a network and others."""
        others = choose_others(asked, self.device.type, offline=True, quiet=True)
        # Other networks are those of the cache, too: counted, reported, and dropped like all.
        looking = restorer.sharing(others, partial(self._load_other, asked.task, precision))
        return LoadedModel(looking, Fingerprint.of(looking))

    def _load_other(self, task: catalog.Task, precision: Precision, model: ChosenModel) -> Restorer:
        """Return the restorer for a model that a look has chosen; that of requests that name it, too."""
        key = _NetworkKey(model.path, model.sha256, precision)
        with self._loading:
            kept = self._recall_kept(key)
            if kept is None:  # its computer is made by the thread that computes
                kept = self._keep(
                    key,
                    Restorer(
                        task, model=model.name, device=str(self.device), precision=precision, offline=True
                    ),
                )
        return kept.alone.restorer

    def _recall_kept(self, key: _NetworkKey) -> _Kept | None:
        """Return a network that is loaded, as the one used last."""
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def _keep(self, key: _NetworkKey, restorer: Restorer) -> _Kept:
        """Add a network that was loaded now, and drop those that were not used for longest."""
        kept = _Kept(LoadedModel(restorer, Fingerprint.of(restorer)))
        with self._lock:
            self._loaded[key] = kept
            while len(self._loaded) > self._most:
                self._loaded.popitem(last=False)
        self._notify(f"loaded {restorer.model.name} on {self.device}")
        return kept

    def describe(self) -> list[ModelState]:
        """Describe each model of the catalogue, and the user's own."""
        with self._lock:
            loaded = {one.alone.restorer.model.name for one in self._loaded.values()}
        own: tuple[catalog.Model, ...] = ()
        with suppress(ModelError):  # a request that names one of them tells what is wrong
            own = own_models.load_own_models()
        return [
            ModelState(
                name=model.name,
                task=model.task,
                scale=model.scale,
                level=model.level,
                loaded=model.name in loaded,
                here=hub.cached(model) is not None,
            )
            for model in (*catalog.load_catalog(), *own)
        ]

    @property
    def names(self) -> list[str]:
        """Names of the loaded models, the last used at the end."""
        with self._lock:
            return [one.alone.restorer.model.name for one in self._loaded.values()]

    def _choice_key(self, request: RestoreRequest) -> _ChoiceKey:
        asked, offline = request.asked, self.offline or request.offline
        best = name_model(asked, self.device.type)
        return _ChoiceKey(asked.task, best.name, best.sha256, is_named(asked.model), offline)

    def _recall(self, request: RestoreRequest) -> ChosenModel | None:
        """Return an earlier choice, unless it was a fallback and is old."""
        model, seconds = self._choices.get(self._choice_key(request), (None, 0.0))
        is_stale = model and model.is_fallback and time.monotonic() - seconds > FALLBACK_SECONDS
        return None if is_stale else model

    def _key(self, model: ChosenModel, request: RestoreRequest) -> _NetworkKey:
        precision = plain_precision(request.precision or self._precision, self.device.type)
        return _NetworkKey(model.path, model.sha256, precision)

    def _adapt(self, loaded: LoadedModel, model: ChosenModel, request: RestoreRequest) -> LoadedModel:
        """Apply the settings of a request that need no other network."""
        check_fit(loaded.restorer.info, request.asked, model)
        restorer = loaded.restorer.with_settings(request.own)
        fingerprint = loaded.fingerprint.with_tiles_of(restorer)
        return LoadedModel(restorer, fingerprint, model.tell(request.offline))
