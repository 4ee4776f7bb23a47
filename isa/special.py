"""Tables of the special functions, computed by exact integer arithmetic: the same on every machine.

Reciprocal, reciprocal square root, 2^t and log2's slope are quadratics on equal segments. A
segment's entry is (c0, c1, c2); with u, `STEP_BITS` bits, the place in the segment,

    t = c1 + (c2 * u >> STEP_BITS),   y = c0 + (t * u >> STEP_BITS),   floors, all integers,

and 1 + y / 2^Y_BITS in [1, 2) is the result's significand, rounded by adding half. `sim.special`
and the RTL's ROM read these tables; nothing else knows a coefficient.

**Source** : minimax fit through Chebyshev's nodes, as in J.-A. Pineiro, S. Oberman, J.-M. Muller,
J. Bruguera, "High-speed function approximation using a minimax quadratic interpolator", 2005.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from math import isqrt

#: Fraction bits of y; 23 of them are the result's.
Y_BITS = 28
#: Bits of the place in a segment.
STEP_BITS = 18
#: Bits of c0, c1, c2 in the ROM; c1 and c2 are signed.
C0_BITS, C1_BITS, C2_BITS = Y_BITS, 24, 16

#: Function -> (first entry in the ROM, entries).
PLACES = {"recip": (0, 128), "exp2": (128, 64), "log2": (256, 128), "rsqrt": (512, 256)}
ROM_DEPTH = 1024

Entry = tuple[int, int, int]

_P = 96  # fraction bits of the working precision
_NODES = tuple(Fraction(n, 1 << 14) for n in (1098, 8192, 15286))  # (1 - cos) / 2 of 30, 90, 150


def _recip(m: Fraction) -> Fraction:
    """2 / m for m in [1, 2)."""
    return 2 / m


def _rsqrt(m: Fraction) -> Fraction:
    """2 / sqrt(m) for m in [1, 4)."""
    return Fraction(isqrt((4 << 2 * _P) * m.denominator // m.numerator), 1 << _P)


@cache
def _root(j: int) -> int:
    """2^(2^-j), `_P` fraction bits."""
    return 2 << _P if j == 0 else isqrt(_root(j - 1) << _P)


def _exp2(t: Fraction) -> Fraction:
    """2^t for t in [0, 1), a multiple of 2^-24."""
    bits, y = int(t * (1 << 24)), 1 << _P
    for j in range(1, 25):
        if bits >> 24 - j & 1:
            y = y * _root(j) >> _P
    return Fraction(y, 1 << _P)


def log2_exact(m: Fraction) -> Fraction:
    """log2(m) for m in [1, 2), to 2^-80: one squaring per bit."""
    x, y = (m.numerator << _P) // m.denominator, 0
    for _ in range(80):
        x = x * x >> _P
        big = x >> _P + 1
        x, y = x >> big, y << 1 | big
    return Fraction(y, 1 << 80)


def _slope(m: Fraction) -> Fraction:
    """log2(r) / (r - 1) for r = m below 1.5, else m / 2; m in (1, 2)."""
    return log2_exact(m) / (m - 1) if m < Fraction(3, 2) else (log2_exact(m) - 1) / (m / 2 - 1)


def _entry(f: Callable[[Fraction], Fraction], start: Fraction, width: Fraction) -> Entry:
    """One segment's (c0, c1, c2): c2, then c1 and c0 for what the rounded ones leave."""
    unit, half = 1 << Y_BITS, Fraction(1, 2)
    (p, q, r) = _NODES
    y = [(f(start + width * n) - 1) * unit for n in _NODES]
    c2 = round(((y[2] - y[1]) / (r - q) - (y[1] - y[0]) / (q - p)) / (r - p))
    y = [v - c2 * n * n for v, n in zip(y, _NODES, strict=True)]
    c1 = round((y[2] - y[0]) / (r - p))
    y = [v - c1 * n for v, n in zip(y, _NODES, strict=True)]
    c0 = round((y[0] + 2 * y[1] + y[2]) / 4 + half)  # two floors lose half a unit each, c2's less
    return min(c0, unit - 1), c1, c2


def _segments(name: str) -> list[Entry]:
    """All entries of one function, by the bits that select them."""
    count = PLACES[name][1]
    if name == "rsqrt":  # even exponents, then odd ones, whose argument is 2m
        count //= 2
        return [
            _entry(_rsqrt, scale * (1 + Fraction(i, count)), Fraction(scale, count))
            for scale in (1, 2)
            for i in range(count)
        ]
    f, base = {"recip": (_recip, 1), "exp2": (_exp2, 0), "log2": (_slope, 1)}[name]
    return [_entry(f, base + Fraction(i, count), Fraction(1, count)) for i in range(count)]


@cache
def table(name: str) -> tuple[Entry, ...]:
    """The entries (c0, c1, c2) of ``recip``, ``rsqrt``, ``exp2`` or ``log2``."""
    entries = _segments(name)
    for c0, c1, c2 in entries:
        fits = abs(c1) < 1 << C1_BITS - 1 and abs(c2) < 1 << C2_BITS - 1
        if not (fits and 0 <= c0 < 1 << C0_BITS):
            raise ValueError(f"{name}: coefficients {c0}, {c1}, {c2} must fit in their bits")
    return tuple(entries)


@cache
def rom() -> tuple[int, ...]:
    """The RTL's ROM: c0, c1, c2 from bit 0 up, functions at their `PLACES`, zeros elsewhere."""
    words = [0] * ROM_DEPTH
    for name, (first, _) in PLACES.items():
        for i, (c0, c1, c2) in enumerate(table(name)):
            low1, low2 = c1 % (1 << C1_BITS), c2 % (1 << C2_BITS)
            words[first + i] = c0 | low1 << C0_BITS | low2 << C0_BITS + C1_BITS
    return tuple(words)
