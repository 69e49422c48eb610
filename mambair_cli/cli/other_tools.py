"""Options of other tools that people are used to, and the options here that do the same."""

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
    ("-r", "--recursive", "--recurse"): "folders are always read with their subfolders; leave it out",
    ("-f",): "--format sets the output format, --overwrite replaces files that exist",
    ("-v", "--verbose", "--progress"): "progress is always shown in a terminal; leave it out",
    ("--noise-level", "--noise"): "`mambair denoise` removes noise, with --sigma",
    (
        "--resize",
        "--size",
        "--geometry",
    ): "`mambair upscale` changes the size, with --scale, --width and --height",
    ("--denoise",): "`mambair denoise` removes noise",
    ("--batch", "--batch-size"): "the number of tiles per batch is chosen for the device; leave it out",
    ("--suffix", "--prefix"): "-o FOLDER keeps the names of the inputs",
    ("--auto-orient", "-a"): "images are always turned upright; leave it out",
}


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
    ours = _counterparts(_SAME).get(name)
    if ours is not None and ours.split()[0] in options:
        return f"here it is {ours}"
    advice = next((advice for names, advice in _ADVICE.items() if name in names), None)
    return None if advice is None else advice.format(command=command)


def _counterparts(same: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {theirs: ours for ours, names in same.items() for theirs in names}
