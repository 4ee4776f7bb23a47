"""Operands of the units' instructions, as data: where they begin, and how far they spread.

An `Operand` starts at its base and spreads by its `Term`s: (count - 1) * stride, added to its
lowest place if negative, else to its highest. The RTL's EXTENT stage walks these lists with one
multiplier: first `PRODUCTS[name]`, then the terms of `OPERANDS[name]` and of `DRAM[name]` in order,
one step each, but for the `PARTS` that an instruction leaves out. A count is 1 to 65535 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from tilewright.isa.table import CONV_BYTES, TYPE_BYTES, Conv, Dest, Mem, Type, When
from tilewright.isa.units import LOAD_STREAMS, STREAMS

#: Bytes of one element in the local memory, by conversion.
LOCAL_BYTES = {c: (1, 2, 4, 2, 2, 2, 2, 4, 4)[c] for c in Conv}
_WIDE = tuple(c for c in Conv if LOCAL_BYTES[c] > 1)
_SPAD = ("mem", (Mem.SPAD,))


@dataclass(frozen=True)
class Term:
    """`count` steps of `stride` (a field, a derived count, or an integer), if `when` holds."""

    count: str
    stride: str | int
    when: When = ()


@dataclass(frozen=True)
class Operand:
    """One local operand.

    `mem` is a memory or the field that holds it. An access at a row covers two granules if `pair`
    holds, else one. The first `per_pass` terms belong to one MATMUL pass. It is there if `when`
    holds.
    """

    name: str
    access: str  # "r", "w", "rw"
    mem: Mem | str
    base: str
    terms: tuple[Term, ...]
    pair: When | None = None
    per_pass: int = 0
    when: When = ()


@dataclass(frozen=True)
class DramOperand:
    """The DRAM operand of an instruction: runs of `c0` elements, there if `when` holds.

    An element has `sizes[v[kind]]` bytes.
    """

    access: str  # "r", "w"
    base: str
    terms: tuple[Term, ...]
    kind: str
    sizes: Mapping[int, int]
    when: When


OPERANDS: dict[str, tuple[Operand, ...]] = {
    "load": (
        Operand(
            "loc",
            "w",
            "mem",
            "loc",
            (
                Term("units", "l0"),
                Term("runs", "l1"),
                Term("c2", "l2", when=(("inside", (1, 2)),)),
                Term("c3", "l3", when=(("inside", (1, 2, 3)),)),
            ),
            pair=(_SPAD, ("conv", _WIDE)),
        ),
        Operand(
            "index",
            "r",
            Mem.SPAD,
            "index",
            (Term("pairs", 2),),
            pair=(),
            when=(("gather", (1,)),),
        ),
    ),
    "matmul": (
        Operand(
            "a",
            "r",
            Mem.SPAD,
            "a",
            (Term("r0", "as0"), Term("r1", "as1"), Term("kblocks", "ak")),
            pair=(("a_type", (Type.BF16,)),),
            per_pass=2,
        ),
        Operand(
            "w",
            "r",
            Mem.SPAD,
            "w",
            (Term("dim", "ws"), Term("kblocks", "wk"), Term("nblocks", "wn")),
            pair=(("a_type", (Type.BF16,)),),
            per_pass=1,
        ),
        Operand("c", "rw", Mem.ACC, "c", (Term("rows", 1), Term("nblocks", "cn")), per_pass=1),
    ),
    "store": (
        Operand(
            "loc",
            "r",
            "mem",
            "loc",
            (Term("reads", "l0"), Term("in1", "l1"), Term("in2", "l2")),
            pair=(_SPAD, ("type", (Type.BF16,))),
        ),
        Operand(
            "vec",
            "r",
            Mem.ACC,
            "vec",
            (Term("vectors", "vs"), Term("units", 1)),
            when=(("vectors", (1, 2, 3)),),
        ),
        Operand(
            "dst",
            "w",
            Mem.SPAD,
            "dst",
            (Term("units", "d0"), Term("c1", "s1"), Term("c2", "s2")),
            pair=(("out", (Type.BF16,)),),
            when=(("dest", (Dest.SPAD,)),),
        ),
        Operand(
            "index",
            "r",
            Mem.SPAD,
            "index",
            (Term("index_pairs", 2),),
            pair=(),
            when=(("scatter", (1,)),),
        ),
    ),
    "vector": (
        Operand("kernel", "r", Mem.ACC, "kernel", (Term("kernel_rows", 1),)),
        *(
            Operand(
                s,
                "r" if s in LOAD_STREAMS else "w",
                f"{s}_mem",
                s,
                (Term("rows", f"{s}_row"), Term("units", f"{s}_unit")),
                pair=((f"{s}_type", (Type.BF16,)),),
                when=((f"{s}_on", (1,)),),
            )
            for s in STREAMS
        ),
    ),
}

#: DRAM operands: a run of `run` elements of `sizes[type]` bytes, repeated by the terms.
DRAM: dict[str, DramOperand] = {
    "load": DramOperand(
        "r",
        "dram",
        (Term("rows", "s1"), Term("c2", "s2"), Term("c3", "s3")),
        "conv",
        {int(c): n for c, n in CONV_BYTES.items()},
        (("fill", (0,)),),
    ),
    "store": DramOperand(
        "w",
        "dst",
        (Term("span1", "s1"), Term("c2", "s2")),
        "out",
        {int(t): n for t, n in TYPE_BYTES.items()},
        (("dest", (Dest.DRAM,)),),
    ),
}
#: Where DRAM rows that follow each other may be joined: not where their order or place differs.
JOINS: dict[str, When] = {
    "load": (("pack", (1,)), ("fill", (0,)), ("gather", (0,)), ("xpose", (0,))),
    "store": (("dest", (Dest.DRAM,)), ("pool", (0,)), ("scatter", (0,))),
}
#: Where a joined LOAD may write two granules in a slot: local elements of one byte.
PAIRS: When = (_SPAD, ("conv", tuple(c for c in Conv if LOCAL_BYTES[c] == 1)))

_BARE = tuple((name, (0,)) for name in ("ibias", "scale", "bias", "clamp"))
_FLOATS = (Type.BF16, Type.F32)
#: STORE's short way through the epilogue, if one holds: an integer stays one, or a float.
SHORT: tuple[When, ...] = (
    (("int_path", (1,)), *_BARE),
    (("type", _FLOATS), ("out", _FLOATS), *_BARE),
)

_PLAIN, _XPOSE = ("xpose", (0,)), ("xpose", (1,))
_PACK2, _PACK3 = ("pack", (2, 3)), ("pack", (3,))
#: Products that come before the terms: (result, factor, when); a factor counts if `when` holds,
#: and the first factor of a result wherever another one does.
PRODUCTS: dict[str, tuple[tuple[str, str, When], ...]] = {
    "load": (
        ("row_elems", "c1", (_PLAIN, _PACK2)),
        ("row_elems", "c2", (_PLAIN, _PACK3)),
        ("sequence", "c2", (_XPOSE, _PACK2)),
        ("sequence", "c3", (_XPOSE, _PACK3)),
    ),
    "matmul": (("rows", "r1", ()),),
    "store": (),
    "vector": (),
}
#: Then, if a LOAD is `partial`: runs that a sequence lacks at its start and end, count * factor +
#: more; and bytes from the box's start to the first run that is there, count * stride.
LACKED = (("skip2", "c1", "skip1"), ("drop2", "c1", "drop1"))
SKIPPED = (("skip1", "s1"), ("skip2", "s2"))
#: What a product starts from.
PRODUCT_BASE = {"row_elems": "c0", "sequence": "c1", "rows": "r0"}


@dataclass(frozen=True)
class Part:
    """Multiplier steps of the EXTENT stage that follow each other, there if `when` holds.

    They are products, `LACKED`, `SKIPPED`, or terms of an operand, from number `first` on.
    """

    name: str
    steps: int
    when: When = ()
    first: int = 0


_OUTER = ("in2", "c2", "c3")  # counts that are 1 but in `deep` instructions


def _parts(name: str) -> tuple[Part, ...]:
    out = []
    for _, same in groupby(enumerate(PRODUCTS[name]), lambda p: p[1][0]):
        steps = list(same)
        out.append(Part("products", len(steps), steps[0][1][2], steps[0][0]))
    if name == "load":
        partial = (_XPOSE, _PACK2, ("partial", (1,)))
        out += [Part("lacked", len(LACKED), partial), Part("skipped", len(SKIPPED), partial)]
    every: list[tuple[str, tuple[Term, ...], When]]
    every = [(o.name, o.terms, o.when) for o in OPERANDS[name]]
    if name in DRAM:
        every.append(("DRAM", DRAM[name].terms, DRAM[name].when))
    for operand, terms, when in every:
        inner = sum(t.count not in _OUTER for t in terms)
        out.append(Part(operand, inner, when))
        if inner < len(terms):
            out.append(Part(operand, len(terms) - inner, (*when, ("deep", (1,))), inner))
    return tuple(out)


#: The EXTENT stage's steps, in order.
PARTS = {n: _parts(n) for n in OPERANDS}
