"""Digests in journals of older versions: what was done then is known to be done."""

import hashlib
import json
import os
import pickle
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import save_random
from networks import CONFIGS, V1, V2

from mambair_cli.checkpoints.select import PictureKind
from mambair_cli.networks import Config, build_network
from mambair_cli.restore import tile_cost
from mambair_cli.restore.restorer import Restorer
from mambair_cli.restore.settings import ImageSettings, Precision, RestoreSettings, uses_half
from mambair_cli.restore.tile_size import TileSettings, choose_tiles
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.job_files import WriteOptions
from mambair_cli.runs.output_size import Size

WEIGHTS = "ab" * 32
USUAL = Fingerprint(WEIGHTS, "cpu", "auto", ImageSettings(256, 16), 0)  # with no options
USUAL_ON_GPU = Fingerprint(WEIGHTS, "cuda", "auto", ImageSettings(192, 16), 256)
PLAIN = Fingerprint(WEIGHTS, "cpu", "fp32", ImageSettings(256, 16), 0)
OTHER = Fingerprint(WEIGHTS, "cuda", "fp16", ImageSettings(192, 16, 7, 0.5), 256)
NOISELESS = Fingerprint(WEIGHTS, "cpu", "fp32", ImageSettings(256, 16, None), 0)
JPEG = WriteOptions(quality=80, depth=16, strip=True, background=(255, 255, 255))
SCALED, FITTED = WriteOptions(size=Size(scale=2.5)), WriteOptions(size=Size(width=100, height=50))

# Recorded before there was this class; journals of that time are still read.
DIGESTS = [
    (USUAL, "4dc2e8be5f7aabe5bd47262fd44b6916205e32da094180c0d0ba5cea50e8d393"),
    (USUAL_ON_GPU, "0287cf9850c8e309106d1a455295da1f4900570b76dfc98b3e5498c59fe7d65d"),
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
        "precision": "auto",
        "others": {},
        "own": ImageSettings(**changes),
        "info": SimpleNamespace(draws_noise=True),
    }
    return SimpleNamespace(model=model, tiles=tiles, **facts)


def test_it_is_taken_of_a_restorer(tmp_path: Path) -> None:
    assert Fingerprint.of(restorer(TileSettings(256, 16, 0))) == USUAL
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    unnamed = Fingerprint.of(restorer(TileSettings(256, 16, 0), path))
    assert unnamed.weights == hashlib.sha256(b"weights").hexdigest()
    status = path.stat()
    path.write_bytes(b"others, made in the same moment")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = Fingerprint.of(restorer(TileSettings(256, 16, 0), path))
    assert again.weights == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_network_that_serves_many_images_has_one_for_each_kind_of_them() -> None:
    fitted: Any = object()
    other = USUAL.with_tiles_of(restorer(TileSettings(64, 8, 0, fitted), seed=None, strength=0.5))
    own = ImageSettings(64, 8, None, 0.5)
    wanted = Fingerprint(WEIGHTS, "cpu", "auto", own, 0, tile_cost.digest_costs())
    assert other == wanted
    assert other.with_tiles_of(restorer(TileSettings(256, 16, 0))) == USUAL


def test_a_default_run_is_known_by_the_digest_of_older_versions() -> None:
    assert Fingerprint.of(restorer(TileSettings(256, 16, 0))) == USUAL
    on_gpu = restorer(TileSettings(192, 16, 256))
    on_gpu.device = SimpleNamespace(type="cuda")
    assert Fingerprint.of(on_gpu) == USUAL_ON_GPU


@pytest.mark.parametrize(
    ("kind", "precision", "known"),
    [
        ("cpu", "auto", "auto"),
        ("cpu", "fp32", "auto"),
        ("cpu", "fp16", "fp16"),
        ("cuda", "auto", "auto"),
        ("cuda", "fp16", "auto"),
        ("cuda", "fp32", "fp32"),
        ("mps", "fp32", "auto"),
    ],
)
def test_a_precision_that_auto_stands_for_is_auto(kind: str, precision: Precision, known: str) -> None:
    one = restorer(TileSettings(256, 16, 0))
    one.device, one.precision = SimpleNamespace(type=kind), precision
    assert Fingerprint.of(one).precision == known
    is_same = uses_half(precision, kind) == uses_half("auto", kind)
    assert is_same == (known == "auto")


@pytest.mark.parametrize("config", [V1, V2, CONFIGS["U-Net"]])
@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_around_edges_that_meet_a_tile_counts_however_it_was_chosen(kind: str, config: Config) -> None:
    """Tiles are not fitted there."""
    name = build_network(config).info.architecture
    usual = choose_tiles(None, None, kind, name, config, "x")
    written = choose_tiles(usual.side, usual.overlap, kind, name, config, "x")
    assert written.plan(300, 700) == usual.plan(300, 700)
    assert written.computing == usual.computing
    assert choose_tiles(usual.side + 16, None, kind, name, config, "x").computing != usual.computing


# Values of each setting, some of which mean the same.
SETTINGS: dict[str, tuple[Any, ...]] = {
    "precision": ("auto", "fp32", "fp16"),
    "device": ("auto", "cpu"),
    "tile": (None, 256, 200),
    "overlap": (None, 16, 12),
    "seed": (0, 1, 2**32, -1, None),
    "strength": (1.0, 1, 0.5, 0.0, 0),
    "ensemble": (False, True),
    "wrap": ("none", "x", "both"),
    "level": (None, 15),
    "bare": (False,),
}


@pytest.mark.parametrize("config", [V1, V2], ids=["without noise", "with noise"])
@pytest.mark.parametrize("name", SETTINGS)
def test_pixels_are_equal_where_digests_are(name: str, config: Config, tmp_path: Path) -> None:
    """And where pixels are not, digests are not: by each setting on its own, on an image of several tiles."""
    weights = save_random(tmp_path / "weights.safetensors", config)
    image = np.random.default_rng(0).random((24, 420 if name == "tile" else 60, 3), np.float32)
    base = {"task": "denoise", "weights": weights, "device": "cpu"}
    base |= {"tile": 32} if name == "overlap" else {}
    made = [Restorer(**base | {name: value}) for value in SETTINGS[name]]
    results = [(each(image).tobytes(), Fingerprint.of(each).digest()) for each in made]
    for (pixels, digest), (other_pixels, other_digest) in combinations(results, 2):
        assert (pixels == other_pixels) == (digest == other_digest)


def test_each_setting_has_values() -> None:
    of_files_and_messages = {"task", "scale", "model", "weights", "offline", "quiet", "others"}
    assert {*SETTINGS, *of_files_and_messages} == {*RestoreSettings().arguments}


def test_a_seed_counts_where_another_network_may_draw_noise() -> None:
    def of(seed: int, *others: str) -> Fingerprint:
        one = restorer(TileSettings(256, 16, 0), seed=seed)
        one.info.draws_noise = False
        chosen = (SimpleNamespace(name=name, sha256=name, path=None) for name in others)
        one.others = {PictureKind("white", level): model for level, model in enumerate(chosen)}
        return Fingerprint.of(one)

    assert of(7) == of(0) == USUAL
    assert of(7, "tiny-x2", "mambair-real-x4").digest() == of(0, "tiny-x2", "mambair-real-x4").digest()
    for noisy in ("mambairv2-denoise-15", "a model of the user's"):
        assert of(7, "tiny-x2", noisy).digest() != of(0, "tiny-x2", noisy).digest()
