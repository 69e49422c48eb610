"""The restorer: image in, image out, by one model on one device."""

import threading
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from mambair_cli.checkpoints.catalog import Asked, Task
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.select import (
    ChosenModel,
    PictureKind,
    check_fit,
    choose_model,
    choose_others,
    find_kind,
)
from mambair_cli.images.picture import ReadRows
from mambair_cli.images.stretch import Stretch
from mambair_cli.inspection.need import Need
from mambair_cli.restore import copying
from mambair_cli.restore.checks import (
    check_arguments,
    check_checkpoints,
    check_flags,
    check_image,
    check_samples,
)
from mambair_cli.restore.devices import choose_device
from mambair_cli.restore.engine import OnTiles, TileComputer
from mambair_cli.restore.ensemble import EnsembleComputer
from mambair_cli.restore.loaded_network import LoadedNetwork
from mambair_cli.restore.restoration import Restoration
from mambair_cli.restore.settings import ImageSettings, Precision, RestoreSettings
from mambair_cli.restore.tile_size import TileSettings, choose_tiles
from mambair_cli.restore.tiling import Plan, Report
from mambair_cli.restore.whole import restore_whole
from mambair_cli.system.geometry import Wrap


class Restorer:
    """Restores images with one model on one device: ``restored = restorer(image)``.

    An image is an array (h, w) or (h, w, c), uint8, uint16 or float32 in [0, 1]. c is 1 (gray), 2 (gray and
    transparency), 3 (RGB) or 4 (RGB and transparency); where transparency is 0, colours are not kept. Other
    channels: one call for each, ``np.stack([restorer(each) for each in stack])``.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Output pixels per input pixel and side; 1 for denoise and dejpeg.
        level: Noise sigma of 255 or JPEG quality, to choose a model by; None if it is unknown. No effect with
            "upscale", ``weights`` or a named model, and where the model is for all levels.
        model: Name in the catalogue; "auto", which looks at each image and chooses a model for it; "clean" or
            "real", for noisy, compressed or blurred pictures: that one may enlarge further than ``scale``,
            ``info.scale`` times.
        weights: Checkpoint to use instead of a model of the catalogue.
        device: "auto", or a device as torch names it.
        precision: "fp32"; "fp16" for matrix products and convolutions; "auto" is fp16 on CUDA, else fp32.
        tile: Largest side of a tile, in pixels of the input; by default 256. On CUDA images up to 256 are one
            tile; for larger ones the default is fitted to the image for MambaIR, 192 for MambaIRv2, and 136
            for a U-Net.
        overlap: Smallest number of pixels that neighbouring tiles share; by default 16.
        seed: Random seed of MambaIRv2's inference noise; None for no noise.
        offline: Use only what is on this machine.
        quiet: Show no progress of downloads.
        notify: Called with a sentence that the user should read; by default, nothing is called.
        strength: Share of the network's result, 0 to 1; the rest is the input, enlarged by Lanczos' kernel.
        ensemble: Whether to average eight turned and mirrored forms of each tile, eight times as slow.
        wrap: Directions in which the edges of images meet, "x", "y" or "both", as in textures and 360°
            pictures; "none" for neither.
        bare: Whether results are the network's own, as the papers measure them; by default they stay close to
            their input where that is smooth, see ``limits``.
        others: Checkpoints to use for kinds of pictures, as the attribute has them; None to choose them where
            ``model`` is "auto".

    Attributes:
        model: The chosen checkpoint.
        others: Checkpoints for kinds of pictures that it does not suit; empty where no image is looked at.
        is_offline: Whether nothing is downloaded.
        notice: Sentence about that choice for the user, if there is one.
        net: Its network.
        info: Facts about the network.
        loaded: The network, and what computes tiles by it.
        own: Settings that may differ from image to image.
        tiles: Sizes by which images are cut into tiles.
        device: Device that computes.

    Raises:
        ModelError: No model is available, or the named one does not fit the task.
        UsageError: There is no such task, scale or device, or the tile and the overlap do not fit each other.
    """

    def __init__(
        self,
        task: Task = "upscale",
        scale: int | None = None,
        level: float | None = None,
        model: str = "auto",
        weights: str | Path | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        tile: int | None = None,
        overlap: int | None = None,
        seed: int | None = 0,
        offline: bool = False,
        quiet: bool = False,
        notify: Callable[[str], None] = lambda sentence: None,
        strength: float = 1.0,
        ensemble: bool = False,
        wrap: Wrap = "none",
        bare: bool = False,
        others: Mapping[PictureKind, ChosenModel] | None = None,
    ) -> None:
        own = ImageSettings(tile, overlap, seed, strength, ensemble, wrap)
        asked = Asked(task, scale, level, model, weights)
        self.own = check_arguments(asked, device, precision, own)
        check_checkpoints(weights, others)
        check_flags(offline=offline, quiet=quiet, bare=bare)
        if task == "upscale":
            asked = replace(asked, level=None)  # for this task no damage is named
        self.device = choose_device(device)
        choose_tiles(self.own.tile, self.own.overlap, self.device.type)  # before anything is fetched
        self.precision: Precision = precision
        self.bare = bare
        self.model = choose_model(asked, self.device.type, offline, quiet)
        self.notice = self.model.tell(offline)
        if self.notice:
            notify(self.notice)
        if others is None and asked.is_open and not bare:
            others = choose_others(asked, self.device.type, offline, quiet)
            for notice in filter(None, (each.tell(offline) for each in others.values())):
                notify(notice)
        self.others = others or {}
        self.is_offline = offline
        self._others_loaded: dict[ChosenModel, Restorer] = {}
        self._loading = threading.Lock()
        self._find_other: Callable[[ChosenModel], Restorer] | None = None
        self._computer_for: Callable[[PictureKind], TileComputer] | None = None
        self._task: Task = task
        self._load(asked)

    def _load(self, asked: Asked) -> None:
        """Load the network of the chosen model."""
        net = load_network(self.model.path)
        check_fit(net.info, asked, self.model)
        self.net, self.info = net, net.info
        self.loaded = LoadedNetwork(net, self.device, self.precision, self.bare)
        self.tiles = self._choose_tiles(self.own)

    __copy__, __reduce__ = copying.share, copying.reduce

    @classmethod
    def from_settings(
        cls, settings: RestoreSettings, notify: Callable[[str], None] = lambda sentence: None
    ) -> "Restorer":
        """Make a restorer from a record of its arguments."""
        return cls(**settings.arguments, notify=notify)

    @property
    def computer(self) -> TileComputer:
        """What computes tiles; the network goes to its device at the first use, in any thread."""
        computer = self.loaded.computer
        return EnsembleComputer(computer) if self.own.ensemble else computer

    def by(
        self, computer: TileComputer, computer_for: Callable[[PictureKind], TileComputer] | None = None
    ) -> "Restorer":
        """Return a restorer whose tiles another computer of the same network computes.

        Args:
            computer: What computes tiles.
            computer_for: Returns what computes the tiles of pictures of a kind that has another network.
        """
        other = copy(self)
        other.loaded, other._computer_for = self.loaded.by(computer), computer_for
        return other

    def sharing(
        self, others: Mapping[PictureKind, ChosenModel], find_other: "Callable[[ChosenModel], Restorer]"
    ) -> "Restorer":
        """Return a restorer that looks at images, and is given the restorers for other models.

        Args:
            others: Checkpoints for kinds of pictures, as the attribute has them.
            find_other: Returns the restorer for one of them, which other restorers may use, too.
        """
        other = copy(self)
        other.others, other._find_other = others, find_other
        return other

    def choose(self, need: Need) -> "Restorer":
        """Return the restorer for a picture that needs this: one of another model, or this one."""
        kind = find_kind(need, self.others)
        return self if kind is None else self.for_kind(kind)

    def for_kind(self, kind: PictureKind) -> "Restorer":
        """Return the restorer for a kind of pictures; its network is loaded at the first use, in any thread.

        Args:
            kind: One of ``others``.
        """
        find = self._find_other or self._load_once
        other = find(self.others[kind]).with_settings(self.own)
        return other.by(self._computer_for(kind)) if self._computer_for else other

    def alone(self) -> "Restorer":
        """Return a restorer that restores every picture by its own model, and looks at none."""
        other = copy(self)
        other.others = {}
        return other

    def _load_once(self, model: ChosenModel) -> "Restorer":
        """Return the restorer for another model, which copies of this one share."""
        with self._loading:
            if model not in self._others_loaded:
                other = self.alone()
                other.model, other.notice = model, None
                other._load(Asked(self._task))
                self._others_loaded[model] = other
            return self._others_loaded[model]

    def with_settings(self, own: ImageSettings) -> "Restorer":
        """Return a restorer by the same network on the same device, with settings of its own.

        Raises:
            UsageError: The tile and the overlap do not fit each other.
        """
        other = copy(self)
        other.own, other.tiles = own, self._choose_tiles(own)
        return other

    def _choose_tiles(self, own: ImageSettings) -> TileSettings:
        info = self.info
        return choose_tiles(own.tile, own.overlap, self.device.type, info.architecture, info.config, own.wrap)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Restore an image, (h, w) or (h, w, c): the result is of its kind, (s·h, s·w) or (s·h, s·w, c).

        c is 1 gray, 2 gray and transparency, 3 RGB, 4 RGB and transparency; for errors, see ``restore``.
        """
        return self.restore(image)[0]

    def restore(
        self, image: np.ndarray, on_tiles: OnTiles | None = None, any_range: bool = False
    ) -> tuple[np.ndarray, Report]:
        """Restore an image, in smaller tiles where memory does not hold the planned ones.

        Args:
            image: (h, w) or (h, w, c), uint8, uint16 or float32 in [0, 1], as the class says.
            on_tiles: Called with two numbers, of tiles done and of all tiles, after each batch of them; where
                smaller tiles are needed, they begin anew.
            any_range: Whether floats may lie outside [0, 1], as those of the papers' noisy inputs do.

        Returns:
            The restored image, of the same kind and ``scale`` times the size, and how it was computed.

        Raises:
            TypeError: It is no plain numpy array.
            ValueError: Its shape or its dtype is none of an image.
            ImageError: Its floats lie outside [0, 1], or are not finite.
            MemoryLimitError: The device does not hold even the smallest tile.
            UsageError: The network cannot restore such an image.
            MambairError: The network gives values that are not finite.
        """
        image = check_image(image, any_range)
        restored, report = restore_whole(self, np.atleast_3d(image), on_tiles)
        return (restored[:, :, 0] if image.ndim == 2 else restored), report

    def open_rows(
        self,
        read: ReadRows,
        shape: tuple[int, ...],
        on_tiles: OnTiles | None = None,
        dtype: DTypeLike | None = np.float32,
        masks: int = 0,
        stretch: Stretch | None = None,
    ) -> Restoration:
        """Return a restoration of an image that is read row after row, not begun yet.

        Args:
            read: Reads rows, see :class:`Restoration`.
            shape: Shape of the image, (h, w, c): c as for :meth:`restore`, and the masks.
            on_tiles: Called with the progress, as by :meth:`restore`.
            dtype: Type of the result's samples: uint8, uint16 or float32; values are rounded once. None for
                float32 that is not clipped.
            masks: Number of samples after colours and alpha, each enlarged like alpha.
            stretch: How the image is stretched for the network; None to leave it.

        Raises:
            UsageError: The network cannot restore such an image.
        """
        check_samples(shape[2] - masks, self.info, self.model.name)
        return Restoration(self, read, shape, on_tiles, dtype, masks, stretch)

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        return self.tiles.plan(height, width)
