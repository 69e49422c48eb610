"""The restorer: image in, image out, by one model on one device."""

import threading
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import DTypeLike

from mambair_cli.checkpoints.catalog import REAL, Task
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.select import (
    ChosenModel,
    PictureKind,
    check_fit,
    choose_model,
    choose_others,
    find_kind,
    looks,
)
from mambair_cli.images import from_float, to_float
from mambair_cli.images.picture import ReadRows
from mambair_cli.images.stretch import Stretch
from mambair_cli.inspection.need import Need
from mambair_cli.networks import Network
from mambair_cli.restore import copying
from mambair_cli.restore.channels import from_channels, to_channels
from mambair_cli.restore.checks import (
    check_arguments,
    check_checkpoints,
    check_flags,
    check_image,
    check_samples,
)
from mambair_cli.restore.devices import choose_device
from mambair_cli.restore.engine import Engine, OnTiles, TileComputer
from mambair_cli.restore.ensemble import EnsembleComputer
from mambair_cli.restore.lazy_computer import LazyComputer
from mambair_cli.restore.restoration import Restoration
from mambair_cli.restore.settings import ImageSettings, Precision, RestoreSettings
from mambair_cli.restore.strength import enlarge, mix
from mambair_cli.restore.tile_cost import choose_batch
from mambair_cli.restore.tile_size import TileSettings, choose_tiles
from mambair_cli.restore.tile_threads import TileThreads, count_side_by_side
from mambair_cli.restore.tiling import Plan, Report, plan_tiles
from mambair_cli.restore.whole import restore_whole
from mambair_cli.system.values import Wrap

# Pixels up to which small images of one size are one batch of a GPU, and the largest number of them.
# Both follow from the size alone: the shape of a batch moves bits, the number of images in a run must not.
# On a CPU each of them has a thread of its own, and neither matters.
PIXELS_TOGETHER = {"cuda": 256**2}
MOST_TOGETHER = {"cuda": 16}


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
        self.own = check_arguments(task, scale, level, model, device, precision, own)
        check_checkpoints(weights, others)
        check_flags(offline=offline, quiet=quiet, bare=bare)
        level = None if task == "upscale" else level  # for this task no damage is named
        self.device = choose_device(device)
        choose_tiles(self.own.tile, self.own.overlap, self.device.type)  # before anything is fetched
        self.precision: Precision = precision
        # Of this process, for tiles side by side; a GPU takes them together.
        self._threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self.bare = bare
        self.model = choose_model(task, scale, level, model, weights, self.device.type, offline, quiet)
        self.notice = self.model.tell(offline)
        if self.notice:
            notify(self.notice)
        if others is None and looks(level, model, weights) and not bare:
            others = choose_others(task, scale, self.device.type, offline, quiet)
            for notice in filter(None, (each.tell(offline) for each in others.values())):
                notify(notice)
        self.others = others or {}
        self.is_offline = offline
        self._others_loaded: dict[PictureKind, Restorer] = {}
        self._loading = threading.Lock()
        self._computer_for: Callable[[PictureKind], TileComputer] | None = None
        self._task: Task = task
        net = load_network(self.model.path)
        check_fit(net.info, task, None if model == REAL else scale, self.model)
        self._take(net)

    def _take(self, net: Network) -> None:
        """Take a network; it goes to its device when it is first used."""
        self.net, self.info = net, net.info
        self.tiles = self._choose_tiles(self.own)
        self._computer = LazyComputer(self._make_computer)
        self._is_neutral: dict[tuple[int, ...], bool] = {}  # by shape: images do not affect each other

    __copy__, __reduce__ = copying.share, copying.reduce

    def _make_computer(self) -> TileComputer:
        engine = Engine(self.net, self.device, self.precision, self.bare)
        return TileThreads(engine, self._threads) if self._threads > 1 else engine

    @classmethod
    def from_settings(
        cls, settings: RestoreSettings, notify: Callable[[str], None] = lambda sentence: None
    ) -> "Restorer":
        """Make a restorer from a record of its arguments."""
        return cls(**vars(settings), notify=notify)

    @property
    def computer(self) -> TileComputer:
        """What computes tiles; the network goes to its device at the first use, in any thread."""
        return EnsembleComputer(self.single_computer) if self.own.ensemble else self.single_computer

    @property
    def single_computer(self) -> TileComputer:
        """What computes each tile once, whether or not there is an ensemble."""
        return self._computer.get()

    def by(
        self, computer: TileComputer, computer_for: Callable[[PictureKind], TileComputer] | None = None
    ) -> "Restorer":
        """Return a restorer whose tiles another computer of the same network computes.

        Args:
            computer: What computes tiles.
            computer_for: Returns what computes the tiles of pictures of a kind that has another network.
        """
        other = copy(self)
        other._computer, other._threads = LazyComputer(lambda: computer), 1
        other._computer_for = computer_for
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
        with self._loading:
            if kind not in self._others_loaded:
                self._others_loaded[kind] = self._load_other(self.others[kind])
            other = self._others_loaded[kind]
        other = other.with_settings(self.own)
        return other.by(self._computer_for(kind)) if self._computer_for else other

    def alone(self) -> "Restorer":
        """Return a restorer that restores every picture by its own model, and looks at none."""
        other = copy(self)
        other.others = {}
        return other

    def _load_other(self, model: ChosenModel) -> "Restorer":
        other = self.alone()
        other.model, other.notice = model, None
        net = load_network(model.path)
        check_fit(net.info, self._task, None, model)
        other._take(net)
        return other

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

    def choose_batch(self, plan: Plan) -> int:
        """Return the number of an image's tiles that are computed at once."""
        if self._threads > 1:
            tile = plan.tile_height, plan.tile_width
            return max(1, min(len(plan), count_side_by_side(tile, self.info.config, self._threads)))
        return choose_batch(plan, self.info.config, self.device.type)

    def count_together(self, shape: tuple[int, ...], masks: int = 0) -> int:
        """Return the number of images of a shape (h, w, c) that are computed at once; 1 for large ones."""
        height, width, samples = shape
        has_more = masks > 0 or samples % 2 == 0  # masks, or alpha
        if has_more or self.own.wrap != "none" or max(height, width) > max(self.tiles.side, self.tiles.whole):
            return 1
        if self._threads > 1:
            return count_side_by_side((height, width), self.info.config, self._threads)
        kind = self.device.type
        return max(1, min(MOST_TOGETHER.get(kind, 1), PIXELS_TOGETHER.get(kind, 0) // (height * width)))

    def restore_together(
        self, images: Sequence[np.ndarray], dtype: DTypeLike | None = np.float32
    ) -> Callable[[], tuple[list[np.ndarray], Report]]:
        """Begin small images of one shape together: on a CPU side by side, on a GPU in one batch.

        A batch is filled up if they are too few; where an image's place in it moves a bit, each image is then
        computed alone.

        Args:
            images: Images, no more than :meth:`count_together` returns; (h, w, 1 or 3), of any dtype that
                :meth:`restore` takes.
            dtype: Type of the results' samples, as for :meth:`open_rows`.

        Returns:
            A function that waits for them and returns them, (s·h, s·w, c) each, and how they were computed.

        Raises:
            torch.OutOfMemoryError: The device does not hold them at once.
            UsageError: The network cannot restore such images.
        """
        shape = images[0].shape
        check_samples(shape[2], self.info, self.model.name)
        compute = self._compute_together(images)

        def collect() -> tuple[list[np.ndarray], Report]:
            restored = compute()
            if len(images) > 1 and self._threads == 1:
                if shape not in self._is_neutral:
                    alone = self._compute_together(images[-1:])()[0]
                    self._is_neutral[shape] = np.array_equal(alone, restored[-1])
                if not self._is_neutral[shape]:  # a result must not depend on the other images
                    restored = [self._compute_together([image])()[0] for image in images]
            finished = []
            for rows, image in zip(restored, images, strict=True):
                rows = from_channels(rows, image, shape[2], self.info.channels)
                if self.own.strength < 1:
                    rows = mix(rows, enlarge(to_float(image), self.info.scale), self.own.strength)
                finished.append(rows if dtype is None else from_float(rows, dtype))
            plan = plan_tiles(shape[0], shape[1], max(shape[:2]), 0)
            return finished, Report(plan, self.count_together(shape), False)

        return collect

    def _compute_together(self, images: Sequence[np.ndarray]) -> Callable[[], list[np.ndarray]]:
        """Begin images, on a GPU in a batch that is filled up with the last one."""
        batch = len(images) if self._threads > 1 else self.count_together(images[0].shape)
        filled = [*images, *[images[-1]] * (batch - len(images))]
        prepared = [to_channels(image, images[0].shape[2], self.info.channels) for image in filled]
        tiles = np.stack(prepared, out=self.computer.allocate((batch, *prepared[0].shape)))
        launched = self.computer.launch(tiles, [(0, 0)] * batch, self.own.seed)

        def collect() -> list[np.ndarray]:
            with self.computer.buffers.blending():
                restored = self.computer.collect(launched)[: len(images)]
            return [self.computer.buffers.fetch(rows) for rows in restored]

        return collect
