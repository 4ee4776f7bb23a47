"""The sequencer's own instructions: 32-bit registers as Python integers, always 0 to 2^32 - 1."""

from __future__ import annotations

from collections.abc import Callable

MASK = 0xFFFFFFFF


def signed(x: int) -> int:
    """The two's complement value of 32 bits."""
    x &= MASK
    return x - (1 << 32) if x >> 31 else x


#: rd = f(ra, b); `ra` is unsigned, `b` signed as the table resolves it. The caller masks.
ALU: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "shl": lambda a, b: a << (b & 31),
    "shr": lambda a, b: a >> (b & 31),
    "sar": lambda a, b: signed(a) >> (b & 31),
    "and": lambda a, b: a & b,
    "min": lambda a, b: min(signed(a), b),
    "max": lambda a, b: max(signed(a), b),
}

#: Whether a branch is taken.
BRANCH: dict[str, Callable[[int, int], bool]] = {
    "beq": lambda a, b: signed(a) == b,
    "bne": lambda a, b: signed(a) != b,
    "blt": lambda a, b: signed(a) < b,
    "bge": lambda a, b: signed(a) >= b,
}


def word_beats(address: int, bus_bytes: int) -> int:
    """Beats of a 4-byte word on the data bus."""
    return -(-(address % bus_bytes + 4) // bus_bytes)
