"""Some banks of a chip as a chip of its own, so that two kernels work side by side.

A contraction gets the first banks, a kernel of VECTOR the last ones. Schedules and tilers read
sizes from the chip that they are given; what is tiled for the last banks is moved there afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from tilewright.compiler.tiles import Local, Op, Place
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.table import Mem
from tilewright.isa.units import STREAMS


@dataclass(frozen=True)
class Share(ChipConfig):
    """A chip of which `acc_left` and `spad_left` banks are used.

    The accumulator counts as `BANKS` smaller banks, so that its parts are cut as always.
    """

    acc_left: int = BANKS
    spad_left: int = BANKS

    @property
    def acc_rows(self) -> int:
        """Accumulator rows that are used."""
        return self.acc_kib * 1024 // (4 * self.dim) // BANKS * self.acc_left

    @property
    def spad_bank(self) -> int:
        """Granules of one scratchpad bank."""
        return self.spad_kib * 1024 // self.dim // BANKS

    @property
    def spad_granules(self) -> int:
        """Granules that are used."""
        return self.spad_bank * self.spad_left


def share(config: ChipConfig, acc: int, spad: int) -> Share:
    """So many banks of a chip."""
    own = {f.name: getattr(config, f.name) for f in fields(ChipConfig)}
    return Share(**own, acc_left=acc, spad_left=spad)


def whole(config: ChipConfig) -> ChipConfig:
    """The chip that a share is part of."""
    if not isinstance(config, Share):
        return config
    return ChipConfig(**{f.name: getattr(config, f.name) for f in fields(ChipConfig)})


def works_beside(config: ChipConfig) -> bool:
    """Whether another kernel works at the same time, in the other banks of both memories."""
    return isinstance(config, Share) and config.acc_left < BANKS


def spad_banks(config: ChipConfig) -> int:
    """Scratchpad banks that there are."""
    return config.spad_left if isinstance(config, Share) else BANKS


def moved(ops: Iterable[Op], acc: int, spad: int) -> list[Op]:
    """The same operations that many accumulator rows and scratchpad granules further on."""
    by = {Mem.ACC: acc, Mem.SPAD: spad}

    def places(some: tuple[Place, ...]) -> tuple[Place, ...]:
        return tuple(
            replace(p, lo=p.lo + by[p.mem], hi=p.hi + by[p.mem]) if isinstance(p, Local) else p
            for p in some
        )

    out = []
    for op in ops:
        f = dict(op.fields)
        if op.name == "vector":
            f["kernel"] += acc
            for s in STREAMS:
                if f.get(f"{s}_on"):
                    f[s] += by[Mem(f[f"{s}_mem"])]
        else:
            f["loc"] += by[Mem(f["mem"])]
            if "vec" in f:
                f["vec"] += acc
        out.append(replace(op, fields=f, reads=places(op.reads), writes=places(op.writes), sync={}))
    return out
