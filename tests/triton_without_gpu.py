"""Compile the Triton kernels of a network for a card that is not there; a program, run by a test.

It prints how many kernels there are, by how many threads they were compiled, and how many were compiled again
by a call afterwards.
"""

import sys
import threading

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from mambair_cli.kernels.compiling import compiling_only
from mambair_cli.networks import MambaIRConfig, build_network, fuse_network


class NoDriver:
    """Answers what Triton asks before it compiles."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


driver.set_active(NoDriver())  # pyright: ignore[reportArgumentType]: it answers what is asked here
compiled = []
knobs.compilation.listener = lambda **facts: compiled.append((facts["src"].name, threading.current_thread()))

net = build_network(MambaIRConfig(embed_dim=32, depths=(1,), d_state=4, d_inner=16)).eval()
fused = fuse_network(net)
assert fused is not None
with torch.inference_mode():
    with compiling_only():
        fused(torch.rand(1, 3, 16, 16))
    first = list(compiled)
    with compiling_only():
        fused(torch.rand(1, 3, 16, 16))
sys.stdout.write(f"{len(first)} {len({thread.name for _, thread in first})} {len(compiled) - len(first)}\n")
