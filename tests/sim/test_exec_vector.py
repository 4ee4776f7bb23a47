"""VECTOR on the functional engine against NumPy, its rules, and the checker's view of it."""

import ml_dtypes
import numpy as np
import pytest
from tilewright.isa.config import PRESETS
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.micro import SOURCES, MicroOp, encode_micro
from tilewright.isa.program import Program
from tilewright.isa.table import Conv, Mem, Type
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS
from tilewright.sim import load_memory, run
from tilewright.sim.checker import check
from tilewright.sim.exec_vector import IllegalKernel
from tilewright.sim.functional import Machine
from tilewright.sim.memory import Memory

TW4 = PRESETS["tw4"]
DIM = TW4.dim
KERNEL = 200  # accumulator row of micro-kernels
bf16 = ml_dtypes.bfloat16
CELLS = {Type.I8: np.int8, Type.U8: np.uint8, Type.BF16: bf16, Type.F32: np.float32,
         Type.I32: np.int32}  # fmt: skip


def op(name="nop", dst=0, a=0, b=0, c=0, n=0, **slots):
    """A word; sources are numbers of registers or names, slots are (stream, register)."""
    fields = {}
    if name not in ("nop", "const"):
        fields = {k: SOURCES.get(v, v) for k, v in dict(a=a, b=b, c=c).items()} | {"n": n}
    if name == "const":
        fields["imm"] = a
    if name != "nop":
        fields["dst"] = dst
    for slot, streams, register in (
        ("load", LOAD_STREAMS, "load_dst"), ("store", STORE_STREAMS, "store_src"),
    ):  # fmt: skip
        if slot in slots:
            stream, fields[register] = slots[slot]
            fields[slot] = 1 + streams.index(stream)
    return MicroOp.make(name, **fields)


def load(stream, register):
    return op(load=(stream, register))


def store(stream, register):
    return op(store=(stream, register))


def stream(name, kind, at=0, row=1, unit=0):
    mem = Mem.ACC if kind in (Type.F32, Type.I32) else Mem.SPAD
    fields = {"_on": 1, "_mem": mem, "_type": kind, "": at, "_row": row, "_unit": unit}
    return {name + k: v for k, v in fields.items()}


def machine(words, **cells):
    """A machine with a micro-kernel, and arrays of whole units put to `acc` and `spad`."""
    m = Machine(TW4, Memory())
    raw = np.frombuffer(b"".join(map(encode_micro, words)), np.uint8)
    m.acc_bytes[4 * DIM * KERNEL : 4 * DIM * KERNEL + raw.size] = raw
    for memory, array in cells.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        (m.acc_bytes if memory == "acc" else m.spad)[: flat.size] = flat
    return m


def execute(m, sections, *streams, **fields):
    """Run one VECTOR; `sections` are the lengths of init, head, body and tail."""
    for s in streams:
        fields |= s
    lengths = dict(zip(SECTIONS, sections, strict=True))
    instr = Instr.make("vector", kernel=KERNEL, **lengths, **fields)
    m.run(encode(instr) + encode(Instr.make("halt")))
    assert m.halted
    return m


def rows_of(m, kind, at, shape):
    """What a memory holds from row or granule `at` on, as units."""
    size = np.dtype(CELLS[kind]).itemsize * int(np.prod(shape))
    memory, cell = (m.acc_bytes, 4 * DIM) if kind in (Type.F32, Type.I32) else (m.spad, DIM)
    return memory[at * cell : at * cell + size].view(CELLS[kind]).reshape(shape)


def floats(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 20])
def test_affine_relu(rows):
    x = floats((rows, 3, DIM))
    words = [
        load("x", 0),
        op("mul_f32", 1, 0, "u"),
        op("add_f32", 1, 1, "v"),
        op("max_f32", 2, 1, "zero"),
        store("o", 2),
    ]
    u, v = np.float32(1.5), np.float32(-0.25)
    m = execute(
        machine(words, acc=x), (0, 0, 5, 0),
        stream("x", Type.F32, 0, 3, 1), stream("o", Type.F32, 100, 3, 1),
        rows=rows, cols=3 * DIM, u=int(u.view(np.uint32)), v=int(v.view(np.uint32)),
    )  # fmt: skip
    assert np.array_equal(rows_of(m, Type.F32, 100, x.shape), np.maximum(x * u + v, 0))


def test_softmax_s_row_sum_and_maximum_by_rotation():
    """Head starts, body folds unit by unit, tail folds lanes: every lane has the same bits."""
    x = floats((11, 2, DIM), 1)
    words = [
        op("const", 30, 0xFF800000),  # init: -infinity
        op("mov", 0, 30),  # head
        op("mov", 1, "zero"),
        load("x", 2),  # body
        op("max_f32", 0, 0, 2),
        op("add_f32", 1, 1, 2),
        op("rotate", 3, 0, n=2),  # tail
        op("max_f32", 0, 0, 3),
        op("rotate", 3, 0, n=1),
        op("max_f32", 0, 0, 3),
        op("rotate", 3, 1, n=2),
        op("add_f32", 1, 1, 3),
        op("rotate", 3, 1, n=1),
        op("add_f32", 1, 1, 3, store=("o", 0)),
        store("p", 1),
    ]
    m = execute(
        machine(words, acc=x), (1, 2, 3, 9),
        stream("x", Type.F32, 0, 2, 1), stream("o", Type.F32, 60), stream("p", Type.F32, 80),
        rows=11, cols=2 * DIM,
    )  # fmt: skip
    top = np.repeat(x.max(axis=(1, 2))[:, None], DIM, axis=1)
    assert np.array_equal(rows_of(m, Type.F32, 60, (11, DIM)), top)
    lanes = x[:, 0] + x[:, 1]
    pairs = lanes + np.roll(lanes, -2, axis=1)  # lanes 0 + 2, 1 + 3, 2 + 0, 3 + 1
    total = np.repeat((pairs[:, 0] + pairs[:, 1])[:, None], DIM, axis=1)
    assert np.array_equal(rows_of(m, Type.F32, 80, (11, DIM)), total)


def test_a_reduction_over_rows_exchanges_the_strides():
    """Three "rows" are column blocks, ten "units" are rows: sums of ten rows in order."""
    x = np.arange(10 * 3 * DIM, dtype=np.int32).reshape(10, 3, DIM) ** 3
    words = [op("mov", 0, "zero"), load("x", 1), op("add_i32", 0, 0, 1), store("o", 0)]
    m = execute(
        machine(words, acc=x), (0, 1, 2, 1),
        stream("x", Type.I32, 0, 1, 3), stream("o", Type.I32, 100), rows=3, cols=10 * DIM,
    )  # fmt: skip
    assert np.array_equal(rows_of(m, Type.I32, 100, (3, DIM)), x.sum(axis=0, dtype=np.int32))


def test_bf16_and_8_bit_streams_widen_and_narrow():
    a = np.array([-128, -1, 0, 127], np.int8)
    b = np.array([0, 1, 200, 255], np.uint8)
    c = np.array([1.5, -2.0, 3e38, 0.1], bf16)
    words = [
        load("x", 0),
        op("i32_f32", 3, 0, load=("y", 1)),
        op("sub_i32", 0, 0, 1, load=("z", 2)),
        op("add_f32", 2, 2, 3, store=("o", 0)),
        store("p", 2),
    ]
    spad = np.concatenate([a.view(np.uint8), b, c.view(np.uint8)])
    m = execute(
        machine(words, spad=spad), (0, 0, 5, 0),
        stream("x", Type.I8, 0), stream("y", Type.U8, 1), stream("z", Type.BF16, 2, 2),
        stream("o", Type.I8, 10), stream("p", Type.BF16, 12, 2), cols=DIM,
    )  # fmt: skip
    wide = a.astype(np.int32) - b
    assert rows_of(m, Type.I8, 10, (DIM,)).tolist() == np.clip(wide, -128, 127).tolist()
    total = (c.astype(np.float32) + a.astype(np.float32)).astype(bf16)
    assert np.array_equal(rows_of(m, Type.BF16, 12, (DIM,)), total)


def test_uint8_saturates_at_both_ends():
    x = np.array([-5, 0, 255, 1 << 30], np.int32)
    words = [load("x", 0), store("o", 0)]
    m = execute(machine(words, acc=x), (0, 0, 2, 0), stream("x", Type.I32), stream("o", Type.U8))
    assert rows_of(m, Type.U8, 0, (DIM,)).tolist() == [0, 0, 255, 255]


def test_32_bit_streams_move_bits_whatever_they_mean():
    bits = np.array([0x7F800001, 0x80000001, 0xFFC12345, 3], np.uint32)
    words = [load("x", 0), store("o", 0)]
    streams = stream("x", Type.F32), stream("o", Type.F32, 9)
    m = execute(machine(words, acc=bits), (0, 0, 2, 0), *streams)
    assert rows_of(m, Type.F32, 9, (DIM,)).view(np.uint32).tolist() == bits.tolist()


def test_in_place_and_only_rows_and_units_that_are_there():
    before = np.arange(25 * 2 * DIM, dtype=np.int32).reshape(25, 2, DIM)
    words = [load("x", 0), op("add_i32", 1, 0, "u"), store("o", 1)]
    m = execute(
        machine(words, acc=before), (0, 0, 3, 0),
        stream("x", Type.I32, 2, 4, 1), stream("o", Type.I32, 2, 4, 1),
        rows=9, cols=DIM + 1, u=1000,
    )  # fmt: skip
    want = before.copy()
    want[1:19:2] += 1000
    assert np.array_equal(rows_of(m, Type.I32, 0, before.shape), want)


def test_sources_lane_row_unit_active_and_constants():
    words = [
        op("mov", 0, "lane"),
        op("mov", 1, "row", store=("o", 0)),
        op("mov", 2, "unit", store=("o", 1)),
        op("mov", 3, "active", store=("o", 2)),
        op("mov", 4, "one", store=("o", 3)),
        op("mov", 5, "u", store=("o", 4)),
        op("mov", 6, "zero", store=("o", 5)),
        store("o", 6),
    ]
    seen = []
    for length in range(2, 9):  # the last store is what stays
        m = machine(words[:length])
        execute(m, (0, 0, length, 0), stream("o", Type.I32, 0, 3, 1),
                rows=10, cols=3 * DIM - 3, u=0xFFFFFFF0)  # fmt: skip
        seen.append(rows_of(m, Type.I32, 0, (10, 3, DIM)).copy())
    ones = np.ones((10, 3, DIM), np.int32)
    active = ones.copy()
    active[:, 2, 1:] = 0
    want = [
        np.arange(DIM) * ones, np.arange(10)[:, None, None] * ones,
        np.arange(3)[:, None] * ones, active, 0x3F800000 * ones, -16 * ones, 0 * ones,
    ]  # fmt: skip
    for got, expected in zip(seen, want, strict=True):
        assert np.array_equal(got, expected)


def test_a_word_reads_before_it_writes_and_the_alu_wins():
    x = np.arange(DIM, dtype=np.int32)
    words = [
        op("const", 0, 7),
        op("mov", 1, 0, load=("x", 0), store=("o", 0)),  # 7 to o and to r1, x to r0
        op("add_i32", 2, 0, 1, load=("x", 2)),  # the sum stays
        store("p", 2),
    ]
    streams = stream("x", Type.I32), stream("o", Type.I32, 5), stream("p", Type.I32, 6)
    m = execute(machine(words, acc=x), (0, 0, 4, 0), *streams)
    assert rows_of(m, Type.I32, 5, (2, DIM)).tolist() == [[7] * DIM, (x + 7).tolist()]


def test_a_load_comes_before_the_store_of_its_word():
    x = np.arange(DIM, dtype=np.int32)
    words = [op("const", 0, 9), op(load=("x", 1), store=("o", 0)), store("p", 1)]
    streams = stream("x", Type.I32), stream("o", Type.I32), stream("p", Type.I32, 6)
    m = execute(machine(words, acc=x), (0, 0, 3, 0), *streams)
    assert rows_of(m, Type.I32, 0, (DIM,)).tolist() == [9] * DIM
    assert rows_of(m, Type.I32, 6, (DIM,)).tolist() == x.tolist()


def test_rotate_broadcast_and_select():
    words = [
        op("rotate", 0, "lane", n=1),
        op("broadcast", 1, 0, n=6),
        op("lt_i32", 2, "lane", "u"),
        op("select", 3, 2, 0, 1),
        store("o", 3),
    ]
    m = execute(machine(words), (0, 0, 5, 0), stream("o", Type.I32), u=2)
    assert rows_of(m, Type.I32, 0, (DIM,)).tolist() == [1, 2, 3, 3]  # lane 6 mod 4 holds 3


def test_of_rows_that_store_to_one_place_the_last_one_wins_group_by_group():
    words = [op("mov", 0, "row"), store("o", 0), op("mov", 0, "unit"), store("p", 0)]
    m = execute(
        machine(words), (0, 0, 4, 0), stream("o", Type.I32, 20, 0, 1),
        stream("p", Type.I32, 20, 1, 0), rows=10, cols=2 * DIM,
    )  # fmt: skip
    # o: place 20 + unit takes the row, p: place 20 + row takes the unit; rows 8 and 9 come last
    assert rows_of(m, Type.I32, 20, (10, DIM))[:, 0].tolist() == [9, 9] + [1] * 8


ILLEGAL = {
    "source": ([op("mov", 0, 40)], (0, 0, 1, 0), "mov reads source 40, which is none"),
    "row in init": ([op("mov", 0, "row"), op()], (1, 0, 1, 0), "init must not read row"),
    "load in init": ([load("x", 0), op()], (1, 0, 1, 0), "init must neither load nor store"),
    "off": ([load("y", 0)], (0, 0, 1, 0), "load names stream y, which is not on"),
    "no stream": (
        [MicroOp.make("nop", store=3)], (0, 0, 1, 0), "store must name o or p, not stream number 3",
    ),
    "unwritten": (
        [op("const", 1, 2), op("add_i32", 0, 1, 3)], (0, 1, 1, 0),
        r"word 1 .*body 0, .* at accumulator row 200, place 1\): r3 must be written before",
    ),
    "unwritten store": (
        [op(), store("o", 5)], (0, 0, 1, 1), "tail 0, .*r5 must be written before it is read",
    ),
    "fixed": (
        [op("const", 1, 2), op(), op("mov", 1, "u")], (1, 0, 1, 1),
        "tail 0, .*r1 must not be written: init writes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ILLEGAL)
def test_an_illegal_micro_kernel_is_refused_by_name(case):
    words, sections, message = ILLEGAL[case]
    with pytest.raises(IllegalKernel, match=message) as e:
        execute(machine(words), sections, stream("x", Type.I32), stream("o", Type.I32, 3))
    assert "vector at instruction 0" in str(e.value)


def test_a_word_that_is_no_micro_operation_is_refused():
    m = machine([op("const", 0, 1)])
    m.acc_bytes[4 * DIM * KERNEL + 8] = 63
    with pytest.raises(IllegalKernel, match=r"word 1 .*000000000000003f .*is no micro-operation"):
        execute(m, (0, 0, 2, 0))


def program(words, sections, *streams, before=(), **fields):
    """A whole program: LOAD of the micro-kernel, `before`, VECTOR."""
    raw = b"".join(map(encode_micro, words))
    for s in streams:
        fields |= s
    bring = Instr.make("load", mem=Mem.ACC, conv=Conv.COPY32, c0=len(raw) // 4, loc=KERNEL, l0=1,
                       done_en=1, done_sem=1)  # fmt: skip
    lengths = dict(zip(SECTIONS, sections, strict=True))
    vector = Instr.make("vector", **{"kernel": KERNEL} | lengths | fields)
    code = b"".join(map(encode, [bring, *before, vector, Instr.make("halt")]))
    return Program(TW4, code, ((0, raw),), dram_size=4096)


def checked(*args, **kw):
    p = program(*args, **kw)
    return check(p, load_memory(p))


WAIT = {"wait0": 1, "wait0_n": 1}
DONE = {"done_en": 1, "done_sem": 2}
COPY = [load("x", 0), store("o", 0)]


def test_the_checker_wants_the_micro_kernel_loaded_first():
    assert checked(COPY, (0, 0, 2, 0), stream("x", Type.I32), stream("o", Type.I32, 9), **WAIT).ok
    report = checked(COPY, (0, 0, 2, 0), stream("x", Type.I32), stream("o", Type.I32, 9))
    assert "vector #1 must wait for done of load #0" in str(report)


def test_the_checker_reports_an_illegal_micro_kernel():
    report = checked([store("o", 3)], (0, 0, 1, 0), stream("o", Type.I32), **WAIT)
    assert [f.kind for f in report.errors] == ["kernel"]
    assert "vector at instruction 1: word 0" in str(report) and "r3 must be written" in str(report)


@pytest.mark.parametrize(("word", "legal"), [(store("o", 9), False), (op("mov", 1, "u"), True)])
def test_the_checker_runs_the_program_if_a_micro_kernel_is_computed(word, legal):
    copy = stream("x", Type.I32, KERNEL + 1) | stream("o", Type.I32, KERNEL + 10)
    first = Instr.make("vector", kernel=KERNEL, body=2, **copy, **WAIT, **DONE)
    report = checked([*COPY, word, word], (0, 0, 2, 0), stream("o", Type.I32), before=[first],
                     kernel=KERNEL + 10, wait0=2, wait0_n=1)  # fmt: skip
    assert report.ok == legal
    assert legal or "vector at instruction 2: word 0 of its micro-kernel" in str(report)


@pytest.mark.parametrize(
    ("x", "o", "fields", "legal"),
    [
        (stream("x", Type.I32, 4, 2, 1), stream("o", Type.F32, 4, 2, 1), {}, True),
        (stream("x", Type.I32, 4, 2, 1), stream("o", Type.F32, 4, 3, 1), {}, False),
        (stream("x", Type.I32, 4, 2, 1), stream("o", Type.F32, 5, 2, 1), {}, False),
        (stream("x", Type.I32, 4, 1, 1), stream("o", Type.I32, 4, 1, 1), {}, False),  # alike
        (stream("x", Type.I32, 4, 2, 0), stream("o", Type.I32, 4, 2, 9), dict(cols=4), True),
        (stream("x", Type.U8, 4, 2, 1), stream("o", Type.BF16, 4, 2, 2), dict(cols=4), False),
        (stream("x", Type.I32, 4, 2, 1), stream("o", Type.I32, 100, 0, 0), {}, True),
        (stream("x", Type.I32, 4, 2, 1), stream("o", Type.I32, KERNEL, 2, 1), {}, False),
    ],
)  # fmt: skip
def test_stores_meet_loads_only_in_place(x, o, fields, legal):
    report = checked(COPY, (0, 0, 2, 0), x, o, **dict(rows=3, cols=8) | fields | WAIT)
    assert report.ok == legal, str(report)
    assert legal or "writes itself" in str(report)


def test_vectors_see_what_vectors_wrote_but_not_as_micro_kernels():
    streams = stream("x", Type.I32, KERNEL) | stream("o", Type.I32, KERNEL + 1)
    first = Instr.make("vector", kernel=KERNEL, body=2, **streams, **WAIT, **DONE)
    copied = stream("x", Type.I32, KERNEL + 1), stream("o", Type.I32, 40)
    assert checked(COPY, (0, 0, 2, 0), *copied, before=[first]).ok
    fields = dict(before=[first], kernel=KERNEL + 1)
    report = checked(COPY, (0, 0, 2, 0), *copied, **fields)
    assert "vector #2 must wait for done of vector #1" in str(report)
    assert checked(COPY, (0, 0, 2, 0), *copied, **fields, wait0=2, wait0_n=1).ok


def test_engines_agree_and_count_cycles():
    """Closed form: fetch 1 row, lead 5, eight slots for each of 2 groups x 2 units x 2 words."""
    p = program(COPY, (0, 0, 2, 0), stream("x", Type.I32, 0, 2, 1),
                stream("o", Type.I32, 60, 2, 1), rows=9, cols=2 * DIM, **WAIT)  # fmt: skip
    result = run(p, engine="cycle")
    trace = {int(row["pc"]): row for row in result.trace}
    assert trace[1]["end"] - trace[1]["start"] == 1 + 5 + 8 * 8 + 4
    assert result.counters["vector_issuing"] == 1 + 1 + 5 + 8 * 8
    assert result.counters["vector_instructions"] == 1
