"""LOAD behind the chip's boundary slice, a memory, and the cycles of the contract."""

import importlib.util
from collections import deque
from pathlib import Path

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.sim import Simulator
from tilewright.hw.axi import AXIRead, BusSlice
from tilewright.hw.load import Load as LoadUnit
from tilewright.hw.memory import AccWrite, SpadRead, SpadWrite
from tilewright.hw.payload import UnitSignature, payload
from tilewright.isa import timing
from tilewright.isa.config import ChipConfig


def _sibling(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model = _sibling("load_model")
DRAM_BYTES, LATENCY, Load = model.DRAM_BYTES, model.LATENCY, model.Load

LOCAL_SEED = 77
CONFIGS = {
    "dim2": ChipConfig(dim=2, spad_kib=1, acc_kib=1),
    "dim4": ChipConfig(dim=4, spad_kib=2, acc_kib=1),
    "narrow": ChipConfig(dim=8, spad_kib=4, acc_kib=4, bus_bytes=2),
    "dim16": ChipConfig(dim=16, spad_kib=8, acc_kib=8),
    "dim32": ChipConfig(dim=32, spad_kib=32, acc_kib=32, bus_bytes=32),
}


class Pins(wiring.Component):
    """The unit behind the chip's boundary slice."""

    def __init__(self, config):
        self.config = config
        self.bus = AXIRead(32, 8 * config.bus_bytes)
        super().__init__(
            {
                "unit": In(UnitSignature("load")),
                "axi": Out(self.bus),
                "spad": Out(SpadWrite(config)),
                "spad_r": Out(SpadRead(config)),
                "acc": Out(AccWrite(config)),
                "ldw_valid": In(1),
                "ldw_addr": In(32),
                "ldw_done": Out(1),
                "ldw_data": Out(32),
                "o_beat": Out(1),
                "o_error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.load = load = LoadUnit(self.config)
        m.submodules.slice = part = BusSlice(self.bus)
        connect(m, load.axi, part.s)
        connect(m, part.m, flipped(self.axi))
        connect(m, flipped(self.unit), load.unit)
        connect(m, load.spad, flipped(self.spad))
        connect(m, load.spad_r, flipped(self.spad_r))
        connect(m, load.acc, flipped(self.acc))
        m.d.comb += [load.ldw_valid.eq(self.ldw_valid), load.ldw_addr.eq(self.ldw_addr)]
        for name in ("ldw_done", "ldw_data", "o_beat", "o_error"):
            m.d.comb += getattr(self, name).eq(getattr(load, name))
        return m


class PySim:
    """Ports by Verilog name, in Amaranth's simulator."""

    def __init__(self, dut):
        self.dut = dut
        self.ports = {"__".join(p): v for p, _, v in dut.signature.flatten(dut)}

    def set(self, name, value):
        """Drive an input."""
        port = self.ports[name]
        self.ctx.set(port if not hasattr(port, "as_value") else port.as_value(), value)

    def get(self, name):
        """Read an output, settled."""
        return self.ctx.get(self.ports[name])

    async def tick(self):
        """Finish the cycle."""
        await self.ctx.tick()

    def run(self, bench):
        """Run `bench(self)`."""

        async def testbench(ctx):
            self.ctx = ctx
            await bench(self)

        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(testbench)
        sim.run()


def pack_fields(values):
    """A payload as an int."""
    word = 0
    for name, place in payload("load"):
        width = place.width
        word |= (values.get(name, 0) & ((1 << width) - 1)) << place.offset
    return word


class Memory:
    """AXI read slave. Ideal: beat j of an AR at cycle c comes at c + 60 + j, never refused."""

    def __init__(self, data, bus, rng=None):
        self.data, self.bus, self.rng = data, bus, rng
        self.beats, self.bursts, self.arrived, self.now = deque(), [], [], 0
        self.valid, self.ready, self.open = False, False, 0

    def drive(self, io):
        """Set this cycle's inputs of the chip."""
        ideal = self.rng is None
        self.ready = ideal or self.rng.random() < 0.4
        due = bool(self.beats) and self.beats[0][0] <= self.now
        self.valid = due and (ideal or self.valid or self.rng.random() < 0.6)
        io.set("axi__arready", self.ready)
        io.set("axi__rvalid", self.valid)
        if self.valid:
            _, address, last = self.beats[0]
            beat = self.data[address : address + self.bus].tobytes()
            io.set("axi__rdata", int.from_bytes(beat, "little"))
            io.set("axi__rlast", last)
        else:  # without valid, data may be anything
            io.set("axi__rdata", (0xA5C3 << (self.now % 8)) & ((1 << 8 * self.bus) - 1))

    def sample(self, io):
        """Take what this cycle transfers."""
        if self.valid and io.get("axi__rready"):
            self.arrived.append(self.now)
            self.open -= self.beats.popleft()[2]
            self.valid = False
        if io.get("axi__arvalid") and self.ready:
            address, n = io.get("axi__araddr"), io.get("axi__arlen") + 1
            page_end = (address | 4095) + 1
            assert address % self.bus == 0 and n <= 16 and address + n * self.bus <= page_end
            assert 1 << io.get("axi__arsize") == self.bus and io.get("axi__arburst") == 1
            self.open += 1
            assert self.open <= 64
            self.bursts.append((self.now, address, n))
            at = self.now + (LATENCY if self.rng is None else int(self.rng.integers(1, 40)))
            for j in range(n):
                at = max(at, self.beats[-1][0] + 1 if self.beats else 0)
                self.beats.append((at, (address + j * self.bus) % DRAM_BYTES, j == n - 1))
                at += 1
        self.now += 1


class Expected:
    """Cycle numbers of the contract, from the start cycles on."""

    def __init__(self, config):
        self.config = config
        self.starts, self.dones, self.bursts, self.arrived = [], [], [], []
        self.last_slot = self.last_pass = self.drained = -1
        self.issuing = set()

    def ready(self, t):
        """Whether the unit takes a grant in cycle t."""
        flying = len(self.starts) - sum(d < t for d in self.dones)
        return t >= self.last_slot and flying < timing.LOAD_INFLIGHT

    def start(self, s, load):
        """Instruction `load` is granted at s."""
        dim, bus = self.config.dim, self.config.bus_bytes
        n = load.slots(dim, bus)
        self.starts.append(s)
        first = max(s + 1, self.drained + 1 - load.hidden(dim))
        self.issuing |= set(range(first, first + n))
        self.last_slot = first + n - 1
        if load.fill:
            self.last_pass = max(first + timing.LOAD_FILL, self.last_pass + 1) + n - 1
        else:
            for slot, address, beats in load.schedule(dim, bus):
                self.bursts.append((first + slot + timing.LOAD_AR, address, beats))
            slots = [a for part in load.walk(dim, bus) for a in part]
            passes = first + timing.LOAD_AR + LATENCY  # cycle of slot 0
            self.arrived += [passes + i for i, a in enumerate(slots) if a is not None]
            self.last_pass = passes + n - 1
        if load.xpose:
            self.last_pass += load.drain()
            self.drained = self.last_slot + load.drain()
        self.dones.append(self.last_pass + timing.LOAD_WRITE)


def local_write(io, config):
    """This cycle's local write: (mem, address, bytes) or None."""
    dim = config.dim
    spad, acc = io.get("spad__en"), io.get("acc__en")
    assert not (spad and acc)
    if acc:
        return 1, io.get("acc__addr"), io.get("acc__data").to_bytes(4 * dim, "little")
    if not spad:
        return None
    address, mask = io.get("spad__addr"), io.get("spad__mask")
    pair = io.get("spad__data").to_bytes(2 * dim, "little")
    if mask == 3:
        assert address % 2 == 0
        return 0, address, pair
    assert mask == 1 << address % 2
    return 0, address, pair[dim:] if address % 2 else pair[:dim]


def check(simulator, config, loads, seed, ideal=True, gap=0.2):
    """Run `loads`; compare writes, and in ideal memory every cycle number."""
    rng = np.random.default_rng(seed)
    data = model.dram(rng)
    local = model.local(config, np.random.default_rng(LOCAL_SEED))
    memory = Memory(data, config.bus_bytes, None if ideal else rng)
    asked = deque([None] * timing.MEM_READ)  # granules that the unit reads
    want = [list(x.accesses(data, config.dim, config.bus_bytes)) for x in loads]
    due = np.cumsum([len(w) for w in want])
    flat = [w for part in want for w in part]
    expected, wrote, ended, read = Expected(config), [], [], 0

    async def bench(io):
        nonlocal read
        t, issued = 0, 0
        while len(ended) < len(loads):
            assert t < 100000
            memory.drive(io)
            io.set("unit__start", 0)
            granule = asked.popleft()
            if granule is not None:
                pair = local.view(np.uint8)[granule // 2 * 2 * config.dim :][: 2 * config.dim]
                io.set("spad_r__pair", int.from_bytes(pair.tobytes(), "little"))
            ready = io.get("unit__ready")
            if ideal:
                assert ready == expected.ready(t), t
                assert io.get("unit__issuing") == (t in expected.issuing), t
            if issued < len(loads) and ready and rng.random() >= gap:
                io.set("unit__start", 1)
                io.set("unit__instr", pack_fields(loads[issued].fields(config)))
                expected.start(t, loads[issued])
                issued += 1
            asked.append(io.get("spad_r__addr") if io.get("spad_r__en") else None)
            read += asked[-1] is not None
            write = local_write(io, config)
            if write is not None:
                assert write == flat[len(wrote)], (t, len(wrote))
                wrote.append(t)
            assert io.get("unit__done") == io.get("unit__read_release")
            if io.get("unit__done"):
                assert len(wrote) >= due[len(ended)]  # with this cycle's write
                ended.append(t)
            memory.sample(io)
            await io.tick()
            t += 1

    simulator.run(bench)
    assert len(wrote) == len(flat)
    lists = [x.c for x in loads if x.gather]  # no pair of indices is read twice, nor anything else
    assert read == sum(c[2] * c[3] * -(-2 * c[1] // config.dim) for c in lists)
    if ideal:
        assert ended == expected.dones
        assert memory.bursts == expected.bursts
        early = np.subtract(expected.arrived, memory.arrived)  # behind slots without a beat
        assert early.min(initial=0) == 0
        assert not early.any() or any(x.joined for x in loads)
    return ended


def loads_of(config, seed, slots, big=False):
    """Random instructions that occupy the address generator `slots` cycles or a little more."""
    rng, loads = np.random.default_rng(seed), []
    indices = model.local(config, np.random.default_rng(LOCAL_SEED))
    while slots > 0:
        loads.append(model.random_load(rng, config, big, indices))
        slots -= loads[-1].slots(config.dim, config.bus_bytes)
    return loads
