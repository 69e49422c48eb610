"""Who restores the images of a run: this process, several on this machine, a server, or a cluster."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mambair_cli.cli.options import Options
from mambair_cli.cli.output import say
from mambair_cli.system.signals import cleaning_up
from mambair_cli.system.warmup import import_torch, load_libraries

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Task
    from mambair_cli.cli.progress import Progress
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.fingerprint import Fingerprint
    from mambair_cli.runs.run import Perform


@dataclass(frozen=True)
class Service:
    """Who restores the images of a run, and by what.

    Attributes:
        model: Name of the model.
        scale: Output pixels per input pixel and side.
        place: Where it is computed, in a word.
        fingerprint: All that pixels depend on besides the images.
        perform: Does tasks.
        close: Ends it, at once; what is in work is left undone.
        notice: What the user was told of the choice of model, if anything.
    """

    model: str
    scale: int
    place: str
    fingerprint: "Fingerprint"
    perform: "Perform"
    close: Callable[[], None] = lambda: None
    notice: str | None = None


def open_service(
    task: "Task", scale: int | None, level: float | None, options: Options, progress: "Progress"
) -> Service:
    """Load the model, wherever it is to compute.

    Args:
        task: "upscale", "denoise" or "dejpeg".
        scale: Of the network; None for the model's own, or the default.
        level: Noise sigma of 255, or JPEG quality; None where it is unknown.
        options: Of the command.
        progress: Told of images and tiles.

    Raises:
        MambairError: There is no such model or device.
    """
    if options.server:
        return _open_client(options.server, task, scale, level, options, progress)
    has_workers = options.devices is not None or options.workers is not None or options.ray is not None
    import_torch("cpu" if has_workers else options.device)
    from mambair_cli.restore.choice import choose_device, choose_devices
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.fingerprint import Fingerprint
    from mambair_cli.runs.pipeline import perform_alone

    choices: dict[str, Any] = {
        "task": task,
        "scale": scale,
        "level": level,
        "precision": options.precision,
        "tile": options.tile,
        "overlap": options.overlap,
        "seed": options.seed,
        "strength": options.strength,
    }
    if options.ray is not None:
        return _open_cluster(options.ray, options, choices)
    devices = choose_devices(options.devices, options.workers)
    if not devices:
        load_libraries(choose_device(options.device))
    restorer = Restorer(
        **choices,
        model=options.model,
        weights=options.weights,
        device=devices[0] if devices else options.device,
        offline=options.offline,
        quiet=options.quiet,
        notify=say if not options.quiet else lambda sentence: None,
    )
    service = Service(
        model=restorer.model.name,
        scale=restorer.info.scale,
        place=", ".join(dict.fromkeys(devices)) or str(restorer.device),
        fingerprint=Fingerprint.of(restorer),
        perform=partial(
            perform_alone,
            restorer=restorer,
            on_start=partial(progress.start, 0),
            on_tiles=partial(progress.advance, 0),
        ),
        notice=restorer.model.tell(options.offline),
    )
    return _open_crew(service, devices, restorer, choices, progress) if len(devices) > 1 else service


def _open_client(
    server: str,
    task: "Task",
    scale: int | None,
    level: float | None,
    options: Options,
    progress: "Progress",
) -> Service:
    """Find a server that has the model loaded, or loads it."""
    from mambair_cli.server.address import parse_address
    from mambair_cli.server.client import ServerClient

    address = parse_address(server)
    query = {
        "scale": scale,
        "sigma": level if task == "denoise" else None,
        "jpeg_quality": level if task == "dejpeg" else None,
        "model": options.model,
        "precision": None if options.precision == "auto" else options.precision,
        "tile": options.tile,
        "overlap": options.overlap,
        "seed": options.seed,
        "strength": options.strength,
        "offline": options.offline or None,
    }
    client = ServerClient(address, task, query, partial(progress.start, pixels=0))
    means = client.info
    if means.notice and not options.quiet:
        say(means.notice)
    return Service(
        model=means.model,
        scale=means.scale,
        place=f"{means.device} of {address}",
        fingerprint=client.fingerprint,
        perform=client.perform,
        close=client.close,
        notice=means.notice,
    )


def _open_crew(
    service: Service,
    devices: list[str],
    restorer: "Restorer",
    choices: dict[str, Any],
    progress: "Progress",
) -> Service:
    """Start a process for each device."""
    import torch

    from mambair_cli.runs.executors.processes import WorkerProcesses

    if progress.is_shown:  # it is seconds until there is something to show
        say(f"starting {len(devices)} workers")
    with cleaning_up():
        crew = WorkerProcesses(
            devices,
            restorer,
            {**choices, "weights": restorer.model.path},
            max(1, torch.get_num_threads() // len(devices)) if restorer.device.type == "cpu" else None,
            say,
            progress.start,
            progress.advance,
        )
    place = f"{service.place} ({len(devices)} workers)"
    return replace(service, place=place, perform=crew.perform, close=crew.close)


def _open_cluster(address: str, options: Options, choices: dict[str, Any]) -> Service:
    """Start workers on the machines of a cluster."""
    from mambair_cli.restore.choice import choose_model
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.executors.ray_cluster import RayCluster

    cluster = RayCluster(address, say)
    try:
        model = choose_model(
            choices["task"],
            choices["scale"],
            choices["level"],
            options.model,
            options.weights,
            cluster.kind,
            options.offline,
            options.quiet,
        )
        notice = model.tell(options.offline)
        if notice and not options.quiet:
            say(notice)
        here = Restorer(**choices, weights=model.path, device="cpu")  # whatever is wrong with it shows here
        with cleaning_up():
            fingerprint = cluster.start(choices, model.path)
    except BaseException:
        cluster.close()
        raise
    return Service(
        model=model.name,
        scale=here.info.scale,
        place=cluster.place,
        fingerprint=fingerprint,
        perform=cluster.perform,
        close=cluster.close,
        notice=notice,
    )
