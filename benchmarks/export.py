"""Time exported graphs against the network that they were made from, on the CPU, in one run.

    GOMP_SPINCOUNT=1000 python benchmarks/export.py tiny-x4 mambair-light-x4 --folder exported/

Models that are not built in get random weights: time depends on shapes alone. The first word is
what mambair sets for itself where other programs run, too. The network, onnxruntime and
PyTorch's graph take turns; each cell has the median and the best in milliseconds, and the median of the
ratios to the network in the same turn.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mambair_cli.checkpoints import hub
from mambair_cli.checkpoints.load import load_network
from mambair_cli.checkpoints.official import official_config
from mambair_cli.checkpoints.own_models import find_model
from mambair_cli.export.graph import TileGraph
from mambair_cli.export.write import write_graph
from mambair_cli.networks import Network, build_network


def make_network(name: str) -> Network:
    """Load a built-in model; for others, make the network with random weights."""
    model = find_model(name)
    config = official_config(model)
    if config is None:
        return load_network(hub.fetch(model, offline=True).path)
    torch.manual_seed(0)
    return build_network(config).eval().requires_grad_(False)


def time_in_turns(runs: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Return the seconds of each run, in order."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def export(graph: TileGraph, path: Path) -> None:
    """Write a graph, unless its file is there already."""
    if path.exists():
        return
    torch.set_num_threads(1)
    begin = time.perf_counter()
    written = write_graph(graph, path)
    took = time.perf_counter() - begin
    size = written.bytes / 1e6
    print(
        f"{path.name}: {size:.1f} MB, off by {written.difference:.1e}, exported in {took:.0f} s", flush=True
    )


def measure(name: str, tile: int, options: argparse.Namespace) -> None:
    """Export a model, and print its row of the table for each number of threads."""
    import onnxruntime

    graph = TileGraph(make_network(name), tile, {"version": "benchmark"})
    paths = {suffix: options.folder / f"{name}-{tile}.{suffix}" for suffix in options.formats}
    for path in paths.values():
        export(graph, path)
    picture = graph.make_picture()
    for count in options.threads:
        torch.set_num_threads(count)
        runs: dict[str, Callable[[], object]] = {"mambair": lambda: graph.net(picture)}
        if "onnx" in paths:
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = count
            # Threads that wait for work would take the processors from the other runs.
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = onnxruntime.InferenceSession(paths["onnx"], settings, ["CPUExecutionProvider"])
            runs["onnx"] = functools.partial(session.run, None, {"image": picture.numpy()})
        if "pt2" in paths:
            runs["pt2"] = functools.partial(torch.export.load(paths["pt2"]).module(), picture)
        with torch.inference_mode():
            seconds = time_in_turns(runs, options.turns)
        cells = []
        for each in seconds.values():
            ratio = statistics.median(a / b for a, b in zip(each, seconds["mambair"], strict=True))
            median, best = 1000 * statistics.median(each), 1000 * min(each)
            cells.append(f"{median:.0f} (best {best:.0f}; ratio {ratio:.1f})")
        print(f"| {name} | {tile} | {count} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tiles", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--formats", nargs="+", choices=["onnx", "pt2"], default=["onnx", "pt2"])
    parser.add_argument("--folder", type=Path, required=True, help="where exported files are, and stay")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        for tile in options.tiles:
            measure(name, tile, options)


if __name__ == "__main__":
    main()
