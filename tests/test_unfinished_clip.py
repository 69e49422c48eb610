"""The hidden folder of a clip that is not finished: one run at a time holds it, and nothing in it is lost."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av", reason="needs the extra video")

from mambair_cli.errors import ImageError
from mambair_cli.runs.unfinished_clip import LeftOver, UnfinishedClip


@pytest.mark.skipif(os.name != "posix", reason="Windows removes no open file")
def test_runs_that_begin_while_another_ends_do_not_hold_one_clip(tmp_path: Path, monkeypatch) -> None:
    first, second, third = (UnfinishedClip(tmp_path / "out.mkv", {}) for _ in range(3))
    release = first._lock.release

    def begin_then(*given: Any, **named: Any) -> None:
        release(*given, **named)
        opened.enter_context(second)  # just when the lock is free

    monkeypatch.setattr(first._lock, "release", begin_then)
    with ExitStack() as opened:
        with first:
            first.begin(LeftOver())
        with pytest.raises(ImageError, match="another run is writing it"):
            third.__enter__()
    assert not list(tmp_path.iterdir())
