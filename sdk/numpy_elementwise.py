"""`tilewright.numpy`'s functions of concrete arrays that are one program each.

Called on arrays, and not within a trace, all equations of such a function (broadcasting,
conversions, the operations) run as one program; else they are recorded as always.
"""

import builtins as _builtins
import functools as _functools
import inspect as _inspect

import numpy as _np
from tilewright import hooks as _hooks
from tilewright.compiler import ops as _ops
from tilewright.compiler import trace as _trace


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
allclose = _at_once(_ops.allclose)
array_equal = _at_once(_ops.array_equal)
array_equiv = _at_once(_ops.array_equiv)
kron = _at_once(_ops.kron)
polyval = _at_once(_ops.polyval)
true_divide = divide
acos = arccos
acosh = arccosh
asin = arcsin
asinh = arcsinh
atan = arctan
atan2 = arctan2
atanh = arctanh
pow = power
mod = remainder
degrees = rad2deg
radians = deg2rad
fix = trunc
bitwise_left_shift = left_shift
bitwise_right_shift = right_shift

__all__ = [name for name in globals() if not name.startswith("_")]
