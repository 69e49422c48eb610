"""Train the estimator of ``mambair inspect`` on what ``make_looks.py`` wrote.

    python training/train_look.py a.npz b.npz --validation v.npz --out mambair_cli/weights/look.safetensors

The network is small: the features, 128 and 64 neurons, nine estimates. It takes half a minute on a processor.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from mambair_cli.inspection.look import FARTHEST

NEURONS = (128, 64)
BATCH = 256
RATE = 2e-3
WEIGHT_DECAY = 2e-2
JITTER = 0.05  # deviations, added to features in training
# How much errors count: of sigma in three channels, likeness of neighbours, sigma in three tones, steps, and
# resolution.
WORTH = (1.0, 1.0, 1.0, 0.7, 0.5, 0.5, 0.5, 1.5, 1.2)


def load(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features and the truths of several files."""
    files = [np.load(path) for path in paths]
    features, truths = ([file[name] for file in files] for name in ("features", "truths"))
    return np.concatenate(features), np.concatenate(truths)


def measure(estimate: Tensor, truth: Tensor) -> Tensor:
    """Return the mean error, in deviations; truths that are not known do not count."""
    known = ~torch.isnan(truth)
    errors = nn.functional.smooth_l1_loss(estimate, torch.nan_to_num(truth), reduction="none", beta=0.3)
    return (errors * known * torch.tensor(WORTH)).sum() / known.sum()


def main() -> None:
    """Train, tell the error, and write the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    features, truths = load(arguments.data)
    mean, deviation = features.mean(0), features.std(0) + 1e-3
    target_mean, target_deviation = np.nanmean(truths, 0), np.nanstd(truths, 0)

    def prepare(features: np.ndarray, truths: np.ndarray) -> tuple[Tensor, Tensor]:
        x = np.clip((features - mean) / deviation, -FARTHEST, FARTHEST)
        return torch.tensor(x), torch.tensor((truths - target_mean) / target_deviation)

    x, y = prepare(features, truths)
    held_out = prepare(*load([arguments.validation]))
    sides = [x.shape[1], *NEURONS]
    hidden = [each for pair in zip(sides, NEURONS, strict=False) for each in (nn.Linear(*pair), nn.SiLU())]
    net = nn.Sequential(*hidden, nn.Linear(NEURONS[-1], y.shape[1]))
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=WEIGHT_DECAY)
    steps = arguments.epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(arguments.epochs):
        for some in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            loss = measure(net(x[some] + JITTER * torch.randn(len(some), x.shape[1])), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            with torch.no_grad():
                error = measure(net(held_out[0]), held_out[1]).item()
            print(f"epoch {epoch + 1}: held out {error:.4f}", flush=True)
    layers = [module for module in net if isinstance(module, nn.Linear)]
    tensors = {
        "mean": mean,
        "deviation": deviation,
        "target.mean": target_mean,
        "target.deviation": target_deviation,
    }
    tensors = {name: array.astype(np.float32) for name, array in tensors.items()}
    for name, layer in zip(("first", "second", "last"), layers, strict=True):
        for part, tensor in layer.state_dict().items():
            tensors[f"{name}.{part}"] = tensor.numpy().astype(np.float16)
    save_file(tensors, arguments.out)


if __name__ == "__main__":
    main()
