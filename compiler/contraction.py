"""NumPy's contractions of two arrays, `matmul` to `vdot`, as one `dot_general` equation."""

from contextvars import ContextVar

from tilewright.compiler import core, promote, trace
from tilewright.compiler.elementwise import multiply
from tilewright.compiler.errors import DtypeError, OperandError, UnsupportedError
from tilewright.compiler.operands import (
    axis_index,
    convert,
    dtype_named,
    located,
    operand_avals,
)
from tilewright.compiler.primitives_dot import dot_general_p
from tilewright.compiler.shaping import broadcast_to, expand_dims, ravel
from tilewright.compiler.source import user_source

#: JAX's names of each precision.
ALIASES = {
    "default": ("default", "fastest", "bfloat16"),
    "high": ("high", "bfloat16_3x", "tensorfloat32"),
    "highest": ("highest", "float32"),
}
#: What `precision=None` means; `tw.default_matmul_precision` sets it.
default_precision: ContextVar[str] = ContextVar("default_precision", default="default")


def precision_name(precision):
    """Return 'default', 'high' or 'highest' (else the type rule refuses it) for a user's precision.

    A pair, one for each operand as in JAX, must name one precision.
    """
    if isinstance(precision, tuple | list) and len(set(precision)) == 1:
        precision = precision[0]
    if precision is None:
        return default_precision.get()
    name = str(precision).lower()
    return next((known for known, names in ALIASES.items() if name in names), name)


def dot_general(
    lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None, name="dot_general"
):
    """JAX's dot_general, on operands as they are."""
    operand_avals(name, (lhs, rhs))
    (lc, rc), (lb, rb) = dimension_numbers
    numbers = tuple(tuple(int(d) for d in dims) for dims in (lc, rc, lb, rb))
    if preferred_element_type is not None:
        preferred_element_type = dtype_named(name, preferred_element_type)
    return trace.bind(
        dot_general_p,
        lhs,
        rhs,
        dimension_numbers=(numbers[:2], numbers[2:]),
        precision=precision_name(precision),
        preferred_element_type=preferred_element_type,
    )


def contraction_operands(name, a, b, preferred):
    """Promote the operands of a matmul; with a preferred type, bytes of either sign stay bytes."""
    avals = operand_avals(name, (a, b))
    bytes_ = (core.int8, core.uint8)
    if preferred is not None and all(v.dtype in bytes_ and not v.weak_type for v in avals):
        return a, b
    try:
        dtype, weak = promote.promote_types(*avals)
    except DtypeError as error:
        hint = "; or give preferred_element_type=int32" if avals[0].dtype in bytes_ else ""
        raise located(name, avals, DtypeError(f"{error}{hint}")) from None
    return convert(a, dtype, weak), convert(b, dtype, weak)


def matmul(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's matmul; leading dimensions broadcast and are batch dimensions.

    int8 operands give int8, as in JAX (the sum wraps), unless ``preferred_element_type=int32``.
    """
    a, b = contraction_operands("matmul", a, b, preferred_element_type)
    avals = left, right = trace.aval_of(a), trace.aval_of(b)
    if not left.ndim or not right.ndim:
        raise OperandError(
            f"matmul({left}, {right}): operands must have at least one dimension "
            f"(at {user_source()})"
        )
    depths = left.shape[-1], right.shape[-2 if right.ndim > 1 else 0]
    if depths[0] != depths[1]:
        raise OperandError(
            f"matmul({left}, {right}): the last dimension of the first and the "
            f"{'second to last' if right.ndim > 1 else 'only'} one of the second must be equal, "
            f"not {depths[0]} and {depths[1]} (at {user_source()})"
        )
    try:
        batch = promote.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except OperandError as error:
        raise located("matmul", avals, error) from None
    if right.ndim <= 2 and left.ndim >= 1:  # the batch of the first, if any, is only more rows
        numbers = (((left.ndim - 1,), (max(right.ndim - 2, 0),)), ((), ()))
        return dot_general(a, b, numbers, precision, preferred_element_type, "matmul")
    if left.ndim > 1:
        a = broadcast_to(a, batch + left.shape[-2:])
    else:  # (K,) @ (..., K, N)
        a = broadcast_to(a, (*batch, *left.shape))
    b = broadcast_to(b, batch + right.shape[-2:])
    dims = tuple(range(len(batch)))
    k = len(batch) + (1 if left.ndim > 1 else 0)
    numbers = (((k,), (len(batch),)), (dims, dims))
    return dot_general(a, b, numbers, precision, preferred_element_type, "matmul")


def dot(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's dot: the last dimension of `a` with the second to last of `b`; scalars multiply."""
    left, right = operand_avals("dot", (a, b))
    if not left.ndim or not right.ndim:
        return multiply(a, b)
    a, b = contraction_operands("dot", a, b, preferred_element_type)
    numbers = (((left.ndim - 1,), (max(right.ndim - 2, 0),)), ((), ()))
    return dot_general(a, b, numbers, precision, preferred_element_type, "dot")


def _contracted_axes(axes, left, right):
    """Return tensordot's axes as two tuples of non-negative axes."""
    where = f"(at {user_source()})"
    if type(axes) is int:
        if not 0 <= axes <= min(left.ndim, right.ndim):
            raise OperandError(
                f"tensordot: axes must be at most the ranks {left.ndim} and {right.ndim}, "
                f"not {axes} {where}"
            )
        return tuple(range(left.ndim - axes, left.ndim)), tuple(range(axes))
    if not isinstance(axes, tuple | list) or len(axes) != 2:
        raise OperandError(
            f"tensordot: axes must be an int, two ints or two sequences of ints, "
            f"not {axes!r} {where}"
        )
    given = [(a,) if not isinstance(a, tuple | list) else a for a in axes]
    if len(given[0]) != len(given[1]):
        raise OperandError(f"tensordot: axes must name as many of each array, not {axes!r} {where}")
    sides = zip(given, (left, right), strict=True)
    first, second = (tuple(axis_index(a, v.ndim) for a in side) for side, v in sides)
    return first, second


def tensordot(a, b, axes=2, *, precision=None, preferred_element_type=None):
    """NumPy's tensordot."""
    left, right = operand_avals("tensordot", (a, b))
    contracting = _contracted_axes(axes, left, right)
    a, b = contraction_operands("tensordot", a, b, preferred_element_type)
    numbers = (contracting, ((), ()))
    return dot_general(a, b, numbers, precision, preferred_element_type, "tensordot")


def inner(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's inner: the last dimensions of both; scalars multiply."""
    left, right = operand_avals("inner", (a, b))
    if not left.ndim or not right.ndim:
        if preferred_element_type is not None:
            dtype = dtype_named("inner", preferred_element_type)
            a, b = convert(a, dtype), convert(b, dtype)
        return multiply(a, b)
    return tensordot(
        a, b, (-1, -1), precision=precision, preferred_element_type=preferred_element_type
    )


def outer(a, b, out=None):
    """NumPy's outer, by element-wise products: float32 is not rounded to bfloat16."""
    if out is not None:
        raise UnsupportedError(f"outer: out must be None, not an array (at {user_source()})")
    operand_avals("outer", (a, b))
    return multiply(expand_dims(ravel(a), 1), expand_dims(ravel(b), 0))


def vdot(a, b, *, precision=None, preferred_element_type=None):
    """NumPy's vdot of real arrays: both flattened, then their dot product."""
    operand_avals("vdot", (a, b))
    return dot(
        ravel(a), ravel(b), precision=precision, preferred_element_type=preferred_element_type
    )
