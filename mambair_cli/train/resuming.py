"""The state that a run is continued from, and the settings that it was begun with."""

import io
from pathlib import Path
from typing import Any

import torch

from mambair_cli.errors import CheckpointError, MambairError, UsageError
from mambair_cli.system.wording import enumerate_names
from mambair_cli.train.config import TrainConfig, describe_config, find_changes, read_config
from mambair_cli.train.folder import STATE_FILE, WEIGHTS_FILE, refuse_no_run

_KEYS = {"config", "step", "net", "averaged", "optimizer", "generator", "loss_sum", "losses"}


def read_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """Read the state of a run.

    Args:
        folder: The run's folder.
        device: Device for its tensors.

    Raises:
        CheckpointError: It cannot be read, or is damaged.
        UsageError: It is not there.
    """
    refuse_no_run(folder)  # a process on another machine may not see it
    path = folder / STATE_FILE
    try:
        serialized = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}; check its permissions"
        ) from error
    try:
        state = torch.load(io.BytesIO(serialized), map_location=device, weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        raise CheckpointError(
            f"cannot resume from {path}: the file is damaged; begin a run in another folder"
            f"{start_from(folder)}"
        ) from error
    is_state = isinstance(state, dict) and state.keys() >= _KEYS and isinstance(state["config"], dict)
    if not is_state or "device" not in state["config"]:
        raise CheckpointError(
            f"cannot resume from {path}: it is not the state of a run; begin one in another folder"
        )
    return state


def read_begun(folder: Path) -> TrainConfig:
    """Return the settings that the run in a folder was begun with.

    Raises:
        CheckpointError: Its state cannot be read, is damaged, or is that of a version with other settings.
        UsageError: There is no run.
    """
    described = read_state(folder, torch.device("cpu"))["config"]
    try:
        return read_config(described)
    except (LookupError, TypeError, ValueError, MambairError) as error:
        raise CheckpointError(
            f"cannot resume from {folder / STATE_FILE}: its settings are not those of this version; continue "
            f"it with the version that began it, or begin a run in another folder{start_from(folder)}"
        ) from error


def refuse_changes(config: TrainConfig, begun: dict[str, Any]) -> None:
    """Refuse to continue a run with settings that would make it another one.

    Args:
        config: Settings now.
        begun: Settings that the run was begun with, from ``describe_config``.

    Raises:
        UsageError: There are such settings; all are named.
    """
    changes = find_changes(describe_config(config), begun)
    if changes:
        now, then = (enumerate_names(list(each)) for each in zip(*changes, strict=True))
        those, them = ("that", "it") if len(changes) == 1 else ("those", "them")
        raise UsageError(
            f"cannot resume {config.output} with {now}: it was begun with {then}; "
            f"give {those}, or leave {them} out"
        )


def start_from(folder: Path) -> str:
    """Say that a new run can start from the weights of one that cannot be continued."""
    return f", perhaps with --weights {folder / WEIGHTS_FILE}"
