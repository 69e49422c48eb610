"""Pages and frames of WebP files, of which the library would merge some, and times that formats can tell."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import noise
from PIL import Image
from profiles import D65, rgb_profile

from mambair_cli.images import Header, Writer, find_losses, fit_header, open_picture
from mambair_cli.images.picture import Metadata

EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/>'
)
XMP += b"</x:xmpmeta>"


def write(frames: np.ndarray, format: str = "webp", quality: int = 100, **more: Any) -> bytes:
    """Write (n, h, w, c) samples as a file."""
    count, height, width, samples = frames.shape
    header = Header(width, height, 3, frames.dtype.name, samples == 4, frames=count, **more)
    file = io.BytesIO()
    with Writer(file, fit_header(header, format, "a"), format, quality, "a") as writer:
        writer.write(0, frames.reshape(-1, width, samples))
        writer.finish()
    return file.getvalue()


def see(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    """Return the frames of a file as another library shows them, and their durations."""
    frames, delays = [], []
    with Image.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            frames.append(np.asarray(image.convert("RGBA")))
            delays.append(image.info.get("duration", 0))
    return frames, delays


def pages(order: str, bands: int = 3) -> np.ndarray:
    """Return a page for each letter, equal for equal ones; one for "-" is blank."""
    drawn = {letter: noise(24, 33, bands, seed=ord(letter)) for letter in order}
    drawn["-"] = np.full((24, 33, bands), 255, np.uint8)
    return np.stack([drawn[letter] for letter in order])


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("order", ["a--bc", "--ab", "ab--", "---", "aabb", "a-b-c"])
def test_equal_pages_of_a_document_stay(order: str, bands: int) -> None:
    document = pages(order, bands)
    frames, _ = see(write(document))
    assert len(frames) == len(order)
    for page, frame in zip(document, frames, strict=True):
        alpha = page[..., 3:] if bands == 4 else np.full((24, 33, 1), 255)
        np.testing.assert_array_equal(frame[..., 3:], alpha)
        visible = alpha[..., 0] > 0
        np.testing.assert_array_equal(frame[visible][:, :3], page[visible][:, :3])


def test_pages_keep_colours_metadata_and_what_alpha_hides() -> None:
    document = pages("a--bc", 4)
    profile = rgb_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65, 2.2)
    with open_picture(write(document, icc=profile, metadata=Metadata(exif=EXIF, xmp=XMP))) as reader:
        header = reader.header
        assert (header.frames, header.icc, header.metadata.exif, header.metadata.xmp) == (
            5,
            profile,
            EXIF,
            XMP,
        )
        np.testing.assert_array_equal(reader.read(0, 5 * 24), document.reshape(-1, 33, 4))
        assert reader.warnings == []


@pytest.mark.parametrize("exif", [None, EXIF])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 3])
def test_gray_pages_keep_their_alpha(count: int, dtype: type, exif: bytes | None) -> None:
    steps = pages("abc"[:count])[..., :2].astype(dtype)
    steps[..., 1] |= 1  # none is fully transparent
    samples = steps * dtype(np.iinfo(dtype).max // 255)
    metadata = Metadata(exif=exif)
    header = Header(33, 24, 1, samples.dtype.name, has_alpha=True, frames=count, metadata=metadata)
    file = io.BytesIO()
    with Writer(file, fit_header(header, "webp", "a"), "webp", 100, "a") as writer:
        writer.write(0, samples.reshape(-1, 33, 2))
        writer.finish()
    expected = steps.reshape(-1, 33, 2)[..., [0, 0, 0, 1]]
    with open_picture(file.getvalue()) as reader:
        np.testing.assert_array_equal(reader.read(0, count * 24), expected)
    with Image.open(file) as image:
        assert image.mode == "RGBA"


def test_pages_are_as_lossy_as_a_picture() -> None:
    document = pages("a--")
    frames, _ = see(write(document, quality=60))
    (alone,), _ = see(write(document[:1], quality=60))
    np.testing.assert_array_equal(frames[0], alone)
    assert len(frames) == 3


@pytest.mark.parametrize(
    ("order", "delays", "expected"),
    [
        ("abcde", [1, 5, 9, 10, 11], [1, 5, 9, 10, 11]),
        ("a--bc", [100, 50, 70, 5, 3], [100, 120, 5, 3]),
        ("aaa-b", [7, 7, 7, 30, 40], [21, 30, 40]),
        ("ab---", [1, 2, 3, 4, 5], [1, 2, 12]),
        ("ab", [2**24 - 1, 20], [2**24 - 1, 20]),
    ],
)
def test_an_animation_takes_as_long_as_before(order: str, delays: list[int], expected: list[int]) -> None:
    data = write(pages(order), delays=tuple(delays), loop=3)
    frames, seen = see(data)
    assert seen == expected
    shown = [page for page, before in zip(order, " " + order, strict=False) if page != before]
    for frame, page in zip(frames, shown, strict=True):
        np.testing.assert_array_equal(frame[..., :3], pages(page)[0])
    with open_picture(data) as reader:
        assert (reader.header.delays, reader.header.loop) == (tuple(expected), 3)


def test_a_document_becomes_webp_of_as_many_pages(restore: Any) -> None:
    first, *others = map(Image.fromarray, pages("a--bc"))
    first.save("doc.tif", save_all=True, append_images=others)
    code, out, err = restore("upscale", "x2", "doc.tif", "-o", "doc.webp")
    assert (code, out) == (0, ["doc.webp"])
    assert len(see(Path("doc.webp").read_bytes())[0]) == 5
    assert "doc" not in err


@pytest.mark.parametrize(
    ("format", "delays", "loss"),
    [
        (
            "gif",
            (17, 17, 17),
            "gif cannot tell its times exactly: 60 ms in all, not 51; webp and avif can",
        ),
        (
            "gif",
            (700_000, 10),
            "gif cannot tell its times exactly: 655360 ms in all, not 700010; webp and avif can",
        ),
        ("gif", (50, 70, 1004), None),
        ("webp", (1, 17, 5), None),
        ("avif", (1, 17, 5), None),
        ("avif", (0, 0), "avif cannot tell its times exactly: 2 ms in all, not 0; webp and gif can"),
        ("avif", (0, 100), None),
        (
            "webp",
            (2**40, 10),
            f"webp cannot tell its times exactly: {2**24 + 9} ms in all, not {2**40 + 10}",
        ),
        ("tiff", (50, 70), "tiff has no room for the times of its frames; webp, avif and gif have"),
        ("tiff", None, None),
        ("gif", None, None),
    ],
)
def test_times_that_a_format_has_no_room_for_are_named(
    format: str, delays: tuple[int, ...] | None, loss: str | None
) -> None:
    header = Header(33, 24, 3, "uint8", frames=len(delays or "--"), delays=delays)
    assert find_losses(header, fit_header(header, format, "a"), format) == ([loss] if loss else [])


def test_no_time_in_avif_is_the_shortest() -> None:
    with open_picture(write(pages("abc"), "avif", delays=(0, 5, 0))) as reader:
        assert reader.header.delays == (1, 5, 1)


def test_a_long_time_in_gif_is_the_longest() -> None:
    with open_picture(write(pages("ab"), "gif", delays=(700_000, 20))) as reader:
        assert reader.header.delays == (655_350, 20)
