"""Turn a run's checkpoint into one for the package: float16, half the size, with metadata on its training.

python training/export_weights.py RUNS/x4/weights.safetensors mambair_cli/weights/tiny_x4.safetensors
"""

import json
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

KEPT_SETTINGS = (
    "task",
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


def export(source: Path, target: Path) -> None:
    with safe_open(source, "pt") as file:
        tensors = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata()
    training = json.loads(metadata["training"])
    ranges = {"denoise": ("sigma",), "dejpeg": ("quality",)}.get(training["task"], ())
    metadata["training"] = json.dumps(
        {"step": training["step"], **{name: training[name] for name in KEPT_SETTINGS + ranges}}
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
