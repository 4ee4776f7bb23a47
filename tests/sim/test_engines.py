"""The three engines on programs that once made them differ; the fuzzer covers the rest."""

from dataclasses import replace

import pytest
from tilewright import sim
from tilewright.isa.assembler import assemble
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.table import Conv, Fault

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
