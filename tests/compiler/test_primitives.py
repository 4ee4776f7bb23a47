"""Each primitive's implementation and type rule against NumPy one-liners and corner values."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
from tilewright.compiler import primitives as p
from tilewright.compiler.core import ShapedArray
from tilewright.compiler.errors import OperandError
from tilewright.compiler.primitives_dot import dot_general_p

BF16 = ml_dtypes.bfloat16
NAN, INF, TINY = np.float32(np.nan), np.float32(np.inf), np.float32(1e-40)
NUMBERS = (np.float32, BF16, np.int8, np.uint8, np.int32, np.uint32)


def bits(x):
    return np.asarray(x, np.float32).view(np.uint32)


def samples(dtype, n, seed=0):
    rng = np.random.default_rng(seed)
    if dtype in (np.float32, BF16):
        return (rng.standard_normal(n) * 4).astype(np.float32).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)


def rounded(x, dtype):
    """float32 to `dtype` by ml_dtypes' own rounding; integers modulo their range."""
    return x.astype(dtype) if dtype in (np.float32, BF16) else x.astype(np.int64).astype(dtype)


def wide(x):
    return x.astype(np.float32) if x.dtype in (np.float32, BF16) else x.astype(np.int64)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(
    ("primitive", "function"),
    [
        (p.add_p, lambda a, b: a + b),
        (p.sub_p, lambda a, b: a - b),
        (p.mul_p, lambda a, b: a * b),
        (p.max_p, np.maximum),
        (p.min_p, np.minimum),
    ],
)
def test_binary_arithmetic(primitive, function, dtype):
    a, b = samples(dtype, 50, 1), samples(dtype, 50, 2)
    with np.errstate(over="ignore"):
        expected = rounded(function(wide(a), wide(b)), dtype)
    result = primitive.impl(a, b)
    assert result.dtype == dtype
    assert result.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", NUMBERS)
def test_neg_and_clamp(dtype):
    x = samples(dtype, 50)
    low, high = np.array(1, dtype), np.array(3, dtype)
    assert p.neg_p.impl(x).tobytes() == rounded(-wide(x), dtype).tobytes()
    expected = rounded(np.clip(wide(x), 1, 3), dtype)
    assert p.clamp_p.impl(low, x, high).tobytes() == expected.tobytes()


@pytest.mark.parametrize("primitive", [p.add_p, p.max_p, p.clamp_p, p.neg_p, p.mul_p, p.div_p])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_scalars_stay_scalars(primitive, dtype):
    arity = {p.clamp_p: 3, p.neg_p: 1}.get(primitive, 2)
    result = primitive.impl(*[np.array(3, dtype)] * arity)
    assert np.shape(result) == ()
    assert result.dtype == dtype


@pytest.mark.parametrize(
    ("primitive", "a", "b", "expected"),
    [
        (p.add_p, TINY, TINY, 0.0),
        (p.add_p, -TINY, -TINY, -0.0),
        (p.sub_p, 1.5, 1.5, 0.0),
        (p.sub_p, INF, INF, NAN),
        (p.mul_p, 1e-20, 1e-20, 0.0),
        (p.mul_p, -1e-20, 1e-20, -0.0),
        (p.div_p, 1.0, 0.0, INF),
        (p.div_p, 0.0, 0.0, NAN),
        (p.div_p, -1e-30, 1e30, -0.0),
        (p.max_p, -0.0, 0.0, 0.0),
        (p.min_p, 0.0, -0.0, -0.0),
        (p.max_p, NAN, 1.0, NAN),
        (p.min_p, 1.0, NAN, NAN),
        (p.max_p, TINY, -1.0, 0.0),
    ],
)
def test_float_corners(primitive, a, b, expected):
    result = primitive.impl(np.float32([a]), np.float32([b]))
    assert bits(result) == bits([expected])


def test_division_is_correctly_rounded():
    a, b = samples(np.float32, 500, 3), samples(np.float32, 500, 4)
    assert p.div_p.impl(a, b).tobytes() == (a / b).tobytes()


def test_integer_division_is_xla():
    a = np.int32([7, -7, 7, -7, 5, -(2**31)])
    b = np.int32([2, 2, -2, -2, 0, -1])
    assert p.div_p.impl(a, b).tolist() == [3, -3, -3, 3, -1, -(2**31)]


@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_round_is_to_nearest_even(dtype):
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.75], dtype)
    result = p.round_nearest_even_p.impl(x).astype(np.float32)
    assert bits(result).tolist() == bits([-2, -2, -0.0, 0, 2, 2, 3]).tolist()


@pytest.mark.parametrize(
    ("primitive", "expected"),
    [
        (p.eq_p, [False, True, False]),
        (p.ne_p, [True, False, True]),
        (p.lt_p, [True, False, False]),
        (p.le_p, [True, True, False]),
        (p.gt_p, [False, False, False]),
        (p.ge_p, [False, True, False]),
    ],
)
def test_comparisons(primitive, expected):
    a, b = np.float32([1, TINY, NAN]), np.float32([2, -0.0, NAN])
    assert primitive.impl(a, b).tolist() == expected


@pytest.mark.parametrize(
    ("source", "target", "values", "expected"),
    [
        (np.float32, np.int32, [1.9, -1.9, 3e9, -3e9, NAN], [1, -1, 2**31 - 1, -(2**31), 0]),
        (np.float32, np.int8, [127.9, 200, -129, INF], [127, 127, -128, 127]),
        (BF16, np.uint8, [2.5, -3, 300], [2, 0, 255]),
        (np.float32, np.uint32, [4e9, 5e9, -1], [4000000000, 2**32 - 1, 0]),
        (np.int32, np.int8, [300, -129, 5], [44, 127, 5]),
        (np.int8, np.uint32, [-1], [2**32 - 1]),
        (np.int32, np.float32, [16777217, 16777219], [16777216, 16777220]),
        (np.int32, BF16, [257, 259, -5], [256, 260, -5]),
        (np.float32, np.bool_, [0, -0.0, TINY, 0.5, NAN], [False, False, False, True, True]),
        (np.bool_, np.float32, [True, False], [1, 0]),
        (np.float32, BF16, [1.00390625, 1.01171875], [1, 1.015625]),
    ],
)
def test_conversions(source, target, values, expected):
    result = p.convert_element_type_p.impl(np.array(values, source), new_dtype=np.dtype(target))
    assert result.dtype == target
    assert result.astype(np.float64).tolist() == np.float64(expected).tolist()


def test_data_movement_keeps_every_bit():
    odd = np.uint32([0x7F800001, 0xFFC12345, 1, 0x80000001, 0x3F800000, 2]).view(np.float32)
    moved = p.reshape_p.impl(odd, new_sizes=(2, 3))
    moved = p.transpose_p.impl(moved, permutation=(1, 0))
    moved = p.slice_p.impl(moved, start_indices=(0, 0), limit_indices=(3, 2), strides=(2, 1))
    moved = p.broadcast_in_dim_p.impl(moved, shape=(2, 5, 2), broadcast_dimensions=(0, 2))
    expected = odd.view(np.uint32).reshape(2, 3).T[::2][:, None].repeat(5, 1)
    assert moved.view(np.uint32).tolist() == expected.tolist()


def reference_dot(a, w, dim):
    """(M, K) @ (K, N) in float32, block by block, row by row: DESIGN's order of additions."""
    out = np.zeros((a.shape[0], w.shape[1]), np.float32)
    for start in range(0, a.shape[1], dim):
        column = np.zeros_like(out)
        for k in range(start, min(start + dim, a.shape[1])):
            column = column + np.outer(a[:, k], w[k]).astype(np.float32)
        out = out + column
    return out


MATMUL = {"dimension_numbers": (((1,), (0,)), ((), ()))}


@pytest.mark.parametrize("dim", [4, 16])
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_float_contraction_adds_in_the_arrays_order(dtype, dim):
    a, w = samples(dtype, 5 * 37, 5).reshape(5, 37), samples(dtype, 37 * 3, 6).reshape(37, 3)
    as_bf16 = [v.astype(BF16).astype(np.float32) for v in (a, w)]
    expected = reference_dot(*as_bf16, dim)
    result = dot_general_p.impl(a, w, dim=dim, **MATMUL, preferred_element_type=np.dtype("f4"))
    assert result.tobytes() == expected.tobytes()
    own = dot_general_p.impl(a, w, dim=dim, **MATMUL)
    assert own.tobytes() == expected.astype(dtype).tobytes()


@pytest.mark.parametrize(("left", "right"), list(product((np.int8, np.uint8), repeat=2)))
def test_byte_contraction_is_exact(left, right):
    a, w = samples(left, 4 * 300).reshape(4, 300), samples(right, 300 * 5).reshape(300, 5)
    exact = a.astype(np.int64) @ w.astype(np.int64)
    i32 = np.dtype(np.int32)
    result = dot_general_p.impl(a, w, **MATMUL, preferred_element_type=i32)
    assert result.tolist() == exact.tolist()
    if left == right:
        assert dot_general_p.impl(a, w, **MATMUL).tolist() == exact.astype(left).tolist()


def test_int32_contraction_wraps():
    a, w = samples(np.int32, 8).reshape(2, 4), samples(np.int32, 8, 1).reshape(4, 2)
    exact = a.astype(object) @ w.astype(object)
    wrapped = [[(int(v) + 2**31) % 2**32 - 2**31 for v in row] for row in exact]
    assert dot_general_p.impl(a, w, **MATMUL).tolist() == wrapped


@pytest.mark.parametrize(
    ("numbers", "lhs", "rhs", "subscripts"),
    [
        ((((1,), (0,)), ((), ())), (2, 3), (3, 4), "mk,kn->mn"),
        ((((0,), (1,)), ((), ())), (3, 2), (4, 3), "km,nk->mn"),
        ((((2,), (1,)), ((0,), (0,))), (5, 2, 3), (5, 3, 4), "bmk,bkn->bmn"),
        ((((0,), (2,)), ((2,), (1,))), (3, 2, 5), (4, 5, 3), "kmb,nbk->bmn"),
        ((((0, 2), (3, 1)), ((1,), (0,))), (3, 5, 6, 2), (5, 6, 4, 3), "kbjm,bjnk->bmn"),
        ((((0,), (0,)), ((), ())), (7,), (7,), "k,k->"),
        ((((), ()), ((), ())), (2,), (3,), "m,n->mn"),
    ],
)
def test_dimension_numbers_are_einsum(numbers, lhs, rhs, subscripts):
    a = samples(np.int8, int(np.prod(lhs))).reshape(lhs)
    w = samples(np.int8, int(np.prod(rhs)), 1).reshape(rhs)
    params = {"dimension_numbers": numbers, "preferred_element_type": np.dtype(np.int32)}
    result = dot_general_p.impl(a, w, **params)
    expected = np.einsum(subscripts, a.astype(np.int64), w.astype(np.int64))
    assert result.tolist() == expected.tolist()
    aval = dot_general_p.abstract(ShapedArray(lhs, np.int8), ShapedArray(rhs, np.int8), **params)
    assert (aval.shape, aval.dtype) == (expected.shape, np.int32)


@pytest.mark.parametrize(
    ("precision", "pairs"), [("high", "mh hm hh"), ("highest", "lh mm hl mh hm hh")]
)
def test_precision_of_float32_is_products_of_parts(precision, pairs):
    """The smallest first; each adds all of K, in blocks of dim, before the next begins."""
    f32, dim = np.float32, 4
    rng = np.random.default_rng(5)
    a, w = rng.standard_normal((3, 9)).astype(f32), rng.standard_normal((9, 2)).astype(f32)

    def parts(x):
        out = {}
        for name in "hml":
            out[name] = x.astype(ml_dtypes.bfloat16).astype(f32)
            x = x - out[name]
        return out

    expected, left, right = np.zeros((3, 2), f32), parts(a), parts(w)
    for i, j in np.ndindex(3, 2):
        total = f32(0)
        for x, y in pairs.split():
            for block in range(0, 9, dim):
                column = f32(0)
                for k in range(block, min(9, block + dim)):
                    column = f32(column + left[x][i, k] * right[y][k, j])
                total = f32(total + column)
        expected[i, j] = total
    got = dot_general_p.impl(a, w, **(MATMUL | {"dim": dim}), precision=precision)
    assert got.tobytes() == expected.tobytes()


def avals(*specs):
    return [ShapedArray(shape, dtype) for shape, dtype in specs]


F32, I8, U8, I32, BOOL = np.float32, np.int8, np.uint8, np.int32, np.bool_


@pytest.mark.parametrize(
    ("primitive", "operands", "params", "message"),
    [
        (p.add_p, [((2,), F32), ((3,), F32)], {}, r"one shape or be scalars, not shapes \(2,\)"),
        (p.add_p, [((2,), F32), ((2,), BF16)], {}, "one dtype, not float32, bfloat16"),
        (p.add_p, [((2,), BOOL), ((2,), BOOL)], {}, "not bool"),
        (p.round_nearest_even_p, [((2,), I8)], {}, "one of float32, bfloat16, not int8"),
        (p.reshape_p, [((2, 3), F32)], {"new_sizes": (4,)}, "hold 6 elements"),
        (p.transpose_p, [((2, 3), F32)], {"permutation": (0, 0)}, "must permute 2"),
        (
            p.slice_p,
            [((2,), F32)],
            {"start_indices": (1,), "limit_indices": (3,)},
            "limit <= 2",
        ),
        (
            p.broadcast_in_dim_p,
            [((2,), F32)],
            {"shape": (3,), "broadcast_dimensions": (0,)},
            r"\(2,\) does not broadcast to \(3,\)",
        ),
        (
            p.broadcast_in_dim_p,
            [((2, 2), F32)],
            {"shape": (2, 2), "broadcast_dimensions": (1, 0)},
            "ascending",
        ),
        (dot_general_p, [((2, 3), F32), ((2, 3), F32)], MATMUL, r"not \(3,\) of lhs"),
        (dot_general_p, [((2, 3), I8), ((3, 2), U8)], MATMUL, "one dtype, not int8 and uint8"),
        (dot_general_p, [((2, 3), BOOL), ((3, 2), BOOL)], MATMUL, "bool operands"),
        (
            dot_general_p,
            [((2, 3), I8), ((3, 2), I8)],
            {**MATMUL, "preferred_element_type": np.dtype(F32)},
            "must be an integer dtype for int8",
        ),
        (
            dot_general_p,
            [((2, 3), F32), ((3, 2), F32)],
            {**MATMUL, "preferred_element_type": np.dtype(BF16)},
            "must not be narrower than float32",
        ),
        (
            dot_general_p,
            [((2, 3), F32), ((3, 2), F32)],
            {**MATMUL, "precision": "best"},
            "precision must be one of default, high, highest, not 'best'",
        ),
        (
            dot_general_p,
            [((2, 3), F32), ((3, 2), F32)],
            {"dimension_numbers": (((2,), (0,)), ((), ()))},
            "distinct and below 2",
        ),
    ],
)
def test_type_rules_refuse(primitive, operands, params, message):
    with pytest.raises(OperandError, match=message):
        primitive.abstract(*avals(*operands), **params)
