"""The first minutes: what a newcomer types, and what is said to it."""

import re
import shlex
from pathlib import Path

import pytest
from checkpoints import save_nearest
from pictures import save_photo
from PIL import Image
from typer.main import get_group

from mambair_cli.cli import app, models_app, other_tools
from mambair_cli.cli.dry_run import format_time
from mambair_cli.cli.output import format_rate
from mambair_cli.errors import UsageError
from mambair_cli.images import FORMATS
from mambair_cli.runs.parameters import FORMAT, SCALE
from mambair_cli.system.values import plain_factor, read_value
from mambair_cli.system.wording import format_bytes, show_number


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("cat.png", "no such command: cat.png; to enlarge an image: mambair upscale cat.png ("),
        (
            "my&nbsp;cat.png",
            "no such command: my&nbsp;cat.png; to enlarge an image: mambair upscale 'my&nbsp;cat.png' (",
        ),
        ("models --json list", "--json stands before list; write it after: mambair models list --json"),
        ("missing.jpg", "to enlarge an image: mambair upscale missing.jpg ("),
        ("upscael cat.png", "did you mean upscale? `mambair --help` lists the commands"),
        ("sharpen cat.png", "no such command: sharpen; `mambair --help` lists the commands"),
        ("models shwo tiny-x4", "did you mean show? `mambair models --help` lists the commands"),
        ("help sharpen", "no such command: sharpen; "),
        (
            "-s 2 cat.png",
            "no such option: -s; options stand after a command, as in mambair upscale --scale 2",
        ),
        ("doctor cat.png", "too many arguments: cat.png; see `mambair doctor --help`"),
        ("models show", "NAME is not given; see `mambair models show --help`"),
        ("train photos -o run", "--task is not given; see `mambair train --help`"),
        ("train photos --resume", "--output is not given; see `mambair train --help`"),
        ("train photos", "--task and --output are not given; see `mambair train --help`"),
    ],
)
def test_what_is_no_command_points_to_one(run, arguments, says):
    save_photo("cat.png")
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, [])
    assert err.startswith("mambair: error: ")
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("https://a.example/cat.png", "https://a.example/cat.png; download it first"),
        ("s3://photos/cat.png", "s3://photos/cat.png; mount it, and give the folder"),
        ("cat.png -o https://a.example/", "https://a.example/; mount it, and give the folder"),
        ("file:///photos/a%20cat.png", "file:///photos/a%20cat.png; write '/photos/a cat.png'"),
        ("file://localhost/photos/cat.png", "file://localhost/photos/cat.png; write /photos/cat.png"),
        ("cat.png -o file:///photos/x4", "file:///photos/x4; write /photos/x4"),
        ("file://nas/photos/cat.png", "file://nas/photos/cat.png; mount it, and give the folder"),
    ],
)
def test_an_address_is_no_file(run, arguments, says):
    save_photo("cat.png")
    code, out, err = run("upscale", *arguments.split())
    assert (code, out) == (2, [])
    assert f"no file or folder: {says}" in err


def test_an_address_of_this_machine_is_answered_with_the_file_by_all_that_take_pictures(run, tmp_path):
    save_photo("cat.png")
    for command in ("inspect", "compare cat.png", "denoise"):
        code, out, err = run(*command.split(), f"{tmp_path.as_uri()}/cat.png")
        assert (code, out) == (2, [])
        assert err.endswith(f"; write {tmp_path}/cat.png\n"), command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("upscale --gpu 0", "no such option: --gpu; here it is --device"),
        ("upscale -g 0", "here it is --device"),
        ("upscale --cpu", "here it is --device cpu"),
        ("upscale --fp32", "here it is --precision fp32"),
        ("upscale --outscale 2", "here it is --scale"),
        ("upscale --tile_size 64", "no such option: --tile_size; here it is --tile"),
        ("upscale -t 64", "here it is --tile"),
        ("upscale -n realesrgan", "here it is --model"),
        ("upscale --out=x", "no such option: --out; here it is --output"),
        ("upscale --output-dir x", "here it is --output"),
        ("upscale --force", "here it is --overwrite"),
        ("upscale --threads 4", "no such option: --threads; the variable OMP_NUM_THREADS sets the number of"),
        ("inspect --num_threads 4", "as in OMP_NUM_THREADS=4 mambair inspect ..."),
        ("train --threads 4", "OMP_NUM_THREADS=4 mambair train ..."),
        ("upscale --jobs 4", "here it is --workers"),
        ("upscale --resize 200%", "no such option: --resize; write --scale 2"),
        ("upscale --resize=250%", "no such option: --resize; write --scale 2.5"),
        ("upscale --resize 50%", "here it is --width, --height or --megapixels, for a smaller image"),
        ("upscale --resize 800", "here it is --width"),
        ("upscale cat.png -r 200%", "no such option: -r; write --scale 2"),
        ("upscale --outscale 200%", "write --scale 2"),
        (
            "upscale --size 3840x2160",
            "write --width 3840 --height 2160; the image fits into that, and nothing crops it to fill it",
        ),
        ("upscale cat.png --resize 3840x2160^", "write --width 3840 --height 2160; the image fits into"),
        ("upscale cat.png --resize 3840X2160", "write --width 3840 --height 2160; the image fits into"),
        ("upscale cat.png --resize 0x0", "no such option: --resize; here it is --width"),
        ("upscale cat.png -resize 3840x", "no such option: -resize; write --width 3840"),
        ("upscale cat.png --geometry=x2160", "no such option: --geometry; write --height 2160"),
        ("denoise --resize 80x60", "`mambair upscale` changes the size, with --scale, --width"),
        ("denoise --noise-level 2", "here it is --sigma"),
        ("upscale --noise-level 2", "`mambair denoise` removes noise, with --sigma"),
        (
            "denoise --resize 50%",
            "`mambair upscale` changes the size, with --scale, --width",
        ),  # it has no --width
        ("upscale -i cat.png", "inputs need no option: mambair upscale FILE ..."),
        ("upscale --input cat.png", "inputs need no option"),
        ("upscale photos --recursive", "folders are always read with their subfolders; leave it out"),
        ("upscale --batch-size 4", "the number of tiles per batch is chosen for the device; leave it out"),
        ("train photos --batch-size 4", "no such option: --batch-size; here it is --batch"),
        ("train photos --epochs 4", "a run is measured in steps of --batch crops: --steps"),
        ("train photos --iterations 4", "here it is --steps"),
        ("train photos --lr 0.1", "here it is --learning-rate"),
        ("train photos --val x", "here it is --validation"),
        ("train photos --patch-size 64", "--crop is the side of a crop of the input; "),
        ("train photos --model tiny-x2", 'trained further with --weights "$(mambair models path NAME)"'),
        ("train photos --half", "here it is --precision bf16"),  # it has no fp16
        ("train photos --num-workers 2", "pictures are loaded once, before the first step; leave it out"),
        ("train photos --workers 2", "pictures are loaded once, before the first step; leave it out"),
        ("upscale --compression lzw", "TIFF and PNG lose nothing; --quality is for jpeg, webp and avif"),
        ("upscale --sigma 25", "`mambair denoise` removes noise, with --sigma"),
        ("denoise --width 800", "`mambair upscale` changes the size, with --scale, --width"),
        ("train photos -f png", "no such option: -f; see `mambair train --help`"),
        ("train -i photos", "pictures need no option: mambair train FOLDER ..."),
        ("train --dataroot photos", "pictures need no option: mambair train FOLDER ..."),
        ("train --gt photos", "the truth needs no option, and inputs are made from it: mambair train FOLDER"),
        ("train --hr photos", "the truth needs no option, and inputs are made from it: mambair train FOLDER"),
        ("train --target photos", "the truth needs no option, and inputs are made from it: mambair train"),
        ("train --dataroot_gt photos", "the truth needs no option, and inputs are made from it: mambair"),
        ("train photos --lq lq", "inputs are made from the pictures, for --task; leave it out"),
        ("train photos --lr-folder lr", "inputs are made from the pictures, for --task; leave it out"),
        ("train photos --pretrain x.pth", "here it is --weights"),
        ("train photos --pretrain_network_g x.pth", "here it is --weights"),
        ("train photos --denoise", "here it is --task denoise"),
        ("train photos --noise 25", "here it is --sigma"),
        ("evaluate Set5 --y-channel", "here it is --luma"),
        ("evaluate Set5 --test_y", "here it is --luma"),
        ("evaluate Set5 --crop_border 4", "here it is --border"),
        ("evaluate Set5 --batch 4", "the number of tiles per batch is chosen for the device; leave it out"),
        ("evaluate Set5 --input x", "did you mean --inputs?"),
        ("doctor --input cat.png", "see `mambair doctor --help`"),
        ("upscale --test-y", "see `mambair upscale --help`"),
        ("upscale -quality 90", "no such option: -quality; did you mean --quality?"),
        ("upscale -scale 2", "no such option: -scale; did you mean --scale?"),
        ("upscale cat.png -output out.png", "no such option: -output; did you mean --output?"),
        ("upscale --ovrwrite", "did you mean --overwrite?"),
        ("upscale a.mp4 -r 30", "--fps sets the frames a second of numbered images; clips keep theirs"),
        ("upscale a.mp4 -t 1", "cut a part out first, as with ffmpeg -ss 10 -t 5 -i in.mp4 part.mp4"),
        ("upscale a.mp4 -to 1", "no such option: -to; clips are restored whole; cut a part out first"),
        ("upscale a.mp4 -ss 1", "no such option: -ss; clips are restored whole; cut a part out first"),
        ("upscale photos -r", "folders are always read with their subfolders"),
        ("upscale cat.png -t 64", "here it is --tile"),
        (
            "upscale cat.png -n 2",
            "no such option: -n; the model for noisy images is --real, and without it is",
        ),
        (
            "upscale cat.png -n -1",
            "no such option: -n; the model for noisy images is --real, and without it is",
        ),
        ("dejpeg cat.png -n 2", "no such option: -n; `mambair denoise` removes noise; a model is --model"),
        ("denoise cat.png -n 2", "the strength of noise is --sigma, and without it is chosen by the image"),
        ("upscale a.mp4 --crf 18", "here it is --quality, of which 100 is the best"),
        ("upscale a.mp4 -crf 18", "no such option: -crf; here it is --quality"),
        ("upscale a.mp4 -c:v libx264", "no such option: -c:v; here it is --codec"),
        ("upscale cat.png -x", "here it is --ensemble"),
        ("upscale cat.png --tta", "here it is --ensemble"),
        ("serve --host 0.0.0.0", "reach it from others by ssh -L, as docs/serve.md shows"),
        ("upscale a.mp4 --codec libx264", "--codec is libx264; here it is h264"),
        ("upscale a.mp4 --codec x265", "--codec is x265; here it is hevc"),
        ("upscale a.mp4 --codec libx265", "--codec is libx265; here it is hevc"),
        ("upscale a.mp4 --codec libsvtav1", "--codec is libsvtav1; here it is av1"),
        ("upscale a.mp4 --codec mpeg2", "--codec is mpeg2; h264, hevc, av1, vp9, ffv1, prores would work"),
        ("upscale cat.png --wrap", "--wrap needs a value; none, x, y, both would work"),
        ("upscale cat.png --format", f"--format needs a value; {', '.join(FORMATS)} would work"),
        ("upscale --nonsense", "see `mambair upscale --help`"),
        ("upscale cat.png -resize 200%", "no such option: -resize; write --scale 2"),
        ("denoise cat.png -resize 200%", "no such option: -resize; `mambair upscale` changes the size"),
        ("upscale cat.png -density 300", "no such option: -density; the resolution to print at stays"),
        ("upscale cat.png --dpi 300", "its size in pixels is set by --scale or --width"),
        ("denoise cat.png --dpi 300", "the resolution to print at stays that of the image; leave it out"),
        (
            "upscale cat.png -q 90",
            "-q takes no value: 90; it is --quiet; a quality is --quality (of results)",
        ),
        ("dejpeg cat.png -q 50", "a quality is --quality (of results) or --jpeg-quality (of inputs)"),
        ("upscale cat.png --preset x", "no such option: --preset; see `mambair upscale --help`"),
        ("upscale cat.png --profile x", "no such option: --profile; see `mambair upscale --help`"),
        ("upscale cat.png --iso 3", "no such option: --iso; see `mambair upscale --help`"),
        ("upscale cat.png --all", "no such option: --all; see `mambair upscale --help`"),
        ("upscale cat.png --qual 90", "no such option: --qual; did you mean --quality?"),
        ("upscale cat.png --sacle 2", "no such option: --sacle; did you mean --scale?"),
    ],
)
def test_options_of_other_tools_are_answered_with_ours(run, arguments, says):
    save_photo("cat.png")
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, [])
    assert says in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["cat.png"]


def test_what_is_said_of_other_tools_names_options_that_there_are():
    commands = get_group(app).commands
    for name, command in commands.items():
        options = {option for parameter in command.params for option in parameter.opts}
        theirs = {each for names in other_tools._SAME.values() for each in names}
        theirs |= {each for advice in other_tools._ADVICE for each in advice.names}
        for option in sorted(theirs - options):
            for arguments in (["a.mp4"], [option, "2"], [option, "200%"], [option, "80x60"]):
                said = other_tools.find_counterpart(option, f"mambair {name}", options, arguments) or ""
                ours = said if "`mambair" not in said else ""  # of another command
                ours = ours.partition('"$(')[0].partition("ffmpeg ")[0].partition("ssh ")[0]
                assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", ours)) <= options, (name, option, said)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("upscale --tile", "--tile needs a value; see `mambair upscale --help`"),
        ("upscale --strip=yes", "--strip takes no value"),
        ("upscale --tile 3", "--tile is 3; it must be a whole number from 16 to 1048576"),
        ("upscale --tile 64.5", "--tile is 64.5; it must be a whole number from 16 to 1048576"),
        ("upscale --tile 2000000", "--tile is 2000000; it must be a whole number from 16 to 1048576"),
        (f"upscale --seed {2**63}", f"--seed is {2**63}; it must be a whole number from -{2**63} to"),
        (f"upscale --max-pixels {10**20}", f"--max-pixels is {10**20}; it must be a whole number from 1 to"),
        (f"upscale --seed {'9' * 5000}", "--seed has too many digits: 5000; it must be a whole number"),
        (f"upscale -s {'9' * 400}", "--scale has too many digits: 400; it must be a number from 1 to 4"),
        ("upscale --quality 101", "--quality is 101; it must be a whole number from 1 to 100"),
        ("upscale -s huge", "--scale is huge; it must be a number"),
        ("upscale -s 2,5", "--scale is 2,5; it must be a number from 1 to 4, written as 2.5"),
        ("upscale --strength 0,5", "--strength is 0,5; it must be a number from 0 to 1, written as 0.5"),
        ("upscale -s 200%", "--scale is 200%; it must be a number from 1 to 4, written as 2\n"),
        ("upscale -s 50%", "cannot enlarge by -s 0.5: it is less than 1; --width, --height and"),
        ("upscale --strength 50%", "--strength is 50%; it must be a number from 0 to 1, written as 0.5\n"),
        ("upscale --strength 150%", "--strength is 150%; it must be a number from 0 to 1\n"),
        ("denoise --sigma 5%", "--sigma is 5%; it must be a number from 0 to 255\n"),
        ("upscale -s nan", "--scale is nan; it must be a number"),
        ("upscale --precision fp8", "--precision is fp8; auto, fp32, fp16 would work"),
        ("upscale --format=", "--format is empty; png, jpeg, "),
        ("upscale --format bmp", f"--format is bmp; {', '.join(FORMATS)} would work"),
        ("train photos --task upscale -o run --sigma 3", "--sigma needs 2 values"),
        ("train photos --task upscale -o run --sigma a b", "--sigma is a b; it must be 2 numbers"),
        ("evaluate Set5 -s 2.5", "--scale is 2.5; it must be a whole number from 2 to 4"),
        ("evaluate Set5 -s 5x", "--scale is 5; it must be a whole number from 2 to 4"),
        ("serve --port 99999", "--port is 99999; it must be a whole number from 0 to 65535"),
    ],
)
def test_a_value_that_cannot_be_is_said_with_what_can(run, arguments, says):
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, [])
    assert says in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("text", ["2", "2x", "x2", "×2", "2×", " 2 x", "X2", "2.0"])
def test_a_scale_may_be_written_with_a_cross(text):
    assert SCALE.parse(text) == 2
    assert read_value("--scale", plain_factor(text), "number", 1, 4) == 2


@pytest.mark.parametrize("text", ["x", "2x2", "", "two", "2,5", "xx2"])
def test_what_is_no_scale_is_refused_as_it_was_written(text):
    with pytest.raises(UsageError, match=f"scale is {text or 'empty'}; it must be a number from 1 to "):
        SCALE.parse(text)


@pytest.mark.parametrize(
    ("text", "format"),
    [("jpg", "jpeg"), ("JPEG", "jpeg"), (".jpg", "jpeg"), ("PNG", "png"), ("tif", "tiff")],
)
def test_a_format_may_be_written_as_files_end(text, format):
    assert FORMAT.parse(text) == format


def test_a_command_takes_other_spellings(run, tmp_path):
    save_photo("cat.png")
    save_nearest(tmp_path / "x4.safetensors", 4)
    code, out, _ = run("upscale", "cat.png", "--weights", "x4.safetensors", "-s", "x4", "--format", "JPG")
    assert (code, out) == (0, ["cat_x4.jpg"])
    with Image.open("cat_x4.jpg") as image:
        assert (image.size, image.format) == ((48, 36), "JPEG")


def test_help_is_a_command_too(run):
    for names in ([], ["upscale"], ["models", "list"]):
        asked = run("help", *names)
        assert asked == run(*names, "--help")
        assert asked[0] == 0
    assert run("-V") == run("--version")
    assert run("-V")[1][0].startswith("mambair 0")


def test_models_alone_lists_them(run):
    assert run("models") == run("models", "list")
    assert run("models", "--json") == run("models", "list", "--json")
    assert run("models")[0] == 0


COMMANDS = ["", "models", *(name for name in get_group(app).commands if name != "models")]
COMMANDS += [f"models {name}" for name in get_group(models_app).commands]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_speaks_no_programming_language(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    text = "\n".join(out)
    assert not re.search(r"list\[|<\w+>|<=|>=|\bstr\b|\bint\b|\{[A-Z]+\}", text)
    assert not re.search(r"(^|  )(Of|As|Likewise) ", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_that_is_a_command_line(run, command):
    _, out, _ = run(*command.split(), "--help")
    title, example = out[-2:]
    assert title == "Example:"
    assert f"{example} ".startswith(f"  mambair {command}".rstrip() + " ")
    assert len(example) <= 80
    assert run(*shlex.split(example)[1:], "--help")[0] == 0  # which refuses unknown options all the same


def test_help_says_what_may_be_given(run):
    text = " ".join(" ".join(run("upscale", "--help")[1]).split())
    assert "Usage: mambair upscale [OPTIONS] [INPUT]..." in text
    assert "--precision auto|fp32|fp16" in text
    assert "[default: 95; 1 to 100]" in text
    assert "; 16 or more]" in text
    assert "[environment variable: MAMBAIR_SERVER]" in text
    clips = text.partition("Options for clips: ")[2]
    assert all(name in clips for name in ("--codec", "--deinterlace", "--fps", "--raw", "--at"))
    pages = text.partition("Options for previews and comparisons: ")[2].partition("Options for clips: ")[0]
    assert all(name in pages for name in ("--open", "--compare", "--preview", "--region"))
    assert text.count("--codec h264") == 1
    text = " ".join(" ".join(run("train", "--help")[1]).split())
    assert "Usage: mambair train [OPTIONS] FOLDER..." in text
    assert "[default: 0, 55]" in text
    assert "Task to train for; required, except with --resume." in text


@pytest.mark.parametrize(
    ("number", "said"), [(1602, "1600"), (99.7, "100"), (9.96, "10"), (0.254, "0.25"), (0.00001, "0.00001")]
)
def test_numbers_have_no_exponents(number, said):
    assert show_number(number) == said


def test_times_sizes_and_rates_have_no_exponents():
    assert format_time(99.7) == "about 100 s"
    assert (format_bytes(1023), format_bytes(1_023_700)) == ("1023 bytes", "1000 KiB")
    assert format_rate(9.97) == "10 a second"


def test_help_of_export_names_its_argument(run):
    out = " ".join(run("export", "--help")[1])
    assert "instead of MODEL" in " ".join(out.split())
    assert "--model" not in out
