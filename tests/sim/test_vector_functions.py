"""What compilers need can be built from VECTOR's micro-operations: sequences, length and error.

Each function below is a straight line of operations; `Kernel` runs one on an array and counts it.
Constants cost nothing: a kernel's head loads them. The references are NumPy's in longdouble.
"""

import math

import numpy as np
import pytest
from tilewright.sim.vector_alu import alu

LOG2E = round(math.log2(math.e) * 2**30)


class Value:
    """Bits of all lanes, with the operations of `isa.micro` as methods."""

    def __init__(self, kernel, bits):
        self.kernel, self.bits = kernel, bits

    def __getattr__(self, name):
        return lambda *operands, n=0: self.kernel.run(name, self, *operands, n=n)


class Kernel:
    """Runs and counts operations; a float operand is an fp32 constant, an int 32 bits."""

    def __init__(self):
        self.count = 0

    def bits(self, x):
        if isinstance(x, Value):
            return x.bits
        return np.float32(x).view(np.uint32) if isinstance(x, float) else np.uint32(x % 2**32)

    def run(self, name, *operands, n=0):
        self.count += 1
        return Value(self, alu(name, *map(self.bits, operands), n=n))

    def polynomial(self, x, *coefficients):
        """Horner's rule, the lowest coefficient first."""
        y = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            y = self.run("fma_f32", y, x, c)
        return y


def exp(k, x):
    return x.mul_fx(LOG2E, n=6).exp2_fx()


def log(k, x):
    return x.log2_f32(x.log2_slope_f32()).mul_f32(math.log(2))


def logistic(k, x):
    return k.run("add_f32", 1.0, x.mul_fx(-LOG2E, n=6).exp2_fx()).recip_f32()


def signed(size, x):
    """`size` with x's sign; NaNs stay canonical."""
    return size.mul_f32(x.sign_f32())


def tanh(k, x):
    """A polynomial below 0.6, else (1 - e) / (1 + e) with e = exp(-2 |x|)."""
    size = x.abs_f32()
    e = size.mul_fx(-LOG2E, n=5).exp2_fx()
    large = k.run("sub_f32", 1.0, e).mul_f32(k.run("add_f32", 1.0, e).recip_f32())
    z = x.mul_f32(x)
    p = k.polynomial(z, -0.33333298563957214, 0.13331958651542664, -0.05378668010234833,
                     0.020805368199944496, -0.005905850790441036)  # fmt: skip
    small = z.mul_f32(p).fma_f32(size, size)
    return signed(size.lt_f32(0.6).select(small, large), x)


def erf(k, x):
    """x P(x^2) below 1, else 1 - 2^Q(|x|)."""
    size = x.abs_f32()
    z = x.mul_f32(x)
    p = k.polynomial(z, 0.12837916612625122, -0.37612637877464294, 0.11283782869577408,
                     -0.02686544507741928, 0.005221074912697077, -0.00084847112884745,
                     0.00011270542745478451, -9.680132279754616e-06)  # fmt: skip
    small = p.fma_f32(size, size)
    q = k.polynomial(size.min_f32(4.0), 0.0001732985838316381, -1.629064679145813,
                     -0.9150047302246094, -0.15427722036838531, 0.03439461067318916,
                     -0.004874574951827526, 0.00016649626195430756, 8.566056931158528e-05,
                     -1.6624644558760338e-05, 1.028833253258199e-06)  # fmt: skip
    large = k.run("sub_f32", 1.0, q.mul_fx(1 << 30, n=6).exp2_fx())
    return signed(size.lt_f32(1.0).select(small, large), x)


def _circle(k, x, turn):
    """sin(x + turn pi / 2): x - n pi/2 in three fused steps, the first of which is exact."""
    quarter = float(np.float32(math.pi / 2))
    rest = math.pi / 2 - quarter  # float64 has 53 bits of pi / 2: two more parts
    middle = float(np.float32(rest))
    low = float(np.float32(rest - middle + 6.123233995736766e-17))
    n = x.mul_f32(2 / math.pi).round_f32()
    r = n.fnma_f32(quarter, x)
    r = n.fnma_f32(middle, r)
    r = n.fnma_f32(low, r)
    z = r.mul_f32(r)
    s = k.polynomial(z, -0.1666666716337204, 0.008333329111337662, -0.0001983925176318735,
                     2.717519009820535e-06)  # fmt: skip
    sine = z.mul_f32(s).fma_f32(r, r)
    cosine = k.polynomial(z, 1.0, -0.5, 0.04166664555668831, -0.0013887302484363317,
                          2.443076118652243e-05)  # fmt: skip
    q = n.f32_i32()
    q = q.add_i32(turn) if turn else q
    value = k.run("and", q, 1).select(cosine, sine)
    return value.xor(k.run("and", q, 2).shl(30))


def sin(k, x):
    return _circle(k, x, 0)


def cos(k, x):
    return _circle(k, x, 1)


def power(k, x, y):
    """x^y for positive x: log2(x) in two parts, the exact rest of the product folded in."""
    e = x.sub_i32(0x3F400000).sar(23)
    m = x.sub_i32(e.shl(23))  # in [0.75, 1.5)
    e, f = e.i32_f32(), m.sub_f32(1.0)
    r = f.add_f32(2.0).recip_f32()
    s = f.mul_f32(r)  # log2(m) = 2 / ln 2 (s + s^3 / 3 + ...), s = f / (2 + f)
    rest = s.fnma_f32(f, s.fnma_f32(2.0, f)).mul_f32(r)
    high = float(np.float32(2 / math.log(2)))
    z = s.mul_f32(s)
    p = k.polynomial(z, 0.9617967009544373, 0.5770778059959412, 0.4122248888015747,
                     0.31930994987487793, 0.2906709393312639)  # fmt: skip
    h = s.mul_f32(high)
    low = s.fma_f32(high, h.neg_f32())
    low = s.fma_f32(2 / math.log(2) - high, low)
    low = z.mul_f32(p).fma_f32(s, low)
    low = rest.fma_f32(high, low)
    total = e.add_f32(h)
    low = low.add_f32(h.sub_f32(total.sub_f32(e)))
    high = total.add_f32(low)
    low, total = low.sub_f32(high.sub_f32(total)), high
    t = total.mul_f32(y)
    rest = low.fma_f32(y, total.fma_f32(y, t.neg_f32()))
    scale = rest.fma_f32(math.log(2), 1.0)
    return t.mul_fx(1 << 30, n=6).exp2_fx().mul_f32(scale)


def divide_u32(k, a, b):
    """Quotient and remainder: 2^32 / b from below, one Newton step, two corrections."""
    r = b.u32_f32().recip_f32().mul_f32(2.0**32 * (1 - 2.0**-22)).f32_u32()
    r = r.add_i32(r.mulh_u32(k.run("sub_i32", 0, b.mul_i32(r))))
    q = a.mulh_u32(r)
    rest = a.sub_i32(q.mul_i32(b))
    for _ in range(2):
        again = b.le_u32(rest)
        q = q.add_i32(again)
        rest = again.select(rest.sub_i32(b), rest)
    return q, rest


def ulps(got, want):
    """Largest error in ulp of `want`, where that is a number of fp32."""
    normal = (np.abs(want) >= 2.0**-126) & (np.abs(want) < 2.0**127)
    got, want = got[normal], want[normal]
    e = np.frexp(want)[1] - 24
    error = np.abs(got.view(np.float32).astype(np.longdouble) - want)
    return float((error / np.ldexp(np.longdouble(1), e)).max())


def _erf(x):
    return np.array([math.erf(v) for v in x.astype(np.float64)], np.longdouble)


def _uniform(low, high):
    return lambda rng: (rng.uniform(low, high, 40_000),)


def _wide(rng):
    """Both signs, magnitudes from 2^-20 to 2^3."""
    return (np.exp2(rng.uniform(-20, 3, 20_000)) * rng.choice([-1.0, 1.0], 20_000),)


def _angles(rng):
    """Also numbers near multiples of pi / 2, up to 10^4."""
    near = np.round(rng.uniform(-6366, 6366, 20_000)) * (math.pi / 2)
    return (np.concatenate([rng.uniform(-1e4, 1e4, 20_000), near, rng.uniform(-7, 7, 20_000)]),)


def _powers(rng):
    """Results from 2^-120 to 2^120."""
    x = np.exp2(np.concatenate([rng.uniform(-100, 100, 20_000), rng.uniform(-0.6, 0.6, 20_000)]))
    return x, rng.uniform(-120, 120, 40_000) / np.log2(x)


#: Function: (sequence, reference, arguments, operations, limit in ulp: issue 5's).
FUNCTIONS = {
    "exp": (exp, np.exp, _uniform(-87, 88), 2, 4),
    "log": (log, np.log, _uniform(0.1, 10), 3, 4),
    "logistic": (logistic, lambda x: 1 / (1 + np.exp(-x)), _uniform(-87, 30), 4, 4),
    "tanh": (tanh, np.tanh, _wide, 18, 4),
    "erf": (erf, _erf, _wide, 27, 4),
    "sin": (sin, np.sin, _angles, 21, 4),
    "cos": (cos, np.cos, _angles, 22, 4),
    "power": (power, np.power, _powers, 39, 16),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_accurate_enough(name):
    f, reference, arguments, count, limit = FUNCTIONS[name]
    x = [v.astype(np.float32) for v in arguments(np.random.default_rng(5))]
    kernel = Kernel()
    got = f(kernel, *(Value(kernel, v.view(np.uint32)) for v in x)).bits
    error = ulps(got, reference(*(v.astype(np.longdouble) for v in x)))
    assert error <= limit, (name, error)
    assert kernel.count == count, (name, kernel.count)


def test_special_values_pass_through():
    x = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan]).view(np.uint32)
    one, minus, nan = 0x3F800000, 1 << 31, 0x7FC00000
    k = Kernel()
    v = Value(k, x)
    assert exp(k, v).bits.tolist() == [one, one, 0x7F800000, 0, nan]
    assert tanh(k, v).bits.tolist() == [0, minus, one, one | minus, nan]
    assert erf(k, v).bits.tolist() == [0, minus, one, one | minus, nan]
    assert logistic(k, v).bits.tolist() == [0x3F000000, 0x3F000000, one, 0, nan]


def test_integers_divide_exactly():
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 2**32, (2, 60_000)) >> rng.integers(0, 32, (2, 60_000))
    edges = np.array([1, 2, 3, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
    a, b = (np.concatenate(v) for v in ((a, np.repeat(edges, 9)), (b, np.tile(edges, 9))))
    a = np.concatenate([a, a // np.maximum(b, 1) * b])  # no remainder
    b = np.maximum(np.concatenate([b, b]), 1)
    k = Kernel()
    q, rest = divide_u32(k, *(Value(k, v.astype(np.uint32)) for v in (a, b)))
    assert (q.bits == a // b).all() and (rest.bits == a % b).all()
    assert k.count == 19
