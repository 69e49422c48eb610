"""MambaIR: blocks of a four-way selective scan and a channel attention block (arXiv:2402.15648)."""

from torch import Tensor, nn

from mambair_cli.networks.config import MambaIRConfig
from mambair_cli.networks.layers import VSSBlock, check_images, four_paths
from mambair_cli.networks.trunk import Group, Trunk
from mambair_cli.system.wanted import check_wanted


class Blocks(nn.Module):
    """The blocks of a group, in order."""

    def __init__(self, config: MambaIRConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VSSBlock(config.embed_dim, config.d_inner, config.d_state, config.cab) for _ in range(depth)
        )

    def forward(self, x: Tensor, paths: Tensor) -> Tensor:
        for block in self.blocks:
            check_wanted()
            x = block(x, paths)
        return x


class MambaIR(Trunk):
    """Super-resolution, denoising and JPEG artefact removal with MambaIR."""

    def __init__(self, config: MambaIRConfig) -> None:
        super().__init__(
            config,
            [
                Group(Blocks(config, depth), config.embed_dim, config.resi_connection)
                for depth in config.depths
            ],
        )

    def forward(self, x: Tensor, seed: int | None = None, origin: Tensor | None = None) -> Tensor:
        """Restore images.

        Args:
            x: Images, (b, ch, h, w) in [0, 1], of any size.
            seed: Ignored; MambaIR draws nothing.
            origin: Ignored, for the same reason.

        Returns:
            (b, ch, s·h, s·w), not clipped.

        Raises:
            TypeError: They are no tensor.
            ValueError: The images or the weights have another shape or type.
            UsageError: TorchScript follows the network.
        """
        check_images(x, self.config.in_chans, next(self.parameters()))
        x = x.permute(0, 2, 3, 1).contiguous()
        y = self.run(x, four_paths(x.shape[1], x.shape[2], x.device))
        return y.permute(0, 3, 1, 2)
