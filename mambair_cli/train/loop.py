"""A run from its first step to its last, with its log, its measurements and its saved states."""

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mambair_cli.errors import MambairError, UsageError
from mambair_cli.train.config import TrainConfig, check_config
from mambair_cli.train.run import STATE_FILE, WEIGHTS_FILE, Run, write_whole, writing
from mambair_cli.train.validation import load_validation, measure

LOG_FILE = "log.jsonl"
LOG_EVERY = 100  # steps
AGREE_EVERY = 20  # steps between two times that several processes ask each other whether to stop

Record = dict[str, float]
"""One line of the log: step, seconds, and either loss and learning_rate or a psnr for each level."""


def train(
    config: TrainConfig,
    resume: bool = False,
    report: Callable[[Record], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Path | None:
    """Train a network, or go on with a run that was interrupted, as if it had not been.

    Ctrl-C ends the step in hand, saves the state and raises KeyboardInterrupt. Where a launcher started
    several processes, all train the one network; the first of them writes and reports.

    Args:
        config: The run.
        resume: Whether to go on from the state in ``config.output``.
        report: Given each record as it is logged.
        on_step: Told after each step how many are done.

    Returns:
        The checkpoint, of averaged weights; None in every process but the first.

    Raises:
        UsageError: Where the settings contradict each other, the network, or the state, or there is nothing
            to train on.
        ImageError: Where a photograph cannot be read.
        CheckpointError: Where the weights or the state cannot be loaded.
        MemoryLimitError: Where the device does not hold the photographs.
        MambairError: Where training diverges, or its folder cannot be written.
    """
    check_config(config)
    if not resume and (config.output / STATE_FILE).exists():
        raise UsageError(
            f"cannot train into {config.output}: it holds a run; go on with it by --resume, "
            "or choose another folder"
        )
    run = Run(config)
    if resume:
        run.load()
    is_main = run.processes.is_main
    validation = load_validation(config, run.net.info.channels) if is_main else {}
    with writing(config.output):
        config.output.mkdir(parents=True, exist_ok=True)
    log = Log(config.output / LOG_FILE, run.step, report) if is_main else None
    with _interrupt_deferred() as pressed:
        saved = time.monotonic()
        stopped = False
        while run.step < config.steps and not stopped:
            learning_rate = run.learning_rate
            run.advance()
            if is_main and on_step:
                on_step(run.step)
            is_last = run.step == config.steps
            if is_last or run.step % LOG_EVERY == 0:
                loss = _finite_loss(run)
                run.forget_loss()
                if log:
                    log.write({"step": run.step, "loss": loss, "learning_rate": learning_rate})
            if log and validation and (is_last or run.step % config.validate_every == 0):
                log.write({"step": run.step, **measure(run.averaged, validation, config)})
            if is_main and time.monotonic() - saved > config.save_every:
                _finite_loss(run)
                run.save()
                saved = time.monotonic()
            if run.processes.count == 1 or run.step % AGREE_EVERY == 0:
                stopped = run.processes.any(pressed())
        _finite_loss(run)
        if is_main:
            run.save()
    run.processes.leave()
    if stopped and run.step < config.steps:
        raise KeyboardInterrupt
    return config.output / WEIGHTS_FILE if is_main else None


class Log:
    """The log of a run: one JSON object a line."""

    def __init__(self, path: Path, step: int, report: Callable[[Record], None] | None) -> None:
        """Open a log, without what it tells of steps after ``step``, which will be done again."""
        with writing(path):
            lines = path.read_text().splitlines() if step and path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())
        self.path = path
        self._report = report
        self._before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._begun = time.monotonic()

    def write(self, record: Record) -> None:
        """Add a record, with the seconds that the run has taken."""
        record = {**record, "seconds": round(self._before + time.monotonic() - self._begun, 1)}
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._report:
            self._report(record)


def _step_of(line: str) -> float:
    """Return the step that a line of the log tells of; of one that was cut off, none that is kept."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite_loss(run: Run) -> float:
    loss = run.mean_loss()
    if not math.isfinite(loss):
        raise MambairError(
            f"training diverged before step {run.step}: the loss is {loss}; lower the learning rate"
        )
    return loss


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, or request to terminate, into a question to ask between steps.

    The second is as ever.
    """
    pressed = False
    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield lambda: False
        return

    def note(_signal: int, _frame: Any) -> None:
        nonlocal pressed
        pressed = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: pressed
    finally:
        restore()
