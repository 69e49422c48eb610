"""Damage image files at random, read them, and keep those that crash the reader, hang it or fill memory.

    python benchmarks/fuzz_reader.py --minutes 10 --kept fuzz

A picture or an error of one line is right; for any other outcome the file is kept. Each batch of files is
read in a separate process, with limited memory and time.
"""

import argparse
import io
import random
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from mambair_cli.errors import ImageError
from mambair_cli.images import open_picture

MAX_PIXELS = 2_000_000
MEMORY_BYTES = 3 * 2**30
FILES_IN_A_BATCH = 1000
SECONDS_FOR_A_BATCH = 180
INTERESTING = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def make_seeds() -> list[bytes]:
    """Make small files of every format and of many kinds."""
    generator = np.random.default_rng(0)
    seeds = list(make_pictures(generator))
    frames = [Image.fromarray(generator.integers(0, 256, (9, 8, 3), dtype=np.uint8)) for _ in range(3)]
    for format in ("gif", "webp", "tiff", "png", "avif", "mpo"):
        seeds.append(save(frames[0], format, save_all=True, append_images=frames[1:], duration=[10, 20, 30]))
    seeds += make_strips_and_tiles(generator)
    icon = Image.fromarray(generator.integers(0, 256, (32, 32, 4), dtype=np.uint8))
    seeds.append(save(icon, "ico", sizes=[(16, 16), (32, 32)]))
    seeds += make_tiffs_with_extra_bands(generator)
    cmyk = Image.fromarray(generator.integers(0, 256, (12, 17, 4), dtype=np.uint8), "CMYK")
    seeds += [save(cmyk, format) for format in ("jpeg", "tiff")]
    seeds += [b"P3 2 2 7 1 2 3 4 5 6 7 0 1 2 3 4", b"P1 3 2 101 010", b"P4 9 2 " + bytes(4)]
    with suppress(ModuleNotFoundError):
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(frames[0].resize((64, 64))).save(file)
        seeds.append(file.getvalue())
    return seeds


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def make_pictures(generator: np.random.Generator) -> Iterator[bytes]:
    """Yield pictures of one, three and four bands in the usual formats, with Exif where it is possible."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    exif.get_ifd(0x8825)[2] = (48.0, 8.0, 12.5)
    options: dict[str, dict[str, Any]] = {name: {"exif": exif} for name in ("png", "webp", "avif", "tiff")}
    for bands in (1, 3, 4):
        options["jpeg"] = {"exif": exif, "progressive": bands == 1}
        formats = ["png", "webp", "avif", "tiff", "jpeg2000"]
        formats += ["jpeg", "bmp", "ppm", "gif"] if bands < 4 else []
        image = Image.fromarray(generator.integers(0, 256, (12, 17, bands), dtype=np.uint8).squeeze())
        for format in formats:
            yield save(image, format, **options.get(format, {}))
    yield save(Image.fromarray(generator.integers(0, 65536, (12, 17), dtype=np.uint16)), "png")


def make_strips_and_tiles(generator: np.random.Generator) -> Iterator[bytes]:
    """Yield TIFFs of three types of samples, in tiles and in strips."""
    for dtype in (np.uint8, np.uint16, np.float32):
        for options in ({"tile": (16, 16)}, {"rowsperstrip": 5, "compression": "zlib"}):
            file = io.BytesIO()
            with tifffile.TiffWriter(file, bigtiff=dtype is np.uint16) as writer:
                writer.write(generator.random((20, 20, 3)).astype(dtype), photometric="rgb", **options)
            yield file.getvalue()


def make_tiffs_with_extra_bands(generator: np.random.Generator) -> Iterator[bytes]:
    """Yield TIFFs of four bands and more; those of 8 bits have a thumbnail and a second page."""
    for dtype, bands in ((np.uint8, 4), (np.uint8, 6), (np.float64, 5)):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            samples, extra = generator.random((20, 20, bands)).astype(dtype), ["unspecified"] * (bands - 3)
            options = {"photometric": "rgb", "planarconfig": "contig", "extrasamples": extra}
            writer.write(samples, **options)
            if dtype is np.uint8:
                for side, kind in ((5, 1), (20, 0)):
                    writer.write(samples[:side, :side], **options, subfiletype=kind)
        yield file.getvalue()


def damage(data: bytes, draw: random.Random) -> bytes:
    """Change a file in one to six places."""
    block = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(block) or 1)
        # Headers are more worth breaking than pixels.
        at = draw.randrange(min(len(block), 64) or 1) if draw.random() < 0.5 else at
        changes: list[Callable[[], None]] = [
            lambda at=at: block.__setitem__(slice(at, at + 1), bytes([draw.randrange(256)])),
            lambda at=at: block.__setitem__(slice(at, at + 1), bytes([block[at] ^ (1 << draw.randrange(8))])),
            lambda at=at: block.__setitem__(slice(at, at + draw.randrange(1, 40)), b""),
            lambda at=at: block.__setitem__(slice(at, at), block[at : at + draw.randrange(1, 40)]),
            lambda at=at: block.__setitem__(
                slice(at, at + 4), struct.pack(draw.choice("<>") + "I", draw.choice(INTERESTING))
            ),
            lambda at=at: block.__setitem__(
                slice(at, at + 2), struct.pack(draw.choice("<>") + "H", draw.choice(INTERESTING) % 65536)
            ),
            lambda at=at: block.__setitem__(slice(at, len(block)), b""),
        ]
        if block:
            draw.choice(changes)()
    return bytes(block)


def read(data: bytes) -> str | None:
    """Read a file; return what went wrong, or None for a picture or a proper error."""
    try:
        with open_picture(data, max_pixels=MAX_PIXELS) as reader:
            header = reader.header
            height = header.height * header.frames
            for top in range(0, height, 7):
                rows = reader.read(top, min(top + 7, height))
                if rows.shape[1:] != (header.width, header.samples_per_pixel) or rows.dtype != header.dtype:
                    return f"rows are {rows.shape} of {rows.dtype}, the header says {header}"
    except ImageError as error:
        message = str(error)
        return f"not one line: {message!r}" if "\n" in message or not message.isprintable() else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def read_batch(first: int, last: int, present: Path) -> None:
    """Read the files of some numbers; ``present`` holds the one that is being read, in case of a crash."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    seeds = make_seeds()
    for number in range(first, last):
        draw = random.Random(number)
        data = damage(seeds[number % len(seeds)], draw)
        present.write_bytes(data)
        wrong = read(data)
        if wrong:
            print(f"{number}\t{wrong!r}", flush=True)


def main() -> int:
    """Fuzz for some minutes; return 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--start", type=int, default=0, help="number of the first file")
    parser.add_argument(
        "--kept", type=Path, default=Path("fuzz"), help="folder for files that show an error [fuzz]"
    )
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.kept.mkdir(exist_ok=True)
    present = options.kept / "present"
    if options.work:
        first, last = options.work
        read_batch(first, last, present)
        return 0
    number, found, end = options.start, 0, time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        last = number + FILES_IN_A_BATCH
        command = [sys.executable, __file__, "--kept", str(options.kept), "--work", str(number), str(last)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=SECONDS_FOR_A_BATCH
            )
            lines, talk, code = done.stdout, done.stderr, done.returncode
        except subprocess.TimeoutExpired:
            lines, talk, code = "", "", "no end"
        if code or talk:
            found += 1
            kept = options.kept / f"crash-{number}"
            present.rename(kept)
            print(f"{kept}: exit {code}: {talk.strip()[-300:]}", flush=True)
        for line in lines.splitlines():
            which, wrong = line.split("\t", 1)
            found += 1
            kept = options.kept / f"wrong-{which}"
            seeds = make_seeds()
            kept.write_bytes(damage(seeds[int(which) % len(seeds)], random.Random(int(which))))
            print(f"{kept}: {wrong}", flush=True)
        number = last
    present.unlink(missing_ok=True)
    print(f"{number - options.start} files read, {found} findings; continue with --start {number}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
