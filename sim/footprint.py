"""Which bytes of DRAM and which local rows an instruction really touches, exactly.

A footprint is the merged, sorted spans of strided boxes, not their bounding box: interleaved
operands that do not touch do not meet. Rows that are addressed but do not matter (weights beyond
`k`) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.extent import boxes, derived
from tilewright.isa.extent_table import LOCAL_BYTES
from tilewright.isa.table import CONV_BYTES, TYPE_BYTES, Conv, Dest, Mem, Spec, Type
from tilewright.isa.units import LOAD_STREAMS, STREAMS

Space = str  # "spad", "acc" or "dram"
UNIT_OF = {"spad": "granule", "acc": "row", "dram": "byte"}
_SPACE = {Mem.SPAD: "spad", Mem.ACC: "acc"}


@dataclass(frozen=True)
class Box:
    """`width` cells from `base`, repeated `count` times `stride` cells apart for each dimension."""

    base: int
    dims: tuple[tuple[int, int], ...]
    width: int

    def bounds(self) -> tuple[int, int]:
        """First cell and one beyond the last."""
        reach = [(n - 1) * s for n, s in self.dims]
        low = self.base + sum(r for r in reach if r < 0)
        return low, self.base + sum(r for r in reach if r > 0) + self.width

    def starts(self) -> tuple[np.ndarray, int]:
        """Starts of runs, and the length of a run: touching dimensions are folded into it."""
        base, run = self.base, self.width
        rest: list[tuple[int, int]] = []
        for size, n, s in sorted((abs(s), n, s) for n, s in self.dims if n > 1 and s):
            if size <= run and not rest:
                base, run = base + min(s, 0) * (n - 1), run + (n - 1) * size
            else:
                rest.append((n, s))
        at = np.array([base], np.int64)
        for n, s in rest:
            at = (at[:, None] + np.arange(n, dtype=np.int64) * s).reshape(-1)
        return at, run


@dataclass(frozen=True, eq=False)
class Access:
    """One operand: where, whether it writes, and which cells (bytes, granules or rows).

    `ordered` reads see all earlier writes of their own unit without a signal.
    """

    space: Space
    write: bool
    boxes: tuple[Box, ...]
    ordered: bool = False
    low: int = field(init=False)
    end: int = field(init=False)

    def __post_init__(self) -> None:
        bounds = [b.bounds() for b in self.boxes]
        object.__setattr__(self, "low", min(b[0] for b in bounds))
        object.__setattr__(self, "end", max(b[1] for b in bounds))

    @cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """(starts, ends) of maximal spans, ascending."""
        parts = [b.starts() for b in self.boxes]
        starts = np.concatenate([p[0] for p in parts])
        ends = np.concatenate([p[0] + p[1] for p in parts])
        order = np.argsort(starts, kind="stable")
        starts, ends = starts[order], np.maximum.accumulate(ends[order])
        first = np.concatenate([[True], starts[1:] > ends[:-1]])
        last = np.concatenate([first[1:], [True]])
        return starts[first], ends[last]

    def meets(self, other: Access) -> tuple[int, int] | None:
        """First and last cell of the first span that both touch, or None."""
        if self.low >= other.end or other.low >= self.end:
            return None
        (a, a_end), (b, b_end) = self.spans, other.spans
        at = np.searchsorted(a_end, b, side="right")  # the first span of self that ends after b
        hit = np.flatnonzero((at < a.size) & (a[np.minimum(at, a.size - 1)] < b_end))
        if not hit.size:
            return None
        j = int(hit[0])
        i = int(at[j])
        return int(max(a[i], b[j])), int(min(a_end[i], b_end[j])) - 1


def _load(config: ChipConfig, v: Mapping[str, int], count: Mapping[str, int]) -> list[Access]:
    conv = Conv(v["conv"])
    dims = [(v["c1"], "1"), (v["c2"], "2"), (v["c3"], "3")]
    width = 2 if v["mem"] == Mem.SPAD and LOCAL_BYTES[conv] > 1 else 1
    local = [(count["runs"], "1"), *dims[max(count["inside"], 2) - 1 :]]
    rows = tuple((n, v["l" + i]) for n, i in local)
    box = Box(v["loc"], ((count["units"], v["l0"]), *rows), width)
    out = [Access(_SPACE[Mem(v["mem"])], True, (box,))]
    if not v["fill"]:
        size = v["c0"] * CONV_BYTES[conv]
        every = boxes(v)
        if v["gather"]:
            every = [(0, ((count["rows"], v["s1"]), (v["c2"], v["s2"]), (v["c3"], v["s3"])))]
        runs = tuple(Box(v["dram"] + offset, rest, size) for offset, rest in every)
        out.append(Access("dram", False, runs))
    if v["gather"]:
        out.append(Access("spad", False, (Box(v["index"], ((count["pairs"], 2),), 2),)))
    return out


def _matmul(config: ChipConfig, v: Mapping[str, int], count: Mapping[str, int]) -> list[Access]:
    dim, width = config.dim, 2 if v["a_type"] == Type.BF16 else 1
    kb, nb = count["kblocks"], count["nblocks"]
    tail = v["k"] - (kb - 1) * dim
    a = Box(v["a"], ((v["r0"], v["as0"]), (v["r1"], v["as1"]), (kb, v["ak"])), width)
    columns = (nb, v["wn"])
    w = [Box(v["w"] + (kb - 1) * v["wk"], ((tail, v["ws"]), columns), width)]
    if kb > 1:
        w.append(Box(v["w"], ((dim, v["ws"]), (kb - 1, v["wk"]), columns), width))
    c = (Box(v["c"], ((count["rows"], 1), (nb, v["cn"])), 1),)
    out = [Access("spad", False, (a,)), Access("spad", False, tuple(w)), Access("acc", True, c)]
    return [*out, Access("acc", False, c)] if v["acc"] else out


def _rows_read(v: Mapping[str, int], count: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """(count, stride) of the rows that a STORE reads; with max-pool the window's steps too."""
    if not v["pool"]:
        return (count["in1"], v["l1"]), (v["c2"], v["l2"])
    window = (v["pool_w"], v["l1"]), (v["pool_h"], v["l2"])
    return *window, (v["c1"], v["pool_sw"] * v["l1"]), (v["c2"], v["pool_sh"] * v["l2"])


def _store(config: ChipConfig, v: Mapping[str, int], count: Mapping[str, int]) -> list[Access]:
    units, c2 = count["units"], v["c2"]
    width = 2 if v["type"] == Type.BF16 else 1
    out = [
        Access(
            _SPACE[Mem(v["mem"])],
            False,
            (Box(v["loc"], ((count["reads"], v["l0"]), *_rows_read(v, count)), width),),
        )
    ]
    if count["vectors"]:
        box = Box(v["vec"], ((count["vectors"], v["vs"]), (units, 1)), 1)
        out.append(Access("acc", False, (box,)))
    if v["scatter"]:
        out.append(Access("spad", False, (Box(v["index"], ((count["index_pairs"], 2),), 2),)))
    rows = ((count["span1"], v["s1"]), (c2, v["s2"]))
    if v["dest"] == Dest.DRAM:
        run = v["c0"] * TYPE_BYTES[Type(v["out"])]
        out.append(Access("dram", True, (Box(v["dst"], rows, run),)))
    else:
        wide = 2 if v["out"] == Type.BF16 else 1
        out.append(Access("spad", True, (Box(v["dst"], (*rows, (units, v["d0"])), wide),)))
    return out


def _vector(config: ChipConfig, v: Mapping[str, int], count: Mapping[str, int]) -> list[Access]:
    """The micro-kernel, then the streams that are on, whole, whatever the words use of them."""
    out = [Access("acc", False, (Box(v["kernel"], ((count["kernel_rows"], 1),), 1),))]
    for s in STREAMS:
        if v[f"{s}_on"]:
            dims = (v["rows"], v[f"{s}_row"]), (count["units"], v[f"{s}_unit"])
            box = Box(v[s], dims, 2 if v[f"{s}_type"] == Type.BF16 else 1)
            load = s in LOAD_STREAMS
            out.append(Access(_SPACE[Mem(v[f"{s}_mem"])], not load, (box,), ordered=load))
    return out


_OF = {"load": _load, "matmul": _matmul, "vector": _vector, "store": _store}


def accesses(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> Sequence[Access]:
    """All operands of a unit's instruction with resolved values that keep the rules and ranges."""
    make = _OF.get(spec.name)
    return make(config, values, derived(config, spec, values)) if make else ()


def word(address: int, write: bool) -> Access:
    """The word of an `ldw` or `stw`."""
    return Access("dram", write, (Box(address, (), 4),))
