"""Encode, decode, assemble, disassemble: every way round gives the same bytes."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.isa.assembler import assemble
from tilewright.isa.disassembler import disassemble, disassemble_program
from tilewright.isa.encoding import IllegalInstruction, Instr, Reg, decode, encode
from tilewright.isa.table import INSTRUCTIONS, Fault, Mem

FAST = settings(max_examples=40, deadline=None, derandomize=True)


def field_values(field):
    edges = st.sampled_from([field.low, field.high, field.default, 0, 1])
    return edges | st.integers(field.low, field.high)


@st.composite
def instructions(draw, name):
    spec = INSTRUCTIONS[name]
    chosen = {}
    for field in spec.all_fields:
        if draw(st.booleans()):
            as_register = field.name in spec.reg_bit and draw(st.booleans())
            chosen[field.name] = (
                Reg(draw(st.integers(0, 15))) if as_register else draw(field_values(field))
            )
    return Instr.make(name, **chosen)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_decode_inverts_encode(name):
    @FAST
    @given(instructions(name))
    def check(instr):
        word = encode(instr)
        assert len(word) == 64
        assert decode(word) == instr and decode(word).regs == instr.regs
        assert pickle.loads(pickle.dumps(instr)) == instr

    check()


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_text_gives_the_same_bytes_back(name):
    @FAST
    @given(st.lists(instructions(name), min_size=1, max_size=3))
    def check(items):
        code = b"".join(map(encode, items))
        text = disassemble(code)
        assert assemble(text).code == code
        assert disassemble(assemble(text).code) == text

    check()


def test_golden_words():
    """By hand from the layout rules: opcode, flags, fields in order."""
    li = 3 | 0 << 6 | 1 << 7 | 0xFFFFFFFF << 11
    assert encode(Instr.make("li", rd=1, b=-1)) == li.to_bytes(64, "little")
    add = 4 | 1 << 6 | 2 << 7 | 3 << 11 | 4 << 15
    assert encode(Instr.make("add", rd=2, ra=3, b=Reg(4))) == add.to_bytes(64, "little")
    # sync: wait0 6, wait0_n 11, wait1 19, wait1_n 24, rd 32, 33, done 38, 39; flags from 44
    matmul = encode(Instr.make("matmul", wait0=3, wait0_n=1, done_en=1, done_sem=4, a=Reg(5)))
    low = 33 | 3 << 6 | 1 << 11 | 1 << 38 | 4 << 39 | 1 << 44
    assert int.from_bytes(matmul, "little") & ((1 << 58) - 1) == low


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.binary(min_size=64, max_size=64), st.sampled_from([0, *range(64)]), st.integers(1, 512))
def test_junk_is_decoded_or_refused(data, opcode, bits):
    """Whatever decodes encodes to the same bytes; everything else is fault OPCODE."""
    word = int.from_bytes(data, "little") & ((1 << bits) - 1)
    junk = (word & ~63 | opcode).to_bytes(64, "little")
    try:
        instr = decode(junk)
    except IllegalInstruction as e:
        assert e.fault == Fault.OPCODE
    else:
        assert encode(instr) == junk
    assert assemble(disassemble(junk)).code == junk


@pytest.mark.parametrize("spec", INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_decode_refuses_reserved_bits_and_large_registers(spec):
    word = int.from_bytes(encode(Instr.make(spec.name)), "little")
    with pytest.raises(IllegalInstruction, match="bits above its fields"):
        decode((word | 1 << spec.bits).to_bytes(64, "little"))
    for name, flag in spec.reg_bit.items():
        at = spec.layout[name][0]
        cleared = word & ~(((1 << spec.layout[name][1].bits) - 1) << at)
        with pytest.raises(IllegalInstruction, match=f"{name} must be a register .* not r16"):
            decode((cleared | 1 << flag | 16 << at).to_bytes(64, "little"))


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("lod", {}, "instruction must be one of .*, not 'lod'"),
        ("load", {"c9": 1}, "load has the fields .*, not 'c9'"),
        ("load", {"c0": 65536}, "load.c0 must be in 0 to 65535, not 65536"),
        ("load", {"l0": -131073}, "load.l0 must be in -131072 to 131071, not -131073"),
        ("load", {"dram": Reg(16)}, "load.dram must be a register r0 to r15, not r16"),
        ("add", {"rd": Reg(16)}, "add.rd must be in 0 to 15, not 16"),
    ],
)
def test_make_refuses(name, fields, message):
    with pytest.raises(ValueError, match=message):
        Instr.make(name, **fields)


def test_make_refuses_a_register_in_a_plain_field():
    with pytest.raises(ValueError, match=r"load\.conv must be an integer, not a register"):
        Instr.make("load", conv=Reg(1))


def test_defaults_are_one_for_counts_and_pack():
    load = Instr.make("load", mem=Mem.ACC)
    ones = {n for n, v in load.values.items() if v == 1}
    assert ones == {"mem", "c0", "c1", "c2", "c3", "pack"}


def test_whole_program_as_text_comes_back():
    source = """
    .config tw4
    .dram 0x8000
    .input "w[0]", float32[2, 3], 0x100
    .output y, int8[], 0x200
    .data 0x1000
        .bytes 1, 2, 3
    again:
        bne r1, r2, again
        jmp end
    end:
    """
    program = assemble(source)
    back = assemble(disassemble_program(program))
    assert (back.code, back.data, back.inputs, back.outputs, back.dram_size) == (
        program.code, program.data, program.inputs, program.outputs, program.dram_size
    )  # fmt: skip
    assert [i.values["target"] for i in back.instructions()] == [0, 2]
