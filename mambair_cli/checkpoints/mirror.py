"""Checkpoints at addresses outside the Hub, and the cache of what came from there.

The cache is in huggingface_hub's folder for files from other sources: ``HF_ASSETS_CACHE``, by default in
``HF_HOME``. A file is in the folder that its address names, and its name ends with its SHA-256 after the
download. That hash is known only when the file is complete, so it is written under another name and renamed.
"""

import glob
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock

from mambair_cli.checkpoints.foreign_files import is_text
from mambair_cli.checkpoints.source import is_safe_hop
from mambair_cli.errors import DownloadError
from mambair_cli.system.files import hash_of

MOST_BYTES = 2 << 30  # of a checkpoint; the largest official one has 165 MB
_HEAD_BYTES = 64  # enough to distinguish text from tensors
_NO_HEAD = (403, 405, 501)  # how servers answer that have the file, and refuse to tell only of it
_guarding = threading.Lock()


def find(url: str, sha256: str | None = None) -> Path | None:
    """Return the file that was downloaded from an address before; the network is not used.

    Args:
        url: Address.
        sha256: Hash that the file must have; None for the file that was downloaded first.
    """
    place = _place_of(url)
    found = place.parent.glob(f"{glob.escape(place.stem)}-*{glob.escape(place.suffix)}")
    fitting = [
        path
        for path in found
        if path.name == f"{place.stem}-{recorded_hash(path)}{place.suffix}"
        and sha256 in (None, recorded_hash(path))
    ]
    return min(fitting, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def recorded_hash(path: Path) -> str | None:
    """Return the hash that a file of this cache had after its download; None for other files."""
    match = re.fullmatch(r".+-([0-9a-f]{64})", path.stem)
    return match[1] if match else None


def download(
    url: str,
    bar: type | None = None,
    sha256: str | None = None,
    check_hash: Callable[[str], None] = lambda sha256: None,
) -> Path:
    """Download the file at an address, through proxies and redirections, but none to an unprotected address.

    A broken download is continued. Other processes that need the same file wait for this one.

    Args:
        url: Address, which ends with the name of the file.
        bar: Class of the progress bar; None: that of huggingface_hub.
        sha256: Hash of the file that is wanted, which may be here by then; None for any.
        check_hash: Called with the hash of what has come; after an error of it, which is raised, nothing is
            kept, and files from before stay.

    Raises:
        DownloadError: The download failed; the message says only why, and the caller adds what failed and
            what would work.
        OSError: The file cannot be written.
    """
    from huggingface_hub.file_download import http_get

    place = _place_of(url)
    if homeless := explain_homeless(place):
        raise DownloadError(homeless)
    partial = place.with_name(f"{place.name}.incomplete")
    with _translated_errors():
        size = _ask(url)  # before anything is made on the disk
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{partial}.lock"):
        if found := find(url, sha256):
            return found
        try:
            with _LimitedFile(io.FileIO(partial, "wb")) as file, _translated_errors(), _guarded(url):
                http_get(url, file, expected_size=size, displayed_filename=place.name, tqdm_class=bar)
            _check_kind(partial)
            actual = hash_of(partial)
            check_hash(actual)
            return partial.replace(place.with_name(f"{place.stem}-{actual}{place.suffix}"))
        finally:
            partial.unlink(missing_ok=True)


def explain_homeless(cache: str | Path) -> str | None:
    """Say that a cache of the Hub would be a folder named ~ in the working folder; None if it would not."""
    if not str(cache).startswith("~"):  # which huggingface_hub replaces if it can
        return None
    return f"{cache}, where no home folder is known; set HOME, or HF_HOME to another folder"


def _ask(url: str) -> int | None:
    """Check with one request and a time limit that an address has a file; a download would retry.

    Returns:
        Size of the file, in bytes; None where the address does not tell it.
    """
    from huggingface_hub import constants, get_session

    answer = get_session().head(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False)
    if answer.status_code >= 400 and answer.status_code not in _NO_HEAD:
        raise DownloadError(f"HTTP {answer.status_code}")
    size = answer.headers.get("content-length", "")
    is_file = answer.status_code == 200 and "content-encoding" not in answer.headers  # not a redirection
    return int(size) or None if is_file and size.isdecimal() else None


@contextmanager
def _guarded(url: str) -> Iterator[None]:
    """Refuse redirections to unprotected addresses, and files that are too large, in this thread's requests.

    All of huggingface_hub shares one HTTP client, so others must not notice.
    """
    from huggingface_hub import get_session

    here = threading.get_ident()

    def check_hop(request: Any) -> None:
        hop = str(request.url)
        if threading.get_ident() == here and hop != url and not is_safe_hop(hop, url):
            raise DownloadError(f"it is redirected to an address without TLS, {hop}")

    def check_size(response: Any) -> None:
        size = response.headers.get("content-length", "")
        if threading.get_ident() == here and size.isdecimal():
            check_bytes(int(size))

    with _guarding:
        client = get_session()
        before = client.event_hooks
        client.event_hooks = {
            "request": [*before["request"], check_hop],
            "response": [*before["response"], check_size],
        }
        try:
            yield
        finally:
            client.event_hooks = before


def check_bytes(size: int) -> None:
    """Refuse the size of a file, in bytes, that no checkpoint has.

    Raises:
        DownloadError: It is too large.
    """
    if size > MOST_BYTES:
        raise DownloadError(
            f"the file has {size / 1e9:.1f} GB, and checkpoints may have {MOST_BYTES / 1e9:.1f} GB"
        )


class _LimitedFile(io.BufferedWriter):
    """A file that refuses to grow too large, since a server need not tell the size beforehand."""

    def write(self, piece: Any) -> int:
        """Write a piece, unless the file would become larger than checkpoints are.

        Raises:
            DownloadError: It would.
        """
        check_bytes(self.tell() + len(piece))
        return super().write(piece)


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn errors of the network into a DownloadError; errors of the disk pass."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except DownloadError:
        raise
    except HfHubHTTPError as error:
        raise DownloadError(f"HTTP {error.response.status_code}") from error
    except Exception as error:  # the HTTP client depends on the version of huggingface_hub
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DownloadError(" ".join(str(error).split()) or type(error).__name__) from error


def _check_kind(path: Path) -> None:
    """Refuse what cannot be a checkpoint, or is only the beginning of one: a server need not tell its size.

    Raises:
        DownloadError: It is text, or ends too early, as far as its format shows that.
    """
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if is_text(head):
        raise DownloadError("it is a web page or other text, not a checkpoint")
    is_whole = True
    if head[:4] == b"PK\x03\x04":
        is_whole = zipfile.is_zipfile(path)  # whose directory is at its end
    elif head[8:9] == b"{":
        try:
            with safe_open(path, "numpy"):  # its header has the size of all
                pass
        except SafetensorError:
            is_whole = False
    if not is_whole:
        raise DownloadError("it ends too early, or is damaged")


def _place_of(url: str) -> Path:
    """Return the path for the file of an address, without the hash in its name."""
    from huggingface_hub import constants

    parts = urlsplit(url)
    *folders, name = [quote(part, safe="") for part in parts.path.split("/")]
    if parts.query:  # it may choose among files of one name
        folders.append(f"query-{hashlib.sha256(parts.query.encode()).hexdigest()[:16]}")
    host = re.sub(r"[^\w.-]", "_", parts.netloc)
    return Path(constants.HF_ASSETS_CACHE, "mambair", host, *folders, name)
