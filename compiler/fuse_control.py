"""Control flow as kernels that hold kernels (`kernels_control`).

A body is fused like a program of its own; then its inputs are buffers around it, and what it
computes for the next step is written over what it got, at once where no kernel still needs that,
else by a copy at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tilewright.compiler import core
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Params, Var
from tilewright.compiler.donate import may_replace
from tilewright.compiler.kernels import (
    Buffer,
    Control,
    Epilogue,
    Kernel,
    KernelProgram,
    Loop,
    Move,
    Row,
    Switch,
    View,
    While,
    dense_strides,
    renamed,
)
from tilewright.compiler.primitives import convert_element_type_p
from tilewright.compiler.simplify import simplify
from tilewright.compiler.source import Source
from tilewright.isa.config import ChipConfig

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

Fuse = Callable[[Jaxpr, ChipConfig], KernelProgram]
CONTROL = ("scan", "while", "cond")


def control(fuser: _Fuser, eqn: Eqn, fuse: Fuse) -> list[View]:
    """The results of a `scan`, `while` or `cond` equation; its kernels are added."""
    return {"scan": _scan, "while": _while, "cond": _cond}[eqn.primitive.name](
        _Writer(fuser, fuse), eqn
    )


class _Writer:
    """What the three have in common."""

    def __init__(self, fuser: _Fuser, fuse: Fuse):
        self.fuser, self.fuse = fuser, fuse

    def dense(self, atom: Var | Literal) -> Buffer:
        """An operand as a whole buffer."""
        view = self.fuser.exact(atom)
        return view.buffer if view.is_dense else self.fuser.move(view).buffer

    def copied(self, atom: Var | Literal) -> Buffer:
        """A buffer that the steps may overwrite, with an operand's value at first."""
        return self.fuser.move(self.fuser.exact(atom)).buffer

    def kernel(self, source: Control | Row | Move, *outs: Buffer) -> Kernel:
        """A kernel of the equation at hand."""
        out, *more = outs
        eqns = () if self.fuser.number is None else (self.fuser.number,)
        epilogue = Epilogue(out.dtype)
        return Kernel("", source, epilogue, out, eqns, self.fuser.source, tuple(more))

    def copies(self, pairs: Sequence[tuple[Buffer, Buffer]]) -> list[Kernel]:
        """(from, to) each."""
        return [self.kernel(Move(View.whole(a)), b) for a, b in pairs if a is not b and a.nbytes]

    def body(self, jaxpr: Jaxpr, inputs: Sequence[Buffer],
             places: Sequence[Buffer | None]) -> tuple[list[Kernel], list[Buffer]]:  # fmt: skip
        """The kernels of a program inside, and where its results are.

        Parameters
        ----------
        inputs : its arguments.
        places : for each result the buffer where it is wanted at the end, or None.
        """
        fuser = self.fuser
        program = self.fuse(jaxpr, fuser.config)
        fuser.notes += program.notes
        names: dict[Buffer, Buffer] = {}
        for old, place in zip(program.outputs, places, strict=True):
            mine = [i for i, b in zip(program.inputs, inputs, strict=True) if b is place]
            if place is not None and old not in names and (
                not mine or (len(mine) == 1 and may_replace(program, mine[0], old))
            ):  # fmt: skip
                names[old] = place
        names |= dict(zip(program.inputs, inputs, strict=True))
        names |= {c: fuser.const(c.value) for c in program.consts}  # type: ignore[arg-type]
        for buffer in (*program.outputs, *(b for k in program.all for b in k.outs)):
            if buffer not in names:
                names[buffer] = fuser.temp(buffer.shape, buffer.dtype)
        eqns = () if fuser.number is None else (fuser.number,)
        kernels = [replace(renamed(k, names), eqns=eqns) for k in program.kernels]
        found = [names[b] for b in program.outputs]
        ends = [(a, b) for a, b in zip(found, places, strict=True) if b is not None]
        return [*kernels, *self.copies(ends)], found

    def add(self, source: Control, outs: Sequence[Buffer]) -> list[View]:
        """The kernel that holds the others; the results."""
        real = [b for b in outs if b.nbytes]
        if real:
            self.fuser.kernels.append(self.kernel(source, *real))
        return [View.whole(b) for b in outs]


def _without_fixed(jaxpr: Jaxpr, first: int, count: int) -> tuple[Jaxpr, list[int]]:
    """A simplified body without the carried results that are what was carried in; their numbers."""
    simple = simplify(jaxpr)
    fixed = [i for i in range(count) if simple.outvars[i] is simple.invars[first + i]]
    left = tuple(v for i, v in enumerate(simple.outvars) if i not in fixed)
    return replace(simple, outvars=left), fixed


def _scan(w: _Writer, eqn: Eqn) -> list[View]:
    p, fuser = eqn.params, w.fuser
    consts, count, length = p["consts"], p["carry"], p["length"]
    jaxpr, fixed = _without_fixed(p["jaxpr"], consts, count)
    given = [w.dense(a) for a in eqn.inputs[:consts]]
    state = [
        w.dense(a) if i in fixed else w.copied(a)
        for i, a in enumerate(eqn.inputs[consts : consts + count])
    ]
    rows: list[Kernel] = []
    slices = []
    for atom in eqn.inputs[consts + count :]:
        xs, shape = w.dense(atom), atom.aval.shape  # the buffer may have another shape
        slices.append(fuser.temp(shape[1:], xs.dtype))
        if slices[-1].nbytes and length:
            first = View(xs, shape[1:], dense_strides(shape)[1:])
            rows.append(w.kernel(Row(first, length, False, p["reverse"]), slices[-1]))
    carried = [b for i, b in enumerate(state) if i not in fixed]
    wanted = [*carried, *(None for _ in eqn.outputs[count:])]
    if not length:
        nothing = [fuser.temp(v.aval.shape, v.aval.dtype) for v in eqn.outputs[count:]]
        return _results(eqn, [View.whole(b) for b in (*state, *nothing)])
    body, found = w.body(jaxpr, [*given, *state, *slices], wanted)
    ends, ys = [], []
    for var, made in zip(eqn.outputs[count:], found[len(carried) :], strict=True):
        ys.append(fuser.temp(var.aval.shape, var.aval.dtype))
        if made.nbytes:
            ends.append(w.kernel(Row(View.whole(made), length, True, p["reverse"]), ys[-1]))
    loop = Loop(length, (*rows, *body, *ends))
    done = w.add(loop, [*carried, *ys])
    after = iter(done[: len(carried)])
    last = [View.whole(b) if i in fixed else next(after) for i, b in enumerate(state)]
    return _results(eqn, [*last, *done[len(carried) :]])


def _results(eqn: Eqn, views: Sequence[View]) -> list[View]:
    """Whole buffers in the shapes of the results: what is carried unchanged may have another."""
    return [
        View(v.buffer, var.aval.shape, dense_strides(var.aval.shape))
        for v, var in zip(views, eqn.outputs, strict=True)
    ]


def _while(w: _Writer, eqn: Eqn) -> list[View]:
    p = eqn.params
    first, second = p["cond_consts"], p["body_consts"]
    state_atoms = eqn.inputs[first + second :]
    jaxpr, fixed = _without_fixed(p["body_jaxpr"], second, len(state_atoms))
    tested = [w.dense(a) for a in eqn.inputs[:first]]
    given = [w.dense(a) for a in eqn.inputs[first : first + second]]
    state = [w.dense(a) if i in fixed else w.copied(a) for i, a in enumerate(state_atoms)]
    carried = [b for i, b in enumerate(state) if i not in fixed]
    flag = w.fuser.temp((), core.int32)
    test, _ = w.body(_as_int(p["cond_jaxpr"], eqn.source), [*tested, *state], [flag])
    body, _ = w.body(jaxpr, [*given, *state], carried)
    done = iter(w.add(While(tuple(test), View.whole(flag), tuple(body)), carried))
    return _results(eqn, [View.whole(b) if i in fixed else next(done) for i, b in enumerate(state)])


def _as_int(jaxpr: Jaxpr, source: Source) -> Jaxpr:
    """The program with its bool result as an int32, which the sequencer reads."""
    (result,) = jaxpr.outvars
    out = Var(core.ShapedArray((), core.int32))
    source = jaxpr.eqns[-1].source if jaxpr.eqns else source
    eqn = Eqn(convert_element_type_p, (result,), (out,), Params(new_dtype=core.int32), source)
    return simplify(replace(jaxpr, eqns=(*jaxpr.eqns, eqn), outvars=(out,)))


def _cond(w: _Writer, eqn: Eqn) -> list[View]:
    index, *atoms = eqn.inputs
    operands = [w.dense(a) for a in atoms]
    outs = [w.fuser.temp(v.aval.shape, v.aval.dtype) for v in eqn.outputs]
    which = View.whole(w.dense(index))
    branches = [tuple(w.body(simplify(j), operands, outs)[0]) for j in eqn.params["branches"]]
    return w.add(Switch(which, tuple(branches)), outs)
