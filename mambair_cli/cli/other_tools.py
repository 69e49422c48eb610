"""Options of other tools that people are used to, and the options here that do the same."""

from collections.abc import Collection
from typing import NamedTuple

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
    "--workers": ("--threads", "--jobs", "--num-workers", "--processes", "-j", "-p"),
    "--sigma": ("--noise-level", "--noise", "--denoise-strength"),
    "--quiet": ("--silent",),
    "--dry-run": ("--simulate", "--what-if", "--preview"),
    "--strip": ("--no-metadata", "--strip-metadata"),
    "--seed": ("--random-seed",),
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
_RESTORING = ("upscale", "denoise", "dejpeg")


class _Advice(NamedTuple):
    """What does the same otherwise than by an option.

    Attributes:
        names: Options of other tools.
        text: The advice; {command} stands for the command.
        commands: Names of the commands for which it holds; empty for all.
    """

    names: tuple[str, ...]
    text: str
    commands: tuple[str, ...] = ()


_INPUT = ("-i", "--input", "--inputs", "--input-dir", "--file", "--image", "--source")
_MODEL = ("--model", *_SAME["--model"])
_BATCH = ("--batch", *_SAME["--batch"])
_ADVICE = (  # what holds for certain commands goes before options that do the same
    _Advice(
        (*_INPUT, "--images", "--data", "--dataset", "--data-dir", "--data-path", "--train", "--train-dir"),
        "pictures need no option: {command} FOLDER ...",
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
        ("--compression",), "TIFF and PNG lose nothing; --quality is for jpeg, webp and avif", _RESTORING
    ),
    _Advice(("--suffix", "--prefix"), "-o FOLDER keeps the names of the inputs", _RESTORING),
    _Advice(("--auto-orient", "-a"), "images are always turned upright; leave it out", _RESTORING),
)


def find_counterpart(name: str, command: str, options: Collection[str]) -> str | None:
    """Name what does here the same as an option of another tool.

    Args:
        name: Name of the option, with its dashes.
        command: Name of the command that it was given to, e.g. ``mambair upscale``.
        options: Names of the options of that command.

    Returns:
        Advice, or None for an option that no other tool is known to have.
    """
    name = name.replace("_", "-").lower()
    fitting = [each for each in _ADVICE if name in each.names]
    special = next((each for each in fitting if command.split()[-1] in each.commands), None)
    if special is not None:
        return special.text.format(command=command)
    for ours, theirs in _SAME.items():
        if name in theirs and ours.split()[0] in options:
            return f"here it is {ours}"
    general = next((each for each in fitting if not each.commands), None)
    return None if general is None else general.text.format(command=command)
