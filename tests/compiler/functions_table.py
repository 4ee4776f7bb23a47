"""`docs/functions.md`: ``python -m tests.compiler.functions_table > docs/functions.md``.

Operations are counted in the lowered terms; errors are measured on fixed samples against float64.
"""

import math
from functools import cache

import numpy as np
import scipy.special
import tilewright.lax as lax
import tilewright.nn as nn
import tilewright.numpy as tnp
from tilewright.compiler.core import DTYPES, SHORT_NAMES, ShapedArray, eval_jaxpr
from tilewright.compiler.errors import TilewrightError
from tilewright.compiler.fuse import fuse
from tilewright.compiler.simplify import simplify
from tilewright.compiler.terms import Term
from tilewright.compiler.trace import trace_to_jaxpr
from tilewright.compiler.vector_lower import BODY, LOWER, lower
from tilewright.compiler.vector_reduce import How
from tilewright.isa.config import parse_config

F32 = np.dtype("f4")
_EXACT = "exact"


@cache
def samples():
    """Positive and negative float32: a spread over all bit patterns, and some usual ranges."""
    rng = np.random.default_rng(2026)
    spread = (np.arange(60_000, dtype=np.uint64) * 71_582 % 2**32).astype(np.uint32).view(F32)
    near = np.float32([1, 2, math.pi / 2, math.pi, math.e, 0.5, 88, 8, 3]).view(np.uint32)
    near = (near[:, None] + np.arange(-200, 200)).astype(np.uint32).view(F32).ravel()
    ranges = [rng.uniform(-w, w, 20_000) for w in (1, 10, 100)]
    small = np.exp2(rng.uniform(-30, 4, 20_000)) * rng.choice([-1, 1], 20_000)
    usual = np.concatenate([*ranges, small]).astype(np.float32)
    x = np.concatenate([spread, near, -near, usual])
    return x[np.isfinite(x) & ((np.abs(x) >= 2.0**-126) | (x == 0))]


def _angles():
    rng = np.random.default_rng(1)
    near = np.round(rng.uniform(-6366, 6366, 30_000)) * (math.pi / 2)
    wide = rng.uniform(-1e4, 1e4, 30_000)
    x = samples()
    return (np.concatenate([x[np.abs(x) <= 1e4], near, wide]).astype(np.float32),)


def _above():
    """Where exp(-x) is finite."""
    x = samples()
    return (x[x > -87],)


def _pairs(least=-126, most=127):
    """Operands of a function of two, of many sizes."""
    rng = np.random.default_rng(3)
    e = np.concatenate([rng.uniform(least, most, (2, 30_000)), rng.uniform(-9, 9, (2, 30_000))], 1)
    return (np.exp2(e) * rng.choice([-1, 1], e.shape)).astype(np.float32)


def _powers():
    rng = np.random.default_rng(4)
    e = np.concatenate([rng.uniform(-100, 100, 40_000), rng.uniform(-1, 1, 40_000)])
    near = 1 + rng.choice([-1, 1], 20_000) * np.exp2(rng.uniform(-22, -1, 20_000))
    x = np.concatenate([np.exp2(e), near]).astype(np.float32)
    size = np.log2(x.astype(np.float64))
    y = rng.uniform(-125, 127, x.size) / np.where(size == 0, 1, size)
    return x, y.astype(np.float32)


_ERF = np.vectorize(math.erf, otypes=[float])


def _logistic(x):
    return 1 / (1 + np.exp(-x))


#: primitive -> (its function, the reference of float64, what makes its arguments)
MEASURED = {
    "exp": (lax.exp, np.exp), "exp2": (lax.exp2, np.exp2), "log": (lax.log, np.log),
    "log2": (tnp.log2, np.log2), "log1p": (lax.log1p, np.log1p),
    "expm1": (lax.expm1, np.expm1), "tanh": (lax.tanh, np.tanh),
    "logistic": (lax.logistic, _logistic), "erf": (lax.erf, _ERF),
    "erf_inv": (lax.erf_inv, scipy.special.erfinv),
    "erfc": (lax.erfc, scipy.special.erfc),
    "sqrt": (lax.sqrt, np.sqrt),
    "rsqrt": (lax.rsqrt, lambda x: 1 / np.sqrt(x)), "cbrt": (lax.cbrt, np.cbrt),
    "sin": (lax.sin, np.sin, _angles), "cos": (lax.cos, np.cos, _angles),
    "tan": (lax.tan, np.tan, _angles), "asin": (lax.asin, np.arcsin),
    "acos": (lax.acos, np.arccos), "atan": (lax.atan, np.arctan),
    "sinh": (lax.sinh, np.sinh), "cosh": (lax.cosh, np.cosh), "asinh": (lax.asinh, np.arcsinh),
    "acosh": (lax.acosh, np.arccosh), "atanh": (lax.atanh, np.arctanh),
    "atan2": (lax.atan2, np.arctan2, _pairs), "pow": (lax.pow, np.power, _powers),
    "div": (lax.div, np.divide, _pairs), "rem": (lax.rem, np.fmod, _pairs),
    "mul": (lax.mul, np.multiply, _pairs), "add": (lax.add, np.add, _pairs),
    "sub": (lax.sub, np.subtract, _pairs),
}  # fmt: skip
#: compositions of NumPy's functions and of nn
COMPOSED = {
    "numpy.log10": (tnp.log10, np.log10), "numpy.hypot": (tnp.hypot, np.hypot, _pairs),
    "numpy.logaddexp": (tnp.logaddexp, np.logaddexp, lambda: np.abs(_pairs(-20, 6))),
    "numpy.deg2rad": (tnp.deg2rad, np.deg2rad), "numpy.reciprocal": (tnp.reciprocal, np.reciprocal),
    "numpy.square": (tnp.square, np.square),
    "nn.softplus": (nn.softplus, lambda x: np.logaddexp(x, 0)),
    "nn.silu": (nn.silu, lambda x: x * _logistic(x), _above),
    "nn.elu": (nn.elu, lambda x: np.where(x > 0, x, np.expm1(x))),
    "nn.soft_sign": (nn.soft_sign, lambda x: x / (np.abs(x) + 1)),
}  # fmt: skip
#: what each primitive takes besides float32: its operands' number, and params
_ARITY = dict.fromkeys(
    ("add", "sub", "mul", "div", "rem", "pow", "atan2", "max", "min", "eq", "ne", "lt", "le", "gt",
     "ge", "and", "or", "xor", "shift_left", "shift_right_logical", "shift_right_arithmetic"), 2
) | {"clamp": 3, "select_n": 3, "threefry2x32": 3}  # fmt: skip
_PARAMS = {
    "integer_pow": {"y": 3}, "threefry2x32": {"word": 2},
    "convert_element_type": {"new_dtype": F32},
}  # fmt: skip


def operations(name, dtype):
    """How many micro-operations a primitive is for operands of a dtype, or None: it is refused."""
    count = _ARITY.get(name, 1)
    dtypes = [dtype] * count
    if name == "select_n":
        dtypes[0] = np.dtype(bool)
    params = dict(_PARAMS.get(name, {}))
    if name == "bitcast_convert_type":
        params["new_dtype"] = dtype
    try:
        aval = _primitives()[name].abstract(*(ShapedArray((4,), d) for d in dtypes), **params)
        args = tuple(Term("input", d, value=i) for i, d in enumerate(dtypes))
        recorder, _ = lower((Term(name, aval.dtype, args, params),), [(BODY, False)] * count,
                            How(16))  # fmt: skip
    except TilewrightError:
        return None
    return sum(1 for r in recorder.results if r.args)


@cache
def _primitives():
    """All primitives that have micro-operations, by name."""
    from tilewright.compiler import primitives, primitives_lanes, primitives_math

    found = [v for m in (primitives, primitives_lanes, primitives_math) for v in vars(m).values()]
    return {v.name: v for v in found if hasattr(v, "rules")}


def error(function, reference, arguments=None):
    """Largest error in ulp where the result is a normal number."""
    args = arguments() if arguments is not None else (samples(),)
    avals = [ShapedArray(a.shape, a.dtype) for a in args]
    jaxpr, _ = trace_to_jaxpr(lambda *args: function(*args), avals)
    got = eval_jaxpr(jaxpr, args)[0]
    with np.errstate(all="ignore"):
        want = reference(*(a.astype(np.float64) for a in args))
        normal = (np.abs(want) >= 2.0**-126) & (np.abs(want) < 2.0**127.99)
        unit = np.ldexp(1.0, np.frexp(want[normal])[1] - 24)
        return float((np.abs(got[normal].astype(np.float64) - want[normal]) / unit).max())


def kernels(function, count):
    """How many kernels a function of (64, 64) float32 is on `tw16`."""
    jaxpr, _ = trace_to_jaxpr(lambda *args: function(*args), [ShapedArray((64, 64), F32)] * count)
    return len(fuse(simplify(jaxpr), parse_config("tw16")).kernels)


def _shown(value):
    """An error, in hundredths, rounded up."""
    return "0.50 (correctly rounded)" if value <= 0.5 else f"{math.ceil(value * 100) / 100:.2f}"


def table():
    """The page's text."""
    lines = [
        "# Functions: cost and accuracy", "",
        "Generated by `python -m tests.compiler.functions_table > docs/functions.md`; "
        "`tests/compiler/test_functions_table.py`", "holds it current.", "",
        "## Primitives", "",
        "Micro-operations for each element, by the operands' dtype (`-`: refused by name). A unit "
        "of `dim` elements takes one", "slot for each. Loads and stores go beside them; an "
        "expression of several is one kernel, with its common parts once.", "",
        "| primitive | " + " | ".join(SHORT_NAMES[d] for d in DTYPES)
        + " | largest error of f32, ulp |", "|---" * (len(DTYPES) + 2) + "|",
    ]  # fmt: skip
    for name in sorted(LOWER):
        counts = [operations(name, d) for d in DTYPES]
        cells = ["-" if n is None else str(n) for n in counts]
        found = _shown(error(*MEASURED[name])) if name in MEASURED else _EXACT
        found = "0.50 a product" if name == "integer_pow" else found
        lines.append(f"| `{name}` | {' | '.join(cells)} | {found} |")
    lines += [
        "", "Errors are the largest of some 10^5 samples: a spread over all bit patterns, usual "
        "ranges, the neighbours of special points;", "of `sin`, `cos`, `tan` up to 10^4, also "
        "beside multiples of pi / 2. `erf_inv` is XLA's formula: its error", "grows towards -1 and "
        "1, where 1 - x^2 is rounded. `exact`: bits are moved, compared, counted, or the result "
        "is", "rounded once by definition. bfloat16 computes in float32 and rounds once. "
        "`convert_element_type` is shown to", "float32, `integer_pow` with the power 3.", "",
        "## Compositions", "",
        "| function | kernels | largest error of f32, ulp |", "|---|---|---|",
    ]  # fmt: skip
    for name, case in COMPOSED.items():
        count = len(case[2]()) if len(case) > 2 else 1
        lines.append(f"| `{name}` | {kernels(case[0], count)} | {_shown(error(*case))} |")
    lines += [
        "", "`concatenate` is one kernel, whatever is joined; `iota` up to 4096 elements is a "
        "constant, longer ones are computed;", "`reshape`, `transpose`, `slice`, `rev` and "
        "`broadcast_in_dim` are views, without a kernel, while what uses them can", "read a view. "
        "Reductions and contractions: [vector.md](vector.md), [isa.md](isa.md).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
