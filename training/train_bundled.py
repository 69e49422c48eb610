"""Train the small models that ship inside the package, several side by side on one GPU.

A network this small leaves a large GPU partly idle; two on streams of their own make better use of it than
one after the other. Runs go on where they were left.

A network learns from small crops first, and then, with ``--start``, from larger ones at a lower rate. With
``--fill``, the steps are as many as the given seconds hold, counted from when all is compiled, so that the
rate comes down to nothing in time.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from mambair_cli.networks import MambaIRConfig
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.loop import LOG_EVERY, LOG_FILE, Log
from mambair_cli.train.trainer import STATE_FILE, Trainer
from mambair_cli.train.validation import load_validation, measure

SPEED_STEPS = 300  # by which the steps that fit into a time are estimated
UNTIMED_STEPS = 60  # before those: compiling, recording


def configure(name: str, arguments: argparse.Namespace) -> TrainConfig:
    kind = name.removeprefix("real-")
    scale = int(kind[1:]) if kind[0] == "x" else 1
    task = "upscale" if scale > 1 else kind
    gray = [arguments.gray] if task == "dejpeg" and arguments.gray else []
    return TrainConfig(
        task=task,
        images=(*arguments.data, *gray),
        output=arguments.out / name,
        scale=scale,
        degradation="real" if kind != name else "papers",
        shrink=tuple(arguments.shrink),
        network=MambaIRConfig(
            embed_dim=arguments.embed_dim,
            depths=tuple(arguments.depths),
            d_state=arguments.d_state,
            d_inner=arguments.d_inner,
            upscale=scale,
            upsampler="pixelshuffledirect" if scale > 1 else "",
        ),
        weights=arguments.start,
        validation=arguments.validation / {"upscale": "Set5", "dejpeg": "classic5"}.get(task, "CBSD10"),
        crop=arguments.crop,
        batch=arguments.batch,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        warmup=500,
        compile=True,
        device="cuda",
        validate_every=arguments.validate_every,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--shrink", type=float, nargs="+", default=(1.0, 0.8, 0.65))
    parser.add_argument("--gray", type=Path, help="gray photographs, for dejpeg in addition")
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="checkpoint to start from: what fits of it")
    parser.add_argument("--embed-dim", type=int, default=72)
    parser.add_argument("--depths", type=int, nargs="+", default=(3, 3, 3))
    parser.add_argument("--d-state", type=int, default=8)
    parser.add_argument("--d-inner", type=int, default=64)
    parser.add_argument("--crop", type=int, default=48, help="side of a crop of the input, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="crops in a step")
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--fill", type=float, help="seconds to the last step")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    parser.add_argument("--validate-every", type=int, default=8000)
    arguments = parser.parse_args()
    begun = time.monotonic()
    torch.backends.cudnn.benchmark = True
    runs, logs, validations = [], [], []
    for name in arguments.names:
        config = configure(name, arguments)
        config.output.mkdir(parents=True, exist_ok=True)
        run = Trainer(config)
        if (config.output / STATE_FILE).exists():
            run.load()
        runs.append(run)
        logs.append(Log(config.output / LOG_FILE, run.step, None))
        validations.append(load_validation(config, run.net.info.channels))
    print(
        f"{arguments.names}: ready after {time.monotonic() - begun:.0f} s, at step {runs[0].step}", flush=True
    )
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in runs]
    saved = told = time.monotonic()
    told_step = first_step = runs[0].step
    timed = begun
    while runs[0].step < runs[0].config.steps and time.monotonic() - begun < arguments.stop_after:
        done = runs[0].step - first_step
        if arguments.fill and done in (UNTIMED_STEPS, UNTIMED_STEPS + SPEED_STEPS):
            torch.cuda.synchronize()
            now = time.monotonic()
            if done > UNTIMED_STEPS:
                left = (arguments.fill - (now - timed)) * SPEED_STEPS / (now - timed)
                for run in runs:
                    run.plan(run.step + int(left))
                print(f"{arguments.names}: {runs[0].config.steps} steps", flush=True)
            timed = now
        for run, log, validation, stream in zip(runs, logs, validations, streams, strict=True):
            with torch.cuda.stream(stream):
                rate = run.learning_rate
                run.advance()
                if run.step % LOG_EVERY == 0:
                    log.write({"step": run.step, "loss": run.mean_loss(), "learning_rate": rate})
                    run.forget_loss()
                if run.step % arguments.validate_every == 0 or run.step == run.config.steps:
                    with torch.backends.cudnn.flags(benchmark=False, allow_tf32=False):
                        log.write({"step": run.step, **measure(run.averaged, validation, run.config)})
        now = time.monotonic()
        if now - saved > 60:
            for run, stream in zip(runs, streams, strict=True):
                with torch.cuda.stream(stream):
                    run.save()
            saved = time.monotonic()
        if now - told > 15:
            speed = (runs[0].step - told_step) / (now - told)
            print(f"{arguments.names} step {runs[0].step}: {speed:.1f} steps/s", flush=True)
            told, told_step = now, runs[0].step
    for run, stream in zip(runs, streams, strict=True):
        with torch.cuda.stream(stream):
            run.save()
    for name, log in zip(arguments.names, logs, strict=True):
        lines = log.path.read_text().splitlines()
        print(name, *[line for line in lines if "psnr" in line], *lines[-2:], sep="\n  ", flush=True)
    print(json.dumps({"seconds": round(time.monotonic() - begun), "step": runs[0].step}), flush=True)


if __name__ == "__main__":
    main()
