"""A look at each image chooses its model: by the tables of its file, and by its pixels."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from restore_server import needs_unix_sockets, serving

from mambair_cli import Restorer
from mambair_cli.checkpoints.catalog import Asked
from mambair_cli.checkpoints.select import ChosenModel, PictureKind, choose_others, find_kind
from mambair_cli.cli import main
from mambair_cli.images.source import Source
from mambair_cli.inspection import need as need_module
from mambair_cli.inspection.need import Need
from mambair_cli.restore.settings import RestoreSettings
from mambair_cli.runs.executors.messages import Done
from mambair_cli.runs.executors.ray_worker import RayWorker
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.run import PreparedJob

PHOTO = Path(__file__).parents[1] / "docs" / "kitten_sharp.png"
LOCAL = ("--offline", "--device", "cpu")
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder; return its exit code, its events, and what it said."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, list[dict[str, Any]], str]:
        code = main([str(argument) for argument in (*arguments, "--json")])
        out, err = capsys.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return call


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder of pictures too small to look at, two of them compressed by their tables."""
    folder = tmp_path / "tables"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(folder / "a.png")
    image.save(folder / "b.jpg", quality=95)
    image.save(folder / "c.jpg", quality=60)
    image.save(folder / "d.png", "JPEG", quality=92)
    image.save(folder / "e.jpg", quality=93)
    return folder


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """A folder of PNG files: a clean one, one with white noise, and one that was a JPEG."""
    folder = tmp_path / "pixels"
    folder.mkdir()
    clean = Image.open(PHOTO).convert("RGB").resize((160, 160), Image.Resampling.BICUBIC)
    clean = clean.crop((40, 40, 112, 104))
    clean.save(folder / "clean.png")
    noise = np.random.default_rng(1).normal(0, 20, (64, 72, 3))
    noisy = np.clip(np.asarray(clean) + noise, 0, 255).round().astype(np.uint8)
    Image.fromarray(noisy).save(folder / "noisy.png")
    file = io.BytesIO()
    clean.save(file, "JPEG", quality=30)
    Image.open(file).save(folder / "saved.png")
    return folder


COMPRESSED = {"c.jpg", "d.png"}


def chosen(events: list[dict[str, Any]]) -> dict[str, str]:
    return {Path(event["input"]).name: event["model"] for event in events if event["event"] == "done"}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_compressed_pictures_of_a_folder_get_the_model_for_them(run: Run, tables: Path, scale: int) -> None:
    code, events, err = run("upscale", tables, *LOCAL, "-s", scale)
    assert code == 0
    real = f"tiny-real-x{2 if scale == 2 else 4}"
    names = dict.fromkeys(("a.png", "b.jpg", "e.jpg"), f"tiny-x{scale}")
    assert chosen(events) == {**names, **dict.fromkeys(COMPRESSED, real)}
    assert f"mambair: using tiny-x{scale} or {real} on cpu, by a look at each image\n" in err
    assert "c.jpg: a JPEG of quality 60: using" in err
    assert (events[0]["model"], events[0]["other_models"]) == (f"tiny-x{scale}", [real])
    assert events[-1]["models"] == {f"tiny-x{scale}": 3, real: 2}
    assert "belong together" not in err  # the summary is an event here
    for name in names | dict.fromkeys(COMPRESSED):
        with Image.open(tables.with_name(f"tables_x{scale}") / name) as image:
            assert image.size == (24 * scale, 20 * scale)


@pytest.mark.parametrize(("more", "is_said"), [([], True), (["--clean"], False), (["-q"], False)])
def test_where_models_differ_a_line_says_how_frames_get_one(
    tables: Path, capsys: pytest.CaptureFixture[str], more: list[str], is_said: bool
) -> None:
    assert main(["upscale", str(tables), "--offline", "-s", "2", *more]) == 0
    err = capsys.readouterr().err
    said = (
        "mambair: for frames or textures that belong together give --clean or --real, "
        "so that all get the same model\n"
    )
    assert (err.count(said), err.count("3 by tiny-x2, 2 by tiny-real-x2")) == (is_said, is_said)


@pytest.mark.gpu
def test_on_a_gpu_the_look_and_the_pictures_are_those_of_a_cpu(run: Run, pixels: Path) -> None:
    results = []
    for device in ("cuda", "cpu"):
        folder = pixels.with_name(device)
        command = ("upscale", pixels, "--offline", "--device", device, "--precision", "fp32", "-s", 2)
        code, events, _ = run(*command, "-o", folder)
        assert code == 0
        pictures = [np.asarray(Image.open(file)).astype(int) for file in sorted(folder.glob("*.png"))]
        results.append((chosen(events), pictures))
    (on_gpu, first), (on_cpu, second) = results
    assert on_gpu == on_cpu
    assert set(on_gpu.values()) == {"tiny-x2", "tiny-real-x2"}
    assert len(first) == 3
    for one, other in zip(first, second, strict=True):
        assert np.abs(one - other).max() <= 1


def test_pixels_decide_where_the_file_says_nothing(run: Run, pixels: Path) -> None:
    code, events, err = run("upscale", pixels, *LOCAL, "-s", 2)
    assert code == 0
    assert chosen(events) == {
        "clean.png": "tiny-x2",
        "noisy.png": "tiny-real-x2",
        "saved.png": "tiny-real-x2",
    }
    needs = {Path(event["input"]).name: event["need"] for event in events if event["event"] == "done"}
    assert needs["clean.png"]["reasons"] == []
    assert needs["noisy.png"]["kind"] == "white"
    assert needs["noisy.png"]["denoise_sigma"] == pytest.approx(20, rel=0.3)
    assert needs["saved.png"]["quality_in_pixels"] < 60
    assert "clean.png:" not in err
    assert "noisy.png: fine noise of sigma" in err


def test_white_noise_is_removed_by_the_model_for_it(run: Run, pixels: Path) -> None:
    code, events, _ = run("denoise", pixels, *LOCAL)
    assert code == 0
    assert chosen(events) == {
        "clean.png": "tiny-real-denoise",
        "noisy.png": "tiny-denoise",
        "saved.png": "tiny-real-denoise",
    }


@pytest.mark.parametrize(("option", "model"), [("--real", "tiny-real-x4"), ("--clean", "tiny-x3")])
def test_a_word_overrules_the_look(run: Run, pixels: Path, option: str, model: str) -> None:
    options = (*LOCAL, "-s", 3)
    _, by_itself, _ = run("upscale", pixels, *options, "-o", "by_itself")
    code, events, err = run("upscale", pixels, *options, option, "-o", "word")
    assert code == 0
    assert set(chosen(events).values()) == {model}
    assert "look" not in err
    for name, own in chosen(by_itself).items():
        same = Path("by_itself", name).read_bytes() == Path("word", name).read_bytes()
        assert same == (own == model)


def test_a_second_run_knows_what_every_model_did(run: Run, tables: Path) -> None:
    run("upscale", tables, *LOCAL, "-s", 2, "--resume")
    code, events, _ = run("upscale", tables, *LOCAL, "-s", 2, "--resume")
    assert code == 0
    assert [event["event"] for event in events] == ["start", *["skipped"] * 5, "summary"]


def test_results_of_other_rules_are_made_anew(
    run: Run, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Fingerprint.of(Restorer(model="auto", device="cpu", offline=True))
    assert before != Fingerprint.of(Restorer(model="clean", device="cpu", offline=True))
    monkeypatch.setattr("mambair_cli.runs.fingerprint.EDITION", need_module.EDITION + 1)
    assert before != Fingerprint.of(Restorer(model="auto", device="cpu", offline=True))


def test_a_picture_on_standard_input_is_looked_at_too(
    run: Run, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO((tables / "c.jpg").read_bytes()))
    monkeypatch.setattr("sys.stdin", stream)
    code, events, _ = run("upscale", "-", "-o", "c.png", "-s", 2, *LOCAL)
    assert code == 0
    assert chosen(events) == {"-": "tiny-real-x2"}


@needs_unix_sockets
def test_the_hash_of_what_standard_input_became_is_reported(
    run: Run, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(name: str, *options: object) -> None:
        stream = io.TextIOWrapper(io.BytesIO((tables / "c.jpg").read_bytes()))
        monkeypatch.setattr("sys.stdin", stream)
        code, events, _ = run("upscale", "-", "-o", name, "-s", 2, *options)
        done = next(event for event in events if event["event"] == "done")
        assert (code, done["sha256"]) == (0, hashlib.sha256(Path(name).read_bytes()).hexdigest())

    restore("c.png", *LOCAL)
    with serving() as address:
        restore("served.png", "--server", f"unix:{address.path}")


def test_a_named_model_is_taken_for_any_picture(run: Run, tables: Path) -> None:
    code, events, _ = run("upscale", tables, "--model", "tiny-x2", *LOCAL)
    assert code == 0
    assert set(chosen(events).values()) == {"tiny-x2"}
    assert {event["need"] for event in events if event["event"] == "done"} == {None}


def test_workers_choose_alike(run: Run, pixels: Path) -> None:
    """The large picture is computed by both workers together, the others by one each."""
    noisy = np.asarray(Image.open(pixels / "noisy.png"))
    Image.fromarray(np.concatenate([noisy] * 4, axis=1)).save(pixels / "large.png")
    options = ("--offline", "-s", 2, "--tile", 48)
    run("upscale", pixels, *options, "--device", "cpu", "-o", "alone")
    code, events, _ = run("upscale", pixels, *options, "--workers", 2, "-o", "together")
    assert code == 0
    assert chosen(events) == {
        "clean.png": "tiny-x2",
        **dict.fromkeys(("large.png", "noisy.png", "saved.png"), "tiny-real-x2"),
    }
    for file in pixels.iterdir():
        assert Path("alone", file.name).read_bytes() == Path("together", file.name).read_bytes()


@needs_unix_sockets
@pytest.mark.parametrize("size", [("-s", 3), ("--width", 110)])
def test_a_server_chooses_alike(run: Run, pixels: Path, tmp_path: Path, size: tuple[object, ...]) -> None:
    run("upscale", pixels, *LOCAL, *size, "-o", "alone")
    with serving() as address:
        code, events, err = run("upscale", pixels, *size, "-o", "served", "--server", f"unix:{address.path}")
        assert code == 0
        assert len(set(chosen(events).values())) == 2
        assert "noisy.png: fine noise of sigma" in err
        needs = [event["need"]["kind"] for event in events if event["event"] == "done"]
        assert sorted(needs) == ["clean", "real", "white"]
        options = ("-o", "served", "--server", f"unix:{address.path}", "--resume")
        code, events, _ = run("upscale", pixels, *size, *options)
        assert [event["event"] for event in events][1:-1] == ["skipped"] * 3
    for file in pixels.iterdir():
        assert Path("alone", file.name).read_bytes() == Path("served", file.name).read_bytes()


def test_a_worker_on_another_machine_is_sent_all_models(run: Run, pixels: Path) -> None:
    run("upscale", pixels, *LOCAL, "-s", 2, "-o", "alone")
    chooser = Restorer(scale=2, model="auto", device="cpu", offline=True)
    others: list[Any] = [
        (kind, level, model.name, model.path.read_bytes()) for (kind, level), model in chooser.others.items()
    ]
    settings = RestoreSettings(Asked(scale=2), device="cpu")
    checkpoint = chooser.model.path.read_bytes()
    worker = RayWorker(settings, checkpoint, "tiny_x2.safetensors", 1, ".", others)
    try:
        assert worker.loaded.fingerprint == Fingerprint.of(chooser)
        models = {}
        for name in ("clean.png", "noisy.png"):
            job = Job(Source(pixels / name), Path("sent_" + name))
            message = worker.perform(PreparedJob(job))
            assert isinstance(message, Done)
            assert message.outcome.report is not None
            models[name] = message.outcome.report.model
            assert job.target is not None
            assert job.target.read_bytes() == Path("alone", name).read_bytes()
    finally:
        worker.close()
    assert models == {"clean.png": None, "noisy.png": "tiny-real-x2"}


def test_a_dry_run_names_all_models_that_may_be_chosen(run: Run, tables: Path) -> None:
    code, events, _ = run("upscale", tables, *LOCAL, "-s", 2, "--dry-run")
    assert code == 0
    plans = [event for event in events if event["event"] == "plan"]
    assert [(plan["model"], plan["other_models"], plan["files"]) for plan in plans] == [
        ("tiny-x2", ["tiny-real-x2"], 5)
    ]


@pytest.mark.parametrize("scale", [2, 3])
def test_from_python_the_same_is_chosen_and_the_report_says_what_was_seen(
    run: Run, pixels: Path, scale: int
) -> None:
    restorer = Restorer(scale=scale, model="auto", device="cpu", offline=True)
    run("upscale", pixels, *LOCAL, "-s", scale, "-o", "out")
    for name, kind in (("clean.png", "clean"), ("noisy.png", "white"), ("saved.png", "real")):
        with Image.open(pixels / name) as image:
            restored, report = restorer.restore(np.asarray(image))
        with Image.open(Path("out", name)) as image:
            assert np.abs(np.asarray(image).astype(int) - restored).max() <= 1
        assert report.need is not None
        assert report.need.kind == kind
        assert report.model == (f"tiny-x{scale}" if kind == "clean" else f"tiny-real-x{scale + scale % 2}")
    gray = np.asarray(Image.open(pixels / "noisy.png").convert("L"))
    assert restorer(gray).shape == (64 * scale, 72 * scale)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_nothing_is_wrong_with_a_single_colour(value: int) -> None:
    restorer = Restorer(scale=2, model="auto", device="cpu", offline=True)
    _, report = restorer.restore(np.full((50, 60, 3), value, np.uint8))
    assert report.need is not None
    assert (report.need.kind, report.need.reasons, report.model) == ("clean", (), "tiny-x2")


def test_white_noise_goes_to_the_lowest_level_that_covers_it() -> None:
    kinds = [PictureKind("white", level) for level in (15, 25, 50)]
    need = Need("white", sigma=16.0)
    assert find_kind(need, kinds) == PictureKind("white", 25)
    assert find_kind(replace(need, sigma=80.0), kinds) == PictureKind("white", 50)
    assert find_kind(need, [PictureKind("white")]) == PictureKind("white")
    assert find_kind(replace(need, kind="real"), kinds) is None


def test_only_where_nothing_else_says_so_models_are_chosen_from() -> None:
    for arguments in ({"model": "tiny-x4"}, {"model": "clean"}, {"model": "real"}, {"task": "dejpeg"}):
        settings: Any = {"device": "cpu", "offline": True, **arguments}
        assert not Restorer(**settings).others
    assert choose_others(Asked("dejpeg"), "cpu", offline=True) == {}
    assert not Restorer(task="denoise", level=25, device="cpu", offline=True).others
    real = choose_others(Asked("upscale", 3), "cpu", offline=True)[PictureKind("real")]
    assert isinstance(real, ChosenModel)
    assert real.name == "tiny-real-x4"


@pytest.mark.parametrize(
    ("scale", "name"), [(2, "tiny-real-x2"), (3, "tiny-real-x4"), (None, "tiny-real-x4")]
)
def test_what_stands_in_on_a_gpu_enlarges_no_further_than_it_must(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scale: int | None, name: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    real = choose_others(Asked("upscale", scale), "cuda", offline=True)[PictureKind("real")]
    assert real.name == name
    assert "mambair-real-x4 is not in the cache" in (real.notice or "")
