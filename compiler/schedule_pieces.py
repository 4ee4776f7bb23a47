"""How a schedule's tiles are walked, fed and stored: rectangles, staircases, pieces.

The very first chunk may come and be multiplied in rectangles that double; the first and the last
tile may be stored in pieces, which lie in banks of their own, so that one is stored while the array
works on the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tilewright.compiler.schedule import (
    Problem,
    Schedule,
    ScheduleError,
    Span,
    ceil_div,
    grid,
    held_rows,
)
from tilewright.isa.config import BANKS, ChipConfig

GROUPS = 8  # column groups into which a last tile with a tail is cut


@dataclass(frozen=True)
class Piece:
    """Rows r0 to r1 of column blocks b0 to b1 of an output tile.

    `at` is its first accumulator row, `step` its rows from one block to the next.
    """

    r0: int
    r1: int
    b0: int
    b1: int
    at: int
    step: int

    @property
    def size(self) -> int:
        """Accumulator rows from its first to its last."""
        return (self.b1 - self.b0 - 1) * self.step + self.r1 - self.r0


def tail_cuts(rows: int, blocks: int, tail: int) -> list[tuple[int, int, int, int]]:
    """Cut the last tile for its stores: groups of columns, the last one in rows that halve."""
    group = ceil_div(blocks, GROUPS)
    cuts = [(0, rows, b, min(b + group, blocks)) for b in range(0, blocks, group)]
    _, _, b0, b1 = cuts.pop()
    at = 0
    while at < rows:
        left = rows - at
        take = max(ceil_div(left, 2), tail)
        take = left if left - take < tail else take
        cuts.append((at, at + take, b0, b1))
        at += take
    return cuts


def lead_cuts(rows: int, blocks: int, lead: int, bank: int) -> list[tuple[int, int, int, int]]:
    """Cut the first tile for its stores: groups of columns that double, up to half a bank."""
    most = max(lead, bank // (2 * rows))
    cuts = [0, min(lead, blocks)]
    while cuts[-1] < blocks:
        cuts.append(min(2 * cuts[-1], cuts[-1] + most, blocks))
    return [(0, rows, a, b) for a, b in pairwise(cuts)]


def tile_pieces(
    config: ChipConfig, p: Problem, s: Schedule, tile: tuple[int, int], part: int, last: bool
) -> list[Piece]:
    """Place the pieces of the last tile, or of the first one (`lead`).

    Those that follow each other lie in different banks. They may use all parts but the one before
    `part`, if their stores read its vectors; the first tile's use that of the next tile last.

    Parameters
    ----------
    tile : its rows and columns.

    Raises
    ------
    ScheduleError
        The pieces do not fit.
    """
    rows, blocks = tile[0], ceil_div(tile[1], config.dim)
    bank, each = config.acc_bank, BANKS // s.parts
    held = held_rows(config, p, s)
    held_there = p.vectors > 0 or p.after is not None
    later = range(s.parts - 1) if last else (0, *range(s.parts - 1 - held_there, 0, -1))
    order = [(part + x) % s.parts * each + i for x in later for i in range(each)]
    cuts = tail_cuts(rows, blocks, s.tail) if last else lead_cuts(rows, blocks, s.lead, bank)
    end = {}  # rows that a bank has for tiles
    for b in order:
        to_end = (b // each + 1) * each * bank - held - b * bank
        end[b] = max(0, min(bank, to_end))
    level = dict.fromkeys(order, 0)  # rows in use of each bank
    out, turn = [], 0
    for r0, r1, c0, c1 in cuts:
        size = (r1 - r0) * (c1 - c0)
        for i in range(len(order)):
            banks = _room(order[(turn + i) % len(order) :], size, bank, level, end)
            if banks:
                break
        else:
            raise ScheduleError(
                f"{s}: the {'tail' if last else 'lead'} needs banks of their own for pieces that "
                f"follow each other; {size} accumulator rows find no place"
            )
        at = banks[0] * bank + level[banks[0]]
        turn = order.index(banks[-1]) + 1
        for b in banks:
            take = min(size, bank - level[b])
            level[b], size = level[b] + take, size - take
        out.append(Piece(r0, r1, c0, c1, at, r1 - r0))
    return out


def _room(
    order: list[int], size: int, bank: int, level: dict[int, int], end: dict[int, int]
) -> list[int]:
    """Consecutive banks from the first one on that hold `size` rows; none if they do not."""
    taken: list[int] = []
    for b in order:
        if taken and (b != taken[-1] + 1 or level[b]):
            return []
        taken.append(b)
        free = end[b] - level[b]
        if free >= size:
            return taken
        if end[b] < bank:
            return []
        size -= free
    return []


def first_tile(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Rows and columns of the tile that is walked first."""
    (i, *_), (j, *_), _ = grid(config, p, s)
    return i[1] - i[0], j[1] - j[0]


def last_tile(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Rows and columns of the tile that is walked last."""
    rows, cols, _ = grid(config, p, s)
    if s.order == "mn":
        i, j = rows[-1], cols[0 if len(rows) % 2 == 0 else -1]
    else:
        i, j = rows[0 if len(cols) % 2 == 0 else -1], cols[-1]
    return i[1] - i[0], j[1] - j[0]


Rect = tuple[int, int, int, int]  # rows r0 to r1, column blocks b0 to b1


def row_cuts(rows: int, head: int) -> list[Span]:
    """The rows of the first tile in parts that double: head, head, 2 head, 4 head and so on."""
    cuts = [0, min(head, rows)]
    while cuts[-1] < rows:
        cuts.append(min(2 * cuts[-1], rows))
    return list(pairwise(cuts))


def staircase(rows: int, blocks: int, head: int) -> list[tuple[str, Rect]]:
    """How the first chunk grows: "w" and "a" say what to load, "mm" what can be multiplied then.

    Twice the columns and twice the rows in turn, so that what is there keeps the array busy while
    the next rectangle comes. Each part of the rows is multiplied by itself, now and in all later
    chunks: an accumulator row must have the same place in the passes that add to it.
    """
    cuts, b, there = row_cuts(rows, head), 1, 1
    out = [("w", (0, 0, 0, 1)), ("a", (*cuts[0], 0, 0)), ("mm", (*cuts[0], 0, 1))]
    while there < len(cuts) or b < blocks:
        if b < blocks:
            more = min(2 * b, blocks)
            out.append(("w", (0, 0, b, more)))
            out += [("mm", (*cut, b, more)) for cut in cuts[:there]]
            b = more
        if there < len(cuts):
            out += [("a", (*cuts[there], 0, 0)), ("mm", (*cuts[there], 0, b))]
            there += 1
    return out


def walk(order: str, rows: list[Span], cols: list[Span]) -> Iterator[tuple[int, int]]:
    """Tile indices (row, column) in the schedule's order, as a snake: a turn keeps one operand."""
    ii, jj = range(len(rows)), range(len(cols))
    if order == "mn":
        yield from ((i, j) for i in ii for j in (jj[::-1] if i % 2 else jj))
    else:
        yield from ((i, j) for j in jj for i in (ii[::-1] if j % 2 else ii))
