"""Tile a contraction: chunks of activations and weights into slots, macro tiles into parts of the
accumulator, stores out.

For each output tile (in the schedule's order) and each chunk of K: load what its slot lacks, one
MATMUL; then one STORE with the epilogue. Tiles take turns in the accumulator's parts. The very
first chunk may come and be multiplied in rectangles that double, the very last tile be stored in
pieces (`Schedule.head`, `tail`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.kernels import Contract, Kernel
from tilewright.compiler.operand_loads import (
    OPERAND_CONV,
    OPERAND_TYPE,
    Layout,
    Loader,
    operand,
    span_bytes,
)
from tilewright.compiler.schedule import (
    Piece,
    Problem,
    Schedule,
    Span,
    ceil_div,
    check,
    grid,
    slot_sizes,
    slots,
    tail_pieces,
)
from tilewright.compiler.tile_store import Vectors, store_op
from tilewright.compiler.tiles import Local, Op, Plan, Slots
from tilewright.isa.table import Mem, Type

__all__ = ["OPERAND_CONV", "OPERAND_TYPE", "problem", "span_bytes", "tile_contract"]


def problem(kernel: Kernel) -> Problem:
    """Sizes and places, for choosing a schedule."""
    source = kernel.source
    assert isinstance(source, Contract)
    b, m, n, k = source.sizes
    local = 2 if OPERAND_TYPE[source.a.dtype] == Type.BF16 else 1
    out, vectors = kernel.epilogue.out.itemsize, len(kernel.epilogue.vectors)
    passes = len(source.passes)
    return Problem(m, n, k, local, operand(source.a), operand(source.w), out, vectors, b, passes)


def accumulates_int(dtype: np.dtype) -> bool:
    """Whether a contraction of this operand type accumulates in int32."""
    return dtype in (core.int8, core.uint8)


def walk(order: str, rows: list[Span], cols: list[Span]) -> Iterator[tuple[int, int]]:
    """Tile indices (row, column) in the schedule's order, as a snake: a turn keeps one operand."""
    ii, jj = range(len(rows)), range(len(cols))
    if order == "mn":
        yield from ((i, j) for i in ii for j in (jj[::-1] if i % 2 else jj))
    else:
        yield from ((i, j) for j in jj for i in (ii[::-1] if j % 2 else ii))


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


def tile_contract(
    plan: Plan, kernel: Kernel, number: int, s: Schedule, half: int
) -> tuple[list[Op], int]:
    """All operations of one contraction kernel.

    Parameters
    ----------
    half : accumulator half of the first tile; the half of the next kernel's first tile is returned.
    """
    return _Tiler(plan, kernel, number, s).run(half)


class _Tiler:
    """What the tiles of one kernel share."""

    def __init__(self, plan: Plan, kernel: Kernel, number: int, s: Schedule):
        source = kernel.source
        assert isinstance(source, Contract)
        self.plan, self.kernel, self.number, self.s = plan, kernel, number, s
        self.config, self.d = plan.config, plan.config.dim
        p = self.p = problem(kernel)
        check(self.config, p, s)
        self.rows, self.cols, chunks = grid(self.config, p, s)
        self.chunks = list(chunks) * len(source.passes)  # of K, again for each pass
        self.parts = [part for part in source.passes for _ in chunks]
        order = list(walk(s.order, self.rows, self.cols))
        self.tiles = [(b, i, j) for b in range(p.batches) for i, j in order]
        shared_a, shared_w = (p.batches == 1 or o.shared for o in (p.a, p.w))
        each = list(zip(self.parts, self.chunks, strict=True))
        self.a_uses = [
            (0 if shared_a else b, i, c, part) for b, i, _ in self.tiles for (part, _), c in each
        ]
        self.w_uses = [
            (0 if shared_w else b, j, c, part) for b, _, j in self.tiles for (_, part), c in each
        ]
        sizes, counts = slot_sizes(self.config, p, s), slots(self.config, p, s)
        base = s.a_banks * self.config.spad_bank
        self.a_slots = Slots(Mem.SPAD, 0, sizes[0], counts[0], self.a_uses)
        self.w_slots = Slots(Mem.SPAD, base, sizes[1], counts[1], self.w_uses)
        self.a, self.w = (Loader(v, self.d, number) for v in (source.a, source.w))
        self.vectors = Vectors(plan, kernel, number, p.n, s.nt, s.parts)
        self.types = {
            "a_type": OPERAND_TYPE[source.a.dtype],
            "w_type": OPERAND_TYPE[source.w.dtype],
        }
        self.ops: list[Op] = []

    def run(self, half: int) -> tuple[list[Op], int]:
        parts = self.s.parts
        part = half * parts // 2
        for at in range(len(self.tiles)):
            self._tile(at, part)
            part = (part + 1) % parts
        return self.ops, part * 2 // parts

    def _tile(self, at: int, part: int) -> None:
        b, i, j = self.tiles[at]
        rows, cols = self.rows[i], self.cols[j]
        count, blocks = rows[1] - rows[0], ceil_div(cols[1] - cols[0], self.d)
        pieces = [Piece(0, count, 0, blocks, part * self.vectors.part, count)]
        vector_part, late = part, 0
        if self.s.tail and at == len(self.tiles) - 1:
            tile = (count, cols[1] - cols[0])
            pieces = tail_pieces(self.config, self.p, self.s, tile, part)
            vector_part = (part - 1) % self.s.parts  # no store reads the banks of the array
            late = 0 if self.s.tail >= count else sum(x.r1 - x.r0 < count for x in pieces) or 1
        early, late_pieces = pieces[: len(pieces) - late], pieces[len(pieces) - late :]
        fed = []  # of each chunk: its slots, its part of K, what can be multiplied one by one
        for c, ks in enumerate(self.chunks):
            last = c == len(self.chunks) - 1
            fed.append(self._feed(at, c, rows, cols, [] if late or not last else pieces))
            if last or (c == 0 and self._meets_vectors(pieces, vector_part)):
                self.ops += self.vectors.loads(vector_part, cols)
            if last and at == 0 and self.vectors.resident:
                for other in range(min(self.s.parts, len(self.tiles))):
                    self.ops += self.vectors.loads((part + other) % self.s.parts, cols)
            if not last:
                self._matmul(*fed[c], ks, cols, c > 0, early)
            for piece in early if last else []:
                self._matmul(*fed[c], ks, cols, c > 0, [piece])
                self._store(b, rows, cols, piece, vector_part)
        for piece in late_pieces:
            for c, ks in enumerate(self.chunks):
                self._matmul(*fed[c], ks, cols, c > 0, [piece])
            self._store(b, rows, cols, piece, vector_part)

    def _feed(
        self, at: int, c: int, rows: Span, cols: Span, pieces: list[Piece]
    ) -> tuple[Local, Local, list[Rect]]:
        """LOAD what the slots of a chunk lack; the slots, and what can be multiplied in turn.

        The weights come in one LOAD, or in one for each column group of `pieces`.
        """
        b, ks = self.tiles[at][0], self.chunks[c]
        count, blocks = rows[1] - rows[0], ceil_div(cols[1] - cols[0], self.d)
        n = at * len(self.chunks) + c
        w_slot, w_new = self.w_slots.take(self.w_uses[n])
        a_slot, a_new = self.a_slots.take(self.a_uses[n])
        if at == c == 0 and self.s.head:
            steps = staircase(count, blocks, self.s.head)
        else:
            cuts = row_cuts(count, self.s.head if at == 0 and self.s.head else count)
            steps = [("mm", (*cut, 0, blocks)) for cut in cuts]
            groups = sorted({(x.b0, x.b1) for x in pieces}) or [(0, blocks)]
            weights: list[tuple[str, Rect]] = [("w", (0, 0, *g)) for g in groups if w_new]
            steps = weights[:1] + [("a", (0, count, 0, 0))] * a_new + weights[1:] + steps
        for what, rect in steps:
            if what == "w":
                self._load_w(b, cols, ks, w_slot, rect, self.parts[c][1])
            elif what == "a":
                self._load_a(b, rows, ks, a_slot, rect, self.parts[c][0])
        return a_slot, w_slot, [r for what, r in steps if what == "mm"]

    def _meets_vectors(self, pieces: list[Piece], vector_part: int) -> bool:
        """Whether the array works in a bank of the vectors, so that they must be there before."""
        bank, place = self.config.acc_bank, self.vectors.region(vector_part)
        return any(x.at + x.size > place.lo // bank * bank and x.at < place.hi for x in pieces)

    def _load_w(self, b: int, cols: Span, ks: Span, slot: Local, rect: Rect, part: int) -> None:
        """Column blocks of a weight chunk: block by block, each a contiguous column of rows."""
        local, (_, _, b0, b1) = self.p.local, rect
        block = ceil_div(ks[1] - ks[0], self.d) * self.d * local
        some = (cols[0] + b0 * self.d, min(cols[1], cols[0] + b1 * self.d))
        used = Local(Mem.SPAD, slot.lo + b0 * block, slot.lo + b1 * block)
        layout = Layout(local, block, local)
        self.ops += self.w.loads(b, ks, some, used.lo, used, layout, part)

    def _load_a(self, b: int, rows: Span, ks: Span, slot: Local, rect: Rect, part: int) -> None:
        """Rows of an activation chunk."""
        local, (r0, r1, _, _) = self.p.local, rect
        row = ceil_div(ks[1] - ks[0], self.d) * local
        used = Local(Mem.SPAD, slot.lo + r0 * row, slot.lo + r1 * row)
        layout = Layout(row, local, local)
        some = (rows[0] + r0, rows[0] + r1)
        self.ops += self.a.loads(b, some, ks, used.lo, used, layout, part)

    def _matmul(self, a_slot: Local, w_slot: Local, rects: list[Rect], ks: Span, cols: Span,
                accumulate: bool, pieces: list[Piece]) -> None:  # fmt: skip
        """MATMUL what each piece of the tile has in common with each rectangle."""
        for rect, piece in product(rects, pieces):
            r0, r1 = max(piece.r0, rect[0]), min(piece.r1, rect[1])
            b0, b1 = max(piece.b0, rect[2]), min(piece.b1, rect[3])
            if r0 < r1 and b0 < b1:
                self._pass(a_slot, w_slot, ks, cols, accumulate, piece, (r0, r1, b0, b1))

    def _pass(self, a_slot, w_slot, ks, cols, accumulate, piece: Piece, rect: Rect) -> None:
        r0, r1, b0, b1 = rect
        d, local = self.d, self.p.local
        kb = ceil_div(ks[1] - ks[0], d)
        row, block = kb * local, kb * d * local
        a, w = a_slot.lo + r0 * row, w_slot.lo + b0 * block
        c = piece.at + r0 - piece.r0 + (b0 - piece.b0) * piece.step
        n = min(cols[1] - cols[0], b1 * d) - b0 * d
        fields = self.types | {
            "acc": int(accumulate), "a": a, "r0": r1 - r0, "r1": 1, "as0": row, "ak": local,
            "w": w, "ws": local, "wk": d * local, "wn": block,
            "k": ks[1] - ks[0], "n": n, "c": c, "cn": piece.step,
        }  # fmt: skip
        reads = (
            Local(Mem.SPAD, a, a + (r1 - r0) * row),
            Local(Mem.SPAD, w, w + (b1 - b0) * block),  # whole tiles are read
        )
        out = Local(Mem.ACC, c, c + (b1 - b0 - 1) * piece.step + r1 - r0)
        self.ops.append(Op("matmul", fields, reads, (out,), self.number))

    def _store(self, b: int, rows: Span, cols: Span, piece: Piece, vector_part: int) -> None:
        d = self.d
        part = (cols[0] + piece.b0 * d, min(cols[1], cols[0] + piece.b1 * d))
        first = (b * self.p.m + rows[0] + piece.r0) * self.p.n + part[0]
        tile = Local(Mem.ACC, piece.at, piece.at + piece.size)
        self.ops.append(
            store_op(
                self.plan,
                self.kernel,
                self.number,
                tile,
                piece.r1 - piece.r0,
                part,
                first,
                self.p.n,
                self.vectors,
                vector_part,
            )
        )
