"""Functions with a derivative of their own: `custom_jvp`, `custom_vjp`, `stop_gradient`."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.autodiff import FlatFunction, lifted_leaves
from tilewright.compiler import core, trace, tree
from tilewright.compiler.custom import CustomJVP, CustomVJP, Stop
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.forward import Zero, as_tangent, instantiate
from tilewright.compiler.primitives_barrier import optimization_barrier_p
from tilewright.compiler.recompute import Checkpoint
from tilewright.compiler.source import user_source
from tilewright.jitted import Jitted


def _positional(fun: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, ...]:
    """All arguments by position, defaults filled in."""
    try:
        bound = inspect.signature(fun).bind(*args, **kwargs)
    except ValueError:  # a builtin has no signature
        return args
    bound.apply_defaults()
    if bound.kwargs:
        names = ", ".join(bound.kwargs)
        raise TypeError(
            f"{_name(fun)}: arguments of a function with a custom derivative must be positional, "
            f"not keyword-only: {names} (at {user_source()})"
        )
    return bound.args


def _name(fun: Callable[..., Any]) -> str:
    return getattr(fun, "__name__", repr(fun))


class _Custom(ABC):
    """What both kinds share: which arguments are Python values, and the rest as flat leaves."""

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()):
        self.fun = fun
        functools.update_wrapper(self, fun, updated=())  # type: ignore[arg-type]
        self.nondiff = tuple(nondiff_argnums)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function, with its derivative where one is wanted."""

    def _split(self, args: tuple[Any, ...]) -> tuple[list[Any], list[Any], tree.PyTreeDef]:
        """(Python values, leaves of the others, structure of the others)."""
        places = {i % len(args) for i in self.nondiff}
        fixed = [args[i] for i in sorted(places)]
        dynamic = tuple(a for i, a in enumerate(args) if i not in places)
        leaves, in_tree = lifted_leaves(_name(self.fun), dynamic)
        return fixed, leaves, in_tree

    def _merged(self, fun: Callable[..., Any], fixed: list[Any], count: int) -> Callable[..., Any]:
        """A function of all arguments as one of those that are no Python values."""
        places = {i % count for i in self.nondiff}

        def merged(*dynamic: Any) -> Any:
            first, rest = iter(fixed), iter(dynamic)
            return fun(*(next(first) if i in places else next(rest) for i in range(count)))

        functools.update_wrapper(merged, fun)
        return merged

    def _matched(self, what: str, value: Any, wanted: tree.PyTreeDef) -> list[Any]:
        leaves, found = tree.flatten(value)
        if found != wanted:
            raise OperandError(
                f"{_name(self.fun)}: {what} must have the structure {wanted}, not {found} "
                f"(at {user_source()})"
            )
        return leaves


class custom_jvp(_Custom):
    """A function whose derivative in forward mode (and, transposed, in reverse mode) is given.

    ::

        @tw.custom_jvp
        def f(x, y): ...

        @f.defjvp
        def f_jvp(primals, tangents):
            return f(*primals), tangent_of_the_result

    Parameters
    ----------
    nondiff_argnums : positions of arguments that are Python values; the rule gets them first.
    """

    rule: Callable[..., Any] | None = None

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Set the rule ``(*nondiff, primals, tangents) -> (result, its tangent)``; a decorator."""
        self.rule = rule
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Set the rule by one ``(tangent, result, *primals) -> tangent`` per argument, or None."""

        def rule(primals: Any, tangents: Any) -> Any:
            out = self(*primals)
            parts = [f(t, out, *primals) for f, t in zip(rules, tangents, strict=True) if f]
            total = parts[0] if parts else tree.map(lambda x: x * 0, out)
            for part in parts[1:]:
                total = tree.map(lambda a, b: a + b, total, part)
            return out, total

        self.rule = rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.rule is None:
            raise AttributeError(f"{_name(self.fun)} has a custom_jvp without a rule: call defjvp")
        args = _positional(self.fun, args, kwargs)
        fixed, leaves, in_tree = self._split(args)
        flat = FlatFunction(self._merged(self.fun, fixed, len(args)), in_tree)
        rule = self.rule

        def flat_rule(primals: Any, tangents: Any) -> Any:
            value = tree.unflatten(in_tree, primals)
            given = tree.unflatten(in_tree, list(map(instantiate, tangents)))
            outs, out_tangents = rule(*fixed, value, given)
            found, flat.out_tree = trace.result_leaves(self.fun, outs)
            outs = list(map(trace.lift, found))
            pieces = self._matched("the tangent of the result", out_tangents, flat.out_tree)
            where = f"{_name(self.fun)}: the rule's result"
            return outs, [_own_tangent(t, out, where) for t, out in zip(pieces, outs, strict=True)]

        return flat.result(trace.apply_custom(CustomJVP(flat, flat_rule), leaves))


def _own_tangent(tangent: Any, out: Any, where: str) -> Any:
    aval = trace.aval_of(out)
    return as_tangent(tangent, out, where) if aval.dtype in core.FLOATS else Zero(aval)


class custom_vjp(_Custom):
    """A function whose derivative in reverse mode is given; forward mode refuses it.

    ::

        @tw.custom_vjp
        def f(x, y): ...

        def f_fwd(x, y):
            return f(x, y), residuals

        def f_bwd(residuals, cotangent):
            return cotangent_of_x, cotangent_of_y

        f.defvjp(f_fwd, f_bwd)

    Parameters
    ----------
    nondiff_argnums : positions of arguments that are Python values; `bwd` gets them first.
    """

    forward: Callable[..., Any] | None = None
    backward: Callable[..., Any] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Set ``fwd(*args) -> (result, residuals)`` and ``bwd(*nondiff, residuals, ct) -> cts``.

        bwd returns a tuple, one cotangent for each argument; None stands for zeros.
        """
        self.forward, self.backward = fwd, bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.forward is None or self.backward is None:
            raise AttributeError(f"{_name(self.fun)} has a custom_vjp without rules: call defvjp")
        args = _positional(self.fun, args, kwargs)
        fixed, leaves, in_tree = self._split(args)
        avals = [trace.aval_of(x) for x in leaves]
        flat = FlatFunction(self._merged(self.fun, fixed, len(args)), in_tree)
        fwd, bwd = self._merged(self.forward, fixed, len(args)), self.backward
        residual_tree: Any = None

        def forward(*primals: Any) -> Any:
            nonlocal residual_tree
            pair = fwd(*tree.unflatten(in_tree, primals))
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise TypeError(
                    f"the fwd of {_name(self.fun)} must return (result, residuals), not "
                    f"{type(pair).__name__} (at {user_source()})"
                )
            found, flat.out_tree = trace.result_leaves(self.fun, pair[0])
            residuals, residual_tree = trace.result_leaves(fwd, pair[1])
            return list(map(trace.lift, found)), list(map(trace.lift, residuals))

        def backward(residuals: Any, cts: Any) -> Any:
            ct = tree.unflatten(flat.out_tree, list(map(instantiate, cts)))
            found = bwd(*fixed, tree.unflatten(residual_tree, residuals), ct)
            return self._cotangents(found, in_tree, avals)

        return flat.result(trace.apply_custom(CustomVJP(flat, forward, backward), leaves))

    def _cotangents(self, found: Any, in_tree: tree.PyTreeDef, avals: Sequence[Any]) -> list[Any]:
        """The flat cotangents of the arguments that bwd returned."""
        where = f"the bwd of {_name(self.fun)}"
        count = len(in_tree.children)
        if not isinstance(found, tuple | list) or len(found) != count:
            raise OperandError(
                f"{where} must return a tuple of {count} cotangents, not {found!r} "
                f"(at {user_source()})"
            )
        cts: list[Any] = []
        for value, child in zip(found, in_tree.children, strict=True):
            some = avals[len(cts) : len(cts) + child.num_leaves]
            if value is None:
                cts += map(Zero, some)
                continue
            leaves = self._matched("a cotangent of bwd", value, child)
            cts += [
                as_tangent(leaf, aval, where) if aval.dtype in core.FLOATS else Zero(aval)
                for leaf, aval in zip(leaves, some, strict=True)
            ]
        return cts


def stop_gradient(x: Any) -> Any:
    """Return a pytree as it is, but as a constant to every derivative."""
    leaves, treedef = tree.flatten(x)
    return tree.unflatten(treedef, trace.apply_custom(Stop(), leaves))


def optimization_barrier(operand: Any) -> Any:
    """Return a pytree of arrays as it is; what is computed from it is computed anew.

    Equal operations on its two sides are not taken for one.
    """
    leaves, treedef = tree.flatten(operand)
    return tree.unflatten(
        treedef, [trace.bind(optimization_barrier_p, trace.lift(x)) for x in leaves]
    )


def checkpoint(
    fun: Callable[..., Any],
    *,
    prevent_cse: bool = True,
    policy: None = None,
    static_argnums: int | Sequence[int] = (),
) -> Callable[..., Any]:
    """Return a function with the values and derivatives of `fun`, which keeps less for them.

    Of its values only the arguments stay in memory between the forward and the backward pass; the
    others are computed again there.

    Parameters
    ----------
    prevent_cse : False lets the compiler find the values of the forward pass instead: then nothing
        is computed again, and nothing saved.
    policy : None; what is kept cannot be chosen.
    static_argnums : arguments that are Python values.

    **Raises** UnsupportedError: a policy.
    """
    if policy is not None:
        raise UnsupportedError(
            f"checkpoint keeps the arguments alone: its policy must be None, not {policy!r}"
        )
    held = Jitted(fun, static_argnums=static_argnums)

    @functools.wraps(fun)
    def recomputing(*args: Any, **kwargs: Any) -> Any:
        if not prevent_cse or trace.current_trace() is None:
            return fun(*args, **kwargs)
        program, operands, out_tree = held.program_of(args, kwargs)
        return tree.unflatten(out_tree, trace.apply_custom(Checkpoint(program), operands))

    return recomputing


remat = checkpoint

__all__ = [
    "checkpoint", "custom_jvp", "custom_vjp", "optimization_barrier", "remat", "stop_gradient",
]  # fmt: skip
