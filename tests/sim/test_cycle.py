"""The cycle engine: hand-computed schedules, faults, deadlocks, speed."""

import time

import numpy as np
import pytest
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.table import Conv, Dest, Fault, Mem, Type
from tilewright.sim import cycle, functional
from tilewright.sim.memory import Memory
from tilewright.sim.timing import simulate
from tilewright.sim.timing_ops import constants

TW4 = parse_config("tw4")
K = constants(TW4)
LOADED = K.FETCH_AR + K.read_latency + K.FETCH_WRITE  # request of a line to its first beat


def program(*lines):
    """Code of (mnemonic, fields) pairs; a mnemonic alone has none."""
    pairs = [(line, {}) if isinstance(line, str) else line for line in lines]
    return b"".join(encode(Instr.make(name, **fields)) for name, fields in pairs)


def run(*lines, memory=None):
    return cycle.run_timed(TW4, program(*lines), memory or Memory())


FILL = ("load", dict(fill=1, c0=4, c1=1, c2=1, c3=1, conv=Conv.COPY8, mem=Mem.SPAD, pack=1))


def fill(**fields):
    return ("load", {**FILL[1], **fields})


def test_halt_alone():
    result, _ = run("halt")
    # instruction 0 is beats 0 to 3; FETCH reads it, DECODE, EXEC
    end = LOADED + 3 + 2
    assert result.trace["end"][0] == end
    assert result.cycles == end + 1
    assert result.counters["load_empty"] == result.cycles


def test_scalar_instructions_take_three_cycles_after_fetch():
    result, _ = run(*[("li", dict(rd=i, b=i)) for i in range(7)], "halt")
    starts = result.trace["start"]
    # an instruction is 4 beats: fetch is the slower one
    assert np.diff(starts).tolist() == [4] * 7


def test_a_loop_in_one_line_is_not_fetched_again():
    body = [("add", dict(rd=1, ra=1, b=1)), ("blt", dict(ra=1, b=5, target=1))]
    result, _ = run(("li", dict(rd=1, b=0)), *body, "halt")
    assert np.diff(result.trace["start"])[2:9].tolist() == [3] * 7


def _loop(body, trips):
    """Cycles from one execution of a loop's branch to the next; the loop begins at line 0."""
    nops = [("li", dict(rd=2, b=0))] * (body - 2)
    back = ("blt", dict(ra=1, b=trips, target=0))
    result, _ = run(("add", dict(rd=1, ra=1, b=1)), *nops, back, *[nops[0]] * 30, "halt")
    trace = result.trace
    return np.diff(trace["start"][trace["pc"] == body - 1]).tolist()


@pytest.mark.parametrize("body", [9, 16, 17, 31, 32])
def test_a_loop_that_fits_the_buffer_is_fetched_at_most_once_more(body):
    first, *others = _loop(body, 6)
    assert others == [3 * body] * 4  # FETCH, DECODE, EXEC
    # prefetch may have taken the slot of line 0, and be busy for a burst: 4 beats an instruction
    assert first <= 16 + LOADED + 3 + 2 + 4 * (body - 1)


def test_a_loop_beyond_the_buffer_is_fetched_each_time():
    cycles = set(_loop(33, 5))
    least = 1 + LOADED + 3 + 2 + 4 * 32
    assert least <= min(cycles) and max(cycles) <= least + 15  # a burst in progress ends


def test_an_inner_loop_leaves_the_outer_one_in_the_buffer():
    nop = ("li", dict(rd=2, b=0))
    inner = [("li", dict(rd=3, b=0)), nop, ("add", dict(rd=3, ra=3, b=1)),
             ("blt", dict(ra=3, b=3, target=10))]  # fmt: skip
    back = ("blt", dict(ra=1, b=6, target=0))
    result, _ = run(("add", dict(rd=1, ra=1, b=1)), *[nop] * 8, *inner[:1], *inner[1:],
                    *[nop] * 6, back, *[nop] * 40, "halt")  # fmt: skip
    trace = result.trace
    assert np.diff(trace["start"][trace["pc"] == 19]).tolist()[1:] == [3 * (20 + 2 * 3)] * 4


def test_unit_instruction_from_push_to_done():
    result, _ = run(fill(done_en=1, done_sem=0), ("wait", dict(sem=0, n=1)), "halt")
    push = LOADED + 3 + 2 + 2  # steps of the local operand alone
    start, end = result.trace["start"][0], result.trace["end"][0]
    assert start == push + 3  # queue, head, ok
    assert end == start + 1 + K.LOAD_FILL + K.LOAD_WRITE
    assert result.trace["end"][1] == max(end + 1, push + 4)


def test_results_equal_the_functional_engine():
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, 64, np.uint8)
    lines = [
        ("load", dict(conv=Conv.COPY8, pack=1, c0=16, c1=4, c2=1, c3=1, s1=16, l0=4, l1=1,
                      done_en=1, done_sem=0)),
        ("store", dict(mem=Mem.SPAD, type=Type.U8, out=Type.U8, dest=Dest.DRAM, dst=4096, c0=16,
                       c1=4, c2=1, l0=4, l1=1, s1=16, wait0=0, wait0_n=1)),
        "halt",
    ]  # fmt: skip
    a, b = Memory(), Memory()
    for m in (a, b):
        m.write(0, data)
    got = cycle.run(TW4, program(*lines), a)
    want = functional.run(TW4, program(*lines), b)
    assert np.array_equal(got.memory.read(4096, 64), data)
    assert got.memory.compare(want.memory) is None
    assert want.counters.items() <= got.counters.items()
    for unit in ("load", "matmul", "vector", "store"):
        causes = ("issuing", "semaphore", "port", "memory", "empty")
        assert sum(got.counters[f"{unit}_{c}"] for c in causes) == got.cycles


def test_a_fault_waits_for_what_was_dispatched():
    bad = fill(loc=TW4.spad_granules - 1, c0=5, l0=1)
    result, _ = run(fill(c0=40, c1=50, l1=0), bad)
    assert (result.fault.code, result.fault.pc) == (Fault.RANGE, 1)
    assert result.trace["end"][0] < result.cycles
    # the faulting instruction's last EXEC cycle is the first quiet one
    assert result.trace["end"][1] == result.trace["end"][0] + 1 == result.cycles - 1


def test_leaving_the_program_is_a_fault_in_fetch():
    result, _ = run(("jmp", dict(target=5)))
    assert (result.fault.code, result.fault.pc) == (Fault.PC, 5)
    assert result.cycles == LOADED + 3 + 2 + 2  # EXEC of the jump, one FETCH cycle, inclusive


def test_a_deadlock_names_each_stuck_instruction():
    result, timing = run(
        fill(wait0=3, wait0_n=2), ("post", dict(sem=3, n=1)), ("wait", dict(sem=7, n=4)), "halt"
    )
    assert result.fault.code == Fault.DEADLOCK
    assert timing.stuck == [
        "LOAD: instruction 0 (#0) waits for 2 of semaphore 3 (its count is 1)",
        "sequencer: instruction 2 (#2) waits for 4 of semaphore 7 (its count is 0)",
    ]
    assert timing.stuck[0] in result.fault.text


def test_time_without_data_is_the_same_time():
    code = program(fill(c0=400), fill(c0=300, loc=128), "fence", "halt")
    assert cycle.time_program(TW4, code).cycles == cycle.run(TW4, code, Memory()).cycles


def gemm_512():
    """int8 512 x 512 x 512 on tw16 as macro tiles: 64 MATMULs of 64 passes with 128 rows."""
    lines = [("post", dict(sem=1, n=4))]
    load = dict(conv=Conv.COPY8, pack=1, c0=64, c1=512, c2=1, c3=1, s1=512, l0=512, l1=1)
    load |= dict(wait0=1, wait0_n=1, done_en=1, done_sem=2)
    matmul = dict(a_type=Type.I8, w_type=Type.I8, a=8192, as0=1, r0=128, r1=1, ak=128, ws=1, wk=16)
    matmul |= dict(wn=512, k=512, n=64, cn=128, wait0=2, wait0_n=1, rd_en=1, rd_sem=1)
    for i in range(64):
        buffer = i % 4 * 2048
        lines.append(("load", load | dict(loc=buffer)))
        lines.append(("matmul", matmul | dict(w=buffer, c=i % 2 * 512)))
    return program(*lines, "halt")


def test_timing_of_gemm_512_takes_milliseconds():
    tw16 = parse_config("tw16")
    machine = functional.Machine(tw16, Memory(), data=False)
    executed = machine.run(gemm_512()).executed
    best = 1.0
    for _ in range(5):
        begin = time.perf_counter()
        timing = simulate(tw16, executed)
        best = min(best, time.perf_counter() - begin)
    assert timing.counters["matmul_issuing"] >= 64 * 128 * 128
    assert best < 0.05, f"{best * 1e3:.1f} ms"  # 12 ms on an idle machine


@pytest.mark.parametrize("latency", [1, 60, 200])
def test_memory_latency_is_a_parameter(latency):
    code = program("halt")
    timing = cycle.time_program(TW4, code, read_latency=latency)
    assert timing.cycles == LOADED - K.read_latency + latency + 3 + 2 + 1
