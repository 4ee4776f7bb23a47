"""What a program's instructions are called in waves and traces: assembly, kernel, user's line."""

from __future__ import annotations

from pathlib import Path

from tilewright.isa.config import INSTR_BYTES
from tilewright.isa.disassembler import format_instruction, labels_of
from tilewright.isa.encoding import IllegalInstruction, Instr, decode
from tilewright.isa.program import Origin, Program


def words(program: Program) -> list[bytes]:
    """The program's instruction words."""
    code = program.code
    return [code[i : i + INSTR_BYTES] for i in range(0, len(code), INSTR_BYTES)]


def instructions(program: Program) -> list[Instr | None]:
    """By pc, the decoded instruction; None where the word is none."""
    out: list[Instr | None] = []
    for word in words(program):
        try:
            out.append(decode(word))
        except IllegalInstruction:
            out.append(None)
    return out


def assembly_lines(program: Program) -> list[str]:
    """By pc, one line of assembly; ``.raw`` and a number where the word is no instruction."""
    labels = labels_of(program.code)
    return [
        f".raw {int.from_bytes(word, 'little'):#x}" if instr is None
        else format_instruction(instr, labels)
        for word, instr in zip(words(program), instructions(program), strict=True)
    ]  # fmt: skip


def source_line(origin: Origin) -> str:
    """Kernel and user's line, without the line's folder: ``matmul_0 mlp.py:12 in layer``."""
    place, _, function = origin.line.partition(" in ")
    line = Path(place).name + (f" in {function}" if function else "")
    return " ".join(part for part in (origin.kernel, line) if part)


def source_lines(program: Program) -> list[str]:
    """By pc, kernel and user's line; empty without a source map."""
    return [source_line(o) for o in program.source_map or (Origin(),) * len(program)]
