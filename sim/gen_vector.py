"""Random VECTORs for the fuzzer: legal micro-kernels over random streams.

A micro-kernel is drawn word by word, with the registers that hold something by then; integer and
floating-point registers are told apart, so that values stay interesting, but now and then mixed.
Its bytes lie in DRAM; a LOAD brings them to the accumulator before the VECTOR that runs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from random import Random

from tilewright.isa.config import ChipConfig
from tilewright.isa.micro import OPERATIONS, SOURCES, MicroOp, encode_micro
from tilewright.isa.micro_rules import READS
from tilewright.isa.table import INSTRUCTIONS, Conv, Mem, Type
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS, STREAMS
from tilewright.sim.gen_ops import KERNELS, SPACE, Op, Ops, grid

#: Memory and type of a stream.
KINDS = (
    (Mem.ACC, Type.I32), (Mem.ACC, Type.F32), (Mem.SPAD, Type.I8), (Mem.SPAD, Type.U8),
    (Mem.SPAD, Type.BF16),
)  # fmt: skip
PLAIN, IN_PLACE = "plain", "in_place"
_LAYOUT = INSTRUCTIONS["vector"].layout


def _fits(x: tuple[Mem, Type], o: tuple[Mem, Type]) -> bool:
    """Whether units of `x` and `o` can lie at the same places."""
    return x[0] == o[0] and (x[1] == Type.BF16) == (o[1] == Type.BF16)


#: Kind of x and of o, ragged, in place or not.
DECK = tuple(
    card for card in product(KINDS, KINDS, (0, 1), (PLAIN, IN_PLACE))
    if card[3] == PLAIN or _fits(card[0], card[1])
)  # fmt: skip
_TO_INT = ("eq_f32", "lt_f32", "le_f32", "f32_i32", "f32_u32", "mul_fx")
_TO_FLOAT = ("i32_f32", "u32_f32", "exp2_fx")
_EITHER = ("mov", "select", "rotate", "broadcast", "const", "nop")
_FLOAT = tuple(n for n in OPERATIONS if n.endswith("_f32") and n not in (*_TO_INT, *_TO_FLOAT))
_FLOATS = (*_FLOAT, "f32_bf16")
_CONSTANTS = (0, 0x80000000, 0x7F800000, 0x7FC00000, 0x7F800001, 1, 0xFFFFFFFF, 0x7FFFFFFF, 31, 32,
              0x3F000000, 0xC0200000, 0x4B800000)  # fmt: skip


@dataclass
class Kernel:
    """A micro-kernel: its words and how many each section has."""

    words: list[MicroOp] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """Its bytes."""
        return b"".join(map(encode_micro, self.words))


class Writer:
    """Draws one micro-kernel.

    Parameters
    ----------
    loads, stores : stream -> whether it is floating point, of those that are on.
    """

    def __init__(self, rng: Random, loads: dict[str, bool], stores: dict[str, bool]):
        self.rng, self.loads, self.stores = rng, loads, stores
        self.floats: dict[int, bool] = {}  # register that holds something -> whether a float
        self.fixed: set[int] = set()
        names = list(OPERATIONS)
        rng.shuffle(names)
        self.names = names  # each is drawn before one is drawn again

    def kernel(self, long: bool) -> Kernel:
        """A micro-kernel of about 12 words; in a long one a section is as long as can be."""
        rng, out = self.rng, Kernel()
        sizes = [rng.randint(0, 3), rng.randint(0, 4), rng.randint(1, 12), rng.randint(0, 4)]
        if long:
            at = rng.randrange(len(SECTIONS))
            sizes[at] = _LAYOUT[SECTIONS[at]][1].high - rng.choice((0, 0, 1, 9))
        for section, size in zip(SECTIONS, sizes, strict=True):
            words = [self._word(section) for _ in range(size)]
            out.words += words
            out.lengths[section] = size
            if section == "init":
                self.fixed = set(self.floats)
        return out

    def _word(self, section: str) -> MicroOp:
        """A word that may come next."""
        rng = self.rng
        fields: dict[str, int] = {}
        name, result = self._operation(section, fields)
        loaded: bool | None = None
        if section != "init":
            if self.stores and self.floats and rng.random() < 0.45:
                stream = rng.choice(list(self.stores))
                fields["store"] = 1 + STORE_STREAMS.index(stream)
                fields["store_src"] = self._register(self.stores[stream])
            if self.loads and rng.random() < (0.9 if not self.floats else 0.4):
                stream = rng.choice(list(self.loads))
                loaded = self.loads[stream]
                fields["load"] = 1 + LOAD_STREAMS.index(stream)
                fields["load_dst"] = self._target()
        if loaded is not None:
            self.floats[fields["load_dst"]] = loaded
        if name != "nop":
            self.floats[fields["dst"]] = result
        return MicroOp.make(name, **fields)

    def _operation(self, section: str, fields: dict[str, int]) -> tuple[str, bool]:
        """The ALU slot: its name, and whether it gives a float."""
        rng = self.rng
        name = self.names.pop()
        self.names.insert(rng.randrange(len(self.names) // 2), name)
        floats = name in (*_FLOATS, *_TO_INT) or (name in _EITHER and rng.random() < 0.5)
        if name != "nop":
            fields["dst"] = self._target()
        if name == "const":
            fields["imm"] = rng.choice((rng.choice(_CONSTANTS), rng.getrandbits(32)))
            return name, floats
        for f in READS[name]:
            kind = floats
            if (name, f) in (("select", "a"), ("mul_fx", "b")):
                kind = False
            fields[f] = self._source(kind, section)
        if name in ("rotate", "broadcast", "mul_fx"):
            fields["n"] = rng.randrange(32)
        return name, name in _TO_FLOAT or (floats and name not in _TO_INT)

    def _target(self) -> int:
        """A register that may be written, often one that is in use."""
        free = [r for r in range(32) if r not in self.fixed]
        return self.rng.choice(free[: self.rng.choice((4, 8, 32))])

    def _register(self, floats: bool) -> int:
        """A register that holds something, mostly of the kind."""
        alike = [r for r, kind in self.floats.items() if kind == floats]
        if alike and self.rng.random() < 0.85:
            return self.rng.choice(alike[-4:])
        return self.rng.choice(list(self.floats))

    def _source(self, floats: bool, section: str) -> int:
        """A register or another source."""
        if self.floats and self.rng.random() < 0.75:
            return self._register(floats)
        names = [n for n in SOURCES if section != "init" or n != "row"]
        return SOURCES[self.rng.choice(names)]


class VectorOps(Ops):
    """Draws instructions of all units."""

    def __init__(self, config: ChipConfig, rng: Random, seed: int):
        super().__init__(config, rng, seed)
        self._decks["vector"] = DECK
        self._dealt["vector"] = 0
        self.kernels = b""  # what lies in KERNELS

    def vector(self, x: tuple[Mem, Type], o: tuple[Mem, Type], ragged: int, way: str) -> Op | None:
        """A VECTOR after the LOAD of its micro-kernel, at times after another one that runs it."""
        rng = self.rng
        rows, cols = rng.choice((1, 2, 3, 7, 8, 9, 17)), self._columns()
        if ragged != (cols % self.config.dim > 0):
            return None
        kinds = {"x": x, "o": o}
        kinds |= {s: rng.choice(KINDS) for s in ("y", "z", "p") if rng.random() < 0.5}
        floats = {s: kind[1] in (Type.BF16, Type.F32) for s, kind in kinds.items()}
        loads = {s: f for s, f in floats.items() if s in LOAD_STREAMS}
        stores = {s: f for s, f in floats.items() if s in STORE_STREAMS}
        long = rng.random() < 0.08 and len(self.kernels) < len(KERNELS) // 2
        kernel = Writer(rng, loads, stores).kernel(long)
        size = self.config.dim // 2  # words of a row
        own = set(range(-(-len(kernel.words) // size)))
        row = self._base("acc", own)
        if row is None:
            return None
        cells = frozenset(row + c for c in own)
        last = self._run(kernel, row, cells, kinds, (rows, cols), way)
        first = None
        if last is not None and rng.random() < 0.3:
            other = {s: rng.choice(KINDS) for s in kinds}
            feeds = rng.random() < 0.6  # what the second one loads
            if feeds:
                other["o"] = x
            shape = (rows if feeds else rng.randint(1, 20), cols)
            first = self._run(kernel, row, cells, other, shape, PLAIN, last if feeds else None)
        if last is None:
            return None
        bring = self._bring(kernel.data, row, cells)
        if first is not None:
            first.before, last.before = bring, first
        else:
            last.before = bring
        return last

    def _bring(self, data: bytes, row: int, cells: frozenset[int]) -> Op:
        """The LOAD that brings a micro-kernel from DRAM to the accumulator."""
        at = KERNELS.start + len(self.kernels)
        if at + len(data) > KERNELS.stop:
            raise ValueError(f"a program must have micro-kernels of at most {len(KERNELS)} bytes")
        self.kernels += data
        f = dict(mem=Mem.ACC, conv=Conv.COPY32, dram=at, c0=len(data) // 4, loc=row, l0=1)
        source = ("dram", frozenset(range(at, at + len(data))))
        return Op("load", f, reads=[source], writes=[("acc", cells)])

    def _run(
        self, kernel: Kernel, row: int, own: frozenset[int], kinds: dict[str, tuple[Mem, Type]],
        shape: tuple[int, int], way: str, feeds: Op | None = None,
    ) -> Op | None:  # fmt: skip
        """A VECTOR that runs a micro-kernel, or None if its streams find no place.

        Its stream o goes to stream x of `feeds`; to its own, if it works in place.
        """
        rng, (rows, cols) = self.rng, shape
        f = dict(kernel=row, rows=rows, cols=cols, **kernel.lengths)
        f |= {n: rng.choice((rng.choice(_CONSTANTS), rng.getrandbits(32))) for n in "uv"}
        op = Op("vector", f, reads=[("acc", own)])
        for stream in STREAMS:
            if stream in kinds:
                at = op if way == IN_PLACE else feeds
                fields = self._stream(op, stream, kinds[stream], at if stream == "o" else None)
                if fields is None:
                    return None
                f |= fields
        return op

    def _stream(
        self, op: Op, name: str, kind: tuple[Mem, Type], at: Op | None
    ) -> dict[str, int] | None:  # fmt: skip
        """The fields of a stream that meets no other wrongly; its cells go to `op`.

        Its places are those of stream x of `at`, if that is given.
        """
        rng, f, (mem, of) = self.rng, op.fields, kind
        units, width = -(-f["cols"] // self.config.dim), 2 if of == Type.BF16 else 1
        out = {f"{name}_on": 1, f"{name}_mem": mem, f"{name}_type": of}
        for _ in range(8):
            unit, (row,) = self._layout(units, [f["rows"]], width)
            if rng.random() < 0.1:
                unit, row = row, unit
            cells = grid((f["rows"], row), (units, unit), width=width)
            base = self._base(SPACE[mem], cells, width)
            if at is not None:
                base, row, unit = (at.fields[n] for n in ("x", "x_row", "x_unit"))
                cells = grid((f["rows"], row), (units, unit), width=width)
                if at is op and len(cells) != f["rows"] * units * width:
                    return None
            if base is None:
                continue
            space, touched = SPACE[mem], frozenset(base + c for c in cells)
            reads = [c for s, c in op.reads if s == space]
            if name in STORE_STREAMS and sum(bool(c & touched) for c in reads) > (at is op):
                if at is not None:
                    return None
                continue
            (op.writes if name in STORE_STREAMS else op.reads).append((space, touched))
            return out | {name: base, f"{name}_row": row, f"{name}_unit": unit}
        return None
