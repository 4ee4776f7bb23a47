"""Assembly text to a `Program`.

One instruction per line, as `syntax` describes; ``#`` starts a comment, ``name:`` a label. A label
names the next instruction (its index) or the next data (its DRAM byte address). Directives:

    .config tw4                     chip; also dim=4,spad_kib=8,acc_kib=4[,array=int8]
    .const NAME = expression
    .data address                   where the following data lie in DRAM
    .word 1, 2   .bytes 1, 2   .f32 1.5, -2     data: 32-bit, 8-bit, fp32, little-endian
    .micro add_f32 r3, r1, u ; load x r5        data: a word of a micro-kernel, see `micro_text`
    .raw 0x...                      an instruction word as one number
    .dram bytes                     size of the DRAM that the program uses
    .input name, dtype[4, 8], address           also .output; a name may stand in "quotes"

The text is read leniently until every name has its value, then strictly, for the result.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from tilewright.isa.config import INSTR_BYTES, PRESETS, ChipConfig, ConfigError, parse_config
from tilewright.isa.encoding import Instr, encode, lacks
from tilewright.isa.micro_text import parse_micro
from tilewright.isa.operands import parse_instruction
from tilewright.isa.program import Origin, Port, Program, ProgramError
from tilewright.isa.program_checks import SPACE, port_bytes
from tilewright.isa.table import INSTRUCTIONS
from tilewright.isa.text import AssemblyError, Line, Token, float_bits, near

_RESERVED = re.compile(r"[rs]\d+|f32")
_DATA = {".word": 4, ".bytes": 1, ".f32": 4}
_PASSES = 8  # lenient readings before a name counts as circular
_DIRECTIVES = (
    *_DATA, ".micro", ".data", ".const", ".raw", ".dram", ".config", ".input", ".output"
)  # fmt: skip
_DTYPES = ("float32", "bfloat16", "int8", "uint8", "int32", "uint32", "bool")


@dataclass
class _Pass:
    """What one reading of the text collects."""

    names: dict[str, int]  # of the pass before; empty in the first
    lenient: bool
    where: dict[str, tuple[Line, Token]] = field(default_factory=dict)
    unsettled: bool = False  # a name's value was guessed
    found: dict[str, int] = field(default_factory=dict)
    words: list[bytes] = field(default_factory=list)
    instrs: list[tuple[Line, Token, Instr]] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    segments: list[tuple[int, bytearray]] = field(default_factory=list)
    ports: dict[str, list[Port]] = field(default_factory=lambda: {".input": [], ".output": []})
    port_lines: list[tuple[Line, Token, Port]] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    config: ChipConfig | None = None
    dram: int | None = None

    def lookup(self, name: str) -> int | None:
        return self.found.get(name, self.names.get(name))

    def bind(self, value: int) -> None:
        """Give the pending labels their value."""
        self.found.update(dict.fromkeys(self.pending, value))
        self.pending.clear()


def assemble(text: str, file: str = "<text>", config: ChipConfig | None = None) -> Program:
    """Assemble a whole text.

    Parameters
    ----------
    text : source.
    file : its name, for errors and the source map.
    config : the chip, if the text has no ``.config``; else tw16.

    Raises
    ------
    AssemblyError
        For the first mistake: file, line, column, and a hint.
    """
    state = _read(text, file, {}, lenient=True)
    if state.unsettled:
        state = _settle(text, file, state)
    state = _read(text, file, state.found, lenient=False)
    data = tuple((addr, bytes(content)) for addr, content in state.segments if content)
    chip = state.config or config or PRESETS["tw16"]
    for line, token, instr in state.instrs:
        if why := lacks(instr, chip.array):
            raise line.error(why, token, f"{chip.name} has none; .config names the chip")
    _check_room(state)
    try:
        return Program(
            chip,
            b"".join(state.words),
            data,
            tuple(state.ports[".input"]),
            tuple(state.ports[".output"]),
            tuple(state.origins),
            state.dram if state.dram is not None else max((a + len(d) for a, d in data), default=0),
        )
    except ProgramError as e:
        raise AssemblyError(file, 1, 1, str(e), "", text.split("\n", 1)[0]) from e


def _check_room(state: _Pass) -> None:
    """Refuse an array that ends outside of the DRAM: what `.dram` says, else 32 bits."""
    room = SPACE if state.dram is None else state.dram
    for line, token, port in state.port_lines:
        end = port.addr + port_bytes(port)
        if end > room:
            raise line.error(
                f"'{port.name}' needs {port_bytes(port)} bytes at {port.addr:#x}, up to {end:#x}, "
                f"but the DRAM ends at {room:#x}",
                token,
                ".dram says how large it is, up to 0x100000000 bytes",
            )


def _settle(text: str, file: str, state: _Pass) -> _Pass:
    """Read again until no name changes its value."""
    for _ in range(_PASSES):
        before = state.found
        state = _read(text, file, before, lenient=True)
        if state.found == before:
            return state
    moved = next(n for n, value in state.found.items() if before.get(n) != value)
    line, token = state.where[moved]
    raise line.error(f"'{moved}' has no value: it depends on itself", token)


def _read(text: str, file: str, names: dict[str, int], lenient: bool) -> _Pass:
    """One reading of the text, with the names of the reading before."""
    state = _Pass(names, lenient)
    for number, source in enumerate(text.splitlines(), 1):
        line = Line(file, number, source, state.lookup, lenient)
        line.known = names
        try:
            _line(line, state)
        except RecursionError:
            raise line.error("the expression is nested too deeply") from None
    state.bind(len(state.words))
    return state


def assemble_file(path: str | Path, config: ChipConfig | None = None) -> Program:
    """Assemble a file; raises `AssemblyError`, or `ProgramError` if it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise ProgramError(f"{path}: cannot be read ({e.strerror}); check the path") from e
    except UnicodeDecodeError as e:
        raise ProgramError(f"{path}: is no UTF-8 text; 'tilewright disasm' reads programs") from e
    return assemble(text, str(path), config)


def _line(line: Line, state: _Pass) -> None:
    while line.peek.kind == "name" and line.ahead(":"):
        state.pending.append(_define(line, state))
        line.take()
    if line.ended:
        return
    token = line.peek
    if token.text.startswith(".") and token.kind == "name":
        _directive(line, state)
    elif token.text in INSTRUCTIONS:
        state.bind(len(state.words))
        instr = parse_instruction(line)
        state.instrs.append((line, token, instr))
        _emit(line, state, encode(instr))
    else:
        hint = near(token.text, INSTRUCTIONS) or "a line is: [label:] instruction operands"
        raise line.error(f"'{token.text}' is no instruction", hint=hint)
    line.finish()


def _define(line: Line, state: _Pass) -> str:
    """Take a new name."""
    token = line.name("a name")
    if _RESERVED.fullmatch(token.text) or token.text.startswith("."):
        raise line.error(f"'{token.text}' cannot be a name: it is reserved", token)
    if token.text in state.found or token.text in state.pending:
        raise line.error(f"'{token.text}' is defined twice", token)
    state.where[token.text] = line, token
    return token.text


def _emit(line: Line, state: _Pass, word: bytes) -> None:
    state.words.append(word)
    state.origins.append(Origin(line=f"{line.file}:{line.line}"))


def _directive(line: Line, state: _Pass) -> None:
    token = line.take()
    name = token.text
    if name in _DATA:
        _data(line, state, name)
    elif name == ".micro":
        content = _content(line, state, name)
        content += parse_micro(line)
    elif name == ".data":
        address = _sized(line, 32)
        state.segments.append((address, bytearray()))
        state.unsettled |= line.guessed
    elif name == ".const":
        target = _define(line, state)
        line.expect("=")
        state.found[target] = line.expression()
        state.unsettled |= line.guessed
    elif name == ".raw":
        state.bind(len(state.words))
        _emit(line, state, _sized(line, 8 * INSTR_BYTES).to_bytes(INSTR_BYTES, "little"))
    elif name == ".dram":
        state.dram = line.expression()
        if not 0 <= state.dram <= 1 << 32:
            state.dram = line.refuse(f".dram must be in 0 to {1 << 32}, not {state.dram}", token)
    elif name == ".config":
        _config(line, state)
    elif name in (".input", ".output"):
        port = _port(line)
        state.ports[name].append(port)
        state.port_lines.append((line, token, port))
    else:
        raise line.error(f"'{name}' is no directive", token, near(name, _DIRECTIVES))


def _sized(line: Line, bits: int, signed: bool = False) -> int:
    """An expression that fits `bits`; negative ones too if `signed`."""
    token = line.peek
    value = line.expression()
    low = -(1 << (bits - 1)) if signed else 0
    if not low <= value < 1 << bits:
        return line.refuse(f"value must fit {bits} bits, not {value}", token)
    return value


def _content(line: Line, state: _Pass, name: str) -> bytearray:
    """Where the next data go; labels before them are bound."""
    if not state.segments:
        raise line.error(f"{name} must follow .data", hint=".data 0x1000 says where data lie")
    base, content = state.segments[-1]
    state.bind(base + len(content))
    return content


def _data(line: Line, state: _Pass, name: str) -> None:
    content = _content(line, state, name)
    while True:
        if name == ".f32":
            content += struct.pack("<I", float_bits(line.number()))
        else:
            bits = 8 * _DATA[name]
            value = _sized(line, bits, signed=True) & ((1 << bits) - 1)
            content += value.to_bytes(_DATA[name], "little")
        if not line.accept(","):
            return


def _config(line: Line, state: _Pass) -> None:
    token = line.peek
    rest = line.source.split("#", 1)[0][token.column - 1 :].strip()
    line.at = len(line.tokens) - 1
    try:
        state.config = parse_config(rest)
    except ConfigError as e:
        raise line.error(str(e), token, near(rest, PRESETS)) from e


def _port(line: Line) -> Port:
    quoted = line.peek.kind == "text"
    name = json.loads(line.take().text, strict=False) if quoted else line.name("a name").text
    line.expect(",")
    dtype = line.name("a dtype")
    if dtype.text not in _DTYPES:
        raise line.error(
            f"dtype must be one of {', '.join(_DTYPES)}, not '{dtype.text}'",
            dtype,
            near(dtype.text, _DTYPES),
        )
    shape = []
    line.expect("[")
    while not line.accept("]"):
        shape.append(_sized(line, 32))
        if not line.accept(","):
            line.expect("]")
            break
    line.expect(",")
    return Port(name, tuple(shape), dtype.text, _sized(line, 32))


__all__ = ["AssemblyError", "assemble", "assemble_file"]
