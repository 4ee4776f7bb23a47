"""Which local rows and DRAM bytes an instruction touches, from its fields alone.

`isa.extent_table` has the operands as data. Port masks, range and window checks and the checker's
races use the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from tilewright.isa.config import STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.extent_table import (
    DRAM,
    JOINS,
    LACKED,
    LOCAL_BYTES,
    OPERANDS,
    PAIRS,
    PARTS,
    PRODUCT_BASE,
    PRODUCTS,
    SHORT,
    Operand,
    Term,
)
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import INSTRUCTIONS, Conv, Fault, Mem, Spec, When
from tilewright.isa.units import LACKS, SECTIONS

#: Of row elements, of runs of a sequence, of matmul rows, of input rows of a pool's dimension.
MAX_COUNT = 65535


@dataclass(frozen=True)
class Extent:
    """Inclusive range of granules (scratchpad) or rows (accumulator) of one operand."""

    operand: str
    access: str
    mem: Mem
    lo: int
    hi: int


#: First and last byte of the window that a program's DMA may touch, if the host sets no other.
EVERYTHING = (0, (1 << 32) - 1)


def _modes(spec: Spec, values: Mapping[str, int]) -> dict[str, int]:
    """What decides, besides the fields, about an instruction's operands."""
    if spec.name == "load":
        deep = int(values["c2"] != 1 or values["c3"] != 1)
        partial = int(any(values[n] for n in LACKS))
        return {"deep": deep, "inside": values["pack"] + values["xpose"], "partial": partial}
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


def joined(spec: Spec, values: Mapping[str, int]) -> bool:
    """Whether rows of dimension 1 follow each other in DRAM without a gap, and so share beats."""
    run = values["c0"] * DRAM[spec.name].sizes[values[DRAM[spec.name].kind]]
    return values["c1"] > 1 and values["s1"] == run and _holds(JOINS[spec.name], values)


def lacks(values: Mapping[str, int]) -> tuple[int, int]:
    """Runs that a LOAD's sequence lacks at its start and at its end."""
    start, end = (values[more] + values[n] * values[factor] for n, factor, more in LACKED)
    return start, end


def _between(
    dims: tuple[tuple[int, int], ...], first: int, end: int
) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
    """Boxes of runs `first` to `end` - 1, counted through all of `dims`, innermost first."""
    *inner, (_, stride) = dims
    size = prod(n for n, _ in inner)
    low, high = -(-first // size), end // size  # whole steps of the last dimension
    if low > high:  # inside of one
        parts = [(high, first - high * size, end - high * size)]
    else:
        parts = [(low - 1, first - (low - 1) * size, size)] if first % size else []
        if low < high:
            yield low * stride, (*inner, (high - low, stride))
        parts += [(high, 0, end - high * size)] if end % size else []
    for step, a, b in parts:
        for offset, box in _between(tuple(inner), a, b):
            yield step * stride + offset, box


def boxes(values: Mapping[str, int]) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """The runs that a LOAD reads (with `gather`, of indices 0, 1, ...), as disjoint boxes.

    Each is an offset from `dram` and (count, stride) of dimensions. They are one, or, of a LOAD
    that lacks some runs, up to five.
    """
    dims = tuple((values[f"c{i}"], values[f"s{i}"]) for i in (1, 2, 3))
    skip, drop = lacks(values)
    if not skip and not drop:
        return [(0, dims)]
    inside, outer = dims[: values["pack"]], dims[values["pack"] :]
    runs = prod(n for n, _ in inside)
    return [(at, (*box, *outer)) for at, box in _between(inside, skip, runs - drop)]


def short(values: Mapping[str, int]) -> bool:
    """Whether a STORE goes the short way through the epilogue."""
    return any(_holds(when, values) for when in SHORT)


def paired(config: ChipConfig, values: Mapping[str, int]) -> bool:
    """Whether a joined LOAD writes words of two granules: of two short rows, or units of a row."""
    bus = config.bus_bytes
    rows = values["l1"] == 1 and values["c0"] < bus
    units = bus == config.dim and values["l0"] == 1 and values["l1"] % 2 == 0
    even = not any(values[n] % 2 for n in ("loc", "l2", "l3"))
    return even and (rows or units) and _holds(PAIRS, values)


def derived(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> dict[str, int]:
    """Counts that follow from the fields.

    LOAD: `row_elems`, `units`, `sequence` (runs that are transposed together), `lacked` (how many
    more its dimensions have), `partial` (some are), `inside` (how many dimensions, c0's among them,
    make a local row or a sequence), `runs` (steps of l1; a transposed block is one), `rows` (of s1:
    those that an index may name), `pairs` (of granules that hold gather indices), `joined`,
    `paired`. MATMUL: `rows`, `kblocks`, `nblocks`. STORE: `units`,
    `vectors` (how many are enabled), `reads` (steps of l0: units, or elements of a transposed row),
    `in1` and `in2` (steps of l1 and l2: c1, c2, the grid that max-pool reads, or blocks of
    transposed rows), `window` (rows read for each row written), `span1` (rows of dimension 1 that
    may be written), `index_pairs` (pairs of granules that hold scatter indices), `joined`, `short`
    (its way through the epilogue). VECTOR: `units` (of a row), `kernel_rows` (of micro-operations).
    LOAD and STORE: `deep` (rows of more than one dimension). Always `dim`.
    """
    out = {"dim": config.dim, **_modes(spec, values)}
    for name, factor, when in PRODUCTS.get(spec.name, ()):
        start = out.get(name, values[PRODUCT_BASE[name]])
        out[name] = start * (values[factor] if _holds(when, values) else 1)
    if spec.name == "load":
        xpose = values["xpose"]
        out["lacked"] = sum(lacks(values))
        out["sequence"] -= out["lacked"]
        units = _blocks(out["row_elems"], unit_elements(config, values))
        out["units"] = values["c0"] if xpose else units
        out["rows"] = named_rows(values)
        out["pairs"] = _blocks(values["c1"], config.dim // 2)
        runs = values["c1"] if values["pack"] == 1 else 1
        out["runs"] = _blocks(out["sequence"], config.dim) if xpose else runs
        out["joined"] = int(joined(spec, values))
        out["paired"] = int(out["joined"] and paired(config, values))
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
        out["short"] = int(short(values))
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


def _check_lacks(load: Mapping[str, int], left: int) -> None:
    for name in LACKS:
        count = f"c{name[-1]}"
        if load[name] >= load[count] and load[name]:
            raise IllegalInstruction(
                Fault.RANGE,
                f"load: {name} must be less than {count} ({load[count]}), not {load[name]}",
            )
    if left < 1:
        raise IllegalInstruction(
            Fault.RANGE, f"load: skip1, drop1, skip2 and drop2 must leave a run, not {left}"
        )


def check_range(config: ChipConfig, spec: Spec, values: Mapping[str, int]) -> None:
    """Check that counts fit the chip's counters and that each operand stays in its memory.

    Raises
    ------
    IllegalInstruction
        With `Fault.RANGE`; names the operand, its lowest and highest row, and the memory's size.
    """
    counts = derived(config, spec, values)
    lacked = counts.get("lacked", 0)
    for name in ("row_elems", "sequence", "rows", "in1", "in2"):
        count = counts.get(name, 0) + (lacked if name == "sequence" else 0)
        if count > MAX_COUNT:
            raise IllegalInstruction(
                Fault.RANGE, f"{spec.name}: {name} must be at most {MAX_COUNT}, not {count}"
            )
    if lacked:
        _check_lacks(values, counts["sequence"])
    most = XPOSE_BLOCKS * config.dim
    if values.get("xpose") and values["c0"] > most:
        raise IllegalInstruction(
            Fault.RANGE,
            f"{spec.name}: c0 must be at most {XPOSE_BLOCKS} * dim ({most}) with xpose, "
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
