"""How threads share out work in a compiled function whose parts follow on each other."""

from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from mambair_cli.kernels.llvm_builder import Code, Index, Pointer

_INT64, _WORD_BYTES = ir.IntType(64), 8


@contextmanager
def loop_legs(
    code: Code, counter: Pointer, progress: Pointer, spacing: int, walks: Index, legs: Index
) -> Iterator[tuple[Index, Index]]:
    """Repeat the code written inside for each leg of each walk, as a pair of their numbers.

    The legs of a walk are done in their order, by any thread. A thread takes the next leg of a walk at which
    no other thread works; walks take turns, so that all advance alike. If other threads work at all walks
    that are not done, it leaves the loop.

    Args:
        code: The function.
        counter: An integer of 64 bits that is 0 at first.
        progress: For each walk one that is 0 at first, ``spacing`` values of 32 bits apart.
        spacing: See ``progress``: threads do not wait for each other's cache lines.
        walks: Number of walks.
        legs: Number of legs of each.
    """
    build, one = code.build, ir.Constant(_INT64, 1)
    take, look, attempt, following, inside, after = (code.function.append_basic_block() for _ in range(6))
    build.branch(take)
    build.position_at_end(take)
    first = Index(code, build.atomic_rmw("add", counter.value, one, "monotonic"))
    build.branch(look)
    build.position_at_end(look)
    tried = Index(code, build.phi(_INT64))
    tried.value.add_incoming(ir.Constant(_INT64, 0), take)
    turn = first + tried
    walk = turn - turn // walks * walks
    place = progress.at(walk * spacing).value
    word = Index(code, build.load_atomic(place, "acquire", _WORD_BYTES, typ=_INT64))
    # Twice the number of legs that are done, and 1 more while a thread is at the next.
    is_free = build.icmp_unsigned("==", build.and_(word.value, one), ir.Constant(_INT64, 0))
    is_left = (word < legs * 2).value
    build.cbranch(build.and_(is_free, is_left), attempt, following)
    build.position_at_end(attempt)
    swapped = build.cmpxchg(place, word.value, (word + 1).value, "acq_rel", "monotonic")
    build.cbranch(build.extract_value(swapped, 1), inside, following)
    build.position_at_end(following)
    tried.value.add_incoming((tried + 1).value, following)
    build.cbranch((tried + 1 < walks).value, look, after)
    build.position_at_end(inside)
    yield walk, word // 2
    build.atomic_rmw("xchg", place, (word + 2).value, "release")
    build.branch(take)
    build.position_at_end(after)
