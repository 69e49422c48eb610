"""Kill a run over a folder at random moments, resume each time, and compare the end with an undisturbed run.

python benchmarks/kill.py --kills 100
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mambair_cli.runs.journal import JOURNAL_FILE

COMMAND = ("-m", "mambair_cli", "denoise", "photos", "--json", "--quiet")
Start = Callable[[Sequence[str], Path], Any]
"""Starts ``python ARGUMENTS`` in a folder, with pipes for what it writes."""


@dataclass(frozen=True)
class Findings:
    """The outcome of a trial.

    Attributes:
        kills: Number of runs that were ended by SIGKILL before they were complete.
        differing: Results that differ from those of the undisturbed run, or are missing.
        stray: Files that are neither results nor the journal.
        repeated: Images that were reported as done more than once.
    """

    kills: int
    differing: list[str]
    stray: list[str]
    repeated: list[str]

    @property
    def is_sound(self) -> bool:
        """Whether the result is that of the undisturbed run."""
        return not (self.differing or self.stray or self.repeated)


def start_process(arguments: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True)


def kill_and_resume(
    folder: Path,
    options: list[str],
    kills: int,
    longest: float,
    workers: int = 1,
    seed: int = 0,
    start: Start = start_process,
) -> Findings:
    """Run a trial.

    Args:
        folder: Folder that holds ``photos`` and receives the results.
        options: More options of the command, for example its model.
        kills: Number of runs to kill.
        longest: Longest time from a run's first event to its kill, in seconds.
        workers: Processes of each run but the undisturbed one.
        seed: Random seed of the moments.
        start: Starts each run.

    Raises:
        RuntimeError: A run ends before it is complete, and by itself.
    """
    run_to_end([*options, "-o", "undisturbed"], folder, start)
    options = [*options, "--resume", "-o", "results", *(["--workers", str(workers)] if workers > 1 else [])]
    draw = random.Random(seed)
    done: Counter[str] = Counter()
    ended = 0
    while ended < kills:
        with start([*COMMAND, *options], folder) as process:
            first = process.stdout.readline()  # the model is loaded
            time.sleep(draw.uniform(0, longest))
            process.send_signal(signal.SIGKILL)
            printed = [first, *process.stdout.readlines()]
        done.update(inputs_done(printed))
        if any('"summary"' in line for line in printed):  # the run was complete: start again
            for path in (folder / "results").rglob("*"):
                if path.is_file():
                    path.unlink()
            done.clear()
        elif process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"a run failed by itself, with exit code {process.returncode}")
        else:
            ended += 1
    done.update(inputs_done(run_to_end(options, folder, start)))
    wanted, got = contents(folder / "undisturbed"), contents(folder / "results")
    return Findings(
        ended,
        sorted(name for name in wanted if got.get(name) != wanted[name]),
        sorted(got.keys() - wanted.keys()),
        sorted(name for name, times in done.items() if times > 1),
    )


def run_to_end(options: list[str], folder: Path, start: Start) -> list[str]:
    with start([*COMMAND, *options], folder) as process:
        lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    return lines


def inputs_done(lines: list[str]) -> list[str]:
    """Return the inputs that whole lines report as done."""
    events = [json.loads(line) for line in lines if line.rstrip().endswith("}")]
    return [event["input"] for event in events if event["event"] == "done"]


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL_FILE]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def make_photographs(folder: Path, images: int, width: int, height: int) -> None:
    folder.mkdir()
    for index in range(images):
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds")
    parser.add_argument("--workers", type=int, default=1, help="processes of each run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        make_photographs(Path(name, "photos"), arguments.images, 64, 48)
        options = ["--model", "tiny-denoise", "--offline"]
        findings = kill_and_resume(Path(name), options, arguments.kills, arguments.longest, arguments.workers)
    print(findings)
    sys.exit(not findings.is_sound)


if __name__ == "__main__":
    main()
