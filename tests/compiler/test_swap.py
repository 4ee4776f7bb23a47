"""Products as C^T = W^T A^T: the same bits, faster where the other operand should stand still."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright import lax
from tilewright.compiler.primitives_dot import PASSES
from tilewright.compiler.schedule import Schedule
from tilewright.sim.cycle import time_program

from tests.compiler.backend_case import BF16, F32, I8, U8, array, assert_same_bits, compiled

DIM = {"tw4": 4, "tw8": 8}
SHAPES = ((13, 18, 11), (3, 37, 40), (29, 50, 1), (1, 9, 5), (17, 1, 33))


def functions(kind):
    """No epilogue, scale and bias per column, requantised; an operand that is transposed."""

    def product(x, w):
        return tnp.matmul(x, w, preferred_element_type=kind)

    return {
        "plain": lambda x, w, b: product(x, w),
        "layer": lambda x, w, b: tnp.maximum(product(x, w).astype(F32) * b + b, 0),
        "narrow": lambda x, w, b: tnp.clip(
            tnp.round(product(x, w).astype(F32) * b), -128, 127
        ).astype(I8),
        "turned": lambda x, w, b: product(x, w.T),
    }


@pytest.mark.parametrize("config", DIM)
@pytest.mark.parametrize("dtype", [I8, U8, BF16, F32])
@pytest.mark.parametrize("what", functions(F32))
def test_swapped_product_keeps_bits(what, dtype, config):
    rng, d = np.random.default_rng(0), DIM[config]
    for m, k, n in SHAPES:
        x, w, b = array(rng, (m, k), dtype), array(rng, (k, n), dtype), array(rng, (n,), F32)
        w = np.ascontiguousarray(w.T) if what == "turned" else w
        function = functions(np.int32 if dtype.itemsize == 1 else F32)[what]
        tall = min(n, 2 * d)
        for schedule in (
            Schedule(tall, min(m, 3 * d), 4 * d, swap=True),
            Schedule(tall, min(m, d), 2 * d, "nm", head=min(n, 2), tail=tall, parts=4, swap=True),
            Schedule(min(n, d), min(m, 3 * d), d, ka=max(k, d), lead=1, swap=True),
        ):
            back = assert_same_bits(function, x, w, b, config=config, schedules={0: schedule})
            assert all(op.fields["xpose"] for op in back.tiles.ops if op.name == "store")


@pytest.mark.parametrize("precision", PASSES)
def test_swapped_batches_and_passes_keep_bits(precision):
    rng = np.random.default_rng(1)
    x, w = array(rng, (3, 13, 18), F32), array(rng, (3, 18, 7), F32)
    for schedule in (Schedule(4, 8, 8, swap=True), Schedule(7, 13, 18, swap=True)):
        assert_same_bits(
            lambda x, w: tnp.matmul(x, w, precision=precision), x, w, schedules={0: schedule}
        )
    assert_same_bits(
        lambda x, w: lax.dot(x, w, precision=precision), x[0], w[0],
        schedules={0: Schedule(4, 8, 8, swap=True)},
    )  # fmt: skip


def test_narrow_results_run_swapped_by_default():
    """N = 33 wastes a third of the array's columns; as rows it wastes nothing."""
    x, w = np.zeros((640, 160), I8), np.zeros((160, 33), I8)
    back = compiled(
        lambda x, w: tnp.matmul(x, w, preferred_element_type=np.int32), x, w, config="tw16"
    )
    assert back.tiles.schedules[0].count("swap")
    assert time_program(back.config, back.program.code).cycles < 10 * 3 * 640
