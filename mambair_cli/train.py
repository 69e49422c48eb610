"""Fit a network to folders of photographs: a checkpoint further, or a small network from nothing.

All images lie in the device's memory as bytes, with what they are degraded to beside them, so that a batch is
one gather and the device never waits for files. On CUDA a whole step, from the crops to the running average of
the weights, is one recorded graph: the networks worth training on one device are too small to keep it busy
from Python.
"""

import contextlib
import copy
import dataclasses
import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from safetensors.torch import save_file
from torch import Tensor, nn

from mambair_cli.catalog import Task
from mambair_cli.checkpoint import load_network, read_tensors
from mambair_cli.degrade import add_noise, compress_jpeg, imresize, modcrop
from mambair_cli.errors import CheckpointError, ImageError, MambairError, UsageError
from mambair_cli.metrics import psnr
from mambair_cli.model import MambaIRConfig, Network, build_network
from mambair_cli.model.layers import VSSBlock

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"
LOG_FILE = "log.jsonl"
LOG_EVERY = 100  # steps
EAGER_STEPS = 3  # before a graph is recorded: libraries choose and allocate in the first ones
MAX_GRADIENT_NORM = 1.0
CHARBONNIER_EPSILON = 1e-3
JPEG_VARIANTS = 12  # compressed forms of each photograph, at qualities evenly spread
NOISE_LEVELS = (15, 25, 50)  # that the papers report
QUALITY_LEVELS = (10, 30, 40)

Record = dict[str, float]
"""One line of the log: step, seconds, and either loss and learning_rate or psnr."""


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, on what, and how.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        images: Folders of photographs, searched with all their subfolders.
        output: Folder for the weights, the log and the state to go on from.
        scale: Of upscaling; 1 for the other tasks.
        sigma: Least and greatest noise, in 8-bit steps; every crop draws its own.
        quality: Least and greatest JPEG quality.
        shrink: Sizes at which each photograph is used; below 1 its grain and its compression fade.
        network: What to build; None to take the network of ``weights``.
        weights: Checkpoint to start from; with ``network``, whatever of it fits by name and shape.
        validation: Folder of photographs to measure the PSNR on; None to measure nothing.
        crop: Side of a crop, in pixels of the network's input.
        batch: Crops in a step.
        steps: Until the learning rate has come down to nothing.
        learning_rate: At its peak.
        warmup: Steps from nothing to the peak.
        weight_decay: Of matrices and kernels; norms, biases and the scan's own parameters have none.
        ema_decay: Per step, of the running average of the weights, which is what is saved.
        loss: "l1" or "charbonnier".
        precision: "bf16" for products and convolutions in bfloat16, or "fp32". The scan, the residual
            stream and the loss are in float32 always.
        compile: Whether to fuse the blocks with torch.compile: a minute at the start, faster afterwards.
        validate_every: Steps between two measurements.
        save_every: Seconds between two saved states.
        seed: Of everything that is drawn.
        device: As PyTorch names it.
    """

    task: Task
    images: tuple[Path, ...]
    output: Path
    scale: int = 1
    sigma: tuple[float, float] = (0.0, 55.0)
    quality: tuple[int, int] = (10, 95)
    shrink: tuple[float, ...] = (1.0,)
    network: MambaIRConfig | None = None
    weights: Path | None = None
    validation: Path | None = None
    crop: int = 48
    batch: int = 16
    steps: int = 50_000
    learning_rate: float = 1e-3
    warmup: int = 500
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    loss: Literal["l1", "charbonnier"] = "l1"
    precision: Literal["bf16", "fp32"] = "bf16"
    compile: bool = False
    validate_every: int = 2000
    save_every: float = 60.0
    seed: int = 0
    device: str = "cpu"


# What a run may change when it goes on: where things lie and how they are computed, not what is computed.
CHANGEABLE = frozenset({"output", "images", "weights", "validation", "compile", "validate_every", "save_every", "device"})


def train(config: TrainConfig, resume: bool = False, report: Callable[[Record], None] | None = None) -> Path:
    """Train a network, or go on with a run that was interrupted, as if it had not been.

    Ctrl-C ends the step in hand, saves the state and raises KeyboardInterrupt.

    Args:
        config: The run.
        resume: Whether to go on from the state in ``config.output``.
        report: Given each record as it is logged.

    Returns:
        The checkpoint, of averaged weights.

    Raises:
        UsageError: Where the settings contradict each other, the network, or the state.
        ImageError: Where there is nothing to train on.
        CheckpointError: Where the weights or the state cannot be loaded.
        MambairError: Where training diverges.
    """
    _check(config)
    state_file = config.output / STATE_FILE
    if state_file.exists() and not resume:
        raise UsageError(f"cannot train into {config.output}: it holds a run; resume it or choose another folder")
    config.output.mkdir(parents=True, exist_ok=True)
    run = Run(config)
    if resume:
        run.load(state_file)
    log = Log(config.output / LOG_FILE, run.step, report)
    validation = load_validation(config)
    saved = time.monotonic()
    with _deferred_interrupt() as interrupted:
        while run.step < config.steps and not interrupted():
            run.advance()
            if run.step % LOG_EVERY == 0 or run.step == config.steps:
                loss, learning_rate = run.take_mean_loss(), run.learning_rate
                log.write({"step": run.step, "loss": loss, "learning_rate": learning_rate})
                if not math.isfinite(loss):
                    raise MambairError(
                        f"training diverged before step {run.step}: the loss is {loss}; lower the learning rate"
                    )
            if validation and (run.step % config.validate_every == 0 or run.step == config.steps):
                log.write({"step": run.step, **measure(run.averaged, validation, config)})
            if time.monotonic() - saved > config.save_every:
                run.save()
                saved = time.monotonic()
        run.save()
    if interrupted():
        raise KeyboardInterrupt
    return config.output / WEIGHTS_FILE


class Run:
    """The state of a run, on its device.

    Attributes:
        config: The settings.
        net: The network that is trained.
        averaged: The network with the running average of the weights.
        step: Steps done.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.device = torch.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # of the first weights
            net = make_network(config)
        self.net = net.to(self.device, memory_format=torch.channels_last).train().requires_grad_(True)
        self.averaged = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.step = 0
        self.photographs = load_photographs(config, self.device)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        cuda = self.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.net, config.weight_decay),
            lr=torch.tensor(0.0, device=self.device),  # a tensor, so that a recorded graph sees it change
            betas=(0.9, 0.99),
            fused=True,
            capturable=cuda,
        )
        self.loss_sum = torch.zeros((), device=self.device)
        self.losses = 0
        self._eager_steps = EAGER_STEPS
        self._graph: torch.cuda.CUDAGraph | None = None
        if config.compile:
            for module in self.net.modules():
                if isinstance(module, VSSBlock):
                    module.compile(dynamic=False)

    @property
    def learning_rate(self) -> float:
        """The rate of the step in hand: up in a line, down along a cosine."""
        config = self.config
        if self.step < config.warmup:
            return config.learning_rate * (self.step + 1) / config.warmup
        progress = (self.step - config.warmup) / max(1, config.steps - config.warmup)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))

    def advance(self) -> None:
        """Do one step."""
        for group in self.optimizer.param_groups:
            group["lr"].fill_(self.learning_rate)
        if self.device.type != "cuda":
            self._compute()
        elif self._eager_steps:
            self._eager_steps -= 1
            self._on_side_stream(self._compute)
        else:
            if self._graph is None:
                self._record()
            assert self._graph is not None
            self._graph.replay()
        self.step += 1
        self.losses += 1

    def take_mean_loss(self) -> float:
        """Return the mean loss since the last call."""
        mean = self.loss_sum.item() / self.losses
        self.loss_sum.zero_()
        self.losses = 0
        return mean

    def _compute(self) -> None:
        config = self.config
        x, wanted = self.photographs.draw(config, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            y = self.net(x)
        error = y.float() - wanted
        if config.loss == "l1":
            loss = error.abs().mean()
        else:
            loss = (error.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        with torch.no_grad():
            self.loss_sum += loss
            torch._foreach_lerp_(
                list(self.averaged.parameters()), list(self.net.parameters()), 1 - config.ema_decay
            )

    def _on_side_stream(self, work: Callable[[], None]) -> None:
        """Run as a graph is recorded, aside of the default stream."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def _record(self) -> None:
        """Record a step; recording runs nothing."""
        self.optimizer.zero_grad(set_to_none=True)
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self.generator)
        with torch.cuda.graph(self._graph):
            self._compute()

    def save(self) -> None:
        """Write the state and the averaged weights, each whole or not at all."""
        state = {
            "config": _as_json(self.config),
            "step": self.step,
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "loss_sum": self.loss_sum,
            "losses": self.losses,
        }
        _write_whole(self.config.output / STATE_FILE, lambda path: torch.save(state, path))
        save_weights(self.averaged, self.config, self.step, self.config.output / WEIGHTS_FILE)

    def load(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: Where there is none, or it is damaged.
            UsageError: Where it is the state of another run.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise CheckpointError(f"cannot resume {path.parent}: it holds no {path.name}; start anew") from error
        except Exception as error:  # a damaged pickle fails in as many ways as it has bytes
            raise CheckpointError(f"cannot resume from {path}: the file is damaged; start anew") from error
        ours = _as_json(self.config)
        for name, value in state["config"].items():
            if ours.get(name) != value and name not in CHANGEABLE:
                raise UsageError(f"cannot resume {path.parent}: its {name} is {value}, not {ours.get(name)}")
        self.step = state["step"]
        self.net.load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.loss_sum.copy_(state["loss_sum"])
        self.losses = state["losses"]


class Log:
    """The log of a run: one JSON object a line."""

    def __init__(self, path: Path, step: int, report: Callable[[Record], None] | None) -> None:
        """Open a log and drop what it tells of steps after ``step``, which will be done again."""
        lines = path.read_text().splitlines() if step and path.exists() else []
        self.path = path
        self.report = report
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        self.before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self.started = time.monotonic()
        path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, record: Record) -> None:
        """Add a record, with the seconds that the run has taken."""
        record = {**record, "seconds": round(self.before + time.monotonic() - self.started, 1)}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self.report:
            self.report(record)


class Pool(NamedTuple):
    """Images of any sizes in one tensor, so that crops of many are one gather.

    Attributes:
        pixels: Of all images, one after the other, (pixels, ch) uint8.
        first: Where each image begins, (images,).
        heights: Of the images, (images,).
        widths: Of the images, (images,).
    """

    pixels: Tensor
    first: Tensor
    heights: Tensor
    widths: Tensor

    def crop(self, image: Tensor, top: Tensor, left: Tensor, side: int, orientation: Tensor) -> Tensor:
        """Cut out squares, each turned or mirrored its own way.

        Args:
            image: Number of each crop's image, (b,).
            top: First row of each crop, (b,).
            left: First column of each crop, (b,).
            side: Of all crops.
            orientation: 0 to 7, the symmetries of the square, (b,).

        Returns:
            (b, ch, side, side) float32 in [0, 1], channels last in memory.
        """
        place = torch.arange(side, device=self.pixels.device)
        y, x = place[None, :, None], place[None, None, :]
        turn = orientation[:, None, None]
        y, x = torch.where(turn & 4 > 0, x, y), torch.where(turn & 4 > 0, y, x)
        y = torch.where(turn & 1 > 0, side - 1 - y, y) + top[:, None, None]
        x = torch.where(turn & 2 > 0, side - 1 - x, x) + left[:, None, None]
        pixel = self.first[image][:, None, None] + y * self.widths[image][:, None, None] + x
        return (self.pixels[pixel].float() / 255).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Photographs:
    """What is trained on, in the device's memory.

    Attributes:
        clean: The photographs.
        degraded: What they are degraded to, one or more of each; None where noise is drawn instead.
        original: Number of the photograph behind each degraded image, or behind itself, (images,).
        share: Running sum of the images' areas, of the network's input, (images,) float64.
    """

    clean: Pool
    degraded: Pool | None
    original: Tensor
    share: Tensor

    def draw(self, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch: crops of the network's input and of what it should give, of large images more often.

        Returns:
            (b, ch, crop, crop) and (b, ch, s·crop, s·crop), float32 in [0, 1] but for noise.
        """
        device = self.share.device
        chance = torch.rand(5, config.batch, dtype=torch.float64, device=device, generator=generator)
        inputs = self.degraded or self.clean
        image = torch.searchsorted(self.share, chance[0] * self.share[-1], right=True)
        image = image.clamp(max=len(self.share) - 1)
        top = (chance[1] * (inputs.heights[image] - config.crop + 1)).long()
        left = (chance[2] * (inputs.widths[image] - config.crop + 1)).long()
        orientation = (chance[3] * 8).long()
        s = config.scale
        wanted = self.clean.crop(self.original[image], top * s, left * s, config.crop * s, orientation)
        if self.degraded:
            return self.degraded.crop(image, top, left, config.crop, orientation), wanted
        low, high = config.sigma
        sigma = (low + (high - low) * chance[4]).float()[:, None, None, None] / 255
        noise = torch.randn(wanted.shape, device=device, generator=generator)
        return wanted + sigma * noise, wanted


def load_photographs(config: TrainConfig, device: torch.device) -> Photographs:
    """Read all photographs and degrade them for the task.

    Raises:
        ImageError: Where there are none, or one cannot be read.
    """
    files = [file for folder in config.images for file in find_images(folder)]
    if not files:
        folders = ", ".join(map(str, config.images))
        raise ImageError(f"cannot train on {folders}: there are no images ({', '.join(IMAGE_SUFFIXES)})")
    shortest = config.crop * config.scale
    low, high = config.quality
    variants = min(JPEG_VARIANTS, high - low + 1)

    def prepare(file: Path) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        whole = read_image(file)
        prepared = []
        for size in config.shrink:
            clean = modcrop(whole if size == 1 else imresize(whole, size), config.scale)
            if size != 1 and min(clean.shape[:2]) < shortest:
                continue
            clean = _mirror_to(clean, shortest)
            if config.task == "upscale":
                degraded = [imresize(clean, 1 / config.scale)]
            elif config.task == "dejpeg":
                # Drawn per photograph, one from each part of the range, by the file's name: the same in
                # every run, whatever the order of the files.
                draw = random.Random(f"{config.seed} {file.name} {size}")
                shares = [(i + draw.random()) / variants for i in range(variants)]
                degraded = [compress_jpeg(clean, low + int(share * (high - low + 1))) for share in shares]
            else:
                degraded = []
            prepared.append((clean, degraded))
        return prepared

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        prepared = [pair for pairs in pool.map(prepare, files) for pair in pairs]
    clean = _make_pool([image for image, _ in prepared], device)
    degraded, original = None, torch.arange(len(prepared), device=device)
    if config.task != "denoise":
        degraded = _make_pool([image for _, images in prepared for image in images], device)
        original = original.repeat_interleave(len(prepared[0][1]))
    inputs = degraded or clean
    return Photographs(clean, degraded, original, (inputs.heights * inputs.widths).double().cumsum(0))


def load_validation(config: TrainConfig) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Make the images to measure on: for each level of degradation, pairs of input and truth.

    Returns:
        Inputs (h, w, c) float32 and truths (s·h, s·w, c) uint8, under the name of their level.
    """
    if config.validation is None:
        return {}
    truths = [modcrop(read_image(file), config.scale) for file in find_images(config.validation)]
    if not truths:
        raise ImageError(f"cannot validate on {config.validation}: there are no images")
    if config.task == "upscale":
        return {f"x{config.scale}": [(_to_float(imresize(t, 1 / config.scale)), t) for t in truths]}
    if config.task == "denoise":
        levels = [level for level in NOISE_LEVELS if config.sigma[0] <= level <= config.sigma[1]]
        return {f"sigma{s}": [(add_noise(_to_float(t), s), t) for t in truths] for s in levels or config.sigma}
    levels = [level for level in QUALITY_LEVELS if config.quality[0] <= level <= config.quality[1]]
    return {f"q{q}": [(_to_float(compress_jpeg(t, q)), t) for t in truths] for q in levels or config.quality}


@torch.no_grad()
def measure(
    net: nn.Module, validation: dict[str, list[tuple[np.ndarray, np.ndarray]]], config: TrainConfig
) -> Record:
    """Return the mean PSNR at each level, as the papers count it: of upscaling on the Y channel."""
    record = {}
    upscale = config.task == "upscale"
    for level, pairs in validation.items():
        total = 0.0
        for image, truth in pairs:
            x = torch.from_numpy(image).to(config.device).permute(2, 0, 1)[None]
            y = net(x)[0].permute(1, 2, 0).clamp(0, 1).cpu().numpy()
            total += psnr(y, truth, border=config.scale if upscale else 0, luma=upscale)
        record[f"psnr_{level}"] = round(total / len(pairs), 4)
    return record


def make_network(config: TrainConfig) -> Network:
    """Build the network of a run, with the weights that it starts from.

    Raises:
        CheckpointError: Where the weights cannot be loaded.
        UsageError: Where they are not for the task.
    """
    if config.network is None:
        assert config.weights is not None  # _check saw to it
        net = load_network(config.weights)
    else:
        net = build_network(config.network, config.task)
        if config.weights is not None:
            given, _ = read_tensors(config.weights)
            own = net.state_dict()
            fitting = {name: x for name, x in given.items() if name in own and own[name].shape == x.shape}
            if not fitting:
                raise UsageError(f"cannot start from {config.weights}: not one of its tensors fits the network")
            net.load_state_dict(fitting, strict=False)
    if net.info.scale != config.scale:
        raise UsageError(f"cannot train for scale {config.scale}: the network's scale is {net.info.scale}")
    if net.info.channels != 3:
        raise UsageError(f"cannot train a network of {net.info.channels} channels: colour alone, 3, is supported")
    return net


def save_weights(net: nn.Module, config: TrainConfig, step: int, path: Path) -> None:
    """Write a checkpoint that tells what it is and how it was made."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {
        "task": config.task,
        "scale": str(config.scale),
        "network": json.dumps(dataclasses.asdict(net.info.config)),
        "training": json.dumps({"step": step, **_as_json(config)}),
    }
    _write_whole(path, lambda part: save_file(tensors, part, metadata))


def find_images(folder: Path) -> list[Path]:
    """List the images under a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def read_image(path: Path) -> np.ndarray:
    """Read an image as 8-bit colour, (h, w, 3) uint8.

    Raises:
        ImageError: Where it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise ImageError(f"cannot read {path}: it is damaged or no image; leave it out") from error


def _check(config: TrainConfig) -> None:
    if (config.task == "upscale") == (config.scale == 1):
        raise UsageError(f"cannot train {config.task} at scale {config.scale}: upscaling alone has a scale, 2 to 4")
    if config.network is None and config.weights is None:
        raise UsageError("cannot train: there is neither a network to build nor a checkpoint to start from")
    for name in ("sigma", "quality"):
        low, high = getattr(config, name)
        if not 0 <= low <= high:
            raise UsageError(f"cannot train: the range of {name} is {low} to {high}; give the lower end first")


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = dict(net.named_parameters())
    plain = {name for name in parameters if name.endswith(("A_logs", "Ds", "dt_projs_bias"))}
    plain |= {name for name, parameter in parameters.items() if parameter.ndim < 2}
    return [
        {"params": [p for name, p in parameters.items() if name not in plain], "weight_decay": weight_decay},
        {"params": [p for name, p in parameters.items() if name in plain], "weight_decay": 0.0},
    ]


def _make_pool(images: list[np.ndarray], device: torch.device) -> Pool:
    heights, widths = (torch.tensor([image.shape[i] for image in images], device=device) for i in (0, 1))
    areas = heights * widths
    pixels = np.concatenate([image.reshape(-1, image.shape[2]) for image in images])
    return Pool(torch.from_numpy(pixels).to(device), areas.cumsum(0) - areas, heights, widths)


def _mirror_to(image: np.ndarray, shortest: int) -> np.ndarray:
    """Extend an image by its mirror image where a side is too short for a crop."""
    missing = [max(0, shortest - side) for side in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def _to_float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _as_json(config: TrainConfig) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def _write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question to ask between steps; the second is as ever."""
    pressed = False

    def note(_signal: int, _frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
