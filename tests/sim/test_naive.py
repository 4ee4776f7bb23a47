"""Random programs on the functional engine against an interpreter that goes element by element.

The interpreter follows the instruction table's text with plain loops; it shares only the arithmetic
of `sim.numerics` and `sim.vector_alu`, which have their own tests.
"""

import math

import numpy as np
import pytest
from tilewright.isa.config import parse_config
from tilewright.isa.micro import decode_micro
from tilewright.isa.table import CONV_BYTES, TYPE_BYTES, Conv, Dest, Fault, Mem, Type, Unit
from tilewright.isa.units import SECTIONS
from tilewright.sim.functional import Machine
from tilewright.sim.generate import DRAM_SIZE, generate
from tilewright.sim.memory import Memory
from tilewright.sim.numerics import Epilogue, bfloat16, column_sum, epilogue, f32_add, f32_to_bf16
from tilewright.sim.vector_alu import alu

KIND = {Type.I8: np.int8, Type.U8: np.uint8, Type.BF16: bfloat16, Type.F32: np.float32,
        Type.I32: np.int32}  # fmt: skip
OUT = {Type.I8: "int8", Type.U8: "uint8", Type.BF16: "bf16", Type.F32: "fp32", Type.I32: "int32"}


def rank(x):
    """Orders numbers: NaN above all, -0 below +0."""
    return (x != x, 0 if x != x else x, math.copysign(1, x))


class Spy(Memory):
    """Remembers what each instruction wrote last, for `stw`, which test_functional checks."""

    machine = None

    def __init__(self):
        super().__init__()
        self.written = {}

    def write(self, address, data):
        super().write(address, data)
        if self.machine is not None:
            self.written[self.machine.count - 1] = bytes(data)


class Naive:
    """Memories as flat bytes."""

    def __init__(self, config, dram):
        self.dim, self.bus = config.dim, config.bus_bytes
        self.dram = bytearray(dram)
        self.spad = bytearray(config.spad_granules * config.dim)
        self.acc = bytearray(config.acc_rows * config.dim * 4)
        self.beats = [0, 0]

    def element(self, raw, conv):
        if conv in (Conv.F32_HI, Conv.F32_MID, Conv.F32_LO):
            rest = np.frombuffer(raw, np.float32)
            for _ in range(conv - Conv.F32_HI):
                high = f32_to_bf16(rest).astype(np.float32)
                if not np.isfinite(high):
                    return bytes(2)
                rest = f32_add(rest, -high)
            return f32_to_bf16(rest).tobytes()
        if conv == Conv.F32_BF16:
            return f32_to_bf16(np.frombuffer(raw, np.float32)).tobytes()
        if conv == Conv.I8_I32:
            return int.from_bytes(raw, "little", signed=True).to_bytes(4, "little", signed=True)
        return raw + bytes(3) if conv == Conv.U8_I32 else raw

    def load(self, v):
        conv, dim = Conv(v["conv"]), self.dim
        size = CONV_BYTES[conv]
        local = 1 if conv == Conv.COPY8 else 4 if conv in (2, 7, 8) else 2
        rows = {}
        lanes, old = {}, bytes(self.spad)
        for i3 in range(v["c3"]):
            for i2 in range(v["c2"]):
                for i1 in range(v["c1"]):
                    x, out = i1, False
                    if v["gather"]:
                        start = v["index"] * dim + 4 * i1
                        x = int.from_bytes(old[start : start + 4], "little", signed=True)
                        out = v["oob"] == 1 and not 0 <= x < v["bound"]
                        x = min(max(x, 0), v["bound"] - 1)
                    at = v["dram"] + x * v["s1"] + i2 * v["s2"] + i3 * v["s3"]
                    key = (i3, i2 if v["pack"] < 3 else 0, i1 if v["pack"] < 2 else 0)
                    row = rows.setdefault(key, bytearray())
                    q, runs, at3, at2 = i1, v["c1"], i3, i2
                    if v["pack"] > 1:
                        q, runs, at2 = q + i2 * v["c1"], runs * v["c2"], 0
                    if v["pack"] > 2:
                        q, runs, at3 = q + i3 * v["c1"] * v["c2"], runs * v["c3"], 0
                    q -= v["skip1"] + v["skip2"] * v["c1"]
                    runs -= v["skip1"] + v["skip2"] * v["c1"]
                    if not 0 <= q < runs - v["drop1"] - v["drop2"] * v["c1"]:
                        continue
                    if not v["fill"]:
                        self.beats[0] += (at % self.bus + v["c0"] * size + self.bus - 1) // self.bus
                        plain = v["pack"] == 1 and not (v["xpose"] or v["gather"])
                        if plain and i1 and v["s1"] == v["c0"] * size and at % self.bus:
                            self.beats[0] -= 1  # fetched with the row before
                    for e in range(v["c0"]):
                        raw = bytes(self.dram[at + e * size : at + (e + 1) * size])
                        raw = v["value"].to_bytes(4, "little")[:size] if out else raw
                        value = v["value"].to_bytes(4, "little")[:local]
                        if v["xpose"]:
                            place = (at3, at2, q // dim, e)
                            unit = lanes.setdefault(place, bytearray(dim * local))
                            j = q % dim * local
                            unit[j : j + local] = self.element(raw, conv)
                        row += value if v["fill"] else self.element(raw, conv)
        target, cell = (self.acc, 4 * dim) if v["mem"] == Mem.ACC else (self.spad, dim)
        width = 4 * dim if v["mem"] == Mem.ACC else dim * min(local, 2)
        for (i3, i2, b, e), unit in lanes.items():
            at = v["loc"] + e * v["l0"] + b * v["l1"] + i2 * v["l2"] + i3 * v["l3"]
            self.spad[at * dim : at * dim + len(unit)] = unit
        for (i3, i2, i1), row in () if v["xpose"] else rows.items():
            for u in range(-(-len(row) // width)):
                at = v["loc"] + u * v["l0"] + i1 * v["l1"] + i2 * v["l2"] + i3 * v["l3"]
                unit = bytes(row[u * width : (u + 1) * width]).ljust(width, b"\0")
                target[at * cell : at * cell + width] = unit

    def granules(self, at, kind):
        size = np.dtype(kind).itemsize
        return np.frombuffer(bytes(self.spad[at * self.dim : (at + size) * self.dim]), kind)

    def matmul(self, v):
        dim, at, wt = self.dim, KIND[v["a_type"]], KIND[v["w_type"]]
        for nb in range(-(-v["n"] // dim)):
            for kb in range(-(-v["k"] // dim)):
                live = min(dim, v["k"] - kb * dim)
                base = v["w"] + kb * v["wk"] + nb * v["wn"]
                w = np.stack([self.granules(base + j * v["ws"], wt) for j in range(live)])
                for i in range(v["r0"] * v["r1"]):
                    i1, i0 = divmod(i, v["r0"])
                    a = self.granules(v["a"] + kb * v["ak"] + i0 * v["as0"] + i1 * v["as1"], at)
                    place = slice((v["c"] + nb * v["cn"] + i) * 4 * dim, None)
                    place = slice(place.start, place.start + 4 * dim)
                    old = bytes(self.acc[place])
                    fresh = kb == 0 and not v["acc"]
                    if v["a_type"] == Type.BF16:
                        new = column_sum(a[None, :live], w, dim)[0]
                        new = new if fresh else f32_add(np.frombuffer(old, np.float32), new)
                    else:
                        new = a[:live].astype(np.int64) @ w.astype(np.int64)
                        new = new if fresh else new + np.frombuffer(old, np.int32)
                        new = (new & 0xFFFFFFFF).astype(np.uint32)
                    self.acc[place] = new.tobytes()

    def place(self, v, stream, row, unit):
        """Memory, first byte and NumPy type of a stream's unit."""
        at = v[stream] + row * v[stream + "_row"] + unit * v[stream + "_unit"]
        kind = KIND[v[stream + "_type"]]
        if v[stream + "_mem"] == Mem.ACC:
            return self.acc, 4 * self.dim * at, kind
        return self.spad, self.dim * at, kind

    def vector(self, v):
        """As in the chip: groups of eight rows, each word for one row after another."""
        raw = bytes(self.acc[4 * self.dim * v["kernel"] :])
        words = [decode_micro(raw[8 * i : 8 * i + 8]) for i in range(sum(v[s] for s in SECTIONS))]
        parts = {}
        for s in SECTIONS:
            parts[s], words = words[: v[s]], words[v[s] :]
        units = -(-v["cols"] // self.dim)
        order = [("head", 0), *(("body", j) for j in range(units)), ("tail", 0)]
        first = [{} for _ in range(8)]
        for word in parts["init"]:
            for slot in range(8):
                self.micro(v, word, first[slot], slot, 0)
        for group in range(0, v["rows"], 8):
            registers = [dict(x) for x in first]
            for section, unit in order:
                for word in parts[section]:
                    for slot in range(min(8, v["rows"] - group)):
                        self.micro(v, word, registers[slot], group + slot, unit)

    def micro(self, v, op, registers, row, unit):
        """One word for one row."""
        dim, f = self.dim, op.values
        lane = np.arange(dim)
        special = [v["u"] & 0xFFFFFFFF, v["v"] & 0xFFFFFFFF, lane, row, unit, 0, 0x3F800000,
                   unit * dim + lane < v["cols"]]  # fmt: skip

        def source(number):
            got = registers[number] if number < 32 else special[number - 32]
            return np.broadcast_to(np.asarray(got).astype(np.uint32), dim)

        result = loaded = None
        if op.name == "const":
            result = f["imm"]
        elif op.name == "rotate":
            result = [source(f["a"])[(i + f["n"]) % dim] for i in range(dim)]
        elif op.name == "broadcast":
            result = [source(f["a"])[f["n"] % dim]] * dim
        elif op.name != "nop":
            known = [source(f[x]) if f[x] > 31 or f[x] in registers else 0 for x in "abc"]
            result = alu(op.name, *known, f["n"])
        if f["store"]:
            kept = source(f["store_src"]).copy()
        if f["load"]:
            memory, at, kind = self.place(v, "xyz"[f["load"] - 1], row, unit)
            x = np.frombuffer(bytes(memory[at : at + dim * np.dtype(kind).itemsize]), kind)
            if kind is bfloat16:
                loaded = x.view(np.uint16).astype(np.uint32) * 65536
            else:
                loaded = x.view(np.uint32) if x.itemsize == 4 else x.astype(np.int64) & 0xFFFFFFFF
        if f["store"]:
            memory, at, kind = self.place(v, "op"[f["store"] - 1], row, unit)
            if kind is bfloat16:
                kept = f32_to_bf16(kept.view(np.float32))
            elif np.dtype(kind).itemsize == 1:
                info = np.iinfo(kind)
                kept = np.array([min(max(int(x), info.min), info.max)
                                 for x in kept.view(np.int32)], kind)  # fmt: skip
            memory[at : at + kept.nbytes] = kept.tobytes()
        if loaded is not None:
            registers[f["load_dst"]] = loaded
        if result is not None:
            registers[f["dst"]] = result

    def acc_row(self, at, kind):
        return np.frombuffer(bytes(self.acc[at * 4 * self.dim : (at + 1) * 4 * self.dim]), kind)

    def store(self, v):
        dim, kind, out = self.dim, KIND[v["type"]], Type(v["out"])
        units = -(-v["c0"] // dim)
        vectors, at = {}, v["vec"]
        for name in ("ibias", "scale", "bias"):
            if v[name]:
                t = np.int32 if name == "ibias" else np.float32
                rows = [self.acc_row(at + j, t) for j in range(units)]
                vectors[name] = np.concatenate(rows)[: v["c0"]]
                at += v["vs"]
        bounds = np.array([v["lo"], v["hi"]], np.uint32).view(
            np.int32 if v["int_path"] else np.float32
        )
        lo, hi = bounds if v["clamp"] else (None, None)
        spec = Epilogue(
            bool(v["int_path"]), lo=lo, hi=hi, zero_point=v["zp"], out=OUT[out], **vectors
        )
        read = self.acc_row if v["mem"] == Mem.ACC else self.granules
        for i2 in range(v["c2"]):
            for i1 in range(v["c1"]):
                rows = []
                if v["xpose"]:
                    block, lane = divmod(i1, dim)
                    at = v["loc"] + block * v["l1"] + i2 * v["l2"]
                    x = np.array([read(at + e * v["l0"], kind)[lane] for e in range(v["c0"])])
                    x = x.astype(np.int32 if x.dtype.kind in "iu" else np.float32)
                    rows.append(epilogue(x, spec).tolist())
                for py in range(v["pool_h"] if v["pool"] else 1 - v["xpose"]):
                    for px in range(v["pool_w"] if v["pool"] else 1):
                        sh, sw = (v["pool_sh"], v["pool_sw"]) if v["pool"] else (1, 1)
                        at = v["loc"] + (i1 * sw + px) * v["l1"] + (i2 * sh + py) * v["l2"]
                        x = np.concatenate([read(at + j * v["l0"], kind) for j in range(units)])
                        x = x[: v["c0"]]
                        x = x.astype(np.int32 if x.dtype.kind in "iu" else np.float32)
                        rows.append(epilogue(x, spec).tolist())
                y = np.array([max(e, key=rank) for e in zip(*rows, strict=True)], KIND[out])
                y = y.tobytes()
                step = i1
                if v["scatter"]:
                    at = v["index"] * dim + 4 * i1
                    step = int.from_bytes(self.spad[at : at + 4], "little", signed=True)
                    if not 0 <= step < v["bound"]:  # the beats of row 0, without bytes
                        to = v["dst"] + i2 * v["s2"]
                        self.beats[1] += (to % self.bus + len(y) + self.bus - 1) // self.bus
                        continue
                to = v["dst"] + step * v["s1"] + i2 * v["s2"]
                if v["dest"] == Dest.DRAM:
                    self.beats[1] += (to % self.bus + len(y) + self.bus - 1) // self.bus
                    plain = not (v["pool"] or v["scatter"])
                    if plain and i1 and v["s1"] == len(y) and to % self.bus:
                        self.beats[1] -= 1  # sent with the row before
                    self.dram[to : to + len(y)] = y
                    continue
                width = dim * TYPE_BYTES[out]
                for j in range(units):
                    start = (to + j * v["d0"]) * dim
                    unit = y[j * width : (j + 1) * width].ljust(width, b"\0")
                    self.spad[start : start + width] = unit


@pytest.mark.parametrize(
    ("config", "count"), [("tw4", 40), ("dim=2,spad_kib=4,acc_kib=2", 15), ("tw8", 6)]
)
def test_random_programs_match_the_naive_interpreter(config, count):
    config = parse_config(config)
    for seed in range(900, 900 + count):
        program = generate(seed, config).program
        memory = Spy()
        memory.write(0, program.data[0][1])
        memory.machine = machine = Machine(config, memory, window=(0, DRAM_SIZE - 1))
        execution = machine.run(program.code)
        naive = Naive(config, program.data[0][1])
        faulted = execution.fault is not None and execution.fault.code != Fault.PC
        for e in execution.executed[:-1] if faulted else execution.executed:
            if e.unit is not Unit.SEQ:
                getattr(naive, e.instr.spec.name)(e.values)
            elif e.instr.spec.name == "stw":
                naive.dram[e.address : e.address + 4] = memory.written[e.id]
                naive.beats[1] += -(-4 // config.bus_bytes)
            elif e.instr.spec.name == "ldw":
                naive.beats[0] += -(-4 // config.bus_bytes)
        assert machine.spad.tobytes() == bytes(naive.spad), seed
        assert machine.acc.tobytes() == bytes(naive.acc), seed
        counters = machine.counters
        assert [counters["beats_read"], counters["beats_written"]] == naive.beats, seed
        assert memory.read(0, DRAM_SIZE).tobytes() == bytes(naive.dram), seed
