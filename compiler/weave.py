"""Two kernels at once: one of the array and one of VECTOR, each in its own banks.

What VECTOR does by itself (softmax, a normalisation) would keep the array idle. A contraction that
depends on nothing of it can run beside it; so can the contractions that it reads and that read it,
whose rows come and go one after the other. All are tiled for a share of the local memories, and
their operations are put into one order, by the time at which each could start. Kernels are moved
beside each other where none in between depends on them, and kept so only if the exact timing says
that they take less time than one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from tilewright.compiler.dispatch import Needs, duration, latencies
from tilewright.compiler.kernels import Buffer, Contract, Kernel, Lanes, operands_of
from tilewright.compiler.refine import choose, exact_cycles
from tilewright.compiler.schedule import A_BANKS, ScheduleError
from tilewright.compiler.share import moved, share
from tilewright.compiler.sync import needs_of, synchronise
from tilewright.compiler.tile_contract import problem, tile_contract
from tilewright.compiler.tile_vector import Layout, tile_vector
from tilewright.compiler.tiles import Dram, Op, Plan
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.table import Unit
from tilewright.isa.timing import VECTOR_ROWS

LEAST = 4000  # cycles that a kernel takes at least to be worth it
MOST = 8000  # operations that are put into order and timed
LATE = 1000  # cycles by which VECTOR's LOADs come later than they could: others queue behind them


_chosen: dict[object, int | None] = {}


@dataclass(frozen=True)
class Group:
    """Kernels that run at once, by number; where they stand in the program is where `at` did."""

    at: int
    ops: tuple[Op, ...]
    texts: dict[int, str]  # schedules, by number


def groups(config: ChipConfig, kernels: Sequence[Kernel]) -> list[Group]:
    """The groups of a program that pay, none with a kernel of another one."""
    found: list[Group] = []
    taken: set[int] = set()
    for number, kernel in enumerate(kernels):
        if not isinstance(kernel.source, Lanes) or number in taken:
            continue
        for others in (*_partners(config, kernels, number), _around(kernels, number)):
            if others and taken.isdisjoint(others):
                group = _group(config, kernels, others, number)
                if group is not None:
                    found.append(group)
                    taken |= {number, *others}
                    break
    return found


def _around(kernels: Sequence[Kernel], number: int) -> tuple[int, ...]:
    """Contractions before and behind a kernel, if it reads the one and the other reads it."""
    around = number - 1, number + 1
    if around[0] < 0 or around[1] == len(kernels):
        return ()
    before, lanes, behind = kernels[number - 1 : number + 2]
    linked = before.out in _reads(lanes) and not _reads(behind).isdisjoint(lanes.outs)
    both = isinstance(before.source, Contract) and isinstance(behind.source, Contract)
    apart = not any(_overwrites(b, a) for a, b in pairwise((before, lanes, behind)))
    return around if linked and both and apart and not _overwrites(behind, before) else ()


def _reads(kernel: Kernel) -> set[Buffer]:
    return {v.buffer for v in operands_of(kernel)}


def _overwrites(late: Kernel, early: Kernel) -> bool:
    """Whether a kernel writes what an earlier one reads or writes: a donated argument's place."""
    return not (_reads(early) | set(early.outs)).isdisjoint(late.outs)


def _partners(config: ChipConfig, kernels: Sequence[Kernel], number: int) -> list[tuple[int, ...]]:
    """Contractions that can be moved beside a kernel, the nearest first."""
    out = []
    for other, kernel in enumerate(kernels):
        if not isinstance(kernel.source, Contract) or _macs(config, kernel) < LEAST:
            continue
        first, last = sorted((number, other))
        between = [k for k in kernels[first : last + 1] if k is not kernel]
        pairs = [(kernel, k) if other < number else (k, kernel) for k in between]
        if not any(_overwrites(b, a) or not _reads(b).isdisjoint(a.outs) for a, b in pairs):
            out.append(other)
    return [(other,) for other in sorted(out, key=lambda other: abs(other - number))]


def _macs(config: ChipConfig, kernel: Kernel) -> float:
    """Cycles of the array."""
    source = kernel.source
    assert isinstance(source, Contract)
    b, m, n, k = source.sizes
    return b * m * n * k * len(source.passes) / config.dim**2


def _group(
    config: ChipConfig, kernels: Sequence[Kernel], arrays: Sequence[int], lanes: int
) -> Group | None:
    """Contractions, one after the other, and a kernel of VECTOR at once, if that is faster."""
    key = config, _form(kernels[lanes]), tuple(problem(kernels[n]) for n in arrays)
    if key not in _chosen:
        _chosen[key] = _fastest(config, kernels, arrays, lanes)
    acc = _chosen[key]
    return _shared(config, kernels, arrays, lanes, acc) if acc else None


def _form(kernel: Kernel) -> tuple[object, ...]:
    """What the timing of a kernel of VECTOR depends on."""
    source = kernel.source
    assert isinstance(source, Lanes)
    views = tuple((v.strides, v.dtype) for v in source.views)
    codes = tuple(np.asarray(c.buffer.value).tobytes() for c in source.codes)
    vectors = len(kernel.epilogue.vectors)
    return source.shape, views, codes, vectors, tuple(b.dtype for b in kernel.outs)


def _fastest(
    config: ChipConfig, kernels: Sequence[Kernel], arrays: Sequence[int], lanes: int
) -> int | None:
    """The accumulator banks of VECTOR's kernel; None if one after the other is faster."""
    alone, _ = tile_vector(Plan(config, A_BANKS), kernels[lanes], lanes)
    busy = sum(duration(config, op) for op in alone if op.unit == Unit.VECTOR)
    if busy < LEAST:
        return None
    full = list(alone)
    for number in arrays:
        own = choose(config, kernels[number])
        full += tile_contract(Plan(config, A_BANKS), kernels[number], number, own, 0)[0]
    if len(full) > MOST:
        return None
    full.sort(key=lambda op: op.kernel)
    limit = _cycles(config, full)
    best: int | None = None
    for acc in _shares(config, kernels[lanes], len(arrays) > 1):
        group = _shared(config, kernels, arrays, lanes, acc)
        cycles = _cycles(config, group.ops) if group else limit
        if cycles < limit:
            best, limit = acc, cycles
    return best


def _shared(
    config: ChipConfig, kernels: Sequence[Kernel], arrays: Sequence[int], lanes: int, acc: int
) -> Group | None:
    """The same with so many accumulator banks for VECTOR; None if a schedule does not fit."""
    left = share(config, BANKS - acc, BANKS - 1)
    ops: list[Op] = []
    texts, half = {}, 0
    for number in arrays:
        try:
            schedule = choose(left, kernels[number])
        except ScheduleError:
            return None
        more, half = tile_contract(Plan(left, A_BANKS), kernels[number], number, schedule, half)
        ops += more
        texts[number] = f"{schedule} beside {kernels[lanes].name}"
    second, text = tile_vector(Plan(share(config, acc, 1), A_BANKS), kernels[lanes], lanes)
    texts[lanes] = f"{text} beside {', '.join(kernels[n].name for n in arrays)}"
    both = woven(config, ops, moved(second, left.acc_rows, left.spad_granules))
    return Group(lanes, tuple(both), texts)


def _cycles(config: ChipConfig, ops: Sequence[Op]) -> int:
    """Exact cycles of operations that are not synchronised yet."""
    copies = [replace(op, fields=dict(op.fields), sync={}) for op in ops]
    synchronise(copies, config)
    return exact_cycles(config, copies)


def _shares(config: ChipConfig, kernel: Kernel, long: bool) -> list[int]:
    """Accumulator banks to try for a kernel of VECTOR.

    The least in which it has groups of rows, in two slots or one; beside several contractions it
    has time, so few rows will do.
    """
    assert isinstance(kernel.source, Lanes)
    vectors, out = len(kernel.epilogue.vectors), []
    for slots, least in ((2, VECTOR_ROWS), (1, VECTOR_ROWS), (1, 2 if long else VECTOR_ROWS)):
        for acc in range(1, BANKS // 2 + 1):
            sizes = Layout(share(config, acc, 1), kernel.source, vectors).sizes
            rows = min(least, kernel.source.shape[0])
            if sizes and sizes.slots >= slots and sizes.rows >= rows:
                out.append(acc)
                break
    return list(dict.fromkeys(out))[: 2 if long else 1]


def woven(config: ChipConfig, *streams: list[Op]) -> list[Op]:
    """Operations of streams that use different banks, by the time at which they can start.

    The order of each stream is kept; what reads DRAM comes behind the last one that writes it.
    """
    after = latencies(config)
    needs: list[Needs] = [needs_of(ops) for ops in streams]
    writers = _Writers(streams)
    at = [0] * len(streams)
    end: list[list[int]] = [[0] * len(ops) for ops in streams]
    free = dict.fromkeys(list(Unit)[:4], 0)
    out: list[Op] = []
    while any(i < len(ops) for i, ops in zip(at, streams, strict=True)):
        best: tuple[int, int] | None = None
        for s, ops in enumerate(streams):
            if at[s] == len(ops):
                continue
            op = ops[at[s]]
            start = free[op.unit]
            for (unit, _), n in needs[s][at[s]].items():
                frees = (op.unit == Unit.LOAD and unit == Unit.MATMUL) or unit == Unit.STORE
                late = LATE if s and op.unit == Unit.LOAD else 0
                start = max(start, end[s][n] + max(late, 0 if frees else after[unit]))
            ready = writers.ready(s, op, at, end)
            if ready is not None and (best is None or max(start, ready) < best[0]):
                best = max(start, ready), s
        assert best is not None, "streams that wait for each other"
        start, s = best
        op = streams[s][at[s]]
        end[s][at[s]] = free[op.unit] = start + duration(config, op)
        out.append(op)
        at[s] += 1
    return out


class _Writers:
    """Which operations of other streams write what an operation reads."""

    def __init__(self, streams: Sequence[list[Op]]):
        self.by: dict[object, list[tuple[int, int, Dram]]] = {}
        for s, ops in enumerate(streams):
            for n, op in enumerate(ops):
                for place in op.writes:
                    if isinstance(place, Dram):
                        self.by.setdefault(place.buffer, []).append((s, n, place))

    def ready(self, stream: int, op: Op, at: list[int], end: list[list[int]]) -> int | None:
        """When all of it is there; None if some of it is not in order yet."""
        latest = 0
        for place in op.reads:
            if isinstance(place, Dram):
                for s, n, written in self.by.get(place.buffer, ()):
                    if s != stream and written.meets(place):
                        if n >= at[s]:
                            return None
                        latest = max(latest, end[s][n])
        return latest
