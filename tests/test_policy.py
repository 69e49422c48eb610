"""What a run decides of a job: do it, replace what is there, skip it, or refuse it."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest

from mambair_cli.images.source import Source
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.policy import Action, RunPolicy, decide

JOB = Job(Source(Path("in/a.png")), Path("out/a.png"), root=Path("out"))
SECOND = Job(Source(Path("a.png")), Path("a_x4.png"), root=Path("."), replaces_input=True)
STREAM = Job(Source(Path("a.png")), None)


class Past:
    """What a journal says of a result: whether a run wrote it, it is done, was changed, and of what input."""

    def __init__(
        self, is_ours: bool, is_done: bool, is_changed: bool = False, other: Path | None = None
    ) -> None:
        self._other = other
        self._is_ours, self._is_done, self._is_changed = is_ours, is_done, is_changed

    def is_ours(self, target: Path) -> bool:
        return self._is_ours

    def is_done(self, source: Path, target: Path, settings: str) -> bool:
        return self._is_done

    def other_input(self, source: Path, target: Path) -> Path | None:
        return self._other

    def is_changed(self, target: Path) -> bool:
        return self._is_changed


OTHERS = Past(True, False, other=Path("b/a.png"))
CHANGED = Past(False, False, True)
NEVER, OUTDATED, DONE = Past(False, False), Past(True, False), Past(True, True)
PLAIN, OVERWRITE, RESUME = RunPolicy(), RunPolicy(overwrite=True), RunPolicy(resume=True)
BOTH = RunPolicy(overwrite=True, resume=True)


@pytest.mark.parametrize(
    ("job", "record", "policy", "action"),
    [
        (JOB, None, PLAIN, Action.DO),
        (JOB, DONE, PLAIN, Action.DO),
        (JOB, DONE, OVERWRITE, Action.REPLACE),
        (JOB, None, RESUME, Action.DO),
        (JOB, NEVER, RESUME, Action.DO),
        (JOB, OUTDATED, RESUME, Action.REPLACE),
        (JOB, DONE, RESUME, Action.SKIP),
        (JOB, NEVER, BOTH, Action.REPLACE),
        (JOB, OTHERS, RESUME, Action.REFUSE),
        (JOB, OTHERS, BOTH, Action.REPLACE),
        (JOB, OTHERS, OVERWRITE, Action.REPLACE),
        (JOB, CHANGED, PLAIN, Action.DO),
        (JOB, CHANGED, RESUME, Action.REFUSE),
        (JOB, CHANGED, BOTH, Action.REPLACE),
        (JOB, DONE, BOTH, Action.SKIP),
        (SECOND, None, OVERWRITE, Action.REFUSE),
        (SECOND, NEVER, BOTH, Action.REFUSE),
        (SECOND, NEVER, RESUME, Action.REFUSE),
        (SECOND, CHANGED, RESUME, Action.REFUSE),
        (SECOND, NEVER, PLAIN, Action.DO),
        (SECOND, OUTDATED, OVERWRITE, Action.REPLACE),
        (SECOND, DONE, RESUME, Action.SKIP),
        (STREAM, None, PLAIN, Action.DO),
        (STREAM, None, BOTH, Action.REPLACE),
    ],
)
def test_a_decision_follows_from_the_past_and_from_what_is_allowed(
    job: Job, record: Any, policy: RunPolicy, action: Action
) -> None:
    assert decide(job, record, policy, "settings").action is action


def test_what_cannot_have_its_name_is_refused_whatever_is_allowed() -> None:
    refused = Job(Source(Path("a.png")), Path("out/a.png"), refusal="cannot restore a.png")
    records: tuple[Any, ...] = (None, DONE)
    for record, policy in itertools.product(records, (PLAIN, OVERWRITE, RESUME, BOTH)):
        decision = decide(refused, record, policy, "settings")
        assert (decision.action, decision.reason) == (Action.REFUSE, "cannot restore a.png")


def test_what_no_run_has_noted_is_kept_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/a.png").touch()
    never: Any = NEVER
    decision = decide(JOB, never, RESUME, "settings")
    assert decision.action is Action.REFUSE
    assert "exists already, and no earlier run has noted it: a run of one file notes" in decision.reason
    assert decide(JOB, never, BOTH, "settings").action is Action.REPLACE
    assert decide(JOB, never, PLAIN, "settings").action is Action.DO  # which finds the file
    assert decide(JOB, None, RESUME, "settings").action is Action.DO  # which finds the closed journal


def test_a_model_that_has_done_nothing_skips_nothing() -> None:
    done: Any = DONE
    assert decide(JOB, done, RESUME, None).action is Action.REPLACE


def test_workers_are_given_the_policy_whole() -> None:
    policy = RunPolicy(overwrite=True, max_pixels=5, damaged=True)
    assert pickle.loads(pickle.dumps(policy)) == policy
