"""The image of a preview, and the part of it that is shown."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mambair_cli.errors import UsageError
from mambair_cli.system.geometry import Region

if TYPE_CHECKING:
    import numpy as np

    from mambair_cli.images import Header, Reader
    from mambair_cli.images.source import Source
    from mambair_cli.images.stretch import Stretch
    from mambair_cli.inspection.need import Need
    from mambair_cli.pages.screen import ScreenPicture


@dataclass(frozen=True)
class PreviewClip:
    """The clip that an image of a preview is a frame of.

    Attributes:
        name: Name of the clip.
        look: Looks at the frames that a run looks at.
        warnings: Sentences about what is damaged, which grow while frames are read.
    """

    name: str
    look: "Callable[[], Need]"
    warnings: list[str]


class PreviewImage:
    """An open image, of which a part is shown.

    Args:
        reader: Reads it.
        source: Where it comes from.
        region: The part; None for the most telling one.
        stretch: How the whole image is stretched for a network; None if it is not.
        clip: The clip that it is a frame of; None for an image.

    Attributes:
        name: Short name.
        header: Its header, without masks.
        need: What was seen of it, and what it needs; None where nobody looked.
        region: The part that is shown.
        source: The image.
        clip: The clip that it is a frame of; None for an image.
        stretch: How the whole image is stretched for a network; None if it is not.
    """

    def __init__(
        self,
        reader: "Reader",
        source: "Source",
        region: Region | None,
        stretch: "Stretch | None",
        clip: PreviewClip | None = None,
    ) -> None:
        import numpy as np

        from mambair_cli.inspection.telling_part import choose_telling_part
        from mambair_cli.runs.image_job import DECODED_BYTES
        from mambair_cli.runs.jobs import name_of

        self.source, self.name, self.clip = source, name_of(source), clip
        self._reader, self.stretch = reader, stretch
        self.header: Header = replace(reader.header, masks=())
        header = self.header
        if region is not None:
            self._check(region)
        samples = header.width * header.height * header.samples_per_pixel
        self._rows: np.ndarray | None = None
        self.need: Need | None = None
        self._held: tuple[Region, np.ndarray] | None = None
        if samples * np.dtype(header.dtype).itemsize <= DECODED_BYTES:
            self._rows = self.read(0, header.height)
        self.region = region or choose_telling_part(header, self.read)

    def _check(self, region: Region) -> None:
        width, height = self.header.width, self.header.height
        if region.left + region.width > width or region.top + region.height > height:
            raise UsageError(
                f"the region {region} leaves the picture {self.name}: it has {width}×{height} pixels"
            )

    @property
    def is_whole(self) -> bool:
        """Whether the part is all of it."""
        return self.region == (0, 0, self.header.width, self.header.height)

    @property
    def warnings(self) -> list[str]:
        """What is damaged, as far as it was read."""
        return self._reader.warnings if self.clip is None else self.clip.warnings

    def read(self, top: int, bottom: int) -> "np.ndarray":
        """Read rows of the first frame, without masks."""
        if self._rows is not None:
            return self._rows[top:bottom]
        return self._reader.read(top, bottom)[..., : self.header.samples_per_pixel]

    def read_part(self, part: Region) -> "np.ndarray":
        """Read a part, (h, w, c); the last one is kept, since a part of it may be asked for next."""
        if self._held is None or not _lies_in(part, self._held[0]):
            rows = self.read(part.top, part.top + part.height)
            self._held = part, rows[:, part.left : part.left + part.width].copy()
        seen, samples = self._held
        top, left = part.top - seen.top, part.left - seen.left
        return samples[top : top + part.height, left : left + part.width]

    def look(self) -> "Need":
        """Look once at the whole image, or at the frames of a clip, as a run does."""
        from mambair_cli.inspection.picture import find_need_of

        if self.need is None and self.clip is not None:
            self.need = self.clip.look()
        elif self.need is None:
            self.need = find_need_of(
                self.source.path or self.source.data or b"", self.header, self.read, self.stretch
            )
        return self.need

    def show(self, samples: "np.ndarray", name: str) -> "ScreenPicture":
        """Make a picture for the screen of samples that are of its kind."""
        from mambair_cli.pages.screen import convert_for_screen, fit_to_screen

        pixels, notes = convert_for_screen(samples, self.header, self.name)
        if self.header.frames > 1:
            notes.append(f"the first of {self.header.frames} frames")
        return fit_to_screen(name, pixels, tuple(notes))


def _lies_in(part: Region, other: Region) -> bool:
    is_across = other.left <= part.left and part.left + part.width <= other.left + other.width
    return is_across and other.top <= part.top and part.top + part.height <= other.top + other.height
