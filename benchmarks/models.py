"""Time each kind of network of the catalogue on a picture of 256×256, for the catalogue's ``cpu_seconds``.

Networks that are not on this machine are made with fresh weights, in the shapes of the official checkpoints.
The scale changes little: each kind is timed at its largest scale.

python benchmarks/models.py
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch

from mambair_cli.checkpoints.catalog import Model, load_catalog
from mambair_cli.checkpoints.hub import cached
from mambair_cli.checkpoints.load import infer_config, load_network
from mambair_cli.networks import Network, build_network
from mambair_cli.restore.engine import Engine, run_image
from mambair_cli.restore.tile_size import OVERLAP, TILE_SIDE
from mambair_cli.restore.tiling import plan_tiles
from mambair_cli.system.process import settle_process

SIDE = 256  # pixels
SHAPES = Path(__file__).parents[1] / "tests" / "fixtures" / "official_checkpoints.json.gz"


def official_name(model: Model) -> str:
    """Return a model's name in the file of shapes."""
    if model.architecture == "mambair-unet":
        return "v1_unet_real_denoise"
    version = "v2" if model.architecture == "mambairv2" else "v1"
    if model.task != "upscale":
        return f"{version}_{'denoise_color' if model.task == 'denoise' else 'jpeg_gray'}"
    size = {"light": "light", "classic": "classic", "real": "classic"}.get(model.variant)
    return f"{version}_{size or f'classic_{model.variant}'}_x{model.scale}"


def make_network(model: Model, official: dict) -> Network:
    path = cached(model)
    if path is not None:
        return load_network(path)
    shapes = official[official_name(model)]["shapes"]
    config = infer_config({name: tuple(shape) for name, shape in shapes.items()})
    return build_network(config).eval()


def seconds_of(net: Network) -> float:
    """Return the time of the second of two runs, in seconds."""
    engine = Engine(net, torch.device("cpu"))
    image = np.random.default_rng(0).random((SIDE, SIDE, net.info.channels), dtype=np.float32)
    plan = plan_tiles(SIDE, SIDE, TILE_SIDE["cpu"], OVERLAP)
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        run_image(engine, image, plan, 1, seed=0)
        seconds.append(time.perf_counter() - begun)
    return seconds[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="for example tiny or light; by default all")
    arguments = parser.parse_args()
    settle_process()  # memory is kept, as by commands
    official = json.loads(gzip.decompress(SHAPES.read_bytes()))
    kinds = {}
    for model in load_catalog():
        kinds[model.architecture, model.variant, model.task] = model
    for (architecture, variant, task), model in kinds.items():
        if not arguments.kinds or variant in arguments.kinds:
            seconds = seconds_of(make_network(model, official))
            print(f"{architecture:13} {variant:10} {task:8} {seconds:7.2f} s", flush=True)


if __name__ == "__main__":
    main()
