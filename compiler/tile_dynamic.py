"""Tile copies to and from computed places: the sequencer reads the indices and adds addresses up.

A fence stands before the indices are read. The operations are said to touch all of the array.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from tilewright.compiler.kernels import Kernel, Move, Slide, Start, Update, View
from tilewright.compiler.tile_control import ADDRESS, SIGN, VALUE, added, scalar
from tilewright.compiler.tile_map import tile_move
from tilewright.compiler.tile_pad import copies
from tilewright.compiler.tiles import Dram, Op, Plan


def tile_slide(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one `Slide`."""
    source = cast(Slide, kernel.source)
    out = _offset(source.starts, source.x.dtype.itemsize, number)
    for op in tile_move(plan, replace(kernel, source=Move(source.x)), number):
        if op.name == "load":
            out.append(added(op))
            op.reads = (_all(source.x),)
        out.append(op)
    return out


def tile_update(plan: Plan, kernel: Kernel, number: int) -> list[Op]:
    """All operations of one `Update`."""
    source = cast(Update, kernel.source)
    size, ops = source.box.dtype.itemsize, list[Op]()
    if source.x.buffer is not kernel.out:
        ops += tile_move(plan, replace(kernel, source=Move(source.x)), number)
    ops += _offset(source.starts, size, number)
    for op in copies(plan, kernel.out, source.x.shape, number, source.box):
        if op.name == "store":
            op.offset += source.offset * size
            ops.append(added(op))
            op.writes = (_all(View.whole(kernel.out)),)
        ops.append(op)
    return ops


def _all(view: View) -> Dram:
    return Dram(view.buffer, 0, view.buffer.nbytes)


def _offset(starts: tuple[Start, ...], size: int, number: int) -> list[Op]:
    """VALUE = bytes by which the part lies behind the first one."""
    out = [scalar("fence", number), scalar("li", number, rd=VALUE, b=0)]
    for start in starts:
        at = start.index.offset * start.index.dtype.itemsize
        out.append(Op("li", {"rd": ADDRESS}, (), (), number, "b", start.index.buffer, at))
        out.append(scalar("ldw", number, rd=ADDRESS, ra=ADDRESS, b=0))
        out.append(scalar("sar", number, rd=SIGN, ra=ADDRESS, b=31))
        out.append(scalar("and", number, rd=SIGN, ra=SIGN, b=start.size))
        out.append(_sum(number, ADDRESS, SIGN))
        out.append(scalar("max", number, rd=ADDRESS, ra=ADDRESS, b=0))
        out.append(scalar("min", number, rd=ADDRESS, ra=ADDRESS, b=start.size - start.part))
        out.append(scalar("mul", number, rd=ADDRESS, ra=ADDRESS, b=start.step * size))
        out.append(_sum(number, VALUE, ADDRESS))
    return out


def _sum(number: int, first: int, second: int) -> Op:
    """Add a register to another one."""
    return Op("add", {"rd": first, "ra": first}, (), (), number, "b", register=second)
