"""Random programs: legal as built, racy as broken, and together covering every bin."""

from random import Random

import numpy as np
import pytest
from tilewright.isa.config import PRESETS, parse_config
from tilewright.isa.table import Fault, Type, Unit
from tilewright.sim import load_memory, run
from tilewright.sim.checker import check
from tilewright.sim.gen_ops import grid
from tilewright.sim.gen_sync import DONE, READ, Node, unordered
from tilewright.sim.generate import ALL_BINS, DRAM_SIZE, FLOATS, all_bins, bins, generate, racy

TW4 = PRESETS["tw4"]
SEED = 4000


@pytest.fixture(scope="module")
def programs():
    return [generate(SEED + i, TW4) for i in range(200)]


def accepted(generated):
    """Whether the checker finds nothing but the window fault that was meant."""
    report = check(generated.program, load_memory(generated.program))
    return report.ok or (
        generated.fault is Fault.WINDOW and [f.kind for f in report.errors] == ["window"]
    )


def test_clean_programs_are_accepted_and_end_as_built(programs):
    for g in programs:
        report = check(g.program, load_memory(g.program))
        assert accepted(g), (g.seed, str(report))
        assert (report.fault.code if report.fault else None) == g.fault, g.seed


def test_every_broken_program_is_refused(programs):
    races = 0
    for g in programs:
        broken = racy(g, Random(g.seed))
        assert broken is not None, g.seed
        report = check(broken.program, load_memory(broken.program))
        assert not report.ok, (g.seed, broken.change)
        races += report.racy
    assert races > 100


def test_two_hundred_programs_hit_every_bin(programs):
    hit = set().union(*(bins(g.program) for g in programs))
    every = set(all_bins(TW4))
    assert hit == every, (sorted(every - hit), sorted(hit - every))


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ("dim=2,spad_kib=4,acc_kib=2", 25),
        ("tw8", 10),
        ("tw16", 6),
        ("dim=32,spad_kib=64,acc_kib=64", 2),
    ],
)
def test_other_geometries(config, count):
    config = parse_config(config)
    for seed in range(count):
        g = generate(seed, config)
        assert accepted(g), seed
        broken = racy(g, Random(seed))
        assert not check(broken.program, load_memory(broken.program)).ok, seed
        result = run(g.program)
        assert (result.fault.code if result.fault else None) == g.fault


def test_an_int8_array_gets_int8_programs_and_sometimes_the_fault():
    config = parse_config("dim=4,spad_kib=8,acc_kib=4,array=int8")
    programs = [generate(SEED + i, config) for i in range(60)]
    lacking = 0
    for g in programs:
        floats = [
            at for at, line in enumerate(g.lines)
            if line.name == "matmul" and line.fields.get("a_type") == Type.BF16
        ]  # fmt: skip
        if g.fault is Fault.UNIMPLEMENTED:
            assert check(g.program, load_memory(g.program)).fault.pc == floats[0]
        assert len(floats) == (g.fault is Fault.UNIMPLEMENTED), g.seed
        lacking += len(floats)
    assert lacking
    hit = set().union(*(bins(g.program) for g in programs))
    assert hit <= set(all_bins(config)) < set(ALL_BINS), hit - set(all_bins(config))


def test_the_same_seed_gives_the_same_program():
    a, b, other = generate(7, TW4), generate(7, TW4), generate(8, TW4)
    assert a.program == b.program and a.program.code != other.program.code
    assert racy(a, Random(1)) == racy(b, Random(1))


def test_faults_can_be_left_out_and_cover_all_codes(programs):
    assert {g.fault for g in programs} == {
        None, Fault.OPCODE, Fault.FIELD, Fault.RANGE, Fault.WINDOW, Fault.PC,
    }  # fmt: skip
    assert generate(3, TW4).fault is not None and generate(3, TW4, faults=False).fault is None


def test_dram_holds_normal_special_and_subnormal_floats():
    ((_, content),) = generate(1, TW4).program.data
    assert len(content) == DRAM_SIZE
    x = np.frombuffer(content, np.float32)[FLOATS.start // 4 : FLOATS.stop // 4]
    size = np.abs(x)
    assert np.isnan(x).any() and np.isinf(x).any() and ((size > 0) & (size < 2.0**-126)).any()
    assert ((size > 2.0**-13) & (size < 2.0**13)).mean() > 0.9


def test_results_do_not_depend_on_sharing_decoded_words():
    g = generate(11, TW4)
    assert run(g.program).memory.compare(run(g.program).memory) is None


def test_grid_enumerates_cells():
    assert grid((2, 10), (3, -1), width=2) == {0, 1, -1, -2, 10, 11, 9, 8}


def test_unordered_knows_read_done_from_done():
    producer = Node(0, Unit.MATMUL, "matmul", signals={READ: 4})
    needs_done = Node(1, Unit.STORE, "store", waits={4: 1}, needs=[(0, DONE)])
    needs_read = Node(1, Unit.LOAD, "load", waits={4: 1}, needs=[(0, READ)])
    assert unordered([producer, needs_done]) == ([(1, 0, DONE)], False)
    assert unordered([producer, needs_read]) == ([], False)
    assert unordered([needs_read]) == ([(0, 0, READ)], True)
