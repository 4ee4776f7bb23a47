"""Optimisers, schedules and losses, compared with their formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import optim
from tilewright.compiler.core import eval_jaxpr

from tests.compiler.transform_case import normal, on_numpy  # noqa: F401

pytestmark = pytest.mark.usefixtures("on_numpy")
PARAMS = {"w": normal(1, (3, 2)), "b": normal(2, (2,))}
GRADS = [{"w": normal(10 + i, (3, 2)), "b": normal(20 + i, (2,))} for i in range(4)]


def run(optimiser, traced):
    """Parameters after all gradients, run at once or as jitted steps."""

    def step(params, state, grads):
        updates, state = optimiser.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    params, state = PARAMS, optimiser.init(PARAMS)
    for grads in GRADS:
        if traced:
            jaxpr = tw.make_jaxpr(step)(params, state, grads)
            _, treedef = tw.tree.flatten((params, state))
            leaves = eval_jaxpr(jaxpr, tw.tree.leaves((params, state, grads)))
            params, state = tw.tree.unflatten(treedef, leaves)
        else:
            params, state = step(params, state, grads)
    return params


def check(optimiser, reference):
    """`reference(p, grads) -> p` computes one leaf in float64."""
    for traced in (False, True):
        found = run(optimiser, traced)
        for name, value in PARAMS.items():
            grads = [g[name].astype(np.float64) for g in GRADS]
            wanted = reference(value.astype(np.float64), grads)
            assert np.asarray(found[name]).dtype == np.float32
            np.testing.assert_allclose(found[name], wanted, 1e-5, 1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_sgd(momentum, nesterov):
    def reference(p, grads):
        total = 0
        for g in grads:
            total = g + (momentum or 0) * total
            p = p - 0.1 * (g + (momentum or 0) * total if nesterov else total)
        return p

    check(optim.sgd(0.1, momentum, nesterov), reference)


@pytest.mark.parametrize("decay", [0, 0.01])
def test_adam(decay):
    def reference(p, grads):
        m = v = 0
        for i, g in enumerate(grads, 1):
            m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
            step = (m / (1 - 0.8**i)) / (np.sqrt(v / (1 - 0.9**i)) + 1e-8)
            p = p - 0.05 * (step + decay * p)
        return p

    adam = optim.adamw(0.05, 0.8, 0.9, weight_decay=decay) if decay else optim.adam(0.05, 0.8, 0.9)
    check(adam, reference)


def test_a_schedule_sees_the_number_of_steps():
    def reference(p, grads):
        for i, g in enumerate(grads):
            p = p - 0.1 * 0.5 ** (i / 2) * g
        return p

    check(optim.sgd(optim.exponential_decay(0.1, 2, 0.5)), reference)


def test_clipping():
    norms = [np.sqrt(sum((g**2).sum() for g in grads.values())) for grads in GRADS]
    assert norms[0] == pytest.approx(float(optim.global_norm(GRADS[0])), rel=1e-6)

    def by_norm(p, grads):
        for g, norm in zip(grads, norms, strict=True):
            p = p - g * min(1, 2 / norm)
        return p

    check(optim.chain(optim.clip_by_global_norm(2.0), optim.sgd(1.0)), by_norm)
    check(optim.chain(optim.clip(0.5), optim.sgd(1.0)),
          lambda p, grads: p - sum(np.clip(g, -0.5, 0.5) for g in grads))  # fmt: skip


def test_masked_weight_decay():
    masked = optim.add_decayed_weights(0.5, {"w": True, "b": False})
    updates, _ = masked.update(GRADS[0], masked.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["w"], GRADS[0]["w"] + 0.5 * PARAMS["w"], 1e-6)
    assert updates["b"] is GRADS[0]["b"]
    with pytest.raises(ValueError, match="needs params"):
        masked.update(GRADS[0], masked.init(PARAMS))


def test_schedules():
    steps = np.arange(0, 13, dtype=np.int32)
    schedules = {
        "linear": (optim.linear_schedule(1, 3, 4, 2), 1 + 2 * np.clip(steps - 2, 0, 4) / 4),
        "stairs": (optim.exponential_decay(2, 3, 0.5, staircase=True), 2 * 0.5 ** (steps // 3)),
        "cosine": (optim.cosine_decay_schedule(2, 10, 0.1),
                   2 * (0.9 * 0.5 * (1 + np.cos(np.pi * np.minimum(steps, 10) / 10)) + 0.1)),
        "pieces": (optim.piecewise_constant_schedule(1, {3: 0.5, 8: 0.1}),
                   np.where(steps >= 8, 0.05, np.where(steps >= 3, 0.5, 1))),
        "warm-up": (optim.warmup_cosine_decay_schedule(0, 1, 4, 12, 0.2),
                    np.where(steps < 4, steps / 4,
                             0.8 * 0.5 * (1 + np.cos(np.pi * (steps - 4) / 8)) + 0.2)),
    }  # fmt: skip
    for name, (schedule, wanted) in schedules.items():
        found = [float(schedule(tnp.asarray(s))) for s in steps]
        np.testing.assert_allclose(found, wanted, 1e-5, 1e-6, err_msg=name)
    assert optim.constant_schedule(0.3)(7) == 0.3


def test_losses():
    logits, targets = normal(3, (4, 5)) * 9, normal(4, (4, 5))
    labels = np.array([0, 3, 4, 1], np.int32)
    chosen = np.eye(5)[labels]
    log_p = jax.nn.log_softmax(jnp.asarray(logits))
    wanted = -np.sum(chosen * log_p, -1)
    found = optim.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-5)
    found = optim.softmax_cross_entropy(logits, chosen.astype("f"))
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-5)
    np.testing.assert_allclose(optim.l2_loss(logits, targets), (logits - targets) ** 2 / 2, 1e-6)
    e = np.abs(logits - targets)
    huber = np.where(e < 2, e * e / 2, 2 * (e - 1))
    np.testing.assert_allclose(optim.huber_loss(logits, targets, 2.0), huber, 1e-5)
    wide = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-wide))
    bits = targets > 0
    cross = -np.where(bits, np.log(p), np.log1p(-p))
    found = optim.sigmoid_binary_cross_entropy(logits, bits.astype("f"))
    np.testing.assert_allclose(found, cross, 1e-4, 1e-5)


def test_the_gradient_of_the_cross_entropy():
    logits, labels = normal(3, (4, 5)), np.array([0, 3, 4, 1], np.int32)
    found = tw.grad(lambda z: tnp.sum(optim.softmax_cross_entropy_with_integer_labels(z, labels)))
    wanted = np.asarray(jax.nn.softmax(jnp.asarray(logits))) - np.eye(5)[labels]
    np.testing.assert_allclose(found(logits), wanted, 1e-5, 1e-6)


OPTAX = {
    "sgd": optax.sgd(0.125),
    "nesterov": optax.sgd(0.125, momentum=0.5, nesterov=True),
    "decayed": optax.chain(optax.add_decayed_weights(0.25), optax.scale(-0.5)),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax_works_where_it_needs_pytrees_only(name):
    check_all = run(OPTAX[name], False), run(OPTAX[name], True)
    params, state = PARAMS, OPTAX[name].init(PARAMS)
    for grads in GRADS:
        updates, state = OPTAX[name].update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for found in check_all:
        for key in PARAMS:
            np.testing.assert_allclose(found[key], params[key], rtol=1e-5)


def test_optax_trains_arrays_of_the_chip():
    optimiser = OPTAX["nesterov"]

    def step(api, np_, params, state, x):
        grads = api.grad(lambda p: np_.sum(np_.tanh(x * p["w"]) + p["b"] * p["b"]))(params)
        updates, state = optimiser.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    x, ours = normal(5, (3, 2)), tw.jit(lambda *a: step(tw, tnp, *a))
    with tw.default_device(tw.Device("tw4", "functional")):
        mine = other = PARAMS, optimiser.init(PARAMS)
        for _ in range(3):
            mine, other = ours(*mine, x), step(jax, jnp, *other, x)
    for key in PARAMS:
        assert isinstance(mine[0][key], tw.Array)
        np.testing.assert_allclose(mine[0][key], other[0][key], rtol=1e-5, atol=1e-6)
