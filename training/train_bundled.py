"""Train the small models that ship inside the package, several side by side on one GPU.

A network this small leaves a large GPU partly idle; two at once, each on its own stream, use it better than
one after the other. Interrupted runs continue.

A network learns from small crops first, and then, with ``--start``, from larger ones at a lower rate. With
``--fill`` the number of steps is what the given seconds allow, counted after compilation, so that the rate
reaches zero in time; it follows the speed, which another training at the same time may change.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mambair_cli.networks import MambaIRConfig
from mambair_cli.train.config import TrainConfig
from mambair_cli.train.folder import LOG_FILE, STATE_FILE
from mambair_cli.train.loop import LOG_EVERY, Log, finite_loss, save_state
from mambair_cli.train.trainer import Trainer
from mambair_cli.train.validation import ValidationPair, load_validation, measure

SPEED_STEPS = 300  # timed steps from which on they tell how many fit
UNTIMED_STEPS = 60  # before those: compiling, recording
SAVE_SECONDS = 60  # between two saved states
PRINT_SECONDS = 15  # between two lines on the speed


def configure(name: str, arguments: argparse.Namespace) -> TrainConfig:
    kind = name.removeprefix("real-")
    scale = int(kind[1:]) if kind[0] == "x" else 1
    task = "upscale" if scale > 1 else kind
    gray = [arguments.gray] if task != "upscale" and arguments.gray else []
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
        loss=arguments.loss,
        clipped=arguments.clipped,
        teacher=arguments.teacher,
        teacher_share=arguments.teacher_share,
        warmup=500,
        compile=True,
        device="cuda",
        validate_every=arguments.validate_every,
    )


@dataclass
class BundledRun:
    """A run with its log, its measurements and the stream on which it computes."""

    name: str
    trainer: Trainer
    log: Log
    validation: dict[str, list[ValidationPair]]
    stream: torch.cuda.Stream

    def advance(self, validate_every: int) -> None:
        """Do a step, and log and measure where that is due."""
        trainer = self.trainer
        with torch.cuda.stream(self.stream):
            rate = trainer.learning_rate
            trainer.advance()
            if trainer.step % LOG_EVERY == 0:
                self.log.write({"step": trainer.step, "loss": finite_loss(trainer), "learning_rate": rate})
                trainer.reset_loss()
            if trainer.step % validate_every == 0 or trainer.step == trainer.config.steps:
                with torch.backends.cudnn.flags(benchmark=False, allow_tf32=False):
                    measured = measure(trainer.averaged, self.validation, trainer.config)
                self.log.write({"step": trainer.step, **measured})

    def save(self) -> None:
        """Write the state and the weights, unless training has diverged."""
        with torch.cuda.stream(self.stream):
            save_state(self.trainer)


def start(name: str, arguments: argparse.Namespace) -> BundledRun:
    config = configure(name, arguments)
    config.output.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(config)
    if (config.output / STATE_FILE).exists():
        trainer.load()
    log = Log(config.output / LOG_FILE, trainer.step, None)
    return BundledRun(
        name, trainer, log, load_validation(config, trainer.net.info.channels), torch.cuda.Stream()
    )


def train(runs: list[BundledRun], arguments: argparse.Namespace, begun: float) -> None:
    first = runs[0].trainer
    saved = printed = time.monotonic()
    printed_step = first_step = first.step
    timed, timed_step = math.inf, first_step
    while first.step < first.config.steps and time.monotonic() - begun < arguments.stop_after:
        if first.step - first_step == UNTIMED_STEPS:
            torch.cuda.synchronize()
            timed, timed_step = time.monotonic(), first.step
        for run in runs:
            run.advance(arguments.validate_every)
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            for run in runs:
                run.save()
            saved = time.monotonic()
        if now - printed > PRINT_SECONDS:
            speed = (first.step - printed_step) / (now - printed)
            printed, printed_step = now, first.step
            if arguments.fill and first.step - timed_step >= SPEED_STEPS and timed < now:
                left = timed + arguments.fill - now
                more = max(1, int(left * (first.step - timed_step) / (now - timed)))
                for run in runs:
                    run.trainer.set_steps(run.trainer.step + more)
            steps = first.config.steps
            print(f"{arguments.names} step {first.step} of {steps}: {speed:.1f} steps/s", flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--data", type=Path, required=True, nargs="+")
    parser.add_argument("--shrink", type=float, nargs="+", default=(1.0, 0.8, 0.65))
    parser.add_argument("--gray", type=Path, help="more gray images for dejpeg and denoise")
    parser.add_argument(
        "--clipped", type=float, default=0.0, help="share of noisy crops as in files of 8 bits"
    )
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="checkpoint to start from; tensors that fit are taken")
    parser.add_argument("--embed-dim", type=int, default=72)
    parser.add_argument("--depths", type=int, nargs="+", default=(3, 3, 3))
    parser.add_argument("--d-state", type=int, default=8)
    parser.add_argument("--d-inner", type=int, default=64)
    parser.add_argument("--crop", type=int, default=48, help="side of a crop of the input, in pixels")
    parser.add_argument("--batch", type=int, default=16, help="crops in a step")
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--loss", default="l1", choices=("l1", "charbonnier", "l2", "psnr", "psnr-y"))
    parser.add_argument("--teacher", type=Path, help="checkpoint whose results are mixed into the targets")
    parser.add_argument("--teacher-share", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--fill", type=float, help="seconds to the last step")
    parser.add_argument("--stop-after", type=float, default=math.inf, help="seconds")
    parser.add_argument("--validate-every", type=int, default=8000)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    begun = time.monotonic()
    torch.backends.cudnn.benchmark = True
    runs = [start(name, arguments) for name in arguments.names]
    seconds = time.monotonic() - begun
    print(f"{arguments.names}: ready after {seconds:.0f} s, at step {runs[0].trainer.step}", flush=True)
    torch.cuda.synchronize()
    train(runs, arguments, begun)
    for run in runs:
        run.save()
    for run in runs:
        lines = run.log.path.read_text().splitlines()
        print(run.name, *[line for line in lines if "psnr" in line], *lines[-2:], sep="\n  ", flush=True)
    print(json.dumps({"seconds": round(time.monotonic() - begun), "step": runs[0].trainer.step}), flush=True)


if __name__ == "__main__":
    main()
