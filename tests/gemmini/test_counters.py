"""Gemmini's test of the performance counters."""

import numpy as np
from tilewright.isa.assembler import assemble
from tilewright.sim.rtl import RtlChip

from tests.gemmini.bench import Bench, engines, every_chip

UNITS = ("load", "matmul", "vector", "store")
CAUSES = ("issuing", "semaphore", "port", "memory", "empty")
TILES = 8


def _tiles(b):
    """Moves in and out of dim x dim tiles, as Gemmini's test does."""
    d = b.dim
    x = b.random(TILES, d, d)
    source, out = b.put(x), b.room(TILES, d, d)
    for n in range(TILES):
        tile = f"c0={d} c1={d} s1={d} l1=1"
        b += f"load spad[{n * d}], dram[{source.address + n * d * d}], copy8, {tile} ; done s0"
        b += f"store dram[{out.address + n * d * d}], spad[{n * d}], i8->i8, {tile} ; wait s0>=1"
    return x, out


def _counts_on_one_chip(b):
    """They grow while it runs, stand still after, begin at 0 again."""
    code = assemble("\n".join([*b.lines, "halt"]), config=b.config).code
    with RtlChip(b.config) as rtl:
        rtl.write(0x100000, code)
        rtl.start(0x100000, len(code) // 64)
        rtl.spin(40)
        early = rtl.counters()
        rtl.spin(20)
        later = rtl.counters()
        rtl.finish(100_000)
        first = rtl.counters()
        rtl.spin(50)
        assert rtl.counters() == first
        rtl.start(0x100000, len(code) // 64)
        rtl.finish(100_000)
        assert rtl.counters() == first
    assert 0 < early["cycles"] < later["cycles"] < first["cycles"]
    assert early["load_issuing"] <= later["load_issuing"] <= first["load_issuing"]


@every_chip
def test_gemmini_counter(chip):
    """Counts are what the program says; a unit's causes sum to all cycles; a start resets them."""
    b = Bench(chip)
    d, bus = b.dim, b.config.bus_bytes
    x, out = _tiles(b)
    result = b.run()
    np.testing.assert_array_equal(result.read(out), x)
    counters = result.run.counters
    assert counters["beats_read"] == counters["beats_written"] == TILES * d * d // bus
    assert [counters[f"{u}_instructions"] for u in UNITS] == [TILES, 0, 0, TILES]
    assert counters["macs_useful"] == counters["macs_padding"] == 0
    for unit in UNITS:
        assert sum(counters[f"{unit}_{c}"] for c in CAUSES) == counters["cycles"]
    assert counters["load_issuing"] >= counters["beats_read"]
    assert counters["matmul_empty"] == counters["cycles"]

    if "rtl" in engines():
        _counts_on_one_chip(b)
    ragged = Bench(chip)
    m, k, n = 3, d + 1, 2 * d - 1
    ragged += f"load spad[0], copy8, fill c0={d} c1={8 * d} l1=1 value=1 ; done s0"
    ragged += f"matmul acc[0], spad[0], spad[0], i8*i8, r0={m} as0=1 ak={m} ws=1 wk={d} wn={2 * d} \
k={k} n={n} cn={m} ; wait s0>=1"
    found = ragged.run().run.counters
    assert found["macs_useful"] == m * k * n
    assert found["macs_useful"] + found["macs_padding"] == m * 2 * d * 2 * d
    assert found["beats_read"] == found["beats_written"] == 0
