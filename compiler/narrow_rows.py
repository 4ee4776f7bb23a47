"""Rows at computed places in other equations, where the chip has no single operation for them.

A row that is a part of a 16 byte block is taken with its block, and then picked out of it by
VECTOR: LOAD gathers whole beats. Arithmetic with rows of which none is named twice is that of taken
rows, which are then put back.
"""

from tilewright.compiler import core
from tilewright.compiler import elementwise as ew
from tilewright.compiler import primitives as p
from tilewright.compiler.operands import convert
from tilewright.compiler.primitives_math import bitcast_convert_type_p
from tilewright.compiler.primitives_rows import COMBINE, put_rows_p, take_rows_p
from tilewright.compiler.shaping import expand_dims, pad_by, reshape
from tilewright.compiler.sorting import numbers, picked
from tilewright.compiler.taking import BLOCK
from tilewright.compiler.trace import aval_of, bind


def taken(x, i):
    """`take_rows` by blocks; None if that is no better."""
    aval, count = aval_of(x), aval_of(i).size
    size = aval.update(shape=aval.shape[1:]).size * aval.dtype.itemsize
    if not size or size >= BLOCK or BLOCK % size or count < 2:
        return None
    many = BLOCK // size
    i = ew.clip(i, 0, aval.shape[0] - 1)
    short = -aval.shape[0] % many
    rest = aval.shape[1:]
    if short:
        zero = core.Literal(0, core.ShapedArray((), aval.dtype))
        x = pad_by(x, zero, ((0, short, 0), *((0, 0, 0) for _ in rest)))
    blocks = reshape(x, ((aval.shape[0] + short) // many, many, *rest))
    shift = many.bit_length() - 1
    found = _integers(bind(take_rows_p, blocks, ew.right_shift(i, shift)))
    here = ew.equal(expand_dims(ew.bitwise_and(i, many - 1), 1), numbers(many))
    order = (0, *range(2, 2 + len(rest)), 1)
    found = bind(p.transpose_p, found, permutation=order) if rest else found
    here = reshape(here, (count, *(1 for _ in rest), many))
    return _back(picked(found, here), aval.dtype)


def _integers(x):
    """32-bit floats as integers, which keep their bits."""
    if aval_of(x).dtype != core.float32:
        return x
    return bind(bitcast_convert_type_p, x, new_dtype=core.int32)


def _back(x, dtype):
    if dtype != core.float32:
        return convert(x, dtype)
    return bind(bitcast_convert_type_p, x, new_dtype=dtype)


def put(x, i, y, *, kind, unique=False):
    """`put_rows` of distinct rows; None if it is not, or if there is nothing to compute."""
    if kind == "set" or not unique:
        return None
    old = taken(x, i)
    new = bind(COMBINE[kind], bind(take_rows_p, x, i) if old is None else old, y)
    return bind(put_rows_p, x, i, new, kind="set", unique=True)


#: What an equation becomes, by its primitive; None: it stays.
EXPANDED = {take_rows_p: taken, put_rows_p: put}
