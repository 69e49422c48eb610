"""The state of a training run on its device, and one step of it.

On CUDA a step, from the crops to the running average of the weights, is recorded as two graphs: a network
small enough to train on one GPU does not keep it busy from Python. Between them, processes average gradients.
"""

import copy
import dataclasses
import io
import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mambair_cli.checkpoints.load import load_network, read_tensors
from mambair_cli.checkpoints.select import describe_work
from mambair_cli.errors import UsageError
from mambair_cli.networks import Network, NetworkInfo, build_network
from mambair_cli.networks.layers import VSSBlock
from mambair_cli.quality.metrics import LUMA_WEIGHTS
from mambair_cli.train.config import TrainConfig, describe_config
from mambair_cli.train.dataset import load_dataset
from mambair_cli.train.distributed import ProcessGroup
from mambair_cli.train.folder import STATE_FILE, WEIGHTS_FILE, write_file
from mambair_cli.train.pace import check_memory, measure_pace
from mambair_cli.train.real_batches import RealBatches
from mambair_cli.train.resuming import read_state, refuse_changes, start_from
from mambair_cli.train.schedule import Schedule
from mambair_cli.train.teacher import SYMMETRIES, load_teacher

EAGER_STEPS = 3  # before graphs are recorded: libraries choose algorithms and allocate memory in them
MAX_GRADIENT_NORM = 1.0
CHARBONNIER_EPSILON = 1e-3
PSNR_FLOOR = 1e-5  # added to the mean square of a crop: what is over 50 dB needs no more weight
LUMA_SHARE = 0.8  # of the error that "psnr-y" counts
BETAS = (0.9, 0.99)  # AdamW's


class Trainer:
    """A network in training.

    Attributes:
        config: Settings of the run.
        net: Network in training.
        averaged: Copy of it with the running average of the weights.
        step: Number of steps done.
        pace: What a step takes, measured by a small one; None on CUDA.
        dataset: The images.
        group: Processes that share each batch: each draws all crops of a step and computes its share, so that
            the result is that of a single process except for rounding.
        device: Device of this process.

    Raises:
        MemoryLimitError: The memory cannot hold the images, or what a step needs.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self._schedule = Schedule(config.learning_rate, config.warmup, config.steps)
        self.group = ProcessGroup(config.device, config.batch)
        self.device = self.group.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # for the initial weights
            net = make_network(config)
        self.net = net.to(self.device).train().requires_grad_(True)
        self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]: no stub has it
        self.averaged = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.pace = None
        if self.device.type != "cuda":
            self.pace = measure_pace(self.net, config, self.device, config.batch // self.group.count)
            check_memory(self.pace, str(self.device))  # before images are mirrored to the size of a crop
        self.dataset = load_dataset(config, net.info.channels, self.device)
        self._generator = torch.Generator(self.device).manual_seed(config.seed)
        self._teacher = load_teacher(config, net.info.channels, self.device)
        self._batches = None
        if config.degradation == "real":
            self._batches = RealBatches(self.dataset, config, self.device, self.group.share)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self.net, config.weight_decay),
            lr=torch.tensor(0.0, device=self.device),  # a tensor, so that recorded graphs see it change
            betas=BETAS,
            fused=True,
            capturable=self.device.type == "cuda",
        )
        self._ema_share = torch.zeros((), device=self.device)
        self._loss = torch.zeros((), device=self.device)
        self._loss_sum = torch.zeros((), device=self.device)
        self._losses = 0
        self._eager_steps = EAGER_STEPS
        self._graphs: list[torch.cuda.CUDAGraph] = []
        if config.compile:
            for module in (*self.net.modules(), *(self._teacher.net.modules() if self._teacher else ())):
                if isinstance(module, VSSBlock):
                    module.compile(dynamic=False)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return self._schedule.rate(self.step)

    def set_steps(self, steps: int) -> None:
        """Change the number of steps of the run, and with it the rates of the coming ones."""
        self.config = dataclasses.replace(self.config, steps=steps)
        self._schedule = dataclasses.replace(self._schedule, steps=steps)

    @property
    def ema_share(self) -> float:
        """Share of the next step's weights in the running average.

        It is larger at first, so that the average forgets the initial weights.
        """
        return max(1 - self.config.ema_decay, 9 / (self.step + 10))

    def advance(self) -> None:
        """Do one step."""
        for group in self._optimizer.param_groups:
            group["lr"].fill_(self.learning_rate)
        self._ema_share.fill_(self.ema_share)
        if self._batches:
            self._batches.load(self.step)
        if self.device.type != "cuda":
            self._step_eagerly()
        elif self._eager_steps:
            self._eager_steps -= 1
            self._step_on_side_stream()
        else:
            if not self._graphs:
                self._graphs = self._record_graphs()
            compute_gradients, update = self._graphs
            compute_gradients.replay()
            self._average_gradients()
            update.replay()
        self.step += 1
        self._losses += 1

    def mean_loss(self) -> float:
        """Return the mean loss since the last reset; it is not finite if a single loss was not."""
        return self._loss_sum.item() / max(1, self._losses)

    def reset_loss(self) -> None:
        """Start a new mean."""
        self._loss_sum.zero_()
        self._losses = 0

    def _step_eagerly(self) -> None:
        self._compute_gradients()
        self._average_gradients()
        self._update()

    def _compute_gradients(self) -> None:
        config = self.config
        if self._batches:
            x, target = self._batches.x, self._batches.target
        else:
            x, target = self.dataset.draw_batch(config, self._generator, self.group.share)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            y = self.net(x)
            if self._teacher:
                forms = torch.randint(
                    SYMMETRIES, (config.batch,), generator=self._generator, device=self.device
                )  # of all processes' crops, so that each draws the same
                target = self._teacher.mix(x, target, forms[self.group.share])
        loss = measure_loss(y.float(), target, config.loss)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._loss.copy_(loss.detach())

    def _average_gradients(self) -> None:
        gradients = [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]
        self.group.average([*gradients, self._loss])

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        with torch.no_grad():
            self._loss_sum += self._loss
            for mean, weights in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(weights, self._ema_share)

    def _step_on_side_stream(self) -> None:
        """Do a step on a side stream, as graphs are recorded on one."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._step_eagerly()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def _record_graphs(self) -> list[torch.cuda.CUDAGraph]:
        """Record the two halves of a step without running them."""
        self._optimizer.zero_grad(set_to_none=True)
        halves = [torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()]
        halves[0].register_generator_state(self._generator)
        stream = torch.cuda.Stream(self.device)  # by default it is one of the current card
        with torch.cuda.graph(halves[0], stream=stream):
            self._compute_gradients()
        with torch.cuda.graph(halves[1], pool=halves[0].pool(), stream=stream):
            self._update()
        return halves

    def save(self) -> None:
        """Write the state and the averaged weights, each complete or not at all.

        Raises:
            MambairError: They cannot be written.
        """
        folder = self.config.output
        state = {
            "config": describe_config(self.config),
            "step": self.step,
            "net": self.net.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "loss_sum": self._loss_sum,
            "losses": self._losses,
            "extended": self._schedule.extended,
        }
        serialized = io.BytesIO()
        torch.save(state, serialized)
        write_file(folder / STATE_FILE, serialized.getbuffer())
        write_file(folder / WEIGHTS_FILE, serialize_weights(self.averaged, self.config, self.step))

    def load(self) -> None:
        """Continue from the state in the run's folder.

        Raises:
            CheckpointError: It cannot be read, or is damaged.
            UsageError: It is not there, or is the state of another run.
        """
        folder = self.config.output
        state = read_state(folder, self.device)
        refuse_changes(self.config, state["config"])
        begun_on = torch.device(state["config"]["device"]).type
        if begun_on != self.device.type:
            raise UsageError(
                f"cannot resume {folder} on {self.device.type}: it was begun on {begun_on}, which draws "
                f"other random numbers; begin a run in another folder{start_from(folder)}"
            )
        self.step = state["step"]
        begun = dataclasses.replace(
            self._schedule, steps=state["config"]["steps"], extended=state.get("extended")
        )
        longer = self.config.steps > begun.steps
        self._schedule = begun.extend(self.step, self.config.steps) if longer else begun
        self.net.load_state_dict(state["net"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())
        self._loss_sum.copy_(state["loss_sum"])
        self._losses = state["losses"]


def measure_loss(y: Tensor, target: Tensor, kind: str) -> Tensor:
    """Return the loss of a batch.

    Args:
        y: Output, (b, c, h, w).
        target: What it should be, of the same shape, in [0, 1].
        kind: Name of the loss, see ``loss`` in :class:`TrainConfig`.

    Returns:
        A scalar; the losses named psnr are in dB, and negative.
    """
    error = y - target
    if kind == "l1":
        return error.abs().mean()
    if kind == "charbonnier":
        return (error.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
    squares = error.square()
    if kind == "l2":
        return squares.mean()
    means = squares.mean(dim=(1, 2, 3))
    if kind == "psnr-y" and error.shape[1] == 3:
        red, green, blue = (weight / sum(LUMA_WEIGHTS) for weight in LUMA_WEIGHTS)
        luma = red * error[:, 0] + green * error[:, 1] + blue * error[:, 2]
        means = LUMA_SHARE * luma.square().mean(dim=(1, 2)) + (1 - LUMA_SHARE) * means
    return 10 * (means + PSNR_FLOOR).log10().mean()


def make_network(config: TrainConfig) -> Network:
    """Build the network of a run, with its initial weights.

    Raises:
        CheckpointError: The weights cannot be loaded.
        UsageError: The network does not fit the task.
    """
    if config.network is not None:
        net = build_network(config.network, config.task)
        if config.weights is not None:
            given, _ = read_tensors(config.weights)
            own = net.state_dict()
            fitting = {name: x for name, x in given.items() if name in own and own[name].shape == x.shape}
            if not fitting:
                raise UsageError(f"cannot start from {config.weights}: none of its tensors fits the network")
            net.load_state_dict(fitting, strict=False)
    elif config.weights is not None:
        net = load_network(config.weights)
    else:
        raise ValueError("a run needs a network or weights")
    if config.degradation == "real" and net.info.channels != 3:
        raise UsageError(
            "cannot train with --degradation real: the network is for gray images; take a colour one"
        )
    if net.info.scale != config.scale:
        raise UsageError(_explain_misfit(net.info, config))
    return net


def _explain_misfit(info: NetworkInfo, config: TrainConfig) -> str:
    """Say that a network is for another scale, and what would work."""
    name = "the network" if config.network or not config.weights else config.weights.name
    wanted, fitting = config.task, "one that keeps the size"
    if config.task == "upscale":
        fitting = "one that enlarges" if info.scale == 1 else f"--scale {info.scale}"
        wanted += "" if info.scale == 1 else f" ×{config.scale}"
    return f"cannot train for {wanted}: {describe_work(info, name)}; {fitting} would work"


def serialize_weights(net: Network, config: TrainConfig, step: int) -> bytes:
    """Return a checkpoint as safetensors, with metadata on the network and its training.

    Args:
        net: The network.
        config: Settings of the run.
        step: Number of steps done.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {
        "task": config.task,
        "scale": str(config.scale),
        "network": json.dumps(dataclasses.asdict(net.info.config)),
        "training": json.dumps({"step": step, **describe_config(config)}),
    }
    return save(tensors, metadata)


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters into those with weight decay and those without."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in net.named_parameters():
        is_plain = parameter.ndim < 2 or name.endswith(("A_logs", "Ds", "dt_projs_bias"))
        groups[is_plain].append(parameter)
    decayed, plain = groups
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
