"""Fit a network to folders of photographs: a checkpoint further, or a small network from nothing."""

from mambair_cli.train.config import TrainConfig
from mambair_cli.train.loop import Record, train

__all__ = ["Record", "TrainConfig", "train"]
