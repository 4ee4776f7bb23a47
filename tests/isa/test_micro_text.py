"""Micro-operations as text: round trips, meaning, and every error with line and column."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.isa.assembler import AssemblyError, assemble
from tilewright.isa.disassembler import disassemble_program
from tilewright.isa.micro import LAYOUTS, OPERATIONS, MicroOp, encode_micro
from tilewright.isa.micro_rules import COUNTED, READS
from tilewright.isa.micro_text import format_kernel, format_micro, parse_micro
from tilewright.isa.text import Line

make = MicroOp.make


def parsed(text):
    line = Line("k.s", 1, text, lambda name: None)
    word = parse_micro(line)
    line.finish()
    return word


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(OPERATIONS)), st.data())
def test_every_word_has_a_text(name, data):
    fields = {
        k: data.draw(st.sampled_from([0, 1, f.high]) | st.integers(0, f.high))
        for k, (_, f) in LAYOUTS[name].items() if k != "op"
    }  # fmt: skip
    word = encode_micro(make(name, **fields))
    assert parsed(format_micro(word)) == word


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(OPERATIONS)), st.data())
def test_a_word_with_nothing_unused_is_no_number(name, data):
    used = [*READS[name], *(["n"] if name in COUNTED else [])]
    fields = {k: data.draw(st.integers(0, 31)) for k in used}
    if name != "nop":
        fields["dst"] = data.draw(st.integers(0, 31))
    if name == "const":
        fields["imm"] = data.draw(st.integers(0, 2**32 - 1))
    for slot, most, register in (("load", 3, "load_dst"), ("store", 2, "store_src")):
        fields[slot] = data.draw(st.integers(0, most))
        fields[register] = data.draw(st.integers(0, 31)) if fields[slot] else 0
    word = encode_micro(make(name, **fields))
    text = format_micro(word)
    assert text.startswith(name) and parsed(text) == word


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(min_size=8, max_size=8))
def test_junk_has_a_text(word):
    assert parsed(format_micro(word)) == word


GOLDEN = {
    "nop": make("nop"),
    "add_f32 r3, r1, u ; load x r5 ; store o r2": make(
        "add_f32", dst=3, a=1, b=32, load=1, load_dst=5, store=1, store_src=2
    ),
    "const r2, f32(1.5)": make("const", dst=2, imm=0x3FC00000),
    "const r2, f32(-0)": make("const", dst=2, imm=0x80000000),
    "const r31, 4095": make("const", dst=31, imm=4095),
    "const r0, 0xffffffff": make("const", imm=0xFFFFFFFF),
    "select r0, active, row, unit": make("select", a=39, b=35, c=36),
    "rotate r4, r31, 2 ; store p r0": make("rotate", dst=4, a=31, n=2, store=2),
    "mul_fx r4, lane, zero, 23": make("mul_fx", dst=4, a=34, b=37, n=23),
    "neg_f32 r9, one ; load z r0": make("neg_f32", dst=9, a=38, load=3),
}


@pytest.mark.parametrize("text", GOLDEN)
def test_golden(text):
    assert format_micro(encode_micro(GOLDEN[text])) == text
    assert parsed(text) == encode_micro(GOLDEN[text])


def test_what_text_does_not_say_becomes_a_number():
    for op in (make("mov", b=3), make("nop", a=1), make("nop", load_dst=1), make("mov", a=40),
               make("nop", store=3)):  # fmt: skip
        assert format_micro(encode_micro(op)).startswith("0x")


def test_the_assembler_puts_micro_kernels_into_data():
    program = assemble(
        ".const K = 3\n"
        ".data 0x40\n"
        "kernel: .micro nop ; load x r0\n"
        "  .micro const r1, K << 1\n"
        "end: .word end - kernel\n"
        "load acc[9], dram[kernel], copy32, c0=(end - kernel) / 4 l0=1\n"
        "vector acc[9], body=(end - kernel) / 8 x_on x=4\n"
    )
    words = [make("nop", load=1), make("const", dst=1, imm=6)]
    ((address, content),) = program.data
    assert address == 0x40
    assert content == b"".join(map(encode_micro, words)) + (16).to_bytes(4, "little")
    load, vector = program.instructions()
    assert (load["c0"], load["dram"], vector["body"], vector["kernel"]) == (4, 0x40, 2, 9)


def test_a_kernel_is_listed_by_sections():
    data = encode_micro(make("mov", a=32)) + encode_micro(make("nop", store=1))
    lengths = {"init": 1, "head": 0, "body": 1, "tail": 0}
    text = format_kernel(data, lengths)
    assert text == "    # init\n    .micro mov r0, u\n    # body\n    .micro nop ; store o r0\n"
    assert assemble(".data 0\n" + text).data == ((0, data),)


def test_a_program_s_listing_shows_the_micro_kernels_that_it_brings():
    text = (
        ".config dim=4,spad_kib=8,acc_kib=4,bus_bytes=4\n"
        ".dram 0x60\n"
        ".data 0x40\n"
        "    .bytes 1, 2, 3\n"
        "    # head\n"
        "    .micro mov r1, row\n"
        "    # body\n"
        "    .micro nop ; store o r1\n"
        "    .bytes 4\n"
        "    load acc[0x9], dram[0x43], copy32, c0=4\n"
        "    vector acc[0x9], head=1 body=1 o_on o=8\n"
        "    halt\n"
    )
    program = assemble(text)
    assert disassemble_program(program) == text
    moved = assemble(text.replace("dram[0x43]", "dram[0x51]"))  # not all of it is there
    assert ".micro" not in disassemble_program(moved)
    assert assemble(disassemble_program(moved)).data == moved.data


ERRORS = {
    "ad_f32 r1, r2": "1:8: 'ad_f32' is no micro-operation / did you mean 'add_f32'?",
    "add_f32 r1, r2": "1:22: here must be ',', not 'end of line'",
    "add_f32 r32, r2, r3": "1:16: a destination must be r0 to r31, not 'r32'",
    "mov r1, x": "1:16: a source must be r0 to r31 or u, v, lane, row, unit, zero, one, active, "
    "not 'x'",
    "rotate r1, r2, 32": "1:23: n must be in 0 to 31, not 32",
    "const r1, 1 << 32": "1:18: imm must be in -2147483648 to 4294967295, not 4294967296",
    "nop ; load o r1": "1:19: a load's stream must be x or y or z, not 'o'",
    "nop ; lood x r1": "1:14: a slot must be load or store, not 'lood' / did you mean 'load'?",
    "nop ; load x r1 ; load y r2": "1:26: load is given twice",
    "nop r1": "1:12: 'r1' is left over at the end of the line",
    "0x10000000000000000": "1:8: a word must be in 0 to 18446744073709551615, "
    "not 18446744073709551616",
}


@pytest.mark.parametrize("text", ERRORS)
def test_error(text):
    with pytest.raises(AssemblyError) as e:
        assemble(".data 0\n.micro " + text)
    error = e.value
    got = f"{error.line - 1}:{error.column}: {error.message}"
    assert got + (f" / {error.hint}" if error.hint else "") == ERRORS[text]


def test_micro_must_follow_data():
    with pytest.raises(AssemblyError, match=r"\.micro must follow \.data"):
        assemble(".micro nop")
