"""Promotion against JAX's own results."""

import ml_dtypes
import numpy as np
import pytest
from tilewright.compiler.core import ShapedArray
from tilewright.compiler.errors import DtypeError, OperandError
from tilewright.compiler.promote import (
    broadcast_shapes,
    canonical_dtype,
    promote_types,
    scalar_value,
)

# jax 0.10.2 without x64: `jax.eval_shape(jnp.maximum, x, y)`; ~ is weak_type=True, and ~i32 and
# ~f32 are also what Python's int and float are. JAX's i16 does not exist on the chip: an error.
JAX_TABLE = """
       bool  u8    u32   i8    i32   bf16  f32   ~i32  ~f32
bool   bool  u8    u32   i8    i32   bf16  f32   ~i32  ~f32
u8     u8    u8    u32   i16   i32   bf16  f32   u8    ~f32
u32    u32   u32   u32   i32   i32   bf16  f32   u32   ~f32
i8     i8    i16   i32   i8    i32   bf16  f32   i8    ~f32
i32    i32   i32   i32   i32   i32   bf16  f32   i32   ~f32
bf16   bf16  bf16  bf16  bf16  bf16  bf16  f32   bf16  bf16
f32    f32   f32   f32   f32   f32   f32   f32   f32   f32
~i32   ~i32  u8    u32   i8    i32   bf16  f32   ~i32  ~f32
~f32   ~f32  ~f32  ~f32  ~f32  ~f32  bf16  f32   ~f32  ~f32
"""
DTYPES = {
    "bool": np.bool_,
    "u8": np.uint8,
    "u32": np.uint32,
    "i8": np.int8,
    "i32": np.int32,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
}


def aval(name):
    return ShapedArray((), DTYPES[name.lstrip("~")], name.startswith("~"))


def pairs():
    lines = [line.split() for line in JAX_TABLE.strip().splitlines()]
    for left, *results in lines[1:]:
        for right, result in zip(lines[0], results, strict=True):
            yield left, right, result


@pytest.mark.parametrize(("left", "right", "result"), list(pairs()))
def test_promotion_is_jax(left, right, result):
    if result == "i16":
        with pytest.raises(DtypeError, match="promote to int16, which the chip does not have"):
            promote_types(aval(left), aval(right))
        return
    dtype, weak = promote_types(aval(left), aval(right))
    assert (dtype, weak) == (np.dtype(DTYPES[result.lstrip("~")]), result.startswith("~"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int64, np.int32),
        (np.uint64, np.uint32),
        (float, np.float32),
        ("bfloat16", ml_dtypes.bfloat16),
        (bool, np.bool_),
    ],
)
def test_canonical_dtype_narrows(given, expected):
    assert canonical_dtype(given) == np.dtype(expected)


@pytest.mark.parametrize("given", [np.float16, np.int16, np.uint16, np.complex64, "U4", object])
def test_canonical_dtype_refuses_by_name(given):
    with pytest.raises(DtypeError, match=str(np.dtype(given)).replace("<", ".")):
        canonical_dtype(given)


def test_canonical_dtype_refuses_what_is_no_dtype():
    with pytest.raises(DtypeError, match="must name a dtype, not 'flaot32'"):
        canonical_dtype("flaot32")


def test_scalar_value_refuses_overflow():
    with pytest.raises(OverflowError, match="300 does not fit int8"):
        scalar_value(300, np.dtype(np.int8))


def test_broadcast_shapes_names_both():
    assert broadcast_shapes((3, 1), (4,)) == (3, 4)
    with pytest.raises(OperandError, match=r"\(3,\) and \(4,\) do not broadcast"):
        broadcast_shapes((3,), (4,))
