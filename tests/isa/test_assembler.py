"""Assembly text: what it means, and every error with line, column and hint."""

import pickle
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.isa.assembler import AssemblyError, assemble, assemble_file
from tilewright.isa.disassembler import disassemble, disassemble_program
from tilewright.isa.encoding import Instr, Reg, decode
from tilewright.isa.program import Program, ProgramError
from tilewright.isa.table import Conv, Dest, Fault, Mem, Type


def one(text):
    (instr,) = assemble(text).instructions()
    return instr


def test_load_line():
    got = one(
        "load spad[0x40], dram[r3], copy8, c0=64 c1=16 s1=64 l0=1 l1=4 ; wait s3>=1 ; done s4"
    )
    want = Instr.make(
        "load", mem=Mem.SPAD, loc=64, dram=Reg(3), conv=Conv.COPY8, c0=64, c1=16, s1=64, l0=1,
        l1=4, wait0=3, wait0_n=1, done_en=1, done_sem=4,
    )  # fmt: skip
    assert got == want


def test_store_line():
    got = one(
        "store spad[8], acc[r1], f32->bf16, scale clamp lo=f32(-1.5) hi=0x3f800000 "
        "; wait s1>=2; wait s2>=3 ; read s0"
    )
    want = Instr.make(
        "store", dest=Dest.SPAD, dst=8, mem=Mem.ACC, loc=Reg(1), type=Type.F32, out=Type.BF16,
        scale=1, clamp=1, lo=0xBFC00000, hi=0x3F800000, wait0=1, wait0_n=2, wait1=2, wait1_n=3,
        rd_en=1,
    )  # fmt: skip
    assert got == want


def test_matmul_line():
    got = one("matmul acc[4], spad[2], spad[6], i8*u8, acc, r0=3 k=9 n=2 as0=-1")
    want = Instr.make(
        "matmul", c=4, a=2, w=6, a_type=Type.I8, w_type=Type.U8, acc=1, r0=3, k=9, n=2, as0=-1
    )
    assert got == want


def test_scalar_lines():
    code = assemble("li r1, -2\n add r2, r1, r15\n blt r2, 5, 7\n post s3\n wait s4, 2\n halt")
    assert code.instructions() == [
        Instr.make("li", rd=1, b=-2),
        Instr.make("add", rd=2, ra=1, b=Reg(15)),
        Instr.make("blt", ra=2, b=5, target=7),
        Instr.make("post", sem=3, n=1),
        Instr.make("wait", sem=4, n=2),
        Instr.make("halt"),
    ]


@pytest.mark.parametrize(
    "text, value",
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2 - 1", 2),
        ("-7 / 2", -4),
        ("1 << 4 | 3 & 2", 18),
        ("0x10 >> 2 + 1", 2),
        ("-(3)", -3),
        ("0b101 + 1_000", 1005),
        ("SIZE * 2", 84),
        ("8 - 4 - 2", 2),
        ("f32(1) & 0x7fffffff", 0x3F800000),
    ],
)
def test_expressions(text, value):
    assert one(f".const SIZE = 42\nli r1, {text}").values["b"] == value


def test_labels_before_and_after_in_code_and_data():
    program = assemble(
        """
        start: li r1, table        # a data label is a DRAM address
        li r2, table + 4 * LAST
        jmp end
        .data 0x100
            .bytes 1, 2, 3, -1
        table:
            .word 1, 0xffffffff
            .f32 1.5, -inf
        .data 0x200
            .bytes 9
        .const LAST = 3
        end: bne r1, r2, start
        """
    )
    values = [dict(i.values) for i in program.instructions()]
    assert [values[0]["b"], values[1]["b"]] == [0x104, 0x110]
    assert [values[2]["target"], values[3]["target"]] == [3, 0]
    first = bytes([1, 2, 3, 255]) + struct.pack("<IIff", 1, 0xFFFFFFFF, 1.5, -float("inf"))
    assert program.data == ((0x100, first), (0x200, b"\x09"))
    assert program.dram_size == 0x201
    assert [o.line for o in program.source_map] == [f"<text>:{n}" for n in (2, 3, 4, 13)]


def test_names_may_be_used_before_they_have_a_value():
    """Sizes and quotients of later labels; a guess in the first reading is no error."""
    program = assemble(
        """
        li r1, 64 / (end - start)
        li r2, SIZE
        .const SIZE = end - start
        .const ORIGIN = BASE + SIZE
        .const BASE = 0x1000
        .data ORIGIN
        start: .bytes 1, end - start, 3
        end: .bytes 4
        """
    )
    assert [i.values["b"] for i in program.instructions()] == [21, 3]
    assert program.data == ((0x1003, bytes([1, 3, 3, 4])),)


def test_listing_golden():
    """One line of each kind, as it prints."""
    text = (
        "    li r3, 4096\n"
        "L1:\n"
        "    load spad[0x40], dram[r3], copy8, c0=64 c1=r2 s1=-64 l1=4 ; wait s3>=1 ; done s4\n"
        "    load acc[0x0], i8_i32, fill value=7\n"
        "    matmul acc[0x0], spad[0x0], spad[0x40], bf16*bf16, acc r0=16 k=64 ; wait s4>=1\n"
        "    store dram[0x3000], acc[0x0], i32->i8, scale clamp l0=1 lo=f32(-1) hi=f32(0.1)\n"
        "    vector acc[0x20], init=1 body=3 rows=9 cols=r2 x_on x_mem=acc x_type=f32 x=3 x_row=-1 "
        "o_on o_type=bf16 o_row=2 u=0x3f800000 v=r4 ; read s1\n"
        "    beq r1, 0, L1\n"
        "    halt\n"
    )
    assert disassemble(assemble(text).code) == text


ERRORS = {
    "lod r1": "1:1: 'lod' is no instruction / did you mean 'load'?",
    "nop\n": "1:1: 'nop' is no instruction / a line is: [label:] instruction operands",
    "halt now": "1:6: 'now' is left over at the end of the line",
    "\n\n  li r16, 3": "3:6: a register must be r0 to r15, not r16",
    "li 3, 3": "1:4: rd must be a register, not '3'",
    "li r1 3": "1:7: here must be ',', not '3'",
    "li r1, 1 << 31": "1:8: b must be in -2147483648 to 2147483647, not 2147483648 "
    "/ b: second operand: an integer or a register",
    "li r1, 3 $ 4": "1:10: character '$' has no meaning here",
    "li r1, (3": "1:10: here must be ')', not 'end of line'",
    "li r1, 1 / (2 - 2)": "1:10: division by zero",
    "li r1, 1 << -1": "1:10: a shift must be by 0 to 63, not -1",
    "li r1, 1.5": "1:8: here must be an expression, not '1.5' / floats are written f32(1.5)",
    ".const WIDTH = 4\nli r1, WIDHT": "2:8: 'WIDHT' is not defined / did you mean 'WIDTH'?",
    "beq r1, r2, nowhere": "1:13: 'nowhere' is not defined",
    "wait s32, 1": "1:6: a semaphore must be s0 to s31, not 32",
    "load spad[0], acc[0], copy8": "1:15: load.dram must be dram[...], not acc[...] "
    "/ load spad|acc[...], dram[...], conv",
    "load spad[0], copy8": "1:20: load lacks dram[dram] / load spad|acc[...], dram[...], conv",
    "load spad[0], dram[0]": "1:22: load lacks its conv / load spad|acc[...], dram[...], conv",
    "load spad[0], dram[0], copi8": "1:24: load has no operand 'copi8' / did you mean 'copy8'?",
    "load spad[0], dram[0], copy8, fil": "1:31: load has no operand 'fil' / did you mean 'fill'?",
    "load spad[0], dram[0], copy8, c0": "1:31: c0 must have a value: c0=...",
    "load spad[0], dram[0], copy8, c0=1 c0=2": "1:36: c0 is given twice",
    "load spad[0], dram[0], copy8,": "1:30: an operand must follow ','",
    "load spad[1 << 18], dram[0], copy8": "1:11: loc must be in 0 to 262143, not 262144 "
    "/ loc: first local row (granules; rows of the accumulator)",
    "load spad[0], dram[0], copy8, oob=fil": "1:35: 'fil' is not defined",
    "load spad[0], dram[0], copy8 wait s1>=1": "1:30: load has no operand 'wait' "
    "/ did you mean 'wait1'?",
    "load spad[0], dram[0], copy8 ; wait s1": "1:39: here must be '>=', not 'end of line'",
    "load spad[0], dram[0], copy8 ; dome s1": "1:32: a clause must be wait, read or done, "
    "not 'dome' / did you mean 'done'?",
    "load spad[0], dram[0], copy8 ; wait s1>=1 ; wait s2>=1 ; wait s3>=1": "1:58: an instruction "
    "has at most two waits",
    "load spad[0], dram[0], copy8 ; wait s1>=256": "1:41: wait0_n must be in 0 to 255, not 256 "
    "/ wait0_n: count that the first wait needs and takes; 0: no wait",
    "matmul acc[0], spad[0], spad[0], i8*i9": "1:37: w_type must be one of i8, u8, bf16, f32, "
    "i32, not 'i9' / did you mean 'i8'?",
    "matmul acc[0], spad[0], spad[0], spad[0]": "1:34: matmul has 3 memory operands",
    "matmul acc[0], spad[0], spad[0], i8*i8, a_type=i8": "1:41: a_type is given twice",
    ".word 3": "1:7: .word must follow .data / .data 0x1000 says where data lie",
    ".data 0\n.bytes 256": "2:8: value must fit 8 bits, not 256",
    ".data 0\n.f32 abc": "2:6: here must be a number, not 'abc'",
    ".dat 0": "1:1: '.dat' is no directive / did you mean '.data'?",
    ".config tw17": "1:9: configuration must be one of tw4, tw8, tw16 or "
    "dim=,spad_kib=,acc_kib=[,bus_bytes=][,array=], not 'tw17' / did you mean 'tw16'?",
    ".input x, float16[2], 0": "1:11: dtype must be one of float32, bfloat16, int8, uint8, int32, "
    "uint32, bool, not 'float16' / did you mean 'bfloat16'?",
    "x: halt\nx: halt": "2:1: 'x' is defined twice",
    ".const r3 = 4": "1:8: 'r3' cannot be a name: it is reserved",
    ".data 2 * later\n.word 1\nlater: .word 1": "3:1: 'later' has no value: it depends on itself",
    ".const A = NONE": "1:12: 'NONE' is not defined",
    ".data NONE": "1:7: 'NONE' is not defined",
    ".const A = B + 1\n.const B = A": "1:8: 'A' has no value: it depends on itself",
    "li r1, 1 / (end - start)\nstart:\nend: halt": "1:10: division by zero",
}


@pytest.mark.parametrize("text", ERRORS)
def test_error(text):
    with pytest.raises(AssemblyError) as e:
        assemble(text, "f.s")
    error = e.value
    got = f"{error.line}:{error.column}: {error.message}"
    assert got + (f" / {error.hint}" if error.hint else "") == ERRORS[text]
    assert str(error).startswith(f"f.s:{error.line}:{error.column}: ")
    assert str(error).splitlines()[2].index("^") == 4 + error.column - 1


def test_error_golden():
    with pytest.raises(AssemblyError) as e:
        assemble("halt\n  lod r1 # x", "net.s")
    assert str(e.value) == (
        "net.s:2:3: 'lod' is no instruction\n"
        "      lod r1 # x\n"
        "      ^\n"
        "  hint: did you mean 'load'?"
    )


def test_errors_cross_process_borders():
    errors = []
    for action in (lambda: assemble("lod"), lambda: decode(bytes(64))):
        with pytest.raises(ValueError) as e:
            action()
        errors.append(e.value)
    for error in errors:
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back)) == (type(error), str(error))
    assert back.fault == Fault.OPCODE


def test_deep_nesting_is_one_error():
    with pytest.raises(AssemblyError, match="nested too deeply"):
        assemble("li r1, " + "(" * 5000 + "1")


def test_files(tmp_path):
    with pytest.raises(ProgramError, match=r"none\.s: cannot be read"):
        assemble_file(tmp_path / "none.s")
    (tmp_path / "junk.s").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProgramError, match="is no UTF-8 text"):
        assemble_file(tmp_path / "junk.s")
    (tmp_path / "good.s").write_text("halt # é\n", encoding="utf-8")
    assert len(assemble_file(tmp_path / "good.s")) == 1


VOCABULARY = """
load store matmul vector li add beq jmp post wait halt .data .word .bytes .f32 .const .raw
.micro nop mov lane x
.config .input .dram x: y x = , ; : [ ] ( ) + - * / << >> & | -> >= @ 0 1 0x10 99999999999 1.5 1e999
inf f32 r1 r99 s1 s99 spad acc dram copy8 i8 bf16 fill c0 c1 loc done read tw4 "a" "\\u0041" # $
"""
WORDS = VOCABULARY.split()


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=12), max_size=4))
def test_any_text_is_assembled_or_refused(lines):
    text = "\n".join(map(" ".join, lines))
    try:
        program = assemble(text)
    except AssemblyError as e:
        assert 1 <= e.line <= max(1, len(lines)) and e.column >= 1
    else:
        assert disassemble(assemble(disassemble(program.code)).code) == disassemble(program.code)


INT8_CHIP = ".config dim=4,spad_kib=8,acc_kib=4,array=int8"
BF16_MATMUL = "matmul acc[0x0], spad[0x0], spad[0x40], bf16*bf16, acc r0=4 as0=2 ws=2 k=4 n=4"


@pytest.mark.parametrize("lines", [(INT8_CHIP, BF16_MATMUL), (BF16_MATMUL, INT8_CHIP)])
def test_an_int8_chip_has_no_bf16_matmul(lines):
    with pytest.raises(AssemblyError, match="a bf16 MATMUL needs a chip with array=bf16") as e:
        assemble("\n".join(lines), "f.s")
    assert (e.value.line, e.value.column) == (lines.index(BF16_MATMUL) + 1, 1)
    assert assemble(f"{INT8_CHIP}\n" + BF16_MATMUL.replace("bf16", "u8")).config.array == "int8"


def test_a_word_that_the_chip_lacks_is_listed_as_raw():
    code = assemble(BF16_MATMUL).code
    program = Program(assemble(INT8_CHIP).config, code)
    text = disassemble_program(program)
    assert f".raw {int.from_bytes(code, 'little'):#x}  # {BF16_MATMUL}" in text
    assert assemble(text).code == code and assemble(text).config == program.config
