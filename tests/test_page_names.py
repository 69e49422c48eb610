"""Names of files that are not UTF-8, in pages for the browser."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from pages import read_data
from pictures import save_photo

from mambair_cli.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
NAME = os.fsdecode(b"bad\xff.png")
SHOWN = "bad\N{REPLACEMENT CHARACTER}"
LOCAL = ("--offline", "--device", "cpu")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        for name in (NAME, "good.png"):
            save_photo(Path(folder, name), (60, 56))


@pytest.mark.parametrize(
    "command",
    [
        ("compare", f"a/{NAME}", f"b/{NAME}", "-o", "page.html"),
        ("upscale", f"a/{NAME}", "-s", "2", "--preview", "-o", "page.html", *LOCAL),
    ],
)
def test_a_page_shows_a_sign_for_each_byte_of_a_name_that_is_no_text(command: tuple[str, ...]) -> None:
    assert main(command) == 0
    assert SHOWN in read_data(Path("page.html"))["pictures"][0]["name"]


@pytest.mark.parametrize(
    ("command", "index"),
    [
        (("compare", "a", "b", "-o", "pages"), "pages/index.html"),
        (("upscale", "a", "-s", "2", "-o", "out", "--compare", *LOCAL), "out/compare/index.html"),
    ],
)
def test_an_index_leads_to_the_page_of_each_name(command: tuple[str, ...], index: str) -> None:
    assert main(command) == 0
    text = Path(index).read_text("utf-8")
    assert f"<span>{SHOWN}.png</span>" in text
    links = [os.fsdecode(unquote_to_bytes(link)) for link in re.findall(r'href="([^"]+)"', text)]
    assert {Path(link).name for link in links} == {f"{NAME}.html", "good.png.html"}
    for link in links:
        page = Path(index).parent / link
        assert f'<a href="../{Path(index).name}">' in page.read_text("utf-8")


@pytest.mark.parametrize(
    "options",
    [("--task", "denoise", "--sigma", "15"), ("--task", "upscale", "-s", "2", "--degradation", "real")],
)
def test_such_names_are_measured(options: tuple[str, ...]) -> None:
    assert main(["evaluate", "a", *options, "--page", "page.html", *LOCAL]) == 0
    assert f'<th scope="row">{SHOWN}</th>' in Path("page.html").read_text("utf-8")
