"""Functions of VECTOR, special values: the same bytes and cycles on all engines and chips."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax, nn

from tests.compiler.transform_case import normal

CHIPS = ["tw4", *(pytest.param(c, marks=pytest.mark.full) for c in ("tw8", "tw16"))]
TINY, HUGE = np.float32(1.2e-38), np.float32(3.4e38)
SPECIAL = np.float32([0, -0.0, np.inf, -np.inf, np.nan, TINY, -TINY, 1e-40, -1e-42, HUGE, -HUGE,
                      1, -1, 0.5, 2, 88.7, -87.4, 127, -150, 9999.5, np.pi])  # fmt: skip
FLOATS = np.concatenate([SPECIAL, normal(1, (30,)), normal(2, (20,)) * 100])
UNARY = ("neg", "abs", "sign", "floor", "ceil", "round", "sqrt", "rsqrt", "exp", "exp2", "log",
         "log1p", "expm1", "logistic", "tanh", "erf", "erfc", "erf_inv", "sin", "cos", "tan",
         "cbrt", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "atanh",
         "is_finite")  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2", "eq", "lt", "le")
WHOLE = ("add", "sub", "mul", "div", "rem", "max", "min", "bitwise_and", "bitwise_or",
         "bitwise_xor", "shift_left", "shift_right_logical", "shift_right_arithmetic", "lt",
         "ne")  # fmt: skip


def floats(dtype):
    x = FLOATS.astype(dtype)
    return x, np.roll(x, 7)


def wholes(dtype):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    x = rng.integers(limits.min, limits.max, 41, dtype, endpoint=True)
    y = rng.integers(limits.min, limits.max, 41, dtype, endpoint=True)
    x[:3], y[:6] = [limits.min, limits.max, 0], [0, 1, limits.max, limits.min, 7, 31]
    return x, y


def unary(x, y):
    return [getattr(lax, name)(x) for name in UNARY]


def binary(x, y):
    return [getattr(lax, name)(x, y) for name in BINARY] + [tnp.where(x < y, x, y)]


def whole(x, y):
    return [*(getattr(lax, name)(x, y) for name in WHOLE), lax.clz(x), lax.population_count(x)]


def reducing(x, y):
    """Rows, columns, all; groups that stay on the chip."""
    functions = (tnp.sum, tnp.max, tnp.argmin, tnp.prod)
    return [f(x, axis) for f in functions for axis in (0, 1, None)] + [
        tnp.cumsum(x, 1), nn.softmax(x * y), nn.standardize(x), nn.logsumexp(y, 1), tnp.sort(x, 1),
    ]  # fmt: skip


MATRICES = normal(4, (13, 37)), normal(5, (13, 37))
CASES = {
    "float32 reducing": (reducing, *MATRICES),
    "bfloat16 reducing": (reducing, *(m.astype(tnp.bfloat16) for m in MATRICES)),
    "float32 unary": (unary, *floats(np.float32)), "float32 binary": (binary, *floats(np.float32)),
    "bfloat16 unary": (unary, *floats(tnp.bfloat16)),
    "bfloat16 binary": (binary, *floats(tnp.bfloat16)),
    **{f"{d} whole": (whole, *wholes(d)) for d in ("int8", "uint8", "int32", "uint32")},
}  # fmt: skip


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", CASES)
def test_engines_agree_on_special_values(name, chip):
    function, *arguments = CASES[name]
    found, counters = [], []
    for engine in ("functional", "cycle", "rtl"):
        with tw.default_device(tw.Device(chip, engine)), tw.profile() as p:
            found.append([np.asarray(v).tobytes() for v in tw.jit(function)(*arguments)])
        counters.append(p.runs[0].counters)
    assert found[0] == found[1] == found[2]
    assert counters[1] == counters[2]
