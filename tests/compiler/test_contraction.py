"""`dot_general`, `tensordot`, `einsum` and relatives against JAX and NumPy, without the chip."""

import ml_dtypes
import numpy as np
import pytest
import tilewright.numpy as tnp
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright import lax
from tilewright.compiler import trace
from tilewright.compiler.core import eval_jaxpr
from tilewright.compiler.einsum import parse
from tilewright.compiler.errors import OperandError, UnsupportedError
from tilewright.compiler.trace import make_jaxpr

BF16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def jax():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        import jax

        yield jax


@pytest.fixture(autouse=True)
def without_the_chip(monkeypatch):
    monkeypatch.setattr(trace, "eager_hook", trace.eval_eagerly)
    monkeypatch.setattr(trace, "asarray_hook", trace.asarray_unchanged)


def run(function, *args):
    return eval_jaxpr(make_jaxpr(function)(*args), args, dim=4)[0]


def names(function, *args):
    return [eqn.primitive.name for eqn in make_jaxpr(function)(*args).eqns]


def whole(*shape, dtype=np.int32, seed=0):
    """Small integers: exact in every dtype, and so are their products and sums."""
    return np.random.default_rng(seed + sum(shape)).integers(-5, 6, shape).astype(dtype)


@st.composite
def contractions(draw):
    """Draw (lhs shape, rhs shape, dimension_numbers): any order of any kind of dimension."""
    sizes = [draw(st.lists(st.integers(1, 4), max_size=2)) for _ in range(4)]
    contracted, batch, free_l, free_r = sizes
    shapes, sides = [], []
    for free in (free_l, free_r):
        kinds = [*contracted, *batch, *free]
        order = draw(st.permutations(range(len(kinds))))
        shapes.append(tuple(kinds[i] for i in order))
        at = [order.index(i) for i in range(len(kinds))]
        n = len(contracted)
        sides.append((tuple(at[:n]), tuple(at[n : n + len(batch)])))
    (lc, lb), (rc, rb) = sides
    return *shapes, ((lc, rc), (lb, rb))


@given(case=contractions(), dtype=st.sampled_from([np.int8, np.int32]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_integer_dot_general_is_jaxs(jax, case, dtype):
    lhs, rhs, numbers = case
    rng, info = np.random.default_rng(0), np.iinfo(dtype)
    a, b = (rng.integers(info.min, info.max, s, dtype, endpoint=True) for s in (lhs, rhs))
    wide = jax.lax.dot_general(a.astype(np.int32), b.astype(np.int32), numbers)
    result = run(lambda a, b: lax.dot_general(a, b, numbers), a, b)
    assert result.shape == wide.shape
    assert result.tolist() == np.asarray(wide).astype(dtype).tolist()


@given(case=contractions(), dtype=st.sampled_from([np.dtype(np.float32), BF16]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_float_dot_general_is_near_jaxs(jax, case, dtype):
    lhs, rhs, numbers = case
    rng = np.random.default_rng(len(lhs))
    a, b = (rng.standard_normal(s).astype(dtype) for s in (lhs, rhs))

    def reference(x, y):
        x, y = x.astype(np.float32), y.astype(np.float32)
        return np.asarray(jax.lax.dot_general(x, y, numbers))

    result = run(lambda a, b: lax.dot_general(a, b, numbers), a, b)
    assert (result.shape, result.dtype) == (reference(a, b).shape, dtype)
    error = np.abs(result.astype(np.float32) - reference(a, b))
    assert (error <= 2**-7 * reference(np.abs(a), np.abs(b))).all()


@pytest.mark.parametrize("dtype", [np.float32, BF16, np.int8, np.int32])
@pytest.mark.parametrize(
    ("axes", "left", "right"),
    [
        (2, (2, 3, 4), (3, 4, 5)),
        (0, (2, 3), (4,)),
        (1, (3,), (3,)),
        ((0, 1), (3, 2), (4, 3)),
        (((0, -1), (2, 0)), (3, 2, 4), (4, 5, 3)),
        (([1], [0]), (2, 3), (3, 2)),
    ],
)
def test_tensordot_is_jaxs(jax, axes, left, right, dtype):
    a, b = whole(*left), whole(*right, seed=1)
    expected = np.tensordot(a, b, axes).astype(dtype)
    shape = jax.eval_shape(
        lambda a, b: jax.numpy.tensordot(a, b, axes), a.astype(dtype), b.astype(dtype)
    )
    result = run(lambda a, b: tnp.tensordot(a, b, axes), a.astype(dtype), b.astype(dtype))
    assert (result.shape, result.dtype) == (shape.shape, shape.dtype)
    assert result.tolist() == expected.tolist()
    assert names(lambda a, b: tnp.tensordot(a, b, axes), a, b) == ["dot_general"]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (3, "axes must be at most the ranks 2 and 2, not 3"),
        (-1, "not -1"),
        (((0, 1), (0,)), "as many of each array"),
        ("ab", "must be an int, two ints or two sequences"),
        ((0, 2), r"axis must be in \[-2, 2\)"),
    ],
)
def test_tensordot_refuses(axes, message):
    with pytest.raises(OperandError, match=f"{message}.*test_contraction.py"):
        make_jaxpr(lambda a: tnp.tensordot(a, a, axes))(whole(3, 3))


SHAPES = {"i": 2, "j": 3, "k": 4, "l": 5, "b": 2, "h": 3}


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
@pytest.mark.parametrize(
    "subscripts",
    [
        "ij,jk->ik",
        "ij,jk",
        "ij,jk->ki",
        "ji,kj->ik",
        "bij,bjk->bik",
        "bihk,bjhk->bhij",
        "bhij,bjhk->bihk",
        "ijk,jil->kl",
        "i,i",
        "i,j->ji",
        "ij,ij->ij",
        "ij,j->ij",
        "bi,bj->bji",
        "bi,bj->jib",
        "ij,ij->i",
        "ij,i->",
        "ij,k->ik",
        "ij,kl->",
        "ij,ij,ij->j",
        "ij,jk,kl->il",
        "ij,jk,kl,lb->bi",
        "i,ij,j->",
        "bi,ij,bj->b",
        "iij,jk->ik",
        "ii->i",
        "iji->ij",
        "iii->i",
        "ij->ji",
        "ba",
        "iij,jkk->ik",
        " i j , j k -> i k ",
        ",ij->ji",
    ],
)
def test_einsum_is_numpys(subscripts, dtype):
    sizes = {**SHAPES, "a": 4}
    terms = subscripts.replace(" ", "").partition("->")[0].split(",")
    args = [
        np.asarray(whole(*(sizes[c] for c in term), seed=i)).astype(dtype)
        for i, term in enumerate(terms)
    ]
    expected = np.einsum(subscripts, *args)
    result = run(lambda *args: tnp.einsum(subscripts, *args), *args)
    assert (result.shape, result.dtype) == (expected.shape, dtype)
    assert result.tolist() == expected.tolist()
    assert tnp.einsum(subscripts, *args).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "optimize", [True, False, "greedy", "optimal", [(0, 2), (0, 1)], [(0, 1, 2)]]
)
def test_einsum_takes_any_path(optimize):
    args = whole(2, 3), whole(3, 4), whole(4, 5)
    result = run(lambda *args: tnp.einsum("ij,jk,kl->li", *args, optimize=optimize), *args)
    assert result.tolist() == (args[0] @ args[1] @ args[2]).T.tolist()


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("...ij,...jk->...ik", ((2, 1, 3, 4), (5, 4, 2))),
        ("...i,i->...", ((2, 3, 4), (4,))),
        ("i...,...j", ((4, 2, 3), (3, 5))),
        ("ij...,j->...i", ((2, 3, 4), (3,))),
        ("ij,jk", ((1, 3), (3, 1))),
        ("ij,jk->ik", ((2, 1), (3, 4))),
        ("bij,bjk->bik", ((1, 2, 3), (5, 3, 4))),
        ("ij,jk->ik", ((2, 0), (0, 4))),
    ],
)
def test_einsum_broadcasts(subscripts, shapes):
    args = [whole(*shape, seed=i) for i, shape in enumerate(shapes)]
    result = run(lambda *args: tnp.einsum(subscripts, *args), *args)
    assert result.tolist() == np.einsum(subscripts, *args).tolist()


def test_einsum_of_axis_lists():
    a, b = whole(2, 3, 4), whole(4, 3)
    result = run(lambda a, b: tnp.einsum(a, [9, 0, 1], b, [1, 0], [9]), a, b)
    assert result.tolist() == np.einsum("abc,cb->a", a, b).tolist()
    result = run(lambda a, b: tnp.einsum(a, [..., 1], b, [1, 0]), a, b)
    assert result.tolist() == np.einsum("...c,cb", a, b).tolist()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, BF16])
@pytest.mark.parametrize("subscripts", ["ij->i", "ij->j", "ij->", "ii", "iij->j"])
def test_einsum_sums_one_operand(subscripts, dtype):
    rank = len(subscripts.partition("->")[0])
    x = whole(*[3] * rank)
    result = run(lambda x: tnp.einsum(subscripts, x), x.astype(dtype))
    assert result.dtype == dtype
    assert result.tolist() == np.einsum(subscripts, x).tolist()


def test_einsum_refuses_to_round_a_float32_sum():
    with pytest.raises(UnsupportedError, match=r"sum of one float32 operand over j.*test_contr"):
        make_jaxpr(lambda x: tnp.einsum("ij->i", x))(np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("subscripts", "shapes", "message"),
    [
        ("ij,jk", ((2, 3),), "must name 1 operands, not 2"),
        ("ij", ((2, 3, 4),), "does not name the 3 dimensions"),
        ("i$", ((2, 3),), "does not name the 2 dimensions"),
        ("ij,jk->ik", ((2, 3), (4, 5)), "'j' has sizes 3 and 4"),
        ("ii->i", ((1, 3),), "'i' has sizes 1 and 3 in one operand"),
        ("ij->ii", ((2, 3),), "letters of the operands once each"),
        ("ij->ik", ((2, 3),), "letters of the operands once each"),
        ("...i->i", ((2, 3),), "must have an ellipsis"),
    ],
)
def test_einsum_refuses(subscripts, shapes, message):
    with pytest.raises(OperandError, match=f"{message}.*test_contraction.py"):
        make_jaxpr(lambda *args: tnp.einsum(subscripts, *args))(*(whole(*s) for s in shapes))


def test_einsum_refuses_paths_and_out():
    a = whole(2, 2)
    with pytest.raises(UnsupportedError, match="optimize must be"):
        tnp.einsum("ij,jk", a, a, optimize="dp")
    with pytest.raises(OperandError, match="contract 3 operands to one"):
        tnp.einsum("ij,jk,kl", a, a, a, optimize=[(0, 1)])
    with pytest.raises(OperandError, match="contract 2 operands to one"):
        tnp.einsum("ij,jk", a, a, optimize=[(0, 2)])
    with pytest.raises(UnsupportedError, match="out must be None"):
        tnp.einsum("ij,jk", a, a, out=a)


def test_einsum_parses_ellipses():
    assert parse("...i,i...j->...j", [3, 4]) == (["abi", "iabj"], "abj")
    assert parse("...b,...", [2, 2]) == (["cb", "ac"], "acb")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a, b: tnp.einsum("bihk,bjhk->bhij", a, b), ["dot_general"]),
        (lambda a, b: tnp.einsum("bihk,bjhk->bhji", a, b), ["dot_general"]),
        (lambda a, b: tnp.einsum("bihk,bjhk->ijbh", a, b), ["dot_general", "transpose"]),
        (lambda a, b: tnp.einsum("bihk,bihk->bihk", a, b), ["mul"]),
        (lambda a, b: tnp.einsum("bihk,bjlm->bihkjlm", a, b), ["dot_general"]),
        (lambda a, b: tnp.einsum("bihk,bjlm->bjlmihk", a, b), ["dot_general"]),
        (lambda a, b: tnp.inner(a, b), ["dot_general"]),
        (lambda a, b: tnp.vdot(a, b), ["reshape", "reshape", "dot_general"]),
    ],
)
def test_equations(function, expected):
    assert names(function, whole(2, 3, 2, 4), whole(2, 3, 2, 4)) == expected


def test_einsum_accumulates_bytes_in_int32():
    a = np.full((2, 40), 100, np.int8)
    b = np.full((40, 2), 200, np.uint8)
    result = run(lambda a, b: tnp.einsum("ij,jk->ik", a, b, preferred_element_type=np.int32), a, b)
    assert result.tolist() == [[800_000] * 2] * 2


def test_einsum_promotes():
    a, b = whole(2, 3, dtype=BF16), whole(3, 4, dtype=np.float32)
    assert run(lambda a, b: tnp.einsum("ij,jk", a, b), a, b).dtype == np.float32
    assert run(lambda a: tnp.einsum("ij,", a, 2), a).dtype == BF16


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (tnp.inner, np.inner),
        (lambda a, b: tnp.inner(a, 3), lambda a, b: np.inner(a, 3)),
        (lambda a, b: tnp.inner(a[0], b), lambda a, b: np.inner(a[0], b)),
        (tnp.outer, np.outer),
        (lambda a, b: tnp.outer(a, 2), lambda a, b: np.outer(a, 2)),
        (tnp.vdot, np.vdot),
    ],
)
def test_products_are_numpys(ours, numpys):
    a, b = whole(2, 3), whole(2, 3, seed=1)
    expected = np.asarray(numpys(a, b))
    result = run(ours, a, b)
    assert result.shape == expected.shape
    assert result.tolist() == expected.tolist()
    assert np.asarray(ours(a, b)).tolist() == expected.tolist()


def test_outer_of_float32_is_exact():
    a = np.float32([1 + 2**-12])
    assert run(tnp.outer, a, np.float32([1])).item() == a.item()


def test_products_refuse():
    a = whole(2, 3)
    with pytest.raises(UnsupportedError, match="out must be None"):
        tnp.outer(a, a, a)
    with pytest.raises(OperandError, match="sizes, not"):
        tnp.inner(a, whole(2, 2))


def test_a_pair_of_precisions_must_agree():
    a = whole(2, 2, dtype=np.float32)
    pair = (lax.Precision.DEFAULT, lax.Precision.DEFAULT)
    assert run(lambda a: lax.dot(a, a, precision=pair), a).tolist() == (a @ a).tolist()
    with pytest.raises(OperandError, match="precision must be one of"):
        lax.dot(a, a, precision=("default", "high"))
