"""Waits and signals: every dependency has one, no more than needed, and few are under way."""

import numpy as np
import pytest
from tilewright.compiler.kernels import Buffer
from tilewright.compiler.sync import TOKENS, _bounded, synchronise
from tilewright.compiler.tiles import Dram, Local, Op
from tilewright.isa.config import parse_config
from tilewright.isa.table import Mem

X = Buffer("x", (100,), np.dtype(np.int8), "temp")


def spad(lo, hi):
    return Local(Mem.SPAD, lo, hi)


def op(name, reads=(), writes=()):
    return Op(name, {}, tuple(reads), tuple(writes), 0)


def waits(o):
    return {o.sync[f"wait{i}"] for i in (0, 1) if f"wait{i}_n" in o.sync}


def test_sync_consumer_waits_for_its_producer():
    load, matmul = op("load", writes=[spad(0, 4)]), op("matmul", [spad(0, 4)])
    synchronise([load, matmul])
    assert load.sync == {"done_en": 1, "done_sem": 0} and waits(matmul) == {0}


def test_sync_only_the_latest_producer_signals():
    loads = [op("load", writes=[spad(i, i + 2)]) for i in (0, 2)]
    matmul = op("matmul", [spad(0, 4)])
    synchronise([*loads, matmul])
    assert not loads[0].sync and loads[1].sync["done_en"] and matmul.sync["wait0_n"] == 1


def test_sync_what_was_waited_for_is_not_waited_for_again():
    load = op("load", writes=[spad(0, 4)])
    first, second = op("matmul", [spad(0, 4)]), op("matmul", [spad(0, 2)])
    synchronise([load, first, second])
    assert waits(first) == {0} and not waits(second)


def test_sync_overwriting_waits_for_the_readers():
    matmul, load = op("matmul", [spad(0, 4)]), op("load", writes=[spad(2, 6)])
    synchronise([matmul, load])
    assert matmul.sync == {"rd_en": 1, "rd_sem": 2} and waits(load) == {2}


def test_sync_disjoint_places_do_not_wait():
    matmul, load = op("matmul", [spad(0, 4)]), op("load", writes=[spad(4, 6)])
    synchronise([matmul, load])
    assert not matmul.sync and not load.sync


@pytest.mark.parametrize("lo, hi, wait", [(5, 9, True), (9, 10, True), (10, 20, False)])
def test_sync_dram_is_tracked_by_byte(lo, hi, wait):
    store, load = op("store", writes=[Dram(X, 0, 10)]), op("load", [Dram(X, lo, hi)])
    synchronise([store, load])
    assert (waits(load) == {5}) == wait


def test_sync_tokens_under_way_are_bounded():
    edges = [(i, 1000 + i) for i in range(500)]
    kept = _bounded(edges)
    for _, consumer in kept:
        assert sum(p < consumer <= c for p, c in kept) <= TOKENS + 1


def test_sync_bounded_edges_imply_the_dropped_ones():
    edges = [(i, 1000 + 2 * i) for i in range(500)]
    kept = _bounded(edges)
    for producer, consumer in edges:
        assert any(p >= producer and c <= consumer for p, c in kept)


def test_sync_few_tokens_stay_as_they_are():
    edges = [(2 * i, 2 * i + 1) for i in range(500)]
    assert _bounded(edges) == edges


def test_dispatch_keeps_the_order_of_each_unit():
    """Loads that nothing needs yet come late, but never behind later loads."""
    config, rng = parse_config("tw4"), np.random.default_rng(0)
    for _ in range(20):
        ops = []
        for number in rng.permutation(40).tolist():
            at = 4 * int(rng.integers(0, 30))
            if number % 3 == 0:
                ops.append(op("load", writes=[spad(at, at + 4)]))
            elif number % 3 == 1:
                ops.append(op("matmul", [spad(at, at + 4)], [Local(Mem.ACC, number, number + 1)]))
            else:
                ops.append(op("store", [Local(Mem.ACC, number - 1, number)], []))
            ops[-1].fields.update(k=4, n=4, c0=int(rng.integers(1, 60)), r0=4)
        before = list(ops)
        synchronise(ops, config)
        for unit in {o.unit for o in ops}:
            assert [o for o in ops if o.unit == unit] == [o for o in before if o.unit == unit]
        assert sorted(map(id, ops)) == sorted(map(id, before))


def acc(lo, hi):
    return Local(Mem.ACC, lo, hi)


def ordered(ops):
    """For each operation the ones that have happened before it starts, by tokens and units."""
    tokens, taken, before, last = {}, {}, [], {}
    for number, o in enumerate(ops):
        known = set(before[last[o.unit]]) | {last[o.unit]} if o.unit in last else set()
        for i in (0, 1):
            if f"wait{i}_n" in o.sync:
                sem = o.sync[f"wait{i}"]
                giver = tokens[sem][taken.get(sem, 0)]
                taken[sem] = taken.get(sem, 0) + 1
                known |= before[giver] | {giver}
        for kind in ("rd", "done"):
            if o.sync.get(f"{kind}_en"):
                tokens.setdefault(o.sync[f"{kind}_sem"], []).append(number)
        before.append(known)
        last[o.unit] = number
    return before


def test_sync_what_a_signal_implies_is_not_waited_for():
    """MATMUL, VECTOR in place, STORE: the next MATMUL waits for STORE only, STORE for VECTOR."""
    ops = [
        op("matmul", writes=[acc(0, 4)]),
        op("vector", [acc(0, 4)], [acc(0, 4)]),
        op("store", [acc(0, 4)]),
        op("matmul", writes=[acc(0, 4)]),
    ]
    synchronise(ops)
    assert [waits(o) for o in ops] == [set(), {10}, {8}, {4}]


def test_sync_a_third_wait_goes_to_an_earlier_operation_of_the_unit():
    ops = [
        op("load", writes=[spad(0, 4)]),
        op("store", [acc(8, 12)]),
        op("vector", [acc(0, 4)]),
        op("matmul", writes=[acc(20, 24)]),
        op("matmul", [spad(0, 4)], [acc(0, 12)]),
    ]
    synchronise(ops)
    assert not any(o.name == "fence" for o in ops)
    assert ordered(ops)[-1] >= {0, 1, 2}


def test_sync_a_third_wait_without_a_way_round_becomes_a_fence():
    ops = [
        op("load", writes=[spad(0, 4)]),
        op("store", [acc(8, 12)]),
        op("vector", [acc(0, 4)]),
        op("matmul", [spad(0, 4)], [acc(0, 12)]),
    ]
    synchronise(ops)
    assert [o.name for o in ops] == ["load", "store", "vector", "fence", "matmul"]
    assert not any(o.sync for o in ops)


def test_sync_random_operations_of_all_units_are_ordered_by_two_waits():
    rng = np.random.default_rng(4)
    for _ in range(60):
        ops = []
        for name in rng.choice(["load", "matmul", "vector", "store"], 40):
            at, other = (int(x) for x in rng.integers(0, 30, 2))
            local = [spad(at, at + 3)], [acc(other, other + 3)]
            reads, writes = local if name != "load" else ([], local[rng.integers(0, 2)])
            ops.append(op(name, reads, [] if name == "store" else writes))
        found = list(ops)
        synchronise(found)
        before = ordered([o for o in found if o.name != "fence"])
        part = np.cumsum([o.name == "fence" for o in found])[[o.name != "fence" for o in found]]
        for j, late in enumerate(ops):
            for i, early in enumerate(ops[:j]):
                meet = any(
                    a.mem == b.mem and a.lo < b.hi and b.lo < a.hi
                    for a, b in (*((x, y) for x in early.writes for y in late.writes + late.reads),
                                 *((x, y) for x in early.reads for y in late.writes))
                )  # fmt: skip
                assert not meet or early.unit == late.unit or part[i] < part[j] or i in before[j]
