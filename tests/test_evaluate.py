import json
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from checkpoints import save_identity, save_nearest
from PIL import Image
from repository import SHARED

from mambair_cli.checkpoints.catalog import find_model
from mambair_cli.errors import UsageError
from mambair_cli.quality import metrics
from mambair_cli.quality.degradation.apply import degrade_image
from mambair_cli.quality.degrade import imresize
from mambair_cli.quality.evaluate import choose_protocol, make_input, published_psnr
from mambair_cli.quality.pairs import find_pairs

needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="the standard images are not here")


def events(lines):
    return {event["name"]: event for event in map(json.loads, lines)}


def photo(path, size=(40, 30), gray=False, seed=0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).random((4, 5) if gray else (4, 5, 3))
    values = imresize(rough, max(10, size[0] / 5, size[1] / 4))[: size[1], : size[0]]
    pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_events_are_json_also_where_the_input_is_that_of_the_truth(run, tmp_path):
    white = "white64.png"  # the name decides what is done to it: here, nothing that is left in 8 bits
    Image.new("RGB", (64, 64), "white").save(tmp_path / white)
    command = ("evaluate", white, "--task", "upscale", "-s", 2, "--degradation", "real")
    code, out, _ = run(*command, "--model", "tiny-x2", "--json")
    assert code == 0
    for line in out:
        assert json.loads(line, parse_constant=pytest.fail)["input_psnr"] is None


def test_noise_that_nothing_removes_has_the_psnr_of_its_sigma(run, tmp_path):
    for index in range(3):
        Image.new("RGB", (120, 100), (128, 90, 140)).save(tmp_path / f"{index}.png")
    weights = save_identity(tmp_path / "same.safetensors")
    code, out, _ = run("evaluate", ".", "--task", "denoise", "--sigma", 25, "--weights", weights, "--json")
    assert code == 0
    scores = events(out)
    assert set(scores) == {"0", "1", "2", "mean"}
    assert scores["mean"]["psnr"] == pytest.approx(20 * np.log10(255 / 25), abs=0.05)
    assert scores["mean"]["model"] == "same.safetensors"
    assert scores["mean"]["published"] is None


def test_a_gray_picture_has_the_same_noise_however_it_is_stored():
    gray = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    for protocol in (
        choose_protocol("denoise", 1, 25),
        choose_protocol("denoise", 1, None, degradation="real"),
    ):
        for name in ("a", "bytes\udcff", "half\ud83d"):
            noisy = make_input(gray, protocol, name)
            assert noisy.std() > 0
            np.testing.assert_array_equal(make_input(gray.repeat(3, 2), protocol, name), noisy.repeat(3, 2))


def test_a_model_of_the_catalogue_is_printed_with_its_published_figure(run):
    photo("Set5/a.png")
    code, out, _ = run("evaluate", "Set5", "--task", "upscale", "--model", "tiny-x4", "--json")
    mean = events(out)["mean"]
    assert code == 0
    published = {"data": "Set5", "psnr": find_model("tiny-x4").psnr["Set5"]}
    assert (mean["model"], mean["published"]) == ("tiny-x4", published)


@pytest.mark.parametrize(
    ("arguments", "model"),
    [
        (("denoise", "--degradation", "real"), "tiny-real-denoise"),
        (("upscale", "-s", 2, "--degradation", "real", "--model", "real"), "tiny-real-x2"),
        (("denoise", "--sigma", 25, "--model", "tiny-denoise"), "tiny-denoise"),
        (("upscale", "-s", 2, "--offline"), "tiny-x2"),
    ],
)
def test_the_model_is_named_whatever_is_measured(run, arguments, model):
    photo("gt/a.png")
    code, _, err = run("evaluate", "gt", "--task", *arguments, "--device", "cpu")
    assert (code, err) == (0, f"mambair: using {model} on cpu\n")
    assert run("evaluate", "gt", "--task", *arguments, "--device", "cpu", "--quiet")[2] == ""


def test_enlarging_is_measured_on_luma_without_the_border(run, tmp_path):
    truth = photo("gt/a.png", size=(38, 30))  # of which 36×28 are a multiple of 4
    weights = save_nearest(tmp_path / "x4.safetensors", 4)
    code, out, _ = run("evaluate", "gt", "--task", "upscale", "--weights", weights, "--json")
    assert code == 0
    cut = truth[:28, :36]
    nearest = imresize(cut, 1 / 4).repeat(4, 0).repeat(4, 1)
    expected = metrics.psnr(nearest, cut, border=4, luma=True)
    assert events(out)["a"]["psnr"] == pytest.approx(expected, abs=1e-9)
    _, out, _ = run(
        "evaluate", "gt", "--task", "upscale", "--weights", weights, "--json", "--rgb", "--border", 0
    )
    assert events(out)["a"]["psnr"] == pytest.approx(metrics.psnr(nearest, cut), abs=1e-9)


def test_inputs_that_are_given_are_used(run, tmp_path):
    truth = photo("gt/a.png")
    photo("lq/ax4.png", size=(10, 7), seed=1)
    weights = save_nearest(tmp_path / "x4.safetensors", 4)
    code, out, _ = run(
        "evaluate", "gt", "--task", "upscale", "--inputs", "lq", "--weights", weights, "--json"
    )
    assert code == 0
    given = np.array(Image.open("lq/ax4.png")).repeat(4, 0).repeat(4, 1)
    expected = metrics.psnr(given, truth[:28], border=4, luma=True)
    assert events(out)["a"]["psnr"] == pytest.approx(expected, abs=1e-9)


def test_jpeg_of_gray_is_measured_on_gray(run, tmp_path):
    truth = photo("gt/a.png", gray=True)
    weights = save_identity(tmp_path / "gray.safetensors", channels=1)
    arguments = ("evaluate", "gt", "--task", "dejpeg", "--weights", weights, "--json")
    code, out, _ = run(*arguments, "--jpeg-quality", 10)
    assert code == 0
    Image.fromarray(truth).save("a.jpg", quality=10)
    expected = metrics.psnr(np.array(Image.open("a.jpg")), truth)
    assert events(out)["a"]["psnr"] == pytest.approx(expected, abs=1e-9)
    code, _, err = run(*arguments)
    assert code == 2
    assert "--jpeg-quality" in err


def test_finished_images_are_compared_as_they_are(run):
    truth = photo("gt/a.png")
    photo("gt/sub/b.png", seed=2)
    other = np.where(np.arange(40)[None, :, None] % 2, truth, truth // 2)
    Path("done").mkdir()
    Image.fromarray(other.astype(np.uint8)).save("done/a_denoised.png")
    Image.open("gt/sub/b.png").save("done/b.tiff")
    code, out, _ = run("evaluate", "gt", "--restored", "done")
    assert code == 0
    assert [line.split()[0] for line in out] == ["a", "sub/b", "mean"]
    assert f"{metrics.psnr(other.astype(np.uint8), truth):.2f} dB" in out[0]
    assert "inf dB  1.0000" in out[1]
    assert [line.index(" dB") for line in out] == [out[0].index(" dB")] * 3
    code, out, _ = run("evaluate", "gt", "--restored", "done", "--json")
    assert events(out)["sub/b"]["psnr"] is None  # JSON has no infinity


def test_enlarged_images_are_measured_like_the_task_that_made_them(run):
    truth = photo("gt/a.png", size=(41, 31))
    small = imresize(truth[:30, :40], 1 / 2)
    Path("done").mkdir()
    Image.fromarray(imresize(small, 2)).save("done/a.png")
    result = imresize(small, 2)
    for more, luma, border in (
        ((), True, 2),
        (("--rgb",), False, 2),
        (("--border", 5), True, 5),
    ):
        code, out, _ = run("evaluate", "gt", "--restored", "done", "-s", 2, *more, "--json")
        mean = events(out)["mean"]
        expected = metrics.psnr(result, truth[:30, :40], border=border, luma=luma)
        assert (code, mean["luma"], mean["border"]) == (0, luma, border)
        assert mean["psnr"] == pytest.approx(expected, abs=1e-9)
    assert "  (Y, border 2)" in run("evaluate", "gt", "--restored", "done", "-s", 2)[1][-1]
    assert "  (all channels, border 0)" in run("evaluate", "gt", "--restored", "gt")[1][-1]


def save_form(pixels, form, path):
    """Save a gray picture in another form."""
    gray = Image.fromarray(pixels)
    forms = {"LA": gray.convert("LA"), "RGB": gray.convert("RGB"), "RGBA": gray.convert("RGBA"), "L": gray}
    path.parent.mkdir(parents=True, exist_ok=True)
    forms[form].save(path)


@pytest.mark.parametrize("luma", [(), ("--luma",)])
@pytest.mark.parametrize("truth_form", ["L", "RGB", "RGBA"])
def test_a_gray_result_is_measured_alike_in_all_its_forms(run, truth_form, luma):
    truth = photo("raw.png", gray=True)
    result = np.clip(truth.astype(int) + np.arange(40) % 7, 0, 255).astype(np.uint8)
    save_form(truth, truth_form, Path("gt/a.png"))
    found = set()
    for form in ("L", "LA", "RGB", "RGBA"):
        save_form(result, form, Path(f"{form}/a.png"))
        code, out, err = run("evaluate", "gt", "--restored", form, "--json", *luma)
        assert (code, err) == (0, "")
        found.add(round(events(out)["mean"]["psnr"], 9))
    is_luma = bool(luma) and truth_form != "L"
    shape = (lambda x: x[:, :, None].repeat(3, 2)) if is_luma else (lambda x: x)
    assert found == {round(metrics.psnr(shape(result), shape(truth), luma=is_luma), 9)}


def test_what_differs_between_a_result_and_its_truth_is_said(run, tmp_path):
    photo("gt/a.png", size=(41, 31))
    photo("gray/a.png", size=(41, 31), gray=True)
    photo("cut/a.png", size=(40, 30))
    photo("odd/a.png", size=(39, 29))
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    enlarge = ("gt", "--task", "upscale", "--weights", weights, "--inputs", "gt")
    for arguments, said in (
        (
            ("gray", "--restored", "gt"),
            "cannot measure gray/a.png: it is gray, and its result gt/a.png has colours; make that gray, or "
            "give the truth in colours",
        ),
        (
            ("gt", "--restored", "cut"),
            "cannot measure gt/a.png: it is 41×31, and its result cut/a.png is 40×30; give --scale 2, which "
            "cuts the truth to that size",
        ),
        (
            ("gt", "--restored", "gt", "-s", 2),
            "cannot measure gt/a.png: it is 41×31, cut to 40×30 for --scale 2, and its result gt/a.png "
            "is 41×31; leave out --scale",
        ),
        (
            ("gt", "--restored", "odd"),
            "cannot measure gt/a.png: it is 41×31, and its result odd/a.png is 39×29; give results of the "
            "truth's size, or leave that image out",
        ),
        (
            enlarge,
            "cannot measure gt/a.png: its input gt/a.png is 41×31, where 20×15 are enlarged 2 times to the "
            "truth; give inputs of that size, or leave that image out",
        ),
    ):
        code, out, err = run("evaluate", *arguments, "-q")
        assert (code, out, err) == (1, [], f"mambair: error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("gt",), 2, "--task"),
        (("gt", "--task", "upscale", "--restored", "gt"), 2, "either"),
        (("gt", "--restored", "empty"), 2, "no images"),
        (("gt", "--restored", "twins"), 2, "a_x.png, a_y.png"),
        (("gt", "--restored", "small"), 1, "gt/a.png: it is 40×30, and its result small/a.png is 20×10; "),
        (("gt", "--restored", "gt", "--border", "10"), 1, "gt/a.png: 40×30 with a border of 10 pixels"),
        (("tiny", "--restored", "tiny"), 1, "tiny/a.png: 12×9 with a border of 0 pixels is less"),
        (("gt", "--task", "upscale", "-s", "4", "--border", "9", "--weights", "{x4}"), 1, "40×30"),
        (("nowhere", "--restored", "gt"), 2, "no such file or folder: nowhere; "),
        (("gt", "--task", "denoise", "--weights", "{same}"), 2, "--sigma"),
        (("gt", "--task", "dejpeg", "-s", "3"), 2, "dejpeg keeps the size: --scale 3; leave it out"),
        (("gt", "--task", "upscale", "--sigma", "5"), 2, "--sigma 5; leave it out"),
        (("gt", "--task", "denoise", "--jpeg-quality", "5"), 2, "--jpeg-quality 5; leave it out"),
        (("gt", "--restored", "gt", "--weights", "{same}"), 2, "need no network: --weights"),
        (("gt", "--task", "denoise", "--degradation", "real", "--sigma", "5"), 2, "--sigma 5; leave it out"),
        (("gt", "--restored", "gt", "--degradation", "real"), 2, "need no network: --degradation real"),
        (("gt", "--restored", "gt", "--offline"), 2, "need no network: --offline; leave it out"),
    ],
)
def test_what_cannot_be_measured_is_one_line(run, tmp_path, arguments, code, words):
    photo("gt/a.png")
    photo("twins/a_x.png")
    photo("twins/a_y.png")
    photo("small/a.png", size=(20, 10))
    photo("tiny/a.png", size=(12, 9))
    Path("empty").mkdir()
    weights = {"same": save_identity(tmp_path / "same.safetensors")}
    weights["x4"] = save_nearest(tmp_path / "x4.safetensors", 4)
    got, out, err = run("evaluate", *(argument.format(**weights) for argument in arguments))
    assert (got, out) == (code, [])
    assert len(err.splitlines()) == 1
    assert words in err


def test_pictures_degraded_as_real_ones_are_printed_with_what_they_were_before(run, tmp_path):
    for index in range(2):
        photo(f"gt/{index}.png", size=(64, 48), seed=index)
    weights = save_identity(tmp_path / "same.safetensors")
    arguments = ("evaluate", "gt", "--degradation", "real", "--weights", weights)
    code, out, _ = run(*arguments, "--task", "denoise", "--json")
    assert code == 0
    scores = events(out)
    for score in scores.values():
        assert score["psnr"] == pytest.approx(score["input_psnr"], abs=0.01)  # nothing was done
        assert 10 < score["psnr"] < 60
    assert events(run(*arguments, "--task", "denoise", "--json")[1]) == scores
    assert scores["0"]["psnr"] != scores["1"]["psnr"]
    photo("one/0.png", size=(64, 48))
    alone = events(run("evaluate", "one", *arguments[2:], "--task", "denoise", "--json")[1])
    assert alone["0"] == scores["0"]
    assert "(input " in run(*arguments, "--task", "denoise")[1][0]


def test_real_pictures_are_enlarged_for_comparison(run, tmp_path):
    truth = photo("gt/a.png", size=(64, 48))
    weights = save_nearest(tmp_path / "x2.safetensors", 2)
    code, out, _ = run(
        "evaluate",
        "gt",
        "--task",
        "upscale",
        "-s",
        2,
        "--degradation",
        "real",
        "--weights",
        weights,
        "--json",
    )
    assert code == 0
    score = events(out)["a"]
    made = degrade_image(truth, 2, (0, crc32(b"a")))
    expected = metrics.psnr(imresize(made, 2), truth, border=2, luma=True)
    assert score["input_psnr"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "folder", "level", "published"),
    [
        ("tiny-x3", "Set5/HR", None, ("Set5", 34.36)),
        ("mambair-denoise-25", "cbsd68", 25, ("CBSD68", 31.80)),
        ("tiny-denoise", "CBSD10", 25, ("CBSD10", 29.59)),
        ("tiny-denoise", "CBSD10", 30, None),
        ("tiny-x3", "mine", None, None),
    ],
)
def test_the_published_figure_is_that_of_the_data_and_the_level(tmp_path, name, folder, level, published):
    assert published_psnr(find_model(name), tmp_path / folder, level) == published


def test_partners_are_found_by_name_and_mark(tmp_path):
    for name in ("baby", "baby2", "babysitter"):
        photo(tmp_path / "gt" / f"{name}.png")
        photo(tmp_path / "lq" / f"{name}x4.png")
    pairs = find_pairs(tmp_path / "gt", tmp_path / "lq")
    assert [(pair.truth.stem, pair.other.stem) for pair in pairs if pair.other] == [
        ("baby", "babyx4"),
        ("baby2", "baby2x4"),
        ("babysitter", "babysitterx4"),
    ]


@pytest.mark.parametrize("name", ["IMG_1", "IMG-0001", "IMG_1_denoised"])
def test_the_next_picture_of_a_camera_is_no_partner(tmp_path, name):
    photo(tmp_path / "gt" / "IMG.png")
    photo(tmp_path / "done" / f"{name}.png")
    with pytest.raises(UsageError, match=r"IMG.png needs one partner in .*: none"):
        find_pairs(tmp_path / "gt", tmp_path / "done")
    photo(tmp_path / "done" / "IMG_x4.png")
    assert [pair.other for pair in find_pairs(tmp_path / "gt", tmp_path / "done")] == [
        tmp_path / "done/IMG_x4.png"
    ]


def test_partners_are_found_in_trees_and_by_suffix(tmp_path):
    for place in ("x/a.png", "y/a.png", "a.png", "a.bmp", "y/b.png"):
        for folder in ("gt", "done"):
            photo(tmp_path / folder / place)
    (tmp_path / "done/y/b.png").rename(tmp_path / "done/y/b_x2.png")
    pairs = {pair.name: pair.other for pair in find_pairs(tmp_path / "gt", tmp_path / "done")}
    partners = {
        "x/a": "x/a.png",
        "y/a": "y/a.png",
        "a.png": "a.png",
        "a.bmp": "a.bmp",
        "y/b": "y/b_x2.png",
    }
    assert pairs == {name: tmp_path / "done" / partner for name, partner in partners.items()}


def test_a_partner_of_another_picture_is_not_taken(tmp_path):
    for name in ("a.png", "a.bmp"):
        photo(tmp_path / "gt" / name)
    photo(tmp_path / "done" / "a.png")
    pairs = {pair.name: pair for pair in find_pairs(tmp_path / "gt", tmp_path / "done")}
    assert pairs["a.png"].other == tmp_path / "done/a.png"
    assert "a.bmp needs one partner" in pairs["a.bmp"].problem


def test_no_image_is_the_partner_of_two(tmp_path):
    for place in ("x/a.png", "y/a.png", "b.png", "b_hr.png", "c.png", "c.bmp", "z/d.png", "d.png"):
        photo(tmp_path / "gt" / place)
    for place in ("a.png", "b_x4.png", "b_hr_x4.png", "c_x4.png", "z/d_x4.png"):
        photo(tmp_path / "done" / place)
    pairs = {pair.name: pair for pair in find_pairs(tmp_path / "gt", tmp_path / "done")}
    partners = {name: pair.other.name for name, pair in pairs.items() if pair.other}
    assert partners == {"b": "b_x4.png", "b_hr": "b_hr_x4.png", "z/d": "d_x4.png"}
    for name, found in (("x/a", "a.png"), ("y/a", "a.png"), ("c.png", "c_x4.png"), ("c.bmp", "c_x4.png")):
        place = name if "." in name else f"{name}.png"
        reason = f"{place} needs its own partner in {tmp_path / 'done'}: {found} fits another, too; "
        assert pairs[name].problem == f"{reason}name it {place}"
    assert "d.png needs one partner" in pairs["d"].problem


def test_many_images_are_paired_in_a_time_that_their_number_explains(tmp_path, monkeypatch):
    names = [Path(f"{number:05}.png") for number in range(20_000)]
    path = "mambair_cli.quality.pairs._list_images"
    monkeypatch.setattr(path, lambda folder: {name: folder / name for name in names})
    assert not any(pair.problem for pair in find_pairs(tmp_path / "gt", tmp_path / "done"))


def test_a_picture_without_a_partner_fails_alone(run, tmp_path):
    for place in ("gt/a.png", "gt/b.png", "done/a.png"):
        photo(tmp_path / place)
    code, out, err = run("evaluate", tmp_path / "gt", "--restored", tmp_path / "done", "--json")
    assert code == 1
    assert [json.loads(line)["event"] for line in out] == ["image", "failed", "mean"]
    assert "b.png needs one partner" in err
    code, _, err = run("evaluate", tmp_path / "gt", "--task", "denoise", "--inputs", tmp_path / "done")
    assert code == 1
    assert "b.png needs one partner" in err


def test_folders_without_any_pair_are_a_wrong_command(run, tmp_path):
    photo(tmp_path / "gt/a.png")
    photo(tmp_path / "done/b.png")
    code, _, err = run("evaluate", tmp_path / "gt", "--restored", tmp_path / "done")
    assert code == 2
    assert "a.png needs one partner" in err


@needs_shared
@pytest.mark.parametrize(
    ("data", "scale", "psnr"), [("Set5", 4, 28.43), ("Set5", 2, 33.67), ("Set14", 3, 27.54)]
)
def test_bicubic_baselines_are_those_of_the_papers(run, data, scale, psnr):
    folder = SHARED / "data" / "SR" / data / "LR_bicubic" / f"X{scale}"
    Path("bicubic").mkdir()
    for path in sorted(folder.iterdir()):
        enlarged = imresize(np.array(Image.open(path)), scale)
        Image.fromarray(enlarged).save(f"bicubic/{path.stem}.png")
    code, out, _ = run(
        *("evaluate", SHARED / "data" / "SR" / data / "HR"),
        *("--restored", "bicubic", "--scale", scale, "--json"),
    )
    assert code == 0
    assert events(out)["mean"]["psnr"] == pytest.approx(psnr, abs=0.01)


TASKS = {"upscale": ("-s", 2), "denoise": ("--sigma", 25), "dejpeg": ("--jpeg-quality", 40)}


@pytest.mark.parametrize("more", [(), ("--degradation", "real"), ("--seams", "--tile", 32, "--overlap", 0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("task", TASKS)
def test_truths_of_every_depth_are_measured(run, task, dtype, more):
    pixels = photo("gt/a.png", size=(120, 90), gray=True)
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    deep = (pixels / 255 * white).astype(dtype)
    Path("gt/a.png").unlink()
    Image.fromarray(deep).save("gt/a.tif")
    level = TASKS[task] if task == "upscale" or more[:1] != ("--degradation",) else ()
    code, out, err = run("evaluate", "gt", "--task", task, *level, *more, "--device", "cpu", "-q", "--json")
    if task == "dejpeg" and dtype != np.uint8 and more[:1] != ("--degradation",):
        kind = np.dtype(dtype).name
        refused = "cannot make an input of gt/a.tif: JPEG holds 8 bits per sample, and it has"
        assert (code, err) == (1, f"mambair: error: {refused} {kind}; convert it first\n")
    elif more[:1] == ("--seams",):
        assert (code in (0, 1), err) == (True, "")
        assert {"a", "all"} == set(events(out))
    else:
        assert (code, err) == (0, "")
        assert events(out)["a"]["psnr"] > 15


@pytest.mark.parametrize(("kept", "decibels"), [("uint16", 70.31), ("uint8", 58.9)])
def test_deep_truths_are_compared_in_their_own_steps(run, kept, decibels):
    photo("gt/a.png", size=(100, 80), gray=True)
    truth = np.asarray(Image.open("gt/a.png")).astype(np.uint16) * 257 // 2 + 3000
    Path("gt/a.png").unlink()
    Image.fromarray(truth).save("gt/a.tif")
    Path("made").mkdir()
    Image.fromarray(truth + 20 if kept == "uint16" else (truth / 257).round().astype(np.uint8)).save(
        "made/a.tif"
    )
    code, out, _ = run("evaluate", "gt", "--restored", "made", "--json")
    assert code == 0
    assert events(out)["a"]["psnr"] == pytest.approx(decibels, abs=0.02 if kept == "uint16" else 1)


@pytest.fixture
def mixed():
    """Images that can be measured among others that cannot."""
    for name in ("a", "e"):
        photo(f"gt/{name}.png", size=(100, 80))
    photo("gt/b.png", size=(3, 3))
    photo("gt/c.png", size=(18, 19))
    Path("gt/d.png").write_text("no image")


ENLARGE = ("evaluate", "gt", "--task", "upscale", "-s", 4, "--device", "cpu", "-q")


def test_an_image_that_cannot_be_measured_fails_alone(run, mixed):
    code, out, err = run(*ENLARGE)
    assert (code, [line.split()[0] for line in out]) == (1, ["a", "e", "mean"])
    assert out[-1].endswith("  (Y, border 4)  (of 2 of 5 images)")
    small, smaller, junk = err.splitlines()
    assert "error: cannot read gt/d.png: " in junk
    assert small == (
        "mambair: error: cannot measure gt/b.png: 3×3 with a border of 4 pixels is less than the 20×20 that "
        "are needed; leave it out"
    )
    assert smaller.endswith(
        "gt/c.png: 18×19 with a border of 4 pixels is less than the 20×20 that are "
        "needed; leave it out, or set --border 2"
    )
    assert [line.split()[0] for line in run(*ENLARGE, "--border", 2)[1]] == ["a", "c", "e", "mean"]


def test_failures_are_events_and_the_mean_is_of_the_others(run, mixed):
    code, out, _ = run(*ENLARGE, "--json")
    printed = [json.loads(line) for line in out]
    assert code == 1
    assert [event["input"] for event in printed if event["event"] == "failed"] == [
        "gt/b.png",
        "gt/c.png",
        "gt/d.png",
    ]
    mean = printed[-1]
    assert (mean["images"], mean["failed"]) == (2, 3)
    assert mean["psnr"] == np.mean([event["psnr"] for event in printed if event["event"] == "image"])


@pytest.mark.parametrize("more", [("--seams", "--tile", 16), ("--receptive-field", "f.png", "--tile", 17)])
def test_what_looks_at_a_network_goes_on_after_an_image_that_fails(run, mixed, more):
    code, out, err = run(*ENLARGE, *more)
    assert (code, [line.split()[0] for line in out]) == (
        1,
        ["a", "e", "all" if "--seams" in more else "mean"],
    )
    small, junk = err.splitlines()
    assert "cannot make an input of gt/b.png: 3×3 pixels are less than one of the input" in small
    assert "cannot read gt/d.png" in junk


@pytest.mark.parametrize(
    "more", [(), ("--seams", "--tile", 16), ("--receptive-field", "f.png", "--tile", 17)]
)
def test_one_long_name_moves_no_figures_out_of_sight(run, mixed, more):
    Path("gt/a.png").rename(f"gt/{'long' * 30}.png")
    _, out, _ = run(*ENLARGE, *more)
    *others, longest = sorted(map(len, out))
    assert longest > 120 > max(others)


@pytest.mark.parametrize("more", [(), ("--seams",), ("--receptive-field", "f.png"), ("--page", "p.html")])
def test_where_all_images_fail_there_is_no_mean(run, more):
    Path("gt").mkdir()
    Path("gt/d.png").write_text("no image")
    code, out, err = run(*ENLARGE, *more)
    assert (code, out, err.count("\n")) == (1, [], 1)
    assert not Path("p.html").exists()


def test_a_level_that_is_missing_ends_the_command(run, mixed):
    code, out, err = run("evaluate", "gt", "--task", "denoise", "--device", "cpu", "-q")
    assert (code, out, err.count("\n")) == (2, [], 1)
    assert "give --sigma or --inputs" in err


@pytest.mark.parametrize("degradation", ["papers", "real"])
def test_transparent_pictures_are_not_measured_and_opaque_alpha_does_no_harm(run, degradation):
    photo("gt/a.png")
    Image.open("gt/a.png").convert("RGBA").save("gt/opaque.png")
    glass = Image.open("gt/a.png").convert("RGBA")
    glass.putpixel((3, 4), (255, 0, 0, 0))
    glass.save("gt/glass.png")
    options = ("--task", "upscale", "-s", 2, "--degradation", degradation, "--offline", "--json")
    code, out, err = run("evaluate", "gt", *options)
    assert code == 1
    assert {json.loads(line).get("name") for line in out} == {"a", "opaque", "mean", None}
    assert "gt/glass.png: parts of it are transparent" in err


def test_neither_inputs_nor_results_may_be_transparent(run):
    photo("gt/a.png")
    for folder, size in (("results", (40, 30)), ("inputs", (20, 15))):
        photo(f"{folder}/a.png", size)
        glass = Image.open(f"{folder}/a.png").convert("RGBA")
        glass.putpixel((3, 4), (255, 0, 0, 0))
        glass.save(f"{folder}/a.png")
    for options in (("--restored", "results"), ("--task", "upscale", "-s", 2, "--inputs", "inputs")):
        code, _, err = run("evaluate", "gt", *options)
        assert code == 1
        assert "/a.png: parts of it are transparent" in err
