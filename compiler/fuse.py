"""Fuse a jaxpr into kernels: at most one contraction each, then what STORE's epilogue can do.

Equations are taken in order. A value is a number, a view (data movement costs nothing until it
must), a `Chain` that still grows, or a `Lane`: a term for the vector unit. A chain ends, becoming a
kernel that writes a buffer, when it has a second use, is a result, or meets an equation that the
epilogue cannot take in; a map's chain then becomes a lane. An equation that no kernel can do is
refused by name.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.core import Eqn, Jaxpr, Literal, Var
from tilewright.compiler.fuse_chain import extended
from tilewright.compiler.fuse_control import CONTROL, control
from tilewright.compiler.fuse_conv import as_contraction, convolution
from tilewright.compiler.fuse_dynamic import dynamic_slice, dynamic_update_slice
from tilewright.compiler.fuse_epilogue import Region, regions, start
from tilewright.compiler.fuse_join import concatenate, iota
from tilewright.compiler.fuse_lanes import Lane, alone
from tilewright.compiler.fuse_pool import max_pool
from tilewright.compiler.fuse_reduce import REDUCING, elementwise, moved, reduction
from tilewright.compiler.fuse_rows import ROWS, as_loop, by_rows
from tilewright.compiler.kernel_builder import MOVEMENT, KernelBuilder, Node, Number
from tilewright.compiler.kernels import Contract, Convolve, KernelProgram, Map, View
from tilewright.compiler.primitives_dot import free_dims, passes
from tilewright.compiler.vector_lower import LOWER, refusal
from tilewright.isa.config import ChipConfig

ARITHMETIC = (
    *("add", "sub", "mul", "div", "neg", "max", "min", "clamp"),
    *("round_nearest_even", "convert_element_type"),
)
BYTES = (core.int8, core.uint8)


def fuse(jaxpr: Jaxpr, config: ChipConfig) -> KernelProgram:
    """Kernels of a simplified jaxpr, for this chip.

    Raises
    ------
    UnsupportedError
        An equation that this chip cannot run: its name, shapes, the reason and the user's line.
    """
    fuser = _Fuser(jaxpr, config)
    for number, eqn in enumerate(jaxpr.eqns):
        fuser.number, fuser.source = number, eqn.source
        if not any(id(v) in fuser.uses for v in eqn.outputs):
            continue
        if eqn.primitive.name in ROWS:
            found = by_rows(fuser, eqn)
            results = [found] if found is not None else control(fuser, as_loop(eqn), fuse)
        else:
            results = control(fuser, eqn, fuse) if _is_control(eqn) else [fuser.equation(eqn)]
        fuser.nodes |= dict(zip(map(id, eqn.outputs), results, strict=True))
    return fuser.finish()


#: What functions in modules of their own fuse.
OWN = dict.fromkeys(REDUCING, reduction) | {
    "reduce_window_max": max_pool, "concatenate": concatenate, "iota": iota,
    "dynamic_slice": dynamic_slice, "dynamic_update_slice": dynamic_update_slice,
}  # fmt: skip


def _is_control(eqn: Eqn) -> bool:
    return eqn.primitive.name in CONTROL


class _Fuser(KernelBuilder):
    """The value of each equation, from the values of its operands."""

    def __init__(self, jaxpr: Jaxpr, config: ChipConfig):
        super().__init__(jaxpr, config)
        self.written = _written(jaxpr)
        self.reshaped: dict[int, Var | Literal] = {}  # variable -> the chain that it reshapes
        #: variable -> the element-wise equation that defines it
        self.made = {
            id(eqn.outputs[0]): number
            for number, eqn in enumerate(jaxpr.eqns)
            if eqn.primitive.name in LOWER
        }
        self.regions: dict[int, Region] = {}  # by contraction and by equation
        for region in regions(jaxpr, self.uses, config):
            self.regions |= dict.fromkeys((region.dot, *region.eqns), region)

    def equation(self, eqn: Eqn) -> Node:
        name = eqn.primitive.name
        if name == "optimization_barrier":
            known = self.node(eqn.inputs[0])
            return known if isinstance(known, Number) else self.view(eqn.inputs[0])
        if name in MOVEMENT:
            return self._movement(eqn)
        if name == "dot_general":
            return self._dot(eqn)
        if name == "conv_general_dilated":
            return self._conv(eqn)
        if name == "pad":
            return self._pad(eqn)
        if name in OWN:
            return OWN[name](self, eqn)
        if self._only_multiplied(eqn):
            return self.view(eqn.inputs[0])
        if name in ARITHMETIC:
            return self._arithmetic(eqn)
        return self._lane(eqn)

    def _only_multiplied(self, eqn: Eqn) -> bool:
        """Whether it widens bfloat16 for contractions alone, which would round it again."""
        (out,), old = eqn.outputs, eqn.inputs[0].aval.dtype
        widens = old == core.bfloat16 and out.aval.dtype == core.float32
        convert = eqn.primitive.name == "convert_element_type"
        return convert and widens and self.dot_only[id(out)] and bool(out.aval.shape)

    def _movement(self, eqn: Eqn) -> Node:
        (atom,) = eqn.inputs
        name, p = eqn.primitive.name, eqn.params
        node = self.node(atom)
        shape = eqn.outputs[0].aval.shape
        if isinstance(node, Number):
            return replace(node, shape=shape)
        if name == "reshape" and isinstance(node, Chain) and self.uses[id(atom)] == 1:
            self.reshaped[id(eqn.outputs[0])] = atom
            return replace(node, shape=shape, eqns=(*node.eqns, self.number))
        if name == "transpose" and isinstance(node, Chain) and self.uses[id(atom)] == 1:
            swapped = node.transposed(p["permutation"])
            if swapped is not None:
                return replace(swapped, eqns=(*node.eqns, self.number))
        if isinstance(node, Lane) and (lane := moved(eqn, node)) is not None:
            return lane
        if name == "transpose" and isinstance(node, Chain) and self.uses[id(atom)] == 1:
            stored = self._stored_transposed(atom, node, p["permutation"])
            if stored is not None:
                return stored
        view = self.view(atom)
        if name == "transpose":
            return view.transpose(p["permutation"])
        if name == "slice":
            step = p.get("strides") or (1,) * len(view.shape)
            return view.slice(p["start_indices"], p["limit_indices"], step)
        if name == "rev":
            return view.reverse(p["dimensions"])
        if name == "broadcast_in_dim":
            return view.broadcast(p["shape"], p["broadcast_dimensions"])
        return self.reshape(view, shape)

    def _stored_transposed(
        self, atom: Var | Literal, chain: Chain, order: tuple[int, ...]
    ) -> View | None:
        """A contraction of batches, its rows stored where their transposition has them."""
        if not isinstance(chain.source, Contract) or not chain.can_end:
            return None
        _, m, n, _ = chain.source.sizes
        batches = prod(chain.shape) // max(m * n, 1)
        shape = tuple(chain.shape[d] for d in order)
        if batches < 2 or not m * n:
            return None
        dtype = self.narrowed(atom, chain)
        out = self.temp(shape, dtype or chain.epilogue.out)
        back = tuple(order.index(d) for d in range(len(order)))
        rows = View.whole(out).transpose(back).reshape((batches, m, n))
        if rows is None or (n > 1 and rows.strides[2] != 1):
            return None
        place = rows.strides[0], rows.strides[1]
        return self.end(replace(chain, epilogue=replace(chain.epilogue, place=place)), dtype, out)

    def _dot(self, eqn: Eqn) -> Node:
        lhs, rhs = eqn.inputs
        (lc, rc), (lb, rb) = eqn.params["dimension_numbers"]
        aval = eqn.outputs[0].aval
        self._check_operands(eqn)
        left, right = lhs.aval.shape, rhs.aval.shape
        lf, rf = free_dims(len(left), lc, lb), free_dims(len(right), rc, rb)
        b, k = prod(left[d] for d in lb), prod(left[d] for d in lc)
        m, n = prod(left[d] for d in lf), prod(right[d] for d in rf)
        if not b * m * n * k:
            return Number(np.zeros((), aval.dtype)[()], aval.shape)
        a = self.reshape(self.view(lhs).transpose((*lb, *lf, *lc)), (b, m, k))
        w = self.reshape(self.view(rhs).transpose((*rb, *rc, *rf)), (b, k, n))
        source = Contract(a, w, passes(a.dtype, eqn.params["precision"]))
        return self._sums(source, aval.shape, aval.dtype)

    def _conv(self, eqn: Eqn) -> Node:
        """A convolution computes (batch, space, features); others are a view of that."""
        aval = eqn.outputs[0].aval
        self._check_operands(eqn)
        if not prod(aval.shape) * prod(eqn.inputs[1].aval.shape):
            return Number(np.zeros((), aval.dtype)[()], aval.shape)
        source: Contract | Convolve = convolution(self, eqn, self.config.dim)
        source = as_contraction(source) or source
        batch, feature, *space = eqn.params["dimension_numbers"].out_spec
        order = (batch, *space, feature)
        node = self._sums(source, tuple(aval.shape[d] for d in order), aval.dtype)
        if order == tuple(range(len(order))):
            return node
        view = node if isinstance(node, View) else self.end(node)
        return view.transpose(tuple(order.index(d) for d in range(len(order))))

    def _check_operands(self, eqn: Eqn) -> None:
        """Refuse what the array does not take."""
        name, (lhs, rhs) = eqn.primitive.name, eqn.inputs
        dtype = lhs.aval.dtype
        if dtype in (core.int32, core.uint32):
            why = "the array takes int8, uint8, bfloat16 and float32 operands"
            raise self.unsupported(name, why, lhs, rhs)
        if self.config.array == "int8" and dtype not in BYTES:
            why = "a contraction of floats needs a chip with array=bf16, this one has array=int8"
            raise self.unsupported(name, why, lhs, rhs)

    def _sums(self, source: Contract | Convolve, shape: tuple[int, ...], dtype: np.dtype) -> Node:
        """What the array adds up, converted from int32 or float32 to `dtype`."""
        total = core.int32 if source.is_integer else core.float32
        chain = replace(Chain.start(source, shape, total), eqns=(self.number,))
        if dtype in BYTES:
            return self.move(self.end(chain), take=dtype)
        done = chain.convert(dtype)
        assert done is not None, f"an accumulator of {total} gives {dtype}"
        return done

    def _pad(self, eqn: Eqn) -> Node:
        """A number stays one if it is padded with itself; else what is inside is copied."""
        operand, value = eqn.inputs
        node, fill = self.node(operand), self.node(value)
        shape, config = eqn.outputs[0].aval.shape, eqn.params["padding_config"]
        if not isinstance(fill, Number):
            other = self.exact(value)
            if not prod(operand.aval.shape):
                return other.broadcast(shape, ())
            return self.pad(self.exact(operand), other, config)
        same = isinstance(node, Number) and node.value.tobytes() == fill.value.tobytes()
        if same or not prod(operand.aval.shape):
            return Number(fill.value, shape)
        if all(c == (0, 0, 0) for c in config):
            return node
        return self.pad(self.view(operand), fill.value, config)

    def _arithmetic(self, eqn: Eqn) -> Node:
        """Extend the chain of an operand; else end it and start a map; else refuse."""
        atoms = eqn.inputs
        nodes = [self.node(a) for a in atoms]
        shape = eqn.outputs[0].aval.shape
        if all(isinstance(x, Number) for x in nodes):
            value = eqn.primitive.impl(*(np.asarray(x.value) for x in nodes), **eqn.params)
            return Number(value[()], shape)
        if any(isinstance(x, Lane) for x in nodes) and not self._is_bias(eqn, nodes):
            return self._lane(eqn)
        order = sorted(
            (i for i in range(len(atoms)) if not isinstance(nodes[i], Number)),
            key=lambda i: (
                atoms[i].aval.shape != shape,
                not isinstance(nodes[i], Chain),
                not _is_full(nodes[i]),
            ),
        )
        for i in order:
            node = nodes[i]
            if isinstance(node, Chain) and self.uses[id(atoms[i])] == 1 and node.shape == shape:
                longer = extended(self, eqn, i, node)
                if longer is not None:
                    return replace(longer, eqns=(*node.eqns, self.number))
        in_region = self.number in self.regions
        if in_region or any(isinstance(x, Chain) and isinstance(x.source, Map) for x in nodes):
            return self._lane(eqn)
        for i in order:
            longer = extended(self, eqn, i, self._start(atoms[i], shape))
            if longer is not None:
                return replace(longer, eqns=(self.number,))
        return self._narrow(eqn) or self._lane(eqn)

    # ---- the vector unit

    def _is_bias(self, eqn: Eqn, nodes: list[Node]) -> bool:
        """Whether a lane may be a vector of a contraction's epilogue."""
        sizes = [prod(a.aval.shape) for a in eqn.inputs]
        return any(
            isinstance(x, Chain) and not isinstance(x.source, Map)
            and all(n <= max(x.cols, 1) for y, n in zip(nodes, sizes, strict=True) if y is not x)
            for x in nodes
        )  # fmt: skip

    def settled(self, atom: Var | Literal) -> Node:
        """The value of an atom; a chain that STORE cannot end is computed by VECTOR."""
        node = self.node(atom)
        if not isinstance(node, Chain) or node.can_end:
            return node
        if id(atom) in self.made:
            node = self.again(self.made[id(atom)])
        elif id(atom) in self.reshaped:
            node = self.reshape(self.view(self.reshaped[id(atom)]), node.shape)
        self.nodes[id(atom)] = node
        return node

    def again(self, number: int) -> Lane:
        """The lane of an earlier equation, whose value is a chain."""
        now = self.number, self.source
        self.number, self.source = number, self.jaxpr.eqns[number].source
        lane = self._lane(self.jaxpr.eqns[number])
        self.number, self.source = now
        return lane

    def in_region(self, atom: Var | Literal) -> bool:
        """Whether the equation at hand takes the atom from a contraction's sums."""
        region = self.regions.get(-1 if self.number is None else self.number)
        return region is not None and id(atom) in region.variables

    def finishing(self, atom: Var | Literal) -> Lane:
        """A value that a contraction's sums become, as a lane of them."""
        node = self.node(atom)
        if isinstance(node, Chain):
            if id(atom) in self.made:
                node = self.again(self.made[id(atom)])
            else:
                assert isinstance(node.source, Contract)
                node = start(node.source, node.eqns[0], node.shape, atom.aval.dtype)
            self.nodes[id(atom)] = node
        assert isinstance(node, Lane), node
        return node

    def exact(self, atom: Var | Literal) -> View:
        """The atom as a view of its own dtype: not narrowed for contractions."""
        view = self.view(atom)
        assert view.dtype == atom.aval.dtype, (view, atom)
        return view

    def _lane(self, eqn: Eqn) -> Node:
        """The equation as a term of its operands' terms, or of their views if that is too much."""
        name, aval = eqn.primitive.name, eqn.outputs[0].aval
        why = refusal(name, eqn.inputs[-1].aval.dtype)
        if why is not None:
            raise self.unsupported(name, why, *eqn.inputs)
        nodes = [self.node(a) for a in eqn.inputs]
        if all(isinstance(x, Number) for x in nodes):
            value = eqn.primitive.impl(*(np.asarray(x.value) for x in nodes), **eqn.params)
            return Number(value[()], aval.shape)
        dtypes = tuple(a.aval.dtype for a in eqn.inputs)
        if not alone(self.config, name, aval.dtype, dtypes, eqn.params):
            why = "its micro-kernel does not fit a third of this chip's accumulator"
            raise self.unsupported(name, why, *eqn.inputs)
        return elementwise(self, eqn)

    def _narrow(self, eqn: Eqn) -> View | None:
        """An integer conversion that keeps the low bytes."""
        if eqn.primitive.name != "convert_element_type":
            return None
        old, new = eqn.inputs[0].aval.dtype, eqn.outputs[0].aval.dtype
        floats = old in core.FLOATS or new in core.FLOATS
        if floats or new == core.bool_ or new.itemsize > old.itemsize:
            return None
        return self.move(self.view(eqn.inputs[0]), take=new)

    def _start(self, atom: Var, shape: tuple[int, ...]) -> Chain:
        """A new chain over a materialised value, as rows whose columns are the last dimension."""
        view = self.view(atom)
        if view.shape != shape:
            view = view.broadcast(shape, ())
        cols = shape[-1] if shape else 1
        rows = self.reshape(view, (prod(shape) // max(cols, 1), cols))
        return Chain.start(Map(rows), shape, rows.dtype)


def _written(jaxpr: Jaxpr) -> set[int]:
    """Variables that something reads from DRAM: contractions, and what moves parts of arrays."""
    lanes = (*LOWER, *REDUCING, "broadcast_in_dim", "reshape")
    return {id(a) for e in jaxpr.eqns if e.primitive.name not in lanes for a in e.inputs}


def _is_full(node: Node) -> bool:
    """Whether no dimension of a view is broadcast; the operand that the others are added to."""
    if not isinstance(node, View):
        return True
    return all(s for n, s in zip(node.shape, node.strides, strict=True) if n > 1)
