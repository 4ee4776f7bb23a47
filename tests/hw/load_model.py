"""What LOAD must do, written from docs/microarchitecture.md §3 alone: writes, bursts, cycles."""

import itertools
from dataclasses import dataclass, field, replace

import ml_dtypes
import numpy as np

DRAM_BYTES = 1 << 16
LATENCY = 60
GATHER = 8  # slots before a gather's first beat
PARTS = ("F32_HI", "F32_MID", "F32_LO")
SOURCE = {"COPY8": 1, "COPY16": 2, "COPY32": 4, "F32_BF16": 4, "I8_I32": 1, "U8_I32": 1}
SOURCE |= dict.fromkeys(PARTS, 4)
CODE = {"COPY8": 0, "COPY16": 1, "COPY32": 2, "F32_BF16": 3, "I8_I32": 7, "U8_I32": 8}
CODE |= {name: 4 + i for i, name in enumerate(PARTS)}
SPECIAL = (
    0x00000001, 0x807FFFFF, 0x00800000, 0x7F800001, 0xFFC00000, 0x7F7FFFFF, 0x7F7F7FFF, 0x3F808000,
    0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x80000000, 0xFFFFFFFF, 0x00800001, 0x04808001,
    0x80C00100, 0x087FFFFF, 0x7F7F8000, 0xFF7F7FFF, 0x3F7FFFFF, 0x3FFF8080, 0x0B808180, 0x8C00FF81,
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
    xpose: int = 0
    gather: int = 0
    index: int = 0
    bound: int = 1
    oob: int = 0
    table: tuple = ()  # the gather indices, as `local` has them
    dram: int = 0
    c: tuple = (1, 1, 1, 1)
    s: tuple = (0, 0, 0)
    loc: int = 0
    l: tuple = (0, 0, 0, 0)  # noqa: E741
    value: int = 0
    lacks: tuple = (0, 0, 0, 0)  # skip1, drop1, skip2, drop2
    done: int = field(default=-1, compare=False)

    @property
    def elements(self):
        """Of a local row."""
        return int(np.prod(self.c[: self.pack]))

    @property
    def box(self):
        """Runs of the dimensions that are transposed together, there or not."""
        return int(np.prod(self.c[1 : self.pack + 1]))

    @property
    def lacked(self):
        """Runs that a sequence lacks at its start, and at its end."""
        skip1, drop1, skip2, drop2 = self.lacks
        return skip1 + skip2 * self.c[1], drop1 + drop2 * self.c[1]

    @property
    def sequence(self):
        """Runs that are transposed together."""
        return self.box - sum(self.lacked)

    def per_unit(self, dim):
        """Elements of a local unit."""
        return dim // 2 if self.mem == 0 and self.conv == "COPY32" else dim

    def units(self, dim):
        """Of a local row, or of a transposed block."""
        return self.c[0] if self.xpose else -(-self.elements // self.per_unit(dim))

    def fields(self, config):
        """The payload's fields."""
        dim, bus = config.dim, config.bus_bytes
        out = {"mem": self.mem, "conv": CODE[self.conv], "pack": self.pack, "fill": self.fill}
        out |= {n: getattr(self, n) for n in ("xpose", "gather", "index", "bound", "oob")}
        out |= {f"c{i}": n for i, n in enumerate(self.c)}
        out |= {f"s{i + 1}": n for i, n in enumerate(self.s)}
        out |= {f"l{i}": n for i, n in enumerate(self.l)}
        out |= {"dram": self.dram, "loc": self.loc, "value": self.value}
        out |= {"joined": int(self.joined), "span": self.c[1] * self.size if self.joined else 0}
        out |= {"paired": int(self.paired(dim, bus) is not None)}
        packed = self.sequence if self.xpose else self.elements
        out |= dict(zip(("skip1", "drop1", "skip2", "drop2"), self.lacks, strict=True))
        back, more = (self.lacks[2 * i] * self.s[i] for i in (0, 1))
        out |= {"back": back % (1 << 32), "begin": (self.dram + back + more) % (1 << 32)}
        return out | {"row_elems": packed, "units": self.units(dim)}

    @property
    def size(self):
        """Bytes of a run."""
        return self.c[0] * SOURCE[self.conv]

    @property
    def joined(self):
        """Whether the runs of an (i3, i2) share beats."""
        plain = self.pack == 1 and not (self.fill or self.xpose or self.gather)
        return plain and self.c[1] > 1 and self.s[0] == self.size

    def paired(self, dim, bus):
        """(Rows, units of a row) that a slot can write, if they are two."""
        plain = self.joined and self.conv == "COPY8" and self.mem == 0
        if not plain or self.loc % 2 or self.l[2] % 2 or self.l[3] % 2:
            return None
        if self.l[1] == 1 and self.size < bus:
            return 2, 1
        if bus == dim and self.l[0] == 1 and self.l[1] % 2 == 0:
            return 1, 2
        return None

    def row(self, i1):
        """What stands for i1 in addresses."""
        return min(max(self.table[i1], 0), self.bound - 1) if self.gather else i1

    def runs(self):
        """Byte address of each run, in order."""
        _, c1, c2, c3 = self.c
        every = itertools.product(range(c3), range(c2), map(self.row, range(c1)))
        skip, drop = self.lacked
        for number, (i3, i2, i1) in enumerate(every):
            if not skip <= number % self.box < self.box - drop:
                continue
            yield self.dram + i1 * self.s[0] + i2 * self.s[1] + i3 * self.s[2]

    def bursts(self, bus):
        """(First byte's beat address, beats) of each burst, in order."""
        return [(address, beats) for _, address, beats in self.schedule(bus, bus)]

    def walk(self, dim, bus):
        """The address of the beat of each slot, or None; a list for each run or joined group."""
        if self.gather:
            yield [None] * GATHER
        starts = list(self.runs())
        if self.joined:
            for i in range(0, len(starts), self.c[1]):
                yield self.together(starts[i : i + self.c[1]], dim, bus)
            return
        for i, address in enumerate(starts):
            yield list(range(address // bus * bus, address + self.size, bus))
            if self.xpose and i % self.sequence == self.sequence - 1:
                yield [None] * (-self.sequence % dim * -(-self.c[0] // dim))

    def together(self, starts, dim, bus):
        """The slots of joined runs: each fetches what nobody has, in at least `units` slots.

        Paired: so do two rows together, or a row with a slot for two units.
        """
        rows, units = self.paired(dim, bus) or (1, 1)
        least = -(-self.units(dim) // units)
        slots = [starts[0] // bus * bus] if starts[0] % bus else []
        seen = set(slots)
        for i in range(0, len(starts), rows):
            first, end = starts[i], starts[i : i + rows][-1] + self.size
            new = [a for a in range(first // bus * bus, end, bus) if a not in seen]
            seen |= set(new)
            slots += new + [None] * (least - len(new))
        return slots

    def schedule(self, dim, bus):
        """(Slot, address, beats) of each burst, in order; slots count from 0."""
        x = 0
        for part in self.walk(dim, bus):
            beats = [(x + i, a) for i, a in enumerate(part) if a is not None]
            x += len(part)
            while beats:
                slot, address = beats[0]
                n = min(16, len(beats), (4096 - address % 4096) // bus)
                yield slot, address, n
                beats = beats[n:]

    def drain(self):
        """Cycles after the last slot in which the last block's columns are written."""
        return self.c[0] + 2 if self.xpose else 0

    def hidden(self, dim):
        """Cycles of another instruction's drain in which this one's slots may come."""
        return dim * -(-self.c[0] // dim) if self.xpose else 0

    def slots(self, dim, bus):
        """Cycles of the address generator."""
        if self.fill:
            return self.units(dim) * int(np.prod(self.c[self.pack :]))
        return sum(len(part) for part in self.walk(dim, bus))

    def writes(self, memory, dim):
        """(mem, address, bytes) of each local unit, in order."""
        size = SOURCE[self.conv]
        if self.xpose:
            yield from self.columns(memory, dim)
            return
        outer = [range(n) for n in self.c[:0:-1]]
        inner = [range(n) for n in self.c[self.pack - 1 : 0 : -1]]
        per = self.per_unit(dim)
        for i in itertools.product(*outer[: 4 - self.pack]):
            index = dict(zip(range(3, self.pack - 1, -1), i, strict=True))
            start = self.dram
            place = self.loc + sum(n * self.l[d] for d, n in index.items())
            row = []
            for j in itertools.product(*inner):
                step = index | dict(zip(range(self.pack - 1, 0, -1), j, strict=True))
                moved = step | {1: self.row(step[1])}
                at = start + sum(n * self.s[d - 1] for d, n in moved.items())
                run = memory[at : at + self.c[0] * size]
                if self.oob and self.table[step[1]] != moved[1]:
                    value = np.array([self.value], np.uint32).view(np.uint8)[:size]
                    run = np.tile(value, self.c[0])
                row.append(run)
            values = convert(self, np.concatenate(row))
            for u in range(self.units(dim)):
                part = values[u * per : (u + 1) * per]
                full = np.zeros(per, values.dtype)
                full[: len(part)] = part
                yield self.mem, place + u * self.l[0], full.view(np.uint8)

    def accesses(self, memory, dim, bus):
        """(mem, address, bytes) of what is written at once: a unit, or two that are paired."""
        units = [(m, a, b.tobytes()) for m, a, b in self.writes(memory, dim)]
        step, group = 1, 1
        if self.paired(dim, bus):
            step, group = 2, self.c[1] if self.l[1] == 1 else self.units(dim)
        for i in range(0, len(units), group):
            for j in range(i, i + group, step):
                parts = units[j : min(j + step, i + group)]
                yield *parts[0][:2], b"".join(b for _, _, b in parts)

    def columns(self, memory, dim):
        """`writes` of a transposing instruction."""
        starts, size = list(self.runs()), self.sequence
        every = list(itertools.product(*map(range, self.c[:0:-1])))[:: self.box]  # of a sequence
        for n, (i3, i2, _) in enumerate(every):
            at = self.loc + i2 * self.l[2] * (self.pack < 2) + i3 * self.l[3] * (self.pack < 3)
            runs = starts[n * size : (n + 1) * size]
            for b in range(0, len(runs), dim):
                block = [
                    convert(self, memory[start : start + self.size]) for start in runs[b : b + dim]
                ]
                for e in range(self.c[0]):
                    unit = np.zeros(dim, block[0].dtype)
                    unit[: len(block)] = [row[e] for row in block]
                    place = at + e * self.l[0] + b // dim * self.l[1]
                    yield self.mem, place, unit.view(np.uint8)


def convert(load, raw):
    """Bytes of a row to elements of the local type."""
    local = {"COPY8": np.uint8, "COPY16": np.uint16, "F32_BF16": np.uint16}
    local |= dict.fromkeys(PARTS, np.uint16)
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
    if load.conv in PARTS:
        words = raw.copy().view(np.uint32)
        return np.array([part(int(x), PARTS.index(load.conv)) for x in words], np.uint16)
    return raw.copy().view(local)


def part(bits, index):
    """bf16 bits of a part of one fp32, by integers: value = sign * significand * 2 ** scale."""
    sign, exponent, fraction = bits >> 31, bits >> 23 & 255, bits & 0x7FFFFF
    if exponent == 255:
        high = 0x7FC0 if fraction else sign << 15 | 0x7F80
        return 0 if index else high
    rest = (-1) ** sign * (fraction | 1 << 23) if exponent else 0
    zero = sign << 15
    for step in range(index + 1):
        size, low = abs(rest), 0
        tiny = size and size.bit_length() + exponent <= 24  # below 2 ** -126
        out = zero if not size else (rest < 0) << 15
        if tiny:
            rest = 0
        elif size:
            low = max(0, size.bit_length() - 8)
            top = size >> low
            tail = size & ((1 << low) - 1)
            half = 1 << low >> 1
            top += low > 0 and (tail > half or (tail == half and top % 2))
            kept = top << low
            top = kept << 8 >> kept.bit_length()  # seven bits below the leading one
            e = exponent + kept.bit_length() - 24
            if e >= 255:
                return 0 if index > step else out | 0x7F80
            out |= e << 7 | top & 127
            rest -= kept if rest > 0 else -kept
        zero = 0
    return out


def local(config, rng):
    """Scratchpad, of which a gather reads its indices."""
    return rng.integers(-4, 12, config.spad_granules * config.dim // 4).astype(np.int32)


def gathering(load, config, rng, indices):
    """`load` with its rows by index."""
    bus, count = config.bus_bytes, load.c[1]
    lanes = config.dim // 2
    index = 2 * int(rng.integers(config.spad_granules // 2 - -(-count // lanes)))
    table = tuple(int(x) for x in indices[index * config.dim // 4 :][:count])
    stride = bus * int(rng.choice([0, 1, 5, 40, -7]))
    fields = {"gather": 1, "index": index, "bound": int(rng.integers(1, 12)), "table": table}
    return replace(
        load, **fields, fill=0, xpose=0, oob=int(rng.integers(2)), s=(stride, *load.s[1:])
    )


def joined_load(rng, config):
    """A load of several joined runs, of 1 to 100 bytes each."""
    mode = (0, "COPY8"), (0, "COPY16"), (0, "COPY32"), (1, "COPY32"), (1, "I8_I32"), (1, "U8_I32")
    mem, conv = (*mode, (0, "F32_BF16"), *((0, p) for p in PARTS))[rng.integers(10)]
    even = 1 if mem or conv == "COPY8" else 2
    rows = config.acc_rows if mem else config.spad_granules
    run = int(rng.integers(1, 100 // SOURCE[conv] + 1)) * SOURCE[conv]
    runs = int(rng.choice([2, 3, 5, 9, 17]))
    while True:
        load = Load(
            conv=conv,
            mem=mem,
            dram=int(rng.integers(3000, 5000)),
            c=(run // SOURCE[conv], runs, *(int(n) for n in rng.integers(1, 3, 2))),
            s=(run, int(rng.choice([run * runs, -run, 0, 37])), int(rng.integers(-99, 99))),
            loc=even * int(rng.integers(rows // even)),
            l=tuple(even * int(n) for n in rng.integers(-3, 4, 4)),
        )
        if conv == "COPY8":
            load = pairing(load, rng)
        places = [a for _, a, _ in load.writes(np.zeros(DRAM_BYTES, np.uint8), config.dim)]
        if min(places) >= 0 and max(places) < rows:
            return load


def pairing(load, rng):
    """`load` at a place where two of its rows, or two units of a row, may be written at once."""
    unit, row, *outer = load.l
    unit, row = (unit, 1) if rng.random() < 0.5 else (1, 2 * row)
    run = int(rng.integers(1, 16)) if row == 1 and rng.random() < 0.7 else load.c[0]
    even = rng.random() < 0.8
    return replace(
        load,
        c=(run, *load.c[1:]),
        s=(run, *load.s[1:]),
        loc=load.loc & (-2 if even else -1),
        l=(unit, row, *(n * (1 + even) for n in outer)),
    )


def random_lacks(load, rng):
    """What a sequence lacks at its ends, so that a run is left."""
    while True:
        lacks = []
        for n in (load.c[1], load.c[1], *(load.c[2] if load.pack == 3 else 1,) * 2):
            lacks.append(int(rng.choice([0, min(1, n - 1), n - 1, rng.integers(n)])))
        changed = replace(load, lacks=tuple(lacks))
        if changed.sequence > 0:
            return changed.lacks


def random_load(rng, config, big=False, indices=None):
    """Any legal instruction with small counts, inside DRAM and the local memory."""
    while True:
        mem = int(rng.integers(2))
        conv = str(
            rng.choice(
                ["COPY32", "I8_I32", "U8_I32"]
                if mem
                else ["COPY8", "COPY16", "COPY32", "F32_BF16", *PARTS]
            )
        )
        rows = config.acc_rows if mem else config.spad_granules
        even = 1 if mem or conv == "COPY8" else 2
        top = int(rng.choice([3, 2 * config.dim, 6 * config.dim] + [700] * big))
        counts = (int(rng.integers(1, top + 1)), *(int(n) for n in rng.integers(1, 4, 3)))
        xpose = int(not mem and conv != "COPY32" and rng.random() < 0.3)
        if xpose:
            runs = int(rng.choice([config.dim, rng.integers(1, 3 * config.dim + 1)]))
            most = 8 * config.dim
            long = rng.choice([config.dim, most, *rng.integers(1, most + 1, 2)])
            counts = (int(long), runs, *counts[2:])
        reach = int(rng.choice([0, 5, 64, 700, 5000]))
        load = Load(
            conv=conv,
            mem=mem,
            pack=int(rng.integers(1, 4)),
            fill=int(not xpose and rng.random() < 0.2),
            xpose=xpose,
            dram=int(rng.integers(DRAM_BYTES)),
            c=counts,
            s=tuple(int(n) for n in rng.integers(-reach, reach + 1, 3)),
            loc=even
            * int(rng.integers((config.acc_rows if mem else config.spad_granules) // even)),
            l=tuple(even * int(n) for n in rng.integers(-3, 4, 4)),
            value=int(rng.integers(1 << 32)),
        )
        if xpose and load.pack > 1 and rng.random() < 0.6:
            load = replace(load, lacks=random_lacks(load, rng))
        if rng.random() < 0.4:
            load = replace(load, s=(load.size, *load.s[1:]))
        if indices is not None and rng.random() < 0.4:
            load = gathering(load, config, rng, indices)
        starts = list(load.runs())
        if min(starts) < 0 or max(starts) + 4 * load.c[0] > DRAM_BYTES:
            continue
        places = [a for _, a, _ in load.writes(np.zeros(DRAM_BYTES, np.uint8), config.dim)]
        if min(places) >= 0 and max(places) < rows:
            return load
