"""What a run would do with each image, and what all of them would take; nothing is written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mambair_cli.errors import ImageError, MambairError
from mambair_cli.images import Header, find_losses, find_risk
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.tile_size import TileSettings
from mambair_cli.restore.tiling import Plan, plan_nothing
from mambair_cli.runs.estimate import Cost, Disk, Trial, disk_of, estimate, try_network
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import (
    WriteOptions,
    check_target,
    leave_out_unused,
    open_source,
    plan_result,
)
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.policy import Action, RunPolicy, decide
from mambair_cli.runs.record import Record, read_record
from mambair_cli.system.memory import explaining_memory
from mambair_cli.system.result_folders import check_folder


@dataclass(frozen=True)
class RunModel:
    """The model that a run would restore with.

    Attributes:
        name: Name of the model.
        scale: Output pixels per input pixel and side.
        devices: Name of the device of each worker.
        tiles: What images are cut into.
        restorer: Restorer with the network; None where the model is not on this machine.
    """

    name: str
    scale: int
    devices: tuple[str, ...]
    tiles: TileSettings
    restorer: Restorer | None

    @property
    def others(self) -> tuple[str, ...]:
        """Name the other models that a look at each image may choose; they take about the same time."""
        others = self.restorer.others.values() if self.restorer is not None else ()
        return tuple(dict.fromkeys(each.name for each in others))

    @property
    def place(self) -> str:
        """Name the devices that it computes on."""
        place = ", ".join(dict.fromkeys(self.devices))
        return place if len(self.devices) == 1 else f"{place} ({len(self.devices)} workers)"


@dataclass(frozen=True)
class Forecast:
    """What restoring an image would give and take.

    Attributes:
        result: Header of the result.
        replaces: Whether the result replaces a file.
        plan: Tiles of each frame.
        cost: Memory, room on the disk and time.
        warnings: Sentences about what the result lacks, as far as the header of the input tells.
    """

    result: Header
    replaces: bool
    plan: Plan
    cost: Cost
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PlannedJob:
    """What a run would do with a job.

    Attributes:
        job: The job.
        forecast: What it would give and take; None where it would be skipped, or fail.
        error: Why it would fail, if it would.
    """

    job: Job
    forecast: Forecast | None = None
    error: MambairError | None = None

    @property
    def is_skipped(self) -> bool:
        """Whether an earlier run has done the job."""
        return self.forecast is None and self.error is None


class DryRun:
    """Plans jobs of one model, by the headers of their images and one trial of the network.

    Args:
        model: The model.
        output: How results would be written.
        policy: What the run may do.

    Attributes:
        trial: What the network took; None before the first image that needs it, or without a network.
    """

    def __init__(self, model: RunModel, output: WriteOptions, policy: RunPolicy) -> None:
        self.trial: Trial | None = None
        self._model, self._output, self._policy = model, output, policy
        self._records: dict[Path, Record] = {}
        # Only a model that is here can have done anything.
        looks_back = policy.resume and model.restorer is not None
        self._fingerprint = Fingerprint.of(model.restorer) if looks_back and model.restorer else None

    def plan(self, job: Job) -> PlannedJob:
        """Find out what a run would do with a job."""
        output = leave_out_unused(self._output, job, self._model.scale)
        settings = self._fingerprint and self._fingerprint.digest_result(output, job.format)
        try:
            decision = decide(job, self._read_record(job), self._policy, settings)
            if decision.action is Action.SKIP:
                return PlannedJob(job)
            if decision.action is Action.REFUSE:
                raise ImageError(decision.reason)
            check_target(job, decision.action is Action.REPLACE)
            if job.target is not None and not job.is_stream:
                check_folder(job.target.parent)
            with explaining_memory(str(job.source)):
                return PlannedJob(job, self._foresee(job))
        except MambairError as error:
            return PlannedJob(job, error=error)

    def _read_record(self, job: Job) -> Record | None:
        """Return what earlier runs have noted in the folder of a result, where that matters.

        Raises:
            ImageError: The journal cannot be read.
        """
        if job.root is None or not (self._policy.resume or job.replaces_input):
            return None
        if job.root not in self._records:
            self._records[job.root] = read_record(job.root)
        return self._records[job.root]

    def _foresee(self, job: Job) -> Forecast:
        """Find out what restoring an image would give and take.

        Raises:
            MambairError: It would fail.
        """
        model, output = self._model, self._output
        with open_source(job.source, self._policy.max_pixels, self._policy.damaged) as reader:
            height, width = reader.header.height, reader.header.width
            result, format, _ = plan_result(job, reader.header, output, model.scale)
            plan = plan_nothing(height, width)
            if output.size.needs_network(width, height):
                if model.restorer is not None and self.trial is None:
                    self.trial = try_network(model.restorer, height, width)
                plan = model.tiles.plan(height, width)
            cost = estimate(reader, result, format, plan, model.scale, self.trial, output.quality)
            risk = find_risk(reader.header, format, output.background is not None)
            warnings = (*reader.warnings, *find_losses(reader.header, result, format, output.strip))
            warnings += (risk,) if risk else ()
        replaces = job.target is not None and not job.is_stream and job.target.exists()
        return Forecast(result, replaces, plan, cost, warnings)


@dataclass(frozen=True)
class Total:
    """What all images together would take at most.

    Attributes:
        memory: Memory except that of the networks, in bytes; None where that is unknown.
        network_memory: Memory of the networks of all workers, in bytes; None where that is unknown.
        disk: Room on the disk, in bytes.
        seconds: Time; None where the network was not tried.
    """

    memory: int | None
    network_memory: int | None
    disk: int
    seconds: float | None


def add_up(jobs: Iterable[PlannedJob], trial: Trial | None, devices: Sequence[str]) -> Total:
    """Add up what the images of one model take: devices share the time, and each worker needs memory."""
    costs = [one.forecast.cost for one in jobs if one.forecast is not None]
    largest = sorted((cost.memory for cost in costs), reverse=True)[: len(devices)]
    network = None if trial is None or trial.memory is None else trial.memory * len(devices)
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    seconds = round(sum(known) / len(set(devices)), 3) if len(known) == len(costs) else None
    return Total(sum(largest), network, sum(cost.disk for cost in costs), seconds)


@dataclass(frozen=True)
class FullDisk:
    """A disk that the results may not fit on.

    Attributes:
        folder: Folder of results on that disk.
        needed: Bytes that the results may take.
        free: Bytes that are free.
    """

    folder: Path
    needed: int
    free: int


def needs_of(jobs: Iterable[PlannedJob]) -> Iterator[tuple[Path, int]]:
    """Yield the files that jobs would write, and the bytes that each may take."""
    for one in jobs:
        if one.forecast is not None and one.job.target is not None and not one.job.is_stream:
            yield one.job.target, one.forecast.cost.disk


def find_full_disks(results: Iterable[tuple[Path, int]]) -> Iterator[FullDisk]:
    """Find the disks that results may not fit on; files that compress well may fit all the same.

    Args:
        results: Files that would be written, and the bytes that each may take.
    """
    needs: Counter[int] = Counter()
    disks: dict[int, tuple[Path, int]] = {}
    folders: dict[Path, Disk] = {}
    for target, size in results:
        disk = folders[target.parent] = folders.get(target.parent) or disk_of(target)
        needs[disk.number] += size
        disks[disk.number] = target.parent, disk.free
    for number, (folder, free) in disks.items():
        if needs[number] > free:
            yield FullDisk(folder, needs[number], free)
