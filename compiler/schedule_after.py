"""What VECTOR does with the tiles of a contraction, as a schedule sees it: time and room.

Its micro-kernel and its operands of 32 bits lie at the end of every part of the accumulator, so
that VECTOR reads no bank of the part that MATMUL fills; operands of 8 and 16 bits lie in the last
banks of the scratchpad, in as many slots as there are parts. All functions take numbers or arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from tilewright.compiler.share import spad_banks
from tilewright.isa.config import ChipConfig
from tilewright.isa.timing import VECTOR_LEAD, VECTOR_ROWS

if TYPE_CHECKING:
    from tilewright.compiler.schedule import Problem, Schedule


@dataclass(frozen=True)
class Stream:
    """An operand: bytes of an element; whether rows differ, whether columns differ."""

    size: int
    down: bool
    across: bool

    def units(self, rows: Any, blocks: Any) -> Any:
        """Local units (accumulator rows, or `size` granules each) of a tile."""
        return (rows if self.down else 1) * (blocks if self.across else 1)

    def granules(self, rows: Any, blocks: Any) -> Any:
        """Granules of a tile, an even number."""
        return -(-self.units(rows, blocks) * self.size // 2) * 2


@dataclass(frozen=True)
class After:
    """Words of the micro-kernel's sections, and its operands besides the sums."""

    init: int
    head: int
    body: int
    streams: tuple[Stream, ...]

    def code_rows(self, config: ChipConfig) -> int:
        """Accumulator rows of the micro-kernel."""
        return ceil(2 * (self.init + self.head + self.body) / config.dim)

    def rows(self, config: ChipConfig, rows: Any, blocks: Any) -> Any:
        """Accumulator rows besides the tile's own."""
        held = sum(x.units(rows, blocks) for x in self.streams if x.size == 4)
        return held + self.code_rows(config)

    def granules(self, rows: Any, blocks: Any) -> Any:
        """Granules of one slot."""
        return sum(x.granules(rows, blocks) for x in self.streams if x.size < 4)

    def cycles(self, config: ChipConfig, rows: Any, blocks: Any) -> Any:
        """VECTOR's slots for a tile."""
        words = self.init + -(-rows // VECTOR_ROWS) * (self.head + blocks * self.body)
        return VECTOR_ROWS * words + VECTOR_LEAD + self.code_rows(config)

    def beats(self, config: ChipConfig, rows: Any, blocks: Any) -> Any:
        """LOAD's beats for the operands of a tile, about."""
        wide = [x.units(rows, blocks) * x.size for x in self.streams if x.across]
        thin = [rows for x in self.streams if x.down and not x.across]
        return sum(wide) * config.dim / config.bus_bytes + sum(thin)


def after_rows(config: ChipConfig, p: Problem, mt: Any, nt: Any) -> Any:
    """Accumulator rows that VECTOR takes of each part for tiles of that size."""
    if p.after is None:
        return 0
    return p.after.rows(config, mt, -(-nt // config.dim))


def after_banks(config: ChipConfig, p: Problem, mt: Any, nt: Any, parts: Any) -> Any:
    """Scratchpad banks that hold VECTOR's operands; the last ones."""
    if p.after is None:
        return 0
    return -(-parts * p.after.granules(mt, -(-nt // config.dim)) // config.spad_bank)


def weight_banks(config: ChipConfig, p: Problem, s: Schedule, nt: int) -> int:
    """Scratchpad banks that are left for weights with tiles of `nt` columns at most."""
    return int(spad_banks(config) - s.a_banks - after_banks(config, p, min(s.mt, p.m), nt, s.parts))
