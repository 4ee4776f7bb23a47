"""Each instruction against NumPy, without the engine's own helpers."""

import ml_dtypes
import numpy as np
import pytest
from tilewright.isa.config import PRESETS, parse_config
from tilewright.isa.encoding import Instr, Reg, encode
from tilewright.isa.table import Conv, Dest, Fault, Mem, Type, Unit
from tilewright.sim.functional import EndlessProgram, Machine, run
from tilewright.sim.memory import Memory

TW4 = PRESETS["tw4"]
make = Instr.make
bf16 = ml_dtypes.bfloat16


def go(*instrs, memory=None, config=TW4, regs=(), halt=True, spad=None, acc=None):
    """Machine and execution of instructions; `spad` and `acc` are put in first."""
    m = Machine(config, memory if memory is not None else Memory())
    m.regs[: len(regs)] = regs
    if spad is not None:
        raw = spad.reshape(-1).view(np.uint8)
        m.spad[: raw.size] = raw
    if acc is not None:
        m.acc.reshape(-1)[: acc.size] = acc.reshape(-1).view(np.int32)
    code = b"".join(i if isinstance(i, bytes) else encode(i) for i in instrs)
    return m, m.run(code + (encode(make("halt")) if halt else b""))


def filled(seed=0, size=8192):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, size, np.uint8)
    m = Memory()
    m.write(0, data)
    return m, data


def test_load_copies_strided_rows_and_fills_tails_with_zero():
    mem, d = filled()
    m, _ = go(
        make(
            "load",
            conv=Conv.COPY8,
            dram=3,
            c0=6,
            c1=3,
            s1=11,
            c2=2,
            s2=100,
            loc=8,
            l0=1,
            l1=2,
            l2=10,
        ),
        memory=mem,
        spad=np.full(400, 7, np.uint8),
    )
    for i2 in range(2):
        for i1 in range(3):
            at = 4 * (8 + 2 * i1 + 10 * i2)
            start = 3 + 11 * i1 + 100 * i2
            assert m.spad[at : at + 8].tolist() == [*d[start : start + 6], 0, 0]
    assert (m.spad[:32] == 7).all()


def test_load_packs_inner_dimensions_into_one_row():
    mem, d = filled()
    m, _ = go(
        make(
            "load",
            conv=Conv.COPY8,
            dram=1,
            c0=3,
            c1=2,
            s1=-1,
            c2=3,
            s2=20,
            c3=2,
            s3=5,
            pack=3,
            loc=2,
            l0=1,
            l3=5,
        ),
        memory=mem,
    )
    for i3 in range(2):
        row = [
            d[1 - i1 + 20 * i2 + 5 * i3 + b] for i2 in range(3) for i1 in range(2) for b in range(3)
        ]
        at = 4 * (2 + 5 * i3)
        assert m.spad[at : at + 20].tolist() == [*row, 0, 0]


def test_load_of_four_bytes_takes_half_a_unit_of_elements():
    mem, d = filled()
    m, _ = go(
        make("load", conv=Conv.COPY32, dram=5, c0=3, c1=2, s1=40, loc=4, l0=2, l1=8), memory=mem
    )
    assert m.spad[16:32].tolist() == [*d[5:17], 0, 0, 0, 0]
    assert m.spad[48:64].tolist() == [*d[45:57], 0, 0, 0, 0]


def test_load_converts_fp32_to_bf16():
    x = np.array([1.0, -2.5, 3.14159, 1e-40, np.inf, 1.00390625, -0.0], np.float32)
    mem = Memory()
    mem.write(0, x)
    m, _ = go(make("load", conv=Conv.F32_BF16, dram=0, c0=7, loc=2, l0=2), memory=mem)
    want = np.array([1.0, -2.5, 3.14159, 0.0, np.inf, 1.00390625, -0.0], np.float32).astype(bf16)
    assert m.spad[8:22].view(np.uint16).tolist() == want.view(np.uint16).tolist()
    assert m.spad[22:24].tolist() == [0, 0]


@pytest.mark.parametrize(("conv", "dtype"), [(Conv.I8_I32, np.int8), (Conv.U8_I32, np.uint8)])
def test_load_widens_to_the_accumulator(conv, dtype):
    mem, d = filled()
    m, _ = go(
        make("load", mem=Mem.ACC, conv=conv, dram=9, c0=5, c1=2, s1=7, loc=3, l0=1, l1=4),
        memory=mem,
    )
    for i in range(2):
        got = m.acc[3 + 4 * i : 5 + 4 * i].reshape(-1)
        assert got.tolist() == [*d[9 + 7 * i : 14 + 7 * i].view(dtype).tolist(), 0, 0, 0]


def test_load_broadcasts_a_row_with_stride_zero():
    mem, d = filled()
    m, _ = go(
        make("load", mem=Mem.ACC, conv=Conv.COPY32, dram=4, c0=4, c1=5, s1=0, loc=1, l0=1, l1=1),
        memory=mem,
    )
    assert (m.acc[1:6] == d[4:20].view(np.int32)).all()


def test_load_fill_writes_the_value_and_reads_nothing():
    m, _ = go(
        make("load", fill=1, conv=Conv.COPY16, c0=5, c1=2, loc=0, l0=2, l1=4, value=0xABCD1234)
    )
    row = np.array([0x1234] * 5 + [0] * 3, np.uint16)
    assert m.spad[:32].view(np.uint16).reshape(2, 8).tolist() == [row.tolist()] * 2
    assert m.counters["beats_read"] == 0
    m, _ = go(make("load", fill=1, mem=Mem.ACC, conv=Conv.I8_I32, c0=3, loc=0, value=0xFF800000))
    assert m.acc[0].view(np.uint32).tolist() == [0xFF800000] * 3 + [0]


def test_load_overlapping_units_keep_the_last():
    mem, d = filled()
    m, _ = go(make("load", conv=Conv.COPY8, dram=0, c0=4, c1=3, s1=4, loc=5, l1=0), memory=mem)
    assert m.spad[20:24].tolist() == d[8:12].tolist()


def _matmul_memory(dtype, seed):
    rng = np.random.default_rng(seed)
    a, w = (rng.integers(0, 256, (n, 4), np.uint8).view(dtype) for n in (64, 64))
    return a, w


@pytest.mark.parametrize("acc", [0, 1])
@pytest.mark.parametrize(("at", "wt"), [(Type.I8, Type.I8), (Type.U8, Type.I8), (Type.I8, Type.U8)])
def test_matmul_int8_ragged_matches_int64(at, wt, acc):
    kinds = {Type.I8: np.int8, Type.U8: np.uint8}
    rng = np.random.default_rng(at + 3 * wt)
    spad = rng.integers(0, 256, (128, 4), np.uint8)
    old = rng.integers(-(2**31), 2**31, (64, 4), np.int64).astype(np.int32)
    rows, k, n = 6, 7, 6  # two K-blocks, two N-blocks
    m, _ = go(
        make(
            "matmul",
            a_type=at,
            w_type=wt,
            acc=acc,
            a=0,
            r0=3,
            r1=2,
            as0=2,
            as1=20,
            ak=1,
            w=64,
            ws=2,
            wk=8,
            wn=1,
            k=k,
            n=n,
            c=5,
            cn=10,
        ),
        spad=spad,
        acc=old,
    )
    a = np.array(
        [
            np.concatenate([spad[2 * i0 + 20 * i1], spad[2 * i0 + 20 * i1 + 1]])
            for i1 in range(2)
            for i0 in range(3)
        ]
    ).view(kinds[at])[:, :k]
    w = np.array([np.concatenate([spad[64 + 2 * j], spad[65 + 2 * j]]) for j in range(k)]).view(
        kinds[wt]
    )
    want = a.astype(np.int64) @ w.astype(np.int64)
    for nb in range(2):
        got = m.acc[5 + 10 * nb : 5 + 10 * nb + rows].astype(np.int64)
        base = old[5 + 10 * nb : 5 + 10 * nb + rows].astype(np.int64) if acc else 0
        assert (got == (want[:, 4 * nb : 4 * nb + 4] + base).astype(np.int32)).all()
    assert m.counters["macs_useful"] == rows * k * n
    assert m.counters["macs_padding"] == rows * 4 * 8 * 2 - rows * k * n


def test_matmul_sums_long_full_range_uint8_exactly():
    config = parse_config("dim=4,spad_kib=32,acc_kib=4")
    spad = np.full((4096, 4), 255, np.uint8)
    m, _ = go(
        make(
            "matmul",
            a_type=Type.U8,
            w_type=Type.U8,
            a=0,
            r0=1,
            ak=1,
            w=0,
            ws=1,
            wk=1,
            k=4000,
            n=4,
            c=0,
        ),
        spad=spad,
        config=config,
    )
    assert m.acc[0].tolist() == [255 * 255 * 4000] * 4


def test_matmul_adds_n_blocks_on_the_same_rows_one_after_the_other():
    spad = np.random.default_rng(5).integers(0, 256, (64, 4), np.uint8)
    m, _ = go(
        make(
            "matmul",
            a_type=Type.I8,
            w_type=Type.I8,
            acc=1,
            a=0,
            r0=4,
            as0=1,
            w=16,
            ws=1,
            wn=4,
            k=4,
            n=8,
            c=0,
            cn=0,
        ),
        spad=spad,
        acc=np.zeros((8, 4), np.int32),
    )
    a, w = spad[:4].view(np.int8).astype(int), spad[16:24].view(np.int8).astype(int)
    assert (m.acc[:4] == a @ w[:4] + a @ w[4:]).all()


@pytest.mark.parametrize("acc", [0, 1])
def test_matmul_bf16_adds_in_row_order_by_blocks(acc):
    rng = np.random.default_rng(9)
    x = rng.standard_normal((64, 4)).astype(np.float32).astype(bf16)
    old = rng.standard_normal((16, 4)).astype(np.float32)
    m, _ = go(
        make(
            "matmul",
            a_type=Type.BF16,
            w_type=Type.BF16,
            acc=acc,
            a=0,
            r0=3,
            as0=4,
            ak=2,
            w=64,
            ws=2,
            wk=8,
            k=7,
            n=4,
            c=2,
        ),
        spad=x,
        acc=old,
    )
    a = x.reshape(32, 8)[:3].astype(np.float32)  # each row 4 granules: 8 elements
    w = x.reshape(64, 4)[32:40].astype(np.float32)
    want = old[2:5].copy() if acc else None
    for block in (range(4), range(4, 7)):
        s = np.zeros((3, 4), np.float32)
        for k in block:
            s = s + a[:, k : k + 1] * w[k]
        want = s if want is None else want + s
    assert m.acc[2:5].view(np.uint32).tolist() == want.view(np.uint32).tolist()


def test_store_int32_with_scale_bias_clamp_and_zero_point_to_int8():
    rng = np.random.default_rng(1)
    acc = np.zeros((64, 4), np.int32)
    acc[:32] = rng.integers(-5000, 5000, (32, 4))
    acc[40:42] = rng.integers(-9, 9, (2, 4))
    scale, bias = (rng.standard_normal((2, 4)).astype(np.float32) * s for s in (0.02, 3))
    acc[43:45], acc[46:48] = scale.view(np.int32), bias.view(np.int32)
    lo, hi = (int(np.float32(x).view(np.uint32)) for x in (-60.0, 75.5))
    mem = Memory()
    m, _ = go(
        make(
            "store",
            mem=Mem.ACC,
            type=Type.I32,
            out=Type.I8,
            ibias=1,
            scale=1,
            bias=1,
            clamp=1,
            lo=lo,
            hi=hi,
            zp=-4,
            loc=0,
            c0=6,
            c1=3,
            l0=3,
            l1=1,
            c2=2,
            l2=6,
            dst=1001,
            s1=9,
            s2=50,
            vec=40,
            vs=3,
        ),
        memory=mem,
        acc=acc,
    )
    for i2 in range(2):
        for i1 in range(3):
            r = i1 + 6 * i2
            x = np.concatenate([acc[r], acc[r + 3]]) + acc[40:42].reshape(-1)
            y = x.astype(np.float32) * scale.reshape(-1) + bias.reshape(-1)
            y = np.clip(y, np.float32(-60), np.float32(75.5))
            want = np.clip(np.rint(y) - 4, -128, 127).astype(np.int8)[:6]
            assert mem.read(1001 + 9 * i1 + 50 * i2, 6).view(np.int8).tolist() == want.tolist()
    assert mem.read(1007, 3).tolist() == [0, 0, 0]
    # bus of 4 bytes; runs of 6 bytes: two beats from offsets 0 to 2, three from 3
    starts = [1001 + 9 * i1 + 50 * i2 for i2 in range(2) for i1 in range(3)]
    assert m.counters["beats_written"] == sum((s % 4 + 6 + 3) // 4 for s in starts)


@pytest.mark.parametrize("s1", [2, 3, 4])
def test_rows_of_a_store_that_follow_each_other_share_beats(s1):
    """Six rows of 3 bytes from 1002 and from 1101 on, in beats of 4 bytes."""
    instr = make("store", mem=Mem.ACC, type=Type.I32, out=Type.I8, c0=3, c1=6, c2=2, dst=1002,
                 s1=s1, s2=99)  # fmt: skip
    m, _ = go(instr, memory=Memory(), acc=np.zeros((1, 4), np.int32))
    starts = [1002 + s1 * i1 + 99 * i2 for i2 in range(2) for i1 in range(6)]
    apart = sum((s + 2) // 4 - s // 4 + 1 for s in starts)
    joined = sum((s + 17) // 4 - s // 4 + 1 for s in (1002, 1101))
    assert m.counters["beats_written"] == (joined if s1 == 3 else apart)


@pytest.mark.parametrize("scale", [np.inf, 1e-39, 1e38, -0.0, np.nan])
def test_store_requantises_special_scales_like_the_slow_rules(scale):
    acc = np.array([[0, 1, -7, 2**31 - 1], [0, 0, 0, 0]], np.int32)
    acc[1] = np.full(4, scale, np.float32).view(np.int32)
    mem = Memory()
    go(
        make("store", mem=Mem.ACC, type=Type.I32, out=Type.I8, scale=1, c0=4, dst=0, vec=1),
        memory=mem,
        acc=acc,
    )
    flushed = 0.0 if abs(scale) < 2.0**-126 else scale
    with np.errstate(all="ignore"):
        y = acc[0].astype(np.float64) * flushed
    want = [0 if np.isnan(v) else int(np.clip(v, -128, 127)) for v in y]
    assert mem.read(0, 4).view(np.int8).tolist() == want


def test_store_integer_path_wraps_then_clamps_then_saturates():
    acc = np.array([[2**31 - 1, -5, 100, -(2**31)], [1, -300, 100, 0]], np.int32)
    mem = Memory()
    go(
        make(
            "store",
            mem=Mem.ACC,
            type=Type.I32,
            out=Type.U8,
            int_path=1,
            ibias=1,
            clamp=1,
            lo=(-200) & 0xFFFFFFFF,
            hi=190,
            zp=10,
            c0=4,
            dst=0,
            vec=1,
        ),
        memory=mem,
        acc=acc,
    )
    want = [
        0,
        0,
        200,
        0,
    ]  # 2^31-1+1 wraps to the least int32, clamps to -200; 200 clamps to 190, + 10
    assert mem.read(0, 4).tolist() == want


@pytest.mark.parametrize("out", [Type.F32, Type.BF16, Type.I32])
def test_store_fp32_accumulator(out):
    x = np.array([[1.5, -2.5, 3e9, 1.0039062], [7.25, -0.0, np.inf, 1e-3]], np.float32)
    mem = Memory()
    go(
        make("store", mem=Mem.ACC, type=Type.F32, out=out, c0=4, c1=2, l1=1, dst=6, s1=32),
        memory=mem,
        acc=x,
    )
    for i in range(2):
        if out == Type.I32:
            want = np.clip(np.rint(x[i].astype(np.float64)), -(2**31), 2**31 - 1).astype(np.int64)
            got = mem.read(6 + 32 * i, 16).view(np.int32)
        else:
            want = x[i].astype({Type.F32: np.float32, Type.BF16: bf16}[out])
            got = mem.read(6 + 32 * i, 4 * want.itemsize).view(want.dtype)
            assert got.tobytes() == want.tobytes()
        assert got.tolist() == want.tolist()


def test_store_scratchpad_to_scratchpad_widens_with_zero_tail():
    spad = np.full((64, 4), 9, np.uint8)
    spad[:4] = np.random.default_rng(3).integers(0, 256, (4, 4), np.uint8)
    m, _ = go(
        make(
            "store",
            mem=Mem.SPAD,
            type=Type.I8,
            dest=Dest.SPAD,
            out=Type.BF16,
            c0=6,
            c1=2,
            l0=2,
            l1=1,
            dst=20,
            d0=4,
            s1=2,
        ),
        spad=spad,
    )
    for i in range(2):
        row = (
            np.concatenate([spad[i], spad[i + 2]]).view(np.int8)[:6].astype(np.float32).astype(bf16)
        )
        for j in range(2):
            at = 4 * (20 + 4 * j + 2 * i)
            part = np.zeros(4, bf16)
            part[: len(row[4 * j : 4 * j + 4])] = row[4 * j : 4 * j + 4]
            assert m.spad[at : at + 8].tobytes() == part.tobytes()


def test_scalar_instructions_compute_32_bits():
    a, b = 0xFFFFFFF0, 37
    signed = a - (1 << 32)
    want = {
        "add": signed + b,
        "sub": signed - b,
        "mul": signed * b,
        "shl": a << 5,
        "shr": a >> 5,
        "sar": signed >> 5,
        "and": a & b,
        "min": signed,
        "max": b,
    }
    for name, value in want.items():
        m, _ = go(make("li", rd=1, b=-16), make("li", rd=2, b=b), make(name, rd=3, ra=1, b=Reg(2)))
        assert m.regs[3] == value & 0xFFFFFFFF, name


@pytest.mark.parametrize(
    ("name", "a", "b", "taken"),
    [
        ("beq", -1, -1, 1),
        ("beq", 1, 2, 0),
        ("bne", 1, 2, 1),
        ("bne", 3, 3, 0),
        ("blt", -1, 0, 1),
        ("blt", 0, -1, 0),
        ("bge", 0, 0, 1),
        ("bge", -2, -1, 0),
    ],
)
def test_branches_compare_signed(name, a, b, taken):
    m, e = go(make("li", rd=1, b=a), make(name, ra=1, b=b, target=3), make("li", rd=5, b=1))
    assert m.regs[5] == 1 - taken
    assert [x.pc for x in e.executed] == ([0, 1, 3] if taken else [0, 1, 2, 3])


def test_loop_with_words_of_dram_counts_beats():
    mem = Memory()
    m, e = go(
        make("li", rd=1, b=0),
        make("stw", rd=1, ra=1, b=64),
        make("ldw", rd=2, ra=1, b=64),
        make("add", rd=1, ra=1, b=4),
        make("blt", ra=1, b=12, target=1),
        memory=mem,
    )
    assert mem.read(64, 12).view(np.uint32).tolist() == [0, 4, 8]
    assert m.regs[2] == 8
    assert m.counters["beats_read"] == m.counters["beats_written"] == 3
    assert len(e.executed) == 14 and [x.id for x in e.executed] == list(range(14))
    m, _ = go(make("ldw", rd=2, ra=1, b=0), config=parse_config("dim=2,spad_kib=4,acc_kib=2"))
    assert m.counters["beats_read"] == 2


@pytest.mark.parametrize(("window", "step"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((1, 2), (3, 1))])
def test_store_takes_the_maximum_of_each_window(window, step):
    (h, w), (sh, sw) = window, step
    x = np.random.default_rng(h).integers(-300, 300, (7, 7, 4), np.int32)
    rows, columns = (7 - h) // sh + 1, (7 - w) // sw + 1
    mem = Memory()
    go(
        make(
            "store", mem=Mem.ACC, type=Type.I32, out=Type.I8, c0=4, c1=columns, c2=rows, l1=1, l2=7,
            s1=4, s2=4 * columns, pool=1, pool_h=h, pool_w=w, pool_sh=sh, pool_sw=sw,
        ),
        memory=mem,
        acc=x,
    )  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(x, (h, w), (0, 1))[::sh, ::sw]
    want = np.clip(windows.max((-2, -1)), -128, 127)
    got = mem.read(0, 4 * rows * columns).view(np.int8)
    assert got.reshape(rows, columns, 4).tolist() == want.tolist()


@pytest.mark.parametrize(("m", "n"), [(4, 4), (11, 9), (3, 2)])
def test_store_transposes_an_accumulator_of_columns(m, n):
    """C^T lies in blocks of 4 columns of C, n rows each; C is written row-major."""
    c = np.random.default_rng(m).integers(-(2**31), 2**31, (m, n), np.int32)
    bias = np.random.default_rng(n).integers(-(2**31), 2**31, n, np.int32)
    acc = np.zeros((24, -(-m // 4), 4), np.int32)
    acc[:n] = np.pad(c.T, ((0, 0), (0, -m % 4))).reshape(n, -1, 4)
    acc = np.concatenate([acc.swapaxes(0, 1).reshape(-1, 4), np.zeros((4, 4), np.int32)])
    vec = len(acc) - 4
    acc[vec : vec + -(-n // 4)] = np.pad(bias, (0, -n % 4)).reshape(-1, 4)
    mem = Memory()
    common = dict(mem=Mem.ACC, type=Type.I32, out=Type.I32, int_path=1, ibias=1, xpose=1, l0=1,
                  l1=24, c1=m, s1=4 * n)  # fmt: skip
    stores = [
        make("store", c0=min(4, n - 4 * b), loc=4 * b, dst=3 + 16 * b, vec=vec + b, **common)
        for b in range(-(-n // 4))
    ]
    go(*stores, memory=mem, acc=acc)
    want = (c.astype(np.int64) + bias).astype(np.int32)
    assert mem.read(3, 4 * m * n).view(np.int32).tolist() == want.ravel().tolist()


@pytest.mark.parametrize(("m", "n"), [(5, 5), (11, 32), (3, 17)])
def test_store_transposes_columns_of_several_units(m, n):
    """As above, but all columns at once: rows of n elements from one STORE."""
    c = np.random.default_rng(n).integers(-128, 128, (m, n), np.int32)
    scale = 2.0 ** np.random.default_rng(m).integers(-3, 1, n).astype(np.float32)
    acc = np.zeros((n, -(-m // 4), 4), np.int32)
    acc[:] = np.pad(c.T, ((0, 0), (0, -m % 4))).reshape(n, -1, 4)
    acc = np.concatenate([acc.swapaxes(0, 1).reshape(-1, 4), np.zeros((9, 4), np.int32)])
    vec = len(acc) - 9
    acc[vec : vec + -(-n // 4)] = np.pad(scale, (0, -n % 4)).reshape(-1, 4).view(np.int32)
    mem = Memory()
    store = make("store", mem=Mem.ACC, type=Type.I32, out=Type.F32, scale=1, xpose=1, l0=1, l1=n,
                 c0=n, c1=m, s1=4 * n, dst=7, vec=vec)  # fmt: skip
    go(store, memory=mem, acc=acc)
    want = c.astype(np.float32) * scale
    assert mem.read(7, 4 * m * n).view(np.float32).tolist() == want.ravel().tolist()


def test_store_scatters_rows_in_order_and_skips_those_out_of_range():
    index = np.array([3, 0, -1, 3, 4, 1], np.int32)
    x = np.arange(24, dtype=np.int32).reshape(6, 4)
    mem = Memory()
    mem.write(0, np.full(80, 99, np.uint8))
    m, _ = go(
        make(
            "store", mem=Mem.ACC, type=Type.I32, out=Type.I8, c0=4, c1=6, l1=1, dst=9, s1=8,
            scatter=1, index=4, bound=4,
        ),
        memory=mem,
        acc=x,
        spad=np.concatenate([np.zeros(4, np.int32), index]),
    )  # fmt: skip
    want = np.full(80, 99, np.int8)
    for i, at in ((1, 0), (3, 3), (5, 1)):  # row 0 is overwritten by row 3
        want[9 + 8 * at :][:4] = x[i]
    assert mem.read(0, 80).view(np.int8).tolist() == want.tolist()
    assert m.counters["beats_written"] == 6 * 2


def test_register_operands_reach_units():
    mem, d = filled()
    m, e = go(
        make("li", rd=3, b=40),
        make("li", rd=4, b=-4),
        make("load", conv=Conv.COPY8, dram=Reg(3), c0=4, c1=2, s1=Reg(4), loc=0, l1=1),
        memory=mem,
    )
    assert m.spad[:8].tolist() == [*d[40:44], *d[36:40]]
    assert e.executed[2].values["s1"] == -4


def test_beats_of_unaligned_runs():
    mem, _ = filled()
    config = parse_config("dim=8,spad_kib=8,acc_kib=4,bus_bytes=8")
    m, _ = go(
        make("load", conv=Conv.COPY8, dram=3, c0=9, c1=100, s1=7, c2=3, s2=13, c3=2, s3=-1, loc=0),
        memory=mem,
        config=config,
    )
    starts = [3 + 7 * i + 13 * j - k for i in range(100) for j in range(3) for k in range(2)]
    assert m.counters["beats_read"] == sum((s % 8 + 9 + 7) // 8 for s in starts)


def _fault(*instrs, **kw):
    _, e = go(*instrs, **kw)
    return (e.fault.code, e.fault.pc, len(e.executed))


def test_faults_stop_before_the_instruction():
    store = make("store", mem=Mem.ACC, type=Type.I32, out=Type.I32, c0=4, dst=0)
    ones = np.ones(4, np.int32)
    mem = Memory()
    bad = make("load", conv=Conv.COPY8, c0=0)
    assert _fault(store, bad, make("stw", rd=0, ra=0, b=0), memory=mem, acc=ones) == (
        Fault.FIELD,
        1,
        2,
    )
    assert mem.read(0, 16).view(np.int32).tolist() == [1, 1, 1, 1]
    assert _fault(b"\x3f" + bytes(63)) == (Fault.OPCODE, 0, 1)
    lacking = parse_config("dim=4,spad_kib=8,acc_kib=4,array=int8")
    float_matmul = make("matmul", a_type=Type.BF16, w_type=Type.BF16)
    assert _fault(float_matmul, config=lacking) == (Fault.UNIMPLEMENTED, 0, 1)
    assert _fault(make("load", conv=Conv.COPY8, loc=TW4.spad_granules)) == (Fault.RANGE, 0, 1)
    assert _fault(make("jmp", target=9)) == (Fault.PC, 9, 1)
    assert _fault(halt=False) == (Fault.PC, 0, 0)
    assert _fault(make("load", c0=Reg(0))) == (Fault.FIELD, 0, 1)


def test_waits_take_and_a_blocking_wait_is_a_deadlock():
    load = make("load", conv=Conv.COPY8, done_en=1, done_sem=3, rd_en=1, rd_sem=4)
    m, e = go(
        load, load, make("wait", sem=3, n=2), make("load", conv=Conv.COPY8, wait0=4, wait0_n=1)
    )
    assert e.fault is None and m.sems[3] == 0 and m.sems[4] == 1
    _, e = go(load, make("load", conv=Conv.COPY8, wait1=3, wait1_n=2))
    assert (e.fault.code, e.fault.pc, e.fault.unit) == (Fault.DEADLOCK, 1, Unit.LOAD)
    assert "semaphore 3" in e.fault.text


def test_endless_program_is_named():
    m = Machine(TW4, Memory())
    with pytest.raises(EndlessProgram, match="1000 instructions"):
        m.run(encode(make("jmp", target=0)), limit=1000)


def test_run_gives_counters_and_trace():
    code = encode(make("load", conv=Conv.COPY8, c0=4)) + encode(make("halt"))
    r = run(TW4, code, Memory())
    assert r.counters["load_instructions"] == 1 and r.fault is None and r.cycles is None
    assert r.trace[["id", "pc", "unit"]].tolist() == [(0, 0, Unit.LOAD), (1, 1, Unit.SEQ)]


def test_load_parts_sum_to_the_fp32_values():
    rng = np.random.default_rng(5)
    x = (rng.standard_normal(4096) * 2.0 ** rng.integers(-60, 60, 4096)).astype(np.float32)
    mem, total = Memory(), np.zeros(4096)
    mem.write(0, x)
    for conv in (Conv.F32_HI, Conv.F32_MID, Conv.F32_LO):
        m, _ = go(make("load", conv=conv, c0=4, c1=512, s1=16, l1=2), memory=mem)
        m2, _ = go(make("load", conv=conv, dram=8192, c0=4, c1=512, s1=16, l1=2), memory=mem)
        for half, machine in enumerate((m, m2)):
            total[2048 * half :][:2048] += machine.spad[:4096].view(bf16).astype(np.float64)
    assert np.array_equal(total, x.astype(np.float64))


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (0x7FC12345, (0x7FC0, 0, 0)),
        (0xFF800000, (0xFF80, 0, 0)),
        (0x7F7FFFFF, (0x7F80, 0, 0)),  # rounds up to infinity
        (0x80000000, (0x8000, 0, 0)),
        (0x80000001, (0x8000, 0, 0)),
        (0x3F808001, (0x3F81, 0xBB80, 0x3400)),  # 1 + 2^-8 + 2^-23: up, back, and on
        (0x00808000, (0x0080, 0, 0)),  # the rest, 2^-134, flushes
        (0x0080C000, (0x0081, 0x8000, 0)),  # a negative one keeps its sign
    ],
)
def test_load_parts_of_special_values(value, parts):
    mem = Memory()
    mem.write(0, np.array([value], np.uint32))
    got = []
    for conv in (Conv.F32_HI, Conv.F32_MID, Conv.F32_LO):
        m, _ = go(make("load", conv=conv, c0=1), memory=mem)
        got.append(int(m.spad[:2].view(np.uint16)[0]))
    assert tuple(got) == parts


@pytest.mark.parametrize(("conv", "dtype"), [(Conv.COPY8, np.uint8), (Conv.COPY16, np.uint16)])
def test_load_transposes_blocks_and_completes_them_with_zeros(conv, dtype):
    mem, d = filled(6)
    size, width = np.dtype(dtype).itemsize, np.dtype(dtype).itemsize  # granules of a unit
    # 7 rows of 8 elements as two columns of blocks of 4 x 4
    fields = dict(c0=4, c1=7, s1=40, c2=2, s2=4 * size, l0=width, l1=20, l2=40)
    m, e = go(
        make("load", conv=conv, xpose=1, dram=5, **fields),
        memory=mem,
        spad=np.full(800, 7, np.uint8),
    )
    assert e.fault is None
    rows = [d[5 + 40 * i : 5 + 40 * i + 8 * size].copy().view(dtype) for i in range(7)]
    matrix = np.zeros((8, 8), dtype)
    matrix[:7] = rows
    for b in range(2):
        for i2 in range(2):
            at = 4 * (20 * b + 40 * i2)
            got = m.spad[at : at + 16 * size].view(dtype).reshape(4, 4)
            assert np.array_equal(got, matrix[4 * b : 4 * b + 4, 4 * i2 : 4 * i2 + 4].T)
            assert (m.spad[at + 16 * size : at + 80] == 7).all()


@pytest.mark.parametrize("pack", [1, 2, 3])
@pytest.mark.parametrize(("conv", "dtype"), [(Conv.COPY8, np.uint8), (Conv.COPY16, np.uint16)])
@pytest.mark.parametrize("counts", [(5, 7, 3, 2), (9, 3, 5, 3), (4, 4, 2, 2), (1, 1, 1, 3)])
def test_load_transposes_the_runs_of_several_dimensions_as_one_sequence(pack, conv, dtype, counts):
    mem, d = filled(16)
    c0, c1, c2, c3 = counts
    width = np.dtype(dtype).itemsize  # granules of a unit
    first = np.ndarray((1,), dtype, d.data, 901)
    strides = (70, -100, 30, width)
    far = np.lib.stride_tricks.as_strided(first, (c3, c2, c1, c0), strides)
    outer = (1, c3, c3 * c2)[3 - pack]  # sequences
    runs = far.reshape(outer, -1, c0)
    blocks = -(-runs.shape[1] // 4)
    runs = np.pad(runs, ((0, 0), (0, 4 * blocks - runs.shape[1]), (0, 0)))
    want = runs.reshape(outer, blocks, 4, c0).swapaxes(2, 3)  # block, element, lane
    l1, size = (c0 + 1) * width, (c0 + 1) * width * blocks
    l2, l3 = (size, size * c2) if pack == 1 else (-1000, size)
    m, e = go(
        make("load", conv=conv, xpose=1, pack=pack, dram=901, c0=c0, c1=c1, c2=c2, c3=c3, s1=30,
             s2=-100, s3=70, l0=width, l1=l1, l2=l2, l3=l3 if pack < 3 else 64000),
        memory=mem,
        spad=np.full(8000, 7, np.uint8),
    )  # fmt: skip
    assert e.fault is None
    got = m.spad[: 4 * size * outer].reshape(outer, blocks, c0 + 1, 4 * width)
    assert np.array_equal(got[:, :, :c0].copy().view(dtype), want)
    assert (got[:, :, c0] == 7).all() and (m.spad[4 * size * outer : 8000] == 7).all()


@pytest.mark.parametrize(("pack", "lacks"), [
    (2, (1, 2, 0, 0)), (2, (4, 0, 0, 0)), (2, (4, 4, 0, 0)), (3, (2, 1, 1, 2)), (3, (4, 4, 2, 2)),
    (3, (0, 0, 2, 0)),
])  # fmt: skip
@pytest.mark.parametrize("counts", [(6, 5, 3, 2), (3, 5, 3, 3)])
def test_a_sequence_may_begin_and_end_inside_of_a_row(pack, lacks, counts):
    mem, d = filled(17)
    c0, c1, c2, c3 = counts
    far = np.lib.stride_tricks.as_strided(d[901:], (c3, c2, c1, c0), (70, -100, 30, 1))
    outer = (c3, 1)[pack - 2]  # sequences
    runs = far.reshape(outer, -1, c0)
    skip1, drop1, skip2, drop2 = lacks
    runs = runs[:, skip1 + skip2 * c1 : runs.shape[1] - drop1 - drop2 * c1]
    blocks = -(-runs.shape[1] // 4)
    runs = np.pad(runs, ((0, 0), (0, 4 * blocks - runs.shape[1]), (0, 0)))
    want = runs.reshape(outer, blocks, 4, c0).swapaxes(2, 3)  # block, element, lane
    m, e = go(
        make("load", xpose=1, pack=pack, dram=901, c0=c0, c1=c1, c2=c2, c3=c3, s1=30, s2=-100,
             s3=70, l0=1, l1=c0, l3=blocks * c0 * (pack < 3), skip1=skip1, drop1=drop1, skip2=skip2,
             drop2=drop2),
        memory=mem,
        spad=np.full(4000, 7, np.uint8),
    )  # fmt: skip
    assert e.fault is None
    assert np.array_equal(m.spad[: want.size].reshape(want.shape), want)
    assert (m.spad[want.size : 4000] == 7).all()


@pytest.mark.parametrize("c0", [5, 31, 32])
def test_load_transposes_runs_longer_than_dim(c0):
    mem, d = filled(8)
    m, e = go(
        make("load", xpose=1, dram=3, c0=c0, c1=6, s1=41, l0=2, l1=64),
        memory=mem,
        spad=np.full(800, 7, np.uint8),
    )
    assert e.fault is None
    want = np.full((2, 32, 2, 4), 7, np.uint8)  # block, element, granule of two, lane
    want[:, :c0, 0] = 0
    for i in range(6):
        want[i // 4, :c0, 0, i % 4] = d[3 + 41 * i : 3 + 41 * i + c0]
    assert np.array_equal(m.spad[: want.size], want.reshape(-1))


@pytest.mark.parametrize("oob", [0, 1])
def test_load_gathers_rows_by_index_and_clamps_or_fills(oob):
    mem, d = filled(7)
    index = np.array([3, -1, 0, 5, 2**31 - 1, 4, -(2**31), 1, 2], np.int32)
    m, e = go(
        make("load", conv=Conv.I8_I32, mem=Mem.ACC, gather=1, index=8, bound=5, oob=oob,
             value=0xFE, dram=9, c0=6, c1=9, s1=12, loc=3, l0=1, l1=2),
        memory=mem,
        spad=np.concatenate([np.full(32, 99, np.uint8), index.view(np.uint8)]),
    )  # fmt: skip
    assert e.fault is None
    table = np.stack([d[9 + 12 * i : 15 + 12 * i].view(np.int8) for i in range(5)])
    want = table[np.clip(index, 0, 4)].astype(np.int32)
    if oob:
        want[(index < 0) | (index > 4)] = -2
    got = m.acc[3:21].reshape(9, 8)
    assert np.array_equal(got[:, :6], want) and not got[:, 6:].any()
