"""The dry run: what would be done, and what it would take."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.notices import explain_level
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, format_bytes, print_event, say
from mambair_cli.cli.parts import Part
from mambair_cli.errors import MambairError

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.images import Header
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.restore.tiling import Plan
    from mambair_cli.runs.estimate import Cost, Disk, Trial
    from mambair_cli.runs.job_files import Output
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.journal import Record


@dataclass(frozen=True)
class _RunModel:
    """What a run will restore with.

    Attributes:
        name: Of the model.
        scale: Of its network.
        devices: Where it computes, a name for each worker.
        kind: Of these devices.
        restorer: With the network; None where its model is not on this machine.
    """

    name: str
    scale: int
    devices: tuple[str, ...]
    kind: str
    restorer: "Restorer | None"

    @property
    def place(self) -> str:
        """Where it computes, in a word."""
        place = ", ".join(dict.fromkeys(self.devices))
        return place if len(self.devices) == 1 else f"{place} ({len(self.devices)} workers)"


@dataclass(frozen=True)
class _Forecast:
    """What will become of an image.

    Attributes:
        result: Header of the result.
        replaces: Whether it replaces a file.
        plan: Tiles of each frame.
        cost: Of the image.
        warnings: As far as its header tells.
    """

    result: "Header"
    replaces: bool
    plan: "Plan"
    cost: "Cost"
    warnings: tuple[str, ...]


def print_plan(
    task: "Task", parts: list[Part], options: Options, level: float | None, choice: "FileFilter"
) -> None:
    """Say what a run would do: models, results, tiles, memory, room and time; only headers are read."""
    from mambair_cli.runs import jobs
    from mambair_cli.runs.output_size import check_reach

    means = [_find_means(task, part.options, part.scale, level) for part in parts]
    for part, its in zip(parts, means, strict=True):
        check_reach(part.output.size, its.scale)
    suffix = jobs.suffix_of(task, means[0].scale, parts[0].output.size)
    is_list = options.from_file is not None
    sources = [source for part in parts for source in part.sources]
    work = jobs.name_targets(sources, options.output, suffix, options.format, is_list, choice.left_out)
    plans = []
    for part, its in zip(parts, means, strict=True):
        mine = part.pick(work)
        remarks = [part.remark, explain_level(task, level, its.name)]
        if not plans:
            remarks += choice.remarks()
        here = its.restorer is not None
        if options.json:
            print_event("plan", model=its.name, on_this_machine=here, device=its.place, files=len(mine))
            for facts in choice.left_out.facts() if not plans else ():
                print_event("left_out", **facts)
        else:
            print(f"{its.name} on {its.place}" + ("" if here else " (not on this machine yet)"))
        for remark in filter(None, [] if options.quiet else remarks):
            say(remark)
        plans.append(_plan_part(mine, part, its))
    costs = [cost for plan in plans for cost in plan.costs]
    for sentence in _find_full_disks(costs):
        say(sentence)
    keeps_journal = options.ray is not None or any(job.source.folder for job in work)
    if len(work) > 1 or parts[0].output.resume or keeps_journal:
        for sentence in _find_claimed_folders(work):  # only such runs keep a journal
            say(sentence)
    counts = sum((plan.counts for plan in plans), Counter[str]())
    sums = [
        _add_up([cost for _, cost in plan.costs], plan.trial, its.devices)
        for plan, its in zip(plans, means, strict=True)
    ]
    _print_sum(_join(sums), counts, options.json)
    if exit_code := max(plan.exit_code for plan in plans):
        raise typer.Exit(exit_code)


@dataclass
class _PartPlan:
    """What will become of the images of one part.

    Attributes:
        costs: Of each that will be restored.
        trial: What the network took; None where it is not here, or not needed.
        counts: Images that are skipped, and such as will fail.
        exit_code: Of the command, as far as this part goes.
    """

    costs: list[tuple["Job", "Cost"]]
    trial: "Trial | None"
    counts: Counter[str]
    exit_code: int


def _plan_part(work: list["Job"], part: Part, means: _RunModel) -> _PartPlan:
    """Say of each image of a part what will become of it."""
    options, output = part.options, part.output
    past, clairvoyant = _Past(output, means.restorer), _Clairvoyant(means, options, output)
    plan = _PartPlan([], None, Counter(), 0)
    for job in work:
        try:
            if past.is_done(job):
                plan.counts["skipped"] += 1
                _print_skipped(job, options.json)
                continue
            forecast = clairvoyant.foresee(job, past.check(job))
        except MambairError as error:
            complain(error)
            plan.exit_code = max(plan.exit_code, error.exit_code)
            plan.counts["failed"] += 1
            if options.json:
                kind = type(error).__name__
                print_event("plan_failed", input=str(job.source), kind=kind, message=str(error))
            continue
        plan.costs.append((job, forecast.cost))
        if forecast.warnings and not options.quiet:
            say(f"warning: {job.source}: {'; '.join(forecast.warnings)}")
        _print_forecast(job, forecast, options.json)
    plan.trial = clairvoyant.trial
    return plan


def _find_means(task: "Task", options: Options, scale: int | None, level: float | None) -> _RunModel:
    """Find what a run will restore with, and load it if it is on this machine."""
    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.select import name_model
    from mambair_cli.restore.devices import choose_device, choose_devices
    from mambair_cli.restore.restorer import Restorer

    devices = choose_devices(options.devices, options.workers)
    device = choose_device(devices[0] if devices else options.device)
    names = tuple(devices) or (str(device),)
    if options.weights is None and not options.offline:
        model = name_model(task, scale, level, options.model, device.type)
        if hub.cached(model) is None:
            return _RunModel(model.name, model.scale, names, device.type, None)
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
        strength=options.strength,
        offline=True,
        notify=say if not options.quiet else lambda sentence: None,
    )
    return _RunModel(restorer.model.name, restorer.info.scale, names, device.type, restorer)


class _Clairvoyant:
    """Foresees what becomes of images, by their headers and by one trial of the network.

    Args:
        means: Of the run.
        options: Of the command.
        output: How results are written.

    Attributes:
        trial: What the network took; None before the first image, and where it is not here.
    """

    def __init__(self, means: _RunModel, options: Options, output: "Output") -> None:
        self.trial: Trial | None = None
        self._means, self._options, self._output = means, options, output

    def foresee(self, job: "Job", replaces: bool) -> _Forecast:
        """Say what will become of an image.

        Raises:
            MambairError: It would fail.
        """
        from mambair_cli.images import find_losses
        from mambair_cli.restore.tiling import plan_nothing
        from mambair_cli.runs.estimate import estimate, try_network
        from mambair_cli.runs.job_files import open_source, plan_result

        means = self._means
        with open_source(job.source, self._output.max_pixels, self._output.damaged) as reader:
            height, width = reader.header.height, reader.header.width
            result, format, _ = plan_result(job, reader.header, self._output, means.scale)
            if self._output.size.needs_network(width, height):
                if means.restorer is not None and self.trial is None:
                    self.trial = try_network(means.restorer, height, width)
                plan = self._place_tiles(height, width)
            else:
                plan = plan_nothing(height, width)
            cost = estimate(reader, result, format, plan, means.scale, self.trial)
            losses = find_losses(reader.header, format, self._output.strip)
            warnings = (*reader.warnings, *losses)
        return _Forecast(result, replaces, plan, cost, warnings)

    def _place_tiles(self, height: int, width: int) -> "Plan":
        """Place tiles as the run will; squares, where they are to be fitted to a network that is not here."""
        from mambair_cli.checkpoints.catalog import find_model
        from mambair_cli.restore.tile_size import choose_tiles

        kind, options = self._means.kind, self._options
        if self._means.restorer is not None:
            return self._means.restorer.plan(height, width)
        architecture = find_model(self._means.name).architecture
        return choose_tiles(options.tile, options.overlap, kind, architecture).plan(height, width)


class _Past:
    """What earlier runs have left, as a run will find it; nothing is locked or written.

    Args:
        output: How results are written.
        restorer: Of the run; None where its model is not here, and so has done nothing.
    """

    def __init__(self, output: "Output", restorer: "Restorer | None") -> None:
        from mambair_cli.runs.run import computing_of, settings_of

        self._output = output
        self._settings = None
        if output.resume and restorer is not None:
            self._settings = settings_of(computing_of(restorer), output)
        self._records: dict[Path, Record] = {}

    def is_done(self, job: "Job") -> bool:
        """Tell whether the run will leave out an image."""
        from mambair_cli.runs.run import word_of

        record = self._record(job)
        if record is None or self._settings is None or job.source.path is None or job.target is None:
            return False
        return record.is_done(job.source.path, job.target, word_of(job, self._settings))

    def check(self, job: "Job") -> bool:
        """Tell whether the result will replace a file.

        Raises:
            ImageError: There is one that may not be replaced, or its folder cannot be written.
        """
        from mambair_cli.runs.job_files import check_folder, check_target
        from mambair_cli.runs.run import settle_overwrite

        check_target(job, settle_overwrite(job, self._output, self._record(job)))
        if job.target is None or job.is_stream:
            return False
        check_folder(job.target)
        return job.target.exists()

    def _record(self, job: "Job") -> "Record | None":
        from mambair_cli.errors import ImageError
        from mambair_cli.runs.journal import Record

        if job.root is None or not (self._output.resume or job.replaces_input):
            return None
        if job.root not in self._records:
            try:
                self._records[job.root] = Record(job.root)
            except OSError as error:
                raise ImageError(f"cannot read the journal in {job.root}: {error.strerror}") from error
        return self._records[job.root]


def _find_full_disks(costs: list[tuple["Job", "Cost"]]) -> Iterator[str]:
    """Say of each disk whether results may not fit on it; files that compress well may, all the same."""
    from mambair_cli.runs.estimate import disk_of

    needs: Counter[int] = Counter()
    disks: dict[int, tuple[Path, int]] = {}
    folders: dict[Path, Disk] = {}
    for job, cost in costs:
        if job.target is not None and not job.is_stream:
            folder = job.target.parent
            disk = folders[folder] = folders.get(folder) or disk_of(job.target)
            needs[disk.number] += cost.disk
            disks[disk.number] = folder, disk.free
    for number, (folder, free) in disks.items():
        if needs[number] > free:
            needed, left = format_bytes(needs[number]), format_bytes(free)
            yield f"the results may take {needed}: the disk of {folder} has {left} left"


def _find_claimed_folders(work: list["Job"]) -> Iterator[str]:
    """Say of each folder of results whether a run would wait there for another, where that can be seen."""
    from mambair_cli.runs.claims import is_claimed, seems_over
    from mambair_cli.runs.journal import PARTS_FOLDER, digest_targets

    targets: dict[Path, list[Path]] = {}
    for job in work:
        if job.root and job.target:
            targets.setdefault(job.root, []).append(job.target)
    for folder, names in targets.items():
        with suppress(OSError):
            if is_claimed(folder / PARTS_FOLDER, digest_targets(folder, names), seems_over):
                yield f"another run is writing the same results into {folder}; this one would wait"


def _print_forecast(job: "Job", forecast: _Forecast, as_json: bool) -> None:
    result, plan, cost = forecast.result, forecast.plan, forecast.cost
    if as_json:
        print_event(
            "plan_file",
            input=str(job.source),
            output=job.place,
            replaces=forecast.replaces,
            width=result.width,
            height=result.height,
            frames=result.frames,
            tiles=len(plan) * result.frames,
            memory=cost.memory,
            disk=cost.disk,
            seconds=None if cost.seconds is None else round(cost.seconds, 3),
            warnings=list(forecast.warnings),
        )
        return
    place = f"{job.place} (replaced)" if forecast.replaces else job.place
    frames = f", {result.frames} frames" if result.frames > 1 else ""
    print(
        f"{job.source} -> {place}: {result.width}×{result.height}{frames}, from {plan}; "
        f"{format_bytes(cost.memory)} of memory, {format_bytes(cost.disk)} on the disk, {_time(cost.seconds)}"
    )


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


def _add_up(costs: list["Cost"], trial: "Trial | None", devices: tuple[str, ...]) -> _Sum:
    """Add up what images take, some of them side by side: time is shared by devices, memory by nobody."""
    largest = sorted((cost.memory for cost in costs), reverse=True)[: len(devices)]
    network = None if trial is None or trial.memory is None else trial.memory * len(devices)
    known = [cost.seconds for cost in costs if cost.seconds is not None]
    seconds = round(sum(known) / len(set(devices)), 3) if len(known) == len(costs) else None
    return _Sum(sum(largest), network, sum(cost.disk for cost in costs), seconds)


def _join(sums: list[_Sum]) -> _Sum:
    """Add up parts that are done one after the other: time and room add up, memory does not."""
    networks = [one.network_memory for one in sums if one.network_memory is not None]
    seconds = [one.seconds for one in sums if one.seconds is not None]
    return _Sum(
        memory=max(one.memory for one in sums),
        network_memory=max(networks) if networks else None,
        disk=sum(one.disk for one in sums),
        seconds=round(sum(seconds), 3) if len(seconds) == len(sums) else None,
    )


def _print_sum(total: _Sum, counts: Counter[str], as_json: bool) -> None:
    if as_json:
        print_event("plan_sum", skipped=counts["skipped"], failed=counts["failed"], **asdict(total))
        return
    needs = "nothing to do"
    if total.memory:
        network = total.network_memory
        own = "" if network is None else f" and {format_bytes(network)} for the network"
        needs = f"{format_bytes(total.memory)} of memory{own}, {format_bytes(total.disk)} on the disk, "
        needs += _time(total.seconds)
    more = "".join(
        f"; {counts[what]} {said}"
        for what, said in (("skipped", "done before"), ("failed", "would fail"))
        if counts[what]
    )
    print(f"in all: {needs}{more}")


def _time(seconds: float | None) -> str:
    """Write a duration as people do."""
    if seconds is None:
        return "time unknown until the model is here"
    if seconds < 100:
        return f"about {max(seconds, 0.1):.2g} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
