"""Results that go into the folder of their inputs, or into one that is an input, too."""

import json
from glob import glob
from pathlib import Path

import pytest
from folders import read_files
from pictures import save_photo

IN_PLACE = ("upscale", ".", "-o", ".")


@pytest.fixture
def run(run, weights):
    """Run a command with a small network for ×4; return the exit code, the events and the lines of stderr."""

    def call(*arguments):
        code, out, err = run(*arguments, "--weights", weights / "x4.safetensors", "--json")
        return code, [json.loads(line) for line in out], err

    return call


def by_event(events, name):
    return [event["input"] for event in events if event["event"] == name]


def test_a_folder_is_converted_into_itself_again_and_again(run):
    for name in ("a.bmp", "b.bmp", "b.png", "deep/c.bmp"):
        save_photo(name)
    code, events, _ = run(*IN_PLACE, "--resume")
    assert (code, by_event(events, "failed")) == (1, ["b.png"])  # an input is never replaced
    assert by_event(events, "done") == ["a.bmp", "b.bmp", "deep/c.bmp"]
    before = read_files()
    results = {"a.png", "b.bmp.png", "deep/c.png"}
    assert before.keys() == {"a.bmp", "b.bmp", "b.png", "deep/c.bmp"} | results
    for _ in range(2):
        code, events, err = run(*IN_PLACE, "--resume")
        assert by_event(events, "skipped") == ["a.bmp", "b.bmp", "deep/c.bmp"]
        assert by_event(events, "failed") == ["b.png"]
        assert "mambair: left out 3 images that are results, such as a.png; name them alone" in err
        assert read_files() == before


def test_what_a_shell_names_is_converted_into_its_folder_again_and_again(run):
    save_photo("a.bmp")
    for event in ("done", "skipped", "skipped"):
        code, events, _ = run("upscale", *sorted(glob("*")), "-o", ".", "--resume")
        assert (code, by_event(events, event)) == (0, ["a.bmp"])
    assert sorted(read_files()) == ["a.bmp", "a.png"]


def test_results_of_other_settings_are_no_inputs_either(run):
    save_photo("a.bmp")
    assert by_event(run(*IN_PLACE)[1], "done") == ["a.bmp"]
    assert by_event(run(*IN_PLACE, "--format", "webp")[1], "done") == ["a.bmp"]
    assert sorted(read_files()) == ["a.bmp", "a.png", "a.webp"]


def test_a_result_is_an_input_where_it_is_none_of_the_others(run):
    save_photo("in/a.bmp")
    run("upscale", "in", "-o", "in")
    assert by_event(run("upscale", "in", "-o", "out")[1], "done") == ["in/a.bmp", "in/a.png"]
    Path("in/a.bmp").unlink()
    assert by_event(run("upscale", "in", "-o", "in", "--format", "webp")[1], "done") == ["in/a.png"]


def test_a_file_that_no_run_has_written_is_an_input(run):
    save_photo("a.bmp")
    run(*IN_PLACE)
    save_photo("a.png", seed=1)
    code, events, _ = run(*IN_PLACE, "--resume")
    assert (code, by_event(events, "done"), by_event(events, "failed")) == (1, ["a.bmp"], ["a.png"])
    assert "a.bmp.png" in read_files()


def test_an_output_below_the_inputs_is_left_out_of_a_pattern_too(run):
    save_photo("a.png")
    for _ in range(2):
        code, events, _ = run("upscale", "**/*.png", "-o", "out/", "--resume")
        assert code == 0
        assert by_event(events, "done") + by_event(events, "skipped") == ["a.png"]
    assert sorted(read_files()) == ["a.png", "out/a.png"]


def test_a_result_that_cannot_have_its_name_is_named_once(run):
    for name in ("a.bmp", "a.png", "a.bmp.png"):
        save_photo(name)
    code, _, err = run(*IN_PLACE)
    assert code == 2
    assert err.splitlines()[-1] == (
        "mambair: error: an input is never overwritten: a.bmp.png and a.png; choose another output with -o"
    )
