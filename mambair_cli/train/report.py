"""The report of a run, which grows with it: ``report.html``, and the examples that it shows."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.errors import MambairError
from mambair_cli.images import from_float, to_float
from mambair_cli.pages.screen import encode_for_screen, to_address
from mambair_cli.pages.training import write_report
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.folder import (
    EXAMPLE_SUFFIX,
    EXAMPLES_FOLDER,
    INPUT,
    NAMES_FILE,
    REPORT_FILE,
    TRUTH,
    explaining_write_errors,
    write_file,
)

MOST_EXAMPLES = 4
SIDE = 128  # of an example, in pixels of the network's output
_LEFT_OUT = ("output", "network", "images", "validation")
_OF_ONE_TASK = {"scale": "upscale", "sigma": "denoise", "quality": "dejpeg"}  # settings that others lack


class RunReport:
    """Writes the report of a run.

    Examples are files of the run's folder, so that a resumed run has those of before. Their names have
    numbers, since names of images may be too long for more; a list has the names.

    Args:
        config: Settings of the run.
        log: Its log.
        notify: Called with a sentence, once, if something of the report cannot be written or read.
    """

    def __init__(self, config: TrainConfig, log: Path, notify: Callable[[str], None]) -> None:
        self._config, self._log, self._notify = config, log, notify
        self._folder = config.output / EXAMPLES_FOLDER
        self._is_reported = False

    def add(self, step: int, name: str, image: np.ndarray, restored: np.ndarray, truth: np.ndarray) -> None:
        """Keep the middle of an image as an example.

        Args:
            step: Step of the measurement.
            name: Name of the image.
            image: Input of the network, (h, w, c) float32.
            restored: Its output, (s·h, s·w, c) float32.
            truth: What it should be, (s·h, s·w, c), uint8 or float32.
        """
        with self._going_on():
            self._add(step, name, image, restored, truth)

    def _add(self, step: int, name: str, image: np.ndarray, restored: np.ndarray, truth: np.ndarray) -> None:
        shown, truth = (from_float(to_float(pixels), np.uint8) for pixels in (image, truth))
        height, width = truth.shape[:2]
        if shown.shape != truth.shape:
            enlarged = Image.fromarray(shown.squeeze()).resize((width, height), Image.Resampling.NEAREST)
            shown = np.asarray(enlarged).reshape(truth.shape)
        with explaining_write_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
        names = self._read_names()
        if name not in names:
            names.append(name)
            write_file(self._folder / NAMES_FILE, json.dumps(names).encode())
        for kind, pixels in ((INPUT, shown), (TRUTH, truth), (str(step), from_float(restored, np.uint8))):
            file = self._folder / f"{kind}_{names.index(name)}{EXAMPLE_SUFFIX}"
            write_file(file, encode_for_screen(_cut_middle(pixels)))

    def _read_names(self) -> list[str]:
        """Return the names of the images that have examples, in the order of their numbers."""
        file = self._folder / NAMES_FILE
        return json.loads(file.read_bytes()) if file.exists() else []

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Say what fails in the block; a report that lacks something is no reason to end a training."""
        try:
            yield
        except (MambairError, OSError, ValueError) as error:
            if not self._is_reported:
                self._is_reported = True
                self._notify(f"the training goes on, but not its report: {error}")

    def write(self) -> None:
        """Write the report anew."""
        with self._going_on():
            self._write()

    def _write(self) -> None:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        last = lines[-1]["step"] if lines else 0
        kinds: dict[str, dict[str, str]] = {}
        names = dict(enumerate(self._read_names()))
        for file in sorted(self._folder.glob(f"*{EXAMPLE_SUFFIX}")) if self._folder.is_dir() else ():
            kind, _, number = file.stem.partition("_")
            name = names.get(int(number), number) if number.isdecimal() else number
            if not kind.isdecimal() or int(kind) <= last:
                kinds.setdefault(kind, {})[name] = to_address(np.asarray(Image.open(file)))
        restored = {int(kind): examples for kind, examples in kinds.items() if kind.isdecimal()}
        page = write_report(
            f"Training: {_describe_task(self._config)}",
            _describe_settings(self._config),
            lines,
            kinds.get(INPUT, {}),
            kinds.get(TRUTH, {}),
            restored,
        )
        write_file(self._config.output / REPORT_FILE, page.encode())


def _cut_middle(pixels: np.ndarray) -> np.ndarray:
    """Cut out the middle of a picture as (h, w, 3) uint8."""
    top, left = (max(0, (length - SIDE) // 2) for length in pixels.shape[:2])
    part = pixels[top : top + SIDE, left : left + SIDE]
    return np.ascontiguousarray(part.repeat(3 // part.shape[2], axis=2))


def _describe_task(config: TrainConfig) -> str:
    return f"{config.task} ×{config.scale}" if config.scale > 1 else config.task


def _describe_settings(config: TrainConfig) -> Mapping[str, str]:
    """Return the settings that people compare, as texts."""
    shown = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in _LEFT_OUT and _OF_ONE_TASK.get(field.name, config.task) == config.task
    }
    if config.network is not None:
        shown |= {field.name: getattr(config.network, field.name) for field in fields(config.network)}
    return {name.replace("_", " "): _show(value) for name, value in shown.items() if value not in (None, "")}


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
