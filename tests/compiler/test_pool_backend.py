"""Windowed maxima on the chip leave the bits of eval_jaxpr, or are refused by name."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.errors import UnsupportedError
from tilewright.compiler.kernels import Axis, Pool
from tilewright.compiler.primitives_pad import max_identity
from tilewright.compiler.tile_pool import Run, runs

from tests.compiler.backend_case import (
    BF16,
    BOOL,
    F32,
    I8,
    I32,
    LEAST,
    U8,
    U32,
    array,
    assert_same_bits,
    compiled,
)


def pool(x, window, strides, padding="VALID", base_dilation=None, window_dilation=None):
    identity = max_identity(np.dtype(x.dtype))
    return lax.reduce_window(x, identity, lax.max, window, strides, padding, base_dilation,
                             window_dilation)  # fmt: skip


def test_runs_split_at_the_edges():
    axis = Axis(size=7, taps=3, out=4, stride=2, pad=1)
    assert runs(axis, 0, 4) == [Run(0, 1, 0, 2), Run(1, 2, 1, 3), Run(3, 1, 5, 2)]
    assert runs(axis, 1, 3) == [Run(1, 2, 1, 3)]


@pytest.mark.parametrize("config", ["tw4", "tw16", LEAST])
@pytest.mark.parametrize("dtype", [I8, U8, BOOL, BF16, F32, I32])
def test_windows(dtype, config):
    rng = np.random.default_rng(1)
    for shape, window, strides, padding in [
        ((2, 9, 7, 5), (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
        ((1, 8, 9, 20), (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
        ((2, 3, 6, 5), (1, 1, 3, 2), (1, 1, 1, 2), "SAME"),  # NCHW
        ((11, 6), (4, 1), (1, 1), "VALID"),
        ((5, 6), (2, 3), (1, 1), "SAME"),  # every dimension has windows
        ((1, 6, 7, 3), (1, 3, 2, 1), (1, 1, 3, 1), ((0, 0), (4, -1), (1, 2), (0, 0))),
        ((9,), (3,), (2,), ((3, 5),)),
        ((4, 5), (1, 1), (1, 1), "VALID"),
    ]:
        x = array(rng, shape, dtype, True)
        back = assert_same_bits(
            lambda x, a=(window, strides, padding): pool(x, *a), x, config=config
        )
        assert any(isinstance(k.source, Pool) for k in back.kernels.kernels)


def test_gaps_are_padding():
    x = array(np.random.default_rng(2), (1, 5, 6, 4), F32, True)
    assert_same_bits(lambda x: pool(x, (1, 2, 2, 1), (1, 1, 1, 1), "SAME", (1, 2, 3, 1)), x)


@pytest.mark.parametrize("config", ["tw4", "tw16", "dim=2,spad_kib=2,acc_kib=1"])
@pytest.mark.parametrize(
    "windows", [((1, 3, 3, 1), (1, 2, 2, 1), "SAME"), ((1, 2, 3, 1), (1, 1, 2, 1), "VALID")]
)
def test_pool_behind_a_convolution_is_its_epilogue(windows, config):
    rng = np.random.default_rng(3)
    x, w = array(rng, (2, 9, 11, 3), I8), array(rng, (3, 3, 3, 10), I8)
    s = rng.uniform(1e-4, 1e-2, 10).astype(F32)

    def network(x, w, s):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers,
                                     preferred_element_type=np.int32)  # fmt: skip
        y = tnp.clip(tnp.round(y.astype(np.float32) * s), 0, 127).astype(np.int8)
        return pool(y, *windows)

    back = assert_same_bits(network, x, w, s, config=config)
    assert back.kernels.kernels[-1].epilogue.pool
    assert not any(isinstance(k.source, Pool) for k in back.kernels.kernels)


def test_pool_of_floats_in_one_dimension_and_with_another_use():
    rng = np.random.default_rng(4)
    x, w = array(rng, (2, 23, 5), F32, True), array(rng, (3, 5, 7), F32)

    def network(x, w):
        y = lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return pool(y, (1, 4, 1), (1, 3, 1), "SAME")

    back = assert_same_bits(network, x, w)
    assert [bool(k.epilogue.pool) for k in back.kernels.kernels][-1]

    def both(x, w):
        y = lax.conv_general_dilated(x, w, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return y, pool(y, (1, 4, 1), (1, 3, 1), "SAME")

    assert_same_bits(both, x, w)


@pytest.mark.parametrize(
    ("dtype", "change", "message"),
    [
        (U32, {}, "STORE compares 32-bit integers as int32"),
        (I8, {"window": (2, 2, 2)}, "at most two dimensions may have windows, not 3"),
        (I8, {"window": (16, 1, 1)}, "windows and strides must be at most 15, not 16 and 1 in "),
        (I8, {"window_dilation": (2, 1, 1)}, "window_dilation must be 1, not 2 in dimension 0"),
    ],
)
def test_refused(dtype, change, message):
    x = np.zeros((20, 4, 4), dtype)
    params = {"window": (2, 1, 1), "strides": (1, 1, 1)} | change
    with pytest.raises(UnsupportedError, match=f"reduce_window_max .*test_pool.*{message}"):
        compiled(lambda x: pool(x, **params), x)
