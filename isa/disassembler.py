"""Words to assembly text, which assembles back to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from tilewright.isa.config import ARRAYS, INSTR_BYTES
from tilewright.isa.encoding import IllegalInstruction, Instr, decode, lacks
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.micro_text import format_kernel
from tilewright.isa.program import Port, Program
from tilewright.isa.syntax import (
    FLOAT_FIELDS,
    REGISTER_FIELDS,
    SEMAPHORE_FIELDS,
    TARGET_FIELDS,
    form,
    is_flag,
    members,
    spaces,
)
from tilewright.isa.table import Conv, Field, Mem, Unit
from tilewright.isa.text import float_bits
from tilewright.isa.units import SECTIONS

_HEX_FROM = 1 << 12  # unsigned 32-bit values from here on are shown in hexadecimal


def _member(field: Field, value: int) -> str | None:
    return next((k for k, v in members(field.enum).items() if v == value), None)


def _float(bits: int) -> str | None:
    """``f32(...)`` if it gives exactly these bits."""
    text = str(np.array(bits, np.uint32).view(np.float32)[()]).removesuffix(".0")
    return f"f32({text})" if text != "nan" and float_bits(float(text)) == bits else None


def _value(instr: Instr, name: str, hexadecimal: bool = False) -> str:
    field = instr.spec.layout[name][1]
    value = instr.values[name]
    if name in instr.regs:
        return f"r{value}"
    if field.enum is not None:
        return _member(field, value) or str(value)
    if name in FLOAT_FIELDS and not instr.values.get("int_path"):
        return _float(value) or f"{value:#x}"
    if hexadecimal or (field.bits == 32 and not field.signed and value >= _HEX_FROM):
        return f"{value:#x}"
    return str(value)


def format_instruction(instr: Instr, labels: Mapping[int, str] | None = None) -> str:
    """One instruction as a line of assembly; `labels` names branch targets."""
    if instr.spec.unit == Unit.SEQ:
        return _scalar(instr, labels or {})
    left = {n: v for n, v in instr.values.items() if v != instr.spec.layout[n][1].default}
    left |= {n: instr.values[n] for n in instr.regs}
    parts = [*_memories(instr, left), *_words(instr, left)]
    clauses = _clauses(instr, left)
    rest = []
    for name, value in left.items():
        flag = is_flag(instr.spec.layout[name][1]) and value == 1
        rest.append(name if flag else f"{name}={_value(instr, name)}")
    line = ", ".join([*parts, " ".join(rest)] if rest else parts)
    return " ; ".join([f"{instr.spec.name} {line}".rstrip(), *clauses])


def _scalar(instr: Instr, labels: Mapping[int, str]) -> str:
    parts = []
    for field in instr.spec.fields:
        value = instr.values[field.name]
        if field.name in REGISTER_FIELDS:
            parts.append(f"r{value}")
        elif field.name in SEMAPHORE_FIELDS:
            parts.append(f"s{value}")
        elif field.name in TARGET_FIELDS:
            parts.append(labels.get(value, str(value)))
        else:
            parts.append(_value(instr, field.name))
    return f"{instr.spec.name} {', '.join(parts)}".rstrip()


def _memories(instr: Instr, left: dict[str, int]) -> list[str]:
    parts = []
    for place in form(instr.spec).places:
        if place.optional_with and instr.values[place.optional_with] and place.field not in left:
            continue
        known = spaces(instr.spec, place)
        space = instr.values.get(place.space)
        name = next(k for k, v in known.items() if v is None or v == space)
        parts.append(f"{name}[{_value(instr, place.field, hexadecimal=True)}]")
        left.pop(place.field, None)
        if None not in known.values():
            left.pop(place.space, None)
    return parts


def _words(instr: Instr, left: dict[str, int]) -> list[str]:
    """The types as words; as ``name=value`` if one is no member of its enumeration."""
    style = form(instr.spec)
    fields = [instr.spec.layout[n][1] for n in style.words]
    names = [_member(f, instr.values[f.name]) for f in fields]
    for f in fields:
        left.pop(f.name, None)
    words = [n for n in names if n is not None]
    if len(words) < len(fields):
        return [f"{f.name}={_value(instr, f.name)}" for f in fields]
    return [style.separator.join(words)] if words else []


def _clauses(instr: Instr, left: dict[str, int]) -> list[str]:
    v = instr.values
    out: list[str] = []
    for slot in ("wait0", "wait1"):
        if not v[f"{slot}_n"] or (slot == "wait1" and not out):
            break
        out.append(f"wait s{v[slot]}>={v[f'{slot}_n']}")
        left.pop(slot, None)
        left.pop(f"{slot}_n")
    for kind, word in (("rd", "read"), ("done", "done")):
        if v[f"{kind}_en"]:
            out.append(f"{word} s{v[f'{kind}_sem']}")
            left.pop(f"{kind}_sem", None)
            left.pop(f"{kind}_en")
    return out


def _decoded(code: bytes) -> list[Instr | bytes]:
    out: list[Instr | bytes] = []
    for i in range(0, len(code), INSTR_BYTES):
        word = code[i : i + INSTR_BYTES]
        try:
            out.append(decode(word))
        except IllegalInstruction:
            out.append(word)
    return out


def labels_of(code: bytes) -> dict[int, str]:
    """Names ``L<index>`` of all branch targets inside the program or at its end."""
    items = _decoded(code)
    targets = {
        x.values[n] for x in items if isinstance(x, Instr) for n in TARGET_FIELDS if n in x.values
    }
    return {t: f"L{t}" for t in sorted(targets) if t <= len(items)}


def disassemble(code: bytes, array: str = ARRAYS[0]) -> str:
    """All instructions of `code` (a multiple of 64 bytes).

    A word that is none becomes ``.raw``, and one that chips with this `array` do not have, too.
    """
    if len(code) % INSTR_BYTES:
        raise ValueError(f"code must be a multiple of {INSTR_BYTES} bytes, not {len(code)}")
    items, labels, lines = _decoded(bytes(code)), labels_of(code), []
    for i, item in enumerate(items):
        if i in labels:
            lines.append(f"{labels[i]}:")
        if isinstance(item, Instr) and not lacks(item, array):
            lines.append("    " + format_instruction(item, labels))
        else:
            note = f"  # {format_instruction(item)}" if isinstance(item, Instr) else ""
            word = code[i * INSTR_BYTES : (i + 1) * INSTR_BYTES]
            lines.append(f"    .raw {int.from_bytes(word, 'little'):#x}{note}")
    if len(items) in labels:
        lines.append(f"{labels[len(items)]}:")
    return "".join(line + "\n" for line in lines)


def kernels_of(code: bytes) -> dict[int, dict[str, int]]:
    """Where in DRAM micro-kernels lie, in order, and the lengths of their sections.

    Those that a LOAD brings, by a plain copy of 32 bits, to the row that a later VECTOR names, both
    without registers.
    """
    rows: dict[int, int] = {}  # accumulator row -> DRAM address
    found: dict[int, dict[str, int]] = {}
    for item in _decoded(code):
        if not isinstance(item, Instr):
            continue
        v = item.values
        if item.spec.name == "load" and v["mem"] == Mem.ACC and v["conv"] == Conv.COPY32:
            if not item.regs & {"loc", "dram"} and not v["fill"] and not v["gather"]:
                rows[v["loc"]] = v["dram"]
        elif item.spec.name == "vector" and v["kernel"] in rows and "kernel" not in item.regs:
            found[rows[v["kernel"]]] = {s: v[s] for s in SECTIONS}
    return dict(sorted(found.items()))


def _bytes(content: bytes) -> list[str]:
    rows = [content[i : i + 16] for i in range(0, len(content), 16)]
    return ["    .bytes " + ", ".join(map(str, row)) for row in rows]


def disassemble_program(program: Program) -> str:
    """The whole program: chip, arrays, data, code."""
    lines = [f".config {program.config.geometry}", f".dram {program.dram_size:#x}"]
    lines += [_port(".input", p) for p in program.inputs]
    lines += [_port(".output", p) for p in program.outputs]
    known = kernels_of(program.code)
    for address, content in program.data:
        lines.append(f".data {address:#x}")
        at = 0
        for start, lengths in known.items():
            size = WORD_BYTES * sum(lengths.values())
            if at <= start - address <= len(content) - size:
                lines += _bytes(content[at : start - address])
                at = start - address + size
                lines += format_kernel(content[at - size : at], lengths).splitlines()
        lines += _bytes(content[at:])
    return "\n".join(lines) + "\n" + disassemble(program.code, program.config.array)


def _port(directive: str, port: Port) -> str:
    shape = ", ".join(map(str, port.shape))
    name = port.name if port.name.isidentifier() and port.name.isascii() else json.dumps(port.name)
    return f"{directive} {name}, {port.dtype}[{shape}], {port.addr:#x}"
