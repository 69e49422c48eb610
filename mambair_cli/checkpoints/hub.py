"""Catalogue entry or source -> verified file on this machine, through the Hugging Face Hub and its cache.

All of huggingface_hub works as usual: its cache, shared with other programs, its login, its retries, its
variables (``HF_HOME``, ``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HUB_OFFLINE`` ...), and its progress bar.

A file is searched for by the names in the catalogue, then at its second address (:mod:`mirror`), then by a
similar name (:mod:`spelling`): first on this machine, then on the network. A file that the user chose, by a
:class:`CheckpointSource`, is that one or none.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mambair_cli.checkpoints import mirror
from mambair_cli.checkpoints.download_errors import (
    explain_alike,
    explain_lost,
    explain_missing,
    explain_offline,
    is_local,
    reason_of,
    remedy_wrong,
    translated_errors,
)
from mambair_cli.checkpoints.source import CheckpointSource, Wanted, is_own, local_path
from mambair_cli.checkpoints.spelling import find_alike
from mambair_cli.errors import DownloadError
from mambair_cli.system.files import hash_of


class WrongFileError(DownloadError):
    """A file is not the one in the catalogue or on the Hub; no other model replaces it silently."""


@dataclass(frozen=True)
class Verification:
    """The verified hash of a file.

    Attributes:
        sha256: Hash, in hexadecimal.
        source: What gave the expected hash: the catalogue, or for an own model the user; without one there,
            the Hub; for a file from another address, the cache. None if no hash is known.
    """

    sha256: str
    source: Literal["catalogue", "user", "hub", "cache"] | None


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


def fetch(model: Wanted, *, offline: bool = False, quiet: bool = False) -> Fetched:
    """Return a verified file of the model, downloaded if it is not in the cache yet.

    Args:
        model: Entry of the catalogue, or the user's own file.
        offline: Whether to avoid the network.
        quiet: Whether to show no progress.

    Raises:
        WrongFileError: The file has the wrong hash; it is removed from the cache, unless it is what came
            there and only the user wants another one.
        DownloadError: The file is not in the cache and cannot be downloaded.
    """
    path, notice = _find(model)
    local = local_path(model)
    if path is None and local is not None:
        raise DownloadError(explain_lost(model, local))
    if path is None and is_offline(offline):
        raise DownloadError(explain_offline(model))
    if path is None:
        _require_place(model)
        path, notice = _download(model, quiet)
    try:
        return Fetched(path, verify(path, model), notice)
    except WrongFileError as error:
        if local is not None or (is_own(model) and _is_as_it_came(path)):
            raise
        discard(path)
        raise WrongFileError(f"{error} (the file has been removed)") from error


def _require_place(model: Wanted) -> None:
    """Refuse to download a model where there is no folder for it.

    Raises:
        DownloadError: There is none.
    """
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE if model.repo else constants.HF_ASSETS_CACHE
    if homeless := mirror.explain_homeless(cache):
        raise DownloadError(f"cannot download {model.name} to the cache: {homeless}")


def is_offline(asked: bool) -> bool:
    """Tell whether neither the Hub nor another address may be asked.

    Args:
        asked: Whether an option forbids it; else the Hub's variables may.
    """
    from huggingface_hub import constants

    return asked or constants.HF_HUB_OFFLINE


def cached(model: Wanted) -> Path | None:
    """Return the model's file if it is on this machine; the network is not used."""
    return _find(model)[0]


def _find(model: Wanted) -> tuple[Path | None, str | None]:
    """Return the model's file on this machine, if there is one, and a notice for the user."""
    if (local := local_path(model)) is not None:
        return (local if local.is_file() else None), None
    from huggingface_hub import try_to_load_from_cache

    with translated_errors(model):
        for file in model.files:
            found = try_to_load_from_cache(model.repo, file, revision=model.revision)
            if not isinstance(found, str):  # but None, or a marker that the repository lacks the file
                continue
            if is_own(model) and model.sha256 and _sha256_on_hub(Path(found)) not in (None, model.sha256):
                continue  # a file from before, perhaps; the Hub may have the one that is wanted
            return Path(found), None
        if model.url and (path := mirror.find(model.url, model.sha256)):
            return path, None
        if isinstance(model, CheckpointSource) or model.source:
            return None, None
        snapshot = _snapshot_of(model)
        folders = {snapshot / Path(file).parent for file in model.files}
        files = [path for folder in folders for path in folder.glob("*") if path.is_file()]
    listed = [path.relative_to(snapshot).as_posix() for path in files]
    alike = find_alike(model, listed)
    if len(alike) == 1:
        return snapshot / alike[0], explain_alike(model, alike[0])
    return None, None


def _snapshot_of(model: Wanted) -> Path:
    """Return the folder of the model's repository in the Hub's cache; it may not exist."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=model.repo, repo_type="model"))
    commit = model.revision or ""
    reference = folder / "refs" / constants.DEFAULT_REVISION
    if not commit and reference.is_file():
        commit = reference.read_text(encoding="utf-8").strip()
    return folder / "snapshots" / (commit or "none")


def reach(model: Wanted, seconds: float) -> None:
    """Check that the Hub answers for a model's repository.

    Args:
        model: Entry of the catalogue, not a built-in model.
        seconds: Time limit for the answer.

    Raises:
        DownloadError: There is no answer, or no access.
    """
    from huggingface_hub import model_info

    with translated_errors(model):
        model_info(model.repo, revision=model.revision, timeout=seconds)


def verify(path: Path, model: Wanted) -> Verification:
    """Compare a file's hash with the catalogue's or, where that has none, with the one that it came with.

    Raises:
        WrongFileError: They differ.
        DownloadError: The file cannot be read.
    """
    try:
        actual = hash_of(path)
    except OSError as error:
        raise DownloadError(f"cannot read: {path}: {error.strerror}; check its permissions") from error
    expected, source = model.sha256, "user" if is_own(model) else "catalogue"
    if expected is None:
        expected, source = _sha256_on_hub(path), "hub"
    if expected is None:
        expected, source = mirror.recorded_hash(path), "cache"
    if expected is None:
        return Verification(actual, None)
    if actual != expected:
        raise _wrong_file(model, path, actual, expected)
    return Verification(actual, source)


def _wrong_file(model: Wanted, place: Path | str, actual: str, expected: str) -> WrongFileError:
    """Return the error for a file whose hash is another one."""
    return WrongFileError(
        f"not the file that {model.name} should be: {place} has sha256 {actual}, not {expected}; "
        + remedy_wrong(model)
    )


def _is_as_it_came(path: Path) -> bool:
    """Tell whether a file of a cache has the hash that is in its name."""
    return hash_of(path) in (_sha256_on_hub(path), mirror.recorded_hash(path))


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


def _download(model: Wanted, quiet: bool) -> tuple[Path, str | None]:
    """Download the model's file from the first source that has it; return its path and a notice."""
    if isinstance(model, CheckpointSource) or model.source:
        return _download_own(model, quiet)
    listed: list[str] = []
    try:
        listed = _list_files(model)
        if file := next((file for file in model.files if file in listed), None):
            return _download_listed(model, file, quiet), None
        trouble = DownloadError(explain_missing(model, listed))
    except DownloadError as error:
        if is_local(error):
            raise
        trouble, listed = error, []  # the repository may list the file, so no other file is tried
    if model.url:
        try:
            path = _download_elsewhere(model, model.url, quiet)
            return path, f"using {model.name} from {model.url}, not from the Hub: {reason_of(trouble)}"
        except DownloadError as error:
            if is_local(error) or isinstance(error, WrongFileError):
                raise
            reason, remedy = reason_of(trouble), str(trouble).removeprefix(reason_of(trouble))
            trouble = DownloadError(f"{reason} ({urlsplit(model.url).netloc}: {error}){remedy}")
    alike = find_alike(model, listed)
    if not alike:
        raise trouble
    if len(alike) > 1:
        raise DownloadError(
            f"{model.repo} on the Hub lists several files that may be {model.name}: {', '.join(alike)}; "
            "pass the right one with --weights"
        )
    return _download_listed(model, alike[0], quiet), explain_alike(model, alike[0])


def _download_own(model: Wanted, quiet: bool) -> tuple[Path, str | None]:
    """Download exactly the file that the user chose; return its path and a notice."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if model.url:
        try:
            path = _download_elsewhere(model, model.url, quiet)
        except DownloadError as error:
            if is_local(error) or isinstance(error, WrongFileError):
                raise
            raise DownloadError(
                f"cannot download {model.url}: {error}; check the address and the connection, and try again"
            ) from error
        sha256 = mirror.recorded_hash(path)
        pin = f"downloaded {model.url}: later runs accept only this file; #sha256={sha256} pins it elsewhere"
        return path, None if model.sha256 else pin
    file = model.files[0]
    if file not in (listed := _list_files(model)):
        raise DownloadError(explain_missing(model, listed))
    with translated_errors(model):
        size = get_hf_file_metadata(hf_hub_url(model.repo, file, revision=model.revision)).size
        try:
            mirror.check_bytes(size or 0)
        except DownloadError as error:
            raise DownloadError(f"cannot download {model.name}: {error}; check its name") from error
    return _download_listed(model, file, quiet), None


def _download_elsewhere(model: Wanted, url: str, quiet: bool) -> Path:
    """Download the model's file from an address; one with another hash is not kept."""

    def check_hash(actual: str) -> None:
        if model.sha256 not in (None, actual):
            raise _wrong_file(model, f"what {url} gives", actual, model.sha256)

    with translated_errors(model):
        return mirror.download(url, _bar(quiet), model.sha256, check_hash)


def _list_files(model: Wanted) -> list[str]:
    """Return the paths of all files in the model's repository."""
    from huggingface_hub import constants, model_info

    with translated_errors(model):
        # One request with a time limit shows within seconds that the Hub is unreachable; a download would
        # retry for minutes.
        info = model_info(model.repo, revision=model.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    return [sibling.rfilename for sibling in info.siblings or ()]


def _download_listed(model: Wanted, file: str, quiet: bool) -> Path:
    from huggingface_hub import hf_hub_download

    with translated_errors(model):
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
