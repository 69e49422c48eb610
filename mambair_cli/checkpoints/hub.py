"""Catalogue entry -> verified file on this machine, by way of the Hugging Face Hub and its cache.

What users of huggingface_hub know holds here: its cache, shared with other programs, its login, its retries,
its variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` ...), and its progress bar, on
stderr where that is a terminal.

A file is looked for by the names of the catalogue, then at its second address (:mod:`mirror`), then by a name
that is spelled in another way (:mod:`spelling`): on this machine, and then on the network.
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

_LISTED_FILES = 8  # of a repository, in an error message


class WrongFileError(DownloadError):
    """A file is not the one that the catalogue or the Hub describes: nothing to work around quietly."""


@dataclass(frozen=True)
class Verification:
    """What a file's hash was found to be.

    Attributes:
        sha256: In hexadecimal.
        source: Who says that it is right: the catalogue, or else the Hub, or else, for a file that came from
            elsewhere, the cache; None: nobody knows a hash.
    """

    sha256: str
    source: Literal["catalogue", "hub", "cache"] | None


@dataclass(frozen=True)
class Fetched:
    """A model's file on this machine.

    Attributes:
        path: Where it is.
        verification: Of its hash.
        notice: What the user should know of where it is from, if anything.
    """

    path: Path
    verification: Verification
    notice: str | None = None


def fetch(model: Model, *, offline: bool = False, quiet: bool = False) -> Fetched:
    """Return a verified file of the model, downloaded if it is not in the cache yet.

    Args:
        model: Entry of the catalogue.
        offline: Do without the network.
        quiet: Show no progress.

    Raises:
        WrongFileError: The file has another hash than it should; it is removed from the cache.
        DownloadError: The file is neither in the cache nor to be had.
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
    """Return the model's file if it is on this machine already; the network is not touched."""
    return _find(model)[0]


def _find(model: Model) -> tuple[Path | None, str | None]:
    """Return the model's file on this machine, if there is one, and what the user should know of it."""
    if model.bundled:
        path = PACKAGE / model.bundled
        return (path if path.is_file() else None), None
    from huggingface_hub import try_to_load_from_cache

    with _translated_errors(model):
        for file in model.files:
            found = try_to_load_from_cache(model.repo, file, revision=model.revision)
            if isinstance(found, str):  # it could also be a mark that the repository lacks the file
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
    """Return the folder of the Hub's cache with the model's repository, which may not be there."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model.repo, repo_type="model"))
    commit = model.revision or ""
    reference = folder / "refs" / constants.DEFAULT_REVISION
    if not commit and reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    return folder / "snapshots" / (commit or "none")


def reach(model: Model, seconds: float) -> None:
    """Ask the Hub for a model's repository.

    Args:
        model: Of the catalogue, not one that is bundled.
        seconds: To wait for the answer.

    Raises:
        DownloadError: There is none, or no access.
    """
    from huggingface_hub import model_info

    with _translated_errors(model):
        model_info(model.repo, revision=model.revision, timeout=seconds)


def verify(path: Path, model: Model) -> Verification:
    """Hold a file's hash against the catalogue's or, where that has none, the one that it came with.

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
            else f"`mambair models download {model.name}` fetches it anew"
        )
        raise WrongFileError(
            f"not the file that {model.name} should be: {path} has sha256 {actual}, not {expected}; {remedy}"
        )
    return Verification(actual, source)


def discard(path: Path) -> None:
    """Remove a file from the cache: the link that names it, and what that leads to, link by link.

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
    """Fetch the model's file from where it can be had, and say what the user should know of that."""
    listed: list[str] = []
    try:
        listed = _list_files(model)
        if file := next((file for file in model.files if file in listed), None):
            return _download_listed(model, file, quiet), None
        trouble = DownloadError(_explain_missing(model, listed))
    except DownloadError as error:
        if _is_local(error):
            raise
        trouble, listed = error, []  # if it lists the file and does not give it, no other is meant
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
        # Asked once and with a time limit, so that an unreachable Hub is known for what it is within seconds:
        # a download would go on trying for minutes.
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

    The cache keeps it as the name of what a snapshot's link leads to. Small files go by their git hash, and
    without links (on Windows) there is no name to read.
    """
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


@contextmanager
def _translated_errors(model: Model) -> Iterator[None]:
    """Turn what huggingface_hub raises into a DownloadError of one line.

    That can be anything: its own errors, the disk's, those of an HTTP client that is another package from one
    version to the next, RuntimeError from Xet (its other way of transfer), ValueError where a proxy's login
    page came in place of an answer. So nothing but its calls stands in the block.
    """
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:
        raise DownloadError(_explain(error, model)) from error


def _is_local(error: DownloadError) -> bool:
    """Tell whether the trouble is with this machine, offline or out of disk: no other address would help."""
    from huggingface_hub import errors

    cause = _root_of(error.__cause__) if error.__cause__ else None
    is_disk = isinstance(cause, OSError) and cause.errno is not None
    return is_disk or isinstance(cause, errors.OfflineModeIsEnabled)


def _root_of(error: BaseException) -> BaseException:
    """Return what is behind an error that says no more than that the file is not in the cache either."""
    from huggingface_hub import errors

    is_empty = isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__
    return error.__cause__ if is_empty and error.__cause__ else error


def _reason(error: DownloadError) -> str:
    """Return an error's message without what would work."""
    return str(error).partition("; ")[0]


def _explain(error: BaseException, model: Model) -> str:
    """Phrase an error of huggingface_hub: what failed, the value, what would work."""
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
            return f"no such revision of {repo} on {hub}: {model.revision}; a newer mambair may know another"
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
        f"`mambair models download {model.name}` fetches it when online"
    )


def _explain_alike(model: Model, file: str) -> str:
    return f"using {file} as {model.name}: the known file names are missing, and only this one is similar"


def _explain_missing(model: Model, listed: list[str]) -> str:
    """Say what a repository has in place of a model's files, likely ones first."""
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
