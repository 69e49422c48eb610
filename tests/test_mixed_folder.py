"""Thirty files as people have them: a look chooses for each what a careful person wrote down before."""

import pytest
from mixed_folder import FILES, make_folder
from repository import SHARED

from mambair_cli.images import open_picture
from mambair_cli.inspection.need import Need
from mambair_cli.inspection.picture import find_need_of

FEWEST_AGREED = 28

pytestmark = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the shared pictures")


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Need]:
    folder = tmp_path_factory.mktemp("mixed")
    make_folder(SHARED, folder)
    found = {}
    for path in sorted(folder.iterdir()):
        with open_picture(path) as reader:
            found[path.name] = find_need_of(path, reader.header, reader.read)
    return found


def test_the_model_is_the_one_that_a_careful_person_would_choose(needs: dict[str, Need]) -> None:
    assert len(needs) == len(FILES) == 30
    disagreed = {
        file.name: (file.upscale, needs[file.name])
        for file in FILES
        if (needs[file.name].kind == "clean") != (file.upscale == "clean")
    }
    assert len(FILES) - len(disagreed) >= FEWEST_AGREED, disagreed


def test_a_sigma_is_estimated_where_a_person_would_give_one(needs: dict[str, Need]) -> None:
    estimated = {name: need.sigma for name, need in needs.items() if need.sigma is not None}
    wanted = {file.name: file.sigma for file in FILES if file.sigma is not None}
    assert estimated == pytest.approx(wanted, rel=0.25)


def test_what_was_enlarged_before_is_said_to_be_so(needs: dict[str, Need]) -> None:
    for file in FILES:
        need = needs[file.name]
        if file.reduce > 1:
            assert file.reduce / 1.5 < need.reduce < file.reduce * 1.5
        elif need.kind == "clean":  # noise and compression hide what detail there is
            assert need.reduce == 1
