"""More element-wise primitives, with JAX's `lax` names: powers, remainders, angles, words of bits.

Float functions are the sequences of `vector_elementary`. `threefry2x32` is JAX's hash of
the pair (0, count) with one result: `word` 0 or 1 of the pair, or 2, both words' exclusive or.
"""

import numpy as np
from tilewright.compiler import core, vector_elementary, vector_integers
from tilewright.compiler.core import FLOATS, INTS, Primitive, ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives import div_p, elementwise_aval
from tilewright.compiler.primitives_lanes import float_primitive, run_sequence
from tilewright.compiler.vector_sequences import NumPyMachine

log2_p, cbrt_p, tan_p, atan_p, asin_p, acos_p, cosh_p, sinh_p, asinh_p, acosh_p, atanh_p = (
    float_primitive(name, vector_elementary.UNARY[name])
    for name in ("log2", "cbrt", "tan", "atan", "asin", "acos", "cosh", "sinh", "asinh", "acosh",
                 "atanh")
)  # fmt: skip
erf_inv_p = float_primitive("erf_inv", vector_elementary.erf_inv)
erfc_p = float_primitive("erfc", vector_elementary.erfc)
round_nearest_afz_p = float_primitive("round_nearest_afz", vector_elementary.round_afz)
pow_p = float_primitive("pow", vector_elementary.power)
atan2_p = float_primitive("atan2", vector_elementary.atan2)


rem_p = Primitive("rem")


@rem_p.rule("abstract")
def _rem_aval(x, y):
    return elementwise_aval((x, y), FLOATS + INTS)


@rem_p.rule("impl")
def _rem(x, y):
    """With the sign of x, as C's fmod and %; of a division by 0, x."""
    if x.dtype in FLOATS:
        return run_sequence(vector_elementary.rem, x, y)
    with np.errstate(over="ignore"):
        return np.asarray(x - div_p.impl(x, y) * y).astype(x.dtype, copy=False)


is_finite_p = Primitive("is_finite")


@is_finite_p.rule("abstract")
def _is_finite_aval(x):
    return ShapedArray(elementwise_aval((x,), FLOATS).shape, core.bool_)


@is_finite_p.rule("impl")
def _is_finite(x):
    return np.isfinite(x)


bitcast_convert_type_p = Primitive("bitcast_convert_type")


@bitcast_convert_type_p.rule("abstract")
def _bitcast_aval(x, *, new_dtype):
    new = np.dtype(new_dtype)
    if (core.bool_ in (x.dtype, new) and x.dtype != new) or x.dtype.itemsize != new.itemsize:
        raise OperandError(f"new_dtype must be as wide as {x.dtype}, not {new}")
    return ShapedArray(x.shape, new)


@bitcast_convert_type_p.rule("impl")
def _bitcast(x, *, new_dtype):
    return np.ascontiguousarray(x).reshape(x.shape).view(new_dtype)


def _word_primitive(name, function):
    """Of the bits of an integer: `function` of them as uint32 and the dtype's width."""
    primitive = Primitive(name)

    @primitive.rule("abstract")
    def abstract(x):
        return elementwise_aval((x,), INTS)

    @primitive.rule("impl")
    def impl(x):
        width = 8 * x.dtype.itemsize
        bits = np.asarray(x).astype(np.int64) & ((1 << width) - 1)
        return np.asarray(function(bits, width)).astype(x.dtype)

    return primitive


def _leading_zeros(bits, width):
    return sum((bits >> i == 0).astype(np.int64) for i in range(width))


clz_p = _word_primitive("clz", _leading_zeros)
population_count_p = _word_primitive(
    "population_count", lambda bits, width: sum((bits >> i) & 1 for i in range(width))
)


threefry2x32_p = Primitive("threefry2x32")


@threefry2x32_p.rule("abstract")
def _threefry_aval(k1, k2, count, *, word):
    if word not in (0, 1, 2):
        raise OperandError(f"word must be 0, 1 or 2, not {word!r}")
    return elementwise_aval((k1, k2, count), (core.uint32,))


@threefry2x32_p.rule("impl")
def _threefry(k1, k2, count, *, word):
    shape = np.broadcast_shapes(*(v.shape for v in (k1, k2, count)))
    k1, k2, count = (np.ascontiguousarray(np.broadcast_to(v, shape)) for v in (k1, k2, count))
    words = vector_integers.threefry2x32(NumPyMachine(), k1, k2, np.zeros_like(count), count)
    found = words[0] ^ words[1] if word == 2 else words[word]
    return np.asarray(found, np.uint32).reshape(shape)
