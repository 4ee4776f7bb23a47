"""Avals, jaxprs, the checker and the evaluator."""

import pickle

import numpy as np
import pytest
from tilewright.compiler.core import (
    Eqn,
    Jaxpr,
    Literal,
    Params,
    Primitive,
    ShapedArray,
    Var,
    check_jaxpr,
    eval_jaxpr,
    float32,
    int8,
    int32,
)
from tilewright.compiler.errors import DtypeError, JaxprError, OperandError
from tilewright.compiler.primitives import add_p, neg_p


def aval(*shape, dtype=float32):
    return ShapedArray(shape, dtype)


def program(*, out=None, uses=None, consts=()):
    """``c = add a b; d = neg c``, with parts replaced to make it wrong."""
    a, b, c = Var(aval(2)), Var(aval(2)), Var(aval(2))
    d = out or Var(aval(2))
    first = Eqn(add_p, (a, b), (c,))
    second = Eqn(neg_p, (uses or c,), (d,))
    constvars = [Var(aval(2)) for _ in consts]
    return Jaxpr((a, b), constvars, consts, (first, second), (d,))


def test_aval_prints_and_knows_its_size():
    a = ShapedArray((3, 4), "bfloat16", weak_type=True)
    assert (str(a), a.ndim, a.size, a.nbytes) == ("~bf16[3,4]", 2, 12, 24)
    assert str(a.update(weak_type=False, dtype=int8)) == "i8[3,4]"


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.int16])
def test_aval_refuses_other_dtypes(dtype):
    with pytest.raises(DtypeError, match=f"not {np.dtype(dtype)}"):
        ShapedArray((), dtype)


def test_aval_refuses_negative_dimensions():
    with pytest.raises(OperandError, match="at least 0"):
        ShapedArray((2, -1), float32)


def test_params_are_immutable_and_hashable():
    params = Params(a=(1, 2), b=None)
    with pytest.raises(TypeError, match="immutable"):
        params["a"] = 3
    assert hash(params) == hash(Params(b=None, a=(1, 2)))
    assert pickle.loads(pickle.dumps(params)) == params


def test_literal_is_a_read_only_scalar():
    literal = Literal(np.float32(2), aval())
    assert str(literal) == "2.0:f32[]"
    with pytest.raises(ValueError, match="read-only"):
        literal.value[...] = 3
    with pytest.raises(JaxprError, match="must be a scalar"):
        Literal(np.ones(2, np.float32), aval(2))


def test_a_rule_is_registered_once():
    primitive = Primitive("twice")
    primitive.rule("impl")(lambda x: x)
    with pytest.raises(ValueError, match="has a rule 'impl' already"):
        primitive.rule("impl")(lambda x: x)


def test_check_accepts_and_eval_runs():
    jaxpr = check_jaxpr(program())
    out = eval_jaxpr(jaxpr, [np.array([1, 2], np.float32), np.array([3, 5], np.float32)])
    assert out[0].tolist() == [-4, -7]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": Var(aval(3))}, r"neg must give f32\[2\], not f32\[3\]"),
        ({"out": Var(aval(2, dtype=int32))}, r"not i32\[2\]"),
        ({"uses": Var(aval(2))}, "used by neg before it is defined"),
        ({"consts": [np.zeros(3, np.float32)]}, r"a constant must be f32\[2\], not float32\(3,\)"),
    ],
)
def test_check_refuses(change, message):
    with pytest.raises(JaxprError, match=message):
        check_jaxpr(program(**change))


def test_check_refuses_double_definition():
    a, b = Var(aval(2)), Var(aval(2))
    eqn = Eqn(neg_p, (a,), (b,))
    with pytest.raises(JaxprError, match="defined twice"):
        check_jaxpr(Jaxpr((a,), (), (), (eqn, eqn), (b,)))


def test_eval_refuses_wrong_arguments():
    good = np.zeros(2, np.float32)
    with pytest.raises(OperandError, match="takes 2 arguments, not 1"):
        eval_jaxpr(program(), [good])
    with pytest.raises(OperandError, match=r"must be f32\[2\], not float64\(2,\)"):
        eval_jaxpr(program(), [good, np.zeros(2)])


def test_variable_names_after_z():
    a = Var(aval())
    eqns, last = [], a
    for _ in range(27):
        out = Var(aval())
        eqns.append(Eqn(neg_p, (last,), (out,)))
        last = out
    lines = str(Jaxpr((a,), (), (), eqns, (last,))).splitlines()
    assert lines[26] == "    ba:f32[] = neg z"
    assert lines[27:] == ["    bb:f32[] = neg ba", "  in (bb,) }"]
