"""Fuse a jaxpr into kernels: at most one contraction each, followed by what STORE's epilogue can do.

Equations are taken in order. A value is a number, a view (data movement costs nothing until it must), or a `Chain`
that still grows. A chain ends, becoming a kernel that writes a buffer, when it has a second use, is a result,
or meets an equation that the epilogue cannot take in. An equation that no kernel can do is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Var
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.kernels import (
    Buffer,
    Contract,
    Epilogue,
    Kernel,
    KernelProgram,
    Map,
    Move,
    Vector,
    View,
)
from tilewright.compiler.primitives_dot import free_dims
from tilewright.compiler.source import UNKNOWN, Source

ARITHMETIC = (
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "max",
    "min",
    "clamp",
    "round_nearest_even",
    "convert_element_type",
)
MOVEMENT = ("reshape", "transpose", "slice", "broadcast_in_dim")


@dataclass(frozen=True)
class Number:
    """One number for every element of a shape."""

    value: np.generic
    shape: tuple[int, ...]


Node = Number | View | Chain


def fuse(jaxpr: Jaxpr) -> KernelProgram:
    """Kernels of a simplified jaxpr.

    Raises
    ------
    UnsupportedError
        An equation that this chip cannot run: its name, shapes, the reason and the user's line.
    """
    return _Fuser(jaxpr).run()


class _Fuser:
    def __init__(self, jaxpr: Jaxpr):
        self.jaxpr = jaxpr
        self.nodes: dict[int, Node] = {}
        self.kernels: list[Kernel] = []
        self.consts: list[Buffer] = []
        self.uses: dict[int, int] = {}
        self.dot_only: dict[int, bool] = {}
        self.source: Source = UNKNOWN
        for eqn in jaxpr.eqns:
            dots = eqn.primitive.name == "dot_general"
            for atom in eqn.inputs:
                if isinstance(atom, Var):
                    self.uses[id(atom)] = self.uses.get(id(atom), 0) + 1
                    self.dot_only[id(atom)] = self.dot_only.get(id(atom), True) and dots
        for atom in jaxpr.outvars:
            if isinstance(atom, Var):
                self.uses[id(atom)] = self.uses.get(id(atom), 0) + 1
                self.dot_only[id(atom)] = False

    def run(self) -> KernelProgram:
        inputs = [
            Buffer(f"in{i}", v.aval.shape, v.aval.dtype, "input", i)
            for i, v in enumerate(self.jaxpr.invars)
        ]
        for var, buffer in zip(self.jaxpr.invars, inputs, strict=True):
            self.nodes[id(var)] = View.whole(buffer)
        for var, value in zip(self.jaxpr.constvars, self.jaxpr.consts, strict=True):
            self.nodes[id(var)] = View.whole(self._const(np.asarray(value)))
        for number, eqn in enumerate(self.jaxpr.eqns):
            self.source = eqn.source
            (out,) = eqn.outputs
            if id(out) in self.uses:
                self.nodes[id(out)] = self._equation(eqn, number)
        outputs = [self._result(atom, i) for i, atom in enumerate(self.jaxpr.outvars)]
        used = {b for k in self.kernels for b in _buffers(k)} | set(outputs)
        consts = tuple(b for b in self.consts if b in used)
        return KernelProgram(tuple(self.kernels), tuple(inputs), consts, tuple(outputs))

    # ---- values

    def _const(self, value: np.ndarray) -> Buffer:
        buffer = Buffer(
            f"c{len(self.consts)}", value.shape, value.dtype, "const", len(self.consts), value
        )
        self.consts.append(buffer)
        return buffer

    def _node(self, atom: Var | Literal) -> Node:
        if isinstance(atom, Literal):
            return Number(atom.value[()], atom.aval.shape)
        return self.nodes[id(atom)]

    def _view(self, atom: Var | Literal) -> View:
        """The atom as a view; a chain ends here."""
        node = self._node(atom)
        if isinstance(node, Number):
            view = View.whole(self._const(np.asarray(node.value)))
            return view.broadcast(node.shape, ())
        if isinstance(node, Chain):
            narrow = node.dtype == core.float32 and self.dot_only[id(atom)]
            node = self._end(node, core.bfloat16 if narrow and node.rounded is None else None)
            self.nodes[id(atom)] = node
        return node

    def _end(self, chain: Chain, dtype: np.dtype | None = None, out: Buffer | None = None) -> View:
        """Make the chain a kernel; `dtype` stores it narrower than the jaxpr sees it."""
        if not chain.can_end:
            raise self._unsupported(
                "round_nearest_even", "its result must be converted to int8, uint8 or int32 at once"
            )
        epilogue = chain.epilogue if dtype is None else replace(chain.epilogue, out=dtype)
        if out is None:
            count = sum(k.out.kind == "temp" for k in self.kernels)
            out = Buffer(f"t{count}", chain.shape, epilogue.out, "temp", count)
        if prod(chain.shape):
            name = f"k{len(self.kernels)}"
            source = self.jaxpr.eqns[chain.eqns[0]].source if chain.eqns else self.source
            self.kernels.append(Kernel(name, chain.source, epilogue, out, chain.eqns, source))
        return View.whole(out)

    def _move(self, view: View, out: Buffer | None = None, take: np.dtype | None = None) -> View:
        """Copy a view into row-major order, or the low bytes of each element."""
        dtype = take or view.dtype
        if out is None:
            count = sum(k.out.kind == "temp" for k in self.kernels)
            out = Buffer(f"t{count}", view.shape, dtype, "temp", count)
        if prod(view.shape):
            name = f"k{len(self.kernels)}"
            self.kernels.append(Kernel(name, Move(view), Epilogue(dtype), out, (), self.source))
        return View.whole(out)

    def _result(self, atom: Var | Literal, index: int) -> Buffer:
        aval = atom.aval
        out = Buffer(f"out{index}", aval.shape, aval.dtype, "output", index)
        node = self._node(atom)
        if isinstance(node, Chain):
            self.nodes[id(atom)] = self._end(node, out=out)
            return out
        if (
            isinstance(node, View)
            and node.is_dense
            and node.buffer.kind == "temp"
            and node.dtype == aval.dtype
        ):
            old, shape = node.buffer, node.buffer.shape
            out = Buffer(out.name, shape, aval.dtype, "output", index)
            self._rename(old, out)
            return replace_shape(self, out, aval.shape)
        self._move(self._view(atom), out)
        return out

    def _rename(self, old: Buffer, new: Buffer) -> None:
        """Let `new` stand for a temporary everywhere, so that a result needs no copy."""

        def view(v):
            return replace(v, buffer=new) if isinstance(v, View) and v.buffer is old else v

        for i, k in enumerate(self.kernels):
            s, e = k.source, k.epilogue
            s = Contract(view(s.a), view(s.w)) if isinstance(s, Contract) else type(s)(view(s.x))
            e = replace(e, ibias=view(e.ibias), scale=view(e.scale), bias=view(e.bias))
            self.kernels[i] = replace(k, source=s, epilogue=e, out=new if k.out is old else k.out)
        for key, node in self.nodes.items():
            self.nodes[key] = view(node)

    def _unsupported(self, name: str, why: str, *atoms: Var | Literal) -> UnsupportedError:
        shapes = " ".join(str(a.aval) for a in atoms)
        return UnsupportedError(
            f"{name} {shapes} at {self.source} cannot run on this chip: {why}".replace("  ", " ")
        )

    # ---- equations

    def _equation(self, eqn: Eqn, number: int) -> Node:
        name = eqn.primitive.name
        if name in MOVEMENT:
            return self._movement(eqn)
        if name == "dot_general":
            return self._dot(eqn, number)
        if name in ARITHMETIC:
            return self._arithmetic(eqn, number)
        raise self._unsupported(name, "element-wise work outside a contraction's epilogue needs the "
                                "vector unit, which is not built yet", *eqn.inputs)  # fmt: skip

    def _movement(self, eqn: Eqn) -> Node:
        (atom,) = eqn.inputs
        name, p = eqn.primitive.name, eqn.params
        node = self._node(atom)
        shape = eqn.outputs[0].aval.shape
        if isinstance(node, Number):
            return replace(node, shape=shape)
        view = self._view(atom)
        if name == "transpose":
            return view.transpose(p["permutation"])
        if name == "slice":
            step = p.get("strides") or (1,) * len(view.shape)
            return view.slice(p["start_indices"], p["limit_indices"], step)
        if name == "broadcast_in_dim":
            return view.broadcast(p["shape"], p["broadcast_dimensions"])
        return self._reshape(view, shape)

    def _reshape(self, view: View, shape: tuple[int, ...]) -> View:
        return view.reshape(shape) or self._move(view).reshape(shape)  # type: ignore[return-value]

    def _dot(self, eqn: Eqn, number: int) -> Node:
        lhs, rhs = eqn.inputs
        (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
        aval = eqn.outputs[0].aval
        dtype = lhs.aval.dtype
        if dtype in (core.int32, core.uint32):
            raise self._unsupported("dot_general", "the array takes int8, uint8, bfloat16 and float32 operands",
                                    lhs, rhs)  # fmt: skip
        precision = eqn.params.get("precision") or "default"
        if dtype == core.float32 and precision != "default":
            raise self._unsupported(
                "dot_general", f"precision {precision!r} is not built yet", lhs, rhs
            )
        a, w = self._view(lhs), self._view(rhs)
        batch = tuple(a.shape[d] for d in lb)
        lf, rf = free_dims(len(a.shape), lc, lb), free_dims(len(w.shape), rc, rb)
        b, m, n = prod(batch), prod(a.shape[d] for d in lf), prod(w.shape[d] for d in rf)
        k = prod(a.shape[d] for d in lc)
        if not b * m * n * k:
            return Number(np.zeros((), aval.dtype)[()], aval.shape)
        a = self._reshape(a.transpose((*lb, *lf, *lc)), (b, m, k))
        w = self._reshape(w.transpose((*rb, *rc, *rf)), (b, k, n))
        integer = dtype not in core.FLOATS
        chain = Chain.start(Contract(a, w), aval.shape, core.int32 if integer else core.float32)
        chain = replace(chain, eqns=(number,))
        if aval.dtype in (core.int8, core.uint8):
            return self._move(self._end(chain), take=aval.dtype)
        done = chain.convert(aval.dtype)
        assert done is not None
        return done

    def _arithmetic(self, eqn: Eqn, number: int) -> Node:
        """Extend the chain of an operand; else end it and start a map; else refuse."""
        atoms = eqn.inputs
        nodes = [self._node(a) for a in atoms]
        if all(isinstance(x, Number) for x in nodes):
            value = eqn.primitive.impl(*(np.asarray(x.value) for x in nodes), **eqn.params)
            return Number(value[()], eqn.outputs[0].aval.shape)
        shape = eqn.outputs[0].aval.shape
        order = sorted(
            (
                i
                for i, a in enumerate(atoms)
                if a.aval.shape == shape and not isinstance(nodes[i], Number)
            ),
            key=lambda i: (not isinstance(nodes[i], Chain), not _is_full(nodes[i])),
        )
        for i in order:
            node = nodes[i]
            if isinstance(node, Chain) and self.uses[id(atoms[i])] == 1:
                longer = self._extend(eqn, i, node)
                if longer is not None:
                    return replace(longer, eqns=(*node.eqns, number))
        for i in order:
            start = self._start(atoms[i])
            if isinstance(start, View):  # narrowing integers takes their low bytes
                continue
            longer = self._extend(eqn, i, start)
            if longer is not None:
                return replace(longer, eqns=(number,))
        moved = self._narrow(eqn)
        if moved is not None:
            return moved
        raise self._unsupported(eqn.primitive.name, _why(eqn), *atoms)

    def _narrow(self, eqn: Eqn) -> View | None:
        """An integer conversion that keeps the low bytes."""
        if eqn.primitive.name != "convert_element_type":
            return None
        old, new = eqn.inputs[0].aval.dtype, eqn.outputs[0].aval.dtype
        if (
            old in core.FLOATS
            or new in core.FLOATS
            or new == core.bool_
            or new.itemsize > old.itemsize
        ):
            return None
        return self._move(self._view(eqn.inputs[0]), take=new)

    def _start(self, atom: Var) -> Chain:
        """A new chain over a materialised value, as rows whose columns are the last dimension."""
        view = self._view(atom)
        shape = view.shape
        cols = shape[-1] if shape else 1
        rows = self._reshape(view, (prod(shape) // max(cols, 1), cols))
        chain = Chain.start(Map(rows), shape, rows.dtype)
        if rows.dtype != atom.aval.dtype:  # stored narrower than the jaxpr sees it
            chain = chain.convert(atom.aval.dtype) or chain
        return chain

    def _extend(self, eqn: Eqn, which: int, chain: Chain) -> Chain | None:
        """The chain with this equation taken in, operand `which` being the chain's value."""
        name = eqn.primitive.name
        if name == "convert_element_type":
            return chain.convert(eqn.params["new_dtype"])
        if name == "round_nearest_even":
            return chain.round()
        if name == "neg":
            return chain.scale(-1.0)
        if name == "clamp":
            lo, hi = (self._number(eqn.inputs[i]) for i in (0, 2))
            return None if which != 1 or lo is None or hi is None else chain.clamp(lo, hi)
        other = eqn.inputs[1 - which]
        if name in ("max", "min"):
            value = self._number(other)
            if value is None:
                return None
            return chain.clamp(value, None) if name == "max" else chain.clamp(None, value)
        if name == "div":
            value = self._number(other)
            if which or value is None or value in (0,) or not np.isfinite(value):
                return None
            return (
                chain.scale(1 / value)
                if abs(np.frexp(value)[0]) == 0.5 and 1e-37 < abs(value) < 1e37
                else None
            )
        if name == "sub" and which == 1:
            negated = chain.scale(-1.0)
            if negated is None or negated.rounded:
                return None
            vector = self._vector(chain, other)
            return None if vector is None else negated.add(vector)
        vector = self._vector(chain, other, negate=name == "sub")
        if vector is None:
            return None
        return chain.scale(vector) if name == "mul" else chain.add(vector)

    def _number(self, atom: Var | Literal) -> float | int | None:
        node = self._node(atom)
        if not isinstance(node, Number):
            return None
        return float(node.value) if atom.aval.dtype in core.FLOATS else int(node.value)

    def _vector(self, chain: Chain, atom: Var | Literal, negate: bool = False) -> Vector | None:
        """An operand that is the same in every row, as the epilogue takes it; None if it is not."""
        number = self._number(atom)
        if number is not None:
            return -number if negate else number
        node = self._node(atom)
        if isinstance(node, Chain):
            return None
        cols = (
            chain.source.sizes[2] if isinstance(chain.source, Contract) else chain.source.x.shape[1]
        )
        view = node if node.shape == chain.shape else node.broadcast(chain.shape, ())
        rows = view.reshape((prod(chain.shape) // max(cols, 1), cols))
        if rows is None or (rows.shape[0] > 1 and rows.strides[0]):
            return None
        vector = View(rows.buffer, (cols,), (rows.strides[1] if cols > 1 else 1,), rows.offset)
        if atom.aval.dtype not in core.FLOATS:
            return vector if not negate and vector.dtype in (core.int32, core.uint32) else None
        return self._float_vector(vector, negate)

    def _float_vector(self, vector: View, negate: bool) -> View:
        """The vector in float32, made by a kernel of its own if it is bfloat16 or must change sign."""
        if vector.dtype == core.float32 and not negate:
            return vector
        row = View(vector.buffer, (1, *vector.shape), (0, *vector.strides), vector.offset)
        chain = Chain.start(Map(row), vector.shape, vector.dtype).convert(core.float32)
        chain = chain.scale(-1.0) if negate and chain is not None else chain
        assert chain is not None
        return self._end(chain)


def replace_shape(fuser: _Fuser, out: Buffer, shape: tuple[int, ...]) -> Buffer:
    """The same buffer with a result's own shape (a reshape of a dense buffer moves nothing)."""
    if out.shape == shape:
        return out
    shaped = Buffer(out.name, shape, out.dtype, out.kind, out.index)
    fuser._rename(out, shaped)
    return shaped


def _is_full(node: Node) -> bool:
    """Whether no dimension of a view is broadcast; the operand that the others are added to."""
    if not isinstance(node, View):
        return True
    return all(s for n, s in zip(node.shape, node.strides, strict=True) if n > 1)


def _buffers(kernel: Kernel) -> list[Buffer]:
    source = kernel.source
    views = [source.a, source.w] if isinstance(source, Contract) else [source.x]
    views += [v for v in kernel.epilogue.vectors if isinstance(v, View)]
    return [v.buffer for v in views] + [kernel.out]


def _why(eqn: Eqn) -> str:
    """The reason why no kernel can do an arithmetic equation."""
    name = eqn.primitive.name
    if name == "convert_element_type":
        old, new = eqn.inputs[0].aval.dtype, eqn.outputs[0].aval.dtype
        if old in core.FLOATS and new not in core.FLOATS:
            return f"{old} to {new} truncates, which needs the vector unit; round first"
        return f"{old} to {new} needs the vector unit, which is not built yet"
    if name == "div":
        return "only a division by a constant power of two needs no vector unit; multiply instead"
    return (
        "it must have one full operand, the other a number or one vector along the last dimension, and "
        "a dtype and order that STORE's epilogue has; the rest needs the vector unit, which is not built yet"
    )
