"""Schedules as data: tile sizes, loop order and slots of a contraction, and how one is chosen.

A schedule never changes bits, only cycles: K ascends inside every output tile whatever the loop order. The local
memories are split once for all kernels: activations and weights live in different scratchpad banks, output tiles in
two halves of the accumulator, so that one tile drains while the next one grows.

The default schedule minimises an analytic cost: max of array, read and write cycles, plus the first load and the
last store, which nothing hides.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig
from tilewright.isa.timing import MATMUL_MIN_PERIOD

A_BANKS = 5  # scratchpad banks of activations (and of maps and moves); the others hold weights
SEQUENCER = 12  # cycles in which the sequencer dispatches an instruction of a unit, about
PER_INSTRUCTION = 4  # price of one more instruction where cycles are equal: program size


class ScheduleError(ValueError):
    """A schedule that does not fit the chip; says which buffer, and by how much."""


@dataclass(frozen=True)
class Schedule:
    """How one contraction runs.

    Parameters
    ----------
    mt, nt, kt : rows, columns and contraction length of a tile, in elements; kt is a multiple of dim or K.
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

    `local` is the granules of `dim` elements (1: 8 bit, 2: bf16); `a_bytes`, `w_bytes`, `out_bytes` are those of an
    element in DRAM; `vectors` is the number of per-column epilogue operands.
    """

    m: int
    n: int
    k: int
    local: int
    a_bytes: int
    w_bytes: int
    out_bytes: int
    vectors: int


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def slots(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Number of activation and weight slots that fit.

    Raises
    ------
    ScheduleError
        Fewer than two (or than the chunks that there are), or an output tile that does not fit its half.
    """
    d = config.dim
    blocks, depth = ceil_div(s.nt, d), ceil_div(s.kt, d)
    unit = cell_rows(config)
    rows = ceil_div(s.mt * blocks, unit) * unit + ceil_div(p.vectors * blocks, unit) * unit
    if rows > config.acc_rows // 2:
        raise ScheduleError(
            f"{s}: the output tile needs {rows} accumulator rows, {rows - config.acc_rows // 2} more than a half has"
        )
    if p.vectors and blocks > STORE_VECTOR_UNITS:
        raise ScheduleError(
            f"{s}: nt must be at most {STORE_VECTOR_UNITS * d} with a scale or bias"
        )
    if s.mt > 65535 or s.kt > 65535 or s.nt > 65535:
        raise ScheduleError(f"{s}: a tile must be at most 65535 long")
    chunks = ceil_div(p.k, s.kt)
    cell = cell_granules(config)
    found = []
    for what, size, banks, tiles in (
        ("activation", s.mt * depth * p.local, A_BANKS, ceil_div(p.m, s.mt)),
        ("weight", d * depth * blocks * p.local, BANKS - A_BANKS, ceil_div(p.n, s.nt)),
    ):
        size = ceil_div(size, cell) * cell
        fit = banks * config.spad_bank // size
        if fit < min(2, tiles * chunks):
            raise ScheduleError(
                f"{s}: an {what} slot needs {size} granules; {banks * config.spad_bank} hold {fit} of them, not 2"
            )
        found.append(min(fit, tiles * chunks))
    return found[0], found[1]


def cell_granules(config: ChipConfig) -> int:
    """Slots start at multiples of this many granules; dependencies are tracked by it."""
    return max(2, config.spad_bank // 64)


def cell_rows(config: ChipConfig) -> int:
    """Like `cell_granules`, for accumulator rows."""
    return max(1, config.acc_rows // 128)


def beats(config: ChipConfig, count: int, size: int) -> int:
    """Bus beats of `count` contiguous elements, aligned."""
    return ceil_div(count * size, config.bus_bytes)


def cost(config: ChipConfig, p: Problem, s: Schedule) -> float:
    """Estimated cycles of one contraction."""
    d = config.dim
    a_slots, w_slots = slots(config, p, s)
    mtiles, ntiles, chunks = ceil_div(p.m, s.mt), ceil_div(p.n, s.nt), ceil_div(p.k, s.kt)
    kblocks, nblocks = ceil_div(p.k, d), ceil_div(p.n, d)
    last = p.m - (mtiles - 1) * s.mt
    least = max(d, MATMUL_MIN_PERIOD)
    array = kblocks * nblocks * ((mtiles - 1) * max(s.mt, least) + max(last, least))
    a_load = p.m * chunks * beats(config, min(s.kt, p.k), p.a_bytes)
    w_load = p.k * ntiles * beats(config, min(s.nt, p.n), p.w_bytes)
    if s.order == "mn":
        a_times = 1 if a_slots >= chunks else ntiles
        w_times = 1 if w_slots >= chunks * ntiles else mtiles
    else:
        a_times = 1 if a_slots >= chunks * mtiles else ntiles
        w_times = 1 if w_slots >= chunks else mtiles
    read = a_load * a_times + w_load * w_times
    out = beats(config, min(s.nt, p.n), p.out_bytes)
    write = p.m * ntiles * out
    first = min(s.mt, p.m) * beats(config, min(s.kt, p.k), p.a_bytes)
    first += min(s.kt, p.k) * beats(config, min(s.nt, p.n), p.w_bytes)
    drain = min(s.mt, last) * out
    loads = (a_times * mtiles + w_times * ntiles) * chunks
    count = loads + mtiles * ntiles * (chunks + 1 + p.vectors)
    return max(array, read, write, SEQUENCER * count) + first + drain + PER_INSTRUCTION * count


def candidates(config: ChipConfig, p: Problem) -> list[Schedule]:
    """Schedules worth pricing: powers of two of blocks, balanced rows."""
    d = config.dim
    out = []
    kts = {min(p.k, d << i) for i in range(0, 12)}
    nbs = {min(ceil_div(p.n, d), 1 << i) for i in range(0, 6)}
    for nb in sorted(nbs):
        unit = cell_rows(config)
        fit = (config.acc_rows // 2 - ceil_div(p.vectors * nb, unit) * unit) // nb
        if fit < 1:
            continue
        tiles = ceil_div(p.m, fit)
        rows = {min(p.m, ceil_div(p.m, t)) for t in (tiles, tiles + 1, 2 * tiles, 4 * tiles)}
        for mt in sorted(rows):
            for kt in sorted(kts):
                for order in ("mn", "nm"):
                    out.append(Schedule(mt, min(nb * d, p.n), kt, order))
    return out


def choose(config: ChipConfig, p: Problem) -> Schedule:
    """The cheapest candidate; ties go to the first, so the choice is deterministic.

    Raises
    ------
    ScheduleError
        No candidate fits this chip.
    """
    best: tuple[float, Schedule] | None = None
    why: ScheduleError | None = None
    for s in candidates(config, p):
        try:
            price = cost(config, p, s)
        except ScheduleError as error:
            why = error
            continue
        if best is None or price < best[0]:
            best = (price, s)
    if best is None:
        raise ScheduleError(f"no schedule of {p} fits {config.name}: {why}")
    return best[1]
