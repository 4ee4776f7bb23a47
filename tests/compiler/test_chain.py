"""A chain takes in exactly the steps whose bits STORE's epilogue keeps."""

import numpy as np
import pytest
from tilewright.compiler import core
from tilewright.compiler.chain import Chain
from tilewright.compiler.kernels import Buffer, Contract, Map, View

F32, BF16, I8, U8, I32, U32, BOOL = (
    *(core.float32, core.bfloat16, core.int8, core.uint8, core.int32, core.uint32, core.bool_),
)


def of(dtype):
    """A chain over a (3, 4) array."""
    x = View.whole(Buffer("x", (3, 4), np.dtype(dtype), "input"))
    return Chain.start(Map(x), (3, 4), np.dtype(dtype))


def product(dtype=I8):
    """A chain over a contraction."""
    a = View.whole(Buffer("a", (1, 3, 5), np.dtype(dtype), "input"))
    w = View.whole(Buffer("w", (1, 5, 4), np.dtype(dtype), "input"))
    return Chain.start(Contract(a, w), (3, 4), I32 if dtype == I8 else F32)


def test_chain_requantisation_is_one_epilogue():
    chain = product().add(5).convert(F32).scale(0.5).add(2.0).round().add(3.0)
    chain = chain.clamp(-128.0, 127.0).convert(I8)
    assert str(chain.epilogue) == "+ i32 5 * 0.5 + 2.0 clamp -131.0..124.0 + zp 3 -> i8"


def test_chain_scale_after_bias_ends_it():
    assert of(F32).add(1.0).scale(2.0) is None


def test_chain_sign_changes_merge_into_a_scale():
    assert of(F32).scale(0.25).scale(-1.0).epilogue.scale == -0.25


def test_chain_two_scales_would_round_once_too_few():
    assert of(F32).scale(0.3).scale(0.7) is None


@pytest.mark.parametrize("step", ["scale", "add"])
def test_chain_bfloat16_arithmetic_rounds_and_ends(step):
    rounded = getattr(of(BF16), step)(3.0)
    assert rounded.rounded == "bf16" and rounded.add(1.0) is None and rounded.clamp(0.0, None)


def test_chain_bfloat16_sign_change_is_exact():
    assert of(BF16).scale(-1.0).add(1.0).epilogue.scale == -1.0


def test_chain_zero_point_needs_a_value_that_is_no_nan():
    assert of(F32).round().add(3.0) is None
    assert product().convert(F32).scale(0.5).round().add(3.0).epilogue.zero_point == 3


def test_chain_zero_point_is_never_infinite():
    """int(inf) raised OverflowError."""
    assert product().convert(F32).round().add(float("inf")) is None


def test_chain_clamp_by_nan_is_not_taken():
    assert of(F32).clamp(float("nan"), None) is None


def test_chain_fractional_clamp_after_rounding_is_not_taken():
    assert of(F32).round().clamp(0.5, None) is None


def test_chain_clamps_merge_in_order():
    chain = of(F32).clamp(None, 1.0).clamp(2.0, None)
    assert (chain.epilogue.lo, chain.epilogue.hi) == (2.0, 2.0)


def test_chain_negative_zero_is_below_zero():
    assert np.signbit(of(F32).clamp(-0.0, None).clamp(None, -0.0).epilogue.hi)
    assert not np.signbit(of(F32).clamp(-0.0, None).clamp(0.0, None).epilogue.lo)


def test_chain_rounded_value_cannot_end():
    assert not of(F32).round().can_end and of(F32).round().convert(I32).can_end


@pytest.mark.parametrize("dtype, fits", [(I8, True), (U8, False)])
def test_chain_narrows_only_what_a_clamp_has_bounded(dtype, fits):
    assert of(I32).convert(dtype) is None
    assert (of(I32).clamp(-128, 127).convert(dtype) is not None) == fits


@pytest.mark.parametrize(
    "old, new",
    [(F32, I32), (BF16, I8), (U32, F32), (I8, U8), (I8, BOOL), (F32, BOOL), (F32, U32)],
)
def test_chain_conversion_that_the_hardware_lacks_is_not_taken(old, new):
    assert of(old).convert(new) is None


def test_chain_byte_arithmetic_wraps_so_it_is_not_taken():
    assert of(I8).add(1) is None and of(U8).add(1) is None
