"""The state of a run on its device, and one step of it.

On CUDA a step, from the crops to the running average of the weights, is recorded as graphs: the networks
worth training on one device are too small to keep it busy from Python. Between its two halves processes
exchange their gradients.
"""

import contextlib
import copy
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from mambair_cli.checkpoints.load import load_network, read_tensors
from mambair_cli.errors import CheckpointError, MambairError, UsageError
from mambair_cli.networks import Network, build_network
from mambair_cli.networks.layers import VSSBlock
from mambair_cli.system.files import atomic_write
from mambair_cli.train.config import TrainConfig, describe_config, find_change
from mambair_cli.train.dataset import load_photographs
from mambair_cli.train.distributed import Processes
from mambair_cli.train.real_batches import RealBatches
from mambair_cli.train.schedule import Schedule

STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"
EAGER_STEPS = 3  # before a graph is recorded: in the first ones libraries choose and allocate
MAX_GRADIENT_NORM = 1.0
CHARBONNIER_EPSILON = 1e-3
BETAS = (0.9, 0.99)  # AdamW's


class Trainer:
    """A network in training.

    Attributes:
        config: The settings.
        net: The network that is trained.
        averaged: The same with the running average of the weights.
        step: Steps done.
        processes: Those that share the work: each draws all crops of a step and computes its part of them,
            so that the result is that of a single one but for rounding.
        device: Where this process computes.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self._schedule = Schedule(config.learning_rate, config.warmup, config.steps)
        self.processes = Processes(config.device, config.batch)
        self.device = self.processes.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # of the first weights
            net = make_network(config)
        self.net = net.to(self.device).train().requires_grad_(True)
        self.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]: no stub has it
        self.averaged = copy.deepcopy(self.net).eval().requires_grad_(False)
        self._photographs = load_photographs(config, net.info.channels, self.device)
        self._generator = torch.Generator(self.device).manual_seed(config.seed)
        self._batches = None
        if config.degradation == "real":
            self._batches = RealBatches(self._photographs, config, self.device, self.processes.part)
        self._optimizer = torch.optim.AdamW(
            _parameter_groups(self.net, config.weight_decay),
            lr=torch.tensor(0.0, device=self.device),  # a tensor, so that a recorded graph sees it change
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
            for module in self.net.modules():
                if isinstance(module, VSSBlock):
                    module.compile(dynamic=False)

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self._schedule.rate(self.step)

    def plan(self, steps: int) -> None:
        """Settle anew how many steps the run has, and with them the rates of all that are to come."""
        self.config = dataclasses.replace(self.config, steps=steps)
        self._schedule = dataclasses.replace(self._schedule, steps=steps)

    @property
    def ema_share(self) -> float:
        """What the next step's weights weigh in the running average.

        At first more than later, so that the average forgets the weights that it began with.
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
            self._compute()
        elif self._eager_steps:
            self._eager_steps -= 1
            self._compute_aside()
        else:
            if not self._graphs:
                self._graphs = self._record()
            find_gradients, update = self._graphs
            find_gradients.replay()
            self._exchange()
            update.replay()
        self.step += 1
        self._losses += 1

    def mean_loss(self) -> float:
        """Return the mean loss since it was last forgotten; not finite once a single one was not."""
        return self._loss_sum.item() / max(1, self._losses)

    def forget_loss(self) -> None:
        """Begin a new mean."""
        self._loss_sum.zero_()
        self._losses = 0

    def _compute(self) -> None:
        self._find_gradients()
        self._exchange()
        self._update()

    def _find_gradients(self) -> None:
        config = self.config
        if self._batches:
            x, wanted = self._batches.x, self._batches.wanted
        else:
            x, wanted = self._photographs.draw(config, self._generator, self.processes.part)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            y = self.net(x)
        error = y.float() - wanted
        if config.loss == "l1":
            loss = error.abs().mean()
        else:
            loss = (error.square() + CHARBONNIER_EPSILON**2).sqrt().mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._loss.copy_(loss.detach())

    def _exchange(self) -> None:
        gradients = [parameter.grad for parameter in self.net.parameters() if parameter.grad is not None]
        self.processes.average([*gradients, self._loss])

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.net.parameters(), MAX_GRADIENT_NORM)
        self._optimizer.step()
        with torch.no_grad():
            self._loss_sum += self._loss
            for mean, weights in zip(self.averaged.parameters(), self.net.parameters(), strict=True):
                mean.lerp_(weights, self._ema_share)

    def _compute_aside(self) -> None:
        """Do a step on a stream of its own, as graphs are recorded on one."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._compute()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def _record(self) -> list[torch.cuda.CUDAGraph]:
        """Record the halves of a step, without doing them."""
        self._optimizer.zero_grad(set_to_none=True)
        halves = [torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()]
        halves[0].register_generator_state(self._generator)
        with torch.cuda.graph(halves[0]):
            self._find_gradients()
        with torch.cuda.graph(halves[1], pool=halves[0].pool()):
            self._update()
        return halves

    def save(self) -> None:
        """Write the state and the averaged weights, each whole or not at all.

        Raises:
            MambairError: Where they cannot be written.
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
        write_whole(folder / STATE_FILE, serialized.getbuffer())
        write_whole(folder / WEIGHTS_FILE, serialize_weights(self.averaged, self.config, self.step))

    def load(self) -> None:
        """Go on from the state in the run's folder.

        Raises:
            CheckpointError: Where there is none, or it is damaged.
            UsageError: Where it is the state of another run.
        """
        path = self.config.output / STATE_FILE
        again = f", perhaps with --weights {path.with_name(WEIGHTS_FILE)}"
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            raise CheckpointError(
                f"cannot resume {path.parent}: it holds no {path.name}; leave out --resume"
            ) from error
        except Exception as error:  # a damaged pickle fails in as many ways as it has bytes
            raise CheckpointError(
                f"cannot resume from {path}: the file is damaged; begin a run in another folder{again}"
            ) from error
        wanted = {"config", "step", "net", "averaged", "optimizer", "generator", "loss_sum", "losses"}
        if not isinstance(state, dict) or not wanted <= state.keys():
            raise CheckpointError(
                f"cannot resume from {path}: it is not the state of a run; begin one in another folder"
            )
        changed = find_change(describe_config(self.config), state["config"])
        if changed:
            now, then = changed
            raise UsageError(f"cannot resume {path.parent} with {now}: it was begun with {then}; give that")
        begun_on = torch.device(state["config"]["device"]).type
        if begun_on != self.device.type:
            raise UsageError(
                f"cannot resume {path.parent} on {self.device.type}: it was begun on {begun_on}, which draws "
                f"other random numbers; begin a run in another folder{again}"
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


def make_network(config: TrainConfig) -> Network:
    """Build the network of a run, with the weights that it starts from.

    Raises:
        CheckpointError: Where the weights cannot be loaded.
        UsageError: Where the network does not fit the task.
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
        raise UsageError(f"cannot train for scale {config.scale}: the network's scale is {net.info.scale}")
    return net


def serialize_weights(net: Network, config: TrainConfig, step: int) -> bytes:
    """Return a checkpoint, as safetensors, that tells what it is and how it was made."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {
        "task": config.task,
        "scale": str(config.scale),
        "network": json.dumps(dataclasses.asdict(net.info.config)),
        "training": json.dumps({"step": step, **describe_config(config)}),
    }
    return save(tensors, metadata)


def _parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the parameters into those that weight decay is for and those that it would only hurt."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in net.named_parameters():
        is_plain = parameter.ndim < 2 or name.endswith(("A_logs", "Ds", "dt_projs_bias"))
        groups[is_plain].append(parameter)
    decayed, plain = groups
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Explain why a file or folder of the run cannot be written.

    Raises:
        MambairError: In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise MambairError(
            f"cannot write {path}: {error.strerror}; make room, or choose another folder"
        ) from error


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Replace a file of the run in one step: whatever happens, it is the old one or the new one.

    Raises:
        MambairError: It cannot be written.
    """
    with writing(path), atomic_write(path, path.with_name(path.name + ".part")) as file:
        file.write(content)
