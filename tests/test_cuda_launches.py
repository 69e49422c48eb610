"""What is launched and recorded on a card, and where, against stand-ins for CUDA and its driver."""

import ctypes
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mambair_cli.kernels import nvrtc
from mambair_cli.kernels.cuda_graph import Replayed
from mambair_cli.train.trainer import Trainer

SECOND = torch.device("cuda", 1)


class Operands(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int),)


def launch(code, launched=()):
    """Launch a kernel by a driver that answers with a code, and tell the launch to a function."""

    def say(code, place):
        place._obj.value = b"said by the driver"

    def begin(*arguments):
        for tell in launched:
            tell(arguments[8].value)
        return code

    driver = SimpleNamespace(cuLaunchKernel=begin, cuGetErrorString=say)
    nvrtc.Kernel(cast(Any, driver), ctypes.c_void_p(1), 32, SECOND).launch((1, 1, 1), Operands())


@pytest.fixture
def current(monkeypatch):
    """Return the list of cards that are the current one, the last of them now; streams have their numbers."""
    cards = [torch.device("cuda", 0)]

    @contextmanager
    def enter(device):
        cards.append(device)
        yield
        cards.pop()

    def current_stream(device=None):
        return SimpleNamespace(cuda_stream=100 + (device or cards[-1]).index)

    monkeypatch.setattr(torch.cuda, "device", enter)
    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    return cards


def test_a_kernel_is_launched_on_its_own_card(current):
    launches = []
    launch(0, [lambda stream: launches.append((current[-1], stream))])
    assert launches == [(SECOND, 101)]


@pytest.mark.usefixtures("current")
def test_memory_that_the_driver_lacks_is_that_of_pytorch():
    with pytest.raises(torch.OutOfMemoryError, match=r"the CUDA driver reports: said by the driver \(2\)"):
        launch(2)
    with pytest.raises(RuntimeError, match=r"said by the driver \(700\)") as caught:
        launch(700)
    assert not isinstance(caught.value, torch.OutOfMemoryError)


@pytest.mark.parametrize("other", [torch.zeros(2, dtype=torch.float64), torch.zeros(2, device="meta")])
def test_a_call_with_another_dtype_or_device_is_of_another_kind(other, monkeypatch):
    recorded = []
    monkeypatch.setattr(Replayed, "_record", lambda replayed, arguments: recorded.append(arguments))
    replayed = Replayed(lambda x: x + 1)
    replayed(torch.zeros(2))
    replayed(other)
    assert not recorded
    replayed(other)
    assert recorded == [(other,)]


def test_both_halves_of_a_training_s_step_are_recorded_on_its_card(monkeypatch):
    streams = []

    class Graph:
        register_generator_state = staticmethod(lambda generator: None)
        pool = staticmethod(lambda: (0, 1))

    @contextmanager
    def graph(of, pool=None, stream=None):
        streams.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device))
    trainer = SimpleNamespace(
        device=SECOND,
        _generator=None,
        _optimizer=SimpleNamespace(zero_grad=lambda set_to_none: None),
        _compute_gradients=lambda: None,
        _update=lambda: None,
    )
    Trainer._record_graphs(cast(Any, trainer))
    first, second = streams
    assert first is second
    assert first.device == SECOND
