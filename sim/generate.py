"""Random legal, race-free programs for the fuzzer, and racy ones made from them.

`generate` draws instructions whose operands meet often, derives from the cells that they touch
which waits are needed, and inserts those in many forms. `racy` takes one away that the construction
knows to be needed. `bins` says what a program covers. The same seed gives the same program.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.encoding import Instr, encode
from tilewright.isa.program import Program
from tilewright.isa.table import Fault, Unit
from tilewright.sim.gen_bins import ALL_BINS, all_bins, bins
from tilewright.sim.gen_builder import Builder, Line
from tilewright.sim.gen_ops import DRAM_SIZE, FLOATS, HALVES, INDICES, KERNELS
from tilewright.sim.gen_sync import DONE, READ, Node, unordered

__all__ = ["ALL_BINS", "Generated", "Racy", "all_bins", "bins", "generate", "racy"]

FAULTS = (
    Fault.OPCODE, Fault.FIELD, Fault.UNIMPLEMENTED, Fault.RANGE, Fault.WINDOW, Fault.PC,
)  # fmt: skip
UNITS = ("load", "matmul", "vector", "store")
_FAULTY = 7  # one program in so many ends in a fault


@dataclass(frozen=True)
class Generated:
    """A legal program with what its construction knows about it."""

    seed: int
    program: Program
    nodes: tuple[Node, ...]
    lines: tuple[Line, ...]
    fault: Fault | None


@dataclass(frozen=True)
class Racy:
    """A program with one needed wait or signal dropped or weakened; `change` says which."""

    program: Program
    change: str


def _content(seed: int, kernels: bytes) -> bytes:
    """DRAM: random bytes; fp32 and bf16 with zeros, subnormals, infinities and NaNs; `kernels`."""
    rng = np.random.default_rng(seed)
    out = rng.integers(0, 256, DRAM_SIZE, np.uint8)
    for area, dtype, mantissa, special in (
        (FLOATS, np.uint32, 23, (0, 1, 0x007FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7F7FFFFF)),
        (HALVES, np.uint16, 7, (0, 1, 0x007F, 0x7F80, 0x7F81, 0x7FC0, 0x7F7F)),
    ):
        bits: Any = out[area.start : area.stop].view(dtype)
        exponent = rng.integers(116, 138, bits.size)
        exponent[rng.random(bits.size) < 0.02] = rng.integers(0, 256)
        mask = (1 << mantissa) - 1
        sign = bits & dtype(1 << (8 * bits.itemsize - 1))
        bits[...] = (bits & dtype(mask)) | (exponent.astype(dtype) << dtype(mantissa)) | sign
        odd = rng.random(bits.size) < 0.02
        bits[odd] = rng.choice(np.array(special, dtype), int(odd.sum())) | sign[odd]
    indices = out[INDICES.start : INDICES.stop].view(np.int32)
    indices[...] = rng.integers(-3, 15, indices.size)
    out[KERNELS.start : KERNELS.start + len(kernels)] = np.frombuffer(kernels, np.uint8)
    return out.tobytes()


def _encode(lines: tuple[Line, ...], nodes: tuple[Node, ...] | list[Node]) -> bytes:
    """Words of the lines with the waits and signals of their nodes."""
    sync: dict[int, dict[str, int]] = {}
    for n in nodes:
        if n.unit is Unit.SEQ:
            if n.name == "wait":
                ((sem, count),) = n.waits.items() or ((0, 0),)
                sync[n.slot] = {"sem": sem, "n": count}
            continue
        f = sync.setdefault(n.slot, {})
        for i, (sem, count) in enumerate(n.waits.items()):
            f |= {f"wait{i}": sem, f"wait{i}_n": count}
        for event, sem in n.signals.items():
            f |= {f"{event}_en": 1, f"{event}_sem": sem}
    out = []
    for at, line in enumerate(lines):
        fields = line.fields | sync.get(at, {})
        out.append(line.raw or encode(Instr.make(line.name, **fields)))
    return b"".join(out)


def generate(
    seed: int,
    config: ChipConfig,
    *,
    faults: bool = True,
    length: int = 1,
    ending: Fault | None = None,
) -> Generated:
    """A random legal, race-free program.

    Parameters
    ----------
    faults : let one in seven end in a fault other than a deadlock.
    length : how many times as long as usual.
    ending : the fault that it ends in, whatever the seed says.
    """
    rng = Random(f"tilewright {seed}")
    b = Builder(config, rng, seed)
    mix = rng.choice(((3, 2, 0, 3), (2, 4, 1, 2), (4, 1, 2, 3), (1, 1, 1, 1)))
    for _ in range(length * rng.randint(10, 28)):
        roll = rng.random()
        if roll < 0.8:
            b.unit(b.ops.draw(rng.choices(UNITS, mix)[0]))
        elif roll < 0.9:
            b.scalars()
        elif roll < 0.95:
            b.word()
        elif roll < 0.98:
            b.sync.listen()
        else:
            b.sync.fence()
    if seed % 4 == 1 and config.acc_rows // 2 > 2 * config.dim + 4:
        b.loop()
        for _ in range(rng.randint(0, 3)):
            b.unit(b.ops.draw(rng.choice(("load", "matmul", "store"))))
    if seed % 13 == 5:
        b.burst()
    if seed % 11 == 6:
        b.nest()
    if not any(n.waits and not n.locked for n in b.sync.nodes):
        b.pair()
    fault = None
    if ending is not None or (faults and seed % _FAULTY == 3):
        fault = b.fault(ending or FAULTS[seed // _FAULTY % len(FAULTS)])
    if fault is None:
        b.emit("halt")
    lines, nodes = tuple(b.lines), tuple(b.sync.nodes)
    data = ((0, _content(seed, b.ops.kernels)),)
    program = Program(config, _encode(lines, nodes), data, dram_size=DRAM_SIZE)
    return Generated(seed, program, nodes, lines, fault)


def _changes(g: Generated, rng: Random) -> list[tuple[str, int, int, int]]:
    """(what, instruction, semaphore or whether it is done, new count) in random order."""
    out: list[tuple[str, int, int, int]] = []
    for n in g.nodes:
        for sem, count in n.waits.items():
            out.append(("wait", n.slot, sem, 0))
            if count > 1:
                out.append(("wait", n.slot, sem, count - 1))
        for event in n.signals:
            out.append(("signal", n.slot, event == DONE, 0))
        for sem in {s for e, s in n.signals.items() if e == DONE}:
            out.append(("early", -1, sem, 0))
    out = list(dict.fromkeys(out))
    rng.shuffle(out)
    return out


def _changed(nodes: tuple[Node, ...], change: tuple[str, int, int, int]) -> list[Node] | None:
    """The nodes after a change, or None if it cannot be made."""
    what, slot, which, count = change
    out = []
    for n in nodes:
        waits, signals = dict(n.waits), dict(n.signals)
        if what == "wait" and n.slot == slot:
            waits[which] = count
            if not count:
                del waits[which]
        elif what == "signal" and n.slot == slot:
            signals.pop(DONE if which else READ, None)
        elif what == "early" and signals.get(DONE) == which:
            if READ in signals:
                return None
            signals[READ] = signals.pop(DONE)
        out.append(Node(n.slot, n.unit, n.name, waits, signals, n.posts, n.needs, n.locked))
    return out


def racy(generated: Generated, rng: Random) -> Racy | None:
    """The program without one needed wait or signal; None if it has none that is left to change.

    Needed means: by the construction's own record of who touches what, two accesses are then
    unordered, or a wait lacks its signal.
    """
    found = None
    blocking = rng.random() < 0.25  # whether a wait that lacks its signal will do
    for change in _changes(generated, rng):
        nodes = _changed(generated.nodes, change)
        if nodes is None:
            continue
        missing, blocked = unordered(nodes)
        if missing or blocked:
            found = change, nodes
            if blocking or not blocked:
                break
    if found is None:
        return None
    change, nodes = found
    what, slot, which, count = change
    text = {
        "wait": f"instruction {slot} waits for {count} of semaphore {which}, which is too few",
        "signal": f"instruction {slot} gives no {'done' if which else 'read-done'} signal",
        "early": f"semaphore {which} is signalled at read-done instead of done",
    }[what]
    p = generated.program
    code = _encode(generated.lines, nodes)
    return Racy(Program(p.config, code, p.data, dram_size=p.dram_size), text)
