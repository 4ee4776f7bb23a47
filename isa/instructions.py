"""All instructions, by mnemonic and by opcode."""

from __future__ import annotations

from tilewright.isa.forms import Field, Spec, Unit, index
from tilewright.isa.units import (
    LOAD,
    LOAD_RULES,
    LOAD_TEXT,
    MATMUL,
    MATMUL_RULES,
    MATMUL_TEXT,
    STORE,
    STORE_RULES,
    STORE_TEXT,
    VECTOR,
    VECTOR_RULES,
    VECTOR_TEXT,
)

_REG = 4
_RD = Field("rd", _REG, "destination register")
_RA = Field("ra", _REG, "first source register")
_B = Field("b", 32, "second operand: an integer or a register", signed=True, reg=True)
_TARGET = Field("target", 26, "instruction index to go on with")
_SEM = Field("sem", 5, "semaphore")
_N = Field("n", 8, "count", default=1)


def _alu(name: str, opcode: int, what: str) -> Spec:
    return Spec(name, opcode, Unit.SEQ, f"rd = {what}, 32-bit wrapping", (_RD, _RA, _B))


def _branch(name: str, opcode: int, what: str) -> Spec:
    return Spec(name, opcode, Unit.SEQ, f"go to target if {what}", (_RA, _B, _TARGET))


_SPECS = (
    Spec("halt", 1, Unit.SEQ, "finish when all units are quiet"),
    Spec("fence", 2, Unit.SEQ, "wait until all units are quiet"),
    Spec("li", 3, Unit.SEQ, "rd = b", (_RD, _B)),
    _alu("add", 4, "ra + b"),
    _alu("sub", 5, "ra - b"),
    _alu("mul", 6, "ra * b"),
    _alu("shl", 7, "ra << (b & 31)"),
    _alu("shr", 8, "ra >> (b & 31), zeros in"),
    _alu("sar", 9, "ra >> (b & 31), sign in"),
    _alu("and", 10, "ra & b"),
    _alu("min", 11, "signed minimum of ra and b"),
    _alu("max", 12, "signed maximum of ra and b"),
    Spec(
        "ldw",
        13,
        Unit.SEQ,
        "rd = aligned word of DRAM at ra + b, after LOAD is quiet",
        (_RD, _RA, _B),
    ),
    Spec(
        "stw",
        14,
        Unit.SEQ,
        "aligned word of DRAM at ra + b = rd, after STORE is quiet",
        (_RD, _RA, _B),
    ),
    _branch("beq", 15, "ra == b"),
    _branch("bne", 16, "ra != b"),
    _branch("blt", 17, "ra < b, signed"),
    _branch("bge", 18, "ra >= b, signed"),
    Spec("jmp", 19, Unit.SEQ, "go to target", (_TARGET,)),
    Spec("post", 20, Unit.SEQ, "add n to a semaphore", (_SEM, _N)),
    Spec("wait", 21, Unit.SEQ, "wait until a semaphore is at least n, then take n", (_SEM, _N)),
    Spec("load", 32, Unit.LOAD, "DRAM to a local memory", LOAD, LOAD_RULES, text=LOAD_TEXT),
    Spec(
        "matmul",
        33,
        Unit.MATMUL,
        "macro tile on the systolic array",
        MATMUL,
        MATMUL_RULES,
        text=MATMUL_TEXT,
    ),
    Spec(
        "vector",
        34,
        Unit.VECTOR,
        "run a micro-kernel over rows",
        VECTOR,
        VECTOR_RULES,
        text=VECTOR_TEXT,
    ),
    Spec(
        "store",
        36,
        Unit.STORE,
        "local memory to DRAM or scratchpad",
        STORE,
        STORE_RULES,
        text=STORE_TEXT,
    ),
)

INSTRUCTIONS = index(_SPECS)
BY_OPCODE = {s.opcode: s for s in INSTRUCTIONS.values()}
