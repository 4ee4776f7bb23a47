"""Element-wise primitives that only the vector unit has, with JAX's `lax` names.

Floats compute by the sequences of `vector_sequences`, so that NumPy's bits are the chip's; bfloat16
computes in float32 and rounds once per equation. Integers wrap. Shifts take the amount as unsigned:
from the width on nothing (or signs) is left; an arithmetic shift takes the value as signed.
"""

from math import prod

import numpy as np
from tilewright.compiler import core, vector_sequences
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives import elementwise_aval, elementwise_shape
from tilewright.compiler.vector_sequences import NumPyMachine
from tilewright.sim import numerics

_WORDS = (*INTS, core.bool_)


def run_sequence(sequence, *args, **params):
    """A sequence on float arrays of one dtype, which is that of the result."""
    bits = [np.ascontiguousarray(numerics.bf16_to_f32(a)).view(np.uint32) for a in args]
    result = np.asarray(sequence(NumPyMachine(), *bits, **params), np.uint32).view(np.float32)
    shape = np.broadcast_shapes(*(a.shape for a in args))
    result = result.reshape(shape) if result.size == prod(shape) else np.broadcast_to(result, shape)
    return result if args[0].dtype == core.float32 else numerics.f32_to_bf16(result)


def float_primitive(name, sequence):
    """Make a primitive of floats from its sequence."""
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(*avals):
        return elementwise_aval(avals, FLOATS)

    @primitive.rule("impl")
    def impl(*args):
        return run_sequence(sequence, *args)

    return primitive


def _unary(name, on_int=None):
    primitive = Primitive(name)
    allowed = FLOATS if on_int is None else FLOATS + INTS

    @primitive.rule("abstract")
    def abstract(x):
        return elementwise_aval((x,), allowed)

    @primitive.rule("impl")
    def impl(x):
        if x.dtype in FLOATS:
            return run_sequence(vector_sequences.UNARY[name], x)
        with np.errstate(over="ignore"):
            return np.asarray(on_int(x)).astype(x.dtype, copy=False)

    return primitive


abs_p = _unary("abs", np.abs)
sign_p = _unary("sign", np.sign)
floor_p = _unary("floor")
ceil_p = _unary("ceil")
sqrt_p = _unary("sqrt")
rsqrt_p = _unary("rsqrt")
exp_p = _unary("exp")
exp2_p = _unary("exp2")
log_p = _unary("log")
log1p_p = _unary("log1p")
expm1_p = _unary("expm1")
logistic_p = _unary("logistic")
tanh_p = _unary("tanh")
erf_p = _unary("erf")
sin_p = _unary("sin")
cos_p = _unary("cos")


integer_pow_p = Primitive("integer_pow")


@integer_pow_p.rule("abstract")
def _integer_pow_aval(x, *, y):
    out = elementwise_aval((x,), FLOATS + INTS)
    if x.dtype in INTS and y < 0:
        raise OperandError(f"an integer to the power y must have y >= 0, not {y}")
    return out


@integer_pow_p.rule("impl")
def _integer_pow(x, *, y):
    if x.dtype in FLOATS:
        return run_sequence(vector_sequences.integer_pow, x, y=y)
    result = np.ones_like(x)
    with np.errstate(over="ignore"):
        for bit in bin(y)[2:]:
            result = result * result * (x if bit == "1" else np.ones_like(x))
    return result


def _bitwise(name, function, arity=2):
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(*avals):
        if len(avals) != arity:
            raise OperandError(f"{name} takes {arity} operands, not {len(avals)}")
        return elementwise_aval(avals, _WORDS)

    @primitive.rule("impl")
    def impl(*args):
        return np.asarray(function(*args))

    return primitive


and_p = _bitwise("and", np.bitwise_and)
or_p = _bitwise("or", np.bitwise_or)
xor_p = _bitwise("xor", np.bitwise_xor)
not_p = _bitwise("not", np.invert, 1)


def _shift(name, function):
    """A shift; `function` gets int64 values and amounts of at most the width, at least 0."""
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(x, y):
        return elementwise_aval((x, y), INTS)

    @primitive.rule("impl")
    def impl(x, y):
        width = 8 * x.dtype.itemsize
        amount = np.where(y.astype(np.int64) < 0, width, np.minimum(y.astype(np.int64), width))
        value = function(x.astype(np.int64), amount, (1 << width) - 1)
        return (value & ((1 << width) - 1)).astype(f"u{x.dtype.itemsize}").view(x.dtype)

    return primitive


shift_left_p = _shift("shift_left", lambda x, n, mask: x << n)
shift_right_logical_p = _shift("shift_right_logical", lambda x, n, mask: (x & mask) >> n)
shift_right_arithmetic_p = _shift(
    "shift_right_arithmetic", lambda x, n, mask: np.where(x > mask // 2, x - mask - 1, x) >> n
)


select_n_p = Primitive("select_n")


@select_n_p.rule("abstract")
def _select_aval(which, *cases):
    if which.dtype != core.bool_ or len(cases) != 2:
        raise OperandError(f"which must be bool with two cases, not {which} with {len(cases)}")
    out = elementwise_aval(cases, core.DTYPES)
    return ShapedArray(elementwise_shape((which, *cases)), out.dtype, out.weak_type)


@select_n_p.rule("impl")
def _select(which, on_false, on_true):
    """Copy bits; of bfloat16 the canonical ones (subnormals are zeros, there is one NaN)."""
    if on_false.dtype == core.bfloat16:
        picked = np.where(which, numerics.bf16_to_f32(on_true), numerics.bf16_to_f32(on_false))
        return numerics.f32_to_bf16(np.asarray(picked, np.float32))
    kind = f"u{on_false.dtype.itemsize}"
    picked = np.where(which, on_true.view(kind), on_false.view(kind))
    return np.asarray(picked, kind).view(on_false.dtype)
