"""What programs put around tensors: dictionaries, and prefixes of their names."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from mambair_cli.errors import CheckpointError

# Keys of the tensors, those of BasicSR's files first; an earlier one has priority.
WRAPPERS = ("params", "params_ema", "state_dict", "model_state_dict", "model", "net", "network")
MOST_LAYERS = 3  # of dictionaries, or of names of holders, around tensors
STATE_KEYS = {"config", "step", "averaged", "optimizer"}  # of the state of a training by mambair

# How the names of a network begin, one for each architecture.
FIRST_NAMES = ("conv_first.", "patch_embed.", "encoder_level1.")


def unwrap(content: object) -> object:
    """Return what lies under the keys of programs that save more than tensors.

    A key is followed only to tensors, and nowhere if weights stand next to it, which belong to the network.

    Raises:
        CheckpointError: It is the state of a training by mambair.
    """
    for layers in reversed(range(MOST_LAYERS)):  # a dictionary may hold itself
        if not isinstance(content, dict):
            break
        if content.keys() >= STATE_KEYS:
            raise CheckpointError(
                "it is the state of a training, with which `mambair train --resume` goes on; "
                "take weights.safetensors in the same folder"
            )
        inner = (content.get(key) for key in WRAPPERS)
        within = next((each for each in inner if _leads_to_tensors(each, layers)), None)
        if within is None or any(map(_is_weight, content.values())):
            break
        content = within
    return content


def _leads_to_tensors(content: object, layers: int) -> bool:
    """Tell whether it is a dictionary with tensors in it, or at most some layers below."""
    if not isinstance(content, dict):
        return False
    if any(isinstance(value, Tensor) for value in content.values()):
        return True
    return layers > 0 and any(_leads_to_tensors(content.get(key), layers - 1) for key in WRAPPERS)


def _is_weight(value: Any) -> bool:
    """Tell whether it is a tensor as networks have them, not a loss or the state of random numbers."""
    return isinstance(value, Tensor) and value.numel() > 1 and value.is_floating_point()


def bare_names(names: Iterable[str]) -> list[str]:
    """Return names as the network itself has them, in the same order.

    ``_orig_mod`` (of ``torch.compile``) is left out anywhere, ``module`` (of DataParallel) at the start, and
    the name under which a program holds the network, such as ``model`` or ``net``, where all names begin with
    it and a known network is behind it.
    """
    bare = [_strip_wrappers(name) for name in names]
    held = bare
    for _ in range(MOST_LAYERS + 1):
        if any(name.startswith(FIRST_NAMES) for name in held):
            return held
        heads = {name.partition(".")[0] for name in held}
        held = [_strip_wrappers(name.partition(".")[2]) for name in held]
        if len(heads) > 1 or not all(held):
            break
    return bare


def _strip_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    others = (place for place, part in enumerate(parts) if part != "module")
    return ".".join(parts[next(others, len(parts) - 1) :])
