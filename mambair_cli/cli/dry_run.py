"""The dry run, printed: what a run would do with each image, and what all of them would take."""

import shlex
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.jobs import name_jobs, written_formats
from mambair_cli.cli.notices import explain_level, explain_unused
from mambair_cli.cli.options import Options
from mambair_cli.cli.output import print_event, remark, report_failure, say
from mambair_cli.errors import ModelError
from mambair_cli.system.wording import format_bytes, show_number

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.images.discovery import FileFilter
    from mambair_cli.images.source import Source
    from mambair_cli.runs.dry_run import Forecast, PlannedJob, RunModel, Total
    from mambair_cli.runs.job_files import WriteOptions
    from mambair_cli.runs.jobs import Job
    from mambair_cli.runs.policy import RunPolicy


def print_plan(
    asked: "Asked",
    sources: list["Source"],
    options: Options,
    output: "WriteOptions",
    policy: "RunPolicy",
    file_filter: "FileFilter",
) -> None:
    """Print what a run would do: models, results, tiles, memory, room and time; only headers are read.

    Args:
        asked: What is asked for.
        sources: The images.
        options: Options of the command.
        output: How results would be written.
        policy: What the run may do.
        file_filter: Filter that found the images.
    """
    from mambair_cli.runs.dry_run import DryRun, add_up
    from mambair_cli.runs.output_size import check_reach

    model = open_model(asked, options)
    check_reach(output.size, model.scale)
    jobs = name_jobs(asked.task, model.scale, sources, output, options, file_filter)
    remarks = [effect] if (effect := explain_level(asked.task, asked.level, model.name)) else []
    remarks += explain_unused(options, written_formats(jobs))
    folders = list(file_filter.left_out.failures())
    _print_model(model, len(jobs) + len(folders), remarks, options, file_filter)
    for name, error in folders:
        report_failure(name, error, options.json, "plan_failed")
    dry_run = DryRun(model, output, policy)
    planned: list[PlannedJob] = []
    printed: set[str] = set()  # errors: that of a folder is the same for all of its images
    for job in jobs:
        planned.append(dry_run.plan(job))
        _print_job(planned[-1], options, str(planned[-1].error) in printed)
        printed.add(str(planned[-1].error))
    _warn_of_disks_and_waits(planned, policy)
    total = add_up(planned, dry_run.trial, model.devices)
    skipped = sum(one.is_skipped for one in planned)
    print_total(total, skipped, sum(one.error is not None for one in planned) + len(folders), options.json)
    errors = [error for _, error in folders] + [one.error for one in planned if one.error is not None]
    if exit_code := max((error.exit_code for error in errors), default=0):
        raise typer.Exit(exit_code)


def open_model(asked: "Asked", options: Options) -> "RunModel":
    """Find the model that a run would restore with, and load it if it is on this machine."""
    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.select import name_model
    from mambair_cli.cli.executors import settings_for
    from mambair_cli.restore.devices import choose_device, choose_devices
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.restore.tile_size import choose_tiles
    from mambair_cli.runs.dry_run import RunModel

    devices = choose_devices(options.devices, options.workers)
    device = choose_device(devices[0] if devices else options.device)
    names = tuple(devices) or (str(device),)
    is_offline = hub.is_offline(options.offline)
    if asked.weights is not None:
        _check_here(str(asked.weights))
    elif not is_offline:
        model = name_model(asked, device.type)
        if hub.cached(model) is None:
            # Squares, where tiles are to be fitted to a network that is not here.
            tiles = choose_tiles(
                options.tile, options.overlap, device.type, model.architecture, wrap=options.wrap
            )
            return RunModel(model.name, model.scale, names, tiles, None)
    # Nothing is downloaded for a plan. Where a run could not do so either, notices are those of the run.
    offline = options.offline if is_offline else True
    settings = replace(settings_for(asked, options), device=str(device), offline=offline)
    restorer = Restorer.from_settings(settings, (lambda sentence: None) if options.quiet else say)
    return RunModel(restorer.model.name, restorer.info.scale, names, restorer.tiles, restorer)


def _check_here(weights: str) -> None:
    """Refuse a checkpoint that would have to be downloaded: nothing is known of it.

    Raises:
        ModelError: It is not on this machine.
    """
    from mambair_cli.checkpoints import hub
    from mambair_cli.checkpoints.source import parse_source

    source = parse_source(weights)
    if source is not None and hub.cached(source) is None:
        raise ModelError(
            f"{source.name} is not on this machine, and --dry-run downloads nothing; "
            f"`mambair models download {shlex.quote(weights)}` does"
        )


def _print_model(
    model: "RunModel",
    files: int,
    remarks: list[str],
    options: Options,
    file_filter: "FileFilter",
) -> None:
    """Print what restores the images, and what is left out."""
    print_model(model, files, "image", options.json)
    if options.json:
        for facts in file_filter.left_out.facts():
            print_event("left_out", **facts)
    if not options.quiet:
        for sentence in (*remarks, *file_filter.remarks()):
            say(sentence)


def print_model(model: "RunModel", files: int, what: str, as_json: bool) -> None:
    """Print what restores the inputs.

    Args:
        model: The model.
        files: Number of the inputs.
        what: What they are: "image" or "clip".
        as_json: Whether to print an event.
    """
    is_here = model.restorer is not None
    if as_json:
        print_event(
            "plan",
            model=model.name,
            other_models=list(model.others),
            on_this_machine=is_here,
            device=model.place,
            files=files,
        )
        return
    names = " or ".join((model.name, *model.others))
    names += f", as each {what} needs (mambair inspect tells)," if model.others else ""
    print(f"{names} on {model.place}" + ("" if is_here else " (not on this machine yet)"))


def _print_job(planned: "PlannedJob", options: Options, is_printed: bool) -> None:
    """Print what a run would do with an image; an error that was printed before only as an event."""
    job, error, forecast = planned.job, planned.error, planned.forecast
    if error is not None:
        report_failure(str(job.source), error, options.json, "plan_failed", is_printed)
    elif forecast is None:
        if options.json:
            print_event("plan_skipped", input=str(job.source), output=job.place)
        else:
            print(f"{job.source} -> {job.place}: done before")
    else:
        if forecast.warnings and not options.quiet:
            say(f"warning: {job.source}: {'; '.join(forecast.warnings)}")
        _print_forecast(job, forecast, options.json)


def _print_forecast(job: "Job", forecast: "Forecast", as_json: bool) -> None:
    """Print what restoring an image would give and take."""
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
        f"{format_bytes(cost.memory)} of memory, {format_bytes(cost.disk)} on the disk, "
        f"{format_time(cost.seconds)}"
    )


def _warn_of_disks_and_waits(planned: list["PlannedJob"], policy: "RunPolicy") -> None:
    """Warn of disks that may be too small, and of folders where the run would wait for another one."""
    from mambair_cli.runs.dry_run import needs_of
    from mambair_cli.runs.jobs import group_targets
    from mambair_cli.runs.run import keeps_journal

    warn_of_disks(needs_of(planned))
    jobs = [one.job for one in planned]
    if keeps_journal(jobs, policy):
        for folder, targets in group_targets(jobs).items():
            warn_of_wait(folder, targets)


def warn_of_disks(results: Iterable[tuple[Path, int]]) -> None:
    """Warn of disks that may be too small.

    Args:
        results: Files that would be written, and the bytes that each may take.
    """
    from mambair_cli.runs.dry_run import find_full_disks

    for disk in find_full_disks(results):
        needed, left = format_bytes(disk.needed), format_bytes(disk.free)
        remark(f"the results may take {needed}: the disk of {disk.folder} has {left} left")


def warn_of_wait(folder: Path, targets: list[Path]) -> None:
    """Warn where a run would wait for another one that writes the same results into a folder."""
    from mambair_cli.runs.journal import explain_wait, is_waiting

    if is_waiting(folder, targets):
        remark(f"{explain_wait(folder)}; this one would wait")


def print_total(total: "Total", skipped: int, failed: int, as_json: bool) -> None:
    """Print what all inputs together would take.

    Args:
        total: What they would take.
        skipped: How many of them were done before.
        failed: How many would fail, folders that cannot be read among them.
        as_json: Whether to print an event.
    """
    if as_json:
        print_event("plan_sum", skipped=skipped, failed=failed, **asdict(total))
        return
    needs = "nothing to do"
    if total.memory or total.disk:
        network = total.network_memory
        own = "" if network is None else f" and {format_bytes(network)} for the network"
        memory = "" if total.memory is None else f"{format_bytes(total.memory)} of memory{own}, "
        needs = f"{memory}{format_bytes(total.disk)} on the disk, {format_time(total.seconds)}"
    counts = ((skipped, "done before"), (failed, "would fail"))
    print(f"in all: {needs}" + "".join(f"; {count} {what}" for count, what in counts if count))


def format_time(seconds: float | None) -> str:
    """Write a duration for people."""
    if seconds is None:
        return "time unknown until the model is here"
    if seconds < 100:
        return f"about {show_number(max(seconds, 0.1))} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
