"""Tracing: run a Python function on tracers, and record what it does as a jaxpr.

`bind` is the one gate through which every primitive passes. While a trace is active it appends an
equation, also when all operands are concrete (as JAX does), so nothing runs during tracing. Without
a trace it hands the operation to `eager_hook`.

Concrete values are NumPy arrays and scalars, Python scalars, :class:`core.Literal`, and any object
with `shape`, `dtype` and ``__array__`` (a device array). Captured ones become constants of the
jaxpr: a NumPy array by copy, any other object as it is, so that a device array stays on its device.
"""

import threading
from contextlib import contextmanager

import numpy as np
from tilewright.compiler import tree
from tilewright.compiler.core import Eqn, Jaxpr, Literal, ShapedArray, Var, check_jaxpr, eval_jaxpr
from tilewright.compiler.errors import (
    ConcretizationError,
    DtypeError,
    LeakedTracerError,
    OperandError,
    UnsupportedError,
)
from tilewright.compiler.operators import ArrayOperators
from tilewright.compiler.promote import canonical_dtype, python_aval, scalar_value
from tilewright.compiler.source import user_source


class Tracer(ArrayOperators):
    """An array whose value is known only when the program runs; looks like a NumPy array."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("source", "trace", "var")

    def __init__(self, trace, var, source):
        self.trace, self.var, self.source = trace, var, source

    @property
    def aval(self):
        return self.var.aval

    @property
    def shape(self):
        return self.var.aval.shape

    @property
    def dtype(self):
        return self.var.aval.dtype

    @property
    def weak_type(self):
        return self.var.aval.weak_type

    def _concrete(self, wanted, hint):
        raise ConcretizationError(
            f"{wanted} needs the value of an array that is only known when the program runs: "
            f"Tracer<{self.aval}>, made at {self.source}. {hint} (at {user_source()})"
        )

    def __bool__(self):
        self._concrete(
            "a truth value (if, while, and, or, not, in)",
            "Compute both sides and combine them with arithmetic, minimum or maximum, "
            "or make the argument static.",
        )

    def __int__(self):
        self._concrete("int()", "Use .astype(tnp.int32), or make the argument static.")

    def __float__(self):
        self._concrete("float()", "Use .astype(tnp.float32), or make the argument static.")

    def __index__(self):
        self._concrete("a shape, an index or range()", "Make the argument static.")

    def __array__(self, *_args, **_kwargs):
        self._concrete("a NumPy function", "Use the function of the same name in tilewright.numpy.")

    def __repr__(self):
        return f"Tracer<{self.aval}>"


class Trace:
    """The recording of one function: its equations and captured constants so far."""

    def __init__(self):
        self.eqns, self.invars = [], []
        self.consts = {}  # id(captured) -> (captured, constvar, value); keeps the id valid
        self.live = True

    def new_arg(self, aval):
        """Return the tracer of a new input."""
        var = Var(aval)
        self.invars.append(var)
        return Tracer(self, var, user_source())

    def atom(self, value, op):
        """Return the Var or Literal that stands for a value in this jaxpr."""
        if isinstance(value, Tracer):
            if not value.trace.live:
                raise LeakedTracerError(
                    f"{op} at {user_source()} got {value!r}, which was made at {value.source} in a "
                    "function whose tracing has ended; return values instead of storing them"
                )
            if value.trace is not self:
                raise LeakedTracerError(
                    f"{op} at {user_source()} got {value!r} of an enclosing trace (made at "
                    f"{value.source}); pass it as an argument"
                )
            return value.var
        if isinstance(value, Literal):
            return value
        aval = aval_of(value)
        if not aval.shape and not is_device_array(value):
            return Literal(_narrow(value, aval), aval)
        if id(value) not in self.consts:
            self.consts[id(value)] = (value, Var(aval), _captured(value, aval))
        return self.consts[id(value)][1]

    def record(self, primitive, args, params):
        """Append an equation and return the tracer of its result."""
        source = user_source()
        atoms = tuple(self.atom(a, primitive.name) for a in args)
        out = Var(abstract(primitive, [a.aval for a in atoms], params, source))
        self.eqns.append(Eqn(primitive, atoms, (out,), params, source))
        return Tracer(self, out, source)

    def jaxpr(self, outs):
        """Return the checked jaxpr whose results are the values `outs`."""
        outvars = [self.atom(o, "the result") for o in outs]
        constvars = [var for _, var, _ in self.consts.values()]
        consts = [value for _, _, value in self.consts.values()]
        return check_jaxpr(Jaxpr(self.invars, constvars, consts, self.eqns, outvars))


class _Stack(threading.local):
    def __init__(self):
        self.traces = []


_stack = _Stack()


def current_trace():
    """Return the innermost active trace of this thread, or None."""
    return _stack.traces[-1] if _stack.traces else None


@contextmanager
def new_trace():
    """Make a trace active for the block; its tracers are dead afterwards."""
    trace = Trace()
    _stack.traces.append(trace)
    try:
        yield trace
    finally:
        _stack.traces.remove(trace)
        trace.live = False


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


def _narrow(value, aval):
    """Return a concrete value as a NumPy array of its aval's dtype."""
    if isinstance(value, Literal):
        return value.value
    if type(value) in (bool, int, float):
        return scalar_value(value, aval.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(value).astype(aval.dtype, copy=False)


def concrete(value):
    """Return a concrete value as a NumPy array of the chip's dtype for it."""
    return _narrow(value, aval_of(value))


def _captured(value, aval):
    """Return what the jaxpr keeps of a captured array: a read-only copy, or the device array."""
    if is_device_array(value) and getattr(value, "dtype", None) == aval.dtype:
        return value
    kept = np.array(_narrow(value, aval))
    kept.setflags(write=False)
    return kept


def abstract(primitive, avals, params, source):
    """Return the aval of a primitive's result; an error names operation, types and source line."""
    try:
        return primitive.abstract(*avals, **params)
    except (OperandError, DtypeError, UnsupportedError) as error:
        types = ", ".join(map(str, avals))
        raise type(error)(f"{primitive.name}({types}): {error} (at {source})") from None


def primitive_jaxpr(primitive, in_avals, params):
    """Return the jaxpr of one equation: what an eager operation compiles."""
    source = user_source()
    invars = [Var(a) for a in in_avals]
    out = Var(abstract(primitive, in_avals, params, source))
    return Jaxpr(invars, (), (), [Eqn(primitive, invars, (out,), params, source)], [out])


def eval_eagerly(primitive, args, params):
    """The default `eager_hook`: compute with NumPy and return an ndarray."""
    jaxpr = primitive_jaxpr(primitive, [aval_of(a) for a in args], params)
    return eval_jaxpr(jaxpr, [concrete(a) for a in args])[0]


#: Called as ``eager_hook(primitive, args, params)`` for an operation on concrete values outside of
#: a trace; the SDK replaces it. `aval_of`, `concrete` and `primitive_jaxpr` are its tools.
eager_hook = eval_eagerly


def asarray_unchanged(value, weak_type):
    """The default `asarray_hook`."""
    return value


#: Called as ``asarray_hook(ndarray, weak_type)`` by creation functions (`tnp.asarray`, `tnp.zeros`)
#: outside of a trace; the SDK replaces it by a transfer to the device.
asarray_hook = asarray_unchanged


def lift(value):
    """Return a concrete value as an array: a tracer within a trace, else what the hook makes."""
    trace = current_trace()
    if trace is not None:
        return Tracer(trace, trace.atom(value, "asarray"), user_source())
    if is_device_array(value):
        return value
    return asarray_hook(concrete(value), aval_of(value).weak_type)


def bind(primitive, *args, **params):
    """Apply a primitive to values: record it in the active trace, or run it at once."""
    trace = current_trace()
    if trace is not None:
        return trace.record(primitive, args, params)
    for arg in args:
        if isinstance(arg, Tracer):
            Trace().atom(arg, primitive.name)  # raises: no trace is active, so this one leaked
    return eager_hook(primitive, args, params)


def trace_to_jaxpr(fun, in_avals, in_tree=None):
    """Trace a function.

    Parameters
    ----------
    fun : callable
    in_avals : sequence of ShapedArray
        One for each leaf of the arguments.
    in_tree : PyTreeDef, optional
        Structure of ``(args, kwargs)``; without it the leaves are the positional arguments.

    Returns
    -------
    Jaxpr, PyTreeDef
        The checked program and the structure of the function's result.
    """
    with new_trace() as trace:
        leaves = [trace.new_arg(aval) for aval in in_avals]
        args, kwargs = tree.unflatten(in_tree, leaves) if in_tree else (leaves, {})
        paths, out_tree = tree.flatten_with_path(fun(*args, **kwargs))
        for path, leaf in paths:
            try:
                aval_of(leaf)
            except DtypeError as error:
                name = getattr(fun, "__name__", repr(fun))
                where = f"result{tree.keystr(path)} of {name}"
                raise DtypeError(f"{where} is not an array: {error}") from None
        return trace.jaxpr([leaf for _, leaf in paths]), out_tree


def make_jaxpr(fun):
    """Return a function that takes example arguments of `fun` and returns its jaxpr.

    Arguments are pytrees of arrays, scalars or ShapedArrays.
    """

    def traced(*args, **kwargs):
        leaves, in_tree = tree.flatten((args, kwargs))
        avals = [a if isinstance(a, ShapedArray) else aval_of(a) for a in leaves]
        return trace_to_jaxpr(fun, avals, in_tree)[0]

    return traced
