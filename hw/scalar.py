"""The sequencer's scalar side: its registers, fields and arithmetic, added to its module."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import memory
from tilewright.hw.decode import OPCODES
from tilewright.isa.config import REGISTERS
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, Unit

#: Instructions that write a register.
VALUES = ("li", "add", "sub", "mul", "shl", "shr", "sar", "and", "min", "max", "ldw")


def register_file(m: Module, clear: Value) -> tuple:
    """Return a write port, and a function that reads the register of a number in the same cycle.

    Registers are 0 at the start of a program: a memory, and what has been written since `clear`.
    """
    m.submodules.registers = store = memory.Memory(shape=32, depth=REGISTERS, init=[])
    write = store.write_port()
    written = Signal(REGISTERS)
    with m.If(clear):
        m.d.sync += written.eq(0)
    with m.Elif(write.en):
        m.d.sync += written.bit_select(write.addr, 1).eq(1)

    def read(number: Value, name: str) -> Signal:
        port = store.read_port(domain="comb")
        value = Signal(32, name=name)
        m.d.comb += [
            port.addr.eq(number),
            value.eq(Mux(written.bit_select(number, 1), port.data, 0)),
        ]
        return value

    return write, read


def scalar_field(m: Module, word: Value, name: str, field: str) -> Signal:
    """Return a field of a scalar instruction, wherever the word's opcode has it.

    The signal is called after `name`, the word's, and the field.
    """
    specs = [s for s in INSTRUCTIONS.values() if s.unit == Unit.SEQ and field in s.layout]
    value = Signal(specs[0].layout[field][1].bits, name=f"{name}_{field}")
    with m.Switch(word[:OPCODE_BITS]):
        for at in sorted({s.layout[field][0] for s in specs}):
            with m.Case(*(s.opcode for s in specs if s.layout[field][0] == at)):
                m.d.comb += value.eq(word[at : at + len(value)])
    return value


def results(m: Module, op: Value, a: Value, b: Value, address: Value, loaded: Value) -> tuple:
    """Return what is written to a register (32 bits), and whether a jump is taken.

    `a`, `b` are the operands, `address` is their sum, `loaded` the word that `ldw` has read.
    """
    result = Signal(32)
    taken = Signal()
    below = Signal()
    m.d.comb += below.eq(a.as_signed() < b.as_signed())
    values = {
        "li": b,
        "add": address,
        "sub": a - b,
        "mul": a * b,
        "shl": a << b[:5],
        "shr": a >> b[:5],
        "sar": a.as_signed() >> b[:5],
        "and": a & b,
        "min": Mux(below, a, b),
        "max": Mux(below, b, a),
        "ldw": loaded,
    }
    conditions = {"beq": a == b, "bne": a != b, "blt": below, "bge": ~below, "jmp": 1}
    with m.Switch(op):
        for name in VALUES:
            with m.Case(OPCODES[name]):
                m.d.comb += result.eq(values[name])
        for name, condition in conditions.items():
            with m.Case(OPCODES[name]):
                m.d.comb += taken.eq(condition)
    return result, taken
