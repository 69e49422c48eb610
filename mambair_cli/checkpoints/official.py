"""The configurations of the official networks, for what can be said of a model before its file is here."""

from dataclasses import replace

from mambair_cli.checkpoints.catalog import Model
from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config
from mambair_cli.networks.config import Upsampler

_MAMBAIR_CLASSIC = MambaIRConfig(embed_dim=180, depths=(6,) * 6, d_state=16, d_inner=360)
_MAMBAIR: dict[str, MambaIRConfig] = {
    "light": MambaIRConfig(embed_dim=60, depths=(6,) * 4, d_state=10, d_inner=72, cab="light"),
    "classic": _MAMBAIR_CLASSIC,
    "real": _MAMBAIR_CLASSIC,
}
_MAMBAIR_V2_BASE = MambaIRv2Config(
    embed_dim=174,
    depths=(6,) * 6,
    num_heads=(6,) * 6,
    d_state=16,
    d_inner=348,
    inner_rank=64,
    num_tokens=128,
)
_MAMBAIR_V2: dict[str, MambaIRv2Config] = {
    "light": MambaIRv2Config(
        embed_dim=48,
        depths=(5,) * 4,
        num_heads=(4,) * 4,
        d_state=8,
        d_inner=48,
        inner_rank=32,
        num_tokens=64,
        feed_forward="gated",
    ),
    "small": replace(_MAMBAIR_V2_BASE, embed_dim=132, depths=(4,) * 6, num_heads=(4,) * 6, d_inner=264),
    "base": _MAMBAIR_V2_BASE,
    "large": replace(_MAMBAIR_V2_BASE, depths=(6,) * 9, num_heads=(6,) * 9),
}
_UNET = MambaIRUNetConfig(
    dim=48, num_blocks=(4, 6, 6, 8), num_refinement_blocks=4, d_inner=(72, 144, 288, 576)
)
_NARROW_D_INNER = 216  # of MambaIR where it keeps the size


def official_config(model: Model) -> Config | None:
    """Return the configuration of an official network by its entry in the catalogue.

    Args:
        model: Entry of the catalogue. Where it has no number of parameters, its file may hold an earlier form
            of the network; this is the form in the paper.

    Returns:
        The configuration; None for a built-in model or the user's own, whose file tells it.
    """
    if model.bundled or model.source:
        return None
    if model.architecture == "mambair-unet":
        return _UNET
    networks = _MAMBAIR_V2 if model.architecture == "mambairv2" else _MAMBAIR
    config = networks[model.variant]
    if model.task != "upscale":
        if isinstance(config, MambaIRConfig):
            config = replace(config, d_inner=_NARROW_D_INNER)
        return replace(config, in_chans=model.channels)
    upsampler: Upsampler = "pixelshuffledirect" if model.variant == "light" else "pixelshuffle"
    return replace(config, in_chans=model.channels, upscale=model.scale, upsampler=upsampler)
