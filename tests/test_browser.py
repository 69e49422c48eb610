"""The pages in a real browser: what people do on them, and what no other page can do.

They need Chromium (Debian: `apt install chromium`) and Playwright (an extra of development).
"""

import http.server
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import read_data
from PIL import Image
from restore_server import ask, serving

from mambair_cli.cli import main
from mambair_cli.images.discovery import find_sources
from mambair_cli.pages.training import write_report
from mambair_cli.server.address import LOOPBACK, Address

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

DOCS = Path(__file__).parents[1] / "docs"
PHONE = {"width": 390, "height": 800}
LONG = 60_000  # milliseconds
DROP = """(drop, [name, data]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name));
    for (const type of ["dragenter", "dragover", "drop"]) {
        drop.dispatchEvent(new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright.expect.set_options(timeout=LONG)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with serving(Address(None, LOOPBACK, 0)) as address:
        yield address


@pytest.fixture
def page(browser: Any, server: Address) -> Iterator[Any]:
    """The server's page, which may log no error but those that a test expects."""
    opened = browser.new_page(accept_downloads=True)
    opened.set_default_timeout(LONG)
    opened.mistakes, opened.choosers = [], []
    opened.on("filechooser", lambda chooser: opened.choosers.append(chooser))
    opened.on("pageerror", lambda error: opened.mistakes.append(str(error)))
    opened.on("console", lambda line: line.type == "error" and opened.mistakes.append(line.text))
    opened.goto(str(server))
    playwright.expect(opened.locator("#where")).to_contain_text("it computes on cpu")
    yield opened
    opened.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def finish(page: Any, text: str = "finished") -> None:
    playwright.expect(page.locator("#said")).to_contain_text(text, timeout=LONG)


def save(page: Any, button: str) -> tuple[str, bytes]:
    """Press a button that saves a file; return its name and bytes."""
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_a_dropped_picture_is_restored_compared_and_saved_as_by_the_command(page: Any, photo: Path) -> None:
    import base64

    page.locator("#drop").evaluate(DROP, ["photo.png", base64.b64encode(photo.read_bytes()).decode()])
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page)
    name, data = save(page, "Download: photo.png")
    command = ["upscale", str(photo), "-s", "2", "--offline", "--device", "cpu"]
    assert main([*command, "-o", str(photo.with_name("large.png"))]) == 0
    assert (name, data) == ("photo_x2.png", photo.with_name("large.png").read_bytes())
    # The comparison has opened; the slider uncovers what is below.
    slider = page.get_by_label("Border between the left and the right picture")
    right = page.locator(".pane >> nth=0").locator("img >> nth=1")
    before = right.evaluate("image => image.style.clipPath")
    slider.focus()
    for _ in range(50):
        slider.press("ArrowLeft")
    assert right.evaluate("image => image.style.clipPath") != before
    page.locator(".stage").hover()  # scrolls it into sight
    box = page.locator(".handle").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 1, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, middle)
    page.mouse.up()
    assert page.locator(".handle").bounding_box()["x"] == pytest.approx(box["x"] + 200, abs=3)
    page.mouse.click(box["x"] + 120, middle + 30)  # next to the handle
    assert page.locator(".handle").bounding_box()["x"] == pytest.approx(box["x"] + 120, abs=3)
    page.mouse.move(box["x"] + 60, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, middle)  # moves the picture, not the slider
    page.mouse.up()
    assert page.locator(".handle").bounding_box()["x"] == pytest.approx(box["x"] + 120, abs=3)
    assert page.mistakes == []


def test_all_results_are_saved_in_a_zip_file(page: Any, photo: Path) -> None:
    twin = photo.with_name("deep") / photo.name
    twin.parent.mkdir()
    shutil.copy(photo, twin)
    page.set_input_files("#files", [photo, twin])
    page.get_by_label("Remove JPEG artefacts").check()
    page.locator("#format").select_option("webp")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 2 done")
    name, data = save(page, "Download all (ZIP)")
    assert name == "restored.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["photo_dejpeg.webp", "photo_dejpeg (2).webp"]
        assert Image.open(io.BytesIO(archive.read("photo_dejpeg.webp"))).size == (96, 72)
    assert page.mistakes == []


def drop(page: Any, *paths: Path) -> None:
    """Drop files and folders on the page, as from a file manager."""
    devices = page.context.new_cdp_session(page)
    data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devices.send("Input.dispatchDragEvent", {"type": kind, "x": 200, "y": 300, "data": data})


def test_a_dropped_folder_gives_its_pictures_as_the_command_finds_them(page: Any, photo: Path) -> None:
    folder, small = photo.with_name("my.pics"), Image.open(photo).resize((12, 9))
    taken = ["B.JPG", "b.png", "sub/a.b.tif", "sub/deep/b.png", "sub/deep/c_x2.webp"]
    results, hidden = ["b_x2.png", "sub/a.b_dejpeg.png"], [".hidden.png", ".trash/c.png"]
    for name in (*taken, *results, *hidden):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        small.save(folder / name)
    for name in ("notes.txt", "sub/more.TXT", "sub/deep/b"):
        (folder / name).write_text("no picture")
    drop(page, folder)
    playwright.expect(page.locator("#said")).to_have_text(
        "5 pictures added; "
        "left out 3 files of formats that are not supported: 2 .txt, 1 without a suffix; such as "
        "my.pics/notes.txt; left out 2 pictures that are results, such as my.pics/b_x2.png; "
        "drop them alone to restore them, too"
    )
    shown = page.locator("#list h2").all_inner_texts()
    assert shown == [f"my.pics/{name}" for name in taken]
    assert [photo.parent / name for name in shown] == [each.path for each in find_sources([str(folder)])]
    page.get_by_label("Remove JPEG artefacts").check()
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 5 done")
    assert save(page, "Download: my.pics/sub/a.b.tif")[0] == "a.b_dejpeg.tif"
    with zipfile.ZipFile(io.BytesIO(save(page, "Download all (ZIP)")[1])) as archive:
        assert archive.namelist() == [
            "my.pics/B_dejpeg.jpg",
            "my.pics/b_dejpeg.png",
            "my.pics/sub/a.b_dejpeg.tif",
            "my.pics/sub/deep/b_dejpeg.png",
            "my.pics/sub/deep/c_x2_dejpeg.webp",
        ]
    assert page.mistakes == []


def test_folders_and_pictures_are_dropped_together(page: Any, photo: Path) -> None:
    many, empty = photo.with_name("many"), photo.with_name("empty")
    many.mkdir()
    empty.mkdir()
    for index in range(130):  # a reader gives 100 at a time
        Image.new("L", (2, 2)).save(many / f"{index:03}.png")
    drop(page, photo, many, empty)
    playwright.expect(page.locator("#said")).to_have_text(
        "131 pictures added; no pictures in the folder: empty"
    )
    playwright.expect(page.locator("#list .facts").last).to_contain_text("2×2 pixels")
    assert page.locator("#list h2").nth(0).inner_text() == "photo.png"
    assert page.locator("#list h2").nth(130).text_content() == "many/129.png"
    drop(page, empty)
    playwright.expect(page.locator("#said")).to_have_text("no pictures in the folder: empty")
    assert page.mistakes == []


def test_pictures_that_are_removed_before_their_turn_are_not_looked_at(page: Any, photo: Path) -> None:
    held: list[Any] = []
    asked: list[str] = []

    def hold(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) > 3:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/inspect", hold)
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        photo.with_name(name).write_bytes(photo.read_bytes())
    page.set_input_files("#files", [photo.with_name(name) for name in names])
    for _ in range(500):
        if len(held) == 3:
            break
        page.wait_for_timeout(20)
    for name in names[3:5]:
        page.get_by_label(f"Remove: {name}").click()
    playwright.expect(page.locator("#list li")).to_have_count(4)
    for route in held:
        route.continue_()
    for facts in page.locator("#list .facts").all():
        playwright.expect(facts).to_contain_text("pixels")
    assert len(asked) == 4
    assert page.mistakes == []


def test_an_animation_is_saved_as_gif(page: Any, photo: Path) -> None:
    frames = [Image.new("RGB", (12, 9), color) for color in ("red", "green", "blue")]
    frames[0].save(photo.with_name("moving.webp"), save_all=True, append_images=frames[1:], duration=90)
    page.set_input_files("#files", photo.with_name("moving.webp"))
    page.get_by_label("Remove JPEG artefacts").check()
    page.locator("#format").select_option("gif")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 1 done")
    name, data = save(page, "Download: moving.webp")
    with Image.open(io.BytesIO(data)) as saved:
        assert (name, saved.format, saved.n_frames) == ("moving_dejpeg.gif", "GIF", 3)
    assert page.mistakes == []


def test_a_picture_that_browsers_cannot_show_is_shown_all_the_same(page: Any, photo: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30), dtype=np.uint16)
    Image.fromarray(deep).save(photo.with_name("scan.tif"))
    page.set_input_files("#files", photo.with_name("scan.tif"))
    image = page.locator("#list img")
    playwright.expect(image).to_be_visible()
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [30, 20]


def refuse_to_show(route: Any) -> None:
    route.fulfill(status=422, json={"kind": "ImageError", "message": "it has more than 50 pixels"})


def test_a_result_that_cannot_be_shown_is_there_all_the_same(page: Any, photo: Path) -> None:
    page.set_input_files("#files", photo)
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")
    page.locator("#format").select_option("tiff")
    page.locator("#scale").select_option("2")
    page.route("**/v1/show", refuse_to_show)
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 1 done")
    playwright.expect(page.locator("#list .done")).to_contain_text("it cannot be shown here")
    assert not page.get_by_role("button", name="Compare: photo.png").is_visible()
    name, data = save(page, "Download: photo.png")
    assert (name, Image.open(io.BytesIO(data)).size) == ("photo_x2.tif", (192, 144))


def test_a_picture_that_cannot_be_shown_is_restored_all_the_same(page: Any, photo: Path) -> None:
    Image.open(photo).save(photo.with_name("scan.tif"))
    page.route("**/v1/show", refuse_to_show)
    page.set_input_files("#files", photo.with_name("scan.tif"))
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")
    page.locator("#format").select_option("png")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 1 done")
    assert not page.get_by_role("button", name="Compare: scan.tif").is_visible()


def test_a_zip_file_that_would_be_broken_is_refused_and_nothing_counts_as_saved(
    page: Any, photo: Path
) -> None:
    for size, number in ((2**31, 2), (0, 65_536)):
        message = page.evaluate(
            """([size, number]) => makeZip(Array.from({length: number}, () => ({name: "a", blob: {size,
                arrayBuffer: () => { throw new Error("it is read"); }}}))).catch((error) => error.message)""",
            [size, number],
        )
        assert "a ZIP file holds 65,535 files and 4 GiB at most; save" in message
    shutil.copy(photo, photo.with_name("twin.png"))
    page.set_input_files("#files", [photo, photo.with_name("twin.png")])
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 2 done")
    is_saved = "() => items.map((item) => item.isSaved)"
    page.evaluate(
        "() => { window.realZip = makeZip; makeZip = async () => { throw new Error('no room'); }; }"
    )
    page.get_by_role("button", name="Download all (ZIP)").click()
    finish(page, "no room")
    assert page.evaluate(is_saved) == [False, False]
    page.evaluate("() => { makeZip = realZip; }")
    save(page, "Download all (ZIP)")
    assert page.evaluate(is_saved) == [True, True]


def test_a_change_of_one_picture_leaves_the_rows_of_others_alone(page: Any, photo: Path) -> None:
    copies = [Path(shutil.copy(photo, photo.with_name(f"{n}.png"))) for n in range(12)]
    page.evaluate("() => { window.described = 0; const real = describe; "
                  "describe = (...given) => { described++; return real(...given); }; }")  # fmt: skip
    page.set_input_files("#files", copies)
    page.wait_for_function("() => items.length === 12 && items.every((item) => item.facts)")
    assert page.evaluate("() => described") <= 3 * 12  # each when it is added, and when it was looked at


def test_a_broken_file_is_named_in_plain_words_and_stops_no_other(page: Any, photo: Path) -> None:
    broken = photo.with_name("broken.png")
    broken.write_bytes(photo.read_bytes()[:60])
    page.set_input_files("#files", [broken, photo])
    playwright.expect(page.locator("#list .failed")).to_contain_text("cannot read")
    assert str(photo.parent) not in page.content()
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 1 done, 1 failed")
    assert page.get_by_role("button", name="Start").is_enabled()
    page.get_by_role("button", name="Again: photo.png").click()
    playwright.expect(page.locator("#said")).to_have_text("finished: 1 done")  # it is said once


@pytest.mark.parametrize("name", ["cut.jpg", "cut.tif"])  # browsers show part of one, nothing of the other
def test_a_cut_file_is_reported_in_words_of_the_page_and_restored_by_them(
    page: Any, photo: Path, name: str
) -> None:
    whole = io.BytesIO()
    Image.open(photo).save(whole, "JPEG" if name.endswith("jpg") else "TIFF")
    cut = photo.with_name(name)
    cut.write_bytes(whole.getvalue()[: len(whole.getvalue()) * 3 // 5])
    page.set_input_files("#files", cut)
    failure = page.locator("#list .failed")
    words = "try another copy, or tick “Restore what is left of damaged files”"
    playwright.expect(failure).to_contain_text(words)
    assert "damaged=" not in failure.inner_text()
    start = page.get_by_role("button", name="Start")
    assert start.is_disabled()
    page.get_by_label("Restore what is left of damaged files").check()
    page.locator("#scale").select_option("2")
    start.click()
    finish(page, "finished: 1 done")
    playwright.expect(page.locator("#list .done")).to_contain_text("damaged")
    assert [line for line in page.mistakes if "422" not in line] == []


def test_the_model_that_noise_gets_is_named(page: Any, photo: Path) -> None:
    clean = np.asarray(Image.open(DOCS / "cat.png").convert("RGB").resize((256, 256)), np.float32)
    own, shared = np.random.default_rng(0).normal(size=(2, *clean.shape))
    page.get_by_label("Remove noise").check()
    noises = {"white noise": own, "noise of any kind": 0.7 * own + 0.7 * shared[..., :1]}
    for kind, noise in noises.items():
        path = photo.with_name(f"{kind}.png")
        Image.fromarray((clean + 20 * noise).clip(0, 255).round().astype(np.uint8)).save(path)
        page.set_input_files("#files", path)
        facts = page.locator("#list .facts").last
        playwright.expect(facts).to_contain_text(f"the model for {kind} suits")


def test_the_task_that_suits_a_compressed_picture_is_named(page: Any, photo: Path) -> None:
    path = photo.with_name("saved.jpg")
    Image.open(DOCS / "kitten_sharp.png").convert("RGB").crop((0, 0, 256, 256)).save(path, quality=40)
    page.get_by_label("Remove noise").check()
    page.set_input_files("#files", path)
    words = "“Remove JPEG artefacts” does better where there is no noise"
    playwright.expect(page.locator("#list .facts").last).to_contain_text(words)


def test_a_format_without_transparency_is_refused_in_words_of_the_page(page: Any, photo: Path) -> None:
    Image.new("RGBA", (60, 60), (90, 90, 90, 90)).save(photo)
    page.set_input_files("#files", photo)
    page.locator("#format").select_option("jpeg")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 0 done, 1 failed")
    failure = page.locator("#list .failed").inner_text()
    assert failure.endswith("jpeg has no room for transparency; save as PNG, WebP or TIFF, which keep it")


def test_a_page_asks_for_a_file_that_has_changed_since_to_be_chosen_again(page: Any, photo: Path) -> None:
    page.set_input_files("#files", photo)
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")
    photo.write_bytes(photo.read_bytes() + bytes(100))
    page.get_by_role("button", name="Start").click()
    playwright.expect(page.locator("#list .failed")).to_contain_text("the file has changed or is gone")
    finish(page, "finished: 0 done, 1 failed")


def test_a_comparison_follows_its_picture_and_closes_with_escape(page: Any, photo: Path) -> None:
    other = photo.with_name("other.png")
    shutil.copy(photo, other)
    page.set_input_files("#files", [photo, other])
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page)
    page.get_by_role("button", name="Compare: photo.png").click()
    page.locator("#scale").select_option("3")
    page.get_by_role("button", name="Again: photo.png").click()
    playwright.expect(page.locator("#viewer table").first).to_contain_text("288×216")
    shown = page.locator(".pane >> nth=0").locator("img >> nth=1")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") == 288
    page.locator(".stage").focus()
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#compare")).to_be_hidden()
    focused = page.locator("*:focus")
    playwright.expect(focused).to_have_attribute("aria-label", "Compare: photo.png")
    assert page.mistakes == []


def test_what_is_transparent_shows_nothing_of_the_other_picture(browser: Any, tmp_path: Path) -> None:
    clear = np.zeros((40, 60, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "full.png")
    page = tmp_path / "page.html"
    assert main(["compare", str(tmp_path / "full.png"), str(tmp_path / "clear.png"), "-o", str(page)]) == 0
    opened = browser.new_page()
    opened.goto(page.as_uri())
    playwright.expect(opened.locator(".score")).to_contain_text("%")
    box = opened.locator(".pane >> nth=0").bounding_box()
    shot = np.asarray(Image.open(io.BytesIO(opened.screenshot())).convert("RGB")).astype(int)
    middle = int(box["y"] + box["height"] / 4)
    left, right = (shot[middle, int(box["x"] + share * box["width"])] for share in (0.4, 0.6))
    assert (abs(left - 200) <= 2).all()
    assert (abs(right - 200) > 40).all()
    opened.close()


def test_the_difference_is_what_is_seen(browser: Any, tmp_path: Path) -> None:
    for name, pixel in (("a", (0, 0, 0, 0)), ("b", (90, 90, 90, 0)), ("c", (0, 0, 0, 128))):
        Image.new("RGBA", (8, 8), pixel).save(tmp_path / f"{name}.png")
    page = tmp_path / "page.html"
    assert main(["compare", *(str(tmp_path / f"{name}.png") for name in "abc"), "-o", str(page)]) == 0
    opened = browser.new_page()
    opened.goto(page.as_uri())
    opened.locator(".stage").focus()
    opened.keyboard.press("d")
    opened.get_by_label("Difference times").select_option("1")
    drawn = (
        """canvas => canvas.width === 8 ? [...canvas.getContext("2d").getImageData(4, 4, 1, 1).data] : null"""
    )
    for right, seen in (("1", [0, 0, 0, 255]), ("2", [128, 128, 128, 255])):
        opened.locator("select").nth(1).select_option(right)
        opened.wait_for_timeout(300)  # pictures are decoded
        assert opened.locator("canvas:visible").first.evaluate(drawn) == seen
    opened.close()


def test_a_picture_is_stopped_while_it_is_restored(page: Any, server: Address, photo: Path) -> None:
    large = photo.with_name("large.png")
    Image.open(photo).resize((990, 990), Image.Resampling.BICUBIC).save(large)
    page.set_input_files("#files", large)
    page.get_by_role("button", name="Start").click()
    playwright.expect(page.locator("#list .restoring")).to_contain_text("tiles", timeout=LONG)
    page.get_by_role("button", name="Stop: large.png").click()
    playwright.expect(page.locator("#list .stopped")).to_be_visible()
    finish(page)
    wait_until_idle(page, server)


def wait_until_idle(page: Any, server: Address) -> None:
    """Wait until the server has no picture."""
    for _ in range(600):
        if b'"waiting":0' in ask(server, "GET", "/v1/health")[2]:
            return
        page.wait_for_timeout(100)
    pytest.fail("the server still has a picture")


def test_an_upload_is_stopped_and_the_server_forgets_it(page: Any, server: Address, photo: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photo.with_name("noise.png"))
    page.set_input_files("#files", photo.with_name("noise.png"))
    playwright.expect(page.locator("#list")).to_contain_text("900×900 pixels")
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    slow.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000},
    )
    page.get_by_role("button", name="Start").click()
    playwright.expect(page.locator("#list .sending")).to_have_text("is sent")
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Stop: noise.png").click()
    finish(page, "finished: 0 done, 1 stopped")
    wait_until_idle(page, server)
    assert page.mistakes == []


def test_a_pasted_picture_is_added(page: Any, photo: Path) -> None:
    import base64

    paste = DROP.replace("dragenter", "paste").split("for (const")[0]
    paste += "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer})); }"
    page.locator("body").evaluate(paste, ["photo.png", base64.b64encode(photo.read_bytes()).decode()])
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")


def test_the_keyboard_is_enough(page: Any, photo: Path) -> None:
    page.keyboard.press("Tab")
    playwright.expect(page.locator("#files")).to_be_focused()
    page.keyboard.press("Space")
    while not page.choosers:
        page.wait_for_timeout(50)
    page.choosers[0].set_files(photo)
    playwright.expect(page.locator("#list")).to_contain_text("96×72 pixels")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # the task
    assert page.get_by_label("Remove noise").is_checked()
    start = page.get_by_role("button", name="Start")
    for _ in range(6):
        if start.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    finish(page)
    page.keyboard.press("Tab")  # from the title of the comparison, which has the focus, to its tools
    for key, mode in (("b", "side"), ("f", "flicker"), ("d", "difference"), ("s", "slider")):
        page.locator(".stage").focus()
        page.keyboard.press(key)
        playwright.expect(page.locator(".stage")).to_have_class(f"stage {mode}")
    assert page.mistakes == []


WATCH = """() => {
    window.heard = [];
    const said = document.querySelector("[role=status]");
    new MutationObserver(() => heard.push(said.textContent))
        .observe(said, {childList: true, characterData: true, subtree: true});
}"""
NO_IMAGE = "cannot read the image: it is no image of a known kind"


def test_what_fails_is_said_with_its_name_and_its_reason(page: Any, photo: Path) -> None:
    names = [f"no-{number}.png" for number in range(5)]
    for name in names:
        photo.with_name(name).write_text("no picture")
    page.evaluate(WATCH.replace("[role=status]", "#said"))
    page.set_input_files("#files", [photo, photo.with_name(names[0])])
    finish(page, f"{names[0]}: {NO_IMAGE}")
    page.set_input_files("#files", [photo.with_name(name) for name in names[1:]])
    finish(page, "1 other failed, too")
    heard = page.evaluate("heard")
    assert heard[0] == "2 pictures added"
    assert [name for name in names if name in heard[-1]] == names[1:4]
    assert not any(names[0] in said for said in heard[2:])  # it is said once
    for name in names[2:]:
        page.get_by_label(f"Remove: {name}").click()
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 1 done, 2 failed. no-0.png: cannot read")
    assert f"no-1.png: {NO_IMAGE}" in page.locator("#said").inner_text()
    Image.new("RGBA", (60, 60), (90, 90, 90, 90)).save(photo.with_name("clear.png"))
    page.set_input_files("#files", photo.with_name("clear.png"))
    page.locator("#format").select_option("jpeg")
    page.get_by_role("button", name="Start").click()
    finish(page, "finished: 0 done, 1 failed. clear.png: ")
    assert "has no room for transparency" in page.locator("#said").inner_text()


def test_the_focus_stays_where_a_button_was_pressed(page: Any, photo: Path) -> None:
    names = [photo.name, "b.png", "c.png"]
    for name in names[1:]:
        shutil.copy(photo, photo.with_name(name))
    page.set_input_files("#files", [photo.with_name(name) for name in names])
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page)
    page.route("**/v1/upscale*", lambda route: None)  # the picture is sent for ever
    focused = page.locator("*:focus")

    def press(name: str, then: str) -> None:
        page.get_by_label(name, exact=True).focus()
        page.keyboard.press("Enter")
        playwright.expect(focused).to_have_attribute("aria-label", then)

    press("Again: b.png", "Stop: b.png")
    press("Stop: b.png", "Again: b.png")
    finish(page, "finished: 0 done, 1 stopped")
    page.get_by_label("Compare: b.png").click()
    press("Remove: b.png", "Remove: c.png")
    playwright.expect(page.locator("#compare")).to_be_hidden()
    playwright.expect(page.locator("#said")).to_have_text("b.png removed")
    press("Remove: c.png", "Remove: photo.png")
    page.keyboard.press("Enter")
    playwright.expect(focused).to_have_id("files")


def test_a_picture_that_waits_for_another_says_so(
    page: Any, browser: Any, server: Address, photo: Path
) -> None:
    large = photo.with_name("large.png")
    Image.open(photo).resize((990, 990), Image.Resampling.BICUBIC).save(large)
    page.set_input_files("#files", large)
    page.get_by_role("button", name="Start").click()
    playwright.expect(page.locator("#list .restoring")).to_contain_text("tiles", timeout=LONG)
    other = browser.new_page()
    other.goto(str(server))
    other.set_input_files("#files", photo)
    playwright.expect(other.locator("#list")).to_contain_text("96×72 pixels")
    other.get_by_role("button", name="Start").click()
    playwright.expect(other.locator("#list .waiting")).to_have_text("waits for the server")
    page.get_by_role("button", name="Stop: large.png").click()
    finish(other, "finished: 1 done")
    other.close()
    wait_until_idle(page, server)


def test_a_file_that_is_too_large_for_the_server_is_sent_once(browser: Any, photo: Path) -> None:
    with serving(Address(None, LOOPBACK, 0), max_bytes=1024) as address:
        opened = browser.new_page()
        opened.goto(str(address))
        opened.set_input_files("#files", photo)
        failure = opened.locator("#list .failed")
        playwright.expect(failure).to_contain_text(
            "the image has more than 1 KiB; start the server with a larger"
        )
        assert opened.get_by_role("button", name="Start").is_disabled()
        opened.close()


def test_pages_say_that_they_need_scripts(
    browser: Any, server: Address, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(["compare", photo.name, photo.name]) == 0
    without = browser.new_context(java_script_enabled=False)
    opened = without.new_page()
    for page in (str(server), Path("compare.html").absolute().as_uri()):
        opened.goto(page)
        playwright.expect(opened.locator("noscript p")).to_contain_text("JavaScript is off")
        playwright.expect(opened.locator("noscript p")).to_be_visible()
    without.close()


def test_a_comparison_gives_its_slider_in_per_cent_and_says_nothing_twice(
    browser: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    assert main(["compare", photo.name, photo.name]) == 0
    opened = browser.new_page()
    opened.goto(Path("compare.html").absolute().as_uri())
    slider = opened.get_by_label("Border between the left and the right picture")
    assert slider.get_attribute("aria-valuetext") == "50 %"
    opened.evaluate(WATCH)
    slider.focus()
    for _ in range(4):
        opened.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "52 %"
    assert opened.evaluate("heard") == []
    opened.keyboard.press("b")  # the slider goes, and the focus stays in the viewer
    playwright.expect(opened.locator(".stage")).to_be_focused()
    opened.keyboard.press("+")
    heard = opened.evaluate("heard")
    assert len(heard) == len(set(heard)) > 0
    opened.close()


def test_a_phone_needs_no_scrolling_sideways(page: Any, photo: Path) -> None:
    page.set_viewport_size(PHONE)
    page.set_input_files("#files", photo)
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page)
    assert page.locator("html").evaluate("html => html.scrollWidth") <= PHONE["width"]
    assert page.locator(".stage").bounding_box()["width"] > 300
    page.set_viewport_size({"width": 320, "height": 640})  # as 1280 pixels with a zoom of 400 %
    assert page.locator("html").evaluate("html => html.scrollWidth") <= 320
    page.goto(page.url + "docs")
    assert page.locator("html").evaluate("html => [innerWidth, html.scrollWidth]") == [320, 320]


def test_names_of_any_length_fit_into_every_page(browser: Any, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    long = "a_name_of_a_scan_" * 14
    for number, folder in enumerate(("truth", "done")):
        Path(folder).mkdir()
        for name in (long, "short"):
            pixels = np.random.default_rng(number).integers(0, 256, (140, 150, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{name}.png")
    photo = f"truth/{long}.png"
    assert main(["evaluate", "truth", "--restored", "done", "--page", "measured.html"]) == 0
    assert main(["compare", "truth", "done"]) == 0
    assert main(["compare", photo, f"done/{long}.png", "truth/short.png", "-o", "page.html"]) == 0
    settings = {"task": "denoise", "folder": f"/home/me/{long}"}
    example = {long: read_data(Path("page.html"))["pictures"][0]["source"]}
    lines = [
        {"step": 1, "seconds": 1, "loss": 1, "learning_rate": 1},
        {"step": 1, "seconds": 1, f"psnr_{long}": 30},
    ]
    report = write_report(long, settings, lines, example, example, {1: example})
    Path("report.html").write_text(report, encoding="utf-8")
    pages = [*tmp_path.glob("*.html"), *Path("compare").rglob("*.html")]
    assert len(pages) == 6
    opened = browser.new_page(viewport={"width": 320, "height": 640})
    for page in pages:
        opened.goto(page.absolute().as_uri())
        assert opened.locator("html").evaluate("html => html.scrollWidth") <= 320, page
    opened.close()


def test_everything_has_a_name_for_screen_readers(page: Any, photo: Path) -> None:
    page.set_input_files("#files", photo)
    page.locator("#scale").select_option("2")
    page.get_by_role("button", name="Start").click()
    finish(page)
    nameless = page.locator("button, select, input, a").evaluate_all(
        """all => all.filter((each) => !(each.textContent.trim() || each.getAttribute("aria-label")
            || each.labels?.length)).map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("html").get_attribute("lang") == "en"


def test_a_page_of_another_site_gets_nothing(browser: Any, server: Address, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>other</title>")
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    other = http.server.ThreadingHTTPServer((LOOPBACK, 0), lambda *a: handler(*a, directory=str(tmp_path)))
    threading.Thread(target=other.serve_forever, daemon=True).start()
    opened = browser.new_page()
    statuses: list[int] = []
    opened.on("response", lambda response: str(server) in response.url and statuses.append(response.status))
    opened.goto(f"http://127.0.0.1:{other.server_port}/")
    asked = opened.evaluate(
        """async (server) => {
            const tries = [["/v1/health", {}], ["/v1/upscale?scale=2", {method: "POST", body: "x"}],
                ["/v1/inspect", {method: "POST", body: "x", mode: "no-cors"}]];
            return Promise.all(tries.map(([path, options]) =>
                fetch(server + path, options).then((answer) => answer.type, () => "refused")));
        }""",
        str(server),
    )
    assert asked == ["refused", "refused", "opaque"]
    assert set(statuses) == {403}
    opened.close()
    other.shutdown()
    other.server_close()


def test_a_comparison_works_from_the_disk(browser: Any, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    Image.open(photo).resize((24, 18), Image.Resampling.BICUBIC).save("small.png")
    assert main(["compare", "small.png", "photo.png"]) == 0
    opened = browser.new_page(viewport=PHONE, color_scheme="dark")
    mistakes: list[str] = []
    opened.on("pageerror", lambda error: mistakes.append(str(error)))
    opened.on("console", lambda line: mistakes.append(line.text))
    requests: list[str] = []
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((photo.parent / "compare.html").as_uri())
    playwright.expect(opened.locator(".score")).to_contain_text("PSNR")
    opened.keyboard.press("d")
    canvas = opened.locator(".pane canvas >> nth=0")
    playwright.expect(canvas).to_be_visible()
    small = np.asarray(Image.open("small.png").resize((96, 72), Image.Resampling.BICUBIC)).astype(int)
    wanted = np.abs(small - np.asarray(Image.open(photo))).clip(0, 255)
    opened.get_by_label("Difference times").select_option("1")
    playwright.expect(canvas).to_have_js_property("width", 96)
    drawn = canvas.evaluate(
        "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    np.testing.assert_array_equal(np.array(drawn).reshape(72, 96, 4)[..., :3], wanted)
    assert opened.locator("html").evaluate("html => html.scrollWidth") <= PHONE["width"]
    assert mistakes == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    opened.close()
