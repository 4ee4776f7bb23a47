"""The chip's driver as one C header, and programs as C arrays: what bare-metal firmware includes.

`header` writes constants from `isa/`'s tables in front of `data/driver.h`; `program_source` writes
a program as one `tw_program`. Both are C99 for freestanding compilers, and C++.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tilewright.isa.config import INSTR_BYTES, QUEUE_DEPTH, SEM_MAX, SEMAPHORES, ChipConfig
from tilewright.isa.forms import OPCODE_BITS
from tilewright.isa.program import Port, Program, ProgramError
from tilewright.isa.program_checks import port_bytes, reloc_table
from tilewright.isa.registers import (
    CODE_ALIGN,
    COUNTERS,
    ID,
    QUEUED,
    REGISTERS,
    UNIT_COUNTERS,
    geometry_word,
    unit_counter,
)
from tilewright.isa.table import BY_OPCODE, Fault, Unit

DRIVER = Path(__file__).with_name("data") / "driver.h"
FIXED = 0xFFFFFFFF  # the place of what does not move


def _define(name: str, value: int, meaning: str = "") -> str:
    text = f"{value:#x}u" if value > 9 else f"{value}u"
    return f"#define TW_{name} {text}" + (f" /* {meaning} */" if meaning else "")


def _text(text: str) -> str:
    """A C string of UTF-8."""
    plain = set(map(chr, range(32, 127))) - set('\\"?')
    parts = (c if c in plain else "".join(f"\\{b:03o}" for b in c.encode()) for c in text)
    return f'"{"".join(parts)}"'


def _registers() -> Iterable[str]:
    for r in REGISTERS.values():
        what = r.meaning + (f"; {r.count} words" if r.count > 1 else "")
        yield _define(f"REG_{r.name}", r.offset, f"{r.access.value}: {what}")
        for b in r.bits:
            yield _define(f"{r.name}_{b.name}", b.mask, f"{b.access.value}: {b.meaning}")
            if b.width > 1:
                yield _define(f"{r.name}_{b.name}_SHIFT", b.low)


def _names(function: str, what: str, names: Iterable[tuple[int, str]]) -> list[str]:
    """A function from numbers to texts; a table would be data that nobody may use."""
    cases = [f"    case {number}u: return {_text(text)};" for number, text in names]
    head = f"static inline const char *{function}(uint32_t {what})"
    lines = ["", head, "{", f"    switch ({what}) {{", *cases]
    return [*lines, '    default: return "?";', "    }", "}"]


def _units() -> list[str]:
    lines = ["", "/* Which unit executes an opcode. */",
             "static inline uint32_t tw_unit_of(uint32_t opcode)", "{",
             "    switch (opcode) {"]  # fmt: skip
    for unit in QUEUED:
        codes = [code for code, spec in BY_OPCODE.items() if spec.unit == unit]
        lines += [f"    case {code}u:" for code in sorted(codes)]
        lines[-1] += f" return TW_UNIT_{unit.name};" if codes else ""
    return [*lines, "    default: return TW_UNIT_SEQ;", "    }", "}"]


def _facts(config: ChipConfig) -> list[str]:
    """Constants of the geometry, the registers, the faults."""
    lines = ["/* The geometry that this header was made for. */"]
    sizes = {
        "DIM": config.dim, "BUS_BYTES": config.bus_bytes, "SPAD_KIB": config.spad_kib,
        "ACC_KIB": config.acc_kib, "INT8_ARRAY": int(config.array == "int8"),
        "GEOMETRY": geometry_word(config),
    }  # fmt: skip
    lines += [_define(name, value) for name, value in sizes.items()]
    lines += ["", "/* The same for every chip. */", _define("ID", ID)]
    sizes = {
        "INSTR_BYTES": INSTR_BYTES, "INSTR_WORDS": INSTR_BYTES // 4, "CODE_ALIGN": CODE_ALIGN,
        "OPCODE_MASK": (1 << OPCODE_BITS) - 1, "QUEUE_DEPTH": QUEUE_DEPTH,
        "SEMAPHORES": SEMAPHORES, "SEM_MAX": SEM_MAX,
    }  # fmt: skip
    lines += [_define(name, value) for name, value in sizes.items()]
    lines += ["", "/* Registers: byte offsets, bits, shifts of fields. */", *_registers()]
    lines += ["", "/* Faults: register FAULT. */"]
    lines += [_define(f"FAULT_{f.name}", f, f.meaning) for f in Fault]
    lines += ["", "/* Units. */", *(_define(f"UNIT_{u.name}", u) for u in Unit)]
    lines += _names("tw_fault_name", "fault", ((f, f.name) for f in Fault))
    lines += _names("tw_fault_meaning", "fault", ((f, f.meaning) for f in Fault))
    lines += _names("tw_unit_name", "unit", ((u, u.name) for u in Unit))
    return lines + _units()


def _counters() -> list[str]:
    """All counters as one structure, and the function that reads it."""
    width = {1: "uint32_t", 2: "uint64_t"}
    lines = ["", "/* ---- Counters ---- */", ""]
    lines += ["/* Cycles by cause, and instructions, of a unit. */", "typedef struct {"]
    lines += [f"    uint32_t {', '.join(UNIT_COUNTERS)};", "} tw_unit_counters;"]
    lines += ["", "typedef struct {"]
    lines += [f"    {width[c.words]} {c.name}; /* {c.meaning} */" for c in COUNTERS.values()]
    lines += [f"    tw_unit_counters unit[{len(QUEUED)}]; /* by TW_UNIT_... */", "} tw_counters;"]
    lines += ["", "/* Counters of the last program, or of the one that runs. */"]
    lines += ["static inline void tw_read_counters(const tw_chip *chip, tw_counters *counters)"]
    lines += ["{", "    uint32_t unit;"]
    for c in COUNTERS.values():
        value = f"tw_counter(chip, {c.index})"
        if c.words == 2:
            value += f" | (uint64_t)tw_counter(chip, {c.index + 1}) << 32"
        lines.append(f"    counters->{c.name} = {value};")
    lines.append(f"    for (unit = 0; unit < {len(QUEUED)}; unit++) {{")
    first, step = unit_counter(0), unit_counter(1) - unit_counter(0)
    lines.append(f"        uint32_t at = {first} + {step} * unit;")
    for i, name in enumerate(UNIT_COUNTERS):
        lines.append(f"        counters->unit[unit].{name} = tw_counter(chip, at + {i});")
    return [*lines, "    }", "}"]


def header(config: ChipConfig) -> str:
    """The driver for chips: `tilewright.h`."""
    lines = [
        "/* Driver of the Tilewright chip: registers, program loader, runs, faults, counters.",
        f"   Generated by `tilewright header --config {config.geometry}`; do not edit. */",
        "#ifndef TILEWRIGHT_H", "#define TILEWRIGHT_H", "",
        "#include <stddef.h>", "#include <stdint.h>", "",
        *_facts(config),
    ]  # fmt: skip
    driver = DRIVER.read_text(encoding="utf-8")
    return "\n".join(lines) + "\n" + driver + "\n".join([*_counters(), "", "#endif", ""])


def c_name(text: str) -> str:
    """A C identifier like `text`."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "program"
    return f"_{name}" if name[0].isdigit() else name


def _array(kind: str, name: str, values: list[str], per_line: int) -> tuple[list[str], str]:
    """(definition, what refers to it) of a constant array; C has no empty ones."""
    if not values:
        return [], "NULL"
    rows = (values[i : i + per_line] for i in range(0, len(values), per_line))
    body = [f"    {', '.join(row)}," for row in rows]
    return [f"static const {kind} {name}[] = {{", *body, "};"], name


def _ports(kind: str, name: str, ports: tuple[Port, ...], places: dict[int, int]):
    lines, values = [], []
    for i, port in enumerate(ports):
        shape = [f"{n}u" for n in port.shape]
        more, reference = _array("uint32_t", f"{name}_{kind}{i}_shape", shape, 12)
        lines += more
        fields = [_text(port.name), _text(port.dtype), f"{len(shape)}u", reference,
                  f"{port_bytes(port)}u", f"{port.addr:#x}u",
                  f"{places.get(port.addr, FIXED):#x}u"]  # fmt: skip
        values.append("{" + ", ".join(fields) + "}")
    more, reference = _array("tw_port", f"{name}_{kind}s", values, 1)
    return lines + more, reference


def program_source(program: Program, name: str) -> str:
    """A program as a C header that defines the `tw_program` called `name`.

    **Raises** ProgramError: more than 65,535 places.
    """
    if len(program.places) > 0xFFFF:
        raise ProgramError(f"a program in C has at most 65535 places, not {len(program.places)}")
    places = {place.addr: i for i, place in reversed(list(enumerate(program.places)))}
    words = [f"{int.from_bytes(program.code[i : i + 4], 'little'):#x}u"
             for i in range(0, len(program.code), 4)]  # fmt: skip
    lines, code = _array("uint32_t", f"{name}_code", words, 8)
    blocks = []
    for i, (address, content) in enumerate(program.data):
        more, reference = _array("uint8_t", f"{name}_data{i}", [str(b) for b in content], 24)
        lines += more
        place = places.get(address, FIXED)
        blocks.append(f"{{{address:#x}u, {len(content)}u, {place:#x}u, {reference}}}")
    table = reloc_table(program.relocs)
    table = table[table[:, 0].argsort(kind="stable")]
    parts = [
        _array("tw_data", f"{name}_data", blocks, 1),
        _ports("input", name, program.inputs, places),
        _ports("output", name, program.outputs, places),
        _array("tw_place", f"{name}_places",
               [f"{{{p.addr:#x}u, {p.size}u}}" for p in program.places], 4),
        _array("tw_reloc", f"{name}_relocs",
               [f"{{{n}u, {b}u, {p}u}}" for n, b, p in table.tolist()], 6),
    ]  # fmt: skip
    for more, _ in parts:
        lines += more
    data, inputs, outputs, placed, relocs = (reference for _, reference in parts)
    fields = [
        f"    {_text(str(program.meta.get('name') or name))},",
        f"    {geometry_word(program.config):#x}u, {program.dram_size:#x}u,",
        f"    {code}, {len(program)}u,",
        f"    {data}, {len(program.data)}u,",
        f"    {inputs}, {len(program.inputs)}u,",
        f"    {outputs}, {len(program.outputs)}u,",
        f"    {placed}, {len(program.places)}u,",
        f"    {relocs}, {len(table)}u,",
    ]
    guard = f"TILEWRIGHT_PROGRAM_{name}"
    return "\n".join([
        f"/* The program {name} for the chip {program.config.geometry}.",
        "   Generated by `tilewright export-c`; do not edit. */",
        f"#ifndef {guard}", f"#define {guard}", "", '#include "tilewright.h"', "",
        *lines, "", f"static const tw_program {name} = {{", *fields, "};", "", "#endif", "",
    ])  # fmt: skip
