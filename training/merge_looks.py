"""Make one estimator of several, which gives the mean of their estimates; they differ by their seed.

python training/merge_looks.py one.safetensors two.safetensors ... --out mambair_cli/weights/look.safetensors
"""

import argparse
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

SHARED = ("mean", "deviation", "target.mean", "target.deviation")  # they come from the data


def main() -> None:
    """Put the layers side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("estimators", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    parts = [load_file(path) for path in arguments.estimators]
    for name in SHARED:
        if any(not np.array_equal(part[name], parts[0][name]) for part in parts):
            parser.error("estimators must be trained on the same data")
    tensors = {name: parts[0][name] for name in SHARED}
    tensors["first.weight"] = np.concatenate([part["first.weight"] for part in parts])
    blocks = [part["second.weight"] for part in parts]
    tensors["second.weight"] = np.zeros((len(parts) * blocks[0].shape[0], len(parts) * blocks[0].shape[1]))
    for number, block in enumerate(blocks):
        rows, columns = (slice(number * side, (number + 1) * side) for side in block.shape)
        tensors["second.weight"][rows, columns] = block
    for name in ("first.bias", "second.bias"):
        tensors[name] = np.concatenate([part[name] for part in parts])
    last = np.concatenate([part["last.weight"] for part in parts], axis=1).astype(np.float32)
    tensors["last.weight"] = last / len(parts)
    tensors["last.bias"] = np.mean([part["last.bias"].astype(np.float32) for part in parts], axis=0)
    save_file(
        {name: tensor if name in SHARED else tensor.astype(np.float16) for name, tensor in tensors.items()},
        arguments.out,
    )


if __name__ == "__main__":
    main()
