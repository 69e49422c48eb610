"""MambaIR as spandrel's loader sees it: how its tensors are recognised, and what its networks can do."""

from spandrel import (  # pyright: ignore[reportMissingImports]: optional
    Architecture,
    ImageModelDescriptor,
    ModelTiling,
    SizeRequirements,
    StateDict,
)
from spandrel.util import KeyCondition  # pyright: ignore[reportMissingImports]: optional

from mambair_cli.checkpoints.load import network_of, plain_tensors
from mambair_cli.networks import Config, MambaIRConfig, MambaIRv2Config, Network
from mambair_cli.spandrel_support.calls import Caller


class MambaIRArchitecture(Architecture[Network]):
    """One of the networks of the MambaIR family."""

    def __init__(self, id: str, name: str, keys: tuple[str, ...]) -> None:
        """Take the names by which spandrel knows the network, and tensors that no other network has."""
        super().__init__(id=id, name=name, detect=KeyCondition.has_all(*keys))

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[Network]:
        """Build the network of a checkpoint's tensors.

        Args:
            state_dict: Every tensor of the network, of any floating-point type; they are copied.

        Returns:
            What spandrel's users call, in eval mode, float32, on the CPU, its parameters without gradient.

        Raises:
            CheckpointError: The tensors are not exactly those of one network.
        """
        net = network_of(plain_tensors(state_dict))
        return ImageModelDescriptor(
            net,
            net.state_dict(),
            architecture=self,
            purpose="SR" if net.info.scale > 1 else "Restoration",
            tags=describe(net.info.config),
            supports_half=True,
            supports_bfloat16=False,
            scale=net.info.scale,
            input_channels=net.info.channels,
            output_channels=net.info.channels,
            size_requirements=SizeRequirements(),  # none: networks extend images by themselves
            tiling=ModelTiling.SUPPORTED,
            call_fn=Caller(),
        )


def describe(config: Config) -> list[str]:
    """Return the tags of a network: its form and its size."""
    if isinstance(config, MambaIRConfig):
        form = "" if config.cab == "classic" else config.cab
        return [*filter(None, [form]), f"{config.embed_dim}dim", f"{sum(config.depths)}blocks"]
    if isinstance(config, MambaIRv2Config):
        form = "light" if config.feed_forward == "gated" else ""
        sizes = [f"{config.embed_dim}dim", f"{sum(config.depths)}layers", f"{config.window_size}w"]
        return [*filter(None, [form]), *sizes]
    return [f"{config.dim}dim", f"{sum(config.num_blocks)}blocks"]


_BLOCK = "layers.0.residual_group.blocks.0"
_LAYER = "layers.0.residual_group.layers.0"
ARCHITECTURES = (
    MambaIRArchitecture(
        "MambaIR",
        "MambaIR",
        (
            "conv_first.weight",
            f"{_BLOCK}.self_attention.A_logs",
            f"{_BLOCK}.conv_blk.cab.0.weight",
            f"{_BLOCK}.skip_scale2",
        ),
    ),
    MambaIRArchitecture(
        "MambaIRv2",
        "MambaIRv2",
        (
            "conv_first.weight",
            f"{_LAYER}.win_mhsa.relative_position_bias_table",
            f"{_LAYER}.assm.selectiveScan.A_logs",
            f"{_LAYER}.assm.embeddingB.weight",
        ),
    ),
    MambaIRArchitecture(
        "MambaIRUNet",
        "MambaIR U-Net",
        (
            "patch_embed.proj.weight",
            "encoder_level1.0.self_attention.A_logs",
            "latent.0.self_attention.A_logs",
            "output.weight",
        ),
    ),
)
