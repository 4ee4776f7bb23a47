"""How the fields of each instruction are written; assembler and disassembler share it.

A unit's line reads ``mnemonic memory[address], ..., words, flag field=value ... ; clause ; ...``.
Memory operands and words have fixed places, destination first; a flag is a 1-bit field's name;
every other field is ``name=value``, left out at its default. Clauses: ``wait s3>=1`` (at most two),
``read s4`` (read-done signal), ``done s5``. A scalar line lists its fields in the table's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from tilewright.isa.encoding import REGISTER_FIELDS
from tilewright.isa.table import SYNC, Field, Spec


@dataclass(frozen=True)
class Place:
    """A memory operand: `field` holds the address, `space` is a fixed name or a field."""

    field: str
    space: str
    optional_with: str = ""  # may be left out (address 0) if this flag is set


@dataclass(frozen=True)
class Form:
    """Memory operands in order; enumerated fields which are written as words, with a separator."""

    places: tuple[Place, ...] = ()
    words: tuple[str, ...] = ()
    separator: str = ""


FORMS = {
    "load": Form((Place("loc", "mem"), Place("dram", "dram", "fill")), ("conv",)),
    "matmul": Form(
        (Place("c", "acc"), Place("a", "spad"), Place("w", "spad")), ("a_type", "w_type"), "*"
    ),
    "store": Form((Place("dst", "dest"), Place("loc", "mem")), ("type", "out"), "->"),
    "vector": Form((Place("kernel", "acc"),)),
}
SEMAPHORE_FIELDS = ("sem",)
TARGET_FIELDS = ("target",)
FLOAT_FIELDS = ("lo", "hi")  # shown as f32(...) on the float path
SYNC_NAMES = tuple(f.name for f in SYNC)


def form(spec: Spec) -> Form:
    """How an instruction of a unit is written."""
    return FORMS.get(spec.name, Form())


def members(enum: type[IntEnum] | None) -> dict[str, int]:
    """Lower-case names of an enumeration; none of none."""
    return {m.name.lower(): int(m) for m in enum or ()}


def spaces(spec: Spec, place: Place) -> Mapping[str, int | None]:
    """Memory names that a place takes, and what they set its space field to."""
    if place.space in spec.layout and spec.layout[place.space][1].enum is not None:
        return members(spec.layout[place.space][1].enum)
    return {place.space: None}


def is_flag(field: Field) -> bool:
    """Whether the bare name sets this field."""
    return field.bits == 1 and field.enum is None and field.name not in SYNC_NAMES


__all__ = [
    "FLOAT_FIELDS",
    "FORMS",
    "REGISTER_FIELDS",
    "SEMAPHORE_FIELDS",
    "SYNC_NAMES",
    "TARGET_FIELDS",
    "Form",
    "Place",
    "form",
    "is_flag",
    "members",
    "spaces",
]
