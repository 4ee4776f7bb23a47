"""dtype promotion: JAX's lattice and weak types, for the dtypes that the chip has.

An edge leads from a type to the smallest ones above it; the result of a promotion is the least
upper bound. ``i*`` and ``f*`` are the weak types of Python's int and float: they give way to any
dtype of their kind. Without 64-bit types int64 becomes int32, uint64 uint32 and float64 float32,
and so does a promotion that meets there. int16, uint16 and float16 are in the lattice, but refused.

Source: JAX, "Type promotion semantics" (docs.jax.dev/en/latest/type_promotion.html).
"""

from functools import cache

import numpy as np
from tilewright.compiler.core import (
    DTYPES,
    FLOATS,
    INTS,
    ShapedArray,
    bfloat16,
    bool_,
    float32,
    int32,
    uint32,
)
from tilewright.compiler.errors import DtypeError, OperandError

_EDGES = {
    "bool": ("i*",),
    "i*": ("uint8", "int8"),
    "uint8": ("int16", "uint16"),
    "uint16": ("int32", "uint32"),
    "uint32": ("int64",),
    "int8": ("int16",),
    "int16": ("int32",),
    "int32": ("int64",),
    "int64": ("f*",),
    "f*": ("bfloat16", "float16"),
    "bfloat16": ("float32",),
    "float16": ("float32",),
    "float32": (),
}
_NARROWED = {
    np.dtype(np.int64): int32,
    np.dtype(np.uint64): uint32,
    np.dtype(np.float64): float32,
}
_WEAK = {"i*": int32, "f*": float32}
_PYTHON = {bool: bool_, int: int32, float: float32}


def canonical_dtype(dtype):
    """Return the chip's dtype for anything that names one; 64-bit types narrow.

    **Raises** DtypeError: the chip has no such dtype.
    """
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise DtypeError(f"dtype must name a dtype, not {dtype!r}") from None
    found = _NARROWED.get(found, found)
    if found not in DTYPES:
        names = ", ".join(str(d) for d in DTYPES)
        raise DtypeError(f"dtype must be one of {names}, not {found}: the chip does not have it")
    return found


@cache
def _above(node):
    """All lattice nodes at or above a node."""
    return frozenset({node}).union(*(_above(n) for n in _EDGES[node]))


def _node(aval):
    if not aval.weak_type or aval.dtype == bool_:
        return str(aval.dtype)
    return "f*" if aval.dtype in FLOATS else "i*"


def promote_types(*avals):
    """Return ``(dtype, weak_type)`` of an operation on operands of these avals.

    **Raises** DtypeError: the operands meet in a dtype that the chip does not have.
    """
    if len({(a.dtype, a.weak_type) for a in avals}) == 1:
        return avals[0].dtype, avals[0].weak_type
    common = frozenset.intersection(*(_above(_node(a)) for a in avals))
    (least,) = (n for n in common if common <= _above(n))
    if least in _WEAK:
        return _WEAK[least], True
    try:
        return canonical_dtype(least), False
    except DtypeError:
        names = " and ".join(dict.fromkeys(str(a.dtype) for a in avals))
        raise DtypeError(
            f"{names} promote to {least}, which the chip does not have; "
            "convert one operand with .astype(...) first"
        ) from None


def python_aval(value):
    """Return the weakly typed aval of a Python bool, int or float."""
    return ShapedArray((), _PYTHON[type(value)], not isinstance(value, bool))


def scalar_value(value, dtype):
    """Return a Python scalar as a rank-0 array of a dtype.

    **Raises** OverflowError: an integer dtype that cannot hold the value.
    """
    if dtype in INTS:
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            raise OverflowError(f"the Python value {value!r} does not fit {dtype}")
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value).astype(dtype)


def broadcast_shapes(*shapes):
    """Return the shape to which shapes broadcast, by NumPy's rules.

    **Raises** OperandError: they do not.
    """
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(str(tuple(s)) for s in shapes)
        raise OperandError(f"shapes {listed} do not broadcast together") from None
