"""Limits of containers and services, read from made-up folders as Linux has them."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mambair_cli.system import control_groups, process
from mambair_cli.system.control_groups import Limits, read_limits

GIB = 2**30
V2_MOUNT = "30 23 0:26 {inside} {place} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNT = "33 31 0:30 {inside} {place} rw,nosuid - cgroup cgroup rw,{names}"
DISK = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"


def make(root: Path, groups: str, mounts: list[str], files: dict[str, str]) -> Path:
    """Make the files in which Linux tells a process its groups, where they are mounted, and their limits."""
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join([DISK, *mounts]) + "\n", **files}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v2(inside: str = "/", place: str = "/sys/fs/cgroup") -> str:
    return V2_MOUNT.format(inside=inside, place=place)


def v1(names: str, inside: str = "/", place: str = "") -> str:
    return V1_MOUNT.format(names=names, inside=inside, place=place or f"/sys/fs/cgroup/{names}")


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == Limits(None, None)


def test_a_container_of_version_2_is_at_the_root_of_its_mount(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "250000 100000\n", "sys/fs/cgroup/memory.max": f"{4 * GIB}\n"}
    assert read_limits(make(tmp_path, "0::/\n", [v2()], files)) == Limits(2.5, 4 * GIB)


@pytest.mark.parametrize("tightest", ["", "user.slice/", "user.slice/app.scope/"])
def test_the_least_limit_up_to_the_root_of_the_mount_holds(tightest: str, tmp_path: Path) -> None:
    places = ("", "user.slice/", "user.slice/app.scope/")
    files = {f"sys/fs/cgroup/{place}cpu.max": "max 100000\n" for place in places}
    files |= {f"sys/fs/cgroup/{place}memory.max": "max\n" for place in places}
    files |= {"sys/fs/cgroup/user.slice/cpu.max": "800000 100000\n"}
    files |= {"sys/fs/cgroup/user.slice/memory.max": f"{9 * GIB}\n"}
    files |= {f"sys/fs/cgroup/{tightest}cpu.max": "50000 100000\n"}
    files |= {f"sys/fs/cgroup/{tightest}memory.max": f"{GIB}\n"}
    # The limits of a neighbouring group, and of one above the mount: neither holds.
    files |= {"sys/fs/cgroup/other/memory.max": "1\n", "sys/fs/memory.max": "1\n"}
    made = make(tmp_path, "0::/user.slice/app.scope\n", [v2()], files)
    assert read_limits(made) == Limits(0.5, GIB)


def test_without_limits_there_is_none(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
    assert read_limits(make(tmp_path, "0::/\n", [v2()], files)) == Limits(None, None)


def test_version_1_has_a_tree_for_each_resource(tmp_path: Path) -> None:
    groups = "5:memory:/a/b\n4:name=systemd:/\n3:cpu,cpuacct:/a\n0::/\n"
    mounts = [v1("memory"), v1("cpu,cpuacct"), v1("name=systemd"), v2(place="/sys/fs/cgroup/unified")]
    cpu, memory = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/memory"
    files = {
        f"{cpu}/cpu.cfs_quota_us": "-1\n",
        f"{cpu}/cpu.cfs_period_us": "100000\n",
        f"{cpu}/a/cpu.cfs_quota_us": "150000\n",
        f"{cpu}/a/cpu.cfs_period_us": "50000\n",
        f"{memory}/memory.limit_in_bytes": "9223372036854771712\n",
        f"{memory}/a/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{memory}/a/b/memory.limit_in_bytes": f"{3 * GIB}\n",
        "sys/fs/cgroup/unified/cgroup.procs": "",
    }
    assert read_limits(make(tmp_path, groups, mounts, files)) == Limits(3.0, 2 * GIB)


def test_version_1_without_limits_has_none(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "0\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    made = make(tmp_path, "2:memory:/\n1:cpu:/\n", [v1("cpu"), v1("memory")], files)
    assert read_limits(made) == Limits(None, None)


@pytest.mark.parametrize("group", ["/docker/abc", "/docker/abc/inner"])
def test_a_mount_may_show_a_part_of_the_tree(group: str, tmp_path: Path) -> None:
    """As in containers that do not have a view of groups of their own."""
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": f"{GIB if group.endswith('abc') else GIB // 2}\n",
    }
    made = make(tmp_path, f"5:memory:{group}\n", [v1("memory", "/docker/abc")], files)
    assert read_limits(made).memory == (GIB if group.endswith("abc") else GIB // 2)


@pytest.mark.parametrize("group", ["/elsewhere", "/../../other", "/docker/abc/gone"])
def test_a_group_that_is_not_to_be_seen_has_the_limits_of_the_mount(group: str, tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": f"{GIB}\n"}
    made = make(tmp_path, f"0::{group}\n", [v2("/docker/abc")], files)
    assert read_limits(made).memory == GIB


def test_a_name_may_have_blanks(tmp_path: Path) -> None:
    files = {"my groups/memory.max": f"{GIB}\n"}
    assert read_limits(make(tmp_path, "0::/\n", [v2(place="/my\\040groups")], files)).memory == GIB


@pytest.mark.parametrize("text", ["", "none\n", "0 0\n", "1000\n", "-5 100\n"])
def test_what_cannot_be_read_is_no_limit(text: str, tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/cpu.max": text, "sys/fs/cgroup/memory.max": f"-{text}"}
    made = make(tmp_path, "0::/\nnonsense\n", [v2(), "nonsense", "a - cgroup2"], files)
    assert read_limits(made) == Limits(None, None)


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch):
    """Set the limits, and the number of processors that threads may run on."""

    def allow(own: int, processors: float | None = None, memory: int | None = None) -> None:
        monkeypatch.setattr(process, "read_limits", lambda: Limits(processors, memory))
        monkeypatch.setattr(process, "count_own_processors", lambda: own)
        monkeypatch.setattr(process, "_set_here", set())

    return allow


@pytest.mark.parametrize(
    ("own", "allowed", "counted"),
    [(64, None, 64), (64, 2.0, 2), (64, 1.5, 2), (64, 0.25, 1), (2, 8.0, 2), (1, 0.5, 1)],
)
def test_a_part_of_a_processor_counts_as_one(allow, own: int, allowed: float | None, counted: int) -> None:
    allow(own, allowed)
    assert process.count_processors() == counted


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="the system does not tell its memory")
def test_memory_is_that_of_the_container(allow) -> None:
    allow(2, memory=None)
    machine = process.machine_memory()
    assert machine is not None
    allow(2, memory=2**20)
    assert process.machine_memory() == 2**20
    allow(2, memory=2 * machine)
    assert process.machine_memory() == machine


def test_pytorch_gets_as_many_threads_as_the_container_has_processors(allow) -> None:
    allow(64, 1.5)
    environment: dict[str, str] = {}
    process.limit_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "2"}
    assert process.is_set_here("OMP_NUM_THREADS")


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_number_that_the_user_gives_stays(allow, name: str) -> None:
    allow(64, 2.0)
    environment = {name: "16"}
    process.limit_threads(environment)
    assert environment == {name: "16"}
    assert not process.is_set_here(name)


@pytest.mark.parametrize("allowed", [None, 64.0, 100.0])
def test_without_a_limit_pytorch_chooses(allow, allowed: float | None) -> None:
    allow(64, allowed)
    environment: dict[str, str] = {}
    process.limit_threads(environment)
    assert environment == {}


LIMITED = """
from mambair_cli.system import process
from mambair_cli.system.control_groups import Limits
process.read_limits = lambda: Limits(0.5, None)
process.settle_process()
import torch
print(torch.get_num_threads())
"""


@pytest.mark.skipif(process.count_own_processors() < 2, reason="there is one processor anyway")
@pytest.mark.parametrize(("given", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2")])
def test_a_command_computes_in_so_many_threads(given: dict[str, str], threads: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in process.THREAD_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], env=kept | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [threads]


def test_doctor_prints_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = import_module("mambair_cli.cli.doctor")
    monkeypatch.setattr(doctor, "read_limits", lambda: Limits(1.5, GIB))
    monkeypatch.setattr(doctor, "count_own_processors", lambda: 64)
    monkeypatch.setattr(doctor, "machine_memory", lambda: 2**20)
    devices, room = doctor._check_devices(), doctor._check_room()
    assert devices.text.endswith("; the container may use 1.5 of 64 processors")
    assert devices.facts["processor_limit"] == 1.5
    assert room.text.endswith(", and the container may use 1 MiB")
    assert (room.facts["memory"], room.facts["memory_free"]) == (2**20, 2**20)


def test_limits_are_read_once() -> None:
    read_limits()
    before = control_groups.read_limits.cache_info().hits
    read_limits()
    assert control_groups.read_limits.cache_info().hits == before + 1
