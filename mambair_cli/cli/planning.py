"""The dry run: what would be done, and what it would take."""

from typing import TYPE_CHECKING

import typer

from mambair_cli.cli.options import Options
from mambair_cli.cli.output import complain, print_event, say
from mambair_cli.errors import MambairError

if TYPE_CHECKING:
    from mambair_cli.catalog import Task
    from mambair_cli.endpoints import Output
    from mambair_cli.forecast import Cost, Trial
    from mambair_cli.jobs import Source


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
    from mambair_cli.choice import check_tile, choose_device, name_model
    from mambair_cli.restore import Restorer
    from mambair_cli.tiling import plan_tiles

    device = choose_device(options.device)
    tile, overlap = check_tile(options.tile, options.overlap, device.type)
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
            device=options.device,
            precision=options.precision,
            tile=options.tile,
            overlap=options.overlap,
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
    if options.json:
        print_event("plan", model=name, on_this_machine=here, device=str(device), files=len(work))
    else:
        print(f"{name} on {device}" + ("" if here else " (not on this machine yet)"))
    exit_code, trial, costs = 0, None, []
    for job in work:
        try:
            with endpoints.open_source(job.source, output.max_pixels) as reader:
                header = reader.header
                result, format, _ = endpoints.plan_result(job, header, output, factor)
                if restorer is not None and trial is None:
                    trial = forecast.try_network(restorer, header.height, header.width)
                plan = plan_tiles(header.height, header.width, tile, overlap)
                cost = forecast.estimate(reader, result, format, plan, factor, trial)
                free = forecast.free_bytes(job.target)
                if free is not None and cost.disk > free:  # files that compress well may fit all the same
                    say(f"{job.place} may take {_bytes(cost.disk)}: the disk has {_bytes(free)} left")
        except MambairError as error:
            complain(error)
            exit_code = max(exit_code, error.exit_code)
            continue
        costs.append(cost)
        if options.json:
            print_event(
                "plan_file",
                input=str(job.source),
                output=job.place,
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
                f"{job.source} -> {job.place}: {result.width}×{result.height}{frames}, from {plan}; "
                f"{_bytes(cost.memory)} of memory, {_bytes(cost.disk)} on the disk, {_time(cost.seconds)}"
            )
    _print_sum(costs, trial, options.json)
    if exit_code:
        raise typer.Exit(exit_code)


def _print_sum(costs: list["Cost"], trial: "Trial | None", as_json: bool) -> None:
    """Print what all images together will take at most."""
    if not costs:
        return
    memory = max(cost.memory for cost in costs)
    network = None if trial is None else trial.memory
    disk = sum(cost.disk for cost in costs)
    seconds = None if trial is None else sum(cost.seconds or 0 for cost in costs)
    if as_json:
        seconds = None if seconds is None else round(seconds, 3)
        print_event("plan_sum", memory=memory, network_memory=network, disk=disk, seconds=seconds)
    else:
        own = "" if network is None else f" and {_bytes(network)} for the network"
        print(f"in all: {_bytes(memory)} of memory{own}, {_bytes(disk)} on the disk, {_time(seconds)}")


def _bytes(count: int) -> str:
    """Write a number of bytes in the unit that fits."""
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _time(seconds: float | None) -> str:
    """Write a duration as people do."""
    if seconds is None:
        return "time unknown until the model is here"
    if seconds < 100:
        return f"about {max(seconds, 0.1):.2g} s"
    if seconds < 6000:
        return f"about {seconds / 60:.0f} min"
    return f"about {seconds / 3600:.1f} h"
