"""STORE against a NumPy model: bytes, cycles, back-pressure, every type, alignment and edge."""

import importlib.util
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from tilewright.isa import timing
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import TYPE_BYTES, Dest, Mem, Type

_spec = importlib.util.spec_from_file_location(
    "store_bench", Path(__file__).parent / "store_bench.py"
)
sb = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sb)

CONFIGS = {
    "dim2": ChipConfig(dim=2, spad_kib=2, acc_kib=2),
    "dim4": ChipConfig(dim=4, spad_kib=4, acc_kib=2, bus_bytes=2),
    "dim16": ChipConfig(dim=16, spad_kib=16, acc_kib=16),
}
BLANK = dict.fromkeys(
    ("int_path", "ibias", "scale", "bias", "clamp", "zp", "l0", "l1", "l2", "s1", "s2", "d0",
     "vec", "vs", "lo", "hi", "pool", "pool_h", "pool_w", "pool_sh", "pool_sw", "scatter", "index",
     "bound", "xpose"), 0,
) | {"mem": Mem.ACC, "type": Type.I32, "dest": Dest.DRAM, "out": Type.I8, "loc": 0, "c1": 1,
     "c2": 1, "dst": 0x1000}  # fmt: skip


@pytest.fixture(scope="module")
def chips():
    return sb.build(CONFIGS)


@pytest.fixture(params=CONFIGS)
def chip(request, chips):
    return chips[request.param]


def base(rng, lo, hi, size, even=False):
    """A base such that base + lo and base + hi lie in 0 ... size - 1; None if there is none."""
    low, high = -lo, size - 1 - hi
    if even:
        low, high = low + low % 2, high - high % 2
    return rng.randrange(low, high + 1, 2 if even else 1) if low <= high else None


def reach(*terms):
    """Least and greatest sum of (count - 1) * stride."""
    ends = [(n - 1) * s for n, s in terms]
    return sum(min(e, 0) for e in ends), sum(max(e, 0) for e in ends)


def draw(rng, config):
    """A random legal instruction; scratchpad sources are in the lower half, results above."""
    while True:
        f = dict(BLANK)
        f["mem"] = rng.choice((Mem.ACC, Mem.ACC, Mem.SPAD))
        kinds = (Type.I32, Type.F32) if f["mem"] == Mem.ACC else (Type.I8, Type.U8, Type.BF16)
        f["type"], f["dest"] = rng.choice(kinds), rng.choice((Dest.DRAM, Dest.DRAM, Dest.SPAD))
        narrow = (Type.I8, Type.U8, Type.BF16)
        f["out"] = rng.choice(narrow if f["dest"] == Dest.SPAD else tuple(Type))
        integer = f["type"] in (Type.I8, Type.U8, Type.I32)
        whole = f["out"] in (Type.I8, Type.U8, Type.I32)
        f["int_path"] = int(integer and whole) & rng.getrandbits(1)
        f["ibias"] = int(integer) & rng.getrandbits(1)
        if not f["int_path"]:
            f["scale"], f["bias"] = rng.getrandbits(1), rng.getrandbits(1)
        f["clamp"] = rng.getrandbits(1)
        if rng.random() < 0.3:
            f |= dict.fromkeys(("ibias", "scale", "bias", "clamp"), 0)
        if f["out"] not in (Type.BF16, Type.F32):
            f["zp"] = rng.choice((0, rng.randrange(-300, 300), rng.choice((-32768, 32767))))
        if f["int_path"]:
            f["lo"], f["hi"] = (rng.randrange(-200, 200) & 0xFFFFFFFF for _ in range(2))
        else:
            pair = np.array([rng.uniform(-9, 9), rng.uniform(-9, 9)], np.float32).view(np.uint32)
            f["lo"], f["hi"] = (int(x) if rng.random() < 0.8 else rng.getrandbits(32) for x in pair)
        f["c0"] = rng.randrange(1, rng.choice((3, 4)) * config.dim + 1)
        f["c1"], f["c2"] = rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2, 3))
        pair = f["type"] == Type.BF16
        for name in ("l0", "l1", "l2"):
            f[name] = rng.randrange(-6, 7) * (2 if pair else 1)
        units = -(-f["c0"] // config.dim)
        way = rng.choice(("pool", "pool", "xpose", "plain", "plain"))
        f["pool"], f["xpose"] = int(way == "pool"), int(way == "xpose")
        reads = units
        if f["xpose"]:
            f["c0"] = rng.choice((rng.randint(1, config.dim), rng.randint(1, 8 * config.dim)))
            f["l0"] = rng.randrange(-1, 2) * (1 + pair)
            f["c1"], reads = rng.randint(1, 3 * config.dim), f["c0"]
            units = -(-f["c0"] // config.dim)
        for name in ("pool_h", "pool_w", "pool_sh", "pool_sw"):
            f[name] = rng.choice((1, 2, 2, 3)) if f["pool"] else rng.randrange(16)
        in1, in2 = f["c1"], f["c2"]
        if f["pool"]:
            in1 = (in1 - 1) * f["pool_sw"] + f["pool_w"]
            in2 = (in2 - 1) * f["pool_sh"] + f["pool_h"]
        in1 = -(-in1 // config.dim) if f["xpose"] else in1
        lo, hi = reach((reads, f["l0"]), (in1, f["l1"]), (in2, f["l2"]))
        size = config.acc_rows if f["mem"] == Mem.ACC else config.spad_granules // 2
        f["loc"] = base(rng, lo, hi + pair, size, pair)
        vectors = f["ibias"] + f["scale"] + f["bias"]
        f["vs"] = rng.randrange(-5, 6)
        lo, hi = reach((max(vectors, 1), f["vs"]), (units, 1))
        f["vec"] = base(rng, lo, hi, config.acc_rows)
        half = config.spad_granules // 2
        if f["dest"] == Dest.SPAD:
            wide = f["out"] == Type.BF16
            for name in ("s1", "s2", "d0"):
                f[name] = rng.randrange(-8, 9) * (2 if wide else 1)
            lo, hi = reach((units, f["d0"]), (f["c1"], f["s1"]), (f["c2"], f["s2"]))
            dst = base(rng, lo, hi + wide, half, wide)
            f["dst"] = None if dst is None else dst + half
        else:
            f["s1"], f["s2"] = (rng.randrange(-300, 300) for _ in range(2))
            if way != "pool" and rng.random() < 0.7:
                f["s1"] = f["c0"] * TYPE_BYTES[f["out"]]
            elif rng.random() < 0.5 and not f["xpose"]:
                f["scatter"], f["bound"] = 1, rng.randrange(1, 8)
                f["index"] = 2 * rng.randrange(12)
                f["s1"] = rng.randrange(-20, 20) * config.bus_bytes
            f["dst"] = 0x20000 + rng.choice((0, rng.randrange(4096), 4096 - rng.randrange(1, 80)))
        if None not in (f["loc"], f["vec"], f["dst"]):
            return f


def draw_joined(rng, config):
    """A random STORE of rows that follow each other in DRAM, of 1 to 70 bytes."""
    out = rng.choice(tuple(Type))
    size = TYPE_BYTES[out]
    most = max(1, rng.choice((70, 2 * config.bus_bytes)) // size)
    c0 = min(rng.choice((most, rng.randint(1, most))), 16 * config.dim)
    units, rows = -(-c0 // config.dim), rng.randint(2, 12)
    count = rng.choice((1, 2, 3))
    f = BLANK | {"out": out, "c0": c0, "c1": rows, "c2": count, "s1": c0 * size}
    f |= {"type": rng.choice((Type.I32, Type.F32)), "l0": rng.randint(0, 1), "vs": units}
    f |= {"l1": rng.randint(0, 2), "l2": rng.randint(-1, 2), "s2": rng.randrange(-900, 900)}
    f |= {"ibias": int(f["type"] == Type.I32) & rng.getrandbits(1), "scale": rng.getrandbits(1)}
    f |= {"bias": rng.getrandbits(1), "loc": 2 + rng.randrange(8), "vec": 8}
    f["dst"] = 0x20000 + rng.choice((0, rng.randrange(4096), 4096 - rng.randrange(1, 80)))
    return f


def check_bytes(bench, config, program, seed):
    """Compare both memories with the instructions run in order on the same contents."""
    want = sb.Memories(config, seed)
    for f in program:
        want.execute(f)
    assert bench.memories.dram == want.dram
    np.testing.assert_array_equal(bench.memories.spad, want.spad)


def late_by(f):
    """Cycles by which the epilogue delays its results more than those of a short instruction."""
    changed = f["ibias"] or f["scale"] or f["bias"] or f["clamp"]
    floats = (Type.BF16, Type.F32)
    stays = f["int_path"] or (f["type"] in floats and f["out"] in floats)
    return timing.STORE_LONG if changed or not stays else 0


def first_slot(f, start, long):
    """Its cycle, if the last slot of a long instruction before it is in cycle `long`."""
    return start + 1 if late_by(f) else max(start + 1, long + timing.STORE_LONG + 1)


def contract(config, program, starts):
    """Cycles that docs/microarchitecture.md §4 promises, from the cycles of the starts."""
    w, spad_w, issue, release, done, last = [], [], [], [], [], -1
    long = -100  # the last slot of a long one
    at = {Mem.ACC: [], Mem.SPAD: []}
    for f, s in zip(program, starts, strict=True):
        plan = sb.plan(config, f)
        n, late = len(plan), late_by(f)
        s = first_slot(f, s, long) - 1
        long = s + n if late else long
        issue += range(s + 1, s + 1 + n)
        for slot, (memory, row, _) in enumerate(plan, s + 1):
            if row is not None:
                at[memory].append((slot + timing.STORE_READ, row))
        data = [slot + late for slot, (_, _, out) in enumerate(plan, s + 1) if out]
        release.append(s + n + timing.STORE_READ)
        if f["dest"] == Dest.SPAD:
            spad_w += [x + timing.STORE_SPAD - 1 for x in data]
            own = s + n + late + timing.STORE_SPAD
        else:
            w += [x + timing.STORE_W for x in data]
            own = s + n + late + timing.STORE_W + sb.WRITE_LATENCY + timing.STORE_B
        last = max(own, last + 1)
        done.append(last)
    out = {"w": w, "spad_w": spad_w, "issue": issue, "release": release, "done": done}
    return out | {"acc_r": at[Mem.ACC], "spad_r": at[Mem.SPAD]}


def eager_starts(config, program, done):
    """When a unit that is always offered its next instruction starts each of them."""
    starts, free, long = [], 0, -100
    for k, f in enumerate(program):
        early = k - timing.STORE_INFLIGHT
        s = max(free, done[early] + 1 if early >= 0 else 0)
        starts.append(s)
        free = first_slot(f, s, long) - 1 + len(sb.plan(config, f))
        long = free if late_by(f) else long
    return starts


def run(chip, program, seed, **kwargs):
    config, model = chip
    gap = kwargs.pop("gap", 0.0)
    bench = sb.Bench(config, model, sb.Memories(config, seed), seed, **kwargs)
    bench.run(program, gap)
    check_bytes(bench, config, program, seed)
    return bench


def test_random_programs_keep_the_contract_cycle_for_cycle(chip):
    config, _ = chip
    rng = random.Random(1)
    program = [draw(rng, config) for _ in range(900)]
    bench = run(chip, program, 1)
    want = contract(config, program, bench.log["start"])
    assert {k: bench.log[k] for k in want} == want
    assert bench.log["start"] == eager_starts(config, program, want["done"])
    assert len(bench.log["beat"]) == len(want["w"])


def test_an_address_is_on_the_pins_no_later_than_its_first_beat(chip):
    config, _ = chip
    rng = random.Random(2)
    bench = run(chip, [draw(rng, config) for _ in range(60)], 2)
    beats = iter(bench.log["w"])
    for when, count in bench.log["aw"]:
        assert when <= next(beats)
        assert len(list(itertools.islice(beats, count - 1))) == count - 1


@pytest.mark.parametrize("stall", [0.1, 0.5, 0.9])
def test_bytes_are_right_under_back_pressure(chip, stall):
    rng = random.Random(int(stall * 10))
    program = [draw(rng, chip[0]) for _ in range(60)]
    bench = run(chip, program, 3, stall=stall)
    assert len(bench.log["done"]) == len(program)


def test_a_stopped_bus_stops_the_slots_after_32_beats_and_loses_none(chip):
    """32 beats of credit, and 2 that the slice at the boundary has taken."""
    config, model = chip
    program = [rows(config, 100)]
    bench = sb.Bench(config, model, sb.Memories(config, 20), 20, stall=1.0)
    bench.cycle(sb.pack(config, program[0]))
    for _ in range(300):
        bench.cycle()
    assert len(bench.log["acc_r"]) * config.dim // config.bus_bytes == 32 + 2
    bench.stall = 0.0
    while not bench.log["done"]:
        bench.cycle()
        assert bench.now < 2000
    check_bytes(bench, config, program, 20)


def test_bytes_are_right_with_idle_gaps(chip):
    rng = random.Random(4)
    program = [draw(rng, chip[0]) for _ in range(60)]
    bench = run(chip, program, 4, gap=0.97)
    want = contract(chip[0], program, bench.log["start"])
    assert {k: bench.log[k] for k in want} == want


def test_random_programs_reach_every_bin(chip):
    config, _ = chip
    rng = random.Random(1)
    program = [draw(rng, config) for _ in range(900)]
    types = {(f["type"], f["dest"], f["out"]) for f in program}
    assert len(types) == 5 * 5 + 5 * 3
    modes = ("int_path", "ibias", "scale", "bias", "clamp", "dest")
    assert {tuple(f[m] for m in modes[1:4]) for f in program} == set(
        itertools.product((0, 1), repeat=3)
    )
    dram = [f for f in program if f["dest"] == Dest.DRAM]
    assert {f["dst"] % config.bus_bytes for f in dram} == set(range(config.bus_bytes))
    ends = {(f["dst"] + f["c0"] * TYPE_BYTES[f["out"]]) % config.bus_bytes for f in dram}
    assert ends == set(range(config.bus_bytes))
    assert any(f["dst"] // 4096 != (f["dst"] + f["c0"] - 1) // 4096 for f in dram)
    assert {f["c0"] % config.dim for f in program} == set(range(config.dim))
    pooled = {(f["type"], f["dest"], f["out"]) for f in program if f["pool"]}
    assert len(pooled) > 0.8 * len(types)
    assert any(f["pool_sw"] > f["pool_w"] for f in program if f["pool"])
    turned = [f for f in program if f["xpose"]]
    assert {(f["type"], f["dest"]) for f in turned} == {x[:2] for x in types}
    assert {0, 1, config.dim - 1} <= {f["c1"] % config.dim for f in turned}
    assert set(range(1, config.dim + 1)) <= {f["c0"] for f in turned}
    assert {-(-f["c0"] // config.dim) for f in turned} == set(range(1, 9))
    assert {sb.joined(f) for f in turned if f["c0"] > config.dim} == {False, True}
    kinds = {(f["type"], f["out"]) for f in program if not late_by(f)}
    assert len(kinds) == 3 * 3 + 2 * 2
    for way in ("xpose", "pool", "scatter", "dest"):
        pairs = {(late_by(f) > 0, late_by(g) > 0, g[way]) for f, g in itertools.pairwise(program)}
        assert len(pairs) == 8
    scattered = [f for f in program if f["scatter"]]
    assert {f["type"] for f in scattered} == {t for t, _, _ in types}
    assert {(f["pool"], f["c1"] > 1, f["c2"] > 1) for f in scattered} == set(
        itertools.product((0, 1), (False, True), (False, True))
    )


def test_random_joined_rows_keep_the_contract_cycle_for_cycle(chip):
    config, bus = chip[0], chip[0].bus_bytes
    rng = random.Random(22)
    program = [draw_joined(rng, config) for _ in range(160)]
    bench = run(chip, program, 22)
    want = contract(config, program, bench.log["start"])
    assert {k: bench.log[k] for k in want} == want
    assert bench.log["start"] == eager_starts(config, program, want["done"])
    first = [((f["dst"] + i2 * f["s2"]) % bus, f) for f in program for i2 in range(f["c2"])]
    assert len(bench.log["w"]) == sum(-(-(o + f["c1"] * f["s1"]) // bus) for o, f in first)
    assert {o for o, _ in first} == {f["s1"] % bus for f in program} == set(range(bus))
    assert {(f["out"], f["c0"] > config.dim) for f in program} == set(
        itertools.product(Type, (False, True))
    )


@pytest.mark.parametrize("stall", [0.2, 0.7])
def test_joined_rows_are_right_under_back_pressure_and_among_others(chip, stall):
    rng = random.Random(int(stall * 10))
    program = [rng.choice((draw_joined, draw))(rng, chip[0]) for _ in range(60)]
    bench = run(chip, program, 23, stall=stall, gap=0.3)
    assert len(bench.log["done"]) == len(program)


def test_rows_shorter_than_a_beat_send_it_once(chip):
    """Rows of one byte: a slot each, and a beat only where one is full; the last one is partial."""
    config, bus = chip[0], chip[0].bus_bytes
    count = 40 * bus + 1
    f = rows(config, count, c0=1, s1=1, l1=0, dst=0x1000 - 3 * bus + 1)
    bench = run(chip, [f], 24)
    assert len(bench.log["issue"]) == count
    assert bench.log["w"][:-1] == [
        bench.log["issue"][0] + bus * (k + 1) - 2 + timing.STORE_W + timing.STORE_LONG
        for k in range(40)
    ]
    assert [beats for _, beats in bench.log["aw"]] == [3, 16, 16, 6]


@pytest.mark.parametrize(
    ("name", "fields", "beats"),
    [("dim4", {"c0": 3, "s1": 3}, 5), ("dim16", {"c0": 5, "s1": 20, "out": Type.F32}, 4)],
)
def test_bytes_of_the_slice_after_a_rows_last_beat_wait_without_a_slot(chips, name, fields, beats):
    """A unit is several beats; the next row's first slot sends what this row's last beat left."""
    bench = run(chips[name], [rows(chips[name][0], 3, l0=1, l1=5, **fields)], 25)
    assert len(bench.log["w"]) == len(bench.log["issue"]) == beats


def rows(config, count, **fields):
    """A full int8 block of `count` rows, contiguous in DRAM."""
    return BLANK | {"c0": config.dim, "c1": count, "l1": 1, "s1": config.dim} | fields


def test_an_aligned_int8_row_takes_as_many_cycles_as_it_has_beats(chip):
    config, _ = chip
    bench = run(chip, [rows(config, 32)], 5)
    beats = 32 * config.dim // config.bus_bytes
    assert bench.log["w"] == list(range(bench.log["w"][0], bench.log["w"][0] + beats))
    assert len(bench.log["issue"]) == beats


def test_a_row_longer_than_a_burst_is_cut_at_aligned_bursts_of_16_beats(chip):
    config, _ = chip
    units = 48 * config.bus_bytes // config.dim
    bus = config.bus_bytes
    f = BLANK | {"c0": units * config.dim, "l0": 1, "dst": 0x1000 - 3 * bus + 1}
    bench = run(chip, [f], 6)
    assert [beats for _, beats in bench.log["aw"]] == [3, 16, 16, 14]


def test_a_scratchpad_unit_is_written_each_cycle(chip):
    config, _ = chip
    half = config.spad_granules // 2
    f = rows(config, 16, dest=Dest.SPAD, out=Type.BF16, dst=half, s1=2, c0=2 * config.dim - 1, l0=2)
    bench = run(chip, [f | {"d0": 32}], 7)
    assert bench.log["spad_w"] == list(range(bench.log["spad_w"][0], bench.log["spad_w"][0] + 32))


def test_each_instruction_uses_its_own_vectors_and_bounds(chip):
    config, _ = chip
    program = [
        rows(config, 3, scale=1, bias=1, clamp=1, vec=4 * k, vs=2, out=out, dst=0x1000 * (k + 1),
             lo=0xC0A00000 + k, hi=0x40A00000 + (k << 20), s1=4 * config.dim)
        for k, out in enumerate((Type.F32, Type.I8, Type.BF16, Type.I32, Type.F32, Type.U8))
    ]  # fmt: skip
    bench = run(chip, program, 8)
    starts = bench.log["start"]
    assert starts == eager_starts(config, program, contract(config, program, starts)["done"])


def test_vectors_of_16_units_follow_each_other_without_a_gap(chip):
    config, _ = chip
    wide = BLANK | {"type": Type.I32, "out": Type.F32, "c0": 16 * config.dim - 1, "l0": 1, "vs": 16}
    wide |= {"ibias": 1, "scale": 1, "bias": 1}
    program = [wide | {"vec": k, "loc": 20 + k, "dst": 0x10003 + 0x1000 * k} for k in range(4)]
    bench = run(chip, program, 14)
    starts = bench.log["start"]
    want = contract(config, program, starts)
    assert {k: bench.log[k] for k in want} == want
    assert starts == eager_starts(config, program, want["done"])


def test_a_pool_reads_one_row_in_each_cycle(chip):
    config, _ = chip
    pool = {"pool": 1, "pool_h": 3, "pool_w": 2, "pool_sh": 1, "pool_sw": 2, "l2": 6, "c2": 2}
    bench = run(chip, [rows(config, 3, **pool, s2=3 * config.dim)], 16)
    beats = config.dim // config.bus_bytes
    assert len(bench.log["issue"]) == 6 * (3 * 2 - 1 + beats)
    want = [y * 6 + 6 * i2 + x + 2 * i1
            for i2 in range(2) for i1 in range(3) for y in range(3) for x in range(2)]  # fmt: skip
    assert [row for _, row in bench.log["acc_r"]] == want


def test_the_second_block_is_read_while_the_first_one_is_sent(chip):
    config, _ = chip
    dim = config.dim
    f = rows(config, dim + 1, xpose=1, c0=dim - 1, l0=2, l1=2 * dim + 1, s1=config.bus_bytes)
    bench = run(chip, [f], 21)
    want = [b * (2 * dim + 1) + 2 * e for b in range(2) for e in range(dim - 1)]
    assert [row for _, row in bench.log["acc_r"]] == want
    beats = -(-(dim - 1) // config.bus_bytes)
    assert len(bench.log["issue"]) == dim - 1 + (dim + 1) * beats
    at = bench.log["issue"][0] + timing.STORE_READ
    assert [t for t, _ in bench.log["acc_r"]] == list(range(at, at + 2 * (dim - 1)))


@pytest.mark.parametrize("c0", [0, 1, -1])  # columns of 8 units, of a little more than 1, or 2
def test_a_column_of_several_units_is_sent_as_one_row(chip, c0):
    config, _ = chip
    dim, bus = config.dim, config.bus_bytes
    count = {0: 8 * dim, 1: dim + 1, -1: 2 * dim - 1}[c0]
    f = rows(config, dim + 2, xpose=1, c0=count, l0=1, l1=70, s1=8 * dim + 1, out=Type.I32)
    bench = run(chip, [f], 26)
    want = [70 * b + e for b in range(2) for e in range(count)]
    assert [row for _, row in bench.log["acc_r"]] == want
    at = [f["dst"] + i * f["s1"] for i in range(dim + 2)]
    beats = sum(-(-(x % bus + 4 * count) // bus) for x in at)
    assert len(bench.log["issue"]) == count + beats
    assert len(bench.log["w"]) == beats


def test_joined_columns_share_beats_across_blocks(chip):
    """dim + 2 columns of dim + 1 bytes: no beat is sent twice."""
    config, _ = chip
    dim, bus = config.dim, config.bus_bytes
    f = rows(config, dim + 2, xpose=1, c0=dim + 1, l0=1, l1=40, s1=dim + 1, dst=0x1000)
    bench = run(chip, [f], 27)
    assert len(bench.log["w"]) == -(-(dim + 2) * (dim + 1) // bus)
    assert len(bench.log["aw"]) == -(-(dim + 2) * (dim + 1) // (16 * bus))


@pytest.mark.parametrize("field", ["pool_h", "pool_w", "pool_sh", "pool_sw"])
def test_a_pool_of_the_largest_window_and_step(chip, field):
    """Each field has four bits; the rows that are read, in order."""
    config, _ = chip
    pool = {"pool_h": 2, "pool_w": 2, "pool_sh": 1, "pool_sw": 1} | {field: 15}
    f = rows(config, 2, pool=1, **pool, l1=1, l2=3, c2=2, s2=2 * config.dim)
    bench = run(chip, [f], 17)
    w, h, sw, sh = (pool["pool_" + n] for n in ("w", "h", "sw", "sh"))
    want = [(i2 * sh + y) * 3 + i1 * sw + x
            for i2 in range(2) for i1 in range(2) for y in range(h) for x in range(w)]  # fmt: skip
    assert [row for _, row in bench.log["acc_r"]] == want


def test_a_scatter_skips_rows_out_of_range_and_the_later_of_two_wins(chip):
    config, model = chip
    dim = config.dim
    index = np.array([2, 0, 0xFFFFFFFF, 2, 3, 1 << 31, 1, 0x10002], np.uint32)
    f = rows(config, len(index), scatter=1, bound=3, s1=dim, type=Type.I32, int_path=1, index=0)
    bench = sb.Bench(config, model, sb.Memories(config, 18), 18)
    table = np.zeros((sb.INDEX_ROWS, dim), np.uint8)
    table.reshape(-1)[: 4 * len(index)] = index.view(np.uint8)
    bench.memories.spad[: sb.INDEX_ROWS] = table
    bench.memories.acc[: len(index)] = np.arange(1, len(index) + 1)[:, None]
    bench.run([f])
    want = {0x1000 + x * dim + i: v for x, v in ((2, 4), (0, 2), (1, 7)) for i in range(dim)}
    assert bench.memories.dram == want
    beats = dim // config.bus_bytes
    assert len(bench.log["beat"]) == beats * len(index)
    assert len(bench.log["issue"]) == (timing.STORE_INDEX + beats) * len(index)


@pytest.mark.parametrize(("out", "nan"), [(Type.F32, 0x7FC00000), (Type.BF16, 0x7FC0)])
def test_a_pool_of_floats_takes_a_nan_and_plus_zero(chip, out, nan):
    config, model = chip
    zeros, minus = [0x80000000, 0x00000000], [0x80000000, 0x80000000]
    below, low = [0xBF800000, 0xFF800000], [0xFF800000, 0xC0000000]
    cases = [(zeros, 0), (minus, 0x80000000), (below, 0xBF800000), (low, 0xC0000000),
             ([0x7FC00000, 0x7F800000], 0x7FC00000), ([0xFF800000, 0xFFC00001], 0x7FC00000),
             ([0x7F800000, 0x7F7F0000], 0x7F800000)]  # fmt: skip
    size = TYPE_BYTES[out]
    f = rows(config, len(cases), type=Type.F32, out=out, c0=1, s1=size, pool=1, pool_h=1, pool_w=2,
             pool_sh=1, pool_sw=2, loc=0)  # fmt: skip
    bench = sb.Bench(config, model, sb.Memories(config, 17), 17)
    bench.memories.acc[: 2 * len(cases), 0] = [x for pair, _ in cases for x in pair]
    bench.run([f])
    raw = bytes(bench.memories.dram[0x1000 + i] for i in range(size * len(cases)))
    got = np.frombuffer(raw, np.uint32 if out == Type.F32 else np.uint16).tolist()
    assert got == [want >> (32 - 8 * size) for _, want in cases]
    assert nan in got


@pytest.mark.parametrize("pause", [0, 5, timing.STORE_LONG - 1, timing.STORE_LONG, 40])
def test_a_short_instruction_does_not_overtake_a_long_one(chip, pause):
    """It starts at once, but its first slot waits for the last one of the long, STORE_LONG ago."""
    config, model = chip
    half, size = config.spad_granules // 2, 4 * config.dim
    long = rows(config, 3, type=Type.F32, out=Type.F32, scale=1, s1=size)
    short = rows(config, 1, type=Type.F32, out=Type.F32, s1=size, dst=0x2000)
    local = rows(config, 1, type=Type.F32, out=Type.BF16, dest=Dest.SPAD, dst=half)
    bench = sb.Bench(config, model, sb.Memories(config, 19), 19)
    program = [short, long, local, short | {"dst": 0x3000}, long | {"dst": 0x4000}]
    for k, f in enumerate(program):
        while not bench.ready():
            bench.cycle()
        for _ in range(pause if k == 2 else 0):
            bench.cycle()
        bench.cycle(sb.pack(config, f))
    while len(bench.log["done"]) < len(program):
        bench.cycle()
        assert bench.now < 2000
    check_bytes(bench, config, program, 19)
    want = contract(config, program, bench.log["start"])
    assert {k: bench.log[k] for k in want} == want
    reads = [at for at, _ in bench.log["acc_r"]]
    beats = size // config.bus_bytes
    last = reads[1] + 2 + 3 * beats - 1  # of the long one, which reads its vector first
    assert reads[5] - (last - 1) == 1 + max(pause, timing.STORE_LONG)


SPECIAL = [0x00000001, 0x807FFFFF, 0x80000000, 0x7F800001, 0xFFC12345, 0xFF800000, 0x3F808000,
           0x3F818000, 0x7F7FFFFF]  # fmt: skip
ROUNDED = [0, 0x8000, 0x8000, 0x7FC0, 0x7FC0, 0xFF80, 0x3F80, 0x3F82, 0x7F80]


@pytest.mark.parametrize("out", [Type.F32, Type.BF16])
def test_a_short_float_is_flushed_canonical_and_rounded(chip, out):
    config, model = chip
    size = TYPE_BYTES[out]
    f = rows(config, len(SPECIAL), type=Type.F32, out=out, c0=1, s1=size)
    bench = sb.Bench(config, model, sb.Memories(config, 26), 26)
    bench.memories.acc[: len(SPECIAL), 0] = SPECIAL
    bench.run([f])
    raw = bytes(bench.memories.dram[0x1000 + i] for i in range(size * len(SPECIAL)))
    same = {0x00000001: 0, 0x807FFFFF: 1 << 31, 0x7F800001: 0x7FC00000, 0xFFC12345: 0x7FC00000}
    want = ROUNDED if size == 2 else [same.get(x, x) for x in SPECIAL]
    assert np.frombuffer(raw, np.uint32 if size == 4 else np.uint16).tolist() == want


@pytest.mark.parametrize("out", [Type.I8, Type.U8, Type.I32])
def test_a_short_integer_takes_the_zero_point_and_saturates(chip, out):
    config, model = chip
    values = [0, 5, -5, 127, 128, 300, -129, 2**31 - 1, -(2**31), 16_777_217]
    f = rows(config, len(values), type=Type.I32, out=out, c0=1, s1=TYPE_BYTES[out], int_path=1,
             zp=-3)  # fmt: skip
    bench = sb.Bench(config, model, sb.Memories(config, 27), 27)
    bench.memories.acc[: len(values), 0] = np.array(values, np.int32).view(np.uint32)
    bench.run([f])
    raw = bytes(bench.memories.dram[0x1000 + i] for i in range(len(values) * f["s1"]))
    kind = {Type.I8: np.int8, Type.U8: np.uint8, Type.I32: np.int32}[out]
    bounds = np.iinfo(kind)
    want = [min(max(x - 3, bounds.min), bounds.max) for x in values]
    assert np.frombuffer(raw, kind).tolist() == want


def test_a_scratchpad_store_is_done_after_an_earlier_dram_store(chip):
    config, _ = chip
    half = config.spad_granules // 2
    local = rows(config, 1, dest=Dest.SPAD, dst=half)
    bench = run(chip, [rows(config, 1), local, local | {"dst": half + 1}, rows(config, 1)], 9)
    first = bench.log["done"][0]
    assert bench.log["done"][:3] == [first, first + 1, first + 2]


def test_a_burst_in_every_cycle_never_stalls_on_ideal_memory(chip):
    config, _ = chip
    narrow = rows(config, 200, c0=1, l1=0)
    program = [narrow, narrow | {"c1": 100, "dst": 0x9001}]
    bench = run(chip, program, 15)
    want = contract(config, program, bench.log["start"])
    assert {k: bench.log[k] for k in want} == want
    assert len(bench.log["aw"]) == 300


def test_at_most_64_bursts_are_unanswered_and_8_instructions_in_flight(chip):
    config, _ = chip
    program = [rows(config, 100, c0=1, dst=0x1000 * k) for k in range(4)]
    program += [rows(config, 1, dst=0x8000 + 64 * k) for k in range(12)]
    bench = run(chip, program, 10, answer=200)
    assert bench.most_open == 64
    events = [(t, 1) for t in bench.log["start"]] + [(t, 0) for t in bench.log["done"]]
    events.sort(key=lambda e: (e[0], -e[1]))
    assert max(itertools.accumulate(2 * up - 1 for _, up in events)) == timing.STORE_INFLIGHT


def test_the_epilogue_clock_rests_when_idle(chip):
    config, model = chip
    bench = run(chip, [rows(config, 2)], 11)
    assert not model.get("busy_epilogue")
    assert bench.log["busy"][0] == bench.log["start"][0] + 1
    most = len(bench.log["issue"]) + timing.STORE_W + timing.STORE_LONG + 2
    assert len(bench.log["busy"]) < most


def test_an_error_response_is_reported_once_for_each(chip):
    config, _ = chip
    bench = run(chip, [rows(config, 1), rows(config, 1)], 12, error=True)
    assert len(bench.log["error"]) == len(bench.log["aw"]) > 0
    assert len(bench.log["done"]) == 2


@pytest.mark.parametrize("hold", [False, True])
def test_stw_writes_one_word_at_the_constant_latency(chip, hold):
    config, model = chip
    bench = sb.Bench(config, model, sb.Memories(config, 0))
    want = {}
    for k in range(20):
        at, word = 0x0FC0 + 4 * k, 0x89ABCDEF ^ (k * 0x01010101)
        asked = bench.now
        bench.cycle(stw=(at, word))
        while len(bench.log["stw"]) <= k:
            bench.cycle(stw=(at, word) if hold else None)
        assert bench.log["stw"][k] - asked == timing.stw_latency(sb.WRITE_LATENCY)
        want |= {at + i: b for i, b in enumerate(word.to_bytes(4, "little"))}
    assert bench.memories.dram == want
    assert len(bench.log["beat"]) == 20 * (2 if config.bus_bytes == 2 else 1)
    assert not bench.log["done"]


def test_stw_and_stores_follow_each_other_under_back_pressure(chip):
    config, model = chip
    bench = sb.Bench(config, model, sb.Memories(config, 13), 13, stall=0.5)
    rng, done = random.Random(13), 0
    want = sb.Memories(config, 13)
    for k in range(12):
        program = [draw(rng, config) for _ in range(3)]
        for f in program:
            want.execute(f)
        bench.log["done"].clear()
        bench.run(program)
        at, word = 0x40000 + 4 * k, rng.getrandbits(32)
        bench.cycle(stw=(at, word))
        while len(bench.log["stw"]) <= k:
            bench.cycle()
        done += len(bench.log["done"])
        want.dram |= {at + i: b for i, b in enumerate(word.to_bytes(4, "little"))}
    assert done == 36
    assert bench.memories.dram == want.dram
