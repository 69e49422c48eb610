"""The catalogue that ships, and what a malformed one comes to."""

import dataclasses
import json
import math
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from repository import ROOT

from mambair_cli.checkpoints.catalog import (
    REAL,
    Asked,
    Task,
    bundled_model,
    choose_model,
    find_model,
    load_catalog,
    parse_catalog,
)
from mambair_cli.checkpoints.hub import cached, verify
from mambair_cli.checkpoints.load import load_network
from mambair_cli.errors import ModelError

OFFICIAL_CHECKPOINTS = ROOT.parent / "shared" / "parity" / "official_checkpoints.json"

NAMES = {
    *(f"mambairv2-{size}-x{scale}" for size in ("light", "small", "base", "large") for scale in (2, 3, 4)),
    *(f"mambair-{size}-x{scale}" for size in ("light", "classic") for scale in (2, 3, 4)),
    *("mambair-real-x4", "mambair-real-denoise"),
    *("mambair-denoise-15", "mambair-denoise-25", "mambair-denoise-50", "mambairv2-denoise-15"),
    *(f"{family}-jpeg-{quality}" for family in ("mambair", "mambairv2") for quality in (10, 30, 40)),
    "tiny-x2",
    "tiny-x3",
    "tiny-x4",
    "tiny-denoise",
    "tiny-dejpeg",
    "tiny-real-x2",
    "tiny-real-x4",
    "tiny-real-denoise",
}

ENTRY = """
[[model]]
name = "trial-x4"
task = "upscale"
scale = 4
channels = 3
architecture = "mambair"
variant = "light"
repo = "some/models"
files = ["ckpt/first.pth", "ckpt/second.safetensors"]
certainty = "likely"
license = "Apache-2.0"
psnr = { Set5 = 32.42, Set14 = 28.74 }
"""


def test_every_checkpoint_is_there_once() -> None:
    assert Counter(model.name for model in load_catalog()) == Counter(NAMES)
    files = [file for model in load_catalog() for file in model.files]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("model", load_catalog(), ids=lambda model: model.name)
def test_an_entry_agrees_with_itself(model) -> None:
    family = model.architecture.removesuffix("-unet")
    if model.bundled:
        assert model.bundled == f"weights/{model.name.replace('-', '_')}.safetensors"
    else:
        assert model.repo == "cguoh/MambaIR"
        assert model.name.startswith(f"{family}-")
        folder = {"mambair": "MambaIRv1_ckpt", "mambairv2": "MambaIRv2_ckpt"}[family]
        assert {str(PurePosixPath(file).parent) for file in model.files} == {folder}
        assert len(model.files) == 1 or model.certainty in ("likely", "uncertain")
    ending = f"x{model.scale}" if model.task == "upscale" else str(model.level or model.task)
    assert model.name.endswith(f"-{ending}")
    assert model.channels == (1 if model.task == "dejpeg" and not model.bundled else 3)
    assert (model.architecture == "mambair-unet") == (model.name == "mambair-real-denoise")
    assert model.license == "Apache-2.0"


@pytest.mark.parametrize("model", load_catalog(), ids=lambda model: model.name)
def test_quality_is_given_on_the_usual_sets(model) -> None:
    sets = {
        "upscale": ["Set5", "Set14", "B100", "Urban100", "Manga109"],
        "denoise": ["CBSD68", "Kodak24", "McMaster", "Urban100"],
        "dejpeg": ["classic5", "LIVE1"],
    }[model.task]
    if model.bundled:
        sets = {
            "upscale": ["Set5", "Set14"],
            "denoise": ["CBSD10, 15", "CBSD10, 25", "CBSD10, 50"],
            "dejpeg": ["classic5, 10", "classic5, 30", "classic5, 40"],
        }[model.task]
    elif model.name == "mambair-real-x4":
        sets = []
    elif model.name == "mambair-real-denoise":
        sets = ["SIDD", "DND"]
    assert list(model.psnr) == sets
    assert all(25 < db < 45 for db in model.psnr.values())


@pytest.mark.parametrize(
    ("name", "urban100"),
    [
        ("mambairv2-light-x2", 33.26),
        ("mambairv2-light-x3", 29.01),
        ("mambairv2-light-x4", 26.82),
        ("mambairv2-small-x2", 34.24),
        ("mambairv2-small-x3", 30.08),
        ("mambairv2-small-x4", 27.73),
        ("mambairv2-base-x2", 34.49),
        ("mambairv2-base-x3", 30.28),
        ("mambairv2-base-x4", 27.89),
        ("mambairv2-large-x2", 34.60),
        ("mambairv2-large-x3", 30.34),
        ("mambairv2-large-x4", 28.07),
        ("mambair-classic-x2", 34.15),
        ("mambair-classic-x3", 29.93),
        ("mambair-classic-x4", 27.68),
        ("mambair-denoise-15", 35.17),
        ("mambair-denoise-25", 32.99),
        ("mambair-denoise-50", 30.07),
        ("mambairv2-denoise-15", 35.42),
    ],
)
def test_quality_is_the_published_one(name: str, urban100: float) -> None:
    assert find_model(name).psnr["Urban100"] == urban100


@pytest.mark.parametrize(
    ("names", "files", "certainty"),
    [
        ("mambairv2-light-x{2,3,4}", ["mambairv2_lightSR_x{}.pth"], "certain"),
        ("mambairv2-small-x{2,4}", ["mambairv2_classicSR_Small_x{}.pth"], "certain"),
        ("mambairv2-small-x{3}", ["mambairv2_classicSR_Small_x{}.pth"], "likely"),
        ("mambairv2-base-x{2,3,4}", ["mambairv2_classicSR_Base_x{}.pth"], "certain"),
        ("mambairv2-large-x{2,4}", ["mambairv2_classicSR_Large_x{}.pth"], "certain"),
        ("mambairv2-large-x{3}", ["mambairv2_classicSR_Large_x{}.pth"], "very likely"),
        ("mambairv2-denoise-{15}", ["mambairv2_ColorDN_{}.pth"], "certain"),
        ("mambairv2-jpeg-{10,30,40}", ["mambairv2_jpeg_q{}.pth"], "likely"),
        ("mambair-denoise-{15,25,50}", ["ColorDN_MambaIR_level{}.pth"], "certain"),
        ("mambair-jpeg-{10,30,40}", ["MambaIR_CAR_q{}.pth"], "certain"),
        ("mambair-classic-x{4}", ["MambaIR_classicSRx{}.pth"], "certain"),
        ("mambair-classic-x{2,3}", ["MambaIR_classicSRx{}.pth"], "very likely"),
        ("mambair-real-x{4}", ["MambaIR_real.pth"], "certain"),
        (
            "mambair-real-denoise{}",
            ["MambaIR_realDN.pth", "realDN.pth", "MambaIR_RealDN.pth", "RealDN_MambaIR.pth"],
            "likely",
        ),
        (
            "mambair-light-x{2,3,4}",
            [
                "MambaIR_lightSRx{}.pth",
                "MambaIR_lightSR_x{}.pth",
                "MambaIR_light_x{}.pth",
                "MambaIR_light{}.pth",
                "lightSRx{}.pth",
                "MambaIR_lightSR{}.pth",
            ],
            "uncertain",
        ),
    ],
)
def test_files_are_named_as_on_the_hub(names: str, files: list[str], certainty: str) -> None:
    stem, _, numbers = names.removesuffix("}").partition("{")
    folder = "MambaIRv2_ckpt" if stem.startswith("mambairv2") else "MambaIRv1_ckpt"
    for number in numbers.split(","):
        model = find_model(stem + number)
        assert list(model.files) == [f"{folder}/{file.format(number)}" for file in files]
        assert model.certainty == certainty


def test_every_v2_file_has_a_second_address_of_the_same_name() -> None:
    release = "https://github.com/csguoh/MambaIR/releases/download/v1.0"
    for model in load_catalog():
        is_v2 = model.architecture == "mambairv2"
        assert model.url == (f"{release}/{PurePosixPath(model.files[0]).name}" if is_v2 else None)


def test_known_hashes() -> None:
    known = {
        model.name: (model.sha256, model.size) for model in load_catalog() if model.sha256 and model.repo
    }
    assert known == {
        "mambairv2-small-x4": (
            "374d91798ffd901b76504068b5bcb47ea58cba9b8f889ac627428c3c34f3545d",
            40_073_223,
        ),
        "mambairv2-large-x4": ("9f9090cda07ed4b8498c2db9863c8c263cd300f445017ec77b7fc8babbb8a78d", None),
        "mambair-real-x4": (
            "a62ce36d4779590adaf964358856763dfc8c8fd69841162ed9e4bef85fafc77f",
            165_000_000,
        ),
    }


def test_files_and_parameters_are_those_of_the_official_configurations() -> None:
    if not OFFICIAL_CHECKPOINTS.is_file():
        pytest.skip(f"{OFFICIAL_CHECKPOINTS} is not here")
    official = json.loads(OFFICIAL_CHECKPOINTS.read_text())
    parameters = {file: entry["parameters"] for entry in official.values() for file in entry["files"]}
    found = {
        file: model.parameters
        for model in load_catalog()  # which has the names of the Hub; some lack a word on Google Drive
        for file in (PurePosixPath(path).name.removeprefix("MambaIR_") for path in model.files)
        if file in parameters
    }
    assert found == parameters


def test_a_record_is_frozen_and_plain() -> None:
    model = find_model("mambairv2-light-x4")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "other"  # pyright: ignore[reportAttributeAccessIssue] (that is the point)
    assert load_catalog() is load_catalog()
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(pickle.loads(pickle.dumps(model))) == hash(model)
    assert json.loads(json.dumps(dataclasses.asdict(model)))["psnr"]["Set5"] == 32.51


def test_a_name_finds_its_model() -> None:
    assert {find_model(name).name for name in NAMES} == NAMES


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mambairv2-ligth-x4", "did you mean mambairv2-light-x4"),
        ("MambaIR-Classic-x2", "did you mean mambair-classic-x2"),
        ("sharpen", "`mambair models list` shows all names"),
        ("", "`mambair models list` shows all names"),
    ],
)
def test_an_unknown_name_is_answered_by_names_like_it(name: str, hint: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert str(caught.value).startswith(f"unknown model: {name}; ")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("task", "scale", "level", "on_cpu", "on_gpu"),
    [
        ("upscale", 2, None, "mambairv2-light-x2", "mambairv2-large-x2"),
        ("upscale", 3, None, "mambairv2-light-x3", "mambairv2-large-x3"),
        ("upscale", 4, None, "mambairv2-light-x4", "mambairv2-large-x4"),
        ("upscale", 4, 25, "mambairv2-light-x4", "mambairv2-large-x4"),
        ("denoise", 1, 1, "mambairv2-denoise-15", "mambairv2-denoise-15"),
        ("denoise", 1, 15, "mambairv2-denoise-15", "mambairv2-denoise-15"),
        ("denoise", 1, 15.5, "mambair-denoise-25", "mambair-denoise-25"),
        ("denoise", 1, 25, "mambair-denoise-25", "mambair-denoise-25"),
        ("denoise", 1, 26, "mambair-denoise-50", "mambair-denoise-50"),
        ("denoise", 1, 75, "mambair-denoise-50", "mambair-denoise-50"),
        ("denoise", 1, None, "tiny-real-denoise", "mambair-real-denoise"),
        ("dejpeg", 1, 1, "mambairv2-jpeg-10", "mambairv2-jpeg-10"),
        ("dejpeg", 1, 20, "mambairv2-jpeg-10", "mambairv2-jpeg-10"),
        ("dejpeg", 1, 20.5, "mambairv2-jpeg-30", "mambairv2-jpeg-30"),
        ("dejpeg", 1, 35, "mambairv2-jpeg-30", "mambairv2-jpeg-30"),
        ("dejpeg", 1, 36, "mambairv2-jpeg-40", "mambairv2-jpeg-40"),
        ("dejpeg", 1, 100, "mambairv2-jpeg-40", "mambairv2-jpeg-40"),
        ("dejpeg", 1, None, "tiny-dejpeg", "tiny-dejpeg"),
    ],
)
def test_auto_chooses_by_task_scale_level_and_device(
    task: Task, scale: int, level: float | None, on_cpu: str, on_gpu: str
) -> None:
    assert choose_model(Asked(task, scale, level), "cpu").name == on_cpu
    assert choose_model(Asked(task, scale, level), "cuda").name == on_gpu
    assert choose_model(Asked(task, scale, level), "mps").name == on_gpu


@pytest.mark.parametrize(
    ("task", "scale", "on_cpu", "on_gpu"),
    [
        ("upscale", 2, "tiny-real-x2", "mambair-real-x4"),
        ("upscale", 3, "tiny-real-x4", "mambair-real-x4"),
        ("upscale", 4, "tiny-real-x4", "mambair-real-x4"),
        ("denoise", 1, "tiny-real-denoise", "mambair-real-denoise"),
    ],
)
def test_for_real_pictures_a_network_enlarges_as_far_or_further(
    task: Task, scale: int, on_cpu: str, on_gpu: str
) -> None:
    assert choose_model(Asked(task, scale, model=REAL), "cpu").name == on_cpu
    assert choose_model(Asked(task, scale, model=REAL), "cuda").name == on_gpu


def test_no_model_for_real_pictures_removes_jpeg_alone() -> None:
    with pytest.raises(ModelError, match="no model for real pictures does dejpeg"):
        choose_model(Asked("dejpeg", 1, model=REAL), "cpu")


def test_auto_refuses_what_no_model_does() -> None:
    with pytest.raises(ModelError, match=r"no model for upscale at that scale: 8; 2 or 3 or 4 would work"):
        choose_model(Asked("upscale", 8), "cpu")
    with pytest.raises(ModelError, match=r"no model for denoise at that scale: 2; 1 would work"):
        choose_model(Asked("denoise", 2, 25), "cpu")


@pytest.mark.parametrize(
    ("task", "scale", "name"),
    [
        ("upscale", 2, "tiny-x2"),
        ("upscale", 3, "tiny-x3"),
        ("upscale", 4, "tiny-x4"),
        ("denoise", 1, "tiny-denoise"),
        ("dejpeg", 1, "tiny-dejpeg"),
        ("upscale", 2, "tiny-real-x2"),
        ("upscale", 4, "tiny-real-x4"),
        ("denoise", 1, "tiny-real-denoise"),
    ],
)
def test_every_task_has_a_model_in_the_package(task: Task, scale: int, name: str) -> None:
    model = find_model(name)
    assert bundled_model(task, scale, model.is_real) == model
    path = cached(model)
    assert path
    assert path.stat().st_size == model.size
    assert path.stat().st_size <= 1_600_000
    assert verify(path, model).source == "catalogue"
    info = load_network(path).info
    assert (info.task, info.scale, info.channels, info.parameters) == (task, scale, 3, model.parameters)


def test_no_other_model_is_in_the_package() -> None:
    assert sum(bool(model.bundled) for model in load_catalog()) == 8
    assert bundled_model("upscale", 8) is None
    assert bundled_model("upscale", 3, is_real=True) == find_model("tiny-real-x4")
    assert bundled_model("dejpeg", 1, is_real=True) is None


def test_an_entry_becomes_a_record() -> None:
    (model,) = parse_catalog(ENTRY)
    assert model.files == ("ckpt/first.pth", "ckpt/second.safetensors")
    assert math.isclose(sum(model.psnr.values()), 61.16)
    absent = (
        model.level,
        model.revision,
        model.sha256,
        model.size,
        model.parameters,
        model.bundled,
        model.url,
    )
    assert absent == (None,) * 7


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "trial-x4"', 'name = "Trial x4"', "bad name: 'Trial x4'"),
        ('name = "trial-x4"', "", "a model without a name: missing keys: name"),
        ('task = "upscale"', 'task = "colourise"', "bad task"),
        ('task = "upscale"', 'task = "denoise"', "denoise has no scale 4"),
        ("scale = 4", "scale = 5", "upscale has no scale 5"),
        ("scale = 4", "scale = 4.0", "bad scale"),
        ("scale = 4", "scale = 4\nlevel = 25", "a level means nothing to upscale"),
        ("channels = 3", "channels = 4", "bad channels"),
        ("channels = 3", "channels = true", "bad channels"),
        ('variant = "light"', 'variant = ""', "bad variant"),
        ('repo = "some/models"', 'repo = "models"', "bad repo"),
        ('repo = "some/models"', 'repo = "some/models"\nrevision = "main"', "bad revision"),
        ('repo = "some/models"', 'repo = "some/models"\nsha256 = "ABCD"', "bad sha256"),
        ('repo = "some/models"', 'repo = "some/models"\nsize = 0', "bad size"),
        ('repo = "some/models"', 'repo = "some/models"\nurl = "http://a.b/c.pth"', "bad url"),
        ('repo = "some/models"', 'repo = "some/models"\nurl = "https://a.b/../c.pth"', "bad url"),
        ('repo = "some/models"', 'repo = "some/models"\nurl = "https://a.b/c.exe"', "bad url"),
        ('repo = "some/models"', 'repo = "some/models"\nrepository = "x"', "unknown keys: repository"),
        ('repo = "some/models"', 'repo = "some/models"\nbundled = "a.pth"', "bundled, and yet"),
        ('repo = "some/models"', "", "neither bundled nor with repo"),
        ('"ckpt/first.pth"', '"../first.pth"', "bad files"),
        ('"ckpt/first.pth"', '"/first.pth"', "bad files"),
        ('"ckpt/first.pth"', "'ckpt\\first.pth'", "bad files"),
        ('"ckpt/first.pth"', '"ckpt/first.exe"', "bad files"),
        ('files = ["ckpt/first.pth", "ckpt/second.safetensors"]', "files = []", "bad files"),
        ('certainty = "likely"', 'certainty = "sure"', "bad certainty"),
        ('license = "Apache-2.0"', "", "missing keys: license"),
        ("Set5 = 32.42", 'Set5 = "high"', "bad psnr"),
    ],
)
def test_a_malformed_entry_is_named(old: str, new: str, complaint: str) -> None:
    assert ENTRY.count(old) == 1
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_catalog(ENTRY.replace(old, new))
    assert str(caught.value).startswith(("trial-x4: ", "Trial x4: ", "a model without a name: "))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ENTRY + ENTRY, "two models of one name: trial-x4"),
        ("", r"list of \[\[model\]\] tables"),
        ("[model]\nname = 'x'", r"list of \[\[model\]\] tables"),
        ("[[models]]\nname = 'x'", r"list of \[\[model\]\] tables, not \['models'\]"),
        ("[[model]\n", "Expected"),
    ],
)
def test_a_malformed_catalogue_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_catalog(text)


def test_an_installed_package_contains_the_catalogue(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "mambair_cli", tmp_path / "mambair_cli", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "mambair_cli" / "weights.toml").write_text(ENTRY)
    script = (
        "from mambair_cli.checkpoints.catalog import load_catalog; "
        "print(*(model.name for model in load_catalog()))"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert process.stdout.decode().split() == ["trial-x4"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 reads TOML by a package")
def test_reading_it_takes_the_standard_library_only() -> None:
    script = f"""if True:
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from mambair_cli.checkpoints.catalog import load_catalog
        load_catalog()
        print(*{{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names - {{"__main__"}})
    """
    process = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, check=True)
    assert process.stdout.decode().split() == ["mambair_cli"]
