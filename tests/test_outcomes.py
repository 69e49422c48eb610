"""What became of a job, as JSON: the events that the documentation lists."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from repository import ROOT

from mambair_cli.errors import MemoryLimitError
from mambair_cli.images.source import Source
from mambair_cli.restore.tiling import Report, plan_tiles
from mambair_cli.runs.jobs import Job
from mambair_cli.runs.outcomes import Outcome, describe, describe_result
from mambair_cli.server.protocol import describe_report

JOB = Job(Source(Path("a.png")), Path("out/a.png"))
REPORT = Report(plan_tiles(30, 40, 16, 4), 2, False)
OUTCOMES = [
    Outcome(JOB, size=(80, 60), report=REPORT, seconds=1.23456, warnings=("gain map left out",)),
    Outcome(JOB, is_skipped=True),
    Outcome.failed(JOB, MemoryLimitError("out of memory: 5 bytes; use a smaller tile"), 2.0),
]


@pytest.mark.parametrize(
    ("outcome", "event"), list(zip(OUTCOMES, ["done", "skipped", "failed"], strict=True))
)
def test_an_event_has_the_keys_that_are_documented(outcome: Outcome, event: str) -> None:
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| `{event}` |"))
    keys = re.findall(r"`(\w+)`", re.sub(r"\([^()]*\)", "", row.split("|")[3]))
    facts = describe(outcome, "tiny-x2", 2)
    assert (facts.pop("event"), list(facts)) == (event, keys)


def test_a_failure_names_its_kind_and_says_why() -> None:
    assert describe(OUTCOMES[2]) == {
        "event": "failed",
        "input": "a.png",
        "kind": "MemoryLimitError",
        "message": "out of memory: 5 bytes; use a smaller tile",
    }
    assert OUTCOMES[2].seconds == 2.0


def test_a_server_says_of_a_result_what_the_event_does() -> None:
    event = describe(OUTCOMES[0], "tiny-x2", 2)
    report = asdict(describe_report(OUTCOMES[0], "tiny-x2", 2, "digest"))
    own = {"event", "input", "output", "sha256"}
    assert {key: report[key] for key in event.keys() - own} == {key: event[key] for key in event.keys() - own}
    assert report.keys() - event.keys() == {"computing", "batch"}


def test_without_a_result_there_is_nothing_to_say_of_it() -> None:
    with pytest.raises(ValueError, match="only a result"):
        describe_result(OUTCOMES[1])
