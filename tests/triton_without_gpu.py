"""Compile the Triton kernels of a network for a card that is not there; a program, which a test runs.

It prints the name of each kernel that was compiled.
"""

import sys
from typing import Any
from unittest.mock import patch

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import JITFunction, driver

from mambair_cli.kernels import ScanParams, triton_scan
from mambair_cli.networks import build_network, fuse_network
from mambair_cli.networks.config import MambaIRConfig, MambaIRv2Config


class NoDriver(DriverBase):
    """Answers what Triton asks before it compiles."""

    @classmethod
    def is_active(cls) -> Any:
        return True

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_active_torch_device(self) -> Any:
        return torch.device("cpu")

    def get_benchmarker(self):
        raise NotImplementedError  # Triton's class asks for the method; nothing is timed here

    def get_current_target(self) -> Any:
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
patch.object(JITFunction, "run", compile_only).start()
driver.set_active(NoDriver())
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

triton_scan.SHORTEST_STRETCH = 16  # four of them
d, n, r, length = 16, 4, 2, 64
dt, B, C = (torch.rand(1, length, 1, size, requires_grad=True) for size in (r, n, n))
params = ScanParams(torch.rand(1, d, r), torch.rand(1, d), -torch.rand(1, d, n), torch.rand(1, d))
path = torch.arange(length, dtype=torch.int32)[None]
triton_scan.selective_scan(torch.rand(1, length, d), dt, B, C, path, params).sum().backward()
