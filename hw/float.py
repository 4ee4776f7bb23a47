"""Floating point of the chip: stage functions that add registers to a module.

Each function takes the module, its operands and a clock domain, and returns the result a fixed
number of cycles later, at one operation per cycle. The numbers are those of `sim.numerics`:
subnormals are zero, results below 2^-126 are flushed before rounding, NaN is 0x7fc00000, rounding
is to nearest even. A packed word plus a rounding increment is the whole last stage: the carry runs
from the fraction into the exponent, and an overflow becomes infinity by itself.

Operands named "canonical" hold no subnormal (`flush` removes them). Datapath registers have no
reset.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = [
    "BF16_WIDTH",
    "bf16_decode",
    "bf16_product",
    "canonical",
    "clamp",
    "delay",
    "flush",
    "fp32_add",
    "fp32_mul",
    "fp32_to_bf16",
    "fp32_to_i32",
    "i32_to_fp32",
    "stage",
]

NAN = 0x7FC00000
INF = 0x7F800000

#: Width of a decoded bf16: fraction with its leading one, exponent, sign, infinity, NaN.
BF16_WIDTH = 8 + 8 + 3


def stage(m: Module, domain: str, value, name: str) -> Signal:
    """Register `value` without reset and return the register."""
    value = Value.cast(value)
    register = Signal(value.shape(), name=name, reset_less=True)
    m.d[domain] += register.eq(value)
    return register


def delay(m: Module, domain: str, value, cycles: int, name: str):
    """Delay `value` by `cycles` registers."""
    for i in range(cycles):
        value = stage(m, domain, value, f"{name}_{i}")
    return value


def wire(m: Module, value, name: str) -> Signal:
    """Name an intermediate value, so that it is computed once."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def flush(x):
    """fp32 with subnormals made zero, sign kept."""
    return Cat(Mux(x[23:31] == 0, 0, x[0:23]), x[23:32])


def canonical(x):
    """fp32 with subnormals made zero, sign kept, and every NaN the canonical one."""
    return Mux(x[0:31] > INF, NAN, flush(x))


def normalize(m: Module, x, name: str):
    """Shift left until the top bit is set; return (shifted, count of leading zeros)."""
    width = len(x)
    counts = []
    for step in (16, 8, 4, 2, 1):
        if step < width:
            empty = wire(m, x[width - step :] == 0, f"{name}_z{step}")
            by = Cat(Const(0, step.bit_length() - 1), empty)  # a shift, so that C++ does not branch
            x = wire(m, (x << by)[0:width], f"{name}_s{step}")
            counts.insert(0, empty)
    return x, Cat(*counts)


def bf16_decode(x):
    """Unpack bf16 for `bf16_product`: shared by all PEs that see the operand."""
    fraction, exponent, sign = x[0:7], x[7:15], x[15]
    normal, special = exponent != 0, exponent == 255
    infinite, nan = special & (fraction == 0), special & (fraction != 0)
    return Cat(Mux(normal, fraction, 0), normal, exponent, sign, infinite, nan)


def bf16_product(m: Module, domain: str, a, w, name: str = "p", first: bool = False) -> Signal:
    """Exact product of two decoded bf16 as canonical fp32. Latency 1.

    With `first` the result is ``+0 + product``: a zero loses its sign.
    """

    def parts(x):
        return x[0:8], x[8:16], x[16], x[17], x[18]

    (am, ae, asign, ainf, anan), (wm, we, wsign, winf, wnan) = parts(a), parts(w)
    product = wire(m, am * wm, f"{name}_m")
    top = product[15]
    exponent = wire(m, (ae + we + top).as_signed() - 127, f"{name}_e")
    zero = wire(m, (am[7] & wm[7] == 0) | (exponent <= 0), f"{name}_zero")
    word = Signal(32, name=f"{name}_w")
    special = ainf | anan | winf | wnan
    sign = asign ^ wsign
    m.d.comb += word.eq(Cat(Const(0, 8), (product << ~top)[0:15], exponent[0:8], sign))
    with m.If(special):
        bad = anan | wnan | (ainf & ~wm[7]) | (winf & ~am[7])
        m.d.comb += word.eq(Mux(bad, NAN, INF | sign << 31))
    with m.Elif(zero):
        m.d.comb += word.eq(0 if first else sign << 31)
    with m.Elif(exponent >= 255):
        m.d.comb += word.eq(INF | sign << 31)
    return stage(m, domain, word, f"{name}_q")


def fp32_add(m: Module, domain: str, x, y, name: str = "add") -> Signal:
    """Sum of two canonical fp32. Latency 4 (`isa.timing.HOP`).

    Order by magnitude and subtract exponents | align and add | normalize | round.
    """
    swap = wire(m, y[0:31] > x[0:31], f"{name}_swap")
    both = wire(m, (x ^ y) & swap.replicate(32), f"{name}_both")  # muxes without branches in C++
    large = wire(m, x ^ both, f"{name}_large")
    small = wire(m, y ^ both, f"{name}_small")
    gap = wire(m, large[23:31] - small[23:31], f"{name}_gap")[0:8]
    shift = Mux(gap > 31, 31, gap[0:5])
    minus = large[31] ^ small[31]
    l1 = stage(m, domain, large, f"{name}_l1")
    s1 = stage(m, domain, Cat(small[0:23], small[23:31] != 0, shift, minus), f"{name}_s1")

    wide = wire(m, Cat(Const(0, 3), s1[0:24]), f"{name}_wide")
    moved = wire(m, wide >> s1[24:29], f"{name}_moved")
    lost = wire(m, (moved << s1[24:29])[0:27] != wide, f"{name}_lost")
    base = Cat(Const(0, 3), l1[0:23], l1[23:31] != 0)
    term = wire(m, moved | lost, f"{name}_term")
    total = wire(m, (base + (term ^ s1[29].replicate(28)) + s1[29])[0:28], f"{name}_total")
    infinite = l1[23:31] == 255
    t2 = stage(m, domain, total, f"{name}_t2")
    e2 = stage(
        m, domain, Cat(l1[23:32], s1[29], infinite, infinite & (l1[0:23] != 0)), f"{name}_e2"
    )

    sign, minus, infinite, nan = e2[8], e2[9], e2[10], e2[11]
    mant, zeros = normalize(m, t2, f"{name}_n")
    exponent = wire(m, (e2[0:8] + 1).as_signed() - zeros, f"{name}_e")
    empty = ~mant[27]
    word, inc = Signal(32, name=f"{name}_w"), Signal(name=f"{name}_i")
    m.d.comb += word.eq(Cat(mant[4:27], exponent[0:8], sign))
    m.d.comb += inc.eq(mant[3] & (mant[0:3].any() | mant[4]))
    with m.If(infinite):
        m.d.comb += [word.eq(Mux(nan | (minus & empty), NAN, INF | sign << 31)), inc.eq(0)]
    with m.Elif(empty | (exponent <= 0)):
        m.d.comb += [word.eq((sign & ~(empty & minus)) << 31), inc.eq(0)]
    with m.Elif(exponent >= 255):
        m.d.comb += [word.eq(INF | sign << 31), inc.eq(0)]
    w3 = stage(m, domain, word, f"{name}_w3")
    i3 = stage(m, domain, inc, f"{name}_i3")

    return stage(m, domain, (w3 + i3)[0:32], f"{name}_q")


def fp32_mul(m: Module, domain: str, x, y, name: str = "mul") -> Signal:
    """Product of two canonical fp32. Latency 3: multiply | normalize | round."""

    def parts(v):
        return Cat(v[0:23], v[23:31] != 0), v[23:31] == 255, v[0:23] != 0

    (xm, xs, xf), (ym, ys, yf) = parts(x), parts(y)
    nan = (xs & (xf | ~ym[23])) | (ys & (yf | ~xm[23]))
    p1 = stage(m, domain, xm * ym, f"{name}_p1")
    e1 = stage(m, domain, x[23:31] + y[23:31], f"{name}_e1")
    f1 = stage(m, domain, Cat(x[31] ^ y[31], xs | ys, nan), f"{name}_f1")

    sign, infinite, nan = f1
    top = p1[47]
    mant = wire(m, Mux(top, p1, p1 << 1)[0:48], f"{name}_n")
    exponent = wire(m, (e1 + top).as_signed() - 127, f"{name}_e")
    word, inc = Signal(32, name=f"{name}_w"), Signal(name=f"{name}_i")
    m.d.comb += word.eq(Cat(mant[24:47], exponent[0:8], sign))
    m.d.comb += inc.eq(mant[23] & (mant[0:23].any() | mant[24]))
    with m.If(infinite):
        m.d.comb += [word.eq(Mux(nan, NAN, INF | sign << 31)), inc.eq(0)]
    with m.Elif(~mant[47] | (exponent <= 0)):
        m.d.comb += [word.eq(sign << 31), inc.eq(0)]
    with m.Elif(exponent >= 255):
        m.d.comb += [word.eq(INF | sign << 31), inc.eq(0)]
    w2 = stage(m, domain, word, f"{name}_w2")
    i2 = stage(m, domain, inc, f"{name}_i2")

    return stage(m, domain, (w2 + i2)[0:32], f"{name}_q")


def i32_to_fp32(m: Module, domain: str, x, name: str = "itof") -> Signal:
    """Convert int32 (32 bits) to fp32. Latency 2: normalize | round."""
    sign = x[31]
    size = wire(m, Mux(sign, -x.as_signed(), x)[0:32], f"{name}_abs")
    mant, zeros = normalize(m, size, f"{name}_n")
    exponent = Mux(mant[31], 158 - zeros, 0)[0:8]
    w1 = stage(m, domain, Cat(mant[8:31], exponent, sign), f"{name}_w1")
    inc = mant[7] & (mant[0:7].any() | mant[8])
    i1 = stage(m, domain, inc, f"{name}_i1")
    return stage(m, domain, (w1 + i1)[0:32], f"{name}_q")


def fp32_to_i32(m: Module, domain: str, x, name: str = "ftoi") -> Signal:
    """Convert canonical fp32 to int32, saturating, NaN to 0. Latency 2: shift | round and sign."""
    exponent, sign = x[23:31], x[31]
    mant = Cat(Const(0, 2), x[0:23], exponent != 0)  # two bits below the unit at exponent 150
    right = wire(m, Mux(exponent < 124, 26, 150 - exponent)[0:5], f"{name}_r")
    moved = wire(m, mant >> right, f"{name}_moved")
    lost = (moved << right)[0:26] != mant
    left = wire(m, (mant[2:] << (exponent - 150)[0:3])[0:31], f"{name}_left")
    up = exponent >= 150
    half = moved[1] & (moved[0] | lost | moved[2])
    v1 = stage(m, domain, Mux(up, left, moved[2:]), f"{name}_v1")
    nan = (exponent == 255) & (x[0:23] != 0)
    f1 = stage(m, domain, Cat(half & ~up, sign, exponent >= 158, nan), f"{name}_f1")

    half, sign, over, nan = f1
    whole = wire(m, (v1 + half)[0:32], f"{name}_whole")
    result = Mux(sign, -whole, whole)[0:32]
    limit = Mux(sign, 0x80000000, 0x7FFFFFFF)
    return stage(m, domain, Mux(nan, 0, Mux(over, limit, result))[0:32], f"{name}_q")


def fp32_to_bf16(x):
    """Round canonical fp32 with canonical NaN to 16 bits of bf16. Combinational."""
    return (x[16:32] + (x[15] & (x[0:15].any() | x[16])))[0:16]


def clamp(m: Module, x, lo, hi, name: str = "clamp") -> Signal:
    """``min(max(x, lo), hi)`` of canonical fp32; NaN wins, -0 is below +0. Combinational."""

    def order(v):
        return Cat(v[0:31] ^ v[31].replicate(31), ~v[31])  # unsigned, in the numbers' order

    def nan(v):
        return v[0:31] > INF

    raised = wire(m, Mux(order(x) < order(lo), lo, x), f"{name}_raised")
    bounded = Mux(order(raised) > order(hi), hi, raised)
    bad = nan(x) | nan(lo) | nan(hi)
    return wire(m, Mux(bad, NAN, bounded), f"{name}_q")
