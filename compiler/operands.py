"""What every array function does with its operands first: check, name, convert.

An error names the function, the operands' types and the user's line.
"""

import operator

import numpy as np
from tilewright.compiler import core, promote, trace
from tilewright.compiler import primitives as p
from tilewright.compiler.errors import ConcretizationError, DtypeError, OperandError
from tilewright.compiler.source import user_source

_OPERANDS = (trace.Tracer, core.Literal, np.ndarray, np.generic, bool, int, float)


def is_operand(value):
    """Tell whether a value can be an operand of an array operation."""
    return isinstance(value, _OPERANDS) or trace.is_device_array(value)


def operand_avals(name, values):
    """Return the avals of operands; an error names the function and the user's line."""
    for value in values:
        if not is_operand(value):
            raise OperandError(
                f"{name} takes arrays and numbers, not {type(value).__name__} (at {user_source()})"
            )
    try:
        return [trace.aval_of(v) for v in values]
    except DtypeError as error:
        raise DtypeError(f"{name}: {error} (at {user_source()})") from None


def located(name, avals, error):
    """Return an error of the same class that names operation, operands and the user's line."""
    types = ", ".join(map(str, avals))
    return type(error)(f"{name}({types}): {error} (at {user_source()})")


def dtype_named(name, dtype):
    """Return the chip's dtype for a user's dtype argument of the function `name`."""
    try:
        return promote.canonical_dtype(dtype)
    except DtypeError as error:
        raise DtypeError(f"{name}: {error} (at {user_source()})") from None


def convert(x, dtype, weak_type=False):
    """Convert to a dtype; no equation if there is nothing to do, a literal for a number."""
    aval = trace.aval_of(x)
    if isinstance(x, core.Literal):
        value = p.convert(x.value, new_dtype=dtype)
        return core.Literal(value, core.ShapedArray((), dtype, weak_type))
    if type(x) in (bool, int, float):
        is_exact = aval.dtype == core.bool_ or dtype not in core.INTS or type(x) is int
        if is_exact:
            value = promote.scalar_value(x, dtype)
            return core.Literal(value, core.ShapedArray((), dtype, weak_type))
    if (aval.dtype, aval.weak_type) == (dtype, weak_type):
        return x
    params = {"weak_type": True} if weak_type else {}
    return trace.bind(p.convert_element_type_p, x, new_dtype=dtype, **params)


def shape_tuple(shape):
    """Return a shape given as an int or as a sequence of ints."""
    try:
        if not hasattr(shape, "__len__") or getattr(shape, "ndim", 1) == 0:
            return (operator.index(shape),)
        return tuple(operator.index(n) for n in shape)
    except ConcretizationError:
        raise
    except TypeError:
        raise OperandError(
            f"a shape must be an int or a tuple of ints, not {shape!r} (at {user_source()})"
        ) from None


def axis_index(axis, ndim):
    """Return a non-negative axis."""
    try:
        axis = operator.index(axis)
    except TypeError:
        raise OperandError(f"an axis must be an int, not {axis!r} (at {user_source()})") from None
    if not -ndim <= axis < ndim:
        raise OperandError(
            f"axis must be in [{-ndim}, {ndim}) for rank {ndim}, not {axis} (at {user_source()})"
        )
    return axis % ndim


def axis_indices(axis, ndim):
    """Return the set of non-negative axes that an int or a tuple names."""
    given = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    axes = [axis_index(a, ndim) for a in given]
    if len(set(axes)) != len(axes):
        raise OperandError(f"axes must be distinct, not {axis!r} (at {user_source()})")
    return axes
