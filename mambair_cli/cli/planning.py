"""The dry run: what would be done, and what it would take."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, format_bytes, print_event, say
from mambair_cli.errors import MambairError

if TYPE_CHECKING:
    from mambair_cli.catalog import Task
    from mambair_cli.endpoints import Output
    from mambair_cli.forecast import Cost, Trial
    from mambair_cli.jobs import Job, Source
    from mambair_cli.journal import Record
    from mambair_cli.restore import Restorer
    from mambair_cli.tiling import Plan


def print_plan(
    task: "Task",
    sources: list["Source"],
    options: Options,
    output: "Output",
    scale: int | None,
    level: float | None,
) -> None:
    """Say what a run would do: model, results, tiles, memory, room and time; only headers are read."""
    from mambair_cli import endpoints, forecast, hub, jobs
    from mambair_cli.choice import choose_device, choose_devices, name_model
    from mambair_cli.restore import Restorer

    devices = choose_devices(options.devices, options.workers)
    device = choose_device(devices[0] if devices else options.device)
    restorer = None
    name, factor, here = options.model, 1, True
    if options.weights is None:
        model = name_model(task, scale, level, options.model, device.type)
        name, factor, here = model.name, model.scale, hub.cached(model) is not None
    if here or options.offline:
        restorer = Restorer(
            task=task,
            scale=scale,
            level=level,
            model=options.model,
            weights=options.weights,
            device=str(device),
            precision=options.precision,
            tile=options.tile,
            overlap=options.overlap,
            seed=options.seed,
            offline=True,
            notify=say if not options.quiet else lambda sentence: None,
        )
        here = True
        name, factor = restorer.model.name, restorer.info.scale
    work = jobs.name_targets(
        sources,
        options.output,
        jobs.suffix_of(task, factor, output.size),
        options.format,
        options.from_file is not None,
    )
    place = ", ".join(dict.fromkeys(devices)) or str(device)
    if len(devices) > 1:
        place += f" ({len(devices)} workers)"
    if options.json:
        print_event("plan", model=name, on_this_machine=here, device=place, files=len(work))
    else:
        print(f"{name} on {place}" + ("" if here else " (not on this machine yet)"))
    exit_code, trial, costs = 0, None, []
    needs: list[tuple[Path, int]] = []
    counts: Counter[str] = Counter()
    past = _Past(output, restorer)
    for job in work:
        try:
            if past.is_done(job):
                counts["skipped"] += 1
                _print_skipped(job, options.json)
                continue
            replaces = past.check(job)
            with endpoints.open_source(job.source, output.max_pixels) as reader:
                header = reader.header
                result, format, _ = endpoints.plan_result(job, header, output, factor)
                if restorer is not None and trial is None:
                    trial = forecast.try_network(restorer, header.height, header.width)
                plan = _place_tiles(header.height, header.width, restorer, options, device.type)
                cost = forecast.estimate(reader, result, format, plan, factor, trial)
        except MambairError as error:
            complain(error)
            exit_code = max(exit_code, error.exit_code)
            counts["failed"] += 1
            if options.json:
                kind = type(error).__name__
                print_event("plan_failed", input=str(job.source), kind=kind, message=str(error))
            continue
        costs.append(cost)
        if job.target is not None:
            needs.append((job.target, cost.disk))
        if options.json:
            print_event(
                "plan_file",
                input=str(job.source),
                output=job.place,
                replaces=replaces,
                width=result.width,
                height=result.height,
                frames=result.frames,
                tiles=len(plan) * header.frames,
                memory=cost.memory,
                disk=cost.disk,
                seconds=None if cost.seconds is None else round(cost.seconds, 3),
            )
        else:
            frames = f", {header.frames} frames" if header.frames > 1 else ""
            print(
                f"{job.source} -> {job.place}{' (replaced)' if replaces else ''}: "
                f"{result.width}×{result.height}{frames}, from {plan}; "
                f"{format_bytes(cost.memory)} of memory, "
                f"{format_bytes(cost.disk)} on the disk, {_time(cost.seconds)}"
            )
    for sentence in _find_full_disks(needs):
        say(sentence)
    _print_sum(_add_up(costs, trial, devices), counts, options.json)
    if exit_code:
        raise typer.Exit(exit_code)


class _Past:
    """What earlier runs have left, as a run will find it; nothing is locked or written.

    Args:
        output: How results are written.
        restorer: Of the run; None where its model is not here, and so has done nothing.
    """

    def __init__(self, output: "Output", restorer: "Restorer | None") -> None:
        from mambair_cli.batch import computing_of, settings_of

        self._output = output
        self._settings = None
        if output.resume and restorer is not None:
            self._settings = settings_of(computing_of(restorer), output)
        self._records: dict[Path, Record] = {}

    def is_done(self, job: "Job") -> bool:
        """Tell whether the run will leave out an image."""
        from mambair_cli.batch import word_of

        record = self._record(job)
        if record is None or self._settings is None or job.source.path is None or job.target is None:
            return False
        return record.is_done(job.source.path, job.target, word_of(job, self._settings))

    def check(self, job: "Job") -> bool:
        """Tell whether the result will replace a file.

        Raises:
            ImageError: There is one that may not be replaced.
        """
        from mambair_cli.endpoints import check_target

        record = self._record(job)
        is_ours = record is not None and job.target is not None and record.is_ours(job.target)
        check_target(job, self._output.overwrite or is_ours)
        return job.target is not None and job.target.exists()

    def _record(self, job: "Job") -> "Record | None":
        from mambair_cli.errors import ImageError
        from mambair_cli.journal import Record

        if not self._output.resume or job.root is None:
            return None
        if job.root not in self._records:
            try:
                self._records[job.root] = Record(job.root)
            except OSError as error:
                raise ImageError(f"cannot read the journal in {job.root}: {error.strerror}") from error
        return self._records[job.root]


def _place_tiles(
    height: int, width: int, restorer: "Restorer | None", options: Options, device_kind: str
) -> "Plan":
    """Place tiles as the run will, also where its network is not here."""
    from mambair_cli.choice import check_tile
    from mambair_cli.restore import WHOLE_SIDE
    from mambair_cli.tiling import plan_tiles

    if restorer is not None:
        return restorer.plan(height, width)
    tile, overlap = check_tile(options.tile, options.overlap, device_kind)
    whole = WHOLE_SIDE.get(device_kind, 0) if options.tile is None else 0
    return plan_tiles(height, width, whole if max(height, width) <= whole else tile, overlap)


def _find_full_disks(needs: list[tuple[Path, int]]) -> Iterator[str]:
    """Say of each disk whether results may not fit on it; files that compress well may, all the same."""
    from mambair_cli.forecast import disk_of

    sums: Counter[int] = Counter()
    disks = {}
    folders = {target.parent: disk_of(target) for target, _ in needs}
    for target, count in needs:
        disk = folders[target.parent]
        sums[disk.number] += count
        disks[disk.number] = target, disk.free
    for number, (target, free) in disks.items():
        if sums[number] > free:
            needed, left = format_bytes(sums[number]), format_bytes(free)
            yield f"{target} and all else may take {needed}: the disk has {left} left"


def _print_skipped(job: "Job", as_json: bool) -> None:
    if as_json:
        print_event("plan_skipped", input=str(job.source), output=job.place)
    else:
        print(f"{job.source} -> {job.place}: done before")


@dataclass(frozen=True)
class _Sum:
    """What all images together will take at most, as JSON knows it."""

    memory: int
    network_memory: int | None
    disk: int
    seconds: float | None


def _add_up(costs: list["Cost"], trial: "Trial | None", devices: list[str]) -> _Sum:
    """Add up what images take, some of them side by side: time is shared by devices, memory by nobody."""
    workers = max(1, len(devices))
    largest = sorted((cost.memory for cost in costs), reverse=True)[:workers]
    network = None if trial is None or trial.memory is None else trial.memory * workers
    seconds = None if trial is None and costs else sum(cost.seconds or 0 for cost in costs)
    if seconds is not None:
        seconds = round(seconds / max(1, len(set(devices))), 3)
    return _Sum(sum(largest), network, sum(cost.disk for cost in costs), seconds)


def _print_sum(total: _Sum, counts: Counter[str], as_json: bool) -> None:
    if as_json:
        print_event("plan_sum", skipped=counts["skipped"], failed=counts["failed"], **asdict(total))
        return
    own = "" if total.network_memory is None else f" and {format_bytes(total.network_memory)} for the network"
    more = "".join(
        f"; {counts[what]} {said}"
        for what, said in (("skipped", "done before"), ("failed", "would fail"))
        if counts[what]
    )
    print(
        f"in all: {format_bytes(total.memory)} of memory{own}, {format_bytes(total.disk)} on the disk, "
        f"{_time(total.seconds)}{more}"
    )


def _time(seconds: float | None) -> str:
    """Write a duration as people do."""
    if seconds is None:
        return "time unknown until the model is here"
    if seconds < 100:
        return f"about {max(seconds, 0.1):.2g} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
