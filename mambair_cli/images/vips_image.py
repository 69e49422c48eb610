"""Images that libvips decodes: the header at once, the rows as often as they are read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, BinaryIO

from mambair_cli.errors import ImageError
from mambair_cli.images.file_bytes import FileBytes
from mambair_cli.images.jpeg import MendedJpeg, find_start, mend
from mambair_cli.images.libvips import LibvipsError, explained, pyvips
from mambair_cli.images.row_reader import Loaded
from mambair_cli.images.tiff import Page, split_runs
from mambair_cli.images.tiff_blocks import JPEG, find_lost_jpegs, find_lost_tiles, leave_out_tiles
from mambair_cli.images.tiff_samples import Samples, must_settle, restate_as_usual, settle_samples

LOADERS = MappingProxyType(
    {"png": "png", "jpeg": "jpeg", "webp": "webp", "tiff": "tiff", "gif": "gif", "avif": "heif"}
)
_FRAMED = ("gif", "webp", "tiff")
_NOTHING = "nothing of it can be decoded"
_ROWS_AT_ONCE = 8  # libvips decodes so many of most files at a time


@dataclass(frozen=True)
class FileData:
    """The data of a file.

    Attributes:
        name: Name of the file, for errors.
        bytes: Its bytes; for a file on the disk, only valid while its header is read.
        reopen: Opens the file again; None for data in memory.
    """

    name: str
    bytes: Any
    reopen: Callable[[], AbstractContextManager[BinaryIO]] | None = None

    def source(self) -> Any:
        """Return a new source for libvips."""
        if self.reopen is None:
            return pyvips.Source.new_from_memory(memoryview(self.bytes))
        with self.reopen() as file:
            return pyvips.Source.new_from_descriptor(file.fileno())  # libvips duplicates the descriptor

    def read(self) -> Any:
        """Return all bytes."""
        if self.reopen is None:
            return self.bytes
        with self.reopen() as file:
            return file.read()

    def change(self, changes: Iterable[tuple[int, Any]]) -> "FileData":
        """Return the data in memory with other bytes at some offsets."""
        changed = bytearray(self.read())
        for at, value in changes:
            changed[at : at + len(value)] = value
        return FileData(self.name, changed)

    @contextmanager
    def look(self) -> Iterator[Any]:
        """Give the bytes without reading them all."""
        if self.reopen is None:
            yield self.bytes
            return
        with self.reopen() as file:
            yield FileBytes(file)


@dataclass(frozen=True)
class _Damage:
    """Where an image is damaged.

    Attributes:
        place: The place in words that follow "damaged"; empty where it is unknown.
        row: First row that cannot be decoded, of the image as stored; None where others follow it, or that
            is unknown.
    """

    place: str = ""
    row: int | None = None


class VipsImage:
    """An image that libvips decodes.

    Args:
        data: Data of its file.
        format: One of ``LOADERS``.
        damaged: Whether to read the rest of a file of which a part is missing.
        pages: Pages to read of a TIFF file, by their numbers from 0.

    Attributes:
        format: Format of the file.
        head: Image of libvips as in the file: nothing is rotated or converted. Its metadata is that of any
            page; :meth:`field` and :meth:`show` have that of the first one.
        frames: Number of pages of a document or frames of an animation.
        orientation: Orientation of EXIF, 1 to 8.
        samples: What the samples of a pixel mean; None where they are as in the result.

    Raises:
        pyvips.Error: libvips does not read it.
    """

    def __init__(
        self, data: FileData, format: str, damaged: bool, pages: Mapping[int, Page] = MappingProxyType({})
    ) -> None:
        self._pages = list(pages.values())
        if any(map(must_settle, self._pages)):
            data = data.change(restate_as_usual(data.bytes, self._pages))
        self._data, self.format, self._damaged = data, format, damaged
        self._options: dict[str, Any] = {"access": "sequential"}
        self._mended: MendedJpeg | None = None
        self._damage: _Damage | None = None
        self._lost_jpegs: str | None = None
        self._runs = split_runs(list(pages))
        self._takes_frames = False
        if pages:
            self._options["page"] = min(pages)
        start = find_start(data.bytes) if format == "jpeg" else 0
        self.head = self._load(pyvips.Source.new_from_memory(data.read()[start:]) if start else None)
        self._first = self.head
        frames = (self.field("n-pages") or 1) if format in _FRAMED else 1
        self.frames: int = len(pages) or frames
        self.samples: Samples | None = None
        self.orientation: int = self.field("orientation") or 1
        if self.orientation > 2:
            self._options["access"] = "random"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an upright frame."""
        width, height = self.head.width, self.head.height // (self.frames if self._takes_frames else 1)
        return (height, width) if self.orientation >= 5 else (width, height)

    def take_frames(self) -> None:
        """Read all frames, one below another, instead of the first one.

        Raises:
            ImageError: They differ.
        """
        self._takes_frames = True
        try:
            self.head = self._load()
        except pyvips.Error as error:
            raise ImageError(
                f"cannot read {self._data.name}: its {self.frames} pages differ in size or kind; "
                "split it into single images"
            ) from error

    def field(self, name: str) -> Any:
        """Return a field of libvips' metadata of the first page or frame, or None."""
        return self._first.get(name) if self._first.get_typeof(name) else None

    def show(self) -> Any:
        """Return the first page with the colours that its rows will have: CMYK becomes sRGB."""
        head = self._settle(self._first)
        return _to_srgb(head) if head.interpretation == "cmyk" else head

    def load(self, lenient: bool) -> Loaded:
        """Return the image to read rows from.

        Args:
            lenient: Whether to continue where the file is damaged.
        """
        damage = self._find_damage() if lenient else _Damage()
        loaded = self._open(lenient)
        decoded = loaded.image
        if self._find_lost_jpegs() and self._pages[0].tile:  # of which libvips does not pass over all
            decoded = self._open(True, "random").image
            lost = find_lost_tiles(decoded, self._read_pages)
            decoded = leave_out_tiles(decoded, lost.lost, self._read_pages)
        if self.orientation > 2:
            decoded = decoded.crop(0, 0, self.head.width, self.head.height)
        if self.format == "png" and damage.row is not None:  # of which libvips returns what memory holds
            decoded = _blank_from(decoded, damage.row)
        decoded = self._settle(decoded)
        if self.head.interpretation == "cmyk":
            decoded = _to_srgb(decoded)
        return replace(loaded, image=self._turn(decoded), place=damage.place)

    def _open(self, lenient: bool, access: str | None = None) -> Loaded:
        """Return the image as stored."""
        more = {} if access is None else {"access": access}
        if self.format == "jpeg":
            jpeg = self._mended = self._mended or mend(self._data.read())
            source = pyvips.Source.new_from_memory(jpeg.data)
            image = self._load(source, "none" if lenient else "warning", **more)
            fault = "its last scans are missing" if jpeg.lacks_scans and not jpeg.has_end else None
            return Loaded(image, self._damaged or jpeg.has_end, jpeg.warnings, fault)
        lost = self._find_lost_jpegs()
        image = self._load(fail_on="none" if lenient or lost else None, **more)
        fault = f"damaged in {lost}{self._before_turn}" if lost else None
        return Loaded(image, self._damaged, (fault,) if fault else (), fault)

    def _find_lost_jpegs(self) -> str:
        """Say which of the JPEG streams in a TIFF file are damaged; empty where none is."""
        if self._lost_jpegs is None:
            self._lost_jpegs = ""
            if any(page.compression == JPEG for page in self._pages):
                with self._data.look() as data:
                    self._lost_jpegs = find_lost_jpegs(data, self._read_pages).name_lost()
        return self._lost_jpegs

    def _find_damage(self) -> _Damage:
        """Find where the image cannot be decoded."""
        if self._damage is None:
            self._damage = _Damage()
            if self._pages and self._pages[0].tile:
                self._damage = self._find_lost_tiles()
            elif not self.field("interlaced"):
                row, rows = self._find_row(), self.head.height
                if row == 0 and (self.format == "png" or self._is_empty()):
                    raise LibvipsError(_NOTHING)
                if row is not None:
                    place = f" from about row {row} of {rows} on" if row else " from the top on"
                    self._damage = _Damage(f"{place}{self._before_turn}", row)
        return self._damage

    def _find_lost_tiles(self) -> _Damage:
        lost = find_lost_tiles(self._open(False, "random").image, self._read_pages)
        if len(lost.lost) == lost.total and self._is_empty():
            raise LibvipsError(_NOTHING)
        return _Damage(f" in {lost.name_lost()}{self._before_turn}" if lost.lost else "")

    def _is_empty(self) -> bool:
        """Tell whether nothing can be decoded, in place of which libvips gives one level."""
        try:
            with explained(0, self.format):
                levels = self._open(True, "sequential").image.stats()
                return levels(0, 0) == levels(1, 0)  # the least and the largest
        except LibvipsError:
            return True

    @property
    def _read_pages(self) -> Sequence[Page]:
        return self._pages if self._takes_frames else self._pages[:1]

    @property
    def _before_turn(self) -> str:
        """Words behind a place in the image as stored."""
        return ", before it was turned upright" if self.orientation > 2 else ""

    def _find_row(self) -> int | None:
        """Return the first row that cannot be decoded; None if all can."""
        row, (width, height) = 0, (self.head.width, self.head.height)
        with suppress(LibvipsError), explained(0, self.format):
            image = self._open(False, "sequential").image
            region = pyvips.Region.new(image)
            for row in range(0, height, _ROWS_AT_ONCE):
                region.fetch(0, row, width, min(_ROWS_AT_ONCE, height - row))
            region.fetch(0, image.height - 1, width, 1)  # shows whether the last rows were complete
            return None
        return row

    def _load(self, source: Any = None, fail_on: str | None = None, **more: Any) -> Any:
        # Gray rows in place of a truncated file's end are an error, unless the user accepts them. libvips
        # reads not even the header of a truncated GIF file. In a tile, it takes every fault for a warning;
        # with strips, a warning may as well be of a tag that is odd and does no harm.
        if fail_on is None:
            has_tiles = bool(self._pages) and self._pages[0].tile is not None
            fail_on = "warning" if has_tiles else "error"
            if self._damaged and self.format == "gif":
                fail_on = "none"

        def load(**options: Any) -> Any:
            return pyvips.Operation.call(
                f"{LOADERS[self.format]}load_source",
                self._data.source() if source is None else source,
                fail_on=fail_on,
                **{**self._options, **more, **options},
            )

        if not self._takes_frames:
            return load()
        if not self._runs:
            return load(n=-1)
        parts = [load(page=first, n=count) for first, count in self._runs]
        kinds = {(part.width, part.bands, part.format, part.interpretation) for part in parts}
        if len(kinds) > 1 or len(set(map(_page_height, parts))) > 1:
            raise pyvips.Error("pages differ")
        return parts[0] if len(parts) == 1 else pyvips.Image.arrayjoin(parts, across=1)

    def _settle(self, image: Any) -> Any:
        return image if self.samples is None else settle_samples(image, self.samples)

    def _turn(self, image: Any) -> Any:
        """Apply the orientation to each frame."""
        if self.orientation <= 2 or not self._takes_frames:
            return _turn_upright(image, self.orientation)
        height = image.height // self.frames
        frames = (image.crop(0, height * number, image.width, height) for number in range(self.frames))
        return pyvips.Image.arrayjoin([_turn_upright(frame, self.orientation) for frame in frames], across=1)


def _blank_from(image: Any, row: int) -> Any:
    """Make the rows from one on black."""
    return image.crop(0, 0, image.width, row).embed(0, 0, image.width, image.height)


def _page_height(image: Any) -> int:
    return image.get("page-height") if image.get_typeof("page-height") else image.height


def _to_srgb(cmyk: Any) -> Any:
    """Convert by the embedded profile, or else a usual one; samples after the colours stay."""
    colours, others = (cmyk[:4], cmyk[4:]) if cmyk.bands > 4 else (cmyk, None)
    converted = colours.icc_transform(
        "srgb",
        embedded=True,
        input_profile="cmyk",
        intent="relative",
        black_point_compensation=True,
        depth=16 if cmyk.format == "ushort" else 8,
    )
    return converted if others is None else converted.bandjoin(others)


def _turn_upright(image: Any, orientation: int) -> Any:
    """Apply an EXIF orientation, 1 to 8."""
    if orientation in (5, 7):
        image = image.rot90().fliphor()
    elif orientation in (6, 8):
        image = image.rot90() if orientation == 6 else image.rot270()
    elif orientation in (3, 4):
        image = image.rot180() if orientation == 3 else image.flipver()
    elif orientation == 2:
        image = image.fliphor()
    return image.rot180() if orientation == 7 else image
