"""NumPy's functions for the chip: ``import tilewright.numpy as tnp``.

Names, argument order and meaning follow NumPy and JAX. Within `tw.jit` a function records
equations; on concrete arrays it runs at once. What the chip cannot do yet is not here, and asking
for it is an error that says so.
"""

import builtins as _builtins
import functools as _functools
import inspect as _inspect

import numpy as _np
from tilewright import hooks as _hooks
from tilewright.compiler import ops as _ops
from tilewright.compiler import trace as _trace
from tilewright.compiler.errors import MissingError as _MissingError
from tilewright.compiler.ops import (
    abs,
    all,
    any,
    append,
    arange,
    argmax,
    argmin,
    argsort,
    array_split,
    astype,
    atleast_1d,
    atleast_2d,
    atleast_3d,
    average,
    broadcast_arrays,
    broadcast_to,
    ceil,
    column_stack,
    concatenate,
    cos,
    count_nonzero,
    cross,
    cumprod,
    cumsum,
    diag,
    diagonal,
    diff,
    dot,
    dsplit,
    dstack,
    exp,
    exp2,
    expand_dims,
    expm1,
    eye,
    flip,
    fliplr,
    flipud,
    floor,
    hsplit,
    hstack,
    identity,
    indices,
    inner,
    invert,
    linspace,
    log,
    log1p,
    logspace,
    matmul,
    matrix_transpose,
    max,
    mean,
    meshgrid,
    min,
    moveaxis,
    nanmax,
    nanmean,
    nanmin,
    nanprod,
    nansum,
    negative,
    pad,
    prod,
    ptp,
    ravel,
    repeat,
    reshape,
    rint,
    roll,
    rollaxis,
    rot90,
    round,
    sign,
    sin,
    sort,
    split,
    sqrt,
    squeeze,
    stack,
    std,
    sum,
    swapaxes,
    take,
    take_along_axis,
    tanh,
    tensordot,
    tile,
    transpose,
    tri,
    tril,
    tril_indices,
    triu,
    triu_indices,
    var,
    vdot,
    vsplit,
    vstack,
)
from tilewright.compiler.source import user_source as _user_source
from tilewright.numpy_arrays import (
    array,
    asarray,
    bfloat16,
    bool_,
    broadcast_shapes,
    dtype,
    e,
    empty,
    empty_like,
    finfo,
    float32,
    floating,
    full,
    full_like,
    iinfo,
    inexact,
    inf,
    int8,
    int32,
    integer,
    issubdtype,
    nan,
    ndim,
    newaxis,
    number,
    ones,
    ones_like,
    pi,
    promote_types,
    result_type,
    shape,
    signedinteger,
    size,
    uint8,
    uint32,
    unsignedinteger,
    zeros,
    zeros_like,
)

_hooks.install()


def _at_once(function):
    """The function; of concrete arrays all its equations are one program, broadcasting and all."""
    signature = _inspect.signature(function)

    @_functools.wraps(function)
    def run(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        only = bound.kwargs  # those with keyword-only arguments run one by one
        bound.apply_defaults()
        values = bound.args
        eager = _trace.current_trace() is None and _trace.eager_hook is _hooks.on_the_chip
        arrays = [_trace.is_device_array(a) or isinstance(a, _np.ndarray) for a in values]
        traced = _builtins.any(isinstance(a, _trace.Tracer) for a in values)
        if only or traced or not eager or not _builtins.any(arrays):
            return function(*args, **kwargs)
        from tilewright.eager import operate

        return operate(function.__name__, *values)

    return run


add = _at_once(_ops.add)
subtract = _at_once(_ops.subtract)
multiply = _at_once(_ops.multiply)
divide = _at_once(_ops.divide)
maximum = _at_once(_ops.maximum)
minimum = _at_once(_ops.minimum)
clip = _at_once(_ops.clip)
bitwise_and = _at_once(_ops.bitwise_and)
bitwise_or = _at_once(_ops.bitwise_or)
bitwise_xor = _at_once(_ops.bitwise_xor)
equal = _at_once(_ops.equal)
greater = _at_once(_ops.greater)
greater_equal = _at_once(_ops.greater_equal)
left_shift = _at_once(_ops.left_shift)
less = _at_once(_ops.less)
less_equal = _at_once(_ops.less_equal)
logical_and = _at_once(_ops.logical_and)
logical_not = _at_once(_ops.logical_not)
logical_or = _at_once(_ops.logical_or)
logical_xor = _at_once(_ops.logical_xor)
not_equal = _at_once(_ops.not_equal)
power = _at_once(_ops.power)
reciprocal = _at_once(_ops.reciprocal)
right_shift = _at_once(_ops.right_shift)
square = _at_once(_ops.square)
where = _at_once(_ops.where)
outer = _at_once(_ops.outer)
einsum = _at_once(_ops.einsum)
arccos = _at_once(_ops.arccos)
arccosh = _at_once(_ops.arccosh)
arcsin = _at_once(_ops.arcsin)
arcsinh = _at_once(_ops.arcsinh)
arctan = _at_once(_ops.arctan)
arctan2 = _at_once(_ops.arctan2)
arctanh = _at_once(_ops.arctanh)
bitwise_count = _at_once(_ops.bitwise_count)
cbrt = _at_once(_ops.cbrt)
copysign = _at_once(_ops.copysign)
cosh = _at_once(_ops.cosh)
deg2rad = _at_once(_ops.deg2rad)
fabs = _at_once(_ops.fabs)
float_power = _at_once(_ops.float_power)
floor_divide = _at_once(_ops.floor_divide)
fmax = _at_once(_ops.fmax)
fmin = _at_once(_ops.fmin)
fmod = _at_once(_ops.fmod)
heaviside = _at_once(_ops.heaviside)
hypot = _at_once(_ops.hypot)
isclose = _at_once(_ops.isclose)
isfinite = _at_once(_ops.isfinite)
isinf = _at_once(_ops.isinf)
isnan = _at_once(_ops.isnan)
isneginf = _at_once(_ops.isneginf)
isposinf = _at_once(_ops.isposinf)
log10 = _at_once(_ops.log10)
log2 = _at_once(_ops.log2)
logaddexp = _at_once(_ops.logaddexp)
logaddexp2 = _at_once(_ops.logaddexp2)
nan_to_num = _at_once(_ops.nan_to_num)
positive = _at_once(_ops.positive)
rad2deg = _at_once(_ops.rad2deg)
remainder = _at_once(_ops.remainder)
signbit = _at_once(_ops.signbit)
sinh = _at_once(_ops.sinh)
tan = _at_once(_ops.tan)
trunc = _at_once(_ops.trunc)
divmod = _at_once(_ops.divmod)
select = _ops.select
allclose = _at_once(_ops.allclose)
array_equal = _at_once(_ops.array_equal)
array_equiv = _at_once(_ops.array_equiv)
kron = _at_once(_ops.kron)
polyval = _at_once(_ops.polyval)
trace = _ops.trace_of
true_divide = divide
acos = arccos
acosh = arccosh
asin = arcsin
asinh = arcsinh
atan = arctan
atan2 = arctan2
atanh = arctanh
pow = power
concat = concatenate
mod = remainder
degrees = rad2deg
radians = deg2rad
fix = trunc
bitwise_invert = invert
bitwise_left_shift = left_shift
bitwise_right_shift = right_shift
absolute = abs
bitwise_not = invert
permute_dims = transpose
amax, amin = max, min


__all__ = [
    "abs",
    "absolute",
    "acos",
    "acosh",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "append",
    "arange",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "argmax",
    "argmin",
    "argsort",
    "array",
    "array_equal",
    "array_equiv",
    "array_split",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "average",
    "bfloat16",
    "bitwise_and",
    "bitwise_count",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bool_",
    "broadcast_arrays",
    "broadcast_shapes",
    "broadcast_to",
    "cbrt",
    "ceil",
    "clip",
    "column_stack",
    "concat",
    "concatenate",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cross",
    "cumprod",
    "cumsum",
    "deg2rad",
    "degrees",
    "diag",
    "diagonal",
    "diff",
    "divide",
    "divmod",
    "dot",
    "dsplit",
    "dstack",
    "dtype",
    "e",
    "einsum",
    "empty",
    "empty_like",
    "equal",
    "exp",
    "exp2",
    "expand_dims",
    "expm1",
    "eye",
    "fabs",
    "finfo",
    "fix",
    "flip",
    "fliplr",
    "flipud",
    "float32",
    "float_power",
    "floating",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "full",
    "full_like",
    "greater",
    "greater_equal",
    "heaviside",
    "hsplit",
    "hstack",
    "hypot",
    "identity",
    "iinfo",
    "indices",
    "inexact",
    "inf",
    "inner",
    "int8",
    "int32",
    "integer",
    "invert",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "issubdtype",
    "kron",
    "left_shift",
    "less",
    "less_equal",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logspace",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "meshgrid",
    "min",
    "minimum",
    "mod",
    "moveaxis",
    "multiply",
    "nan",
    "nan_to_num",
    "nanmax",
    "nanmean",
    "nanmin",
    "nanprod",
    "nansum",
    "ndim",
    "negative",
    "newaxis",
    "not_equal",
    "number",
    "ones",
    "ones_like",
    "outer",
    "pad",
    "permute_dims",
    "pi",
    "polyval",
    "positive",
    "pow",
    "power",
    "prod",
    "promote_types",
    "ptp",
    "rad2deg",
    "radians",
    "ravel",
    "reciprocal",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "right_shift",
    "rint",
    "roll",
    "rollaxis",
    "rot90",
    "round",
    "select",
    "shape",
    "sign",
    "signbit",
    "signedinteger",
    "sin",
    "sinh",
    "size",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "swapaxes",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "trace",
    "transpose",
    "tri",
    "tril",
    "tril_indices",
    "triu",
    "triu_indices",
    "true_divide",
    "trunc",
    "uint8",
    "uint32",
    "unsignedinteger",
    "var",
    "vdot",
    "vsplit",
    "vstack",
    "where",
    "zeros",
    "zeros_like",
]


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    functions = ", ".join(__all__)
    raise _MissingError(
        f"tilewright.numpy has no {name!r} (at {_user_source()}); it has: {functions}"
    )
