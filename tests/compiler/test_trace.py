"""Tracing: golden jaxprs, source lines, and every error that a user meets."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright.compiler import trace, tree
from tilewright.compiler.batching import BatchTracer
from tilewright.compiler.core import ShapedArray, eval_jaxpr
from tilewright.compiler.errors import (
    ConcretizationError,
    DtypeError,
    LeakedTracerError,
    OperandError,
    UnsupportedError,
)
from tilewright.compiler.forward import JVPTracer
from tilewright.compiler.operators import ArrayOperators
from tilewright.compiler.printer import jaxpr_text
from tilewright.compiler.trace import RecordedTracer, make_jaxpr, trace_to_jaxpr


def f32(*shape):
    return ShapedArray(shape, np.float32)


def i8(*shape):
    return ShapedArray(shape, np.int8)


def test_golden_dense_layer():
    def dense(x, w, b):
        return tnp.maximum(x @ w + b, 0)

    assert str(make_jaxpr(dense)(f32(2, 3), f32(3, 4), f32(4))) == (
        """\
{ lambda ; a:f32[2,3] b:f32[3,4] c:f32[4]. let
    d:f32[2,4] = dot_general[dimension_numbers=(((1,),(0,)),((),())) precision=default] a b
    e:f32[2,4] = broadcast_in_dim[broadcast_dimensions=(1,) shape=(2,4)] c
    f:f32[2,4] = add d e
    g:f32[2,4] = max f 0.0:f32[]
  in (g,) }"""
    )


def test_golden_one_equation():
    text = str(make_jaxpr(lambda x: x + 1)(ShapedArray((3,), "bfloat16")))
    assert text == "{ lambda ; a:bf16[3]. let b:bf16[3] = add a 1.0:bf16[] in (b,) }"


def test_golden_weak_types():
    assert str(make_jaxpr(lambda x, y: x + y)(1.0, 2)) == (
        """\
{ lambda ; a:~f32[] b:~i32[]. let
    c:~f32[] = convert_element_type[new_dtype=f32 weak_type=True] b
    d:~f32[] = add a c
  in (d,) }"""
    )


def test_golden_constants_are_captured_once():
    c = np.arange(3, dtype=np.int64)
    jaxpr = make_jaxpr(lambda x: (x + c) * c)(ShapedArray((3,), np.int32))
    assert str(jaxpr) == (
        """\
{ lambda a:i32[3]; b:i32[3]. let
    c:i32[3] = add b a
    d:i32[3] = mul c a
  in (d,) }"""
    )


def test_golden_indexing():
    assert str(make_jaxpr(lambda x: x[1, None, ..., ::2].T)(i8(2, 3, 5))) == (
        """\
{ lambda ; a:i8[2,3,5]. let
    b:i8[1,3,3] = slice[limit_indices=(2,3,5) start_indices=(1,0,0) strides=(1,1,2)] a
    c:i8[3,3,1] = transpose[permutation=(2,1,0)] b
  in (c,) }"""
    )


def test_captured_array_is_a_copy():
    c = np.ones(2, np.float32)
    jaxpr = make_jaxpr(lambda x: x + c)(f32(2))
    c[:] = 100
    assert eval_jaxpr(jaxpr, [np.zeros(2, np.float32)])[0].tolist() == [1, 1]


def test_captured_device_array_stays_itself():
    class DeviceArray:
        shape, dtype = (2,), np.dtype(np.float32)

        def __array__(self, dtype=None, copy=None):
            return np.array([3, 4], np.float32)

    c = DeviceArray()
    jaxpr = make_jaxpr(lambda x: tnp.add(x, c))(f32(2))
    assert jaxpr.consts == (c,)
    assert eval_jaxpr(jaxpr, [np.ones(2, np.float32)])[0].tolist() == [4, 5]


def test_numpy_operand_on_the_left():
    jaxpr = make_jaxpr(lambda x: np.ones((2, 2), np.float32) @ x - np.float32(1))(f32(2, 2))
    assert [e.primitive.name for e in jaxpr.eqns] == ["dot_general", "sub"]


def test_pytrees_in_and_out():
    args = ({"w": f32(2, 3), "b": f32(3)}, f32(2))
    leaves, in_tree = tree.flatten((args, {}))

    def apply(params, x):
        return {"y": x @ params["w"] + params["b"], "x": (x, None)}

    jaxpr, out_tree = trace_to_jaxpr(apply, leaves, in_tree)
    assert out_tree == tree.structure({"x": (0, None), "y": 0})
    assert [str(a) for a in jaxpr.in_avals] == ["f32[3]", "f32[2,3]", "f32[2]"]
    assert [str(a) for a in jaxpr.out_avals] == ["f32[2]", "f32[3]"]


def test_equations_carry_the_users_line():
    def user_function(x):
        return tnp.clip(x, -1, 1)

    jaxpr = make_jaxpr(user_function)(f32(2))
    line = user_function.__code__.co_firstlineno + 1
    for eqn in jaxpr.eqns:
        assert eqn.source.file == __file__
        assert eqn.source.line == line
        assert eqn.source.function.endswith("user_function")
    assert f"# {__file__}:{line} in " in jaxpr_text(jaxpr, source=True)


def test_module_that_plays_the_user(monkeypatch):
    scope = {"__name__": "tilewright.fake_demo", "__tilewright_user_code__": True}
    exec("def f(x):\n    return x + x", scope)
    assert make_jaxpr(scope["f"])(f32(2)).eqns[0].source.function == "f"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x else 1, "a truth value"),
        (lambda x: float(x), r"float\(\)"),
        (lambda x: int(x), r"int\(\)"),
        (lambda x: list(range(x)), "a shape, an index or range"),
        (lambda x: np.maximum(x, 0), "function of the same name in tilewright.numpy"),
        (lambda x: 0 < x < 1, "a truth value"),
    ],
)
def test_concretization_names_type_and_line(function, message):
    with pytest.raises(ConcretizationError, match=message) as caught:
        make_jaxpr(function)(f32())
    assert "Tracer<" in str(caught.value)
    assert f"{__file__}:{function.__code__.co_firstlineno}" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x @ x, OperandError, r"matmul\(f32\[2,3\], f32\[2,3\]\).*not 3 and 2"),
        (lambda x: x + x.T, OperandError, r"add\(f32\[2,3\], f32\[3,2\]\): shapes .* do not"),
        (lambda x: x.reshape(4, -1), OperandError, r"reshape\(f32\[2,3\]\): no size fits -1"),
        (lambda x: x.reshape(7), OperandError, r"reshape\(f32\[2,3\]\): .* 6 elements"),
        (lambda x: x.astype(np.float16), DtypeError, "float16: the chip does not have it"),
        (lambda x: x.cumulate(), UnsupportedError, r"has no \.cumulate"),
        (lambda x: tnp.fft(x), UnsupportedError, "tilewright.numpy has no 'fft'"),
        (lambda x: x + "a", TypeError, "unsupported operand"),
        (lambda x: tnp.add(x, "a"), OperandError, "add takes arrays and numbers, not str"),
        (lambda x: x[2], IndexError, "index 2 is out of bounds for axis 0 of size 2"),
        (lambda x: x[0, 0, 0], IndexError, "3 indices for an array of rank 2"),
        (lambda x: x[x], UnsupportedError, "an index must be an int"),
        (lambda x: x.transpose(0, 0), OperandError, "axes must be distinct"),
        (lambda x: tnp.squeeze(x, 0), OperandError, "must have size 1"),
        (lambda x: tnp.dot(x.astype("int8"), x.astype("uint8").T), DtypeError, "int16"),
        (lambda x: tnp.subtract(x > 0, x > 1), DtypeError, "two bools"),
        (lambda x: tnp.add(x.astype("int8"), 300), OverflowError, "300 does not fit int8"),
    ],
)
def test_errors_name_operation_types_and_line(function, error, message):
    with pytest.raises(error, match=message) as caught:
        make_jaxpr(function)(f32(2, 3))
    if error is not TypeError:
        assert f"{__file__}:{function.__code__.co_firstlineno}" in str(caught.value)


def test_missing_method_is_an_attribute_error_but_unsupported_is_not():
    make_jaxpr(lambda x: x if not hasattr(x, "sum") else x.sum())(f32(2))
    with pytest.raises(UnsupportedError) as caught:
        make_jaxpr(lambda x: x[x])(f32(2))
    assert not isinstance(caught.value, AttributeError)  # else a property would hide it


def test_assignment_is_refused():
    def assign(x):
        x[0] = 1

    with pytest.raises(UnsupportedError, match="immutable"):
        make_jaxpr(assign)(f32(2))


def test_result_that_is_no_array_is_named():
    with pytest.raises(DtypeError, match=r"result\['y'\]\[1\] of <lambda> is not an array"):
        make_jaxpr(lambda x: {"y": (x, "no")})(f32(2))


def test_leaked_tracer_is_found():
    kept = []
    make_jaxpr(lambda x: kept.append(x) or x)(f32(2))
    with pytest.raises(LeakedTracerError, match="whose tracing has ended"):
        make_jaxpr(lambda x: x + kept[0])(f32(2))
    with pytest.raises(LeakedTracerError, match="whose tracing has ended"):
        tnp.add(kept[0], 1)


def test_tracer_of_an_enclosing_trace_is_a_constant():
    inner = []
    outer = make_jaxpr(lambda x: inner.append(make_jaxpr(lambda y: y + x)(f32(2))) or x * 2)(f32(2))
    (jaxpr,) = inner
    assert [e.primitive.name for e in jaxpr.eqns] == ["add"]
    assert isinstance(jaxpr.consts[0], trace.Tracer)
    assert [e.primitive.name for e in outer.eqns] == ["mul"]


def test_a_failed_trace_leaves_no_trace_active():
    with pytest.raises(UnsupportedError):
        make_jaxpr(lambda x: x.cumulate())(f32(2))
    assert trace.current_trace() is None


def test_eager_hook_gets_concrete_operations(monkeypatch):
    calls = []

    def hook(primitive, args, params):
        calls.append((primitive.name, [str(trace.aval_of(a)) for a in args]))
        return trace.eval_eagerly(primitive, args, params)

    monkeypatch.setattr(trace, "eager_hook", hook)
    assert tnp.add(np.ones(2, np.int8), 1).tolist() == [2, 2]
    assert calls == [("add", ["i8[2]", "i8[]"])]


def test_tracers_are_unhashable_and_iterable():
    def unpack(x):
        with pytest.raises(TypeError, match="unhashable"):
            hash(x)
        a, b = x
        return a + b, len(x), x.ndim, x.size

    jaxpr = make_jaxpr(unpack)(i8(2, 3))
    assert [str(a) for a in jaxpr.out_avals] == ["i8[3]", "~i32[]", "~i32[]", "~i32[]"]


def test_methods_of_arrays_work_in_a_trace():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    program = make_jaxpr(lambda x: (x.var(0), x.std(1), x.mean(0)))(f32(3, 4))
    for found, want in zip(eval_jaxpr(program, [x]), (x.var(0), x.std(1), x.mean(0)), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-6)


@pytest.mark.parametrize("tracer", [RecordedTracer, BatchTracer, JVPTracer])
def test_no_slot_of_a_tracer_hides_a_method_of_arrays(tracer):
    slots = {name for cls in tracer.__mro__ for name in getattr(cls, "__slots__", ())}
    assert not slots & {*dir(np.ndarray), *dir(ArrayOperators)} - set(dir(object))
