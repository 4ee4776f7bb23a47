"""Schedules as data: tile sizes and loop order of a contraction, and how one is chosen.

A schedule never changes bits, only cycles: K ascends inside every output tile whatever the loop
order. The local memories are split once for all kernels: activations and weights live in different
scratchpad banks, output tiles in two halves of the accumulator, so that one tile drains while the
next one grows. Tiles are walked in a snake, so that a turn reuses the inner operand.

The default schedule minimises an analytic cost: for the first tile, the tiles at a turn and the
others, the slower of array and reads; plus the first load and the last store, which nothing hides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD, matmul_done

A_BANKS = 5  # scratchpad banks of activations (and of maps and moves); the others hold weights
SEQUENCER = 12  # cycles in which the sequencer dispatches an instruction of a unit, about
LONG = 1 << 18  # an instruction more costs 1 + cycles / LONG cycles: programs stay short
RESIDENT = 8  # vectors stay in a half if they take at most this fraction of it
MAX_COUNT = 65535  # of an instruction's count fields


class ScheduleError(ValueError):
    """A schedule that does not fit the chip; says which buffer, and by how much."""


@dataclass(frozen=True)
class Schedule:
    """How one contraction runs.

    Parameters
    ----------
    mt, nt, kt : rows, columns and contraction length of a tile, in elements.
    order : "mn" walks columns inside rows, "nm" rows inside columns.
    """

    mt: int
    nt: int
    kt: int
    order: str = "mn"

    def __str__(self) -> str:
        return f"tile {self.mt}x{self.nt}x{self.kt} order {self.order}"


@dataclass(frozen=True)
class Problem:
    """What the cost model knows of a contraction: sizes and bytes.

    `local` is the granules of `dim` elements (1: 8 bit, 2: bf16); `a_bytes`, `w_bytes`, `out_bytes`
    are those of an element in DRAM; `vectors` is the number of per-column epilogue operands.
    `a_dense`, `w_dense`: whether rows are contiguous in DRAM (else every element is a beat).
    """

    m: int
    n: int
    k: int
    local: int
    a_bytes: int
    w_bytes: int
    out_bytes: int
    vectors: int
    a_dense: bool = True
    w_dense: bool = True


def ceil_div(a: int, b: int) -> int:
    """A quotient rounded up."""
    return -(-a // b)


def cell_granules(config: ChipConfig) -> int:
    """Slots start at multiples of this many granules; dependencies are tracked by it."""
    return max(2, config.spad_bank // 64)


def cell_rows(config: ChipConfig) -> int:
    """Like `cell_granules`, for accumulator rows."""
    return max(1, config.acc_rows // 128)


def vector_blocks(config: ChipConfig, vectors: int, n: int, nt: int) -> int:
    """Column blocks of each vector that a half holds: all of them if they are few, else a tile's.

    Those of all columns are loaded once; those of a tile wait for the half's last store.
    """
    blocks = ceil_div(n, config.dim)
    if nt % config.dim == 0 and vectors * blocks * RESIDENT <= config.acc_rows // 2:
        return blocks
    return ceil_div(min(nt, n), config.dim)


def vector_rows(config: ChipConfig, vectors: int, n: int, nt: int) -> int:
    """Accumulator rows at the end of a half that are kept for the vectors of a tile."""
    unit = cell_rows(config)
    return ceil_div(vectors * vector_blocks(config, vectors, n, nt), unit) * unit


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
    blocks = ceil_div(s.nt, d)
    if p.vectors and blocks > STORE_VECTOR_UNITS:
        raise ScheduleError(
            f"{s}: nt must be at most {STORE_VECTOR_UNITS * d} with a scale or bias, not {s.nt}"
        )
    unit = cell_rows(config)
    rows = ceil_div(s.mt * blocks, unit) * unit + vector_rows(config, p.vectors, p.n, s.nt)
    half = config.acc_rows // 2
    if rows > half:
        raise ScheduleError(
            f"{s}: an output tile with its vectors needs {rows} accumulator rows, "
            f"{rows - half} more than a half has"
        )


def slots(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Number of activation and weight slots that fit (`s` is legal otherwise).

    Raises
    ------
    ScheduleError
        Fewer than two, where there is more than one chunk.
    """
    d = config.dim
    blocks, depth = ceil_div(s.nt, d), ceil_div(s.kt, d)
    chunks = ceil_div(p.k, s.kt)
    cell = cell_granules(config)
    found = []
    for what, size, banks, tiles in (
        ("activation", s.mt * depth * p.local, A_BANKS, ceil_div(p.m, s.mt)),
        ("weight", d * depth * blocks * p.local, BANKS - A_BANKS, ceil_div(p.n, s.nt)),
    ):
        size = ceil_div(size, cell) * cell
        fit = banks * config.spad_bank // size
        need = min(2, tiles * chunks)
        if fit < need:
            raise ScheduleError(
                f"{s}: {need} {what} slots of {size} granules need {need * size} granules, "
                f"not {banks * config.spad_bank}"
            )
        found.append(min(fit, tiles * chunks))
    return found[0], found[1]


def beats(config: ChipConfig, count: int, size: int, dense: bool = True) -> float:
    """Bus beats of a run of `count` elements, on average over its alignment if it is ragged."""
    if not dense:
        return count
    whole = ceil_div(count * size, config.bus_bytes)
    return whole if count * size % config.bus_bytes == 0 else whole + 0.5


def cost(config: ChipConfig, p: Problem, s: Schedule) -> float:
    """Estimated cycles of one contraction."""
    d = config.dim
    a_slots, w_slots = slots(config, p, s)
    mtiles, ntiles, chunks = ceil_div(p.m, s.mt), ceil_div(p.n, s.nt), ceil_div(p.k, s.kt)
    kblocks, nblocks = ceil_div(p.k, d), ceil_div(p.n, d)
    mt, nt, kt = min(s.mt, p.m), min(s.nt, p.n), min(s.kt, p.k)
    last = p.m - (mtiles - 1) * mt
    least = max(d, MATMUL_MIN_PERIOD)
    array = kblocks * nblocks * ((mtiles - 1) * max(mt, least) + max(last, least))
    array /= mtiles * ntiles
    out = mt * beats(config, nt, p.out_bytes)
    flush = matmul_done(d) + 2 * d  # from the last row of a tile to the start of its store
    if mtiles * ntiles > 1:  # the next but one tile waits for the store
        array = max(array, (array + flush + out) / 2)
    a_read = mt * chunks * beats(config, kt, p.a_bytes, p.a_dense)
    w_read = p.k * beats(config, nt, p.w_bytes, p.w_dense)
    if s.order == "mn":
        outer, inner, keep, have, reuse = mtiles, ntiles, a_slots, w_slots, (a_read, w_read)
    else:
        outer, inner, keep, have, reuse = ntiles, mtiles, w_slots, a_slots, (w_read, a_read)
    out_read, in_read = reuse
    spare = max(0, have - 2)  # slots that keep their chunk until it is used again
    missing = 1 - min(1.0, spare / (chunks * inner)) if have < chunks * inner else 0.0
    again = 0.0 if keep >= chunks else out_read
    turn = max(array, out_read + (0.0 if have >= chunks else in_read))
    fresh = max(array, in_read + again)
    stale = max(array, in_read * missing + again)
    total = max(array, out_read + in_read) + (outer - 1) * turn
    total += (inner - 1) * (fresh + (outer - 1) * stale)
    total = max(total, mtiles * ntiles * out)
    if last < mt:  # the first short pass waits for a long one, the last tile for a long store
        total += mt - last
        total += max(0.0, out + flush - kblocks * ceil_div(nt, d) * max(last, least))
    first = mt * beats(config, kt, p.a_bytes, p.a_dense)
    first += kt * beats(config, nt, p.w_bytes, p.w_dense)
    drain = min(mt, last) * beats(config, nt, p.out_bytes)
    count = mtiles * ntiles * (2 * chunks + 1 + p.vectors) + mtiles * chunks
    total = max(total, SEQUENCER * count) + first + drain
    return total + (1 + total / LONG) * count


def candidates(config: ChipConfig, p: Problem) -> Iterator[Schedule]:
    """Schedules worth pricing: powers of two of blocks, balanced rows; all of them legal."""
    d = config.dim
    unit, half = cell_rows(config), config.acc_rows // 2
    most = STORE_VECTOR_UNITS if p.vectors else 32
    kts = sorted({min(p.k, d << i) for i in range(12)})
    for nb in sorted({min(ceil_div(p.n, d), most, 1 << i) for i in range(6)}):
        room = (half - vector_rows(config, p.vectors, p.n, nb * d)) // unit * unit
        fit = min(room // nb, MAX_COUNT)
        if fit < 1:
            continue
        tiles = ceil_div(p.m, fit)
        heights = {ceil_div(p.m, t) for t in (tiles, tiles + 1, 2 * tiles, 4 * tiles)}
        if fit // d:
            heights.add(min(p.m, fit // d * d))
        for mt in sorted(heights):
            for kt in kts:
                if kt % d == 0 or kt >= p.k:
                    for order in ("mn", "nm"):
                        yield Schedule(mt, min(nb * d, p.n), kt, order)


def choose(config: ChipConfig, p: Problem) -> Schedule:
    """The cheapest candidate; ties go to the first, so the choice is deterministic.

    One row, one column block and one K-block fit every legal chip, so there is always one.
    """
    best: tuple[float, Schedule] | None = None
    for s in candidates(config, p):
        try:
            price = cost(config, p, s)
        except ScheduleError:
            continue
        if best is None or price < best[0]:
            best = (price, s)
    if best is not None:
        return best[1]
    mt = p.m
    while mt > 1:
        mt = ceil_div(mt, 2)
        s = Schedule(mt, min(config.dim, p.n), min(config.dim, p.k))
        try:
            check(config, p, s)
            slots(config, p, s)
        except ScheduleError:
            continue
        break
    return Schedule(mt, min(config.dim, p.n), min(config.dim, p.k))
