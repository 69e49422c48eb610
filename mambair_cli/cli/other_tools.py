"""Options of other tools, which people's fingers know, and what does the same here."""

from collections.abc import Collection, Mapping

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
}
_ADVICE = {
    ("-i", "--input", "--inputs", "--input-dir", "--file", "--image", "--source"): (
        "inputs need no option: {command} FILE ..."
    ),
    ("-r", "--recursive", "--recurse"): "a folder is taken with all folders in it; leave it out",
    ("-f",): "--format sets the format of results, --overwrite replaces those that exist",
    ("-v", "--verbose", "--progress"): "progress is shown where there is a terminal; leave it out",
    ("--noise-level", "--noise"): "noise is removed by `mambair denoise`, with --sigma",
    ("--resize", "--size", "--geometry"): "`mambair upscale` sets sizes, with --scale, --width and --height",
    ("--denoise",): "noise is removed by `mambair denoise`",
    ("--batch", "--batch-size"): "as many tiles are computed together as suit the device; leave it out",
    ("--suffix", "--prefix"): "-o FOLDER keeps the names of the inputs",
    ("--auto-orient", "-a"): "pictures are turned upright anyway; leave it out",
}


def find_counterpart(name: str, command: str, options: Collection[str]) -> str | None:
    """Say what does here what an option of another tool does there.

    Args:
        name: Of the option, with its dashes.
        command: That was given it, as it is called.
        options: That the command has.

    Returns:
        What would work, or None where nothing is known of such an option.
    """
    name = name.replace("_", "-").lower()
    ours = _counterparts(_SAME).get(name)
    if ours is not None and ours.split()[0] in options:
        return f"here it is {ours}"
    advice = next((advice for names, advice in _ADVICE.items() if name in names), None)
    return None if advice is None else advice.format(command=command)


def _counterparts(same: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {theirs: ours for ours, names in same.items() for theirs in names}
