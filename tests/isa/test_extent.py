"""Extents against brute force: every access listed one by one, as the microarchitecture says."""

import itertools
import random

import pytest
from tilewright.isa.config import PRESETS, parse_config
from tilewright.isa.encoding import IllegalInstruction, Instr
from tilewright.isa.extent import (
    Extent,
    bank_masks,
    check_range,
    derived,
    dram_extent,
    extent_cycles,
    extents,
    pass_extents,
)
from tilewright.isa.table import INSTRUCTIONS, Conv, Dest, Fault, Mem, Type

CONFIGS = [PRESETS["tw4"], PRESETS["tw16"], parse_config("dim=2,spad_kib=4,acc_kib=2")]


def ranges(accesses):
    return {name: (min(rows), max(rows)) for name, rows in accesses.items() if rows}


def of(config, instr):
    return {e.operand: (e.lo, e.hi) for e in extents(config, instr.spec, instr.values)}


def load_accesses(config, v):
    """Granules or rows, and DRAM bytes, that a LOAD touches."""
    local = {Conv.COPY8: 1, Conv.COPY32: 4, Conv.I8_I32: 4, Conv.U8_I32: 4}.get(v["conv"], 2)
    size = {Conv.COPY8: 1, Conv.I8_I32: 1, Conv.U8_I32: 1, Conv.COPY16: 2}.get(v["conv"], 4)
    per, span = config.dim, 1
    if v["mem"] == Mem.SPAD and local > 1:
        per, span = (config.dim // 2 if local == 4 else config.dim), 2
    c1, c2, c3 = v["c1"], v["c2"], v["c3"]
    elements = v["c0"] * (c1 if v["pack"] >= 2 else 1) * (c2 if v["pack"] == 3 else 1)
    rows, dram = [], []
    for i3, i2, i1 in itertools.product(range(c3), range(c2), range(c1)):
        at = v["dram"] + i1 * v["s1"] + i2 * v["s2"] + i3 * v["s3"]
        dram += [at, at + v["c0"] * size - 1]
        row = v["loc"] + i3 * v["l3"]
        row += i1 * v["l1"] if v["pack"] < 2 else 0
        row += i2 * v["l2"] if v["pack"] < 3 else 0
        for first in range(0, elements, per):
            rows += [row + first // per * v["l0"] + s for s in range(span)]
    return {"loc": rows}, (min(dram), max(dram))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
def test_a_transposing_load_writes_a_unit_for_each_element_of_a_block(config):
    dim = config.dim
    counts = dict(c0=dim - 1, c1=dim + 1, c2=2, c3=3)
    instr = Instr.make(
        "load", conv=Conv.COPY16, xpose=1, loc=100, l0=4, l1=-8, l2=2, l3=6, **counts
    )
    rows = [
        100 + 4 * e - 8 * b + 2 * i2 + 6 * i3 + half
        for e, b, i2, i3, half in itertools.product(*map(range, (dim - 1, 2, 2, 3, 2)))
    ]
    assert of(config, instr) == {"loc": (min(rows), max(rows))}
    most = Instr.make("load", xpose=1, pack=3, c0=8 * dim, l0=1)
    check_range(config, most.spec, most.values)
    with pytest.raises(IllegalInstruction, match=r"c0 must be at most 8 \* dim .*with xpose") as e:
        wide = Instr.make("load", xpose=1, c0=8 * dim + 1)
        check_range(config, wide.spec, wide.values)
    assert e.value.fault == Fault.RANGE


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("pack", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_a_sequence_of_runs_are_a_step_of_l1_apart(config, pack, seed):
    rng = random.Random(seed)
    c0, c1, c2, c3 = (rng.randint(1, n) for n in (2 * config.dim, 3 * config.dim, 4, 3))
    strides = {f"l{i}": 2 * rng.randint(-9, 9) for i in range(4)}
    instr = Instr.make("load", conv=Conv.F32_BF16, xpose=1, pack=pack, loc=500, c0=c0, c1=c1, c2=c2,
                       c3=c3, s1=100, s2=-3000, s3=7, dram=1 << 20, **strides)  # fmt: skip
    rows, every = [], itertools.product(range(c3), range(c2), range(c1))
    for number, (i3, i2, _) in enumerate(every):
        q = number % (c1, c1 * c2, c1 * c2 * c3)[pack - 1]
        at = 500 + q // config.dim * strides["l1"]
        at += i2 * strides["l2"] * (pack == 1) + i3 * strides["l3"] * (pack < 3)
        rows += [at + e * strides["l0"] + half for e in (0, c0 - 1) for half in (0, 1)]
    assert of(config, instr) == {"loc": (min(rows), max(rows))}
    low, high = (1 << 20) - 3000 * (c2 - 1), (1 << 20) + 100 * (c1 - 1) + 7 * (c3 - 1) + 4 * c0
    assert dram_extent(instr.spec, instr.values) == ("r", low, high - 1)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("count", [1, 3, 8, 9, 31])
def test_a_gather_reads_the_pairs_that_hold_its_indices(config, count):
    instr = Instr.make("load", gather=1, bound=5, index=6, c1=count, s1=64, loc=0, l1=1)
    last = 6 + (4 * count - 1) // config.dim
    assert of(config, instr)["index"] == (6, last | 1)
    assert dram_extent(instr.spec, instr.values) == ("r", 0, 4 * 64)
    uneven = Instr.make("load", gather=1, bound=5, s1=config.bus_bytes + 1)
    with pytest.raises(IllegalInstruction, match="s1 must be a multiple of bus_bytes") as e:
        check_range(config, uneven.spec, uneven.values)
    assert e.value.fault == Fault.RANGE


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(40))
def test_load(config, seed):
    rng = random.Random(seed)
    conv = rng.choice(list(Conv))
    mem = Mem.ACC if conv in (Conv.I8_I32, Conv.U8_I32) else Mem.SPAD
    if conv == Conv.COPY32:
        mem = rng.choice(list(Mem))
    instr = Instr.make(
        "load", mem=mem, conv=conv, pack=rng.randint(1, 3), dram=rng.randrange(1 << 20),
        c0=rng.randint(1, 40), c1=rng.randint(1, 4), c2=rng.randint(1, 4), c3=rng.randint(1, 3),
        loc=rng.randrange(2000), **{f"l{i}": rng.randint(-40, 40) for i in range(4)},
        **{f"s{i}": rng.randint(-400, 400) for i in (1, 2, 3)},
    )  # fmt: skip
    rows, dram = load_accesses(config, instr.values)
    assert of(config, instr) == ranges(rows)
    assert dram_extent(instr.spec, instr.values) == ("r", *dram)
    (only,) = extents(config, instr.spec, instr.values)
    assert (only.access, only.mem) == ("w", mem)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(30))
def test_matmul(config, seed):
    rng = random.Random(seed)
    kind = rng.choice([Type.I8, Type.BF16])
    dim, span = config.dim, 2 if kind == Type.BF16 else 1
    strides = {n: rng.randint(-30, 30) for n in ("as0", "as1", "ak", "ws", "wk", "wn", "cn")}
    instr = Instr.make(
        "matmul", a_type=kind, w_type=kind, r0=rng.randint(1, 5), r1=rng.randint(1, 4),
        k=rng.randint(1, 3 * dim), n=rng.randint(1, 3 * dim), a=rng.randrange(500),
        w=rng.randrange(500), c=rng.randrange(500), **strides,
    )  # fmt: skip
    v = instr.values
    whole = {"a": [], "w": [], "c": []}
    for nb, kb in itertools.product(range(-(-v["n"] // dim)), range(-(-v["k"] // dim))):
        one = {"a": [], "w": [], "c": []}
        for i1, i0, s in itertools.product(range(v["r1"]), range(v["r0"]), range(span)):
            one["a"].append(v["a"] + kb * v["ak"] + i0 * v["as0"] + i1 * v["as1"] + s)
            one["c"].append(v["c"] + nb * v["cn"] + i1 * v["r0"] + i0)
        for j, s in itertools.product(range(dim), range(span)):
            one["w"].append(v["w"] + kb * v["wk"] + nb * v["wn"] + j * v["ws"] + s)
        got = {e.operand: (e.lo, e.hi) for e in pass_extents(config, v, kb, nb)}
        assert got == ranges(one)
        for name in whole:
            whole[name] += one[name]
    assert of(config, instr) == ranges(whole)
    assert derived(config, instr.spec, v)["rows"] == v["r0"] * v["r1"]
    assert dram_extent(instr.spec, v) is None


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.name)
@pytest.mark.parametrize("seed", range(40))
def test_store(config, seed):
    rng = random.Random(seed)
    mem, kind = rng.choice([(Mem.ACC, Type.I32), (Mem.SPAD, Type.I8), (Mem.SPAD, Type.BF16)])
    dest = rng.choice(list(Dest))
    out = rng.choice([Type.I8, Type.BF16] + [Type.F32] * (dest == Dest.DRAM))
    flags = {n: rng.randint(0, 1) for n in ("ibias", "scale", "bias")}
    way = seed % 4  # 0: transposed blocks
    instr = Instr.make(
        "store", mem=mem, type=kind, dest=dest, out=out,
        c0=rng.randint(1, (4 if way else 8) * config.dim),
        c1=rng.randint(1, 4 if way else 3 * config.dim), c2=rng.randint(1, 3),
        loc=rng.randrange(500), vec=rng.randrange(90),
        vs=rng.randint(-9, 9), dst=rng.randrange(1000), d0=rng.randint(-9, 9),
        **{f"l{i}": rng.randint(-40, 40) for i in range(3)},
        **{f"s{i}": rng.randint(-40, 40) for i in (1, 2)}, **flags, pool=seed % 2 if way else 0,
        **{n: rng.randint(1, 4) for n in ("pool_h", "pool_w", "pool_sh", "pool_sw")},
        scatter=int(dest == Dest.DRAM and way > 0 and seed % 3 == 0), xpose=int(way == 0),
        index=2 * rng.randrange(300),
        bound=rng.randint(1, 9),
    )  # fmt: skip
    v = instr.values
    want = {"loc": [], "vec": [], "dst": [], "index": []}
    dram = []
    bytes_ = {Type.I8: 1, Type.BF16: 2, Type.F32: 4}[out] * v["c0"]
    for i2, i1 in itertools.product(range(v["c2"]), range(v["c1"])):
        row = v["dst"] + i1 * v["s1"] + i2 * v["s2"]
        dram += [row, row + bytes_ - 1]
        if v["scatter"]:
            byte = v["index"] * config.dim + 4 * i1
            want["index"] += [byte // config.dim // 2 * 2, byte // config.dim // 2 * 2 + 1]
        if v["xpose"]:
            for e in range(v["c0"]):
                at = v["loc"] + e * v["l0"] + i1 // config.dim * v["l1"] + i2 * v["l2"]
                want["loc"] += [at, at + (kind == Type.BF16)]
        for j in range(-(-v["c0"] // config.dim)):
            at = v["loc"] + j * v["l0"] + i1 * v["l1"] + i2 * v["l2"]
            for y, x in itertools.product(range(v["pool_h"]), range(v["pool_w"])):
                if v["pool"]:
                    at = v["loc"] + j * v["l0"] + (i1 * v["pool_sw"] + x) * v["l1"]
                    at += (i2 * v["pool_sh"] + y) * v["l2"]
                want["loc"] += [at, at + (kind == Type.BF16)] * (1 - v["xpose"])
            want["vec"] += [v["vec"] + n * v["vs"] + j for n in range(sum(flags.values()))]
            if dest == Dest.SPAD:
                want["dst"] += [row + j * v["d0"], row + j * v["d0"] + (out == Type.BF16)]
    assert of(config, instr) == ranges(want)
    if v["scatter"]:
        starts = [v["dst"] + x * v["s1"] + i * v["s2"]
                  for x in range(v["bound"]) for i in range(v["c2"])]  # fmt: skip
        dram = [at + end for at in starts for end in (0, bytes_ - 1)]
    expected = ("w", min(dram), max(dram)) if dest == Dest.DRAM else None
    assert dram_extent(instr.spec, v) == expected


def test_bank_masks():
    config = PRESETS["tw4"]  # scratchpad 2048 granules, 256 a bank; accumulator 256 rows, 32 a bank
    items = [
        Extent("a", "r", Mem.SPAD, 255, 256),
        Extent("b", "w", Mem.SPAD, 2047, 2047),
        Extent("c", "rw", Mem.ACC, 32, 127),
    ]
    assert bank_masks(config, items) == (0b11, 0b10000000, 0b1110, 0b1110)
    assert bank_masks(config, []) == (0, 0, 0, 0)


def test_vector_touches_its_kernel_and_the_streams_that_are_on():
    rng = random.Random(5)
    for _ in range(60):
        config = rng.choice(CONFIGS)
        words = {s: rng.randint(1, 9) for s in ("init", "head", "body", "tail")}
        rows, cols = rng.randint(1, 6), rng.randint(1, 3 * config.dim)
        f = words | dict(rows=rows, cols=cols, kernel=rng.randrange(20))
        number, row = range(sum(words.values())), config.dim // 2
        want = {"kernel": [f["kernel"] + i // row for i in number]}
        for s in "xyzop":
            bf16 = rng.random() < 0.4
            place = [2 * rng.randint(-20, 20) for _ in range(2)]
            f |= {s: 2 * rng.randrange(99), f"{s}_row": place[0], f"{s}_unit": place[1]}
            f |= {f"{s}_type": Type.BF16 if bf16 else Type.U8}
            if rng.random() < 0.5:
                f[f"{s}_on"] = 1
                want[s] = [
                    f[s] + i * place[0] + c // config.dim * place[1] + g
                    for i in range(rows) for c in range(cols) for g in range(1 + bf16)
                ]  # fmt: skip
        assert of(config, Instr.make("vector", **f)) == ranges(want)


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("load", {"loc": 2048}, "load.loc must stay in scratchpad granules 0 to 2047, not 2048 to"),
        ("load", {"c1": 2, "l1": -1}, "load.loc must stay in .* not -1 to 0"),
        ("load", {"conv": Conv.COPY16, "loc": 2046, "c0": 5, "l0": 2}, "not 2046 to 2049"),
        ("load", {"mem": 1, "conv": 2, "loc": 256}, "accumulator rows 0 to 255, not 256 to 256"),
        ("load", {"c0": 256, "c1": 256, "pack": 2}, "row_elems must be at most 65535, not 65536"),
        ("load", {"xpose": 1, "pack": 2, "c1": 256, "c2": 256}, "sequence must be at most 65535"),
        ("load", {"xpose": 1, "pack": 3, "c1": 65535, "c2": 65535, "c3": 65535}, "at most 65535"),
        ("load", {"xpose": 1, "pack": 3, "c1": 2, "c2": 2, "c3": 2, "l1": -1}, "not -1 to 0"),
        ("load", {"xpose": 1, "pack": 2, "c1": 3, "c2": 2, "skip1": 3},
         r"skip1 must be less than c1 \(3\), not 3"),
        ("load", {"xpose": 1, "pack": 2, "c1": 3, "c2": 2, "drop1": 4}, "drop1 must be less than"),
        ("load", {"xpose": 1, "pack": 3, "c1": 3, "c2": 2, "c3": 2, "skip2": 2}, r"than c2 \(2\)"),
        ("load", {"xpose": 1, "pack": 3, "c2": 2, "c3": 2, "drop2": 2}, "drop2 must be less"),
        ("load", {"xpose": 1, "pack": 2, "c1": 4, "skip1": 2, "drop1": 2}, "must leave a run"),
        ("load", {"xpose": 1, "pack": 3, "c1": 2, "c2": 4, "skip2": 2, "drop2": 1, "skip1": 1,
                  "drop1": 1}, "must leave a run, not 0"),
        ("load", {"xpose": 1, "pack": 2, "c1": 256, "c2": 256, "skip1": 255, "l1": 0},
         "sequence must be at most 65535, not 65536"),
        ("matmul", {"r0": 256, "r1": 256}, "matmul: rows must be at most 65535, not 65536"),
        ("matmul", {"w": 2047, "ws": 1}, "matmul.w must stay in .* not 2047 to 2050"),
        ("matmul", {"r0": 257}, "matmul.c must stay in accumulator rows 0 to 255, not 0 to 256"),
        ("store", {"bias": 1, "c0": 65}, "must have at most 16 units .* not 17"),
        (
            "store",
            {"pool": 1, "c1": 5000, "pool_sw": 15, "pool_h": 1, "pool_w": 1, "pool_sh": 1},
            "in1 must be at most 65535, not 74986",
        ),
        ("store", {"xpose": 1, "c0": 33}, "c0 must be at most 8 . dim .32. with xpose, not 33"),
        ("store", {"scatter": 1, "s1": 6}, "s1 must be a multiple of bus_bytes .4. with scatter"),
        ("store", {"scatter": 1, "index": 2046, "c1": 3}, "store.index must stay in scratchpad"),
        ("store", {"scale": 1, "vec": 256}, "store.vec must stay in accumulator rows"),
        ("vector", {"body": 3, "kernel": 255}, "vector.kernel must stay in accumulator rows"),
        ("vector", {"body": 1, "z_on": 1, "rows": 3, "z_row": -1}, "z must .* not -2 to 0"),
        ("vector", {"body": 1, "o_on": 1, "o_type": Type.BF16, "o": 2047}, "not 2047 to 2048"),
        ("store", {"dest": 1, "dst": 1 << 31}, "store.dst must stay in scratchpad granules"),
        ("store", {"dest": 1, "c1": 2, "s1": -(1 << 31)}, "store.dst must stay"),
    ],
)
def test_range_faults(name, fields, message):
    instr = Instr.make(name, **fields)
    with pytest.raises(IllegalInstruction, match=message) as e:
        check_range(PRESETS["tw4"], instr.spec, instr.values)
    assert e.value.fault == Fault.RANGE


@pytest.mark.parametrize(
    "name, fields",
    [
        ("load", {"loc": 2047}),
        ("load", {"c0": 255, "c1": 257, "pack": 2}),
        ("load", {"xpose": 1, "pack": 3, "c1": 5, "c2": 13107, "l2": 99}),
        ("load", {"xpose": 1, "pack": 2, "c1": 256, "c3": 256, "l2": 99}),
        ("load", {"xpose": 1, "pack": 3, "c1": 2, "c2": 2, "c3": 2047, "l1": 1, "l3": 99}),
        ("load", {"xpose": 1, "pack": 2, "c1": 4095, "c2": 3, "l1": 1, "skip1": 4092, "drop1": 1}),
        ("load", {"xpose": 1, "pack": 3, "c1": 2, "c2": 4, "skip2": 2, "drop2": 1, "drop1": 1}),
        ("load", {"xpose": 1, "pack": 2, "c1": 4, "skip1": 3}),
        ("store", {"bias": 1, "c0": 64}),
        ("store", {"c0": 65}),
        ("matmul", {"r0": 256}),
        ("vector", {"kernel": 255, "body": 2}),
        ("vector", {"body": 1, "x_on": 1, "x": 2046, "x_type": Type.BF16}),
        ("vector", {"body": 1, "x": 99999}),
        ("halt", {}),
    ],
)
def test_range_limits_are_legal(name, fields):
    instr = Instr.make(name, **fields)
    check_range(PRESETS["tw4"], instr.spec, instr.values)


def test_no_dram_operand():
    none = ("load", {"fill": 1}), ("store", {"dest": 1}), ("vector", {}), ("halt", {})
    for name, fields in none:
        instr = Instr.make(name, **fields)
        assert dram_extent(instr.spec, instr.values) is None


@pytest.mark.parametrize("name, fields, cycles", [
    ("load", {}, 2 + 1),
    ("load", {"c3": 2}, 4 + 3),
    ("load", {"c2": 2}, 4 + 3),
    ("load", {"pack": 2}, 2 + 2 + 1),
    ("load", {"xpose": 1}, 2 + 1),
    ("load", {"xpose": 1, "pack": 2}, 2 + 2 + 1),
    ("load", {"xpose": 1, "pack": 3, "c3": 2}, 2 + 4 + 3),
    ("load", {"xpose": 1, "pack": 2, "c1": 2, "drop1": 1}, 2 + 4 + 2 + 1),
    ("load", {"xpose": 1, "pack": 3, "c2": 2, "skip2": 1}, 2 + 4 + 4 + 3),
    ("load", {"gather": 1}, 2 + 1 + 1),
    ("load", {"fill": 1}, 2),
    ("matmul", {}, 1 + 3 + 3 + 2),
    ("store", {}, 2 + 1),
    ("store", {"c2": 2}, 3 + 2),
    ("store", {"pool": 1}, 3 + 2),
    ("store", {"bias": 1}, 2 + 2 + 1),
    ("store", {"dest": 1}, 2 + 2),
    ("store", {"scatter": 1}, 2 + 1 + 1),
    ("vector", {}, 1),
    ("vector", {"x_on": 1, "o_on": 1}, 1 + 2 * 2),
    ("halt", {}, 0),
])  # fmt: skip
def test_extent_cycles(name, fields, cycles):
    """One product or term of what there is per cycle: counted by hand from the operands."""
    ones = {n: 1 for n in ("c2", "c3") if n in INSTRUCTIONS[name].layout}
    instr = Instr.make(name, **(ones | fields))
    assert extent_cycles(instr.spec, instr.values) == cycles
