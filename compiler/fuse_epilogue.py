"""What VECTOR does with a contraction's sums before they leave the chip.

`regions` finds, for each contraction, the element-wise equations through which all uses of its
result go until one value is left, the exit: they become one term of the sums, which VECTOR computes
in place, so that only the exit is stored. A region is as long as one micro-kernel; an equation
belongs to the last contraction that could take it in. Whether a region is used is decided later:
what STORE's own epilogue can do costs nothing, so it is preferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Var
from tilewright.compiler.fuse_group import rows_of
from tilewright.compiler.fuse_lanes import Lane, constant, flat
from tilewright.compiler.kernels import Contract, Epilogue, Finish, Kernel, View
from tilewright.compiler.primitives_dot import free_dims
from tilewright.compiler.terms import Term
from tilewright.compiler.vector_code import MicroKernel, kind_of, micro_kernel
from tilewright.compiler.vector_lower import BODY, refusal
from tilewright.compiler.vector_reduce import How
from tilewright.isa.config import ChipConfig
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS

if TYPE_CHECKING:
    from tilewright.compiler.kernel_builder import KernelBuilder

SUMS = (core.float32, core.bfloat16, core.int32)  # results of contractions that VECTOR takes
SHARE = 8  # a micro-kernel takes at most this fraction of the accumulator


@dataclass(frozen=True, eq=False)
class Sums:
    """What the array adds up, as an input of a term."""

    source: Contract


@dataclass(frozen=True)
class Region:
    """Equations that VECTOR can do on the sums of `dot`, in order."""

    dot: int
    eqns: tuple[int, ...]
    variables: frozenset[int]  # ids of what the contraction and they define


def one_kernel(config: ChipConfig, term: Term) -> bool:
    """Whether one micro-kernel computes a term, however its inputs are broadcast."""
    inputs = term.inputs()
    if len(inputs) > len(LOAD_STREAMS):
        return False
    micro = micro_kernel((term.replaced(inputs.index),), [(BODY, False)] * len(inputs), How())
    return micro is not None and rows_of(config, len(micro.words)) <= config.acc_rows // 4


def sums_of(term: Term) -> list[Sums]:
    """The contractions of a term; at most one."""
    return [x for x in term.inputs() if isinstance(x, Sums)]


def start(source: Contract, number: int, shape: tuple[int, ...], dtype: np.dtype) -> Lane:
    """A contraction's result as a lane."""
    total = core.int32 if source.is_integer else core.float32
    term = Term("input", total, value=Sums(source))
    if dtype != total:
        term = Term("convert_element_type", dtype, (term,), core.Params(new_dtype=dtype))
    return Lane(shape, term, (number,))


def finish_code(term: Term, views: Sequence[View]) -> MicroKernel | None:
    """The micro-kernel of a term of sums, input 0, and of views (B, M, N)."""
    kinds = [(BODY, False), *(kind_of(v.part(0)) for v in views)]
    return micro_kernel((term,), kinds, How())


def finish_kernel(builder: KernelBuilder, lane: Lane, out) -> View:  # type: ignore[no-untyped-def]
    """Make a lane of sums a kernel; views that are no rows of columns are copied first."""
    (sums,) = sums_of(lane.term)
    b, m, n, _ = sums.source.sizes
    b = prod(lane.shape) // (m * n)
    views = [v for v in lane.term.inputs() if isinstance(v, View)]
    ready = []
    for v in views:
        full = v if v.shape else v.broadcast(lane.shape, ())
        ready.append(flat(full, (b, m, n)) or builder.reshape(full, (b, m, n)))
    order = [sums, *views]
    term = lane.term.replaced(order.index)
    micro = finish_code(term, ready)
    if micro is None:  # fewer registers than with all operands in full
        ready = [View.whole(builder.move(v).buffer) for v in ready]
        micro = finish_code(term, ready)
    assert micro is not None, f"{lane} was made to fit"
    code = View.whole(builder.const(np.frombuffer(micro.code, np.uint32)))
    user = builder.jaxpr.eqns[lane.eqns[-1]].source
    epilogue = Epilogue(lane.dtype, int_path=lane.dtype not in core.FLOATS,
                        finish=Finish(tuple(ready), term, code))  # fmt: skip
    name = f"k{len(builder.kernels)}"
    builder.kernels.append(Kernel(name, sums.source, epilogue, out, lane.eqns, user))
    return View.whole(out)


def regions(jaxpr: Jaxpr, uses: Mapping[int, int], config: ChipConfig) -> list[Region]:
    """The regions of all contractions, the last one's first."""
    taken: set[int] = set()
    found = []
    numbers = [n for n, eqn in enumerate(jaxpr.eqns) if eqn.primitive.name == "dot_general"]
    for number in reversed(numbers):
        if _is_large(jaxpr.eqns[number]):
            region = _region(jaxpr, number, uses, config, taken)
            if region.eqns:
                found.append(region)
                taken.update(region.eqns)
    return found


def _is_large(eqn: Eqn) -> bool:
    """Whether a contraction has rows for VECTOR; a few are better turned, which it does not do."""
    lhs = eqn.inputs[0].aval
    (contract, _), (batch, _) = eqn.params["dimension_numbers"]
    out = eqn.outputs[0].aval
    rows = prod(lhs.shape[d] for d in free_dims(len(lhs.shape), contract, batch))
    some = prod(lhs.shape) * prod(out.shape) > 0
    return rows >= VECTOR_ROWS and some and out.dtype in SUMS


def _region(
    jaxpr: Jaxpr, dot: int, uses: Mapping[int, int], config: ChipConfig, taken: set[int]
) -> Region:
    """The longest region that one micro-kernel can do."""
    (result,) = jaxpr.eqns[dot].outputs
    shape = result.aval.shape
    left = {id(result): uses.get(id(result), 0)}  # of its variables, uses that are outside so far
    found: list[tuple[int, Var]] = []
    some: list[tuple[int, Var]] = []
    exits: list[int] = [0]  # numbers of equations after which one variable is left
    for number in range(dot + 1, len(jaxpr.eqns)):
        eqn = jaxpr.eqns[number]
        mine = [id(a) for a in eqn.inputs if id(a) in left]
        if not mine:
            continue
        out = eqn.outputs[0]
        why = refusal(eqn.primitive.name, eqn.inputs[-1].aval.dtype)
        same = all(a.aval.shape in (shape, ()) for a in (*eqn.inputs, out))
        if why or number in taken or not same or out.aval.shape != shape:
            break
        if id(out) not in uses:
            continue
        for name in mine:
            left[name] -= 1
        left[id(out)] = uses[id(out)]
        found.append((number, out))
        if sum(n > 0 for n in left.values()) == 1 and left[id(out)]:
            exits.append(len(found))
    for count in reversed(exits):
        some = found[:count]
        if not some or _fits(jaxpr, result, [n for n, _ in some], config):
            break
    variables = frozenset({id(result), *(id(v) for _, v in some)})
    return Region(dot, tuple(n for n, _ in some), variables)


def _fits(jaxpr: Jaxpr, result: Var, numbers: list[int], config: ChipConfig) -> bool:
    """Whether one micro-kernel does these equations, however their operands are broadcast."""
    terms = {id(result): Term("input", result.aval.dtype, value=id(result))}
    for number in numbers:
        eqn = jaxpr.eqns[number]
        args = [terms.get(id(a)) or _outside(jaxpr, a) for a in eqn.inputs]
        (out,) = eqn.outputs
        terms[id(out)] = Term(eqn.primitive.name, out.aval.dtype, tuple(args), eqn.params)
    term = terms[id(out)]
    inputs = term.inputs()
    if len(inputs) > len(LOAD_STREAMS):
        return False
    micro = micro_kernel((term.replaced(inputs.index),), [(BODY, False)] * len(inputs), How())
    return micro is not None and rows_of(config, len(micro.words)) <= config.acc_rows // SHARE


def _outside(jaxpr: Jaxpr, atom: Var | Literal) -> Term:
    """An operand from outside of the region."""
    if isinstance(atom, Literal):
        return constant(atom.value.flat[0], atom.aval.dtype)
    return Term("input", atom.aval.dtype, value=id(atom))
