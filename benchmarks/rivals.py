"""Networks of other authors to compare with, from spandrel (the extra ``benchmarks``), with fresh weights.

spandrel imports torchvision for networks that are not used here, and torchvision has no build for every
PyTorch. If it is missing, empty modules take its place.
"""

import sys
import types
from importlib import import_module
from importlib.util import find_spec
from typing import Any

RIVALS = ("swinir-light", "swinir-m", "hat", "rrdb")  # all ×4


def make_rival(name: str) -> Any:
    """Make a network in eval mode, called on (b, 3, h, w)."""
    _import_spandrel()
    if name == "rrdb":
        network = import_module("spandrel.architectures.ESRGAN.__arch.RRDB").RRDBNet
        return network(in_nc=3, out_nc=3, num_filters=64, num_blocks=23, scale=4).eval()
    if name == "hat":
        network = import_module("spandrel.architectures.HAT.__arch.HAT").HAT
        return network(
            img_size=64,
            window_size=16,
            upscale=4,
            embed_dim=180,
            depths=[6] * 6,
            num_heads=[6] * 6,
            mlp_ratio=2,
            compress_ratio=3,
            squeeze_factor=30,
            conv_scale=0.01,
            overlap_ratio=0.5,
            upsampler="pixelshuffle",
            resi_connection="1conv",
        ).eval()
    light = name == "swinir-light"
    groups = 4 if light else 6
    network = import_module("spandrel.architectures.SwinIR.__arch.SwinIR").SwinIR
    return network(
        img_size=64,
        window_size=8,
        upscale=4,
        embed_dim=60 if light else 180,
        depths=[6] * groups,
        num_heads=[6] * groups,
        mlp_ratio=2,
        upsampler="pixelshuffledirect" if light else "pixelshuffle",
        resi_connection="1conv",
    ).eval()


def _import_spandrel() -> None:
    """Import spandrel; the empty modules go again, since other packages look for torchvision, too."""
    missing = "torchvision" not in sys.modules and find_spec("torchvision") is None
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    empty = {name: types.ModuleType(name) for name in names if missing}
    for module in empty.values():
        for function in ("InterpolationMode", "rotate", "normalize"):
            setattr(module, function, None)
    sys.modules.update(empty)
    try:
        import_module("spandrel")
    finally:
        for name in empty:
            del sys.modules[name]
