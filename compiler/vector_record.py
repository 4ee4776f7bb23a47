"""What records micro-operations: results with levels, and values as lanes hold them.

`Recorder` is the machine of `vector_sequences` that records: equal operations are one, and each
knows how often it must run (`level`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tilewright.compiler import core
from tilewright.compiler.terms import Term
from tilewright.sim import numerics

CONST, HEAD, BODY, TAIL = 0, 1, 2, 3  # levels: once, once a row, once a unit, after a row's units
_ONE = 0x3F800000
_SPECIAL = {0: "zero", _ONE: "one"}


@dataclass(frozen=True, eq=False)
class Result:
    """What an operation, a load or a constant leaves in a register.

    Parameters
    ----------
    name : a micro-operation, "load" (of stream `n`), "const" (of bits `n`) or a special source.
    into : what it replaces in its register, from one unit to the next.
    beside : a load of the same word.
    """

    name: str
    args: tuple[Result, ...] = ()
    n: int = 0
    level: int = CONST
    into: Result | None = None
    beside: Result | None = None


class Recorder:
    """The operations that were asked for, arguments first."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.known: dict[Any, Result] = {}

    def _made(self, name: str, args: tuple[Result, ...], n: int, level: int) -> Result:
        key = (name, args, n)
        if key not in self.known:
            self.known[key] = Result(name, args, n, level)
            self.results.append(self.known[key])
        return self.known[key]

    def load(self, stream: int, level: int, broadcast: bool) -> Result:
        """What a stream has; `broadcast`: lane 0 of it, in all lanes."""
        loaded = self._made("load", (), stream, level)
        if level == BODY and not broadcast:
            return loaded
        return self._made("broadcast" if broadcast else "mov", (loaded,), 0, level)

    def source(self, name: str, level: int = CONST) -> Result:
        """A special source of the lanes."""
        return self._made(name, (), 0, level)

    def carried(self, name: str, start: int, x: Result) -> Result:
        """What is left of a row's units x, combined one by one, from the bits `start` on.

        It is to be read by operations behind the row's units.
        If x is a load, each word combines the unit before, and the tail the last one.
        """
        first = Result("mov", (self.operand(start),), 0, HEAD)
        self.results.append(first)
        if x.name != "load":
            update = Result(name, (first, x), 0, BODY, first)
            self.results.append(update)
            return update
        ahead = Result("mov", (self.operand(start),), 0, HEAD)
        load = Result("load", (), x.n, BODY, ahead)
        update = Result(name, (first, ahead), 0, BODY, first, load)
        self.results += [ahead, load, update]
        return self.after(name, update, load)

    def after(self, name: str, *args: Result, n: int = 0) -> Result:
        """One micro-operation behind a row's units."""
        return self._made(name, args, n, TAIL)

    def operand(self, x: Any) -> Result:
        """A number as a constant."""
        if isinstance(x, Result):
            return x
        bits = int(np.float32(x).view(np.uint32)) if isinstance(x, float) else x % (1 << 32)
        return self._made(_SPECIAL.get(bits, "const"), (), bits, CONST)

    def run(self, name: str, *operands: Any, n: int = 0) -> Result:
        """One micro-operation."""
        args = tuple(map(self.operand, operands))
        return self._made(name, args, n, max(HEAD, *(a.level for a in args)))


def lane_bits(value: Any, dtype: np.dtype) -> int:
    """A number as a lane holds it."""
    array = np.asarray(value, dtype)
    if dtype == core.bfloat16:
        array = numerics.bf16_to_f32(array)
    if dtype in core.FLOATS:
        return int(array.view(np.uint32))
    return int(array) & 0xFFFFFFFF


Kind = tuple[int, bool]  # level of an input, and whether it has one element, for all lanes
Lower = Callable[[Recorder, Term, list[Result]], Result]


def fit(r: Recorder, x: Result, dtype: np.dtype) -> Result:
    """An integer result, wrapped to its dtype; a float result, rounded to it."""
    if dtype == core.int8:
        return r.run("sar", r.run("shl", x, 24), 24)
    if dtype == core.uint8:
        return r.run("and", x, 255)
    return r.run("f32_bf16", x) if dtype == core.bfloat16 else x
