"""Fusion makes the kernels that it claims to make, and prints them."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright.compiler.kernels import Buffer, Contract, Map, Move, View, views_of

from tests.compiler.backend_case import BF16, F32, I8, I32, array, assert_same_bits, kernels_of


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def kinds(kernels):
    return [type(k.source) for k in kernels.kernels]


def test_fuse_dense_layer_prints_as_one_kernel():
    kernels = kernels_of(
        lambda x, w, b: tnp.maximum(x @ w + b, 0), zeros(3, 4), zeros(4, 5), zeros(5)
    )
    assert str(kernels) == (
        "inputs in0:f32[3,4], in1:f32[4,5], in2:f32[5]\n"
        "k0: out0:f32[3,5] = contract(in0[1:0,3:4,4:1], in1[1:0,4:5,5:1])"
        " + in2 clamp 0.0.. -> f32\n"
        "outputs out0"
    )


def test_fuse_views_print_shape_and_strides():
    kernels = kernels_of(lambda x: x[1:, ::2].T, zeros(4, 6))
    assert str(kernels).splitlines()[1:] == [
        "k0: out0:f32[3,3] = move(in0+6[3:2,3:6]) -> f32",
        "outputs out0",
    ]


def test_fuse_requantisation_is_one_kernel():
    def layer(x, w, b, s):
        y = tnp.matmul(x, w, preferred_element_type=np.int32) + b
        y = tnp.round(tnp.maximum(y.astype(np.float32) * s, 0))
        return tnp.clip(y, -128, 127).astype(np.int8)

    args = zeros(3, 4, dtype=I8), zeros(4, 5, dtype=I8), zeros(5, dtype=I32), zeros(5)
    assert kinds(kernels_of(layer, *args)) == [Contract]


def test_fuse_reshape_of_a_growing_chain_moves_nothing():
    kernels = kernels_of(lambda x, w: (x @ w).reshape((15,)) * 2.0, zeros(3, 4), zeros(4, 5))
    assert kinds(kernels) == [Contract]


def test_fuse_transposed_product_is_one_kernel():
    args = zeros(3, 4), zeros(4, 5), zeros(3)
    made = kernels_of(lambda x, w, b: tnp.maximum((2 * (x @ w)).T + b, 0), *args)
    assert kinds(made) == [Contract]
    made = kernels_of(lambda x, w, b: ((x @ w).T + b).T, *args)
    assert kinds(made) == [Contract, Move]  # b is a column's
    batch = zeros(2, 3, 4), zeros(2, 4, 5)
    assert kinds(kernels_of(lambda x, w: (x @ w).transpose(0, 2, 1), *batch)) == [Contract]
    assert kinds(kernels_of(lambda x, w: (x @ w).transpose(1, 0, 2), *batch)) == [Contract]
    made = kernels_of(lambda x, w: (x @ w).transpose(2, 0, 1), *batch)
    assert kinds(made) != [Contract]


@pytest.mark.parametrize("dtype", [I8, BF16, F32])
def test_fuse_transposed_product_keeps_its_bits(dtype):
    rng = np.random.default_rng(4)
    x, w = array(rng, (2, 7, 19), dtype, True), array(rng, (2, 19, 10), dtype, True)
    assert_same_bits(lambda x, w: (x @ w).transpose(0, 2, 1), x, w)
    assert_same_bits(lambda x, w: (x[0] @ w[1]).reshape((7, 2, 5)).transpose(1, 2, 0), x, w)


def test_fuse_float_between_contractions_is_stored_as_bfloat16():
    kernels = kernels_of(lambda x, w, v: (x @ w) @ v, zeros(3, 4), zeros(4, 5), zeros(5, 2))
    assert [k.out.dtype for k in kernels.kernels] == [BF16, F32]


def test_fuse_second_use_ends_a_kernel():
    kernels = kernels_of(lambda x, w: (x @ w, (x @ w) * 2.0), zeros(3, 4), zeros(4, 5))
    assert kinds(kernels) == [Contract, Map]


def test_fuse_temporary_that_is_a_result_needs_no_copy():
    kernels = kernels_of(lambda x, w: (x @ w).reshape((5, 3)), zeros(3, 4), zeros(4, 5))
    assert kinds(kernels) == [Contract] and kernels.outputs[0].shape == (5, 3)


def test_fuse_kernel_that_no_result_needs_is_dropped():
    """A vector was negated for an equation which the chain then did not take."""
    kernels = kernels_of(
        lambda x, v: (x.astype(np.float32) - v.astype(np.float32)) * 2.0 - v.astype(np.float32),
        zeros(3, 4, dtype=BF16), zeros(4, dtype=BF16),
    )  # fmt: skip
    read = {
        id(v.buffer) for k in kernels.kernels for v in k.epilogue.vectors if isinstance(v, View)
    }
    read |= {id(v.buffer) for k in kernels.kernels for v in views_of(k.source)}
    assert all(id(k.out) in read or k.out.kind == "output" for k in kernels.kernels)


def test_fuse_kernel_knows_its_equations_and_line():
    def layer(x, w):
        y = x @ w
        return tnp.maximum(y, 0)

    (kernel,) = kernels_of(layer, zeros(3, 4), zeros(4, 5)).kernels
    assert kernel.eqns == (0, 1)
    assert kernel.user.line == layer.__code__.co_firstlineno + 1


def test_fuse_copy_of_a_result_knows_its_equation():
    kernels = kernels_of(lambda x: x.T, zeros(3, 4))
    assert kinds(kernels) == [Move] and kernels.kernels[0].eqns == (0,)
    assert kernels.kernels[0].user.file == __file__


@pytest.mark.parametrize(
    "shape, strides, new, want",
    [
        ((4, 6), (6, 1), (24,), (1,)),
        ((4, 6), (6, 1), (2, 2, 3, 2), (12, 6, 2, 1)),
        ((4, 6), (1, 4), (24,), None),
        ((4, 1, 6), (6, 0, 1), (1, 24), (0, 1)),
        ((4, 6), (0, 1), (2, 2, 6), (0, 0, 1)),
        ((), (), (1, 1), (0, 0)),
    ],
)
def test_fuse_view_reshape_is_strides_or_a_copy(shape, strides, new, want):
    view = View(Buffer("x", (100,), F32, "input"), shape, strides).reshape(new)
    assert (view and view.strides) == want
