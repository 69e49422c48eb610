"""The cost of tiles on a GPU, and the tiles and batches that cost least."""

import functools
import hashlib
from itertools import product

from mambair_cli.networks import Config, MambaIRConfig, MambaIRUNetConfig
from mambair_cli.restore.tiling import Plan, plan_tiles

TILES_AT_ONCE = {"cpu": 1, "mps": 4}
# Values of the residual stream, in all pixels of a batch: 5.8 GiB with MambaIR.
VALUES_AT_ONCE = {"cuda": 110_000_000}

SIDES = range(96, 257, 8)  # pixels; sides of tiles that are tried
PATHS = 4  # of MambaIR's scan
# Tiles are fitted to an H100 or H200, which have so many. Other GPUs have more or fewer, but results must not
# depend on that.
MULTIPROCESSORS = 132
# Cycles for a pixel and block without the scan: for each channel of the scan, and of the residual stream.
INNER_CYCLES, OUTER_CYCLES = 0.016, 0.031
PREFERENCE = 0.1  # for large tiles, when estimates hardly differ


def digest_costs() -> str:
    """Digest all numbers that tiles are fitted by: other numbers give other tiles, and other pixels."""
    from mambair_cli.kernels import cuda_scan

    own = VALUES_AT_ONCE, list(SIDES), PATHS, MULTIPROCESSORS, INNER_CYCLES, OUTER_CYCLES, PREFERENCE
    scan = (
        [tuple(cost) for cost in cuda_scan.COSTS],
        cuda_scan.EXPONENTIAL,
        cuda_scan.STAGING,
        cuda_scan.TWO_PASSES,
        cuda_scan.LEAST_CHUNK,
    )
    return hashlib.sha256(repr((own, scan)).encode()).hexdigest()[:16]


def choose_batch(plan: Plan, config: Config, device_kind: str) -> int:
    """Return the number of tiles that a network computes at once, so that batches are of equal size."""
    most = TILES_AT_ONCE.get(device_kind, 1)
    if device_kind in VALUES_AT_ONCE:
        values = count_channels(config) * plan.tile_height * plan.tile_width
        most = max(1, VALUES_AT_ONCE[device_kind] // values)
    return -(-len(plan) // -(-len(plan) // most))


def count_channels(config: Config) -> int:
    """Return the channels that each pixel of a tile at work takes memory for.

    A U-Net is widest inside, and has no kernels that save memory: four times is an estimate.
    """
    return 4 * config.dim if isinstance(config, MambaIRUNetConfig) else config.embed_dim


@functools.lru_cache
def fit_tiles(height: int, width: int, overlap: int, config: MambaIRConfig) -> Plan:
    """Place the tiles on an image for which a MambaIR is estimated to take the least time on a GPU.

    Large tiles compute fewer pixels twice. But a batch takes as long as the busiest multiprocessor of the
    GPU, and its load depends on the number of tiles: 24 tiles may take longer than 33 smaller ones.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        overlap: Smallest number of pixels that neighbours share; less than the largest of the sides.
        config: Configuration of the network.
    """
    sides = [side for side in SIDES if side > overlap]
    plans = (plan_tiles(height, width, tile, overlap) for tile in product(sides, sides))
    different = {(plan.tile_height, plan.tile_width): plan for plan in plans}
    return min(
        different.values(), key=lambda plan: estimate_cycles(plan, config) * plan.redundancy**PREFERENCE
    )


def estimate_cycles(plan: Plan, config: MambaIRConfig) -> float:
    """Estimate the time of a block for all tiles of an image, in clock cycles of a GPU."""
    from mambair_cli.kernels.cuda_scan import estimate_scan

    batch = choose_batch(plan, config, "cuda")
    pixels = plan.tile_height * plan.tile_width
    scan = estimate_scan(PATHS * batch, pixels, config.d_inner, config.d_state, MULTIPROCESSORS)
    rest = INNER_CYCLES * config.d_inner + OUTER_CYCLES * config.embed_dim
    return -(-len(plan) // batch) * (scan + rest * batch * pixels)
