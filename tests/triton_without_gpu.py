"""Compile the Triton kernels of a network for a card that is not there; a program, which a test runs.

It prints the name of each kernel that was compiled.
"""

import sys

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

from mambair_cli.networks import build_network, fuse_network
from mambair_cli.networks.config import MambaIRConfig, MambaIRv2Config


class NoDriver:
    """Answers what Triton asks before it compiles."""

    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def tell(src, **facts):
    sys.stdout.write(f"{src.name}\n")


def compile_only(kernel, *operands, grid, warmup, **options):
    return run(kernel, *operands, grid=grid, warmup=True, **options)


run = JITFunction.run
JITFunction.run = compile_only  # pyright: ignore[reportAttributeAccessIssue]: it has the same arguments
driver.set_active(NoDriver())  # pyright: ignore[reportArgumentType]: it answers what is asked here
knobs.compilation.listener = tell
# What kernels would write are places in other tensors, too; zeros are valid ones.
torch.Tensor.new_empty = torch.Tensor.new_zeros
torch.empty_like = torch.zeros_like
CONFIGS = (
    MambaIRConfig(embed_dim=32, depths=(1,), d_state=4, d_inner=16),
    MambaIRv2Config(32, (1,), (2,), d_state=4, d_inner=64, inner_rank=8, num_tokens=16),
)
with torch.inference_mode():
    for config in CONFIGS:
        fused = fuse_network(build_network(config).eval())
        assert fused is not None
        fused(torch.rand(1, 3, 16, 16))
