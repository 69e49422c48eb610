"""Catalogue entry -> verified file on this machine, through the Hugging Face Hub and its cache.

All of huggingface_hub works as usual: its cache, shared with other programs, its login, its retries, its
variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` ...), and its progress bar.

A file is searched for by the names in the catalogue, then at its second address (:mod:`mirror`), then by a
similar name (:mod:`spelling`): first on this machine, then on the network.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from mambair_cli.checkpoints import mirror
from mambair_cli.checkpoints.catalog import PACKAGE, Model
from mambair_cli.checkpoints.spelling import find_alike
from mambair_cli.errors import DownloadError
from mambair_cli.system.files import hash_of

_LISTED_FILES = 8  # files of a repository in an error message


class WrongFileError(DownloadError):
    """A file is not the one in the catalogue or on the Hub; no other model replaces it silently."""


@dataclass(frozen=True)
class Verification:
    """The verified hash of a file.

    Attributes:
        sha256: Hash, in hexadecimal.
        source: What gave the expected hash: the catalogue; without an entry there, the Hub; for a file from
            another address, the cache. None if no hash is known.
    """

    sha256: str
    source: Literal["catalogue", "hub", "cache"] | None


@dataclass(frozen=True)
class Fetched:
    """A model's file on this machine.

    Attributes:
        path: Path of the file.
        verification: Verification of its hash.
        notice: Sentence for the user about where it is from; None if there is nothing to say.
    """

    path: Path
    verification: Verification
    notice: str | None = None


def fetch(model: Model, *, offline: bool = False, quiet: bool = False) -> Fetched:
    """Return a verified file of the model, downloaded if it is not in the cache yet.

    Args:
        model: Entry of the catalogue.
        offline: Whether to avoid the network.
        quiet: Whether to show no progress.

    Raises:
        WrongFileError: The file has the wrong hash; it is removed from the cache.
        DownloadError: The file is not in the cache and cannot be downloaded.
    """
    path, notice = _find(model)
    if path is None and model.bundled:
        raise DownloadError(f"missing from the package: {model.bundled}; reinstall mambair-cli")
    if path is None and offline:
        raise DownloadError(_explain_offline(model))
    if path is None:
        path, notice = _download(model, quiet)
    try:
        return Fetched(path, verify(path, model), notice)
    except WrongFileError as error:
        if model.bundled:
            raise
        discard(path)
        raise WrongFileError(f"{error} (the file has been removed)") from error


def cached(model: Model) -> Path | None:
    """Return the model's file if it is on this machine; the network is not used."""
    return _find(model)[0]


def _find(model: Model) -> tuple[Path | None, str | None]:
    """Return the model's file on this machine, if there is one, and a notice for the user."""
    if model.bundled:
        path = PACKAGE / model.bundled
        return (path if path.is_file() else None), None
    from huggingface_hub import try_to_load_from_cache

    with _translated_errors(model):
        for file in model.files:
            found = try_to_load_from_cache(model.repo, file, revision=model.revision)
            if isinstance(found, str):  # it can also be a marker that the repository lacks the file
                return Path(found), None
        if model.url and (path := mirror.find(model.url)):
            return path, None
        snapshot = _snapshot_of(model)
        folders = {snapshot / Path(file).parent for file in model.files}
        files = [path for folder in folders for path in folder.glob("*") if path.is_file()]
    listed = [path.relative_to(snapshot).as_posix() for path in files]
    alike = find_alike(model, listed)
    if len(alike) == 1:
        return snapshot / alike[0], _explain_alike(model, alike[0])
    return None, None


def _snapshot_of(model: Model) -> Path:
    """Return the folder of the model's repository in the Hub's cache; it may not exist."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model.repo, repo_type="model"))
    commit = model.revision or ""
    reference = folder / "refs" / constants.DEFAULT_REVISION
    if not commit and reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    return folder / "snapshots" / (commit or "none")


def reach(model: Model, seconds: float) -> None:
    """Check that the Hub answers for a model's repository.

    Args:
        model: Entry of the catalogue, not a built-in model.
        seconds: Time limit for the answer.

    Raises:
        DownloadError: There is no answer, or no access.
    """
    from huggingface_hub import model_info

    with _translated_errors(model):
        model_info(model.repo, revision=model.revision, timeout=seconds)


def verify(path: Path, model: Model) -> Verification:
    """Compare a file's hash with the catalogue's or, where that has none, with the one that it came with.

    Raises:
        WrongFileError: They differ.
        DownloadError: The file cannot be read.
    """
    try:
        actual = hash_of(path)
    except OSError as error:
        raise DownloadError(f"cannot read: {path}: {error.strerror}; check its permissions") from error
    expected, source = model.sha256, "catalogue"
    if expected is None:
        expected, source = _sha256_on_hub(path), "hub"
    if expected is None:
        expected, source = mirror.recorded_hash(path), "cache"
    if expected is None:
        return Verification(actual, None)
    if actual != expected:
        remedy = (
            "reinstall mambair-cli"
            if model.bundled
            else f"`mambair models download {model.name}` downloads it again"
        )
        raise WrongFileError(
            f"not the file that {model.name} should be: {path} has sha256 {actual}, not {expected}; {remedy}"
        )
    return Verification(actual, source)


def discard(path: Path) -> None:
    """Remove a file from the cache: its link, and the targets of the link.

    Raises:
        DownloadError: It cannot be removed.
    """
    try:
        while path.is_symlink():
            target = path.parent / path.readlink()
            path.unlink()
            path = target
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot remove: {path}: {error.strerror}; remove it by hand") from error


def _download(model: Model, quiet: bool) -> tuple[Path, str | None]:
    """Download the model's file from the first source that has it; return its path and a notice."""
    listed: list[str] = []
    try:
        listed = _list_files(model)
        if file := next((file for file in model.files if file in listed), None):
            return _download_listed(model, file, quiet), None
        trouble = DownloadError(_explain_missing(model, listed))
    except DownloadError as error:
        if _is_local(error):
            raise
        trouble, listed = error, []  # the repository may list the file, so no other file is tried
    if model.url:
        try:
            with _translated_errors(model):
                path = mirror.download(model.url, _bar(quiet))
            return path, f"using {model.name} from {model.url}, not from the Hub: {_reason(trouble)}"
        except DownloadError as error:
            if _is_local(error):
                raise
            reason, remedy = _reason(trouble), str(trouble).removeprefix(_reason(trouble))
            trouble = DownloadError(f"{reason} ({urlsplit(model.url).netloc}: {error}){remedy}")
    alike = find_alike(model, listed)
    if not alike:
        raise trouble
    if len(alike) > 1:
        raise DownloadError(
            f"{model.repo} on the Hub lists several files that may be {model.name}: {', '.join(alike)}; "
            "pass the right one with --weights"
        )
    return _download_listed(model, alike[0], quiet), _explain_alike(model, alike[0])


def _list_files(model: Model) -> list[str]:
    """Return the paths of all files in the model's repository."""
    from huggingface_hub import constants, model_info

    with _translated_errors(model):
        # One request with a time limit shows within seconds that the Hub is unreachable; a download would
        # retry for minutes.
        info = model_info(model.repo, revision=model.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return [sibling.rfilename for sibling in info.siblings or ()]


def _download_listed(model: Model, file: str, quiet: bool) -> Path:
    from huggingface_hub import hf_hub_download

    with _translated_errors(model):
        return Path(hf_hub_download(model.repo, file, revision=model.revision, tqdm_class=_bar(quiet)))


def _bar(quiet: bool) -> type | None:
    """Return the class of progress bars; None for the library's own."""
    from huggingface_hub.utils import tqdm

    class SilentBar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **{**kwargs, "disable": True})

    return SilentBar if quiet else None


def _sha256_on_hub(path: Path) -> str | None:
    """Return the hash that the Hub gave for a cached file.

    It is the name of the target of a snapshot's link in the cache. Small files have their git hash there, and
    without links (on Windows) there is no such name.
    """
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


@contextmanager
def _translated_errors(model: Model) -> Iterator[None]:
    """Turn any error of huggingface_hub into a DownloadError of one line.

    It can raise anything: its own errors, those of the disk, those of an HTTP client that changes with its
    version, RuntimeError from Xet (its other transfer), ValueError where a proxy's login page came instead of
    an answer. So the block has only calls to it.
    """
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(_explain(error, model)) from error


def _is_local(error: DownloadError) -> bool:
    """Tell whether the cause is on this machine, offline or its disk: no other address would help."""
    from huggingface_hub import errors

    cause = _root_of(error.__cause__) if error.__cause__ else None
    is_disk = isinstance(cause, OSError) and cause.errno is not None
    return is_disk or isinstance(cause, errors.OfflineModeIsEnabled)


def _root_of(error: BaseException) -> BaseException:
    """Return the cause of an error that says only that the file is not in the cache either."""
    from huggingface_hub import errors

    is_empty = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
    return error.__cause__ if is_empty and error.__cause__ else error


def _reason(error: DownloadError) -> str:
    """Return an error's message without its advice."""
    return str(error).partition("; ")[0]


def _explain(error: BaseException, model: Model) -> str:
    """Return the message for an error of huggingface_hub: what failed, the value, what would work."""
    from huggingface_hub import constants, errors

    hub, repo = constants.ENDPOINT, model.repo
    error = _root_of(error)
    detail = " ".join(str(error).split()) or type(error).__name__

    if isinstance(error, errors.OfflineModeIsEnabled):
        return _explain_offline(model)
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f"no access to {repo} on {hub}: HTTP {status}; ask for it at {hub}/{repo}, and give a token "
                "by `hf auth login` or in HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return f"no such repository on {hub}: {repo}; if it is private, give a token in HF_TOKEN"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"no such revision of {repo} on {hub}: {model.revision}; a newer mambair may have another"
        return f"cannot download {model.name} from {hub}: HTTP {status}; try again later"
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or constants.HF_HUB_CACHE
        return f"cannot use the cache: {where}: {error.strerror}; make room or set HF_HOME to another folder"
    return (
        f"cannot download {model.name} from {hub}: {detail}; check the connection, the proxy settings and "
        "HF_ENDPOINT, and try again"
    )


def _explain_offline(model: Model) -> str:
    from huggingface_hub import constants

    return (
        f"{model.name} is not in the cache, and this is offline: {constants.HF_HUB_CACHE}; "
        f"`mambair models download {model.name}` downloads it when online"
    )


def _explain_alike(model: Model, file: str) -> str:
    return f"using {file} as {model.name}: the known file names are missing, and only this one is similar"


def _explain_missing(model: Model, listed: list[str]) -> str:
    """Say which checkpoints a repository has instead of the model's file, likely ones first."""
    wanted = model.files[0]
    others = (
        f" (or {len(model.files) - 1} other spelling{'s' if len(model.files) > 2 else ''})"
        if len(model.files) > 1
        else ""
    )
    checkpoints = [file for file in listed if PurePosixPath(file).suffix in (".pth", ".pt", ".safetensors")]
    close = get_close_matches(wanted, checkpoints, n=_LISTED_FILES, cutoff=0.0)
    rest = len(checkpoints) - len(close)
    held = ", ".join(close) + (f" and {rest} more" if rest else "") if close else "no checkpoint at all"
    return (
        f"{model.repo} on the Hub lacks the file of {model.name}: {wanted}{others}; "
        f"it has {held}; pass the right one with --weights"
    )
