"""A second network whose results are mixed into the targets."""

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_runs import NETWORK, RESTORER, load_weights

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import UsageError
from mambair_cli.networks import build_network
from mambair_cli.train import train
from mambair_cli.train.teacher import SYMMETRIES, Teacher
from mambair_cli.train.trainer import Trainer, serialize_weights

SIDE = 6


class Enlarging(nn.Module):
    """Enlarges by pixels that are their own neighbours, and adds a ramp from left to right."""

    def __init__(self, ramp: float) -> None:
        super().__init__()
        self.info = SimpleNamespace(scale=2, channels=3)
        self.ramp = nn.Parameter(torch.tensor(float(ramp)))

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(x, scale_factor=2, mode="nearest")
        return y + self.ramp * torch.linspace(0, 1, y.shape[-1])


def teach(ramp: float, share: float, form: int, x: Tensor, target: Tensor) -> Tensor:
    teacher = Teacher(cast(Any, Enlarging(ramp)), share, SIDE)
    return teacher.mix(x, target, torch.full((len(x),), form))


@pytest.mark.parametrize("form", range(SYMMETRIES))
def test_what_was_turned_is_turned_back(form: int) -> None:
    generator = torch.Generator().manual_seed(form)
    x = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    target = torch.rand(2, 3, 2 * SIDE, 2 * SIDE, generator=generator)
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    torch.testing.assert_close(teach(0, 1, form, x, target), enlarged)
    torch.testing.assert_close(teach(0, 0.25, form, x, target), 0.75 * target + 0.25 * enlarged)
    assert torch.equal(teach(0, 0, form, x, target), target)


def test_the_teacher_sees_eight_forms() -> None:
    x, target = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, 2 * SIDE, 2 * SIDE)
    ramps = [teach(1, 1, form, x, target) for form in range(SYMMETRIES)]
    mean = torch.stack(ramps).mean(dim=0)
    torch.testing.assert_close(mean, torch.full_like(mean, 0.5))  # no direction is preferred
    assert sum(torch.equal(ramp, ramps[0]) for ramp in ramps) == 2  # a ramp has four directions
    corner = torch.zeros(8, 3, SIDE, SIDE)
    corner[:, :, 0, 1] = 1
    seen = []
    teacher = Teacher(cast(Any, Enlarging(0)), 1, SIDE)
    teacher.net.register_forward_hook(lambda _, inputs, __: seen.extend(inputs[0]))
    teacher.mix(corner, torch.zeros(8, 3, 2 * SIDE, 2 * SIDE), torch.arange(SYMMETRIES))
    assert len({tuple(image[0].nonzero()[0].tolist()) for image in seen}) == SYMMETRIES


def test_results_beyond_black_and_white_are_cut() -> None:
    x, target = torch.ones(1, 3, SIDE, SIDE), torch.zeros(1, 3, 2 * SIDE, 2 * SIDE)
    assert torch.equal(teach(1, 1, 0, x, target), torch.ones_like(target))


@pytest.fixture
def teacher(config, tmp_path) -> Any:
    torch.manual_seed(5)
    net = build_network(dataclasses.replace(NETWORK, embed_dim=36), "upscale")
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(serialize_weights(net, config, 0))
    return path


def test_a_network_learns_from_its_teacher(config, teacher) -> None:
    alone, with_none = (
        Trainer(config),
        Trainer(dataclasses.replace(config, teacher=teacher, teacher_share=0.0)),
    )
    taught = Trainer(dataclasses.replace(config, teacher=teacher, teacher_share=1.0))
    for trainer in (alone, with_none, taught):
        trainer.advance()  # all see the same crops
    assert alone.mean_loss() == with_none.mean_loss() != taught.mean_loss()
    before = load_network(teacher).state_dict()
    assert taught._teacher is not None
    after = taught._teacher.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # it does not learn
    path = train(dataclasses.replace(config, teacher=teacher, steps=8, output=config.output / "taught"))
    assert path is not None
    assert load_weights(path)


def test_a_teacher_of_another_kind_is_refused(config, tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(serialize_weights(build_network(RESTORER, "denoise"), config, 0))
    with pytest.raises(UsageError, match=r"cannot learn from .*other\.safetensors: it is for scale 1 and 3"):
        Trainer(dataclasses.replace(config, teacher=path))


def test_a_run_with_a_teacher_goes_on_as_if_it_had_not_been_stopped(config, teacher) -> None:
    config = dataclasses.replace(config, teacher=teacher)
    whole = Trainer(config)
    for _ in range(4):
        whole.advance()
    half = Trainer(config)
    for _ in range(2):
        half.advance()
    config.output.mkdir(parents=True)
    half.save()
    resumed = Trainer(config)
    resumed.load()
    for _ in range(2):
        resumed.advance()
    for name, x in whole.net.state_dict().items():
        assert torch.equal(x, resumed.net.state_dict()[name]), name
    with pytest.raises(UsageError, match=r"with no --teacher: it was begun with --teacher "):
        Trainer(dataclasses.replace(config, teacher=None)).load()
    changed = dataclasses.replace(config, teacher=None, output=config.output / "alone")
    changed.output.mkdir()
    Trainer(changed).save()
    with pytest.raises(UsageError, match=r"with --teacher .*: it was begun with no --teacher"):
        Trainer(dataclasses.replace(changed, teacher=teacher)).load()
