"""Programs on the pins of the exported chip, inside the simulator (see `chip_bench.py`).

Each result is held against the functional engine; the directed tests also against NumPy.
"""

import dataclasses

import cocotb
import numpy as np
from chip_bench import COVER, FAULT, FAULTED, GEOMETRY, HALTED, ID, STATUS, settings
from chip_programs import CONFIG, DIM, GAPS, OUT, SMALL, WORDS, program, ready, wipe
from cocotb.triggers import ClockCycles
from tilewright.isa.config import REGISTERS
from tilewright.isa.table import Fault
from tilewright.sim.generate import bins, generate


def halves(rng: np.random.Generator, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Small integers as float32 and as bf16 bits: their products and sums are exact."""
    values = rng.integers(-8, 9, shape).astype(np.float32)
    return values, (values.view(np.uint32) >> 16).astype(np.uint16)


@cocotb.test()
async def the_host_reads_who_the_chip_is(dut):
    bench = await ready(dut)
    assert await bench.read(ID) == 0x54570001
    logs = (CONFIG.spad_kib.bit_length() - 1) << 16 | (CONFIG.acc_kib.bit_length() - 1) << 24
    assert await bench.read(GEOMETRY) == DIM | CONFIG.bus_bytes << 8 | logs
    assert await bench.read(STATUS) == 0
    assert dut.irq.value == 0


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def load_and_store_move_strided_bytes(dut, gap):
    bench = await ready(dut, gap, seed=1)
    source = np.random.default_rng(1).integers(0, 256, 600, np.uint8)
    width, rows, step = 3 * DIM + 1, 9, 41
    text = f"""
        load spad[0x0], dram[0x1003], copy8, c0={width} c1={rows} s1={step} l0=1 l1=4 ; done s0
        store dram[{OUT + 5}], spad[0x0], i8->i8, c0={width} c1={rows} l0=1 l1=4 s1={step + 9} \
; wait s0>=1
        halt"""
    await bench.run(program(text, (0x1000, source)))
    for i in range(rows):
        got = np.frombuffer(bench.data.read(OUT + 5 + i * (step + 9), width), np.uint8)
        assert (got == source[3 + i * step :][:width]).all(), f"row {i}"
    if bench.gated:
        assert bench.edges["array"] < bench.edges["chip"] / 4, f"clocked too often: {bench.edges}"


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def int8_matmul_requantises(dut, gap):
    bench = await ready(dut, gap, seed=2)
    rng = np.random.default_rng(2)
    rows, k, n = 7, 2 * DIM + 1, 2 * DIM - 1
    a, w = rng.integers(-128, 128, (rows, k)), rng.integers(-128, 128, (k, n))
    ibias = rng.integers(-9999, 9999, n)
    scale = np.exp2(rng.integers(-9, -6, n)).astype(np.float32)
    text = f"""
        load spad[0x0], dram[0x1000], copy8, c0={k} c1={rows} s1={k} l0=1 l1=3 ; done s0
        load spad[0x80], dram[0x2000], copy8, c0={n} c1={k} s1={n} l0=1 l1=2 ; done s0
        load acc[0x20], dram[0x3000], copy32, c0={n} l0=1 ; done s1
        load acc[0x22], dram[0x4000], copy32, c0={n} l0=1 ; done s1
        load spad[0xf0], fill, copy8, c0=1
        matmul acc[0x0], spad[0x0], spad[0x80], i8*i8, r0={rows} as0=3 ak=1 ws=2 wk={2 * DIM} wn=1 \
k={k} n={n} cn={rows} ; wait s0>=2 ; done s2
        store dram[{OUT}], acc[0x0], i32->i8, ibias scale c0={n} c1={rows} l0={rows} l1=1 s1={n} \
vec=0x20 vs=2 zp=3 ; wait s1>=2 ; wait s2>=1
        halt"""
    data = (a.astype(np.int8), w.astype(np.int8), ibias.astype(np.int32), scale)
    places = zip((0x1000, 0x2000, 0x3000, 0x4000), data, strict=True)
    await bench.run(program(text, *places))
    want = np.clip(np.rint((a @ w + ibias) * scale.astype(np.float64)) + 3, -128, 127)
    got = np.frombuffer(bench.data.read(OUT, rows * n), np.int8).reshape(rows, n)
    assert (got == want).all(), f"{got} is not {want}"


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def bf16_matmul_adds_bias_and_clamps(dut, gap):
    bench = await ready(dut, gap, seed=3)
    rng = np.random.default_rng(3)
    rows, k, n = 5, DIM + 1, DIM
    (a, a_bits), (w, w_bits) = halves(rng, rows, k), halves(rng, k, n)
    bias = rng.integers(-20, 20, n).astype(np.float32)
    text = f"""
        load spad[0x0], dram[0x1000], copy16, c0={k} c1={rows} s1={2 * k} l0=2 l1=4 ; done s0
        load spad[0x80], dram[0x2000], copy16, c0={n} c1={k} s1={2 * n} l1=2 ; done s0
        load acc[0x20], dram[0x3000], copy32, c0={n} ; done s1
        matmul acc[0x0], spad[0x0], spad[0x80], bf16*bf16, r0={rows} as0=4 ak=2 ws=2 wk={2 * DIM} \
k={k} n={n} ; wait s0>=2 ; done s2
        store dram[{OUT}], acc[0x0], f32->f32, bias clamp c0={n} c1={rows} l1=1 s1={4 * n} \
vec=0x20 lo=f32(0) hi=f32(100) ; wait s1>=1 ; wait s2>=1
        halt"""
    await bench.run(program(text, (0x1000, a_bits), (0x2000, w_bits), (0x3000, bias)))
    got = np.frombuffer(bench.data.read(OUT, 4 * rows * n), np.float32).reshape(rows, n)
    want = np.clip(a @ w + bias, 0, 100)
    assert (got == want).all(), f"{got} is not {want}"


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def random_programs_agree_with_the_functional_engine(dut, gap):
    bench = await ready(dut, gap, seed=4)
    await bench.run(wipe())
    index = GAPS.index(gap)
    for seed in settings()["seeds"][index :: len(GAPS)]:
        bench.data.mem.clear()
        try:
            await bench.run(code := generate(seed, CONFIG).program)
            COVER.update(bins(code))
        except Exception as error:
            error.add_note(f"program seed {seed}")
            raise


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def scalar_loop_sums_words(dut, gap):
    """A loop that leaves the instruction buffer, over words of DRAM."""
    bench = await ready(dut, gap, seed=5)
    words = np.random.default_rng(5).integers(0, 1 << 32, 6, np.uint32)
    lines = "\n".join(["add r9, r9, 1"] * 30)
    text = f"""
        li r1, 0x1004
    again:
        ldw r2, r1, 0
        add r3, r3, r2
        stw r3, r1, {OUT - 0x1000}
        {lines}
        add r1, r1, 4
        blt r1, {0x1004 + 4 * len(words)}, again
        stw r9, r0, {OUT - 4}
        halt"""
    raw = np.concatenate([np.zeros(4, np.uint8), words.view(np.uint8)])
    await bench.run(program(text, (0x1000, raw)))
    got = np.frombuffer(bench.data.read(OUT + 4, 4 * len(words)), np.uint32)
    assert (got == np.cumsum(words, dtype=np.uint32)).all()
    assert bench.data.read_dword(OUT - 4) == 30 * len(words)


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def an_illegal_opcode_stops_the_chip_and_interrupts(dut, gap):
    """What came before completes, nothing behind starts; status bits are write-one-to-clear."""
    bench = await ready(dut, gap, seed=6)
    text = f"""
        load acc[0x0], fill, copy32, c0={DIM} value=0x1234 ; done s0
        store dram[{OUT}], acc[0x0], i32->i32, int_path c0={DIM} ; wait s0>=1
        li r1, 5
        .raw 0x3f
        stw r1, r0, {OUT}
        halt"""
    outcome = await bench.run(program(text))
    assert outcome.fault == (Fault.OPCODE, 3)
    assert bench.data.read(OUT, 4 * DIM) == np.full(DIM, 0x1234, np.int32).tobytes()
    assert dut.irq.value == 1
    await bench.write(STATUS, HALTED)  # not the bit that is set
    assert await bench.read(STATUS) == FAULTED
    assert dut.irq.value == 1
    await bench.write(STATUS, FAULTED)
    assert await bench.read(STATUS) == 0
    assert dut.irq.value == 0


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def a_program_runs_after_another_without_reset(dut, gap):
    """Registers and semaphores start from zero, also after a fault."""
    bench = await ready(dut, gap, seed=8)
    await bench.run(SMALL)
    registers = "\n".join(f"li r{i}, {i + 7}" for i in range(REGISTERS))
    await bench.run(program(f"{registers}\n post s0, 9\n jmp 77"))
    stores = "\n".join(f"stw r{i}, r{i}, {OUT + 4 * i}" for i in range(REGISTERS))
    await bench.run(program(f"{stores}\n halt", (OUT, np.full(REGISTERS, -1, np.int32))))
    assert not any(bench.data.read(OUT, 4 * REGISTERS)), "registers must start as zero"
    await bench.run(program("post s0, 9\n jmp 77"))
    again = dataclasses.replace(SMALL, data=((0x1000, WORDS[::-1].tobytes()),))
    outcome = await bench.run(again)
    assert bench.data.read(OUT, WORDS.nbytes) == WORDS[::-1].tobytes()
    assert outcome.fault is None
    assert await bench.read(FAULT) == 0


@cocotb.test()
@cocotb.parametrize(gap=GAPS)
async def bursts_end_at_4_kib(dut, gap):
    """Dense rows across the boundary: long bursts, cut where a page of the bus ends."""
    bench = await ready(dut, gap, seed=11)
    width, rows = 40 * DIM, 3
    source = np.random.default_rng(11).integers(0, 256, rows * width + 8, np.uint8)
    move = f"c0={width} c1={rows} s1={width} l0=1 l1=40"
    text = f"""
        load spad[0x0], dram[0x1fe1], copy8, {move} ; done s0
        store dram[{OUT + 0xFE3}], spad[0x0], i8->i8, {move} ; wait s0>=1
        halt"""
    await bench.run(program(text, (0x1FE0, source)))
    got = np.frombuffer(bench.data.read(OUT + 0xFE3, rows * width), np.uint8)
    assert (got == source[1:][: rows * width]).all()


@cocotb.test()
async def a_slow_memory_sees_many_bursts_at_once(dut):
    """The chip goes on asking while nothing is answered, within its limit; then all is right."""
    bench = await ready(dut)
    rows = 40
    source = np.random.default_rng(12).integers(0, 256, rows * 64, np.uint8)
    text = f"""
        load spad[0x0], dram[0x1000], copy8, c0={DIM} c1={rows} s1=64 l1=1 ; done s0
        store dram[{OUT}], spad[0x0], i8->i8, c0={DIM} c1={rows} l1=1 s1=64 ; wait s0>=1
        halt"""
    code = program(text, (0x1000, source))
    answers = bench.data.read_if.r_channel, bench.data.write_if.b_channel
    for channel in answers:
        channel.pause = True

    async def relent():
        for channel in answers:
            await ClockCycles(dut.clk, 600)
            channel.pause = False

    cocotb.start_soon(relent())
    await bench.run(code)
    for i in range(rows):
        assert bench.data.read(OUT + 64 * i, DIM) == source[64 * i :][:DIM].tobytes()
