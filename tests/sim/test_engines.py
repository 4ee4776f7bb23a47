"""The three engines on programs that once made them differ; the fuzzer covers the rest."""

import pytest
from tilewright import sim
from tilewright.isa.assembler import assemble
from tilewright.isa.table import Fault

TINY = ".config dim=2,spad_kib=4,acc_kib=2\n.dram 0x100\n"


@pytest.mark.parametrize("name", ["ldw", "stw"])
def test_misaligned_word_is_a_field_fault_everywhere(name):
    text = "ldw r2, r1, 6" if name == "ldw" else "stw r2, r1, 6"
    program = assemble(f"{TINY}li r1, 16\nli r2, 7\n{text}\nhalt\n")
    results = [sim.run(program, engine=e, check=False) for e in sim.ENGINES]
    assert [(r.fault.code, r.fault.pc) for r in results] == [(Fault.FIELD, 2)] * 3
    assert sim.differences(*results[1:]) == []
