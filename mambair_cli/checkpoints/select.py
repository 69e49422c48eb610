"""The model for a job: chosen by name or by the task, fetched, and held against the task."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from mambair_cli.checkpoints import catalog, hub, own_models
from mambair_cli.checkpoints.catalog import AUTO, REAL, Asked, Model, is_named
from mambair_cli.checkpoints.source import parse_source
from mambair_cli.errors import DownloadError, ModelError, UsageError
from mambair_cli.inspection.need import Kind, Need

if TYPE_CHECKING:
    from mambair_cli.networks import NetworkInfo


class MisfitError(ModelError):
    """A model exists and does something else than the request; raised as a :class:`ModelError`."""


class PictureKind(NamedTuple):
    """Pictures that have a model of their own.

    Attributes:
        kind: Kind of the pictures.
        level: Sigma of white noise that the model was trained for; None for any.
    """

    kind: Kind
    level: int | None = None


@dataclass(frozen=True)
class ChosenModel:
    """A checkpoint on this machine, and why it was chosen.

    Attributes:
        name: Name in the catalogue, or the name of the file.
        path: The checkpoint's file.
        notice: Sentence about the choice for the user, if there is one.
        sha256: Hash of the file, if it is known already.
        is_fallback: Whether it replaces a better model that is unavailable.
    """

    name: str
    path: Path
    notice: str | None = None
    sha256: str | None = None
    is_fallback: bool = False

    def tell(self, offline: bool) -> str | None:
        """Return the notice for the user; none about a fallback with ``offline``, which asks for it."""
        return None if offline and self.is_fallback else self.notice


def name_model(asked: Asked, device_kind: str) -> Model:
    """Choose a model by its name, or one of the catalogue by the task for "auto", "clean" and "real".

    Args:
        asked: What is asked for.
        device_kind: "cpu", "cuda" or "mps".

    Raises:
        ModelError: There is no such model.
        MisfitError: One of the user's does another task.
    """
    if not is_named(asked.model):
        return catalog.choose_model(asked, device_kind)
    found = own_models.find_model(asked.model)
    if found.source and found.task != asked.task:  # the tensors of some networks do not say it
        raise MisfitError(
            f"the model does not fit the task: {found.name} does {found.task}; {asked.task} was asked for"
        )
    return found


def choose_model(asked: Asked, device_kind: str, offline: bool, quiet: bool = False) -> ChosenModel:
    """Choose a checkpoint, and fetch it if it is not on this machine.

    A file or a model that was named is used, or is an error. "clean" takes the best official model for the
    device, and if that is unavailable, the built-in one. "real" does the same with models for pictures that
    are noisy, compressed or blurred. "auto" is one of them here, where no picture is seen: for ``denoise``
    "real", and else "clean".

    Args:
        asked: What is asked for.
        device_kind: "cpu", "cuda" or "mps".
        offline: Whether to download nothing.
        quiet: Whether to show no progress of a download.

    Raises:
        ModelError: No model is available.
        UsageError: Both a model and weights are given.
    """
    if asked.weights is not None:
        if asked.model != AUTO:
            raise UsageError(f"model {asked.model} and weights {asked.weights} exclude each other; give one")
        return choose_file(asked.weights, offline, quiet)
    best = name_model(asked, device_kind)
    try:
        fetched = hub.fetch(best, offline=offline, quiet=quiet)
        return ChosenModel(best.name, fetched.path, fetched.notice, fetched.verification.sha256)
    except hub.WrongFileError:  # somebody damaged or exchanged it: no fallback hides that
        raise
    except DownloadError as error:
        shipped = catalog.bundled_model(asked.task, asked.usual_scale, best.is_real)
        if is_named(asked.model) or shipped is None or hub.cached(shipped) is None:
            raise
        fetched, notice = hub.fetch(shipped), _explain_fallback(best, shipped, error)
        return ChosenModel(shipped.name, fetched.path, notice, fetched.verification.sha256, True)


def choose_file(weights: str | Path, offline: bool = False, quiet: bool = False) -> ChosenModel:
    """Return the checkpoint of a path or a source, fetched if it is not on this machine.

    Args:
        weights: Path, or a text for ``parse_source``.
        offline: Whether to download nothing.
        quiet: Whether to show no progress.

    Raises:
        UsageError: The source is malformed.
        DownloadError: It cannot be fetched.
    """
    source = parse_source(weights) if isinstance(weights, str) else None
    if source is None:
        return ChosenModel(Path(weights).name, Path(weights))
    fetched = hub.fetch(source, offline=offline, quiet=quiet)
    return ChosenModel(source.file_name, fetched.path, fetched.notice, fetched.verification.sha256)


def choose_others(
    asked: Asked, device_kind: str, offline: bool, quiet: bool = False
) -> dict[PictureKind, ChosenModel]:
    """Choose the models for kinds of pictures that the model of "auto" does not suit.

    Those for one level of white noise are used where they are on this machine already; where they are not,
    or would take minutes, and for gray noise, the built-in model is used.

    Raises:
        ModelError: No model is available.
    """
    if asked.task == "upscale":
        return {PictureKind("real"): choose_model(replace(asked, model=REAL), device_kind, offline, quiet)}
    if asked.task == "dejpeg":
        return {}
    models = [each for each in catalog.load_catalog() if each.task == asked.task and each.level is not None]
    here = [each for each in models if device_kind != "cpu" and hub.cached(each) is not None]
    wanted = {each.level: Asked(asked.task, level=each.level) for each in here}
    chosen = {
        PictureKind("white", level): choose_model(one, device_kind, True, quiet)
        for level, one in wanted.items()
        if name_model(one, device_kind) in here
    }
    shipped = catalog.bundled_model(asked.task, 1)
    if shipped is not None:
        fetched = hub.fetch(shipped)
        built_in = ChosenModel(shipped.name, fetched.path, None, fetched.verification.sha256)
        chosen[PictureKind("white")] = built_in
    return chosen


def find_kind(need: Need, kinds: Collection[PictureKind]) -> PictureKind | None:
    """Return the kind, of those that have a model of their own, that a picture belongs to, if any.

    Models for real pictures can do with white noise, where there is none for that. Models for one level take
    noise that is alike in all colours for detail.

    Args:
        need: What was seen of the picture.
        kinds: Kinds of pictures that have a model of their own.
    """
    if need.kind == "clean":
        return None
    levels = sorted(each.level for each in kinds if each.kind == "white" and each.level is not None)
    if need.kind == "white" and need.sigma is not None and levels:
        return PictureKind("white", next((level for level in levels if level >= need.sigma), levels[-1]))
    wanted: tuple[Kind, ...] = ("white", "real") if need.kind == "white" else ("real",)
    return next((kind for kind in map(PictureKind, wanted) if kind in kinds), None)


def explain_gray(model: ChosenModel) -> str | None:
    """Say that a model for one level of noise changes little in a gray picture; None for other models."""
    entry = next((entry for entry in catalog.load_catalog() if entry.name == model.name), None)
    if entry is None or entry.task != "denoise" or entry.level is None or entry.channels == 1:
        return None
    return (
        f"gray pictures change little by {model.name}, which removes noise that differs between "
        "red, green and blue; --real removes any"
    )


def describe_work(info: "NetworkInfo", name: str) -> str:
    """Say what a network of that name does, for errors."""
    at_size = f" ×{info.scale}" if info.scale > 1 else ", at the same size"
    return f"{name} ({info.architecture}) does {info.task}{at_size}"


def check_fit(info: "NetworkInfo", asked: Asked, model: ChosenModel) -> None:
    """Refuse a network that does not do the task.

    Args:
        info: Facts about the network.
        asked: What is asked for.
        model: The checkpoint, for the error.

    Raises:
        MisfitError: It does another task, or another scale.
    """
    does = describe_work(info, model.name)
    task, scale = asked.task, asked.exact_scale
    fits = info.task == task or (info.task == "restore" and task != "upscale")
    if not fits:
        raise MisfitError(f"the model does not fit the task: {does}; {task} was asked for")
    if task == "upscale" and scale is not None and scale != info.scale:
        raise MisfitError(f"the model does not fit the scale: {does}; ×{scale} was asked for")


def _explain_fallback(best: Model, shipped: Model, error: DownloadError) -> str:
    losses = [best.psnr[name] - shipped.psnr[name] for name in shipped.psnr if name in best.psnr]
    cost = f" (about {sum(losses) / len(losses):.1f} dB lower)" if losses else ""
    reason = cast(str, error.args[0]).split(";")[0].split(": ")[0]  # `mambair doctor` has the rest
    return f"using the built-in model {shipped.name}{cost}: {reason}"
