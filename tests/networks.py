"""Configurations of small networks, one for each part in which networks differ."""

from dataclasses import replace

from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig, MambaIRv2Config

V1 = MambaIRConfig(embed_dim=30, depths=(1, 2), d_state=3, d_inner=33)
V2 = MambaIRv2Config(
    embed_dim=30,
    depths=(2, 1),
    num_heads=(3, 5),
    d_state=3,
    d_inner=34,
    inner_rank=4,
    num_tokens=5,
    window_size=4,
    convffn_kernel_size=3,
)

CONFIGS: dict[str, Config] = {
    "v1": V1,
    "v1 gray": replace(V1, in_chans=1),
    "v1 3conv": replace(V1, resi_connection="3conv"),
    "v1 light": replace(V1, cab="light", upsampler="pixelshuffledirect", upscale=3),
    "v1 light 2024-03": replace(V1, cab="light-2024-03", upsampler="pixelshuffledirect", upscale=2),
    "v1 light 2024-02": replace(V1, cab="light-2024-02", upsampler="pixelshuffledirect", upscale=4),
    "v1 ×2": replace(V1, upsampler="pixelshuffle", upscale=2),
    "v1 ×3": replace(V1, upsampler="pixelshuffle", upscale=3),
    "v1 ×4": replace(V1, upsampler="pixelshuffle", upscale=4),
    "v1 ×8": replace(V1, upsampler="pixelshuffle", upscale=8),
    "v1 nearest": replace(V1, upsampler="nearest+conv", upscale=4),
    "v1 same size, direct": replace(V1, upsampler="pixelshuffledirect", upscale=1),
    "v2": V2,
    "v2 gray": replace(V2, in_chans=1),
    "v2 3conv": replace(V2, resi_connection="3conv"),
    "v2 light": replace(V2, feed_forward="gated", upsampler="pixelshuffledirect", upscale=2),
    "v2 ×3": replace(V2, upsampler="pixelshuffle", upscale=3),
    "v2 ×4": replace(V2, upsampler="pixelshuffle", upscale=4),
    "v2 nearest": replace(V2, upsampler="nearest+conv", upscale=4),
    "v2 window 16": replace(V2, window_size=16),
    "v2 odd window": replace(V2, window_size=5),
    "U-Net": MambaIRUNetConfig(
        dim=30, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, d_inner=(31, 60, 120, 240), d_state=2
    ),
    "U-Net, uneven": MambaIRUNetConfig(
        dim=32, num_blocks=(2, 1, 2, 1), num_refinement_blocks=2, d_inner=(32, 64, 128, 256), d_state=2
    ),
}
