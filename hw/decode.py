"""The instruction table in gates: which word is legal, and which resolved fields keep the rules.

Everything is generated from `tilewright.isa`: opcodes, bit positions, register flags, rules. The
functions work on a word (or the resolved instruction register) as on a dictionary of fields.
"""

from functools import reduce
from operator import and_, or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.isa.config import ARRAYS, INSTR_BYTES, REGISTERS
from tilewright.isa.encoding import rules
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, Fault, Spec

#: Bits of the longest instruction: the width of the instruction register.
IR_BITS = max(spec.bits for spec in INSTRUCTIONS.values())
#: Register-capable fields of the instruction that has most.
FLAGS = max(len(spec.reg_bit) for spec in INSTRUCTIONS.values())
OPCODES = {name: spec.opcode for name, spec in INSTRUCTIONS.items()}


def fields(spec: Spec, word):
    """The fields of `word` as values of the right signedness."""
    out = {"opcode": Const(spec.opcode, OPCODE_BITS)}
    for name, (at, field) in spec.layout.items():
        raw = word[at : at + field.bits]
        out[name] = raw.as_signed() if field.signed else raw
    return out


def is_in(value, allowed):
    """Whether `value` is one of some integers."""
    members = sorted(int(a) for a in set(allowed))
    if members == list(range(1 << len(value))):
        return Const(1, 1)
    return reduce(or_, (value == a for a in members))


def holds(when, values):
    """Whether every (field, allowed values) pair of `when` holds."""
    return reduce(and_, (is_in(values[name], allowed) for name, allowed in when), Const(1, 1))


def breach(rule, values):
    """Whether the fields break a rule; says in gates what `Rule.holds` says."""
    x = values[rule.field]
    bad = {
        "nonzero": lambda: x == 0,
        "zero": lambda: x != 0,
        "even": lambda: x[0],
        "in": lambda: ~is_in(x, rule.values),
    }[rule.kind]()
    return holds(rule.when, values) & bad


def register_flags(spec: Spec, word):
    """The register flags in field order (they lie side by side)."""
    low = min(spec.reg_bit.values(), default=0)
    return word[low : low + len(spec.reg_bit)] if spec.reg_bit else Const(0, 1)


class Decoder(wiring.Component):
    """Looks at a fetched word.

    **Members**

    word : In(512)
        As fetched.
    illegal : Out(1)
        Fault OPCODE: unknown opcode, bits above the fields, or a register number above 15.
    flags : Out(FLAGS)
        Which register-capable fields hold a register, in field order.

    **Timing** : combinational.
    """

    word: In(8 * INSTR_BYTES)
    illegal: Out(1)
    flags: Out(FLAGS)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.illegal.eq(1)
        ends = sorted({spec.bits for spec in INSTRUCTIONS.values()}, reverse=True)
        above, set_above = {}, Const(0, 1)  # whether any bit from an end upwards is set
        top = len(self.word)
        for end in ends:
            above[end] = Signal(name=f"above_{end}")
            m.d.comb += above[end].eq(set_above | self.word[end:top].any())
            set_above, top = above[end], end
        with m.Switch(self.word[:OPCODE_BITS]):
            for spec in INSTRUCTIONS.values():
                with m.Case(spec.opcode):
                    wrong = [above[spec.bits]]
                    for name, flag in spec.reg_bit.items():
                        at, field = spec.layout[name]
                        number = self.word[at : at + field.bits]
                        wrong.append(self.word[flag] & (number >= REGISTERS))
                    m.d.comb += self.illegal.eq(reduce(or_, wrong))
                    m.d.comb += self.flags.eq(register_flags(spec, self.word))
        return m


class Rules(wiring.Component):
    """Looks at an instruction whose register operands are resolved, with the rules of `array`.

    **Members**

    ir : In(IR_BITS)
        The word with each register operand replaced by the register's value, flags kept.
    field, unimplemented : Out(1)
        A rule with this fault is broken. FIELD comes first.

    **Timing** : combinational.
    """

    ir: In(IR_BITS)
    field: Out(1)
    unimplemented: Out(1)

    def __init__(self, array=ARRAYS[0]):
        self._array = array
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        outputs = {Fault.FIELD: self.field, Fault.UNIMPLEMENTED: self.unimplemented}
        with m.Switch(self.ir[:OPCODE_BITS]):
            for spec in INSTRUCTIONS.values():
                values = fields(spec, self.ir)
                known = rules(spec, self._array)
                with m.Case(spec.opcode):
                    for fault, output in outputs.items():
                        found = [breach(r, values) for r in known if r.fault == fault]
                        if found:
                            m.d.comb += output.eq(Cat(found).any())
                    unknown = {r.fault for r in known} - outputs.keys()
                    if unknown:
                        raise ValueError(f"{spec.name}: a rule must not raise {unknown!r}")
        return m


class Resolver(wiring.Component):
    """Replaces one register operand, the first whose flag is pending.

    **Members**

    ir : In(IR_BITS)
        The instruction register.
    pending : In(FLAGS)
        Flags that are not yet resolved.
    register : Out(4)
        The register to read.
    value : In(32)
        What it holds.
    resolved : Out(IR_BITS)
        `ir` with the field replaced.
    left : Out(FLAGS)
        `pending` without the field.
    misfit : Out(1)
        The value does not fit the field: fault FIELD.

    **Timing** : combinational.
    """

    ir: In(IR_BITS)
    pending: In(FLAGS)
    register: Out(4)
    value: In(32)
    resolved: Out(IR_BITS)
    left: Out(FLAGS)
    misfit: Out(1)

    def elaborate(self, platform):
        m = Module()
        value = self.value
        m.d.comb += [self.resolved.eq(self.ir), self.left.eq(self.pending & (self.pending - 1))]
        with m.Switch(self.ir[:OPCODE_BITS]):
            for spec in INSTRUCTIONS.values():
                if not spec.reg_bit:
                    continue
                with m.Case(spec.opcode):
                    for i, name in reversed(list(enumerate(spec.reg_bit))):  # the last write wins
                        at, field = spec.layout[name]
                        with m.If(self.pending[i]):
                            m.d.comb += self.register.eq(self.ir[at : at + 4])
        with m.Switch(self.ir[:OPCODE_BITS]):
            for spec in INSTRUCTIONS.values():
                if not spec.reg_bit:
                    continue
                with m.Case(spec.opcode):
                    for i, name in enumerate(spec.reg_bit):
                        at, field = spec.layout[name]
                        lower = self.pending[:i].any() if i else Const(0, 1)
                        with m.If(self.pending[i] & ~lower):
                            m.d.comb += self.resolved[at : at + field.bits].eq(value)
                            m.d.comb += self.misfit.eq(_misfit(field, value))
        return m


def _misfit(field, value):
    """Whether a 32-bit register value does not fit a field."""
    if field.bits == len(value):
        return Const(0, 1)
    if field.signed:
        top = value[field.bits - 1 :]
        return Mux(value[-1], ~top.all(), top.any())
    return value[field.bits :].any()
