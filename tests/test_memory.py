"""Memory that runs out: distinguished from other errors, and put into a line with a code of its own."""

import errno
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import torch
from checkpoints import save_nearest
from PIL import Image

from mambair_cli.cli import main
from mambair_cli.errors import MemoryLimitError
from mambair_cli.networks import MambaIR
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.system import process
from mambair_cli.system.memory import explaining_memory, is_out_of_memory, passing_over_memory

# As PyTorch 2 words it.
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 10240000 bytes. Error code 12 (Cannot allocate memory)"
)
FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError(ALLOCATOR),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ImportError("libtorch_cpu.so: cannot allocate memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
]
OTHER = [
    RuntimeError("expected scalar type Float but found Half"),
    RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive"),
    ImportError("No module named 'torch'"),
    ImportError("a.so: failed to map segment from shared object: Operation not permitted"),
    ImportError("a.so: cannot allocate memory in static TLS block"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("can't allocate memory"),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_what_means_that_memory_ran_out_is_an_error_of_its_own(error: Exception) -> None:
    assert is_out_of_memory(error)
    with pytest.raises(MemoryLimitError, match=r"^out of memory for a\.png; "), explaining_memory("a.png"):
        raise error
    with passing_over_memory():
        raise error


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)
    for block in (explaining_memory("a.png"), passing_over_memory()):
        with pytest.raises(type(error)) as caught, block:
            raise error
        assert caught.value is error


def test_an_error_keeps_no_memory_of_the_calls_that_it_has_ended() -> None:
    alive: list[bool] = []

    class Tensor:
        def __del__(self) -> None:
            alive.pop()

    def compute() -> None:
        tensor = Tensor()
        alive.append(True)
        raise MemoryError(repr(tensor))

    with pytest.raises(MemoryLimitError) as caught, explaining_memory("a.png"):
        compute()
    assert caught.value.__cause__ is not None
    assert not alive


def test_freed_memory_is_kept_until_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    class Library:
        def __init__(self, name: None) -> None:
            pass

        def mallopt(self, *arguments: int) -> int:
            calls.append(arguments)
            return 1

        def malloc_trim(self, left: int) -> int:
            calls.append(("trim", left))
            return 1

    monkeypatch.setattr(process, "_is_kept", process.threading.Event())
    monkeypatch.setattr(process.ctypes, "CDLL", Library)
    monkeypatch.setattr(process.sys, "platform", "linux")
    process.return_memory()
    assert not calls  # nothing to undo where a program has not asked for it
    process._keep_memory()
    calls.clear()
    process.return_memory()
    usual = process.USUAL_THRESHOLD
    assert calls == [(process.TRIM_THRESHOLD, usual), (process.MMAP_THRESHOLD, usual), ("trim", 0)]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    save_nearest(tmp_path / "x2.safetensors", 2)
    (tmp_path / "in").mkdir()
    for value, name in enumerate(("a", "b", "c")):
        Image.fromarray(np.full((70, 70 + value, 3), value, np.uint8)).save(f"in/{name}.png")
    return ["upscale", "in", "--weights", "x2.safetensors", "-s", "2", "-o", "out"]


def test_a_cpu_without_memory_makes_tiles_smaller_and_the_run_goes_on(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = MambaIR.forward

    def cramped(net: MambaIR, x: torch.Tensor, **options: Any) -> torch.Tensor:
        if x.shape[0] * x.shape[2] * x.shape[3] > 40 * 40:
            raise RuntimeError(ALLOCATOR)
        return forward(net, x, **options)

    monkeypatch.setattr(MambaIR, "forward", cramped)
    assert main([*pictures, "--json"]) == 0
    done = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:-1]
    assert [(one["event"], one["shrunk"]) for one in done] == 3 * [("done", True)]


@pytest.mark.parametrize("error", [RuntimeError(ALLOCATOR), MemoryError()], ids=repr)
@pytest.mark.parametrize("stage", ["_look", "_begin_frame"])
def test_an_image_that_needs_too_much_memory_fails_alone(
    stage: str,
    error: Exception,
    pictures: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = getattr(ImageJob, stage)

    def fail(job: ImageJob, *arguments: Any) -> Any:
        if "b.png" in str(job.prepared.job.source):
            raise error
        return before(job, *arguments)

    monkeypatch.setattr(ImageJob, stage, fail)
    assert main([*pictures, "--json"]) == MemoryLimitError.exit_code
    out, err = capsys.readouterr()
    assert "error: out of memory for in/b.png; close other programs" in err.replace("\\", "/")
    events = [json.loads(line) for line in out.splitlines()][1:]
    (failed,) = (one for one in events if one["event"] == "failed")
    assert failed["kind"] == "MemoryLimitError"
    assert (events[-1]["event"], events[-1]["done"], events[-1]["failed"]) == ("summary", 2, 1)
    assert sorted(path.name for path in Path("out").glob("*.png")) == ["a.png", "c.png"]


@pytest.mark.parametrize("error", [MemoryError(), FULL[6]], ids=repr)
def test_memory_that_runs_out_anywhere_in_a_command_is_a_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("mambair_cli.checkpoints.catalog.load_catalog", fail)
    assert main(["models", "list"]) == MemoryLimitError.exit_code
    assert capsys.readouterr().err == (
        "mambair: error: out of memory for this command; close other programs, or lift the limits on this "
        "one (`ulimit -a`)\n"
    )


@pytest.mark.parametrize(
    "reason",
    [
        "glib: Error creating thread: Resource temporarily unavailable",
        "vips_tracked: out of memory -- size == 9MB",
    ],
)
def test_libvips_without_memory_is_no_fault_of_the_format(
    reason: str, pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise pyvips.Error("unable to call pngsave_target", reason)

    monkeypatch.setattr("mambair_cli.images.writers.save_to", fail)
    assert main(pictures) == MemoryLimitError.exit_code
    err = capsys.readouterr().err
    assert err.count("error: out of memory for ") == 3
    assert "another format" not in err


def test_a_thread_that_cannot_start_costs_one_image(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start, begun = threading.Thread.start, []

    def fail_first(thread: threading.Thread) -> None:
        if thread.name == "mambair-encode":
            begun.append(thread)
            if len(begun) == 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_first)
    assert main(pictures) == MemoryLimitError.exit_code
    assert "error: out of memory for " in capsys.readouterr().err
    assert len(list(Path("out").glob("*.png"))) == 2


def test_the_trial_of_a_dry_run_and_a_measurement_fail_in_a_line(
    pictures: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(net: MambaIR, x: torch.Tensor, **options: Any) -> torch.Tensor:
        raise RuntimeError(ALLOCATOR)

    monkeypatch.setattr(MambaIR, "forward", fail)
    assert main([*pictures, "--dry-run"]) == MemoryLimitError.exit_code
    assert "out of memory" in capsys.readouterr().err
    evaluate = ["evaluate", "in", "--task", "upscale", "-s", "2", "--weights", "x2.safetensors"]
    assert main(evaluate) == MemoryLimitError.exit_code
    assert "out of memory" in capsys.readouterr().err
