"""One operation on concrete arrays: a program of one equation, compiled once per operand types.

Numbers become literals of the equation, so that STORE's epilogue can take them.
"""

from __future__ import annotations

from typing import Any

from tilewright.array import Array, put_leaf
from tilewright.compiled import Compiled, lower_jaxpr
from tilewright.compiler import ops, trace
from tilewright.compiler.control import jit_p
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Params, Var, structure
from tilewright.compiler.primitives_debug import debug_callback_p
from tilewright.compiler.source import user_source
from tilewright.device import Device, current_device
from tilewright.jitted import Jitted

_programs: dict[Any, Compiled] = {}
_operators: dict[Any, Jitted] = {}


def _operand(value: Any) -> Any:
    """A Literal for a number, else the value."""
    if isinstance(value, Literal):
        return value
    if type(value) in (bool, int, float):
        return Literal(trace.concrete(value), trace.aval_of(value))
    return value


def _device(args: Any) -> Device:
    return next((a.device for a in args if isinstance(a, Array)), None) or current_device()


def apply(primitive: Any, args: Any, params: dict[str, Any]) -> Any:
    """Run a primitive on the chip; return its result, or the list of its results.

    **Raises** UnsupportedError: the chip cannot do it.
    """
    source = user_source()
    operands = [_operand(a) for a in args]
    avals = [trace.aval_of(a) for a in operands]
    if primitive is debug_callback_p:
        return primitive.impl(*map(trace.concrete, args), **params)
    out = trace.abstract(primitive, avals, params, source)
    if primitive.name == "reshape" and isinstance(operands[0], Array):
        return operands[0].view_with(out)
    device = _device(operands)
    typed = list(zip(operands, avals, strict=True))
    kinds = tuple(o.key if isinstance(o, Literal) else a for o, a in typed)
    known = params["jaxpr"].memo if primitive is jit_p else _programs
    key = primitive, kinds, structure(params), device.config
    compiled = known.get(key)
    if compiled is None:
        atoms = tuple(o if isinstance(o, Literal) else Var(a) for o, a in typed)
        invars = tuple(a for a in atoms if isinstance(a, Var))
        results = tuple(map(Var, out if primitive.multiple_results else (out,)))
        eqn = Eqn(primitive, atoms, results, Params(params), source)
        jaxpr = Jaxpr(invars, (), (), (eqn,), results)
        compiled = lower_jaxpr(jaxpr, primitive.name, device.config).compile()
        known[key] = compiled
    leaves = [put_leaf(o, device) for o in operands if not isinstance(o, Literal)]
    found = compiled.execute(leaves, device, source)
    return found if primitive.multiple_results else found[0]


def operate(name: str, *args: Any) -> Any:
    """Run a NumPy function (promotion, broadcasting and all) as one program.

    Numbers and strings are static.
    """
    function = getattr(ops, name)
    if trace.current_trace() is not None:
        return function(*args)
    static = tuple(i for i, a in enumerate(args) if type(a) in (bool, int, float, str))
    if (name, static) not in _operators:
        _operators[name, static] = Jitted(function, static_argnums=static)
    return _operators[name, static](*args)
