"""The executor that a command's options ask for: this process, worker processes, a cluster, or a server."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mambair_cli.cli.options import Options
from mambair_cli.cli.output import remark, say
from mambair_cli.system.signals import cleaning_up
from mambair_cli.system.warmup import import_torch, load_libraries

WORKER_MODULE = "mambair_cli.runs.executors.process_worker"

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.cli.progress import Progress
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.restore.settings import RestoreSettings
    from mambair_cli.runs.clip_sharing import SegmentWorkers
    from mambair_cli.runs.executors.processes import WorkerProcesses
    from mambair_cli.runs.executors.protocol import Executor
    from mambair_cli.runs.executors.ray_cluster import RayCluster
    from mambair_cli.server.client import ServerClient


def open_executor(asked: "Asked", options: Options, progress: "Progress") -> "Executor":
    """Load the model where it is to compute.

    Args:
        asked: What is asked for.
        options: Options of the command.
        progress: Shows images and tiles.

    Raises:
        MambairError: There is no such model, device, cluster or server.
    """
    if options.server:
        return _open_client(options.server, asked, options, progress)
    has_workers = options.devices is not None or options.workers is not None or options.ray is not None
    _prepare_workers(options)
    import_torch("cpu" if has_workers else options.device, partial(_compile_ahead, asked, options))
    from mambair_cli.restore.devices import choose_device, choose_devices
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.executors.this_process import ThisProcess

    settings = settings_for(asked, options)
    if options.ray is not None:
        return _open_cluster(options.ray, settings)
    devices = choose_devices(options.devices, options.workers)
    if not devices:
        load_libraries(choose_device(options.device))
    settings = replace(settings, device=devices[0] if devices else options.device)
    # Where a look chooses, a notice about a model comes when that one is chosen.
    is_silent = options.quiet or asked.is_open
    notify = (lambda sentence: None) if is_silent else say
    restorer = Restorer.from_settings(settings, notify)
    if len(devices) > 1:
        return _open_processes(devices, restorer, settings, progress)
    return ThisProcess(restorer, partial(progress.start, 0), partial(progress.advance, 0))


def load_restorer(asked: "Asked", options: Options) -> "Restorer":
    """Load the model in this process.

    Args:
        asked: What is asked for.
        options: Options of the command.

    Raises:
        MambairError: There is no such model or device.
    """
    import_torch(options.device, partial(_compile_ahead, asked, options))
    from mambair_cli.restore.devices import choose_device
    from mambair_cli.restore.restorer import Restorer

    load_libraries(choose_device(options.device))
    # Where a look chooses, a notice about a model comes when that one is chosen.
    is_silent = options.quiet or asked.is_open
    notify = (lambda sentence: None) if is_silent else say
    return Restorer.from_settings(settings_for(asked, options), notify)


@contextmanager
def open_restorer(asked: "Asked", options: Options) -> "Iterator[tuple[Restorer, SegmentWorkers | None]]":
    """Load the model for clips.

    The arguments and errors are those of :func:`load_restorer`.

    Yields:
        The restorer, with which several devices share the tiles of one frame; and workers that restore whole
        segments of a clip, where there are several devices.
    """
    _prepare_workers(options)
    from mambair_cli.restore.devices import choose_devices

    devices = choose_devices(options.devices, options.workers)
    first = replace(options, device=devices[0]) if devices else options
    restorer = load_restorer(asked, first)
    if len(devices) < 2:
        yield restorer, None
        return
    from mambair_cli.cli.progress import Progress
    from mambair_cli.runs.executors.clip_workers import ClipWorkers

    settings = replace(settings_for(asked, first), device=devices[0])
    with closing(_open_processes(devices, restorer, settings, Progress(not options.quiet))) as workers:
        yield restorer.by(workers.computer_for(None), workers.computer_for), ClipWorkers(workers)


def _compile_ahead(asked: "Asked", options: Options, capability: tuple[int, int]) -> None:
    """Have the programs for a GPU compiled that the model will launch, where its name tells which model."""
    if asked.weights is None and options.precision != "fp32":
        from mambair_cli.checkpoints.select import name_model
        from mambair_cli.programs.ahead import start

        start(name_model(asked, "cuda").name, capability)


def _prepare_workers(options: Options) -> None:
    """Have worker processes import what they need while this process does."""
    devices = options.devices or ""
    if options.ray is None and ((options.workers or 0) > 1 or devices == "all" or "," in devices):
        from mambair_cli.runs.executors.starting import prepare

        prepare([WORKER_MODULE])


def settings_for(asked: "Asked", options: Options) -> "RestoreSettings":
    """Return the settings of a restorer that a command's options give."""
    from mambair_cli.restore.settings import RestoreSettings

    return RestoreSettings.pick(options, asked=asked)


def _open_client(
    server: str,
    asked: "Asked",
    options: Options,
    progress: "Progress",
) -> "ServerClient":
    """Connect to a server, which loads the model if it has not."""
    from mambair_cli.restore.settings import ImageSettings
    from mambair_cli.server.address import parse_address
    from mambair_cli.server.client import ServerClient

    query = {
        "scale": asked.scale,
        "sigma": asked.level if asked.task == "denoise" else None,
        "jpeg_quality": asked.level if asked.task == "dejpeg" else None,
        "model": asked.model,
        "precision": None if options.precision == "auto" else options.precision,
        **ImageSettings.pick(options).changed,
        "offline": options.offline or None,
    }
    client = ServerClient(parse_address(server), asked.task, query, progress.start)
    if client.info.notice and not options.quiet:
        say(client.info.notice)
    return client


def _open_processes(
    devices: list[str], restorer: "Restorer", settings: "RestoreSettings", progress: "Progress"
) -> "WorkerProcesses":
    """Start a worker process for each device."""
    import torch

    from mambair_cli.runs.executors.processes import WorkerProcesses

    if progress.is_shown:  # nothing else is shown for seconds
        say(f"starting {len(devices)} workers")
    with cleaning_up():
        return WorkerProcesses(
            devices,
            restorer,
            replace(settings, asked=settings.asked.by_file(restorer.model.path), others=restorer.others),
            max(1, torch.get_num_threads() // len(devices)) if restorer.device.type == "cpu" else None,
            remark,
            progress.start,
            progress.advance,
        )


def _open_cluster(address: str, settings: "RestoreSettings") -> "RayCluster":
    """Start workers on the machines of a cluster."""
    from mambair_cli.checkpoints.select import choose_model, choose_others
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.executors.ray_cluster import RayCluster

    cluster = RayCluster(address, remark)
    asked, offline, quiet = settings.asked, settings.offline, settings.quiet
    try:
        model = choose_model(asked, cluster.kind, offline, quiet)
        others = choose_others(asked, cluster.kind, offline, quiet) if asked.is_open else {}
        if (notice := model.tell(offline)) and not quiet and not others:
            say(notice)
        here = replace(settings, asked=asked.by_file(model.path), device="cpu", others=others)
        Restorer.from_settings(here)  # shows here what is wrong with the model or the settings
        with cleaning_up():
            cluster.start(settings, model, others)
    except BaseException:
        cluster.close()
        raise
    return cluster
