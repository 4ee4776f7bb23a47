"""EXTENT computes what `isa.extent` computes, in `extent_cycles` cycles."""

import random

import pytest
from amaranth.sim import Simulator
from tilewright.hw.extent import Extent
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import IllegalInstruction, Instr, check_rules
from tilewright.isa.extent import (
    EVERYTHING,
    bank_masks,
    check_range,
    derived,
    dram_extent,
    extent_cycles,
    extents,
    pass_offsets,
)
from tilewright.isa.table import CONV_BYTES, INSTRUCTIONS, TYPE_BYTES, Conv, Dest, Fault, Mem
from tilewright.isa.units import LACKS


async def stepped(ctx, dut, spec, values):
    """Take an instruction through EXTENT: its cycles; what is valid after `last` is there then."""
    ir = spec.opcode
    for name, (at, f) in spec.layout.items():
        ir |= (values[name] & ((1 << f.bits) - 1)) << at
    for port, value in ((dut.ir, ir), (dut.word, ir), (dut.enter, 1), (dut.step, 0)):
        ctx.set(port, value)
    await ctx.tick()
    ctx.set(dut.enter, 0)
    ctx.set(dut.step, 1)
    cycles = 1
    while not ctx.get(dut.last):
        await ctx.tick()
        cycles += 1
    await ctx.tick()
    ctx.set(dut.step, 0)
    await ctx.delay(1e-9)
    return cycles


def run_bytes(spec, v):
    """Bytes of one row of a LOAD or STORE in DRAM."""
    return v["c0"] * (CONV_BYTES[v["conv"]] if spec.name == "load" else TYPE_BYTES[v["out"]])


def joined_span(spec, v):
    """Bytes that the rows of dimension 1 take in DRAM if they follow each other there, else None.

    Rows in one stream only: neither packed, indexed nor pooled; LOAD's not transposed.
    """
    other = ("fill", "gather", "pool", "scatter", *(["xpose"] if spec.name == "load" else []))
    if any(v.get(name) for name in other) or v.get("pack", 1) != 1 or v.get("dest") == Dest.SPAD:
        return None
    run = run_bytes(spec, v)
    return run * v["c1"] if v["c1"] > 1 and v["s1"] == run else None


def writes_pairs(config, v):
    """Whether a joined LOAD writes two granules at once: two short rows, or two units of a row."""
    if v["mem"] != Mem.SPAD or v["conv"] != Conv.COPY8 or (v["loc"] | v["l2"] | v["l3"]) & 1:
        return False
    if v["l1"] == 1:
        return v["c0"] < config.bus_bytes
    return config.bus_bytes == config.dim and v["l0"] == 1 and v["l1"] % 2 == 0


def random_fields(rng, spec, config):
    """Fields that keep the rules, with operands that often, not always, fit."""
    while True:
        values = {}
        scale = rng.choice((2, 6, 40, 300))
        for name, (_, f) in spec.layout.items():
            if f.enum is not None:
                values[name] = int(rng.choice(list(f.enum)))
            elif f.bits == 18 and not f.signed:
                values[name] = rng.randrange(rng.choice((16, config.spad_granules)))
            elif f.bits in (18, 32) and f.signed:
                values[name] = rng.choice((0, 1, 2, 4, -2, rng.randrange(-scale, scale)))
                if rng.random() < 0.03:
                    values[name] = rng.choice((f.low, f.high - 1, 1 << 17, -(1 << 17)))
            elif f.bits == 16 and not f.signed:
                values[name] = rng.randrange(1, scale + 2)
                if name in ("c2", "c3") and rng.random() < 0.5:
                    values[name] = 1
                if rng.random() < 0.03:
                    values[name] = rng.choice((65535, 60000, 256))
            else:
                values[name] = min(f.high, rng.randrange(4))
            if name == "zp" or name in LACKS:
                values[name] = 0
            if name in ("xpose", "gather"):
                values[name] = int(rng.random() < 0.3)
            if name.startswith("pool"):
                values[name] = min(f.high, rng.choice((0, 1, 1, 2, 15)))
        if "dst" in values:
            values["dst"] = rng.choice(
                (values["dst"], rng.randrange(config.spad_granules), 1 << 30)
            )
        for name, (_, f) in spec.layout.items():
            if f.bits in (18, 32) and rng.random() < 0.7 and f.enum is None:
                values[name] &= ~1
        if rng.random() < 0.8 and spec.name in ("load", "store"):  # rows may follow each other
            values["s1"] = run_bytes(spec, values)
        if rng.random() < 0.5 and spec.name == "load":  # to granules one behind the other
            run = rng.choice((1, values["c0"]))
            values |= {"pack": 1, "mem": 0, "conv": 0, "c0": run, "c1": 2, "s1": run}
            values |= {"l0": 1, "l1": rng.choice((1, values["l1"])), "l2": values["l2"] & -2}
        if rng.random() < 0.2 and spec.name == "load":  # dimensions are transposed as one
            values |= {"xpose": 1, "pack": rng.randint(2, 3), "mem": 0, "fill": 0, "gather": 0}
            for name in LACKS[: 2 * values["pack"] - 2] if rng.random() < 0.7 else ():
                most = values[f"c{name[-1]}"] - 1
                values[name] = rng.choice((0, 0, 1, most // 3, most // 2, most, rng.randrange(9)))
        try:
            check_rules(spec, values)
        except IllegalInstruction:
            continue
        return values


@pytest.mark.parametrize("config", ["tw4", "tw16", "dim=2,spad_kib=4,acc_kib=2"])
def test_extent_agrees_with_python(config):
    config = parse_config(config)
    rng = random.Random(config.dim)
    dut = Extent(config)
    bad = {name: 0 for name in ("load", "matmul", "store")}
    fenced, joins, pairs = [0, 0], {"load": 0, "store": 0}, [0, 0]

    turned = [0, 0]  # whole, partial: sequences of several dimensions that fit

    async def body(ctx):
        for _ in range(1200):
            spec = INSTRUCTIONS[rng.choice(("load", "matmul", "store"))]
            v = random_fields(rng, spec, config)
            ir = spec.opcode
            for name, (at, f) in spec.layout.items():
                ir |= (v[name] & ((1 << f.bits) - 1)) << at
            ctx.set(dut.ir, ir)
            extent = dram_extent(spec, v)
            window = EVERYTHING
            if extent is not None and rng.random() < 0.7:  # around the ends
                window = [end + rng.choice((-1, 0, 1)) for end in extent[1:]]
                window = [min(max(end, 0), EVERYTHING[1]) for end in window]
            ctx.set(dut.window_base, window[0])
            ctx.set(dut.window_limit, window[1])
            ctx.set(dut.word, ir)
            ctx.set(dut.enter, 1)
            assert ctx.get(dut.none) == 0
            await ctx.tick()
            ctx.set(dut.enter, 0)
            ctx.set(dut.step, 1)
            cycles = 1
            while not ctx.get(dut.last):
                await ctx.tick()
                cycles += 1
            await ctx.tick()
            ctx.set(dut.step, 0)
            assert cycles == extent_cycles(spec, v)
            await ctx.delay(1e-9)
            outside = extent is not None and not window[0] <= extent[1] <= extent[2] <= window[1]
            assert ctx.get(dut.fenced) == outside, (spec.name, v)
            fenced[outside] += extent is not None
            for _ in range(2):  # the results stay
                try:
                    check_range(config, spec, v)
                except IllegalInstruction as error:
                    assert error.fault == Fault.RANGE
                    assert ctx.get(dut.bad), (spec.name, v)
                    bad[spec.name] += 1
                    break
                assert not ctx.get(dut.bad), (spec.name, v)
                counts = derived(config, spec, v)
                if spec.name != "store":
                    packed = "sequence" if v.get("xpose") else "row_elems"
                    product = {"load": packed, "matmul": "rows"}[spec.name]
                    assert ctx.get(dut.product) == counts[product]
                    if v.get("xpose") and v["pack"] > 1:
                        turned[any(v[n] for n in LACKS)] += 1
                if spec.name != "matmul":
                    assert ctx.get(dut.units) == counts["units"]
                    follows = joined_span(spec, v)
                    assert ctx.get(dut.joined) == counts["joined"] == (follows is not None)
                    if follows is not None:
                        assert ctx.get(dut.span) == follows
                        joins[spec.name] += 1
                    if spec.name == "load":
                        back = v["skip1"] * v["s1"]
                        begin = v["dram"] + back + v["skip2"] * v["s2"]
                        assert ctx.get(dut.begin) == begin % (1 << 32)
                        assert ctx.get(dut.back) == back % (1 << 32)
                        pair = follows is not None and writes_pairs(config, v)
                        assert ctx.get(dut.paired) == counts["paired"] == pair, v
                        pairs[v["l1"] & 1] += pair
                else:
                    for name, value in pass_offsets(config, v).items():
                        assert ctx.get(getattr(dut, name)) == value
                masks = bank_masks(config, extents(config, spec, v))
                got = tuple(ctx.get(x) for x in (dut.spad_r, dut.spad_w, dut.acc_r, dut.acc_w))
                assert got == masks, (spec.name, v)
                await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
    assert all(n > 30 for n in bad.values()), bad
    assert sum(bad.values()) < 1200 * 0.9, bad
    assert min(fenced) > 100, fenced
    assert min(joins.values()) > 3, joins
    assert min(pairs) > 3 and min(turned) > 3, (pairs, turned)


@pytest.mark.parametrize(("pack", "counts"), [
    (2, (256, 255, 9)), (2, (256, 256, 1)), (2, (65535, 1, 65535)), (2, (1, 65535, 1)),
    (2, (65535, 65535, 1)), (3, (5, 13107, 1)), (3, (5, 3, 4369)), (3, (40, 40, 41)),
    (3, (256, 256, 256)), (3, (65535, 65535, 65535)), (3, (255, 1, 257)), (3, (1, 1, 65535)),
])  # fmt: skip
def test_sequences_of_all_lengths_have_the_blocks_of_their_product(pack, counts):
    config = parse_config("tw16")
    dut = Extent(config)
    spec, runs = INSTRUCTIONS["load"], counts[0] * counts[1] * (counts[2] if pack == 3 else 1)

    async def body(ctx):
        blocks = -(-runs // 16)
        for reach in (16383, 16384):  # the last granule, or one beyond
            l1 = max(1, reach // max(blocks - 1, 1))
            loc = reach - l1 * (blocks - 1)
            if loc < 0:
                continue
            c1, c2, c3 = counts
            v = Instr.make("load", xpose=1, pack=pack, c1=c1, c2=c2, c3=c3, l1=l1, loc=loc, l0=77)
            ctx.set(dut.window_limit, EVERYTHING[1])
            assert await stepped(ctx, dut, spec, v.values) == extent_cycles(spec, v.values)
            bad = runs > 65535 or reach == 16384
            assert ctx.get(dut.bad) == bad
            if not bad:
                assert ctx.get(dut.product) == runs

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()


@pytest.mark.parametrize(("pack", "counts", "lacks"), [
    (2, (300, 200, 9), (299, 299, 0, 0)), (2, (65535, 1, 3), (65534, 0, 0, 0)),
    (2, (65535, 1, 3), (40000, 25534, 0, 0)), (2, (65535, 1, 3), (40000, 25535, 0, 0)),
    (2, (1, 65535, 1), (0, 0, 0, 0)), (2, (9, 7, 1), (9, 0, 0, 0)), (2, (9, 7, 1), (0, 9, 0, 0)),
    (2, (256, 256, 1), (255, 255, 0, 0)), (3, (5, 13107, 1), (4, 3, 13106, 0)),
    (3, (5, 13107, 1), (4, 1, 13106, 0)), (3, (5, 13107, 1), (4, 0, 13106, 0)),
    (3, (5, 13107, 1), (1, 2, 6000, 7106)), (3, (5, 13107, 1), (1, 2, 6000, 7107)),
    (3, (40, 40, 40), (39, 39, 39, 39)), (3, (40, 40, 40), (0, 0, 40, 0)),
    (3, (40, 40, 40), (0, 0, 0, 40)), (3, (40, 40, 40), (0, 0, 65535, 65535)),
    (3, (65535, 65535, 65535), (65534, 65534, 65534, 65534)), (3, (1, 1, 65535), (0, 0, 0, 0)),
])  # fmt: skip
def test_a_partial_sequence_has_the_runs_that_are_there(pack, counts, lacks):
    config = parse_config("tw16")
    dut = Extent(config)
    spec, box = INSTRUCTIONS["load"], counts[0] * counts[1] * (counts[2] if pack == 3 else 1)
    runs = box - lacks[0] - lacks[1] - (lacks[2] + lacks[3]) * counts[0]
    fields = dict(zip(("c1", "c2", "c3"), counts, strict=True))
    fields |= dict(zip(LACKS, lacks, strict=True)) | {"s1": -7, "s2": 1000, "dram": 1 << 31}
    v = Instr.make("load", xpose=1, pack=pack, **fields).values

    async def body(ctx):
        assert await stepped(ctx, dut, spec, v) == extent_cycles(spec, v)
        small = all(x < counts[i // 2] for i, x in enumerate(lacks))
        bad = box > 65535 or not small or runs < 1
        assert ctx.get(dut.bad) == bad
        if not bad:
            assert ctx.get(dut.product) == runs
            assert ctx.get(dut.back) == -7 * lacks[0] % (1 << 32)
            assert ctx.get(dut.begin) == (1 << 31) - 7 * lacks[0] + 1000 * lacks[2]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(body)
    sim.run()
