"""The networks against tensors recorded from the official code."""

from typing import get_args

import pytest
import torch
from recordings import FIXTURES, Recording, read_recording
from repository import SHARED

from mambair_cli import kernels
from mambair_cli.checkpoints.load import infer_config
from mambair_cli.networks import MambaIRv2, Network, build_network

CPU_BACKENDS = [backend for backend in get_args(kernels.Backend) if backend not in kernels.NEED_GPU]
RECORDED = sorted(FIXTURES.glob("*.safetensors"))
RECORDED_SHARED = sorted(SHARED.glob("parity/*.safetensors"))


def build(recording: Recording) -> Network:
    net = build_network(infer_config({name: tuple(t.shape) for name, t in recording.weights.items()}))
    net.load_state_dict(recording.weights)
    return net.eval()


def largest_error(net: Network, recording: Recording, device: str = "cpu") -> float:
    dtype = next(net.parameters()).dtype
    errors = []
    for x, wanted, noise in recording.runs:
        x = x.to(device, dtype)
        if noise:
            assert isinstance(net, MambaIRv2)
            y = net(x, draw_noise=lambda layer, noise=noise: noise[layer].to(device))
        else:
            y = net(x)
        assert y.shape == wanted.shape
        assert y.dtype == dtype
        errors.append((y.detach().cpu() - wanted).abs().max().item())
    assert errors
    return max(errors)


def test_there_are_recordings_of_every_kind():
    networks = [read_recording(path) for path in RECORDED]
    assert {r.network for r in networks} == {"MambaIR", "MambaIRv2", "MambaIRv2Light", "MambaIRUNet"}
    assert {r.settings.get("upsampler", "") for r in networks} == {
        "",
        "pixelshuffle",
        "pixelshuffledirect",
        "nearest+conv",
    }
    for recording in networks:
        with_noise = [bool(noise) for *_, noise in recording.runs]
        assert any(with_noise) == recording.network.startswith("MambaIRv2")
        assert not all(with_noise)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_output_is_as_recorded(path):
    recording = read_recording(path)
    with torch.inference_mode():
        assert largest_error(build(recording), recording) < recording.tolerance


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_output_is_as_recorded_whatever_the_backend(path, backend, monkeypatch):
    monkeypatch.setattr(kernels, "choose_backend", lambda *_: backend)
    recording = read_recording(path)
    with torch.inference_mode():
        assert largest_error(build(recording), recording) < recording.tolerance


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_output_in_float64_is_as_recorded(path):
    recording = read_recording(path)
    with torch.inference_mode():
        assert largest_error(build(recording).double(), recording) < recording.tolerance


@pytest.mark.parametrize("path", RECORDED_SHARED, ids=lambda path: path.stem)
def test_output_is_as_recorded_in_the_full_set(path):
    recording = read_recording(path)
    with torch.inference_mode():
        assert largest_error(build(recording), recording) < recording.tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_output_on_the_gpu_is_as_recorded(path):
    recording = read_recording(path)
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        error = largest_error(build(recording).cuda(), recording, "cuda")
    assert error < 2 * recording.tolerance  # another machine's exponentials and order of summation
