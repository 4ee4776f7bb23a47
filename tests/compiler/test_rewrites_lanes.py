"""Rules for VECTOR's primitives: no bit changes, and what should go away goes away."""

import ml_dtypes
import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.test_simplify import assert_same_bits, inputs

F32, BF16, I8, U8, I32, U32 = (np.float32, ml_dtypes.bfloat16, np.int8, np.uint8, np.int32,
                               np.uint32)  # fmt: skip
ALL = (F32, BF16, I8, U8, I32, U32)
INTS = (I8, U8, I32, U32)
FLOATS = (F32, BF16)
#: name -> (function, dtypes, primitives that are left)
RULES = {
    "and with 0": (lambda x: x & 0, INTS, ["broadcast_in_dim"]),
    "and with ones": (lambda x: tnp.bitwise_and(x, x.dtype.type(-1)), (I8, I32), []),
    "or with 0": (lambda x: 0 | x, INTS, []),
    "xor with 0": (lambda x: x ^ 0, INTS, []),
    "and with itself": (lambda x: x & x, INTS, []),
    "xor with itself": (lambda x: x ^ x, INTS, ["broadcast_in_dim"]),
    "bools": (lambda x: (x & True) | False, (np.bool_,), []),
    "not of not": (lambda x: ~~x, (*INTS, np.bool_), []),
    "not of ==": (lambda x: ~(x == 3), ALL, ["ne"]),
    "not of <": (lambda x: ~(x < 3), INTS, ["ge"]),
    "not of < of floats": (lambda x: ~(x < 3), FLOATS, ["lt", "not"]),
    "x < x": (lambda x: x < x, ALL, ["broadcast_in_dim"]),
    "x == x": (lambda x: x == x, INTS, ["broadcast_in_dim"]),
    "x == x of floats": (lambda x: x == x, FLOATS, ["eq"]),
    "select of one": (lambda x: tnp.where(x > 0, x, x), (F32, *INTS), []),
    "select of not": (lambda x: tnp.where(~(x < 0), x, 1), FLOATS, ["lt", "select_n"]),
    "known condition": (lambda x: lax.select(True, x, x * 2), (F32, *INTS), []),
    "x + -y": (lambda x: x[0] + -x[1], ALL, ["slice", "reshape", "slice", "reshape", "sub"]),
    "x - -y": (lambda x: x - -x, ALL, ["add"]),
    "-x * -x": (lambda x: -x * -x, ALL, ["mul"]),
    "x * -1": (lambda x: x * -1, (F32, BF16, I32), ["neg"]),
    "x - x": (lambda x: x - x, INTS, ["broadcast_in_dim"]),
    "x - x of floats": (lambda x: x - x, FLOATS, ["sub"]),
    "x * 0": (lambda x: x * 0, INTS, ["broadcast_in_dim"]),
    "sums of numbers": (lambda x: (x + 3) + 4, INTS, ["add"]),
    "products of numbers": (lambda x: (x * 3) * 5, INTS, ["mul"]),
    "sums of floats": (lambda x: (x + 3) + 4, FLOATS, ["add", "add"]),
    "max of max": (lambda x: tnp.maximum(tnp.maximum(x, 3), 1), ALL, ["max"]),
    "open bound": (lambda x: tnp.minimum(-x, np.inf), FLOATS, ["neg"]),
    "open bound of inputs": (lambda x: tnp.minimum(x, np.inf), FLOATS, ["min"]),
    "lowest integer": (lambda x: tnp.maximum(x, int(np.iinfo(x.dtype).min)), INTS, []),
    "abs of neg": (lambda x: tnp.abs(-x), (F32, BF16, I8, I32), ["abs"]),
    "abs of neg unsigned": (lambda x: tnp.abs(-x), (U8, U32), ["neg", "abs"]),
    "floor of round": (lambda x: tnp.floor(tnp.round(x)), FLOATS, ["round_nearest_even"]),
    "square": (lambda x: x**2, ALL, ["mul"]),
    "first power": (lambda x: (-x) ** 1, FLOATS, ["neg"]),
    "shift by 0": (lambda x: (x << 0) >> 0, INTS, []),
    "moved scalar": (lambda x: tnp.zeros((3, 4), x.dtype).T[1:].reshape(9) + x[0, 0],
                     ALL, None),
    "rev of rev": (lambda x: lax.rev(lax.rev(x, (0, 1)), (1,)), ALL, ["rev"]),
    "empty pad": (lambda x: tnp.pad(x, 0), ALL, []),
    "nested joins": (lambda x: tnp.concatenate([tnp.concatenate([x, x]), x]), ALL,
                     ["concatenate"]),
    "slice of a join": (lambda x: tnp.concatenate([x, x])[5:7, 1:], ALL, ["slice"]),
    "scalar function": (lambda x: tnp.exp(tnp.broadcast_to(x[0, 0], (4, 5))), FLOATS,
                        ["slice", "reshape", "exp", "broadcast_in_dim"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
    function, dtypes, left = RULES[name]
    for dtype in dtypes:
        simple = assert_same_bits(function, inputs((4, 6), dtype, 3))
        found = [e.primitive.name for e in simple.eqns]
        if left is not None:
            assert found == left, (np.dtype(dtype), simple)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_copies_bits_is_not_clean(dtype):
    """x * 1 makes subnormals zeros and NaNs canonical, unless that has been done."""
    for function in (
        lambda x: tnp.where(x > 0, x, x[0]) * 1,
        lambda x: tnp.concatenate([x, x + x]) * 1,
        lambda x: lax.bitcast_convert_type(x, x.dtype) * 1,
        lambda x: tnp.max(x[None], 0) * 1,
        lambda x: tnp.roll(x, 1) - 0.0,
    ):
        assert_same_bits(function, inputs((4, 6), dtype, 3))
    x = inputs((4, 6), F32, 4)
    assert_same_bits(lambda x: lax.bitcast_convert_type(x, F32) * 1, x.view(I32))


OPERATIONS = (
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: -x * y, lambda x, y: tnp.abs(x),
    lambda x, y: tnp.where(x > y, x, y), lambda x, y: tnp.where(~(x > y), x, 1),
    lambda x, y: tnp.maximum(x, 3), lambda x, y: tnp.minimum(x, y), lambda x, y: x**2,
    lambda x, y: -x, lambda x, y: x * -1, lambda x, y: x * 0, lambda x, y: x + 5,
    lambda x, y: tnp.flip(x), lambda x, y: tnp.roll(x, 1), lambda x, y: x - -y,
)  # fmt: skip


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.sampled_from(ALL), st.lists(st.sampled_from(range(len(OPERATIONS))), max_size=7))
def test_no_rule_changes_a_bit(dtype, numbers):
    def function(x, y):
        before = y
        for n in numbers:
            x, before = OPERATIONS[n](x, before), x
        return x, before

    assert_same_bits(function, inputs((3, 4), dtype, 1), inputs((3, 4), dtype, 2))
