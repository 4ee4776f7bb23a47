"""The program file: comes back equal; anything damaged or foreign is one clear error."""

import dataclasses
import os

import numpy as np
import pytest
from safetensors.numpy import save_file
from tilewright.isa import program as module
from tilewright.isa.config import PRESETS
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.program import Origin, Port, Program, ProgramError

PROGRAM = Program(
    PRESETS["tw4"],
    encode(Instr.make("li", rd=1, b=7)) + encode(Instr.make("halt")),
    ((0x100, b"abc"), (0x200, bytes(range(256)))),
    (Port("x[0]", (2, 3), "float32", 0x400),),
    (Port("y", (), "int8", 0x500),),
    (Origin("k0", "add", "f.py:3"), Origin()),
    0x1000,
    {"seed": 3, "scale": 0.1},
)


def test_file_comes_back_equal(tmp_path):
    PROGRAM.save(tmp_path / "p.tw")
    back = Program.load(tmp_path / "p.tw")
    assert back == PROGRAM
    assert [i.spec.name for i in back.instructions()] == ["li", "halt"]
    assert [p.name for p in tmp_path.iterdir()] == ["p.tw"]


def test_equal_programs_are_equal_files():
    assert PROGRAM.to_bytes() == dataclasses.replace(PROGRAM).to_bytes()


def test_every_flipped_bit_is_refused():
    content = PROGRAM.to_bytes()
    for bit in range(0, 8 * len(content), 3):
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProgramError, match=r"^p.tw: (is damaged|is no Tilewright|has format)"):
            Program.from_bytes(bytes(broken), "p.tw")


def test_every_truncation_is_refused():
    content = PROGRAM.to_bytes()
    for size in range(0, len(content), 5):
        with pytest.raises(ProgramError, match=r"^p.tw: (is damaged|is no Tilewright)"):
            Program.from_bytes(content[:size], "p.tw")
    with pytest.raises(ProgramError, match=r"is damaged.*compile the program again"):
        Program.from_bytes(content[:-1])


def test_foreign_files(tmp_path):
    (tmp_path / "text").write_text("hello, this is a text and not a program")
    save_file({"w": np.zeros(3, np.float32)}, tmp_path / "weights")
    for name in ("text", "weights"):
        with pytest.raises(ProgramError, match=f"{name}: is no Tilewright program; compile"):
            Program.load(tmp_path / name)
    with pytest.raises(ProgramError, match="none: cannot be read"):
        Program.load(tmp_path / "none")


def test_a_newer_format_says_update(monkeypatch):
    monkeypatch.setattr(module, "VERSION", 2)
    content = PROGRAM.to_bytes()
    monkeypatch.undo()
    with pytest.raises(ProgramError, match=r"has format version 2, .* up to 1; update Tilewright"):
        Program.from_bytes(content)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.tw"
    PROGRAM.save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        dataclasses.replace(PROGRAM, dram_size=1 << 20).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.tw"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"code": b"123"}, "code must be a multiple of 64 bytes, not 3"),
        ({"source_map": (Origin(),)}, "source_map must be empty or have 2 entries, not 1"),
        ({"dram_size": -1}, "dram_size must be in 0 to 4294967296, not -1"),
        ({"data": ((0, b"abc"), (2, b"d"))}, "data at 0x2 must follow 0x3"),
        ({"data": (((1 << 32) - 1, b"ab"),)}, "end in 32 bits"),
    ],
)
def test_parts_must_fit(change, message):
    with pytest.raises(ProgramError, match=message):
        dataclasses.replace(PROGRAM, **change)
