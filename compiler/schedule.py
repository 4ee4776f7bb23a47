"""Schedules as data: tile sizes, loop order and the shape of the first and last tiles.

A schedule never changes bits, only cycles: K ascends inside every output tile whatever the loop
order. Activations and weights live in different scratchpad banks, output tiles in two or more parts
of the accumulator, so that one tile drains while the next one grows. Tiles are walked in a snake,
so that a turn reuses the inner operand.

`schedule_check` says whether a schedule fits, `schedule_pieces` how its tiles are cut for the ends;
`schedule_cost` and `schedule_model` price it, `refine` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import accumulate, pairwise

from tilewright.compiler.schedule_after import After, after_rows
from tilewright.isa.config import ChipConfig

A_BANKS = 5  # scratchpad banks of activations (and of maps and moves); the others hold weights
SEQUENCER = 9  # cycles in which the sequencer dispatches an instruction of a unit, about
LONG = 1 << 18  # an instruction more costs 1 + cycles / LONG cycles: programs stay short
RESIDENT = 8  # vectors stay in a half if they take at most this fraction of it
SHORT = 2  # local rows up to which an element by element gather is as fast as anything
FIRST = 3  # pieces in which the first tile's rows of an image are copied: none waits for another
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
    first_m, last_m : rows of the first and last tiles, if they are to be smaller; then the rows
        double from tile to tile up to mt, and halve at the end (0: they do not).
    last_n : columns of the last tile, which gets up to a block more (0: as the others).
    first_k : contraction length of the pieces in which the very first chunk comes and is multiplied
        (0: whole).
    last_k : contraction length of the piece with which the very last chunk ends; those before are
        twice as long each (0: whole).
    head : rows with which the very first chunk begins, so that the array starts on one block of
        weights and these rows, and grows from there by doubling (0: it waits for the chunk).
    lead : column blocks with which the stores of the very first tile begin; then they double up
        to half a bank (0: the tile is stored as a whole).
    tail : rows with which the very last tile ends: it is stored in groups of columns, the last one
        in pieces that halve down to these rows, while the array still works on the rest (0: whole;
        as many as the tile has: in groups of columns only).
    ka : contraction length of a chunk of activations, if it is longer than that of the weights'
        chunks: whole rows are read at once where cutting them costs beats (0: kt). Then `first_k`
        is the length of the first chunk of activations, and they double from there.
    swap : run the product as C^T = W^T A^T: A's rows become the array's columns, STORE transposes
        the result. Rows, columns, activations and weights are then those of that product.
    a_banks : scratchpad banks of activations; the others hold weights.
    parts : parts of the accumulator: output tiles that grow, wait for their store or are stored.
    across : a weight row's blocks lie side by side, so that LOAD writes two of 8-bit ones at once;
        whole rows come, without a head (else a block's rows do, and each block may come alone).
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
    last_n: int = 0
    lead: int = 0
    ka: int = 0
    swap: bool = False
    a_banks: int = A_BANKS
    parts: int = 2
    across: bool = False

    def __str__(self) -> str:
        extra = (
            f" {f.name}" if f.type == "bool" else f" {f.name} {getattr(self, f.name)}"
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
        "gather": neither, every element is a beat. "patches", "turned": likewise rows, or columns,
        of a convolution's patches (`Patches`), in runs.
    pitch, first : bytes between contiguous runs; address of the first one (modulo 64).
    shared : whether all batches read the same.
    taps, pixels : of patches, the counts of their levels, innermost first.
    lanes : whether pixels are to be columns of the array.
    """

    size: int
    way: str = "rows"
    pitch: int = 0
    first: int = 0
    shared: bool = True
    taps: tuple[int, ...] = ()
    pixels: tuple[int, ...] = ()
    lanes: bool = False

    def transposed(self, rows: int, cols: int) -> Operand:
        """What the operand of rows x cols is when its columns are local rows.

        Its own rows are short runs then, unless they are as short as an element.
        """
        if self.taps:
            return replace(self, way={"patches": "turned"}.get(self.way, "patches"))
        way = {"rows": "columns" if cols > SHORT else "gather", "columns": "rows"}
        kind = "rows" if rows == 1 else way.get(self.way, "gather")
        return replace(self, way=kind)


@dataclass(frozen=True)
class Copy:
    """What matters of the padded copy of an image, whose rows are made ahead of the patches' tiles.

    Parameters
    ----------
    across, down : results of an image along W and H.
    taps : elements of K of a kernel row.
    stride, dilation : rows from one result to the next, and from one kernel row to the next.
    load, store : slots for each row of the copy, on average.
    """

    across: int
    down: int
    taps: int
    stride: int
    dilation: int
    load: float
    store: float

    def needed(self, pixels: int, taps: int) -> int:
        """Rows that so many taps of the first so many results of all images see."""
        image, last = divmod(pixels - 1, self.across * self.down)
        reach = (taps - 1) // self.taps * self.dilation + 1
        return (image * (self.down - 1) + last // self.across) * self.stride + (image + 1) * reach


@dataclass(frozen=True)
class Problem:
    """What scheduling knows of a contraction: a (M, K) times w (K, N), in each batch.

    `local` is the granules of `dim` elements (1: 8 bit, 2: bf16), `out_bytes` those of a result,
    `vectors` the number of per-column epilogue operands, `passes` how often all of K is multiplied.
    K is cut into pieces of `segment` (0: it is not), each of whole blocks; a chunk has part of one.
    If it is `turned`, the result is the transposed one, its vectors are per row. `after` is what
    VECTOR does with a tile before it is stored, `short` the way through STORE's epilogue, `copy`
    makes the image of patches.
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
    segment: int = 0
    turned: bool = False
    after: After | None = None
    short: bool = False
    copy: Copy | None = None

    @property
    def segments(self) -> list[int]:
        """The lengths of the pieces of K."""
        length = self.segment or self.k
        return [min(length, self.k - at) for at in range(0, self.k, length)]

    def k_blocks(self, dim: int) -> int:
        """Blocks of K, those of its pieces counted one by one."""
        return sum(ceil_div(n, dim) for n in self.segments)

    @property
    def transposed(self) -> Problem:
        """The same product as C^T = W^T A^T."""
        return replace(
            self, m=self.n, n=self.m, a=self.w.transposed(self.k, self.n),
            w=self.a.transposed(self.m, self.k), turned=not self.turned,
        )  # fmt: skip

    def oriented(self, s: Schedule) -> Problem:
        """The product that a schedule runs."""
        return self if s.swap == self.turned else self.transposed


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
    return list(_spans(length, step, first, last, unit))


@lru_cache(maxsize=1 << 14)
def _spans(length: int, step: int, first: int, last: int, unit: int) -> tuple[Span, ...]:
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
    return tuple(pairwise([0, *accumulate(sizes)]))


def columns(n: int, nt: int, last: int, dim: int) -> list[Span]:
    """The columns in parts of `nt`; the last part has `last` of them, or up to a block more."""
    rest = (n - last) // dim * dim
    if not 0 < rest < n or not last:
        return spans(n, nt)
    return [*spans(rest, nt), (rest, n)]


def grid(config: ChipConfig, p: Problem, s: Schedule) -> tuple[list[Span], list[Span], list[Span]]:
    """The parts of M, N and K."""
    d, p = config.dim, p.oriented(s)
    return (
        spans(p.m, s.mt, s.first_m, s.last_m),
        columns(p.n, s.nt, s.last_n, d),
        k_chunks(config, p, s.kt),
    )


def k_chunks(config: ChipConfig, p: Problem, kt: int) -> list[Span]:
    """K in parts of `kt`, those of its pieces one after another."""
    starts = accumulate(p.segments, initial=0)
    return [(at + a, at + b) for at, n in zip(starts, p.segments, strict=False)
            for a, b in spans(n, kt, 0, 0, config.dim)]  # fmt: skip


def a_chunks(config: ChipConfig, p: Problem, s: Schedule) -> list[Span]:
    """The parts of K in which activations are held."""
    if not s.ka:
        return k_chunks(config, p, s.kt)
    return spans(p.k, s.ka, s.first_k, 0, config.dim)


def portions(config: ChipConfig, s: Schedule, chunk: Span, first: bool, last: bool) -> list[Span]:
    """The pieces of K in which a chunk is loaded: of the first and the last one, or all of it."""
    length = chunk[1] - chunk[0]
    step = min(s.first_k if first and s.first_k and not s.ka else length, length)
    parts = spans(length, step, 0, min(s.last_k, step) if last else 0, config.dim)
    return [(chunk[0] + a, chunk[0] + b) for a, b in parts]


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


def held_rows(config: ChipConfig, p: Problem, s: Schedule) -> int:
    """Accumulator rows at the end of a part that are no tile's: of vectors, and for VECTOR."""
    q = p.oriented(s)
    held = vector_rows(config, p.vectors, *vector_span(p, s), s.parts)
    return held + int(after_rows(config, q, min(s.mt, q.m), widest_tile(config, q, s)))


def widest_tile(config: ChipConfig, p: Problem, s: Schedule) -> int:
    """Columns of the widest tile."""
    return widest(columns(p.n, s.nt, s.last_n, config.dim))


def vector_span(p: Problem, s: Schedule) -> tuple[int, int]:
    """The length of a vector, and what a tile needs of it."""
    p = p.oriented(s)
    return (p.m, s.mt) if p.turned else (p.n, s.nt)
