"""The convolution primitive against JAX on the CPU, and its order of additions against loops."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.primitives_conv import (
    ConvDimensionNumbers,
    Extent,
    conv_general_dilated_p,
    packing,
    segments,
)
from tilewright.compiler.simplify import simplify
from tilewright.compiler.trace import bind, make_jaxpr, primitive_jaxpr

BF16 = np.dtype(ml_dtypes.bfloat16)
NHWC = ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
PLAIN = {
    "window_strides": (1, 1),
    "padding": ((0, 0), (0, 0)),
    "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1),
    "dimension_numbers": NHWC,
}


@pytest.fixture(scope="module")
def jax():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        import jax

        yield jax


def placed(spec, sizes):
    shape = [0] * len(spec)
    for d, n in zip(spec, sizes, strict=True):
        shape[d] = n
    return tuple(shape)


@st.composite
def convolutions(draw):
    """Draw (lhs shape, rhs shape, params) of a legal convolution, 1-D or 2-D."""
    rank = draw(st.integers(1, 2))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    specs = [tuple(draw(st.permutations(range(rank + 2)))) for _ in range(3)]
    groups = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (3, 1), (1, 2), (1, 3)]))
    c, share, batch = (draw(st.integers(1, n)) for n in (5, 2, 2))
    lhs = placed(specs[0], (batch * groups[1], c * groups[0], *each(1, 7)))
    rhs = placed(specs[1], (share * groups[0] * groups[1], c, *each(1, 3)))
    dilation = each(1, 3)
    sizes = [1 + d * (lhs[i] - 1) for d, i in zip(dilation, specs[0][2:], strict=True)]
    padding = []
    for size in sizes:
        low = draw(st.integers(-min(size, 3), 3))
        padding.append((low, draw(st.integers(max(-3, -size - low), 3))))
    params = {
        "window_strides": each(1, 3),
        "padding": tuple(padding),
        "lhs_dilation": dilation,
        "rhs_dilation": each(1, 3),
        "dimension_numbers": ConvDimensionNumbers(*specs),
        "feature_group_count": groups[0],
        "batch_group_count": groups[1],
    }
    return lhs, rhs, params


def theirs(jax, params):
    """Return the parameters with JAX's class."""
    numbers = jax.lax.ConvDimensionNumbers(*params["dimension_numbers"])
    return {**params, "dimension_numbers": numbers}


def run(lhs, rhs, params, dim=16):
    """Evaluate one equation without the chip."""
    avals = [ShapedArray(a.shape, a.dtype) for a in (lhs, rhs)]
    jaxpr = primitive_jaxpr(conv_general_dilated_p, avals, params)
    return eval_jaxpr(jaxpr, [lhs, rhs], dim=dim)[0]


@given(case=convolutions(), dtype=st.sampled_from([np.float32, BF16, np.int8, np.uint32]))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_type_rule_is_jaxs(jax, case, dtype):
    lhs, rhs, params = case
    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in (lhs, rhs)]
    expected = jax.eval_shape(
        lambda a, b: jax.lax.conv_general_dilated(a, b, **theirs(jax, params)), *shapes
    )
    aval = conv_general_dilated_p.abstract(
        ShapedArray(lhs, dtype), ShapedArray(rhs, dtype), **params
    )
    assert (aval.shape, aval.dtype) == (expected.shape, expected.dtype)


@given(
    case=convolutions(),
    dtypes=st.sampled_from(
        [(np.int8, None), (np.int8, np.int32), (np.uint8, np.int32), (np.int32, None)]
    ),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_integers_are_exactly_jaxs(jax, case, dtypes, seed):
    (lhs, rhs, params), (dtype, preferred) = case, dtypes
    rng, info = np.random.default_rng(seed), np.iinfo(dtype)
    a, b = (rng.integers(info.min, info.max, s, dtype, endpoint=True) for s in (lhs, rhs))
    wide = jax.lax.conv_general_dilated(
        a.astype(np.int32), b.astype(np.int32), **theirs(jax, params)
    )
    expected = np.asarray(wide).astype(preferred or dtype)
    given_type = {} if preferred is None else {"preferred_element_type": np.dtype(preferred)}
    result = run(a, b, {**params, **given_type})
    assert result.dtype == expected.dtype
    assert result.tolist() == expected.tolist()


@given(case=convolutions(), dtype=st.sampled_from([np.dtype(np.float32), BF16]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_floats_are_near_jaxs(jax, case, dtype):
    lhs, rhs, params = case
    rng = np.random.default_rng(sum(lhs))
    a, b = (rng.standard_normal(s).astype(dtype) for s in (lhs, rhs))

    def reference(x, y):
        x, y = x.astype(np.float32), y.astype(np.float32)
        return np.asarray(jax.lax.conv_general_dilated(x, y, **theirs(jax, params)))

    result = run(a, b, params)
    assert result.dtype == dtype
    error = np.abs(result.astype(np.float32) - reference(a, b))
    assert (error <= 2**-7 * reference(np.abs(a), np.abs(b))).all()


@given(case=convolutions())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_highest_is_accurate_to_float32(jax, case):
    """Within 1e-6 of the sum of absolute products of JAX's, whose products and sums are float32."""
    lhs, rhs, params = case
    rng = np.random.default_rng(sum(rhs))
    a, b = (rng.standard_normal(s).astype(np.float32) for s in (lhs, rhs))

    def reference(x, y):
        x, y = x.astype(np.float32), y.astype(np.float32)
        return np.asarray(
            jax.lax.conv_general_dilated(x, y, precision="highest", **theirs(jax, params))
        )

    error = np.abs(run(a, b, {**params, "precision": "highest"}) - reference(a, b))
    assert (error <= 1e-6 * reference(np.abs(a), np.abs(b))).all()


@pytest.mark.parametrize(
    ("shape", "dim", "size", "expected"),
    [
        ((3, 3, 64, 64, 56), 16, 1, 0),  # 36 blocks in every packing
        ((1, 1, 3, 8, 5), 16, 1, 0),
        ((7, 7, 3, 64, 112), 16, 1, 3),  # 49 blocks, 14, 11, 10
        ((7, 7, 3, 8, 112), 16, 1, 3),  # so few outputs that loads count
        ((3, 3, 1, 1, 9), 16, 2, 1),  # depthwise: loads alone count
        ((3, 3, 24, 64, 28), 16, 1, 2),  # 18, 15, 14 and 14
        ((5, 5, 200, 64, 28), 16, 2, 0),  # 325, 315 and 313: long segments, weights come again
        ((2, 2, 36, 106, 24), 16, 1, 2),  # 12, 10 and 9
        ((4, 4, 18, 24, 25), 16, 2, 2),  # 32, 20, 18, 19 and 18
    ],
)
def test_packing(shape, dim, size, expected):
    kh, kw, c, o, out = shape
    assert packing(Extent(kh, out), Extent(kw, out), c, o, dim, size) == expected


def test_packing_has_the_fewest_blocks_where_loads_hide():
    """With thousands of outputs the choice is that of the fewest blocks, or of fewer rows."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        kh, kw, c = (int(rng.integers(1, n)) for n in (8, 8, 12))
        rows = packing(Extent(kh, 30), Extent(kw, 30), c, 4096, 16)
        blocks = [sum(-(-n // 16) for n in segments(r, kh, kw, c)) for r in range(kh + 1)]
        assert blocks[rows] <= 1.03 * min(blocks)


def test_a_segment_is_some_kernel_rows():
    assert segments(0, 3, 2, 5) == [5] * 6
    assert segments(1, 3, 2, 5) == [10] * 3
    assert segments(2, 3, 2, 5) == [20, 10]
    assert segments(3, 3, 2, 5) == [30]


def packed(image, kernel, outputs, dim):
    """The packing of a plain convolution (H, W, C) with (KH, KW, C)."""
    (kh, kw, c), (height, width, _) = kernel.shape, image.shape
    return packing(Extent(kh, height - kh + 1), Extent(kw, width - kw + 1), c, outputs, dim)


def loops(image, kernel, outputs, dim):
    """Convolve (H, W, C) with (KH, KW, C), no padding, by the definition: one scalar at a time."""
    (kh, kw, c), f32 = kernel.shape, np.float32
    sizes = segments(packed(image, kernel, outputs, dim), kh, kw, c)
    out = np.empty((image.shape[0] - kh + 1, image.shape[1] - kw + 1), f32)
    for y, x in np.ndindex(out.shape):
        taps = [(i, j, k) for i in range(kh) for j in range(kw) for k in range(c)]
        pairs = [(f32(image[y + i, x + j, k]), f32(kernel[i, j, k])) for i, j, k in taps]
        total, first = None, 0
        for size in sizes:
            for start in range(0, size, dim):
                block = f32(0)
                for p, q in pairs[first + start : first + min(start + dim, size)]:
                    block = f32(block + p * q)
                total = block if total is None else f32(total + block)
            first += size
        out[y, x] = total
    return out


KERNELS = [(3, 3, 8), (3, 3, 2), (2, 3, 10), (5, 5, 3), (1, 5, 3)]


@pytest.mark.parametrize("outputs", [1, 40])
@pytest.mark.parametrize("kernel", KERNELS)
def test_order_of_additions(kernel, outputs):
    rng = np.random.default_rng(1)
    image = (rng.standard_normal((7, 8, kernel[2])) * 2.0 ** rng.integers(-9, 9)).astype(BF16)
    weights = rng.standard_normal(kernel).astype(BF16)
    params = {**PLAIN, "preferred_element_type": np.dtype(np.float32)}
    result = run(image[None], np.repeat(weights[..., None], outputs, -1), params, dim=4)
    assert result[0, ..., -1].tobytes() == loops(image, weights, outputs, 4).tobytes()


def test_the_packings_are_tested():
    found = {packed(np.empty((7, 8, k[2])), np.empty(k), o, 4) for k in KERNELS for o in (1, 40)}
    assert {0, 1} < found


def test_float32_is_rounded_to_bfloat16():
    a = np.full((1, 1, 1, 1), 1 + 2**-12, np.float32)
    assert run(a, a, PLAIN).item() == 1.0


def test_padding_is_multiplied():
    image = np.ones((1, 1, 1, 1), np.float32)
    kernel = np.full((1, 2, 1, 1), np.inf, np.float32)
    result = run(image, kernel, {**PLAIN, "padding": ((0, 0), (1, 0))})
    assert np.isnan(result).all()  # 0 * inf


def test_int8_wraps_in_its_own_dtype():
    a = np.full((1, 1, 1, 3), 100, np.int8)
    assert run(a, a.reshape(1, 1, 3, 1), PLAIN).item() == (30_000 + 128) % 256 - 128


@pytest.mark.parametrize("shape", [(0, 4, 4, 2), (1, 2, 4, 2)])
def test_no_output(shape):
    assert run(np.zeros(shape, np.float32), np.zeros((3, 3, 2, 5), np.float32), PLAIN).size == 0


@pytest.mark.parametrize(
    ("lhs", "rhs", "changes", "message"),
    [
        ((1, 4, 4, 2), (3, 3, 2), {}, "one rank, not 4 and 3"),
        ((1, 4, 4, 3), (3, 3, 2, 4), {}, "rhs must have 3 input features"),
        ((1, 4, 4, 3), (3, 3, 2, 4), {"feature_group_count": 2}, "must divide lhs's 3 features"),
        ((1, 4, 4, 4), (3, 3, 2, 3), {"feature_group_count": 2}, "divide rhs's 3 output features"),
        ((3, 4, 4, 2), (3, 3, 2, 4), {"batch_group_count": 2}, "must divide lhs's batch of 3"),
        ((2, 4, 4, 2), (3, 3, 2, 3), {"batch_group_count": 2}, "divide rhs's 3 output features"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"feature_group_count": 0}, "must be at least 1, not 0"),
        (
            (2, 4, 4, 4),
            (3, 3, 2, 4),
            {"batch_group_count": 2, "feature_group_count": 2},
            "at most one of",
        ),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"window_strides": (1,)}, "window_strides must have 2"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"window_strides": (1, 0)}, "at least 1, not"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"lhs_dilation": (0, 1)}, "lhs_dilation must have 2"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"rhs_dilation": (1, 1, 1)}, "rhs_dilation must have 2"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"padding": ((0, 0),)}, "padding must have 2"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"padding": ((-3, -2), (0, 0))}, "must not crop more"),
        ((1, 4, 4, 2), (3, 3, 2, 4), {"precision": "best"}, "precision must be one of"),
        (
            (1, 4, 4, 2),
            (3, 3, 2, 4),
            {"dimension_numbers": NHWC._replace(rhs_spec=(0, 1, 2, 2))},
            "rhs_spec must permute 4 dimensions",
        ),
    ],
)
def test_type_rule_refuses(lhs, rhs, changes, message):
    avals = ShapedArray(lhs, np.float32), ShapedArray(rhs, np.float32)
    with pytest.raises(OperandError, match=message):
        conv_general_dilated_p.abstract(*avals, **{**PLAIN, **changes})


@pytest.mark.parametrize("count", [0, 3])
def test_other_ranks_are_named(count):
    spec = tuple(range(count + 2))
    params = {**PLAIN, "dimension_numbers": ConvDimensionNumbers(spec, spec, spec)}
    aval = ShapedArray((1,) * (count + 2), np.float32)
    with pytest.raises(UnsupportedError, match=f"1 or 2 spatial dimensions, not {count}.*test_pr"):
        make_jaxpr(lambda a, b: bind(conv_general_dilated_p, a, b, **params))(aval, aval)


@given(case=convolutions(), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_simplify_keeps_the_bits_of_transposed_operands(case, seed):
    lhs, rhs, params = case
    rng = np.random.default_rng(seed)
    orders = [tuple(map(int, rng.permutation(len(lhs)))) for _ in range(2)]
    stored = [
        rng.standard_normal([shape[d] for d in np.argsort(order)]).astype(np.float32)
        for shape, order in zip((lhs, rhs), orders, strict=True)
    ]

    def function(a, b):
        a, b = a.transpose(*orders[0]), b.transpose(*orders[1])
        return bind(conv_general_dilated_p, a, b, **params)

    jaxpr = make_jaxpr(function)(*stored)
    small = simplify(jaxpr)
    assert [eqn.primitive.name for eqn in small.eqns] == ["conv_general_dilated"]
    expected = eval_jaxpr(jaxpr, stored, dim=4)[0]
    assert eval_jaxpr(small, stored, dim=4)[0].tobytes() == expected.tobytes()
