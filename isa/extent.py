"""Which local rows and DRAM bytes an instruction touches, from its fields alone, as data.

An `Operand` starts at its base and spreads by its `Term`s: (count - 1) * stride, added to `lo` if
negative, else to `hi`. The RTL's EXTENT stage walks the same lists with one multiplier: first
`PRODUCTS[name]`, then the terms of `OPERANDS[name]` and of `DRAM[name]` in order, one step each,
but for the `PARTS` that an instruction's modes leave out. Port masks, range and window checks and
the checker's races use the result. For the RTL: a count is 1 to 65535.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tilewright.isa.config import STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import (
    CONV_BYTES,
    INSTRUCTIONS,
    TYPE_BYTES,
    Conv,
    Dest,
    Fault,
    Mem,
    Spec,
    Type,
    When,
)
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STREAMS

MAX_COUNT = 65535  # of row elements, of matmul rows, of input rows of a pool's dimension

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


@dataclass(frozen=True)
class Extent:
    """Inclusive range of granules (scratchpad) or rows (accumulator) of one operand."""

    operand: str
    access: str
    mem: Mem
    lo: int
    hi: int


OPERANDS: dict[str, tuple[Operand, ...]] = {
    "load": (
        Operand(
            "loc",
            "w",
            "mem",
            "loc",
            (
                Term("units", "l0"),
                Term("runs", "l1", when=(("pack", (1,)),)),
                Term("c2", "l2", when=(("pack", (1, 2)),)),
                Term("c3", "l3"),
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
#: First and last byte of the window that a program's DMA may touch, if the host sets no other.
EVERYTHING = (0, (1 << 32) - 1)

#: Products that come before the terms: (result, factor, when); a factor counts if `when` holds.
PRODUCTS: dict[str, tuple[tuple[str, str, When], ...]] = {
    "load": (("row_elems", "c1", (("pack", (2, 3)),)), ("row_elems", "c2", (("pack", (3,)),))),
    "matmul": (("rows", "r1", ()),),
    "store": (),
    "vector": (),
}
#: What a product starts from.
PRODUCT_BASE = {"row_elems": "c0", "rows": "r0"}


@dataclass(frozen=True)
class Part:
    """Multiplier steps of the EXTENT stage that follow each other, there if `when` holds.

    They are products, or terms of an operand from number `first` on.
    """

    name: str
    steps: int
    when: When = ()
    first: int = 0


_OUTER = ("in2", "c2", "c3")  # counts that are 1 but in `deep` instructions


def _parts(name: str) -> tuple[Part, ...]:
    products = PRODUCTS[name]
    out = [Part("products", len(products), products[0][2])] if products else []
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


def _modes(spec: Spec, values: Mapping[str, int]) -> dict[str, int]:
    """What decides, besides the fields, about an instruction's operands."""
    if spec.name == "load":
        return {"deep": int(values["c2"] != 1 or values["c3"] != 1)}
    if spec.name == "store":
        deep = int(values["c2"] != 1 or values["pool"] == 1)
        return {"deep": deep, "vectors": values["ibias"] + values["scale"] + values["bias"]}
    return {}


def extent_cycles(spec: Spec, values: Mapping[str, int]) -> int:
    """Cycles that an instruction with resolved values spends in the EXTENT stage."""
    v = {**values, **_modes(spec, values)}
    return sum(p.steps for p in PARTS.get(spec.name, ()) if _holds(p.when, v))


def _holds(when: When, v: Mapping[str, int]) -> bool:
    return all(v[name] in allowed for name, allowed in when)


def _blocks(n: int, size: int) -> int:
    return -(-n // size)


def _span1(store: Mapping[str, int]) -> int:
    return store["bound"] if store["scatter"] else store["c1"]


def unit_elements(config: ChipConfig, values: Mapping[str, int]) -> int:
    """Elements of one unit of a LOAD: `dim`, or `dim`/2 for 4 bytes in the scratchpad."""
    wide = values["mem"] == Mem.SPAD and LOCAL_BYTES[Conv(values["conv"])] == 4
    return config.dim // 2 if wide else config.dim


def named_rows(values: Mapping[str, int]) -> int:
    """Steps of s1 of a LOAD's DRAM operand: with `gather`, all that an index may name."""
    return values["bound"] if values["gather"] else values["c1"]


#: Where DRAM rows that follow each other may be joined: not where their order or place differs.
JOINS: dict[str, When] = {
    "load": (("pack", (1,)), ("fill", (0,)), ("gather", (0,)), ("xpose", (0,))),
    "store": (("dest", (Dest.DRAM,)), ("pool", (0,)), ("scatter", (0,)), ("xpose", (0,))),
}


def joined(spec: Spec, values: Mapping[str, int]) -> bool:
    """Whether rows of dimension 1 follow each other in DRAM without a gap, and so share beats."""
    run = values["c0"] * DRAM[spec.name].sizes[values[DRAM[spec.name].kind]]
    return values["c1"] > 1 and values["s1"] == run and _holds(JOINS[spec.name], values)


def derived(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> dict[str, int]:
    """Counts that follow from the fields.

    LOAD: `row_elems`, `units`, `runs` (steps of l1; a transposed block is one), `rows` (of s1:
    those that an index may name), `pairs` (of granules that hold gather indices), `joined`.
    MATMUL: `rows`, `kblocks`, `nblocks`. STORE: `units`, `vectors` (how many are enabled), `reads`
    (steps of l0: units, or elements of a transposed row), `in1` and `in2` (steps of l1 and l2: c1,
    c2, the grid that max-pool reads, or blocks of transposed rows), `window` (rows read for each
    row written), `span1` (rows of dimension 1 that may be written), `index_pairs` (pairs of
    granules that hold scatter indices), `joined`. VECTOR: `units` (of a row), `kernel_rows` (of
    micro-operations). LOAD and STORE: `deep` (rows of more than one dimension). Always `dim`.
    """
    out = {"dim": config.dim, **_modes(spec, values)}
    for name, factor, when in PRODUCTS.get(spec.name, ()):
        start = out.get(name, values[PRODUCT_BASE[name]])
        out[name] = start * (values[factor] if _holds(when, values) else 1)
    if spec.name == "load":
        xpose = values["xpose"]
        units = _blocks(out["row_elems"], unit_elements(config, values))
        out["units"] = values["c0"] if xpose else units
        out["rows"] = named_rows(values)
        out["pairs"] = _blocks(values["c1"], config.dim // 2)
        out["runs"] = _blocks(values["c1"], config.dim) if xpose else values["c1"]
        out["joined"] = int(joined(spec, values))
    elif spec.name == "matmul":
        out["kblocks"] = _blocks(values["k"], config.dim)
        out["nblocks"] = _blocks(values["n"], config.dim)
    elif spec.name == "store":
        out["units"] = _blocks(values["c0"], config.dim)
        out["reads"] = values["c0"] if values["xpose"] else out["units"]
        out["in1"], out["in2"], out["window"] = values["c1"], values["c2"], 1
        if values["xpose"]:
            out["in1"] = _blocks(values["c1"], config.dim)
        if values["pool"]:
            out["in1"] = (values["c1"] - 1) * values["pool_sw"] + values["pool_w"]
            out["in2"] = (values["c2"] - 1) * values["pool_sh"] + values["pool_h"]
            out["window"] = values["pool_h"] * values["pool_w"]
        out["span1"] = _span1(values)
        out["index_pairs"] = _blocks(values["c1"], config.dim // 2)
        out["joined"] = int(joined(spec, values))
    elif spec.name == "vector":
        out["units"] = _blocks(values["cols"], config.dim)
        words = sum(values[n] for n in SECTIONS)
        out["kernel_rows"] = _blocks(words, 4 * config.dim // WORD_BYTES)
    return out


def _spread(terms: Iterable[Term], v: Mapping[str, int]) -> tuple[int, int]:
    """Lowest and highest offset that the terms reach."""
    lo = hi = 0
    for term in terms:
        if _holds(term.when, v):
            stride = term.stride if isinstance(term.stride, int) else v[term.stride]
            reach = (v[term.count] - 1) * stride
            lo, hi = lo + min(reach, 0), hi + max(reach, 0)
    return lo, hi


def _span(operand: Operand, v: Mapping[str, int]) -> int:
    return 2 if operand.pair is not None and _holds(operand.pair, v) else 1


def _mem(operand: Operand, v: Mapping[str, int]) -> Mem:
    return operand.mem if isinstance(operand.mem, Mem) else Mem(v[operand.mem])


def extents(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> list[Extent]:
    """Every local operand of an instruction with resolved values which keep the rules."""
    v = {**values, **derived(config, spec, values)}
    out = []
    for o in OPERANDS.get(spec.name, ()):
        if _holds(o.when, v):
            lo, hi = _spread(o.terms, v)
            base = v[o.base]
            out.append(Extent(o.name, o.access, _mem(o, v), base + lo, base + hi + _span(o, v) - 1))
    return out


def pass_offsets(config: ChipConfig, values: Mapping[str, int]) -> dict[str, int]:
    """`a_lo`, `a_hi`, `w_lo`, `w_hi` of `hw.payload`: one pass's granules, alike in all passes."""
    spec = INSTRUCTIONS["matmul"]
    v = {**values, **derived(config, spec, values)}
    out = {}
    for o in OPERANDS["matmul"][:2]:
        lo, hi = _spread(o.terms[: o.per_pass], v)
        out[f"{o.name}_lo"], out[f"{o.name}_hi"] = lo, hi + _span(o, v) - 1
    return out


def pass_extents(
    config: ChipConfig, values: Mapping[str, int], kb: int, nb: int
) -> tuple[Extent, Extent, Extent]:
    """A, W and C of one MATMUL pass (K-block `kb`, N-block `nb`)."""
    off = pass_offsets(config, values)
    a = values["a"] + kb * values["ak"]
    w = values["w"] + kb * values["wk"] + nb * values["wn"]
    c = values["c"] + nb * values["cn"]
    return (
        Extent("a", "r", Mem.SPAD, a + off["a_lo"], a + off["a_hi"]),
        Extent("w", "r", Mem.SPAD, w + off["w_lo"], w + off["w_hi"]),
        Extent("c", "rw", Mem.ACC, c, c + values["r0"] * values["r1"] - 1),
    )


def bank_masks(config: ChipConfig, items: Iterable[Extent]) -> tuple[int, int, int, int]:
    """Ports wanted, one bit per bank: scratchpad read, write, accumulator read, write."""
    masks = {(m, a): 0 for m in Mem for a in "rw"}
    for e in items:
        bank = config.spad_bank if e.mem == Mem.SPAD else config.acc_bank
        first, last = e.lo // bank, e.hi // bank
        for a in e.access:
            masks[e.mem, a] |= (2 << last) - (1 << first)
    return (
        masks[Mem.SPAD, "r"],
        masks[Mem.SPAD, "w"],
        masks[Mem.ACC, "r"],
        masks[Mem.ACC, "w"],
    )


def check_range(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> None:
    """Check that counts fit the chip's counters and that each operand stays in its memory.

    Raises
    ------
    IllegalInstruction
        With `Fault.RANGE`; names the operand, its lowest and highest row, and the memory's size.
    """
    counts = derived(config, spec, values)
    for name, limit in [(n, MAX_COUNT) for n in ("row_elems", "rows", "in1", "in2")]:
        if counts.get(name, 0) > limit:
            raise IllegalInstruction(
                Fault.RANGE, f"{spec.name}: {name} must be at most {limit}, not {counts[name]}"
            )
    blocks = XPOSE_BLOCKS if spec.name == "load" else 1
    if values.get("xpose") and values["c0"] > blocks * config.dim:
        most = f"{blocks} * dim" if blocks > 1 else "dim"
        raise IllegalInstruction(
            Fault.RANGE,
            f"{spec.name}: c0 must be at most {most} ({blocks * config.dim}) with xpose, "
            f"not {values['c0']}",
        )
    if values.get("gather") and values["s1"] % config.bus_bytes:
        raise IllegalInstruction(
            Fault.RANGE,
            f"{spec.name}: s1 must be a multiple of bus_bytes ({config.bus_bytes}) with gather, "
            f"not {values['s1']}",
        )
    if counts.get("vectors") and counts["units"] > STORE_VECTOR_UNITS:
        raise IllegalInstruction(
            Fault.RANGE,
            f"{spec.name} with ibias, scale or bias must have at most {STORE_VECTOR_UNITS} units "
            f"(column blocks) in a row, not {counts['units']}",
        )
    if values.get("scatter") and values["s1"] % config.bus_bytes:
        raise IllegalInstruction(
            Fault.RANGE,
            f"{spec.name}.s1 must be a multiple of bus_bytes ({config.bus_bytes}) with scatter, "
            f"not {values['s1']}",
        )
    for e in extents(config, spec, values):
        size = config.spad_granules if e.mem == Mem.SPAD else config.acc_rows
        if e.lo < 0 or e.hi >= size:
            what = "scratchpad granules" if e.mem == Mem.SPAD else "accumulator rows"
            raise IllegalInstruction(
                Fault.RANGE,
                f"{spec.name}.{e.operand} must stay in {what} 0 to {size - 1}, "
                f"not {e.lo} to {e.hi}",
            )


def dram_extent(spec: Spec, values: Mapping[str, int]) -> tuple[str, int, int] | None:
    """(access, first byte, last byte) of the DRAM operand, or None if there is none."""
    o = DRAM.get(spec.name)
    if o is None or not _holds(o.when, values):
        return None
    counts = {"span1": _span1(values)} if spec.name == "store" else {"rows": named_rows(values)}
    lo, hi = _spread(o.terms, {**values, **counts})
    base, run = values[o.base], values["c0"] * o.sizes[values[o.kind]]
    return o.access, base + lo, base + hi + run - 1


def check_window(name: str, low: int, high: int, window: tuple[int, int]) -> None:
    """Check that DRAM bytes `low` to `high` lie in the window.

    Raises
    ------
    IllegalInstruction
        With `Fault.WINDOW`.
    """
    if low < window[0] or high > window[1]:
        raise IllegalInstruction(
            Fault.WINDOW,
            f"{name}: DRAM bytes must stay in {window[0]:#x} to {window[1]:#x}, "
            f"not {low:#x} to {high:#x}",
        )
