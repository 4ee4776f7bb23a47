"""LOAD against `load_model`: local writes, bursts, and every cycle number of the contract."""

import importlib.util
from collections import deque
from pathlib import Path

import numpy as np
import pytest
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
        self.last_slot = self.last_pass = -1
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
        self.issuing |= set(range(s + 1, s + n + 1))
        self.last_slot = s + n
        if load.fill:
            self.last_pass = max(s + 1 + timing.LOAD_FILL, self.last_pass + 1) + n - 1
        else:
            x = s + 1
            for address, beats in load.schedule(dim, bus):
                if address is None:
                    x += beats
                    continue
                self.bursts.append((x + timing.LOAD_AR, address, beats))
                self.arrived += [x + timing.LOAD_AR + LATENCY + j for j in range(beats)]
                x += beats
            self.last_pass = x - 1 + timing.LOAD_AR + LATENCY
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
    want = [[(m, a, b.tobytes()) for m, a, b in x.writes(data, config.dim)] for x in loads]
    due = np.cumsum([len(w) for w in want])
    flat = [w for part in want for w in part]
    expected, wrote, ended, read = Expected(config), [], [], 0

    async def bench(io):
        nonlocal read
        t, issued = 0, 0
        while len(ended) < len(loads):
            assert t < 20000
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
                io.set("unit__instr", pack_fields(loads[issued].fields(config.dim)))
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
        assert memory.arrived == expected.arrived
    return ended


def loads_of(config, seed, slots, big=False):
    """Random instructions that occupy the address generator `slots` cycles or a little more."""
    rng, loads = np.random.default_rng(seed), []
    indices = model.local(config, np.random.default_rng(LOCAL_SEED))
    while slots > 0:
        loads.append(model.random_load(rng, config, big, indices))
        slots -= loads[-1].slots(config.dim, config.bus_bytes)
    return loads


@pytest.mark.parametrize("gap", [0.0, 0.9])
@pytest.mark.parametrize("name", CONFIGS)
def test_random_loads_keep_every_cycle_of_the_contract(name, gap):
    config = CONFIGS[name]
    check(
        PySim(Pins(config)), config, loads_of(config, 2 + int(gap > 0), 1500, big=True), 3, gap=gap
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_random_loads_are_right_under_back_pressure(name):
    config = CONFIGS[name]
    check(PySim(Pins(config)), config, loads_of(config, 4, 800), 5, ideal=False)


def transposes(config, conv):
    """Transposing LOADs of runs of all kinds of lengths, with plain ones and fills between them."""
    dim, rng = config.dim, np.random.default_rng(21)
    lengths = (1, dim - 1, dim, dim + 1, 3 * dim, 7 * dim + 1, 8 * dim - 1, 8 * dim)
    wide = 1 if conv == "COPY8" else 2
    for n, c0 in enumerate(lengths):
        c1, c2, c3 = (dim, 1, dim + 1, 2 * dim - 1)[n % 4], 1 + n % 2, 1 + n % 3 // 2
        l0, blocks = (wide, -wide)[n % 2], -(-c1 // dim)
        room = config.spad_granules // wide - c0 - 8 * (blocks - 1) - 3 * (c2 - 1) - 5 * (c3 - 1)
        loc = wide * int(rng.integers(room + 1)) + wide * (c0 - 1) * (n % 2)
        s = tuple(int(x) for x in rng.integers(0, 700, 3))
        yield Load(conv, xpose=1, dram=int(rng.integers(2000)), c=(c0, c1, c2, c3), s=s, loc=loc,
                   l=(l0, 8 * wide, 3 * wide, 5 * wide))  # fmt: skip
        if n % 3 == 1:
            yield Load(conv, dram=77, c=(dim + 1, 1, 1, 1), l=(wide, 0, 0, 0))
        if n % 3 == 2:
            yield Load(conv, fill=1, c=(dim + 1, 2, 1, 1), l=(wide, 4 * wide, 0, 0), value=0x1234)


@pytest.mark.parametrize("ideal", [True, False])
@pytest.mark.parametrize(
    ("name", "conv"),
    [
        ("dim2", "COPY8"), ("dim2", "COPY16"), ("dim4", "COPY8"), ("dim4", "F32_BF16"),
        ("dim4", "F32_MID"), ("dim4", "F32_LO"), ("narrow", "COPY8"), ("narrow", "COPY16"),
        ("dim16", "COPY8"), ("dim16", "COPY16"), ("dim16", "F32_HI"),
    ],
)  # fmt: skip
def test_runs_of_up_to_eight_units_are_transposed_without_a_gap(name, conv, ideal):
    config = CONFIGS[name]
    check(PySim(Pins(config)), config, list(transposes(config, conv)), 22, ideal, gap=0.0)


def test_a_transpose_of_long_runs_takes_their_beats_the_rows_of_zeros_and_a_drain():
    config = CONFIGS["dim4"]  # 4 bytes a beat
    load = Load("COPY8", xpose=1, dram=2, c=(32, 6, 2, 1), s=(40, 400, 0), l=(1, 32, 64, 0))
    expected = Expected(config)
    expected.start(0, load)
    assert expected.last_slot == 2 * (6 * 9 + 2 * 8) + 34
    check(PySim(Pins(config)), config, [load, load], 23, gap=0.0)


@pytest.mark.parametrize("fill", [0, 1])
def test_eight_instructions_of_one_slot_fly_and_the_ninth_waits(fill):
    config = CONFIGS["dim4"]
    loads = [Load("COPY8", dram=4 * i, c=(4, 1, 1, 1), loc=i, fill=fill) for i in range(20)]
    ended = check(PySim(Pins(config)), config, loads, 6, gap=0.0)
    if fill:  # done comes before eight are started
        assert np.diff(ended).tolist() == [1] * 19
    else:
        alone = 1 + timing.LOAD_AR + LATENCY + timing.LOAD_WRITE  # from grant to done
        assert ended[7] == ended[0] + 7 and ended[8] == ended[0] + 1 + alone


def test_fills_between_loads_keep_order_in_fast_and_slow_memory():
    config = CONFIGS["dim4"]
    loads = []
    for i in range(12):
        loads.append(
            Load("COPY8", dram=97 * i, c=(1 + 5 * (i % 3), 1, 1, 1), loc=i, l=(9, 0, 0, 0))
        )
        loads.append(
            Load("COPY8", fill=1, c=(30 * (i % 4) + 3, 1, 1, 1), loc=i, l=(1, 0, 0, 0), value=i)
        )
    check(PySim(Pins(config)), config, loads, 7, gap=0.0)
    check(PySim(Pins(config)), config, loads, 7, ideal=False, gap=0.0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_beats_of_a_word_may_come_late_and_apart(name):
    config = CONFIGS[name]
    io, data = PySim(Pins(config)), model.dram(np.random.default_rng(11))
    memory = Memory(data, config.bus_bytes, np.random.default_rng(12))
    words = []

    async def bench(io):
        for address in range(0, 80, 4):
            for t in range(200):
                memory.drive(io)
                io.set("ldw_valid", t == 0)
                io.set("ldw_addr", address if t == 0 else 0)
                if io.get("ldw_done"):
                    words.append(io.get("ldw_data"))
                    break
                memory.sample(io)
                await io.tick()
            memory.sample(io)
            await io.tick()

    io.run(bench)
    assert words == data[:80].view(np.uint32).tolist()


def test_single_beat_bursts_never_meet_the_limit_of_reads_in_flight():
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=100, c=(5, 200, 1, 1), s=(50, 0, 0), l=(0, 1, 0, 0))
    check(PySim(Pins(config)), config, [load, load], 8, gap=0.0)


def test_a_run_across_4_kib_is_cut_there():
    config = CONFIGS["dim16"]
    load = Load("COPY8", dram=4096 - 40, c=(400, 1, 1, 1), l=(1, 0, 0, 0))
    pages = [(a, n) for a, n in load.bursts(16)]
    assert pages == [(4048, 3), (4096, 16), (4352, 7)]
    check(PySim(Pins(config)), config, [load], 9)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_word_comes_after_the_stated_latency(name):
    config = CONFIGS[name]
    io, data = PySim(Pins(config)), model.dram(np.random.default_rng(10))
    memory = Memory(data, config.bus_bytes)

    async def bench(io):
        for address in (0, 4, 8, 4092, 4096, 60, 124):
            for t in range(100):
                memory.drive(io)
                io.set("ldw_valid", t == 0)
                io.set("ldw_addr", address if t == 0 else 0)
                done = t == timing.ldw_latency(config.bus_bytes, LATENCY)
                assert io.get("ldw_done") == done, t
                if done:
                    assert io.get("ldw_data") == data[address : address + 4].view(np.uint32)[0]
                memory.sample(io)
                await io.tick()
        assert len(memory.bursts) == 7 and io.get("unit__ready")

    io.run(bench)


def test_beats_and_error_responses_give_pulses():
    config, beats = CONFIGS["dim4"], []
    memory = Memory(model.dram(np.random.default_rng(11)), config.bus_bytes)

    async def bench(io):
        io.set("unit__instr", pack_fields(Load("COPY8", c=(40, 1, 1, 1)).fields(config.dim)))
        for t in range(120):
            memory.drive(io)
            io.set("unit__start", t == 1)
            io.set("axi__rresp", 2 if len(memory.arrived) == 3 else 0)
            if io.get("o_beat"):
                beats.append(io.get("o_error"))
            assert io.get("o_beat") or not io.get("o_error")
            memory.sample(io)
            await io.tick()

    PySim(Pins(config)).run(bench)
    assert beats == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
