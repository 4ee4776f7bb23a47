"""What the fuzzer's programs are built of: lines, and the builder that writes them.

Every piece is legal and race-free by construction: `Sync` inserts the waits that its operands need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tilewright.isa.config import INSTR_BYTES, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.encoding import Reg
from tilewright.isa.table import BY_OPCODE, INSTRUCTIONS, OPCODE_BITS, Conv, Fault, Mem, Type, Unit
from tilewright.sim.gen_ops import BYTES, DRAM_SIZE, FLOATS, RESULTS, Op
from tilewright.sim.gen_sync import DONE, READ, Node, Sync
from tilewright.sim.gen_vector import VectorOps

_UNITS = {"load": Unit.LOAD, "matmul": Unit.MATMUL, "vector": Unit.VECTOR, "store": Unit.STORE}
_ALU = ("add", "sub", "mul", "shl", "shr", "sar", "and", "min", "max")
_BRANCH = ("beq", "bne", "blt", "bge")
_CORNERS = (0, 1, -1, 31, 2**31 - 1, -(2**31), 5, -17)


@dataclass
class Line:
    """One word of the program: mnemonic and fields, or raw bytes."""

    name: str
    fields: dict[str, int | Reg] = field(default_factory=dict)
    raw: bytes = b""


class Builder:
    """Writes one program from start to end."""

    def __init__(self, config: ChipConfig, rng: Random, seed: int):
        self.config, self.rng, self.seed = config, rng, seed
        self.lines: list[Line] = []
        self.ops = VectorOps(config, rng, seed)
        self.sync = Sync(rng, self._insert)
        self.held: dict[int, int] = {}  # register -> value that it surely holds

    def emit(self, name: str, **fields: int | Reg) -> int:
        """Append a line; gives its index."""
        self.lines.append(Line(name, fields))
        return len(self.lines) - 1

    def _insert(self, node: Node, fields: dict[str, int]) -> None:
        node.slot = self.emit(node.name, **fields)

    def set_register(self, number: int, value: int) -> None:
        """Make a register hold 32 bits, in one or two instructions, unless it does."""
        value &= 0xFFFFFFFF
        if self.held.get(number) == value:
            return
        near = value - (1 << 32) if value >> 31 else value
        if self.rng.random() < 0.3 and -(2**30) < near < 2**30:
            part = self.rng.randint(-9999, 9999)
            self.emit("li", rd=number, b=near - part)
            self.emit("add", rd=number, ra=number, b=part)
        else:
            self.emit("li", rd=number, b=near)
        self.held[number] = value

    def _registers(self, op: Op) -> dict[str, int | Reg]:
        """The fields of an instruction, some of them through registers."""
        fields: dict[str, int | Reg] = dict(op.fields)
        if self.rng.random() < 0.3:
            able = [f for f in op.fields if f in INSTRUCTIONS[op.name].reg_bit]
            for number, name in enumerate(self.rng.sample(able, self.rng.randint(1, 3))):
                self.set_register(number, op.fields[name])
                fields[name] = Reg(number)
        return fields

    def unit(self, op: Op) -> None:
        """A unit's instruction with the synchronisation that it needs."""
        if op.before is not None:
            self.unit(op.before)
        node = Node(-1, _UNITS[op.name], op.name)
        fields = self._registers(op)
        self.sync.add(node, op.reads, op.writes, op)
        node.slot = self.emit(op.name, **fields)

    def scalars(self) -> None:
        """Arithmetic, and branches over what must not matter."""
        rng = self.rng
        for _ in range(rng.randint(1, 4)):
            rd, ra, rb = (rng.randint(8, 13) for _ in range(3))
            b = Reg(rb) if rng.random() < 0.5 else rng.choice(_CORNERS)
            if rng.random() < 0.2:
                self.emit("li", rd=rd, b=b)
            else:
                self.emit(rng.choice(_ALU), rd=rd, ra=ra, b=b)
        if rng.random() < 0.6:
            b = rng.choice((rng.choice(_CORNERS), Reg(rng.randint(8, 13))))
            over = rng.randint(1, 12)
            name = rng.choice((*_BRANCH, "jmp"))
            at = len(self.lines) + 1 + over
            if name == "jmp":
                self.emit(name, target=at)
                self.lines.append(Line("", raw=rng.randbytes(INSTR_BYTES)))
                over -= 1
            else:
                self.emit(name, ra=rng.randint(8, 13), b=b, target=at)
            for _ in range(over):
                self.emit(rng.choice(_ALU), rd=rng.randint(8, 13), ra=rng.randint(8, 13), b=7)

    def nest(self) -> None:
        """A loop around a loop, with arithmetic; most fit the instruction buffer, some do not."""
        rng = self.rng

        def some(most: int) -> None:
            for _ in range(rng.randint(0, most)):
                self.emit(rng.choice(_ALU), rd=rng.randint(8, 11), ra=rng.randint(8, 13), b=7)

        some(7)
        self.emit("li", rd=12, b=0)
        outer = len(self.lines)
        some(9)
        self.emit("li", rd=13, b=0)
        inner = len(self.lines)
        some(9)
        self.emit("add", rd=13, ra=13, b=1)
        self.emit("blt", ra=13, b=rng.randint(1, 3), target=inner)
        some(rng.choice((3, 9, 20)))
        self.emit("add", rd=12, ra=12, b=1)
        self.emit("blt", ra=12, b=rng.randint(2, 4), target=outer)
        some(30)

    def word(self) -> None:
        """The sequencer loads or stores a word of DRAM."""
        rng = self.rng
        name = rng.choice(("ldw", "stw"))
        address = rng.randrange(RESULTS.start, RESULTS.start + 2000, 4)
        if name == "ldw" and rng.random() < 0.5:
            address = rng.randrange(0, RESULTS.start, 4)
        cells = [("dram", frozenset(range(address, address + 4)))]
        node = Node(-1, Unit.SEQ, name)
        self.set_register(5, address - 8)
        self.set_register(6, 8)
        self.sync.add(node, *((cells, []) if name == "ldw" else ([], cells)))
        b = Reg(6) if rng.random() < 0.4 else 8
        node.slot = self.emit(name, rd=rng.randint(8, 13), ra=5, b=b)

    def loop(self) -> None:
        """LOAD, MATMUL and STORE in a double-buffered loop with credits, addresses in registers."""
        rng, dim, spare = self.rng, self.config.dim, self.sync.spare
        loaded, free, multiplied, empty = (spare.pop() for _ in range(4))
        trips = rng.randint(2, 5)
        rows = min(rng.randint(1, dim + 3), (len(RESULTS) - 500) // (4 * dim * trips))
        a = rng.randrange(self.config.spad_granules // 2 - rows)
        a2 = a + rows + rng.randint(0, self.config.spad_granules // 2 - rows - 1)
        w = rng.randrange(self.config.spad_granules - dim)
        c = rng.randrange(self.config.acc_rows // 2 - rows)
        c2 = c + rows + rng.randint(0, self.config.acc_rows // 2 - rows - 1)
        while set(range(w, w + dim)) & (set(range(a, a + rows)) | set(range(a2, a2 + rows))):
            w = rng.randrange(self.config.spad_granules - dim)
        source = rng.randrange(BYTES.start, BYTES.start + 500)
        target = rng.randrange(RESULTS.start, RESULTS.start + 500)
        step, out = rows * dim + rng.randint(0, 3), 4 * rows * dim
        self.sync.fence()
        credits = rng.choice((1, 2))
        for sem in (free, empty):
            node = Node(-1, Unit.SEQ, "post", posts={sem: credits})
            self._insert(node, {"sem": sem, "n": credits})
            self.sync.nodes.append(node)
        for number, value in enumerate((0, source, a, target, c, a + a2, c + c2), 1):
            self.set_register(number, value)
        begin = len(self.lines)
        self.emit("load", conv=Conv.COPY8, loc=Reg(3), dram=Reg(2), c0=dim, c1=rows, s1=dim, l1=1)
        self.emit("matmul", a=Reg(3), r0=rows, as0=1, w=w, ws=1, k=dim, n=dim, c=Reg(5))
        self.emit("store", mem=Mem.ACC, type=Type.I32, out=Type.I32, loc=Reg(5), dst=Reg(4), c0=dim,
                  c1=rows, l1=1, s1=4 * dim)  # fmt: skip
        self.emit("add", rd=2, ra=2, b=step)
        self.emit("add", rd=4, ra=4, b=out)
        self.emit("sub", rd=3, ra=6, b=Reg(3))
        self.emit("sub", rd=5, ra=7, b=Reg(5))
        self.emit("add", rd=1, ra=1, b=1)
        for _ in range(rng.choice((0, 0, 3, 30))):  # some loops leave the instruction buffer
            self.emit("add", rd=9, ra=9, b=1)
        self.emit("blt", ra=1, b=trips, target=begin)
        for i in range(trips):
            at, ct = (a2, c2) if i % 2 else (a, c)
            src = frozenset(source + i * step + x for x in range(rows * dim))
            dst = frozenset(target + i * out + x for x in range(out))
            rows_a, rows_c = frozenset(range(at, at + rows)), frozenset(range(ct, ct + rows))
            steps = (
                (Op("load", {}, [("dram", src)], [("spad", rows_a)]), {free: 1}, {DONE: loaded}),
                (Op("matmul", {"acc": 0}, [("spad", rows_a | frozenset(range(w, w + dim)))],
                    [("acc", rows_c)], [range(ct, ct + rows)]),
                 {loaded: 1, empty: 1}, {READ: free, DONE: multiplied}),
                (Op("store", {}, [("acc", rows_c)], [("dram", dst)]),
                 {multiplied: 1}, {READ: empty}),
            )  # fmt: skip
            for j, (op, waits, signals) in enumerate(steps):
                node = Node(begin + j, _UNITS[op.name], op.name, waits, signals)
                self.sync.enter_loop(node, op)
        self.held.clear()
        self.sync.fence()

    def pair(self) -> None:
        """A LOAD and a STORE that needs it."""
        dim, loc = self.config.dim, self.rng.randrange(self.config.acc_rows)
        rows = [("acc", frozenset([loc]))]
        near = dict(mem=Mem.ACC, conv=Conv.COPY32, c0=dim, loc=loc, dram=FLOATS.start)
        source = [("dram", frozenset(range(FLOATS.start, FLOATS.start + 4 * dim)))]
        target = [("dram", frozenset(range(RESULTS.start, RESULTS.start + 4 * dim)))]
        far = dict(mem=Mem.ACC, type=Type.F32, out=Type.F32, c0=dim, loc=loc, dst=RESULTS.start)
        while not any(n.waits for n in self.sync.nodes):
            self.unit(Op("load", near, source, rows))
            self.unit(Op("store", far, rows, target))

    def burst(self) -> None:
        """More small instructions of one unit than its queue holds."""
        space_rows = self.config.acc_rows
        for _ in range(self.rng.randint(18, 22)):
            loc = self.rng.randrange(space_rows)
            fields = dict(mem=Mem.ACC, conv=Conv.COPY32, fill=1, c0=1, loc=loc, value=loc)
            self.unit(Op("load", fields, writes=[("acc", frozenset([loc]))]))

    def fault(self, code: Fault) -> Fault:
        """An instruction that stops the chip, and one behind it that must not start."""
        rng = self.rng
        if code is Fault.OPCODE:
            self.lines.append(Line("", raw=_bad_word(rng)))
        elif code is Fault.FIELD:
            choice = rng.randrange(5)
            self.set_register(4, rng.choice((0, 70000, -1)))
            wrong: list[dict[str, int | Reg]] = [
                {"c0": 0}, {"c1": Reg(4)}, {"conv": Conv.COPY16, "loc": 3},
                {"body": 1, "cols": 0}, {"body": 1, "p_on": 1, "p_type": Type.F32},
            ]  # fmt: skip
            self.emit("vector" if choice > 2 else "load", **wrong[choice])
        elif code is Fault.UNIMPLEMENTED:
            if self.config.array != "int8":
                return self.fault(Fault.FIELD)  # this chip has everything
            self.emit("matmul", a_type=Type.BF16, w_type=Type.BF16)
        elif code is Fault.RANGE:
            outside: list[tuple[str, dict[str, int | Reg]]] = [
                ("load", {"loc": self.config.spad_granules}),
                ("load", {"c0": 1, "c1": 3, "loc": 1, "l1": -1}),
                ("load", {"xpose": 1, "c0": XPOSE_BLOCKS * self.config.dim + 1}),
                ("load", {"xpose": 1, "pack": 2, "c1": 256, "c2": 256}),
                ("load", {"xpose": 1, "pack": 3, "c1": 3, "c2": 3, "l1": -1}),
                ("load", {"xpose": 1, "pack": 2, "c1": 2, "c2": 3, "drop1": 2}),
                ("load", {"xpose": 1, "pack": 3, "c1": 2, "c2": 2, "skip2": 1, "drop2": 1}),
                ("store", {"xpose": 1, "c0": XPOSE_BLOCKS * self.config.dim + 1}),
                ("load", {"gather": 1, "bound": 1, "s1": 1}),
                ("load", {"gather": 1, "bound": 1, "index": self.config.spad_granules}),
                ("matmul", {"c": self.config.acc_rows - 1, "r0": 2}),
                ("matmul", {"w": self.config.spad_granules - self.config.dim + 1, "ws": 1}),
                ("store", {"loc": self.config.spad_granules - 1, "c1": 2, "l1": 1}),
                ("vector", {"body": self.config.dim, "kernel": self.config.acc_rows - 1}),
                ("vector", {"body": 1, "rows": 2, "z_on": 1, "z_row": -1}),
            ]
            name, fields = rng.choice(outside)
            self.emit(name, **fields)
        elif code is Fault.WINDOW:
            top = DRAM_SIZE - 4
            word: dict[str, int | Reg] = {"rd": 9, "ra": 7, "b": rng.choice((0, 8))}
            beyond: list[tuple[str, dict[str, int | Reg]]] = [
                ("load", {"dram": top, "c0": 5, "conv": Conv.COPY8}),
                ("load", {"dram": 0, "c0": 1, "c2": 3, "s2": -1}),
                ("load", {"dram": top, "c0": 1, "c1": 2, "s1": -4, "c3": 60000, "s3": 1 << 30}),
                ("store", {"dst": top, "c0": 2, "out": Type.I32}),
                ("store", {"dst": 16, "c0": 1, "c1": 3, "s1": -9}),
                ("store", {"dst": (1 << 32) - 4, "c0": 1, "c1": 2, "s1": 8}),
                ("ldw", word),
                ("stw", word),
            ]
            name, fields = rng.choice(beyond)
            self.set_register(7, DRAM_SIZE)
            self.emit(name, **fields)
        elif rng.random() < 0.5:
            self.emit("jmp", target=rng.randrange(len(self.lines) + 50, 1 << 26))
        else:
            return code
        self.emit("stw", rd=0, ra=0, b=RESULTS.start)
        self.emit("halt")
        return code


def _bad_word(rng: Random) -> bytes:
    """A word that is no instruction."""
    if rng.random() < 0.5:
        word = rng.choice([o for o in range(1 << OPCODE_BITS) if o not in BY_OPCODE])
        return (word | rng.getrandbits(500) << OPCODE_BITS).to_bytes(INSTR_BYTES, "little")
    spec = rng.choice(list(INSTRUCTIONS.values()))
    high = 1 << rng.randrange(spec.bits, 8 * INSTR_BYTES)
    return (spec.opcode | high).to_bytes(INSTR_BYTES, "little")
