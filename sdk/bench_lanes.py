"""Element-wise kernels for `bench_roofline`: how near to the memory bound VECTOR's kernels come.

The bound is the bus: each operand read once, the result written once, reads and writes at the same
time; or the vector unit, one operation of a unit of `dim` elements in a cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.bench_roofline import DTYPE, Case
from tilewright.isa.config import ChipConfig

__tilewright_user_code__ = True
SIDE = 1024


@tw.jit
def relu_axb(a, x, b):
    """relu(a * x + b)."""
    return tnp.maximum(a * x + b, 0)


@tw.jit
def total(a, b):
    """a + b."""
    return a + b


@tw.jit
def normalised(x, mean, scale, bias):
    """Columns of numbers and rows of weights, three operands at a time."""
    return (x - mean) * scale + bias


@tw.jit
def logistic(x):
    """1 / (1 + exp(-x))."""
    return lax.logistic(x)


@tw.jit
def tanh(x):
    """Hyperbolic tangent: 18 operations."""
    return tnp.tanh(x)


@tw.jit
def all_summed(x):
    """The sum of all elements."""
    return tnp.sum(x)


@tw.jit
def row_maxima(x):
    """The largest element of each row."""
    return tnp.max(x, -1)


@tw.jit
def column_sums(x):
    """The sum of each column, as a bias' gradient."""
    return tnp.sum(x, 0)


@tw.jit
def scaled_sum(x, y, z):
    """A sum behind three operations."""
    return (x * 2 * y + z).sum()


@tw.jit
def softmax(x):
    """Softmax of rows: 10 operations, and over the lanes 16 of a row."""
    e = tnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


_ALL, _COLUMN, _ROW = (SIDE, SIDE), (SIDE, 1), (SIDE,)
#: name, function, operands' shapes, operations, and the share to reach.
_CASES: tuple[tuple[str, Callable[..., Any], tuple[tuple[int, ...], ...], int, float], ...] = (
    ("relu(a*x + b)", relu_axb, (_ALL, _ALL, _ALL), 3, 0.95),
    ("relu(a*x + b), b a row", relu_axb, (_ALL, _ALL, _ROW), 3, 0.95),
    ("a + b", total, (_ALL, _ALL), 1, 0.95),
    ("logistic", logistic, (_ALL,), 4, 0.6),
    ("tanh", tanh, (_ALL,), 18, 0.8),
    ("sum", all_summed, (_ALL,), 1, 0.95),
    ("maxima of rows", row_maxima, (_ALL,), 1, 0.95),
    ("sums of columns", column_sums, (_ALL,), 1, 0.95),
    ("sum of x*2*y + z", scaled_sum, (_ALL, _ALL, _ALL), 4, 0.95),
    ("softmax", softmax, (_ALL,), 10, 0.5),
)
REDUCING = (all_summed, row_maxima, column_sums, scaled_sum)


def cases(config: ChipConfig) -> Iterator[Case]:
    """Each function of 1 M float32, and of bfloat16."""
    for kind, size in (("float32", 4), ("bf16", 2)):
        for name, function, shapes, operations, reach in _CASES:
            arguments = tuple(np.zeros(s, DTYPE[kind]) for s in shapes)
            read = sum(a.nbytes for a in arguments) // config.bus_bytes
            write = 0 if function in REDUCING else SIDE * SIDE * size // config.bus_bytes
            bound = max(read, write, SIDE * SIDE // config.dim * operations)
            wanted = reach if kind == "float32" else None
            group = "table" if wanted else "element-wise bf16"
            yield Case(f"{kind} {name}, 1 M", function, arguments, bound, 0, wanted, group)
