"""A run from its first step to its last, with its log, its measurements and its saved states."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from mambair_cli.errors import MambairError, UsageError
from mambair_cli.system import signals
from mambair_cli.train.config import TrainConfig, check_config
from mambair_cli.train.pace import measure_pace, warn_of
from mambair_cli.train.trainer import STATE_FILE, WEIGHTS_FILE, Trainer, write_whole, writing
from mambair_cli.train.validation import ValidationPair, load_validation, measure

LOG_FILE = "log.jsonl"
LOG_EVERY = 100  # steps
AGREE_EVERY = 20  # steps on GPUs between two times that several processes ask each other whether to stop
ANSWER = "finishing this step, to save the state; another Ctrl-C ends at once, without that"

Record = dict[str, float]
"""One line of the log: step, seconds, and either loss and learning_rate or a psnr for each level."""


def train(
    config: TrainConfig,
    resume: bool = False,
    report: Callable[[Record], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Path | None:
    """Train a network, or go on with a run that was interrupted, as if it had not been.

    At Ctrl-C, a request to terminate or a closed terminal it finishes the step, saves the state and raises
    KeyboardInterrupt. Where a launcher started several processes, all train the one network; the first of
    them writes and reports.

    Args:
        config: The run.
        resume: Whether to go on from the state in ``config.output``.
        report: Given each record as it is logged.
        on_step: Told after each step how many are done.
        notify: Told in a sentence how long a slow run will take.

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
    run = Trainer(config)
    if resume:
        run.load()
    is_main = run.processes.is_main
    validation = load_validation(config, run.net.info.channels) if is_main else {}
    with writing(config.output):
        config.output.mkdir(parents=True, exist_ok=True)
    log = Log(config.output / LOG_FILE, run.step, report) if is_main else None
    with signals.noting(ANSWER if is_main else None) as is_asked:
        _go_on(run, log, validation, is_asked, on_step, notify)
        _finite_loss(run)
        if is_main:
            run.save()
    run.processes.leave()
    if run.step < config.steps:
        raise KeyboardInterrupt
    return config.output / WEIGHTS_FILE if is_main else None


def _go_on(
    run: Trainer,
    log: "Log | None",
    validation: dict[str, list[ValidationPair]],
    is_asked: Callable[[], bool],
    on_step: Callable[[int], None] | None,
    notify: Callable[[str], None],
) -> None:
    """Do the steps that are left, or those until somebody asks to stop."""
    config, is_main = run.config, run.processes.is_main
    if run.step < config.steps and run.device.type != "cuda":
        pace = measure_pace(run.net, config, run.device, config.batch // run.processes.count)
        warning = warn_of(pace, config.steps - run.step, str(run.device))
        if is_main and warning:
            notify(warning)
    saved = time.monotonic()
    # A step on a CPU takes so long that to ask after each costs nothing.
    agree_every = AGREE_EVERY if run.processes.count > 1 and run.device.type == "cuda" else 1
    if log and validation and log.psnr_step < run.step and _is_measured(run):  # it was stopped in that
        _log_psnr(run, log, validation, is_asked)
    while run.step < config.steps:
        learning_rate = run.learning_rate
        run.advance()
        if is_main and on_step:
            on_step(run.step)
        if run.step == config.steps or run.step % LOG_EVERY == 0:
            loss = _finite_loss(run)
            run.forget_loss()
            if log:
                log.write({"step": run.step, "loss": loss, "learning_rate": learning_rate})
        if log and validation and _is_measured(run):
            _log_psnr(run, log, validation, is_asked)
        if is_main and time.monotonic() - saved > config.save_every:
            _finite_loss(run)
            run.save()
            saved = time.monotonic()
        if run.step % agree_every == 0 and run.processes.any(is_asked()):
            return


def _is_measured(run: Trainer) -> bool:
    """Tell whether there is to be a measurement after the last step."""
    return run.step > 0 and (run.step == run.config.steps or run.step % run.config.validate_every == 0)


def _log_psnr(
    run: Trainer, log: "Log", validation: dict[str, list[ValidationPair]], is_asked: Callable[[], bool]
) -> None:
    """Measure and log; nothing where somebody asks to stop meanwhile: it is done when the run goes on."""
    measured = measure(run.averaged, validation, run.config, is_asked)
    if measured:
        log.write({"step": run.step, **measured})


class Log:
    """The log of a run: one JSON object a line.

    Attributes:
        path: Of its file.
        psnr_step: Steps that were done at the last measurement; 0 before the first.
    """

    def __init__(self, path: Path, step: int, report: Callable[[Record], None] | None) -> None:
        """Open a log, without what it tells of steps after ``step``, which will be done again."""
        with writing(path):
            lines = path.read_text().splitlines() if step and path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept).encode())
        self.path = path
        self.psnr_step = max((_step_of(line) for line in kept if "psnr" in line), default=0)
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


def _finite_loss(run: Trainer) -> float:
    loss = run.mean_loss()
    if not math.isfinite(loss):
        raise MambairError(
            f"training diverged before step {run.step}: the loss is {loss}; lower the learning rate"
        )
    return loss
