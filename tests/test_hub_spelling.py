"""Files of a repository whose names are not quite those of the catalogue."""

import dataclasses

from hub_client import CONTENT, MODEL, Client
from hub_server import COMMIT

from mambair_cli.checkpoints.catalog import find_model

ALIKE = dataclasses.replace(find_model("mambair-real-x4"), sha256=None)


def test_the_first_candidate_that_the_repository_lists_is_taken(client: Client) -> None:
    client.server.add_repo(MODEL.repo, {"ckpt/second.pth": CONTENT, "ckpt/other.pth": b"x" * 2000})
    fetched = client.call().path
    assert fetched is not None
    assert fetched.name == "second.pth"
    assert client.call("cached").path == fetched


def test_a_file_of_another_spelling_is_taken_and_found_offline(client: Client) -> None:
    file = "MambaIRv1_ckpt/MambaIR-Real.pth"
    others = [
        "MambaIRv1_ckpt/MambaIR_realDN.pth",
        "MambaIRv1_ckpt/MambaIR_classicSRx4.pth",
        "MambaIR-real.pth",
    ]
    client.server.add_repo(ALIKE.repo, {file: CONTENT, **dict.fromkeys(others, b"x" * 2000)})
    assert client.call("cached", ALIKE).path is None
    fetched = client.call(model=ALIKE)
    assert fetched.path is not None
    assert fetched.path.read_bytes() == CONTENT
    assert fetched.notice == (
        f"using {file} as mambair-real-x4: the known file names are missing, and only this one is similar"
    )
    client.server.requests.clear()
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = client.call(model=ALIKE, environment=environment, offline=environment == {})
        assert (again.path, again.notice) == (fetched.path, fetched.notice)
    assert client.call("cached", ALIKE).path == fetched.path
    assert client.call("cached", dataclasses.replace(ALIKE, revision=COMMIT)).path == fetched.path
    assert client.call("cached", dataclasses.replace(ALIKE, revision="f" * 40)).path is None
    assert client.server.requests == []


def test_two_files_of_other_spellings_are_named_and_not_taken(client: Client) -> None:
    files = ["MambaIRv1_ckpt/MambaIR-real.pth", "MambaIRv1_ckpt/real.pth"]
    client.server.add_repo(ALIKE.repo, dict.fromkeys(files, CONTENT))
    outcome = client.call(model=ALIKE)
    assert outcome.error == "DownloadError"
    assert f"several files that may be mambair-real-x4: {files[0]}, {files[1]}; pass" in outcome.message
    assert "--weights" in outcome.message
    assert client.server.downloads() == []


def test_a_file_of_another_spelling_is_held_to_the_hash(client: Client) -> None:
    client.server.add_repo(ALIKE.repo, {"MambaIRv1_ckpt/MambaIR-real.pth": CONTENT})
    outcome = client.call(model=find_model("mambair-real-x4"))
    assert outcome.error == "WrongFileError"
    assert client.blobs() == client.links() == []


def test_a_missing_file_is_answered_by_what_there_is(client: Client) -> None:
    names = [f"ckpt/{name}.pth" for name in ("frist", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j")]
    client.server.add_repo(MODEL.repo, dict.fromkeys(["README.md", *names], b"x"))
    outcome = client.call()
    assert outcome.error == "DownloadError"
    assert "lacks the file of trial-x4: ckpt/first.pth (or 1 other spelling)" in outcome.message
    assert "it has ckpt/frist.pth, " in outcome.message
    assert outcome.message.count(".pth") == 1 + 8
    assert "and 3 more" in outcome.message
    assert "README" not in outcome.message
    assert "--weights" in outcome.message

    client.server.add_repo(MODEL.repo, {"README.md": b"x"})
    assert "it has no checkpoint at all" in client.call().message
