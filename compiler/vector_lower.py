"""Terms to micro-operations: what each primitive of each dtype is on VECTOR's lanes.

A lane holds bfloat16 as the fp32 number, int8, uint8 and bool as an int32 in their range; each
equation brings its result back into that form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tilewright.compiler import core, vector_elementary, vector_integers, vector_sequences
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_record import (
    BODY,
    CONST,
    HEAD,
    TAIL,
    Kind,
    Lower,
    Recorder,
    Result,
    fit,
    lane_bits,
)
from tilewright.compiler.vector_reduce import KEYS, REDUCTIONS, How, index, key, reduced

__all__ = [
    "BODY", "CONST", "HEAD", "LOWER", "TAIL", "Kind", "Recorder", "Result", "lower", "refusal",
]  # fmt: skip


def _typed(on_float: str, on_signed: str, on_unsigned: str = "") -> Lower:
    """One operation, by the operands' dtype."""

    def lower(r: Recorder, t: Term, args: list[Result]) -> Result:
        dtype = t.args[0].dtype
        unsigned = on_unsigned if dtype == core.uint32 and on_unsigned else on_signed
        x = r.run(on_float if dtype in core.FLOATS else unsigned, *args)
        return fit(r, x, t.dtype)

    return lower


def _swapped(lower: Lower) -> Lower:
    """The operands of a comparison exchanged."""

    def run(r: Recorder, t: Term, args: list[Result]) -> Result:
        return lower(r, Term(t.name, t.dtype, t.args[::-1], t.params), args[::-1])

    return run


_EQ = _typed("eq_f32", "eq_i32")
_LT = _typed("lt_f32", "lt_i32", "lt_u32")
_LE = _typed("le_f32", "le_i32", "le_u32")


def _chosen(on_float: str, on_signed: str, on_unsigned: str) -> Lower:
    """One operation whose result is one of its operands: it needs no fitting."""

    def lower(r: Recorder, t: Term, args: list[Result]) -> Result:
        whole = on_unsigned if t.dtype == core.uint32 else on_signed
        return r.run(on_float if t.dtype in core.FLOATS else whole, *args)

    return lower


_MAX = _chosen("max_f32", "max_i32", "max_u32")
_MIN = _chosen("min_f32", "min_i32", "min_u32")


def _ne(r: Recorder, t: Term, args: list[Result]) -> Result:
    return r.run("xor", _EQ(r, t, args), 1)


def _neg(r: Recorder, t: Term, args: list[Result]) -> Result:
    floats = t.dtype in core.FLOATS
    return r.run("neg_f32", *args) if floats else fit(r, r.run("sub_i32", 0, *args), t.dtype)


def _clamp(r: Recorder, t: Term, args: list[Result]) -> Result:
    low, x, high = args
    return _MIN(r, t, [_MAX(r, t, [x, low]), high])


def _abs(r: Recorder, t: Term, args: list[Result]) -> Result:
    (x,) = args
    if t.dtype in core.FLOATS:
        return r.run("abs_f32", x)
    if t.dtype in (core.uint8, core.uint32):
        return x
    return fit(r, r.run("max_i32", x, r.run("sub_i32", 0, x)), t.dtype)


def _sign(r: Recorder, t: Term, args: list[Result]) -> Result:
    (x,) = args
    if t.dtype in core.FLOATS:
        return r.run("sign_f32", x)
    if t.dtype == core.uint32:
        return r.run("min_u32", x, 1)
    return r.run("min_i32", r.run("max_i32", x, -1), 1)


def _sequence(sequence: vector_sequences.Sequence) -> Lower:
    """A sequence of float operands."""
    return lambda r, t, args: fit(r, sequence(r, *args), t.dtype)


def _div(r: Recorder, t: Term, args: list[Result]) -> Result:
    if t.dtype in core.FLOATS:
        return fit(r, vector_sequences.div(r, *args), t.dtype)
    if t.dtype.itemsize == 1:
        return fit(r, vector_integers.divide_bytes(r, *args), t.dtype)
    return r.run("select", args[1], _quotient(r, t, args)[0], -1)


def _quotient(r: Recorder, t: Term, args: list[Result]) -> tuple[Result, Result]:
    signed = t.dtype == core.int32
    return (vector_integers.divide_i32 if signed else vector_integers.divide_u32)(r, *args)


def _rem(r: Recorder, t: Term, args: list[Result]) -> Result:
    if t.dtype in core.FLOATS:
        return fit(r, vector_elementary.rem(r, *args), t.dtype)
    if t.dtype.itemsize == 4:
        return _quotient(r, t, args)[1]
    a, b = args
    q = vector_integers.divide_bytes(r, a, b)
    return fit(r, r.run("sub_i32", a, r.run("mul_i32", q, b)), t.dtype)


def _is_finite(r: Recorder, t: Term, args: list[Result]) -> Result:
    return r.run("lt_f32", r.run("abs_f32", *args), np.inf)


def _bitcast(r: Recorder, t: Term, args: list[Result]) -> Result:
    return fit(r, args[0], t.dtype) if t.dtype.itemsize == 1 else args[0]


def _clz(r: Recorder, t: Term, args: list[Result]) -> Result:
    if t.dtype.itemsize == 4:
        return r.run("clz", *args)
    return r.run("sub_i32", r.run("clz", r.run("and", *args, 255)), 24)


def _popcount(r: Recorder, t: Term, args: list[Result]) -> Result:
    return r.run("popcount", *args if t.dtype.itemsize == 4 else (r.run("and", *args, 255),))


def _threefry(r: Recorder, t: Term, args: list[Result]) -> Result:
    k1, k2, count = args
    words = vector_integers.threefry2x32(r, k1, k2, 0, count)
    which = t.params["word"]
    return r.run("xor", *words) if which == 2 else words[which]


def _integer_pow(r: Recorder, t: Term, args: list[Result]) -> Result:
    y = t.params["y"]
    if t.dtype in core.FLOATS:
        return fit(r, vector_sequences.integer_pow(r, args[0], y), t.dtype)
    result = r.operand(1)
    for bit in bin(y)[2:]:
        result = r.run("mul_i32", result, result)
        result = r.run("mul_i32", result, *args) if bit == "1" else result
    return fit(r, result, t.dtype)


def _not(r: Recorder, t: Term, args: list[Result]) -> Result:
    return fit(r, r.run("xor", *args, 1 if t.dtype == core.bool_ else -1), t.dtype)


def _select(r: Recorder, t: Term, args: list[Result]) -> Result:
    which, on_false, on_true = args
    return r.run("select", which, on_true, on_false)


def _shift(name: str) -> Lower:
    """Of 8 bits a logical shift sees 8 bits, and an amount from 8 on leaves nothing or signs."""

    def lower(r: Recorder, t: Term, args: list[Result]) -> Result:
        x, n = args
        if name == "shr" and t.dtype == core.int8:
            x = r.run("and", x, 255)
        if name == "sar" and t.dtype == core.uint8:
            x = fit(r, x, core.int8)
        return fit(r, r.run(name, x, n), t.dtype)

    return lower


def _convert(r: Recorder, t: Term, args: list[Result]) -> Result:
    (x,), old, new = args, t.args[0].dtype, t.dtype
    if old in core.FLOATS:
        return _from_float(r, x, old, new)
    if new in core.FLOATS:
        return fit(r, r.run("u32_f32" if old == core.uint32 else "i32_f32", x), new)
    if new == core.bool_:
        return r.run("xor", r.run("eq_i32", x, 0), 1)
    return x if old == core.bool_ else fit(r, x, new)


def _from_float(r: Recorder, x: Result, old: np.dtype, new: np.dtype) -> Result:
    if new == core.bool_:
        return r.run("xor", r.run("eq_f32", x, 0), 1)
    if new in core.FLOATS:  # a bfloat16's bits may be no canonical ones
        return r.run("f32_bf16", x) if core.bfloat16 in (old, new) and x.name != "f32_bf16" else x
    if new == core.uint32:
        return r.run("f32_u32", x)
    x = r.run("f32_i32", x)
    if new == core.int32:
        return x
    limits = np.iinfo(new)
    return r.run("min_i32", r.run("max_i32", x, int(limits.min)), int(limits.max))


LOWER: dict[str, Lower] = {
    "add": _typed("add_f32", "add_i32"), "sub": _typed("sub_f32", "sub_i32"),
    "mul": _typed("mul_f32", "mul_i32"), "div": _div, "neg": _neg, "max": _MAX, "min": _MIN,
    "clamp": _clamp, "eq": _EQ, "ne": _ne, "lt": _LT, "le": _LE, "gt": _swapped(_LT),
    "ge": _swapped(_LE), "convert_element_type": _convert, "abs": _abs, "sign": _sign,
    "integer_pow": _integer_pow, "and": _typed("", "and"), "or": _typed("", "or"),
    "xor": _typed("", "xor"), "not": _not, "select_n": _select, "shift_left": _shift("shl"),
    "shift_right_logical": _shift("shr"), "shift_right_arithmetic": _shift("sar"),
    "round_nearest_even": lambda r, t, args: r.run("round_f32", *args),
    "rem": _rem, "pow": _sequence(vector_elementary.power),
    "atan2": _sequence(vector_elementary.atan2), "is_finite": _is_finite,
    "bitcast_convert_type": _bitcast, "clz": _clz, "population_count": _popcount,
    "threefry2x32": _threefry,
    **{name: _sequence(f) for name, f in vector_sequences.UNARY.items()
       if name not in ("abs", "sign")},
    **{name: _sequence(f) for name, f in vector_elementary.UNARY.items()},
}  # fmt: skip


def refusal(name: str, dtype: np.dtype) -> str | None:
    """Why a primitive with operands of a dtype has no micro-operations, or None if it has."""
    if name not in LOWER:
        return "the vector unit has no sequence for it"
    return None


def lower(roots: Sequence[Term], kinds: Sequence[Kind], how: How) -> tuple[Recorder, list[Result]]:
    """All operations of terms.

    Parameters
    ----------
    kinds : by number of an input, its level, and whether it has one element, for all lanes.
    """
    r = Recorder()
    made: dict[int, Result] = {}
    for t in dict.fromkeys(t for root in roots for t in root.nodes()):
        args = [made[id(a)] for a in t.args]
        if t.name == "input":
            assert isinstance(t.value, int)
            made[id(t)] = r.load(t.value, *kinds[t.value])
        elif t.name == "const":
            made[id(t)] = r.operand(lane_bits(t.value, t.dtype))
        elif t.name == "index":
            made[id(t)] = index(r, how)
        elif t.name in KEYS:
            made[id(t)] = key(r, t, args[0])
        elif t.name in REDUCTIONS:
            made[id(t)] = fit(r, reduced(r, t, args[0], how), t.dtype)
        else:
            made[id(t)] = LOWER[t.name](r, t, args)
    return r, [made[id(root)] for root in roots]
