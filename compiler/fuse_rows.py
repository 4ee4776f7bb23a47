"""`take_rows` and `put_rows` as loops: a row in each step."""

from __future__ import annotations

from tilewright.compiler import elementwise as ew
from tilewright.compiler import trace
from tilewright.compiler.control import closed, scan_p
from tilewright.compiler.core import Eqn, Params
from tilewright.compiler.primitives_rows import COMBINE
from tilewright.compiler.taking import row_of, with_row

ROWS = ("take_rows", "put_rows")


def _take(x, i):
    return [row_of(x, ew.maximum(i, 0))]


def _put(kind):
    def step(x, i, row):
        old = row_of(x, i)
        new = row if kind == "set" else trace.bind(COMBINE[kind], old, row)
        return [with_row(x, i, old, new)]

    return step


def as_loop(eqn: Eqn) -> Eqn:
    """The equation as a scan."""
    x, i, *y = eqn.inputs
    rows = [a.aval.update(shape=a.aval.shape[1:]) for a in (i, *y)]
    jaxpr, _ = closed(_put(eqn.params["kind"]) if y else _take, [x.aval, *rows])
    params = Params(jaxpr=jaxpr, length=i.aval.shape[0], reverse=False, consts=1 - len(y),
                    carry=len(y))  # fmt: skip
    return Eqn(scan_p, eqn.inputs, eqn.outputs, params, eqn.source)
