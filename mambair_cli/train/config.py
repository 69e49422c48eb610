"""The settings of a training run, and the checks on them."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.errors import UsageError

if TYPE_CHECKING:
    from mambair_cli.networks import MambaIRConfig, MambaIRv2Config

Loss = Literal["l1", "charbonnier", "l2", "psnr", "psnr-y"]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        images: Folders of images, searched with all their subfolders.
        output: Folder for the weights, the log and the state to resume from.
        scale: Factor of upscaling; 1 for the other tasks.
        degradation: "papers": bicubic reduction, white noise or JPEG, by the task; "real": the faults of real
            pictures, by the recipe for the scale (``quality/degradation/recipe.py``).
        sigma: Lowest and highest noise sigma, in 8-bit steps; each crop gets a random one.
        quality: Lowest and highest JPEG quality.
        shrink: Sizes at which each image is used; below 1 its grain and its compression fade.
        network: Configuration of a new network; None for the network of ``weights``.
        weights: Checkpoint to start from; with ``network``, only tensors that fit by name and shape.
        validation: Folder of images to measure the PSNR on; None to measure nothing.
        crop: Side of a crop, in pixels of the network's input.
        batch: Crops in a step.
        steps: Number of steps, until the learning rate is zero; a resumed run may have more.
        learning_rate: Peak learning rate.
        warmup: Steps from zero to the peak.
        weight_decay: Weight decay of matrices and kernels; norms, biases and the scan's parameters have none.
        ema_decay: Decay per step of the running average of the weights, which is saved; at first the decay is
            smaller, (1 + step) / (10 + step).
        loss: "l1"; "charbonnier"; "l2", the mean square; "psnr", the mean of the crops' PSNR, so that a crop
            with a small error counts as much as one with a large error; or "psnr-y", the same, of an error of
            which four fifths are luma's, for what is measured and seen on luma.
        clipped: Share of crops whose noise is cut off at black and white and rounded, as in files of 8 bits.
        teacher: Checkpoint of a network for the same task; its results are mixed into the targets.
        teacher_share: Share of these results in the targets, 0 to 1.
        precision: "bf16" for matrix products and convolutions in bfloat16, "fp32", or "auto", which becomes
            one of them: bfloat16 on CUDA, since most CPUs have no instructions for it and take 5 to 20 times
            as long. The scan, the residual stream and the loss are always in float32.
        compile: Whether to fuse the blocks with torch.compile: half a minute at the start, then faster.
        validate_every: Steps between two measurements.
        save_every: Seconds between two saved states.
        seed: Random seed of the run.
        device: Device, as PyTorch names it.
    """

    task: Task
    images: tuple[Path, ...]
    output: Path
    scale: int = 1
    degradation: Literal["papers", "real"] = "papers"
    sigma: tuple[float, float] = (0, 55)
    quality: tuple[int, int] = (10, 95)
    shrink: tuple[float, ...] = (1.0,)
    network: "MambaIRConfig | MambaIRv2Config | None" = None
    weights: Path | None = None
    validation: Path | None = None
    crop: int = 48
    batch: int = 16
    steps: int = 50_000
    learning_rate: float = 8e-4
    warmup: int = 500
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    loss: Loss = "l1"
    clipped: float = 0.0
    teacher: Path | None = None
    teacher_share: float = 0.5
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    validate_every: int = 2000
    save_every: float = 60.0
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.precision == "auto":
            precision = "bf16" if self.device.startswith("cuda") else "fp32"
            object.__setattr__(self, "precision", precision)


MOST_SEED = 2**63 - 1  # PyTorch takes no larger one, and NumPy none below 0

# Largest values of settings that may be 0.
_MOST = {
    "learning_rate": math.inf,
    "warmup": math.inf,
    "weight_decay": math.inf,
    "ema_decay": 1,
    "clipped": 1,
    "teacher_share": 1,
    "seed": MOST_SEED,
}

# Settings that may change when a run is resumed: where files are and how it computes, not the result.
CHANGEABLE = frozenset(
    {"images", "output", "weights", "validation", "compile", "validate_every", "save_every", "device"}
)


def check_config(config: TrainConfig) -> None:
    """Refuse settings that are impossible or contradict each other.

    Raises:
        UsageError: The message names the first of them.
    """
    if (config.task == "upscale") == (config.scale == 1):
        raise UsageError(
            f"cannot train {config.task} at scale {config.scale}: upscaling has a scale from 2 on, "
            "the other tasks have 1"
        )
    if config.network is None and config.weights is None:
        raise UsageError("cannot train: there is neither a network to build nor a checkpoint to start from")
    for name, lowest, highest in (("sigma", 0, 255), ("quality", 1, 100)):
        low, high = getattr(config, name)
        if not lowest <= low <= high <= highest:
            raise UsageError(
                f"cannot train with {name} from {low} to {high}: "
                f"give two numbers from {lowest} to {highest}, the lower one first"
            )
    for name in ("crop", "batch", "steps", "validate_every"):
        if getattr(config, name) < 1:
            raise UsageError(f"cannot train with {name} {getattr(config, name)}: it must be at least 1")
    for name, most in _MOST.items():
        if not 0 <= getattr(config, name) <= most or not math.isfinite(getattr(config, name)):
            wanted = f"it must be from 0 to {most}" if most < math.inf else "it must be 0 or more"
            raise UsageError(f"cannot train with {name} {getattr(config, name)}: {wanted}")
    if config.loss not in get_args(Loss):
        raise UsageError(f"cannot train with the loss {config.loss}: there are {', '.join(get_args(Loss))}")
    if not config.shrink or not all(0 < size <= 1 for size in config.shrink):
        raise UsageError(f"cannot shrink images to {config.shrink}: sizes must be above 0 and at most 1")


_OPTION_NAMES = {"quality": "jpeg_quality"}  # where they differ from the settings


def find_changes(ours: dict[str, Any], begun: dict[str, Any]) -> list[tuple[str, str]]:
    """Find the settings that must not change when a run is resumed, and have changed.

    Args:
        ours: New settings, from :func:`describe_config`.
        begun: Settings that the run was begun with.

    Returns:
        Each such setting, new and old, as options of the command line.
    """
    newer = ("clipped", "teacher", "teacher_share")  # settings that older runs have none of
    begun = {name: getattr(TrainConfig, name) for name in newer} | begun
    network, before = ours.get("network"), begun.get("network")
    changes = []
    if isinstance(network, dict) and isinstance(before, dict):
        ours, begun = {**ours, **network}, {**begun, **before}
    elif (network is None) != (before is None):
        new, given = "a new network", "--weights"
        changes.append((given, new) if network is None else (new, f"{given} {begun.get('weights')}"))
    unseen = {*CHANGEABLE, "network", "upscale"}  # of a network whose scale is a setting, too
    for name, value in begun.items():
        if name == "steps" and ours[name] > value:
            continue  # the run is extended
        if ours.get(name) != value and name not in unseen:
            changes.append((_as_option(name, ours.get(name)), _as_option(name, value)))
    return changes


def _as_option(name: str, value: Any) -> str:
    if value is None:
        return f"no --{_OPTION_NAMES.get(name, name).replace('_', '-')}"
    if name == "depths":
        value = ",".join(map(str, value))
    values = value if isinstance(value, list) else [value]
    shown = [f"{number:g}" if isinstance(number, float) else str(number) for number in values]
    return " ".join([f"--{_OPTION_NAMES.get(name, name).replace('_', '-')}", *shown])


def describe_config(config: TrainConfig) -> dict[str, Any]:
    """Return the settings in types that JSON has."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def read_config(described: dict[str, Any]) -> TrainConfig:
    """Undo :func:`describe_config`; settings that an older run does not know have their defaults.

    Raises:
        LookupError, TypeError, ValueError, MambairError: They are no settings, or not those of this version.
    """
    from mambair_cli.networks.config import Config

    read = {name: described[name] for name in _names(TrainConfig) & described.keys()}
    for name, value in read.items():
        if isinstance(value, list):
            read[name] = tuple(value)
    for name in {"output", "weights", "validation", "teacher"} & read.keys():
        read[name] = None if read[name] is None else Path(read[name])
    read["images"] = tuple(map(Path, read["images"]))
    if (network := read.get("network")) is not None:
        (kind,) = (kind for kind in get_args(Config) if network.keys() <= _names(kind))
        network = {name: tuple(x) if isinstance(x, list) else x for name, x in network.items()}
        read["network"] = kind(**network)
    return TrainConfig(**read)


def _names(kind: Any) -> set[str]:
    """Return the names of the fields of a dataclass."""
    return {field.name for field in dataclasses.fields(kind)}
