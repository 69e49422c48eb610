"""The sdist and the wheel: built, checked, and the wheel installed where nothing of the checkout is seen."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from repository import ROOT

MOST_BYTES = 20_000_000  # the weights are 12 MB


def call(*command, **options):
    """Run a program and return its lines on stdout."""
    arguments = [str(part) for part in command]
    process = subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE, **options)
    return process.stdout.splitlines()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from what is in the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def mambair(built, tmp_path_factory):
    """Return a function that runs the installed command and returns its lines on stdout."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "env", symlinks=True, with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet")
    call(*pip, "install", "--no-deps", "--no-index", built[1])
    # Dependencies are those of the tests. Only now: pip would take the checkout's mambair for installed.
    (site,) = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    Path(site, "dependencies.pth").write_text("\n".join(shared))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
    }

    def run(*arguments):
        command = folder / "env" / "bin" / "mambair"
        return call(command, *arguments, cwd=folder, env=environment)

    return run


def test_the_index_will_take_them(built):
    call(sys.executable, "-m", "twine", "check", "--strict", *built)


def test_the_sdist_holds_what_a_build_needs_and_no_data_of_tests(built):
    assert built[0].stat().st_size < MOST_BYTES
    with tarfile.open(built[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "weights.toml"} <= names
    tops = {name.split("/")[0] for name in names}
    assert not tops & {"tests", "docs", "training", "benchmarks", ".ci", "dist"}


def test_the_wheel_holds_every_file_of_the_package(built):
    assert built[1].stat().st_size < MOST_BYTES
    files = [path for path in (ROOT / "mambair_cli").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    expected = {path.relative_to(ROOT).as_posix() for path in files} | {"mambair_cli/weights.toml"}
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "mambair_cli/py.typed" in names
    assert any(name.endswith(".cu") for name in names)
    assert any(name.endswith(".cuh") for name in names)
    assert any(name.endswith(".safetensors") for name in names)


def test_the_installed_command_works_without_checkout_and_network(mambair, tmp_path):
    assert mambair("--version") == [f"mambair {version_of_project()}"]
    assert any("tiny-x4" in line and "bundled" in line for line in mambair("models", "list"))
    place = mambair("models", "path", "tiny-x4")[0]
    assert "fresh" in place
    assert str(ROOT) not in place
    Image.new("RGB", (6, 5), (90, 120, 60)).save(tmp_path / "small.png")
    result = tmp_path / "large.png"
    arguments = ("upscale", tmp_path / "small.png", "-s", 2, "-o", result, "--offline", "--device", "cpu")
    assert mambair(*arguments) == [str(result)]
    with Image.open(result) as image:
        assert (image.size, image.getpixel((5, 5))) == ((12, 10), (90, 120, 60))


def version_of_project():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))
