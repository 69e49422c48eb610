"""A checkpoint's second official address, and the cache of what came from there.

The cache is in huggingface_hub's folder for files from other sources: ``HF_ASSETS_CACHE``, by default in
``HF_HOME``. A file is in the folder that its address names, and its name ends with its SHA-256 after the
download. That hash is known only when the file is complete, so it is written under another name and renamed.
"""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from mambair_cli.errors import DownloadError
from mambair_cli.system.files import hash_of

_HEAD_BYTES = 64  # enough to distinguish text from tensors


def find(url: str) -> Path | None:
    """Return the file that was downloaded from an address before; the network is not used."""
    place = _place_of(url)
    for path in sorted(place.parent.glob(f"{glob.escape(place.stem)}-*{place.suffix}")):
        if path.stem == f"{place.stem}-{recorded_hash(path)}":
            return path
    return None


def recorded_hash(path: Path) -> str | None:
    """Return the hash that a file of this cache had after its download; None for other files."""
    match = re.fullmatch(r".+-([0-9a-f]{64})", path.stem)
    return match[1] if match else None


def download(url: str, bar: type | None = None) -> Path:
    """Download the file at an address, through proxies and redirections.

    A broken download is continued. Other processes that need the same file wait for this one.

    Args:
        url: Address, which ends with the name of the file.
        bar: Class of the progress bar; None: that of huggingface_hub.

    Raises:
        DownloadError: The download failed; the message says only why, and the caller adds what failed and
            what would work.
        OSError: The file cannot be written.
    """
    from huggingface_hub.file_download import http_get

    place = _place_of(url)
    partial = place.with_name(f"{place.name}.incomplete")
    with _translated_errors():
        _ask(url)  # before anything is made on the disk
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{partial}.lock"):
        if found := find(url):
            return found
        try:
            with partial.open("wb") as file, _translated_errors():
                http_get(url, file, displayed_filename=place.name, tqdm_class=bar)
            if _is_text(partial):
                raise DownloadError("it is a web page or other text, not a checkpoint")
            return partial.replace(place.with_name(f"{place.stem}-{hash_of(partial)}{place.suffix}"))
        finally:
            partial.unlink(missing_ok=True)


def _ask(url: str) -> None:
    """Check with one request and a time limit that an address has a file; a download would retry."""
    from huggingface_hub import constants, get_session

    answer = get_session().head(url, timeout=constants.HF_HUB_ETAG_TIMEOUT, follow_redirects=False)
    if answer.status_code >= 400:
        raise DownloadError(f"HTTP {answer.status_code}")


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


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return all(byte in b"\t\n\r" or byte >= 32 for byte in head)


def _place_of(url: str) -> Path:
    """Return the path for the file of an address, without the hash in its name."""
    from huggingface_hub import constants

    parts = urlsplit(url)
    return Path(constants.HF_ASSETS_CACHE, "mambair", parts.netloc.replace(":", "_"), *parts.path.split("/"))
