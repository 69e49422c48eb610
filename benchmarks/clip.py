"""Time a clip from file to file, in frames a second, and look how idle the GPU is meanwhile.

The clip is a moving part of a noisy picture, h264; the network has random weights, since time depends on
shapes alone. The same command runs on a short and on a long clip, after a first run that compiles kernels,
and the difference counts: so the start is not in the rate. ``--stages`` times decoding and encoding alone,
in this process.

    python -m benchmarks.clip --device cuda:0
    python -m benchmarks.clip --device cuda:0 --devices all --codec hevc
    python -m benchmarks.clip --device cpu --frames 4 12 --size 320 180 --model tiny-x2
    python -m benchmarks.clip --workers 2 --frames 192 576 --size 64 48 --model tiny-x2

Workers make whole segments of 96 frames: with N of them, numbers of frames that are multiples of N times 96
keep all of them busy to the end.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from mambair_cli.checkpoints.official import official_config
from mambair_cli.checkpoints.own_models import find_model
from mambair_cli.networks import build_network
from mambair_cli.video import SegmentWriter, choose_options, open_clip
from mambair_cli.video.ffmpeg import import_av


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mambair-light-x2", help="random weights, unless it is built in")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--devices", help="as mambair's option; in place of --device")
    parser.add_argument("--workers", type=int, help="as mambair's option, on a CPU; in place of --device")
    parser.add_argument("--size", nargs=2, type=int, default=(960, 540), help="width and height")
    parser.add_argument("--frames", nargs=2, type=int, default=(40, 240), help="of two clips")
    parser.add_argument("--codec", default="h264")
    parser.add_argument("--precision", help="as mambair's option")
    parser.add_argument("--stages", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.stages:
            time_stages(place, options)
        else:
            time_runs(place, options)


def time_runs(place: Path, options: argparse.Namespace) -> None:
    """Print frames a second, and how busy each GPU was during the long clip."""
    model = options_for(options.model, place)
    clips = [make_clip(place / f"{frames}.mp4", options.size, frames) for frames in options.frames]
    run(clips[0], model, options)  # compiles kernels, which are kept
    short = run(clips[0], model, options)
    with watch_gpus() as samples:
        long = run(clips[1], model, options)
    frames = options.frames[1] - options.frames[0]
    print(f"{options.frames[0]} frames: {short:.2f} s; {options.frames[1]}: {long:.2f} s")
    print(f"{options.model} {options.codec}: {frames / (long - short):.2f} frames a second")
    for gpu, busy in sorted(samples.items()):
        begun = [number for number, share in enumerate(busy) if share]
        used = busy[begun[0] : begun[-1] + 1] if begun else [0]  # without the start and the end
        print(f"GPU {gpu}: idle {100 - np.mean(used):.0f}% of the time, busy at most {max(used)}%")


def options_for(name: str, place: Path) -> list[str]:
    """Return what names a model: its name if it is built in, or a file of random weights."""
    from safetensors.torch import save_file

    config = official_config(find_model(name))
    if config is None:
        return ["--model", name]
    torch.manual_seed(0)
    path = place / f"{name}.safetensors"
    save_file(build_network(config).state_dict(), path)
    return ["--weights", str(path)]


def make_clip(path: Path, size: tuple[int, int], frames: int) -> Path:
    """Write a clip that no frame of repeats another."""
    av = import_av()
    width, height = size
    random = np.random.default_rng(0)
    picture = random.random((height // 4, width // 4, 3), dtype=np.float32).repeat(5, 0).repeat(5, 1)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            top, left = number % (picture.shape[0] - height), 2 * number % (picture.shape[1] - width)
            part = picture[top : top + height, left : left + width]
            samples = np.clip(255 * part + random.normal(0, 2, part.shape), 0, 255).astype(np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(samples, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def run(clip: Path, model: list[str], options: argparse.Namespace) -> float:
    """Return the seconds of a whole command."""
    target = clip.with_name(f"{clip.stem}_result.mp4")
    where = ["--devices", options.devices] if options.devices else ["--device", options.device]
    where = ["--workers", str(options.workers)] if options.workers else where
    precision = ["--precision", options.precision] if options.precision else []
    command = [sys.executable, "-m", "mambair_cli", "upscale", str(clip), "-o", str(target), "-s", "2"]
    command += [*model, *where, *precision, "--codec", options.codec, "--overwrite", "--offline", "--json"]
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    last = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(last)[:300])
    return time.perf_counter() - begun


@contextmanager
def watch_gpus() -> Iterator[dict[str, list[int]]]:
    """Collect, ten times a second, the share of time in which each GPU had something to do, in percent."""
    samples: dict[str, list[int]] = {}
    if not shutil.which("nvidia-smi"):
        yield samples
        return
    ask = ["nvidia-smi", "--query-gpu=index,utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(ask, stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                gpu, busy = line.split(",")
                samples.setdefault(gpu.strip(), []).append(int(busy))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield samples
        finally:
            process.terminate()
            reader.join()


def time_stages(place: Path, options: argparse.Namespace) -> None:
    """Print what decoding a frame and encoding one twice as wide and high take."""
    frames = options.frames[1]
    source = make_clip(place / "source.mp4", options.size, frames)
    with open_clip(source) as clip:
        begun = time.perf_counter()
        decoded = [frame.pixels for frame in clip.frames()]
        print(f"decoding: {1000 * (time.perf_counter() - begun) / frames:.1f} ms a frame")
        results = [np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1) for pixels in decoded[:8]]
        size = results[0].shape[1], results[0].shape[0]
        chosen = choose_options(
            clip.facts, place / "target.mp4", size=size, codec=options.codec, quality=None
        )
        with SegmentWriter(place / "target.mkv", clip.facts, chosen) as writer:
            begun = time.perf_counter()
            for number in range(frames):
                step = Fraction(1, 25) / clip.facts.time_base
                writer.write(results[number % len(results)], int(number * step), int(step))
        print(f"encoding: {1000 * (time.perf_counter() - begun) / frames:.1f} ms a frame")


if __name__ == "__main__":
    main()
