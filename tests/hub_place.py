"""A machine of its own for commands: an empty cache, no settings, a Hub and an address on the loopback."""

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from checkpoints import save_nearest
from forked import run_forked
from hub_server import HubServer
from pictures import save_photo
from PIL import Image

FILE = "nets/film_x2.safetensors"
SOURCE = f"hf:some/films/{FILE}"
PATH = "/files/film_x2.safetensors"


@dataclasses.dataclass
class Place:
    """A machine of its own, with an empty cache and no settings, whose Hub is on the loopback."""

    server: HubServer
    folder: Path
    content: bytes

    @property
    def url(self) -> str:
        return self.server.release_host + PATH

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def list_file(self) -> Path:
        return self.folder / "config" / "mambair" / "models.toml"

    def run(self, *arguments: object, **environment: str) -> tuple[int, list[str], list[str]]:
        more = {"XDG_CONFIG_HOME": str(self.folder / "config"), **environment}
        environment = self.server.environment(self.folder / "cache", **more)
        done = run_forked("-m", "mambair_cli", *arguments, cwd=self.folder, env=environment)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    def downloads(self) -> list[Path]:
        """Return all files that came from addresses, complete or not."""
        files = (self.folder / "cache" / "assets").glob("**/*")
        return [path for path in files if path.is_file() and path.suffix != ".lock"]

    def doubled(self) -> np.ndarray:
        """Return what the network makes of in.png: each pixel four times."""
        return np.asarray(Image.open(self.folder / "in.png")).repeat(2, axis=0).repeat(2, axis=1)

    def result(self) -> np.ndarray:
        return np.asarray(Image.open(self.folder / "in_x2.png"))


@contextmanager
def open_place(folder: Path) -> Iterator[Place]:
    """Begin with a photo, in.png, and a network on the Hub and at an address that repeats pixels."""
    weights = save_nearest(folder / "made.safetensors", 2)
    save_photo(folder / "in.png", (30, 20))
    with HubServer() as server:
        content = weights.read_bytes()
        server.add_repo("some/films", {FILE: content, "README.md": b"hello"})
        server.releases[PATH] = content
        yield Place(server, folder, content)
