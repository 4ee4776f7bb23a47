"""Derivatives and batches of rows at computed places: linear in the arrays, not in the indices."""

from tilewright.compiler import elementwise as ew
from tilewright.compiler.batching import batched_at, move_dim
from tilewright.compiler.control import closed, scan_p
from tilewright.compiler.core import ShapedArray, int32
from tilewright.compiler.forward import Zero, filled, instantiate
from tilewright.compiler.linear import Undefined
from tilewright.compiler.making import counts
from tilewright.compiler.primitives_rows import put_rows_p, take_rows_p
from tilewright.compiler.rules import add, broadcast, convert, div, mul, neg, reshape, select
from tilewright.compiler.taking import row_of, with_row
from tilewright.compiler.trace import aval_of, bind


def _inside(i, count):
    return ew.logical_and(ew.greater_equal(i, 0), ew.less(i, count))


def _where_rows(which, y):
    """The rows of y that are wanted, zeros in place of the others."""
    aval = aval_of(y)
    return select(broadcast(which, aval.shape, (0,)), y, filled(aval, 0))


@take_rows_p.rule("jvp")
def _take_jvp(primals, tangents):
    x, i = primals
    out = bind(take_rows_p, x, i)
    if isinstance(tangents[0], Zero):
        return out, Zero(aval_of(out))
    return out, bind(take_rows_p, tangents[0], i)


@take_rows_p.rule("transpose")
def _take_transpose(ct, x, i):
    i = ew.clip(i, 0, x.aval.shape[0] - 1)
    return [bind(put_rows_p, filled(x.aval, 0), i, ct, kind="add"), None]


def _flat(size, x, i):
    """Batched arrays as rows of one: the rows and their numbers, -1 for what is out of range."""
    count = aval_of(x).shape[1]
    firsts = reshape(ew.multiply(counts(int32, (size,), 0), count), (size, 1))
    places = ew.where(_inside(i, count), ew.add(i, firsts), -1)
    x = reshape(x, (size * count, *aval_of(x).shape[2:]))
    return x, reshape(places, (aval_of(places).size,))


@take_rows_p.rule("batch")
def _take_batch(size, args, dims):
    (x, i), (dx, di) = args, dims
    if di is None:
        return bind(take_rows_p, move_dim(x, dx, 1), i), 1
    i = move_dim(i, di, 0)
    shape = aval_of(i).shape
    if dx is None:
        rows = bind(take_rows_p, x, reshape(i, (aval_of(i).size,)))
    else:
        x = move_dim(x, dx, 0)
        i = ew.clip(i, 0, max(aval_of(x).shape[1] - 1, 0))
        rows = bind(take_rows_p, *_flat(size, x, i))
    return reshape(rows, (*shape, *aval_of(rows).shape[1:])), 0


@put_rows_p.rule("batch")
def _put_batch(size, args, dims, **params):
    (x, i, y), (dx, di, dy) = args, dims
    if di is None:
        x, y = batched_at(x, dx, size, 1), batched_at(y, dy, size, 1)
        return bind(put_rows_p, x, i, y, **params), 1
    x, i, y = (batched_at(a, d, size) for a, d in zip(args, dims, strict=True))
    shape = aval_of(x).shape
    flat, places = _flat(size, x, i)
    y = reshape(y, (aval_of(places).size, *aval_of(y).shape[2:]))
    return reshape(bind(put_rows_p, flat, places, y, **params), shape), 0


@put_rows_p.rule("jvp")
def _put_jvp(primals, tangents, *, kind, unique=False):
    x, i, y = primals
    tx, _, ty = tangents
    out = bind(put_rows_p, x, i, y, kind=kind, unique=unique)
    if isinstance(tx, Zero) and isinstance(ty, Zero):
        return out, Zero(aval_of(out))
    tx, ty = instantiate(tx), instantiate(ty)
    if kind == "sub":
        return out, bind(put_rows_p, tx, i, neg(ty), kind="add", unique=unique)
    if kind in ("set", "add"):
        return out, bind(put_rows_p, tx, i, ty, kind=kind, unique=unique)
    if kind == "mul":
        return out, _product_tangent(x, i, y, tx, ty)
    taken = ew.equal(y, bind(take_rows_p, out, i))  # equal ones share the derivative
    kept = convert(ew.equal(x, out), aval_of(x))
    ones = convert(taken, aval_of(y))
    total = bind(put_rows_p, mul(tx, kept), i, mul(ty, ones), kind="add", unique=unique)
    count = bind(put_rows_p, kept, i, ones, kind="add", unique=unique)
    return out, div(total, count)


def _product_tangent(x, i, y, tx, ty):
    """The tangent of a row that is multiplied several times, product by product."""

    def forward(x, i, y):
        old = row_of(x, i)
        return [with_row(x, i, old, mul(old, y)), old]

    def step(t, i, y, ty, old):
        slope = row_of(t, i)
        return [with_row(t, i, slope, add(mul(slope, y), mul(old, ty)))]

    _, before = _scanned(forward, x, i, y)
    return _scanned(step, tx, i, y, ty, before)[0]


def _scanned(step, carry, *rows):
    """A scan of a function of what is carried and of a row of each array."""
    avals = [aval_of(carry), *(aval_of(a).update(shape=aval_of(a).shape[1:]) for a in rows)]
    program, consts = closed(step, avals)
    return bind(
        scan_p, *consts, carry, *rows, jaxpr=program, length=aval_of(rows[0]).shape[0],
        reverse=False, consts=len(consts), carry=1,
    )  # fmt: skip


@put_rows_p.rule("transpose")
def _put_transpose(ct, x, i, y, *, kind, unique=False):
    """Of "set" and "add"; only the last of several rows at one place gets a derivative of "set"."""
    found = [None, None, None]
    aval = y.aval if isinstance(y, Undefined) else aval_of(y)
    count = aval_of(ct).shape[0]
    if isinstance(x, Undefined):
        found[0] = ct
        if kind == "set":
            found[0] = bind(put_rows_p, ct, i, filled(aval, 0), kind="set", unique=unique)
    if isinstance(y, Undefined):
        wanted = _inside(i, count)
        if kind == "set" and not unique:
            numbers = counts(int32, aval.shape[:1], 0)
            none = filled(ShapedArray((count,), int32), -1)
            last = bind(put_rows_p, none, i, numbers, kind="set", unique=False)
            wanted = ew.logical_and(wanted, ew.equal(bind(take_rows_p, last, i), numbers))
        found[2] = _where_rows(wanted, bind(take_rows_p, ct, i))
    return found
