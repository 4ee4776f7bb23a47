"""Three models in plain NumPy code, as in JAX: an encoder, an LSTM and a CNN, on every engine.

Each model is written once, as a function of the modules that it imports: `jax.numpy`, `jax.nn` and
`jax.lax`, or those of the SDK. One program then leaves the same bytes on the functional, the
cycle-exact and the RTL engine, those of its equations (`eval_jaxpr`), near the results of JAX.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import lax, nn
from tilewright.compiler.core import eval_jaxpr

from tests.compiler.transform_case import normal

ENGINES = ("functional", "cycle", "rtl")
JAX = SimpleNamespace(np=jnp, nn=jax.nn, lax=jax.lax)
OURS = SimpleNamespace(np=tnp, nn=nn, lax=lax)
HEADS = 2
STEPS, BATCH, HIDDEN = 5, 3, 6


def layer_norm(m, x, gain, bias):
    centred = x - m.np.mean(x, -1, keepdims=True)
    scale = m.lax.rsqrt(m.np.mean(m.np.square(centred), -1, keepdims=True) + 1e-5)
    return centred * scale * gain + bias


def attention(m, p, x):
    """Self-attention over x (batch, length, width), in HEADS heads."""

    def heads(w):
        return (x @ w).reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    q, k, v = (heads(p[name]) for name in ("query", "key", "value"))
    scores = m.np.einsum("bhtd,bhsd->bhts", q, k) * q.shape[-1] ** -0.5
    mixed = m.np.einsum("bhts,bhsd->bhtd", m.nn.softmax(scores), v)
    return mixed.transpose(0, 2, 1, 3).reshape(x.shape) @ p["out"]


def encoder(m, params, x):
    """Logits of texts x (batch, length, width): layers in turn, then the mean over the length."""
    for p in params["layers"]:
        x = layer_norm(m, x + attention(m, p, x), *p["norm1"])
        x = layer_norm(m, x + m.nn.gelu(x @ p["up"] + p["bias"]) @ p["down"], *p["norm2"])
    return m.np.mean(x, 1) @ params["head"]


def lstm(m, p, xs):
    """Return the last state (h, c) and h of every step, for xs (steps, batch, features)."""

    def cell(state, x):
        h, c = state
        i, f, g, o = m.np.split(m.np.concatenate([x, h], -1) @ p["w"] + p["b"], 4, -1)
        c = m.nn.sigmoid(f + 1) * c + m.nn.sigmoid(i) * m.np.tanh(g)
        h = m.nn.sigmoid(o) * m.np.tanh(c)
        return (h, c), h

    zero = m.np.zeros((xs.shape[1], HIDDEN), xs.dtype)
    return m.lax.scan(cell, (zero, zero), xs)


def cnn(m, p, x, train=False):
    """Logits of pictures x (batch, height, width, 1); in training new running statistics too."""
    x = m.lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME",
                                   dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
    mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else p["running"]
    x = (x - mean) * m.lax.rsqrt(var + 1e-5) * p["gain"] + p["bias"]
    x = m.lax.reduce_window(m.nn.relu(x), -np.inf, m.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    logits = x.reshape(x.shape[0], -1) @ p["dense"]
    running = tuple(0.9 * a + 0.1 * b for a, b in zip(p["running"], (mean, var), strict=True))
    return (logits, running) if train else logits


def weights(seed, *shape):
    """Normal numbers whose products with vectors keep the vectors' size."""
    return normal(seed, shape) * np.float32(np.prod(shape[:-1]) ** -0.5)


def encoder_arguments(batch=2, length=5, width=8, forward=12, classes=3):
    shapes = {"query": (width, width), "key": (width, width), "value": (width, width),
              "out": (width, width), "up": (width, forward), "down": (forward, width)}  # fmt: skip

    def layer(seed):
        p = {name: weights(seed + i, *shape) for i, (name, shape) in enumerate(shapes.items())}
        norms = [(1 + normal(seed + i, width) / 4, normal(seed + i + 1, width) / 4) for i in (6, 8)]
        return p | {"bias": normal(seed + 10, forward), "norm1": norms[0], "norm2": norms[1]}

    params = {"layers": [layer(20), layer(40)], "head": weights(60, width, classes)}
    return params, normal(61, (batch, length, width))


def lstm_arguments(features=4):
    params = {"w": weights(70, features + HIDDEN, 4 * HIDDEN), "b": normal(71, 4 * HIDDEN) / 4}
    return params, normal(72, (STEPS, BATCH, features))


def cnn_arguments(batch=2, side=6, channels=5, classes=4):
    params = {"kernel": weights(80, 3, 3, 1, channels), "gain": 1 + normal(81, channels) / 4,
              "bias": normal(82, channels), "dense": weights(83, channels * side**2 // 4, classes),
              "running": (normal(84, channels) / 4, normal(85, channels, 0.5, 2))}  # fmt: skip
    return params, normal(86, (batch, side, side, 1))


def trained(m, p, x):
    return cnn(m, p, x, train=True)


MODELS = {"encoder": (encoder, encoder_arguments), "lstm": (lstm, lstm_arguments),
          "cnn": (cnn, cnn_arguments), "cnn_training": (trained, cnn_arguments)}  # fmt: skip
#: The largest distance from JAX, as a share of the largest value: the array rounds to bfloat16.
NEAR = {np.float32: 0.005, ml_dtypes.bfloat16: 0.02}
CASES = [pytest.param(name, dtype, id=f"{name}-{np.dtype(dtype).name}")
         for name in MODELS for dtype in NEAR]  # fmt: skip
every_case = pytest.mark.parametrize("name, dtype", CASES)


def prepared(name, dtype):
    """The model and its arguments, as arrays of `dtype`."""
    model, arguments = MODELS[name]
    return model, tw.tree.map(lambda a: a.astype(dtype), arguments())


def run(model, args, chip, engines):
    """(Results as arrays, counters) of each engine, which all run one program; and the program."""
    function, found, programs = tw.jit(lambda *a: model(OURS, *a)), [], set()
    for engine in engines:
        with tw.default_device(tw.Device(chip, engine)), tw.profile() as p:
            compiled = function.lower(*args).compile()
            leaves = [np.asarray(a) for a in tw.tree.leaves(compiled(*args))]
        (one,) = p.runs
        assert one.engine == engine
        programs.add(compiled.program.to_bytes())
        found.append((leaves, one.counters))
    assert len(programs) == 1
    return found, compiled


def same(found, want):
    for a, b in zip(found, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()


@every_case
def test_example_leaves_the_same_bytes_on_every_engine_of_tw4(name, dtype):
    model, args = prepared(name, dtype)
    [functional, cycle, rtl], compiled = run(model, args, "tw4", ENGINES)
    same(functional[0], eval_jaxpr(compiled.jaxpr, tw.tree.leaves(args), dim=4))
    same(cycle[0], functional[0])
    same(rtl[0], functional[0])
    assert cycle[1] == rtl[1]
    assert cycle[1]["cycles"] > 0


@every_case
def test_example_on_tw8_is_its_equations_and_near_jax(name, dtype):
    model, args = prepared(name, dtype)
    [(found, _)], compiled = run(model, args, "tw8", ["functional"])
    same(found, eval_jaxpr(compiled.jaxpr, tw.tree.leaves(args), dim=8))
    theirs = [np.asarray(a) for a in jax.tree.leaves(jax.jit(lambda *a: model(JAX, *a))(*args))]
    for a, b in zip(found, theirs, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        a, b = a.astype(np.float64), b.astype(np.float64)
        assert np.abs(a - b).max() <= NEAR[dtype] * np.abs(b).max()


@pytest.mark.full
@every_case
def test_example_takes_the_same_cycles_on_the_rtl_of_tw8(name, dtype):
    [functional, cycle, rtl], _ = run(*prepared(name, dtype), "tw8", ENGINES)
    same(cycle[0], functional[0])
    same(rtl[0], functional[0])
    assert cycle[1] == rtl[1]
