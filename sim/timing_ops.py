"""What the timing model knows of an instruction: an `Op`, lowered once from its resolved fields.

An `Op` is small and holds no data: the sequencer's cycles, waits and signals, and the unit's `Work`
(slots, port masks, passes). Beats are counted in closed form: the offset of a run inside a beat is
periodic in every dimension, so a histogram of offsets is enough.

A port mask has 32 bits: scratchpad read, scratchpad write, accumulator read, accumulator write, one
bit for each of the 8 banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import gcd
from types import SimpleNamespace
from typing import Any

from tilewright.isa import timing as _timing
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.extent import (
    bank_masks,
    boxes,
    derived,
    extent_cycles,
    extents,
    pass_offsets,
    unit_elements,
)
from tilewright.isa.table import (
    CONV_BYTES,
    TYPE_BYTES,
    Conv,
    Dest,
    Fault,
    Spec,
    Type,
    Unit,
)
from tilewright.sim.scalar import word_beats

# What an Op does in EXEC.
PUSH, SCALAR, POST, WAIT, FENCE, HALT, LDW, STW, FAULT = range(9)
_KINDS = {"post": POST, "wait": WAIT, "fence": FENCE, "halt": HALT, "ldw": LDW, "stw": STW}
_BRANCHES = ("beq", "bne", "blt", "bge")
SPAD_READ, SPAD_WRITE, ACC_READ, ACC_WRITE = (i * BANKS for i in range(4))


@dataclass(frozen=True)
class Work:
    """A LOAD's, VECTOR's or STORE's slots and ports.

    `reads` are the ports that read_release frees, `rest` those that done frees, `mask` both.
    `local` is a LOAD that fills, a STORE to the scratchpad, or a VECTOR. `drain`: cycles after the
    slots of a LOAD that transposes, of a STORE that goes the long way; `hidden`: how many of
    another one's it needs not wait for.
    """

    slots: int
    reads: int
    rest: int
    local: bool
    drain: int = 0
    hidden: int = 0
    mask: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", self.reads | self.rest)


@dataclass(frozen=True)
class Passes:
    """A MATMUL's passes: rows of each, and by pass the banks of A, of W, and all ports.

    For each pass `masks` has its ports, `onward` the ports from it on, `alike` the first later pass
    with other ports, `clash` the first pass from it on whose W shares a bank with the A of the pass
    before, so that it waits for that one. `meets`: some pass's W shares one with its own A.
    """

    rows: int
    a: list[int]
    w: list[int]
    reads: list[int]
    rest: list[int]
    masks: list[int] = field(init=False, repr=False)
    onward: list[int] = field(init=False, repr=False)
    alike: list[int] = field(init=False, repr=False)
    clash: list[int] = field(init=False, repr=False)
    meets: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.a)
        masks = [x | y for x, y in zip(self.reads, self.rest, strict=True)]
        ports = list(zip(self.a, self.w, self.rest, strict=True))
        onward, alike, clash = masks[:], [count] * count, [count] * (count + 1)
        for i in range(count - 1, 0, -1):
            onward[i - 1] |= onward[i]
            alike[i - 1] = alike[i] if ports[i - 1] == ports[i] else i
            clash[i] = i if self.w[i] & self.a[i - 1] else clash[i + 1]
        clash[0] = clash[1]
        for name, value in (
            ("masks", masks), ("onward", onward), ("alike", alike), ("clash", clash),
            ("meets", any(a & w for a, w in zip(self.a, self.w, strict=True))),
        ):  # fmt: skip
            object.__setattr__(self, name, value)


class Op:
    """One executed instruction.

    `lead` is the number of cycles from the FETCH cycle that reads it to its first EXEC cycle.
    `target` is the pc that a taken branch goes to, else -1. `rd` and `done` are semaphores or -1.
    """

    __slots__ = (
        "done",
        "id",
        "kind",
        "lead",
        "n",
        "pc",
        "rd",
        "sem",
        "stage",
        "target",
        "unit",
        "waits",
        "work",
    )

    def __init__(
        self, number, pc, unit, kind, lead, work=None, waits=(), rd=-1, done=-1, sem=0, n=0,
        target=-1, stage="exec",
    ):  # fmt: skip
        self.id, self.pc, self.unit, self.kind, self.lead = number, pc, unit, kind, lead
        self.work, self.waits, self.rd, self.done = work, waits, rd, done
        self.sem, self.n, self.target, self.stage = sem, n, target, stage


def constants(config: ChipConfig, read_latency: int = 60, write_latency: int = 20) -> Any:
    """Every number of the contract for one geometry, as attributes by the contract's names."""
    names = {n: getattr(_timing, n) for n in dir(_timing) if n.isupper()}
    return SimpleNamespace(
        **names,
        dim=config.dim,
        LDW=_timing.ldw_latency(config.bus_bytes, read_latency),
        STW=_timing.stw_latency(write_latency),
        MATMUL_DONE=_timing.matmul_done(config.dim),
        read_latency=read_latency,
        write_latency=write_latency,
    )


def offsets_of(start: int, steps: Iterable[tuple[int, int]], bus: int) -> dict[int, int]:
    """How often each offset in a beat occurs at `start` + sum of i * stride, (count, stride) each.

    The offsets of a dimension repeat with period bus / gcd(stride, bus).
    """
    found = {start % bus: 1}
    for count, stride in steps:
        stride %= bus
        period = bus // gcd(stride, bus)
        if period == 1:
            found = {o: k * count for o, k in found.items()}
            continue
        spread: dict[int, int] = {}
        for o, k in found.items():
            for j in range(min(count, period)):
                at = (o + j * stride) % bus
                spread[at] = spread.get(at, 0) + k * ((count - j + period - 1) // period)
        found = spread
    return found


def beats(start: int, run: int, steps: Iterable[tuple[int, int]], bus: int) -> int:
    """Beats of `run` bytes at `start` + sum of i * stride, each (count, stride) of `steps`."""
    offsets = offsets_of(start, steps, bus)
    return sum(k * ((o + run + bus - 1) // bus) for o, k in offsets.items())


def joined_loads(
    start: int, run: int, units: int, steps: list[tuple[int, int]], bus: int, rows: int = 1
) -> int:
    """Slots of a LOAD's joined runs, `steps` of (i1, i2, i3): new beats, but at least `units`.

    `rows` runs count as one, except those that are left at the end.
    """
    count, single = divmod(steps[0][0], rows)
    total = 0
    for at, groups in offsets_of(start, steps[1:], bus).items():
        slots = int(at > 0)  # fetches the first beat
        for first, n, size in ((at, count, rows * run), (at + count * rows * run, single, run)):
            for o, k in offsets_of(first, [(n, size)], bus).items():
                slots += k * max((o + size + bus - 1) // bus - (o > 0), units)
        total += groups * slots
    return total


def joined_slots(v: Mapping[str, int], run: int, unit: int, bus: int) -> int:
    """Slots of a STORE's joined rows of `run` bytes, in units of `unit` bytes.

    A row that another follows takes a slot for each beat that ends in it, but at least those up to
    the slot that reads its last unit; the last row of an i2 takes those of all its beats.
    """
    rows, outer = v["c1"] - 1, (v["c2"], v["s2"])
    read = (run - 1) // unit * unit // bus + 1
    first = offsets_of(v["dst"], ((rows, run), outer), bus)
    slots = sum(k * max((o + run) // bus, read) for o, k in first.items())
    return slots + beats(v["dst"] + rows * run, run, (outer,), bus)


def _ports(config: ChipConfig, spec: Spec, v: Mapping[str, int]) -> tuple[int, int]:
    """Read ports and write ports of an instruction."""
    sr, sw, ar, aw = bank_masks(config, extents(config, spec, v))
    return sr << SPAD_READ | ar << ACC_READ, sw << SPAD_WRITE | aw << ACC_WRITE


def _load(config: ChipConfig, spec: Spec, v: Mapping[str, int]) -> Work:
    reads, rest = _ports(config, spec, v)
    if v["fill"]:
        per_row = -(-derived(config, spec, v)["row_elems"] // unit_elements(config, v))
        rows = v["c3"] * (v["c2"] if v["pack"] < 3 else 1) * (v["c1"] if v["pack"] < 2 else 1)
        return Work(rows * per_row, reads, rest, True)
    run = v["c0"] * CONV_BYTES[Conv(v["conv"])]
    steps = [(v[f"c{i}"], v[f"s{i}"]) for i in (1, 2, 3)]
    count = derived(config, spec, v)
    if count["joined"]:
        rows, units = 1, count["units"]
        if count["paired"]:  # of two rows, or two units of one, a word
            rows, units = (2, 1) if v["l1"] % 2 else (1, -(-units // 2))
        n = joined_loads(v["dram"], run, units, steps, config.bus_bytes, rows)
        return Work(n, reads, rest, False)
    n = sum(beats(v["dram"] + at, run, dims, config.bus_bytes) for at, dims in boxes(v))
    n += _timing.LOAD_GATHER * v["gather"]
    if not v["xpose"]:
        return Work(n, reads, rest, False)
    units = -(-v["c0"] // config.dim)
    sequences = (v["c2"] if v["pack"] < 2 else 1) * (v["c3"] if v["pack"] < 3 else 1)
    n += -count["sequence"] % config.dim * units * sequences  # rows of zeros complete the blocks
    drain = _timing.load_drain(v["c0"])
    return Work(n, reads, rest, False, drain, config.dim * units)


def _store(config: ChipConfig, spec: Spec, v: Mapping[str, int]) -> Work:
    reads, rest = _ports(config, spec, v)
    count = derived(config, spec, v)
    first = count["units"] * count["vectors"]
    first += count["units"] * (count["window"] - 1) * v["c1"] * v["c2"]
    if v["xpose"]:  # an i2's first block; the others are read while rows are sent
        first += count["reads"] * v["c2"]
    drain = 0 if count["short"] else _timing.STORE_LONG
    if v["dest"] == Dest.SPAD:
        n = first + count["units"] * v["c1"] * v["c2"]
        return Work(n, reads, rest, True, drain, drain)
    size = TYPE_BYTES[Type(v["out"])]
    run, across = v["c0"] * size, v["s1"]
    if count["joined"]:
        n = joined_slots(v, run, config.dim * size, config.bus_bytes)
        return Work(first + n, reads, rest, False, drain, drain)
    if v["scatter"]:  # a multiple of the bus's bytes
        across, first = 0, first + _timing.STORE_INDEX * v["c1"] * v["c2"]
    n = beats(v["dst"], run, [(v["c1"], across), (v["c2"], v["s2"])], config.bus_bytes)
    return Work(first + n, reads, rest, False, drain, drain)


def _vector(config: ChipConfig, spec: Spec, v: Mapping[str, int]) -> Work:
    reads, rest = _ports(config, spec, v)
    count = derived(config, spec, v)
    groups = -(-v["rows"] // _timing.VECTOR_ROWS)
    words = v["init"] + groups * (v["head"] + count["units"] * v["body"] + v["tail"])
    n = count["kernel_rows"] + _timing.VECTOR_LEAD + _timing.VECTOR_ROWS * words
    return Work(n, reads, rest, True)


def _banks(bases: Iterable[int], lo: int, hi: int, bank: int) -> list[int]:
    """Masks of the banks from base + lo to base + hi."""
    return [(2 << (base + hi) // bank) - (1 << (base + lo) // bank) for base in bases]


def _matmul(config: ChipConfig, spec: Spec, v: Mapping[str, int]) -> Passes:
    off, count = pass_offsets(config, v), derived(config, spec, v)
    rows, kblocks, nblocks = count["rows"], range(count["kblocks"]), range(count["nblocks"])

    sb, ab = config.spad_bank, config.acc_bank
    a = _banks((v["a"] + kb * v["ak"] for kb in kblocks), off["a_lo"], off["a_hi"], sb)
    a *= len(nblocks)
    w_bases = (v["w"] + nb * v["wn"] + kb * v["wk"] for nb in nblocks for kb in kblocks)
    w = _banks(w_bases, off["w_lo"], off["w_hi"], sb)
    rest = []
    for c in _banks((v["c"] + nb * v["cn"] for nb in nblocks), 0, rows - 1, ab):
        rest += [c << ACC_READ | c << ACC_WRITE] * len(kblocks)
    reads = [x | y for x, y in zip(a, w, strict=True)]
    return Passes(rows, a, w, reads, rest)


_WORK: dict[str, Callable[..., Work | Passes]] = {
    "load": _load,
    "matmul": _matmul,
    "vector": _vector,
    "store": _store,
}
#: Unit, kind, lead, work, waits, rd signal, done signal of an `Op`.
Lowered = tuple[int, int, int, "Work | Passes", tuple[tuple[int, int], ...], int, int]


def _lowered(config: ChipConfig, spec: Spec, v: Mapping[str, int], regs: int) -> Lowered:
    """What all executions of a unit's instruction share; `regs` of its fields are registers."""
    need: dict[int, int] = {}  # two waits on one semaphore add up
    for i in "01":
        if v[f"wait{i}_n"]:
            need[v[f"wait{i}"]] = need.get(v[f"wait{i}"], 0) + v[f"wait{i}_n"]
    lead = 2 + regs + extent_cycles(spec, v) + _timing.SEQ_EXTENT
    rd = v["rd_sem"] if v["rd_en"] else -1
    done = v["done_sem"] if v["done_en"] else -1
    work = _WORK[spec.name](config, spec, v)
    return int(spec.unit), PUSH, lead, work, tuple(need.items()), rd, done


def _target(executed: Any, following: int | None) -> int:
    """Where a taken branch or jump goes; -1 if it falls through.

    A branch to the next instruction looks the same either way. It is the same: by the time the last
    instruction of a line is read, the next line has been requested, so that nothing is discarded.
    """
    name, target = executed.instr.spec.name, executed.values.get("target", -1)
    return target if name == "jmp" or (name in _BRANCHES and target == following) else -1


def lower_one(config: ChipConfig, executed: Any, following: int | None = None) -> Op:
    """The `Op` of one executed instruction; `following` is the pc after it."""
    known = executed.known
    if known is not None and known.lowered is not None:
        return Op(executed.id, executed.pc, *known.lowered)
    instr, v = executed.instr, executed.values
    spec, regs = instr.spec, len(instr.regs)
    if spec.unit != Unit.SEQ:
        lowered = _lowered(config, spec, v, regs)
        if known is not None:
            known.lowered = lowered
        return Op(executed.id, executed.pc, *lowered)
    kind = _KINDS.get(spec.name, SCALAR)
    op = Op(executed.id, executed.pc, int(Unit.SEQ), kind, 2 + regs)
    if op.kind in (POST, WAIT):
        op.sem, op.n = v["sem"], v["n"]
    elif op.kind in (LDW, STW):
        op.n = word_beats(executed.address, config.bus_bytes)
    else:
        op.target = _target(executed, following)
    return op


def fault_op(number: int, pc: int, code: Fault, refused: Any = None) -> Op:
    """The `Op` at which the sequencer stops.

    A PC fault is found in FETCH, an OPCODE fault in DECODE, every other in EXEC (its
    record, `refused`, needed).
    """
    if code == Fault.PC:
        return Op(number, pc, int(Unit.SEQ), FAULT, 0, stage="fetch")
    if code == Fault.OPCODE:
        return Op(number, pc, int(Unit.SEQ), FAULT, 1, stage="decode")
    if refused is None:
        raise ValueError(f"a {code.name} fault at pc {pc} must come with its instruction")
    instr = refused.instr
    lead = 2 + len(instr.regs)
    if instr.spec.unit != Unit.SEQ:
        lead += extent_cycles(instr.spec, refused.values) + _timing.SEQ_EXTENT
    return Op(number, pc, int(Unit.SEQ), FAULT, lead)


def lower(
    config: ChipConfig, executed: Sequence[Any], fault: tuple[Fault, int] | None = None
) -> list[Op]:
    """The whole trace as `Op`s, in program order.

    Parameters
    ----------
    config : the chip's geometry.
    executed : `sim.functional.Executed` records in program order.
    fault : code and pc, if the program ended in a fault; then the last record is the instruction
        that faulted, except after a PC fault, which has none.
    """
    records = list(executed)
    refused = records.pop() if fault is not None and fault[0] != Fault.PC else None
    following = [e.pc for e in executed[1:]]
    if len(following) < len(records):
        following.append(None if fault is None else fault[1])
    ops = [lower_one(config, e, after) for e, after in zip(records, following, strict=True)]
    if fault is not None:
        ops.append(fault_op(len(ops), fault[1], fault[0], refused))
    return ops
