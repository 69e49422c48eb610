"""A part of an image before and after, as a page and in the terminal: ``--preview`` and ``--region``."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambair_cli.cli.browser import open_page
from mambair_cli.cli.jobs import choose_scale
from mambair_cli.cli.notices import explain_level, explain_look, name_better
from mambair_cli.cli.options import Options, refuse
from mambair_cli.cli.output import print_event, say, warn_of_clip
from mambair_cli.cli.preview_image import PreviewClip, PreviewImage
from mambair_cli.errors import UsageError
from mambair_cli.system.files import identify_files
from mambair_cli.system.geometry import Region, read_region
from mambair_cli.system.wording import as_argument

if TYPE_CHECKING:
    from mambair_cli.checkpoints.catalog import Asked
    from mambair_cli.cli.progress import Progress
    from mambair_cli.images.source import Source
    from mambair_cli.inspection.need import Need
    from mambair_cli.pages.screen import ScreenPicture
    from mambair_cli.restore.restorer import Restorer
    from mambair_cli.runs.job_files import WriteOptions

MOST_RESULTS = 5  # a page compares them with the image
_OF_RESULTS = ("format", "quality", "depth", "strip", "note", "background", "preserve_times", "compare")
_OF_RUNS = ("resume", "fail_fast", "dry_run")
_OF_EXECUTORS = ("devices", "workers", "ray")


def check_preview(options: Options) -> None:
    """Refuse options that have no effect on a preview, before any file is looked at.

    Raises:
        UsageError: One of them was given, or too many results were asked for.
    """
    asked = "--preview" if options.region is None else "--region"
    _read_region(options)
    plain = Options()
    given = {name: value for name, value in vars(options).items() if value != vars(plain)[name]}
    refuse(given, (*_OF_RESULTS, *_OF_RUNS), f"{asked} writes a page and no result")
    refuse(given, ["wrap"], f"{asked} shows a part without what surrounds it")
    refuse(given, _OF_EXECUTORS, f"{asked} computes in one process")
    if options.server and options.server != os.environ.get("MAMBAIR_SERVER"):  # that one is for runs
        refuse(given, ["server"], f"{asked} computes in one process")
    results = len(options.asked_models) * len(options.asked_strengths)
    if results > MOST_RESULTS:
        raise UsageError(f"{asked} shows up to {MOST_RESULTS} results, not {results}; name fewer")
    if options.output is None or os.path.isdir(options.output):
        return
    from mambair_cli.pages.document import is_page_name

    if not is_page_name(Path(options.output)):
        raise UsageError(
            f"{asked} writes a page for the browser, not an image: -o {options.output}; "
            "give a name that ends in .html"
        )


def show_preview(
    asked: "Asked",
    sources: list["Source"],
    output: "WriteOptions",
    options: Options,
    clip: PreviewClip | None = None,
) -> None:
    """Restore a part of an image by each model and strength, and show it before and after.

    Args:
        asked: What is asked for, by each of the models in the options.
        sources: The images.
        output: How results are written, of which the size counts.
        options: Options of the command, as :func:`check_preview` accepts them.
        clip: The clip that the image is a frame of, which is the input, then.

    Raises:
        MambairError: There is no such image, part or model, or the page cannot be written.
    """
    from mambair_cli.checkpoints.catalog import is_named
    from mambair_cli.checkpoints.own_models import find_model
    from mambair_cli.inspection.need import describe_need
    from mambair_cli.pages.comparison import write_comparison
    from mambair_cli.pages.document import write_page

    if len(sources) != 1:
        raise UsageError(f"a preview shows one image, and there are {len(sources)}; name one")
    files = _files(sources[0], clip)
    page = _name_page(files, options)
    for model in filter(is_named, options.asked_models):
        find_model(model)  # before PyTorch is loaded
    with _open(sources[0], options, clip) as image:
        results = _restore(image, asked, output, options)
    pictures = [image.show(image.read_part(image.region), image.name), *(each.picture for each in results)]
    title = image.name if image.is_whole else f"{image.name}: {image.region}"
    document = write_comparison(pictures, title, with_ssim=False, files=files)
    write_page(page, document, options.overwrite, identify_files(files))
    if options.json:
        print_event(
            "preview",
            input=str(sources[0]) if clip is None else clip.name,
            page=as_argument(page),
            region=list(image.region),
            results=[each.facts for each in results],
            need=image.need and describe_need(image.need),
            warnings=image.warnings,
        )
        return
    if not options.quiet:
        from mambair_cli.cli.terminal_pictures import show_in_terminal

        show_in_terminal(pictures)
        say("this is a preview: no image is written; without --preview and --region the whole is restored")
    print(as_argument(page))
    if options.open:
        open_page(page)


def _name_page(files: list[Path], options: Options) -> Path:
    """Return the page to write; refuse one that exists, before anything is computed."""
    from mambair_cli.pages.document import check_page, name_page

    name = name_page(files[0].stem, "_preview.html") if files else "preview.html"
    pictures = None  # the name of the page is that of the image
    if options.output is None:
        page = files[0].with_name(name) if files else Path(name)
    else:
        page, pictures = Path(options.output), files
        page = page / name if page.is_dir() else page
    check_page(page, options.overwrite, identify_files(files), pictures)
    return page


def _files(source: "Source", clip: PreviewClip | None) -> list[Path]:
    """Return the file of an image, if it has one, or the clip that it is a frame of."""
    path = source.path if clip is None else Path(clip.name)
    return [path] if path else []


def _read_region(options: Options) -> Region | None:
    return None if options.region is None else read_region(options.region, "--region")


@contextmanager
def _open(source: "Source", options: Options, clip: PreviewClip | None) -> Iterator[PreviewImage]:
    """Open an image; say what is shown of it, and at the end what is damaged."""
    from mambair_cli.images.stretch import read_stretch
    from mambair_cli.runs.job_files import open_source

    region = _read_region(options)
    source = source.hold()
    with open_source(source, options.max_pixels, options.damaged) as reader:
        # Frames of clips are not stretched: that of each would be another.
        image = PreviewImage(reader, source, region, read_stretch(reader) if clip is None else None, clip)
        if not options.quiet and region is None and not image.is_whole:
            say(f"{image.name}: showing the part {image.region}; --region shows another one")
        yield image
        if clip is not None and not options.quiet:
            warn_of_clip(clip.name, clip.warnings)
        elif image.warnings and not options.quiet:
            say(f"warning: {source}: {'; '.join(image.warnings)}")


@dataclass(frozen=True)
class _Result:
    """A restored part.

    Attributes:
        picture: The part for the screen.
        facts: What made it, in types that JSON has.
    """

    picture: "ScreenPicture"
    facts: dict[str, Any]


def _restore(image: PreviewImage, asked: "Asked", output: "WriteOptions", options: Options) -> list[_Result]:
    """Restore the part by each model and strength."""
    from mambair_cli.cli.executors import load_restorer
    from mambair_cli.cli.progress import Progress
    from mambair_cli.runs.output_size import check_reach, keep_scale
    from mambair_cli.system.signals import cleaning_up

    results: list[_Result] = []
    shown: set[str] = set()
    progress = Progress(not options.quiet)
    for name in options.asked_models:
        by_name = choose_scale(replace(asked, model=name), [image.source], output, options.max_pixels)
        usual = load_restorer(by_name, replace(options, strengths=None))
        check_reach(output.size, usual.info.scale)
        need = image.look() if usual.others else None
        restorer = usual if need is None else usual.choose(need)
        size = output.size
        if restorer.info.scale != usual.info.scale:
            size = keep_scale(size, usual.info.scale)
        if restorer.model.name in shown:  # "auto" has chosen a model that was named, too
            continue
        shown.add(restorer.model.name)
        if not options.quiet:
            _explain(image, asked, restorer, need, options.offline)
        with cleaning_up(), progress:
            results += _restore_by(restorer, image, replace(output, size=size), options, progress)
    return results


def _explain(
    image: PreviewImage,
    asked: "Asked",
    restorer: "Restorer",
    need: "Need | None",
    is_offline: bool,
) -> None:
    """Say which model restores the part, and why, in the words of a run."""
    model, place = restorer.model.name, str(restorer.device)
    if need is None:
        if remark := explain_level(asked.task, asked.level, model):
            say(remark)
        if not restorer.notice:
            say(f"using {model} on {place}")
        return
    if notice := restorer.model.tell(is_offline):
        say(notice)
    else:
        say(f"using {model} on {place}, by a look at the {'image' if image.clip is None else 'clip'}")
    if sentence := explain_look(asked.task, need, model, of_clip=image.clip is not None):
        say(f"{image.name if image.clip is None else image.clip.name}: {sentence}")
    if need.kind == "real" and not is_offline and (better := name_better(asked.task, model, place)):
        say(better)


def _restore_by(
    restorer: "Restorer", image: PreviewImage, output: "WriteOptions", options: Options, progress: "Progress"
) -> list[_Result]:
    """Restore the part by one model, for each strength."""
    from mambair_cli.images import from_float
    from mambair_cli.images.resize_and_convert import reduce_samples
    from mambair_cli.restore.part import add_context, restore_part
    from mambair_cli.runs.jobs import StartedImage

    header, region, scale = image.header, image.region, restorer.info.scale
    if not output.size.needs_network(header.width, header.height):
        raise UsageError(
            f"a preview shows what a network does, and results of half the width and height or less of "
            f"{image.name} are made without one; ask for a larger result"
        )
    width, height = output.size.target(header.width, header.height, scale)
    size = (
        max(1, round(region.width * width / header.width)),
        max(1, round(region.height * height / header.height)),
    )
    context = add_context(region, header.height, header.width, restorer)
    progress.start(0, StartedImage(image.source, region.width * region.height))
    start = time.perf_counter()
    restored, report = restore_part(
        restorer,
        image.read_part(context.seen),
        context,
        options.asked_strengths,
        lambda done, total: progress.advance(0, done, total),
        image.stretch,
    )
    seconds = time.perf_counter() - start
    results = []
    for samples, strength in zip(restored, options.asked_strengths, strict=True):
        if size != (scale * region.width, scale * region.height):
            floats = from_float(samples, "float32")
            samples = reduce_samples(floats, size[1], size[0], dtype=header.dtype)
        name = restorer.model.name + (f", strength {strength:g}" if options.strengths else "")
        picture = image.show(from_float(samples, header.dtype), name)
        facts = {
            "model": restorer.model.name,
            "strength": strength,
            "scale": scale,
            "width": size[0],
            "height": size[1],
            "shrunk": report.shrunk,
            "seconds": round(seconds, 3),
        }
        results.append(_Result(picture, facts))
    return results
