"""Where a checkpoint of the user's is: a file on the Hub, ``hf:OWNER/REPO/FILE``, or at an address."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from mambair_cli.checkpoints.catalog import PACKAGE, Model
from mambair_cli.errors import UsageError

ALLOWED = "hf:OWNER/REPO/FILE[@REVISION], https://HOST/FILE[#sha256=HASH] or a file would work"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SUFFIXES = (".pth", ".pt", ".safetensors")
_REMOTE = re.compile(r"(?i)(hf:|[a-z][a-z0-9+.-]*://)")
_PART = re.compile(r"[\w.-]+", re.ASCII)
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_HUB_PAGE = re.compile(r"/([^/]+/[^/]+)/(?:blob|resolve|raw)/([^/]+)/(.+)")  # of a file, as browsers show it
_HASH = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True, kw_only=True)
class CheckpointSource:
    """A file on the Hub or at an address, which no catalogue lists.

    Attributes:
        name: What the user wrote, without a hash; names the file in messages.
        repo: Repository on the Hub; empty for an address.
        revision: Its branch, tag or commit; None: its main branch.
        files: The one path in the repository; empty for an address.
        url: Address; None for a file on the Hub.
        sha256: Hash that the user demands, in hexadecimal; None: any.
    """

    name: str
    repo: str = ""
    revision: str | None = None
    files: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file, without its folders."""
        return PurePosixPath(self.files[0] if self.files else urlsplit(self.url or "").path).name


Wanted = Model | CheckpointSource


def parse_source(text: str) -> CheckpointSource | None:
    """Read where a checkpoint is.

    Args:
        text: Source as users write it.

    Returns:
        The source; None for a file on this machine.

    Raises:
        UsageError: It is malformed, or nothing that is downloaded.
    """
    if not text:
        raise UsageError(f"the source of the weights is empty; {ALLOWED}")
    if not _REMOTE.match(text):
        return None
    if not text.isprintable():
        raise UsageError(f"the source has unprintable characters: {text!r}; {ALLOWED}")
    scheme, _, rest = text.partition(":")
    if scheme.lower() == "hf":
        return _parse_hub(text, rest)
    if scheme.lower() in ("http", "https"):
        return _parse_address(text)
    raise UsageError(f"no checkpoints come from there: {text}; {ALLOWED}")


def is_safe_hop(url: str, start: str) -> bool:
    """Tell whether a download that began at an address may be sent on to another one.

    It must be protected by TLS; from an address without TLS it may go on within this machine.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" == urlsplit(start).scheme and parts.hostname in _LOCAL_HOSTS


def _parse_hub(text: str, rest: str) -> CheckpointSource:
    owner, _, inner = rest.partition("/")
    name, _, inner = inner.partition("/")
    file, at, revision = inner.rpartition("@")
    # An @ may be part of a name, as in photo@2x.pth.
    if not at or (inner.endswith(_SUFFIXES) and not file.endswith(_SUFFIXES)):
        file, at, revision = inner, "", ""
    parts = file.split("/")
    is_plain = _PART.fullmatch(owner) and _PART.fullmatch(name) and all(parts) and "\\" not in file
    if not is_plain or {".", ".."} & {owner, name, *parts} or (at and not revision):
        raise UsageError(f"no file on the Hub is named so: {text}; hf:OWNER/REPO/FILE[@REVISION] would work")
    return CheckpointSource(name=text, repo=f"{owner}/{name}", revision=revision or None, files=(file,))


def _parse_address(text: str) -> CheckpointSource:
    url, _, fragment = text.partition("#")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"no such address is possible: {url}; {ALLOWED}") from error
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"the address names a user: {host}; leave user and password out: they would be shown"
        )
    if parts.scheme == "http" and host not in _LOCAL_HOSTS:
        raise UsageError(f"without TLS anybody could exchange the file: {url}; https:// would work")
    steps = [unquote(part) for part in parts.path.split("/")]
    if not host or not steps[-1] or " " in url or {".", ".."} & {*steps} or "\\" in parts.path:
        raise UsageError(f"the address names no file: {url}; {ALLOWED}")
    found = _HASH.fullmatch(fragment)
    if fragment and not found:
        raise UsageError(f"no hash: #{fragment}; #sha256= and 64 hexadecimal digits would work")
    sha256 = found[1].lower() if found else None
    if host in _HUB_HOSTS and (page := _HUB_PAGE.fullmatch(parts.path)):
        repo, revision, file = map(unquote, page.groups())
        name = f"hf:{repo}/{file}@{revision}"
        return replace(_parse_hub(name, name.removeprefix("hf:")), sha256=sha256)
    return CheckpointSource(name=url, url=url, sha256=sha256)


def is_own(model: Wanted) -> bool:
    """Tell whether the user chose the file, so that no other may stand in for it."""
    return isinstance(model, CheckpointSource) or model.source is not None


def local_path(model: Wanted) -> Path | None:
    """Return the path of a file that is never downloaded; None for others."""
    if isinstance(model, CheckpointSource) or model.repo or model.url:
        return None
    return PACKAGE / model.bundled if model.bundled else Path(model.source or "")
