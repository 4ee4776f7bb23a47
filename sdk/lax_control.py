"""Control flow with the names of `jax.lax`; `tilewright.lax` has all.

The functions within are traced once, whatever the values. On the chip a scan (`scan`, `map`,
`fori_loop` with Python ints as bounds) runs as its steps one after the other, and of a `cond` or
`switch` all branches run and one result is kept; a `while_loop`, and a `fori_loop` with traced
bounds, are refused when they are compiled.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.compiler import core, ops, trace, tree
from tilewright.compiler.control import closed, cond_p, same_types, scan_p, while_p
from tilewright.compiler.core import ShapedArray
from tilewright.compiler.errors import DtypeError, OperandError
from tilewright.compiler.source import user_source

_builtin_map = map
_int32 = core.int32


def _leaves(name: str, value: Any) -> tuple[list[Any], tree.PyTreeDef]:
    leaves, treedef = tree.flatten(value)
    try:
        for leaf in leaves:
            trace.aval_of(leaf)
    except DtypeError as error:
        raise DtypeError(f"{name}: {error} (at {user_source()})") from None
    return leaves, treedef


def _traced(
    fun: Callable[..., Any], in_tree: tree.PyTreeDef, avals: Sequence[ShapedArray]
) -> tuple[core.Jaxpr, list[Any], tree.PyTreeDef]:
    """(program, what it closes over, structure of its result) of a function of pytrees."""
    out_tree = None

    def flat(*leaves: Any) -> list[Any]:
        nonlocal out_tree
        outs, out_tree = trace.result_leaves(fun, fun(*tree.unflatten(in_tree, leaves)))
        return outs

    arguments = tree.structure((tree.unflatten(in_tree, range(in_tree.num_leaves)), {}))
    program, consts = closed(flat, avals, (fun, arguments))
    assert out_tree is not None
    return program, consts, out_tree


def _types(avals: Sequence[ShapedArray]) -> str:
    return "(" + ", ".join(_builtin_map(str, avals)) + ")"


def _strong(leaves: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
    """The leaves of a carry, numbers in the dtypes that the body gives them."""
    return [
        ops.convert(x, aval.dtype) if trace.aval_of(x).weak_type else x
        for x, aval in zip(leaves, avals, strict=True)
    ]


def _loop_body(
    name: str, fun: Callable[..., Any], in_tree: Any, init: list[Any], rest: Sequence[ShapedArray],
    carry_tree: tree.PyTreeDef, is_pair: bool,
) -> tuple[core.Jaxpr, list[Any], Any, list[Any]]:  # fmt: skip
    """(program, consts, structure of its result, init) of a body whose carry keeps its types."""
    for attempt in range(3):
        avals = [trace.aval_of(x).update(weak_type=False) if attempt else trace.aval_of(x)
                 for x in init]  # fmt: skip
        program, consts, out_tree = _traced(fun, in_tree, [*avals, *rest])
        found_tree = out_tree
        if is_pair:
            if out_tree.node is not tuple or len(out_tree.children) != 2:
                raise OperandError(
                    f"{name}: the body must return a pair (carry, y), not {out_tree} "
                    f"(at {user_source()})"
                )
            found_tree = out_tree.children[0]
        if found_tree != carry_tree:
            raise OperandError(
                f"{name}: the body must return a carry of the structure {carry_tree}, not "
                f"{found_tree} (at {user_source()})"
            )
        outs = program.out_avals[: len(init)]
        if same_types(outs, avals):
            return program, consts, out_tree, _strong(init, avals)
        if any(not trace.aval_of(x).weak_type and not same_types([a], [b])
               for x, a, b in zip(init, avals, outs, strict=True)):  # fmt: skip
            break
        init = _strong(init, outs)
    raise OperandError(
        f"{name}: the body must return a carry of the types that it gets, {_types(avals)}, not "
        f"{_types(outs)} (at {user_source()})"
    )


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Run ``carry, y = f(carry, x)`` for each row x of xs; return the last carry and all ys.

    Parameters
    ----------
    f : function of (carry, x); the carry keeps its structure, shapes and dtypes.
    xs : pytree of arrays with equal first dimensions, or None (give `length`).
    reverse : from the last row to the first; ys keep the order of xs.
    unroll : ignored: a few steps are unrolled, more are a loop on the chip.

    Raises
    ------
    OperandError
        A carry that changes its type, rows that differ in number.
    """
    rows, _ = _leaves("scan", xs)
    state, carry_tree = _leaves("scan", init)
    avals = [trace.aval_of(x) for x in rows]
    sizes = {a.shape[0] if a.shape else None for a in avals}
    if length is not None:
        sizes.add(operator.index(length))
    if len(sizes) != 1 or None in sizes:
        raise OperandError(
            f"scan: xs must have one length, not {_types(avals)}"
            + (f" with length={length}" if length is not None else "")
            + f" (at {user_source()})"
        )
    (count,) = sizes
    in_tree = tree.structure((init, xs))
    slices = [a.update(shape=a.shape[1:]) for a in avals]
    program, consts, out_tree, state = _loop_body(
        "scan", f, in_tree, state, slices, carry_tree, True
    )
    outs = trace.bind(
        scan_p, *consts, *state, *rows, jaxpr=program, length=count, reverse=bool(reverse),
        consts=len(consts), carry=len(state),
    )  # fmt: skip
    carry, ys = outs[: len(state)], outs[len(state) :]
    return tree.unflatten(carry_tree, carry), tree.unflatten(out_tree.children[1], ys)


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """Apply `f` to each row of xs, one after the other, and stack the results; see `vmap`."""
    return scan(lambda _, x: ((), f(x)), (), xs)[1]


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """Return the value after ``value = body_fun(i, value)`` for i from `lower` to below `upper`.

    With Python ints as bounds it is a `scan`, which reverse mode differentiates; else a
    `while_loop`.
    """
    if isinstance(lower, int) and isinstance(upper, int):
        def step(carry: Any, _: Any) -> Any:
            i, value = carry
            return (i + 1, body_fun(i, value)), ()

        start = ops.convert(lower, _int32)
        return scan(step, (start, init_val), None, max(0, upper - lower))[0][1]
    low, high = (ops.convert(x, _int32) for x in (lower, upper))
    return while_loop(
        lambda carry: carry[0] < carry[1],
        lambda carry: (carry[0] + 1, carry[1], body_fun(carry[0], carry[2])),
        (low, high, init_val),
    )[2]


def while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any
) -> Any:
    """Return the value after ``value = body_fun(value)`` while ``cond_fun(value)`` holds.

    Raises
    ------
    OperandError
        A value that changes its type, a condition that is no bool scalar.
    """
    state, carry_tree = _leaves("while_loop", init_val)
    in_tree = tree.structure((init_val,))
    body, body_consts, _, state = _loop_body(
        "while_loop", body_fun, in_tree, state, [], carry_tree, False
    )
    avals = list(body.in_avals[len(body_consts) :])
    condition, cond_consts, cond_tree = _traced(cond_fun, in_tree, avals)
    found = condition.out_avals
    if cond_tree.node is not None or found[0].shape or found[0].dtype != core.bool_:
        raise OperandError(
            f"while_loop: cond_fun must return a bool scalar, not {_types(found)} "
            f"(at {user_source()})"
        )
    outs = trace.bind(
        while_p, *cond_consts, *body_consts, *state, cond_jaxpr=condition,
        cond_consts=len(cond_consts), body_jaxpr=body, body_consts=len(body_consts),
    )  # fmt: skip
    return tree.unflatten(carry_tree, outs)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """Return ``branches[index](*operands)``; an index out of range is clamped.

    Raises
    ------
    OperandError
        Branches whose results differ in structure or types, an index that is no integer scalar.
    """
    (aval,) = ops.operand_avals("switch", (index,))
    if aval.shape or aval.dtype not in core.INTS:
        raise OperandError(
            f"switch: index must be an integer scalar, not {aval} (at {user_source()})"
        )
    if not branches:
        raise OperandError(f"switch: there must be at least one branch (at {user_source()})")
    leaves, in_tree = _leaves("switch", operands)
    found = [_traced(f, in_tree, list(_builtin_map(trace.aval_of, leaves))) for f in branches]
    return _chosen("switch", ops.convert(index, _int32), found, leaves)


def _chosen(name: str, index: Any, found: Sequence[Any], leaves: list[Any]) -> Any:
    """One of several traced functions; each takes what all of them close over."""
    first, _, out_tree = found[0]
    for program, _, other in found[1:]:
        if other != out_tree or not same_types(program.out_avals, first.out_avals):
            raise OperandError(
                f"{name}: the branches must have results of one structure and the same types, not "
                f"{out_tree} {_types(first.out_avals)} and {other} {_types(program.out_avals)} "
                f"(at {user_source()})"
            )
    consts = [c for _, some, _ in found for c in some]
    avals = [*_builtin_map(trace.aval_of, consts), *_builtin_map(trace.aval_of, leaves)]
    branches, start = [], 0
    for program, some, _ in found:
        stop = start + len(some)

        def branch(*values: Any, program: Any = program, span: slice = slice(start, stop)) -> Any:
            return trace.inline(program, [*values[span], *values[len(consts) :]])

        branches.append(closed(branch, avals)[0])
        start = stop
    outs = trace.bind(cond_p, index, *consts, *leaves, branches=tuple(branches))
    return tree.unflatten(out_tree, outs)


def cond(
    pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any
) -> Any:
    """Return ``true_fun(*operands)`` if a scalar holds, else ``false_fun(*operands)``.

    Raises
    ------
    OperandError
        Branches whose results differ in structure or types, a predicate that is no scalar.
    """
    (aval,) = ops.operand_avals("cond", (pred,))
    if aval.shape:
        raise OperandError(f"cond: pred must be a scalar, not {aval} (at {user_source()})")
    if aval.dtype != core.bool_:
        pred = ops.not_equal(pred, 0)
    leaves, in_tree = _leaves("cond", operands)
    avals = list(_builtin_map(trace.aval_of, leaves))
    found = [_traced(f, in_tree, avals) for f in (false_fun, true_fun)]
    return _chosen("cond", ops.convert(pred, _int32), found, leaves)


__all__ = ["cond", "fori_loop", "map", "scan", "switch", "while_loop"]
