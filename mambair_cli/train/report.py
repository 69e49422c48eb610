"""The report of a run, which grows with it: ``report.html``, and the examples that it shows."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from mambair_cli.images import from_float, to_float
from mambair_cli.pages.screen import encode_for_screen, to_address
from mambair_cli.pages.training import write_report
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.folder import (
    EXAMPLE_SUFFIX,
    EXAMPLES_FOLDER,
    INPUT,
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

    Examples are files of the run's folder, so that a resumed run has those of before.

    Args:
        config: Settings of the run.
        log: Its log.
    """

    def __init__(self, config: TrainConfig, log: Path) -> None:
        self._config, self._log = config, log
        self._folder = config.output / EXAMPLES_FOLDER

    def add(self, step: int, name: str, image: np.ndarray, restored: np.ndarray, truth: np.ndarray) -> None:
        """Keep the middle of an image as an example.

        Args:
            step: Step of the measurement.
            name: Name of the image.
            image: Input of the network, (h, w, c) float32.
            restored: Its output, (s·h, s·w, c) float32.
            truth: What it should be, (s·h, s·w, c), uint8 or float32.
        """
        shown, truth = (from_float(to_float(pixels), np.uint8) for pixels in (image, truth))
        height, width = truth.shape[:2]
        if shown.shape != truth.shape:
            enlarged = Image.fromarray(shown.squeeze()).resize((width, height), Image.Resampling.NEAREST)
            shown = np.asarray(enlarged).reshape(truth.shape)
        for kind, pixels in ((INPUT, shown), (TRUTH, truth), (str(step), from_float(restored, np.uint8))):
            file = self._folder / f"{kind}_{name}{EXAMPLE_SUFFIX}"
            with explaining_write_errors(file):
                self._folder.mkdir(exist_ok=True)
            write_file(file, encode_for_screen(_cut_middle(pixels)))

    def write(self) -> None:
        """Write the report anew.

        Raises:
            MambairError: It cannot be written.
        """
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        last = lines[-1]["step"] if lines else 0
        kinds: dict[str, dict[str, str]] = {}
        for file in sorted(self._folder.glob(f"*{EXAMPLE_SUFFIX}")) if self._folder.is_dir() else ():
            kind, _, name = file.stem.partition("_")
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
