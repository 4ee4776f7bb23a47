"""Schedules as data: tile sizes, loop order and the shape of the first and last tiles.

A schedule never changes bits, only cycles: K ascends inside every output tile whatever the loop
order. Activations and weights live in different scratchpad banks, output tiles in two or more parts
of the accumulator, so that one tile drains while the next one grows. Tiles are walked in a snake,
so that a turn reuses the inner operand.

`check` and `slots` say whether a schedule fits; `schedule_cost` prices it, `refine` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import accumulate, pairwise

from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig

A_BANKS = 5  # scratchpad banks of activations (and of maps and moves); the others hold weights
SEQUENCER = 12  # cycles in which the sequencer dispatches an instruction of a unit, about
LONG = 1 << 18  # an instruction more costs 1 + cycles / LONG cycles: programs stay short
RESIDENT = 8  # vectors stay in a half if they take at most this fraction of it
MAX_COUNT = 65535  # of an instruction's count fields
GROUPS = 8  # column groups into which a last tile with a tail is cut


class ScheduleError(ValueError):
    """A schedule that does not fit the chip; says which buffer, and by how much."""


@dataclass(frozen=True)
class Schedule:
    """How one contraction runs.

    Parameters
    ----------
    mt, nt, kt : rows, columns and contraction length of a tile, in elements.
    order : "mn" walks columns inside rows, "nm" rows inside columns.
    first_m, last_m : rows of the first and last tiles, if they are to be smaller; then the rows
        double from tile to tile up to mt, and halve at the end (0: they do not).
    first_k, last_k : contraction length of the first and last chunks, likewise.
    head : rows with which the very first chunk begins, so that the array starts on one block of
        weights and these rows, and grows from there by doubling (0: it waits for the chunk).
    tail : rows with which the very last tile ends: it is stored in groups of columns, the last one
        in pieces that halve down to these rows, while the array still works on the rest (0: whole;
        as many as the tile has: in groups of columns only).
    a_banks : scratchpad banks of activations; the others hold weights.
    parts : parts of the accumulator: output tiles that grow, wait for their store or are stored.
    """

    mt: int
    nt: int
    kt: int
    order: str = "mn"
    first_m: int = 0
    last_m: int = 0
    first_k: int = 0
    last_k: int = 0
    head: int = 0
    tail: int = 0
    a_banks: int = A_BANKS
    parts: int = 2

    def __str__(self) -> str:
        extra = (
            f" {f.name} {getattr(self, f.name)}"
            for f in fields(self)[4:]
            if getattr(self, f.name) != f.default
        )
        return f"tile {self.mt}x{self.nt}x{self.kt} order {self.order}{''.join(extra)}"


@dataclass(frozen=True)
class Operand:
    """What matters of an operand's place in DRAM.

    Parameters
    ----------
    size : bytes of an element.
    way : "rows": local rows are contiguous there; "columns": local columns are, LOAD transposes;
        "gather": neither, every element is a beat.
    pitch, first : bytes between contiguous runs; address of the first one (modulo 64).
    shared : whether all batches read the same.
    """

    size: int
    way: str = "rows"
    pitch: int = 0
    first: int = 0
    shared: bool = True


@dataclass(frozen=True)
class Problem:
    """What scheduling knows of a contraction: a (M, K) times w (K, N), in each batch.

    `local` is the granules of `dim` elements (1: 8 bit, 2: bf16), `out_bytes` those of a result,
    `vectors` the number of per-column epilogue operands, `passes` how often all of K is multiplied.
    """

    m: int
    n: int
    k: int
    local: int
    a: Operand
    w: Operand
    out_bytes: int
    vectors: int
    batches: int = 1
    passes: int = 1


Span = tuple[int, int]


def cell_rows(config: ChipConfig) -> int:
    """Tiles start at multiples of this many accumulator rows."""
    return 1


def ceil_div(a: int, b: int) -> int:
    """A quotient rounded up."""
    return -(-a // b)


def cell_granules(config: ChipConfig) -> int:
    """Slots start at multiples of this many granules: bf16 rows are aligned pairs."""
    return 2


def spans(length: int, step: int, first: int = 0, last: int = 0, unit: int = 1) -> list[Span]:
    """Cut `length` into parts of `step`; those before grow from `first`, those behind shrink.

    Sizes double up to `step` and halve down to `last` (0: they do not). All cuts are multiples of
    `unit`; what is left is added to the last part, if it fits there.
    """
    whole = max(length // unit * unit, min(unit, length))
    up, down = (
        [x << i for i in range(step.bit_length()) if x and x << i < step] for x in (first, last)
    )
    while sum(up) + sum(down) > whole:
        (up if sum(up) >= sum(down) else down).pop()
    middle = whole - sum(up) - sum(down)
    sizes = [*up, *[step] * (middle // step), *[middle % step] * (middle % step > 0), *down[::-1]]
    rest = length - whole
    if rest and sizes[-1] + rest > step:
        sizes.append(0)
    sizes[-1] += rest
    return list(pairwise([0, *accumulate(sizes)]))


def grid(config: ChipConfig, p: Problem, s: Schedule) -> tuple[list[Span], list[Span], list[Span]]:
    """The parts of M, N and K."""
    return (
        spans(p.m, s.mt, s.first_m, s.last_m),
        spans(p.n, s.nt),
        spans(p.k, s.kt, s.first_k, s.last_k, config.dim),
    )


def widest(parts: list[Span]) -> int:
    """The longest part."""
    return max(b - a for a, b in parts)


def vector_blocks(config: ChipConfig, vectors: int, n: int, nt: int, parts: int = 2) -> int:
    """Column blocks of each vector that a part holds: all of them if they are few, else a tile's.

    Those of all columns are loaded once; those of a tile wait for the part's last store.
    """
    blocks = ceil_div(n, config.dim)
    if nt % config.dim == 0 and vectors * blocks * RESIDENT <= config.acc_rows // parts:
        return blocks
    return ceil_div(min(nt, n), config.dim)


def vector_rows(config: ChipConfig, vectors: int, n: int, nt: int, parts: int = 2) -> int:
    """Accumulator rows at the end of a part that are kept for the vectors of a tile."""
    return vectors * vector_blocks(config, vectors, n, nt, parts)


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


def tail_pieces(
    config: ChipConfig, p: Problem, s: Schedule, tile: tuple[int, int], part: int
) -> list[Piece]:
    """Place the pieces of the last tile; those that follow each other lie in different banks.

    They may use all parts but the one before `part`, whose vectors their stores read.

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
    held = vector_rows(config, p.vectors, p.n, s.nt, s.parts)
    order = [(part * each + i) % BANKS for i in range(BANKS - each)]
    end = {}  # rows that a bank has for tiles
    for b in order:
        to_end = (b // each + 1) * each * bank - held - b * bank
        end[b] = max(0, min(bank, to_end))
    level = dict.fromkeys(order, 0)  # rows in use of each bank
    out, turn = [], 0
    for r0, r1, c0, c1 in tail_cuts(rows, blocks, s.tail):
        size = (r1 - r0) * (c1 - c0)
        for i in range(len(order)):
            banks = _room(order[(turn + i) % len(order) :], size, bank, level, end)
            if banks:
                break
        else:
            raise ScheduleError(
                f"{s}: the tail needs banks of their own for pieces that follow each other; "
                f"{size} accumulator rows find no place"
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


def check(config: ChipConfig, p: Problem, s: Schedule) -> None:
    """Refuse a schedule that no chip could run, or whose output tile does not fit.

    Raises
    ------
    ScheduleError
        Names the field, its value and the limit.
    """
    d = config.dim
    if s.order not in ("mn", "nm"):
        raise ScheduleError(f"{s}: order must be 'mn' or 'nm', not {s.order!r}")
    for name in ("mt", "nt", "kt"):
        value = getattr(s, name)
        if not 1 <= value <= MAX_COUNT:
            raise ScheduleError(f"{s}: {name} must be in 1 to {MAX_COUNT}, not {value}")
    if s.kt % d and s.kt < p.k:
        raise ScheduleError(
            f"{s}: kt must be a multiple of dim ({d}) or at least K ({p.k}), not {s.kt}"
        )
    for name, most in (("first_m", s.mt), ("last_m", s.mt), ("first_k", s.kt), ("last_k", s.kt),
                       ("head", s.mt), ("tail", s.mt)):  # fmt: skip
        value = getattr(s, name)
        if not 0 <= value <= most:
            raise ScheduleError(f"{s}: {name} must be in 0 to {most}, not {value}")
    if s.first_k % d:
        raise ScheduleError(f"{s}: first_k must be a multiple of dim ({d}), not {s.first_k}")
    if not 1 <= s.a_banks < BANKS:
        raise ScheduleError(f"{s}: a_banks must be in 1 to {BANKS - 1}, not {s.a_banks}")
    if s.parts not in (2, 4, 8):
        raise ScheduleError(f"{s}: parts must be 2, 4 or 8, not {s.parts}")
    blocks = ceil_div(min(s.nt, p.n), d)
    if p.vectors and blocks > STORE_VECTOR_UNITS:
        raise ScheduleError(
            f"{s}: nt must be at most {STORE_VECTOR_UNITS * d} with a scale or bias, not {s.nt}"
        )
    rows = min(s.mt, p.m) * blocks + vector_rows(config, p.vectors, p.n, s.nt, s.parts)
    part = config.acc_rows // s.parts
    if rows > part:
        raise ScheduleError(
            f"{s}: an output tile with its vectors needs {rows} accumulator rows, "
            f"{rows - part} more than 1 of {s.parts} parts has"
        )
    if s.tail:
        tail_pieces(config, p, s, last_tile(config, p, s), 0)


def last_tile(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Rows and columns of the tile that is walked last."""
    rows, cols, _ = grid(config, p, s)
    if s.order == "mn":
        i, j = rows[-1], cols[0 if len(rows) % 2 == 0 else -1]
    else:
        i, j = rows[0 if len(cols) % 2 == 0 else -1], cols[-1]
    return i[1] - i[0], j[1] - j[0]


def slot_sizes(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Granules of an activation slot and of a weight slot."""
    d, cell = config.dim, cell_granules(config)
    rows, cols, chunks = grid(config, p, s)
    depth = ceil_div(widest(chunks), d)
    a = widest(rows) * depth * p.local
    w = d * depth * ceil_div(widest(cols), d) * p.local
    return ceil_div(a, cell) * cell, ceil_div(w, cell) * cell


def slots(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Number of activation and weight slots that fit (`s` is legal otherwise).

    Raises
    ------
    ScheduleError
        Fewer than two, where there is more than one chunk.
    """
    rows, cols, chunks = grid(config, p, s)
    found = []
    for what, size, banks, tiles in zip(
        ("activation", "weight"), slot_sizes(config, p, s), (s.a_banks, BANKS - s.a_banks),
        (len(rows), len(cols)), strict=True,
    ):  # fmt: skip
        fit = banks * config.spad_bank // size
        need = min(2, tiles * len(chunks))
        if fit < need:
            raise ScheduleError(
                f"{s}: {need} {what} slots of {size} granules need {need * size} granules, "
                f"not {banks * config.spad_bank}"
            )
        if 0 < s.tail < last_tile(config, p, s)[0] and fit < len(chunks) * p.passes:
            raise ScheduleError(
                f"{s}: a tail needs a slot for each of {len(chunks) * p.passes} {what} chunks, "
                f"not {fit}"
            )
        found.append(min(fit, tiles * len(chunks) * p.passes * p.batches))
    return found[0], found[1]
