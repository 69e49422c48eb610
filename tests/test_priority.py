"""No library gives threads of ours another priority."""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from clips import FAST, facts, picture

from mambair_cli.system.priority import kept_priority
from mambair_cli.video import SegmentWriter, choose_options
from mambair_cli.video.codecs import CODECS

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone has such policies")


def test_threads_have_the_priority_from_before() -> None:
    ends, found = threading.Event(), {}

    def wait() -> None:
        found["number"] = threading.get_native_id()
        ready.set()
        ends.wait(60)

    ready = threading.Event()
    thread = threading.Thread(target=wait)
    with kept_priority():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # which any user may take
        thread.start()
        assert ready.wait(60)
        assert os.sched_getscheduler(found["number"]) == os.SCHED_BATCH
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    assert os.sched_getscheduler(found["number"]) == os.SCHED_OTHER
    ends.set()
    thread.join()


def test_a_priority_that_the_user_gave_is_kept() -> None:
    def run() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with kept_priority():
            pass
        policies.append(os.sched_getscheduler(0))

    policies: list[int] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert policies == [os.SCHED_BATCH]


@pytest.mark.parametrize("codec", list(CODECS))
def test_encoders_take_none_from_others(codec: str, tmp_path: Path) -> None:
    clip = facts()
    options = choose_options(
        clip, Path("a.mkv"), size=(64, 48), codec=codec, quality=90, preset=FAST.get(codec)
    )
    with SegmentWriter(tmp_path / "a", clip, options) as writer:
        for number in range(3):
            writer.write(picture(number), 3003 * number, 3003)
        policies = set()
        for name in os.listdir("/proc/self/task"):
            with suppress(OSError):  # a thread that has ended
                policies.add(os.sched_getscheduler(int(name)))
        assert policies == {os.sched_getscheduler(0)} == {os.SCHED_OTHER}
