"""Values while tracing: tracers, and what can stand beside them.

Concrete values are NumPy arrays and scalars, Python scalars, :class:`core.Literal`, and any object
with `shape`, `dtype` and ``__array__`` (a device array).
"""

import operator

import numpy as np
from tilewright.compiler.core import Literal, ShapedArray
from tilewright.compiler.errors import ConcretizationError, DtypeError, LeakedTracerError
from tilewright.compiler.operators import ArrayOperators
from tilewright.compiler.promote import canonical_dtype, python_aval, scalar_value
from tilewright.compiler.source import user_source


class Tracer(ArrayOperators):
    """A value within a trace; looks like a NumPy array. A subclass gives its `aval`.

    `owner` is the trace; no slot has the name of a method of arrays, which it would hide.
    """

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("owner", "source")
    why = "is only known when the program runs"  # why it has no value now

    def __init__(self, trace, source):
        self.owner, self.source = trace, source

    @property
    def shape(self):
        return self.aval.shape

    @property
    def dtype(self):
        return self.aval.dtype

    @property
    def weak_type(self):
        return self.aval.weak_type

    def known(self):
        """Return the concrete value, if there is one while tracing, or None."""
        return None

    def depends(self):
        """Return which arguments decide this value, such as "argument x of f"; empty if unknown."""
        return ""

    def _concrete(self, wanted, hint):
        if not self.owner.live:
            raise leaked(self, wanted)
        value = self.known()
        if value is not None:
            return concrete(value)
        depends = self.depends()
        why = f"{self.why}, as it depends on {depends}" if depends else self.why
        raise ConcretizationError(
            f"{wanted} needs the value of an array that {why}: {self!r}, made at "
            f"{self.source}. {hint} (at {user_source()})"
        )

    def __bool__(self):
        value = self._concrete(
            "a truth value (if, while, and, or, not, in)",
            "Compute both sides and choose with tnp.where, use lax.cond or lax.while_loop, or make "
            "the argument static.",
        )
        return bool(value)

    def __int__(self):
        return int(self._concrete("int()", "Use .astype(tnp.int32), or make the argument static."))

    def __float__(self):
        hint = "Use .astype(tnp.float32), or make the argument static."
        return float(self._concrete("float()", hint))

    def __index__(self):
        hint = "Make the argument static."
        return operator.index(self._concrete("a shape, an index or range()", hint))

    def item(self, *args):
        return self._concrete("item()", "Use the array as it is.").item(*args)

    def tolist(self):
        return self._concrete("tolist()", "Use the array as it is.").tolist()

    def __array__(self, *_args, **_kwargs):
        if not self.owner.live:
            raise leaked(self, "a NumPy function")
        raise ConcretizationError(
            f"a NumPy function needs the value of an array that is being traced: {self!r}, made at "
            f"{self.source}. Use the function of the same name in tilewright.numpy. "
            f"(at {user_source()})"
        )

    def __repr__(self):
        return f"{type(self).__name__}<{self.aval}>"


def leaked(tracer, op):
    """Return the error of a tracer that is used where its trace is not active."""
    return LeakedTracerError(
        f"{op} at {user_source()} got {tracer!r}, which was made at {tracer.source} in a "
        "function whose tracing has ended; return values instead of storing them"
    )


def is_device_array(value):
    """Tell whether a concrete value is an array object other than NumPy's."""
    return not isinstance(value, np.ndarray | np.generic | Literal | Tracer) and (
        hasattr(value, "__tw_array__") or hasattr(value, "__array__")
    )


def aval_of(value):
    """Return the aval of a tracer or of any concrete value.

    **Raises** DtypeError: not an array, or of a dtype that the chip does not have.
    """
    if isinstance(value, Tracer | Literal):
        return value.aval
    if type(value) in (bool, int, float):
        return python_aval(value)
    if isinstance(value, np.ndarray | np.generic) or is_device_array(value):
        if not hasattr(value, "dtype"):
            value = np.asarray(value)
        dtype = canonical_dtype(value.dtype)
        return ShapedArray(tuple(value.shape), dtype, bool(getattr(value, "weak_type", False)))
    raise DtypeError(f"an operand must be an array or a number, not {type(value).__name__}")


def narrow(value, aval):
    """Return a concrete value as a NumPy array of its aval's dtype."""
    if isinstance(value, Literal):
        return value.value
    if type(value) in (bool, int, float):
        return scalar_value(value, aval.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(value).astype(aval.dtype, copy=False)


def concrete(value):
    """Return a concrete value as a NumPy array of the chip's dtype for it."""
    return narrow(value, aval_of(value))
