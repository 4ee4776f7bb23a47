"""Random unit instructions inside their memories, with the cells that they touch.

Cells are found by plain loops over the instruction's definition, which share nothing with the
checker's footprints, so that the two test each other. Modes are dealt from `gen_modes.DECKS` by
seed, so that consecutive seeds cover all of them; everything else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from math import prod
from random import Random

from tilewright.isa.config import BANKS, STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.table import Conv, Dest, Mem, Type
from tilewright.isa.units import LACKS
from tilewright.sim.gen_modes import (
    COPY,
    DECKS,
    FILL,
    GATHER,
    PARTS,
    WISHES,
    XPOSE,
    XPOSED,
    matmul_modes,
)

#: DRAM by content: bytes, fp32 patterns, bf16 patterns, results, micro-kernels.
BYTES, FLOATS, HALVES, RESULTS, KERNELS = (
    range(0, 0x4000),
    range(0x4000, 0x8000),
    range(0x8000, 0xC000),
    range(0xC000, 0x10000),
    range(0x10000, 0x18000),
)
DRAM_SIZE = KERNELS.stop
#: Part of the bytes: int32 from -3 to 14.
INDICES = range(0x3C00, 0x4000)
SPACE = {Mem.SPAD: "spad", Mem.ACC: "acc"}
_WIDTH = {Type.I8: 1, Type.U8: 1, Type.BF16: 2}
_BYTES = {Type.I8: 1, Type.U8: 1, Type.BF16: 2, Type.F32: 4, Type.I32: 4}
_LOCAL = {Conv.COPY8: 1, Conv.COPY16: 2} | dict.fromkeys(PARTS, 2)
_DRAM = {Conv.COPY8: 1, Conv.COPY16: 2, Conv.I8_I32: 1, Conv.U8_I32: 1}

Cells = tuple[str, frozenset[int]]


@dataclass
class Op:
    """One random instruction: what it is, the cells it touches, what synchronisation it gets."""

    name: str
    fields: dict[str, int]
    reads: list[Cells] = field(default_factory=list)
    writes: list[Cells] = field(default_factory=list)
    passes: list[range] = field(default_factory=list)
    wish: str = "needs"  # one of WISHES
    before: Op | None = None  # makes what this one reads, or only comes before it


def grid(*dims: tuple[int, int], width: int = 1) -> set[int]:
    """Offsets of all cells of a strided box."""
    return {
        sum(i * s for i, (_, s) in zip(at, dims, strict=True)) + j
        for at in product(*(range(n) for n, _ in dims))
        for j in range(width)
    }


class Ops:
    """Draws instructions for one geometry; bases cluster, so that instructions meet."""

    def __init__(self, config: ChipConfig, rng: Random, seed: int):
        self.config, self.rng, self.seed = config, rng, seed
        self._decks = DECKS | {"matmul": matmul_modes(config)}
        self._dealt = dict.fromkeys(DECKS, 0)
        self.size = {"spad": config.spad_granules, "acc": config.acc_rows}
        self._hot: dict[str, list[int]] = {
            space: [rng.randrange(size) for _ in range(5)] for space, size in self.size.items()
        }

    def draw(self, name: str) -> Op:
        """A random `load`, `matmul` or `store` that fits and does not race with itself."""
        deck = self._decks[name]
        number = self.seed * 3 + self._dealt[name]
        card = number * 37 % len(deck)
        self._dealt[name] += 1
        make: Callable[..., Op | None] = getattr(self, name)
        while True:
            op = make(*deck[card])
            if op is not None:
                op.wish = WISHES[(number // len(deck) + card) % len(WISHES)]
                return op

    def _base(self, space: str, offsets: set[int], step: int = 1) -> int | None:
        """A legal base for the offsets, often near a hot one; a multiple of `step`."""
        low, high = -min(offsets), self.size[space] - 1 - max(offsets)
        low, high = -(-low // step) * step, high // step * step
        if low > high:
            return None
        roll = self.rng.random()
        if roll < 0.8:
            base = self.rng.choice(self._hot[space])
            if roll > 0.5:  # close by: the same banks, perhaps not the same rows
                base += self.rng.randint(-self.size[space] // BANKS, self.size[space] // BANKS)
            return min(max(base // step * step, low), high)
        return self.rng.randrange(low, high + 1, step)

    def _dram(self, offsets: set[int], area: range, unit: int) -> int | None:
        """A legal address, aligned to the bus, to the element, or not at all."""
        low, high = area.start - min(offsets), area.stop - 1 - max(offsets)
        if low > high:
            return None
        step = self.rng.choice((max(unit, self.config.bus_bytes), unit, 1, 1))
        base = self.rng.randrange(low, min(high, low + 1600) + 1)
        return max(low, base // step * step if base // step * step >= low else base)

    def _long(self) -> bool:
        """Whether an instruction is to outlast the dispatch of several others."""
        return self.rng.random() < 0.3

    def _columns(self) -> int:
        """Elements of a row: whole units or ragged."""
        dim = self.config.dim
        return self.rng.choice(
            (dim, 2 * dim, self.rng.randint(1, 3 * dim), self.rng.randint(1, dim))
        )

    def _layout(self, units: int, counts: list[int], width: int) -> tuple[int, list[int]]:
        """Local strides of units and dimensions: row-major, blocked, spread or backwards."""
        rng = self.rng
        rows = 1
        for n in counts:
            rows *= n
        style = rng.choice(("rows", "rows", "blocks", "spread", "back"))
        if style == "blocks":
            unit, step = rows * width, width
        else:
            unit = width * (2 if style == "spread" else 1)
            step = units * unit + (rng.randint(0, 2) * width if style == "spread" else 0)
        strides = []
        for n in counts:
            strides.append(step)
            step *= n
        if style == "back":
            strides = [-s for s in strides]
        if rng.random() < 0.06:
            strides[0] = 0
        return unit, strides

    def _paired(self, units: int, counts: list[int]) -> tuple[int, list[int]]:
        """Local strides with which LOAD may write two rows, or two units of a row, at once."""
        rows = units == 1 and self.rng.random() < 0.7
        strides, step = [], 1 if rows else units + units % 2
        for n in counts:
            strides.append(step)
            step = step * n + step * n % 2
        return 1, strides

    def _steps(self, counts: list[int], run: int, unit: int, joined: bool = False) -> list[int]:
        """DRAM strides: dense, gaps, aligned to the bus, repeated, overlapping or negative.

        The first one is dense if `joined`.
        """
        out, span = ([run], run * counts[0]) if joined else ([], run)
        for n in counts[joined:]:
            bus = self.config.bus_bytes
            s = self.rng.choice(
                (span, span, span + unit * self.rng.randint(1, 9), -(-span // bus) * bus,
                 0, unit * self.rng.randint(1, 3), -span)
            )  # fmt: skip
            out.append(s)
            span = max(span, abs(s) * (n - 1) + span)
        return out

    def load(self, kind: tuple[Mem, Conv], how: str, pack: int, ragged: int) -> Op | None:
        """A LOAD; `ragged` rows do not fill their last unit (sequences, their last block)."""
        rng, dim = self.rng, self.config.dim
        if how == XPOSE:
            op = self._xpose(kind, pack, ragged)
            if op is not None and rng.getrandbits(2) == 1:  # while one drains
                op.before = self._xpose(rng.choice(XPOSED), rng.randint(1, 3), rng.randrange(2))
            return op
        mem, conv = kind
        space, local, far = SPACE[mem], _LOCAL.get(conv, 4), _DRAM.get(conv, 4)
        c0 = self._columns() if pack == 1 else rng.choice((dim, rng.randint(1, dim + 2)))
        counts = [rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2))]
        joined = how == COPY and pack == 1 and rng.random() < 0.7
        if joined:  # runs that follow each other in DRAM, also such that end inside a beat
            c0, counts[0] = rng.choice((c0, c0, rng.randint(1, 3))), rng.choice((2, 5, 9))
            if conv == Conv.COPY8:
                c0 = rng.choice((c0, rng.randint(1, dim), 2 * dim + rng.randint(1, dim)))
        if self._long():
            counts = [rng.choice((12, 24, 40)), 1, 1]
        row = c0 * (counts[0] if pack > 1 else 1) * (counts[1] if pack > 2 else 1)
        lanes = dim if mem == Mem.ACC or local < 4 else dim // 2
        if ragged != (row % lanes > 0) and lanes > 1:
            return None
        units, width = -(-row // lanes), 2 if mem == Mem.SPAD and local > 1 else 1
        l0, rest = self._layout(units, counts[pack - 1 :], width)
        even = width
        if joined and conv == Conv.COPY8 and rng.random() < 0.7:
            l0, rest = self._paired(units, counts)
            even = rng.choice((2, 2, 1))
        steps = self._steps(counts, c0 * far, far, joined)
        cells = grid((units, l0), *zip(counts[pack - 1 :], rest, strict=True), width=width)
        loc = self._base(space, cells, even)
        if loc is None:
            return None
        f = dict(mem=mem, conv=conv, pack=pack, fill=int(how == FILL), c0=c0, loc=loc, l0=l0)
        f |= {f"c{i + 1}": n for i, n in enumerate(counts)}
        f |= {f"l{i}": s for i, s in zip(range(pack, 4), rest, strict=True)}
        op = Op("load", f, writes=[(space, frozenset(loc + c for c in cells))])
        if how == FILL:
            f["value"] = rng.choice((0, 0xFF800000, rng.getrandbits(32)))
            return op
        if how == GATHER:
            return self._gather(op, counts, steps, c0 * far)
        if rng.random() < 0.3:  # rows of bytes, whose slots differ, just before
            op.before = self.load((Mem.SPAD, Conv.COPY8), COPY, 1, rng.randrange(2))
        return self._from_dram(op, counts, steps, c0 * far)

    def _gather(self, op: Op, counts: list[int], steps: list[int], width: int) -> Op | None:
        """The LOAD with rows by index, and often another that brings small indices."""
        rng, dim, bus = self.rng, self.config.dim, self.config.bus_bytes
        pairs = -(-counts[0] // (dim // 2))
        index = self._base("spad", set(range(2 * pairs)), 2)
        written = next((cells for space, cells in op.writes if space == "spad"), frozenset())
        if index is None or written & set(range(index, index + 2 * pairs)):
            return None
        bound = rng.choice((1, 3, 7, 12))
        stride = rng.choice((-1, 1, 1, 1)) * bus * rng.choice((0, 1, -(-width // bus), 3))
        if self._from_dram(op, [bound, *counts[1:]], [stride, *steps[1:]], width) is None:
            return None
        oob = rng.randrange(2)
        op.fields |= dict(gather=1, index=index, bound=bound, oob=oob, value=rng.getrandbits(32))
        cells = frozenset(range(index, index + 2 * pairs))
        op.reads.append(("spad", cells))
        if rng.random() < 0.7:
            dram = INDICES.start + 4 * rng.randrange(64)
            rows = dict(mem=Mem.SPAD, conv=Conv.COPY32, c0=pairs * (dim // 2), dram=dram, l0=2)
            source = frozenset(range(dram, dram + 2 * dim * pairs))
            op.before = Op("load", rows | {"loc": index}, [("dram", source)], [("spad", cells)])
        return op

    def _from_dram(
        self, op: Op, counts: list[int], steps: list[int], width: int, there: set[int] | None = None
    ) -> Op | None:
        """The LOAD with its runs of `width` bytes in DRAM, of which it reads the bytes `there`."""
        conv = op.fields["conv"]
        run = grid(*zip(counts, steps, strict=True), width=width)
        area = {Conv.COPY32: FLOATS, Conv.COPY16: HALVES}.get(Conv(conv), BYTES)
        if conv in PARTS:
            area = FLOATS
        if self.rng.random() < 0.25:
            area = RESULTS
        dram = self._dram(run, area, _DRAM.get(Conv(conv), 4))
        if dram is None:
            return None
        op.fields |= {"dram": dram} | {f"s{i + 1}": s for i, s in enumerate(steps)}
        op.reads.append(("dram", frozenset(dram + c for c in (run if there is None else there))))
        return op

    def _xpose(self, kind: tuple[Mem, Conv], pack: int, ragged: int) -> Op | None:
        """A transposing LOAD, the runs of `pack` dimensions as one sequence."""
        rng, dim = self.rng, self.config.dim
        conv = kind[1]
        far, width = _DRAM.get(conv, 4), 1 if conv == Conv.COPY8 else 2
        most = XPOSE_BLOCKS * dim
        c0 = rng.choice((dim, rng.randint(1, dim), rng.randint(dim + 1, most), most))
        counts = [rng.choice((dim, 2 * dim, rng.randint(1, 3 * dim))), rng.choice((1, 1, 2)),
                  rng.choice((1, 1, 2))]  # fmt: skip
        if pack > 1:
            few = rng.randint(1, dim + 1)
            counts = [rng.choice((counts[0], few, few)), rng.choice((1, 2, 3, 5)), counts[2]]
        lacks = self._lacks(counts, pack)
        skip, drop = (lacks[n + "1"] + lacks[n + "2"] * counts[0] for n in ("skip", "drop"))
        runs = prod(counts[:pack]) - skip - drop
        if runs < 1 or ragged != (runs % dim > 0):
            return None
        local = [-(-runs // dim), *counts[pack:]]
        l0, rest = self._layout(c0, local, width)
        cells = grid((c0, l0), *zip(local, rest, strict=True), width=width)
        loc = self._base("spad", cells, width)
        if loc is None:
            return None
        f = dict(mem=Mem.SPAD, conv=conv, xpose=1, pack=pack, c0=c0, loc=loc, l0=l0)
        f |= {f"c{i + 1}": n for i, n in enumerate(counts)}
        f |= {f"l{i}": s for i, s in zip((1, *range(pack + 1, 4)), rest, strict=True)}
        f |= {f"l{i}": width * rng.randint(-3, 3) for i in range(2, pack + 1)}  # not used
        op = Op("load", f | lacks, writes=[("spad", frozenset(loc + c for c in cells))])
        steps = self._steps(counts, c0 * far, far)
        every = list(product(*(range(n) for n in reversed(counts))))  # i3, i2, i1
        size = prod(counts[:pack])
        there = {
            sum(i * s for i, s in zip(reversed(at), steps, strict=True)) + j
            for number, at in enumerate(every)
            for j in range(c0 * far)
            if skip <= number % size < size - drop
        }
        return self._from_dram(op, counts, steps, c0 * far, there)

    def _lacks(self, counts: list[int], pack: int) -> dict[str, int]:
        """What a sequence of `pack` dimensions lacks at its ends: often nothing, one, or most."""
        out = dict.fromkeys(LACKS, 0)
        if pack > 1 and self.rng.random() < 0.6:
            for name in LACKS if pack == 3 else LACKS[:2]:
                most = counts[int(name[-1]) - 1] - 1
                out[name] = min(most, self.rng.choice((0, 1, most, self.rng.randint(0, most))))
        return out

    def matmul(self, types: tuple[int, int], acc: int, k_ragged: int, n_ragged: int) -> Op | None:
        """A MATMUL."""
        rng, dim = self.rng, self.config.dim
        at, wt = types
        width = 2 if at == Type.BF16 else 1
        r0, r1 = rng.choice((1, 2, 2, 3, 4, 7, 2 * dim + 1)), rng.choice((1, 1, 2, 2, 3))
        if self._long():
            r0, r1 = rng.choice((12, 24, 40)), 1
        k, n = self._columns(), self._columns()
        if (k % dim > 0, n % dim > 0) != (k_ragged, n_ragged):
            return None
        kb, nb, rows = -(-k // dim), -(-n // dim), r0 * r1
        ak, (as0, as1) = self._layout(kb, [r0, r1], width)
        if rng.random() < 0.3:
            as1 = as0  # overlapping windows
        wn, (ws, wk) = self._layout(nb, [dim, kb], width)
        cn = rng.choice((rows, rows, rows + 2, -rows, 0))
        a_all = grid((kb, ak), (r0, as0), (r1, as1), width=width)
        w_all = grid((nb, wn), (dim, ws), (kb, wk), width=width)
        c_all = grid((rows, 1), (nb, cn))
        a, w = self._base("spad", a_all, width), self._base("spad", w_all, width)
        c = self._base("acc", c_all)
        if a is None or w is None or c is None:
            return None
        used = {  # weight rows beyond k do not matter
            w + b * wn + j * ws + i * wk + g
            for b in range(nb) for i in range(kb) for j in range(dim) if i * dim + j < k
            for g in range(width)
        }  # fmt: skip
        f = dict(a_type=at, w_type=wt, acc=acc, a=a, r0=r0, r1=r1, as0=as0, as1=as1,
                 ak=ak, w=w, ws=ws, wk=wk, wn=wn, k=k, n=n, c=c, cn=cn)  # fmt: skip
        op = Op("matmul", f)
        op.reads = [("spad", frozenset(a + x for x in a_all)), ("spad", frozenset(used))]
        op.writes = [("acc", frozenset(c + x for x in c_all))]
        op.passes = [range(c + b * cn, c + b * cn + rows) for b in range(nb)]
        return op

    def _epilogue(self, kind: Type, out: Type) -> dict[str, int]:
        rng = self.rng
        whole, whole_out = (t in (Type.I8, Type.U8, Type.I32) for t in (kind, out))
        bare = whole == whole_out and rng.random() < 0.25  # goes the short way
        flip = lambda p=0.35: int(not bare and rng.random() < p)  # noqa: E731
        f = {"ibias": flip() if whole else 0, "clamp": flip()}
        if whole and whole_out and (bare or flip()):
            f["int_path"] = 1
            bounds = [rng.choice((-128, -5, 0, 7, 100, 1 << 20)) for _ in range(2)]
        else:
            f |= {"scale": flip(), "bias": flip()}
            bounds = [rng.choice((0xC2FE0000, 0, 0x80000000, 0x40C00000, 0x7F800000, 0x7FC00000,
                                  0xFF800000, 0x00000001)) for _ in range(2)]  # fmt: skip
        if f["clamp"]:
            f |= {"lo": bounds[0] & 0xFFFFFFFF, "hi": bounds[1] & 0xFFFFFFFF}
        if whole_out and rng.random() < 0.35:
            f["zp"] = rng.choice((-128, 3, 128, 32767, -32768))
        return f

    def _windows(self, pool: bool) -> dict[str, int]:
        """Max-pool's fields: windows that overlap, touch or leave gaps."""
        sizes = [self.rng.choice((1, 2, 2, 3)) for _ in range(4)]
        names = ("pool_h", "pool_w", "pool_sh", "pool_sw")
        return {"pool": 1} | dict(zip(names, sizes, strict=True)) if pool else {}

    def _scatter(self, op: Op, counts: list[int], steps: list[int], run: int) -> set[int]:
        """Make STORE `op` a scatter, with the LOAD of its indices; what it may write, or nothing.

        `steps` change: the first one to a multiple of the bus's bytes.
        """
        bus, bound, pairs = self.config.bus_bytes, self.rng.randint(1, 9), self.config.dim // 2
        units = -(-counts[0] // pairs)
        index = self._base("spad", set(range(2 * units)), 2)
        if index is None:
            return set()
        steps[0] = -(-steps[0] // bus) * bus
        op.fields |= {"scatter": 1, "index": index, "bound": bound}
        at = self.rng.randrange(INDICES.start, INDICES.stop - 4 * counts[0])
        at -= at % 4
        cells = ("spad", frozenset(range(index, index + 2 * units)))
        f = dict(mem=Mem.SPAD, conv=Conv.COPY32, pack=1, c0=counts[0], dram=at, loc=index, l0=2)
        source = ("dram", frozenset(range(at, at + 4 * counts[0])))
        op.before = Op("load", f, reads=[source], writes=[cells])
        op.reads.append(cells)
        return grid((bound, steps[0]), (counts[1], steps[1]), width=run)

    def store(
        self, source: tuple[Mem, Type], target: tuple[Dest, Type], ragged: int, way: str
    ) -> Op | None:
        """A STORE; `way` is one of STORE_WAYS."""
        rng, dim = self.rng, self.config.dim
        (mem, kind), (dest, out) = source, target
        space, width = SPACE[mem], _WIDTH.get(kind, 1)
        c0, counts = self._columns(), [rng.choice((1, 2, 3, 6)), rng.choice((1, 1, 2, 3))]
        joined = way in ("plain", XPOSE) and dest == Dest.DRAM and rng.random() < 0.5
        if joined:  # rows that follow each other in DRAM, also such that end inside a beat
            c0, counts[0] = rng.choice((c0, rng.randint(1, 3))), rng.choice((2, 3, 6, 9))
        if way == XPOSE:
            c0 = rng.choice((rng.randint(1, dim), rng.randint(1, XPOSE_BLOCKS * dim)))
            counts[0] = rng.choice((1, dim - 1, dim, dim + 1, 2 * dim))
        elif self._long():
            counts = [rng.choice((12, 24, 40)), 1]
        if ragged != (c0 % dim > 0):
            return None
        units, extra = -(-c0 // dim), self._windows(way.startswith("pool"))
        w, h, sw, sh = (extra.get("pool_" + n, 1) for n in ("w", "h", "sw", "sh"))
        reads, inputs = units, [(counts[0] - 1) * sw + w, (counts[1] - 1) * sh + h]
        if way == XPOSE:
            reads, inputs, extra = c0, [-(-counts[0] // dim), counts[1]], {"xpose": 1}
        l0, (l1, l2) = self._layout(reads, inputs, width)
        rows = zip((w, h, -(-(inputs[0] - w + 1) // sw), counts[1]),
                   (l1, l2, sw * l1, sh * l2), strict=True)  # fmt: skip
        cells = grid((reads, l0), *rows, width=width)
        loc = self._base(space, cells, width)
        if loc is None:
            return None
        f = dict(mem=mem, type=kind, dest=dest, out=out, loc=loc, c0=c0, c1=counts[0], c2=counts[1],
                 l0=l0, l1=l1, l2=l2) | extra | self._epilogue(kind, out)  # fmt: skip
        read = frozenset(loc + x for x in cells)
        op = Op("store", f, reads=[(space, read)])
        vectors = sum(f.get(x, 0) for x in ("ibias", "scale", "bias"))
        if vectors:
            vs = rng.choice((units, units + 1, -units, 0))
            cells = grid((vectors, vs), (units, 1))
            vec = self._base("acc", cells)
            if vec is None or units > STORE_VECTOR_UNITS:
                return None
            f |= {"vec": vec, "vs": vs}
            op.reads.append(("acc", frozenset(vec + x for x in cells)))
        if dest == Dest.DRAM:
            steps = self._steps(counts, c0 * _BYTES[out], _BYTES[out])
            if joined:
                steps[0] = c0 * _BYTES[out]
            run = grid(*zip(counts, steps, strict=True), width=c0 * _BYTES[out])
            if way.endswith("scatter"):
                run = self._scatter(op, counts, steps, c0 * _BYTES[out])
            dst = self._dram(run, RESULTS, _BYTES[out]) if run else None
            if dst is None:
                return None
            written = "dram", frozenset(dst + x for x in run)
        else:
            width = _WIDTH[out]
            d0, steps = self._layout(units, counts, width)
            cells = grid((units, d0), *zip(counts, steps, strict=True), width=width)
            dst = self._base("spad", cells, width)
            if dst is None:
                return None
            written = "spad", frozenset(dst + x for x in cells)
            if space == "spad" and read & written[1]:
                return None
            f["d0"] = d0
        f |= {"dst": dst, "s1": steps[0], "s2": steps[1]}
        if op.before is not None and op.before.writes[0][1] & read and space == "spad":
            return None
        op.writes.append(written)
        return op
