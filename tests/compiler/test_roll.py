"""Loops: the units execute the same instructions, in a shorter program."""

import time

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.loops import plain
from tilewright.compiler.periods import columns, runs, tables
from tilewright.compiler.roll import roll
from tilewright.compiler.schedule import Schedule
from tilewright.compiler.tiles import Op
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.disassembler import disassemble_program
from tilewright.isa.program import Program
from tilewright.isa.table import Unit
from tilewright.sim.cycle import time_program
from tilewright.sim.functional import Machine

from tests.compiler.backend_case import I8, array, compiled, execute, kernels_of

TW16 = parse_config("tw16")
SCALAR = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "and": lambda a, b: a & b,
    "bne": lambda a, b: a != b, "blt": lambda a, b: a < b,
}  # fmt: skip


def buffers(count):
    return [Buffer(f"b{i}", (1 << 24,), I8, "input") for i in range(count)]


def base_of(buffer):
    return int(buffer.name[1:]) * 0x1234000


def signed(value):
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)


def executed(words):
    """(name, fields, registers used) of the units' instructions, as the sequencer gives them."""
    regs, at, out = [None] * 16, 0, []
    while at < len(words):
        word, at = words[at], at + 1
        fields = dict(word.fields)
        if word.buffer is not None:
            fields[word.address] = signed(base_of(word.buffer) + word.offset)
        if word.name == "li":
            regs[fields["rd"]] = signed(fields["b"])
        elif word.name in ("bne", "blt"):
            if SCALAR[word.name](regs[fields["ra"]], fields["b"]):
                at = fields["target"]
        elif word.name in SCALAR:
            regs[fields["rd"]] = signed(SCALAR[word.name](regs[fields["ra"]], fields["b"]))
        else:
            fields |= {name: regs[fields[name]] for name in word.regs}
            out.append((word.name, fields))
    return out


def load(buffer, offset, loc, rows=400, **sync):
    fields = {"mem": 0, "conv": 0, "loc": loc, "l0": 1, "c0": 64, "c1": rows, "s1": 64, "l1": 4}
    return Op("load", fields, (), (), 0, "dram", buffer, offset, sync)


def matmul(a, w, c, acc=0, **sync):
    fields = {"a_type": 0, "w_type": 0, "acc": acc, "a": a, "r0": 400, "as0": 4, "ak": 1, "w": w,
              "ws": 4, "wk": 64, "wn": 1, "k": 64, "n": 64, "c": c, "cn": 400}  # fmt: skip
    return Op("matmul", fields, (), (), 0, sync=sync)


def store(buffer, offset, loc, **sync):
    fields = {"type": 4, "out": 0, "dest": 0, "mem": 1, "loc": loc, "c0": 64, "c1": 400, "s1": 64}
    return Op("store", fields, (), (), 0, "dst", buffer, offset, sync)


def resolved(ops):
    """What the units must execute, straight from the operations."""
    out = []
    for op in ops:
        fields = op.fields | op.sync
        if op.buffer is not None:
            fields[op.address] = signed(base_of(op.buffer) + op.offset)
        out.append((op.name, fields))
    return out


def nest(a, out, rows, cols, chunks, slots, snake=True):
    """A tiled product as the tiler writes it: snake, slots in turn, halves, first tiles apart."""
    ops, count, half = [], 0, 0
    for i in range(rows):
        for j in range(cols)[:: -1 if snake and i % 2 else 1]:
            for c in range(chunks):
                slot = 512 * (count % slots)
                count += 1
                wait = {"wait0": 2, "wait0_n": 1} if count > slots else {}
                ops.append(load(a, 8000 * i + 64 * c, slot, done_en=1, **wait))
                ops.append(matmul(slot, 10240 + 256 * (j + cols * c), 512 * half, int(c > 0)))
            ops.append(store(out, 4096 * i + 64 * j, 512 * half, rd_en=1))
            half = 1 - half
    return ops


@pytest.mark.parametrize("size", [(24, 3, 1, 20), (17, 4, 2, 7), (9, 6, 5, 5), (40, 1, 3, 4)])
@pytest.mark.parametrize("snake", [True, False])
def test_roll_units_execute_the_same(size, snake):
    ops = nest(*buffers(2), *size, snake=snake)
    words = roll(TW16, ops)
    assert executed(words) == resolved(ops)
    assert len(words) <= 0.6 * len(ops)


@pytest.mark.parametrize("seed", range(12))
def test_roll_random_nests_execute_the_same(seed):
    rng = np.random.default_rng(seed)
    known = buffers(3)
    ops = []

    def emit(depth, base):
        for _ in range(int(rng.integers(1, 4)) if depth else 1):
            if depth == 0 or rng.random() < 0.3:
                kind = int(rng.integers(3))
                local, size = int(base[1] % 4096), int(rng.choice([0, 3072, 4096]))
                local = (64 * int(rng.integers(64)) + local) % (size or 8192)
                if kind == 0:
                    ops.append(load(known[int(rng.integers(2))], int(base[0]), local))
                elif kind == 1:
                    ops.append(matmul(local, int(base[2] % 1024), int(base[2] % 7)))
                else:
                    ops.append(store(known[2], int(base[0] + base[2]), local))
                continue
            step = rng.integers(-3, 4, 3) * 64
            state = rng.bit_generator.state
            for t in range(int(rng.integers(3, 9))):
                rng.bit_generator.state = state  # every iteration draws the same body
                emit(depth - 1, base + t * step)

    for _ in range(3):
        emit(3, np.array([1 << 20, 1 << 13, 1 << 13]))
    assert executed(roll(TW16, ops)) == resolved(ops)


def test_roll_leaves_what_does_not_repeat():
    rng = np.random.default_rng(0)
    (a,) = buffers(1)
    ops = [load(a, int(rng.integers(1 << 20)), int(rng.integers(1 << 13))) for _ in range(200)]
    assert roll(TW16, ops) == [plain(op) for op in ops]


def test_roll_leaves_a_loop_that_needs_too_many_registers():
    known = buffers(20)  # addresses in different buffers share no register
    ops = [load(b, 6400 * t, 0) for t in range(30) for b in known]
    assert roll(TW16, ops) == [plain(op) for op in ops]
    ops = [load(b, 6400 * t, 0) for t in range(30) for b in known[:16]]
    words = roll(TW16, ops)
    assert executed(words) == resolved(ops) and len(words) < 100


def test_roll_leaves_a_loop_whose_units_would_wait():
    (a,) = buffers(1)
    ops = [load(a, 64 * t, 4 * (t % 8), rows=1) for t in range(100)]
    assert roll(TW16, ops) == [plain(op) for op in ops]


def test_roll_shares_a_register_between_addresses_that_move_alike():
    known = buffers(2)
    ops = [load(b, 6400 * t + 64 * i, 0) for t in range(30) for i in range(12) for b in known]
    words = roll(TW16, ops)
    assert executed(words) == resolved(ops) and len(words) < 60


def test_roll_an_operation_never_has_one_register_for_two_addresses():
    known = buffers(17)
    ops = []
    for t in range(30):
        ops += [matmul(64 * t, 64 * t + 128, 0), *(load(b, 6400 * t, 0) for b in known[:13])]
    words = roll(TW16, ops)
    assert executed(words) == resolved(ops) and len(words) < len(ops)


def test_roll_finds_the_periods():
    ops = nest(*buffers(2), 12, 1, 1, 100)
    shape, values = tables(ops)
    assert values.shape[1] == max(len(columns(n)) for n in ("load", "matmul", "store", "vector"))
    best = runs(shape, values, [], 1)[0]
    assert (best.start, best.period, best.count) == (0, 3, 12)


# whole programs


def gemm(x, w):
    return tnp.matmul(x, w, preferred_element_type=tnp.int32)


def operands(m, n, k):
    rng = np.random.default_rng(m + n + k)
    return array(rng, (m, k), I8), array(rng, (k, n), I8)


def units(back):
    """(name, resolved values) of the units' instructions that a program executes."""
    machine = Machine(back.config, sim.Memory(), data=False)
    execution = machine.run(back.program.code)
    assert execution.fault is None
    return [(e.name, dict(e.values)) for e in execution.executed if e.unit != Unit.SEQ]


def unrolled(monkeypatch, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr("tilewright.compiler.emit.roll", lambda _, ops, __: list(map(plain, ops)))
        return compiled(*args, **options)


@pytest.fixture
def eager(monkeypatch):
    """Loops wherever they are shorter, also where the units then wait for the sequencer."""
    monkeypatch.setattr("tilewright.compiler.roll.SLACK", 1e9)


RAGGED = [(203, 19, 21), (310, 10, 30), (163, 37, 43)]


@pytest.mark.parametrize("m, n, k", RAGGED)
@pytest.mark.usefixtures("eager")
def test_roll_products_execute_the_same_on_all_engines(m, n, k, monkeypatch):
    x, w = operands(m, n, k)
    options = {"config": "tw4", "schedules": {0: Schedule(8, 8, 16)}}
    back = compiled(gemm, x, w, **options)
    straight = unrolled(monkeypatch, gemm, x, w, **options)
    assert units(back) == units(straight)
    assert len(back.program) < 0.9 * len(straight.program)
    want = x.astype(np.int32) @ w.astype(np.int32)
    assert np.array_equal(execute(back, x, w)[0], want)
    cycles = {}
    for engine in ("cycle", "rtl"):
        memory = sim.load_memory(back.program)
        for port, value in zip(back.program.inputs, (x, w), strict=True):
            memory.write(port.addr, value)
        result = sim.run(back.program, memory, engine)
        got = result.memory.read(back.program.outputs[0].addr, want.nbytes).view(np.int32)
        assert np.array_equal(got.reshape(want.shape), want)
        cycles[engine] = result.cycles, result.trace["end"].tolist(), result.counters
    assert cycles["cycle"] == cycles["rtl"]


def shaped(m, n, k):
    return np.zeros((m, k), I8), np.zeros((k, n), I8)


def size(m, n, k, schedule):
    return len(compiled(gemm, *shaped(m, n, k), config="tw16", schedules={0: schedule}).program)


def test_roll_program_size_does_not_grow_with_the_rows():
    schedule = Schedule(123, 64, 64)
    sizes = [size(m, 256, 64, schedule) for m in (6272, 12544, 25088)]
    assert max(sizes) - min(sizes) <= 20 and max(sizes) <= 240


@pytest.mark.usefixtures("eager")
def test_roll_linked_elsewhere_computes_the_same():
    x, w = operands(300, 9, 20)
    back = compiled(gemm, x, w, schedules={0: Schedule(8, 8, 16)})
    assert any(i.spec.name == "bne" for i in back.program.instructions())
    moved = {b: 1 << 20 | 64 * 37 * i for i, b in enumerate(reversed(back.buffers))}
    code = back.link(moved)
    memory = sim.Memory(1 << 21)
    for value, buffer in zip((x, w), back.kernels.inputs, strict=True):
        memory.write(moved[buffer], value)
    program = Program(back.config, code, dram_size=1 << 21)
    result = sim.run(program, memory, "functional")
    (out,) = back.kernels.outputs
    got = result.memory.read(moved[out], out.nbytes).view(np.int32).reshape(out.shape)
    assert np.array_equal(got, x.astype(np.int32) @ w.astype(np.int32))


@pytest.mark.usefixtures("eager")
def test_roll_relocations_move_every_address_of_a_place():
    back = compiled(gemm, *operands(300, 9, 20), schedules={0: Schedule(8, 8, 16)})
    moved = {b: a + 0x10000 * (i + 1) for i, (b, a) in enumerate(back.addresses.items())}
    words = [int.from_bytes(back.program.code[i : i + 64], "little")
             for i in range(0, len(back.program.code), 64)]  # fmt: skip
    for r in back.relocs:  # as a loader does that knows nothing but the relocations
        value = words[r.number] >> r.at & 0xFFFFFFFF
        by = moved[r.buffer] - back.addresses[r.buffer]
        words[r.number] ^= (value ^ (value + by & 0xFFFFFFFF)) << r.at
    assert b"".join(w.to_bytes(64, "little") for w in words) == back.link(moved)
    names = {back.program.instructions()[r.number].spec.name for r in back.relocs}
    assert {"li", "load", "store"} <= names


@pytest.mark.usefixtures("eager")
def test_roll_listing_assembles_back():
    program = compiled(gemm, *operands(300, 9, 20), schedules={0: Schedule(8, 8, 16)}).program
    assert assemble(disassemble_program(program)).code == program.code


def test_roll_costs_no_cycles(monkeypatch):
    options = {"config": "tw16", "schedules": {0: Schedule(56, 128, 128)}}
    back = compiled(gemm, *shaped(3136, 512, 128), **options)
    straight = unrolled(monkeypatch, gemm, *shaped(3136, 512, 128), **options)
    assert len(back.program) < 0.8 * len(straight.program)
    spent = [time_program(b.config, b.program.code).cycles for b in (back, straight)]
    assert spent[0] <= 1.001 * spent[1]


@pytest.mark.usefixtures("eager")
def test_roll_every_scalar_instruction_knows_its_kernel():
    back = compiled(gemm, *operands(300, 9, 20), schedules={0: Schedule(8, 8, 16)})
    assert {o.kernel for o in back.program.source_map[:-1]} == {
        k.name for k in kernels_of(gemm, *operands(300, 9, 20)).kernels
    }


def test_roll_compiles_a_large_product_within_a_second():
    spent = time.process_time()
    compiled(gemm, *shaped(12544, 256, 64), config="tw16")
    assert time.process_time() - spent <= 1.0
