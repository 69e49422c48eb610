"""Vectors of 32 bits in each lane, in instructions: shifts, products modulo 2**32, parts of floats."""

from llvmlite import ir

from mambair_cli.kernels.llvm_builder import Value, Vector

_INT32 = ir.IntType(32)


class Bits(Value):
    """An integer of 32 bits in each lane; what overflows is cut off."""

    @classmethod
    def of(cls, vector: Vector) -> "Bits":
        """Return the bits of floats."""
        code = vector.code
        return cls(code, code.build.bitcast(vector.value, ir.VectorType(_INT32, code.lanes)))

    def as_floats(self) -> Vector:
        """Return the floats that have these bits."""
        return Vector(self.code, self.code.build.bitcast(self.value, self.code.vector))

    def to_floats(self) -> Vector:
        """Return the nearest floats of these integers, which have a sign."""
        return Vector(self.code, self.code.build.sitofp(self.value, self.code.vector))

    def __add__(self, other: "Bits | int") -> "Bits":
        return Bits(self.code, self.code.build.add(self.value, self._lift(other)))

    def __sub__(self, other: "Bits | int") -> "Bits":
        return Bits(self.code, self.code.build.sub(self.value, self._lift(other)))

    def __mul__(self, other: "Bits | int") -> "Bits":
        return Bits(self.code, self.code.build.mul(self.value, self._lift(other)))

    def __xor__(self, other: "Bits | int") -> "Bits":
        return Bits(self.code, self.code.build.xor(self.value, self._lift(other)))

    def __lshift__(self, places: int) -> "Bits":
        return Bits(self.code, self.code.build.shl(self.value, self._lift(places)))

    def __rshift__(self, places: int) -> "Bits":
        """Shift to the right; zeros enter from the left."""
        return Bits(self.code, self.code.build.lshr(self.value, self._lift(places)))

    def shift_signed(self, places: int) -> "Bits":
        """Shift to the right; copies of the sign enter from the left."""
        return Bits(self.code, self.code.build.ashr(self.value, self._lift(places)))
