"""Refuse options that contradict each other, or have no effect."""

from mambair_cli.cli.inputs import check_null
from mambair_cli.cli.options import Options, refuse, show_option
from mambair_cli.errors import UsageError
from mambair_cli.images.formats import FORMATS, explain_depth


def check_options(options: Options) -> None:
    """Refuse options that contradict each other or have no effect, whatever the inputs are."""
    if options.output == "":
        raise UsageError("--output is empty; give it a file, a folder or -")
    _check_several(options)
    check_null(options.null, options.from_file)
    if options.open and not (options.compare or options.preview or options.region):
        raise UsageError("--open shows a page, and none is written; add --preview, --region or --compare")
    if options.watch:
        _check_watch(options)
    if options.note and options.strip:
        raise UsageError("--note and --strip exclude each other: a note is metadata; give one")
    several = None if options.workers is None else f"--workers {options.workers}"
    if options.devices is not None:
        several = f"--devices {options.devices}"
    is_repeated = options.device == "cpu" and options.devices is None  # the device of --workers in any case
    if several and options.device != "auto" and not is_repeated:
        raise UsageError(f"--device {options.device} and {several} exclude each other; give one")
    if options.ray is not None:
        device = None if options.device == "auto" else f"--device {options.device}"
        other = "--dry-run" if options.dry_run else several or device
        if other:
            raise UsageError(f"--ray {options.ray} and {other} exclude each other; give one")
    if options.format is not None:
        check_format(options.format, options)
        row = FORMATS[options.format]
        # Not where only the name of the output gives the format: scripts try several formats that way.
        if options.quality is not None and not row.has_quality:
            raise UsageError(f"{options.format} has no quality: --quality {options.quality}; leave it out")
        if options.background is not None and row.has_alpha:
            raise UsageError(
                f"{options.format} keeps transparency: --background {options.background}; leave it out"
            )


def _check_several(options: Options) -> None:
    """Refuse several models, checkpoints or strengths where one is needed."""
    several_models = [show_option("model", model) for model in options.models or ()]
    several_files = [show_option("weights", file) for file in options.weight_files or ()]
    several_strengths = [show_option("strength", strength) for strength in options.strengths or ()]
    if len(several_files) > 1 and options.mix is None:
        raise UsageError(
            f"{' and '.join(several_files)}: a run takes one; give one, or mix them with --mix 0.5"
        )
    for given in ([] if options.mix is not None else several_models, several_strengths):
        if len(given) > 1 and not options.is_preview:
            raise UsageError(
                f"{' and '.join(given)}: a run takes one; give one, or compare them with --preview"
            )


def _check_watch(options: Options) -> None:
    """Refuse options that need to know all images, and an output that is no folder."""
    if options.output == "-":
        raise UsageError("--watch writes a file for each image, and -o - is standard output; name a folder")
    names = ("compare", "dry_run", "preview", "region", "from_file")
    given = {name: value for name in names if (value := getattr(options, name))}
    refuse(given, names, "--watch goes on as long as images arrive")


def check_format(format: str, options: Options) -> None:
    """Refuse options that the output format cannot do."""
    if options.depth == "16" and "uint16" not in FORMATS[format].dtypes:
        raise UsageError(explain_depth(format, 16))
