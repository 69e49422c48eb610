"""The selective scan for CPUs, in vector instructions written for the processor at hand.

A vector holds neighbouring channels of one token. A thread takes a run of vectors and walks them along one
path after the other, a stretch of tokens at a time: first it makes the stretch's steps, then it moves the
states, which stay in the nearest caches. Paths are summed where the result lies, and no channel knows of
another: there is nothing to reorder and nothing to lock, and the result does not depend on the threads.
"""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mambair_cli.kernels import torch_loop
from mambair_cli.kernels.operands import ScanParams
from mambair_cli.kernels.vector_code import Code, Condition, Index, Pointer, Program, Vector, count_lanes

LANES = count_lanes()
STRETCH = 32  # tokens
AHEAD = 8  # tokens; so early are the rows fetched that a path strews over the image

# What the kernel is told, in this order. Strides and sizes count values of 4 bytes.
POINTERS = ("u", "dt", "B", "C", "paths", "dt_weight", "dt_bias", "A", "D", "y", "scratch")
COUNTER = "shares_taken"
NUMBERS = (
    *(COUNTER, "shares", "units", "k", "length", "d", "vectors", "scratch_share"),
    *("u_image", "u_token", "y_image", "y_token", "paths_image"),
    *("dt_image", "dt_token", "dt_path"),
    *("B_image", "B_token", "B_path"),
    *("C_image", "C_token", "C_path"),
)

LOG2_E = 1.4426950408889634
LOG2_E_HIGH = 1.44269502162933349609375  # LOG2_E in float32
LOG2_E_LOW = LOG2_E - LOG2_E_HIGH
# Minimax polynomial of (2**x - 1) / x for |x| <= 1/2, relative error 4.3e-7. The 2**x made of it is exactly 1
# at 0, and right in what little a slow state loses in a step: along a path, a bias of 1e-7 would add up.
EXP2 = (0.69314714, 0.24022351, 0.05550500, 0.00966625, 0.00133335)
# Minimax polynomial of log(1 + x) / x for 0 <= x <= 1, relative error 3e-8.
LOG1P = (
    *(0.99999997, -0.49999493, 0.33319097, -0.24842982, 0.19106007),
    *(-0.13663247, 0.07822596, -0.02950524, 0.00523269),
)
# A float of this size has no bits for fractions: added to a small one, it rounds it to an integer, which the
# lowest bits of the sum then hold.
TO_INTEGER = 1.5 * 2.0**23
LEAST_EXPONENT = -127.0  # 1.0 times 2 to that power has no bit set: it is 0
LEAST_LOG = -87.0  # of a float that is not denormal


@torch.no_grad()
def selective_scan(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> Tensor:
    """Run one selective scan per path and sum the results at each pixel, without a gradient.

    See ``kernels.selective_scan``. Beyond its operands it needs some ten KiB for each thread.

    Raises:
        ValueError: For operands that are not in the CPU's memory, and for pixels that do not exist.
    """
    if u.dtype == torch.float64:
        return torch_loop.selective_scan(u, dt, B, C, paths, params)
    _check_memory(u, dt, B, C, paths, params)
    b, length, d = u.shape
    k, _, n = params.A.shape
    r = params.dt_weight.shape[-1]
    tokens = {"u": u, "dt": dt, "B": B, "C": C}
    for name, token in tokens.items():
        tokens[name] = token.float() if token.stride(-1) == 1 else token.float().contiguous()
    y = u.new_empty(b, length, d, dtype=torch.float32)
    if not y.numel():
        return y
    vectors = -(-d // LANES)
    threads = min(torch.get_num_threads(), b * vectors)
    scratch = y.new_empty(threads, vectors * (n + STRETCH) * LANES)
    tensors = {
        **tokens,
        "paths": paths.int().contiguous(),
        "dt_weight": _lay_out(params.dt_weight),
        "dt_bias": _lay_out(params.dt_bias[:, :, None]),
        "A": _lay_out(params.A.float() * LOG2_E),
        "D": _lay_out(params.D[:, :, None]),
        "y": y,
        "scratch": scratch,
    }
    numbers = {
        COUNTER: 0,
        "shares": threads,
        "units": b * vectors,
        "k": k,
        "length": length,
        "d": d,
        "vectors": vectors,
        "scratch_share": scratch.stride(0),
        "paths_image": k * length if paths.ndim == 3 else 0,
    }
    for name in ("u", "dt", "B", "C", "y"):
        strides = zip(("image", "token", "path"), tensors[name].stride()[:-1], strict=False)
        numbers |= {f"{name}_{along}": stride for along, stride in strides}
    values = [*(tensors[name].data_ptr() for name in POINTERS), *(numbers[name] for name in NUMBERS)]
    _run_in_threads(_compile_kernel(n, r), (ctypes.c_int64 * len(values))(*values), threads)
    return y


def _check_memory(u: Tensor, dt: Tensor, B: Tensor, C: Tensor, paths: Tensor, params: ScanParams) -> None:
    """Raise a ValueError for operands by which the kernel would read or write where it must not."""
    for operand in (u, dt, B, C, paths, *params):
        if operand.device.type != "cpu":
            raise ValueError(f"the scan backend cpu needs its operands on the CPU, not on {operand.device}")
    least, most = (int(bound) for bound in paths.aminmax()) if paths.numel() else (0, -1)
    if least < 0 or most >= u.shape[1]:
        raise ValueError(f"paths must name pixels from 0 to {u.shape[1] - 1}, not {least} to {most}")


def _lay_out(param: Tensor) -> Tensor:
    """Lay out a parameter as the kernel reads it: (k, d, m) -> (k, vectors, m, lanes), filled up with 0."""
    k, d, m = param.shape
    filled = F.pad(param.float(), (0, 0, 0, -d % LANES))
    return filled.view(k, -1, LANES, m).transpose(2, 3).contiguous()


def _run_in_threads(kernel: Program, job: ctypes.Array, threads: int) -> None:
    """Have a job done by threads that share it among themselves.

    They are PyTorch's own threads where those can be had: after each operation these spin for some
    milliseconds before they sleep, and other threads would share the cores with them.
    """
    if threads == 1:
        kernel(job)
    elif _run_in_team and os.getpid() == _PROCESS:
        _run_in_team(kernel.address, ctypes.addressof(job), torch.get_num_threads(), 0)
    else:
        others = [threading.Thread(target=kernel, args=(job,)) for _ in range(threads - 1)]
        for thread in others:
            thread.start()
        kernel(job)
        for thread in others:
            thread.join()


def _find_team() -> Any:
    """Return OpenMP's function that has each thread of a team run a function, or None.

    Its arguments are the address of the function, its one argument, the number of threads, and flags.
    """
    if sys.platform != "linux":
        return None
    run_in_team = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if run_in_team:
        run_in_team.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        run_in_team.restype = None
    return run_in_team


_run_in_team = _find_team()
_PROCESS = os.getpid()  # one that was forked from it has no team, but OpenMP would wait for it


class Walk(NamedTuple):
    """What the kernel needs along one path of an image, for a run of its vectors of channels."""

    pixels: Pointer  # the pixel at each position of the path
    vectors: Index  # in this run
    channels: Index  # from the first of this run to the image's last
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


@functools.cache
def _compile_kernel(n: int, r: int) -> Program:
    """Compile the scan for n states and steps of rank r.

    A unit of its work is a vector of channels of an image; a share is a run of units, done by one thread.
    """
    code = Code("selective_scan", POINTERS, NUMBERS, LANES)
    job = SimpleNamespace(**code.job)
    with code.loop_shared(COUNTER, job.shares) as share:
        first = share * job.units // job.shares
        stop = (share + 1) * job.units // job.shares
        scratch = job.scratch.at(share * job.scratch_share)
        with code.loop(first // job.vectors, (stop - 1) // job.vectors + 1) as image:
            begin = (first - image * job.vectors).at_least(0)
            end = (stop - image * job.vectors).at_most(job.vectors)
            with code.loop(0, job.k) as path:
                param = (path * job.vectors + begin) * LANES
                walk = Walk(
                    pixels=job.paths.at(image * job.paths_image + path * job.length),
                    vectors=end - begin,
                    channels=job.d - begin * LANES,
                    u=job.u.at(image * job.u_image + begin * LANES),
                    y=job.y.at(image * job.y_image + begin * LANES),
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
                with code.loop(0, walk.vectors * n) as i:
                    walk.states.at(i * LANES).store(code.constant(0.0))
                with code.loop(0, job.length, by=STRETCH) as start:
                    tokens = (job.length - start).at_most(STRETCH)
                    _write_steps(code, walk, r, start, tokens)
                    _write_recurrence(code, walk, n, start, tokens, is_first_path=path < 1)
    return code.compile()


def _write_steps(code: Code, walk: Walk, r: int, start: Index, tokens: Index) -> None:
    """Write what makes the steps of a stretch of tokens, and fetches the rows of those further ahead."""
    job = SimpleNamespace(**code.job)
    with code.loop(0, tokens) as t:
        pixel = walk.pixels.at(start + t).load_index()
        ahead = walk.pixels.at((start + t + AHEAD).at_most(job.length - 1)).load_index()
        walk.dt.at(ahead * job.dt_token).prefetch()
        walk.B.at(ahead * job.B_token).prefetch()
        walk.C.at(ahead * job.C_token).prefetch()
        dt = walk.dt.at(pixel * job.dt_token)
        with code.loop(0, walk.vectors) as v:
            walk.u.at(ahead * job.u_token + v * LANES).prefetch()
            walk.y.at(ahead * job.y_token + v * LANES).prefetch(to_write=True)
            step = walk.dt_bias.at(v * LANES).load()
            for j in range(r):
                weight = walk.dt_weight.at((v * r + j) * LANES).load()
                step = weight.times_plus(dt.at(j).load_spread(), step)
            walk.steps.at((t * walk.vectors + v) * LANES).store(_softplus(step))


def _write_recurrence(
    code: Code, walk: Walk, n: int, start: Index, tokens: Index, is_first_path: Condition
) -> None:
    """Write what moves the states along a stretch of tokens, and adds what comes out to the other paths'."""
    job = SimpleNamespace(**code.job)
    with code.loop(0, tokens) as t:
        pixel = walk.pixels.at(start + t).load_index()
        B, C = walk.B.at(pixel * job.B_token), walk.C.at(pixel * job.C_token)
        with code.loop(0, walk.vectors) as v:
            lanes = code.first_lanes(walk.channels - v * LANES)
            u = walk.u.at(pixel * job.u_token + v * LANES).load(lanes)
            step = walk.steps.at((t * walk.vectors + v) * LANES).load()
            y = walk.D.at(v * LANES).load() * u
            for i in range(n):
                decay = _exp2(step * walk.A.at((v * n + i) * LANES).load())
                state = walk.states.at((v * n + i) * LANES)
                h = decay.times_plus(state.load(), step * u * B.at(i).load_spread())
                state.store(h)
                y = h.times_plus(C.at(i).load_spread(), y)
            total = walk.y.at(pixel * job.y_token + v * LANES)
            total.store(y + total.load(lanes).unless(is_first_path), lanes)


def _exp2(x: Vector) -> Vector:
    """Return 2**x for x < 127, and 0 below -127."""
    x = x.at_least(LEAST_EXPONENT)
    shifted = x + TO_INTEGER
    return _polynomial(x - (shifted - TO_INTEGER), (1.0, *EXP2)).times_power_of_two(shifted)


def _exp(x: Vector) -> Vector:
    """Return exp(x) for x <= 0: not by 2**x, for the more x is, the more its rounding would weigh."""
    bounded = x.at_least(LEAST_LOG)
    shifted = bounded * LOG2_E + TO_INTEGER
    fraction = bounded.times_plus(LOG2_E_HIGH, (shifted - TO_INTEGER) * -1.0)
    fraction = bounded.times_plus(LOG2_E_LOW, fraction)
    return _polynomial(fraction, (1.0, *EXP2)).times_power_of_two(shifted).unless(x < LEAST_LOG)


def _softplus(x: Vector) -> Vector:
    """Return log(1 + exp(x)), right in proportion however small."""
    small = _exp(x.magnitude() * -1.0)
    return _polynomial(small, LOG1P).times_plus(small, x.at_least(0.0))


def _polynomial(x: Vector, coefficients: Sequence[float]) -> Vector:
    """Return the sum of coefficients[i] * x**i."""
    total = x.code.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total.times_plus(x, coefficient)
    return total
