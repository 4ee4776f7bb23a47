"""The order in which the sequencer dispatches: at a program's start, when each unit will want it.

Every unit works in order and takes its own instructions from a queue, so operations of different
units may change places as long as each stays behind those that it depends on. The sequencer needs
a dozen cycles for each, and in the first hundreds of cycles the units wait for it: loads that come
behind products which cannot start yet would come too late. Later it is far ahead.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.compiler.tiles import Op
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import CONV_BYTES, TYPE_BYTES, Conv, Type, Unit
from tilewright.isa.timing import (
    MATMUL_MIN_PERIOD,
    VECTOR_DONE,
    VECTOR_LEAD,
    VECTOR_ROWS,
    matmul_done,
)

WINDOW = 96  # operations that are put in order
MARGIN = 60  # cycles by which a LOAD may come earlier than it must
#: For each operation, by unit and kind ("rd", "done"), the latest one that it must follow.
Needs = list[dict[tuple[Unit, str], int]]
READ, WRITE = 67, 44  # cycles from a beat's slot to local memory, and to the write response, about


def latencies(config: ChipConfig) -> dict[Unit, int]:
    """Cycles from the end of an operation's work to its results, about."""
    return {Unit.LOAD: READ, Unit.MATMUL: matmul_done(config.dim), Unit.VECTOR: VECTOR_DONE,
            Unit.STORE: WRITE}  # fmt: skip


def duration(config: ChipConfig, op: Op) -> int:
    """Cycles for which an operation keeps its unit, about."""
    f = op.fields.get
    if op.name == "matmul":
        passes = -(-op.fields["k"] // config.dim) * -(-op.fields["n"] // config.dim)
        return passes * max(f("r0", 1) * f("r1", 1), config.dim, MATMUL_MIN_PERIOD)
    if op.name == "vector":
        groups = -(-op.fields["rows"] // VECTOR_ROWS)
        body = -(-op.fields["cols"] // config.dim) * op.fields["body"]
        each, init = f("head", 0) + body + f("tail", 0), f("init", 0)
        code = -(-2 * (init + f("head", 0) + op.fields["body"] + f("tail", 0)) // config.dim)
        return code + VECTOR_LEAD + VECTOR_ROWS * (init + groups * each)
    kind = TYPE_BYTES[Type(f("out", 0))] if op.name == "store" else CONV_BYTES[Conv(f("conv", 0))]
    runs = f("c1", 1) * f("c2", 1) * f("c3", 1)
    blocks = f("c2", 1) if op.name == "store" else 1
    turned = blocks * f("c0", 1) * f("xpose", 0)  # STORE reads the first, LOAD writes the last
    return runs * -(-f("c0", 1) * kind // config.bus_bytes) + turned


def reorder(config: ChipConfig, ops: list[Op], needs: Needs) -> Needs:
    """Sort the first operations by their estimated starts, in place.

    Parameters
    ----------
    needs : for each operation, by unit and whether it must have read or be through, the number of
        the latest operation that it must follow.

    Returns
    -------
    list
        The same dependencies in the new order.
    """
    after = latencies(config)
    count = min(len(ops), WINDOW)
    start, end = [0] * count, [0] * count
    free: dict[Unit, int] = {}
    for i, op in enumerate(ops[:count]):
        t = free.get(op.unit, 0)
        for (unit, _), n in needs[i].items():
            frees = (op.unit == Unit.LOAD and unit == Unit.MATMUL) or unit == Unit.STORE
            t = max(t, end[n] + (0 if frees else after[unit]))
        start[i], end[i] = t, t + duration(config, op)
        free[op.unit] = end[i]
    wanted = _wanted(ops[:count], needs, start, end)
    order = sorted(range(count), key=lambda i: (wanted[i], i))
    place = {old: new for new, old in enumerate(order)}
    moved = [{u: place.get(n, n) for u, n in needs[i].items()} for i in order]
    moved += [{u: place.get(n, n) for u, n in x.items()} for x in needs[count:]]
    ops[:count] = [ops[i] for i in order]
    return moved


def _wanted(ops: Sequence[Op], needs: Needs, start: list[int], end: list[int]) -> list[int]:
    """When each operation should be dispatched: at its start, but a LOAD only when it is needed.

    Else the many short loads that a small program could do at once would come before all else.
    """
    latest = [1 << 40] * len(ops)
    for i, need in enumerate(needs[: len(ops)]):
        for n in (n for (unit, _), n in need.items() if unit == Unit.LOAD):
            latest[n] = min(latest[n], start[i] - READ - MARGIN - (end[n] - start[n]))
    least = 1 << 40
    for i in range(len(ops) - 1, -1, -1):  # a unit works in order
        if ops[i].unit == Unit.LOAD:
            least = latest[i] = min(latest[i], least)
    wanted, last = list(start), 0
    for i, op in enumerate(ops):
        if op.unit == Unit.LOAD:
            late = latest[i] if latest[i] < 1 << 40 else 0
            wanted[i] = last = max(start[i], late, last)
    return wanted
