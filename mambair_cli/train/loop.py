"""A training run from its first step to its last, with its log, measurements and saved states."""

import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np

from mambair_cli.errors import MambairError, MemoryLimitError
from mambair_cli.system import signals
from mambair_cli.system.memory import explaining_memory, is_out_of_memory
from mambair_cli.system.wording import show
from mambair_cli.train.config import TrainConfig, check_config
from mambair_cli.train.distributed import is_first_process
from mambair_cli.train.folder import (
    LOG_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    explaining_write_errors,
    hold_folder,
    note_pictures,
    refuse_no_run,
    refuse_older_run,
    write_file,
)
from mambair_cli.train.pace import explain_full, warn_if_slow
from mambair_cli.train.report import MOST_EXAMPLES, RunReport
from mambair_cli.train.trainer import Trainer
from mambair_cli.train.validation import ValidationPair, load_validation, measure

LOG_EVERY = 100  # steps
AGREE_EVERY = 20  # steps on GPUs after which several processes agree on whether to stop
STOP_MESSAGE = "finishing this step and saving the state; press Ctrl-C again to stop without saving"

Report = TypeVar("Report")
LogLine = dict[str, float]
"""A line of the log: step, seconds, and either loss and learning_rate or a PSNR for each level."""


def train(
    config: TrainConfig,
    resume: bool = False,
    report: Callable[[LogLine], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
    stop_answer: str | None = STOP_MESSAGE,
) -> Path | None:
    """Train a network, or continue an interrupted run.

    The result is that of a run without a break, if the pictures are the same; a sentence says if not.
    At Ctrl-C, a request to terminate or a closed terminal it finishes the step, saves the state and raises
    KeyboardInterrupt; so it does at an error of ``report`` or ``on_step``, which it raises then. Where a
    launcher started several processes, all train the same network; only the first one writes and reports.
    No other run writes into its folder meanwhile.

    Args:
        config: Settings of the run.
        resume: Whether to continue from the state in ``config.output``.
        report: Called with each line of the log.
        on_step: Called after each step with the number of steps done.
        notify: Called with sentences on what the run will take or that it is done, on crops larger than all
            images, on pictures, pages and frames that are not used or should not be, or are others than
            before the break, and on what a report lacks.
        stop_answer: Sentence printed at once when Ctrl-C or another signal comes; None for no line.

    Returns:
        Path of the checkpoint with the averaged weights; None in every process but the first.

    Raises:
        UsageError: The settings contradict each other, the network or the state, there are no images, or
            the folder holds files of another run or is in use by one, or no run to resume.
        ImageError: Images cannot be read; all are named.
        CheckpointError: The weights or the state cannot be loaded.
        MemoryLimitError: The device's memory cannot hold the images, or what a step or a measurement needs.
        MambairError: Training diverges, or its folder cannot be written.
    """
    check_config(config)
    with hold_folder(config.output) if is_first_process() else nullcontext():
        (refuse_no_run if resume else refuse_older_run)(config.output)
        try:
            return _train(config, resume, report, on_step, notify, stop_answer)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryLimitError(explain_full(config.device)) from error


def _train(
    config: TrainConfig,
    resume: bool,
    report: Callable[[LogLine], None] | None,
    on_step: Callable[[int], None] | None,
    notify: Callable[[str], None],
    stop_answer: str | None,
) -> Path | None:
    """Train as ``train`` does, in a folder that no other run uses."""
    trainer = Trainer(config)
    if resume:
        trainer.load()
    is_main = trainer.group.is_main
    if is_main:
        _foresee(trainer, notify)
    validation = load_validation(config, trainer.net.info.channels, notify) if is_main else {}
    caller = _Caller()
    report, on_step = caller.guard(report), caller.guard(on_step)
    log = Log(config.output / LOG_FILE, trainer.step, report) if is_main else None
    if is_main and (change := note_pictures(config.output, trainer.dataset.digest, trainer.step)):
        notify(change)
    pages = RunReport(config, log.path, notify) if log else None
    with signals.stop_requests(stop_answer if is_main else None) as is_stop_requested:

        def is_to_stop() -> bool:
            return is_stop_requested() or caller.error is not None

        _run_steps(trainer, log, pages, validation, is_to_stop, on_step)
        finite_loss(trainer)
        if pages:
            save_state(trainer)
            pages.write()
    trainer.group.close()
    if caller.error is not None:
        notify(_explain_end(trainer))
        raise caller.error
    if trainer.step < config.steps or (log and _lacks_psnr(trainer, log, validation)):
        raise KeyboardInterrupt
    return config.output / WEIGHTS_FILE if is_main else None


class _Caller:
    """Those who follow a run: an error there ends the run as a request to stop does.

    Attributes:
        error: The first error.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def guard(self, function: Callable[[Report], None] | None) -> Callable[[Report], None] | None:
        """Return a function that keeps an error of another one, and is silent from then on."""
        if function is None:
            return None

        def call(report: Report) -> None:
            if self.error is None:
                try:
                    function(report)
                except Exception as error:  # whatever it is, no step is to be lost
                    self.error = error

        return call


def _foresee(trainer: Trainer, notify: Callable[[str], None]) -> None:
    """Say what is left out of files, what crops lack, that no step is left, and how long a slow run takes."""
    config, pace, device = trainer.config, trainer.pace, str(trainer.device)
    remarks = (
        *trainer.dataset.remarks,
        trainer.dataset.explain_mirrored(config),
        f"all {config.steps} steps are done; larger --steps go on" if trainer.step == config.steps else None,
        warn_if_slow(pace, config.steps - trainer.step, device) if pace else None,
    )
    for remark in filter(None, remarks):
        notify(remark)


def _explain_end(trainer: Trainer) -> str:
    """Say what has become of a run that an error of its caller has ended."""
    folder = show(trainer.config.output)
    if trainer.step == trainer.config.steps:
        return f"all {trainer.step} steps are done and saved in {folder}"
    return f"stopped after step {trainer.step}, which is saved in {folder}; --resume goes on"


def _run_steps(
    trainer: Trainer,
    log: "Log | None",
    pages: RunReport | None,
    validation: dict[str, list[ValidationPair]],
    is_stop_requested: Callable[[], bool],
    on_step: Callable[[int], None] | None,
) -> None:
    """Do the remaining steps, or fewer if a stop is requested."""
    config, is_main = trainer.config, trainer.group.is_main
    saved = time.monotonic()
    # A step on a CPU takes so long that agreeing after each one costs nothing.
    agree_every = AGREE_EVERY if trainer.group.count > 1 and trainer.device.type == "cuda" else 1
    if log and _lacks_psnr(trainer, log, validation):  # stopped during that
        _log_psnr(trainer, log, pages, validation, is_stop_requested)
    while trainer.step < config.steps:
        learning_rate = trainer.learning_rate
        trainer.advance()
        if is_main and on_step:
            on_step(trainer.step)
        if trainer.step == config.steps or trainer.step % LOG_EVERY == 0:
            loss = finite_loss(trainer)
            trainer.reset_loss()
            if log:
                _write(trainer, log, {"step": trainer.step, "loss": loss, "learning_rate": learning_rate})
        if log and _lacks_psnr(trainer, log, validation):
            save_state(trainer)  # a measurement may find no memory
            saved = time.monotonic()
            _log_psnr(trainer, log, pages, validation, is_stop_requested)
        if is_main and time.monotonic() - saved > config.save_every:
            save_state(trainer)
            if pages:
                pages.write()
            saved = time.monotonic()
        if trainer.step % agree_every == 0 and trainer.group.any(is_stop_requested()):
            return


def _lacks_psnr(trainer: Trainer, log: "Log", validation: dict[str, list[ValidationPair]]) -> bool:
    """Tell whether a measurement is due after the last step, and not done."""
    is_due = trainer.step == trainer.config.steps or trainer.step % trainer.config.validate_every == 0
    return bool(validation) and is_due and log.psnr_step < trainer.step


def _log_psnr(
    trainer: Trainer,
    log: "Log",
    pages: RunReport | None,
    validation: dict[str, list[ValidationPair]],
    is_stop_requested: Callable[[], bool],
) -> None:
    """Measure and log, unless a stop is requested meanwhile; then it is done when the run is resumed.

    Raises:
        MemoryLimitError: The device's memory does not hold even the smallest tile.
    """
    examples: list[tuple[ValidationPair, np.ndarray]] = []
    shown = list(validation)[-1]  # the level of several that is seen best

    def keep(level: str, pair: ValidationPair, restored: np.ndarray) -> None:
        if level == shown and len(examples) < MOST_EXAMPLES:
            examples.append((pair, restored))

    what = f"the measurement after step {trainer.step} on {trainer.device}"
    with explaining_memory(what, "smaller pictures for --validation would work; --resume goes on from there"):
        measured = measure(trainer.averaged, validation, trainer.config, is_stop_requested, keep)
    if not measured:
        return
    _write(trainer, log, {"step": trainer.step, **measured})
    if pages:
        for pair, restored in examples:
            pages.add(trainer.step, pair.name, pair.image, restored, pair.truth)
        pages.write()


def _write(trainer: Trainer, log: "Log", line: LogLine) -> None:
    """Add a line to the log; a state comes before the first one.

    A log without a state could neither be continued nor replaced, if the run were killed then.
    """
    if not (trainer.config.output / STATE_FILE).exists():
        save_state(trainer)
    log.write(line)


def save_state(trainer: Trainer) -> None:
    """Save the state of a run and its weights, unless training has diverged.

    Raises:
        MambairError: It has, or they cannot be written.
    """
    finite_loss(trainer)
    trainer.save()


class Log:
    """The log of a run: one JSON object per line.

    Attributes:
        path: Path of its file.
        psnr_step: Step of the last measurement; 0 before the first.
    """

    def __init__(self, path: Path, step: int, report: Callable[[LogLine], None] | None) -> None:
        """Open a log, and drop its lines on steps after ``step``, which will be done again."""
        with explaining_write_errors(path):
            lines = path.read_text().splitlines() if step and path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_file(path, "".join(f"{line}\n" for line in kept).encode())
        self.path = path
        self.psnr_step = int(max((_step_of(line) for line in kept if "psnr" in line), default=0))
        self._report = report
        self._before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._begun = time.monotonic()

    def write(self, line: LogLine) -> None:
        """Add a line, with the seconds of the run so far."""
        line = {**line, "seconds": round(self._before + time.monotonic() - self._begun, 1)}
        with explaining_write_errors(self.path), self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if "loss" not in line:
            self.psnr_step = int(line["step"])
        if self._report:
            self._report(line)


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinity for a truncated line, which is dropped."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def finite_loss(trainer: Trainer) -> float:
    """Return the mean loss since the last line of the log.

    Raises:
        MambairError: It is not finite: training has diverged.
    """
    loss = trainer.mean_loss()
    if not math.isfinite(loss):
        raise MambairError(
            f"training diverged before step {trainer.step}: the loss is {loss}; lower the learning rate"
        )
    return loss
