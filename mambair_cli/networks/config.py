"""The configurations of the networks: one frozen record per architecture.

A checkpoint does not hold the ratios of the official settings (``expand``, ``mlp_ratio``), only the integer
``int(ratio * channels)``, which is ``d_inner`` here.
"""

from dataclasses import dataclass
from typing import Literal

CabForm = Literal["classic", "light", "light-2024-03", "light-2024-02"]
ResidualConv = Literal["1conv", "3conv"]
NetworkTask = Literal["upscale", "denoise", "dejpeg", "restore"]
Upsampler = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", ""]

ATTENTION_DIVISOR = 30  # channels per hidden channel of a CAB's channel attention
MOST_WINDOW = 64  # pixels a side: an index of it has the fourth power of that; official networks have 16
UPSCALES = {"pixelshuffle": (2, 3, 4, 8), "pixelshuffledirect": range(1, 17), "nearest+conv": (4,), "": (1,)}


def default_dt_rank(channels: int) -> int:
    """Return the rank of the step for a scan over ``channels``: a sixteenth of them, rounded up."""
    return -(-channels // 16)


@dataclass(frozen=True)
class MambaIRConfig:
    """MambaIR (arXiv:2402.15648).

    Attributes:
        embed_dim: Channels between the blocks.
        depths: Blocks in each group.
        d_state: States per channel of the scan.
        d_inner: Channels of the scan, int(expand * embed_dim).
        cab: Form of the channel attention block.
        in_chans: Channels of the image, 1 or 3.
        upscale: Output pixels per input pixel and side; 1 for denoising and JPEG artefacts.
        upsampler: How the image is enlarged; empty if it is not.
        resi_connection: Convolution that ends a group.
        img_range: Factor by which the input is multiplied and the output divided.
    """

    embed_dim: int
    depths: tuple[int, ...]
    d_state: int
    d_inner: int
    cab: CabForm = "classic"
    in_chans: int = 3
    upscale: int = 1
    upsampler: Upsampler = ""
    resi_connection: ResidualConv = "1conv"
    img_range: float = 1.0

    def __post_init__(self) -> None:
        _check_trunk(self)
        _require(
            self.embed_dim >= ATTENTION_DIVISOR, "embed_dim", self.embed_dim, f"{ATTENTION_DIVISOR} or more"
        )


@dataclass(frozen=True)
class MambaIRv2Config:
    """MambaIRv2 (arXiv:2411.15269), and its light form, which differs only in the feed-forward network.

    Attributes:
        embed_dim: Channels between the layers; a multiple of every entry of ``num_heads``.
        depths: Layers in each group.
        num_heads: Attention heads in each group.
        d_state: States per channel of the scan.
        d_inner: Channels of the scan and hidden channels of the feed-forward, int(mlp_ratio * embed_dim).
        inner_rank: Rank of the token dictionary.
        num_tokens: Rows of the token dictionary.
        feed_forward: "conv" (ConvFFN) or "gated" (GatedMLP, the light network).
        window_size: Side of the attention's windows, in pixels; ``MOST_WINDOW`` at most.
        convffn_kernel_size: Side of the feed-forward's depthwise kernel.
        in_chans, upscale, upsampler, resi_connection, img_range: The same as in MambaIRConfig.
    """

    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    d_state: int
    d_inner: int
    inner_rank: int
    num_tokens: int
    feed_forward: Literal["conv", "gated"] = "conv"
    window_size: int = 16
    convffn_kernel_size: int = 5
    in_chans: int = 3
    upscale: int = 1
    upsampler: Upsampler = ""
    resi_connection: ResidualConv = "1conv"
    img_range: float = 1.0

    def __post_init__(self) -> None:
        _check_trunk(self)
        c, d, kernel = self.embed_dim, self.d_inner, self.convffn_kernel_size
        _require(len(self.num_heads) == len(self.depths), "num_heads", self.num_heads, "one for each group")
        for heads in self.num_heads:
            _require(c % heads == 0, "embed_dim", c, f"a multiple of the {heads} heads")
        window = self.window_size
        _require(1 <= window <= MOST_WINDOW, "window_size", window, f"from 1 to {MOST_WINDOW}")
        _require(kernel % 2 == 1, "convffn_kernel_size", kernel, "odd")
        _require(self.feed_forward == "conv" or d % 2 == 0, "d_inner", d, "even, to be gated by half")


@dataclass(frozen=True)
class MambaIRUNetConfig:
    """The U-Net of MambaIR blocks for real denoising.

    Attributes:
        dim: Channels at full resolution; they double at each of three halvings.
        num_blocks: Blocks of the three encoder levels and of the latent one; decoders mirror encoders.
        num_refinement_blocks: Blocks after the last decoder.
        d_inner: Channels of the scan at the widths dim, 2 dim, 4 dim and 8 dim.
        d_state: States per channel of the scan.
        in_chans: Channels of the image.
    """

    dim: int
    num_blocks: tuple[int, int, int, int]
    num_refinement_blocks: int
    d_inner: tuple[int, int, int, int]
    d_state: int = 16
    in_chans: int = 3

    def __post_init__(self) -> None:
        _check_image(self.in_chans)
        fits = self.dim >= ATTENTION_DIVISOR and self.dim % 2 == 0
        _require(fits, "dim", self.dim, f"even, {ATTENTION_DIVISOR} or more")


Config = MambaIRConfig | MambaIRv2Config | MambaIRUNetConfig


@dataclass(frozen=True)
class NetworkInfo:
    """The facts about a network and its purpose.

    Attributes:
        architecture: "MambaIR", "MambaIRv2" or "MambaIRUNet".
        task: "upscale"; "denoise" or "dejpeg" if the file says so; else "restore", since the tensors of a
            network that keeps the size do not tell whether it removes noise or JPEG artefacts.
        scale: Output pixels per input pixel and side.
        channels: Channels of the image, 1 or 3.
        config: Everything that can be read from the tensors.
        parameters: Number of learned values.
    """

    architecture: str
    task: NetworkTask
    scale: int
    channels: int
    config: Config
    parameters: int

    @property
    def draws_noise(self) -> bool:
        """Whether results depend on a seed: MambaIRv2 alone draws noise."""
        return isinstance(self.config, MambaIRv2Config)


def _check_trunk(config: MambaIRConfig | MambaIRv2Config) -> None:
    _check_image(config.in_chans)
    _require(config.embed_dim >= 4, "embed_dim", config.embed_dim, "4 or more")
    upscales = UPSCALES[config.upsampler]
    wanted = f"one of {', '.join(map(str, upscales))} for the upsampler {config.upsampler!r}"
    _require(config.upscale in upscales, "upscale", config.upscale, wanted)


def _check_image(channels: int) -> None:
    _require(channels in (1, 3), "in_chans", channels, "1 (gray) or 3 (colour)")


def _require(fits: bool, name: str, value: object, wanted: str) -> None:
    if not fits:
        raise ValueError(f"{name} must be {wanted}, not {value}")
