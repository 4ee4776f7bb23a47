"""`vmap`: from a function of one example to a function of a batch, with JAX's arguments."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from tilewright.autodiff import FlatFunction, lifted_leaves
from tilewright.compiler import trace, tree
from tilewright.compiler.batching import batched_at, vmap_flat
from tilewright.compiler.errors import OperandError
from tilewright.compiler.source import user_source

_Axes = list[int | None]


def _is_none(value: Any) -> bool:
    return value is None


def leaf_axes(name: str, axes: Any, treedef: tree.PyTreeDef) -> _Axes:
    """Return one axis for each leaf, from a prefix of its tree whose leaves are ints and None.

    **Raises** OperandError: it is no such prefix.
    """
    leaves, prefix = tree.flatten(axes, _is_none)
    for leaf in leaves:
        if leaf is not None:
            try:
                operator.index(leaf)
            except TypeError:
                raise OperandError(
                    f"vmap: {name} must hold ints and None, not {leaf!r} (at {user_source()})"
                ) from None
    found = list(_spread(prefix, treedef, iter(leaves)))
    if any(f is NotImplemented for f in found):
        raise OperandError(
            f"vmap: {name} must be a prefix of the structure {treedef}, not {axes!r} "
            f"(at {user_source()})"
        )
    return found


def _spread(prefix: tree.PyTreeDef, full: tree.PyTreeDef, axes: Iterator[Any]) -> Iterator[Any]:
    if prefix.node is None:
        axis = next(axes)
        yield from [axis] * full.num_leaves
    elif (prefix.node, prefix.keys, prefix.aux) != (full.node, full.keys, full.aux):
        yield NotImplemented
    else:
        for p, f in zip(prefix.children, full.children, strict=True):
            yield from _spread(p, f, axes)


def _places(leaves: list[Any], axes: _Axes) -> _Axes:
    """The axes, non-negative."""
    places: _Axes = []
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:  # any value, also one that is no array
            places.append(None)
            continue
        aval = trace.aval_of(leaf)
        if not -aval.ndim <= axis < aval.ndim:
            raise OperandError(
                f"vmap: axis {axis} of an argument {aval} must be in [{-aval.ndim}, {aval.ndim}): "
                f"it has rank {aval.ndim} (at {user_source()})"
            )
        places.append(axis % aval.ndim)
    return places


def _batch_size(leaves: list[Any], places: _Axes, axis_size: int | None) -> int:
    sizes = [trace.aval_of(x).shape[d] for x, d in zip(leaves, places, strict=True)
             if d is not None]  # fmt: skip
    if axis_size is not None:
        sizes.append(operator.index(axis_size))
    if not sizes:
        raise OperandError(
            f"vmap needs at least one argument with an axis that is not None, or axis_size "
            f"(at {user_source()})"
        )
    if len(set(sizes)) > 1:
        avals = ", ".join(f"{trace.aval_of(x)} along {d}" for x, d in
                          zip(leaves, places, strict=True) if d is not None)  # fmt: skip
        given = "" if axis_size is None else f", and axis_size is {axis_size}"
        raise OperandError(
            f"vmap: mapped axes must have one size; the arguments are {avals}{given} "
            f"(at {user_source()})"
        )
    return sizes[0]


def vmap(
    fun: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, axis_size: int | None = None
) -> Callable[..., Any]:
    """Return a function that applies `fun` to each example of a batch, all at once.

    Parameters
    ----------
    in_axes : an int, None or a tuple with an entry for each positional argument, which may be a
        pytree that is a prefix of the argument: the axis that counts the examples; None: all share
        the argument. Keyword arguments are mapped along axis 0.
    out_axes : the same for the result; None says that it does not differ between examples.
    axis_size : how many examples, where no argument tells.

    Raises
    ------
    OperandError
        Axes that do not fit, sizes that differ, a result that differs where out_axes says None.
    """
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        if isinstance(in_axes, tuple) and len(in_axes) != len(args):
            raise OperandError(
                f"vmap: in_axes must have an entry for each of {len(args)} positional arguments, "
                f"not {in_axes!r} (at {user_source()})"
            )
        leaves, in_tree = tree.flatten((args, kwargs))
        given = leaf_axes("in_axes", (in_axes, 0), in_tree)
        mapped_leaves = [x for x, d in zip(leaves, given, strict=True) if d is not None]
        lifted = iter(lifted_leaves("vmap", mapped_leaves)[0])
        leaves = [x if d is None else next(lifted) for x, d in zip(leaves, given, strict=True)]
        places = _places(leaves, given)
        size = _batch_size(leaves, places, axis_size)
        flat = FlatFunction(lambda a, k: fun(*a, **k), in_tree)
        functools.update_wrapper(flat.fun, fun)
        values, dims = vmap_flat(flat, size, leaves, places)
        wanted = leaf_axes("out_axes", out_axes, flat.out_tree)
        return flat.result(_at_axes(values, dims, size, wanted))

    return mapped


def _at_axes(values: list[Any], dims: _Axes, size: int, wanted: _Axes) -> list[Any]:
    outs = []
    for value, dim, axis in zip(values, dims, wanted, strict=True):
        if axis is None:
            if dim is not None:
                raise OperandError(
                    f"vmap: a result whose out_axes is None must not differ between the examples, "
                    f"but {trace.aval_of(value)} does along {dim} (at {user_source()})"
                )
            outs.append(value)
            continue
        ndim = trace.aval_of(value).ndim + (dim is None)
        if not -ndim <= axis < ndim:
            raise OperandError(
                f"vmap: out_axes must be in [{-ndim}, {ndim}) for a result of rank {ndim}, not "
                f"{axis} (at {user_source()})"
            )
        outs.append(batched_at(value, dim, size, axis % ndim))
    return outs


__all__ = ["vmap"]
