"""STORE scales, adds and rounds what VECTOR normalises: same bits, fewer operations."""

import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright.compiler.kernels import Lanes

from tests.compiler.backend_case import BF16, CONFIGS, F32, array, assert_same_bits


def centred(x):
    m = x.mean(-1, keepdims=True)
    c = x - m
    return c * lax.rsqrt((c * c).mean(-1, keepdims=True) + 1e-5)


def operands(rows, cols, special=False):
    rng = np.random.default_rng(rows + cols)
    return [array(rng, s, F32, special) for s in ((rows, cols), (cols,), (cols,))]


def only(back):
    (kernel,) = back.kernels.kernels
    assert isinstance(kernel.source, Lanes)
    return kernel


@pytest.mark.parametrize("config", CONFIGS[:4])
@pytest.mark.parametrize("rows, cols", [(13, 9), (9, 70), (1, 40)])
def test_affine_end_of_a_normalisation_keeps_bits(config, rows, cols):
    x, g, b = operands(rows, cols)
    back = assert_same_bits(lambda x, g, b: centred(x) * g + b, x, g, b, config=config)
    vectors = [k.epilogue.vectors for k in back.kernels.kernels]
    assert rows == 1 or [len(v) for v in vectors if v] in ([2], [])
    assert_same_bits(lambda x, g, b: b + g * centred(x), x, g, b, config=config)


def test_affine_end_is_stores():
    x, g, b = operands(20, 300)
    for f, count in (
        (lambda x, g, b: centred(x) * g + b, 2),
        (lambda x, g, b: centred(x) * g, 1),
        (lambda x, g, b: centred(x) + b, 1),
        (lambda x, g, b: (centred(x) * g + b).astype(BF16), 2),
        (lambda x, g, b: centred(x) - b, 0),
        (lambda x, g, b: centred(x) * 2.0, 0),
        (lambda x, g, b: tnp.maximum(centred(x) * g + b, 0), 0),
    ):
        kernel = only(assert_same_bits(f, x, g, b, config="tw16"))
        assert len(kernel.epilogue.vectors) == count, kernel
        if count:
            assert len(kernel.source.views) == 1


def test_affine_end_of_special_values():
    x, g, b = operands(12, 33, special=True)
    assert_same_bits(lambda x, g, b: centred(x) * g + b, x, g, b, config="tw8")
    assert_same_bits(lambda x, g, b: (centred(x) * g + b).astype(BF16), x, g, b, config="tw8")


def test_affine_end_of_vectors_that_are_views():
    x, g, b = operands(12, 24)
    both = np.stack([g, b])
    kernel = only(assert_same_bits(lambda x, p: centred(x) * p[0] + p[1], x, both, config="tw8"))
    assert len(kernel.epilogue.vectors) == 2
    wide = np.stack([g, b], 1)  # columns: not beside each other
    assert_same_bits(lambda x, p: centred(x) * p[:, 0] + p[:, 1], x, wide, config="tw8")


def test_affine_end_feeds_a_contraction_in_its_type():
    x, g, b = operands(20, 48)
    w = array(np.random.default_rng(1), (48, 30), BF16)
    back = assert_same_bits(lambda x, g, b, w: (centred(x) * g + b) @ w, x, g, b, w, config="tw16")
    assert back.kernels.kernels[0].out.dtype == BF16
    assert len(back.kernels.kernels[0].epilogue.vectors) == 2


def test_tiles_share_what_all_rows_need():
    """Two slots where copies of it in each would leave one."""
    x, g, b = operands(32, 768)
    back = assert_same_bits(lambda x, g, b: centred(x) * g + b, x, g, b, config="tw16")
    assert "2 slots, what they share apart" in back.tiles.schedules[0]
