"""What schedules cost, about: a closed formula over arrays of candidates, in microseconds each.

For the first tile, the tiles at a turn and the others: the slower of array and reads; plus the
first load and the last store, which nothing hides. Beats are exact averages over the alignments
that the rows of an operand have. `refine` times the cheapest candidates exactly.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tilewright.compiler.bus_slots import Numbers, load_slots, store_slots, words
from tilewright.compiler.schedule import (
    A_BANKS,
    LONG,
    RESIDENT,
    SEQUENCER,
    Operand,
    Problem,
    Schedule,
    ScheduleError,
    ceil_div,
)
from tilewright.compiler.schedule_after import after_banks, after_rows
from tilewright.compiler.schedule_check import (
    check,
    slots,
)
from tilewright.compiler.schedule_turns import packed_slots, turned_slots
from tilewright.compiler.share import spad_banks
from tilewright.compiler.tiles import AHEAD
from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD, STORE_LONG, matmul_done

BANK_SPLITS = (A_BANKS, 2, 7)
PARTS = (2, 4, 8)
OUTSIDE = 188  # cycles of fetch, first read and last write on STORE's short way, about
HEIGHTS = (1, 2, 3, 4, 8)  # numbers of tiles into which the rows that fit are cut at least


def read_beats(
    config: ChipConfig, o: Operand, rows: Numbers, cols: Numbers, beside: bool = False
) -> Numbers:
    """Slots of LOADs of rows x cols local elements; `cols` are what a local row is made of.

    `beside`: units of a row follow each other, those of activations.
    """
    if o.way == "gather":
        return rows * cols
    if o.way == "patches":
        return rows * packed_slots(config, o, cols)
    if o.way == "rows":
        units, narrow = -(-cols // config.dim), o.size == 1
        if beside and narrow:
            units = words(config, units)
        return rows * load_slots(config, cols * o.size, o.pitch, o.first, units, narrow)
    return turned_slots(config, o, rows, cols)


def write_slots(config: ChipConfig, p: Problem, rows: Numbers, cols: Numbers) -> Numbers:
    """STORE's slots for tiles of rows x cols; a transposed one's first block is read before."""
    size = p.out_bytes
    if not p.turned:
        return rows * store_slots(config, cols * size, p.n * size, config.dim * size)
    d, most, pitch = config.dim, XPOSE_BLOCKS * config.dim, p.m * size
    wide = store_slots(config, np.array([most * size]), pitch, d * size)[0]
    rest = store_slots(config, np.maximum(rows % most, 1) * size, pitch, d * size)
    return cols * (rows // most * wide + np.where(rows % most, rest, 0)) + rows


def _split(total: int, step: Numbers, price) -> Numbers:  # type: ignore[no-untyped-def]
    """The sum of `price` over the parts of `total`."""
    whole = total // step
    rest = total - whole * step
    return whole * price(np.minimum(step, total)) + np.where(
        rest > 0, price(np.maximum(rest, 1)), 0
    )


def _pieces(p: Problem, price) -> Numbers:  # type: ignore[no-untyped-def]
    """The sum of `price` over the pieces of K."""
    return sum(p.segments.count(n) * price(n) for n in sorted(set(p.segments)))  # type: ignore[return-value]


def prices(
    config: ChipConfig, p: Problem, mt: Numbers, nt: Numbers, kt: Numbers, a_banks: Numbers,
    parts: Numbers, rows_first: Numbers, ka: Numbers,
) -> Numbers:  # fmt: skip
    """Estimated cycles of each candidate; infinite where it does not fit.

    Parameters
    ----------
    rows_first : whether the order is "mn".
    ka : contraction length of a chunk of activations; 0: kt.
    """
    d = config.dim
    mt, nt, kt = np.minimum(mt, p.m), np.minimum(nt, p.n), np.minimum(kt, p.segment or p.k)
    ka = np.where(ka, np.minimum(ka, p.k), kt)
    depth, blocks = -(-kt // d), -(-nt // d)
    mtiles, ntiles = -(-p.m // mt), -(-p.n // nt)
    chunks = _pieces(p, lambda n: -(-n // kt))
    a_count = _pieces(p, lambda n: -(-n // ka))
    a_slots = a_banks * config.spad_bank // (mt * -(-ka // d) * p.local)
    w_banks = spad_banks(config) - a_banks - after_banks(config, p, mt, nt, parts)
    w_slots = w_banks * config.spad_bank // (d * depth * blocks * p.local)
    length, each = (p.m, mt) if p.turned else (p.n, nt)
    resident = p.vectors * ceil_div(length, d) * RESIDENT <= config.acc_rows // parts
    held = p.vectors * np.where((each % d == 0) & resident, ceil_div(length, d), -(-each // d))
    held = held + after_rows(config, p, mt, nt)
    fits = (mt * blocks + held <= config.acc_rows // parts) & (w_banks > 0)
    fits &= (a_slots >= np.minimum(2, mtiles * a_count)) & (
        w_slots >= np.minimum(2, ntiles * chunks)
    )
    if p.vectors:
        fits &= ((mt % d == 0) | (mt == p.m)) if p.turned else blocks <= STORE_VECTOR_UNITS

    all_blocks = (ntiles - 1) * blocks + -(-(p.n - (ntiles - 1) * nt) // d)
    kblocks = p.k_blocks(d)
    last = p.m - (mtiles - 1) * mt
    least = max(d, MATMUL_MIN_PERIOD)
    tiles = mtiles * ntiles
    array = kblocks * all_blocks * ((mtiles - 1) * np.maximum(mt, least) + np.maximum(last, least))
    array = array / tiles
    vector = p.after.cycles(config, mt, blocks) if p.after else 0
    out = write_slots(config, p, mt, nt) + vector
    flush = matmul_done(d) + 2 * d  # from the last row of a tile to the start of its store
    busy = np.where(tiles > 1, np.maximum(array, (array + flush + out) / parts), array)
    a_read = _pieces(p, lambda n: _split(n, ka, lambda x: read_beats(config, p.a, mt, x, True)))
    w_read = _pieces(p, lambda n: _split(n, kt, lambda x: read_beats(config, p.w, x, nt)))
    outer, inner = np.where(rows_first, mtiles, ntiles), np.where(rows_first, ntiles, mtiles)
    keep, have = np.where(rows_first, a_slots, w_slots), np.where(rows_first, w_slots, a_slots)
    keeps, haves = np.where(rows_first, a_count, chunks), np.where(rows_first, chunks, a_count)
    out_read, in_read = np.where(rows_first, a_read, w_read), np.where(rows_first, w_read, a_read)
    if p.batches > 1:
        outer = outer * p.batches
        tiles = tiles * p.batches
    spare = np.maximum(0, have - 2)  # slots that keep their chunk until it is used again
    missing = np.where(have < haves * inner, 1 - np.minimum(1.0, spare / (haves * inner)), 0.0)
    lost = 1 - np.minimum(1.0, np.maximum(0, keep - AHEAD) / keeps)  # of the outer operand
    again = np.where(keep >= keeps, 0.0, out_read * lost)
    turn = np.maximum(busy, out_read + np.where(have >= haves, 0.0, in_read))
    fresh = np.maximum(busy, in_read + again)
    stale = np.maximum(busy, in_read * missing + again)
    total = np.maximum(busy, out_read + in_read) + (outer - 1) * turn
    total = total + (inner - 1) * (fresh + (outer - 1) * stale)
    total = np.maximum(total, tiles * write_slots(config, p, mt, nt))
    total = np.maximum(total, tiles * vector)
    moved = mtiles * a_read + ntiles * w_read  # then the array still has a chunk to do
    deep = np.where((mtiles > 1) & (ntiles == 1), -(-ka // d), depth)
    total = np.maximum(total, moved + np.maximum(mt, least) * deep * blocks)
    short = np.maximum(0.0, out + flush - kblocks * blocks * np.maximum(last, least))
    total = total + np.where(last < mt, np.where(tiles > 1, mt - last, 0) + short, 0)
    rows, cols = np.minimum(mt, d), np.minimum(nt, d)  # `head` and `tail` leave this to wait for
    first = read_beats(config, p.a, rows, ka, True) + read_beats(config, p.w, kt, cols)
    count = tiles * (2 * chunks + 1 + p.vectors) + mtiles * a_count
    total = np.maximum(total, SEQUENCER * count) + first
    total = total + write_slots(config, p, rows, cols)
    return np.where(fits, total + (1 + total / LONG) * count, np.inf)


def cost(config: ChipConfig, p: Problem, s: Schedule) -> float:
    """Estimated cycles of one contraction; what the first and last tiles look like is left out."""
    p = p.oriented(s)
    one = [np.array([v]) for v in (s.mt, s.nt, s.kt, s.a_banks, s.parts, s.order == "mn",
                                        s.ka)]  # fmt: skip
    return float(prices(config, p, *one)[0])


def floor(config: ChipConfig, p: Problem) -> float:
    """Cycles below which no schedule gets: the busiest of array and bus, and what cannot overlap.

    That is to fetch and load the first block, and to drain and store the last one.
    """
    d = config.dim
    one = np.array([p.m]), np.array([p.k]), np.array([p.n])
    array = p.k_blocks(d) * ceil_div(p.n, d) * max(p.m, d)
    reads = read_beats(config, p.a, one[0], one[1], True) * (1 if p.a.shared else p.batches)
    reads = reads + read_beats(config, p.w, one[1], one[2]) * (1 if p.w.shared else p.batches)
    writes = write_slots(config, p, one[0], one[2])
    busy = max(p.batches * array, float(reads[0]), p.batches * float(writes[0]))
    return busy + OUTSIDE + STORE_LONG * (not p.short) + d + matmul_done(d)


def _sizes(config: ChipConfig, p: Problem, parts: int) -> Iterator[tuple[int, int, int]]:
    d, half = config.dim, config.acc_rows // parts
    columns, depth = ceil_div(p.n, d), ceil_div(p.segment or p.k, d)
    vectors = 0 if p.turned else p.vectors
    most = min(columns, STORE_VECTOR_UNITS if vectors else half)
    widths = {1 << i for i in range(9)} | {ceil_div(columns, t) for t in (1, 2, 3, 4)}
    depths = {1 << i for i in range(9)} | {ceil_div(depth, t) for t in (1, 2, 3, 4)}
    for nb in sorted(w for w in widths if w <= most):
        nt = min(nb * d, p.n)
        kept = vectors * nb + (p.after.rows(config, 0, nb) if p.after else 0)
        each = nb + (p.after.rows(config, 1, nb) - p.after.rows(config, 0, nb) if p.after else 0)
        if nt < p.n and vectors * columns * RESIDENT <= half:
            kept = vectors * columns
        fit = (half - kept) // each
        if fit < 1:
            continue
        heights = {ceil_div(p.m, max(t, ceil_div(p.m, fit))) for t in HEIGHTS}
        heights |= {ceil_div(p.m, ceil_div(p.m, fit) + t) for t in (1, 2)}
        heights |= {min(p.m, h) for h in (d, 2 * d, 4 * d, 8 * d, fit // d * d) if 0 < h <= fit}
        for mt in sorted(heights):
            for kb in sorted(k for k in depths if k <= depth):
                yield mt, nt, min(kb * d, p.segment or p.k)


def ranked(config: ChipConfig, p: Problem, count: int) -> list[Schedule]:
    """The cheapest candidates, cheapest first; ties keep their order, so it is deterministic.

    One row, one column block and one K-block fit every legal chip, so there is always one.
    """
    d = config.dim
    rows, price, turned = [], [], []
    splits = BANK_SPLITS if spad_banks(config) == BANKS else (*BANK_SPLITS, BANKS // 2)
    turn = p.after is None and floor(config, p.transposed) < floor(config, p)
    ways = (p, p.transposed) if turn else (p,)
    if p.a.taps:
        ways = (p.transposed if p.a.lanes else p,)
    for q in ways:
        least = min(d, q.n), min(d, q.k)
        some = [(1, *least, BANK_SPLITS[0], 2, True, 0)]
        if q.a.taps or q.w.taps:
            some += [(1, *least, banks, 2, True, ka) for banks in (1, *BANK_SPLITS)
                     for ka in (0, q.k * (not q.segment))]  # fmt: skip
        for parts in PARTS:
            for mt, nt, kt in _sizes(config, q, parts):
                deep = (0, q.k) if kt < q.k and not q.segment else (0,)
                some += [(mt, nt, kt, a, parts, o, ka) for a in splits for o in (True, False)
                         for ka in deep]  # fmt: skip
        rows.append(np.array(some))
        price.append(prices(config, q, *rows[-1].T))
        turned += [q.turned] * len(some)
    table, cycles = np.concatenate(rows), np.concatenate(price)
    found: list[Schedule] = []
    for i in np.argsort(cycles, kind="stable"):
        if len(found) == count or not np.isfinite(cycles[i]):
            break
        mt, nt, kt, a_banks, parts, rows_first, ka = table[i].tolist()
        s = Schedule(mt, nt, kt, "mn" if rows_first else "nm", ka=ka, swap=turned[i],
                     a_banks=a_banks, parts=parts)  # fmt: skip
        if any((s.mt, s.nt, s.kt, s.ka, s.parts) == (f.mt, f.nt, f.kt, f.ka, f.parts)
               for f in found):  # fmt: skip
            continue  # the same tiles in another order, and dearer
        if ka and sum(f.ka > 0 for f in found) > count // 2:
            continue  # of both kinds
        try:
            check(config, p, s)
            slots(config, p, s)
        except ScheduleError:
            continue
        found.append(s)
    return found
