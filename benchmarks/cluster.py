"""Kill a node of a Ray cluster in the middle of a run, and compare the results with those of one process.

The cluster has two nodes on this machine, which this script starts and stops.

python -m benchmarks.cluster --images 200
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.batch import make_photographs
from benchmarks.kill import Start, contents
from mambair_cli.runs.journal import JOURNAL_FILE

COMMAND = ("-m", "mambair_cli", "upscale", "photos", "--json")


@dataclass(frozen=True)
class Findings:
    """The outcome of a trial.

    Attributes:
        killed_after: Images that were done when the node was killed; None if it was never killed.
        differing: Results that differ from those of one process, or are missing.
        stray: Files that are neither results nor the journal.
        repeated: Images that were reported as done more than once, or never.
        failed: Images that were reported as failed.
        redone: Images that a run of one process with --resume did again.
        computed_twice: Results that the journal has twice: the node had done them, but not reported them.
        said: Lines about the loss on the run's stderr.
        seconds: Time of the run after its start event, in seconds.
    """

    killed_after: int | None
    differing: list[str]
    stray: list[str]
    repeated: list[str]
    failed: list[str]
    redone: list[str]
    computed_twice: int
    said: list[str]
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether a node was lost, and nothing else went wrong."""
        wrong = self.differing or self.stray or self.repeated or self.failed or self.redone
        return self.killed_after is not None and bool(self.said) and not wrong


class Nodes:
    """A Ray cluster of two nodes on this machine.

    Args:
        cpus: Processors of each node.
    """

    def __init__(self, cpus: int = 1) -> None:
        from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]: optional

        self._cpus = cpus
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}
        )
        self.address = str(self._cluster.address)
        self._other: Any = self._cluster.add_node(num_cpus=cpus)

    def kill_one(self) -> None:
        """Kill the node that is not the head, as if its machine had lost power."""
        raylet = self._other.all_processes["raylet"][0].process.pid
        workers = subprocess.run(["pgrep", "-P", str(raylet)], capture_output=True, text=True).stdout.split()
        for number in (raylet, *map(int, workers)):
            os.kill(number, signal.SIGKILL)

    def replace(self) -> None:
        """Start another node in place of one that was killed."""
        self._cluster.remove_node(self._other, allow_graceful=False)
        self._other = self._cluster.add_node(num_cpus=self._cpus)

    def stop(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def running_nodes(cpus: int = 1) -> Iterator[Nodes]:
    """Run a cluster of two nodes."""
    nodes = Nodes(cpus)
    try:
        yield nodes
    finally:
        nodes.stop()


def start_process(arguments: Sequence[str], folder: Path) -> "subprocess.Popen[str]":
    """Start ``python ARGUMENTS`` in a folder, with pipes for both outputs."""
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lose_a_node(
    folder: Path, options: list[str], nodes: Nodes, images: int, start: Start = start_process
) -> Findings:
    """Run a trial.

    Args:
        folder: Folder that holds ``photos`` and receives the results.
        options: More options of the command, for example its model.
        nodes: Cluster, of which one node is killed, and replaced afterwards.
        images: Number of images that are done before the kill.
        start: Starts each run.
    """
    run_to_end([*options, "--quiet", "-o", "alone"], folder, start)
    on_nodes = [*options, "--ray", nodes.address, "-o", "results"]
    killed_after, events = None, []
    with start([*COMMAND, *on_nodes], folder) as process:
        begun = time.monotonic()
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "start":
                begun = time.monotonic()
            if killed_after is None and len(inputs_of(events, "done")) == images:
                nodes.kill_one()
                killed_after = images
        seconds = time.monotonic() - begun
        said = [line.rstrip() for line in process.stderr if "lost" in line]
    done = Counter(inputs_of(events, "done"))
    lines = map(json.loads, filter(None, (folder / "results" / JOURNAL_FILE).read_text().splitlines()))
    written = Counter(line["result"] for line in lines if "result" in line)
    nodes.replace()
    again = run_to_end([*options, "-o", "results", "--quiet", "--resume"], folder, start)
    wanted, got = contents(folder / "alone"), contents(folder / "results")
    return Findings(
        killed_after,
        sorted(name for name in wanted if got.get(name) != wanted[name]),
        sorted(got.keys() - wanted.keys()),
        sorted(str(path) for path in photographs(folder) if done[str(path)] != 1),
        inputs_of(events, "failed"),
        sorted({str(path) for path in photographs(folder)} - set(inputs_of(again, "skipped"))),
        sum(times - 1 for times in written.values()),
        said,
        round(seconds, 1),
    )


def run_to_end(options: list[str], folder: Path, start: Start) -> list[dict[str, Any]]:
    with start([*COMMAND, *options], folder) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()]


def inputs_of(events: list[dict[str, Any]], kind: str) -> list[str]:
    return [event["input"] for event in events if event["event"] == kind]


def photographs(folder: Path) -> list[Path]:
    return [path.relative_to(folder) for path in (folder / "photos").iterdir()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--side", type=int, default=96, help="pixels")
    parser.add_argument("--cpus", type=int, default=1, help="processors of each node [1]")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as name, running_nodes(arguments.cpus) as nodes:
        make_photographs(Path(name, "photos"), arguments.images, arguments.side, arguments.side)
        options = ["-s", "2", "--model", "tiny-x2", "--offline"]
        findings = lose_a_node(Path(name), options, nodes, arguments.images // 3)
    print(findings)
    sys.exit(not findings.is_sound)


if __name__ == "__main__":
    main()
