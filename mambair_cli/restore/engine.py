"""The network on a device, and an image through it tile by tile; knows no files and no names of models."""

import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mambair_cli.errors import MambairError
from mambair_cli.kernels import has_triton, self_check
from mambair_cli.kernels.cuda_graph import Replayed
from mambair_cli.networks import Network, fuse_network
from mambair_cli.programs import ahead
from mambair_cli.restore.device_buffers import DeviceBuffers
from mambair_cli.restore.limits import limit
from mambair_cli.restore.output_buffers import HostBuffers, OutputBuffers
from mambair_cli.restore.row_window import Pixels
from mambair_cli.restore.settings import Precision, uses_half
from mambair_cli.restore.tiling import Plan, blend_tiles
from mambair_cli.system.forked_locks import ForkedLock
from mambair_cli.system.notices import SlowerWarning

OnTiles = Callable[[int, int], None]
"""Called with the number of tiles done and the number of all tiles, after every batch."""


class TileComputer(Protocol):
    """What computes batches of tiles: an engine of this process, or worker processes.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Number of batches that may be under way while another is collected.
        buffers: Where results are blended.
    """

    scale: int
    ahead: int
    buffers: OutputBuffers

    def split(self, count: int, most: int) -> list[tuple[int, int]]:
        """Cut a number of tiles into batches of at most so many.

        Returns:
            For each batch the number of its tiles, and the number that it is filled up to with its last tile.
        """
        ...

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return float32 memory for tiles from which the copy to the device is fastest."""
        ...

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> Any:
        """Begin a batch of tiles, (b, h, w, c), at the given top left corners of the image."""
        ...

    def collect(self, launched: Any) -> Any:
        """Wait for a batch, and return it in the buffers, (b, s·h, s·w, c)."""
        ...


def blend_rows(
    computer: TileComputer,
    image: Pixels,
    plan: Plan,
    batch: int,
    seed: int | None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Any]:
    """Restore an image and yield its rows as they are done; the first tiles are begun at once.

    Args:
        computer: What computes the tiles.
        image: (h, w, c) float32 in [0, 1], with as many channels as the network has.
        plan: Tiles of that image.
        batch: Largest number of tiles computed at once.
        seed: Random seed of MambaIRv2's inference noise; None for no noise.
        on_tiles: Called with the progress.

    Yields:
        (rows, s·w, c) float32, from top to bottom, not clipped, in the computer's buffers.

    Raises:
        torch.OutOfMemoryError: The device does not hold a batch.
        MambairError: Even float32 gives values that are not finite.
    """
    tiles = run_tiles(computer, image, plan, list(plan), batch, seed, on_tiles)
    bands = blend_tiles(plan, tiles, computer.scale, computer.buffers)

    def blend() -> Iterator[Any]:
        while True:
            with computer.buffers.blending():
                rows = next(bands, None)
            if rows is None:
                return
            yield rows

    return blend()


def run_image(
    computer: TileComputer, image: Pixels, plan: Plan, batch: int, seed: int | None, dtype: str = "float32"
) -> np.ndarray:
    """Restore an image as :func:`blend_rows` does, and return it whole, rounded to samples of a dtype.

    The arguments are those of :func:`blend_rows`, and the dtype: "uint8", "uint16" or "float32".

    Returns:
        (s·h, s·w, c) of that dtype.
    """
    rows = blend_rows(computer, image, plan, batch, seed)
    return np.concatenate([computer.buffers.fetch_samples(band, np.dtype(dtype)) for band in rows])


def run_tiles(
    computer: TileComputer,
    image: Pixels,
    plan: Plan,
    corners: list[tuple[int, int]],
    batch: int,
    seed: int | None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Any]:
    """Restore the tiles of a plan at the given corners; for the rest, see :func:`blend_rows`.

    Yields:
        (s·h, s·w, c) float32 for each, not blended, in the computer's buffers.
    """
    waiting = deque(computer.split(len(corners), batch))
    left = iter(corners)
    launched: deque[tuple[int, Any]] = deque()

    def launch() -> None:
        count, full = waiting.popleft()
        group = list(islice(left, count))
        filled = group + group[-1:] * (full - count)
        tiles = [image[y : y + plan.tile_height, x : x + plan.tile_width] for y, x in filled]
        together = np.stack(tiles, out=computer.allocate((full, *tiles[0].shape)))
        places = [plan.place_in_image(corner) for corner in filled]
        launched.append((count, computer.launch(together, places, seed)))

    def collect() -> Iterator[Any]:
        done = 0
        while waiting or launched:
            # A GPU computes the next batches while the results of one are blended.
            while waiting and len(launched) <= computer.ahead:
                launch()
            count, batch_launched = launched.popleft()
            results = computer.collect(batch_launched)
            done += count
            yield from results[:count]
            if on_tiles:
                on_tiles(done, len(corners))

    while waiting and len(launched) < computer.ahead:
        launch()
    return collect()


def split_evenly(count: int, most: int) -> list[tuple[int, int]]:
    """Cut tiles into batches of one size; a short one is filled up with its last tile.

    So a tile's result does not depend on how many others there are, where the size of a batch moves bits.
    """
    batches = -(-count // most)
    size = -(-count // batches) if batches else 0
    return [(min(size, count - start), size) for start in range(0, count, size or 1)]


# The error that PyTorch raises when a device fails; before 2.8 it has no name of its own.
DEVICE_ERROR: type[Exception] = getattr(torch, "AcceleratorError", type("NoError", (Exception,), {}))

BLENDING_DEVICES = ("cuda",)  # kinds of devices that blend the tiles that they compute

# Two images, as tiles come in batches, of which the last blocks of kernels are not full; still a multiple of
# 16 pixels, as most tiles have, so that no more forms of Triton's programs are compiled than those need.
PROBE_IMAGES, PROBE_HEIGHT, PROBE_WIDTH = 2, 76, 84
PROBE_TOLERANCE = 4 / 255  # 16-bit products differ by half of 1/255 at most, wrong ones by far more


class Engine:
    """A network on a device, ready for images of any size.

    Attributes:
        net: The network, in eval mode.
        device: Device that computes.
        scale: Output pixels per input pixel and side.
        ahead: Number of batches that may be under way while another is collected.
        buffers: Where results are blended.
        half: Whether matrix products and convolutions are in float16. The scan's recurrence, the norms and
            the residual stream are always in float32.
        is_bare: Whether results are the network's own, not kept close to their input by ``limits``.
    """

    def __init__(
        self, net: Network, device: torch.device, precision: Precision = "auto", is_bare: bool = True
    ) -> None:
        self.net = net.to(device)
        self.device = device
        self.is_bare = is_bare
        self.half = uses_half(precision, device.type)
        self._on_gpu = device.type == "cuda"
        self.scale = net.info.scale
        self.ahead = 2 if self._on_gpu else 0
        self._main = torch.cuda.current_stream(device) if self._on_gpu else None
        self._side = torch.cuda.Stream(device) if self._on_gpu else None
        self._blends = device.type in BLENDING_DEVICES
        self.buffers: OutputBuffers = DeviceBuffers(device, self._side) if self._blends else HostBuffers()
        self._fused = fuse_network(self.net) if self.half and has_triton(device) else None
        self._fast = None if self._fused is None else Replayed(self._fused)
        self._is_tried = False

    def split(self, count: int, most: int) -> list[tuple[int, int]]:
        """Cut tiles into batches of one size."""
        return split_evenly(count, most)

    def run(self, x: Tensor, origin: Tensor, seed: int | None) -> Tensor:
        """Run the network on tiles (b, c, h, w) whose corners in the image are ``origin``, (b, 2)."""
        if self._fast is not None:
            try:
                if not self._is_tried:
                    self._try_fast(x.shape[1])
                    self._is_tried = True  # not where memory ran out meanwhile
                return self._fast(x, origin, seed)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # run-time compilers may raise anything; the plain path needs none
                self._fast = self._fused = None
                warnings.warn(
                    f"using the slower PyTorch path on this GPU: {error}",
                    SlowerWarning,
                    stacklevel=2,
                )
        with self._autocast():
            return self.net(x, seed=seed, origin=origin).float()

    def _try_fast(self, channels: int) -> None:
        """Compare the faster path with the plain one, once per machine: cards differ, and so do compilers.

        Raises:
            ArithmeticError: They disagree.
        """
        ahead.wait()  # before the first launch, which would compile the same again
        what = repr(self.net.config)
        if self_check.is_known(what, self.device):
            return
        generator = torch.Generator("cpu").manual_seed(0)
        shape = PROBE_IMAGES, channels, PROBE_HEIGHT, PROBE_WIDTH
        probe = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")
        assert self._fused is not None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                got, wanted = self._fused.compare(probe.to(self.device))
            except RuntimeError as error:
                if type(error) is not RuntimeError or not said:  # memory, or the device itself
                    raise
                # PyTorch warns why it has no kernel; its exception does not say so.
                reason = str(said[-1].message).split(" (Triggered")[0]
                raise RuntimeError(f"{error} {reason}") from error
        difference = (got - wanted).abs().max().item()
        if not math.isfinite(difference):
            raise ArithmeticError("the faster path gives values that are not finite")
        if difference > PROBE_TOLERANCE:
            raise ArithmeticError(f"the faster path differs by {difference:.2g} from the plain one")
        self_check.remember(what, self.device)

    def run_whole(self, x: Tensor, seed: int | None) -> Tensor:
        """Run the network on whole images that are on the device already, without limits and without tiles.

        Args:
            x: Images, (b, c, h, w) float32 in [0, 1].
            seed: Random seed of MambaIRv2's inference noise; None for no noise.

        Returns:
            (b, c, s·h, s·w) float32, not clipped; computed again in float32 if float16 is not finite.
        """
        origin = torch.zeros(x.shape[0], 2, dtype=torch.int64, device="cpu")
        with torch.inference_mode(), _exact_convolutions(self.device):
            y = self.run(x, origin, seed)
            return y if not self.half or y.isfinite().all() else self.net(x, seed=seed, origin=origin)

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return memory for tiles; for a GPU, pinned memory, which it copies from while it computes."""
        if self._on_gpu:
            return torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=True).numpy()
        return np.empty(shape, np.float32)

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> "_Launched":
        """Run the network on a batch of tiles, (b, h, w, c), without waiting for a GPU."""
        with torch.inference_mode(), _exact_convolutions(self.device), self._stream():
            x, origin = torch.from_numpy(tiles), torch.tensor(corners, dtype=torch.int64, device="cpu")
            if self._on_gpu and not x.is_pinned():
                x = x.pin_memory()
            x = x.to(self.device, non_blocking=self._on_gpu).permute(0, 3, 1, 2)
            y = self.run(x, origin, seed)
            rows, finite = self._hold(x, y), _is_finite(y)
            if not self._on_gpu:
                return _Launched(tiles, x, origin, seed, rows, finite.cpu(), None)
            kept = torch.empty(finite.shape, dtype=torch.bool, device="cpu", pin_memory=True)
            kept.copy_(finite, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            return _Launched(tiles, x, origin, seed, rows, kept, event)

    def collect(self, launched: "_Launched") -> Any:
        """Wait for a batch, (b, s·h, s·w, c); tiles that are not finite are computed again in float32.

        Raises:
            MambairError: Even float32 gives values that are not finite.
        """
        if launched.event is not None:
            launched.event.synchronize()
        finite, rows = launched.finite.all((1, 2, 3)), launched.rows
        if self.half and not finite.all():
            with torch.inference_mode(), _exact_convolutions(self.device):
                again = self.net(launched.x, seed=launched.seed, origin=launched.origin)
                redone = self._hold(launched.x, again)
                rows = torch.where(finite.to(self.device)[:, None, None, None], rows, redone)
                finite = _is_finite(again).cpu().all((1, 2, 3)) | finite
        if not finite.all():
            raise MambairError(
                "the network gives values that are not finite, even in float32; "
                "is the checkpoint meant for this task?"
            )
        if self._side is not None:
            rows.record_stream(self._side)
        return rows if self._blends else rows.cpu().numpy()

    def _hold(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the network's result as (b, s·h, s·w, c), kept close to its input unless bare."""
        y = y if self.is_bare else limit(x, y, self.scale)
        return y.permute(0, 2, 3, 1).contiguous()

    def _stream(self) -> AbstractContextManager:
        return nullcontext() if self._main is None else torch.cuda.stream(self._main)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.float16) if self.half else nullcontext()


class _Launched(NamedTuple):
    """A batch that is being computed.

    Attributes:
        tiles: Tiles in the host's memory, (b, h, w, c); the copy to the device may still be under way.
        x: Tiles on the device, (b, c, h, w).
        origin: Row and column of each tile in the image, (b, 2).
        seed: Random seed of MambaIRv2's inference noise; None for no noise.
        rows: Results on the device, (b, s·h, s·w, c), valid after the event.
        finite: Whether all values of a tile are finite, (b, 1, 1, 1), in the host's memory after the event.
        event: Event after which the batch is computed; None on devices that are not GPUs.
    """

    tiles: np.ndarray
    x: Tensor
    origin: Tensor
    seed: int | None
    rows: Tensor
    finite: Tensor
    event: torch.cuda.Event | None


def _is_finite(y: Tensor) -> Tensor:
    """Tell for each tile whether it holds neither a NaN nor an infinity, (b, 1, 1, 1)."""
    return y.isfinite().flatten(1).all(1)[:, None, None, None]


_turns = ForkedLock(threading.RLock)


@contextmanager
def _exact_convolutions(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding float32 to 19 bits and from choosing algorithms by measured time.

    These settings hold for the whole process, so its threads take turns at giving work to a GPU. Recorded
    graphs need that, too: they have one place for their input.
    """
    if device.type != "cuda":
        yield
        return
    with _turns, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
