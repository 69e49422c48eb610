"""What programs give to Restorer by mistake, and what is said to them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ImageOps
import pytest
import torch
from PIL import Image
from repository import ROOT

from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import CheckpointError, ImageError, MambairError, UsageError
from mambair_cli.restore.ranges import RANGES
from mambair_cli.restore.restorer import Restorer
from mambair_cli.runs.parameters import JPEG_QUALITY, SHARED, SIGMA

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


@pytest.mark.parametrize("image", [None, [[0, 255]]])
def test_what_is_no_array_is_refused_with_how_to_make_one(restorer: Restorer, image: Any) -> None:
    for call in (restorer, restorer.restore):
        with pytest.raises(
            TypeError, match=r"an image is a numpy array .*, not \w+; numpy\.asarray makes one of lists"
        ):
            call(image)


def call_of(restorer: Restorer, image: Any) -> str:
    """Return the call that a message names for what is no array."""
    with pytest.raises(TypeError, match="makes one") as refused:
        restorer(image)
    found = re.search(r"; (numpy\.asarray\(.*\)) makes one", str(refused.value))
    assert found
    return found[1]


def picture(mode: str, has_key: bool) -> Image.Image:
    """Make a picture, turned by its EXIF data, in colours where its mode has them; one may be clear."""
    rng = np.random.default_rng(0)
    kind = {"I": np.int32, "F": np.float32}.get(mode, np.uint8)
    kind = np.uint16 if mode.startswith("I;") else kind
    if kind is not np.uint8:
        values = rng.random((9, 8)) if mode == "F" else rng.integers(0, 65535, (9, 8))
        made = Image.fromarray(values.astype(kind))
    else:
        colours = Image.fromarray(rng.integers(0, 255, (9, 8, 4)).astype(np.uint8), "RGBA")
        if mode in ("La", "PA"):
            colours = colours.convert("LA")
        if mode == "LAB":  # made from no other
            made = Image.fromarray(np.asarray(colours)[..., :3], "LAB")
        else:
            made = (colours if mode in ("RGBA", "RGBa", "La", "LA") else colours.convert("RGB")).convert(mode)
    if has_key:
        made.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    made.getexif()[0x112] = 6  # the row at the top is the right side
    return made


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("mode", "has_key", "wanted"),
    [
        *(("L", False, None), ("LA", False, None), ("RGB", False, None), ("RGBA", False, None)),
        *(("1", False, "L"), ("P", False, "RGB"), ("CMYK", False, "RGB"), ("YCbCr", False, "RGB")),
        *(("LAB", False, "RGB"), ("HSV", False, "RGB"), ("RGBX", False, "RGB"), ("RGBa", False, "RGBA")),
        *(("La", False, "LA"), ("F", False, None), ("I;16", False, None), ("I", False, None)),
        *(("P", True, "RGBA"), ("L", True, "LA"), ("RGB", True, "RGBA"), ("1", True, "LA")),
    ],
)
def test_a_picture_of_pil_is_refused_with_the_conversion_of_its_mode(
    restorer: Restorer, mode: str, has_key: bool, wanted: str | None
) -> None:
    image = picture(mode, has_key)
    assert image.mode == mode
    call = call_of(restorer, image)
    array = eval(call, {"numpy": np, "PIL": PIL, "image": image})
    assert array.shape[:2] == (8, 9)  # upright
    upright = PIL.ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(array, np.asarray(upright if wanted is None else upright.convert(wanted)))
    assert restorer(array).shape[:2] == (16, 18)


def test_a_path_is_refused_with_how_to_read_the_file(restorer: Restorer, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    picture("P", False).save(path, exif=picture("P", False).getexif())
    for given in (path, str(path)):
        image: Any = given
        array = eval(call_of(restorer, image), {"numpy": np, "PIL": PIL, "path": path})
        assert array.shape == (8, 9, 3)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((0, 8, 3), np.uint8, r"at least one pixel, not \(0, 8, 3\)"),
        ((8, 0), np.float32, r"at least one pixel, not \(8, 0\)"),
        ((8,), np.uint8, r"with c from 1 to 4, not \(8,\)"),
        ((8, 8, 0), np.uint8, r"with c from 1 to 4, not \(8, 8, 0\)$"),  # and no call on nothing
        ((0, 8, 8), np.uint8, r"with c from 1 to 4, not \(0, 8, 8\)$"),
        ((0, 8, 8, 3), np.uint8, r"with c from 1 to 4, not \(0, 8, 8, 3\)$"),
        (
            (2, 8, 8, 3),
            np.uint8,
            r"c from 1 to 4, .*; for a stack of images, numpy\.stack\(\[restore\(each\)",
        ),
        ((5, 8, 8, 9), np.uint8, r"not \(5, 8, 8, 9\)$"),
        ((7, 80, 96), np.uint8, r"\(7, 80, 96\); for a stack of planes, numpy\.stack\(\[restore\(each\)"),
        ((80, 96, 7), np.uint8, r"transparency, .* for each in numpy\.moveaxis\(image, -1, 0\)\], -1\)$"),
        (
            (3, 80, 96),
            np.uint8,
            r"first, numpy\.moveaxis\(image, 0, -1\); for a stack of planes, numpy\.stack\(",
        ),
        (
            (8, 8, 3),
            np.float64,
            r"not float64; astype\(numpy\.float32\) makes them that; they must lie between",
        ),
        ((8, 8, 3), np.float16, r"not float16; astype\(numpy\.float32\)"),
        ((8, 8), bool, r"uint8, uint16 or float32, not bool; astype\(numpy\.uint8\) \* 255"),
        (
            (8, 8),
            np.int32,
            r"not int32; astype\(numpy\.uint8\) makes them that if they lie between 0 and 255",
        ),
        ((8, 8), np.complex64, "uint8, uint16 or float32, not complex64$"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    restorer: Restorer, shape: tuple[int, ...], dtype: type, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        restorer(np.zeros(shape, dtype))


def test_planes_are_restored_one_by_one_as_the_message_says(restorer: Restorer) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (5, 8, 9)).astype(np.uint8)
    names = {"numpy": np, "restore": restorer}
    for image, shape in ((stack, (5, 16, 18)), (np.moveaxis(stack, 0, -1), (16, 18, 5))):
        with pytest.raises(ValueError, match="planes") as refused:
            restorer(image)
        text = str(refused.value)
        call = text[text.index("numpy.stack") :]
        assert eval(call, {**names, "image": image}).shape == shape


def test_help_names_the_shapes_and_what_channels_are() -> None:
    for text in (Restorer.__doc__, Restorer.__call__.__doc__):
        words = " ".join((text or "").replace("(", "").replace(")", "").split())
        assert "h, w or h, w, c" in words
        assert "2 gray and transparency, 3 RGB" in words


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
    with pytest.raises(ImageError, match=r"lie between 0 and 1\.0001; scale .*, or clip them$"):
        restorer(np.array([[0, 1.0001]], np.float32))
    with pytest.raises(ImageError, match="image: 3 of 64 samples are not finite; replace them by"):
        restorer.restore(broken, any_range=True)
    restored, _ = restorer.restore(np.full((8, 8), 1.5, np.float32), any_range=True)
    assert restored.max() <= 1


def test_floats_that_rounding_has_moved_past_the_range_are_clipped(restorer: Restorer) -> None:
    image = np.random.default_rng(0).random((8, 9, 3)).round().astype(np.float32)
    moved = np.where(image == 1, np.nextafter(np.float32(1), np.float32(2)), np.float32(-1e-7))
    for order in "<>":
        np.testing.assert_array_equal(restorer(moved.astype(f"{order}f4")), restorer(image))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((3, 8, 9), r"not a tensor \(3, 8, 9\); tensor\.movedim\(-3, -1\)\.numpy\(force=True\) makes"),
        ((1, 3, 8, 9), r"not a tensor \(1, 3, 8, 9\); tensor\[0\]\.movedim"),
        ((8, 9), r"not a tensor \(8, 9\); tensor\.numpy\(force=True\) makes one$"),
    ],
)
def test_a_tensor_is_refused_with_how_to_make_an_image_of_it(
    restorer: Restorer, shape: tuple[int, ...], said: str
) -> None:
    tensor: Any = torch.rand(shape, requires_grad=True)
    with pytest.raises(TypeError, match=said):
        restorer(tensor)
    image = tensor[0] if len(shape) == 4 else tensor
    image = (image if len(shape) == 2 else image.movedim(-3, -1)).numpy(force=True)
    assert restorer(image).shape[:2] == (16, 18)
    with pytest.raises(ValueError, match=r"not \(3, 8, 9\); .*, numpy\.moveaxis\(image, 0, -1\);"):
        restorer(np.zeros((3, 8, 9), np.float32))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scale": "2"}, "scale is '2'; it must be a number of 1 or more, or None"),
        ({"tile": "64"}, "tile is '64'; it must be a whole number from 16 to 1048576, or None"),
        ({"tile": 8}, "tile is 8; it must be a whole number from 16 to 1048576"),
        ({"overlap": "a"}, "overlap is 'a'; it must be a whole number from 0 to 1048576"),
        ({"overlap": -1}, "overlap is -1; it must be"),
        ({"strength": "x"}, "strength is 'x'; it must be a number from 0 to 1$"),
        ({"strength": None}, "strength is None; it must be a number from 0 to 1$"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number from .*, or None"),
        ({"ensemble": 5}, "ensemble is 5; it must be True or False"),
        ({"model": None}, "model is None; it must be a name, or 'auto'"),
        ({"device": None}, "device is None; it must be a name such as 'cpu', or 'auto'"),
        *(
            ({name: "no"}, f"{name} is 'no'; it must be True or False")
            for name in ("offline", "quiet", "bare")
        ),
        *(
            ({"weights": given}, r"weights is .*; hf:OWNER.* or a file would work, or None")
            for given in (3, b"a")
        ),
        ({"weights": ""}, "the source of the weights is empty; hf:OWNER.* or a file would work"),
        *(({"others": given}, "others is .*; it must be what a restorer has") for given in (3, [1], {1: 2})),
        ({"level": "abc"}, "level is 'abc'; it must be a number, or None"),
        *(
            ({"task": "denoise", "level": level}, f"level is {level!r}; it must be a number from 0 to 255")
            for level in (-5, 999, "25", True, float("nan"))
        ),
        *(
            ({"task": "dejpeg", "level": level}, f"level is {level}; it must be a number from 1 to 100")
            for level in (0, 101)
        ),
    ],
)
def test_arguments_have_the_ranges_of_the_options(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Restorer(**{**LOCAL, **arguments})


def test_ranges_are_those_of_the_options() -> None:
    shared = {parameter.name: parameter for parameter in (*SHARED, SIGMA, JPEG_QUALITY)}
    for name, limits in RANGES.items():
        assert (shared[name].least, shared[name].most) == limits


def test_numbers_of_numpy_and_devices_of_torch_are_taken() -> None:
    numbers: dict[str, Any] = {"scale": np.int64(2), "tile": np.int32(32), "strength": np.float32(0.5)}
    restorer = Restorer(model="tiny-x2", **{**LOCAL, **numbers, "device": torch.device("cpu")})
    assert restorer(np.zeros((8, 8), np.uint8)).shape == (16, 16)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "u1"])
def test_samples_of_any_byte_order_are_taken(restorer: Restorer, dtype: str) -> None:
    values = np.random.default_rng(0).random((12, 10, 3)) * (1 if "f" in dtype else 255)
    given = values.astype(dtype)
    native = given.astype(given.dtype.newbyteorder("="))
    result = restorer(given)
    assert result.dtype == native.dtype
    np.testing.assert_array_equal(result, restorer(native))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_other_kinds_of_arrays_are_refused_with_their_own_remedy(restorer: Restorer) -> None:
    for image, remedy in (
        (np.matrix(np.zeros((8, 8), np.uint8)), r"not matrix; call numpy\.asarray\(image\) first$"),
        (np.ma.zeros((8, 8), np.uint8), r"not MaskedArray; call image\.filled\(0\) first$"),
    ):
        with pytest.raises(TypeError, match=f"an image is a plain numpy array, {remedy}"):
            restorer(image)


def test_networks_refuse_double_precision_and_empty_batches(restorer: Restorer) -> None:
    net = load_network(restorer.model.path)
    with pytest.raises(ValueError, match=r"takes images \(b, 3, h, w\) of float32 in .*, not .* float64"):
        net(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"of floats in \[0, 1\], not \(0, 3, 8, 8\) float32"):
        net(torch.zeros(0, 3, 8, 8))


def test_networks_refuse_arrays_and_half_precision_on_a_cpu(restorer: Restorer) -> None:
    net = load_network(restorer.model.path)
    with pytest.raises(
        TypeError, match=r"takes a tensor \(b, 3, h, w\) of floats .*, not ndarray; torch\.from"
    ):
        net(np.zeros((1, 3, 8, 8), np.float32))
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.rand(1, 3, 8, 8, dtype=dtype)
        with pytest.raises(
            ValueError, match=rf"weights in float32, not {str(dtype)[6:]}; call float\(\) on it"
        ):
            net.to(dtype)(x)
        assert net.float()(x).dtype == torch.float32


def test_a_level_does_not_turn_off_the_look_where_the_task_has_none() -> None:
    image = np.asarray(Image.open(ROOT / "docs/kitten.jpg"))[:64, :80]
    plain, levelled = (Restorer(scale=2, level=level, **LOCAL) for level in (None, 25))
    assert plain.others
    assert levelled.others == plain.others
    reports = [restorer.restore(image)[1] for restorer in (plain, levelled)]
    assert reports[0].model == reports[1].model == "tiny-real-x2"
    assert not Restorer(task="denoise", level=25, **LOCAL).others  # there it names the damage


def test_others_are_taken_as_a_restorer_has_them() -> None:
    others = Restorer(scale=2, **LOCAL).others
    assert Restorer(scale=2, others=others, **LOCAL).others == others
    assert not Restorer(scale=2, others={}, **LOCAL).others


@pytest.mark.parametrize(
    "arguments", [{"model": "tiny-x2", "weights": "a.pth"}, {"task": "dejpeg", "model": "real"}]
)
def test_errors_of_the_constructor_name_arguments_not_options(arguments: dict[str, Any]) -> None:
    with pytest.raises(MambairError) as refused:
        Restorer(**{**LOCAL, **arguments})
    assert arguments["model"] in str(refused.value)
    assert "--" not in str(refused.value)


def test_a_path_of_nothing_is_no_folder() -> None:
    with pytest.raises(CheckpointError, match=r"cannot load a file: its path is empty; give a \.pth or"):
        load_network("")


def test_help_says_what_progress_is_and_which_errors_arrays_raise(restorer: Restorer) -> None:
    calls: list[tuple[int, ...]] = []
    tiled = Restorer(model="tiny-x2", scale=2, tile=32, **LOCAL)
    tiled.restore(np.zeros((40, 90), np.uint8), lambda *numbers: calls.append(numbers))
    done, of = zip(*calls, strict=True)
    assert list(done) == sorted(set(done))
    assert {done[-1]} == set(of)
    text = " ".join((Restorer.restore.__doc__ or "").split())
    assert "with two numbers, of tiles done and of all tiles, after each batch" in text
    assert {"TypeError:", "ValueError:", "ImageError:"} <= set(text.split())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, of TorchScript
@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_networks_refuse_torchscript_with_what_works(restorer: Restorer, tmp_path: Path) -> None:
    net, x = load_network(restorer.model.path), torch.rand(1, 3, 16, 16)
    said = (
        r"cannot trace the network: TorchScript, .*; torch\.export\.export, .* `mambair export` would work$"
    )
    with pytest.raises(UsageError, match=said):
        torch.jit.trace(net, x)
    with pytest.raises(UsageError, match=said):
        torch.onnx.export(net, (x,), str(tmp_path / "a.onnx"), dynamo=False)
    followed: Any = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(followed(x), net(x), rtol=0, atol=1e-5)
