"""Micro-operations as text: one word is ``operation destination, sources ; load ... ; store ...``.

    mul_f32 r3, r1, u ; load x r5 ; store o r2
    const r2, f32(1.5)          rotate r4, r3, 2          nop ; store o r4

Sources are r0 to r31 or u, v, lane, row, unit, zero, one, active; `rotate`, `broadcast` and
`mul_fx` end with their number. A word that this does not describe bit by bit is written as its
number.
"""

from __future__ import annotations

import numpy as np
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.micro import (
    OPERATIONS,
    REGISTERS,
    SOURCES,
    WORD_BYTES,
    MicroOp,
    decode_micro,
    encode_micro,
)
from tilewright.isa.micro_rules import COUNTED, READS
from tilewright.isa.text import Line, Token, float_bits, near
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS

_NAMES = {number: name for name, number in SOURCES.items()}
#: Slot -> its streams, and the field that holds its register.
_SLOTS = {"load": (LOAD_STREAMS, "load_dst"), "store": (STORE_STREAMS, "store_src")}
_SHORT = 9  # characters of a float that is shown as one


def _constant(bits: int) -> str:
    """A constant: a small number, a float with few digits, else hexadecimal."""
    if bits < 1 << 12:
        return str(bits)
    number = float(np.array(bits, np.uint32).view(np.float32))
    text = f"{number:g}"
    exact = np.isfinite(number) and len(text) <= _SHORT and float_bits(float(text)) == bits
    return f"f32({text})" if exact else f"{bits:#x}"


def _written(op: MicroOp) -> str | None:
    """The word in text, or None if a source has no name."""
    v, operands = op.values, []
    if op.name != "nop":
        operands.append(f"r{v['dst']}")
    if op.name == "const":
        operands.append(_constant(v["imm"]))
    for f in READS[op.name]:
        if v[f] >= REGISTERS and v[f] not in _NAMES:
            return None
        operands.append(_NAMES.get(v[f], f"r{v[f]}"))
    if op.name in COUNTED:
        operands.append(str(v["n"]))
    parts = [f"{op.name} {', '.join(operands)}".rstrip()]
    for slot, (streams, register) in _SLOTS.items():
        if v[slot] > len(streams):
            return None
        if v[slot]:
            parts.append(f"{slot} {streams[v[slot] - 1]} r{v[register]}")
    return " ; ".join(parts)


def format_micro(word: bytes) -> str:
    """One word of 8 bytes as text, which `parse_micro` reads back."""
    number = f"{int.from_bytes(word, 'little'):#x}"
    try:
        op = decode_micro(word)
    except IllegalInstruction:
        return number
    text = _written(op)
    if text is None:
        return number
    same = parse_micro(Line("", 1, text, lambda name: None)) == word
    return text if same else number


def format_kernel(data: bytes, lengths: dict[str, int] | None = None) -> str:
    """A micro-kernel, a line for each word; with `lengths` its sections are named."""
    starts: dict[int, str] = {}
    at = 0
    for section in SECTIONS if lengths else ():
        if lengths and lengths[section]:
            starts[at] = section
            at += lengths[section]
    lines = []
    for i in range(0, len(data), WORD_BYTES):
        name = starts.get(i // WORD_BYTES)
        lines += [f"    # {name}"] if name else []
        lines.append(f"    .micro {format_micro(data[i : i + WORD_BYTES])}")
    return "".join(line + "\n" for line in lines)


def _register(line: Line, what: str) -> int:
    """``r0`` to ``r31``."""
    token = line.name(what)
    text = token.text
    if text[0] != "r" or not text[1:].isdecimal() or int(text[1:]) >= REGISTERS:
        raise line.error(f"{what} must be r0 to r{REGISTERS - 1}, not '{text}'", token)
    return int(text[1:])


def _source(line: Line) -> int:
    token = line.peek
    if token.text in SOURCES:
        line.take()
        return SOURCES[token.text]
    if token.kind == "name" and token.text[0] == "r" and token.text[1:].isdecimal():
        return _register(line, "a source")
    known = ", ".join(SOURCES)
    raise line.error(f"a source must be r0 to r{REGISTERS - 1} or {known}, not '{token.text}'")


def _fit(line: Line, name: str, low: int, high: int) -> int:
    """An expression from `low` to `high`."""
    token = line.peek
    value = line.expression()
    if not low <= value <= high:
        return line.refuse(f"{name} must be in {low} to {high}, not {value}", token)
    return value


def _operands(line: Line, name: str) -> dict[str, int]:
    """The ALU slot behind its mnemonic."""
    fields: dict[str, int] = {}
    if name == "nop":
        return fields
    fields["dst"] = _register(line, "a destination")
    if name == "const":
        line.expect(",")
        fields["imm"] = _fit(line, "imm", -(1 << 31), (1 << 32) - 1) & 0xFFFFFFFF
    for f in READS[name]:
        line.expect(",")
        fields[f] = _source(line)
    if name in COUNTED:
        line.expect(",")
        fields["n"] = _fit(line, "n", 0, 31)
    return fields


def _slot(line: Line, fields: dict[str, int]) -> None:
    token = line.name("load or store")
    if token.text not in _SLOTS:
        raise line.error(
            f"a slot must be load or store, not '{token.text}'", token, near(token.text, _SLOTS)
        )
    if token.text in fields:
        raise line.error(f"{token.text} is given twice", token)
    streams, register = _SLOTS[token.text]
    stream = line.name("a stream")
    if stream.text not in streams:
        raise line.error(
            f"a {token.text}'s stream must be {' or '.join(streams)}, not '{stream.text}'", stream
        )
    fields[token.text] = 1 + streams.index(stream.text)
    fields[register] = _register(line, "a register")


def parse_micro(line: Line) -> bytes:
    """The next word of a line; the cursor is left behind it.

    Raises
    ------
    AssemblyError
        With line and column.
    """
    token: Token = line.peek
    if token.kind == "int":
        return _fit(line, "a word", 0, (1 << 8 * WORD_BYTES) - 1).to_bytes(WORD_BYTES, "little")
    line.name("a micro-operation")
    if token.text not in OPERATIONS:
        hint = near(token.text, OPERATIONS) or "docs/isa.md lists them"
        raise line.error(f"'{token.text}' is no micro-operation", token, hint)
    fields = _operands(line, token.text)
    while line.accept(";"):
        _slot(line, fields)
    return encode_micro(MicroOp.make(token.text, **fields))
