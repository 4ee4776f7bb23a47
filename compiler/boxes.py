"""LOADs of strided boxes: local rows of packed elements, for each index of some dimensions.

What goes on with another dimension joins it; what exceeds LOAD's four dimensions becomes several
instructions.
"""

from __future__ import annotations

from itertools import product

from tilewright.compiler.kernels import View
from tilewright.compiler.patches import Patches
from tilewright.compiler.schedule import MAX_COUNT
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.table import Conv

Level = tuple[int, int]  # count, step


def merged(levels: list[Level]) -> list[Level]:
    """Levels, innermost first, without those of one step; a run of runs is one."""
    out: list[Level] = []
    for n, s in levels:
        if n == 1:
            continue
        if out and out[-1][0] * out[-1][1] == s:
            out[-1] = (out[-1][0] * n, out[-1][1])
        else:
            out.append((n, s))
    return out


def _rows_on_rows(outer: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Dimensions (count, bytes, rows), inner first; one that only goes on with another joins it."""
    out = outer[:1]
    for n, step, rows in outer[1:]:
        count, inner, place = out[-1]
        if (step, rows) == (count * inner, count * place) and n * count <= MAX_COUNT:
            out[-1] = (n * count, inner, place)
        else:
            out.append((n, step, rows))
    return out


def box_loads(view: View | Patches, first: int, packed: list[Level],
              outer: list[tuple[int, int, int]], slot: Local, at: int, conv: Conv, local: int,
              read: Dram, number: int) -> list[Op]:  # fmt: skip
    """LOADs of local rows of `packed` elements for each index of `outer` (count, bytes, rows).

    Parameters
    ----------
    first : byte of the buffer at which the box begins.
    slot : local rows that count as written.
    at : local row to which its first element goes, in `slot`.
    local : local rows from one unit to the next.
    read : all bytes that are read.
    """
    size = view.dtype.itemsize
    levels = packed if packed and packed[0][1] == size else [(1, size), *packed]
    names = len(levels)
    outer = _rows_on_rows([o for o in outer if o[0] > 1])
    spare = outer[4 - names :]
    ops = []
    for index in product(*(range(n) for n, _, _ in spare)):
        source = first + sum(i * s for i, (_, s, _) in zip(index, spare, strict=True))
        place = at + sum(i * p for i, (_, _, p) in zip(index, spare, strict=True))
        fields = {"mem": slot.mem, "conv": conv, "loc": place, "l0": local, "pack": names,
                  "c0": levels[0][0]}  # fmt: skip
        for i, (n, s) in enumerate(levels[1:], 1):
            fields |= {f"c{i}": n, f"s{i}": s}
        for i, (n, s, p) in enumerate(outer[: 4 - names], names):
            fields |= {f"c{i}": n, f"s{i}": s, f"l{i}": p}
        ops.append(Op("load", fields, (read,), (slot,), number, "dram", view.buffer, source))
    return ops
