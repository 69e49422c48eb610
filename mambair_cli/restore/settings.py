"""The settings of a restorer in records, which worker processes and other machines are sent whole."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from mambair_cli.checkpoints.catalog import Task
from mambair_cli.checkpoints.select import ChosenModel, PictureKind
from mambair_cli.system.geometry import Wrap

Precision = Literal["auto", "fp32", "fp16"]


def uses_half(precision: Precision, device_kind: str) -> bool:
    """Tell whether matrix products and convolutions are in float16, on a kind of device as torch names it."""
    return precision == "fp16" or (precision == "auto" and device_kind == "cuda")


def plain_precision(precision: Precision, device_kind: str) -> Precision:
    """Return "auto" for a precision that it stands for on a kind of device; others as they are."""
    return "auto" if uses_half(precision, device_kind) == uses_half("auto", device_kind) else precision


@dataclass(frozen=True)
class ImageSettings:
    """Settings that may differ from image to image where one network serves many.

    Attributes are the arguments of ``Restorer`` of these names, with the same defaults.
    """

    tile: int | None = None
    overlap: int | None = None
    seed: int | None = 0
    strength: float = 1.0
    ensemble: bool = False
    wrap: Wrap = "none"

    @classmethod
    def pick(cls, record: object) -> "ImageSettings":
        """Take what a record has under the same names."""
        return cls(**{field.name: getattr(record, field.name) for field in fields(cls)})


@dataclass(frozen=True)
class RestoreSettings:
    """How images are restored, and by which model; for ``Restorer.from_settings``.

    Attributes are the arguments of ``Restorer``, with the same defaults, except ``notify``.
    """

    task: Task = "upscale"
    scale: int | None = None
    level: float | None = None
    model: str = "auto"
    weights: str | Path | None = None
    device: str = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    overlap: int | None = None
    seed: int | None = 0
    offline: bool = False
    quiet: bool = False
    strength: float = 1.0
    ensemble: bool = False
    wrap: Wrap = "none"
    bare: bool = False
    others: Mapping[PictureKind, ChosenModel] | None = None

    @classmethod
    def pick(cls, options: object, **others: Any) -> "RestoreSettings":
        """Take what a record has under the same names; other arguments add to it, or replace it."""
        shared = {name: getattr(options, name) for name in SETTING_NAMES if hasattr(options, name)}
        return cls(**{**shared, **others})


SETTING_NAMES = tuple(field.name for field in fields(RestoreSettings))
