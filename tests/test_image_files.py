"""Files of pictures on the disk: how they are found, named, and written whole or not at all."""

import errno
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from error_lines import assert_line
from pictures import PNG, encode, make_picture, noise

from mambair_cli import images
from mambair_cli.errors import ImageError
from mambair_cli.images import (
    FORMATS,
    READABLE_SUFFIXES,
    format_of,
    open_picture,
    read_picture,
    write_picture,
)
from mambair_cli.system.files import open_atomic
from mambair_cli.system.wording import enumerate_names

# Reading


def test_missing_files_folders_and_links_say_so(tmp_path: Path) -> None:
    dangling, loop = tmp_path / "dangling.png", tmp_path / "loop.png"
    dangling.symlink_to(tmp_path / "gone.png")
    loop.symlink_to(loop)
    for path, part in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none.png", "does not exist"),
        (dangling, "gone.png, which is missing"),
        (loop, "loop.png"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(ImageError) as error:
            read_picture(path)
        assert_line(error, str(path), part)


def test_a_link_is_read_through(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(PNG)
    (tmp_path / "link.png").symlink_to("real.png")
    assert read_picture(tmp_path / "link.png").pixels.shape == (40, 30, 3)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(PNG))
    feeder.start()
    assert read_picture(pipe).pixels.shape == (40, 30, 3)
    feeder.join()


def test_a_file_that_changed_is_not_read_from_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    for seed in range(3):
        samples = noise(8, 8, 3, seed=seed)
        path.write_bytes(encode(samples, "png", compress_level=0))  # of one size
        os.utime(path, (1, 1))  # and time
        np.testing.assert_array_equal(read_picture(path).pixels, samples)


def test_a_file_that_is_exchanged_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with open_picture(path) as reader:
        path.write_bytes(PNG + b"more")
        with pytest.raises(ImageError) as error:
            reader.read(0, 40)
    assert_line(error, str(path), "it changes while it is read")


# Names

NAMES = [
    "a[1].png",
    "[compression=0].png",
    "two words.png",
    "-dash.png",
    "--.png",
    "💥 ünï.png",
    "line\nbreak.png",
    "per%cent,comma;colon:.png",
    "x" * 251 + ".png",
    "é" * 125 + "x.png",
    "UPPER.PNG",
    b"latin-\xfc.png".decode("utf-8", "surrogateescape"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_are_taken_as_they_are(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = make_picture()
    write_picture(before, Path(name))
    assert os.listdir() == [name]
    np.testing.assert_array_equal(read_picture(Path(name)).pixels, before.pixels)
    Path(name).write_bytes(PNG[:-100])
    with pytest.raises(ImageError) as error:
        read_picture(Path(name))
    assert_line(error)
    with pytest.raises(ImageError) as error:
        write_picture(before, Path(name))
    assert_line(error, "exists")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.png", "png"),
        ("a.JPG", "jpeg"),
        ("a.b.jpeg", "jpeg"),
        ("a.webp", "webp"),
        ("a.tif", "tiff"),
        (".x.TIFF", "tiff"),
    ],
)
def test_the_suffix_names_the_format(name: str, format: str, tmp_path: Path) -> None:
    assert format_of(Path(name)) == format
    write_picture(make_picture(), tmp_path / name)
    assert read_picture(tmp_path / name).format == format


def test_every_name_of_the_package_has_a_home() -> None:
    assert [name for name in images.__all__ if not hasattr(images, name)] == []


def test_every_suffix_that_can_be_written_can_be_read() -> None:
    for format, row in FORMATS.items():
        assert {format_of(Path("a" + suffix)) for suffix in row.suffixes} == {format}
        assert set(row.suffixes) <= READABLE_SUFFIXES


@pytest.mark.parametrize("name", ["a", "a.bmp", "a.jxl", ".png", "a.png.tmp", "a.p\nng"])
def test_a_suffix_that_names_none_is_refused_with_those_that_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), tmp_path / name)
    assert_line(error, enumerate_names(FORMATS))
    write_picture(make_picture(), tmp_path / name, format="webp")
    assert read_picture(tmp_path / name).format == "webp"


def test_a_format_that_the_name_belies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), tmp_path / "a.png", format="jpeg")
    assert_line(error, "jpeg", "its name asks for png")
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), tmp_path / "a", format="doc")
    assert_line(error, enumerate_names(FORMATS))
    assert os.listdir(tmp_path) == []


# Writing


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_picture(make_picture(), tmp_path / "a.png")
        write_picture(make_picture(5, 5), tmp_path / "a.png", overwrite=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_what_exists_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("precious")
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), path)
    assert_line(error, str(path), "--overwrite")
    assert path.read_text() == "precious"
    write_picture(make_picture(), path, overwrite=True)
    assert read_picture(path).pixels.shape == (5, 7, 3)
    assert os.listdir(tmp_path) == ["a.png"]


@contextmanager
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)  # as FAT does
        yield


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bin"

    def write() -> None:
        with open_atomic(path) as file:
            file.write(b"late")
            path.write_bytes(b"early")

    with nullcontext() if links else no_hard_links(monkeypatch), pytest.raises(ImageError) as error:
        write()
    assert_line(error, "exists")
    assert path.read_bytes() == b"early"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_one_wins_whole(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, barrier, won = tmp_path / "a.bin", threading.Barrier(8), []

    def write(number: int) -> None:
        barrier.wait()
        try:
            with open_atomic(path) as file:
                file.write(bytes([number]) * 100_000)
        except ImageError:
            return
        won.append(number)

    def race() -> None:
        writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()

    with nullcontext() if links else no_hard_links(monkeypatch):
        race()
    assert len(won) == 1
    assert path.read_bytes() == bytes(won) * 100_000
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_writer_that_fails_leaves_everything_as_it_was(overwrite: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    if overwrite:
        path.write_bytes(b"before")

    def write() -> None:
        with open_atomic(path, overwrite=overwrite) as file:
            file.write(b"half")
            file.flush()
            assert path.exists() == overwrite
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == (["a.bin"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"before"


def test_a_link_is_replaced_not_what_it_points_to(tmp_path: Path) -> None:
    original, link = tmp_path / "original.png", tmp_path / "link.png"
    original.write_bytes(PNG)
    link.symlink_to(original)
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), link)
    assert_line(error, "exists")
    write_picture(make_picture(), link, overwrite=True)
    assert original.read_bytes() == PNG
    assert not link.is_symlink()

    dangling = tmp_path / "dangling.png"
    dangling.symlink_to(tmp_path / "gone.png")
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(), dangling)
    assert_line(error, "exists")
    assert not (tmp_path / "gone.png").exists()


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    for name in ("folder.png", "pipe.png", "null.png"):
        with pytest.raises(ImageError) as error:
            write_picture(make_picture(), tmp_path / name, overwrite=True)
        assert_line(error, name)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_places_that_cannot_be_written_say_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, part in (
        (tmp_path / "none" / "a.png", "its folder does not exist; create it"),
        (tmp_path / "file" / "a.png", "its folder is a file"),
        (tmp_path / ("x" * 300 + ".png"), "too long"),
        (Path("/proc/a.png"), "/proc/a.png"),
    ):
        with pytest.raises(ImageError) as error:
            write_picture(make_picture(), path)
        assert_line(error, str(path), part)


@contextmanager
def common_user() -> Iterator[Path]:
    """Give a folder, and be a user whom permissions bind, as the superuser is not."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        user = os.geteuid()
        (Path(folder) / "secret.png").write_bytes(PNG)
        (Path(folder) / "secret.png").chmod(0)
        (Path(folder) / "locked").mkdir()
        (Path(folder) / "locked").chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_permissions_that_forbid_it_are_named() -> None:
    with common_user() as folder:
        with pytest.raises(ImageError) as error:
            read_picture(folder / "secret.png")
        assert_line(error, "secret.png", "permissions")
        with pytest.raises(ImageError) as error:
            write_picture(make_picture(), folder / "locked" / "a.png")
        assert_line(error, "a.png", "permissions")
        assert os.listdir(folder / "locked") == []


def test_a_full_disk_leaves_nothing_behind(small_disk: Path) -> None:
    with pytest.raises(ImageError) as error:
        write_picture(make_picture(300, 300), small_disk / "new.png")
    assert_line(error, "new.png", "the disk is full")
    assert os.listdir(small_disk) == []


def test_a_quota_that_is_used_up_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ImageError) as error, open_atomic(tmp_path / "new.png"):
        pass
    assert_line(error, "new.png", "your quota of the disk is used up; free some space or write elsewhere")
    assert os.listdir(tmp_path) == []


def test_a_limit_of_file_sizes_leaves_nothing_behind(tmp_path: Path) -> None:
    large = make_picture(200, 200)
    (tmp_path / "old.png").write_bytes(PNG)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores the signal: write() fails
    try:
        with pytest.raises(ImageError) as error:
            write_picture(large, tmp_path / "new.png")
        assert_line(error, "new.png", "write elsewhere")
        with pytest.raises(ImageError) as error:
            write_picture(large, tmp_path / "old.png", overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == PNG
