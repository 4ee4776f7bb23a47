"""Registers, rules and the table itself: what is refused, in which order, in which words."""

import re

import pytest
from tilewright.isa.encoding import IllegalInstruction, Instr, Reg, check_rules, resolve, rules
from tilewright.isa.table import (
    INSTRUCTIONS,
    Conv,
    Dest,
    Fault,
    Field,
    Mem,
    Spec,
    TableError,
    Type,
    Unit,
    index,
)


def breach(name, **fields):
    instr = Instr.make(name, **fields)
    with pytest.raises(IllegalInstruction) as e:
        check_rules(instr.spec, resolve(instr, [0] * 16))
    return e.value.fault, str(e.value)


def test_registers_stand_for_fields():
    regs = [0] * 16
    regs[3], regs[4] = 0xFFFFFFF0, 0x12345678
    load = Instr.make("load", s1=Reg(3), dram=Reg(4), l0=Reg(3), c0=5)
    values = resolve(load, regs)
    assert (values["s1"], values["dram"], values["l0"], values["c0"]) == (-16, 0x12345678, -16, 5)
    assert resolve(Instr.make("add", rd=3, ra=4, b=Reg(3)), regs) == {"rd": 3, "ra": 4, "b": -16}


@pytest.mark.parametrize("field, value", [("c0", 65536), ("c0", -1), ("l0", 1 << 17), ("loc", -1)])
def test_a_register_value_must_fit(field, value):
    load = Instr.make("load", **{field: Reg(7)})
    with pytest.raises(IllegalInstruction, match=rf"load.{field} must be in .* \(r7\)") as e:
        resolve(load, [value & 0xFFFFFFFF] * 16)
    assert e.value.fault == Fault.FIELD


@pytest.mark.parametrize(
    "name, fields, fault, message",
    [
        ("load", {"conv": 9}, Fault.FIELD, "load.conv must be one of copy8, copy16, .*, not 9"),
        ("load", {"pack": 0}, Fault.FIELD, "load.pack must be one of 1, 2, 3, not 0"),
        ("load", {"c2": 0}, Fault.FIELD, "load.c2 must be nonzero, not 0"),
        ("load", {"mem": Mem.ACC}, Fault.FIELD,
         r"load.conv must be one of copy32, i8_i32, u8_i32 when mem=acc, not copy8 \(the acc"),
        ("load", {"conv": Conv.COPY16, "l1": 3}, Fault.FIELD,
         "load.l1 must be even when mem=spad and conv=copy16, not 3"),
        ("load", {"gather": 1}, Fault.FIELD, "load.bound must be nonzero when gather=1"),
        ("load", {"gather": 1, "bound": 1, "index": 3}, Fault.FIELD, "load.index must be even"),
        ("load", {"gather": 1, "bound": 1, "fill": 1}, Fault.FIELD, "load.fill must be 0"),
        ("load", {"xpose": 1, "gather": 1, "bound": 1}, Fault.FIELD, "load.gather must be 0"),
        ("load", {"xpose": 1, "fill": 1}, Fault.FIELD, "load.fill must be 0 when xpose=1"),
        ("load", {"pack": 2, "c1": 2, "skip1": 1}, Fault.FIELD, "skip1 must be 0 when xpose=0"),
        ("load", {"xpose": 1, "c1": 2, "drop1": 1}, Fault.FIELD, "drop1 must be 0 when pack=1"),
        ("load", {"xpose": 1, "pack": 2, "c2": 2, "skip2": 1}, Fault.FIELD, "load.skip2 must be 0"),
        ("load", {"xpose": 1, "pack": 2, "c2": 2, "drop2": 1}, Fault.FIELD, "load.drop2 must be 0"),
        ("load", {"xpose": 1, "pack": 0}, Fault.FIELD, "load.pack must be one of 1, 2, 3, not 0"),
        ("load", {"xpose": 1, "conv": Conv.COPY32}, Fault.FIELD, "1 and 2 byte elements"),
        ("vector", {"x_type": 7}, Fault.FIELD, "vector.x_type must be one of i8, .*, not 7"),
        ("vector", {}, Fault.FIELD, "vector.body must be nonzero, not 0"),
        ("vector", {"body": 1, "rows": 0}, Fault.FIELD, "vector.rows must be nonzero, not 0"),
        ("vector", {"body": 1, "y_on": 1, "y_mem": Mem.ACC}, Fault.FIELD,
         r"vector.y_type must be one of i32, f32 when y_on=1 and y_mem=acc, not i8"),
        ("vector", {"body": 1, "p_on": 1, "p_type": Type.F32}, Fault.FIELD,
         r"vector.p_type must be one of i8, u8, bf16 .*\(streams of 32 bits lie in the accum"),
        ("vector", {"body": 1, "o_on": 1, "o_type": Type.BF16, "o_unit": 3}, Fault.FIELD,
         "vector.o_unit must be even when o_on=1 and o_type=bf16, not 3"),
        ("matmul", {"w_type": Type.BF16}, Fault.FIELD,
         "matmul.w_type must be one of i8, u8 when a_type=i8, not bf16"),
        ("matmul", {"a_type": Type.BF16, "w_type": Type.BF16, "ws": 1}, Fault.FIELD,
         "matmul.ws must be even when a_type=bf16, not 1"),
        ("store", {"mem": Mem.ACC, "type": Type.I8}, Fault.FIELD,
         "store.type must be one of i32, f32 when mem=acc, not i8"),
        ("store", {"dest": Dest.SPAD, "out": Type.F32}, Fault.FIELD,
         r"store.out must be one of i8, u8, bf16 when dest=spad, not f32"),
        ("store", {"zp": 1, "out": Type.F32}, Fault.FIELD, "store.zp must be 0 when out=f32"),
        ("store", {"scatter": 1, "index": 3}, Fault.FIELD,
         r"store.index must be even when scatter=1, not 3"),
        ("store", {"scatter": 1, "bound": 0}, Fault.FIELD,
         "store.bound must be nonzero when scatter=1, not 0"),
        ("store", {"scatter": 1, "dest": Dest.SPAD}, Fault.FIELD, "scatter writes to DRAM"),
        ("store", {"pool": 1, "pool_h": 1, "pool_w": 2, "pool_sh": 1}, Fault.FIELD,
         "store.pool_sw must be nonzero when pool=1, not 0"),
        ("store", {"xpose": 1, "scatter": 1, "bound": 1}, Fault.FIELD,
         "store.scatter must be 0 when xpose=1, not 1"),
    ],
)  # fmt: skip
def test_first_breach(name, fields, fault, message):
    got, text = breach(name, **fields)
    assert got == fault
    assert re.search(message, text), text


def test_an_int8_array_has_no_bf16_matmul():
    bf16 = dict(Instr.make("matmul", a_type=Type.BF16, w_type=Type.BF16).values)
    spec = INSTRUCTIONS["matmul"]
    check_rules(spec, bf16, "bf16")
    check_rules(spec, bf16 | {"a_type": Type.U8, "w_type": Type.I8}, "int8")
    with pytest.raises(IllegalInstruction, match="a bf16 MATMUL needs a chip with array=bf16") as e:
        check_rules(spec, bf16, "int8")
    assert e.value.fault == Fault.UNIMPLEMENTED
    with pytest.raises(IllegalInstruction, match=r"matmul\.ws must be even") as e:
        check_rules(spec, bf16 | {"ws": 1}, "int8")
    assert e.value.fault == Fault.FIELD


@pytest.mark.parametrize("name", [s.name for s in INSTRUCTIONS.values() if s.unit == Unit.SEQ])
def test_scalars_have_no_rules(name):
    assert rules(INSTRUCTIONS[name]) == ()


def test_every_enumerated_field_is_checked():
    """A value that is no member never passes."""
    for spec in INSTRUCTIONS.values():
        for field in spec.fields:
            if field.enum is not None and len(field.enum) < 1 << field.bits:
                fault, text = breach(spec.name, **{field.name: field.high})
                assert fault == Fault.FIELD and field.name in text


def test_table_refuses_a_field_name_twice():
    with pytest.raises(TableError, match="x: a field name is used twice"):
        index((Spec("x", 1, Unit.SEQ, "", (Field("a", 4, ""), Field("a", 4, ""))),))


def test_table_refuses_one_opcode_or_mnemonic_twice():
    with pytest.raises(TableError, match="y: opcode 1 or mnemonic is already taken"):
        index((Spec("x", 1, Unit.SEQ, ""), Spec("y", 1, Unit.SEQ, "")))
    with pytest.raises(TableError, match="x: opcode 2 or mnemonic is already taken"):
        index((Spec("x", 1, Unit.SEQ, ""), Spec("x", 2, Unit.SEQ, "")))


@pytest.mark.parametrize("opcode", [48, 55])
def test_table_refuses_a_reserved_opcode(opcode):
    with pytest.raises(TableError, match="already taken"):
        index((Spec("x", opcode, Unit.SEQ, ""),))


@pytest.mark.parametrize("opcode", [0, 64])
def test_table_refuses_an_opcode_out_of_range(opcode):
    with pytest.raises(TableError, match="out of range"):
        index((Spec("x", opcode, Unit.SEQ, ""),))


def test_table_refuses_a_word_that_is_too_long():
    with pytest.raises(TableError, match="x: 513 bits do not fit 512"):
        index((Spec("x", 1, Unit.SEQ, "", (Field("a", 507, ""),)),))


def test_table_refuses_a_field_too_narrow_for_a_register():
    with pytest.raises(TableError, match=r"x\.a: too narrow for a register number"):
        index((Spec("x", 1, Unit.SEQ, "", (Field("a", 3, "", reg=True),)),))


def test_fields_do_not_overlap():
    """Each bit of a word belongs to one field, flag or the opcode."""
    for spec in INSTRUCTIONS.values():
        used = list(range(6)) + list(spec.reg_bit.values())
        for at, field in spec.layout.values():
            used += range(at, at + field.bits)
        assert sorted(used) == list(range(spec.bits))
