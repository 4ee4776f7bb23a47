"""The VECTORs of one step of a tile, by whichever way takes fewer slots.

A row of VECTOR is a row of the tile, or a chunk of one: then there is a VECTOR for each chunk of
all rows, or one for all whole chunks of a row and one for what is left of it. Few long rows fill
the unit only in the second way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tilewright.compiler.lane_memory import local_of
from tilewright.compiler.lane_steps import FULL, Operand, Step, units_of
from tilewright.compiler.primitives_reduce import CHUNK
from tilewright.compiler.schedule import ceil_div
from tilewright.compiler.tile_store import TYPE
from tilewright.compiler.tiles import Local
from tilewright.isa.table import Mem
from tilewright.isa.timing import VECTOR_ROWS
from tilewright.isa.units import LOAD_STREAMS, STORE_STREAMS

Vector = tuple[dict[str, int], tuple[Local, ...], tuple[Local, ...]]
_START = 24  # cycles of a VECTOR besides its rows, about


@dataclass(frozen=True)
class _Part:
    """Rows of one VECTOR: the tile's row and unit at which they begin, and what they are.

    Parameters
    ----------
    by_chunk : whether each is a chunk of row `row`, else each is one of the tile's rows.
    """

    row: int
    unit: int
    rows: int
    cols: int
    by_chunk: bool


def vectors(step: Step, code: int, places: Mapping[Operand, Local], rows: int,
            cr: tuple[int, int], dim: int) -> Iterator[Vector]:  # fmt: skip
    """Fields, what is read and what is written, of each VECTOR of a step.

    Parameters
    ----------
    code : accumulator row of the micro-kernel.
    rows, cr : the tile's rows, and its range of columns.
    """
    blocks = ceil_div(cr[1] - cr[0], dim)
    units = units_of(step.level, blocks)
    cols = cr[1] - cr[0] if step.level == FULL else units * dim
    words = Local(Mem.ACC, code, code + ceil_div(2 * len(step.micro.words), dim))
    for part in _parts(step, rows, units, cols, dim):
        fields = {name: n for name, n in step.micro.lengths.items() if n} | step.micro.scalars
        fields |= {"kernel": code, "rows": part.rows, "cols": part.cols}
        if step.indexed:
            fields["v"] = cr[0] + part.unit * dim
        reads, writes = [words], []
        for name, x in zip(LOAD_STREAMS, step.inputs, strict=False):
            fields |= _stream(name, x, places[x], part, blocks, False)
            reads.append(places[x])
        for name, x in zip(STORE_STREAMS, step.outputs, strict=False):
            per_row = step.reduces and x is step.outputs[-1]
            fields |= _stream(name, x, places[x], part, blocks, per_row)
            writes.append(places[x])
        yield fields, tuple(reads), tuple(writes)


def cycles(step: Step, rows: int, cr: tuple[int, int], dim: int) -> int:
    """Cycles of a step's VECTORs, about."""
    blocks = ceil_div(cr[1] - cr[0], dim)
    units = units_of(step.level, blocks)
    cols = cr[1] - cr[0] if step.level == FULL else units * dim
    return sum(_slots(step, p, dim) for p in _parts(step, rows, units, cols, dim))


def _parts(step: Step, rows: int, units: int, cols: int, dim: int) -> list[_Part]:
    """The way of the fewest slots."""
    ways = []
    chunk = CHUNK * dim
    if not step.chunked:
        ways.append([_Part(0, 0, rows, cols, False)])
    else:
        ways.append([_Part(0, c // dim, rows, min(chunk, cols - c), False)
                     for c in range(0, cols, chunk)])  # fmt: skip
    if (step.chunked or (units > CHUNK and not step.reduces)) and not step.indexed:
        whole = units // CHUNK - (1 if cols % dim and units % CHUNK == 0 else 0)
        each: list[_Part] = []
        for r in range(rows):
            each += [_Part(r, 0, whole, chunk, True)] if whole else []
            if whole * chunk < cols:
                each.append(_Part(r, whole * CHUNK, 1, cols - whole * chunk, True))
        ways.append(each)
    return min(ways, key=lambda parts: sum(_slots(step, p, dim) for p in parts))


def _slots(step: Step, part: _Part, dim: int) -> int:
    n = step.micro.lengths
    row = n["head"] + ceil_div(part.cols, dim) * n["body"] + n["tail"]
    return _START + VECTOR_ROWS * (n["init"] + ceil_div(part.rows, VECTOR_ROWS) * row)


def _stream(name: str, x: Operand, place: Local, part: _Part, blocks: int,
            per_row: bool) -> dict[str, int]:  # fmt: skip
    """A stream's fields; `per_row`: it has one unit for each row of the VECTOR."""
    mem, local = local_of(x.dtype)
    pitch = local * units_of(x.level, blocks) if x.down else 0
    unit = local if x.across else 0
    at = part.unit // CHUNK if per_row else part.unit
    row = pitch
    if part.by_chunk:
        row = unit if per_row else unit * CHUNK
    step = 0 if per_row else unit
    fields = {"type": TYPE[x.dtype], "mem": mem, "on": 1, "row": row, "unit": step}
    first = place.lo + part.row * pitch + at * unit
    return {name: first} | {f"{name}_{k}": int(v) for k, v in fields.items()}
