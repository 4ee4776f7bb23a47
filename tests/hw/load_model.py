"""What LOAD must do, written from docs/microarchitecture.md §3 alone: writes, bursts, cycles."""

import itertools
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

DRAM_BYTES = 1 << 16
LATENCY = 60
SOURCE = {"COPY8": 1, "COPY16": 2, "COPY32": 4, "F32_BF16": 4, "I8_I32": 1, "U8_I32": 1}
CODE = {"COPY8": 0, "COPY16": 1, "COPY32": 2, "F32_BF16": 3, "I8_I32": 7, "U8_I32": 8}
SPECIAL = (
    0x00000001, 0x807FFFFF, 0x00800000, 0x7F800001, 0xFFC00000, 0x7F7FFFFF, 0x7F7F7FFF, 0x3F808000,
    0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x80000000, 0xFFFFFFFF,
)  # fmt: skip


def dram(rng):
    """Random bytes, with fp32 corner cases spread among them."""
    data = rng.integers(0, 256, DRAM_BYTES, np.uint8)
    words = data.view(np.uint32)
    where = rng.random(len(words)) < 0.5
    words[where] = rng.choice(np.array(SPECIAL, np.uint32), where.sum())
    return data


@dataclass
class Load:
    """One instruction; `conv` by name."""

    conv: str
    mem: int = 0
    pack: int = 1
    fill: int = 0
    dram: int = 0
    c: tuple = (1, 1, 1, 1)
    s: tuple = (0, 0, 0)
    loc: int = 0
    l: tuple = (0, 0, 0, 0)  # noqa: E741
    value: int = 0
    done: int = field(default=-1, compare=False)

    @property
    def elements(self):
        """Of a local row."""
        return int(np.prod(self.c[: self.pack]))

    def per_unit(self, dim):
        """Elements of a local unit."""
        return dim // 2 if self.mem == 0 and self.conv == "COPY32" else dim

    def units(self, dim):
        """Of a local row."""
        return -(-self.elements // self.per_unit(dim))

    def fields(self, dim):
        """The payload's fields."""
        out = {"mem": self.mem, "conv": CODE[self.conv], "pack": self.pack, "fill": self.fill}
        out |= {f"c{i}": n for i, n in enumerate(self.c)}
        out |= {f"s{i + 1}": n for i, n in enumerate(self.s)}
        out |= {f"l{i}": n for i, n in enumerate(self.l)}
        out |= {"dram": self.dram, "loc": self.loc, "value": self.value}
        return out | {"row_elems": self.elements, "units": self.units(dim)}

    def runs(self):
        """Byte address of each run, in order."""
        _, c1, c2, c3 = self.c
        for i3, i2, i1 in itertools.product(range(c3), range(c2), range(c1)):
            yield self.dram + i1 * self.s[0] + i2 * self.s[1] + i3 * self.s[2]

    def bursts(self, bus):
        """(First byte's beat address, beats) of each burst, in order."""
        size = self.c[0] * SOURCE[self.conv]
        for address in self.runs():
            beat, left = address // bus, -(-(address % bus + size) // bus)
            while left:
                n = min(16, left, 4096 // bus - beat % (4096 // bus))
                yield beat * bus, n
                beat, left = beat + n, left - n

    def slots(self, dim, bus):
        """Cycles of the address generator."""
        if self.fill:
            return self.units(dim) * int(np.prod(self.c[self.pack :]))
        return sum(n for _, n in self.bursts(bus))

    def writes(self, memory, dim):
        """(mem, address, bytes) of each local unit, in order."""
        size = SOURCE[self.conv]
        outer = [range(n) for n in self.c[:0:-1]]
        inner = [range(n) for n in self.c[self.pack - 1 : 0 : -1]]
        per = self.per_unit(dim)
        for i in itertools.product(*outer[: 4 - self.pack]):
            index = dict(zip(range(3, self.pack - 1, -1), i, strict=True))
            start = self.dram + sum(n * self.s[d - 1] for d, n in index.items())
            place = self.loc + sum(n * self.l[d] for d, n in index.items())
            row = []
            for j in itertools.product(*inner):
                step = dict(zip(range(self.pack - 1, 0, -1), j, strict=True))
                at = start + sum(n * self.s[d - 1] for d, n in step.items())
                row.append(memory[at : at + self.c[0] * size])
            values = convert(self, np.concatenate(row))
            for u in range(self.units(dim)):
                part = values[u * per : (u + 1) * per]
                full = np.zeros(per, values.dtype)
                full[: len(part)] = part
                yield self.mem, place + u * self.l[0], full.view(np.uint8)


def convert(load, raw):
    """Bytes of a row to elements of the local type."""
    local = {"COPY8": np.uint8, "COPY16": np.uint16, "F32_BF16": np.uint16}
    local = local.get(load.conv, np.uint32)
    if load.fill:
        return np.full(load.elements, load.value & np.iinfo(local).max, local)
    if load.conv == "I8_I32":
        return raw.view(np.int8).astype(np.int32).view(np.uint32)
    if load.conv == "U8_I32":
        return raw.astype(np.uint32)
    if load.conv == "F32_BF16":
        bits = raw.copy().view(np.uint32)
        bits[(bits & 0x7F800000) == 0] &= 0x80000000
        with np.errstate(all="ignore"):
            out = bits.view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16).copy()
        out[np.isnan(bits.view(np.float32))] = 0x7FC0
        return out
    return raw.copy().view(local)


def random_load(rng, config, big=False):
    """Any legal instruction with small counts, inside DRAM and the local memory."""
    while True:
        mem = int(rng.integers(2))
        conv = str(
            rng.choice(
                ["COPY32", "I8_I32", "U8_I32"] if mem else ["COPY8", "COPY16", "COPY32", "F32_BF16"]
            )
        )
        rows = config.acc_rows if mem else config.spad_granules
        even = 1 if mem or conv == "COPY8" else 2
        top = int(rng.choice([3, 2 * config.dim, 6 * config.dim] + [700] * big))
        counts = (int(rng.integers(1, top + 1)), *(int(n) for n in rng.integers(1, 4, 3)))
        reach = int(rng.choice([0, 5, 64, 700, 5000]))
        load = Load(
            conv=conv,
            mem=mem,
            pack=int(rng.integers(1, 4)),
            fill=int(rng.random() < 0.2),
            dram=int(rng.integers(DRAM_BYTES)),
            c=counts,
            s=tuple(int(n) for n in rng.integers(-reach, reach + 1, 3)),
            loc=even
            * int(rng.integers((config.acc_rows if mem else config.spad_granules) // even)),
            l=tuple(even * int(n) for n in rng.integers(-3, 4, 4)),
            value=int(rng.integers(1 << 32)),
        )
        starts = list(load.runs())
        if min(starts) < 0 or max(starts) + 4 * load.c[0] > DRAM_BYTES:
            continue
        places = [a for _, a, _ in load.writes(np.zeros(DRAM_BYTES, np.uint8), config.dim)]
        if min(places) >= 0 and max(places) < rows:
            return load
