"""Testbench of STORE: an AXI memory, local memories, an issue module, and what each must see.

The unit runs behind the chip's boundary slice, compiled by Verilator. The clock of domain
"epilogue" runs only while `busy_epilogue` is and was 1, so every run tests the gating too.
"""

import importlib.util
import itertools
import random
from collections import deque
from pathlib import Path

import numpy as np
from amaranth.hdl import DomainRenamer, EnableInserter, Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.axi import AXIWrite, BusSlice
from tilewright.hw.memory import AccRead, SpadRead, SpadWrite
from tilewright.hw.payload import UnitSignature, payload
from tilewright.hw.store import Store
from tilewright.isa import timing
from tilewright.isa.table import TYPE_BYTES, Dest, Mem, Type
from tilewright.sim import numerics as nm

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

WRITE_LATENCY = 20
INDEX_ROWS = 32  # granules that hold scatter indices
OUT_NAME = {Type.I8: "int8", Type.U8: "uint8", Type.BF16: "bf16", Type.F32: "fp32",
            Type.I32: "int32"}  # fmt: skip


class Top(wiring.Component):
    """STORE, boundary slice, gated epilogue; every port has a flat name, as Verilator wants it."""

    def __init__(self, config):
        self.config = config
        self.ports = {
            "unit": (True, UnitSignature("store")),
            "bus": (False, AXIWrite(data=8 * config.bus_bytes)),
            "acc_r": (False, AccRead(config)),
            "spad_r": (False, SpadRead(config)),
            "spad_w": (False, SpadWrite(config)),
        }
        members = {"stw_addr": In(32), "stw_data": In(32), "stw_valid": In(1)}
        members |= {n: Out(1) for n in ("stw_done", "busy_epilogue", "o_beat", "o_error")}
        for prefix, (flip, signature) in self.ports.items():
            for name, member in signature.members.items():
                flow = member.flow.flip() if flip else member.flow
                members[f"{prefix}_{name}"] = flow(Shape.cast(member.shape).width)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        store = Store(self.config)
        before, enable = Signal(), Signal()
        m.d.sync += before.eq(store.busy_epilogue)
        m.d.comb += enable.eq(before & store.busy_epilogue)
        gated = EnableInserter({"epilogue": enable})(store)
        m.submodules.store = DomainRenamer({"epilogue": "sync"})(gated)
        m.submodules.slice = part = BusSlice(AXIWrite(data=8 * self.config.bus_bytes))
        wiring.connect(m, store.bus, part.s)
        inner = {n: getattr(store, n) for n in self.ports} | {"bus": part.m}
        pairs = [(n, getattr(store, n)) for n in store.signature.members if n not in self.ports]
        for prefix, (_, signature) in self.ports.items():
            pairs += [(f"{prefix}_{n}", getattr(inner[prefix], n)) for n in signature.members]
        for name, value in pairs:
            port = getattr(self, name)
            inward = self.signature.members[name].flow == In
            m.d.comb += value.eq(port) if inward else port.eq(value)
        return m


class Tops(wiring.Component):
    """Several chips' units side by side: one compilation for all."""

    def __init__(self, configs):
        self.tops = {name: Top(config) for name, config in configs.items()}
        super().__init__(
            {
                f"{name}_{port}": member
                for name, top in self.tops.items()
                for port, member in top.signature.members.items()
            }
        )

    def elaborate(self, platform):
        m = Module()
        for name, top in self.tops.items():
            m.submodules[name] = top
            for port, member in top.signature.members.items():
                outer, inner = getattr(self, f"{name}_{port}"), getattr(top, port)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


class Part:
    """The ports of one of `Tops`."""

    def __init__(self, model, name):
        self.model, self.name = model, name
        self.eval, self.tick = model.eval, model.tick

    def set(self, port, value):
        self.model.set(port if port == "rst" else f"{self.name}_{port}", value)

    def get(self, port):
        return self.model.get(f"{self.name}_{port}")


def build(configs):
    """Compile the units of `configs`; name -> (config, `Part`). Few big files compile fastest."""
    split = vsim.VERILATOR.index("--output-split")
    vsim.VERILATOR[split : split + 4] = ["--output-split", "40000"]
    model = vsim.build(Tops(configs), opt="-O0")
    return {name: (config, Part(model, name)) for name, config in configs.items()}


def pack(config, fields):
    """Bits of a payload; fields that are not given are 0."""
    layout = payload("store")
    full = dict(fields, units=-(-fields["c0"] // config.dim))
    if joined(fields):
        full |= {"joined": 1, "span": fields["c1"] * fields["s1"]}
    word = 0
    for name, value in full.items():
        field = layout[name]
        word |= (int(value) & ((1 << field.width) - 1)) << field.offset
    return word


def joined(f):
    """Whether rows of one i2 share beats."""
    rows = f["c1"] > 1 and f["s1"] == f["c0"] * TYPE_BYTES[f["out"]]
    return rows and f["dest"] == Dest.DRAM and not (f["pool"] or f["scatter"])


def window(f):
    """(y, x) of the rows that make one row of the output."""
    h, w = (f["pool_h"], f["pool_w"]) if f["pool"] else (1, 1)
    return list(itertools.product(range(h), range(w)))


def origin(f, i2, i1):
    """Local row of the first row that the output row (i2, i1) reads."""
    down, across = (f["pool_sh"], f["pool_sw"]) if f["pool"] else (1, 1)
    return f["loc"] + i2 * down * f["l2"] + i1 * across * f["l1"]


def plan(config, f):
    """(memory, row, out) of every slot: the row that it reads or None; whether it sends data."""
    units, dim = -(-f["c0"] // config.dim), config.dim
    enabled = f["ibias"] + f["scale"] + f["bias"]
    grid = itertools.product(range(enabled), range(units))
    out = [(Mem.ACC, f["vec"] + v * f["vs"] + j, False) for v, j in grid]
    coming = []  # rows of the next block
    for i2, i1 in itertools.product(range(f["c2"]), range(f["c1"])):
        first = {j: j for j in range(units)}  # slot of the row that has the unit's first byte
        count = units
        sends = None  # slots that do
        if f["dest"] == Dest.DRAM:
            size = TYPE_BYTES[f["out"]]
            across = 0 if f["scatter"] else i1 * f["s1"]
            offset = (f["dst"] + across + i2 * f["s2"]) % config.bus_bytes
            first = {(offset + j * dim * size) // config.bus_bytes: j for j in range(units)}
            end, bus = offset + f["c0"] * size, config.bus_bytes
            count = -(-end // bus)
            if joined(f) and i1 < f["c1"] - 1:
                sends = range(end // bus)  # beats whose last byte is one of this row
                count = max(len(sends), max(first) + 1)
        if f["xpose"] and i1 % dim == 0:
            assert not coming
            if i1 == 0:
                out += [(f["mem"], row, False) for row in block(config, f, i2, i1)]
            if i1 + dim < f["c1"]:
                coming = block(config, f, i2, i1 + dim)
        if f["scatter"]:
            out += [(Mem.SPAD, index_row(config, f, i1), False)]
            out += [(Mem.SPAD, None, False)] * (timing.STORE_INDEX - 1)
        for slot in range(count):
            rows = [coming.pop(0) if coming else None]
            if slot in first and not f["xpose"]:
                at = origin(f, i2, i1) + first[slot] * f["l0"]
                rows = [at + y * f["l2"] + x * f["l1"] for y, x in window(f)]
            out += [(f["mem"], row, False) for row in rows[:-1]]
            out.append((f["mem"], rows[-1], sends is None or slot in sends))
    return out


def block(config, f, i2, i1):
    """The rows whose lane i1 % dim makes the transposed row (i2, i1)."""
    at = f["loc"] + i2 * f["l2"] + i1 // config.dim * f["l1"]
    return [at + e * f["l0"] for e in range(f["c0"])]


def index_row(config, f, i1):
    """The pair of granules that holds scatter index number i1."""
    return f["index"] + 2 * (i1 // (config.dim // 2))


def highest(rows):
    """Element-wise maximum; NaN wins, -0 is below +0."""
    rows = np.stack(rows)
    if rows.dtype.kind in "iu":
        return rows.max(0)
    wide = rows.astype(np.float64)
    best = np.where(np.isnan(wide).any(0), np.nan, wide.max(0))
    plus = ((wide == 0) & ~np.signbit(wide)).any(0)
    best = np.where(best == 0, np.where(plus, 0.0, -0.0), best)
    return best.astype(rows.dtype)


class Memories:
    """Local memories as arrays, and what an instruction does to them and to DRAM."""

    def __init__(self, config, seed):
        self.config, dim = config, config.dim
        rng = np.random.default_rng(seed)
        self.spad = rng.integers(0, 256, (config.spad_granules, dim), dtype=np.uint8)
        acc = rng.integers(0, 2**32, (config.acc_rows, dim), dtype=np.uint32)
        floats = (rng.standard_normal(acc.shape) * 4).astype(np.float32).view(np.uint32)
        ints = rng.integers(-300, 300, acc.shape, dtype=np.int32).view(np.uint32)
        kind = rng.integers(0, 3, (config.acc_rows, 1))
        self.acc = np.choose(kind, [acc, floats, ints]).astype(np.uint32)
        self.dram = {}
        small = rng.integers(-1, 7, 8 * dim, dtype=np.int32).view(np.uint8)
        self.spad[:INDEX_ROWS] = small.reshape(INDEX_ROWS, dim)

    def source(self, f, row, count):
        """`count` elements of the row whose first unit lies at `row`, as int32 or float32."""
        units = []
        for j in range(-(-count // self.config.dim)):
            at = row + j * f["l0"]
            if f["mem"] == Mem.ACC:
                units.append(self.acc[at])
            else:
                units.append(self.spad[at : at + (2 if f["type"] == Type.BF16 else 1)].ravel())
        raw = np.concatenate(units)
        if f["type"] == Type.BF16:
            return nm.bf16_to_f32(raw.view(nm.bfloat16))[:count]
        view = {Type.I8: np.int8, Type.U8: np.uint8, Type.I32: np.int32, Type.F32: np.float32}
        out = raw.view(view[f["type"]])[:count]
        return out if f["type"] == Type.F32 else out.astype(np.int32)

    def vector(self, f, name, count):
        enabled = [n for n in ("ibias", "scale", "bias") if f[n]]
        if name not in enabled:
            return None
        row = f["vec"] + enabled.index(name) * f["vs"]
        bits = self.acc[row : row + -(-count // self.config.dim)].ravel()[:count]
        return bits.view(np.int32 if name == "ibias" else np.float32)

    def execute(self, f):
        """Apply one instruction in program order."""
        n, dim = f["c0"], self.config.dim
        kind = np.int32 if f["int_path"] else np.float32
        lo, hi = (
            np.array([f[b]], np.uint32).view(kind)[0] if f["clamp"] else None for b in ("lo", "hi")
        )
        spec = nm.Epilogue(
            int_path=bool(f["int_path"]), lo=lo, hi=hi, zero_point=f["zp"],
            out=OUT_NAME[f["out"]], **{v: self.vector(f, v, n) for v in ("ibias", "scale", "bias")},
        )  # fmt: skip
        for i2 in range(f["c2"]):
            for i1 in range(f["c1"]):
                first = origin(f, i2, i1)
                if f["xpose"]:
                    units = [self.source(f, at, dim) for at in block(self.config, f, i2, i1)]
                    rows = [np.stack([x[i1 % dim] for x in units])]
                else:
                    steps = [y * f["l2"] + x * f["l1"] for y, x in window(f)]
                    rows = [self.source(f, first + step, n) for step in steps]
                y = highest([nm.epilogue(x[None], spec)[0] for x in rows])
                raw = np.ascontiguousarray(y).view(np.uint8)
                step = i1
                if f["scatter"]:
                    indices = self.spad[:INDEX_ROWS].reshape(-1).view(np.int32)
                    step = indices[f["index"] * self.config.dim // 4 + i1]
                if not f["scatter"] or 0 <= step < f["bound"]:
                    self._write(f, f["dst"] + int(step) * f["s1"] + i2 * f["s2"], raw)

    def _write(self, f, dst, raw):
        if f["dest"] == Dest.DRAM:
            self.dram.update(zip(range(dst, dst + len(raw)), raw.tolist(), strict=True))
            return
        span = self.config.dim * TYPE_BYTES[f["out"]]
        for j in range(-(-len(raw) // span)):
            unit = np.zeros(span, np.uint8)
            part = raw[j * span : (j + 1) * span]
            unit[: len(part)] = part
            at = dst + j * f["d0"]
            self.spad[at : at + span // self.config.dim] = unit.reshape(-1, self.config.dim)


class Bench:
    """Runs instructions on the RTL; keeps every event with its cycle."""

    def __init__(
        self, config, model, memories, seed=0, stall=0.0, error=False, answer=WRITE_LATENCY
    ):
        self.config, self.m, self.memories = config, model, memories
        self.random, self.stall, self.error = random.Random(seed), stall, error
        self.now, self.answer = 0, answer
        self.reads = {"acc": deque(), "spad": deque()}
        self.aw, self.w, self.b = deque(), deque(), deque()
        self.log = {k: [] for k in ("start", "done", "release", "issue", "aw", "w", "spad_w",
                                    "stw", "error", "beat", "busy", "acc_r", "spad_r")}  # fmt: skip
        self.open = self.most_open = 0
        for port in ("unit_start", "stw_valid", "bus_bvalid", "rst"):
            model.set(port, 0)
        model.set("rst", 1)
        model.tick(2)
        model.set("rst", 0)

    def ready(self):
        self.m.eval()
        return self.m.get("unit_ready")

    def cycle(self, instr=None, stw=None):
        """One cycle; `instr` starts in it, or `stw` = (address, word) is asked for."""
        m, get, roll = self.m, self.m.get, self.random.random
        m.set("unit_start", instr is not None)
        m.set("unit_instr", self.random.getrandbits(300) if instr is None else instr)
        m.set("stw_valid", stw is not None)
        m.set("stw_addr", stw[0] if stw else 0)
        m.set("stw_data", stw[1] if stw else 0)
        awready, wready = roll() >= self.stall, roll() >= self.stall
        m.set("bus_awready", awready)
        m.set("bus_wready", wready)
        bvalid = bool(self.b) and self.b[0] <= self.now and roll() >= self.stall
        m.set("bus_bvalid", bvalid)
        m.set("bus_bresp", 2 if self.error else 0)
        self._drive_reads()
        m.eval()
        if instr is not None:
            assert get("unit_ready")
            self.log["start"].append(self.now)
        for name, port in (("done", "unit_done"), ("release", "unit_read_release"),
                           ("issue", "unit_issuing"), ("stw", "stw_done"),
                           ("error", "o_error"), ("beat", "o_beat"),
                           ("busy", "busy_epilogue")):  # fmt: skip
            if get(port):
                self.log[name].append(self.now)
        self._local()
        if bvalid:
            assert get("bus_bready")
            self.b.popleft()
            self.open -= 1
        self._axi(awready and get("bus_awvalid"), wready and get("bus_wvalid"))
        m.tick()
        self.now += 1

    def _drive_reads(self):
        """Read data in their cycle, noise in any other."""
        for name, ports in (("acc", ("acc_r_data",)), ("spad", ("spad_r_pair", "spad_r_data"))):
            queue = self.reads[name]
            hit = queue and queue[0][0] == self.now
            values = queue.popleft()[1] if hit else None
            for i, port in enumerate(ports):
                noise = self.random.getrandbits(32 * self.config.dim)
                self.m.set(port, values[i] if hit else noise)

    def _local(self):
        get, mem = self.m.get, self.memories
        when = self.now + timing.MEM_READ
        if get("acc_r_en"):
            row = mem.acc[get("acc_r_addr")]
            self.log["acc_r"].append((self.now, get("acc_r_addr")))
            self.reads["acc"].append((when, [int.from_bytes(row.tobytes(), "little")]))
        if get("spad_r_en"):
            at = get("spad_r_addr")
            self.log["spad_r"].append((self.now, at))
            pair, one = mem.spad[at & ~1 : (at & ~1) + 2], mem.spad[at]
            values = [int.from_bytes(x.tobytes(), "little") for x in (pair, one)]
            self.reads["spad"].append((when, values))
        if get("spad_w_en"):
            at, mask = get("spad_w_addr") & ~1, get("spad_w_mask")
            raw = get("spad_w_data").to_bytes(2 * self.config.dim, "little")
            pair = np.frombuffer(raw, np.uint8).reshape(2, -1)
            for g in range(2):
                if mask >> g & 1:
                    mem.spad[at + g] = pair[g]
            self.log["spad_w"].append(self.now)

    def _axi(self, aw, w):
        get, bus = self.m.get, self.config.bus_bytes
        if aw:
            at, beats = get("bus_awaddr"), get("bus_awlen") + 1
            assert at % bus == 0 and beats <= 16 and at // 4096 == (at + beats * bus - 1) // 4096
            assert (1 << get("bus_awsize"), get("bus_awburst"), get("bus_awid")) == (bus, 1, 0)
            self.aw.append([at, beats])
            self.log["aw"].append((self.now, beats))
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            assert self.open <= 64
        if w:
            data = get("bus_wdata").to_bytes(bus, "little")
            self.w.append((data, get("bus_wstrb"), get("bus_wlast")))
            self.log["w"].append(self.now)
        while self.w and self.aw:
            data, strobe, last = self.w.popleft()
            burst = self.aw[0]
            for i in range(bus):
                if strobe >> i & 1:
                    self.memories.dram[burst[0] + i] = data[i]
            burst[0] += bus
            burst[1] -= 1
            assert last == (burst[1] == 0)
            if last:
                self.aw.popleft()
                late = self.random.randrange(80) if self.stall else 0
                when = self.now + self.answer + late
                self.b.append(max(when, self.b[-1] if self.b else 0))

    def run(self, program, gap=0.0, limit=120_000):
        """Start every instruction as soon as it may (or later, by chance); until all are done."""
        waiting = deque(program)
        while waiting or len(self.log["done"]) < len(program):
            go = waiting and self.ready() and self.random.random() >= gap
            self.cycle(pack(self.config, waiting.popleft()) if go else None)
            assert self.now < limit, "STORE hangs"
        for _ in range(30):
            self.cycle()
        return self
