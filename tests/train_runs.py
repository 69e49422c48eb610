"""Short runs of training, on a few photographs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from mambair_cli.networks import MambaIRConfig
from mambair_cli.quality.degrade import imresize
from mambair_cli.train import TrainConfig

CPU = torch.device("cpu")
NETWORK = MambaIRConfig(
    embed_dim=30, depths=(1,), d_state=1, d_inner=8, upscale=2, upsampler="pixelshuffledirect"
)
RESTORER = replace(NETWORK, upscale=1, upsampler="")


def save_photographs(folder: Path) -> None:
    """Save three smooth photographs, one of them in a folder inside."""
    (folder / "more").mkdir(parents=True)
    for index, name in enumerate(("a.png", "b.png", "more/c.png")):
        coarse = np.random.default_rng(index).integers(0, 256, (9, 12, 3)).astype(np.float64)
        pixels = np.rint(imresize(coarse, 4).clip(0, 255)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)


def make_config(folder: Path, **changes: Any) -> TrainConfig:
    """Return the settings of a short run on the photographs of a folder.

    Args:
        folder: Folder of ``photos``; the run goes next to them.
        changes: Settings that differ.
    """
    config = TrainConfig(
        task="upscale",
        images=(folder / "photos",),
        output=folder / "run",
        scale=2,
        network=NETWORK,
        crop=8,
        batch=2,
        steps=6,
        learning_rate=2e-3,
        warmup=2,
        ema_decay=0.8,
        precision="fp32",
    )
    return replace(config, **changes)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return what a run has noted of its steps."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def load_weights(path: Path | None) -> dict[str, torch.Tensor]:
    """Return the tensors of the checkpoint that a run has left."""
    assert path is not None
    return load_file(path)
