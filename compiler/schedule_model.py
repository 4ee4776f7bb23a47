"""What a schedule costs, about, tile by tile: the exact timing's answer in a fiftieth of its time.

The tiles of a schedule are walked as `tile_contract` does, but no operation is made: the clocks of
`schedule_clocks` move instead. `refine` searches with it, and times exactly what it finds.
"""

from __future__ import annotations

from dataclasses import replace

from tilewright.compiler.schedule import (
    FIRST,
    Problem,
    Schedule,
    Span,
    a_chunks,
    ceil_div,
    grid,
    k_chunks,
    portions,
)
from tilewright.compiler.schedule_check import slots
from tilewright.compiler.schedule_clocks import DISPATCH, END, HANDED, START, Clocks
from tilewright.compiler.schedule_pieces import (
    Rect,
    lead_cuts,
    row_cuts,
    staircase,
    tail_cuts,
    walk,
)
from tilewright.compiler.share import works_beside
from tilewright.compiler.tiles import Local, Slots
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Mem
from tilewright.isa.timing import STORE_LONG

WALKED = 10  # outer tiles up to which each is walked
BESIDE = 0.25  # cycles that a beat counts besides where two kernels run at once

Fed = tuple[list[tuple[Rect, float]], int]  # rectangles and their times; K-blocks


class _Run(Clocks):
    """The clocks while the tiles are walked."""

    def __init__(self, config: ChipConfig, p: Problem, s: Schedule, pitch: int):
        super().__init__(config, p, s, pitch)
        self.copied = 0  # rows of the image's copy
        self.made: dict[int, float] = {}  # by tile: when the rows that it reads are there
        self.rows, self.cols, chunks = grid(config, p, s)
        self.chunks = chunks * p.passes
        coarse = a_chunks(config, p, s)
        self.held = [next(x for x in coarse if x[0] <= c[0] < x[1]) for c in self.chunks]
        order = list(walk(s.order, self.rows, self.cols))
        self.tiles = [(b, i, j) for b in range(p.batches) for i, j in order]
        shared = [p.batches == 1 or o.shared for o in (p.a, p.w)]
        counts, each = slots(config, p, s), range(len(self.chunks))
        way = [c // len(chunks) for c in each]
        a_keys = [(self.held[c], way[c]) for c in each]
        self.a_uses: list[object] = [
            (0 if shared[0] else b, i, x) for b, i, _ in self.tiles for x in a_keys
        ]
        self.w_uses: list[object] = [
            (0 if shared[1] else b, j, c) for b, _, j in self.tiles for c in each
        ]
        self.a_slots = Slots(Mem.SPAD, 0, 1, counts[0], self.a_uses)
        self.w_slots = Slots(Mem.SPAD, 1 << 20, 1, counts[1], self.w_uses)

    def copy(self, at: int, taps: int = 0, pieces: int = 1) -> None:
        """Make the rows of an image that only tiles from this one on read; of `taps`, if given."""
        c = self.p.copy
        if c is None or at >= len(self.tiles):
            return
        b, i, j = self.tiles[at]
        pixels = b * self.p.n + self.cols[j][1] if self.p.w.taps else self.rows[i][1]
        new = c.needed(pixels, taps or self.p.k) - self.copied
        self.made[at] = self.made.get(at, self.made.get(at - 1, 0.0))
        if new > 0:
            self.copied += new
            self.made[at] = self.make(new, pieces)

    def tile(self, at: int) -> None:
        """Neither the first nor the last one."""
        _, i, j = self.tiles[at]
        (r0, r1), (c0, c1) = self.rows[i], self.cols[j]
        count, width, part = r1 - r0, c1 - c0, at % self.s.parts
        blocks, n, ready, done = -(-width // self.d), at * len(self.chunks), 0.0, 0.0
        free = self.stored[part] + HANDED
        self.load += self.extra
        self.there_at = self.made.get(at, 0.0)
        for c, (k0, k1) in enumerate(self.chunks):
            w, w_new = self.w_slots.take(self.w_uses[n + c])
            a, a_new = self.a_slots.take(self.a_uses[n + c])
            if w_new:
                self.fetch(self.p.w, k1 - k0, width, w.lo)
            if a_new:
                self.fetch(self.p.a, count, self.held[c][1] - self.held[c][0], a.lo, beside=True)
            if c == 0:
                self.copy(at + 2)
            ready = max(self.there[w.lo], self.there[a.lo], free)
            done = self.multiply(ready, -(-(k1 - k0) // self.d) * blocks, count)
            self.read[w.lo] = self.read[a.lo] = self.array
        self.write(done, count, width, part)

    def edge(self, at: int) -> None:
        """The first or the last one, perhaps in pieces."""
        (_, i, j), d, s = self.tiles[at], self.d, self.s
        (r0, r1), (c0, c1) = self.rows[i], self.cols[j]
        count, width, part = r1 - r0, c1 - c0, at % s.parts
        blocks, last = -(-width // d), at == len(self.tiles) - 1
        cuts = [(0, count, 0, blocks)]
        if last and s.tail:
            cuts = tail_cuts(count, blocks, s.tail)
        elif at == 0 and s.lead:
            cuts = lead_cuts(count, blocks, s.lead, self.config.acc_bank)
        late = []
        if last and 0 < s.tail < count:
            late = [x for x in cuts if x[1] - x[0] < count] or cuts[-1:]
        early = cuts[: len(cuts) - len(late)]
        fed: list[Fed] = []
        steps = self._steps(at)
        begin = len(steps) // 2 if at == 0 else 0
        for n, (c, ks) in enumerate(steps):
            w, a = self._taken(at, c, ks)
            if at == n == 0:
                self.copy(0, self._reach(c, ks), FIRST)
            self.there_at = self.made.get(at, 0.0)
            final = n == len(steps) - 1
            groups = [(x[2], x[3]) for x in cuts] if final and not late else [(0, blocks)]
            rects = self._feed(at, c, ks, count, width, groups, w, a)
            fed.append((rects, -(-(ks[1] - ks[0]) // d)))
            if at == 0 and n < begin:
                self.copy(0, self._reach(*steps[n + 1]))
            if n == begin:
                for tile in (at, at + 1, at + 2):
                    self.copy(tile)
            if not final:
                for piece in early:
                    self._pieces(fed[-1:], piece)
            self.read[w[0].lo] = self.read[a[0].lo] = self.array
        for piece in cuts:
            done = self._pieces(fed if piece in late else fed[-1:], piece)
            some = min(width, piece[3] * d) - piece[2] * d
            self.write(done, piece[1] - piece[0], some, part)

    def _steps(self, at: int) -> list[tuple[int, Span]]:
        """The chunks of the first or last tile in the portions in which they are loaded."""
        out, last = [], len(self.chunks) - 1
        for c, chunk in enumerate(self.chunks):
            cut = at == c == 0, at == len(self.tiles) - 1 and c == last
            parts = portions(self.config, self.s, chunk, *cut) if any(cut) else [chunk]
            out += [(c, ks) for ks in parts]
        return out

    def _taken(self, at: int, c: int, ks: Span) -> tuple[tuple[Local, bool], tuple[Local, bool]]:
        """The slots of a chunk, and whether it must be loaded."""
        if ks[0] == self.chunks[c][0]:
            n = at * len(self.chunks) + c
            self.now = self.w_slots.take(self.w_uses[n]), self.a_slots.take(self.a_uses[n])
        return self.now

    def _reach(self, c: int, ks: Span) -> int:
        """The last of the taps that are loaded when a portion of a chunk is wanted."""
        return ks[1] if self.p.w.taps or self.held[c] == self.chunks[c] else self.held[c][1]

    def _pieces(self, fed: list[Fed], piece: Rect) -> float:
        """MATMUL what a piece has in common with what there is, portion by portion of K."""
        done = 0.0
        for rects, kb in fed:
            for (r0, r1, b0, b1), ready in rects:
                rows = min(r1, piece[1]) - max(r0, piece[0])
                blocks = min(b1, piece[3]) - max(b0, piece[2])
                if rows > 0 and blocks > 0:
                    done = self.multiply(ready, kb * blocks, rows)
        return done

    def _feed(
        self, at: int, c: int, ks: Span, count: int, width: int, groups: list[Span],
        w: tuple[Local, bool], a: tuple[Local, bool],
    ) -> list[tuple[Rect, float]]:  # fmt: skip
        """LOAD a portion; what can be multiplied then, and from when on."""
        d, chunk, wide = self.d, self.chunks[c], self.held[c]
        first = ks[0] == chunk[0]
        cols = wide if wide != chunk else ks
        a_new = a[1] and (first or wide == chunk)
        free = self.stored[at % self.s.parts] + HANDED
        head, blocks = self.s.head if at == 0 else 0, groups[-1][1]
        cuts = row_cuts(count, head or count)
        if at == c == 0 and first and head:
            steps = staircase(count, blocks, head)
        else:
            steps = []
            for i, (b0, b1) in enumerate(groups):
                steps += [("w", (0, 0, b0, b1))] * w[1]
                steps += [("a", (0, count, 0, 0))] * (a_new and not i)
                steps += [("mm", (*cut, b0, b1)) for cut in cuts]
        out = []
        for what, rect in steps:
            q0, q1, b0, b1 = rect
            if what == "w":
                some = min(width, b1 * d) - b0 * d
                self.fetch(self.p.w, ks[1] - ks[0], some, w[0].lo, first)
            elif what == "a":
                self.fetch(self.p.a, q1 - q0, cols[1] - cols[0], a[0].lo, first, True)
            else:
                out.append((rect, max(self.there[w[0].lo], self.there[a[0].lo], free)))
        return out


def _walk(config: ChipConfig, p: Problem, s: Schedule, pitch: int) -> float:
    """Cycles of all tiles."""
    run = _Run(config, p, s, pitch)
    for at in range(len(run.tiles)):
        if 0 < at < len(run.tiles) - 1:
            run.tile(at)
        else:
            run.edge(at)
    beside = BESIDE * run.fetched * works_beside(config)
    end = run.store + END + STORE_LONG * (not p.short)
    return beside + max(end, START + DISPATCH * run.ops)


def _outer(p: Problem, s: Schedule) -> tuple[str, int, int]:
    """The outer dimension of the walk, its tile, and its tiles."""
    name, step = ("m", s.mt) if s.order == "mn" else ("n", s.nt)
    length = getattr(p, name)
    return name, step, ceil_div(length, step)


def model(config: ChipConfig, p: Problem, s: Schedule) -> float:
    """Cycles of a legal schedule, about.

    Of many outer tiles only some are walked: two more of them cost what two more cost.

    Raises
    ------
    ScheduleError
        Its slots do not fit.
    """
    p = p.oriented(s)
    name, step, count = _outer(p, s)
    pitch = p.out_bytes * (p.m if p.turned else p.n)
    if count <= WALKED or p.batches > 1:
        return _walk(config, p, s, pitch)
    less = [(count - WALKED) // 2 * 2 + more for more in (2, 0)]
    short, longer = (
        _walk(config, replace(p, **{name: getattr(p, name) - x * step}), s, pitch) for x in less
    )
    return longer + less[1] / 2 * (longer - short)


def work(config: ChipConfig, p: Problem, s: Schedule) -> int:
    """Operations that are modelled for a schedule, about."""
    p = p.oriented(s)
    _, _, outer = _outer(p, s)
    inner = ceil_div(p.n, s.nt) if s.order == "mn" else ceil_div(p.m, s.mt)
    walked = outer * p.batches if outer <= WALKED or p.batches > 1 else 2 * WALKED - 1
    return walked * inner * (2 * len(k_chunks(config, p, s.kt)) * p.passes + 1)
