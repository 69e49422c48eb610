"""Writes a function over vectors of float32 in LLVM's language and compiles it for this processor.

It is for loops that must become vector instructions: each operation on a ``Vector`` here is one instruction
there, whatever a compiler would choose. Compiling takes about 30 ms, so nothing is stored on disk.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from mambair_cli.kernels.cpu_function import CpuFunction

llvm.check_jit_execution()  # raises an OSError if a program must not run code that it made

_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_POINTER, _VOID = ir.PointerType(), ir.VoidType()
_VALUE_BYTES = 4  # of a float, and of an integer in memory
_MANTISSA_BITS = 23


def count_lanes() -> int:
    """Return how many floats a vector should have: 16 if the processor's have 512 bits, else 8."""
    return 16 if llvm.get_host_cpu_features().get("avx512f") else 8


class Value:
    """A value in the function that is written; Python numbers become constants of its type."""

    def __init__(self, code: "Code", value: Any) -> None:
        self.code = code
        self.value = value

    def _lift(self, other: "Value | float") -> Any:
        if isinstance(other, Value):
            return other.value
        kind = self.value.type
        return ir.Constant(kind, [other] * kind.count if isinstance(kind, ir.VectorType) else other)


class Condition(Value):
    """True or false, or one of them in each lane."""


class Index(Value):
    """An integer of 64 bits."""

    def __add__(self, other: "Index | int") -> "Index":
        return Index(self.code, self.code.build.add(self.value, self._lift(other)))

    def __sub__(self, other: "Index | int") -> "Index":
        return Index(self.code, self.code.build.sub(self.value, self._lift(other)))

    def __mul__(self, other: "Index | int") -> "Index":
        return Index(self.code, self.code.build.mul(self.value, self._lift(other)))

    def __floordiv__(self, other: "Index | int") -> "Index":
        """Return the quotient of numbers that are not negative."""
        return Index(self.code, self.code.build.udiv(self.value, self._lift(other)))

    def __lt__(self, other: "Index | int") -> Condition:
        return Condition(self.code, self.code.build.icmp_signed("<", self.value, self._lift(other)))

    def is_inside(self, size: "Index") -> Condition:
        """Tell whether this is from 0 to size - 1: a negative number is a large one without a sign."""
        return Condition(self.code, self.code.build.icmp_unsigned("<", self.value, size.value))

    def at_least(self, bound: "Index | int") -> "Index":
        """Return the larger of the two."""
        return Index(self.code, self.code.build.select((self < bound).value, self._lift(bound), self.value))

    def where(self, condition: Condition, other: "Index | int") -> "Index":
        """Return this number if the condition holds, and else the other."""
        return Index(self.code, self.code.build.select(condition.value, self.value, self._lift(other)))

    def at_most(self, bound: "Index | int") -> "Index":
        """Return the smaller of the two."""
        return Index(self.code, self.code.build.select((self < bound).value, self.value, self._lift(bound)))


class Vector(Value):
    """A float in each lane."""

    def __add__(self, other: "Vector | float") -> "Vector":
        return Vector(self.code, self.code.build.fadd(self.value, self._lift(other)))

    def __sub__(self, other: "Vector | float") -> "Vector":
        return Vector(self.code, self.code.build.fsub(self.value, self._lift(other)))

    def __mul__(self, other: "Vector | float") -> "Vector":
        return Vector(self.code, self.code.build.fmul(self.value, self._lift(other)))

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return Vector(self.code, self.code.build.fdiv(self.value, self._lift(other)))

    def __lt__(self, other: "Vector | float") -> Condition:
        return Condition(self.code, self.code.build.fcmp_ordered("<", self.value, self._lift(other)))

    def times_plus(self, factor: "Vector | float", summand: "Vector | float") -> "Vector":
        """Return self * factor + summand, rounded once if the processor can."""
        operands = [self.value, self._lift(factor), self._lift(summand)]
        return Vector(self.code, self.code.call("fmuladd", operands, self.value.type))

    def times_power_of_two(self, exponent: "Vector") -> "Vector":
        """Return self * 2**e by adding e, the lowest bits of ``exponent``, to the exponent in its bits."""
        build, lanes = self.code.build, self.code.lanes
        bits = ir.VectorType(_INT32, lanes)
        places = ir.Constant(bits, [_MANTISSA_BITS] * lanes)
        raised = build.add(
            build.bitcast(self.value, bits), build.shl(build.bitcast(exponent.value, bits), places)
        )
        return Vector(self.code, build.bitcast(raised, self.value.type))

    def magnitude(self) -> "Vector":
        """Return the absolute values."""
        return Vector(self.code, self.code.call("fabs", [self.value], self.value.type))

    def at_least(self, bound: "Vector | float") -> "Vector":
        """Return the larger of the two; NaN stays NaN."""
        return Vector(self.code, self.code.build.select((self < bound).value, self._lift(bound), self.value))

    def is_number(self) -> Condition:
        """Tell where there is a number, not a NaN."""
        return Condition(self.code, self.code.build.fcmp_ordered("ord", self.value, self.value))

    def square_root(self) -> "Vector":
        """Return the square roots."""
        return Vector(self.code, self.code.call("sqrt", [self.value], self.value.type))

    def sum_lanes(self) -> "Vector":
        """Return the sum of all lanes in each lane; a power of two of them."""
        return self.fold_lanes(lambda x, y: x + y)

    def fold_lanes(self, combine: Callable[["Vector", "Vector"], "Vector"]) -> "Vector":
        """Combine all lanes, a power of two of them, to one value, which is then in each lane."""
        total, build, distance = self, self.code.build, self.code.lanes // 2
        kind = ir.VectorType(_INT32, self.code.lanes)
        while distance:
            places = ir.Constant(kind, [lane ^ distance for lane in range(self.code.lanes)])
            other = build.shuffle_vector(total.value, total.value, places)
            total = combine(total, Vector(self.code, other))
            distance //= 2
        return total

    def where(self, condition: Condition, other: "Vector | float") -> "Vector":
        """Return this where the condition holds, and the other elsewhere."""
        return Vector(self.code, self.code.build.select(condition.value, self.value, self._lift(other)))

    def unless(self, condition: Condition) -> "Vector":
        """Return zeros where the condition holds."""
        return Vector(self.code, self.code.build.select(condition.value, self._lift(0.0), self.value))


class Pointer(Value):
    """An address of floats, or of integers of 32 bits."""

    def at(self, offset: Index | int) -> "Pointer":
        """Return the address ``offset`` values further on."""
        offset = self.code.index(offset) if isinstance(offset, int) else offset
        return Pointer(self.code, self.code.build.gep(self.value, [offset.value], source_etype=_FLOAT))

    def where(self, condition: Condition, other: "Pointer") -> "Pointer":
        """Return this address if the condition holds, and else the other."""
        return Pointer(self.code, self.code.build.select(condition.value, self.value, other.value))

    def load(self, lanes: Condition | None = None) -> Vector:
        """Read a vector; if lanes are given, read only these, and 0 into the others."""
        kind = self.code.vector
        if lanes is None:
            return Vector(self.code, self.code.build.load(self.value, typ=kind, align=_VALUE_BYTES))
        align, zeros = ir.Constant(_INT32, _VALUE_BYTES), ir.Constant(kind, None)
        operands = [self.value, align, lanes.value, zeros]
        return Vector(self.code, self.code.call("masked.load", operands, kind, f"{self.code.suffix}.p0"))

    def store(self, vector: Vector, lanes: Condition | None = None) -> None:
        """Write a vector; if lanes are given, write only these."""
        if lanes is None:
            self.code.build.store(vector.value, self.value, align=_VALUE_BYTES)
            return
        operands = [vector.value, self.value, ir.Constant(_INT32, _VALUE_BYTES), lanes.value]
        self.code.call("masked.store", operands, _VOID, f"{self.code.suffix}.p0")

    def load_spread(self) -> Vector:
        """Read one float into all lanes."""
        return Vector(self.code, self.code.spread(self.code.build.load(self.value, typ=_FLOAT)))

    def copy_to(self, place: "Pointer") -> None:
        """Copy one value of 32 bits."""
        build = self.code.build
        build.store(build.load(self.value, typ=_FLOAT), place.value)

    def load_index(self) -> Index:
        """Read an integer of 32 bits."""
        build = self.code.build
        return Index(self.code, build.sext(build.load(self.value, typ=_INT32), _INT64))

    def prefetch(self, to_write: bool = False) -> None:
        """Ask the processor to read this address into its caches."""
        all_caches, data = 3, 1
        hints = [ir.Constant(_INT32, hint) for hint in (int(to_write), all_caches, data)]
        self.code.call("prefetch", [self.value, *hints], _VOID, "p0")


class Code:
    """A function that is being written. Its one argument points to a job: an array of 64-bit values.

    Args:
        name: Name of the function.
        pointers: Names of the job's first values, which are addresses.
        numbers: Names of the job's other values, which are integers.
        lanes: Floats in a vector; if the processor's hold fewer, each operation is several instructions.

    Attributes:
        job: The job's values by name, ``Pointer`` or ``Index``.
    """

    def __init__(self, name: str, pointers: Sequence[str], numbers: Sequence[str], lanes: int) -> None:
        self.lanes = lanes
        self.vector = ir.VectorType(_FLOAT, lanes)
        self.suffix = f"v{lanes}f32"
        self.module = ir.Module(name)
        self.function = ir.Function(self.module, ir.FunctionType(_VOID, [_POINTER]), name)
        self.build = ir.IRBuilder(self.function.append_basic_block())
        self._names = pointers, numbers
        self.job: dict[str, Any] = {}
        for key in pointers:
            self.job[key] = Pointer(self, self.build.load(self._next_place(), typ=_POINTER))
        for key in numbers:
            self.job[key] = Index(self, self.build.load(self._next_place(), typ=_INT64))

    def constant(self, number: float) -> Vector:
        """Return a vector with the same number in all lanes."""
        return Vector(self, ir.Constant(self.vector, [number] * self.lanes))

    def lane_numbers(self) -> Vector:
        """Return 0.0, 1.0, 2.0, ... in the lanes."""
        return Vector(self, ir.Constant(self.vector, [float(lane) for lane in range(self.lanes)]))

    def index(self, number: int) -> Index:
        """Return an integer as a constant."""
        return Index(self, ir.Constant(_INT64, number))

    def spread(self, value: Any) -> Any:
        """Return LLVM's vector with the same LLVM value in all lanes."""
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self.build.insert_element(nothing, value, ir.Constant(_INT32, 0))
        places = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.build.shuffle_vector(first, nothing, places)

    def first_lanes(self, count: Index) -> Condition:
        """Return for each lane whether it is among the first ``count``."""
        numbers = ir.Constant(ir.VectorType(_INT64, self.lanes), list(range(self.lanes)))
        return Condition(self, self.build.icmp_signed("<", numbers, self.spread(count.value)))

    def lanes_of(self, count: int) -> dict[int, Condition | None]:
        """Return which lanes hold some of ``count`` values, for each vector's first of them; None for all."""
        return {
            first: None if first + self.lanes <= count else self.first_lanes(self.index(count - first))
            for first in range(0, count, self.lanes)
        }

    def sum_each(self, vectors: Sequence[Vector]) -> Vector:
        """Return the sum of the lanes of each vector, the first one's in the first lane, 0 beyond the last.

        In each step two vectors become one that holds sums of both, so that a sum costs less than by
        ``sum_lanes``.
        """
        columns: list[Vector | None] = [*vectors, *[None] * (self.lanes - len(vectors))]
        distance = self.lanes // 2
        while distance:
            half = len(columns) // 2
            columns = [self._fold(columns[i], columns[i + half], distance) for i in range(half)]
            distance //= 2
        return columns[0] or self.constant(0.0)

    def _fold(self, first: Vector | None, second: Vector | None, distance: int) -> Vector | None:
        """Add lanes at a distance; the first's sums are where that bit of a lane is 0, else the second's."""
        if first is None:
            return None
        kind = ir.VectorType(_INT32, self.lanes)
        source = [
            self.lanes if lane & distance else 0 for lane in range(self.lanes)
        ]  # the second's lanes follow
        near = [source[lane] + lane for lane in range(self.lanes)]
        far = [source[lane] + (lane ^ distance) for lane in range(self.lanes)]
        other = (second or self.constant(0.0)).value
        x, y = (
            self.build.shuffle_vector(first.value, other, ir.Constant(kind, lane)) for lane in (near, far)
        )
        return Vector(self, self.build.fadd(x, y))

    @contextmanager
    def loop(self, start: Index | int, stop: Index, by: int = 1) -> Iterator[Index]:
        """Repeat the code written inside for each i of range(start, stop, by)."""
        first = self.index(start) if isinstance(start, int) else start
        with self._repeat(lambda i: i + by if i else first, stop) as i:
            yield i

    @contextmanager
    def loop_shared(self, counter: str, stop: Index) -> Iterator[Index]:
        """Repeat the code written inside for each i of range(stop) that no other thread has taken.

        ``counter`` is the name of the job's number with which the threads count; it must be 0 at first.
        """
        place, one = self._place(list(self.job).index(counter)), ir.Constant(_INT64, 1)
        with self._repeat(
            lambda _: Index(self, self.build.atomic_rmw("add", place, one, "monotonic")), stop
        ) as i:
            yield i

    @contextmanager
    def loop_units(self, counter: str, shares: Index, units: Index) -> Iterator[tuple[Index, Index]]:
        """Repeat the code written inside for each unit of the shares that no other thread has taken.

        See ``loop_shared``; share i of n has the units from ``i * units // n`` on. Inside are the numbers of
        the share and of the unit.
        """
        with (
            self.loop_shared(counter, shares) as share,
            self.loop(share * units // shares, (share + 1) * units // shares) as unit,
        ):
            yield share, unit

    def accumulate(
        self, stop: Index, sums: Sequence[Vector], add: Callable[[Index, list[Vector]], list[Vector]]
    ) -> list[Vector]:
        """Return the sums after ``add``, which maps them to the next ones, for each i of range(stop)."""
        before = self.build.block
        with self._repeat(lambda i: i + 1 if i else self.index(0), stop) as i:
            inside = self.build.block
            self.build.position_after(i.value)  # in the block that checks whether there is another
            phis = [self.build.phi(self.vector) for _ in sums]
            for phi, first in zip(phis, sums, strict=True):
                phi.add_incoming(first.value, before)
            self.build.position_at_end(inside)
            for phi, following in zip(phis, add(i, [Vector(self, phi) for phi in phis]), strict=True):
                phi.add_incoming(following.value, self.build.block)
        return [Vector(self, phi) for phi in phis]

    @contextmanager
    def _repeat(self, following: Callable[[Index | None], Index], stop: Index) -> Iterator[Index]:
        check, inside, after = (self.function.append_basic_block() for _ in range(3))
        first, before = following(None), self.build.block
        self.build.branch(check)
        self.build.position_at_end(check)
        phi = self.build.phi(_INT64)
        phi.add_incoming(first.value, before)
        i = Index(self, phi)
        self.build.cbranch((i < stop).value, inside, after)
        self.build.position_at_end(inside)
        yield i
        phi.add_incoming(following(i).value, self.build.block)
        self.build.branch(check)
        self.build.position_at_end(after)

    def call(self, name: str, operands: list[Any], returns: ir.Type, suffix: str | None = None) -> Any:
        """Call an intrinsic function of LLVM, by default its form for vectors of floats."""
        name = f"llvm.{name}.{suffix or self.suffix}"
        if name not in self.module.globals:
            ir.Function(self.module, ir.FunctionType(returns, [x.type for x in operands]), name)
        return self.build.call(self.module.globals[name], operands)

    def _place(self, number: int) -> Any:
        """Return the address of one of the job's values."""
        offset = ir.Constant(_INT64, number)
        return self.build.gep(self.function.args[0], [offset], source_etype=_INT64)

    def _next_place(self) -> Any:
        return self._place(len(self.job))

    def compile(self) -> CpuFunction:
        """Finish the function and turn it into machine code."""
        self.build.ret_void()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
        )
        module = llvm.parse_assembly(str(self.module))
        module.verify()
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        return CpuFunction(engine, engine.get_function_address(self.function.name), *self._names)
