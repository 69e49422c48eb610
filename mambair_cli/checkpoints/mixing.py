"""Mix two checkpoints of one network: a network between them, as strong as the share says."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mambair_cli.checkpoints.load import infer_config, read_tensors
from mambair_cli.checkpoints.select import ChosenModel
from mambair_cli.errors import CheckpointError
from mambair_cli.networks import Config

MOST_DIFFERENCES = 3  # in an error


def mix_checkpoints(first: ChosenModel, second: ChosenModel, share: float, target: Path) -> None:
    """Write a checkpoint whose tensors are ``(1 - share) * first + share * second``.

    Networks that were trained apart have nothing between them: one should have been trained on from the
    other, or both from a third one.

    Args:
        first: A checkpoint.
        second: A checkpoint with tensors of the same shapes.
        share: Share of the second one, 0 to 1; at 0 and 1 the tensors are exactly those of one of them.
        target: File to write, in the format safetensors.

    Raises:
        CheckpointError: One of them cannot be loaded, or their networks differ.
    """
    (ours, metadata), (theirs, other_metadata) = read_tensors(first.path), read_tensors(second.path)
    configs = [
        _infer(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        for path, tensors in ((first.path, ours), (second.path, theirs))
    ]
    cannot = f"cannot mix {first.name} and {second.name}"
    tasks = [each["task"] for each in (metadata, other_metadata) if "task" in each]
    if len(set(tasks)) > 1:
        raise CheckpointError(f"{cannot}: one is for {tasks[0]}, one for {tasks[1]}")
    if configs[0] != configs[1] or ours.keys() != theirs.keys():
        raise CheckpointError(f"{cannot}: {_tell_differences(*configs)}; two of one network mix")
    mixed = {name: _mix(tensor, theirs[name], share) for name, tensor in ours.items()}
    save_file(mixed, target, {"task": tasks[0]} if tasks else None)


def _infer(path: Path, shapes: dict[str, tuple[int, ...]]) -> Config:
    try:
        return infer_config(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {path}: {error}") from error


def _mix(ours: Tensor, theirs: Tensor, share: float) -> Tensor:
    if share in (0, 1) or not ours.is_floating_point():
        return theirs if share == 1 else ours
    return torch.lerp(ours, theirs, share)


def _tell_differences(ours: Config, theirs: Config) -> str:
    """Say in a few words how two networks differ."""
    if type(ours) is not type(theirs):
        kinds = [type(each).__name__.removesuffix("Config") for each in (ours, theirs)]
        return f"their networks are {kinds[0]} and {kinds[1]}"
    pairs = zip(asdict(ours).items(), asdict(theirs).values(), strict=True)
    found = [f"{name} is {_show(one)} and {_show(other)}" for (name, one), other in pairs if one != other]
    return ", ".join(found[:MOST_DIFFERENCES]) or "they have different tensors"


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return "×".join(map(str, value))
    return "none" if value in (None, "") else str(value)
