"""Pictures in a terminal: which terminals are asked, what their answers mean, and what they are sent."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("termios", reason="needs pseudo-terminals")

from picture_terminal import QUESTIONS, Session, read_iterm2, read_kitty, read_sixel, run_in_picture_terminal

from mambair_cli.cli.terminal_pictures import PictureTerminal, arrange, read_answer, write_picture
from mambair_cli.pages.screen import ScreenPicture

PLAIN = {"attributes": b"\x1b[?62;22c"}
CELL = {"cell": b"\x1b[6;20;10t"}
KITTY = {"kitty": b"\x1b_Gi=31;OK\x1b\\", **CELL, **PLAIN}
ITERM2 = {"iTerm2": b"\x1b]1337;ReportCellSize=10.0;5.0;2.0\x1b\\", **PLAIN}
SIXEL = {"attributes": b"\x1b[?62;4;22c"}
ALL_QUESTIONS = b"".join(QUESTIONS.values())

# Shows a red, a green and a blue picture, the second one of half the size, and prints a line afterwards.
SHOW = """
import numpy as np
from mambair_cli.cli.terminal_pictures import show_in_terminal
from mambair_cli.pages.screen import ScreenPicture
pictures = []
for place, (name, side) in enumerate([("red", 40), ("green", 20), ("blue", 40)]):
    pixels = np.zeros((side, 2 * side, 3), np.uint8)
    pixels[..., place] = 255
    pictures.append(ScreenPicture(name, pixels, (2 * side, side)))
show_in_terminal(pictures)
print("done")
"""


GO_TO_BACKGROUND = """
import os
if child := os.fork():
    os.waitpid(child, 0)
    os._exit(0)
os.setpgid(0, 0)
"""


def show(folder: Path, answers: dict[str, bytes], columns: int = 100) -> Session:
    session = run_in_picture_terminal(["-c", SHOW], folder, answers, columns)
    assert (session.code, session.stdout) == (0, b"done\n"), session.shown
    assert session.is_restored
    return session


def check_row(pixels: np.ndarray) -> None:
    """Check the three pictures, each four times as large, with gaps of 8 transparent pixels."""
    assert pixels.shape[0] == 160
    for place in range(3):
        left = place * (320 + 8)
        expected = np.zeros(4, np.uint8)
        expected[[place, 3]] = 255
        assert (pixels[:, left : left + 320] == expected).all()
        assert not pixels[:, left + 320 : left + 328, 3].any()


# Terminals


def test_kitty_is_sent_a_png_in_chunks(tmp_path):
    session = show(tmp_path, KITTY)
    ((keys, pixels),) = read_kitty(session.shown)
    assert keys.items() >= {"a": "T", "f": "100", "q": "2", "c": "98", "r": "8"}.items()
    assert pixels.shape == (8 * 20, 98 * 10, 4)  # whole characters: nothing is resampled
    check_row(pixels)
    assert b"mambair: from left to right: red, green, blue\r\n\x1b_G" in session.shown


def test_iterm2_is_sent_a_file(tmp_path):
    ((keys, pixels),) = read_iterm2(show(tmp_path, ITERM2).shown)
    assert keys.items() >= {"inline": "1", "width": "98", "height": "8"}.items()
    check_row(pixels)


def test_a_terminal_with_sixels_is_sent_sixels(tmp_path):
    (pixels,) = read_sixel(show(tmp_path, SIXEL).shown)
    assert pixels.shape == (160, 3 * 328 - 8, 4)
    check_row(pixels)


def test_a_terminal_without_pictures_shows_nothing(tmp_path):
    shown = show(tmp_path, PLAIN).shown
    assert shown == ALL_QUESTIONS + b"\r\x1b[K"


def test_a_terminal_that_does_not_answer_is_not_waited_for(tmp_path):
    shown = show(tmp_path, {}).shown
    assert shown == ALL_QUESTIONS + b"\r\x1b[K"


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_a_terminal_that_takes_no_control_sequences_is_not_asked(tmp_path, kind):
    session = run_in_picture_terminal(["-c", SHOW], tmp_path, KITTY, kind=kind)
    assert (session.code, session.shown, session.stdout) == (0, b"", b"done\n")


def test_a_command_in_the_background_asks_nothing_and_is_not_stopped(tmp_path):
    session = run_in_picture_terminal(["-c", GO_TO_BACKGROUND + SHOW], tmp_path, KITTY)
    assert (session.code, session.shown, session.stdout) == (0, b"", b"done\n")


def test_what_does_not_fit_a_line_goes_to_the_next_one(tmp_path):
    session = show(tmp_path, KITTY, columns=50)
    assert [pixels.shape for _, pixels in read_kitty(session.shown)] == [
        (6 * 20, 49 * 10, 4),
        (6 * 20, 49 * 10, 4),
    ]
    assert b"from left to right: red, green\r\n" in session.shown
    assert b"mambair: blue\r\n" in session.shown


@pytest.mark.parametrize(("options", "is_shown"), [([], True), (["--quiet"], False), (["--json"], False)])
def test_a_preview_is_shown_unless_the_command_is_quiet(tmp_path, options, is_shown):
    Image.new("RGB", (60, 40), "red").save(tmp_path / "in.png")
    command = ["-m", "mambair_cli", "upscale", "in.png", "--model", "tiny-x2", "--preview", "--offline"]
    session = run_in_picture_terminal([*command, *options], tmp_path, KITTY)
    assert (session.code, session.is_restored) == (0, True)
    assert (ALL_QUESTIONS in session.shown) == is_shown
    assert [pixels.shape[2] for _, pixels in read_kitty(session.shown)] == [4] * is_shown
    assert b"in_preview.html" in session.stdout


def test_without_a_terminal_nothing_is_asked(run):
    Image.new("RGB", (20, 20), "red").save("in.png")
    code, out, err = run("upscale", "in.png", "--model", "tiny-x2", "--preview", "--offline")
    assert (code, out) == (0, ["in_preview.html"])
    assert err.startswith("mambair: using tiny-x2 on cpu\nmambair: this is a preview")
    assert "\x1b" not in err


# Answers


@pytest.mark.parametrize(
    ("answer", "protocol", "cell"),
    [
        (b"\x1b_Gi=31;OK\x1b\\\x1b[6;18;9t\x1b[?62;4c", "kitty", (9, 18)),
        (b"\x1b_Gi=31;ENOTSUPPORTED:no\x1b\\\x1b[?62;4c", "sixel", (10, 20)),
        (b"\x1b]1337;ReportCellSize=17.0;8.0\x07\x1b[?62;4c", "iTerm2", (8, 17)),
        (b"\x1b]1337;ReportCellSize=15.5;7.5;2.0\x1b\\\x1b[?1;2c", "iTerm2", (15, 31)),
        (b"yes\x1b[6;0;0t\x1b[?64;1;4;22c", "sixel", (10, 20)),
    ],
)
def test_an_answer_gives_the_protocol_and_the_size_of_characters(answer, protocol, cell):
    assert read_answer(answer, 80, 24) == PictureTerminal(protocol, 80, 24, cell)


@pytest.mark.parametrize(
    "answer", [b"", b"\x1b[?1;2c", b"\x1b[?62;14;44c", b"\x1b[?4c", b"\x1b[6;18;9t", b"4;4"]
)
def test_other_answers_mean_no_pictures(answer):
    assert read_answer(answer, 80, 24) is None


# Pictures


def photo(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize("protocol", ["kitty", "iTerm2", "sixel"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (200, 333)])
def test_pictures_of_any_size_arrive(protocol, size):
    pixels = photo(*size)
    terminal = PictureTerminal(protocol, 100, 40, (9, 19))
    data = write_picture(Image.fromarray(pixels).convert("RGBA"), terminal)
    if protocol == "sixel":
        (arrived,) = read_sixel(data)
        assert arrived.shape[:2] == size
        assert np.abs(arrived[..., :3].astype(int) - pixels).mean() < 6  # of 256 colours
    else:
        ((_, arrived),) = (read_kitty if protocol == "kitty" else read_iterm2)(data)
        np.testing.assert_array_equal(arrived[: size[0], : size[1], :3], pixels)
    assert (arrived[: size[0], : size[1], 3] == 255).all()


def test_large_pictures_are_reduced_to_the_terminal_and_small_ones_enlarged_by_whole_numbers():
    terminal = PictureTerminal("kitty", 80, 24, (10, 20))
    large = [ScreenPicture(name, photo(1000, 1000), (1000, 1000)) for name in "ab"]
    ((names, row),) = arrange(large, terminal)
    assert names == ["a", "b"]
    assert (row.width, row.height) == (2 * 396 + 8, 396)
    tall = [ScreenPicture(name, photo(2000, 100), (100, 2000)) for name in "ab"]
    assert arrange(tall, terminal)[0][1].height == (24 - 3) * 20
    small = [ScreenPicture("a", photo(30, 30), (30, 30)), ScreenPicture("b", photo(60, 60), (60, 60))]
    ((_, row),) = arrange(small, terminal)
    assert row.size == (2 * 360 + 8, 360)
    block = np.asarray(row)[:6, 368:374]
    assert (block == block[0, 0]).all()
