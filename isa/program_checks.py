"""Whether the parts of a program that comes from a file are what they should be, one by one.

The checksum tells damage; a file from a stranger can have any JSON under a checksum that fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.config import INSTR_BYTES

if TYPE_CHECKING:
    from tilewright.isa.program import Program

SPACE = 1 << 32
#: Bytes of an element of each dtype that an array of a program can have.
ITEM_BYTES = {
    "float32": 4, "bfloat16": 2, "int8": 1, "uint8": 1, "int32": 4, "uint32": 4, "bool": 1,
}  # fmt: skip
MAX_RANK = 32
CONFIG_TYPES = {"name": str, "array": str}  # the other fields are integers


class PartError(ValueError):
    """A part that is not what it should be: its name, what it must be, what it is."""


def _must(holds: bool, name: str, what: str, value: Any) -> None:
    if not holds:
        raise PartError(f"{name} must be {what}, not {value!r:.60}")


def is_count(value: Any) -> bool:
    """Whether a JSON value is an integer in 0 to 2^32."""
    return type(value) is int and 0 <= value <= SPACE


def check_config(fields: dict[str, Any]) -> None:
    """Types of the geometry's fields; `ChipConfig` checks their values."""
    for name, value in fields.items():
        wanted = CONFIG_TYPES.get(name, int)
        _must(type(value) is wanted, name, "a text" if wanted is str else "an integer", value)


def check_parts(program: Program) -> None:
    """Types and ranges of all that the manifest says.

    **Raises** PartError: the first part that is wrong.
    """
    _must(type(program.dram_size) is int, "dram_size", "an integer", program.dram_size)
    _must(isinstance(program.meta, dict), "meta", "an object", program.meta)
    for address, _ in program.data:
        _must(is_count(address), "an address of data", "in 0 to 2^32", address)
    for port in (*program.inputs, *program.outputs):
        _must(type(port.name) is str, "a port's name", "a text", port.name)
        where = f"{port.name[:40]}'s"
        known = ", ".join(ITEM_BYTES)
        _must(port.dtype in tuple(ITEM_BYTES), f"{where} dtype", f"one of {known}", port.dtype)
        sound = len(port.shape) <= MAX_RANK and all(map(is_count, port.shape))
        _must(sound, f"{where} shape", f"at most {MAX_RANK} lengths", port.shape)
        _must(port.layout == "row-major", f"{where} layout", "'row-major'", port.layout)
        inside = is_count(port.addr) and port.addr + port_bytes(port) <= SPACE
        _must(inside, f"{where} address", "such that it ends in 32 bits", port.addr)
    texts = (text for o in program.source_map for text in (o.kernel, o.equation, o.line))
    _all_texts(texts)
    _check_places(program)


def _all_texts(texts: Iterable[Any]) -> None:
    for text in texts:
        _must(type(text) is str, "a source", "a text", text)


def _check_places(program: Program) -> None:
    for place in program.places:
        _must(type(place.name) is str, "a place's name", "a text", place.name)
        where = f"place {place.name[:40]}'s"
        _must(is_count(place.addr), f"{where} address", "in 0 to 2^32", place.addr)
        inside = is_count(place.size) and place.addr + place.size <= SPACE
        _must(inside, f"{where} size", "such that it ends in 32 bits", place.size)
    starts = {place.addr for place in program.places}
    if starts:
        for address in (*(a for a, _ in program.data), *(p.addr for p in program.inputs),
                        *(p.addr for p in program.outputs)):  # fmt: skip
            _must(address in starts, "data and arrays", "at the start of a place", address)
    table = reloc_table(program.relocs)
    limits = (len(program), 8 * INSTR_BYTES - 31, len(program.places))
    for column, limit, name in zip(table.T, limits, ("number", "bit", "place"), strict=True):
        bad = column[column >= limit]
        _must(not bad.size, f"a relocation's {name}", f"below {limit}", bad.tolist()[:1])


def port_bytes(port: Any) -> int:
    """Bytes of a program's input or output."""
    return prod(port.shape) * ITEM_BYTES[port.dtype]


def reloc_table(relocs: bytes) -> np.ndarray:
    """(n, 3) uint32 of `Program.relocs`: instruction, bit, place."""
    if len(relocs) % 12:
        raise PartError(f"relocs must be a multiple of 12 bytes, not {len(relocs)}")
    return np.frombuffer(relocs, "<u4").reshape(-1, 3)
