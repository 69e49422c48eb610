"""A folder of thirty files as people have them, and what a careful person would choose for each.

The choices were written down before the code that looks at pictures. The pictures come from the folder of
shared data, which is not part of the project; ``make_folder`` says where each one is from, and what was done
to it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from PIL import Image

Pixels = np.ndarray  # (h, w, 3) or (h, w), float64, 0 to 255
Upscaler = Literal["clean", "real"]


@dataclass(frozen=True)
class Mixed:
    """A file of the folder.

    Attributes:
        name: Name of the file.
        make: Makes its bytes from the folder of shared data.
        upscale: Kind of model that a careful person would enlarge it with.
        why: What that person sees.
        sigma: Sigma of white noise that the person would tell ``denoise``; None for the model for real
            pictures, which leaves clean ones alone.
        reduce: Factor that the picture was enlarged by before; 1 for no other.
    """

    name: str
    make: Callable[[Path], bytes]
    upscale: Upscaler
    why: str
    sigma: float | None = None
    reduce: float = 1.0


def make_folder(shared: Path, folder: Path) -> None:
    """Write the thirty files."""
    for file in FILES:
        (folder / file.name).write_bytes(file.make(shared))


def _open(shared: Path, name: str, side: int = 0, at: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Return a picture in RGB, or a square part of it."""
    picture = Image.open(shared / "data" / name).convert("RGB")
    if not side:
        return picture
    left, top = (round((length - side) * share) for length, share in zip(picture.size, at, strict=True))
    return picture.crop((left, top, left + side, top + side))


def _reduced(shared: Path, name: str, factor: float = 0.5) -> Image.Image:
    """Return a picture reduced, so that every pixel holds detail."""
    picture = _open(shared, name)
    return picture.resize([round(side * factor) for side in picture.size], Image.Resampling.BICUBIC)


def _save(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def _reload(picture: Image.Image, **options: Any) -> Image.Image:
    """Save a picture as JPEG and read it again."""
    return Image.open(io.BytesIO(_save(picture, "JPEG", **options))).convert("RGB")


def _noisy(picture: Image.Image, sigma: float, size: float = 0.0, shot: bool = False) -> Pixels:
    """Add noise to a picture.

    Args:
        picture: The picture.
        sigma: Standard deviation, in steps of 8 bits.
        size: Pixels that a grain is large, beyond one; 0 for white noise.
        shot: Whether it grows with the square root of the brightness.
    """
    pixels = np.asarray(picture, dtype=np.float64)
    noise = np.random.default_rng(7).standard_normal(pixels.shape)
    if size:
        near = np.arange(-4, 5)
        kernel = np.exp(-(near**2) / (2 * size**2))
        for axis in (0, 1):
            shifted = [share * np.roll(noise, place, axis) for place, share in zip(near, kernel, strict=True)]
            noise = np.sum(shifted, axis=0)
        noise /= noise.std()
    if shot:
        noise *= np.sqrt(pixels / 128 + 0.05)
    return np.clip(pixels + sigma * noise, 0, 255)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _tiff16(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.rint(pixels * 257).astype(np.uint16), photometric="rgb")
    return file.getvalue()


def _copy(name: str) -> Callable[[Path], bytes]:
    return lambda shared: (shared / "data" / name).read_bytes()


def _saved_often(shared: Path) -> bytes:
    picture = _reduced(shared, PHOTOS[5])
    for turn, quality in enumerate((80, 75, 85, 70, 80)):
        picture = _reload(picture, quality=quality).crop((turn, 2 * turn, *picture.size))
    return _save(picture, "PNG")


def _enlarged(shared: Path) -> bytes:
    picture = _reduced(shared, PHOTOS[6])
    return _save(picture.resize([3 * side for side in picture.size], Image.Resampling.BICUBIC), "PNG")


def _denoised(shared: Path) -> bytes:
    """Return what another program's filter leaves of noise: a median of 3×3, thrice."""
    from PIL import ImageFilter

    picture = _image(_noisy(_reduced(shared, PHOTOS[7]), 12))
    for _ in range(3):
        picture = picture.filter(ImageFilter.MedianFilter(3))
    return _save(picture, "PNG")


def _photo(name: str) -> str:
    return f"photos/photo/{name}.avif"


def _graphic(name: str) -> str:
    return f"photos/graphics/{name}.webp"


PHOTOS = (
    _photo("cid22_1f5d8039_0"),  # alpacas before a field
    _photo("gb82_8913bb8a_0"),  # a house at night
    _photo("clic25_b80eaa57_0"),  # a crowd
    _photo("cid22_3a894558_0"),  # pizza
    _photo("squeeze_cb0e21e7_2"),  # boats
    _photo("clic25_e143eebe_1"),  # a blue van
    _photo("cid22_0b3f939e_0"),  # a blue house
    _photo("squeeze_4565de7f_2"),  # citrus fruit
    _photo("elementary_2fbd3bd1_1"),  # a forest under snow
    _photo("stunning_26d95ae1_0"),  # rocks at the sea
)

FILES = (
    Mixed(
        "alpacas.png",
        lambda shared: _save(_reduced(shared, PHOTOS[0]), "PNG"),
        "clean",
        "a sharp photograph",
    ),
    Mixed(
        "night.png",
        lambda shared: _save(_reduced(shared, PHOTOS[1]), "PNG"),
        "clean",
        "a sharp photograph, mostly black",
    ),
    Mixed("lenna.png", _copy("SR/Set14/LR_bicubic/X2/lennax2.png"), "clean", "a small photograph"),
    Mixed(
        "forest.png",
        lambda shared: _save(_reduced(shared, PHOTOS[8]), "PNG"),
        "clean",
        "a texture everywhere; its grain is trees, not noise",
    ),
    Mixed(
        "baboon.png", _copy("SR/Set14/LR_bicubic/X2/baboonx2.png"), "clean", "fur, which is fine and sharp"
    ),
    Mixed(
        "phone-a.jpg",
        lambda shared: _save(_reduced(shared, PHOTOS[2]), "JPEG", quality=96, subsampling=0),
        "clean",
        "a JPEG of high quality",
    ),
    Mixed(
        "phone-b.jpg",
        lambda shared: _save(
            _image(_noisy(_reduced(shared, PHOTOS[3]), 3, 0.7)), "JPEG", quality=85, subsampling=2
        ),
        "real",
        "noise and light compression",
    ),
    Mixed(
        "phone-c.jpg",
        lambda shared: _save(_reduced(shared, PHOTOS[4]), "JPEG", quality=72, subsampling=2),
        "real",
        "blocks, as messengers leave them",
    ),
    Mixed(
        "phone-night.jpg",
        lambda shared: _save(
            _image(_noisy(_reduced(shared, PHOTOS[1]), 9, 0.8, shot=True)), "JPEG", quality=93, subsampling=2
        ),
        "real",
        "high quality, and much noise",
    ),
    Mixed("saved-often.png", _saved_often, "real", "blocks of many savings"),
    Mixed(
        "was-jpeg.png",
        lambda shared: _save(_reload(_reduced(shared, PHOTOS[9]), quality=45), "PNG"),
        "real",
        "blocks, though it is a PNG now",
    ),
    Mixed(
        "web.webp",
        lambda shared: _save(_reduced(shared, PHOTOS[0]), "WEBP", quality=35),
        "real",
        "smeared texture of strong compression",
    ),
    Mixed(
        "good.avif",
        lambda shared: _save(_reduced(shared, PHOTOS[6]), "AVIF", quality=92, subsampling="4:4:4"),
        "clean",
        "compressed, and nothing of it can be seen",
    ),
    Mixed(
        "scan-clean.png",
        lambda shared: _save(_open(shared, _graphic("text_synth_23"), 320), "PNG"),
        "clean",
        "a clean page",
    ),
    Mixed(
        "scan-noisy.tif",
        lambda shared: _save(_image(_noisy(_open(shared, _graphic("text_synth_14"), 320), 8, 0.6)), "TIFF"),
        "real",
        "a page with the scanner's noise",
    ),
    Mixed(
        "scan-film.tif",
        lambda shared: _tiff16(_noisy(_reduced(shared, PHOTOS[9]), 10)),
        "real",
        "fine white noise; the only case for --sigma",
        sigma=10,
    ),
    Mixed(
        "photo-16bit.tif",
        lambda shared: _tiff16(np.asarray(_reduced(shared, PHOTOS[5]), dtype=np.float64)),
        "clean",
        "a sharp photograph of 16 bits",
    ),
    Mixed(
        "screenshot.png",
        lambda shared: _save(_open(shared, _graphic("screen_gimp_lighting5"), 300, (0, 0)), "PNG"),
        "clean",
        "sharp letters and lines",
    ),
    Mixed(
        "screenshot.jpg",
        lambda shared: _save(_open(shared, _graphic("screen_gimp_units"), 300, (0, 0)), "JPEG", quality=75),
        "real",
        "mosquito noise around letters",
    ),
    Mixed(
        "drawing.png",
        lambda shared: _save(_open(shared, _graphic("clipart_oca_a9787a1b"), 400), "PNG"),
        "clean",
        "flat colours",
    ),
    Mixed(
        "comic.png", _copy("SR/Set14/LR_bicubic/X2/comicx2.png"), "clean", "a drawn comic, small and sharp"
    ),
    Mixed("comic-web.png", _copy("real/RealSRSet/comic3.png"), "real", "a comic with traces of compression"),
    Mixed(
        "gray.png",
        lambda shared: _save(_reduced(shared, PHOTOS[7]).convert("L"), "PNG"),
        "clean",
        "a sharp gray photograph",
    ),
    Mixed(
        "gray-web.jpg",
        lambda shared: _save(_reduced(shared, PHOTOS[4]).convert("L"), "JPEG", quality=40),
        "real",
        "a gray photograph with blocks",
    ),
    Mixed("old.png", _copy("real/RealSRSet/oldphoto3.png"), "real", "an old print with grain and scratches"),
    Mixed("old.jpg", _copy("real/RNI15/Audrey_Hepburn.jpg"), "real", "film grain, compressed"),
    Mixed(
        "camera.jpg",
        _copy("real/PolyU/Sony_4-5_125_3200_plant_10_real.JPG"),
        "real",
        "noise of a camera at ISO 3200",
    ),
    Mixed("enlarged.png", _enlarged, "clean", "as soft as only enlarging makes it", reduce=3.0),
    Mixed("denoised.png", _denoised, "clean", "smooth, and nothing left to remove"),
    Mixed("window.png", _copy("real/RNI15/Window.png"), "real", "noise in coarse grains"),
)
