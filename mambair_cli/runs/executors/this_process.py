"""The executor of a run on one device: this process."""

from collections.abc import Generator, Iterable

from mambair_cli.restore.engine import OnTiles
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.executors.protocol import describe_restorer
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.pipeline import OnStart, Pipeline
from mambair_cli.runs.run import IsStopped, PreparedJob


class ThisProcess:
    """Does jobs in this process.

    Args:
        restorer: The restorer, with the network.
        on_start: Called with each image whose turn has come.
        on_tiles: Called with the progress within an image.

    Attributes:
        info: The model, and the device.
    """

    def __init__(
        self,
        restorer: Restorer,
        on_start: OnStart = lambda image: None,
        on_tiles: OnTiles | None = None,
    ) -> None:
        self.info = describe_restorer(restorer, str(restorer.device))
        self._restorer, self._on_start, self._on_tiles = restorer, on_start, on_tiles

    def perform(self, jobs: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        """Do jobs one after the other, and yield the outcome of each, in their order."""
        return Pipeline(jobs, is_stopped, self._restorer, self._on_start, self._on_tiles).outcomes()

    def close(self) -> None:
        """Do nothing: the generator of outcomes undoes what is not finished."""
