"""Terms: element-wise expressions as a DAG, one node for each equation or operand.

A term is an input (a view, later its number), a constant, or a primitive of terms. Shared terms are
computed once; terms are equal only to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from tilewright.compiler.core import SHORT_NAMES, Params

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "and": "&", "or": "|", "xor": "^",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Term:
    """One value of every element.

    Parameters
    ----------
    name : "input", "const", or a primitive's name.
    dtype : of the value, as the jaxpr sees it.
    value : of an input its view or number, of a const one number.
    """

    name: str
    dtype: np.dtype
    args: tuple[Term, ...] = ()
    params: Params = field(default_factory=Params)
    value: object = None

    def nodes(self) -> Iterator[Term]:
        """All terms that it is made of, each once, arguments first."""
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:
            term, done = stack.pop()
            if done:
                yield term
            elif id(term) not in seen:
                seen.add(id(term))
                stack.append((term, True))
                stack += [(a, False) for a in reversed(term.args)]

    def inputs(self) -> list[object]:
        """The different values of its inputs, in the order of their first use."""
        return list(dict.fromkeys(t.value for t in self.nodes() if t.name == "input"))

    def replaced(self, change: Callable[[object], object]) -> Term:
        """The same term with the value of each input changed."""
        made: dict[int, Term] = {}
        for t in self.nodes():
            value = change(t.value) if t.name == "input" else t.value
            made[id(t)] = Term(t.name, t.dtype, tuple(made[id(a)] for a in t.args), t.params, value)
        return made[id(self)]

    def text(self, names: list[str]) -> str:
        """The term with its inputs' names; what is used twice has a number."""
        uses: dict[int, int] = {}
        order = list(self.nodes())
        for t in order:
            for a in t.args:
                uses[id(a)] = uses.get(id(a), 0) + 1
        shown: dict[int, str] = {}
        defined: list[str] = []
        for t in order:
            text = _shown(t, [shown[id(a)] for a in t.args], names)
            if t.args and uses.get(id(t), 0) > 1:
                defined.append(f"%{len(defined)} = {text}")
                text = f"%{len(defined) - 1}"
            shown[id(t)] = text
        return "; ".join([*defined, shown[id(self)]])


def _shown(term: Term, args: list[str], names: list[str]) -> str:
    if term.name == "input":
        return names[term.value] if isinstance(term.value, int) else str(term.value)
    if term.name == "const":
        return str(np.asarray(term.value).item())
    if term.name in _INFIX:
        return f"({args[0]} {_INFIX[term.name]} {args[1]})"
    if term.name == "convert_element_type":
        return f"{SHORT_NAMES[term.dtype]}({args[0]})"
    power = [str(term.params["y"])] if term.name == "integer_pow" else []
    return f"{term.name}({', '.join([*args, *power])})"
