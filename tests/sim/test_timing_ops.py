"""Lowering: slots, beats, ports and passes against brute force over rows and elements."""

import random
from itertools import product

import pytest
from tilewright.isa.config import parse_config
from tilewright.isa.encoding import Instr, Reg
from tilewright.isa.extent import check_range, extents, joined
from tilewright.isa.table import Conv, Dest, Fault, Mem, Type, Unit
from tilewright.sim.exec_load import beats as load_beats
from tilewright.sim.functional import Executed
from tilewright.sim.timing_ops import Work, beats, constants, fault_op, lower, lower_one
from tilewright.sim.timing_units import Store

CONFIGS = [parse_config(t) for t in ("tw4", "tw16", "dim=8,spad_kib=64,acc_kib=16,bus_bytes=2")]


def executed(instr, number=0, pc=0, address=0):
    return Executed(number, pc, instr.spec.unit, instr, instr.values, address)


def touched_beats(start, run, steps, bus):
    """Beats of every run, one run at a time."""
    runs = [start]
    for count, stride in steps:
        runs = [r + i * stride for r in runs for i in range(count)]
    return sum((r + run - 1) // bus - r // bus + 1 for r in runs)


@pytest.mark.parametrize("bus", [2, 4, 8, 16])
def test_beats_in_closed_form_count_every_run(bus):
    rng = random.Random(bus)
    for _ in range(200):
        steps = [(rng.randint(1, 9), rng.choice((0, 1, 3, 8, 20, -5, 64))) for _ in range(3)]
        start, run = rng.randrange(1 << 12), rng.randint(1, 70)
        assert beats(start, run, steps, bus) == touched_beats(start, run, steps, bus)


def test_joined_load_slots_count_new_beats_and_units():
    rng, idle = random.Random(3), 0
    for _ in range(300):
        config = rng.choice(CONFIGS)
        bus = config.bus_bytes
        mem, conv, size = rng.choice(((0, 0, 1), (0, 1, 2), (1, 7, 1), (0, 3, 4), (1, 2, 4)))
        c0, c1, c2, c3 = (
            rng.randint(1, 70),
            rng.randint(2, 40),
            rng.randint(1, 9),
            rng.randint(1, 3),
        )
        run, dram = c0 * size, rng.randrange(100)
        s2, s3 = rng.choice((0, run * c1, 37, 64)), rng.choice((0, 5, 1000))
        instr = Instr.make("load", mem=mem, conv=conv, c0=c0, c1=c1, c2=c2, c3=c3, dram=dram,
                           s1=run, s2=s2, s3=s3)  # fmt: skip
        slots = fetched = 0
        for first in (dram + i2 * s2 + i3 * s3 for i2 in range(c2) for i3 in range(c3)):
            seen = {first // bus} if first % bus else set()
            slots += len(seen)
            for i in range(c1):
                start = first + i * run
                new = set(range(start // bus, (start + run - 1) // bus + 1)) - seen
                units = -(-c0 // config.dim)
                slots += max(len(new), units)
                idle += len(new) < units
                seen |= new
            fetched += len(seen)
        assert lower_one(config, executed(instr)).work.slots == slots
        assert load_beats(instr.values, bus) == fetched
    assert idle


@pytest.mark.parametrize(
    ("fields", "slots"),
    [
        # one byte a row from byte 3 on, beats of 4 bytes: bytes 3-4, 5-6, 7; the first beat before
        (dict(c0=1, c1=5, l1=1), 4),
        (dict(c0=1, c1=5, l1=1, l0=7, l2=2, l3=-4), 4),
        (dict(c0=1, c1=5, l1=1, c2=2, s2=4, l2=6), 8),
        (dict(c0=1, c1=5, l1=1, loc=1), 6),  # the first granule is odd: a row a slot
        (dict(c0=1, c1=5, l1=1, l2=5), 6),
        (dict(c0=1, c1=5, l1=-1), 6),
        (dict(c0=1, c1=5, l1=1, conv=Conv.I8_I32, mem=Mem.ACC), 6),
        (dict(c0=3, c1=5, l1=1), 5),  # bytes 3-8, 9-14, 15-17 end in beats 2, 3, 4
        (dict(c0=4, c1=3, l1=1), 4),  # as long as a beat
        # 6 bytes a row are two units: bytes 3-8, 9-14, 15-20 have 2, 1 and 2 new beats
        (dict(c0=6, c1=3, l0=1, l1=2), 6),
        (dict(c0=6, c1=3, l0=1, l1=3), 7),
        (dict(c0=6, c1=3, l0=3, l1=2), 7),
        (dict(c0=6, c1=3, l0=1, l1=2, loc=1), 7),
        # 9 bytes are three units: 3-11, 12-20, 21-29 have 2, 3 and 2 new beats
        (dict(c0=9, c1=3, l0=1, l1=4), 8),
        (dict(c0=9, c1=3, l0=1, l1=3), 10),
    ],
)
def test_a_joined_load_writes_two_granules_in_a_slot(fields, slots):
    fields = {"dram": 3, "s1": fields["c0"], "conv": Conv.COPY8, "loc": 8} | fields
    work = lower_one(CONFIGS[0], executed(Instr.make("load", **fields))).work
    assert work.slots == slots


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.name}-{c.bus_bytes}")
def test_paired_slots_are_new_beats_but_one_for_each_word(config):
    rng, bus, both = random.Random(5), config.bus_bytes, [0, 0]
    for _ in range(200):
        rows = rng.random() < 0.5 or bus < config.dim
        c0 = rng.randint(1, bus - 1) if rows else rng.randint(1, 5 * bus)
        c1, c2 = rng.randint(2, 40), rng.randint(1, 3)
        s2, dram = rng.randrange(200), rng.randrange(99)
        fields = dict(c0=c0, c1=c1, s1=c0, c2=c2, s2=s2, dram=dram, l0=1, l1=1 if rows else 8)
        slots = 0
        for first in (dram + i * s2 for i in range(c2)):
            seen = {first // bus} if first % bus else set()
            slots += len(seen)
            for i in range(0, c1, 1 + rows):
                start, end = first + i * c0, first + min(i + 1 + rows, c1) * c0
                new = set(range(start // bus, (end - 1) // bus + 1)) - seen
                words = 1 if rows else -(-c0 // (2 * bus))
                slots += max(len(new), words)
                seen |= new
        assert lower_one(config, executed(Instr.make("load", **fields))).work.slots == slots
        both[rows] += 1
    assert both[1] and (both[0] or bus < config.dim)


def local_rows(config, extent_list, mem, access):
    """Banks, as a mask, that any row from lo to hi of matching operands lies in."""
    bank = config.spad_bank if mem == Mem.SPAD else config.acc_bank
    mask = 0
    for e in extent_list:
        if e.mem == mem and access in e.access:
            for row in range(e.lo, e.hi + 1):
                mask |= 1 << row // bank
    return mask


def test_load_slots_are_beats_and_its_ports_are_its_banks():
    rng = random.Random(1)
    for _ in range(100):
        config = rng.choice(CONFIGS)
        mem, conv = rng.choice(((0, Conv.COPY8), (0, Conv.COPY16), (1, Conv.COPY32)))
        counts = {f"c{i}": rng.randint(1, 5) for i in range(4)}
        strides = {f"s{i}": rng.choice((0, 1, 7, 100)) for i in (1, 2, 3)}
        instr = Instr.make(
            "load", mem=mem, conv=conv, pack=rng.randint(1, 3), dram=rng.randrange(999),
            loc=2 * rng.randrange(4), l0=2, l1=2, l2=6, l3=0, **counts, **strides,
        )  # fmt: skip
        if joined(instr.spec, instr.values):
            continue
        work = lower_one(config, executed(instr)).work
        steps = [(counts[f"c{i}"], strides[f"s{i}"]) for i in (1, 2, 3)]
        run = counts["c0"] * {0: 1, 1: 2, 2: 4}[conv]
        assert work.slots == touched_beats(instr["dram"], run, steps, config.bus_bytes)
        where = extents(config, instr.spec, instr.values)
        assert work.reads == 0
        assert work.rest >> 8 & 255 == local_rows(config, where, Mem.SPAD, "w")
        assert work.rest >> 24 & 255 == local_rows(config, where, Mem.ACC, "w")


@pytest.mark.parametrize(
    ("mem", "conv", "pack", "units"),
    [
        (Mem.SPAD, Conv.COPY8, 1, 2 * 3 * 4 * 3),  # 9 elements: 3 units of 4
        (Mem.SPAD, Conv.COPY8, 2, 3 * 4 * 5),  # 18 elements: 5 units
        (Mem.SPAD, Conv.COPY8, 3, 4 * 14),  # 54 elements: 14 units
        (Mem.SPAD, Conv.COPY32, 1, 2 * 3 * 4 * 5),  # 9 elements: 5 units of 2
        (Mem.ACC, Conv.COPY32, 1, 2 * 3 * 4 * 3),
    ],
)
def test_fill_takes_a_slot_for_each_unit(mem, conv, pack, units):
    instr = Instr.make("load", mem=mem, conv=conv, pack=pack, fill=1, c0=9, c1=2, c2=3, c3=4)
    work = lower_one(CONFIGS[0], executed(instr)).work
    assert (work.slots, work.local) == (units, True)


def test_store_slots_are_vectors_and_then_beats_or_units():
    config = CONFIGS[0]  # dim 4, 4 bytes a beat
    common = dict(mem=Mem.ACC, type=Type.F32, c0=9, c1=2, c2=1, l0=1, l1=3)
    dram = Instr.make(
        "store", dest=Dest.DRAM, out=Type.F32, dst=2, s1=100, scale=1, bias=1, vec=8, vs=4, **common
    )
    work = lower_one(config, executed(dram)).work
    assert (work.slots, work.local) == (2 * 3 + 2 * 10, False)  # 36 bytes at offset 2: 10 beats
    assert work.rest == 0
    spad = Instr.make("store", dest=Dest.SPAD, out=Type.I8, dst=0, s1=3, d0=1, **common)
    work = lower_one(config, executed(spad)).work
    assert (work.slots, work.local) == (2 * 3, True)
    assert work.reads == 0b1 << 16
    assert work.rest == 0b1 << 8


@pytest.mark.parametrize(
    ("fields", "late"),
    [
        ({"type": Type.F32, "out": Type.F32}, 0),
        ({"type": Type.F32, "out": Type.BF16}, 0),
        ({"type": Type.I32, "out": Type.I8, "int_path": 1, "zp": -3}, 0),
        ({"type": Type.I32, "out": Type.I32}, 12),  # rounded to fp32
        ({"type": Type.F32, "out": Type.I8}, 12),
        ({"type": Type.I32, "out": Type.F32}, 12),
        ({"type": Type.F32, "out": Type.F32, "clamp": 1}, 12),
        ({"type": Type.F32, "out": Type.F32, "scale": 1}, 12),
        ({"type": Type.F32, "out": Type.BF16, "bias": 1}, 12),
        ({"type": Type.I32, "out": Type.I32, "int_path": 1, "ibias": 1}, 12),
        ({"type": Type.I32, "out": Type.I8, "int_path": 1, "clamp": 1}, 12),
    ],
)
def test_a_store_that_changes_little_goes_the_short_way(fields, late):
    """(cycles that its results come later, cycles that the next one does not wait for)"""
    work = lower_one(CONFIGS[0], executed(Instr.make("store", mem=Mem.ACC, **fields))).work
    assert (work.drain, work.hidden) == (late, late)


def test_a_short_store_waits_for_a_long_one_before_it():
    k = constants(CONFIGS[0])
    unit = Store(k)
    long, short = Work(5, 0, 0, True, 12, 12), Work(3, 0, 0, True)
    assert unit.grant(100, long) == (105 + 1, 105 + 12 + 8)
    assert unit.grant(105, short) == (120 + 1, 120 + 8)  # slots 118 to 120
    assert unit.grant(120, short) == (123 + 1, 123 + 8)
    assert unit.grant(123, long) == (128 + 1, 128 + 12 + 8)
    assert unit.grant(133, short) == (143 + 1, 143 + 8)
    assert unit.grant(160, short) == (163 + 1, 163 + 8)
    assert list(zip(unit.issuing.starts, unit.issuing.ends, strict=True)) == [
        (100, 105), (118, 128), (133, 133), (141, 143), (160, 163)
    ]  # fmt: skip


def slots_of_joined_rows(v, size, dim, bus):
    """Byte by byte: a row goes on until it has filled its beats and read its last unit."""
    slots = 0
    for i2 in range(v["c2"]):
        at = v["dst"] + i2 * v["s2"]
        for i1 in range(v["c1"]):
            places = [at + i - at // bus * bus for i in range(v["s1"])]  # by the row's first beat
            needs = {p // bus for p in places[:: dim * size]}  # slots that read
            needs |= {p // bus for p in places if p % bus == bus - 1 or i1 == v["c1"] - 1}
            slots += max(needs) + 1
            at += v["s1"]
    return slots


def test_joined_rows_of_a_store_share_their_beats():
    rng = random.Random(7)
    for _ in range(300):
        config = rng.choice(CONFIGS)
        out, size = rng.choice(((Type.I8, 1), (Type.BF16, 2), (Type.F32, 4)))
        c0 = rng.randint(1, rng.choice((4, 70)))
        instr = Instr.make(
            "store", mem=Mem.ACC, type=Type.F32, out=out, c0=c0, c1=rng.randint(2, 40),
            c2=rng.randint(1, 3), s1=c0 * size, s2=rng.randrange(-99, 99), dst=rng.randrange(999),
        )  # fmt: skip
        want = slots_of_joined_rows(instr.values, size, config.dim, config.bus_bytes)
        assert lower_one(config, executed(instr)).work.slots == want


def test_rows_with_a_gap_share_no_beat():
    fields = dict(mem=Mem.ACC, type=Type.F32, out=Type.I8, c0=3, c1=6, c2=1, dst=2)
    joined, apart = (Instr.make("store", s1=s, **fields) for s in (3, 4))
    assert lower_one(CONFIGS[0], executed(joined)).work.slots == 6
    assert lower_one(CONFIGS[0], executed(apart)).work.slots == 6 * 2


def test_max_pool_takes_a_slot_for_each_row_of_a_window():
    common = dict(mem=Mem.ACC, type=Type.F32, c0=9, c1=2, c2=2, l0=1, l1=3, pool=1, pool_h=3,
                  pool_w=2, pool_sh=1, pool_sw=4)  # fmt: skip
    spad = Instr.make("store", dest=Dest.SPAD, out=Type.I8, s1=3, s2=6, d0=1, bias=1, **common)
    assert lower_one(CONFIGS[0], executed(spad)).work.slots == 3 + 4 * 3 * 6
    dram = Instr.make("store", dest=Dest.DRAM, out=Type.F32, dst=2, s1=100, s2=200, **common)
    assert lower_one(CONFIGS[0], executed(dram)).work.slots == 4 * (3 * 5 + 10)


def test_a_transposing_store_reads_the_first_block_of_an_i2_before_its_rows():
    common = dict(mem=Mem.ACC, type=Type.F32, c0=3, c1=6, c2=2, l0=1, l1=4, l2=8, xpose=1)
    spad = Instr.make("store", dest=Dest.SPAD, out=Type.I8, s1=1, s2=6, bias=1, **common)
    assert lower_one(CONFIGS[0], executed(spad)).work.slots == 1 + 2 * (3 + 6)
    dram = Instr.make("store", dest=Dest.DRAM, out=Type.F32, dst=2, s1=100, s2=200, **common)
    assert lower_one(CONFIGS[0], executed(dram)).work.slots == 2 * (3 + 6 * 4)


def test_a_transposing_store_of_long_rows_takes_a_slot_for_each_unit_and_joins():
    common = dict(mem=Mem.ACC, type=Type.F32, c0=9, c1=6, c2=2, l0=1, l1=9, l2=18, xpose=1)
    spad = Instr.make("store", dest=Dest.SPAD, out=Type.I8, s1=3, s2=18, d0=1, scale=1, **common)
    assert lower_one(CONFIGS[0], executed(spad)).work.slots == 3 + 2 * (9 + 6 * 3)
    apart = Instr.make("store", out=Type.I8, dst=3, s1=12, s2=72, **common)  # 3 + 9 bytes: 3 beats
    assert lower_one(CONFIGS[0], executed(apart)).work.slots == 2 * (9 + 6 * 3)
    joined = Instr.make("store", out=Type.I8, dst=3, s1=9, s2=54, **common)
    # offsets 3 0 1 2 3 0, and 1 2 3 0 1 2; the last unit is read in slot 2 (the first is 0); the
    # last row's beats: 3, then 3
    assert lower_one(CONFIGS[0], executed(joined)).work.slots == 2 * 9 + 5 * 3 + 3 + 5 * 3 + 3


def test_a_scatter_takes_six_slots_before_each_row():
    instr = Instr.make(
        "store", mem=Mem.ACC, type=Type.F32, out=Type.F32, c0=9, c1=3, c2=2, l0=1, l1=3, dst=1,
        s1=64, s2=2, scatter=1, index=0x100, bound=7,
    )  # fmt: skip
    work = lower_one(CONFIGS[0], executed(instr)).work
    assert work.slots == 3 * (6 + 10) + 3 * (6 + 10)  # offsets 1 and 3 of 4 bytes
    assert work.reads == 0b1 << 16 | 1 << 0x100 // CONFIGS[0].spad_bank


def test_passes_hold_the_banks_of_their_own_rows():
    rng = random.Random(2)
    done = 0
    while done < 60:
        config = rng.choice(CONFIGS[:2])
        d = config.dim
        instr = Instr.make(
            "matmul", a_type=Type.BF16, w_type=Type.BF16,
            a=2 * rng.randrange(config.spad_granules // 2), as0=2, as1=rng.choice((0, 20, 64)),
            ak=rng.choice((2, 30, -40)), r0=rng.randint(1, 9), r1=rng.randint(1, 3),
            w=2 * rng.randrange(config.spad_granules // 2), ws=2, wk=2 * d, wn=rng.choice((0, 50)),
            k=rng.randint(1, 3 * d), n=rng.randint(1, 3 * d),
            c=rng.randrange(config.acc_rows), cn=rng.choice((27, 40)),
        )  # fmt: skip
        try:
            check_range(config, instr.spec, instr.values)
        except ValueError:
            continue
        done += 1
        work, v = lower_one(config, executed(instr)).work, instr.values
        i = 0
        for nb in range(-(-v["n"] // d)):
            for kb in range(-(-v["k"] // d)):
                a, w, c = set(), set(), set()
                for r in range(v["r0"] * v["r1"]):
                    at = v["a"] + kb * v["ak"] + r % v["r0"] * 2 + r // v["r0"] * v["as1"]
                    a |= {at // config.spad_bank, (at + 1) // config.spad_bank}
                    c.add((v["c"] + nb * v["cn"] + r) // config.acc_bank)
                for j in range(d):
                    at = v["w"] + kb * v["wk"] + nb * v["wn"] + 2 * j
                    w |= {at // config.spad_bank, (at + 1) // config.spad_bank}
                masks = [sum(1 << b for b in range(min(x), max(x) + 1)) for x in (a, w, c)]
                assert (work.a[i], work.w[i]) == (masks[0], masks[1])
                assert work.reads[i] == masks[0] | masks[1]
                assert work.rest[i] == masks[2] << 16 | masks[2] << 24
                i += 1
        assert i == len(work.reads)


def test_waits_on_one_semaphore_add_up_and_unused_ones_vanish():
    fill = dict(fill=1, c0=1, c1=1, c2=1, c3=1)
    both = Instr.make("load", wait0=3, wait0_n=1, wait1=3, wait1_n=2, **fill)
    assert lower_one(CONFIGS[0], executed(both)).waits == ((3, 3),)
    none = lower_one(
        CONFIGS[0], executed(Instr.make("load", wait0=3, done_en=1, done_sem=9, **fill))
    )
    assert (none.waits, none.rd, none.done) == ((), -1, 9)


def test_lead_counts_decode_resolve_and_extent():
    load = Instr.make("load", fill=1, c0=Reg(1), c1=Reg(2), c2=1, c3=1)
    values = {**load.values, "c0": 1, "c1": 1}
    op = lower_one(CONFIGS[0], Executed(0, 0, load.spec.unit, load, values))
    assert op.lead == 2 + 2 + 2
    li = Instr.make("li", rd=1, b=5)
    assert lower_one(CONFIGS[0], executed(li)).lead == 2


def test_jumps_have_a_target_and_untaken_branches_none():
    jmp, beq = Instr.make("jmp", target=9), Instr.make("beq", target=9)
    halt = Instr.make("halt")
    ops = lower(CONFIGS[0], [executed(jmp, 0, 0), executed(beq, 1, 9), executed(halt, 2, 10)])
    assert [op.target for op in ops] == [9, -1, -1]


def test_a_fault_stops_in_the_state_that_finds_it():
    load = Instr.make("load", c0=Reg(1))
    assert fault_op(0, 7, Fault.PC).stage == "fetch"
    assert (fault_op(0, 7, Fault.OPCODE).stage, fault_op(0, 7, Fault.OPCODE).lead) == ("decode", 1)
    refused = Executed(0, 7, Unit.SEQ, load, {**load.values, "c2": 1, "c3": 1})
    assert fault_op(0, 7, Fault.RANGE, refused).lead == 3 + 2 + 1
    with pytest.raises(ValueError, match="must come with its instruction"):
        fault_op(0, 7, Fault.FIELD)


def test_a_transposing_load_takes_slots_for_rows_of_zeros_and_for_its_last_units():
    config = CONFIGS[0]  # dim 4, 4 bytes a beat
    instr = Instr.make("load", conv=Conv.COPY16, xpose=1, c0=4, c1=6, s1=8, c2=3, l0=2, l1=8)
    work = lower_one(config, executed(instr)).work
    assert (work.slots, work.local) == (3 * (6 * 2 + 2), False)
    assert (work.drain, work.hidden) == (6, 4)


def test_a_transposing_load_of_long_runs_pays_for_each_unit_of_a_row_of_zeros():
    config = CONFIGS[0]  # dim 4, 4 bytes a beat
    fields = dict(dram=3, xpose=1, c0=29, c1=7, s1=32, c2=3, c3=2, l0=1, l1=32)
    work = lower_one(config, executed(Instr.make("load", **fields))).work
    assert work.slots == 3 * 2 * (7 * 8 + 8)
    assert (work.drain, work.hidden) == (31, 32)


@pytest.mark.parametrize(
    ("pack", "zeros"),  # rows: for each (i2, i3) of 7 runs, for each i3 of 35, once for 70
    [(1, 2 * 5 * (4 - 7 % 4)), (2, 2 * (4 - 35 % 4)), (3, 4 - 70 % 4)],
)
def test_rows_of_zeros_complete_the_end_of_a_sequence_only(pack, zeros):
    config = CONFIGS[0]  # dim 4, 4 bytes a beat
    fields = dict(dram=3, xpose=1, pack=pack, c0=9, c1=7, s1=32, c2=5, c3=2, l0=1, l1=9, s2=11)
    work = lower_one(config, executed(Instr.make("load", **fields))).work
    beats = sum(-(-((3 + 11 * i2) % 4 + 9) // 4) for i2 in range(5)) * 7 * 2
    assert work.slots == beats + 3 * zeros
    assert (work.drain, work.hidden) == (11, 12)


@pytest.mark.parametrize("pack", [2, 3])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_a_sequence_pays_for_the_runs_that_are_there(pack, config):
    rng = random.Random(pack)
    for _ in range(200):
        c0, *counts = (rng.randint(1, most) for most in (2 * config.dim, 9, 4, 3))
        lacks = [rng.randint(0, counts[i] - 1) for i in (0, 0, 1, 1)]
        if pack == 2:
            lacks[2:] = 0, 0
        size = counts[0] * counts[1] * (counts[2] if pack == 3 else 1)
        first, end = lacks[0] + lacks[2] * counts[0], size - lacks[1] - lacks[3] * counts[0]
        if first >= end:
            continue
        strides = [rng.randint(-50, 50) for _ in range(3)]
        starts = [
            9000 + sum(i * s for i, s in zip((i1, i2, i3), strides, strict=True))
            for i3, i2, i1 in product(*map(range, reversed(counts)))
        ]
        starts = [x for n, x in enumerate(starts) if first <= n % size < end]
        beats = sum(touched_beats(x, c0, (), config.bus_bytes) for x in starts)
        sequences = counts[2] if pack == 2 else 1
        zeros = (first - end) % config.dim * sequences
        fields = dict(zip(("c1", "c2", "c3", "s1", "s2", "s3"), counts + strides, strict=True))
        fields |= dict(zip(("skip1", "drop1", "skip2", "drop2"), lacks, strict=True))
        instr = Instr.make("load", xpose=1, pack=pack, c0=c0, dram=9000, **fields)
        assert load_beats(instr.values, config.bus_bytes) == beats
        work = lower_one(config, executed(instr)).work
        assert work.slots == beats + -(-c0 // config.dim) * zeros


@pytest.mark.parametrize(
    ("config", "fields", "slots"),
    [  # fetch rows + lead 5 + 8 for each word that runs
        (0, dict(body=1), 1 + 5 + 8),
        (0, dict(init=3, head=1, body=4, tail=2, rows=8, cols=4), 5 + 5 + 8 * (3 + 1 + 4 + 2)),
        (0, dict(init=1, head=1, body=4, tail=2, rows=9, cols=13), 4 + 5 + 8 * (1 + 2 * (3 + 16))),
        (1, dict(init=0, head=1, body=7, tail=0, rows=64, cols=17), 1 + 5 + 8 * 8 * 15),
        (1, dict(init=0, head=1, body=8, tail=0, rows=1, cols=1), 2 + 5 + 8 * 9),
    ],
)  # fmt: skip
def test_vector_takes_eight_slots_for_each_word(config, fields, slots):
    work = lower_one(CONFIGS[config], executed(Instr.make("vector", **fields))).work
    assert work.slots == slots


def test_vector_reads_its_micro_kernel_and_its_load_streams():
    instr = Instr.make(
        "vector", body=9, kernel=30, rows=2, cols=5, x_on=1, x_type=Type.BF16, x=510, x_row=-256,
        x_unit=2, y_mem=Mem.ACC, y=200, o_on=1, o_mem=Mem.ACC, o_type=Type.F32, o=64, o_row=31,
        o_unit=33, p_on=1, p=1000, p_row=1000, p_unit=1,
    )  # fmt: skip
    work = lower_one(CONFIGS[0], executed(instr)).work  # 256 granules or 32 rows to a bank
    assert work.reads == 0b11 << 16 | 0b111  # rows 30 to 34; granules 254 to 513; y is not on
    assert work.rest == 0b11111000 << 8 | 0b11100 << 24  # granules 1000 to 2001; rows 64 to 128


def test_a_gather_takes_slots_for_its_first_index_and_reads_its_banks():
    config = CONFIGS[0]
    instr = Instr.make(
        "load", gather=1, bound=9, index=256, dram=2, c0=4, c1=300, s1=8, c2=2, l1=0, mem=Mem.ACC,
        conv=Conv.U8_I32,
    )  # fmt: skip
    work = lower_one(config, executed(instr)).work
    assert work.slots == 8 + 600 * 2  # 4 bytes at offset 2 are two beats
    bank = config.spad_bank
    assert work.reads == (2 << (256 + 299) // bank) - (1 << 256 // bank)
