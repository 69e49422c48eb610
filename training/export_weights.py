"""Turn a run's checkpoint into one for the package: float16, half the size, with metadata on its training.

python training/export_weights.py RUNS/x4/weights.safetensors mambair_cli/weights/tiny_x4.safetensors

From several checkpoints of one network it takes the mean, and the metadata of the first.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

KEPT_SETTINGS = (
    "task",
    "degradation",
    "steps",
    "batch",
    "crop",
    "learning_rate",
    "weight_decay",
    "ema_decay",
    "loss",
    "shrink",
    "seed",
)


def choose_settings(training: dict[str, Any]) -> list[str]:
    """Return the names of the settings of a run that count for its weights, of those that it has."""
    names = ["step", *KEPT_SETTINGS]
    if training.get("degradation", "papers") == "papers":
        names += {"denoise": ("sigma", "clipped"), "dejpeg": ("quality",)}.get(training["task"], ())
    if training.get("teacher") is not None:
        names.append("teacher_share")
    return [name for name in names if name in training]


def export(sources: list[Path], target: Path) -> None:
    given = [load_file(source) for source in sources]
    means = {name: sum(tensors[name].float() for tensors in given) / len(given) for name in given[0]}
    tensors = {name: tensor.half() for name, tensor in means.items()}
    with safe_open(sources[0], "pt") as file:
        metadata = file.metadata()
    training = json.loads(metadata["training"])
    metadata["training"] = json.dumps({name: training[name] for name in choose_settings(training)})
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata)
    print(f"{target}: {target.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="SOURCE", help="checkpoint of a run")
    parser.add_argument("target", type=Path, metavar="TARGET", help="checkpoint to write")
    arguments = parser.parse_args()
    export(arguments.sources, arguments.target)


if __name__ == "__main__":
    main()
