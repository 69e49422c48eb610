"""The gradient of the selective scan for CPUs, in vector instructions for this processor.

The forward pass is that of ``cpu_scan``, which keeps the states at the start of each stretch of tokens. A
unit of work is a block of channels of one image. It walks backwards along its paths, stretch by stretch:
first it computes the stretch's steps, decays and states again, which stay in the nearest caches, then it
walks back over them.

In memory there are the operands and their gradients; the states that the forward pass has kept; the
gradients of dt, B and C once for each block of channels, which with many channels are several times the
tokens; and, where paths are walked side by side, the gradient of the tokens once for each path.

Sums over channels are taken within a block, and those over tokens within an image, a path and a block; each
has a place of its own, and all are added in the same order afterwards. So the number of threads changes no
bit.
"""

from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from mambair_cli.kernels import cpu_scan
from mambair_cli.kernels.cpu_function import CpuFunction
from mambair_cli.kernels.cpu_passes import add_in_order
from mambair_cli.kernels.cpu_scan import OPERANDS, SIZES, STRETCH
from mambair_cli.kernels.cpu_threads import COUNTER, run_in_threads
from mambair_cli.kernels.llvm_builder import Code, Condition, Index, Pointer, Vector
from mambair_cli.kernels.llvm_math import LN_2, exp2, softplus_and_slope
from mambair_cli.kernels.once import Once
from mambair_cli.kernels.operands import ScanOperands
from mambair_cli.kernels.scan_operator import ScanGradients, define_scan

WORTH_SUMMING = 0.8  # share of the time that paths side by side may take, to be worth the sum afterwards
BLOCK_CHANNELS = 32  # most channels of a unit; 16 and 64 take longer

POINTERS = (*OPERANDS, "states", "of_y", "of_u", "of_projected", "of_params", "scratch")
NUMBERS = (
    *(COUNTER, "shares", "units", "scratch_share"),
    *("images", "blocks", "state_vectors", "of_u_path"),
    *SIZES,
)


def _scan(operands: ScanOperands) -> tuple[Tensor, Tensor]:
    return cpu_scan.scan(*operands, keep_states=True)


def _shape_of_states(operands: ScanOperands) -> tuple[int, ...]:
    b, length, d = operands.u.shape
    k, _, n = operands.params.A.shape
    return b, k, -(-length // STRETCH), -(-d // cpu_scan.LANES), n, cpu_scan.LANES


def _differentiate(of_y: Tensor, operands: ScanOperands, states: Tensor) -> ScanGradients:
    b, length, d = operands.u.shape
    k, _, n = operands.params.A.shape
    r = operands.dt.shape[-1]
    lanes = states.shape[-1]
    block = max(1, min(-(-d // lanes), BLOCK_CHANNELS // lanes))
    tensors, sizes = cpu_scan.lay_out(*operands, block)
    blocks = sizes["vectors"] // block
    is_apart = are_paths_apart(b * blocks, k, torch.get_num_threads())
    of_u = of_y.new_empty(k if is_apart else 1, b, length, d)
    of_projected = of_u.new_empty(blocks, b, length, k, r + 2 * n)
    of_params = of_u.new_zeros(b, k, sizes["vectors"], r + n + 2, lanes)
    if of_u.numel():
        units = len(of_u) * b * blocks
        threads = min(torch.get_num_threads(), units)
        scratch = of_u.new_empty(threads, lanes * (n * (block + 1) + block * STRETCH * (2 + 2 * n)))
        tensors |= {
            "states": states,
            "of_y": of_y,
            "of_u": of_u,
            "of_projected": of_projected,
            "of_params": of_params,
            "scratch": scratch,
        }
        numbers = {
            COUNTER: 0,
            "shares": threads,
            "units": units,
            "blocks": blocks,
            "images": b,
            "scratch_share": scratch.stride(0),
            "of_u_path": of_u.stride(0),
            "state_vectors": states.shape[3],
            **sizes,
        }
        kernel = _compile_kernel(n, r, block, is_apart, is_full=d % (block * lanes) == 0)
        run_in_threads(kernel, tensors, numbers, threads)
    of_params = add_in_order(of_params).transpose(2, 3).reshape(k, -1, r + n + 2)[:, :d]
    # Copies: what an operator returns may not share memory.
    of_weight, of_bias, of_A, of_D = (
        x.clone(memory_format=torch.contiguous_format) for x in of_params.split([r, 1, n, 1], dim=-1)
    )
    return ScanGradients(
        add_in_order(of_u), add_in_order(of_projected), of_weight, of_bias[..., 0], of_A, of_D[..., 0]
    )


selective_scan = define_scan("cpu_scan", _scan, _differentiate, _shape_of_states, sums_D=True)
"""The scan of ``kernels.selective_scan``, with a gradient."""


def are_paths_apart(units: int, k: int, threads: int) -> bool:
    """Tell whether to walk k paths side by side: that fills threads which would else be idle."""
    in_turn, apart = k * -(-units // threads), -(-k * units // threads)  # paths that one thread walks
    return apart <= WORTH_SUMMING * in_turn


class BackwardWalk(NamedTuple):
    """The addresses and sizes for one path of an image and one block of channels."""

    channels: Index  # from the first of this block to the image's last
    pixels: Pointer  # the pixel at each position of the path
    states: Pointer  # at the start of the path's first stretch, of the block's first vector
    u: Pointer  # the block's first channel of pixel 0
    of_y: Pointer
    of_u: Pointer
    dt: Pointer
    B: Pointer
    C: Pointer
    of_projected: Pointer
    dt_weight: Pointer  # (vectors, r, lanes)
    dt_bias: Pointer  # (vectors, 1, lanes)
    A: Pointer  # (vectors, n, lanes)
    D: Pointer  # (vectors, 1, lanes)
    of_params: Pointer  # (vectors, r + n + 2, lanes)
    carried: Pointer  # gradient that the states of the token before have from later ones, (vectors, n, lanes)
    running: Pointer  # the states of one vector, (n, lanes)
    steps: Pointer  # (tokens of a stretch, vectors, step or slope, lanes)
    histories: Pointer  # (tokens of a stretch, vectors, n, decay or what is left of the last state, lanes)


class BackwardKernel:
    """Writes the kernel's code.

    With G the gradient of the states, which runs backwards along a path::

        h[t] = kept[t] + x[t] * B[t],  kept[t] = exp(step[t] * A) * h[t-1],  x[t] = step[t] * u[t]
        G[t] = C[t] * of_y[t] + exp(step[t+1] * A) * G[t+1]

    Args:
        n: Number of states.
        r: Rank of the steps.
        block: Vectors of a block.
        is_apart: Whether paths are walked side by side.
        is_full: Whether all blocks have as many channels as they can.
    """

    def __init__(self, n: int, r: int, block: int, is_apart: bool, is_full: bool) -> None:
        self.n, self.r, self.block, self.is_apart, self.is_full = n, r, block, is_apart, is_full
        self.lanes = cpu_scan.LANES
        self.code = Code("selective_scan_backward", POINTERS, NUMBERS, self.lanes)
        self.job = SimpleNamespace(**self.code.job)

    def compile(self) -> CpuFunction:
        """Write the whole kernel and compile it."""
        code, job = self.code, self.job
        with code.loop_units(COUNTER, job.shares, job.units) as (share, unit):
            scratch = job.scratch.at(share * job.scratch_share)
            group = unit // job.blocks
            begin = (unit - group * job.blocks) * self.block
            image = group // job.k if self.is_apart else group
            first_path = group - image * job.k if self.is_apart else code.index(0)
            with code.loop(first_path, first_path + 1 if self.is_apart else job.k) as path:
                self._write_path(self._walk(image, path, begin, scratch), path < first_path + 1)
        return code.compile()

    def _walk(self, image: Index, path: Index, begin: Index, scratch: Pointer) -> BackwardWalk:
        job, lanes, n, r = self.job, self.lanes, self.n, self.r
        param = (path * job.vectors + begin) * lanes
        line = image * job.k + path
        stretches = (job.length + (STRETCH - 1)) // STRETCH
        of_u = job.of_u.at(path * job.of_u_path) if self.is_apart else job.of_u
        tokens = image * job.length
        block_number = begin // self.block
        return BackwardWalk(
            channels=job.d - begin * lanes,
            pixels=job.paths.at(image * job.paths_image + path * job.length),
            states=job.states.at((line * stretches * job.state_vectors + begin) * (n * lanes)),
            u=job.u.at(image * job.u_image + begin * lanes),
            of_y=job.of_y.at(tokens * job.d + begin * lanes),
            of_u=of_u.at(tokens * job.d + begin * lanes),
            dt=job.dt.at(image * job.dt_image + path * job.dt_path),
            B=job.B.at(image * job.B_image + path * job.B_path),
            C=job.C.at(image * job.C_image + path * job.C_path),
            of_projected=job.of_projected.at(
                ((block_number * job.images * job.length + tokens) * job.k + path) * (r + 2 * n)
            ),
            dt_weight=job.dt_weight.at(param * r),
            dt_bias=job.dt_bias.at(param),
            A=job.A.at(param * n),
            D=job.D.at(param),
            of_params=job.of_params.at((line * job.vectors + begin) * ((r + n + 2) * lanes)),
            carried=scratch,
            running=scratch.at(self.block * n * lanes),
            steps=scratch.at((self.block + 1) * n * lanes),
            histories=scratch.at(((self.block + 1) * n + 2 * STRETCH * self.block) * lanes),
        )

    def _write_path(self, walk: BackwardWalk, is_first: Condition) -> None:
        """Write the code that walks backwards along a path."""
        code, job = self.code, self.job
        with code.loop(0, code.index(self.block * self.n)) as i:
            walk.carried.at(i * self.lanes).store(code.constant(0.0))
        stretches = (job.length + (STRETCH - 1)) // STRETCH
        with code.loop(0, stretches) as done:
            stretch = stretches - done - 1
            start = stretch * STRETCH
            tokens = (job.length - start).at_most(STRETCH)
            with code.loop(0, code.index(self.block)) as v:
                self._write_history(walk, v, stretch, tokens)
            with code.loop(0, tokens) as back:
                t = tokens - back - 1
                self._write_token(walk, t, walk.pixels.at(start + t).load_index(), is_first)

    def _write_history(self, walk: BackwardWalk, v: Index, stretch: Index, tokens: Index) -> None:
        """Write the code that computes a stretch's steps, decays and states for one vector."""
        code, job, lanes = self.code, self.job, self.lanes
        used = self._channels_used(walk, v)
        kept_states = walk.states.at((stretch * job.state_vectors + v) * (self.n * lanes))
        with code.loop(0, code.index(self.n)) as i:
            walk.running.at(i * lanes).store(kept_states.at(i * lanes).load(used))
        with code.loop(0, tokens) as t:
            pixel = walk.pixels.at(stretch * STRETCH + t).load_index()
            raw = walk.dt_bias.at(v * lanes).load()
            for j in range(self.r):
                weight = walk.dt_weight.at((v * self.r + j) * lanes).load()
                raw = weight.times_plus(walk.dt.at(pixel * job.dt_token + j).load_spread(), raw)
            step, slope = softplus_and_slope(raw)
            place = self._step_at(walk, t, v)
            place.store(step)
            place.at(lanes).store(slope)
            x = step * walk.u.at(pixel * job.u_token + v * lanes).load(used)
            history = self._history_at(walk, t, v)
            for i in range(self.n):
                decay = exp2(step * walk.A.at((v * self.n + i) * lanes).load())
                state = walk.running.at(i * lanes)
                kept = decay * state.load()
                history.at(2 * i * lanes).store(decay)
                history.at((2 * i + 1) * lanes).store(kept)
                state.store(x.times_plus(walk.B.at(pixel * job.B_token + i).load_spread(), kept))

    def _write_token(self, walk: BackwardWalk, t: Index, pixel: Index, is_first: Condition) -> None:
        """Write the code that computes all gradients of one token and adds those of the parameters."""
        job, n, r = self.job, self.n, self.r
        dt, B, C = (
            [source.at(pixel * stride + i).load_spread() for i in range(count)]
            for source, stride, count in (
                (walk.dt, job.dt_token, r),
                (walk.B, job.B_token, n),
                (walk.C, job.C_token, n),
            )
        )
        columns = [self.code.constant(0.0)] * (r + 2 * n)  # gradients of dt, B and C
        for v in range(self.block):
            self._write_vector(walk, t, pixel, is_first, v, (dt, B, C), columns)
        target = walk.of_projected.at(pixel * job.k * len(columns))
        for first in range(0, len(columns), self.lanes):
            some = columns[first : first + self.lanes]
            used = None if len(some) == self.lanes else self.code.first_lanes(self.code.index(len(some)))
            target.at(first).store(self.code.sum_each(some), used)

    def _write_vector(
        self,
        walk: BackwardWalk,
        t: Index,
        pixel: Index,
        is_first: Condition,
        v: int,
        projected: tuple[list[Vector], ...],
        columns: list[Vector],
    ) -> None:
        """Write the code for one vector of a token's channels; it adds to the columns."""
        job, lanes, n, r = self.job, self.lanes, self.n, self.r
        dt, B, C = projected
        used = self._channels_used(walk, v)
        u = walk.u.at(pixel * job.u_token + v * lanes).load(used)
        of_y = walk.of_y.at(pixel * job.d + v * lanes).load(used)
        step, slope = (self._step_at(walk, t, v).at(place * lanes).load() for place in (0, 1))
        history = self._history_at(walk, t, v)
        x = step * u
        of_x = of_exponent = self.code.constant(0.0)
        totals = [walk.of_params.at((v * (r + n + 2) + row) * lanes) for row in range(r + n + 2)]

        def add(row: int, factor: Vector, other: Vector | float) -> None:
            totals[row].store(factor.times_plus(other, totals[row].load()))

        for i in range(n):
            decay, kept = history.at(2 * i * lanes).load(), history.at((2 * i + 1) * lanes).load()
            carried = walk.carried.at((v * n + i) * lanes)
            of_h = of_y.times_plus(C[i], carried.load())
            carried.store(of_h * decay)
            of_x = of_h.times_plus(B[i], of_x)
            columns[r + i] = of_h.times_plus(x, columns[r + i])
            columns[r + n + i] = x.times_plus(B[i], kept).times_plus(of_y, columns[r + n + i])
            of_decayed = of_h * kept  # the gradient of step * A
            of_exponent = of_decayed.times_plus(walk.A.at((v * n + i) * lanes).load(), of_exponent)
            add(r + 1 + i, of_decayed, step)
        # The kernel's A is log2(e) times that of the equation.
        of_raw = u.times_plus(of_x, of_exponent * LN_2) * slope
        for j in range(r):
            add(j, of_raw, dt[j])
            columns[j] = of_raw.times_plus(walk.dt_weight.at((v * r + j) * lanes).load(), columns[j])
        add(r, of_raw, 1.0)
        add(r + 1 + n, of_y, u)
        of_u = step.times_plus(of_x, of_y * walk.D.at(v * lanes).load())
        total = walk.of_u.at(pixel * job.d + v * lanes)
        total.store(of_u + total.load(used).unless(is_first), used)

    def _channels_used(self, walk: BackwardWalk, v: Index | int) -> Condition | None:
        return None if self.is_full else self.code.first_lanes(walk.channels - v * self.lanes)

    def _step_at(self, walk: BackwardWalk, t: Index, v: Index | int) -> Pointer:
        """Return where the step of a token is, and behind it the derivative of its softplus."""
        return walk.steps.at((t * self.block + v) * (2 * self.lanes))

    def _history_at(self, walk: BackwardWalk, t: Index, v: Index | int) -> Pointer:
        """Return where a token's decays are, and behind each what it leaves of the state before."""
        return walk.histories.at((t * self.block + v) * (2 * self.n * self.lanes))


@Once
def _compile_kernel(n: int, r: int, block: int, is_apart: bool, is_full: bool) -> CpuFunction:
    return BackwardKernel(n, r, block, is_apart, is_full).compile()
