"""The settings of a restorer in records, which worker processes and other machines are sent whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mambair_cli.checkpoints.catalog import Asked
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

    Pixels depend on each of them. The attributes are arguments of ``Restorer`` with the same defaults, and
    options under the same names. Their types say which values ``restore.checks`` lets pass.
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
        return cls(**{name: getattr(record, name) for name in IMAGE_SETTINGS if hasattr(record, name)})

    @property
    def changed(self) -> dict[str, Any]:
        """Those that differ from their defaults."""
        usual = vars(ImageSettings())
        return {name: value for name, value in vars(self).items() if value != usual[name]}


IMAGE_SETTINGS = tuple(each.name for each in fields(ImageSettings))


@dataclass(frozen=True)
class RestoreSettings:
    """How images are restored, and by which model; for ``Restorer.from_settings``.

    Attributes are the arguments of ``Restorer``, with the same defaults, except ``notify``: ``asked`` has
    those that choose the model, ``own`` those that may differ from image to image.
    """

    asked: Asked = field(default_factory=Asked)
    device: str = "auto"
    precision: Precision = "auto"
    own: ImageSettings = field(default_factory=ImageSettings)
    offline: bool = False
    quiet: bool = False
    bare: bool = False
    others: Mapping[PictureKind, ChosenModel] | None = None

    @classmethod
    def pick(cls, options: object, **others: Any) -> "RestoreSettings":
        """Take what a record has under the same names; other arguments add to it, or replace it."""
        names = [each.name for each in fields(cls)]
        shared = {name: getattr(options, name) for name in names if hasattr(options, name)}
        return cls(**{"own": ImageSettings.pick(options), **shared, **others})

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``Restorer`` by their names."""
        arguments = {**vars(self), **vars(self.asked), **vars(self.own)}
        return {name: value for name, value in arguments.items() if name not in ("asked", "own")}
