"""Errors of downloads in words: what failed, the value, what would work."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from mambair_cli.checkpoints.catalog import Model
from mambair_cli.checkpoints.source import CheckpointSource, Wanted, is_own, local_path
from mambair_cli.errors import DownloadError

_LISTED_FILES = 8  # files of a repository in an error message


@contextmanager
def translated_errors(model: Wanted) -> Iterator[None]:
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


def is_local(error: DownloadError) -> bool:
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


def reason_of(error: DownloadError) -> str:
    """Return an error's message without its advice."""
    return str(error).partition("; ")[0]


def _explain(error: BaseException, model: Wanted) -> str:
    """Return the message for an error of huggingface_hub: what failed, the value, what would work."""
    from huggingface_hub import constants, errors

    hub, repo = constants.ENDPOINT, model.repo
    error = _root_of(error)
    detail = " ".join(str(error).split()) or type(error).__name__

    if isinstance(error, errors.OfflineModeIsEnabled):
        return explain_offline(model)
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
            advice = "a branch, a tag or a whole commit would work"
            advice = advice if is_own(model) else "a newer mambair may have another"
            return f"no such revision of {repo} on {hub}: {model.revision}; {advice}"
        return f"cannot download {model.name} from {hub}: HTTP {status}; try again later"
    if isinstance(error, OSError) and error.errno is not None:
        where = error.filename or constants.HF_HUB_CACHE
        return f"cannot use the cache: {where}: {error.strerror}; make room or set HF_HOME to another folder"
    return (
        f"cannot download {model.name} from {hub}: {detail}; check the connection, the proxy settings and "
        "HF_ENDPOINT, and try again"
    )


def explain_offline(model: Wanted) -> str:
    """Say that a file is not on this machine, and nothing may be downloaded."""
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE if model.repo else constants.HF_ASSETS_CACHE
    return (
        f"{model.name} is not in the cache, and this is offline: {cache}; "
        f"`mambair models download {shlex.quote(model.name)}` downloads it when online"
    )


def explain_alike(model: Model, file: str) -> str:
    """Say that a file of another name is used."""
    return f"using {file} as {model.name}: the known file names are missing, and only this one is similar"


def explain_missing(model: Wanted, listed: list[str]) -> str:
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
    if is_own(model):
        revision = f" at {model.revision}" if model.revision else ""
        return f"no such file in {model.repo}{revision} on the Hub: {wanted}; it has {held}"
    return (
        f"{model.repo} on the Hub lacks the file of {model.name}: {wanted}{others}; "
        f"it has {held}; pass the right one with --weights"
    )


def explain_lost(model: Wanted, path: Path) -> str:
    """Say that a file is not where it should be on this machine."""
    if not isinstance(model, CheckpointSource) and model.bundled:
        return f"missing from the package: {model.bundled}; reinstall mambair-cli"
    return (
        f"the file of {model.name} is not there any more: {path}; put it back, or run "
        f"`mambair models remove {model.name}` and add it again"
    )


def remedy_wrong(model: Wanted) -> str:
    """Say what to do about a file with another hash."""
    if isinstance(model, CheckpointSource):
        return "another hash after #sha256=, or none, would work" if model.sha256 else "run this again"
    if model.bundled:
        return "reinstall mambair-cli"
    if local_path(model) is not None:
        return f"if the file is right, run `mambair models remove {model.name}` and add it again"
    again = f"`mambair models download {model.name}` downloads it again"
    if model.source:
        again += (
            f"; if its author has exchanged it, run `mambair models remove {model.name}` and add it again"
        )
    return again
