"""Convolutions and pads on the chip leave the bits of eval_jaxpr, on every geometry."""

from dataclasses import replace

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import lax, sim
from tilewright.compiler import refine_conv
from tilewright.compiler.image import Image
from tilewright.compiler.kernels import Contract, Convolve, Pad
from tilewright.compiler.schedule import Schedule, ScheduleError
from tilewright.compiler.schedule_conv import ConvPlan, ConvSchedule
from tilewright.isa.config import parse_config

from tests.compiler.backend_case import (
    BF16,
    BOOL,
    F32,
    I8,
    I32,
    LEAST,
    SMALL,
    U8,
    array,
    assert_same_bits,
    compiled,
    execute,
    kernels_of,
)


@pytest.fixture(autouse=True)
def little_search(monkeypatch):
    """What is timed to find a schedule changes no bits; less of it saves time."""
    monkeypatch.setattr(refine_conv, "BUDGET", 400)


DTYPES = (I8, U8, BF16, F32)
LAYOUTS = (("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW"), ("HWNC", "IHWO", "CNHW"))


def conv(x, w, **params):
    wide = np.int32 if x.dtype in (I8, U8) else None
    return lax.conv_general_dilated(x, w, **params, preferred_element_type=wide)


def random_case(rng, dim):
    """Operands' shapes as (batch, height, width, channels), (kh, kw, c, o), and parameters."""
    kind = rng.integers(3)  # plain, feature groups, batch groups
    groups = int(rng.integers(2, 4)) if kind else 1
    c, o = (int(rng.integers(1, 2 * dim + 2)) for _ in range(2))
    kernel = rng.integers(1, 5, 2)
    space = rng.integers(1, 14, 2)
    gaps = rng.choice([1, 1, 1, 2, 3], 2)
    dilation = rng.choice([1, 1, 2, 3], 2)
    need = (kernel - 1) * dilation + 1 - ((space - 1) * gaps + 1)
    low = rng.integers(-1, 4, 2)
    high = np.maximum(rng.integers(-1, 4, 2), need - low)
    batch = int(rng.integers(1, 3))
    params = {
        "window_strides": tuple(map(int, rng.integers(1, 4, 2))),
        "padding": tuple((int(a), int(b)) for a, b in zip(low, high, strict=True)),
        "lhs_dilation": tuple(map(int, gaps)),
        "rhs_dilation": tuple(map(int, dilation)),
        "feature_group_count": groups if kind == 1 else 1,
        "batch_group_count": groups if kind == 2 else 1,
    }
    lhs = (batch * params["batch_group_count"], *space, c * params["feature_group_count"])
    return tuple(map(int, lhs)), (*map(int, kernel), c, o * groups), params


def laid_out(x, layout, letters):
    """An array whose dimensions are `letters`, with them in the order of `layout`."""
    return np.ascontiguousarray(x.transpose([letters.index(d) for d in layout]))


@pytest.mark.parametrize("config", ["tw4", SMALL, "tw16", "dim=32,spad_kib=64,acc_kib=32"])
def test_random_convolutions_keep_their_bits(config):
    dim = parse_config(config).dim
    seen = set()
    for seed in range(24):
        rng = np.random.default_rng((dim, seed))
        lhs, rhs, params = random_case(rng, dim)
        dtype, layout = DTYPES[seed % 4], LAYOUTS[seed // 4 % 3]
        x = laid_out(array(rng, lhs, dtype, special=seed % 2), layout[0], "NHWC")
        w = laid_out(array(rng, rhs, dtype), layout[1], "HWIO")
        back = assert_same_bits(
            lambda x, w, p=params, n=layout: conv(x, w, dimension_numbers=n, **p), x, w,
            config=config,
        )  # fmt: skip
        seen |= {k.source.packing for k in back.kernels.kernels if isinstance(k.source, Convolve)}
    assert {0, 1} <= seen and len(seen) > 2 - (dim == 2)


@pytest.mark.parametrize("config", ["tw4", "tw16"])
def test_quantised_layer(config):
    """Bias, activation and requantisation are the epilogue: one kernel."""
    rng = np.random.default_rng(3)
    x, w = array(rng, (2, 9, 7, 5), I8), array(rng, (3, 3, 5, 19), I8)
    b, s = array(rng, (19,), I32) >> 12, rng.uniform(1e-4, 1e-2, 19).astype(F32)

    def layer(x, w, b, s):
        y = conv(x, w, window_strides=(1, 1), padding="VALID", dimension_numbers=LAYOUTS[0]) + b
        return tnp.clip(tnp.round(y.astype(np.float32) * s), 0, 127).astype(np.int8)

    back = assert_same_bits(layer, x, w, b, s, config=config)
    assert [type(k.source) for k in back.kernels.kernels] == [Convolve]


def test_one_dimension_and_two_layers():
    rng = np.random.default_rng(4)
    x, v, w = array(rng, (3, 29, 5), F32), array(rng, (4, 5, 9), F32), array(rng, (3, 9, 7), F32)

    def layers(x, v, w):
        numbers = ("NWC", "WIO", "NWC")
        y = conv(x, v, window_strides=(2,), padding="SAME", dimension_numbers=numbers)
        y = tnp.maximum(y, 0)
        return conv(y, w, window_strides=(1,), padding="VALID", dimension_numbers=numbers)

    assert_same_bits(layers, x, v, w)


def test_a_long_line_is_cut_into_tiles_that_fill_the_accumulator():
    rng = np.random.default_rng(11)
    x, w = array(rng, (1, 3001, 4), I8), array(rng, (5, 4, 8), I8)
    back = assert_same_bits(
        lambda x, w: conv(x, w, window_strides=(1,), padding="SAME",
                          dimension_numbers=("NWC", "WIO", "NWC")), x, w)  # fmt: skip
    assert sum(op.name == "store" for op in back.tiles.ops) < 3001 / 24


@pytest.mark.parametrize("dtype", [I8, BF16])
def test_every_schedule_gives_the_same_bits(dtype):
    """The checker and eval_jaxpr accept each; what does not fit is refused with the reason."""
    rng = np.random.default_rng(5)
    x, w = array(rng, (3, 7, 9, 6), dtype), array(rng, (3, 2, 6, 12), dtype)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 2), padding=((1, 1), (0, 1)),
                    dimension_numbers=LAYOUTS[0])  # fmt: skip

    (kernel,) = kernels_of(layer, x, w).kernels[-1:]
    chip = parse_config(LEAST)
    image = Image(kernel.source, chip.dim)
    number = len(kernels_of(layer, x, w).kernels) - 1
    total = image.segments * image.blocks
    ran = refused = several = 0
    for _ in range(24):
        s = ConvSchedule(
            int(rng.integers(1, 8)), int(rng.integers(1, 6)), int(rng.choice([2, 6, 12])),
            int(rng.integers(1, total + 1)), str(rng.choice(["sn", "ns"])), int(rng.integers(1, 8)),
        )  # fmt: skip
        s = replace(s, head=int(rng.integers(0, s.rows + 1)), tail=int(rng.integers(0, s.rows + 1)),
                    first_k=int(rng.integers(0, s.kt + 1)),
                    parts=int(rng.choice([2, 4, 8])))  # fmt: skip
        if rng.random() < 0.4:
            s = replace(s, rows=7, head=0, tail=0, cols=1, nt=2, images=int(rng.integers(1, 4)))
        try:
            ConvPlan(chip, image, 0, kernel.out.dtype.itemsize, s).check()
        except ScheduleError as error:
            assert "more than" in str(error)
            refused += 1
            continue
        assert_same_bits(layer, x, w, config=LEAST, schedules={number: s})
        ran += 1
        several += s.images > 1
    assert ran >= 5 and refused >= 2 and several


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "c"), [((3, 5), 4), ((5, 3), 3), ((1, 3), 7)])
def test_images_below_each_other_share_their_zeros(kernel, c, stride):
    """One tile holds several images; what the array computes between them is not stored."""
    rng = np.random.default_rng((c, stride))
    x, w = array(rng, (5, 6, 4, c), F32), array(rng, (*kernel, c, 6), F32)

    def layer(x, w):
        return conv(x, w, window_strides=(stride, 1), padding="SAME", dimension_numbers=LAYOUTS[0])

    number = len(kernels_of(layer, x, w).kernels) - 1
    for images in (2, 5):
        s = ConvSchedule(6 // stride, 1, 6, 1, a_banks=6, images=images)
        back = assert_same_bits(layer, x, w, config="tw4", schedules={number: s})
        assert "images" in back.tiles.schedules[number]


@pytest.mark.parametrize("dtype", [I8, F32])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 3), (3, 2), (4, 6)])
def test_the_padded_copy_is_made_ahead_of_the_tiles(dtype, stride, dilation):
    """In phases of a dilated kernel's columns; the same bits before the tiles or between them."""
    rng = np.random.default_rng((stride, dilation))
    x, w = array(rng, (2, 23, 19, 3), dtype), array(rng, (3, 4, 3, 5), dtype)

    def layer(x, w):
        return conv(x, w, window_strides=(1, stride), padding="SAME", dimension_numbers=LAYOUTS[0],
                    rhs_dilation=(2, dilation))  # fmt: skip

    pad, kernel = kernels_of(layer, x, w).kernels
    assert isinstance(pad.source, Pad) and kernel.source.packing
    step = np.gcd(stride, dilation)
    assert pad.source.phases == kernel.source.phases == dilation // step
    for order, stage in (("sn", 1), ("ns", 1), ("ns", 0)):
        s = ConvSchedule(2, kernel.source.axes[1].out, 4, 2, order, 5, stage=stage)
        back = assert_same_bits(layer, x, w, schedules={1: s})
        stores = [i for i, op in enumerate(back.tiles.ops) if op.name == "store"]
        last = max(i for i in stores if back.tiles.ops[i].kernel == 0)
        results = [i for i in stores if back.tiles.ops[i].kernel == 1]
        assert (last > results[0]) == bool(stage)


@pytest.mark.parametrize("dtype", [I8, F32])
def test_integers_leave_out_taps_that_see_padding_only(dtype):
    """Of 7 x 5 taps, 2 apart, 3 x 3 ever reach a 4 x 3 image; an infinite weight counts."""
    rng = np.random.default_rng(13)
    x, w = array(rng, (2, 4, 3, 5), dtype), array(rng, (7, 5, 5, 6), dtype, special=True)
    back = assert_same_bits(
        lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME", rhs_dilation=(2, 2),
                          dimension_numbers=LAYOUTS[0]), x, w)  # fmt: skip
    taps = [a.taps for a in back.kernels.kernels[-1].source.axes]
    assert taps == ([3, 3] if dtype == I8 else [7, 5])


def test_pixels_that_exceed_a_stage_are_copied_in_parts():
    rng = np.random.default_rng(12)
    x, w = array(rng, (1, 3, 5, 17), F32), array(rng, (1, 3, 17, 96), F32)
    back = assert_same_bits(
        lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME", rhs_dilation=(1, 2),
                          dimension_numbers=LAYOUTS[0]), x, w, config="dim=8,spad_kib=2,acc_kib=2",
        schedules={1: ConvSchedule(1, 1, 8, 1, a_banks=6, stage=1)})  # fmt: skip
    assert back.kernels.kernels[0].source.phases == 2
    loads = [op for op in back.tiles.ops if op.kernel == 0 and op.buffer and op.name == "load"]
    assert len(loads) > 3 * 2  # rows and phases


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows must be in 1 to 9, not 0"),
        ({"nt": 5}, "nt must be a multiple of dim"),
        ({"order": "xy"}, "order must be 'sn' or 'ns', not 'xy'"),
        ({"a_banks": 8}, "a_banks must be in 1 to 7, not 8"),
        ({"head": 10}, "head must be in 0 to 9, not 10"),
        ({"cols": 11, "nt": 11}, "accumulator rows, "),
        ({"kt": 36, "a_banks": 7}, "one weight slot needs "),
        ({"parts": 3}, "parts must be one of "),
        ({"stage": 1, "a_banks": 7}, "a_banks must be in 1 to 6, not 7"),
        ({"images": 3}, "images must be in 1 to 2, not 3"),
        ({"images": 2, "rows": 8}, "2 images in a tile must have all rows, unpooled"),
    ],
)
def test_refused_schedule_names_what_does_not_fit(change, message):
    x, w = np.zeros((2, 9, 11, 16), I8), np.zeros((3, 3, 16, 11), I8)
    kernel = kernels_of(
        lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME",
                          dimension_numbers=LAYOUTS[0]), x, w).kernels[-1]  # fmt: skip
    fields = {"rows": 9, "cols": 3, "nt": 8, "kt": 9} | change
    plan = ConvPlan(parse_config("tw4"), Image(kernel.source, 4), 0, 4, ConvSchedule(**fields))
    with pytest.raises(ScheduleError, match=message):
        plan.check()


@pytest.mark.parametrize("dtype", [I8, BOOL, BF16, F32, I32])
def test_pad_and_rev(dtype):
    rng = np.random.default_rng(6)
    for shape, config in [
        ((5, 7), ((1, 2, 0), (0, 3, 0))),
        ((3, 4, 5), ((0, 0, 0), (2, 1, 1), (-1, 2, 2))),
        ((4, 1, 6), ((-1, -1, 0), (3, 0, 0), (0, 0, 0))),
        ((17,), ((2, 70000, 3),)),
        ((3, 2, 2, 3), ((1, 0, 0), (0, 1, 0), (1, 1, 0), (2, 2, 0))),
        ((2, 3), ((0, -1, 0), (1, 1, 1))),
    ]:
        x = array(rng, shape, dtype, True)
        value = np.array(rng.integers(0, 2) if dtype == BOOL else 77, dtype)
        back = assert_same_bits(lambda x, v=value, c=config: lax.pad(lax.rev(x, (0,)), v, c), x)
        assert isinstance(back.kernels.kernels[-1].source, Pad)


@pytest.mark.parametrize("config", ["tw4", "tw16"])
@pytest.mark.parametrize(("groups", "c", "o"), [(16, 1, 1), (12, 1, 2), (5, 2, 1), (7, 1, 1)])
def test_small_integer_groups_share_the_array(groups, c, o, config):
    """Depthwise and its like: groups become blocks of one weight matrix, as far as they fit."""
    rng = np.random.default_rng((groups, c, o))
    x, w = array(rng, (2, 6, 5, groups * c), I8), array(rng, (3, 3, c, groups * o), I8)
    back = assert_same_bits(
        lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME", dimension_numbers=LAYOUTS[0],
                          feature_group_count=groups), x, w, config=config)  # fmt: skip
    dim, source = back.config.dim, back.kernels.kernels[-1].source
    merged = max(n for n in range(1, dim // max(c, o) + 1) if groups % n == 0)
    assert source.w.shape[0] == groups // merged


@pytest.mark.parametrize("precision", ["high", "highest"])
@pytest.mark.parametrize("config", ["tw4", LEAST])
def test_precision_is_passes(precision, config):
    """The bits of eval_jaxpr, and an error far below that of one pass, against float64."""
    rng = np.random.default_rng(9)
    x, w = array(rng, (2, 6, 5, 7), F32), array(rng, (3, 2, 7, 6), F32)

    def layer(x, w):
        return conv(x, w, window_strides=(1, 2), padding=((1, 1), (0, 1)),
                    dimension_numbers=LAYOUTS[0], precision=precision)  # fmt: skip

    back = assert_same_bits(layer, x, w, config=config)
    (got,) = execute(back, x, w)
    a, b = x.astype(np.float64), w.astype(np.float64)
    error = np.max(np.abs(got - correlate(a, b)) / correlate(np.abs(a), np.abs(b)))
    assert error < {"high": 2**-15, "highest": 3e-7}[precision]


def correlate(x, w):
    """The same layer by its definition, in float64."""
    x = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[:2], (1, 2))[:, :, ::2]
    return np.einsum("bhwcij,ijco->bhwo", windows, w)


def test_one_tap_is_a_matrix_product():
    rng = np.random.default_rng(10)
    x, w = array(rng, (2, 5, 6, 7), F32), array(rng, (1, 1, 7, 9), F32)
    back = assert_same_bits(
        lambda x, w: conv(x, w, window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 1),
                          dimension_numbers=LAYOUTS[0]), x, w)  # fmt: skip
    assert [type(k.source) for k in back.kernels.kernels] == [Contract]


def test_transposed_convolution_reads_gaps_as_zeros():
    rng = np.random.default_rng(7)
    x, w = array(rng, (2, 5, 6, 4), F32), array(rng, (3, 3, 4, 5), F32)
    assert_same_bits(
        lambda x, w: lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=LAYOUTS[0]), x, w
    )


@pytest.mark.parametrize("dtype", [I8, BF16])
def test_engines_agree(dtype):
    """Functional, cycle and RTL: the same bytes and cycles."""
    rng = np.random.default_rng(8)
    x, w = array(rng, (2, 10, 11, 5), dtype), array(rng, (3, 3, 5, 6), dtype)
    back = compiled(
        lambda x, w: conv(x, w, window_strides=(2, 1), padding="SAME",
                          dimension_numbers=LAYOUTS[0]), x, w)  # fmt: skip
    assert back.kernels.kernels[-1].source.packing
    memory = sim.load_memory(back.program)
    for value, port in zip((x, w), back.program.inputs, strict=True):
        memory.write(port.addr, value)
    results = [sim.run(back.program, memory, engine=e) for e in ("functional", "cycle", "rtl")]
    (port,) = back.program.outputs
    size = back.kernels.outputs[0].nbytes
    first, *others = (bytes(r.memory.read(port.addr, size)) for r in results)
    assert all(o == first for o in others) and any(first)
    assert results[1].cycles == results[2].cycles


def test_a_schedule_of_another_kind_is_refused():
    x, w = np.zeros((1, 5, 5, 4), I8), np.zeros((3, 3, 4, 4), I8)
    with pytest.raises(ScheduleError, match="needs patches as activations, which convolve"):
        compiled(
            lambda x, w: conv(x, w, window_strides=(1, 1), padding="SAME",
                              dimension_numbers=LAYOUTS[0]), x, w,
            schedules={0: Schedule(4, 4, 4)},
        )  # fmt: skip
