"""Copies of a restorer: shallow ones share its network, and others are made anew from its checkpoint.

The functions are methods of the restorer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.checkpoints.select import ChosenModel
from mambair_cli.restore.settings import RestoreSettings

if TYPE_CHECKING:
    from mambair_cli.restore.restorer import Restorer


def share(self: "Restorer") -> "Restorer":
    """Return another restorer that shares the network; what ``copy.copy`` does."""
    other = object.__new__(type(self))
    vars(other).update(vars(self))
    return other


def reduce(self: "Restorer") -> tuple[Callable[..., "Restorer"], tuple[Any, ...]]:
    """Return what makes such a restorer where its checkpoints are, for ``pickle`` and ``copy.deepcopy``.

    It has a network of its own then, with the weights of the file.
    """
    settings = RestoreSettings(
        Asked(self._task, weights=self.model.path),
        device=str(self.device),
        precision=self.precision,
        own=self.own,
        offline=self.is_offline,
        quiet=True,
        bare=self.bare,
        others=dict(self.others),
    )
    return make_anew, (type(self), settings, self.model, self.notice)


def make_anew(
    kind: "type[Restorer]", settings: RestoreSettings, model: ChosenModel, notice: str | None
) -> "Restorer":
    """Make a restorer whose checkpoint is known by more than its file."""
    restorer = kind.from_settings(settings)
    restorer.model, restorer.notice = model, notice
    return restorer
