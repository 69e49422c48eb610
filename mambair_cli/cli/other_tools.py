"""Options of other tools that people are used to, and the options here that do the same."""

import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import NamedTuple

from mambair_cli.images.formats import name_formats
from mambair_cli.system.clips import CLIP_SUFFIXES
from mambair_cli.system.values import read_percentage

# Options that do the same, in every command that has ours.
_SAME = {
    "--device": ("--gpu", "--gpu-id", "--gpus", "--cuda", "-g", "-d"),
    "--device cpu": ("--cpu", "--no-cuda", "--no-gpu"),
    "--precision fp32": ("--fp32", "--no-half", "--float32"),
    "--precision fp16": ("--fp16", "--half", "--float16"),
    "--scale": ("--outscale", "--upscale-ratio", "--factor", "--zoom"),
    "--tile": ("--tile-size", "--tilesize", "--split-size", "--block-size", "-t"),
    "--overlap": ("--tile-pad", "--tile-overlap", "--pad", "--padding"),
    "--model": ("--model-name", "--network", "--arch", "-m", "-n"),
    "--weights": ("--model-path", "--checkpoint", "--ckpt", "--weight", "--pretrained"),
    "--output": (
        "--out",
        "--output-dir",
        "--output-path",
        "--output-file",
        "--outdir",
        "--outfile",
        "--out-dir",
        "--dest",
        "--destination",
    ),
    "--format": ("--ext", "--extension", "--output-format"),
    "--overwrite": ("--force", "--yes", "--clobber", "-y"),
    "--resume": ("--continue", "--skip-existing", "--no-clobber"),
    "--workers": ("--jobs", "--num-workers", "--processes", "-j", "-p"),
    "--sigma": ("--noise-level", "--noise", "--denoise-strength"),
    "--quiet": ("--silent",),
    "--dry-run": ("--simulate", "--what-if", "--preview"),
    "--strip": ("--no-metadata", "--strip-metadata"),
    "--seed": ("--random-seed",),
    "--ensemble": ("--tta", "--self-ensemble", "--x8", "-x"),
    "--codec": ("--vcodec", "--c:v", "--encoder", "-vcodec", "-c:v"),
    "--quality": ("--compression", "--jpg-quality", "--webp-quality"),
    "--jpeg-quality": ("--qf", "--quality-factor"),
    "--width": ("--resize", "--size", "--geometry"),
    "--luma": ("--y-channel", "--test-y", "--test-y-channel", "--y-only", "--ycbcr"),
    "--border": ("--crop-border", "--shave", "--boundary"),
    "--batch": ("--batch-size", "--bs", "-b"),
    "--learning-rate": ("--lr", "--learningrate", "--base-lr"),
    "--validation": ("--val", "--valid", "--val-dir", "--valid-dir", "--validation-dir", "--test-dir"),
    "--steps": ("--iterations", "--iters", "--iter", "--niter", "--total-iter", "--max-steps", "--num-steps"),
    "--loss": ("--criterion", "--loss-fn"),
    "--warmup": ("--warmup-steps", "--warmup-iter", "--num-warmup-steps"),
    "--ema-decay": ("--ema", "--ema-rate"),
}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_SIZE = re.compile(r"(?=.*[0-9])([1-9][0-9]*)?[xX×]([1-9][0-9]*)?[!^<>]?")  # as ImageMagick writes it
_RESTORING = ("upscale", "denoise", "dejpeg")


class _Advice(NamedTuple):
    """What does the same otherwise than by an option.

    Attributes:
        names: Options of other tools.
        text: The advice; {command} stands for the command.
        commands: Names of the commands for which it holds; empty for all.
        for_clips: Whether it holds only where a clip is named.
        for_numbers: Whether it holds only for an option with a number.
    """

    names: tuple[str, ...]
    text: str
    commands: tuple[str, ...] = ()
    for_clips: bool = False
    for_numbers: bool = False


_INPUT = ("-i", "--input", "--inputs", "--input-dir", "--file", "--image", "--source")
_MODEL = ("--model", *_SAME["--model"])
_BATCH = ("--batch", *_SAME["--batch"])
_ADVICE = (  # what holds for certain commands goes before options that do the same, and for clips first
    _Advice(
        ("-r", "--rate", "--framerate", "--frame-rate"),
        "--fps sets the frames a second of numbered images; clips keep theirs",
        _RESTORING,
        for_clips=True,
    ),
    _Advice(
        ("-ss", "-to", "-t", "--start", "--end", "--duration"),
        "clips are restored whole; cut a part out first, as with ffmpeg -ss 10 -t 5 -i in.mp4 part.mp4",
        _RESTORING,
        for_clips=True,
    ),
    _Advice(("--crf", "--cq", "-crf", "-cq"), "here it is --quality, of which 100 is the best", _RESTORING),
    _Advice(
        ("-n",),
        "the strength of noise is --sigma, and without it is chosen by the image; a model is --model",
        ("denoise",),
    ),
    _Advice(
        ("-n",),
        "the model for noisy images is --real, and without it is chosen by the image; a model is --model",
        ("upscale",),
        for_numbers=True,
    ),
    _Advice(("-n",), "`mambair denoise` removes noise; a model is --model", ("dejpeg",), for_numbers=True),
    _Advice(
        ("--host", "--bind", "--listen", "--address", "--ip"),
        "the server answers this machine alone; reach it from others by ssh -L, as docs/serve.md shows",
        ("serve",),
    ),
    _Advice(
        (
            *(*_INPUT, "--images", "--data", "--dataset", "--data-dir", "--data-path", "--dataroot"),
            *("--train", "--train-dir"),
        ),
        "pictures need no option: {command} FOLDER ...",
        ("train",),
    ),
    _Advice(
        (
            *("--gt", "--gt-dir", "--gt-folder", "--gt-path", "--dataroot-gt", "--target", "--targets"),
            *("--hr", "--hr-dir", "--hr-folder", "--hr-path", "--dataroot-hr", "--truth", "--clean"),
        ),
        "the truth needs no option, and inputs are made from it: {command} FOLDER ...",
        ("train",),
    ),
    _Advice(
        (
            *("--lq", "--lq-dir", "--lq-folder", "--lq-path", "--dataroot-lq", "--noisy"),
            *("--lr-dir", "--lr-folder", "--lr-path", "--dataroot-lr"),
        ),
        "inputs are made from the pictures, for --task; leave it out",
        ("train",),
    ),
    _Advice(
        ("--pretrain", "--pretrained-model", "--pretrain-network-g", "--finetune", "--fine-tune", "--init"),
        "here it is --weights",
        ("train",),
    ),
    _Advice(
        ("--gt", "--gt-dir", "--hr", "--truth"), "the truth needs no option: {command} TRUTH", ("evaluate",)
    ),
    _Advice(_INPUT, "inputs need no option: {command} FILE ...", (*_RESTORING, "inspect")),
    _Advice(
        ("--epochs", "--epoch", "--max-epochs", "--num-epochs", "-e"),
        "a run is measured in steps of --batch crops: --steps",
        ("train",),
    ),
    _Advice(
        ("--patch-size", "--patch", "--crop-size", "--image-size", "--imgsz", "--gt-size"),
        "--crop is the side of a crop of the input; the truth is --scale times as large",
        ("train",),
    ),
    _Advice(_MODEL, 'a model is trained further with --weights "$(mambair models path NAME)"', ("train",)),
    _Advice(
        ("--amp", "--bf16", "--bfloat16", "--mixed-precision", *_SAME["--precision fp16"]),
        "here it is --precision bf16",
        ("train",),
    ),
    _Advice(
        ("--workers", *_SAME["--workers"]),
        "pictures are loaded once, before the first step; leave it out",
        ("train",),
    ),
    _Advice(
        ("-r", "--recursive", "--recurse"),
        "folders are always read with their subfolders; leave it out",
        (*_RESTORING, "inspect", "evaluate", "train", "compare"),
    ),
    _Advice(("-f",), "--format sets the output format, --overwrite replaces files that exist", _RESTORING),
    _Advice(
        ("--threads", "--num-threads", "--cpu-threads"),
        "the variable OMP_NUM_THREADS sets the number of threads, as in OMP_NUM_THREADS=4 {command} ...",
    ),
    _Advice(("-v", "--verbose", "--progress"), "progress is always shown in a terminal; leave it out"),
    _Advice(("--denoise",), "here it is --task denoise", ("train", "evaluate")),
    _Advice(("--denoise",), "`mambair denoise` removes noise"),
    _Advice(("--sigma", *_SAME["--sigma"]), "`mambair denoise` removes noise, with --sigma"),
    _Advice(
        ("--width", "--height", *_SAME["--width"]),
        "`mambair upscale` changes the size, with --scale, --width and --height",
    ),
    _Advice(
        _BATCH,
        "the number of tiles per batch is chosen for the device; leave it out",
        (*_RESTORING, "evaluate", "serve"),
    ),
    _Advice(
        ("--compression",),
        f"TIFF and PNG lose nothing; --quality is for {name_formats(lambda row: row.has_quality)}",
        _RESTORING,
    ),
    _Advice(
        ("--dpi", "--ppi", "--density", "--resolution"),
        "the resolution to print at stays that of the image; its size in pixels is set by --scale or --width",
        ("upscale",),
    ),
    _Advice(
        ("--dpi", "--ppi", "--density", "--resolution"),
        "the resolution to print at stays that of the image; leave it out",
        ("denoise", "dejpeg"),
    ),
    _Advice(("--suffix", "--prefix"), "-o FOLDER keeps the names of the inputs", _RESTORING),
    _Advice(("--auto-orient", "-a"), "images are always turned upright; leave it out", _RESTORING),
)


# Values of other tools, by our options.
_VALUES = {
    "--codec": {
        "h264": ("libx264", "x264", "avc", "h.264", "h264_nvenc"),
        "hevc": ("libx265", "x265", "h265", "h.265", "hevc_nvenc"),
        "av1": ("libsvtav1", "svtav1", "svt-av1", "libaom-av1", "aom", "librav1e", "av1_nvenc"),
        "vp9": ("libvpx-vp9", "vpx", "libvpx"),
        "prores": ("prores_ks", "prores_aw"),
    }
}


def find_value(name: str, value: str) -> str | None:
    """Return what a value of another tool is called here; None for one that no tool is known to have.

    Args:
        name: Name of our option, with its dashes.
        value: The value as it was written.
    """
    ours = _VALUES.get(name, {}).items()
    return next((each for each, theirs in ours if value.lower() in (each, *theirs)), None)


def _value_of(name: str, arguments: Sequence[str]) -> str:
    """Return what follows an option among the arguments, with one dash or two; an empty text for nothing."""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        written, equals, value = argument.partition("=")
        if written.startswith("-") and written.lstrip("-") == name.lstrip("-"):
            return value if equals else following
    return ""


def _say_size(name: str, value: str) -> str | None:
    """Say how a size in percent or as width and height, such as 3840x2160, is written; None for others."""
    factor = read_percentage(value)
    if factor is not None and name in ("-r", *_SAME["--width"], *_SAME["--scale"]):
        smaller = "here it is --width, --height or --megapixels, for a smaller image"
        return f"write --scale {factor:g}" if factor >= 1 else smaller
    sides = _SIZE.fullmatch(value)
    if sides is None or name not in _SAME["--width"]:
        return None
    named = zip(("--width", "--height"), sides.groups(), strict=True)
    written = " ".join(f"{option} {side}" for option, side in named if side)
    fits = "; the image fits into that, and nothing crops it to fill it" if sides[1] and sides[2] else ""
    return f"write {written}{fits}"


def find_counterpart(
    name: str, command: str, options: Collection[str], arguments: Sequence[str] = ()
) -> str | None:
    """Name what does here the same as an option of another tool.

    Args:
        name: Name of the option, with its dashes.
        command: Name of the command that it was given to, e.g. ``mambair upscale``.
        options: Names of the options of that command.
        arguments: All arguments of the command; they tell whether a clip is named.

    Returns:
        Advice, or None for an option that no other tool is known to have.
    """
    value = _value_of(name, arguments)
    name = name.replace("_", "-").lower()
    if {"--scale", "--width"} <= set(options) and (size := _say_size(name, value)) is not None:
        return size
    has_clip = any(each.lower().endswith(CLIP_SUFFIXES) for each in arguments)
    fitting = [
        each
        for each in _ADVICE
        if name in each.names
        and (has_clip or not each.for_clips)
        and (_NUMBER.fullmatch(value) or not each.for_numbers)
    ]
    special = next((each for each in fitting if command.split()[-1] in each.commands), None)
    if special is not None:
        return special.text.format(command=command)
    for ours, theirs in _SAME.items():
        if name in theirs and ours.split()[0] in options:
            return f"here it is {ours}"
    general = next((each for each in fitting if not each.commands), None)
    return None if general is None else general.text.format(command=command)
