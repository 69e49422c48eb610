"""Functions of vectors, written in instructions: exponentials, logarithms, softplus, SiLU and polynomials."""

from collections.abc import Sequence

from mambair_cli.kernels.llvm_bits import Bits
from mambair_cli.kernels.llvm_builder import Vector

LOG2_E = 1.4426950408889634
LOG2_E_HIGH = 1.44269502162933349609375  # LOG2_E in float32
LOG2_E_LOW = LOG2_E - LOG2_E_HIGH
# Minimax polynomial of (2**x - 1) / x for |x| <= 1/2, relative error 4.3e-7. The 2**x computed with it is
# exactly 1 at 0, and accurate near 1: in slow states, a bias of 1e-7 in each step would add up along a path.
EXP2 = (0.69314714, 0.24022351, 0.05550500, 0.00966625, 0.00133335)
# Minimax polynomial of log(1 + x) / x for 0 <= x <= 1, relative error 3e-8.
LOG1P = (
    *(0.99999997, -0.49999493, 0.33319097, -0.24842982, 0.19106007),
    *(-0.13663247, 0.07822596, -0.02950524, 0.00523269),
)
# Polynomial of log(1 + x) / x for 1/√2 - 1 <= x <= √2 - 1 through Chebyshev's points, relative error 4e-9.
LOG = (
    *(1.0, -0.499999883, 0.33333324, -0.250015851, 0.200020717),
    *(-0.166091265, 0.141800787, -0.132408427, 0.129141703, -0.0763859245),
)
LN_2 = 0.6931471805599453
LN_2_HIGH = 0.693145751953125  # its first 16 bits: times an exponent, a float holds it exactly
SQRT_HALF_BITS = 0x3F3504F3  # of the float 1/√2
MANTISSA_BITS = 23
# A float of this size has no bits for fractions: adding it to a small number rounds that to an integer, which
# is then in the lowest bits of the sum.
TO_INTEGER = 1.5 * 2.0**23
LEAST_EXPONENT = -127.0  # 1.0 times 2 to this power has no bit set: it is 0
LEAST_LOG = -87.0  # logarithm of the smallest float that is not denormal, rounded up


def exp2(x: Vector) -> Vector:
    """Return 2**x for x < 127, and 0 below -127; for a NaN anything: see ``keep_nan``."""
    x = x.at_least(LEAST_EXPONENT)
    shifted = x + TO_INTEGER
    return polynomial(x - (shifted - TO_INTEGER), (1.0, *EXP2)).times_power_of_two(shifted)


def exp(x: Vector) -> Vector:
    """Return e**x for x <= 0; not as 2**(x * log2(e)), whose rounding error grows with |x|.

    For a NaN it is anything: see ``keep_nan``.
    """
    bounded = x.at_least(LEAST_LOG)
    shifted = bounded * LOG2_E + TO_INTEGER
    fraction = bounded.times_plus(LOG2_E_HIGH, (shifted - TO_INTEGER) * -1.0)
    fraction = bounded.times_plus(LOG2_E_LOW, fraction)
    return polynomial(fraction, (1.0, *EXP2)).times_power_of_two(shifted).unless(x < LEAST_LOG)


def keep_nan(result: Vector, x: Vector) -> Vector:
    """Return the result, and NaN where x is one: an exponential moves its bits, which may make a number.

    What multiplies or adds x itself needs no such care.
    """
    return result.where(x.is_number(), x)


def log(x: Vector) -> Vector:
    """Return the logarithms of positive floats that are not denormal; near 1, too, to two roundings."""
    bits = Bits.of(x)
    exponent = (bits - SQRT_HALF_BITS).shift_signed(MANTISSA_BITS)
    fraction = (bits - (exponent << MANTISSA_BITS)).as_floats() - 1.0  # exact
    power = exponent.to_floats()
    low = polynomial(fraction, LOG[1:]).times_plus(fraction * fraction, power * (LN_2 - LN_2_HIGH))
    return power.times_plus(LN_2_HIGH, fraction + low)


def softplus(x: Vector) -> Vector:
    """Return log(1 + exp(x)), with a small relative error even where it is close to 0."""
    small = exp(x.magnitude() * -1.0)
    return polynomial(small, LOG1P).times_plus(small, x.at_least(0.0))


def softplus_and_slope(x: Vector) -> tuple[Vector, Vector]:
    """Return softplus(x) and its derivative, 1 / (1 + exp(-x)), which is small where x is far below 0."""
    small = exp(x.magnitude() * -1.0)
    slope = small.where(x < 0.0, 1.0) / (small + 1.0)
    return polynomial(small, LOG1P).times_plus(small, x.at_least(0.0)), slope


def sigmoid(x: Vector) -> Vector:
    """Return 1 / (1 + exp(-x))."""
    small = exp(x.magnitude() * -1.0)
    return keep_nan(small.where(x < 0.0, 1.0) / (small + 1.0), x)


def silu(x: Vector) -> Vector:
    """Return x / (1 + exp(-x))."""
    small = exp(x.magnitude() * -1.0)
    return x * small.where(x < 0.0, 1.0) / (small + 1.0)


def polynomial(x: Vector, coefficients: Sequence[float]) -> Vector:
    """Return the sum of coefficients[i] * x**i."""
    total = x.code.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total.times_plus(x, coefficient)
    return total
