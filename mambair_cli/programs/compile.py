"""Compile what a model launches in several processes, which import no PyTorch; ``ahead`` starts the first.

Each form of a Triton program goes the way of a launch up to the point where it would run, so Triton keeps the
result under the very names by which a launch looks for it. Machine code from CUDA C++ has such names, too.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import driver as nvidia
from triton.runtime import driver

from mambair_cli.programs import cuda_source
from mambair_cli.programs.cuda_source import CompilerError, compile_source, read_source
from mambair_cli.programs.forms import CudaForm, TritonForm, read_launches

THREADS_OF_WARP = 32


class StandIn:
    """What the compiler asks of a tensor: the name of its type, and whether 16 divides its address."""

    def __init__(self, description: str) -> None:
        self.dtype, _, remainder = description.partition("@")
        self._address = int(remainder or 0)

    def data_ptr(self) -> int:
        """Return an address that is as divisible as the tensor's."""
        return self._address


class NoTorch:
    """Hides PyTorch, which Triton 3.6 imports where it can."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse PyTorch.

        Raises:
            ModuleNotFoundError: It is asked for.
        """
        if name == "torch":
            raise ModuleNotFoundError(name)


def compile_launches(model: str, capability: int, processes: int, seconds: int) -> None:
    """Compile for a card what a model launches; write a byte to stdout for each that is done, and one more.

    Args:
        model: Name of the model.
        capability: The card's compute capability, such as 90.
        processes: Number of processes that share the work: this one, and forks of it.
        seconds: Time after which they end in any case.
    """
    with suppress(CompilerError):
        cuda_source.find_torch()  # while it can be found
    sys.meta_path.insert(0, NoTorch())
    target = GPUTarget("cuda", capability, THREADS_OF_WARP)
    ask = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )
    driver.set_active(cast(Any, ask))  # it has all that is asked before a program runs
    # Triton calls the driver by C functions, which the system's compiler compiles.
    jobs: list[Callable[[], object]] = [nvidia.CudaUtils]
    launches = read_launches(model)
    jobs += [partial(compile_cuda, form, divmod(capability, 10)) for form in launches.cuda]
    jobs += [partial(compile_triton, form) for form in reversed(launches.triton)]  # the last takes longest
    turns, end = os.pipe()  # each byte is the number of a job, and one process reads it
    os.write(end, bytes(range(len(jobs))))
    os.close(end)
    for _ in range(1, processes):
        if os.fork() == 0:
            break
    signal.alarm(seconds)
    while turn := os.read(turns, 1):
        jobs[turn[0]]()
        os.write(1, b".")  # an error where nobody listens any more, which ends the process


def compile_cuda(form: CudaForm, capability: tuple[int, int]) -> None:
    """Compile CUDA C++, or find it compiled, where there is a compiler for it."""
    try:
        cuda_source.open_compiler()
    except CompilerError:
        return  # so nothing of it is launched
    compile_source(read_source(*form.files), form.settings, capability)


def compile_triton(form: TritonForm) -> None:
    """Compile a form, or find it compiled."""
    module, _, name = form.program.partition(".")
    program = getattr(import_module(f"{__package__}.{module}"), name)
    operands = [StandIn(x) if isinstance(x, str) else x for x in form.operands]
    compiled = program.warmup(*operands, grid=(1,), **form.options)
    if hasattr(
        nvidia, "make_launcher"
    ):  # where each signature has a launcher in C: until Triton 3.6 at least
        nvidia.CudaLauncher(compiled.src, compiled.metadata)
