"""Each option that changes results changes their fingerprint: by a command, with a server, in a request."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args
from urllib.parse import urlencode

import pytest
from checkpoints import save_random
from networks import V2
from restore_server import PHOTO, ask, error_message, needs_unix_sockets, serving

from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.catalog import Model
from mambair_cli.errors import UsageError
from mambair_cli.runs import pipeline
from mambair_cli.runs import run as runs
from mambair_cli.runs.fingerprint import Fingerprint
from mambair_cli.runs.image_job import ImageJob
from mambair_cli.runs.parameters import SHARED, TASK_PARAMETERS
from mambair_cli.runs.policy import RunPolicy
from mambair_cli.server import service
from mambair_cli.server.address import Address

pytestmark = needs_unix_sockets

# A value for each option, other than its default, that gives other results.
EXAMPLES = {
    "scale": "2",
    "width": "20",
    "height": "18",
    "megapixels": "0.001",
    "sigma": "15",
    "jpeg_quality": "10",
    "model": "real",
    "precision": "fp16",
    "tile": "32",
    "overlap": "8",
    "seed": "7",
    "strength": "0.5",
    "ensemble": "true",
    "wrap": "x",
    "format": "tiff",
    "quality": "60",
    "depth": "16",
    "strip": "true",
    "note": "true",
    "background": "#102030",
}
# Options that decide whether there is a result, and not which one: they are part of no fingerprint.
POLICIES = {"max_pixels": "1000", "damaged": "true"}
# Where a model may come from: what it is shows in the fingerprint, whose weights are its own.
SOURCES = {"offline"}

OPTIONS = [("upscale", parameter.name) for parameter in SHARED]
OPTIONS += [(str(task), parameter.name) for task, own in TASK_PARAMETERS.items() for parameter in own]


class Noted(NamedTuple):
    """What a job depends on."""

    digest: str
    policy: RunPolicy


Query = dict[str, str]
Route = Literal["command", "command with a server", "request"]


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Noted]]:
    """Note what each job depends on, and let it fail then; every model is on this machine."""
    noted: list[Noted] = []
    run_jobs = runs.run_jobs
    folder = tmp_path_factory.mktemp("models")

    def fetch(model: Model, **options: bool) -> hub.Fetched:
        path = folder / f"{model.name}.safetensors"
        if not path.exists():
            upsampler = "pixelshuffledirect" if model.scale > 1 else ""
            save_random(path, replace(V2, upscale=model.scale, upsampler=upsampler))
        return hub.Fetched(path, hub.Verification(model.sha256 or model.name, "catalogue"))

    def note_run(jobs, output, policy, fingerprint, *others):  # by this digest the journal knows a result
        noted.append(Noted(fingerprint.digest_result(output, jobs[0].format), policy))
        return run_jobs(jobs, output, policy, fingerprint, *others)

    class NotedJob(ImageJob):
        def __init__(self, prepared, restorer) -> None:
            digest = Fingerprint.of(restorer).digest_result(prepared.output, prepared.job.format)
            noted.append(Noted(digest, prepared.policy))
            raise UsageError("it is noted")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "fetch", fetch)
        patch.setattr(runs, "run_jobs", note_run)
        patch.setattr(pipeline, "ImageJob", NotedJob)
        patch.setattr(service, "ImageJob", NotedJob)
        yield noted


@pytest.fixture(scope="module")
def address(noted: list[Noted]) -> Iterator[Address]:
    with serving() as address:
        yield address


@pytest.fixture(scope="module")
def plain() -> dict[tuple[Route, str], list[Noted]]:
    """What was noted of restorations without options, each of which is made once."""
    return {}


@pytest.fixture
def restore(
    run, noted: list[Noted], address: Address, plain: dict[tuple[Route, str], list[Noted]]
) -> Callable[[Route, str, Query], list[Noted]]:
    """Have a photograph restored, and return what was noted of the run, if there is one, and of the job."""
    Path("in.png").write_bytes(PHOTO)

    def restore(route: Route, task: str, query: Query) -> list[Noted]:
        if not query:
            if (route, task) not in plain:
                plain[route, task] = note(route, task, query)
            return plain[route, task]
        return note(route, task, query)

    def note(route: Route, task: str, query: Query) -> list[Noted]:
        noted.clear()
        if route == "request":
            answer = ask(address, "POST", f"/v1/{task}?{urlencode(query)}", PHOTO)
            assert error_message(answer) == "it is noted"
            return [*noted]
        options = [part for name, value in query.items() for part in to_option(name, value)]
        where = ["--server", address] if route == "command with a server" else ["--device", "cpu"]
        _, _, err = run(task, "in.png", *options, *where, "-q")
        assert err.endswith("it is noted\n")
        return [*noted]

    return restore


def to_option(name: str, value: str) -> list[str]:
    """Write a parameter of a query as on the command line."""
    option = f"--{name.replace('_', '-')}"
    return [option] if value == "true" else [option, value]


@pytest.mark.parametrize("route", get_args(Route))
@pytest.mark.parametrize(("task", "name"), [each for each in OPTIONS if each[1] not in SOURCES])
def test_an_option_changes_what_a_result_is_known_by(restore, route, task, name):
    value = {**EXAMPLES, **POLICIES}.get(name)
    if value is None:
        pytest.fail(f"no example for {name}; add a value to EXAMPLES, which gives other results")
    before, after = restore(route, task, {}), restore(route, task, {name: value})
    assert len(before) == len(after) == (1 if route == "request" else 2)
    for plain, changed in zip(before, after, strict=True):
        changes = plain.policy != changed.policy if name in POLICIES else plain.digest != changed.digest
        assert changes, f"{name} is read, and not passed on"


def test_examples_are_for_options_that_there_are():
    assert {*EXAMPLES, *POLICIES, *SOURCES} == {name for _, name in OPTIONS}
