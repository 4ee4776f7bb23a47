"""Tile a contraction: chunks of activations and weights into slots, macro tiles into parts of the
accumulator, stores out.

For each output tile (in the schedule's order) and each chunk of K: load what its slot lacks, one
MATMUL; then one STORE with the epilogue. Tiles take turns in the accumulator's parts. The very
first chunk may come and be multiplied in rectangles that double, the very last tile be stored in
pieces (`Schedule.head`, `tail`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.kernels import Contract, Kernel, View
from tilewright.compiler.operand_loads import (
    OPERAND_CONV,
    OPERAND_TYPE,
    Layout,
    Loader,
    operand,
    span_bytes,
)
from tilewright.compiler.patch_copies import PatchCopies
from tilewright.compiler.patch_loads import PatchLoader
from tilewright.compiler.patches import Patches
from tilewright.compiler.schedule import (
    FIRST,
    Problem,
    Schedule,
    Span,
    a_chunks,
    ceil_div,
    grid,
    portions,
    vector_span,
)
from tilewright.compiler.schedule_check import (
    check,
    slot_sizes,
    slots,
)
from tilewright.compiler.schedule_pieces import (
    Piece,
    Rect,
    row_cuts,
    staircase,
    tile_pieces,
    walk,
)
from tilewright.compiler.tile_epilogue import Finisher, after_of
from tilewright.compiler.tile_store import Vectors, goes_short, store_op, turned_stores
from tilewright.compiler.tiles import Local, Op, Plan, Slots, share_of
from tilewright.isa.table import Mem, Type

__all__ = ["OPERAND_CONV", "OPERAND_TYPE", "problem", "span_bytes", "tile_contract"]


def operands(kernel: Kernel, swap: bool) -> tuple[View, View, list[tuple[int, int]]]:
    """Activations, weights, and which parts of them each pass multiplies."""
    source = kernel.source
    assert isinstance(source, Contract)
    if not swap:
        return source.a, source.w, list(source.passes)
    turned = (v.transpose((0, 2, 1)) for v in (source.w, source.a))
    return *turned, [(w, a) for a, w in source.passes]  # type: ignore[return-value]


def problem(kernel: Kernel, swap: bool = False) -> Problem:
    """Sizes and places, for choosing a schedule."""
    a, w, passes = operands(kernel, swap)
    (b, m, k), n = a.shape, w.shape[2]
    local = 2 if OPERAND_TYPE[a.dtype] == Type.BF16 else 1
    out, vectors = kernel.epilogue.out.itemsize, len(kernel.epilogue.vectors)
    assert isinstance(kernel.source, Contract)
    return Problem(m, n, k, local, operand(a), operand(w), out, vectors, b, len(passes),
                   kernel.source.segment, swap, after_of(kernel), goes_short(kernel))  # fmt: skip


def accumulates_int(dtype: np.dtype) -> bool:
    """Whether a contraction of this operand type accumulates in int32."""
    return dtype in (core.int8, core.uint8)


def tile_contract(
    plan: Plan, kernel: Kernel, number: int, s: Schedule, half: int,
    copies: PatchCopies | None = None,
) -> tuple[list[Op], int]:  # fmt: skip
    """All operations of one contraction kernel.

    Parameters
    ----------
    half : accumulator half of the first tile; the half of the next kernel's first tile is returned.
    copies : make the image of patches, ahead of the tiles that read it.
    """
    return _Tiler(plan, kernel, number, s, copies).run(half)


@dataclass(frozen=True)
class Feed:
    """A portion `ks` of a chunk of K, in its slots, and the rectangles that can be multiplied."""

    a_chunk: Span
    w_chunk: Span
    ks: Span
    a_slot: Local
    w_slot: Local
    rows: int
    blocks: int
    rects: list[Rect]


class _Tiler:
    """What the tiles of one kernel share."""

    def __init__(
        self, plan: Plan, kernel: Kernel, number: int, s: Schedule, copies: PatchCopies | None
    ):
        self.copies = copies
        a, w, passes = operands(kernel, s.swap)
        self.plan, self.kernel, self.number, self.s = plan, kernel, number, s
        self.config, self.d = plan.config, plan.config.dim
        p = self.p = problem(kernel, s.swap)
        check(self.config, p, s)
        self.rows, self.cols, chunks = grid(self.config, p, s)
        self.chunks = list(chunks) * len(passes)  # of K, again for each pass
        self.parts = [part for part in passes for _ in chunks]
        coarse = a_chunks(self.config, p, s)
        self.held = [next(x for x in coarse if x[0] <= c[0] < x[1]) for c in self.chunks]
        order = list(walk(s.order, self.rows, self.cols))
        self.tiles = [(b, i, j) for b in range(p.batches) for i, j in order]
        shared_a, shared_w = (p.batches == 1 or o.shared for o in (p.a, p.w))
        each = list(zip(self.parts, self.held, self.chunks, strict=True))
        self.a_uses = [
            (0 if shared_a else b, i, c, part) for b, i, _ in self.tiles for (part, _), c, _ in each
        ]
        self.w_uses = [
            (0 if shared_w else b, j, c, part) for b, _, j in self.tiles for (_, part), _, c in each
        ]
        sizes, counts = slot_sizes(self.config, p, s), slots(self.config, p, s)
        base = s.a_banks * self.config.spad_bank
        self.a_slots = Slots(Mem.SPAD, 0, sizes[0], counts[0], self.a_uses)
        self.w_slots = Slots(Mem.SPAD, base, sizes[1], counts[1], self.w_uses)
        self.a, self.w = (
            (PatchLoader if isinstance(v, Patches) else Loader)(v, self.config, number)
            for v in (a, w)
        )
        self.vectors = Vectors(plan, kernel, number, *vector_span(p, s), s.parts)
        result = (p.n, p.m) if s.swap else (p.m, p.n)
        self.place = kernel.epilogue.place or (result[0] * result[1], result[1])
        self.finisher = p.after and Finisher(plan, kernel, number, p, s)
        self.types = {"a_type": OPERAND_TYPE[a.dtype], "w_type": OPERAND_TYPE[w.dtype]}
        self.ops: list[Op] = []
        self.filled: dict[Local, list[Span]] = {}

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
        last_tile = at == len(self.tiles) - 1
        pieces = [Piece(0, count, 0, blocks, part * self.vectors.part, count)]
        vector_part, late = part, 0
        cut = self.s.tail if last_tile else self.s.lead if at == 0 else 0
        if cut:
            tile = (count, cols[1] - cols[0])
            pieces = tile_pieces(self.config, self.p, self.s, tile, part, last_tile)
            vector_part = (part - 1) % self.s.parts  # no store reads the banks of the array
        if cut and last_tile:
            late = 0 if cut >= count else sum(x.r1 - x.r0 < count for x in pieces) or 1
        early, late_pieces = pieces[: len(pieces) - late], pieces[len(pieces) - late :]
        fed = []  # of each portion of K: its chunk and its slots, what can be multiplied one by one
        steps = self._steps(at)
        coming: list[Op] = []
        for n, (c, ks) in enumerate(steps):
            last = (c, ks) == steps[-1]
            fed.append(self._feed(at, c, ks, rows, cols, [] if late or not last else pieces))
            begin = len(steps) // 2 if at == 0 else 0  # until then, what the next portion reads
            if at == 0 and n < begin:
                self.ops += self._copied(0, self._reach(*steps[n + 1]))
            if n == begin:  # the next tile's are there already, but for the second one's
                self.ops += self._copied(at)
                coming = [*self._copied(at + 1), *self._copied(at + 2)]
            if n >= begin:
                self.ops += share_of(coming, n - begin, len(steps) - begin)
            first = ks[0] == steps[0][1][0] and c == 0
            if last or (first and self._meets_vectors(pieces, vector_part)):
                self.ops += self.vectors.loads(vector_part, rows if self.s.swap else cols)
                if self.finisher:
                    self.ops += self.finisher.loads(vector_part, b, rows, cols)
            if last and at == 0 and self.vectors.resident:
                for other in range(min(self.s.parts, len(self.tiles))):
                    self.ops += self.vectors.loads((part + other) % self.s.parts, (0, 0))
            if last and at == 0 and self.finisher:
                for other in range(min(self.s.parts, len(self.tiles))):
                    self.ops += self.finisher.code((part + other) % self.s.parts)
            if not last:
                self._matmul(fed[-1], cols, not first, early)
            for piece in early if last else []:
                self._matmul(fed[-1], cols, not first, [piece])
                self._store(b, rows, cols, piece, vector_part)
        for piece in late_pieces:
            for n, feed in enumerate(fed):
                self._matmul(feed, cols, n > 0, [piece])
            self._store(b, rows, cols, piece, vector_part)

    def _copied(self, at: int, taps: int = 0, pieces: int = 1) -> list[Op]:
        """The copy of the rows of the image that only tiles from this one on read.

        Parameters
        ----------
        taps : that are read, if not all of them.
        """
        if self.copies is None or at >= len(self.tiles):
            return []
        b, i, j = self.tiles[at]
        pixels = self.cols[j] if self.s.swap else self.rows[i]
        return self.copies.of(b, pixels, taps or self.p.k, pieces)

    def _reach(self, c: int, ks: Span) -> int:
        """The last of the taps that are loaded when a portion of a chunk is wanted."""
        return ks[1] if self.s.swap or self.held[c] == self.chunks[c] else self.held[c][1]

    def _steps(self, at: int) -> list[tuple[int, Span]]:
        """The chunks of a tile in the portions in which they are loaded and multiplied."""
        out = []
        for c, ks in enumerate(self.chunks):
            first = at == c == 0 and self.s.first_k > 0
            last = (at, c) == (len(self.tiles) - 1, len(self.chunks) - 1) and self.s.last_k > 0
            parts = portions(self.config, self.s, ks, first, last) if first or last else [ks]
            out += [(c, part) for part in parts]
        return out

    def _feed(self, at: int, c: int, ks: Span, rows: Span, cols: Span, pieces: list[Piece]) -> Feed:
        """LOAD what the slots of a chunk lack of a portion of it.

        The weights come in one LOAD, or in one for each column group of `pieces`.
        """
        b, chunk = self.tiles[at][0], self.chunks[c]
        count, blocks = rows[1] - rows[0], ceil_div(cols[1] - cols[0], self.d)
        n = at * len(self.chunks) + c
        if ks[0] == chunk[0]:
            self.now_w = self.w_slots.take(self.w_uses[n])
            self.now_a = self.a_slots.take(self.a_uses[n])
        (w_slot, w_new), (a_slot, a_new) = self.now_w, self.now_a
        wide, a_part = self.held[c], ks
        if wide != chunk:  # activations come at once, for several chunks
            a_new, a_part = a_new and ks[0] == chunk[0], wide
        for slot, new, part in ((w_slot, w_new, ks), (a_slot, a_new, a_part)):
            if new:  # a slot is filled portion by portion, each a chunk of its own
                old = [x for x in self.filled.get(slot, []) if ks[0] != chunk[0]]
                self.filled[slot] = [*old, part]
        turned = self.p.w.way == "turned"  # patches, whose image may be copied first
        if at == c == 0 and ks[0] == chunk[0] and self.s.head:
            steps = staircase(count, blocks, self.s.head)
        else:
            cuts = row_cuts(count, self.s.head if at == 0 and self.s.head else count)
            steps = [("mm", (*cut, 0, blocks)) for cut in cuts]
            groups = [(0, blocks)]
            if not self.s.across:
                groups = sorted({(x.b0, x.b1) for x in pieces}) or groups
            weights: list[tuple[str, Rect]] = [("w", (0, 0, *g)) for g in groups if w_new]
            rows_a: list[tuple[str, Rect]] = [("a", (0, count, 0, 0))] * a_new
            first, then = (rows_a, weights) if turned else (weights, rows_a)
            steps = first[:1] + then + first[1:] + steps
        self.ops += self._copied(0, self._reach(c, ks), FIRST) if at == 0 else []
        for what, rect in steps:
            if what == "w":
                at = self._place(w_slot, chunk, ks, self._beside(blocks) * self.d)
                self._load_w(b, cols, ks, at, rect, self.parts[c][1])
            elif what == "a":
                self._load_a(b, rows, a_part, self._place(a_slot, wide, a_part, count), rect,
                             self.parts[c][0])  # fmt: skip
        rects = [rect for what, rect in steps if what == "mm"]
        return Feed(wide, chunk, ks, a_slot, w_slot, count, blocks, rects)

    def _place(self, slot: Local, chunk: Span, ks: Span, rows: int) -> int:
        """The first granule of a portion of a chunk, whose local rows are that many."""
        return slot.lo + (ks[0] - chunk[0]) // self.d * rows * self.p.local

    def _beside(self, blocks: int) -> int:
        """Column blocks for which a weight chunk has room: an even number if they lie `across`."""
        return blocks + blocks % 2 * self.s.across

    def _meets_vectors(self, pieces: list[Piece], vector_part: int) -> bool:
        """Whether the array works in a bank of the vectors, so that they must be there before."""
        bank, place = self.config.acc_bank, self.vectors.region(vector_part)
        if self.finisher:
            place = self.finisher.region(vector_part)
        return any(x.at + x.size > place.lo // bank * bank and x.at < place.hi for x in pieces)

    def _load_w(self, b: int, cols: Span, ks: Span, at: int, rect: Rect, part: int) -> None:
        """Column blocks of a weight chunk: block by block, or `across`, row by row."""
        local, (_, _, b0, b1) = self.p.local, rect
        block = ceil_div(ks[1] - ks[0], self.d) * self.d * local
        some = (cols[0] + b0 * self.d, min(cols[1], cols[0] + b1 * self.d))
        wide = self._beside(b1)
        used = Local(Mem.SPAD, at + b0 * block, at + wide * block)
        layout = Layout(wide, local, local) if self.s.across else Layout(local, block, local)
        self.ops += self.w.loads(b, ks, some, used.lo, used, layout, part)

    def _load_a(self, b: int, rows: Span, ks: Span, at: int, rect: Rect, part: int) -> None:
        """Rows of an activation chunk."""
        local, (r0, r1, _, _) = self.p.local, rect
        row = ceil_div(ks[1] - ks[0], self.d) * local
        used = Local(Mem.SPAD, at + r0 * row, at + r1 * row)
        layout = Layout(row, local, local)
        some = (rows[0] + r0, rows[0] + r1)
        self.ops += self.a.loads(b, some, ks, used.lo, used, layout, part)

    def _matmul(self, feed: Feed, cols: Span, accumulate: bool, pieces: list[Piece]) -> None:
        """MATMUL what each piece of the tile has in common with each rectangle.

        K is cut where a slot was filled in portions, be it by an earlier tile.
        """
        filled = [
            [x for x in self.filled[slot] if x[0] < feed.ks[1] and feed.ks[0] < x[1]]
            for slot in (feed.a_slot, feed.w_slot)
        ]
        for rect, piece in product(feed.rects, pieces):
            r0, r1 = max(piece.r0, rect[0]), min(piece.r1, rect[1])
            b0, b1 = max(piece.b0, rect[2]), min(piece.b1, rect[3])
            if r0 < r1 and b0 < b1:
                for a, w in product(*filled):
                    ks = max(a[0], w[0], feed.ks[0]), min(a[1], w[1], feed.ks[1])
                    if ks[0] < ks[1]:
                        adds = accumulate or ks[0] > feed.ks[0]
                        self._pass(feed, a, w, ks, cols, adds, piece, (r0, r1, b0, b1))

    def _pass(self, feed: Feed, a_part: Span, w_part: Span, ks: Span, cols: Span,
              accumulate: bool, piece: Piece, rect: Rect) -> None:  # fmt: skip
        r0, r1, b0, b1 = rect
        d, local = self.d, self.p.local
        row = ceil_div(a_part[1] - a_part[0], d) * local
        block = ceil_div(w_part[1] - w_part[0], d) * d * local
        a0 = self._place(feed.a_slot, feed.a_chunk, a_part, feed.rows) + r0 * row
        wide = self._beside(feed.blocks)
        w_lo = self._place(feed.w_slot, feed.w_chunk, w_part, wide * d)
        w0, w_hi, step = w_lo + b0 * block, w_lo + b1 * block, local
        if self.s.across:
            w0, w_hi, step, block = w_lo + b0, w_lo + wide * block, wide, local
        c = piece.at + r0 - piece.r0 + (b0 - piece.b0) * piece.step
        n = min(cols[1] - cols[0], b1 * d) - b0 * d
        fields = self.types | {
            "acc": int(accumulate), "a": a0 + (ks[0] - a_part[0]) // d * local, "r0": r1 - r0,
            "r1": 1, "as0": row, "ak": local, "w": w0 + (ks[0] - w_part[0]) * step, "ws": step,
            "wk": d * step, "wn": block, "k": ks[1] - ks[0], "n": n, "c": c, "cn": piece.step,
        }  # fmt: skip
        reads = (
            Local(Mem.SPAD, a0, a0 + (r1 - r0) * row),
            Local(Mem.SPAD, w0, w_hi),  # whole tiles are read
        )
        out = Local(Mem.ACC, c, c + (b1 - b0 - 1) * piece.step + r1 - r0)
        self.ops.append(Op("matmul", fields, reads, (out,), self.number))

    def _store(self, b: int, rows: Span, cols: Span, piece: Piece, vector_part: int) -> None:
        d = self.d
        part = (cols[0] + piece.b0 * d, min(cols[1], cols[0] + piece.b1 * d))
        some = (rows[0] + piece.r0, rows[0] + piece.r1)
        tile = Local(Mem.ACC, piece.at, piece.at + piece.size)
        common = self.plan, self.kernel, self.number, tile
        if self.finisher:
            self.ops.append(self.finisher.vector(piece, rows, cols, vector_part))
        if self.s.swap:
            first = b * self.place[0]
            self.ops += turned_stores(*common, some, part, first, self.place[1], self.vectors,
                                      vector_part)  # fmt: skip
            return
        first = b * self.place[0] + some[0] * self.place[1] + part[0]
        count = piece.r1 - piece.r0
        self.ops.append(
            store_op(*common, count, part, first, self.place[1], self.vectors, vector_part)
        )
