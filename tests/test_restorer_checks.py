"""What programs give to Restorer by mistake, and what is said to them."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mambair_cli.errors import ImageError, UsageError
from mambair_cli.restore.restorer import Restorer

LOCAL: dict[str, Any] = {"device": "cpu", "offline": True}


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(model="tiny-x2", scale=2, **LOCAL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task": "sharpen"}, "task is sharpen; upscale, denoise, dejpeg would work"),
        ({"task": None}, "task is None; upscale, denoise, dejpeg would work"),
        ({"precision": "bf16"}, "precision is bf16; auto, fp32, fp16 would work"),
        ({"wrap": "xy"}, "wrap is xy; none, x, y, both would work"),
        (
            {"scale": 2.5},
            "by scale 2.5: a network has 2, 3 or 4; the command's -s 2.5 takes the next one and",
        ),
        ({"scale": 2.5, "model": "tiny-x2"}, "by scale 2.5"),
    ],
)
def test_arguments_that_name_nothing_are_refused_with_what_would_work(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Restorer(**{**LOCAL, **arguments})


def test_a_whole_scale_may_be_a_float() -> None:
    scale: Any = 2.0
    assert Restorer(model="tiny-x2", scale=scale, **LOCAL).info.scale == 2


@pytest.mark.parametrize("image", ["p.png", None, [[0, 255]], Image.new("RGB", (8, 8))])
def test_what_is_no_array_is_refused_with_how_to_make_one(restorer: Restorer, image: Any) -> None:
    for call in (restorer, restorer.restore):
        with pytest.raises(
            TypeError, match=r"an image is a numpy array .*, not \w+; numpy\.asarray makes one"
        ):
            call(image)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((0, 8, 3), np.uint8, r"at least one pixel, not \(0, 8, 3\)"),
        ((8, 0), np.float32, r"at least one pixel, not \(8, 0\)"),
        ((8,), np.uint8, r"with c from 1 to 4, not \(8,\)"),
        ((8, 8, 0), np.uint8, r"with c from 1 to 4, not \(8, 8, 0\)"),
        ((2, 8, 8, 3), np.uint8, r"with c from 1 to 4"),
        ((8, 8, 3), np.float64, "uint8, uint16 or float32, not float64"),
        ((8, 8), bool, "uint8, uint16 or float32, not bool"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    restorer: Restorer, shape: tuple[int, ...], dtype: type, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        restorer(np.zeros(shape, dtype))


def test_floats_outside_the_range_are_refused_as_in_files(restorer: Restorer) -> None:
    image = np.full((8, 8, 3), 4064, np.float32)
    image[0] = 224
    said = "its floats lie between 224 and 4064; scale them to 0 to 1 first"
    for given in (image, image[..., 0]):
        with pytest.raises(ImageError, match=f"cannot restore the image: {said}"):
            restorer(given)
    broken = np.ones((8, 8), np.float32)
    broken[2, 3:6] = np.nan, np.inf, -np.inf
    with pytest.raises(ImageError, match="image: 3 of 64 samples are not finite; replace them by"):
        restorer(broken)
    with pytest.raises(ImageError, match=r"lie between 1 and 1\.00000012; scale"):
        restorer(np.array([[1, np.nextafter(np.float32(1), np.float32(2))]], np.float32))
    restored, _ = restorer.restore(np.full((8, 8), 1.5, np.float32), any_range=True)
    assert restored.max() <= 1
