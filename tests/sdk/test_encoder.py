"""An encoder layer in plain NumPy code: near float64, and near the array's own time."""

from math import pi, sqrt

import numpy as np
import pytest
import tilewright as tw
from tilewright import sim
from tilewright.bench_fused import Encoder
from tilewright.compiler.kernels import Contract, Lanes

TINY = Encoder(sequence=12, hidden=16, heads=2, forward=24)


def arguments(layer, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((layer.sequence, layer.hidden)).astype(np.float32)
    return x, *layer.parameters(rng)


def normalised(x, g, b):
    c = x - x.mean(-1, keepdims=True)
    return c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) * g + b


def reference(layer, *arrays):
    """The same layer in float64."""
    x, wq, bq, wk, bk, wv, bv, wo, bo, g1, b1, wi, bi, wp, bp, g2, b2 = (
        a.astype(np.float64) for a in arrays
    )
    q, k, v = (layer.split(x @ w + b) for w, b in ((wq, bq), (wk, bk), (wv, bv)))
    e = np.exp(q @ k.transpose(0, 2, 1) / sqrt(layer.hidden // layer.heads))
    mixed = (e / e.sum(-1, keepdims=True)) @ v
    y = normalised(x + mixed.transpose(1, 0, 2).reshape(x.shape) @ wo + bo, g1, b1)
    f = y @ wi + bi
    f = 0.5 * f * (1 + np.tanh(sqrt(2 / pi) * (f + 0.044715 * f**3)))
    return normalised(y + f @ wp + bp, g2, b2)


def compiled(layer, chip, *arrays):
    with tw.default_device(tw.Device(chip, "functional")):
        return tw.jit(layer).lower(*arrays).compile().back


def run(back, engine, *arrays, check=True):
    """The result's bytes, and the run."""
    memory = sim.load_memory(back.program)
    for data, port in zip(arrays, back.program.inputs, strict=True):
        memory.write(port.addr, np.ascontiguousarray(data).tobytes())
    result = sim.run(back.program, memory, engine=engine, check=check)
    assert result.fault is None, result.fault
    (port,) = back.program.outputs
    return bytes(memory.read(port.addr, arrays[0].nbytes)), result


def test_encoder_of_bert_base_is_near_float64_and_near_the_array():
    layer = Encoder()
    arrays = arguments(layer)
    back = compiled(layer, "tw16", *arrays)
    data, result = run(back, "cycle", *arrays, check=False)
    got = np.frombuffer(data, np.float32).reshape(arrays[0].shape).astype(np.float64)
    want = reference(layer, *arrays)
    assert np.abs(got - want).max() <= 0.01 * np.abs(want).max()
    assert (got * want).sum() >= 0.9999 * np.linalg.norm(got) * np.linalg.norm(want)
    assert result.cycles <= 1.06 * layer.macs / back.config.dim**2, result.cycles
    kinds = [type(k.source) for k in back.kernels.kernels]
    assert (kinds.count(Contract), kinds.count(Lanes), len(kinds)) == (8, 3, 11)


@pytest.mark.parametrize("layer", [TINY, Encoder(sequence=9, hidden=12, heads=3, forward=20)])
def test_encoder_leaves_the_same_bytes_on_every_engine(layer):
    arrays = arguments(layer, 1)
    back = compiled(layer, "tw4", *arrays)
    found = {engine: run(back, engine, *arrays) for engine in ("functional", "cycle", "rtl")}
    data = {x for x, _ in found.values()}
    assert len(data) == 1
    assert found["cycle"][1].cycles == found["rtl"][1].cycles
    got = np.frombuffer(data.pop(), np.float32).reshape(arrays[0].shape)
    want = reference(layer, *arrays)
    assert np.abs(got - want).max() <= 0.03 * np.abs(want).max()
