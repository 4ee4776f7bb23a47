"""`dynamic_slice` and `dynamic_update_slice` as kernels; what is known is a plain slice."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from tilewright.compiler.core import Eqn, Literal, Var
from tilewright.compiler.kernel_builder import Node, Number
from tilewright.compiler.kernels import Epilogue, Slide, Start, Update, View
from tilewright.compiler.primitives_dynamic import clamped

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser


def _starts(
    fuser: _Fuser, atoms: Sequence[Var | Literal], view: View, sizes: Sequence[int]
) -> tuple[int, tuple[Start, ...]]:
    """Elements of the places that are known, and the others."""
    offset, found = 0, []
    for atom, n, m, stride in zip(atoms, view.shape, sizes, view.strides, strict=True):
        node = fuser.node(atom)
        if n == m:
            continue
        if isinstance(node, Number):
            offset += clamped(int(node.value), n, m) * stride
        else:
            found.append(Start(fuser.exact(atom), n, m, stride))
    return offset, tuple(found)


def dynamic_slice(fuser: _Fuser, eqn: Eqn) -> Node:
    """A number, a view, or a copy of the part."""
    x, *atoms = eqn.inputs
    aval = eqn.outputs[0].aval
    node = fuser.node(x)
    if isinstance(node, Number):
        return Number(node.value, aval.shape)
    view = fuser.exact(x)
    offset, starts = _starts(fuser, atoms, view, aval.shape)
    part = View(view.buffer, aval.shape, view.strides, view.offset + offset)
    if not starts or not prod(aval.shape):
        return part
    out = fuser.temp(aval.shape, aval.dtype)
    fuser.add(Slide(part, starts), Epilogue(aval.dtype), out)
    return View.whole(out)


def dynamic_update_slice(fuser: _Fuser, eqn: Eqn) -> Node:
    """The array with a part replaced: a copy, unless the array may be overwritten."""
    x, update, *atoms = eqn.inputs
    aval = eqn.outputs[0].aval
    if not prod(update.aval.shape):
        return fuser.node(x)
    out = fuser.temp(aval.shape, aval.dtype)
    view = fuser.exact(x)
    if not view.is_dense:
        view = View.whole(fuser.move(view).buffer)
    offset, starts = _starts(fuser, atoms, View.whole(out), update.aval.shape)
    source = Update(view, fuser.exact(update), offset, starts)
    fuser.add(source, Epilogue(aval.dtype), out)
    return View.whole(out)
