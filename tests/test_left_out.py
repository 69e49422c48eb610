"""What is left out of a run is named; what cannot have its name costs itself alone."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pictures import save_photo

from mambair_cli.cli import main
from mambair_cli.errors import UsageError
from mambair_cli.images.discovery import FileFilter, find_images, find_sources, take_once
from mambair_cli.images.left_out import LeftOut
from mambair_cli.images.source import Source
from mambair_cli.runs.naming import name_targets


@pytest.fixture
def run(run, weights):
    """Run a command with a small network, and return (exit code, stdout lines, stderr lines)."""

    def call(command, *arguments):
        network = "x4" if command == "upscale" else "same"
        code, out, err = run(command, *arguments, "--weights", weights / f"{network}.safetensors")
        return code, out, [line for line in err.splitlines() if ": using " not in line]

    return call


def names():
    return sorted(path.name for path in Path().iterdir() if not path.name.startswith("."))


def test_where_two_results_would_have_one_name_one_keeps_its_suffix(run):
    for name in ("IMG_1.bmp", "IMG_1.png", "IMG_2.jpg"):
        save_photo(f"in/{name}")
    assert run("upscale", "in", "-o", "out", "-q")[:2] == (
        0,
        ["out/IMG_1.bmp.png", "out/IMG_1.png", "out/IMG_2.jpg"],
    )
    results = ["in/IMG_1.bmp_x4.png", "in/IMG_1_x4.png", "in/IMG_2_x4.jpg"]
    assert run("upscale", "in/IMG_1.bmp", "in/IMG_1.png", "in/IMG_2.jpg", "-q")[:2] == (0, results)
    code, out, err = run("upscale", "in", "-o", "out2")  # names that keep a suffix are known as results
    assert (code, len(out)) == (0, 3)
    assert any("left out 3 images that are results" in line for line in err)


def test_results_of_one_name_cost_themselves_alone_and_all_are_named(run):
    for name in ("a/1.png", "b/1.png", "a/2.png", "b/2.png", "c/3.png"):
        save_photo(name)
    code, out, err = run("upscale", "a", "b", "c", "-o", "out", "--json")
    events = [json.loads(line) for line in out]
    failed = {event["input"]: event["message"] for event in events if event["event"] == "failed"}
    assert code == 1
    assert [event["output"] for event in events if event["event"] == "done"] == ["out/3.png"]
    assert sorted(failed) == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    assert failed["b/1.png"] == (
        "cannot restore b/1.png: a/1.png would be written as out/1.png, too; "
        "restore them into different folders"
    )
    assert len([line for line in err if "error: cannot restore" in line]) == 4
    assert run("upscale", "a", "b", "c", "-o", "out2", "--dry-run")[0] == 1


def test_a_run_of_which_nothing_is_left_is_refused_with_all_pairs():
    sources = [Source(Path(folder, name)) for name in ("1.png", "2.png") for folder in ("a", "b")]
    with pytest.raises(UsageError) as caught:
        name_targets(sources, "out", "_x4")
    assert str(caught.value) == (
        "a/1.png and b/1.png would both be written as out/1.png and "
        "a/2.png and b/2.png would both be written as out/2.png; restore them into different folders"
    )


def test_many_results_of_one_name_take_few_words():
    sources = [Source(Path(f"{number}", name)) for number in range(100) for name in ("a.png", "b.png")]
    jobs = name_targets([*sources, Source(Path("c.png"))], "out", "_x4")
    assert jobs[0].refusal == (
        "cannot restore 0/a.png: 1/a.png and 98 more would be written as out/a.png, too; "
        "restore them into different folders"
    )
    assert jobs[-1].refusal is None
    with pytest.raises(
        UsageError, match=r"4/a\.png and 95 more would all be written as out/a\.png and 0/b\.png, "
    ) as caught:
        name_targets(sources, "out", "_x4")
    assert len(str(caught.value)) < 300


def test_an_input_that_would_be_overwritten_costs_itself_alone(run):
    save_photo("out/a.png")
    save_photo("b.png")
    before = Path("out/a.png").read_bytes()
    code, out, err = run("upscale", "out/a.png", "b.png", "-o", "out", "--overwrite")
    assert (code, out) == (1, ["out/b.png"])
    assert "mambair: error: cannot write out/a.png: it is an input; choose another output with -o" in err
    assert Path("out/a.png").read_bytes() == before


def test_a_second_run_over_what_the_shell_makes_of_a_pattern_finds_all_done(run):
    for name in ("a.png", "b.png", "b.bmp"):
        save_photo(name)
    results = ["a_x4.png", "b.bmp_x4.png", "b_x4.png"]
    code, out, _ = run("upscale", *names(), "--resume")
    assert (code, sorted(out)) == (0, results)
    code, out, err = run("upscale", *names(), "--resume", "--json")
    assert code == 0
    assert [json.loads(line)["event"] for line in out] == ["start", "left_out", *["skipped"] * 3, "summary"]
    assert json.loads(out[1])["why"] == "result"
    assert any("left out 3 images that are results, such as a_x4.png; name them" in line for line in err)
    assert names() == sorted(["a.png", "b.bmp", "b.png", *results])
    code, out, err = run("upscale", *names(), "--overwrite")  # the journal knows that they are results
    assert (code, sorted(out)) == (0, results)


def test_what_is_called_like_a_result_and_is_none_is_not_replaced(run):
    save_photo("a.png")
    save_photo("a_x4.png", seed=1)
    before = Path("a_x4.png").read_bytes()
    for options in ([], ["--overwrite"], ["--resume"], ["--overwrite", "--resume"]):
        code, out, err = run("upscale", "a.png", "a_x4.png", *options)
        assert (code, out) == (1, [])
        assert any("error: cannot write a_x4.png: it" in line for line in err)
        assert Path("a_x4.png").read_bytes() == before
    assert run("upscale", "a.png", "--overwrite")[:2] == (
        0,
        ["a_x4.png"],
    )  # alone, it was not among the inputs


def test_a_pattern_that_is_expanded_here_takes_no_results(run):
    for name in ("a.png", "a_x4.png", "a_denoised.png", "map_x4.png", "sub/b.png", "sub/b_x4.png"):
        save_photo(name)
    choice = FileFilter()
    found = find_sources(["**/*.png"], choice)
    assert [str(source) for source in found] == ["a.png", "map_x4.png", "sub/b.png"]
    assert sorted(map(str, choice.left_out.results)) == ["a_denoised.png", "a_x4.png", "sub/b_x4.png"]
    assert [str(source) for source in find_sources(["*_x4.png"])] == ["a_x4.png", "map_x4.png"]


@pytest.mark.parametrize("again", ["a.png", "./a.png", "sub/../a.png", "link/a.png"])
def test_a_file_named_twice_is_taken_once(run, again):
    save_photo("a.png")
    Path("sub").mkdir()
    Path("link").symlink_to(".")
    code, out, err = run("upscale", "a.png", again, "-o", "out.png")
    assert (code, out) == (0, ["out.png"])
    assert f"mambair: named several times, restored once: {Path(again)}" in err


def test_links_of_other_names_are_images_of_their_own(run):
    save_photo("sub/a.png")
    Path("b.png").symlink_to("sub/a.png")
    Path("a.png").symlink_to("sub/a.png")
    assert run("upscale", "sub/a.png", "b.png", "-q")[1] == ["sub/a_x4.png", "b_x4.png"]
    left_out = LeftOut()
    sources = take_once([Source(Path("sub/a.png")), Source(Path("a.png")), Source(Path("b.png"))], left_out)
    jobs = name_targets(sources, "out", "_x4", left_out=left_out)
    assert [str(job.target) for job in jobs] == ["out/a.png", "out/b.png"]  # one picture of one name is one
    assert left_out.repeated == [Path("a.png")]


def test_kinds_that_are_not_read_are_named_in_a_line_and_an_event(run):
    save_photo("in/a.png")
    for name in ("raw.CR2", "raw2.cr2", "b.psd", "README", ".hidden.psd", "sub/c.dng", "skip/d.mp4"):
        Path("in", name).parent.mkdir(exist_ok=True)
        Path("in", name).touch()
    code, out, err = run("upscale", "in", "--exclude", "skip", "--json")
    assert code == 0
    line = (
        "mambair: left out 5 files of formats that are not supported: "
        "2 .cr2, 1 without a suffix, 1 .psd, 1 .dng; such as in/README"
    )
    assert [text for text in err if "left out" in text] == [line]
    assert json.loads(out[1]) == {
        "event": "left_out",
        "why": "kind",
        "count": 5,
        "example": "in/README",
        "kinds": {".cr2": 2, "": 1, ".psd": 1, ".dng": 1},
    }
    _, _, err = run("upscale", "in", "--include", "*.psd", "--include", "a.png", "--dry-run")
    assert "mambair: left out a file of a format that is not supported: in/b.psd" in err
    assert run("upscale", "in", "--overwrite", "-q")[2] == []


def test_a_folder_of_nothing_that_is_read_says_what_it_holds(run):
    Path("in").mkdir()
    for name in ("a.CR2", "b.cr2", "c"):
        Path("in", name).touch()
    code, _, (error,) = run("upscale", "in")
    assert code == 2
    assert error.endswith(
        "no images in the folder: in; it has only files of formats that are not supported: "
        "2 .cr2, 1 without a suffix"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_in_folders_and_patterns_are_left_out_and_named(run):
    save_photo("in/a.png")
    os.mkfifo("in/z.png")
    for given in ("in", "in/*.png"):
        code, out, err = run("upscale", given, "-o", "out", "--json", "--overwrite")
        assert code == 0
        event = json.loads(out[1])
        assert (event["why"], event["count"], event["example"]) == ("special", 1, "in/z.png")
        assert "mambair: left out a pipe or device: in/z.png; name it to read from it" in err
        assert sorted(path.name for path in Path("out").glob("*.png")) == ["a.png"]
    assert [str(path) for path in find_images(Path("in"))] == ["in/a.png"]
    Path("in/a.png").unlink()
    assert run("upscale", "in")[2] == [
        "mambair: error: no images in the folder: in; it has pipes or devices; name each, such as in/z.png"
    ]
    assert run("upscale", "in/*")[2] == [
        "mambair: error: nothing to restore but pipes or devices: in/z.png; name each"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_that_is_named_is_read(run):
    save_photo("a.png")
    picture = Path("a.png").read_bytes()
    os.mkfifo("pipe.png")
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(picture))
    writer.start()
    assert run("upscale", "pipe.png", "-o", "out.png")[:2] == (0, ["out.png"])
    writer.join()


def test_where_only_hidden_images_are_they_are_named(run):
    save_photo("in/.x.png")
    save_photo("more/.sub/y.png")
    Path("more/.DS_Store").touch()
    Path("more/notes.txt").touch()
    for folder, hidden in (("in", "in/.x.png"), ("more", "more/.sub")):
        code, _, (error,) = run("upscale", folder)
        assert code == 2
        assert error.endswith(f"; what is hidden is not read, such as {hidden}")
    save_photo("in/a.png")
    assert run("upscale", "in")[2] == []


def test_linked_folders_are_left_out_and_named(run):
    save_photo("in/a.png")
    save_photo("more/b.png")
    Path("in/loop").symlink_to("..")
    Path("in/more").symlink_to("../more")
    code, out, err = run("upscale", "in", "--json")
    assert code == 0
    assert "mambair: left out 2 linked folders, such as in/loop; name them to restore what is in them" in err
    event = json.loads(out[1])
    assert (event["why"], event["count"], event["example"]) == ("linked_folder", 2, "in/loop")
    assert run("upscale", "in/more", "-q")[1] == ["in/more_x4/b.png"] or os.path.exists("more_x4/b.png")
    _, _, err = run("upscale", "in", "--exclude", "loop", "--overwrite")
    assert "mambair: left out a linked folder: in/more; name it to restore what is in it" in err


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (["a.png", "out.png"], "no such file or folder: out.png; did you mean -o out.png?"),
        (["a.png", "my out.png"], "no such file or folder: my out.png; did you mean -o 'my out.png'?"),
        (["a.png", "*.gif"], "no file matches the pattern: *.gif"),
        (["--", "-lead.png", "-s", "2"], "no such file or folder: -lead.png; after -- everything is a file"),
        (["--", "a.png", "-s"], "no such file or folder: -s; after -- everything is a file name"),
        (["in", "out"], "no such file or folder: out; did you mean -o out?"),
        (["a.png", "b.png", "-o", "out.png"], "-o names one file: out.png, and there are 2 images"),
        (["a.png", "-o", "out"], "avif and gif can be written; out/ writes into a folder"),
        (["a.png", "-o", "out.v1"], "avif and gif can be written; out.v1/ writes into a folder"),
        (["in", "-o", "out.jpg"], "-o names one file: out.jpg, and the input is a folder or a list"),
    ],
)
def test_an_output_that_is_no_output_is_refused_before_anything_is_done(run, inputs, says):
    for name in ("a.png", "b.png", "in/c.png"):
        save_photo(name)
    code, out, (error,) = run("upscale", *inputs)
    assert (code, out) == (2, [])
    assert says in error
    assert names() == ["a.png", "b.png", "in"]


def test_a_folder_may_be_called_like_a_file(run):
    save_photo("a.png")
    save_photo("b.png")
    Path("out.png").mkdir()
    assert run("upscale", "a.png", "b.png", "-o", "out.png")[1] == ["out.png/a.png", "out.png/b.png"]
    assert run("upscale", "a.png", "b.png", "-o", "new.png/")[1] == ["new.png/a.png", "new.png/b.png"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.png"], "cannot write a_x4.png: it exists already; --overwrite replaces it"),
        (["a.png", "--model", "tiny-x2"], "cannot write a_x2.png: it exists already"),
        (["a.png", "-o", "a_x2.png"], "cannot write a_x2.png: it exists already"),
        (["link.png"], "cannot read link.png: it is a link to gone.png, which is missing"),
        (["a.png", "-o", "a.png/new/"], "a.png is no folder; choose another folder with -o"),
    ],
)
def test_what_follows_from_names_is_said_before_pytorch_is_loaded(tmp_path, arguments, says):
    for name in ("a.png", "a_x4.png", "a_x2.png"):
        save_photo(tmp_path / name)
    (tmp_path / "link.png").symlink_to("gone.png")
    script = "import sys; from mambair_cli.cli import main; code = main(sys.argv[1:])\n"
    script += "assert 'torch' not in sys.modules; sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", script, "upscale", *arguments, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    start, failed, summary = map(json.loads, done.stdout.splitlines())
    assert (start["event"], start["model"]) == ("start", None)
    assert (failed["event"], summary["failed"]) == ("failed", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="knows no folder that nobody can write")
def test_a_new_folder_that_cannot_be_made_is_said_to_be_so(run):
    save_photo("a.png")
    for options in ([], ["--resume"]):
        code, _, (error,) = run("upscale", "a.png", "-o", "/proc/new/", *options)
        assert code == 1
        assert "cannot make the folder /proc/new: " in error
        assert error.endswith("; choose another folder with -o")


@pytest.mark.parametrize(
    ("command", "option", "says"),
    [
        ("denoise", ["--sigma", "25"], "--sigma 25 has no effect: tiny-denoise is for noise of any strength"),
        (
            "dejpeg",
            ["--jpeg-quality", "20"],
            "--jpeg-quality 20 has no effect: tiny-dejpeg is for JPEG of any quality",
        ),
    ],
)
def test_a_level_without_effect_is_reported(run, capsys, command, option, says):
    save_photo("a.png", size=(24, 16))
    outputs = []
    for way in ([], ["--json", "--overwrite"], ["--dry-run", "--overwrite"]):
        assert main([command, "a.png", "--offline", *option, *way]) == 0
        out, err = capsys.readouterr()
        outputs.append(out)
        assert err.splitlines().count(f"mambair: {says}") == 1
    assert json.loads(outputs[1].splitlines()[0])["notices"] == [says]
    assert main([command, "a.png", "--offline", "--overwrite"]) == 0
    assert "has no effect" not in capsys.readouterr()[1]
    assert main([command, "a.png", "--offline", "--overwrite", "-q", *option]) == 0
    assert capsys.readouterr()[1] == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a.png"], ["quality", "background"]),
        (["a.png", "-o", "b.webp"], ["background"]),
        (["a.png", "-o", "b.jpg"], []),
        (["a.png", "c.jpg"], ["quality", "background"]),
    ],
)
def test_options_of_writing_without_effect_are_reported(run, given, said):
    for name in ("a.png", "c.jpg"):
        save_photo(name)
    sentences = {
        "quality": "--quality 50 has no effect on png; jpeg, webp and avif have a quality",
        "background": "--background white has no effect on FORMAT; jpeg alone has no transparency",
    }
    wanted = [sentences[each].replace("FORMAT", "webp" if "b.webp" in given else "png") for each in said]
    options = ["--quality", "50", "--background", "white", "--overwrite"]
    for way in ([], ["--dry-run"]):
        err = run("upscale", *given, *options, *way)[2]
        assert [line for line in err if "no effect" in line] == [f"mambair: {each}" for each in wanted]
    start = json.loads(run("upscale", *given, *options, "--json")[1][0])
    assert start["notices"] == wanted
    assert run("upscale", *given, *options, "-q")[2] == []


def test_a_level_that_no_model_is_made_for_is_reported():
    from mambair_cli.cli.notices import explain_level

    assert explain_level("denoise", 15, "mambair-denoise-15") is None
    said = "--sigma 20: the nearest model is mambair-denoise-25, made for 25"
    assert explain_level("denoise", 20, "mambair-denoise-25") == said


def test_dejpeg_warns_of_a_quality_that_may_be_meant_for_the_inputs(run):
    save_photo("a.jpg")
    trap = (
        "mambair: warning: --quality 20 is the quality of the results; "
        "for the quality of the inputs use --jpeg-quality 20"
    )
    assert trap in run("dejpeg", "a.jpg", "--quality", "20")[2]
    assert trap in run("dejpeg", "a.jpg", "--quality", "20", "--dry-run", "--overwrite")[2]
    assert run("dejpeg", "a.jpg", "--quality", "20", "-q", "--overwrite")[2] == []
    save_photo("b.jpg")
    assert trap not in run("denoise", "b.jpg", "--quality", "20")[2]


def test_the_built_in_model_is_named_in_a_short_line_unless_it_was_asked_for(run, capsys):
    save_photo("a.png", size=(40, 40))
    assert main(["upscale", "a.png"]) == 0
    choice = "mambair: using tiny-x4 or tiny-real-x4 on cpu, by a look at each image"
    first, line = capsys.readouterr()[1].splitlines()
    assert first == choice
    assert line.startswith("mambair: using the built-in model tiny-x4 (about 0.3 dB lower): ")
    assert "mambairv2-light-x4" in line  # why: not cached, or not to be reached
    assert len(line) < 150
    assert main(["upscale", "a.png", "--offline", "--overwrite"]) == 0
    assert capsys.readouterr()[1].splitlines() == [choice]
    Path("a_x4.png").unlink()
    assert main(["evaluate", ".", "--task", "upscale", "--offline", "--border", "0"]) == 0
    assert capsys.readouterr()[1].splitlines() == ["mambair: using tiny-x4 on cpu"]


def test_a_model_that_does_not_fit_is_reported_before_a_result_that_exists(run, capsys):
    save_photo("a.png")
    save_photo("a_x4.png")
    assert main(["upscale", "a.png", "--model", "tiny-denoise"]) == 3
    assert "does not fit" in capsys.readouterr()[1]


@pytest.fixture
def forbidden(tmp_path, monkeypatch):
    """Make the folder in/b unreadable, which permissions alone do not for the superuser."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b/hidden.png", "in/c/d.png"):
        save_photo(name)
    scandir = os.scandir

    def refuse(path="."):
        if Path(path) == Path("in/b"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


UNREADABLE = "cannot read the folder in/b: Input/output error; check its disk"


def test_a_folder_that_cannot_be_read_fails_alone(run, forbidden):
    code, out, err = run("upscale", "in", "-o", "out", "-q")
    assert (code, out, err) == (1, ["out/a.png", "out/c/d.png"], [f"mambair: error: {UNREADABLE}"])
    code, out, err = run("upscale", "in", "-o", "out", "--resume", "--json")
    events = [json.loads(line) for line in out]
    assert code == 1
    assert {"event": "failed", "input": "in/b", "kind": "ImageError", "message": UNREADABLE} in events
    assert events[0]["files"] == 3
    assert [events[-1][what] for what in ("done", "skipped", "failed", "left")] == [0, 2, 1, 0]
    assert "1 failed of 3 images" in run("upscale", "in", "-o", "out2")[2][-1]


def test_a_folder_that_patterns_cannot_look_into_fails_alone_and_once(run, forbidden):
    code, out, err = run("upscale", "in/**/*.png", "in/**/a.*", "-o", "out", "-q")
    assert (code, out, err) == (1, ["out/a.png", "out/d.png"], [f"mambair: error: {UNREADABLE}"])


def test_a_folder_that_cannot_be_read_ends_a_run_that_fails_fast(run, forbidden):
    code, out, err = run("upscale", "in", "-o", "out", "-q", "--fail-fast")
    assert (code, out, err) == (1, [], [f"mambair: error: {UNREADABLE}"])


def test_a_folder_that_cannot_be_read_is_planned_as_failed(run, forbidden):
    code, out, _ = run("upscale", "in", "-o", "out", "--dry-run", "--json")
    events = [json.loads(line) for line in out]
    assert (code, events[0]["files"], events[-1]["failed"]) == (1, 3, 1)
    assert [event["input"] for event in events if event["event"] == "plan_failed"] == ["in/b"]


def test_a_folder_that_cannot_be_read_fails_alone_when_inspected(forbidden, capsys):
    assert main(["inspect", "in", "-q", "--json"]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"mambair: error: {UNREADABLE}\n"
    events = [json.loads(line) for line in printed.out.splitlines()]
    assert [event["event"] for event in events] == ["left_out", "failed", "inspected", "inspected"]
