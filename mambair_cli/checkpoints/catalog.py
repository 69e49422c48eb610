"""The catalogue of models, ``weights.toml``, read into frozen records."""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from mambair_cli.errors import ModelError

PACKAGE = Path(__file__).parents[1]

Task = Literal["upscale", "denoise", "dejpeg"]
Certainty = Literal["certain", "very likely", "likely", "uncertain"]

# Words instead of a model's name: the best model for the picture, for real pictures, for clean pictures.
AUTO, REAL, CLEAN = "auto", "real", "clean"

NETWORK_SCALES = (2, 3, 4)  # by which networks enlarge

_SCALES: Mapping[str, tuple[int, ...]] = {"upscale": NETWORK_SCALES, "denoise": (1,), "dejpeg": (1,)}
_CHECKPOINT_SUFFIXES = (".pth", ".safetensors")
_PATTERNS = {
    "name": re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"),
    "repo": re.compile(r"[\w.-]+/[\w.-]+"),
    "revision": re.compile(r"[0-9a-f]{40}"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "url": re.compile(r"https://\w[\w.-]*(/\w[\w.-]*)+\.(pth|safetensors)"),
}


@dataclass(frozen=True, kw_only=True)
class Model:
    """One checkpoint of the catalogue, on the Hub or inside the package.

    Attributes:
        name: Name for the user.
        task: Task that it does.
        scale: Output pixels per input pixel and side; 1 for denoise and dejpeg.
        level: Noise sigma (of 255) or JPEG quality that it was trained for; None: any, or not used.
        channels: 3 (RGB) or 1 (gray).
        architecture: ``mambair``, ``mambair-unet`` or ``mambairv2``.
        variant: Name of the configuration, such as ``light``.
        parameters: Number of parameters; None where unknown.
        repo: Repository on the Hub; empty where bundled.
        revision: Commit of the repository; None: its main branch.
        files: Paths in the repository, most likely first; empty where bundled.
        url: Second official address of the file; None if there is none.
        certainty: How sure the paths are; None where bundled.
        sha256: Hash of the file, in hexadecimal; None where unknown.
        size: Size of the file, in bytes; None where unknown. Zeros at its end mean three digits.
        license: SPDX identifier.
        psnr: Published PSNR in dB, by data set or, for a model for all levels, by data set and level, such as
            "CBSD10, 25"; empty where none was published.
        cpu_seconds: Seconds for a picture of 256×256 on two cores; None where it was not measured.
        bundled: Path inside the package of a built-in model; None for others.
        source: Where a model that the user added is: a path, or a text for ``parse_source``; None in the
            catalogue.
    """

    name: str
    task: Task
    scale: int
    level: int | None = None
    channels: int
    architecture: str
    variant: str
    parameters: int | None = None
    repo: str = ""
    revision: str | None = None
    files: tuple[str, ...] = ()
    url: str | None = None
    certainty: Certainty | None = None
    sha256: str | None = None
    size: int | None = None
    license: str
    psnr: Mapping[str, float] = field(default_factory=dict, hash=False)
    cpu_seconds: float | None = None
    bundled: str | None = None
    source: str | None = None

    @property
    def is_real(self) -> bool:
        """Whether it is for real pictures, noisy or compressed, not for the papers' test images."""
        return self.variant in ("real", "tiny-real")

    @property
    def draws_noise(self) -> bool:
        """Whether its results depend on a seed; as ``NetworkInfo.draws_noise`` tells of a loaded network."""
        return self.architecture == "mambairv2"


@cache
def load_catalog() -> tuple[Model, ...]:
    """Read the catalogue that ships with the package, in the order of the file."""
    path = PACKAGE / "weights.toml"
    if not path.is_file():  # it is there in a wheel; an editable install reads the checkout's
        path = PACKAGE.parent / path.name
    return parse_catalog(path.read_text(encoding="utf-8"))


def parse_catalog(text: str) -> tuple[Model, ...]:
    """Read a catalogue, strictly.

    Args:
        text: TOML, one ``[[model]]`` table for each model.

    Raises:
        ValueError: An entry is malformed; the message names it.
    """
    if sys.version_info >= (3, 11):  # imported here: --help reads no catalogue
        import tomllib
    else:
        import tomli as tomllib

    document = tomllib.loads(text)
    if document.keys() != {"model"} or not isinstance(document["model"], list):
        raise ValueError(f"a catalogue is a list of [[model]] tables, not {sorted(document)}")
    models = tuple(_read_entry(entry) for entry in document["model"])
    names = [model.name for model in models]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models of one name: {', '.join(repeated)}")
    return models


def find_model(name: str, own: Iterable[Model] = ()) -> Model:
    """Return the model of that name.

    Args:
        name: Its name.
        own: Models that the user has added to the catalogue.

    Raises:
        ModelError: There is none; the message lists similar names.
    """
    models = {model.name: model for model in (*own, *load_catalog())}
    if name in models:
        return models[name]
    close = get_close_matches(name.lower(), models, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`mambair models list` shows all names"
    remedies = {}
    if name.lower().endswith((*_CHECKPOINT_SUFFIXES, ".pt", ".ckpt")):
        hint = "`mambair models add NAME FILE` gives a file a name"
        remedies = {"--weights": "--weights takes a file"}
    raise ModelError(f"unknown model: {name}; {hint}", remedies)


def is_named(model: str) -> bool:
    """Tell whether this is the name of a model, not a word for choosing one."""
    return model not in (AUTO, REAL, CLEAN)


def default_scale(task: Task) -> int:
    """Return the scale of a task without a given one."""
    return 4 if task == "upscale" else 1


@dataclass(frozen=True)
class Asked:
    """What is asked for: what a network is to do, and what chooses it.

    Attributes:
        task: "upscale", "denoise" or "dejpeg".
        scale: Output pixels per input pixel and side; None for that of the checkpoint, or the default.
        level: Noise sigma of 255, or JPEG quality; None if it is unknown.
        model: Name of a model, or "auto", "clean" or "real".
        weights: Checkpoint to use instead: a file, or a text for ``parse_source``; None for a model by name.
    """

    task: Task = "upscale"
    scale: int | None = None
    level: float | None = None
    model: str = AUTO
    weights: str | Path | None = None

    @property
    def usual_scale(self) -> int:
        """The scale that was asked for, or the default of the task."""
        return default_scale(self.task) if self.scale is None else self.scale

    @property
    def exact_scale(self) -> int | None:
        """The scale that the network must have; None for any: one for real pictures may enlarge further."""
        return None if self.model == REAL else self.scale

    @property
    def is_open(self) -> bool:
        """Whether a look at each image chooses its model: nobody named one, or the damage."""
        return self.model == AUTO and self.weights is None and self.level is None

    def by_file(self, weights: str | Path | None) -> "Asked":
        """Return the same by a checkpoint, which somebody has chosen."""
        return replace(self, model=AUTO, weights=weights)


def choose_model(asked: Asked, device_kind: str) -> Model:
    """Choose the model for ``--model auto``, ``clean`` or ``real``, where no picture is seen.

    On a GPU it is the official model with the best published PSNR. On a CPU it is the best light model, if
    the task has one, and for real photographs, which take the official networks minutes, the built-in model.
    Denoising without a level is for real photographs, or, for clean ones, for white noise of any strength.

    A model for one level leaves part of stronger noise in the picture, and smooths weaker noise a little too
    much. So ``sigma`` chooses the lowest level that covers it, or else the highest. JPEG quality, with few
    levels, chooses the nearest one, the stronger of two. For JPEG of unknown quality there is no official
    model; the built-in one is for all qualities.

    Args:
        asked: What is asked for; the level is not used by upscale. For "real", for pictures that are noisy,
            compressed or blurred, the model's scale may be larger.
        device_kind: PyTorch's name of the kind of device: ``cpu``, ``cuda``, ``mps``.

    Raises:
        ModelError: No model has that scale, or is for real pictures.
    """
    task, scale, level = asked.task, asked.usual_scale, asked.level
    if scale not in _SCALES[task]:
        scales = " or ".join(str(known) for known in _SCALES[task])
        raise ModelError(f"no model for {task} at that scale: {scale}; {scales} would work")

    if asked.model == REAL or (task == "denoise" and level is None and asked.model != CLEAN):
        return _choose_real(task, scale, device_kind)
    models = [model for model in load_catalog() if (model.task, model.scale) == (task, scale)]
    if task != "upscale" and level is None:
        return next(model for model in models if model.bundled and not model.is_real)
    models = [model for model in models if not model.bundled]
    if task == "upscale":
        models = [model for model in models if not model.is_real]
    else:
        trained = _nearest_level(task, level, {model.level for model in models if model.level is not None})
        models = [model for model in models if model.level == trained]
    if device_kind == "cpu":
        models = [model for model in models if model.variant == "light"] or models
    return max(models, key=_mean_psnr)


def bundled_model(task: Task, scale: int, is_real: bool = False) -> Model | None:
    """Return the built-in model for the task, if there is one.

    Args:
        task: Task that it does.
        scale: Output pixels per input pixel and side; for real pictures, the smallest scale that will do.
        is_real: Whether it is for real pictures.
    """
    for model in sorted(load_catalog(), key=lambda model: model.scale):
        fits = model.scale >= scale if is_real else model.scale == scale
        if model.bundled and model.task == task and fits and model.is_real == is_real:
            return model
    return None


def _choose_real(task: Task, scale: int, device_kind: str) -> Model:
    """Choose the model for real pictures with this scale or the next larger one."""
    models = [model for model in load_catalog() if model.is_real and model.task == task]
    models = [model for model in models if model.scale >= scale]
    if not models:
        raise ModelError(f"no model for real pictures does {task}: model real; leave it out")
    fast = [model for model in models if (model.bundled is not None) == (device_kind == "cpu")]
    return min(fast or models, key=lambda model: model.scale)


def _nearest_level(task: Task, level: float | None, known: Iterable[int]) -> int | None:
    """Return the trained level for a wanted one; None, for real photographs, stays None."""
    if level is None:
        return None
    if task == "denoise":
        return min((sigma for sigma in known if sigma >= level), default=max(known))
    return min(known, key=lambda quality: (abs(quality - level), quality))


def _mean_psnr(model: Model) -> float:
    return sum(model.psnr.values()) / len(model.psnr)


def _read_entry(entry: Mapping[str, Any]) -> Model:
    """Turn one table into a record.

    Raises:
        ValueError: The table is malformed; the message says why.
    """
    label = entry.get("name", "a model without a name")
    known = {attribute.name for attribute in fields(Model)} - {"source"}
    required = {
        attribute.name
        for attribute in fields(Model)
        if attribute.default is MISSING and attribute.default_factory is MISSING
    }
    if stray := sorted(entry.keys() - known):
        raise ValueError(f"{label}: unknown keys: {', '.join(stray)}")
    if missing := sorted(required - entry.keys()):
        raise ValueError(f"{label}: missing keys: {', '.join(missing)}")
    for key, value in entry.items():
        if not is_sound(key, value):
            raise ValueError(f"{label}: bad {key}: {value!r}")

    model = Model(**{**entry, "files": tuple(entry.get("files", ()))})
    if model.scale not in _SCALES[model.task]:
        raise ValueError(f"{label}: {model.task} has no scale {model.scale}")
    if model.level is not None and (model.task == "upscale" or model.is_real):
        raise ValueError(
            f"{label}: a level means nothing to {'real pictures' if model.is_real else 'upscale'}"
        )
    on_hub = (model.repo, model.files, model.certainty)
    if model.bundled and (any(on_hub) or model.revision or model.url):
        raise ValueError(f"{label}: bundled, and yet with a place on the Hub or elsewhere")
    if not model.bundled and not all(on_hub):
        raise ValueError(f"{label}: neither bundled nor with repo, files and certainty")
    return model


def is_sound(key: str, value: object) -> bool:
    """Tell whether a value has the type and form that its key needs."""
    match key:
        case "name" | "repo" | "revision" | "sha256" | "url":
            return isinstance(value, str) and _PATTERNS[key].fullmatch(value) is not None
        case "task":
            return isinstance(value, str) and value in _SCALES
        case "certainty":
            return value in get_args(Certainty)
        case "channels":
            return type(value) is int and value in (1, 3)
        case "scale" | "level" | "parameters" | "size":
            return type(value) is int and value > 0
        case "files":
            return isinstance(value, list) and value != [] and all(map(_is_inner, value))
        case "bundled":
            return _is_inner(value)
        case "cpu_seconds":
            return type(value) is float and value > 0
        case "psnr":
            return isinstance(value, dict) and all(type(db) is float and db > 0 for db in value.values())
        case _:
            return isinstance(value, str) and value != ""


def _is_inner(path: object) -> bool:
    """Tell whether this is a relative path of a checkpoint that stays inside its folder."""
    if not isinstance(path, str) or "\\" in path:
        return False
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and parts.suffix in _CHECKPOINT_SUFFIXES
