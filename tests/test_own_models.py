"""The user's own models: added, listed, used by name everywhere, and removed."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import save_identity, save_nearest
from hub_place import FILE, SOURCE, Place, open_place
from hub_server import COMMIT
from PIL import Image
from restore_server import PHOTO, ask, needs_unix_sockets, serving

from mambair_cli.checkpoints import own_models
from mambair_cli.checkpoints.catalog import Asked, Model, choose_model, find_model, load_catalog
from mambair_cli.checkpoints.own_models import load_own_models, own_models_file
from mambair_cli.errors import ModelError
from mambair_cli.restore.restorer import Restorer

Run = Callable[..., tuple[int, list[str], str]]

TABLE = """[[model]]
name = "film"
source = "hf:a/b/c.pth@v1"
sha256 = "{hash}"
size = 1000
task = "upscale"
scale = 2
channels = 3
architecture = "mambair"
parameters = 10
""".format(hash="ab" * 32)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_place(tmp_path) as place:
        yield place


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of own models, which is not there yet, in a folder that is not there either."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "mambair" / "models.toml"


@pytest.fixture
def film(run: Run, settings: Path, weights: Path) -> Path:
    """Add a model that repeats pixels, film-x2; return its file."""
    path = Path(save_nearest(Path("film.safetensors"), 2)).absolute()
    assert run("models", "add", "film-x2", "film.safetensors", "--quiet")[0] == 0
    return path


@pytest.mark.parametrize("kind", ["hub", "address"])
def test_a_name_works_everywhere_and_offline_once_it_is_added(place: Place, kind: str) -> None:
    source = SOURCE if kind == "hub" else place.url
    code, (path,), err = place.run("models", "add", "Film_2.x", source)
    assert code == 0
    assert err[-1] == f"mambair: added Film_2.x: mambair for upscale ×2, sha256 {place.sha256}"
    assert Path(path).read_bytes() == place.content
    lines = place.list_file.read_text("utf-8").splitlines()
    pinned = f"hf:some/films/{FILE}@{COMMIT}" if kind == "hub" else place.url
    assert {f'source = "{pinned}"', f'sha256 = "{place.sha256}"', "scale = 2"} <= {*lines}

    asked = len(place.server.requests)
    ways = ([], ["--offline"], ["--workers", "2"], ["--dry-run"])
    for more in ways if kind == "hub" else ways[:1]:
        result = place.folder / "in_x2.png"
        result.unlink(missing_ok=True)
        assert place.run("upscale", "in.png", "--model", "Film_2.x", *more)[0] == 0
        if more != ["--dry-run"]:
            np.testing.assert_array_equal(place.result(), place.doubled())
    assert place.run("models", "path", "Film_2.x")[1] == [path]
    assert place.run("models", "download", "Film_2.x")[1] == [path]
    code, out, _ = place.run("models", "verify", "Film_2.x")
    assert (code, out) == (0, [f"Film_2.x: MambaIR, sha256 {place.sha256[:12]}… as when it was added"])
    own = [line for line in place.run("models", "list")[1] if "own" in line]
    assert len(own) == 1
    assert own[0].split()[:3] == ["Film_2.x", "upscale", "×2"]
    assert own[0].endswith("own, cached")
    assert len(place.server.requests) == asked

    code, _, (err,) = place.run("models", "remove", "Film_2.x")
    assert code == 0
    assert err.startswith("mambair: removed Film_2.x; `mambair models add Film_2.x ")
    assert Path(path).exists()
    assert place.run("upscale", "in.png", "--model", "Film_2.x", "--overwrite")[0] == 3


def test_a_name_means_the_commit_that_its_branch_had(place: Place) -> None:
    assert place.run("models", "add", "film", SOURCE)[0] == 0
    place.server.add_repo("some/films", {FILE: place.content + b" "}, "f" * 40)
    code, _, err = place.run("models", "download", "film", HF_HOME=str(place.folder / "other"))
    assert code == 3
    assert f"no such revision of some/films on {place.server.endpoint}: {COMMIT}" in err[0]
    assert place.run("models", "download", "film")[0] == 0


def test_an_address_with_another_file_later_is_refused(place: Place) -> None:
    assert place.run("models", "add", "film", place.url)[0] == 0
    (kept,) = place.downloads()
    kept.unlink()
    assert any(line.endswith("own, remote") for line in place.run("models", "list")[1])
    code, _, err = place.run("models", "show", "film")
    assert (code, len(err)) == (3, 1)
    assert "`mambair models download film`" in err[0]
    place.server.releases["/files/film_x2.safetensors"] = b"\0" + place.content
    code, out, err = place.run("upscale", "in.png", "--model", "film")
    assert (code, out, len(err)) == (3, [], 1)
    assert f"not {place.sha256}; `mambair models download film` downloads it again; if its author" in err[0]
    assert place.downloads() == []


def test_what_is_no_network_is_not_added(place: Place) -> None:
    place.server.add_repo("some/films", {"a.pth": b"PK\x03\x04" + b"no network" * 200})
    code, out, err = place.run("models", "add", "film", "hf:some/films/a.pth")
    assert (code, out, len(err)) == (3, [], 1)
    assert "cannot load" in err[0]
    assert not place.list_file.exists()


def test_a_file_of_this_machine_is_known_by_its_content(run: Run, film: Path) -> None:
    (model,) = load_own_models()
    assert (model.source, model.scale, model.task) == (str(film), 2, "upscale")
    Image.new("RGB", (8, 8), (9, 8, 7)).save("in.png")
    os.mkdir("elsewhere")
    assert run("upscale", "in.png", "--model", "film-x2", "-o", "elsewhere/out.png")[0] == 0
    assert any(line.endswith("own, a file") for line in run("models", "list")[1])
    save_nearest(film, 2)
    content = film.read_bytes()
    film.write_bytes(content[:-1] + b"!")
    code, _, err = run("upscale", "in.png", "--model", "film-x2")
    assert code == 3
    assert "not the file that film-x2 should be" in err
    assert "`mambair models remove film-x2` and add it again" in err
    assert film.exists()
    assert run("models", "verify")[0] == 3
    assert film.exists()
    film.unlink()
    code, _, err = run("upscale", "in.png", "--model", "film-x2")
    assert code == 3
    assert f"the file of film-x2 is not there any more: {film}; put it back" in err
    assert any(line.endswith("own, missing") for line in run("models", "list")[1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tiny-x4", "the name is that of a model of the catalogue"),
        ("Tiny-X4", "the name is that of a model of the catalogue"),
        ("film-x2", "you have a model of that name"),
        ("FILM-x2", "you have a model of that name"),
        *[(name, "no model can have that name") for name in ("auto", "Real", "clean", "", "a b", "a/b", "ä")],
        *[(name, "no model can have that name") for name in (".a", "a" * 65, "a\nb", "hf:a/b/c")],
    ],
)
def test_a_name_that_is_taken_or_not_plain_is_refused(
    run: Run, settings: Path, film: Path, name: str, words: str
) -> None:
    before = settings.read_bytes()
    code, out, err = run("models", "add", name, film)
    assert (code, out) == (2, [])
    assert err.startswith(f"mambair: error: {words}")
    assert err.count("\n") == 1
    assert settings.read_bytes() == before


def test_a_task_is_asked_for_only_where_it_does_not_follow_from_tensors(
    run: Run, settings: Path, weights: Path
) -> None:
    same, x2 = weights / "same.safetensors", weights / "x2.safetensors"
    code, _, err = run("models", "add", "film", same)
    assert code == 2
    assert "its tensors do not tell what film does" in err
    assert "--task denoise or --task dejpeg" in err
    assert run("models", "add", "film", same, "--task", "upscale")[0] == 2
    assert run("models", "add", "film", x2, "--task", "denoise")[0] == 2
    assert run("models", "add", "film", x2, "--level", "15")[0] == 2
    assert not settings.exists()
    assert run("models", "add", "film", x2, "--task", "upscale")[0] == 0
    assert run("models", "add", "grain", same, "--task", "denoise", "--level", "15")[0] == 0
    labelled = save_identity(Path("labelled.safetensors"), task="dejpeg")
    assert run("models", "add", "blocks", labelled, "--task", "denoise")[0] == 2
    assert run("models", "add", "blocks", labelled)[0] == 0
    facts = [(model.name, model.task, model.scale, model.level) for model in load_own_models()]
    assert facts == [("film", "upscale", 2, None), ("grain", "denoise", 1, 15), ("blocks", "dejpeg", 1, None)]

    Image.new("RGB", (8, 8)).save("in.png")
    assert run("denoise", "in.png", "--model", "grain")[0] == 0
    for command, name in (
        ("dejpeg", "grain"),
        ("denoise", "blocks"),
        ("upscale", "grain"),
        ("denoise", "film"),
    ):
        code, out, err = run(command, "in.png", "--model", name, "--overwrite")
        assert (code, out) == (3, [])
        assert "does not fit the task" in err


def test_auto_never_chooses_an_own_model(settings: Path, weights: Path) -> None:
    own_models.add_model("film", str(weights / "x2.safetensors"))
    own_models.add_model("grain", str(weights / "same.safetensors"), "denoise", 15)
    names = {model.name for model in load_catalog()}
    for device in ("cpu", "cuda"):
        for word in ("auto", "real", "clean"):
            assert choose_model(Asked("upscale", 2, model=word), device).name in names
        assert choose_model(Asked("denoise", level=15), device).name in names
        assert choose_model(Asked("denoise", level=10), device).name in names


def test_python_and_its_results_know_the_name(film: Path) -> None:
    restore = Restorer(model="film-x2", offline=True)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(restore(image), image.repeat(2, 0).repeat(2, 1))
    assert restore.model.name == "film-x2"


@needs_unix_sockets
def test_a_server_takes_the_name_and_notices_another_file(run: Run, settings: Path, film: Path) -> None:
    with serving() as address:
        (state,) = [
            each for each in json.loads(ask(address, "GET", "/v1/models")[2]) if each["name"] == "film-x2"
        ]
        assert (state["scale"], state["here"], state["loaded"]) == (2, True, False)
        query = "/v1/upscale?model=film-x2&format=png"
        status, _, first = ask(address, "POST", query, PHOTO)
        assert status == 200
        assert run("models", "remove", "film-x2")[0] == 0
        assert ask(address, "POST", query, PHOTO)[0] == 404
        film.write_bytes(save_nearest(Path("other.safetensors"), 3).read_bytes())
        assert run("models", "add", "film-x2", film)[0] == 0
        status, _, second = ask(address, "POST", query, PHOTO)
        assert status == 200
        assert len(second) != len(first)
        asked = ask(address, "POST", "/v1/upscale?model=hf:some/films/a.pth", PHOTO)
        assert (asked[0], b"unknown model" in asked[2]) == (404, True)
        settings.write_text("damaged")
        assert ask(address, "POST", "/v1/upscale?model=tiny-x2", PHOTO)[0] == 200
        assert ask(address, "GET", "/v1/models")[0] == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("this is no TOML", "Expected '='"),
        ("model = 3", "it is not a list of [[model]] tables"),
        ("[other]", "it is not a list of [[model]] tables"),
        ("[[model]]", "a model without a name: missing keys: architecture"),
        (TABLE + TABLE, "two models have one name: film"),
        (TABLE + TABLE.replace("film", "FILM"), "two models have one name: film"),
        (TABLE + "size_ = 3", "film: unknown keys: size_"),
        (TABLE.replace('"film"', '"../film"'), "bad name"),
        (TABLE.replace('"film"', '"auto"'), "auto: bad name"),
        (TABLE.replace("ab" * 32, "ab"), "film: bad sha256"),
        (TABLE.replace("scale = 2", "scale = true"), "film: bad scale"),
        (TABLE.replace("hf:a/b/c.pth@v1", "ftp://x/y"), "film: no checkpoints come from there"),
        (TABLE.replace('"mambair"', '"hat"'), "film: bad architecture"),
        ("\udc00", "codec can't decode"),
    ],
)
def test_a_damaged_file_is_named_and_stops_only_what_needs_it(
    run: Run, settings: Path, weights: Path, text: str, words: str
) -> None:
    settings.parent.mkdir(parents=True)
    content = b"\xff\xfe" if text == "\udc00" else text.encode()
    settings.write_bytes(content)
    for command in (
        ("models", "show", "film"),
        ("models", "add", "new", weights / "x2.safetensors"),
        ("models", "remove", "film"),
    ):
        code, out, err = run(*command)
        assert (code, out) == (3, [])
        assert err.startswith(f"mambair: error: cannot read the file of your own models: {settings}: ")
        assert words in err
        assert err.count("\n") == 1
    assert settings.read_bytes() == content
    code, out, err = run("models", "list")
    assert (code, len(out)) == (0, len(load_catalog()) + 1)
    assert err.startswith("mambair: warning: cannot read")
    assert run("models", "path", "tiny-x4")[0] == 0
    with pytest.raises(ModelError):
        load_own_models()


def test_what_the_user_wrote_around_tables_stays(run: Run, settings: Path, weights: Path) -> None:
    settings.parent.mkdir(parents=True)
    other = TABLE.replace("film", "other")
    settings.write_text(f"# mine\n{TABLE}\n# the\n\n# other\n{other}# the end\n", "utf-8")
    assert run("models", "add", "new", weights / "x2.safetensors")[0] == 0
    assert run("models", "remove", "film")[0] == 0
    text = settings.read_text("utf-8")
    assert text.startswith(f"# mine\n\n# the\n\n# other\n{other}# the end\n")
    assert [model.name for model in load_own_models()] == ["other", "new"]
    assert run("models", "remove", "film")[0] == 3
    assert run("models", "remove", "tiny-x4")[0] == 2
    assert [run("models", "remove", name)[0] for name in ("new", "other")] == [0, 0]
    assert load_own_models() == ()


def test_paths_of_any_kind_are_written_and_read_back(run: Run, settings: Path) -> None:
    for index, name in enumerate(('a "b" \\ \t\x7f.pth', "ü ✓.pth", "hf:x.pth")):
        if os.name != "nt" or index == 1:
            save_nearest(Path(name), 2)
            assert run("models", "add", f"m{index}", f"./{name}")[0] == 0
            assert Path(load_own_models()[-1].source or "").name == name
            assert run("models", "verify", f"m{index}")[0] == 0


def test_commands_at_the_same_time_lose_no_model(settings: Path, weights: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: own_models.add_model(f"m{i}", str(weights / "x2.safetensors")), range(8)))
    assert {model.name for model in load_own_models()} == {f"m{i}" for i in range(8)}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_settings_that_cannot_be_written_are_named(run: Run, settings: Path, weights: Path) -> None:
    settings.parent.mkdir(parents=True)
    settings.parent.chmod(0o500)
    code, _, err = run("models", "add", "film", weights / "x2.safetensors")
    assert code == 3
    assert "cannot write the file of your own models" in err


def test_a_folder_in_place_of_the_file_is_named(run: Run, settings: Path, weights: Path) -> None:
    settings.mkdir(parents=True)
    code, _, err = run("models", "add", "film", weights / "x2.safetensors")
    assert (code, err.count("\n")) == (3, 1)
    assert "Is a directory" in err or "Permission denied" in err


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"XDG_CONFIG_HOME": "/a"}, "/a"),
        ("linux", {}, "~/.config"),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, "~/.config"),
        ("darwin", {}, "~/Library/Application Support"),
        ("darwin", {"XDG_CONFIG_HOME": "/a"}, "/a"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming"),
        ("win32", {}, "~/AppData/Roaming"),
    ],
)
def test_the_file_is_where_the_system_keeps_settings(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], folder: str
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("APPDATA", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert own_models_file() == Path(folder).expanduser() / "mambair" / "models.toml"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without a home
    path = None if folder.startswith("~") else Path(folder, "mambair", "models.toml")
    assert own_models_file() == path


def test_without_a_home_nothing_is_added_and_there_is_nothing(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("APPDATA", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert load_own_models() == ()
    for command in (("add", "film", weights / "x2.safetensors"), ("remove", "film")):
        code, _, err = run("models", *command)
        assert code == 3
        assert err == (
            "mambair: error: no place for the file of your own models: there is no home folder; set HOME or "
            "XDG_CONFIG_HOME\n"
        )
    assert not Path("~").exists()


def test_an_unknown_name_is_answered_by_own_names_too(run: Run, film: Path) -> None:
    code, _, err = run("models", "show", "film-x3")
    assert code == 3
    assert "did you mean film-x2" in err


def test_a_name_that_the_catalogue_took_later_means_that_of_the_catalogue(run: Run, settings: Path) -> None:
    settings.parent.mkdir(parents=True)
    settings.write_text(TABLE.replace('"film"', '"tiny-x2"'), "utf-8")
    assert own_models.find_model("tiny-x2").bundled
    assert run("models", "remove", "tiny-x2")[0] == 0
    assert load_own_models() == ()
    assert run("models", "remove", "tiny-x2")[0] == 2


def test_the_catalogue_itself_knows_no_sources() -> None:
    assert {model.source for model in load_catalog()} == {None}
    own = replace(find_model("tiny-x4"), name="film", bundled=None, source="x")
    assert isinstance(find_model("film", [own]), Model)


def test_an_error_of_another_file_is_not_reported_as_one_of_the_users_file(settings: Path) -> None:
    with pytest.raises(FileNotFoundError), own_models._changing():
        Path("missing.safetensors").read_bytes()
