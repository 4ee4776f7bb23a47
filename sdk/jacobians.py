"""Jacobians and Hessians: a function's linear map, of every unit vector at once by `vmap`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tilewright.autodiff import FlatFunction, check_real, lifted_leaves, of_arguments
from tilewright.compiler import linear, rules, trace, tree
from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.core import ShapedArray
from tilewright.compiler.forward import instantiate


def _unit_vectors(avals: Sequence[ShapedArray]) -> list[np.ndarray]:
    """All unit vectors of the space of these arrays, as one array (count, *shape) for each."""
    count = sum(a.size for a in avals)
    parts, start = [], 0
    for aval in avals:
        part = np.zeros((count, aval.size), aval.dtype)
        part[np.arange(start, start + aval.size), np.arange(aval.size)] = 1
        parts.append(part.reshape(count, *aval.shape))
        start += aval.size
    return parts


def _blocks(apply: Any, basis: Sequence[Any], cut: Sequence[ShapedArray]) -> list[list[Any]]:
    """A linear map of all unit vectors: for each result, the rows of each of the arrays `cut`."""
    count = len(basis[0]) if basis else 0
    values, dims = vmap_flat(lambda *v: list(map(instantiate, apply(v))), count, basis,
                             [0] * len(basis))  # fmt: skip
    table = []
    for value, dim in zip(values, dims, strict=True):
        rows, start, parts = batched_at(value, dim, count), 0, []
        for aval in cut:
            parts.append(rows if aval.size == count else _rows(rows, start, aval.size))
            start += aval.size
        table.append(parts)
    return table


def _rows(x: Any, start: int, count: int) -> Any:
    shape = trace.aval_of(x).shape
    return trace.bind(
        rules.p.slice_p, x, start_indices=(start, *(0 for _ in shape[1:])),
        limit_indices=(start + count, *shape[1:]),
    )  # fmt: skip


def _block(rows: Any, first: ShapedArray, second: ShapedArray, transposed: bool) -> Any:
    """Rows of unit vectors as the derivative, of shape (*first, *second)."""
    if not transposed:  # (first, *second)
        return rules.reshape(rows, (*first.shape, *second.shape))
    rank = first.ndim  # (second, *first)
    moved = rules.transpose(rows, (*range(1, rank + 1), 0))
    return rules.reshape(moved, (*first.shape, *second.shape))


def _jacobian(
    name: str, fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, forward: bool
) -> Callable[..., Any]:
    @functools.wraps(fun)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        partial, chosen = of_arguments(name, fun, argnums, args, kwargs)
        leaves, in_tree = lifted_leaves(name, tuple(chosen))
        check_real(name, "inputs", leaves)
        flat = FlatFunction(partial, in_tree, has_aux)
        outs, derivative = linear.linearize_flat(flat, leaves)
        check_real(name, "outputs", outs)
        ins, results = derivative.in_avals, derivative.out_avals
        if forward:
            table = _blocks(derivative.apply, _unit_vectors(ins), ins)
            rows = [[_block(x, out, aval, True) for x, aval in zip(parts, ins, strict=True)]
                    for parts, out in zip(table, results, strict=True)]  # fmt: skip
        else:
            table = _blocks(derivative.transpose, _unit_vectors(results), results)
            rows = [[_block(parts[i], out, aval, False)
                     for parts, aval in zip(table, ins, strict=True)]
                    for i, out in enumerate(results)]  # fmt: skip
        single = not hasattr(argnums, "__len__")
        trees = []
        for row in rows:
            found = tree.unflatten(in_tree, row)
            trees.append(found[0] if single else found)
        result = flat.result(trees)
        return (result, flat.aux) if has_aux else result

    return jacobian


def jacfwd(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the Jacobian function of `fun`, in forward mode: cheap for few inputs.

    Parameters
    ----------
    argnums : which positional arguments to differentiate by, as in `grad`.
    has_aux : the function returns (result, aux); the Jacobian function (Jacobian, aux).

    Returns
    -------
    A function whose result is a pytree like that of `fun`, each leaf of shape s replaced by a
    pytree like the argument, whose leaves of shape t become arrays of shape ``s + t``.

    Raises
    ------
    DtypeError
        An input or the result is not of a float dtype.
    """
    return _jacobian("jacfwd", fun, argnums, has_aux, True)


def jacrev(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the Jacobian function of `fun`, in reverse mode (few results); see `jacfwd`."""
    return _jacobian("jacrev", fun, argnums, has_aux, False)


def hessian(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """Return the function of second derivatives of `fun`, forward over reverse; see `jacfwd`."""
    return jacfwd(jacrev(fun, argnums, has_aux), argnums, has_aux)


jacobian = jacrev

__all__ = ["hessian", "jacfwd", "jacobian", "jacrev"]
