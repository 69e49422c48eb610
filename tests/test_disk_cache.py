"""What is kept on disk between runs: made by one, read by the others, and not kept for ever."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mambair_cli.system import disk_cache

MAKER = """
import sys, time
from mambair_cli.system import disk_cache

def make():
    print("making", flush=True)
    time.sleep(float(sys.argv[1]))
    return b"made"

print(disk_cache.find_or_make("a.cubin", make).decode(), flush=True)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "mambair" / "kernels"


def start(seconds):
    command = [sys.executable, "-c", MAKER, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_several_processes_one_makes_it(folder):
    makers = [start(1.0) for _ in range(3)]
    said = [maker.communicate(timeout=60)[0].split() for maker in makers]
    assert sorted(said) == [["made"], ["made"], ["making", "made"]]
    assert sorted(os.listdir(folder)) == ["a.cubin"]


def test_of_several_threads_one_makes_it(folder):
    made = []

    def make():
        time.sleep(0.1)
        made.append(threading.get_ident())
        return b"made"

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: disk_cache.find_or_make("a.cubin", make), range(4)))
    assert results == [b"made"] * 4
    assert len(made) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="has no kill -9")
def test_a_process_that_is_killed_while_it_makes_it_keeps_nobody_waiting(folder):
    with start(60.0) as maker:
        assert maker.stdout
        assert maker.stdout.readline() == "making\n"
        maker.kill()
    begun = time.monotonic()
    assert disk_cache.find_or_make("a.cubin", lambda: b"mine") == b"mine"
    assert time.monotonic() - begun < 5


def test_what_nobody_has_used_for_long_is_removed_and_what_is_not_ours_stays(folder):
    folder.mkdir(parents=True)
    past = time.time() - disk_cache.LIFETIME_SECONDS - 60
    for name in (
        "old.cubin",
        "old.right",
        "old.cubin.lock",
        "tmp1.part",
        "used.cubin",
        "mine.txt",
        "known.right",
    ):
        (folder / name).write_bytes(b"old")
        os.utime(folder / name, (past, past))
    (folder / "new.cubin").write_bytes(b"new")
    assert disk_cache.find_or_make("used.cubin", lambda: b"another") == b"old"
    assert disk_cache.is_stored("known.right")
    assert not disk_cache.is_stored("unknown.right")
    disk_cache.find_or_make("next.cubin", lambda: b"next")
    left = {"used.cubin", "known.right", "mine.txt", "new.cubin", "next.cubin"}
    assert set(os.listdir(folder)) == left


def test_without_a_place_to_keep_it_it_is_made_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for number in (b"1", b"2"):
        assert disk_cache.find_or_make("a.cubin", lambda number=number: number) == number
    disk_cache.store("a.right")
    assert not disk_cache.is_stored("a.right")


def test_without_a_home_it_is_made_each_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for number in (b"1", b"2"):
        assert disk_cache.find_or_make("a.cubin", lambda number=number: number) == number
    disk_cache.store("a.right")
    assert not disk_cache.is_stored("a.right")
    assert not list(tmp_path.iterdir())
