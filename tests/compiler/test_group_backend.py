"""Groups: kernels of several stages and results; each array crosses the bus once."""

import numpy as np
import pytest
import tilewright.lax as lax
import tilewright.numpy as tnp
from tilewright import sim

from tests.compiler.backend_case import BF16, CONFIGS, F32, array, assert_same_bits, compiled

RNG = np.random.default_rng(12)


def softmax(x):
    e = tnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - tnp.log(tnp.exp(x).sum(-1, keepdims=True))


def logsumexp(x):
    top = x.max(-1)
    return tnp.log(tnp.exp(x - top[..., None]).sum(-1)) + top


def layer_norm(x, g, b):
    d = x - x.mean(-1, keepdims=True)
    return d * lax.rsqrt((d * d).mean(-1, keepdims=True) + 1e-5) * g + b


def rms_norm(x, g, _):
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g


def root_of_squares(a, x, b):
    return tnp.sqrt(tnp.sum((a * x + b) ** 2, -1))


def adam(p, m, v, g):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return p - 0.001 * m / (tnp.sqrt(v) + 1e-8), m, v


def only(back):
    """The kernel of a program that has one."""
    (kernel,) = back.kernels.kernels
    return kernel


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(9, 23), (3, 2, 50), (1, 64)])
def test_groups_on_any_memory(shape, config, dtype):
    x, g, b = array(RNG, shape, dtype), *(array(RNG, shape[-1:], dtype) for _ in range(2))
    for f in (softmax, log_softmax, logsumexp):
        assert_same_bits(f, x, config=config)
    for f in (layer_norm, rms_norm):
        assert_same_bits(f, x, g, b, config=config)


@pytest.mark.parametrize("f", [softmax, log_softmax, logsumexp])
def test_groups_of_special_values(f):
    only(assert_same_bits(f, array(RNG, (13, 30), F32, True)))


def test_stages_and_what_they_share_print():
    x = array(RNG, (16, 64), F32)
    kernel = only(compiled(softmax, x))
    assert len(kernel.source.stages) == 3
    assert "r0 = reduce_max(in0); r1 = exp((in0 - r0)); r2 = reduce_sum" in str(kernel)


def test_rows_that_do_not_fit_are_kernels_of_their_own_and_say_so():
    x = array(RNG, (3, 900), F32)
    back = assert_same_bits(softmax, x, config="dim=2,spad_kib=4,acc_kib=2")
    assert len(back.kernels.kernels) > 1
    assert "3 rows of 900 do not fit the local memories" in str(back.kernels)


def test_results_that_share_operands_are_one_kernel():
    p, m, v, g = (array(RNG, (21, 30), F32) for _ in range(4))
    v = np.abs(v)
    for config in ("tw4", "tw16"):
        kernel = only(assert_same_bits(adam, p, m, v, g, config=config))
        assert len(kernel.outs) == 3
    f = lambda x: (x.mean(1), x - x.mean(1, keepdims=True), x.max(1), x * 2)  # noqa: E731
    assert_same_bits(f, p)
    assert_same_bits(lambda x: (x.sum(1), tnp.broadcast_to(x.sum(1)[:, None], x.shape)), p)


def test_values_of_groups_that_others_use():
    x, w = array(RNG, (12, 20), F32), array(RNG, (20, 9), F32)
    assert_same_bits(lambda x, w: softmax(softmax(x) @ w), x, w)
    assert_same_bits(lambda x, w: (y := softmax(x)) @ w + y.sum(1, keepdims=True), x, w)
    assert_same_bits(lambda x, w: softmax(x)[:, ::2] * 2 + x.max(1)[:, None], x, w)
    assert_same_bits(lambda x, w: softmax(x * w[:, 0] + w[0, 0]), x, w)
    assert_same_bits(lambda x, w: x * x.sum(1)[:, None] + x.sum(0), x, w)
    assert_same_bits(lambda x, w: x.sum(1) * w.sum(1)[:12] + x[:, 0], x, w)
    assert_same_bits(lambda x, w: softmax(x.reshape(2, 6, 20).transpose(0, 2, 1)), x, w)


@pytest.mark.parametrize("config", ["tw4", "tw16"])
def test_every_array_crosses_the_bus_once(config):
    """But for micro-kernels (each slot has its own), and what pieces of a row too long leave."""
    a, x, b = (array(RNG, (48, 64), F32) for _ in range(3))
    g = array(RNG, (64,), F32)
    cases = ((softmax, x), (layer_norm, x, g, g + 1), (root_of_squares, a, x, b),
             (lambda x, y, z: (x * 2 * y + z).sum(), a, x, b), (adam, a, x, b, x + 1))  # fmt: skip
    for f, *args in cases:
        back = compiled(f, *args, config=config)
        run = sim.run(back.program, sim.load_memory(back.program), engine="functional")
        bus, kernels = back.config.bus_bytes, back.kernels
        parts = sum(b.nbytes for k in kernels.kernels for b in k.outs if b.kind == "temp") // bus
        assert parts * 64 <= sum(a.nbytes for a in args)
        codes = sum(-(-b.nbytes // bus) for b in kernels.consts)
        read = sum(a.nbytes for a in args) // bus
        written = sum(-(-b.nbytes // bus) for b in kernels.outputs)
        assert read <= run.counters["beats_read"] <= read + 4 * codes + parts, f
        assert run.counters["beats_written"] == written + parts, f


def test_group_on_rtl_and_cycle_engine():
    x, g, b = array(RNG, (5, 13), F32), array(RNG, (13,), F32), array(RNG, (13,), F32)
    f = lambda x, g, b: (layer_norm(x, g, b), x.sum(0), x.argmax(1))  # noqa: E731
    back, results = compiled(f, x, g, b, config="tw4"), {}
    for engine in ("functional", "cycle", "rtl"):
        memory = sim.load_memory(back.program)
        for data, port in zip((x, g, b), back.program.inputs, strict=True):
            memory.write(port.addr, data.tobytes())
        result = sim.run(back.program, memory, engine=engine)
        assert result.fault is None, result.fault
        bytes_of = [bytes(memory.read(port.addr, buffer.nbytes))
                    for port, buffer in zip(back.program.outputs, back.kernels.outputs,
                                            strict=True)]  # fmt: skip
        results[engine] = bytes_of, result.cycles
    assert results["functional"][0] == results["cycle"][0] == results["rtl"][0]
    assert results["cycle"][1] == results["rtl"][1]


def test_reasons_for_kernels_of_their_own_print():
    x = array(RNG, (6, 8), F32)
    assert "equation 0 (reduce_sum) is a kernel of its own: it reduces rows below each other, " \
        "6 of 8 columns" in str(compiled(lambda x: x.sum(0) * 2, x).kernels)  # fmt: skip
    arrays = [array(RNG, (4, 9), F32) for _ in range(10)]

    def total(*arrays):
        y = arrays[0]
        for a in arrays[1:]:
            y = tnp.maximum(y * a, a)
        return y

    text = str(assert_same_bits(total, *arrays).kernels)
    assert "begins a kernel: with its operands' own there would be more than 8 arrays" in text


def test_row_operations_that_the_tail_has_no_words_for():
    x = array(RNG, (10, 4), BF16)
    for config in ("dim=32,spad_kib=64,acc_kib=32", "tw4"):
        assert_same_bits(lambda x: tnp.tanh(tnp.tanh(x.min(1))) * 2, x, config=config)


def test_one_row_value_of_two_shapes():
    x = array(RNG, (382,), F32)
    for config in ("dim=2,spad_kib=1,acc_kib=1", "tw4"):
        assert_same_bits(lambda x: (x.sum(), x.sum(keepdims=True), x.max()), x, config=config)


def test_a_number_of_each_row_that_must_be_copied_stays_one():
    """Rows that repeat the numbers of others, beside a reduction of rows."""

    def program(x, y):
        largest = (x * 2).max(-1)
        return tnp.where(tnp.broadcast_to(y, (6, 7)) > 0, largest, y)

    rng = np.random.default_rng(1)
    x, y = array(rng, (6, 7, 5), F32), array(rng, (6, 1), F32)
    assert_same_bits(program, x, y)
    assert_same_bits(lambda x, y: tnp.where(y > 0, tnp.moveaxis(x, 1, 2).max(-1), y), x, y)
