"""Compare the time of a command on one small image with that of the same command through a server.

python benchmarks/serve.py --turns 7
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

MAMBAIR = (sys.executable, "-m", "mambair_cli")


def measure(command: tuple[str, ...], folder: Path) -> float:
    """Run a command to its end; return the seconds that it took."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 256], help="pixels")
    parser.add_argument("--model", default="tiny-x4")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mambair-") as name:
        folder = Path(name)
        serve = (*MAMBAIR, "serve", "--offline", "--quiet", "--socket", f"{name}/socket")
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            begun = time.perf_counter()
            assert server.stdout
            address = server.stdout.readline().strip()
            print(f"server      {time.perf_counter() - begun:6.2f} s until it listens")
            for side in arguments.sides:
                pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "in.png")
                common = (*MAMBAIR, "upscale", "in.png", "--model", arguments.model, "--overwrite")
                commands = {
                    "Python": (sys.executable, "-c", "pass"),
                    "import torch": (sys.executable, "-c", "import torch"),
                    "alone": (*common, "--offline", "-o", "alone.png"),
                    "with a server": (*common, "--server", address, "-o", "served.png"),
                }
                measure(commands["with a server"], folder)  # work that is done only once
                seconds: dict[str, list[float]] = {what: [] for what in commands}
                for _ in range(arguments.turns):
                    for what, command in commands.items():
                        seconds[what].append(measure(command, folder))
                same = (folder / "alone.png").read_bytes() == (folder / "served.png").read_bytes()
                print(f"{side}×{side}, {arguments.turns} turns, the same bytes: {same}")
                for what, all_seconds in seconds.items():
                    low, high = min(all_seconds), max(all_seconds)
                    print(f"{what:14}{median(all_seconds):6.2f} s, {low:.2f} to {high:.2f}")
                ratio = median(seconds["with a server"]) / median(seconds["alone"])
                print(f"with a server it takes {ratio:.2f} of the time")
            server.terminate()


if __name__ == "__main__":
    main()
