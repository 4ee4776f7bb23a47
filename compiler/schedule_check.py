"""Whether a schedule fits the chip; what does not is refused with the buffer and by how much."""

from __future__ import annotations

from math import prod

from tilewright.compiler.patches import boxes, lane_box
from tilewright.compiler.schedule import (
    MAX_COUNT,
    Problem,
    Schedule,
    ScheduleError,
    a_chunks,
    ceil_div,
    cell_granules,
    grid,
    held_rows,
    portions,
    widest,
    widest_tile,
)
from tilewright.compiler.schedule_after import weight_banks
from tilewright.compiler.schedule_pieces import first_tile, last_tile, tile_pieces
from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, ChipConfig


def check(config: ChipConfig, p: Problem, s: Schedule) -> None:
    """Refuse a schedule that no chip could run, or whose output tile does not fit.

    Raises
    ------
    ScheduleError
        Names the field, its value and the limit.
    """
    d, p = config.dim, p.oriented(s)
    if s.order not in ("mn", "nm"):
        raise ScheduleError(f"{s}: order must be 'mn' or 'nm', not {s.order!r}")
    for name in ("mt", "nt", "kt"):
        value = getattr(s, name)
        if not 1 <= value <= MAX_COUNT:
            raise ScheduleError(f"{s}: {name} must be in 1 to {MAX_COUNT}, not {value}")
    length = p.segment or p.k
    if s.kt % d and s.kt < length:
        raise ScheduleError(
            f"{s}: kt must be a multiple of dim ({d}) or at least K ({length}), not {s.kt}"
        )
    if p.segment and (s.kt > length or s.ka):
        raise ScheduleError(
            f"{s}: kt must be at most a piece of K ({length}) and ka 0, not {s.kt} and {s.ka}"
        )
    if s.ka and (s.ka < s.kt or (s.ka % s.kt and s.ka < p.k)):
        raise ScheduleError(
            f"{s}: ka must be a multiple of kt ({s.kt}) or at least K ({p.k}), not {s.ka}"
        )
    for name, most in (("first_m", s.mt), ("last_m", s.mt), ("last_k", s.kt),
                       ("first_k", s.ka or s.kt), ("head", s.mt), ("tail", s.mt), ("last_n", s.nt),
                       ("lead", ceil_div(s.nt, d))):  # fmt: skip
        value = getattr(s, name)
        if not 0 <= value <= most:
            raise ScheduleError(f"{s}: {name} must be in 0 to {most}, not {value}")
    for name in ("first_k", "last_k"):
        value = getattr(s, name)
        if value % d:
            raise ScheduleError(f"{s}: {name} must be a multiple of dim ({d}), not {value}")
    if s.ka and s.first_k % s.kt:
        raise ScheduleError(
            f"{s}: first_k must be a multiple of kt ({s.kt}) with ka, not {s.first_k}"
        )
    if not 1 <= s.a_banks < BANKS:
        raise ScheduleError(f"{s}: a_banks must be in 1 to {BANKS - 1}, not {s.a_banks}")
    if p.a.way == "patches":
        _check_patches(config, p, s)
    if p.w.way == "turned" and prod(p.w.pixels) > MAX_COUNT:
        _check_lanes(config, p, s)
    if s.across and (p.local > 1 or s.head):
        raise ScheduleError(f"{s}: across needs 8-bit operands and no head")
    if s.parts not in (2, 4, 8):
        raise ScheduleError(f"{s}: parts must be 2, 4 or 8, not {s.parts}")
    if s.swap and p.after:
        raise ScheduleError(f"{s}: what VECTOR finishes is not transposed by STORE, not with swap")
    if weight_banks(config, p, s, widest_tile(config, p, s)) < 1:
        raise ScheduleError(
            f"{s}: a_banks {s.a_banks} and VECTOR's operands leave no scratchpad bank for weights"
        )
    blocks = ceil_div(min(s.nt, p.n), d)
    if s.swap and p.vectors:
        _check_rows(config, p, s)
    if p.vectors and not s.swap and blocks > STORE_VECTOR_UNITS:
        raise ScheduleError(
            f"{s}: nt must be at most {STORE_VECTOR_UNITS * d} with a scale or bias, not {s.nt}"
        )
    rows = min(s.mt, p.m) * blocks
    rows += held_rows(config, p, s)
    part = config.acc_rows // s.parts
    if rows > part:
        raise ScheduleError(
            f"{s}: an output tile with its operands needs {rows} accumulator rows, "
            f"{rows - part} more than 1 of {s.parts} parts has"
        )
    if s.tail:
        tile_pieces(config, p, s, last_tile(config, p, s), 0, True)
    if s.lead:
        tile_pieces(config, p, s, first_tile(config, p, s), 0, False)


def _check_patches(config: ChipConfig, p: Problem, s: Schedule) -> None:
    """Refuse cuts of patches that LOAD cannot make."""
    d = config.dim
    chunks = a_chunks(config, p, s)
    if not s.ka:
        chunks = [*portions(config, s, chunks[0], True, False), *chunks[1:-1],
                  *portions(config, s, chunks[0], True, len(chunks) == 1),
                  *portions(config, s, chunks[-1], False, True)]  # fmt: skip
    for piece in chunks:
        if any((at - piece[0]) % d for at, _ in boxes(p.a.taps, piece)):
            raise ScheduleError(
                f"{s}: kt, or ka, must be a multiple of the {p.a.taps[0]} neighbours among the "
                f"taps, or all of them: columns {piece[0]} to {piece[1]} are no whole blocks"
            )


def _check_lanes(config: ChipConfig, p: Problem, s: Schedule) -> None:
    """Refuse columns that lie among more pixels than LOAD counts."""
    for first, last in grid(config, p, s)[1]:
        runs = prod(lane_box(p.w.pixels, (first, last))[0])
        if runs > MAX_COUNT:
            raise ScheduleError(
                f"{s}: columns {first} to {last} lie among {runs} pixels of whole rows and images, "
                f"LOAD counts at most {MAX_COUNT}: take an nt that divides those"
            )


def _check_rows(config: ChipConfig, p: Problem, s: Schedule) -> None:
    """Refuse row cuts of a swapped product inside of blocks: the vectors are per row there."""
    d = config.dim
    for start, _ in grid(config, p, s)[0]:
        if start % d:
            raise ScheduleError(
                f"{s}: tiles must begin at a multiple of dim ({d}) with a scale or bias and swap, "
                f"not at row {start}"
            )
    if 0 < s.tail < last_tile(config, p, s)[0]:
        raise ScheduleError(
            f"{s}: a tail must be whole rows of the last tile with a scale or bias and swap, "
            f"not {s.tail}"
        )


def slot_sizes(config: ChipConfig, p: Problem, s: Schedule) -> tuple[int, int]:
    """Granules of an activation slot and of a weight slot."""
    d, cell, p = config.dim, cell_granules(config), p.oriented(s)
    rows, cols, chunks = grid(config, p, s)
    a = widest(rows) * ceil_div(widest(a_chunks(config, p, s)), d) * p.local
    blocks = ceil_div(widest(cols), d)
    blocks += blocks % 2 * s.across
    w = d * ceil_div(widest(chunks), d) * blocks * p.local
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
    for what, size, banks, tiles, count in zip(
        ("activation", "weight"), slot_sizes(config, p, s),
        (s.a_banks, weight_banks(config, p.oriented(s), s, widest(cols))),
        (len(rows), len(cols)), (len(a_chunks(config, p, s)), len(chunks)), strict=True,
    ):  # fmt: skip
        fit = banks * config.spad_bank // size
        need = min(2, tiles * count)
        if fit < need:
            raise ScheduleError(
                f"{s}: {need} {what} slots of {size} granules need {need * size} granules, "
                f"not {banks * config.spad_bank}"
            )
        if 0 < s.tail < last_tile(config, p, s)[0] and fit < count * p.passes:
            raise ScheduleError(
                f"{s}: a tail needs a slot for each of {count * p.passes} {what} chunks, not {fit}"
            )
        found.append(min(fit, tiles * count * p.passes * p.batches))
    return found[0], found[1]
