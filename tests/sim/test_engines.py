"""The three engines on programs that once made them differ; the fuzzer covers the rest."""

from dataclasses import replace

import numpy as np
import pytest
from tilewright import sim
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.program import Program
from tilewright.isa.table import Conv, Fault, Type
from tilewright.sim import checker, cycle
from tilewright.sim.rtl import RtlChip, fault_of

TINY = ".config dim=2,spad_kib=4,acc_kib=2\n.dram 0x100\n"


@pytest.mark.parametrize("name", ["ldw", "stw"])
def test_misaligned_word_is_a_field_fault_everywhere(name):
    text = "ldw r2, r1, 6" if name == "ldw" else "stw r2, r1, 6"
    program = assemble(f"{TINY}li r1, 16\nli r2, 7\n{text}\nhalt\n")
    results = [sim.run(program, engine=e, check=False) for e in sim.ENGINES]
    assert [(r.fault.code, r.fault.pc) for r in results] == [(Fault.FIELD, 2)] * 3
    assert sim.differences(*results[1:]) == []


_OUTSIDE = [
    Instr.make("load", dram=0xFE, c0=3, conv=Conv.COPY8),
    Instr.make("load", dram=0, c0=1, c1=2, s1=-1, conv=Conv.COPY8),
    Instr.make("store", dst=0x100, c0=1),
    Instr.make("ldw", rd=2, ra=1, b=0xF4),
    Instr.make("stw", rd=2, ra=1, b=0xF4),
]


@pytest.mark.parametrize("outside", _OUTSIDE, ids=lambda instr: instr.spec.name)
def test_dram_outside_the_window_is_a_fault_everywhere(outside):
    """What comes before is done, what comes behind is not."""
    small = assemble(f"{TINY}li r1, 12\nstw r1, r1, 4\n")
    last = assemble(f"{TINY}stw r1, r1, 8\nhalt\n")
    program = replace(small, code=small.code + encode(outside) + last.code, source_map=())
    results = [sim.run(program, engine=e, check=False) for e in sim.ENGINES]
    assert [(r.fault.code, r.fault.pc) for r in results] == [(Fault.WINDOW, 2)] * 3
    assert sim.differences(*results[:2]) == sim.differences(*results[1:]) == []
    assert results[0].memory.read(16, 8).tolist() == [12, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_vector_saturates_bytes_at_both_ends_everywhere(kind):
    """Eight words in four rows; found by a mutant."""
    values = np.array([-1000, -129, -128, -1, 0, 127, 255, 256], np.int32)
    name = "i8" if kind == np.int8 else "u8"
    program = assemble(f"""{TINY}
        .data 0
            .micro nop ; load x r0
            .micro nop ; store o r0
        .data 0x40
            .word {", ".join(map(str, values))}
        load acc[0], dram[0], copy32, c0=4 l0=1
        load acc[8], dram[0x40], copy32, c0=8 l0=1 ; done s6
        vector acc[0], body=2 rows=4 cols=2 x_on x_mem=acc x_type=i32 x=8 x_row=1 \
            o_on o_type={name} o_row=1 ; wait s6>=1 ; done s8
        store dram[0x80], spad[0], {name}->{name}, int_path c0=8 l0=1 ; wait s8>=1
        halt
    """)
    limits = np.iinfo(kind)
    for engine in sim.ENGINES:
        result = sim.run(program, engine=engine)
        found = result.memory.read(0x80, 8).view(kind)
        assert found.tolist() == np.clip(values, limits.min, limits.max).tolist(), engine


def test_single_rows_take_their_own_weights_everywhere():
    """Two products of one row, with other weights; found by a mutant."""
    program = assemble(f"""{TINY}
        .data 0
            .bytes 3, 5, 1, 2, 3, 4, 10, 20, 30, 40
        load spad[0], dram[0], copy8, c0=2 l0=1
        load spad[0x200], dram[2], copy8, c0=2 c1=4 s1=2 l0=1 l1=1 ; done s0
        matmul acc[0], spad[0], spad[0x200], i8*i8, ws=1 k=2 n=2 ; wait s0>=1
        matmul acc[1], spad[0], spad[0x202], i8*i8, ws=1 k=2 n=2 ; done s3
        store dram[0x80], acc[0], i32->i32, int_path c0=2 c1=2 l0=1 l1=1 s1=8 ; wait s3>=1
        halt
    """)
    for engine in sim.ENGINES:
        found = sim.run(program, engine=engine).memory.read(0x80, 16).view(np.int32)
        assert found.tolist() == [3 * 1 + 5 * 3, 3 * 2 + 5 * 4, 180, 260], engine


def _blocked(n=1, **fields):
    """A fill that waits for semaphore 3."""
    return Instr.make("load", fill=1, c0=1, conv=Conv.COPY8, wait0=3, wait0_n=n, **fields)


_POST = Instr.make("post", sem=3, n=1)
_HALT = Instr.make("halt")
_FREE = Instr.make("load", fill=1, c0=40, conv=Conv.COPY8, done_en=1, done_sem=5)
_DEADLOCKS = {  # program, pc
    "sequencer": ([Instr.make("wait", sem=1, n=1)], 0),
    "too few": ([_blocked(2), _POST, Instr.make("wait", sem=7, n=4)], 0),
    "behind": ([_FREE, _POST, _blocked(), _blocked(), _HALT], 3),
    "signalled": ([_FREE, Instr.make("wait", sem=5, n=2)], 1),
    "two units": (
        [Instr.make("store", c0=1, wait0=5, wait0_n=2), _FREE, _blocked(), Instr.make("fence")], 0,
    ),
    "full queue": ([_blocked()] * 20, 0),
    "word": ([_blocked(), Instr.make("ldw", rd=0, ra=0, b=0)], 0),
    "refused": ([_blocked(), Instr.make("ldw", rd=0, ra=0, b=1)], 0),
    "end of program": ([_blocked()], 0),
}  # fmt: skip


@pytest.mark.parametrize("name", _DEADLOCKS)
def test_deadlock_is_a_fault_in_the_same_cycle(name):
    instrs, pc = _DEADLOCKS[name]
    config = assemble(f"{TINY}halt\n").config
    program = Program(config, b"".join(map(encode, instrs)), dram_size=0x100)
    results = [sim.run(program, engine=e, check=False) for e in ("cycle", "rtl")]
    assert [(r.fault.code, r.fault.pc) for r in results] == [(Fault.DEADLOCK, pc)] * 2
    assert sim.differences(*results) == []


def test_the_chip_runs_the_next_program_after_a_deadlock():
    config = assemble(f"{TINY}halt\n").config
    first = [_blocked(done_en=1, done_sem=3), *[_FREE] * 3, Instr.make("wait", sem=9, n=1)]
    text = "li r1, 9\nstw r1, r0, 16\nwait s5, 1\nhalt\n"
    second = encode(_FREE) + assemble(f"{TINY}{text}").code
    want = cycle.run(config, second, sim.Memory())
    with RtlChip(config) as chip:
        chip.write(0x10000, b"".join(map(encode, first)))
        chip.write(0x20000, second)
        chip.start(0x10000, len(first))
        chip.finish(100_000)
        assert fault_of(chip) == (Fault.DEADLOCK, 0)
        chip.start(0x20000, len(second) // 64)
        chip.finish(100_000)
        assert fault_of(chip) is None
        assert chip.counters() == want.counters
        assert chip.read(16, 1)[0] == 9


def test_bf16_on_an_int8_array_is_unimplemented_everywhere(tmp_path):
    """What comes before is done, what comes behind is not; the same program is legal on tw4."""
    chip = parse_config("dim=4,spad_kib=8,acc_kib=4,array=int8")
    before = assemble(".dram 0x100\nli r1, 12\nstw r1, r1, 4\n", config=chip)
    lacking = encode(Instr.make("matmul", a_type=Type.BF16, w_type=Type.BF16))
    behind = assemble("stw r1, r1, 8\nhalt\n")
    program = replace(before, code=before.code + lacking + behind.code, source_map=())
    program.save(tmp_path / "p.tw")
    loaded = Program.load(tmp_path / "p.tw")
    assert loaded.config == chip
    results = [sim.run(loaded, engine=e, check=False) for e in sim.ENGINES]
    assert [(r.fault.code, r.fault.pc) for r in results] == [(Fault.UNIMPLEMENTED, 2)] * 3
    assert sim.differences(*results[:2]) == sim.differences(*results[1:]) == []
    assert results[0].memory.read(16, 8).tolist() == [12, 0, 0, 0, 0, 0, 0, 0]
    report = checker.check(loaded, sim.load_memory(loaded))
    assert report.fault.code == Fault.UNIMPLEMENTED
    assert "a bf16 MATMUL needs a chip with array=bf16" in report.fault.text
    plain = replace(loaded, config=parse_config("tw4"))
    assert sim.run(plain, engine="cycle", check=False).fault is None
