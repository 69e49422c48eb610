"""Measure the cost of a run over very many images without the images: names, jobs, the journal, a cluster.

python -m benchmarks.million --images 100000
"""

import argparse
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cluster import running_nodes
from mambair_cli.checkpoints.select import ChosenModel
from mambair_cli.images.discovery import find_sources
from mambair_cli.restore.settings import ImageSettings, RestoreSettings
from mambair_cli.runs.executors import ray_cluster
from mambair_cli.runs.executors.ray_cluster import RayCluster
from mambair_cli.runs.executors.scheduler import Scheduler
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.journal import Journal
from mambair_cli.runs.journal_entry import JournalEntry, describe_entry
from mambair_cli.runs.naming import name_targets
from mambair_cli.runs.outcomes import Outcome
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.runs.record import JOURNAL_FILE
from mambair_cli.runs.run import IsStopped, PreparedJob, run_jobs
from mambair_cli.runs.stamps import stamp_of

FOLDER = 1000  # images in each
NOTED = 2000  # results that are written to the journal one by one, each with a sync
FINGERPRINT = Fingerprint("a" * 64, "cpu", "fp32", ImageSettings(256, 16), 0)


class Meter:
    """Measures time and memory.

    Args:
        images: Number of images, by which both are divided.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._held: list[object] = []

    @contextmanager
    def measure(self, what: str, images: int | None = None) -> Iterator[list[object]]:
        """Print the cost of the block for each image; objects that it puts into the list stay alive."""
        images = images or self._images
        memory, begun, busy = resident_memory(), time.perf_counter(), time.process_time()
        yield self._held
        seconds, busy = (time.perf_counter() - begun) / images, (time.process_time() - busy) / images
        grown = (resident_memory() - memory) / images
        print(
            f"{what:48} {seconds * 1e6:8.1f} µs, {busy * 1e6:8.1f} µs of a processor {grown:6.0f} bytes",
            flush=True,
        )


def resident_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def make_files(folder: Path, images: int) -> None:
    for index in range(images):
        place = folder / f"{index // FOLDER:04}"
        if index % FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"IMG_{index:07}.jpg").write_bytes(b"x")


def measure_jobs(meter: Meter, folder: Path) -> list[Job]:
    """Measure the driver's work before the first image."""
    with meter.measure("list the folder"):
        sources = find_sources([str(folder / "photos")])
    with meter.measure("name the results"):
        jobs = name_targets(sources, str(folder / "results"), "_x4")

    def perform(prepared: Iterable[PreparedJob], is_stopped: IsStopped) -> Generator[Outcome]:
        yield from ()
        with meter.measure("order the jobs by size") as held:
            held.append(Scheduler(prepared, is_stopped))

    with meter.measure("prepare jobs, and order them"):
        for _ in run_jobs(jobs, WriteOptions(), RunPolicy(), FINGERPRINT, perform):
            pass
    return jobs


def measure_journal(meter: Meter, folder: Path, jobs: list[Job]) -> None:
    """Measure how long it takes to note results in the journal, and to look them up."""
    root, settings = folder / "results", FINGERPRINT.digest_result(WriteOptions(), jobs[0].format)
    targets = [job.target for job in jobs if job.target]
    with meter.measure("begin a journal"):
        journal = Journal(root, targets)
    sources = [job.source.path for job in jobs if job.source.path]
    entries = [
        JournalEntry(
            settings,
            os.urandom(32).hex(),
            stamp_of(path),
            stamp_of(path),
            input=journal.pen.inputs.note(path),
        )
        for path in sources
    ]
    with meter.measure("note a result, on the disk", NOTED):
        for target, entry in zip(targets[:NOTED], entries, strict=False):
            journal.pen.begin(target, target.with_name(f".mambair-{0:016}.tmp"))
            journal.pen.finish(target, entry)
    part = next(journal.pen.parts.glob("*.jsonl"))
    print(f"{'':48} {part.stat().st_size / NOTED:6.0f} bytes on the disk")
    for target, entry in zip(targets[NOTED:], entries[NOTED:], strict=True):
        journal.pen._write({"begun": str(target.relative_to(root)), "temporary": f".mambair-{0:016}.tmp"})
        journal.pen._write(describe_entry(str(target.relative_to(root)), entry))
    for number, (target, entry) in enumerate(zip(targets, entries, strict=True)):
        if number % FOLDER == 0:
            target.parent.mkdir(parents=True)
        target.write_bytes(b"x")
        os.utime(target, ns=(entry.result.mtime_ns, entry.result.mtime_ns))
    with meter.measure("put the journal together at the end"):
        journal.close()
    with meter.measure("open the journal for --resume") as held:
        journal = Journal(root, targets)
        held.append(journal)
    size = (root / JOURNAL_FILE).stat().st_size / len(jobs)
    print(f"{'':48} {size:6.0f} bytes on the disk")
    with meter.measure("ask whether it is done"):
        for source, target in zip(sources, targets, strict=True):
            assert journal.record.is_done(source, target, settings)
    journal.close()


def measure_cluster(meter: Meter, jobs: list[Job]) -> None:
    """Measure how fast the driver gives jobs to workers that do nothing."""

    class Idle:
        def load(self, *arguments: Any) -> Any:
            from mambair_cli.runs.executors.messages import NetworkLoaded

            return NetworkLoaded(1, FINGERPRINT)

        def perform(self, job: Any) -> Any:
            from mambair_cli.runs.executors.messages import Done
            from mambair_cli.runs.outcomes import Outcome

            return Done(Outcome(job.job))

        def stop(self) -> None:
            pass

    ray_cluster.make_actor_class = lambda: Idle
    with running_nodes() as nodes, tempfile.NamedTemporaryFile() as weights:
        workers = RayCluster(nodes.address)
        try:
            workers.start(RestoreSettings(), ChosenModel("idle", Path(weights.name)))
            prepared = [PreparedJob(job) for job in jobs]
            with meter.measure(f"hand a job out: {workers.info.place}"):
                for _ in workers.perform(prepared, lambda: False):
                    pass
        finally:
            workers.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    meter = Meter(arguments.images)
    with tempfile.TemporaryDirectory() as name:
        make_files(Path(name, "photos"), arguments.images)
        jobs = measure_jobs(meter, Path(name))
        measure_cluster(meter, jobs)
        measure_journal(meter, Path(name), jobs)


if __name__ == "__main__":
    main()
