"""Tracing: run a Python function on tracers, and do with its operations what a trace says.

`bind` is the one gate through which every primitive passes; it hands the operation to the thread's
current trace. A recording :class:`Trace` appends an equation, also when all operands are concrete
(as JAX does), so nothing runs during tracing. The traces of transformations (`compiler.forward`,
`compiler.batching`, `compiler.linear`) compute with the trace that was current when they began,
their `parent`, and pass on to it what does not concern them. Without a trace the operation goes to
`eager_hook`.

Captured values become constants of the jaxpr: a NumPy array by copy, any other object as it is, so
that a device array stays on its device. So do the tracers of enclosing traces; those of traces that
have ended are refused.
"""

import inspect
import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager

import numpy as np
from tilewright.compiler import tree
from tilewright.compiler.core import Eqn, Jaxpr, Literal, ShapedArray, Var, check_jaxpr, eval_jaxpr
from tilewright.compiler.errors import (
    DtypeError,
    OperandError,
    UnsupportedError,
)
from tilewright.compiler.source import attributed, user_source
from tilewright.compiler.tracer import (
    Tracer,
    aval_of,
    concrete,
    is_device_array,
    leaked,
    narrow,
)


class RecordedTracer(Tracer):
    """The value of a variable of the jaxpr that is being recorded."""

    __slots__ = ("variable",)

    def __init__(self, trace, var, source):
        self.owner, self.variable, self.source = trace, var, source

    @property
    def aval(self):
        return self.variable.aval

    def depends(self):
        return " and ".join(self.owner.arguments(self.variable))

    def __repr__(self):
        return f"Tracer<{self.aval}>"


class Interpreter(ABC):
    """What happens to operations while it is a thread's current trace.

    `parent` is the trace that was current before, or None: operations run at once. `records_all`
    tells that operations on concrete values are recorded too.
    """

    records_all = False

    def __init__(self):
        self.parent = current_trace()
        self.live = True

    @abstractmethod
    def process(self, primitive, args, params):
        """Apply a primitive; return its result, or the list of its results."""

    def owns(self, value):
        """Tell whether a value is one of this trace's tracers."""
        return isinstance(value, Tracer) and value.owner is self

    def forward(self, primitive, args, params):
        """Let the enclosing trace apply a primitive."""
        with activate(self.parent):
            return bind(primitive, *args, **params)

    def lift(self, value):
        """Return a concrete value as an array of the enclosing trace."""
        with activate(self.parent):
            return lift(value)


class Trace(Interpreter):
    """The recording of one function: its equations and captured constants so far."""

    records_all = True
    called = None  # (function, structure of its (args, kwargs)), for messages

    def __init__(self):
        super().__init__()
        self.eqns, self.invars = [], []
        self.consts = {}  # id(captured) -> (captured, constvar, value); keeps the id valid

    def new_arg(self, aval):
        """Return the tracer of a new input."""
        var = Var(aval)
        self.invars.append(var)
        return RecordedTracer(self, var, user_source())

    def atom(self, value, op):
        """Return the Var or Literal that stands for a value in this jaxpr."""
        if isinstance(value, Tracer):
            if value.owner is self and self.live:
                return value.variable
            if not value.owner.live:
                raise leaked(value, op)
        elif isinstance(value, Literal):
            return value
        aval = aval_of(value)
        if not (aval.shape or isinstance(value, Tracer) or is_device_array(value)):
            return Literal(narrow(value, aval), aval)
        if id(value) not in self.consts:
            captured = value if isinstance(value, Tracer) else _captured(value, aval)
            self.consts[id(value)] = (value, Var(aval), captured)
        return self.consts[id(value)][1]

    def arguments(self, variable):
        """Return the arguments on which a variable depends, as text."""
        needed = {id(variable)}
        for eqn in reversed(self.eqns):
            if any(id(out) in needed for out in eqn.outputs):
                needed.update(map(id, eqn.inputs))
        names = _argument_names(*self.called) if self.called else [""] * len(self.invars)
        found = [n for n, var in zip(names, self.invars, strict=True) if id(var) in needed]
        closed_over = [value.depends() for _, var, value in self.consts.values()
                       if id(var) in needed and isinstance(value, Tracer)]  # fmt: skip
        return [n for n in dict.fromkeys((*found, *closed_over)) if n]

    def process(self, primitive, args, params):
        return self.record(primitive, args, params)

    def record(self, primitive, args, params):
        """Append an equation and return the tracer of its result, or of all its results."""
        source = user_source()
        atoms = tuple(self.atom(a, primitive.name) for a in args)
        avals = abstract(primitive, [a.aval for a in atoms], params, source)
        outs = tuple(map(Var, avals if primitive.multiple_results else (avals,)))
        self.eqns.append(Eqn(primitive, atoms, outs, params, source))
        results = [RecordedTracer(self, out, source) for out in outs]
        return results if primitive.multiple_results else results[0]

    def lift(self, value):
        """Return a concrete value as a tracer."""
        return RecordedTracer(self, self.atom(value, "asarray"), user_source())

    def jaxpr(self, outs):
        """Return the checked jaxpr whose results are the values `outs`."""
        outvars = [self.atom(o, "the result") for o in outs]
        constvars = [var for _, var, _ in self.consts.values()]
        consts = [value for _, _, value in self.consts.values()]
        return check_jaxpr(Jaxpr(self.invars, constvars, consts, self.eqns, outvars))


class _Current(threading.local):
    trace: Interpreter | None = None


_thread = _Current()


def current_trace():
    """Return this thread's current trace, or None: operations run at once."""
    return _thread.trace


class activate:
    """A block within which a trace (or None) is this thread's current one."""

    __slots__ = ("previous", "trace")

    def __init__(self, trace):
        self.trace = trace

    def __enter__(self):
        self.previous, _thread.trace = _thread.trace, self.trace
        return self.trace

    def __exit__(self, *_error):
        _thread.trace = self.previous


@contextmanager
def running(trace):
    """Make a new trace current for the block; its tracers are dead afterwards."""
    try:
        with activate(trace):
            yield trace
    finally:
        trace.live = False


def new_trace():
    """Record the block's operations: ``with new_trace() as trace``."""
    return running(Trace())


def is_recording():
    """Tell whether operations on concrete values are being recorded now, not run."""
    trace = _thread.trace
    while trace is not None and not trace.records_all:
        trace = trace.parent
    return trace is not None


def _argument_names(fun, in_tree):
    """Return what each leaf of the arguments of a function is called there."""
    name = getattr(fun, "__name__", repr(fun))
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # a function of C
        parameters = []
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    found, leaves = [], tree.unflatten(in_tree, range(in_tree.num_leaves))
    for path, _ in tree.flatten_with_path(leaves)[0]:
        which = path[1].strip("[]'")
        if path[0] == "[0]":
            which = known[int(which)] if int(which) < len(known) else which
        found.append(f"argument {which}{tree.keystr(path[2:])} of {name}")
    return found


def _captured(value, aval):
    """Return what the jaxpr keeps of a captured array: a read-only copy, or the device array."""
    if is_device_array(value) and getattr(value, "dtype", None) == aval.dtype:
        return value
    kept = np.array(narrow(value, aval))
    kept.setflags(write=False)
    return kept


def abstract(primitive, avals, params, source):
    """Return the aval of a primitive's result, or the list of its results' avals.

    An error names operation, types and source line.
    """
    try:
        return primitive.abstract(*avals, **params)
    except (OperandError, DtypeError, UnsupportedError) as error:
        types = ", ".join(map(str, avals))
        raise type(error)(f"{primitive.name}({types}): {error} (at {source})") from None


def primitive_jaxpr(primitive, in_avals, params):
    """Return the jaxpr of one equation: what an eager operation compiles."""
    source = user_source()
    invars = [Var(a) for a in in_avals]
    avals = abstract(primitive, in_avals, params, source)
    outs = list(map(Var, avals if primitive.multiple_results else (avals,)))
    return Jaxpr(invars, (), (), [Eqn(primitive, invars, outs, params, source)], outs)


def eval_eagerly(primitive, args, params):
    """The default `eager_hook`: compute with NumPy and return an ndarray (or the list of them)."""
    jaxpr = primitive_jaxpr(primitive, [aval_of(a) for a in args], params)
    results = eval_jaxpr(jaxpr, [concrete(a) for a in args])
    return results if primitive.multiple_results else results[0]


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
    """Return a concrete value as an array: a tracer within a recording, else what the hook makes.

    Tracers and device arrays stay as they are.
    """
    if isinstance(value, Tracer):
        return value
    if _thread.trace is not None:
        return _thread.trace.lift(value)
    if is_device_array(value):
        return value
    return asarray_hook(concrete(value), aval_of(value).weak_type)


def bind(primitive, *args, **params):
    """Apply a primitive to values, as the current trace does it, or run it at once.

    Returns its result; of a primitive of several results, the list of them.
    """
    trace = _thread.trace
    if trace is not None:
        return trace.process(primitive, args, params)
    for arg in args:
        if isinstance(arg, Tracer):
            raise leaked(arg, primitive.name)
    return eager_hook(primitive, args, params)


def apply_custom(call, args):
    """Apply a function that brings its own derivative (`compiler.custom`) to flat arguments."""
    handler = getattr(_thread.trace, "process_custom", None)
    return call(*args) if handler is None else handler(call, args)


def inline(jaxpr, args, consts=None):
    """Apply the equations of a jaxpr to values, one by one; return the list of its results.

    `consts` replace the jaxpr's own.
    """
    values = dict(zip(map(id, jaxpr.invars), args, strict=True))
    consts = jaxpr.consts if consts is None else consts
    values |= dict(zip(map(id, jaxpr.constvars), consts, strict=True))

    def read(atom):
        return atom if isinstance(atom, Literal) else values[id(atom)]

    for eqn in jaxpr.eqns:
        with attributed(eqn.source):
            results = bind(eqn.primitive, *map(read, eqn.inputs), **eqn.params)
        results = results if eqn.primitive.multiple_results else (results,)
        values |= dict(zip(map(id, eqn.outputs), results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


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
        trace.called = (fun, in_tree) if in_tree else None
        leaves = [trace.new_arg(aval) for aval in in_avals]
        args, kwargs = tree.unflatten(in_tree, leaves) if in_tree else (leaves, {})
        outs, out_tree = result_leaves(fun, fun(*args, **kwargs))
        return trace.jaxpr(outs), out_tree


def result_leaves(fun, result):
    """Return ``(leaves, structure)`` of a function's result.

    **Raises** DtypeError: a leaf is not an array; it names the function and the leaf.
    """
    paths, out_tree = tree.flatten_with_path(result)
    for path, leaf in paths:
        try:
            aval_of(leaf)
        except DtypeError as error:
            name = getattr(fun, "__name__", repr(fun))
            where = f"result{tree.keystr(path)} of {name}"
            raise DtypeError(f"{where} is not an array: {error}") from None
    return [leaf for _, leaf in paths], out_tree


def make_jaxpr(fun):
    """Return a function that takes example arguments of `fun` and returns its jaxpr.

    Arguments are pytrees of arrays, scalars or ShapedArrays.
    """

    def traced(*args, **kwargs):
        leaves, in_tree = tree.flatten((args, kwargs))
        avals = [a if isinstance(a, ShapedArray) else aval_of(a) for a in leaves]
        return trace_to_jaxpr(fun, avals, in_tree)[0]

    return traced
