"""Run a network over an image, tile by tile; knows no files and no names of models."""

import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mambair_cli.errors import MambairError
from mambair_cli.images import from_float
from mambair_cli.kernels import self_check
from mambair_cli.kernels.cuda_graph import Replayed
from mambair_cli.networks import Network, fuse_network
from mambair_cli.restore.limits import limit
from mambair_cli.restore.row_window import Pixels
from mambair_cli.restore.settings import Precision
from mambair_cli.restore.tiling import NUMPY, Arrays, Plan, blend_tiles
from mambair_cli.system.notices import SlowerWarning

OnTiles = Callable[[int, int], None]
"""Called with the number of tiles that are done and of all tiles, after every batch."""


class Bench(NamedTuple):
    """Where tiles lie, and results are blended and made into samples: in memory, or on the computing device.

    Attributes:
        room: Given a shape, returns memory for tiles, float32, from which a device takes them the fastest.
        arrays: Results come in.
        at_work: Opens a context in which that is done.
        fetch: Given rows of the result and a dtype, returns them in memory, clipped to [0, 1] and rounded to
            samples of the dtype; without one, as they are.
    """

    room: Callable[[tuple[int, ...]], np.ndarray]
    arrays: Arrays
    at_work: Callable[[], AbstractContextManager]
    fetch: Callable[[Any, np.dtype | None], np.ndarray]


MEMORY = Bench(
    partial(np.empty, dtype=np.float32),
    NUMPY,
    nullcontext,
    lambda rows, dtype: rows if dtype is None else from_float(rows, dtype),
)


class TileComputer(Protocol):
    """What computes batches of tiles: an engine of this process, or those of others.

    Attributes:
        scale: Output pixels per input pixel and side.
        ahead: Batches that may be under way while another is collected.
        bench: Where its results are blended.
    """

    scale: int
    ahead: int
    bench: Bench

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> Any:
        """Begin with a batch of tiles, (b, h, w, c), whose top left corners in the image are given."""
        ...

    def collect(self, launched: Any) -> Any:
        """Wait for a batch, (b, s·h, s·w, c), in arrays of the bench."""
        ...


def blend_rows(
    computer: TileComputer,
    image: Pixels,
    plan: Plan,
    batch: int,
    seed: int | None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Any]:
    """Restore an image and yield its rows as they are done; the first tiles are begun with at once.

    Args:
        computer: Has the network.
        image: (h, w, c) float32 in [0, 1], with as many channels as the network has.
        plan: Tiles of that image.
        batch: Tiles computed at once. A last batch that is short is filled up with its last tile, so
            that a tile's result does not depend on how many others there are.
        seed: Of the noise that MambaIRv2 draws; None for none.
        on_tiles: Told of progress.

    Yields:
        (rows, s·w, c) float32, from top to bottom, not clipped, for the computer's bench to fetch.

    Raises:
        torch.OutOfMemoryError: Where the device does not hold a batch.
        MambairError: Where even float32 gives values that are not finite.
    """
    tiles = run_tiles(computer, image, plan, list(plan), batch, seed, on_tiles)
    bands = blend_tiles(plan, tiles, computer.scale, computer.bench.arrays)

    def blend() -> Iterator[Any]:
        while True:
            with computer.bench.at_work():
                rows = next(bands, None)
            if rows is None:
                return
            yield rows

    return blend()


def run_image(
    computer: TileComputer, image: Pixels, plan: Plan, batch: int, seed: int | None, dtype: str = "float32"
) -> np.ndarray:
    """Restore an image as :func:`restore_rows` does, and fetch it, rounded to samples of a dtype."""
    rows = blend_rows(computer, image, plan, batch, seed)
    return np.concatenate([computer.bench.fetch(band, np.dtype(dtype)) for band in rows])


def run_tiles(
    computer: TileComputer,
    image: Pixels,
    plan: Plan,
    corners: list[tuple[int, int]],
    batch: int,
    seed: int | None,
    on_tiles: OnTiles | None = None,
) -> Iterator[Any]:
    """Restore some tiles of a plan, those of the given corners; else as :func:`restore_rows`.

    Yields:
        (s·h, s·w, c) float32 for each, not blended, in arrays of the bench.
    """
    batches = -(-len(corners) // batch) if corners else 0
    batch = -(-len(corners) // batches) if batches else 0  # batches alike: little to fill up
    waiting = deque(corners[start : start + batch] for start in range(0, len(corners), batch or 1))
    launched: deque[tuple[int, Any]] = deque()

    def launch() -> None:
        group = waiting.popleft()
        filled = group + group[-1:] * (batch - len(group))
        tiles = [image[y : y + plan.tile_height, x : x + plan.tile_width] for y, x in filled]
        together = np.stack(tiles, out=computer.bench.room((batch, *tiles[0].shape)))
        launched.append((len(group), computer.launch(together, filled, seed)))

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


# What PyTorch raises where a device fails; before 2.8 there was no name for it.
DEVICE_ERROR: type[Exception] = getattr(torch, "AcceleratorError", type("NoError", (Exception,), {}))

STAYS = ("cuda",)  # kinds of devices that blend what they compute
_BITS = {"uint8": torch.uint8, "uint16": torch.int16}  # what samples are computed as

PROBE_SIDE = 64  # pixels
PROBE_TOLERANCE = 4 / 255  # 16-bit products differ by half of 1/255 at most, wrong ones by far more


class Engine:
    """A network on a device, ready for images of any size.

    Attributes:
        net: The network, in eval mode.
        device: Where it computes.
        scale: Output pixels per input pixel and side.
        ahead: Batches that may be under way while another is collected.
        bench: Where results are blended: where they are computed.
        half: Whether products and convolutions are in float16. The scan's recurrence, the norms and the
            residual stream are in float32 always.
        is_bare: Whether results are left as the network gives them, not held to their input by ``limits``.
    """

    def __init__(
        self, net: Network, device: torch.device, precision: Precision = "auto", is_bare: bool = True
    ) -> None:
        self.net = net.to(device)
        self.device = device
        self.is_bare = is_bare
        self.half = precision == "fp16" or (precision == "auto" and device.type == "cuda")
        self._on_gpu = device.type == "cuda"
        self.scale = net.info.scale
        self.ahead = 2 if self._on_gpu else 0
        self._stays = device.type in STAYS
        self._main = torch.cuda.current_stream(device) if self._on_gpu else None
        self._side = torch.cuda.Stream(device) if self._on_gpu else None
        self.bench = MEMORY
        if self._stays:
            arrays = Arrays(partial(torch.zeros, device=device), partial(torch.as_tensor, device=device))
            room = _pinned_room if self._on_gpu else MEMORY.room
            self.bench = Bench(room, arrays, self._blending, self._fetch)
        self._fused = fuse_network(self.net) if self.half and self._on_gpu else None
        self._fast = None if self._fused is None else Replayed(self._fused)
        self._is_tried = False

    def run(self, x: Tensor, origin: Tensor, seed: int | None) -> Tensor:
        """Run the network on tiles (b, c, h, w) whose corners in the image are ``origin``, (b, 2)."""
        if self._fast is not None:
            try:
                if not self._is_tried:
                    self._try_fast(x.shape[1])
                return self._fast(x, origin, seed)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever compilers at run time raise: there is a way without them
                self._fast = self._fused = None
                warnings.warn(
                    f"the faster way on this GPU is not taken, since it fails: {error}",
                    SlowerWarning,
                    stacklevel=2,
                )
        with self._autocast():
            return self.net(x, seed=seed, origin=origin).float()

    def _try_fast(self, channels: int) -> None:
        """Hold the faster way against the plain one, once on a machine: cards differ, and so do compilers.

        Raises:
            ArithmeticError: They disagree.
        """
        self._is_tried = True
        what = repr(self.net.config)
        if self_check.is_known(what, self.device):
            return
        probe = torch.rand(1, channels, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
        assert self._fused is not None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                got, wanted = self._fused.compare(probe.to(self.device))
            except RuntimeError as error:
                if type(error) is not RuntimeError or not said:  # memory, or the device itself
                    raise
                # Of why it has no kernel PyTorch warns, and the exception does not tell.
                reason = str(said[-1].message).split(" (Triggered")[0]
                raise RuntimeError(f"{error} {reason}") from error
        difference = (got - wanted).abs().max().item()
        if not math.isfinite(difference):
            raise ArithmeticError("it gives values that are not finite")
        if difference > PROBE_TOLERANCE:
            raise ArithmeticError(f"its values differ by {difference:.2g} from those of the plain way")
        self_check.remember(what, self.device)

    def launch(self, tiles: np.ndarray, corners: list[tuple[int, int]], seed: int | None) -> "_Launched":
        """Have the network run on a batch of tiles, (b, h, w, c), without waiting for it on a GPU."""
        with torch.inference_mode(), _exact_convolutions(self.device), self._stream():
            x, origin = torch.from_numpy(tiles), torch.tensor(corners)
            if self._on_gpu and not x.is_pinned():
                x = x.pin_memory()
            x = x.to(self.device, non_blocking=self._on_gpu).permute(0, 3, 1, 2)
            y = self.run(x, origin, seed)
            rows, finite = self._hold(x, y), _is_finite(y)
            if not self._on_gpu:
                return _Launched(tiles, x, origin, seed, rows, finite.cpu(), None)
            kept = torch.empty(finite.shape, dtype=torch.bool, pin_memory=True)
            kept.copy_(finite, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            return _Launched(tiles, x, origin, seed, rows, kept, event)

    def collect(self, launched: "_Launched") -> Any:
        """Wait for a batch, and do tiles that are not finite again in float32; (b, s·h, s·w, c)."""
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
        return rows if self._stays else rows.cpu().numpy()

    def _hold(self, x: Tensor, y: Tensor) -> Tensor:
        """Make rows of what the network gives, (b, s·h, s·w, c), held to its input unless bare."""
        y = y if self.is_bare else limit(x, y, self.scale)
        return y.permute(0, 2, 3, 1).contiguous()

    @contextmanager
    def _blending(self) -> Iterator[None]:
        """Blend beside the batch that is being computed meanwhile."""
        with torch.inference_mode(), nullcontext() if self._side is None else torch.cuda.stream(self._side):
            yield

    def _fetch(self, rows: Tensor, dtype: np.dtype | None) -> np.ndarray:
        """Round on the device: what is brought to memory is a quarter then."""
        with self._blending():
            if dtype is not None:
                rows = rows.clamp(0, 1)
                if dtype != np.float32:  # devices know hardly anything of uint16, but its bits
                    rows = (rows * float(np.iinfo(dtype).max)).round().to(torch.int32).to(_BITS[dtype.name])
            if self._side is None:
                kept = rows.cpu()
            else:
                kept = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
                kept.copy_(rows, non_blocking=True)
                self._side.synchronize()
            return kept.numpy().view(dtype or np.float32)

    def _stream(self) -> AbstractContextManager:
        return nullcontext() if self._main is None else torch.cuda.stream(self._main)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.float16) if self.half else nullcontext()


class _Launched(NamedTuple):
    """A batch that is being computed.

    Attributes:
        tiles: In memory, (b, h, w, c), from which they may still be on their way.
        x: On the device, (b, c, h, w).
        origin: Row and column of each in the image, (b, 2).
        seed: Of the noise that MambaIRv2 draws.
        rows: Results on the device, (b, s·h, s·w, c), once the event has happened.
        finite: Whether each tile's values are, (b, 1, 1, 1), in memory.
        event: On a GPU.
    """

    tiles: np.ndarray
    x: Tensor
    origin: Tensor
    seed: int | None
    rows: Tensor
    finite: Tensor
    event: torch.cuda.Event | None


def _pinned_room(shape: tuple[int, ...]) -> np.ndarray:
    """Return memory that the system leaves where it is, such that a GPU can read it beside all else."""
    return torch.empty(shape, pin_memory=True).numpy()


def _is_finite(y: Tensor) -> Tensor:
    """Tell for each tile whether it holds neither a NaN nor an infinity, (b, 1, 1, 1)."""
    return y.isfinite().flatten(1).all(1)[:, None, None, None]


_turns = threading.RLock()


@contextmanager
def _exact_convolutions(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding float32 to 19 bits and from choosing algorithms by the clock.

    Such is set for a whole process: its threads take turns at giving a GPU work, as recorded graphs, which
    have one place for their input, want it, too.
    """
    if device.type != "cuda":
        yield
        return
    with _turns, torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
