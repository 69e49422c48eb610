"""Compare the speed of training with that of a plain recipe, and of the scan's backends with a gradient.

The plain recipe is in float32 and starts each operation from Python. On a CPU nothing else is compared with
it: there the scan's gradient in plain PyTorch takes turns with that in vector instructions. All photographs
are in the device's memory here, so the only time for loading is that for cutting out the crops.

python benchmarks/train.py --device cuda
python benchmarks/train.py --device cpu --weights mambair_cli/weights/tiny_x4.safetensors --repeats 5
"""

import argparse
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from mambair_cli import kernels
from mambair_cli.kernels import Backend, ScanParams, selective_scan
from mambair_cli.networks import MambaIRConfig
from mambair_cli.networks.layers import four_paths
from mambair_cli.train import TrainConfig
from mambair_cli.train.trainer import EAGER_STEPS, Trainer

PHOTOGRAPHS = 8
SIDE = 400  # pixels


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the mean seconds of some work, after a first time that is not counted."""
    work()
    wait_for(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    wait_for(device)
    return (time.perf_counter() - begun) / repeats


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare_steps(arguments: argparse.Namespace, device: torch.device) -> None:
    network = None
    if arguments.weights is None:
        network = MambaIRConfig(
            embed_dim=arguments.embed_dim,
            depths=(3, 3, 3),
            d_state=8,
            d_inner=64,
            upscale=4,
            upsampler="pixelshuffledirect",
        )
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        for index in range(PHOTOGRAPHS):
            pixels = generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, f"{index}.png"))
        config = TrainConfig(
            task="upscale",
            images=(Path(folder),),
            output=Path(folder),
            scale=4,
            network=network,
            weights=arguments.weights,
            crop=arguments.crop,
            batch=arguments.batch,
            device=arguments.device,
        )
        plain = Trainer(dataclasses.replace(config, precision="fp32"))
        if device.type == "cpu":
            compare_gradients(plain, arguments.repeats)
            return
        seconds = {"plain recipe": seconds_of(plain._step_eagerly, arguments.repeats, device)}
        for name, compiled in (("recorded", False), ("compiled", True)):
            run = Trainer(dataclasses.replace(config, compile=compiled))
            for _ in range(EAGER_STEPS):
                run.advance()
            seconds[name] = seconds_of(run.advance, arguments.repeats, device)
        for name, step in seconds.items():
            ratio = seconds["plain recipe"] / step
            print(f"{name:13} {1 / step:7.2f} steps/s, {ratio:5.2f} times the plain recipe")
        dataset, generator = plain.dataset, plain._generator
        drawing = seconds_of(lambda: dataset.draw_batch(config, generator), arguments.repeats, device)
        share = drawing / min(seconds.values())
        print(f"cutting out crops, from Python: {drawing * 1e3:.2f} ms, {share:.1%} of the fastest step")


def compare_gradients(run: Trainer, repeats: int) -> None:
    """Time steps with both gradients of the scan on a CPU, by turns."""
    chosen = kernels.choose_backend
    seconds: dict[Backend, list[float]] = {"cpu": [], "torch": []}
    for _ in range(1 + repeats):
        for backend, times in seconds.items():
            kernels.choose_backend = lambda *_, backend=backend: backend
            begun = time.perf_counter()
            run._step_eagerly()
            times.append(time.perf_counter() - begun)
    kernels.choose_backend = chosen
    medians = {backend: statistics.median(times[1:]) for backend, times in seconds.items()}
    ratio = statistics.median(t / c for t, c in zip(seconds["torch"][1:], seconds["cpu"][1:], strict=True))
    for backend, median in medians.items():
        print(f"a step with {backend:6} {median:8.3f} s")
    print(f"{torch.get_num_threads()} threads, cpu is {ratio:.1f} times as fast as torch")


def compare_scans(arguments: argparse.Namespace, device: torch.device) -> None:
    b, side, d, k, n, r = arguments.batch, arguments.crop, 64, 4, 8, 5
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    operands = [normal(b, side**2, d), *(normal(b, side**2, k, m) for m in (r, n, n))]
    params = ScanParams(normal(k, d, r), normal(k, d) - 4, -torch.exp(normal(k, d, n)), normal(k, d))
    leaves = [x.requires_grad_() for x in (*operands, *params)]
    paths = four_paths(side, side, device)

    def choose(name: str) -> Callable[..., torch.Tensor]:
        if name == "mamba_ssm":
            return import_module("mamba_ssm_scan").selective_scan
        return functools.partial(selective_scan, backend=cast(Backend, name))

    def scan(function: Callable[..., torch.Tensor]) -> None:
        u, dt, B, C = operands
        torch.autograd.grad(function(u, dt, B, C, paths, params).sum(), leaves)

    times = {}
    for backend in ("mamba_ssm", "triton") if device.type == "cuda" else ("torch", "cpu"):
        try:
            times[backend] = seconds_of(functools.partial(scan, choose(backend)), arguments.repeats, device)
        except ImportError:
            print(f"{backend:9} is not installed")
            continue
        print(f"{backend:9} {times[backend] * 1e3:7.2f} ms, forward and backward")
    if len(times) == 2:
        (slow, slow_time), (fast, fast_time) = times.items()
        print(f"{fast} is {slow_time / fast_time:.2f} times as fast as {slow}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=48)
    parser.add_argument("--embed-dim", type=int, default=72)
    parser.add_argument("--weights", type=Path, help="checkpoint for ×4, in place of a new network")
    parser.add_argument("--repeats", type=int, default=50)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    compare_scans(arguments, device)
    compare_steps(arguments, device)


if __name__ == "__main__":
    main()
