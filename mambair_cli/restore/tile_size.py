"""The size of tiles and their overlap, by device and network."""

from typing import TYPE_CHECKING, NamedTuple

from mambair_cli.errors import UsageError
from mambair_cli.networks import MambaIRConfig
from mambair_cli.restore.tile_cost import SIDES, VALUES_AT_ONCE, digest_costs, fit_tiles
from mambair_cli.restore.tiling import Plan, plan_tiles
from mambair_cli.system.geometry import Wrap

if TYPE_CHECKING:
    from mambair_cli.networks import Config

TILE_SIDE = {"cpu": 256, "cuda": 136, "mps": 128}  # pixels of the input; measured: benchmarks/README.md
WINDOWED_TILE_SIDE = {"cuda": 192}  # for MambaIRv2, which computes whole windows of 16 pixels
WHOLE_SIDE = {"cuda": 256}  # largest image that is a single tile: faster there than several smaller ones
OVERLAP = 16  # measured: benchmarks/README.md


class TileSettings(NamedTuple):
    """Sizes by which images are cut into tiles, in pixels.

    Attributes:
        side: Largest side of a tile.
        overlap: Smallest number of pixels that neighbours share.
        whole: Largest side of an image that is a single tile.
        fitted: Network to whose time on a GPU tiles are fitted; None for tiles as square as possible.
        wrap: Directions in which the edges of images meet.
    """

    side: int
    overlap: int
    whole: int
    fitted: MambaIRConfig | None = None
    wrap: Wrap = "none"

    @property
    def computing(self) -> dict[str, int | str | None]:
        """Return the values that pixels of the result depend on."""
        fit = None if self.fitted is None else digest_costs()
        return {"tile": self.side, "overlap": self.overlap, "whole": self.whole, "fit": fit}

    def plan(self, height: int, width: int) -> Plan:
        """Place tiles on an image of that size."""
        if self.wrap != "none":
            return plan_tiles(height, width, self.side, self.overlap, self.wrap)
        if max(height, width) <= self.whole:
            return plan_tiles(height, width, self.whole, self.overlap)
        if self.fitted is not None:
            return fit_tiles(height, width, self.overlap, self.fitted)
        return plan_tiles(height, width, self.side, self.overlap)


def choose_tiles(
    tile: int | None,
    overlap: int | None,
    device_kind: str,
    architecture: str | None = None,
    config: "Config | None" = None,
    wrap: Wrap = "none",
) -> TileSettings:
    """Fill in a tile and an overlap that were not given.

    Args:
        tile: Largest side, in pixels.
        overlap: Smallest number of pixels that neighbours share.
        device_kind: Type of the device, as torch names it.
        architecture: Architecture of the network; None while it is unknown, when any default is possible.
        config: Configuration of the network; None while it is unknown.
        wrap: Directions in which the edges of images meet.

    Raises:
        UsageError: The overlap does not fit the tile.
    """
    if wrap != "none" and tile is not None:  # then only the side counts, chosen by the user or not
        usual = choose_tiles(None, None, device_kind, architecture, config).side
        tile = None if tile == usual else tile
    may_fit = tile is None and device_kind in VALUES_AT_ONCE
    fitted = config if may_fit and isinstance(config, MambaIRConfig) else None
    whole = WHOLE_SIDE.get(device_kind, 0) if tile is None else 0
    if tile is None:
        tile = TILE_SIDE.get(device_kind, TILE_SIDE["cpu"])
        if architecture is not None and architecture.lower() == "mambairv2":
            tile = WINDOWED_TILE_SIDE.get(device_kind, tile)
        if fitted is not None or (may_fit and architecture is None):
            tile = max(SIDES)
    overlap = min(OVERLAP, tile // 2) if overlap is None else overlap
    if tile < 1 or not 0 <= overlap < tile:
        raise UsageError(f"the overlap must be at least 0 and less than the tile: {overlap} of {tile}")
    return TileSettings(tile, overlap, whole, fitted, wrap)
