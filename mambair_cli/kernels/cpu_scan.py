"""The selective scan for CPUs, in vector instructions for this processor.

A vector holds neighbouring channels of one token. A walk takes a run of vectors along one path after the
other, a stretch of tokens at a time: first it computes the stretch's steps, then it updates the states of one
vector after the other, which stay in registers. Paths are summed in the result's memory, and channels do not
depend on each other: nothing is reordered or locked. Where there are more threads than vectors, each path is
a walk of its own, with memory of its own, and they are summed in the same order afterwards. Walks are cut
into legs, so that some more walks than threads keep all threads at work: at the end of a leg any thread may
go on. So the number of threads changes no bit.
"""

import functools
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import torch_scan
from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_passes import add_in_order
from mambair_cli.kernels.cpu_threads import LINE, new_on_lines, run_in_threads
from mambair_cli.kernels.llvm_builder import Code, Condition, Index, Pointer, Vector, count_lanes
from mambair_cli.kernels.llvm_math import LOG2_E, exp2, softplus
from mambair_cli.kernels.llvm_threads import loop_legs
from mambair_cli.kernels.once import Once
from mambair_cli.kernels.operands import ScanParams

LANES = count_lanes()
STRETCH = 32  # tokens
AHEAD = 8  # tokens by which rows are fetched early, since a path jumps over the image
# Rows of the next stretch are fetched during the recurrence where it takes long enough, with so many states,
# and where so few vectors leave room for them in a processor's first cache.
MANY_STATES, FEW_VECTORS = 8, 2
LEGS = 8  # of a path, between which a walk may go over to another thread
# For an estimate of what a division into walks takes, in what one vector of channels takes along one path:
EARLY_ROW, LATE_ROW = 0.35, 0.05  # a token itself, without its vectors, by when its row is fetched
SUM = 0.1  # of paths that are walked side by side, a share of their walks
SLOWEST_PATH = 1.25  # of a mean one: backwards through the columns

# The kernel's arguments, in this order. Strides and sizes count values of 4 bytes.
OPERANDS = ("u", "dt", "B", "C", "paths", "dt_weight", "dt_bias", "A", "D")
POINTERS = (*OPERANDS, "y", "scratch", "kept", "legs_taken", "progress")
SIZES = (
    *("b", "k", "length", "d", "vectors", "paths_image"),
    *("u_image", "u_token"),
    *("dt_image", "dt_token", "dt_path"),
    *("B_image", "B_token", "B_path"),
    *("C_image", "C_token", "C_path"),
)
NUMBERS = (
    "walks",
    "run",
    "runs",
    "leg",
    "legs",
    "scratch_walk",
    "y_path",
    "y_image",
    "y_token",
    *SIZES,
)


def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel.

    See ``kernels.selective_scan``. In addition to its operands it needs 10 to 100 KiB for each thread, and,
    where paths are walked side by side, as much as its result for each path after the first. For a gradient
    it keeps the states at the start of each stretch; what the gradient itself needs, ``cpu_gradient`` tells.

    Raises:
        ValueError: Operands are not in the CPU's memory, or a path names a pixel that does not exist.
    """
    if u.dtype == torch.float64:
        return torch_scan.selective_scan(u, dt, B, C, paths, params)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, B, C, *params)):
        from mambair_cli.kernels import cpu_gradient

        return cpu_gradient.selective_scan(u, dt, B, C, paths, params)
    with torch.no_grad():
        return scan(u, dt, B, C, paths, params, keep_states=False)[0]


def scan(
    u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams, keep_states: bool
) -> tuple[Tensor, Tensor]:
    """Return the sum over paths, (b, l, d), and the states at the start of each stretch if they are kept.

    The states are (b, k, stretches, vectors, n, lanes), or (0,).
    """
    _check_memory(u, dt, B, C, paths, params)
    b, length, d = u.shape
    k, _, n = params.A.shape
    tensors, sizes = lay_out(u, dt, B, C, paths, params)
    vectors, threads, stretches = sizes["vectors"], torch.get_num_threads(), -(-length // STRETCH)
    kept = (b, k, stretches, vectors, n, LANES) if keep_states else (0,)
    states = u.new_empty(kept, dtype=torch.float32)
    if not u.numel():
        return u.new_empty(u.shape, dtype=torch.float32), states
    run, is_apart = divide(b, k, vectors, n, threads)
    shape = (k if is_apart else 1, b, length, d)
    # With states that are kept, for a gradient, PyTorch knows the result as contiguous.
    y = u.new_empty(shape, dtype=torch.float32) if keep_states else new_on_lines(u, *shape)
    runs = -(-vectors // run)
    walks = len(y) * b * runs
    leg = -(-stretches // (LEGS if threads > 1 else 1)) * STRETCH
    scratch = y.new_empty(walks, run * (n + STRETCH) * LANES)
    counts = torch.zeros(1 + walks, LINE, dtype=torch.int32, device=u.device)
    tensors |= {"y": y, "scratch": scratch, "kept": states, "legs_taken": counts[0], "progress": counts[1:]}
    numbers = {
        "walks": walks,
        "run": run,
        "runs": runs,
        "leg": leg,
        "legs": -(-length // leg),
        "scratch_walk": scratch.stride(0),
        **dict(zip(("y_path", "y_image", "y_token"), y.stride(), strict=False)),
        **sizes,
    }
    r, is_late, is_full = params.dt_weight.shape[-1], fetches_late(n, run), d % LANES == 0
    kernel = _compile_kernel(Form(n, r, is_apart, is_late, is_full, keep_states))
    run_in_threads(kernel, tensors, numbers, min(threads, walks))
    return add_in_order(y), states


class Division(NamedTuple):
    """How a scan is divided into walks."""

    run: int  # vectors of channels that a walk takes along its path
    is_apart: bool  # whether each path is a walk of its own


class Form(NamedTuple):
    """What the kernel's code depends on."""

    n: int  # states of a channel
    r: int  # rank of the steps
    is_apart: bool  # each path is a walk of its own
    is_late: bool  # rows are fetched during the recurrence, a stretch ahead
    is_full: bool  # each vector has a channel in each lane: masks cost a CPU without them much time
    keeps_states: bool


def fetches_late(n: int, run: int) -> bool:
    """Tell whether rows are fetched during the recurrence."""
    return n >= MANY_STATES and run <= FEW_VECTORS


@functools.cache
def divide(b: int, k: int, vectors: int, n: int, threads: int) -> Division:
    """Return the division of b images with k paths after which the busiest thread has the least to do."""
    if threads == 1:
        return Division(vectors, is_apart=False)

    def estimate(division: Division) -> float:
        row = LATE_ROW if fetches_late(n, division.run) else EARLY_ROW
        longest = division.run + row
        total = b * (vectors + -(-vectors // division.run) * row)
        if division.is_apart:
            return (1 + SUM) * max(SLOWEST_PATH * longest, k * total / threads)
        return k * max(longest, total / threads)

    line = LINE // LANES  # vectors of a cache line; two threads should not write to one
    runs = sorted({1, *range(line, vectors, line), vectors}, reverse=True)
    return min((Division(run, is_apart) for is_apart in (False, True) for run in runs), key=estimate)


def lay_out(
    u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams, block: int = 1
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Return the tensors named in OPERANDS, as kernels read them, and the numbers named in SIZES.

    Parameters are padded with 0 to whole blocks of so many vectors.
    """
    tensors = {"u": u, "dt": dt, "B": B, "C": C}
    for name, token in tensors.items():
        tensors[name] = token.float() if token.stride(-1) == 1 else token.float().contiguous()
    k, length = paths.shape[-2:]
    d = u.shape[-1]
    sizes = {
        "b": len(u),
        "k": k,
        "length": length,
        "d": d,
        "vectors": -(-d // (LANES * block)) * block,
        "paths_image": k * length if paths.ndim == 3 else 0,
    }
    for name, token in tensors.items():
        strides = zip(("image", "token", "path"), token.stride()[:-1], strict=False)
        sizes |= {f"{name}_{along}": stride for along, stride in strides}
    tensors |= {
        "paths": paths.int().contiguous(),
        "dt_weight": _lay_out_param(params.dt_weight, block),
        "dt_bias": _lay_out_param(params.dt_bias[:, :, None], block),
        "A": _lay_out_param(params.A.float() * LOG2_E, block),
        "D": _lay_out_param(params.D[:, :, None], block),
    }
    return tensors, sizes


def _check_memory(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> None:
    """Raise a ValueError for operands with which the kernel would read or write outside its memory."""
    for operand in (u, dt, B, C, paths, *params):
        if operand.device.type != "cpu":
            raise ValueError(f"the scan backend cpu needs its operands on the CPU, not on {operand.device}")
    least, most = (int(bound) for bound in paths.aminmax()) if paths.numel() else (0, -1)
    if least < 0 or most >= u.shape[1]:
        raise ValueError(f"paths must name pixels from 0 to {u.shape[1] - 1}, not {least} to {most}")


def _lay_out_param(param: Tensor, block: int) -> Tensor:
    """Lay out a parameter for the kernel: (k, d, m) -> (k, vectors, m, lanes), padded with 0."""
    k, d, m = param.shape
    filled = F.pad(param.float(), (0, 0, 0, -d % (LANES * block)))
    return filled.view(k, -1, LANES, m).transpose(2, 3).contiguous()


class Walk(NamedTuple):
    """The addresses and sizes for one path of an image and one run of its vectors of channels."""

    pixels: Pointer  # the pixel at each position of the path
    vectors: Index  # in this run
    channels: Index | None  # from the first of this run to the image's last; None if they fill the vectors
    u: Pointer  # the run's first channel of pixel 0
    y: Pointer
    dt: Pointer
    B: Pointer
    C: Pointer
    dt_weight: Pointer  # (vectors, r, lanes)
    dt_bias: Pointer  # (vectors, 1, lanes)
    A: Pointer  # (vectors, n, lanes)
    D: Pointer  # (vectors, 1, lanes)
    states: Pointer  # (vectors, n, lanes)
    steps: Pointer  # (tokens of a stretch, vectors, lanes)


@Once
def _compile_kernel(form: Form) -> CpuFunction:
    """Compile the scan; walks are numbered run by run, then image by image, and apart path by path."""
    code = Code("selective_scan", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    n, r = form.n, form.r
    legs = job.legs if form.is_apart else job.legs * job.k
    with loop_legs(code, job.legs_taken, job.progress, LINE, job.walks, legs) as (number, turn):
        group = number // job.runs
        begin = (number - group * job.runs) * job.run
        end = (begin + job.run).at_most(job.vectors)
        image = group - group // job.b * job.b if form.is_apart else group
        path = group // job.b if form.is_apart else turn // job.legs
        leg = turn if form.is_apart else turn - path * job.legs
        param = (path * job.vectors + begin) * LANES
        y = job.y.at(path * job.y_path) if form.is_apart else job.y
        scratch = job.scratch.at(number * job.scratch_walk)
        walk = Walk(
            pixels=job.paths.at(image * job.paths_image + path * job.length),
            vectors=end - begin,
            channels=None if form.is_full else job.d - begin * LANES,
            u=job.u.at(image * job.u_image + begin * LANES),
            y=y.at(image * job.y_image + begin * LANES),
            dt=job.dt.at(image * job.dt_image + path * job.dt_path),
            B=job.B.at(image * job.B_image + path * job.B_path),
            C=job.C.at(image * job.C_image + path * job.C_path),
            dt_weight=job.dt_weight.at(param * r),
            dt_bias=job.dt_bias.at(param),
            A=job.A.at(param * n),
            D=job.D.at(param),
            states=scratch,
            steps=scratch.at((end - begin) * (n * LANES)),
        )
        # At the start of a path the states are 0.
        with code.loop(0, (walk.vectors * n).where(leg < 1, 0)) as i:
            walk.states.at(i * LANES).store(code.constant(0.0))
        with code.loop(leg * job.leg, ((leg + 1) * job.leg).at_most(job.length), by=STRETCH) as start:
            tokens = (job.length - start).at_most(STRETCH)
            if form.keeps_states:
                line = (image * job.k + path) * ((job.length + (STRETCH - 1)) // STRETCH)
                kept = job.kept.at(((line + start // STRETCH) * job.vectors + begin) * (n * LANES))
                with code.loop(0, walk.vectors * n) as i:
                    kept.at(i * LANES).store(walk.states.at(i * LANES).load())
            _write_steps(code, form, walk, start, tokens)
            _write_recurrence(code, form, walk, start, tokens, is_first_path=path < 1)
    return code.compile()


def _write_steps(code: Code, form: Form, walk: Walk, start: Index, tokens: Index) -> None:
    """Write the code that computes the steps of a stretch of tokens, and may fetch rows further ahead."""
    job, r = SimpleNamespace(**code.job), form.r
    with code.loop(0, tokens) as t:
        pixel = walk.pixels.at(start + t).load_index()
        ahead = None if form.is_late else _fetch_row(code, form, walk, start + t + AHEAD, walk.vectors)
        dt = walk.dt.at(pixel * job.dt_token)
        with code.loop(0, walk.vectors) as v:
            if ahead is not None:
                _fetch_vector(code, form, walk, ahead, v)
            step = walk.dt_bias.at(v * LANES).load()
            for j in range(r):
                weight = walk.dt_weight.at((v * r + j) * LANES).load()
                step = weight.times_plus(dt.at(j).load_spread(), step)
            walk.steps.at((t * walk.vectors + v) * LANES).store(softplus(step))


def _fetch_row(code: Code, form: Form, walk: Walk, token: Index, stop: Index) -> Index:
    """Write the code that fetches the row of a later token, for vectors up to ``stop``; return its pixel."""
    job = SimpleNamespace(**code.job)
    pixel = walk.pixels.at(token.at_most(job.length - 1)).load_index()
    walk.dt.at(pixel * job.dt_token).prefetch()
    walk.B.at(pixel * job.B_token).prefetch()
    walk.C.at(pixel * job.C_token).prefetch()
    # Rows may end on a line of which nothing begins a vector.
    walk.C.at(pixel * job.C_token + (form.n - 1)).prefetch()
    walk.u.at(pixel * job.u_token + (stop * LANES - 1)).prefetch()
    return pixel


def _fetch_vector(code: Code, form: Form, walk: Walk, pixel: Index, v: Index) -> None:
    """Write the code that fetches a vector of a later token, and its result where that is added to."""
    job = SimpleNamespace(**code.job)
    walk.u.at(pixel * job.u_token + v * LANES).prefetch()
    if not form.is_apart:
        walk.y.at(pixel * job.y_token + v * LANES).prefetch(to_write=True)


def _write_recurrence(
    code: Code, form: Form, walk: Walk, start: Index, tokens: Index, is_first_path: Condition
) -> None:
    """Write the code that updates the states along a stretch of tokens and adds their output to y.

    One vector after the other goes along the whole stretch, so that its states stay in registers.
    """
    job, n = SimpleNamespace(**code.job), form.n
    with code.loop(0, walk.vectors) as v:
        lanes = None if walk.channels is None else code.first_lanes(walk.channels - v * LANES)
        states = [walk.states.at((v * n + i) * LANES) for i in range(n)]
        decays = [walk.A.at((v * n + i) * LANES).load() for i in range(n)]
        skip = walk.D.at(v * LANES).load()

        def advance(t: Index, before: list[Vector]) -> list[Vector]:
            pixel = walk.pixels.at(start + t).load_index()
            if form.is_late:
                ahead = _fetch_row(code, form, walk, start + t + STRETCH, v + 1)
                _fetch_vector(code, form, walk, ahead, v)
            B, C = walk.B.at(pixel * job.B_token), walk.C.at(pixel * job.C_token)
            u = walk.u.at(pixel * job.u_token + v * LANES).load(lanes)
            step = walk.steps.at((t * walk.vectors + v) * LANES).load()
            y, after = skip * u, []
            for i, (state, rate) in enumerate(zip(before, decays, strict=True)):
                after.append(exp2(step * rate).times_plus(state, step * u * B.at(i).load_spread()))
                y = after[i].times_plus(C.at(i).load_spread(), y)
            total = walk.y.at(pixel * job.y_token + v * LANES)
            if not form.is_apart:
                y = y + total.load(lanes).unless(is_first_path)
            total.store(y, lanes)
            return after

        for state, after in zip(
            states, code.accumulate(tokens, [state.load() for state in states], advance), strict=True
        ):
            state.store(after)
