"""The class of a Ray worker, which Ray sends to nodes whether or not mambair is installed there."""

from typing import Any


def make_actor_class() -> type:
    """Return the class of Ray's workers.

    It belongs to no module, so Ray sends its code: even where mambair is missing, it can report that.
    """

    class MambairWorker:
        def load(
            self,
            threads: int,
            wanted: str,
            settings: bytes,
            checkpoint: bytes,
            name: str,
            folder: str,
            kinds: list[tuple[Any, int | None, str]],
            *contents: bytes,
        ) -> Any:
            """Load the network; return a message, or a sentence where mambair's messages are unknown."""
            import importlib.metadata
            import pickle

            try:
                from mambair_cli.system.process import settle_process

                found = importlib.metadata.version("mambair-cli")
            except ImportError:
                return f"mambair {wanted} is not installed on a node of the Ray cluster"
            if found != wanted:
                return f"mambair is {found}, not {wanted}, on a node of the Ray cluster"
            settle_process()  # before PyTorch is imported
            from mambair_cli.errors import MambairError
            from mambair_cli.runs.executors.messages import NotLoaded
            from mambair_cli.runs.executors.ray_worker import RayWorker
            from mambair_cli.system.memory import explaining_memory

            try:
                others = [(*kind, content) for kind, content in zip(kinds, contents, strict=True)]
                with explaining_memory("the network of a worker"):
                    self._worker = RayWorker(
                        pickle.loads(settings), checkpoint, name, threads, folder, others
                    )
            except MambairError as error:
                return NotLoaded(error)
            return self._worker.loaded

        def perform(self, job: Any) -> Any:
            return self._worker.perform(job)

        def stop(self) -> None:
            self._worker.close()

    return MambairWorker
