"""Digests in journals of older versions: what was done then is known to be done."""

import hashlib
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mambair_cli.restore import tile_cost
from mambair_cli.restore.settings import ImageSettings
from mambair_cli.restore.tile_size import TileSettings
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.output_size import Size

WEIGHTS = "ab" * 32
PLAIN = Fingerprint(WEIGHTS, "cpu", "fp32", ImageSettings(256, 16), 0)
OTHER = Fingerprint(WEIGHTS, "cuda", "fp16", ImageSettings(192, 16, 7, 0.5), 256)
NOISELESS = Fingerprint(WEIGHTS, "cpu", "fp32", ImageSettings(256, 16, None), 0)
JPEG = WriteOptions(quality=80, depth=16, strip=True, background=(255, 255, 255))
SCALED, FITTED = WriteOptions(size=Size(scale=2.5)), WriteOptions(size=Size(width=100, height=50))

# Recorded before there was this class; journals of that time are still read.
DIGESTS = [
    (PLAIN, "2ad15663b786873f097e84c8659b21339eed9531a8133536283b6ded65d7e591"),
    (OTHER, "8a32543ccc3fe0fbaf90820614b31f5a39e65b03b14914beb5c6c285bb9512dd"),
    (NOISELESS, "0ead121b1ef869d6f8c57d6cf35b010df3dc3c527ff1f4bfca70fd1208c41e3c"),
]
RESULT_DIGESTS = [
    (PLAIN, WriteOptions(), None, "f9237c3135cce8c8eb3e6616c1768a13d9f06d12c1741e629c3d61ba21e3fa81"),
    (PLAIN, JPEG, "jpeg", "643d2fbf70a8d7303612fbac2d9070a8f947d40d051e07137365b21793314384"),
    (PLAIN, SCALED, "png", "c7c4036b21b399692b6e8b443a5c0aff4b968ab1c3854ddbe6a0ce9754c38b01"),
    (PLAIN, FITTED, None, "77744757d7b730f3b65e167c25ce5e5cff461c4abd2a0ddab0ee65d26781debb"),
    (OTHER, WriteOptions(), None, "8ff8d4d86ed695139ea316410e3ef3ce418df29969bf7106aebb90d6aee2779f"),
    (OTHER, JPEG, "jpeg", "2f272d45f9e3ca9970f25d2e8e8c4f67f581d8b6b56e7cd4d75db70a264c0b7e"),
    (OTHER, SCALED, "png", "a05b9e57b1876b9522789c83f9b690da984ca6ae2242e33f5e3b54367d693196"),
    (OTHER, FITTED, None, "85a6106cfa1a0ef4f56e31f083cbbbc50eefe14858cb36243abdb23d861222ef"),
    (NOISELESS, JPEG, "jpeg", "ec786287ca9599f43d95908cbdeb44e07c410c5f9ed75bebdbc12b36b75f8870"),
]


@pytest.mark.parametrize(("fingerprint", "digest"), DIGESTS)
def test_a_digest_is_that_of_older_versions(fingerprint: Fingerprint, digest: str) -> None:
    assert fingerprint.digest() == digest


@pytest.mark.parametrize(("fingerprint", "output", "format", "digest"), RESULT_DIGESTS)
def test_the_digest_of_a_result_is_that_of_older_versions(
    fingerprint: Fingerprint, output: WriteOptions, format: str | None, digest: str
) -> None:
    assert fingerprint.digest_result(output, format) == digest


def test_the_times_of_files_are_no_part_of_it() -> None:
    kept = WriteOptions(preserve_times=True)
    assert PLAIN.digest_result(kept, None) == PLAIN.digest_result(WriteOptions(), None)


@pytest.mark.parametrize("fingerprint", [PLAIN, OTHER, NOISELESS])
def test_it_comes_through_json_and_to_other_processes(fingerprint: Fingerprint) -> None:
    sent = json.loads(json.dumps(fingerprint.describe()))
    assert Fingerprint.read(sent) == fingerprint
    assert pickle.loads(pickle.dumps(fingerprint)) == fingerprint
    with pytest.raises(TypeError):
        Fingerprint.read({**sent, "colour": "of another version"})


def restorer(tiles: TileSettings, path: Path | None = None, **changes: Any) -> Any:
    """Return what a fingerprint asks of a restorer."""
    model = SimpleNamespace(sha256=None if path else WEIGHTS, path=path)
    facts = {
        "device": SimpleNamespace(type="cpu"),
        "precision": "fp32",
        "others": {},
        "own": ImageSettings(**changes),
    }
    return SimpleNamespace(model=model, tiles=tiles, **facts)


def test_it_is_taken_of_a_restorer(tmp_path: Path) -> None:
    assert Fingerprint.of(restorer(TileSettings(256, 16, 0))) == PLAIN
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    unnamed = Fingerprint.of(restorer(TileSettings(256, 16, 0), path))
    assert unnamed.weights == hashlib.sha256(b"weights").hexdigest()


def test_a_network_that_serves_many_images_has_one_for_each_kind_of_them() -> None:
    fitted: Any = object()
    other = PLAIN.with_tiles_of(restorer(TileSettings(64, 8, 0, fitted), seed=None, strength=0.5))
    own = ImageSettings(64, 8, None, 0.5)
    wanted = Fingerprint(WEIGHTS, "cpu", "fp32", own, 0, tile_cost.digest_costs())
    assert other == wanted
    assert other.with_tiles_of(restorer(TileSettings(256, 16, 0))) == PLAIN
