"""The sequencer: scalar instructions, cycles, dispatch, faults, words of DRAM."""

import importlib.util
import random
from pathlib import Path

import pytest
from amaranth.sim import Simulator
from tilewright.hw.sequencer import Sequencer
from tilewright.isa.config import PRESETS
from tilewright.isa.encoding import IllegalInstruction, Instr, Reg, check_rules, encode, resolve
from tilewright.isa.extent import (
    EVERYTHING,
    bank_masks,
    check_range,
    check_window,
    derived,
    dram_extent,
    extents,
    pass_offsets,
)
from tilewright.isa.table import INSTRUCTIONS, SYNC, Fault
from tilewright.isa.timing import AXI_SLICE, FETCH_AR, FETCH_WRITE

_spec = importlib.util.spec_from_file_location(
    "fetch_memory", Path(__file__).with_name("fetch_memory.py")
)
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

BASE = 0x2000
CONFIG = PRESETS["tw4"]
LATENCY = 10
MASK = 0xFFFFFFFF
I = Instr.make  # noqa: E741
UNITS = ("load", "matmul", "vector", "store")


class Bench:
    """Runs one program; units are queues that drain by themselves after `unit_delay` cycles."""

    def __init__(self, program, seed=0, unit_delay=8, full=0, window=EVERYTHING):
        self.window = window
        self.code = [p if isinstance(p, bytes) else encode(p) for p in program]
        self.rng = random.Random(seed)
        self.unit_delay, self.full = unit_delay, full
        self.words = {}
        self.sems = [0] * 32
        self.pushed = []  # (cycle, unit, entry)
        self.begins, self.ends = [], []
        self.posts = []
        self.fault = None
        self.cycles = 0
        self.busy_until = dict.fromkeys(UNITS, -1)

    def word(self, address):
        at = address - BASE
        padded = b"".join(self.code) + bytes(2048)
        return int.from_bytes(padded[at : at + 16], "little")

    def run(self, limit=4000):
        dut = self.dut = Sequencer(CONFIG)
        sim = Simulator(dut)
        sim.add_clock(1e-6)
        sim.add_clock(1e-6, domain="always")
        self.limit = limit
        sim.add_testbench(self.body)
        sim.run()
        return self

    async def body(self, ctx):
        dut = self.dut
        memory = _module.Memory(dut.bus, LATENCY, 0)
        ctx.set(dut.base, BASE)
        ctx.set(dut.count, len(self.code))
        ctx.set(dut.window_base, self.window[0])
        ctx.set(dut.window_limit, self.window[1])
        await ctx.tick()
        ctx.set(dut.start, 1)
        assert ctx.get(dut.clear) == 1 and ctx.get(dut.run) == 0
        await ctx.tick()
        ctx.set(dut.start, 0)
        answers = {"ldw": None, "stw": None}
        for t in range(self.limit):
            if not ctx.get(dut.run):
                break
            memory.ready(ctx)
            memory.beat(ctx, t)
            for name in UNITS:
                port = getattr(dut, f"dispatch_{name}")
                ctx.set(port.full, self.rng.random() < self.full)
                ctx.set(port.quiet, t > self.busy_until[name])
            for name in ("ldw", "stw"):
                port = getattr(dut, name)
                ctx.set(port.done, answers[name] == t)
            sem, n = ctx.get(dut.semaphore.sem), ctx.get(dut.semaphore.n)
            ctx.set(dut.semaphore.enough, self.sems[sem] >= n)
            memory.accept(ctx, t, self.word)
            self.look(ctx, t, answers)
            if ctx.get(dut.semaphore.post):
                self.sems[sem] += n
                self.posts.append((t, sem, n))
            if ctx.get(dut.semaphore.take):
                assert self.sems[sem] >= n
                self.sems[sem] -= n
            self.cycles = t + 1
            await ctx.tick()
        else:
            raise AssertionError("the program did not end")

    def look(self, ctx, t, answers):
        dut = self.dut
        if ctx.get(dut.begin):
            self.begins.append((t, ctx.get(dut.pc)))
        if ctx.get(dut.end):
            self.ends.append(t)
        if ctx.get(dut.halted):
            self.fault = Fault.NONE
        if ctx.get(dut.faulted):
            self.fault = (Fault(ctx.get(dut.fault)), ctx.get(dut.fault_pc))
        for name in UNITS:
            port = getattr(dut, f"dispatch_{name}")
            if ctx.get(port.push):
                assert not ctx.get(port.full)
                self.pushed.append((t, name, self.entry(ctx, name, port.entry)))
                self.busy_until[name] = t + self.unit_delay
        for name in ("ldw", "stw"):
            port = getattr(dut, name)
            if ctx.get(port.valid):
                assert answers[name] is None or answers[name] < t
                assert t > self.busy_until[{"ldw": "load", "stw": "store"}[name]]
                answers[name] = t + 7
                address = ctx.get(port.addr)
                if name == "stw":
                    self.words[address] = ctx.get(port.data_out)
                else:
                    ctx.set(port.data_in, self.words.get(address, 0))

    def entry(self, ctx, name, entry):
        fields = {f.name: ctx.get(entry.sync[f.name]) for f in SYNC}
        fields |= {f.name: ctx.get(entry.instr[f.name]) for f in INSTRUCTIONS[name].fields}
        extras = {
            "load": ("row_elems", "units", "joined", "paired", "begin", "back"),
            "matmul": ("rows", "a_lo", "a_hi", "w_lo", "w_hi"),
            "vector": ("units",),
            "store": ("units", "joined"),
        }
        more = {n: ctx.get(entry.instr[n]) for n in extras[name]}
        ports = {
            "load": ("spad_w", "acc_w"),
            "matmul": (),
            "vector": ("spad_r", "spad_w", "acc_r", "acc_w"),
            "store": ("spad_r", "spad_w", "acc_r"),
        }
        masks = {p: ctx.get(entry.masks[p]) for p in ports[name]}
        return fields, more, masks, ctx.get(entry.id)


def signed(x):
    return x - (1 << 32) if x >> 31 else x


PYTHON = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << (b % 32),
    "shr": lambda a, b: a >> (b % 32),
    "sar": lambda a, b: signed(a) >> (b % 32),
    "and": lambda a, b: a & b,
    "min": lambda a, b: min(signed(a), signed(b)),
    "max": lambda a, b: max(signed(a), signed(b)),
}


@pytest.mark.parametrize("seed", range(2))
def test_scalar_arithmetic(seed):
    rng = random.Random(seed)
    regs = [0] * 16
    program = []
    for _ in range(80):
        name = rng.choice(("li", *PYTHON))
        rd, ra, rb = (rng.randrange(16) for _ in range(3))
        value = rng.choice((rng.randrange(-(1 << 31), 1 << 31), rng.randrange(-40, 40)))
        use = rng.random() < 0.5
        b = regs[rb] if use else value & MASK
        operand = {"rd": rd, "b": Reg(rb) if use else value}
        if name == "li":
            program.append(I("li", **operand))
            regs[rd] = b
        else:
            program.append(I(name, ra=ra, **operand))
            regs[rd] = PYTHON[name](regs[ra], b) & MASK
    r0 = regs[0]
    program += [I("stw", rd=i, ra=0, b=64 + 4 * i - signed(r0)) if r0 < 1 << 31 else
                I("li", rd=0, b=0) for i in range(16)]  # fmt: skip
    if r0 >= 1 << 31:
        regs[0] = 0
        program += [I("stw", rd=i, ra=0, b=64 + 4 * i) for i in range(16)]
    bench = Bench([*program, I("halt")], seed).run()
    assert bench.fault == Fault.NONE
    assert [bench.words[64 + 4 * i] for i in range(16)] == regs


@pytest.mark.parametrize("name", list(PYTHON))
def test_scalar_arithmetic_at_the_edges(name):
    """Signs, wrapping, and shifts by 32 and more, which count modulo 32."""
    pairs = [(a, b) for a in (0x80000001, 0x7FFFFFFF, 0x12345678, MASK)
             for b in (0, 1, 31, 32, 33, 63, -1, -(1 << 31))]  # fmt: skip
    program = []
    for i, (a, b) in enumerate(pairs):
        program += [I("li", rd=1, b=signed(a)), I(name, rd=2, ra=1, b=b),
                    I("stw", rd=2, ra=0, b=64 + 4 * i)]  # fmt: skip
    bench = Bench([*program, I("halt")], 0).run()
    assert bench.fault == Fault.NONE
    want = [PYTHON[name](a, b & MASK) & MASK for a, b in pairs]
    assert [bench.words[64 + 4 * i] for i in range(len(pairs))] == want


@pytest.mark.parametrize("name", ["beq", "bne", "blt", "bge"])
def test_branches(name):
    holds = {
        "beq": lambda a, b: a == b,
        "bne": lambda a, b: a != b,
        "blt": lambda a, b: a < b,
        "bge": lambda a, b: a >= b,
    }[name]
    for a, b in ((0, 0), (-1, 1), (1, -1), (-(1 << 31), (1 << 31) - 1), (5, 5)):
        program = [
            I("li", rd=1, b=a),
            I(name, ra=1, b=b, target=3),
            I("halt"),
            I("fence"),
            I("halt"),
        ]
        pcs = [pc for _, pc in Bench(program).run().begins]
        assert pcs == ([0, 1, 3, 4] if holds(a, b) else [0, 1, 2])


def test_registers_are_zero_in_each_program():
    bench = Bench([I("stw", rd=7, ra=0, b=4), I("li", rd=7, b=9), I("ldw", rd=2, ra=0, b=4),
                   I("stw", rd=2, ra=0, b=8), I("halt")]).run()  # fmt: skip
    assert bench.words == {4: 0, 8: 0}


def fetched(index):
    """Cycle from which instruction `index` of the first line can be read."""
    pins = FETCH_AR - AXI_SLICE + LATENCY + 4 * index + 3
    return pins + FETCH_WRITE - AXI_SLICE


def test_cycles_of_each_kind():
    """FETCH, DECODE, one RESOLVE for each register, EXTENT, EXEC."""
    load = {"c0": 4, "loc": 0}
    program = [
        I("li", rd=1, b=4),
        I("add", rd=2, ra=1, b=Reg(1)),
        I("load", **load),
        I("load", c0=Reg(1), c1=Reg(1), l1=1, loc=Reg(2)),
        I("fence"),
        I("post", sem=3, n=2),
        I("wait", sem=3, n=2),
        I("halt"),
    ]
    bench = Bench(program, unit_delay=30).run()
    extent = 2 + 1  # steps of the local operand and of DRAM
    spent = [2, 3, 2 + extent, 5 + extent, 2, 2, 2, 2]  # FETCH to EXEC
    t = 0
    for index, lead in enumerate(spent):
        begin = max(t, fetched(index)) + lead
        assert bench.begins[index] == (begin, index)
        end = begin
        if index == 4:
            end = max(begin, bench.pushed[-1][0] + 31)
        assert bench.ends[index] == end
        t = end + 1
    assert bench.cycles == t
    assert [c for c, _, _ in bench.pushed] == [bench.begins[2][0], bench.begins[3][0]]


def random_unit(rng, regs):
    """A random instruction of a unit, some operands in registers, often legal."""
    spec = INSTRUCTIONS[rng.choice(UNITS)]
    fields = {}
    for f in spec.all_fields:
        if f.enum is not None:
            fields[f.name] = int(rng.choice(list(f.enum)))
        elif f.name in ("xpose", "gather", "scatter", "pool", "zp", "scale", "bias", "int_path"):
            fields[f.name] = 0
        elif f.signed:
            fields[f.name] = rng.choice((0, 0, 2, 2, 4, 6, -2))
        elif f.name in ("loc", "a", "w", "c", "dst", "vec"):
            fields[f.name] = 2 * rng.randrange(10, 60)
        else:
            fields[f.name] = min(f.high, rng.randrange(1, 5))
        if f.name in ("a_type", "w_type"):
            fields[f.name] = 0
        if f.name == "type":
            fields[f.name] = 4 if fields["mem"] else 0
        if spec.name == "vector":
            kinds = {"_mem": 1, "_type": 4, "_on": rng.randrange(2)}
            for end in kinds:
                if f.name.endswith(end):
                    fields[f.name] = kinds[end]
            if f.name in ("kernel", "x", "y", "z", "o", "p"):
                fields[f.name] = rng.randrange(10, 60)
        if f.name == "pack":
            fields[f.name] = rng.randrange(1, 4)
        if f.name == "conv":
            fields[f.name] = 2 if fields["mem"] else rng.choice((0, 1, 2, 3))
        if f.name in ("out", "dest"):
            fields[f.name] = 0
        if f.name in spec.reg_bit and rng.random() < 0.04:
            fields[f.name] = Reg(rng.randrange(16))
    if spec.name == "load":
        fields |= dict.fromkeys(("skip1", "drop1", "skip2", "drop2"), 0) | {"dram": 999}
    if spec.name == "load" and rng.random() < 0.3:
        if fields["pack"] > 1 and rng.random() < 0.5:
            fields |= {"skip1": rng.choice((1, Reg(4))), "drop1": rng.randrange(2), "c2": 3}
            fields |= {"skip2": int(fields["pack"] == 3)}
        fields |= {"xpose": 1, "fill": 0, "mem": 0, "conv": rng.choice((0, 1, 3))}
    return I(spec.name, **fields)


@pytest.mark.parametrize("seed", range(2))
def test_dispatch_gives_python_s_fields_extents_and_faults(seed):
    rng = random.Random(seed)
    regs = [rng.choice((2, 4, 4, 2, 4, 6, 0, MASK)) for _ in range(16)]
    seen = set()
    head = [I("li", rd=i, b=signed(r)) for i, r in enumerate(regs)]
    for _ in range(10):
        program, expected, fault = [], [], None
        for number in range(16, 40):
            instr = random_unit(rng, regs)
            program.append(instr)
            try:
                values = resolve(instr, regs)
                check_rules(instr.spec, values)
                check_range(CONFIG, instr.spec, values)
                dram = dram_extent(instr.spec, values)
                check_window(instr.spec.name, *(dram or (0, 0, 0))[1:], EVERYTHING)
            except IllegalInstruction as error:
                fault = (error.fault, number)
                break
            expected.append((instr, values, number))
        bench = Bench([*head, *program, I("halt")], seed, full=0.3).run()
        assert bench.fault == (fault or Fault.NONE)
        seen.add(fault and fault[0])
        assert len(bench.pushed) == len(expected)
        for (_, name, entry), (instr, values, number) in zip(bench.pushed, expected, strict=True):
            fields, extras, masks, ident = entry
            seen.add(name)
            assert name == instr.spec.name and ident == number
            assert fields == {n: int(v) for n, v in values.items()}
            counts = derived(CONFIG, instr.spec, values)
            counts |= pass_offsets(CONFIG, values) if name == "matmul" else {}
            if values.get("xpose"):  # a LOAD's
                counts["row_elems"] = counts["sequence"]
            if name == "load":
                back = values["skip1"] * values["s1"]
                counts["back"] = back % (1 << 32)
                counts["begin"] = values["dram"] + back + values["skip2"] * values["s2"]
                counts["begin"] %= 1 << 32
            assert extras == {n: counts[n] for n in extras}
            want = dict(
                zip(
                    ("spad_r", "spad_w", "acc_r", "acc_w"),
                    bank_masks(CONFIG, extents(CONFIG, instr.spec, values)),
                    strict=True,
                )
            )
            assert masks == {p: want[p] for p in masks}
    assert seen >= {*UNITS, Fault.FIELD}


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ([I("li", rd=1, b=1), bytes(64)], (Fault.OPCODE, 1)),
        ([I("li", rd=1, b=1)], (Fault.PC, 1)),
        ([I("jmp", target=1 << 25)], (Fault.PC, 1 << 25)),
        ([I("vector", cols=0)], (Fault.FIELD, 0)),
        ([I("vector", body=1, x_on=1, x_mem=1, x_type=4, x=1 << 17)], (Fault.RANGE, 0)),
        ([I("load", gather=1, c0=0)], (Fault.FIELD, 0)),
        ([I("load", loc=1 << 17)], (Fault.RANGE, 0)),
        ([I("ldw", rd=1, ra=0, b=2)], (Fault.FIELD, 0)),
        ([I("stw", rd=1, ra=0, b=7)], (Fault.FIELD, 0)),
    ],
)
def test_faults_wait_for_quiet(program, fault):
    before = [I("load", loc=4), I("store", mem=0, type=0, out=0, dst=0)]
    code, pc = fault
    bench = Bench([*before, *program], unit_delay=60).run()
    assert bench.fault == (code, pc if pc >= 1 << 20 else pc + 2)
    assert bench.cycles == bench.pushed[-1][0] + 60 + 1 + 1
