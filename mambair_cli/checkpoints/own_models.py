"""The models that the user has added to the catalogue, in a file of the user's: ``models.toml``."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mambair_cli.checkpoints import catalog, hub
from mambair_cli.checkpoints.catalog import Model, Task, is_named, is_sound
from mambair_cli.checkpoints.source import CheckpointSource, parse_source
from mambair_cli.errors import CheckpointError, MambairError, ModelError, UsageError
from mambair_cli.system.atomic import atomic_write
from mambair_cli.system.files import hash_of
from mambair_cli.system.home import home_folder
from mambair_cli.system.wording import show

if TYPE_CHECKING:
    from mambair_cli.networks import NetworkInfo

_HEADER = "# Your own models of mambair; `mambair models add` and `remove` change this file."
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_KEYS = ("name", "source", "sha256", "size", "task", "scale", "channels", "architecture", "parameters")
_ARCHITECTURES = {"MambaIR": "mambair", "MambaIRv2": "mambairv2", "MambaIRUNet": "mambair-unet"}
# The folder for settings within the home folder, where it is not .config.
_SETTINGS = {"win32": "AppData/Roaming", "darwin": "Library/Application Support"}
# Where the file is cut to remove a table: before it, and before each line of a remark above it, which stays.
_CUT = re.compile(r"(?m)^(?=(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*\[\[[ \t]*model[ \t]*\]\])")


def own_models_file() -> Path | None:
    """Return the path of the user's file of models, in the folder for settings; it may not exist.

    None if nothing tells where that folder is.
    """
    given, usual = "", _SETTINGS.get(sys.platform, ".config")
    if os.path.isabs(os.environ.get("XDG_CONFIG_HOME", "")):
        given = os.environ["XDG_CONFIG_HOME"]
    elif sys.platform == "win32":
        given = os.environ.get("APPDATA", "")
    home = home_folder()
    if not given and home is None:
        return None
    return Path(home or "", given or usual, "mambair", "models.toml")


def _require_file() -> Path:
    """Return the path of the user's file of models.

    Raises:
        ModelError: Nothing tells where it is.
    """
    path = own_models_file()
    if path is None:
        raise ModelError(
            "no place for the file of your own models: there is no home folder; set HOME or XDG_CONFIG_HOME"
        )
    return path


def load_own_models() -> tuple[Model, ...]:
    """Read the user's models, in the order of the file.

    Raises:
        ModelError: The file cannot be read, or is damaged.
    """
    path = own_models_file()
    if path is None:
        return ()
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ModelError(
            f"cannot read the file of your own models: {show(path)}: {reason}; correct it, or delete it and "
            "add the models again"
        ) from error


def find_model(name: str) -> Model:
    """Return the model of that name, in the catalogue or of the user.

    Raises:
        ModelError: There is none, or it cannot be known since the user's file is damaged.
    """
    if any(model.name == name for model in catalog.load_catalog()):
        return catalog.find_model(name)  # not even a damaged file of the user prevents that
    return catalog.find_model(name, load_own_models())


def explain_name(name: str) -> CheckpointError | None:
    """Say how to name a model where its name was given for a file; None if no model has it."""
    try:
        find_model(name)
    except ModelError:
        return None
    return CheckpointError(
        f"cannot load {name}: it is a model's name; `mambair models path {name}` prints its file",
        {"--model": f"--model {name} takes the model"},
    )


def add_model(
    name: str, text: str, task: Task | None = None, level: int | None = None, quiet: bool = False
) -> tuple[Model, hub.Fetched]:
    """Fetch a checkpoint, and add it to the user's models.

    Args:
        name: Its new name.
        text: Where it is: a path, or a text for :func:`parse_source`.
        task: Task that it does, where its tensors do not tell.
        level: Noise sigma (of 255) or JPEG quality that it was trained for; None for any.
        quiet: Whether to show no progress.

    Returns:
        The model, and its file.

    Raises:
        UsageError: The name, the task or the level is impossible.
        ModelError: The file cannot be fetched, or is no network, or there is no place to note it.
    """
    _check_name(name)
    _require_file()  # before anything is fetched
    source = parse_source(text)
    if source is None:
        fetched, text = _look_at(text), os.path.abspath(text)
    else:
        fetched = hub.fetch(source, quiet=quiet)
    from mambair_cli.checkpoints.load import load_network  # takes seconds; mistakes are reported before

    info = load_network(fetched.path).info
    model = Model(
        name=name,
        task=_settle_task(name, info, task, level),
        scale=info.scale,
        level=level,
        channels=info.channels,
        architecture=_ARCHITECTURES[info.architecture],
        variant="own",
        parameters=info.parameters,
        license="",
        sha256=fetched.verification.sha256,
        size=fetched.path.stat().st_size,
        source=text if source is None else _pin(source, fetched.path),
    )
    model = _place(model)
    with _changing() as (path, before):
        _check_name(name)
        _write(path, f"{before.rstrip() or _HEADER}\n\n{_format(model)}")
    return model, fetched


def remove_model(name: str) -> Model:
    """Remove a model from the user's; its file stays.

    Raises:
        UsageError: It is one of the catalogue.
        ModelError: There is none of that name, or the user's file cannot be written.
    """
    with _changing() as (path, before):
        own = load_own_models()
        model = next((model for model in own if model.name == name), None)
        if model is None:
            if any(each.name == name for each in catalog.load_catalog()):
                raise UsageError(f"a model of the catalogue cannot be removed: {name}; name one of your own")
            names = ", ".join(each.name for each in own) or "none so far"
            raise ModelError(f"no model of your own has that name: {name}; you have {names}")
        after = "".join(piece for piece in _CUT.split(before) if not _is_table_of(piece, name))
        if _parse(after) != tuple(each for each in own if each != model):
            raise ModelError(f"cannot find where {name} stands in {show(path)}; remove it by hand")
        _write(path, after.rstrip() + "\n")
    return model


def _check_name(name: str) -> None:
    """Refuse a name that models cannot have, or that another one has."""
    if not _NAME.fullmatch(name) or not is_named(name.lower()):
        raise UsageError(
            f"no model can have that name: {name or 'an empty one'}; up to 64 letters, digits, -, _ and . "
            "would work, but not auto, real or clean"
        )
    if any(model.name == name.lower() for model in catalog.load_catalog()):
        raise UsageError(f"the name is that of a model of the catalogue: {name}; choose another one")
    if any(model.name.lower() == name.lower() for model in load_own_models()):
        raise UsageError(
            f"you have a model of that name: {name}; choose another, or `mambair models remove {name}` first"
        )


def _look_at(text: str) -> hub.Fetched:
    """Hash a file of this machine."""
    path = Path(os.path.abspath(text))
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the path is not UTF-8 text: {text!r}; rename the file") from error
    try:
        return hub.Fetched(path, hub.Verification(hash_of(path), None))
    except OSError as error:
        named = explain_name(text) if isinstance(error, FileNotFoundError) else None
        raise named or ModelError(
            f"cannot read the checkpoint: {show(path)}: {error.strerror}; a .pth or .safetensors file would "
            "work"
        ) from error


def _settle_task(name: str, info: "NetworkInfo", task: Task | None, level: int | None) -> Task:
    """Return the task of a network, which its tensors or the user tell.

    Raises:
        UsageError: They contradict each other, or neither tells.
    """
    if info.task == "restore" and task not in ("denoise", "dejpeg"):
        raise UsageError(
            f"its tensors do not tell what {name} does: {info.architecture} at the same size; give "
            "--task denoise or --task dejpeg"
        )
    own_task = task if info.task == "restore" and task is not None else info.task
    if task not in (None, own_task):
        does = f"{own_task} ×{info.scale}" if info.scale > 1 else own_task
        raise UsageError(f"its tensors tell that {name} does {does}: --task {task}; leave it out")
    if level is not None and own_task == "upscale":
        raise UsageError(f"a level means nothing to upscale: --level {level}; leave it out")
    return cast(Task, own_task)


def _pin(source: CheckpointSource, path: Path) -> str:
    """Return the text of a source that means the same file for ever: with its commit, on the Hub."""
    if source.url:
        return source.url
    file = source.files[0]
    commit = path.parents[file.count("/")].name  # snapshots/COMMIT/FILE
    return f"hf:{source.repo}/{file}@{commit}"


def _place(model: Model) -> Model:
    """Fill in where the file of a model is, which its source tells."""
    source = parse_source(model.source) if model.source else None
    if source is None:
        return model
    return replace(model, repo=source.repo, revision=source.revision, files=source.files, url=source.url)


def _parse(text: str) -> tuple[Model, ...]:
    """Read the user's models.

    Raises:
        ValueError: The text is damaged; the message says where.
    """
    if sys.version_info >= (3, 11):  # imported here: --help reads no models
        import tomllib
    else:
        import tomli as tomllib

    document = tomllib.loads(text)
    tables = document.pop("model", [])
    if document or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("it is not a list of [[model]] tables")
    models = tuple(_read_table(table) for table in tables)
    names = [model.name.lower() for model in models]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models have one name: {', '.join(repeated)}")
    return models


def _read_table(table: Mapping[str, Any]) -> Model:
    label = table.get("name", "a model without a name")
    if stray := sorted(table.keys() - {*_KEYS, "level"}):
        raise ValueError(f"{label}: unknown keys: {', '.join(stray)}")
    if missing := sorted({*_KEYS} - table.keys()):
        raise ValueError(f"{label}: missing keys: {', '.join(missing)}")
    for key, value in table.items():
        if key == "name":
            is_right = isinstance(value, str) and _NAME.fullmatch(value) is not None and is_named(value)
        elif key == "architecture":
            is_right = value in _ARCHITECTURES.values()
        else:
            is_right = is_sound(key, value)
        if not is_right:
            raise ValueError(f"{label}: bad {key}: {value!r}")
    try:
        return _place(Model(**table, variant="own", license=""))
    except MambairError as error:  # of the source
        raise ValueError(f"{label}: {error}") from error


def _format(model: Model) -> str:
    """Write a model as a table of TOML, in which strings are as in JSON."""
    lines = ["[[model]]"]
    for key in (*_KEYS[:6], "level", *_KEYS[6:]):
        value = getattr(model, key)
        if value is not None:
            written = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{key} = {written}")
    return "\n".join(lines) + "\n"


def _is_table_of(piece: str, name: str) -> bool:
    """Tell whether a piece of the file is the table of a model."""
    try:
        models = _parse(piece)
    except ValueError:
        return False
    return [model.name for model in models] == [name]


@contextmanager
def _changing() -> Iterator[tuple[Path, str]]:
    """Keep other commands from changing the user's file; yield its path and its text.

    Raises:
        ModelError: The system refuses.
    """
    from filelock import FileLock

    path = _require_file()
    load_own_models()  # a damaged file stays as it is
    with ExitStack() as lock:
        with _explaining(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.enter_context(FileLock(path.with_name(f"{path.name}.lock")))
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        yield path, text


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Say in a line why the user's file cannot be written.

    Raises:
        ModelError: The system refuses.
    """
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"cannot write the file of your own models: {show(path)}: {error.strerror}; check its "
            "permissions, or set XDG_CONFIG_HOME to another folder"
        ) from error


def _write(path: Path, text: str) -> None:
    """Write the user's file whole or not at all; where it is a link, the file that it points to."""
    with _explaining(path), atomic_write(path.resolve()) as file:
        file.write(text.encode("utf-8"))
