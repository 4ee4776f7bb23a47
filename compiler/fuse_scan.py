"""Scans as kernels: at each step the array and a copy of it, moved on by 1, 2, 4 ... elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.core import Eqn, Params
from tilewright.compiler.fuse_lanes import Lane, stored
from tilewright.compiler.kernels import View
from tilewright.compiler.primitives_reduce import identity
from tilewright.compiler.terms import Term

if TYPE_CHECKING:
    from tilewright.compiler.fuse import _Fuser

#: Scan -> the reduction whose identity it starts from, and what combines two elements.
SCANS = {
    "cumsum": ("sum", "add"), "cumprod": ("prod", "mul"), "cummax": ("max", "max"),
    "cummin": ("min", "min"),
}  # fmt: skip


def scan(fuser: _Fuser, eqn: Eqn) -> View:
    """All elements up to each one, combined in the order of `primitives_reduce`."""
    (atom,) = eqn.inputs
    reduction, combine = SCANS[eqn.primitive.name]
    aval, axis = atom.aval, eqn.params["axis"]
    wide = core.float32 if aval.dtype == core.bfloat16 else aval.dtype
    view = fuser.exact(atom)
    if wide != aval.dtype:
        view = _computed(fuser, "convert_element_type", wide, view)
    if eqn.params["reverse"]:
        view = view.reverse((axis,))
    distance, size = 1, aval.shape[axis]
    if size == 1 and wide == core.float32:  # an addition makes NaNs and subnormals canonical
        view = _computed(fuser, "max", wide, view, view)
    while distance < size:
        config = [(0, 0, 0)] * len(aval.shape)
        config[axis] = distance, -distance, 0
        moved = fuser.pad(view, identity(reduction, wide), config)
        view = _computed(fuser, combine, wide, view, moved)
        distance *= 2
    if eqn.params["reverse"]:
        view = view.reverse((axis,))
    return view if wide == aval.dtype else _computed(
        fuser, "convert_element_type", aval.dtype, view)  # fmt: skip


def _computed(fuser: _Fuser, name: str, dtype: np.dtype, *views: View) -> View:
    """One equation of views as a kernel."""
    assert fuser.number is not None
    params = Params(new_dtype=dtype) if name == "convert_element_type" else Params()
    term = Term(name, dtype, tuple(map(stored, views)), params)
    return fuser.compute(Lane(views[0].shape, term, (fuser.number,)))
