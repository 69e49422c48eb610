"""All that the pixels of a result depend on except its image, and the digests of it.

A journal keeps the digest of each result, so that ``--resume`` knows whether a run would make the same one. A
digest never changes from version to version: what was done then stays done.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mambair_cli.checkpoints.catalog import load_catalog
from mambair_cli.inspection.look import WEIGHTS
from mambair_cli.inspection.need import EDITION
from mambair_cli.restore.settings import IMAGE_SETTINGS, ImageSettings, plain_precision, uses_half
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.stamps import Stamp, stamp_of
from mambair_cli.system.files import hash_of

if TYPE_CHECKING:
    from pathlib import Path

    from mambair_cli.checkpoints.select import ChosenModel
    from mambair_cli.restore.restorer import Restorer

FIRST_SETTINGS = ("tile", "overlap", "seed")  # in the oldest journals, also where they have their defaults


@dataclass(frozen=True)
class Fingerprint:
    """All that the pixels of results depend on except images and how results are written.

    Attributes:
        weights: SHA-256 of the checkpoint.
        device: Kind of the device: "cpu", "cuda" or "mps".
        precision: "auto"; "fp32" or "fp16" where that is another one than "auto" stands for on the device.
        own: Settings that may differ from image to image, with the tile and the overlap that were chosen; the
            seed is 0 where no network draws noise.
        whole: Side of an image up to which it is a single tile, in pixels.
        fit: Digest of the costs that tiles are fitted to; None where they are not.
        others: Digest of the other models among which a look at each image chooses, and of the rules that
            choose; None where one model restores all.
    """

    weights: str
    device: str
    precision: str
    own: ImageSettings
    whole: int
    fit: str | None = None
    others: str | None = None

    @classmethod
    def of(cls, restorer: "Restorer") -> "Fingerprint":
        """Return the fingerprint of what a restorer makes."""
        return cls(
            weights=_digest_checkpoint(restorer.model),
            device=restorer.device.type,
            precision=plain_precision(restorer.precision, restorer.device.type),
            others=_digest_others(restorer) if restorer.others else None,
            **_of_image(restorer),
        )

    def with_tiles_of(self, restorer: "Restorer") -> "Fingerprint":
        """Return the fingerprint of a restorer with the same network and its own tiles, seed, strength."""
        return replace(self, **_of_image(restorer))

    def describe(self) -> dict[str, Any]:
        """Return the attributes as JSON; :meth:`read` undoes that."""
        facts = {
            **vars(self),
            **{name: getattr(self.own, name) for name in FIRST_SETTINGS},
            **self.own.changed,
        }
        del facts["own"]
        if self.others is None:  # as with settings, older journals do not have it
            del facts["others"]
        return facts

    @classmethod
    def read(cls, facts: dict[str, Any]) -> "Fingerprint":
        """Undo :meth:`describe`.

        Raises:
            TypeError: The facts are those of another version, or of something else.
        """
        own = ImageSettings(**{name: facts[name] for name in IMAGE_SETTINGS if name in facts})
        return cls(own=own, **{name: fact for name, fact in facts.items() if name not in IMAGE_SETTINGS})

    def digest(self) -> str:
        """Return the SHA-256 of the attributes."""
        return _digest(self.describe())

    def digest_result(self, output: WriteOptions, format: str | None) -> str:
        """Return the SHA-256 of all that a result depends on except its image.

        Args:
            output: How the result is written.
            format: Format of the result; None where its name tells.
        """
        facts = {
            **self.describe(),
            "quality": output.quality,
            "depth": output.depth,
            "strip": output.strip,
            "size": asdict(output.size),
            "format": format,
        }
        if output.background is not None:  # older journals do not have it
            facts["background"] = output.background
        if output.note:
            facts["note"] = True
        return _digest(facts)


def describe_maker(restorer: "Restorer", size: tuple[int, int]) -> dict[str, Any]:
    """Say what makes a picture, for a note in its file: no paths, and no times.

    Args:
        restorer: The restorer.
        size: Width and height of what it makes, in pixels, before any reduction.
    """
    fingerprint = Fingerprint.of(restorer.alone())
    facts = {
        "tool": f"mambair {version('mambair-cli')}",
        "task": restorer.info.task,
        "model": restorer.model.name,
        "sha256": fingerprint.weights,
        "scale": restorer.info.scale,
        "size": f"{size[0]}×{size[1]}",
        "device": fingerprint.device,
        "precision": "fp16" if uses_half(restorer.precision, restorer.device.type) else "fp32",
    }
    return facts | {name: getattr(fingerprint.own, name) for name in FIRST_SETTINGS} | fingerprint.own.changed


def _of_image(restorer: "Restorer") -> dict[str, Any]:
    """Return what may differ from image to image where one network serves many."""
    chosen = restorer.tiles.computing
    own = replace(restorer.own, tile=chosen.pop("tile"), overlap=chosen.pop("overlap"))
    if not _draws_noise(restorer):
        own = replace(own, seed=ImageSettings().seed)
    return {"own": own, **chosen}


def _draws_noise(restorer: "Restorer") -> bool:
    """Tell whether pixels may depend on the seed; networks that are not loaded yet are known by name."""
    if restorer.info.draws_noise:
        return True
    without = {model.name for model in load_catalog() if not model.draws_noise}
    return not without.issuperset(other.name for other in restorer.others.values())


def _digest_others(restorer: "Restorer") -> str:
    """Return the digest of all that a choice among models depends on except the image."""
    models = {f"{kind.kind} {kind.level}": _digest_checkpoint(each) for kind, each in restorer.others.items()}
    return _digest({"edition": EDITION, "estimator": hash_of(WEIGHTS), **models})


def _digest_checkpoint(model: "ChosenModel") -> str:
    return model.sha256 or _hash_once(model.path, stamp_of(model.path))


@lru_cache(maxsize=16)
def _hash_once(path: "Path", stamp: Stamp) -> str:
    """Hash a checkpoint; once for many images, as long as it is not changed."""
    return hash_of(path)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
