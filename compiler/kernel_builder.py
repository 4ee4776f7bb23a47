"""What fusion keeps while it builds kernels: values by variable, buffers, kernels so far.

A value is a number, a view of a buffer, or a chain that still grows. This module turns values into
views (ending chains, copying what no view can express) and results into output buffers; `fuse`
decides what each equation becomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Jaxpr, Literal, Var
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.fuse_compute import compute, together
from tilewright.compiler.fuse_epilogue import finish_kernel, sums_of
from tilewright.compiler.fuse_lanes import Lane, converted
from tilewright.compiler.kernels import (
    Buffer,
    Epilogue,
    Join,
    Kernel,
    KernelProgram,
    KernelSource,
    Move,
    Pad,
    View,
    numbered,
    operands_of,
    renamed,
)
from tilewright.compiler.source import UNKNOWN, Source
from tilewright.isa.config import ChipConfig

MOVEMENT = ("reshape", "transpose", "slice", "broadcast_in_dim", "rev")


@dataclass(frozen=True)
class Number:
    """One number for every element of a shape."""

    value: np.generic
    shape: tuple[int, ...]


Node = Number | View | Chain | Lane


class KernelBuilder:
    """Values, buffers and kernels of one jaxpr.

    Parameters
    ----------
    jaxpr : whose inputs and constants become the first values.
    config : the chip.
    """

    def __init__(self, jaxpr: Jaxpr, config: ChipConfig):
        self.jaxpr, self.config = jaxpr, config
        self.nodes: dict[int, Node] = {}
        self.kernels: list[Kernel] = []
        self.consts: list[Buffer] = []
        self.notes: list[str] = []
        self.temps = 0
        self.number: int | None = None  # of the equation at hand
        self.source: Source = UNKNOWN  # its line
        self.uses: dict[int, int] = {}
        self.dot_only: dict[int, bool] = {}
        self._count_uses()
        self.inputs = tuple(
            Buffer(f"in{i}", v.aval.shape, v.aval.dtype, "input", i)
            for i, v in enumerate(jaxpr.invars)
        )
        for var, buffer in zip(jaxpr.invars, self.inputs, strict=True):
            self.nodes[id(var)] = View.whole(buffer)
        for var, value in zip(jaxpr.constvars, jaxpr.consts, strict=True):
            self.nodes[id(var)] = View.whole(self.const(np.asarray(value)))

    def _count_uses(self) -> None:
        for atom in self.jaxpr.outvars:
            if isinstance(atom, Var):
                self.uses[id(atom)] = self.uses.get(id(atom), 0) + 1
                self.dot_only[id(atom)] = False
        for eqn in reversed(self.jaxpr.eqns):
            name, precision = eqn.primitive.name, eqn.params.get("precision")
            dots = name in ("dot_general", "conv_general_dilated") and precision == "default"
            if name in (*MOVEMENT, "optimization_barrier"):  # whose result is only multiplied
                dots = self.dot_only.get(id(eqn.outputs[0]), False)
            for atom in eqn.inputs:
                if isinstance(atom, Var):
                    self.uses[id(atom)] = self.uses.get(id(atom), 0) + 1
                    self.dot_only[id(atom)] = self.dot_only.get(id(atom), True) and dots

    # ---- values

    def const(self, value: np.ndarray) -> Buffer:
        """A new constant."""
        at = len(self.consts)
        self.consts.append(Buffer(f"c{at}", value.shape, value.dtype, "const", at, value))
        return self.consts[-1]

    def temp(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        """A new temporary."""
        self.temps += 1
        return Buffer(f"t{self.temps - 1}", shape, dtype, "temp", self.temps - 1)

    def node(self, atom: Var | Literal) -> Node:
        """The value of an atom, as it is."""
        if isinstance(atom, Literal):
            return Number(atom.value[()], atom.aval.shape)
        return self.nodes[id(atom)]

    def view(self, atom: Var | Literal) -> View:
        """The atom as a view; a chain ends here.

        A float32 value that only contractions use is stored as bfloat16, which is what they load.
        """
        node = self.settled(atom)
        if isinstance(node, Number):
            view = View.whole(self.const(np.asarray(node.value)))
            return view.broadcast(node.shape, ())
        if isinstance(node, Chain):
            node = self.end(node, self.narrowed(atom, node))
            self.nodes[id(atom)] = node
        if isinstance(node, Lane):
            narrow = node.dtype == core.float32 and self.dot_only[id(atom)]
            node = self.compute(converted(node, core.bfloat16) if narrow else node)
            self.nodes[id(atom)] = node
        return node

    def narrowed(self, atom: Var | Literal, chain: Chain) -> np.dtype | None:
        """The dtype in which a chain is stored, if it is another one than the jaxpr sees."""
        narrow = chain.dtype == core.float32 and self.dot_only[id(atom)]
        return core.bfloat16 if narrow and chain.rounded is None else None

    def settled(self, atom: Var | Literal) -> Node:
        """The value of an atom in a form that can be stored."""
        return self.node(atom)

    def reshape(self, view: View, shape: tuple[int, ...]) -> View:
        """The same elements in row-major order in another shape, copied if that is needed."""
        found = view.reshape(shape)
        return found if found is not None else View.whole(self.move(view).buffer).reshape(shape)  # type: ignore[return-value]

    # ---- kernels

    def end(self, chain: Chain, dtype: np.dtype | None = None, out: Buffer | None = None) -> View:
        """Make the chain a kernel; `dtype` stores it narrower than the jaxpr sees it."""
        source = self.jaxpr.eqns[chain.eqns[0]].source if chain.eqns else self.source
        if not chain.can_end:
            aval = core.ShapedArray(chain.shape, chain.dtype)
            raise UnsupportedError(
                f"round_nearest_even {aval} at {source} cannot run on this chip: its result must "
                "be converted to int8, uint8 or int32 at once (in between only a clamp, and for "
                "int8 and uint8 an integer added to a value that cannot be NaN)"
            )
        epilogue = chain.epilogue if dtype is None else replace(chain.epilogue, out=dtype)
        out = out or self.temp(chain.shape, epilogue.out)
        if prod(chain.shape):
            name = f"k{len(self.kernels)}"
            self.kernels.append(Kernel(name, chain.source, epilogue, out, chain.eqns, source))
        return View.whole(out)

    def compute(self, lane: Lane, out: Buffer | None = None) -> View:
        """Make the lane a kernel; views that are no rows of columns are copied first."""
        out = out or self.temp(lane.shape, lane.dtype)
        if sums_of(lane.term):
            return finish_kernel(self, lane, out)
        compute(self, [lane], [out])
        return View.whole(out)

    def move(self, view: View, out: Buffer | None = None, take: np.dtype | None = None) -> View:
        """Copy a view into row-major order, or the low bytes of each element."""
        dtype = take or view.dtype
        out = out or self.temp(view.shape, dtype)
        if prod(view.shape):
            self.add(Move(view), Epilogue(dtype), out)
        return View.whole(out)

    def pad(
        self,
        view: View,
        value: np.ndarray | np.generic | View,
        config: Sequence[tuple[int, int, int]],
    ) -> View:
        """A new array: the view padded by (low, high, interior) in each dimension, as `lax.pad`."""
        shape, begin, end, start = [], [], [], []
        for n, (low, high, interior) in zip(view.shape, config, strict=True):
            step = interior + 1
            size = low + high + (n - 1) * step + 1
            first = max(0, -(low // step)) if low < 0 else 0  # elements that are left out
            last = min(n, (size - 1 - low) // step + 1)
            shape.append(size)
            begin.append(first)
            end.append(max(first, last))
            start.append(low + first * step)
        steps = tuple(i + 1 for _, _, i in config)
        inner = view.slice(tuple(begin), tuple(end), (1,) * len(shape))
        out = self.temp(tuple(shape), view.dtype)
        if prod(shape):
            fill = value if isinstance(value, View) else np.asarray(value, view.dtype)
            source = Pad(inner, fill, tuple(start), steps, tuple(shape))
            self.add(source, Epilogue(view.dtype), out)
        return View.whole(out)

    def join(self, views: Sequence[View], dim: int) -> View:
        """A new array: the views one behind the other."""
        shape = list(views[0].shape)
        shape[dim] = sum(v.shape[dim] for v in views)
        out = self.temp(tuple(shape), views[0].dtype)
        self.add(Join(tuple(views), dim), Epilogue(out.dtype), out)
        return View.whole(out)

    def add(self, source: KernelSource, epilogue: Epilogue, out: Buffer) -> None:
        """A kernel of the equation at hand."""
        eqns = () if self.number is None else (self.number,)
        name = f"k{len(self.kernels)}"
        self.kernels.append(Kernel(name, source, epilogue, out, eqns, self.source))

    def unsupported(self, name: str, why: str, *atoms: Var | Literal) -> UnsupportedError:
        """The error for an equation that this chip cannot run."""
        shapes = " ".join(str(a.aval) for a in atoms)
        return UnsupportedError(f"{name} {shapes} at {self.source} cannot run on this chip: {why}")

    # ---- results

    def finish(self) -> KernelProgram:
        """Give every result its buffer; drop kernels and constants that no result needs."""
        outvars = self.jaxpr.outvars
        where: dict[int, int] = {}  # variable -> equation that defines it
        for number, eqn in enumerate(self.jaxpr.eqns):
            where |= {id(v): number for v in eqn.outputs}
        outputs: list[Buffer | None] = [None] * len(outvars)
        lanes: dict[int, Lane] = {}
        for i, atom in enumerate(outvars):  # chains first: a buffer may be renamed only afterwards
            node = self.settled(atom)
            if not isinstance(node, Chain | Lane):
                continue
            outputs[i] = out = Buffer(f"out{i}", atom.aval.shape, atom.aval.dtype, "output", i)
            self.nodes[id(atom)] = View.whole(out)
            if isinstance(node, Chain):
                self.end(node, out=out)
            elif sums_of(node.term):
                self.compute(node, out)
            else:
                lanes[i] = node
        for part in together(self, lanes):
            compute(self, [lanes[i] for i in part], [outputs[i] for i in part])
        for i, atom in enumerate(outvars):
            if outputs[i] is None:
                self.number = where.get(id(atom))
                self.source = UNKNOWN
                if self.number is not None:
                    self.source = self.jaxpr.eqns[self.number].source
                outputs[i] = self._result(atom, i)
        kernels = _needed(self.kernels, outputs)
        used = {b for k in kernels for b in _buffers(k)} | set(outputs)
        consts = tuple(b for b in self.consts if b in used)
        notes = tuple(dict.fromkeys(self.notes))
        return KernelProgram(tuple(kernels), self.inputs, consts, tuple(outputs), notes)

    def _result(self, atom: Var | Literal, index: int) -> Buffer:
        """The buffer of a result that is no chain: a temporary renamed, or a copy."""
        aval = atom.aval
        out = Buffer(f"out{index}", aval.shape, aval.dtype, "output", index)
        node = self.node(atom)
        if isinstance(node, View) and node.buffer.kind == "temp" and node.is_dense:
            self._rename(node.buffer, out)
        else:
            self.move(self.view(atom), out)
        return out

    def _rename(self, old: Buffer, new: Buffer) -> None:
        """Let `new`, of any shape, stand for a temporary everywhere: a result needs no copy."""
        self.kernels = [renamed(k, {old: new}) for k in self.kernels]
        for key, node in self.nodes.items():
            if isinstance(node, View) and node.buffer is old:
                self.nodes[key] = replace(node, buffer=new)


def _buffers(kernel: Kernel) -> list[Buffer]:
    """What a kernel reads and writes."""
    return [*(v.buffer for v in operands_of(kernel)), *kernel.outs]


def _needed(kernels: list[Kernel], outputs: list[Buffer]) -> list[Kernel]:
    """The kernels that a result needs, renumbered."""
    wanted, kept = set(outputs), []
    for kernel in reversed(kernels):
        if not wanted.isdisjoint(kernel.outs):
            kept.append(kernel)
            wanted |= set(_buffers(kernel))
    return list(numbered(reversed(kept)))
