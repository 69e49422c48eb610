import gc
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import save_nearest, save_random
from forked import run_forked
from networks import CONFIGS
from pictures import noise
from torch import Tensor

from mambair_cli.kernels.once import Once
from mambair_cli.networks import MambaIR, MambaIRConfig
from mambair_cli.networks.layers import VSSBlock
from mambair_cli.restore import tile_threads
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.tile_threads import count_side_by_side, share_out

THREADS = 4
PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nearest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_nearest(tmp_path_factory.mktemp("weights") / "nearest.safetensors", 2)


def watch(monkeypatch: pytest.MonkeyPatch, see) -> None:
    """Have each pass of a MambaIR call ``see`` with its tiles before it begins."""
    forward = MambaIR.forward

    def watched(net, x: Tensor, **options) -> Tensor:
        see(x)
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", watched)


@pytest.mark.parametrize(
    ("name", "options"),
    [("v1 ×2", {"ensemble": True}), ("v2 light", {"wrap": "both"}), ("U-Net", {"bare": True})],
)
def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path: Path, name: str, options) -> None:
    config = CONFIGS[name]
    weights = save_random(tmp_path / "random.safetensors", config)
    task = "denoise" if name == "U-Net" else "upscale"
    image = noise(90, 61, 4, dtype="uint16")
    results = []
    for threads in (1, 3, THREADS):
        torch.set_num_threads(threads)
        results.append(Restorer(task, weights=weights, device="cpu", tile=48, **options)(image))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_tiles_of_a_batch_are_computed_at_the_same_time(nearest: Path, monkeypatch) -> None:
    together = threading.Barrier(THREADS)
    watch(monkeypatch, lambda x: together.wait(PATIENCE_SECONDS))
    image = noise(32, 128, 3, dtype="uint8")
    restored = Restorer(weights=nearest, device="cpu", tile=32, overlap=0)(image)
    np.testing.assert_array_equal(restored, image.repeat(2, 0).repeat(2, 1))


def test_processors_are_shared_out_and_never_used_twice(nearest: Path, monkeypatch) -> None:
    lock, at_work, seen = threading.Lock(), Counter(), []

    def see(x: Tensor) -> None:
        own, count = threading.get_ident(), torch.get_num_threads()
        with lock:
            at_work[own] = count
            seen.append((count, sum(at_work.values())))
        time.sleep(0.02)
        with lock:
            del at_work[own]

    watch(monkeypatch, see)
    restorer = Restorer(weights=nearest, device="cpu", tile=64, overlap=0)
    restorer(noise(192, 192, 3, dtype="uint8"))
    assert sorted(count for count, _ in seen) == [1] * 8 + [THREADS]  # two batches of four, then one alone
    assert max(total for _, total in seen) <= THREADS
    numbers: list[int] = []
    other = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert [torch.get_num_threads(), *numbers] == [THREADS, THREADS]  # other threads are left as they were


def test_a_batch_that_memory_does_not_hold_is_halved(nearest: Path, monkeypatch) -> None:
    passes, together = itertools.count(), threading.Barrier(THREADS)
    lock, at_work, most = threading.Lock(), [], []

    def see(x: Tensor) -> None:
        if next(passes) < THREADS:
            together.wait(PATIENCE_SECONDS)
            raise torch.OutOfMemoryError("no room")
        with lock:
            at_work.append(x)
            most.append(len(at_work))
        time.sleep(0.02)
        with lock:
            at_work.pop()

    watch(monkeypatch, see)
    image = noise(64, 64, 3, dtype="uint8")
    restored, report = Restorer(weights=nearest, device="cpu", tile=32, overlap=0).restore(image)
    np.testing.assert_array_equal(restored, image.repeat(2, 0).repeat(2, 1))
    assert (report.shrunk, report.batch, report.plan.tile_height) == (True, 2, 32)
    assert max(most) <= 2


def test_small_tiles_have_few_threads(nearest: Path, monkeypatch) -> None:
    seen: list[int] = []
    watch(monkeypatch, lambda x: seen.append(torch.get_num_threads()))
    for side in (20, 46, 64):
        Restorer(weights=nearest, device="cpu")(noise(side, side, 3))
    assert seen == [1, 2, 4]


def test_tiles_that_nobody_waits_for_stop_at_the_next_block(tmp_path: Path, monkeypatch) -> None:
    deep = MambaIRConfig(32, (40,), 4, 32, upscale=2, upsampler="pixelshuffledirect")
    weights = save_random(tmp_path / "deep.safetensors", deep)
    begun, blocks, forward = threading.Event(), [], VSSBlock.forward

    def slow(block, x, paths):
        blocks.append(x.shape)
        begun.set()
        time.sleep(0.05)
        return forward(block, x, paths)

    monkeypatch.setattr(VSSBlock, "forward", slow)
    image = noise(64, 64, 3)
    restorer = Restorer(weights=weights, device="cpu", tile=32, overlap=0)
    opened = restorer.open_rows(lambda top, bottom: image[top:bottom], image.shape)
    opened.begin()
    assert begun.wait(PATIENCE_SECONDS)
    del opened
    gc.collect()
    time.sleep(0.5)
    done = len(blocks)
    time.sleep(0.5)
    assert len(blocks) == done < 4 * 40


INTERRUPTED = """
import threading, time
import numpy as np
import torch
from mambair_cli.networks.layers import VSSBlock
from mambair_cli.restore.restorer import Restorer

torch.set_num_threads(2)
begun = threading.Event()
def slow(block, x, paths):
    begun.set()
    time.sleep(0.2)
    return x
VSSBlock.forward = slow
image = np.zeros((64, 64, 3), np.float32)
restorer = Restorer(weights="deep.safetensors", device="cpu", tile=32, overlap=0)
opened = restorer.open_rows(lambda top, bottom: image[top:bottom], image.shape)
opened.begin()
begun.wait(30)
print(time.time(), flush=True)
raise KeyboardInterrupt
"""


def test_the_end_of_a_process_does_not_wait_for_tiles(tmp_path: Path) -> None:
    deep = MambaIRConfig(32, (300,), 4, 32, upscale=2, upsampler="pixelshuffledirect")
    save_random(tmp_path / "deep.safetensors", deep)
    done = run_forked("-c", INTERRUPTED, cwd=tmp_path)
    assert time.time() - float(done.stdout) < 10  # where two tiles would take two minutes
    assert "KeyboardInterrupt" in done.stderr


FORK = """
import os
import numpy as np
import torch
from mambair_cli.restore.restorer import Restorer

torch.set_num_threads(2)
image = np.random.default_rng(0).random((64, 192, 3), dtype=np.float32)
restorer = Restorer(weights="nearest.safetensors", device="cpu", tile=64, overlap=0)
before = restorer(image)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(restorer(image), before) else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")
def test_a_fork_of_a_process_that_has_computed_computes_too(tmp_path: Path) -> None:
    save_nearest(tmp_path / "nearest.safetensors", 2)
    assert run_forked("-c", FORK, cwd=tmp_path).stdout.split() == ["0"]


@pytest.mark.parametrize(
    ("count", "threads", "sizes"),
    [
        (1, 8, (1,)),
        (4, 8, (4,)),
        (9, 8, (8, 1)),
        (25, 8, (8, 8, 8, 1)),
        (4, 6, (2, 2)),
        (5, 2, (2, 2, 1)),
        (7, 1, (1,) * 7),
    ],
)
def test_the_last_tiles_have_all_processors(count: int, threads: int, sizes: tuple[int, ...]) -> None:
    assert share_out(count, threads, threads) == sizes


@pytest.mark.parametrize("threads", [2, 3, 6, 8, 12, 16, 64])
def test_every_tile_is_in_a_batch(threads: int) -> None:
    for most in range(1, min(threads, 16) + 1):
        for count in (0, 1, 2, 7, 40, 1000):
            sizes = share_out(count, most, threads)
            assert sum(sizes) == count
            assert all(1 <= size <= most for size in sizes)


def test_no_more_tiles_are_side_by_side_than_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    light, classic = MambaIRConfig(60, (6,) * 4, 10, 72), MambaIRConfig(180, (6,) * 6, 16, 360)
    counts = {}
    for gibibytes in (1, 8, 16, 64):
        monkeypatch.setattr(tile_threads, "machine_memory", lambda memory=gibibytes * 2**30: memory)
        counts[gibibytes] = [count_side_by_side((237, 237), config, 16) for config in (light, classic)]
    assert counts == {1: [1, 1], 8: [8, 2], 16: [8, 5], 64: [8, 8]}
    monkeypatch.setattr(tile_threads, "machine_memory", lambda: None)
    assert count_side_by_side((237, 237), light, 4) == 4
    assert count_side_by_side((100, 100), light, 64) == tile_threads.MOST_TILES


def test_who_gives_tiles_to_others_gives_them_one_by_one(nearest: Path) -> None:
    restorer = Restorer(weights=nearest, device="cpu", tile=32, overlap=0)
    plan = restorer.plan(128, 128)
    assert restorer.loaded.choose_batch(plan) == THREADS
    assert restorer.by(restorer.computer).loaded.choose_batch(plan) == 1


def test_threads_that_need_a_kernel_at_once_have_it_compiled_once() -> None:
    made: list[int] = []

    @Once
    def make(number: int) -> object:
        made.append(number)
        time.sleep(0.05)
        return object()

    with ThreadPoolExecutor(THREADS) as threads:
        kernels = set(threads.map(make, [1] * 8))
    assert (made, len(kernels)) == ([1], 1)
    assert make(2) not in kernels
