"""Two kernels at once: one of the array and one of VECTOR, each in its own banks.

What VECTOR does by itself (softmax, a normalisation) would keep the array idle. A contraction that
depends on nothing of it can run beside it: both are tiled for a share of the local memories, and
their operations are put into one order, by the time at which each could start. Pairs are made of
neighbours in the program, moved together where no kernel in between depends on them, and kept only
if the exact timing says that they take less time than one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.compiler.dispatch import Needs, duration, latencies
from tilewright.compiler.kernels import Contract, Kernel, Lanes, operands_of
from tilewright.compiler.refine import choose, exact_cycles
from tilewright.compiler.schedule import A_BANKS, ScheduleError
from tilewright.compiler.share import moved, share
from tilewright.compiler.sync import needs_of, synchronise
from tilewright.compiler.tile_contract import tile_contract
from tilewright.compiler.tile_vector import Layout, tile_vector
from tilewright.compiler.tiles import Dram, Op, Plan
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.table import Unit
from tilewright.isa.timing import VECTOR_ROWS

LEAST = 4000  # cycles that a kernel takes at least to be worth it
MOST = 8000  # operations that are put into order and timed


@dataclass(frozen=True)
class Pair:
    """A contraction and a kernel of VECTOR, by number, their operations and schedules as text."""

    array: int
    lanes: int
    ops: tuple[Op, ...]
    texts: tuple[str, str]


def pairs(config: ChipConfig, kernels: Sequence[Kernel]) -> list[Pair]:
    """The pairs of a program that pay."""
    found: list[Pair] = []
    taken: set[int] = set()
    for number, kernel in enumerate(kernels):
        if isinstance(kernel.source, Lanes) and number not in taken:
            for other in _partners(config, kernels, number):
                if other not in taken and (pair := _pair(config, kernels, other, number)):
                    found.append(pair)
                    taken |= {number, other}
                    break
    return found


def _partners(config: ChipConfig, kernels: Sequence[Kernel], number: int) -> list[int]:
    """Contractions that can be moved beside a kernel, the nearest first."""
    out = []
    for other, kernel in enumerate(kernels):
        if not isinstance(kernel.source, Contract) or _macs(config, kernel) < LEAST:
            continue
        first, last = sorted((number, other))
        later = kernels[first + 1 : last + 1] if other < number else (kernel,)
        before = {kernel.out} if other < number else {
            b for k in kernels[first:last] for b in k.outs
        }  # fmt: skip
        if not any(v.buffer in before for k in later for v in operands_of(k)):
            out.append(other)
    return sorted(out, key=lambda other: abs(other - number))


def _macs(config: ChipConfig, kernel: Kernel) -> float:
    """Cycles of the array."""
    source = kernel.source
    assert isinstance(source, Contract)
    b, m, n, k = source.sizes
    return b * m * n * k * len(source.passes) / config.dim**2


def _pair(
    config: ChipConfig, kernels: Sequence[Kernel], array: int, lanes: int
) -> Pair | None:
    """Both kernels in one order, if that is faster."""
    alone, _ = tile_vector(Plan(config, A_BANKS), kernels[lanes], lanes)
    busy = sum(duration(config, op) for op in alone if op.unit == Unit.VECTOR)
    acc = _share(config, kernels[lanes])
    if busy < LEAST or acc is None:
        return None
    left = share(config, BANKS - acc, BANKS - 1)
    try:
        schedule = choose(left, kernels[array])
    except ScheduleError:
        return None
    first, _ = tile_contract(Plan(left, A_BANKS), kernels[array], array, schedule, 0)
    second, text = tile_vector(Plan(share(config, acc, 1), A_BANKS), kernels[lanes], lanes)
    if len(first) + len(second) > MOST:
        return None
    ops = woven(config, first, moved(second, left.acc_rows, left.spad_granules))
    own = choose(config, kernels[array])
    full, _ = tile_contract(Plan(config, A_BANKS), kernels[array], array, own, 0)
    if _cycles(config, ops) >= _cycles(config, full) + _cycles(config, alone):
        return None
    texts = f"{schedule} beside {kernels[lanes].name}", f"{text} beside {kernels[array].name}"
    return Pair(array, lanes, tuple(ops), texts)


def _cycles(config: ChipConfig, ops: Sequence[Op]) -> int:
    """Exact cycles of operations that are not synchronised yet."""
    copies = [replace(op, fields=dict(op.fields), sync={}) for op in ops]
    synchronise(copies, config)
    return exact_cycles(config, copies)


def _share(config: ChipConfig, kernel: Kernel) -> int | None:
    """Accumulator banks in which a kernel of VECTOR has groups of rows, in two slots or one."""
    assert isinstance(kernel.source, Lanes)
    vectors = len(kernel.epilogue.vectors)
    for slots in (2, 1):
        for acc in range(1, BANKS // 2 + 1):
            sizes = Layout(share(config, acc, 1), kernel.source, vectors).sizes
            rows = min(VECTOR_ROWS, kernel.source.shape[0])
            if sizes and sizes.slots >= slots and sizes.rows >= rows:
                return acc
    return None


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
                start = max(start, end[s][n] + (0 if frees else after[unit]))
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
