"""Forward mode: a function's value and its derivative along tangents, in one run.

A :class:`JVPTracer` carries a value and its tangent. The rule of each primitive computes both with
the enclosing trace. A tangent that is known to be zero is a :class:`Zero`, for which nothing is
computed; values of integers and bools have no other.
"""

from dataclasses import dataclass

import numpy as np
from tilewright.compiler import core
from tilewright.compiler import primitives as p
from tilewright.compiler import trace as tracing
from tilewright.compiler.core import Literal, ShapedArray
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.source import user_source
from tilewright.compiler.trace import Interpreter, Tracer, activate, aval_of, bind, running

#: The dtype of tangents of integers and bools, as in JAX: nothing but a shape.
float0 = np.dtype([("float0", np.void, 0)])


@dataclass(frozen=True)
class Zero:
    """A tangent or cotangent of which every element is zero."""

    aval: ShapedArray


def filled(aval, value):
    """Return an array of a shape and dtype, every element one number."""
    number = Literal(value, aval.update(shape=()))
    if not aval.shape:
        return number
    if not tracing.is_recording():
        return tracing.asarray_hook(np.full(aval.shape, number.value), aval.weak_type)
    return bind(p.broadcast_in_dim_p, number, shape=aval.shape, broadcast_dimensions=())


def instantiate(tangent):
    """Return a tangent as an array; of an integer or bool as NumPy's zeros of dtype float0."""
    if not isinstance(tangent, Zero):
        return tracing.lift(tangent)
    if tangent.aval.dtype not in core.FLOATS:
        return np.zeros(tangent.aval.shape, float0)
    return tracing.lift(filled(tangent.aval, 0))


class JVPTracer(Tracer):
    """A value and its tangent, which is not known to be zero."""

    __slots__ = ("primal", "tangent")

    def __init__(self, trace, primal, tangent):
        super().__init__(trace, user_source())
        self.primal, self.tangent = primal, tangent

    @property
    def aval(self):
        return aval_of(self.primal)

    def known(self):
        return self.primal.known() if isinstance(self.primal, Tracer) else self.primal

    def depends(self):
        return self.primal.depends() if isinstance(self.primal, Tracer) else ""


class JVPTrace(Interpreter):
    """Applies the ``jvp`` rules."""

    def split(self, value):
        """Return a value's primal and tangent."""
        if self.owns(value):
            return value.primal, value.tangent
        return value, Zero(aval_of(value))

    def join(self, primal, tangent):
        """Return the value of a primal and a tangent."""
        return primal if isinstance(tangent, Zero) else JVPTracer(self, primal, tangent)

    def process(self, primitive, args, params):
        if not any(map(self.owns, args)):
            return self.forward(primitive, args, params)
        rule = primitive.rules.get("jvp")
        if rule is None:
            raise UnsupportedError(
                f"{primitive.name} has no derivative (at {user_source()}); use stop_gradient on "
                "its operands, or give one by custom_jvp or custom_vjp"
            )
        primals, tangents = zip(*map(self.split, args), strict=True)
        with activate(self.parent):
            outs, tangents = rule(primals, tangents, **params)
        if primitive.multiple_results:
            return list(map(self.join, outs, tangents))
        return self.join(outs, tangents)

    def process_custom(self, call, args):
        """Apply a function that brings its own derivative (`compiler.custom`)."""
        if not any(map(self.owns, args)):
            with activate(self.parent):
                return tracing.apply_custom(call, args)
        primals, tangents = zip(*map(self.split, args), strict=True)
        with activate(self.parent):
            outs, tangents = call.jvp(primals, tangents)
        return list(map(self.join, outs, tangents))


def as_tangent(tangent, primal, where="tangents"):
    """Return a tangent that fits a primal, which may be an aval.

    **Raises** OperandError: it has another shape or dtype.
    """
    aval = primal if isinstance(primal, ShapedArray) else aval_of(primal)
    if isinstance(tangent, Zero):
        return tangent
    if aval.dtype not in core.FLOATS:
        found = getattr(tangent, "dtype", None)
        if found != float0 or np.shape(tangent) != aval.shape:
            raise OperandError(
                f"{where}: the tangent of {aval} must be zeros of dtype float0 "
                f"(np.zeros(shape, tw.float0)), not {found or type(tangent).__name__} "
                f"(at {user_source()})"
            )
        return Zero(aval)
    found = aval_of(tangent)
    weak = type(tangent) in (int, float)  # a number takes the primal's dtype
    if found.shape != aval.shape or (found.dtype != aval.dtype and not weak):
        raise OperandError(
            f"{where}: a tangent must have its primal's shape and dtype, {aval}, not {found} "
            f"(at {user_source()})"
        )
    if weak and not isinstance(tangent, Tracer):
        tangent = np.asarray(tangent, aval.dtype)
    return tracing.lift(tangent)


def jvp_flat(fun, primals, tangents):
    """Return the results of a function of flat lists, and their tangents (some of them Zero)."""
    with running(JVPTrace()) as trace:
        outs = fun(*map(trace.join, primals, tangents))
        pairs = [trace.split(out) for out in outs]
    return [primal for primal, _ in pairs], [tangent for _, tangent in pairs]
