"""Derivatives, with JAX's names: `grad`, `vjp`, `jvp`, `linearize` and their relatives.

They run the function as it is, Python control flow on concrete values and all, and compose with
each other, with `vmap` and with `jit` in any order. Arguments and results are pytrees.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.compiler import core, forward, linear, rules, trace, tree
from tilewright.compiler.errors import DtypeError, OperandError
from tilewright.compiler.forward import as_tangent, float0, instantiate
from tilewright.compiler.source import user_source
from tilewright.hooks import install

install()
rules.load()


def lifted_leaves(name: str, value: Any) -> tuple[list[Any], tree.PyTreeDef]:
    """Return the leaves of an argument, numbers and NumPy's as arrays, and its structure."""
    paths, treedef = tree.flatten_with_path(value)
    leaves = []
    for path, leaf in paths:
        try:
            trace.aval_of(leaf)
        except DtypeError as error:
            where = f"{name}: argument {tree.keystr(path)}".rstrip()
            raise DtypeError(f"{where}: {error} (at {user_source()})") from None
        leaves.append(trace.lift(leaf))
    return leaves, treedef


class FlatFunction:
    """A function of flat lists from one of pytrees; `out_tree` and `aux` are those of its last run.

    With `has_aux` the function returns (result, aux), and aux is kept aside.
    """

    def __init__(self, fun: Callable[..., Any], in_tree: tree.PyTreeDef, has_aux: bool = False):
        self.fun, self.in_tree, self.has_aux = fun, in_tree, has_aux
        self.out_tree: Any = None
        self.aux: Any = None

    def __call__(self, *leaves: Any) -> list[Any]:
        result = self.fun(*tree.unflatten(self.in_tree, leaves))
        if self.has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                name = getattr(self.fun, "__name__", repr(self.fun))
                raise TypeError(
                    f"with has_aux=True, {name} must return a pair (result, aux), not "
                    f"{type(result).__name__} (at {user_source()})"
                )
            result, aux = result
            inside = trace.current_trace()
            self.aux = tree.map(lambda x: x.primal if inside.owns(x) else x, aux)
        outs, self.out_tree = trace.result_leaves(self.fun, result)
        return list(map(trace.lift, outs))

    def result(self, outs: Sequence[Any]) -> Any:
        """Return flat results as the function's pytree."""
        return tree.unflatten(self.out_tree, outs)


def _matching(name: str, what: str, value: Any, treedef: tree.PyTreeDef) -> list[Any]:
    leaves, found = tree.flatten(value)
    if found != treedef:
        raise OperandError(
            f"{name}: {what} must have the structure {treedef}, not {found} (at {user_source()})"
        )
    return leaves


def _checked(what: str, values: Sequence[Any], likes: Sequence[Any]) -> list[Any]:
    """Tangents that fit values or avals; zeros of integers as Zero."""
    return [as_tangent(v, like, what) for v, like in zip(values, likes, strict=True)]


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> Any:
    """Return a function's result and its derivative along tangents.

    Parameters
    ----------
    primals, tangents : tuples or lists of pytrees, one for each positional argument. A tangent has
        its primal's shapes and dtypes; that of an integer is zeros of dtype `tw.float0`.
    has_aux : the function returns (result, aux).

    Returns
    -------
    (result, tangent of the result), and aux as a third one.
    """
    for what, value in (("primals", primals), ("tangents", tangents)):
        if not isinstance(value, tuple | list):
            raise OperandError(
                f"jvp: {what} must be a tuple or a list, not {type(value).__name__} "
                f"(at {user_source()})"
            )
    leaves, in_tree = lifted_leaves("jvp", tuple(primals))
    given = _matching("jvp", "tangents", tuple(tangents), in_tree)
    flat = FlatFunction(fun, in_tree, has_aux)
    outs, out_tangents = forward.jvp_flat(flat, leaves, _checked("jvp: tangents", given, leaves))
    result = flat.result(outs), flat.result(list(map(instantiate, out_tangents)))
    return (*result, flat.aux) if has_aux else result


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return a function's result and, as a function of tangents, its derivative there.

    The function runs once; what the derivative needs of it is kept. With `has_aux`, which says that
    the function returns (result, aux), aux is returned too.
    """
    leaves, in_tree = lifted_leaves("linearize", primals)
    flat = FlatFunction(fun, in_tree, has_aux)
    outs, derivative = linear.linearize_flat(flat, leaves)
    out_tree, avals = flat.out_tree, derivative.in_avals

    def apply(*tangents: Any) -> Any:
        given = _matching("linearize", "tangents", tangents, in_tree)
        found = derivative.apply(_checked("linearize: tangents", given, avals))
        return tree.unflatten(out_tree, list(map(instantiate, found)))

    result = flat.result(outs), apply
    return (*result, flat.aux) if has_aux else result


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """Return a function's result and a function from its cotangents to those of the arguments.

    The latter takes one pytree like the result and returns a tuple with an entry for each of
    `primals`. With `has_aux`, which says that the function returns (result, aux), aux is returned
    as a third one.
    """
    leaves, in_tree = lifted_leaves("vjp", primals)
    flat = FlatFunction(fun, in_tree, has_aux)
    outs, derivative = linear.linearize_flat(flat, leaves)
    out_tree = flat.out_tree

    def pullback(cotangents: Any) -> Any:
        given = _matching("vjp", "the cotangent", cotangents, out_tree)
        cts = _checked("vjp: the cotangent", given, derivative.out_avals)
        return tree.unflatten(in_tree, list(map(instantiate, derivative.transpose(cts))))

    result = flat.result(outs), pullback
    return (*result, flat.aux) if has_aux else result


def linear_transpose(fun: Callable[..., Any], *primals: Any) -> Callable[[Any], Any]:
    """Return the transpose of a linear function: from cotangents of its result to its arguments'.

    Parameters
    ----------
    primals : arrays or ShapeDtypeStructs, of floats; only their shapes and dtypes matter.

    Raises
    ------
    UnsupportedError
        An operation is not linear.
    """
    leaves, in_tree = tree.flatten(primals)
    avals = [x if isinstance(x, core.ShapedArray) else trace.aval_of(x) for x in leaves]
    for aval in avals:
        if aval.dtype not in core.FLOATS:
            raise DtypeError(
                f"linear_transpose: arguments must be of a float dtype, not {aval} "
                f"(at {user_source()})"
            )
    flat = FlatFunction(fun, in_tree)
    recorded = linear.record_linear(flat, avals)
    out_tree = flat.out_tree

    def transposed(cotangents: Any) -> Any:
        given = _matching("linear_transpose", "the cotangent", cotangents, out_tree)
        cts = _checked("linear_transpose: the cotangent", given, recorded.out_avals)
        return tree.unflatten(in_tree, list(map(instantiate, recorded.transpose(cts))))

    return transposed


def positions(name: str, argnums: Any, count: int) -> tuple[int, ...]:
    """Return argnums as non-negative positions among `count` arguments."""
    try:
        given = (operator.index(argnums),) if not hasattr(argnums, "__len__") else tuple(argnums)
        wanted = [operator.index(i) for i in given]
    except TypeError:
        raise TypeError(
            f"{name}: argnums must be an int or a sequence of ints, not {argnums!r}"
        ) from None
    for i in wanted:
        if not -count <= i < count:
            raise ValueError(
                f"{name}: argnums must be in [{-count}, {count}) for {count} positional arguments, "
                f"not {i} (at {user_source()})"
            )
    return tuple(i % count for i in wanted)


def of_arguments(
    name: str, fun: Callable[..., Any], argnums: Any, args: Sequence[Any], kwargs: Any
) -> tuple[Callable[..., Any], list[Any]]:
    """Return the function of the arguments at argnums alone, and those arguments."""
    places = positions(name, argnums, len(args))

    def partial(*chosen: Any) -> Any:
        full = list(args)
        for i, value in zip(places, chosen, strict=True):
            full[i] = value
        return fun(*full, **kwargs)

    functools.update_wrapper(partial, fun)
    return partial, [args[i] for i in places]


def check_real(name: str, what: str, leaves: Sequence[Any]) -> None:
    """Check that arrays are of float dtypes.

    **Raises** DtypeError.
    """
    for leaf in leaves:
        dtype = trace.aval_of(leaf).dtype
        if dtype not in core.FLOATS:
            hint = ""
            if what == "inputs":
                hint = "; use vjp, or allow_int=True, to differentiate a function of integers"
            raise DtypeError(
                f"{name} requires real-valued {what} (float32 or bfloat16), not {dtype}{hint} "
                f"(at {user_source()})"
            )


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """Return a function that returns ``(fun's value, its gradient)``.

    Parameters
    ----------
    fun : a function whose result is a scalar of a float dtype.
    argnums : which positional arguments to differentiate by: an int gives the gradient as a pytree
        like that argument, a sequence gives a tuple of them.
    has_aux : the function returns (value, aux); so does the new one: ((value, aux), gradient).
    allow_int : gradients by integers are zeros of dtype `tw.float0`, not errors.

    Raises
    ------
    DtypeError
        An input or the result is not of a float dtype.
    OperandError
        The result is not a scalar.
    """

    @functools.wraps(fun)
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        partial, chosen = of_arguments("grad", fun, argnums, args, kwargs)
        leaves, in_tree = lifted_leaves("grad", tuple(chosen))
        if not allow_int:
            check_real("grad", "inputs", leaves)
        flat = FlatFunction(partial, in_tree, has_aux)
        outs, derivative = linear.linearize_flat(flat, leaves)
        value = flat.result(outs)
        if len(outs) != 1 or flat.out_tree.node is not None:
            raise OperandError(
                f"grad needs a function whose result is a scalar, not the pytree {flat.out_tree} "
                f"(at {user_source()})"
            )
        aval = derivative.out_avals[0]
        if aval.shape:
            raise OperandError(
                f"grad needs a function whose result is a scalar, not of shape {aval.shape}; use "
                f"jacrev or vjp (at {user_source()})"
            )
        check_real("grad", "outputs", outs)
        cts = derivative.transpose([forward.filled(aval, 1)])
        grads = tree.unflatten(in_tree, list(map(instantiate, cts)))
        gradient = grads[0] if not hasattr(argnums, "__len__") else grads
        return ((value, flat.aux) if has_aux else value), gradient

    return differentiated


def grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """Return the gradient function of a scalar function; parameters and errors of `value_and_grad`.

    With `has_aux` it returns (gradient, aux).
    """
    with_value = value_and_grad(fun, argnums, has_aux, allow_int)

    @functools.wraps(fun)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = with_value(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


__all__ = ["float0", "grad", "jvp", "linear_transpose", "linearize", "value_and_grad", "vjp"]
