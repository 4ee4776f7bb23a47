"""The instruction table: the only description of an instruction.

Encoder, decoder, assembler, disassembler, the RTL's decoder, the simulators and `docs/isa.md`
derive from it. `forms` says what a description is made of, `units` and `instructions` are the data;
this module is the one door to all of them.
"""

from tilewright.isa.forms import (
    CONV_BYTES,
    OPCODE_BITS,
    RESERVED_OPCODES,
    SYNC,
    TYPE_BYTES,
    Conv,
    Dest,
    Fault,
    Field,
    Mem,
    Oob,
    Rule,
    Spec,
    TableError,
    Type,
    Unit,
    When,
    index,
    place,
)
from tilewright.isa.instructions import BY_OPCODE, INSTRUCTIONS

__all__ = [
    "BY_OPCODE",
    "CONV_BYTES",
    "INSTRUCTIONS",
    "OPCODE_BITS",
    "RESERVED_OPCODES",
    "SYNC",
    "TYPE_BYTES",
    "Conv",
    "Dest",
    "Fault",
    "Field",
    "Mem",
    "Oob",
    "Rule",
    "Spec",
    "TableError",
    "Type",
    "Unit",
    "When",
    "index",
    "place",
]
