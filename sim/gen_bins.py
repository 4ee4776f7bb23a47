"""What a program covers, as names of bins; the fuzzer prints which were hit.

For each unit's instruction its mode, crossed with alignment, raggedness, semaphore pattern and port
conflict (an instruction of another unit close before it wants a port of the same bank); besides,
edges between units, register operands, scalar instructions, control flow and faults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, product

from tilewright.isa.config import LINE_INSTRS, LINES, QUEUE_DEPTH, ChipConfig
from tilewright.isa.extent import bank_masks, derived, extents, unit_elements
from tilewright.isa.micro import OPERATIONS, SOURCES, WORD_BYTES, decode_micro
from tilewright.isa.micro_rules import sources
from tilewright.isa.program import Program
from tilewright.isa.table import (
    CONV_BYTES,
    INSTRUCTIONS,
    TYPE_BYTES,
    Conv,
    Dest,
    Fault,
    Mem,
    Oob,
    Type,
)
from tilewright.isa.table import Unit as U
from tilewright.isa.timing import VECTOR_ROWS, load_drain
from tilewright.isa.units import LACKS, SECTIONS, STREAMS
from tilewright.sim.functional import Executed, Machine
from tilewright.sim.gen_modes import LOAD_MODES, STORE_SOURCES, XPOSED
from tilewright.sim.gen_sync import EDGES
from tilewright.sim.gen_vector import KINDS
from tilewright.sim.memory import Memory

NEAR = 4  # instructions before one that may still hold its ports
_PORTS = ("spad_read", "spad_write", "acc_read", "acc_write")
_SEM = ("free", "one_wait", "two_waits", "take_many", "read_done", "done", "both_signals")
_RAGGED = ("whole", "ragged")
_SPACING = ("touch", "gap", "overlap")  # of max-pool's windows; -1 is the last
_ALIGN = ("bus", "offset")
_COUNT = ("one", "several")
_LENGTH = ("short", "long")
_WAYS = ("long", "short")  # through STORE's epilogue
_TURN = ("at_once", "waits")
_MANY = 20  # words of a section that is not long
_SLOTS = ("none", "load", "store", "load_store")
_FAULTS = (
    Fault.OPCODE, Fault.FIELD, Fault.UNIMPLEMENTED, Fault.RANGE, Fault.WINDOW, Fault.PC,
)  # fmt: skip


def _load_mode(v: Mapping[str, int]) -> str:
    kind = next((x for x in ("fill", "xpose", "gather") if v[x]), "copy")
    return f"load/{Mem(v['mem']).name}-{Conv(v['conv']).name}-{kind}".lower()


def _matmul_mode(v: Mapping[str, int]) -> str:
    how = "add" if v["acc"] else "over"
    return f"matmul/{Type(v['a_type']).name}-{Type(v['w_type']).name}-{how}".lower()


def _store_mode(v: Mapping[str, int]) -> str:
    source = f"{Mem(v['mem']).name}-{Type(v['type']).name}"
    return f"store/{source}-{Dest(v['dest']).name}".lower()


_MODE: dict[str, Callable[[Mapping[str, int]], str]] = {
    "load": _load_mode,
    "matmul": _matmul_mode,
    "vector": lambda v: "vector/run",
    "store": _store_mode,
}


def _align(name: str, address: int, element: int, bus: int, rest: str) -> Iterator[str]:
    """Alignment to the bus, and elements that straddle their natural alignment."""
    mode = name.split("/")[0]
    yield f"{name}/{'offset' if address % max(element, bus) else 'bus'}/{rest}"
    if address % element:
        yield f"{mode}/unaligned_element/{element}"


def _strides(v: Mapping[str, int], run: int) -> Iterator[str]:
    for i in "123":
        if "s" + i in v and v["c" + i] > 1:
            s = v["s" + i]
            yield (
                "zero" if s == 0 else "negative" if s < 0 else "overlap" if s < run
                else "dense" if s == run else "gap"
            )  # fmt: skip
            run = max(run, abs(s) * v["c" + i])


def _load(config: ChipConfig, v: Mapping[str, int], mode: str) -> Iterator[str]:
    count = derived(config, INSTRUCTIONS["load"], v)
    last = count["row_elems"] % unit_elements(config, v)
    last = count["sequence"] % config.dim if v["xpose"] else last
    ragged = _RAGGED[last > 0]
    yield f"{mode}/pack{v['pack']}/{ragged}"
    if not v["fill"]:
        size = CONV_BYTES[Conv(v["conv"])]
        how = mode.rsplit("-", 1)[1]
        name, rest = (mode, ragged) if how == "copy" else (f"load/{how}", "any")
        yield from _align(name, v["dram"], size, config.bus_bytes, rest)
        yield from (f"load/stride/{s}" for s in _strides(v, size * v["c0"]))
    if v["xpose"]:
        length = _LENGTH[v["c0"] > config.dim]
        yield f"load/xpose/{length}/{_RAGGED[v['c0'] % config.dim > 0]}/{ragged}"
        if v["pack"] > 1:  # the i2 of one block
            several = v["c1"] % config.dim > 0 and count["sequence"] > v["c1"]
            yield f"load/xpose/pack{v['pack']}/{_COUNT[several]}"
            for name in LACKS[: 2 * v["pack"] - 2]:
                yield f"load/xpose/pack{v['pack']}/{name}/{min(v[name], 2)}"
            if v["pack"] == 2 and count["partial"]:  # alike for each i3
                yield f"load/xpose/partial/{_COUNT[v['c3'] > 1]}"
    if v["gather"]:
        yield f"load/gather/{Oob(v['oob']).name}".lower()
    if count["joined"]:
        yield from _joined_runs(config, v, mode, count["units"])
    if count["paired"]:
        rows = v["l1"] % 2
        both = (v["c1"] if rows else count["units"]) % 2 == 0
        yield f"load/paired/{'rows' if rows else 'units'}/{_RAGGED[not both]}"
        yield f"load/paired/{'rows' if rows else 'units'}/{_COUNT[v['c2'] * v['c3'] > 1]}"


def _joined_runs(config: ChipConfig, v: Mapping[str, int], mode: str, units: int) -> Iterator[str]:
    """Where runs that follow each other begin; whether one has fewer new beats than units."""
    bus, run = config.bus_bytes, v["s1"]
    yield f"{mode}/joined"
    yield f"load/joined/{_ALIGN[v['dram'] % bus > 0]}"
    yield f"load/joined/{_COUNT[v['c2'] * v['c3'] > 1]}"
    starts = (v["dram"] + i * run for i in range(v["c1"]))
    spare = any((a % bus > 0) + units > -(-(a % bus + run) // bus) for a in starts)
    yield f"load/joined/{_LENGTH[not spare]}"


def _matmul(config: ChipConfig, v: Mapping[str, int], mode: str) -> Iterator[str]:
    k, n = _RAGGED[v["k"] % config.dim > 0], _RAGGED[v["n"] % config.dim > 0]
    yield f"{mode}/k_{k}/n_{n}"
    rows, count = "two_level" if v["r1"] > 1 and v["r0"] > 1 else "one_level", v["r0"] * v["r1"]
    length = "single" if count == 1 else "short" if count <= config.dim else "long"
    yield f"matmul/rows/{rows}/{length}"


def _store(config: ChipConfig, v: Mapping[str, int], mode: str) -> Iterator[str]:
    ragged, out = _RAGGED[v["c0"] % config.dim > 0], Type(v["out"]).name.lower()
    yield f"{mode}-{out}/{ragged}"
    if v["dest"] == Dest.DRAM:
        size = TYPE_BYTES[Type(v["out"])]
        yield from _align(mode, v["dst"], size, config.bus_bytes, ragged)
        yield from (f"store/stride/{s}" for s in _strides(v, size * v["c0"]))
        yield from _joined(config, v, out, size * v["c0"])
    source = Type(v["type"]).name.lower()
    if v["scatter"]:
        yield f"{mode}-{out}/scatter"
        yield f"store/scatter/{'pool' if v['pool'] else 'rows'}"
    if v["xpose"]:
        yield f"{mode}-{out}/xpose"
        blocks = "blocks" if v["c1"] > config.dim else "block"
        length = "long" if v["c0"] > config.dim else "short"
        yield f"store/xpose/{length}/{blocks}/{_RAGGED[v['c1'] % config.dim > 0]}"
    if v["pool"]:
        yield f"{mode}-{out}/pool"
        for window, step in (("pool_w", "pool_sw"), ("pool_h", "pool_sh")):
            yield f"store/{window}/{_SPACING[(v[window] < v[step]) - (v[window] > v[step])]}"
    names = [x for x in ("int_path", "ibias", "scale", "bias", "clamp", "zp") if v[x]]
    yield from (f"store/epilogue/{source}/{x}" for x in names or ["plain"])


def _joined(config: ChipConfig, v: Mapping[str, int], out: str, run: int) -> Iterator[str]:
    """Rows that follow each other in DRAM: whether they share beats, fill none, have many units."""
    if derived(config, INSTRUCTIONS["store"], v)["joined"]:
        bus = config.bus_bytes
        yield f"store/joined/{out}/{'shared' if run % bus or v['dst'] % bus else 'whole'}"
        yield f"store/joined/{_LENGTH[run > bus]}"
        way = "xpose" if v["xpose"] else "units"
        yield f"store/joined/{way}/{_COUNT[v['c0'] > config.dim]}"


def _vector(config: ChipConfig, v: Mapping[str, int], mode: str) -> Iterator[str]:
    yield f"vector/cols/{_RAGGED[v['cols'] % config.dim > 0]}"
    yield f"vector/units/{_COUNT[v['cols'] > config.dim]}"
    yield f"vector/groups/{_COUNT[v['rows'] > VECTOR_ROWS]}"
    lengths = ((s, v[s] > _MANY) for s in SECTIONS if v[s])
    yield from (f"vector/section/{s}/{_LENGTH[long]}" for s, long in lengths)
    place = {}
    for s in STREAMS:
        if v[f"{s}_on"]:
            yield f"vector/{s}/{Mem(v[f'{s}_mem']).name}-{Type(v[f'{s}_type']).name}".lower()
            place[s] = tuple(v[f"{s}{f}"] for f in ("_mem", "", "_row", "_unit"))
        else:
            yield f"vector/{s}/off"
    if place.get("x") == place.get("o") is not None:
        yield "vector/in_place"


def _micro(kernels: set[bytes]) -> Iterator[str]:
    """The words of micro-kernels: operations, other sources than registers, slots."""
    for data in kernels:
        for i in range(0, len(data), WORD_BYTES):
            op = decode_micro(data[i : i + WORD_BYTES])
            yield f"micro/op/{op.name}"
            names = {number: name for name, number in SOURCES.items()}
            yield from (f"micro/source/{names[s]}" for s in sources(op) if s in names)
            load, store = bool(op.values["load"]), bool(op.values["store"])
            yield f"micro/slots/{_SLOTS[load + 2 * store]}"
            if load and op.name != "nop" and op.values["load_dst"] == op.values["dst"]:
                yield "micro/both_write"


_OWN = {"load": _load, "matmul": _matmul, "vector": _vector, "store": _store}


def _pattern(v: Mapping[str, int]) -> Iterator[str]:
    """Semaphore patterns of an instruction."""
    waits = [v["wait0_n"], v["wait1_n"]]
    used, signals = sum(n > 0 for n in waits), v["rd_en"] + 2 * v["done_en"]
    if used:
        yield ("one_wait", "two_waits")[used - 1]
    if max(waits) > 1:
        yield "take_many"
    if signals:
        yield ("read_done", "done", "both_signals")[signals - 1]
    if not used and not signals:
        yield "free"


def _conflicts(masks: tuple[int, ...], unit: U, near: list[tuple[U, tuple[int, ...]]]) -> list[str]:
    """Ports that this instruction shares with other units' instructions close before it."""
    return [
        port
        for port, mine, *others in zip(
            _PORTS, masks, *(m for u, m in near if u is not unit), strict=True
        )
        if any(mine & o for o in others)
    ]


class _Edges:
    """Which edge each wait belongs to: who signals what to whom."""

    def __init__(self) -> None:
        self.source: dict[int, str] = {}
        self.credits: set[int] = set()

    def see(self, e: Executed) -> Iterator[str]:
        v, unit = e.values, e.unit.name.lower()
        waits = [v["wait0"], v["wait1"]] if e.unit is not U.SEQ else [v.get("sem")] * 2
        counts = [v.get("wait0_n", 0), v.get("wait1_n", 0)]
        if e.unit is U.SEQ and e.name == "wait":
            counts = [v["n"], 0]
        for sem, n in zip(waits, counts, strict=True):
            if n and sem in self.source:
                yield f"edge/{self.source[sem]}/{unit}"
            if n and sem in self.credits:
                yield "edge/credits"
        if e.unit is U.SEQ:
            if e.name == "post":
                self.credits.add(v["sem"])
                self.source.setdefault(v["sem"], "seq-post")
            return
        for kind in ("rd", "done"):
            if v[kind + "_en"]:
                self.source[v[kind + "_sem"]] = f"{unit}-{kind}"


def _control(trace: list[Executed]) -> Iterator[str]:
    """Scalar instructions, branches both ways, loops, a full queue."""
    run, unit, loop = 0, None, None
    for e, following in zip(trace, [*trace[1:], None], strict=True):
        if e.unit is not U.SEQ:
            run, unit = run + 1 if e.unit is unit else 1, e.unit
            if run > QUEUE_DEPTH + 1:
                yield "control/full_queue"
            continue
        yield f"scalar/{e.name}"
        if "target" in e.values and following is not None and e.name != "jmp":
            taken = following.pc != e.pc + 1
            yield f"control/{e.name}/{'taken' if taken else 'not_taken'}"
            if following.pc < e.pc:
                fits = e.pc // LINE_INSTRS - following.pc // LINE_INSTRS < LINES
                yield f"control/loop/{'fits' if fits else 'too_long'}"
                inner = loop is not None and loop[0] <= following.pc and e.pc < loop[1]
                if inner:
                    yield "control/loop/nested"
                else:
                    loop = following.pc, e.pc


def _drains(config: ChipConfig, loads: list[Mapping[str, int]]) -> Iterator[str]:
    """LOADs that come behind one that transposes."""
    for first, v in pairwise(loads):
        if first["xpose"]:
            hidden = -(-v["c0"] // config.dim) * config.dim  # it may begin at once, or waits
            length = _LENGTH[hidden >= load_drain(first["c0"])]
            yield f"load/drain/{f'xpose_{length}' if v['xpose'] else 'plain'}"


def _ways(config: ChipConfig, stores: list[Mapping[str, int]]) -> Iterator[str]:
    """STOREs behind each other: the way of each through the epilogue, what the second waits for."""
    ways = [_WAYS[derived(config, INSTRUCTIONS["store"], v)["short"]] for v in stores]
    for (first, way), v in zip(pairwise(ways), stores[1:], strict=True):
        yield f"store/{way}_after_{first}/{Dest(v['dest']).name}".lower()
        yield f"store/{way}_after_{first}/{_TURN[v['wait0_n'] + v['wait1_n'] > 0]}"


def bins(program: Program) -> set[str]:
    """All bins that the executed trace of a program hits."""
    memory = Memory(program.dram_size)
    for address, content in program.data:
        memory.write(address, content)
    config = program.config
    window = (0, program.dram_size - 1)
    machine = Machine(config, memory, window=window)
    execution = machine.run(program.code)
    trace, out = execution.executed, set(_micro(machine.kernels))
    if execution.fault is not None:
        out.add(f"fault/{execution.fault.code.name.lower()}")
        trace = trace if execution.fault.code == Fault.PC else trace[:-1]
    out.update(_control(trace))
    edges, near = _Edges(), list[tuple[U, tuple[int, ...]]]()
    out.update(_drains(config, [e.values for e in trace if e.name == "load"]))
    out.update(_ways(config, [e.values for e in trace if e.name == "store"]))
    for e in trace:
        name = e.name
        out.update(edges.see(e))
        out.update(f"{name}/register" for _ in e.decoded.regs)
        if name not in _OWN:
            continue
        mode, v = _MODE[name](e.values), e.values
        out.update(_OWN[name](config, v, mode))
        short = mode.rsplit("-", 1)[0]  # without fill, accumulate, destination
        out.update(f"{short}/{p}" for p in _pattern(v))
        masks = bank_masks(config, extents(config, e.decoded.spec, v))
        ports = _conflicts(masks, e.unit, near)
        out.update(f"{name}/port/{p}" for p in ports)
        out.add(f"{short}/port_{'conflict' if ports else 'free'}")
        near = [*near, (e.unit, masks)][-NEAR:]
    return out


def _all() -> Iterator[str]:
    loads = [
        f"load/{mem.name}-{conv.name}-{kind}".lower()
        for (mem, conv), kind in product(LOAD_MODES, ("copy", "fill", "gather"))
    ] + [f"load/{mem.name}-{conv.name}-xpose".lower() for mem, conv in XPOSED]
    pairs = [
        (a, w)
        for a, w in product(("i8", "u8", "bf16"), repeat=2)
        if (a == w) or "bf16" not in (a, w)
    ]
    matmuls = [f"matmul/{a}-{w}-{how}" for (a, w), how in product(pairs, ("over", "add"))]
    stores = [
        f"store/{mem.name}-{kind.name}-{dest.name}".lower()
        for (mem, kind), dest in product(STORE_SOURCES, Dest)
    ]
    yield from _all_vector()
    modes = *loads, *matmuls, "vector/run", *stores
    for mode in dict.fromkeys(m.rsplit("-", 1)[0] for m in modes):
        yield from (f"{mode}/{p}" for p in (*_SEM, "port_free", "port_conflict"))
    for mode, ragged in product(loads, _RAGGED):
        yield from (f"{mode}/pack{p}/{ragged}" for p in (1, 2, 3))
        if mode.endswith("copy"):
            yield from (f"{mode}/{a}/{ragged}" for a in _ALIGN)
            yield f"{mode}/joined"
    yield from (f"load/joined/{x}" for x in (*_ALIGN, *_COUNT, *_LENGTH))
    yield from (f"load/paired/{x}/{y}" for x in ("rows", "units") for y in (*_RAGGED, *_COUNT))
    yield from (f"load/gather/{oob.name}".lower() for oob in Oob)
    for length, part, block in product(("short", "long"), _RAGGED, _RAGGED):
        yield f"load/xpose/{length}/{part}/{block}"
    yield from (f"load/xpose/pack{p}/{x}" for p in (2, 3) for x in _COUNT)
    for pack, name, lacked in product((2, 3), LACKS, range(3)):
        if pack == 3 or name in LACKS[:2]:
            yield f"load/xpose/pack{pack}/{name}/{lacked}"
    yield from (f"load/xpose/partial/{x}" for x in _COUNT)
    yield from (f"load/drain/{x}" for x in ("plain", "xpose_long", "xpose_short"))
    yield from (f"load/{how}/{a}/any" for how, a in product(("xpose", "gather"), _ALIGN))
    for mode, k, n in product(matmuls, _RAGGED, _RAGGED):
        yield f"{mode}/k_{k}/n_{n}"
    for levels, length in product(("one_level", "two_level"), ("short", "long")):
        yield f"matmul/rows/{levels}/{length}"
    yield "matmul/rows/one_level/single"
    for mode, ragged in product(stores, _RAGGED):
        outs = Type if mode.endswith("dram") else (Type.I8, Type.U8, Type.BF16)
        ways = ragged, "pool", "xpose"
        yield from (f"{mode}-{out.name.lower()}/{x}" for out in outs for x in ways)
        if mode.endswith("dram"):
            yield from (f"{mode}/{a}/{ragged}" for a in _ALIGN)
    yield from (f"store/{x}/{s}" for x, s in product(("pool_w", "pool_h"), _SPACING))
    yield from (f"store/scatter/{x}" for x in ("rows", "pool"))
    for way, first in product(_WAYS, repeat=2):
        yield from (f"store/{way}_after_{first}/{x}" for x in ("dram", "spad", *_TURN))
    for out, how in product(Type, ("shared", "whole")):
        yield f"store/joined/{out.name.lower()}/{how}"
    yield from (f"store/joined/{x}" for x in _LENGTH)
    yield from (f"store/joined/{way}/{x}" for way, x in product(("units", "xpose"), _COUNT))
    for length, block, part in product(("short", "long"), ("block", "blocks"), _RAGGED):
        yield f"store/xpose/{length}/{block}/{part}"
    for mode, out in product((x for x in stores if x.endswith("dram")), Type):
        yield f"{mode}-{out.name.lower()}/scatter"
    for source in ("i8", "u8", "i32", "f32", "bf16"):
        whole = ("int_path", "ibias") if source in ("i8", "u8", "i32") else ()
        for x in (*whole, "scale", "bias", "clamp", "zp", "plain"):
            yield f"store/epilogue/{source}/{x}"
    yield from (f"{n}/unaligned_element/{e}" for n, e in product(("load", "store"), (2, 4)))
    for name, kind in product(("load", "store"), ("zero", "negative", "overlap", "dense", "gap")):
        yield f"{name}/stride/{kind}"
    for name, ports in (("load", (_PORTS[0], *_PORTS[1::2])),
                        ("matmul", (*_PORTS[::2], "acc_write")),
                        ("vector", _PORTS), ("store", _PORTS[:3])):  # fmt: skip
        yield from (f"{name}/port/{p}" for p in ports)
    for signaller, kind, waiter in EDGES:
        yield f"edge/{signaller.name}-{kind}/{waiter.name}".lower()
    yield "edge/credits"
    scalars = [s.name for s in INSTRUCTIONS.values() if s.unit is U.SEQ]
    yield from (f"scalar/{s}" for s in scalars)
    yield from (f"{s}/register" for s in (*_OWN, *scalars) if INSTRUCTIONS[s].reg_bit)
    for name, way in product(("beq", "bne", "blt", "bge"), ("taken", "not_taken")):
        yield f"control/{name}/{way}"
    yield from (f"control/loop/{x}" for x in ("fits", "too_long", "nested"))
    yield "control/full_queue"
    yield from (f"fault/{f.name.lower()}" for f in _FAULTS)


def _all_vector() -> Iterator[str]:
    """Bins of VECTOR and of micro-kernels."""
    for name, ways in (("cols", _RAGGED), ("units", _COUNT), ("groups", _COUNT)):
        yield from (f"vector/{name}/{w}" for w in ways)
    yield from (f"vector/section/{s}/{w}" for s, w in product(SECTIONS, _LENGTH))
    for stream in STREAMS:
        yield from (f"vector/{stream}/{mem.name}-{kind.name}".lower() for mem, kind in KINDS)
    yield from (f"vector/{s}/off" for s in STREAMS if s not in "xo")
    yield from ("vector/in_place", "micro/both_write")
    yield from (f"micro/op/{name}" for name in OPERATIONS)
    yield from (f"micro/source/{name}" for name in SOURCES)
    yield from (f"micro/slots/{name}" for name in _SLOTS)


ALL_BINS = tuple(dict.fromkeys(_all()))


def all_bins(config: ChipConfig) -> list[str]:
    """The bins that a program for this geometry can hit."""
    lacking = "fault/unimplemented" if config.array == "bf16" else "matmul/bf16"
    out = [b for b in ALL_BINS if not b.startswith(lacking)]
    if config.dim > 2:
        return out
    # a scratchpad unit of 4-byte elements is one element; two times two rows are more than dim
    return [
        b
        for b in out
        if not (b.startswith("load/spad-copy32-") and b.endswith("/ragged"))
        and b != "matmul/rows/two_level/short"
    ]
