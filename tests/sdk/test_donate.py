"""Donated arguments: results in their memory, with the same bits; what is still needed stays."""

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp

RNG = np.random.default_rng(11)
X, Y, Z, G = (RNG.standard_normal((37, 21)).astype(np.float32) for _ in range(4))


def adam(p, m, v, g):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return p - 0.01 * m / (tnp.sqrt(v) + 1e-8), m, v


FUNCTIONS = {  # function -> in how many of its four arrays results lie
    adam: 3,
    lambda p, m, v, g: (p + 1, p * 2): 2,
    lambda p, m, v, g: p @ m.T @ v: 1,  # the last product is written over m or p
    lambda p, m, v, g: p + tnp.flip(p, 0): 1,  # over an array that nobody reads
    lambda p, m, v, g: (p * p.sum(0), p.sum(1)): 1,
    lambda p, m, v, g: (p, m + v): 2,  # p is one of them as it is
    lambda p, m, v, g: tnp.concatenate([p[1:], m[:1]]) * g: 1,
}


@pytest.fixture(autouse=True, params=["functional", "cycle"])
def device(request):
    with tw.default_device(tw.Device("tw4", request.param)) as chosen:
        yield chosen


def put(*arrays):
    return [tw.device_put(a) for a in arrays]


@pytest.mark.parametrize("number", range(len(FUNCTIONS)))
def test_results_take_donated_memory_and_keep_their_bits(number):
    function, count = list(FUNCTIONS.items())[number]
    want = tw.tree.leaves(tw.jit(function)(X, Y, Z, G))
    step = tw.jit(function, donate_argnums=(0, 1, 2, 3))
    arrays = put(X, Y, Z, G)
    old = [a.address for a in arrays]
    got = tw.tree.leaves(step(*arrays))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))
    assert len({a.address for a in got} & set(old)) == count
    assert all(a.is_deleted() for a in arrays)


def test_memory_analysis_names_what_is_reused():
    step = tw.jit(adam, donate_argnums=(0, 1, 2))
    found = step.lower(X, Y, Z, G).compile().memory_analysis()
    assert (found.alias_size_in_bytes, found.output_size_in_bytes) == (3 * X.nbytes, 0)
    assert tw.jit(adam).lower(X, Y, Z, G).compile().memory_analysis().alias_size_in_bytes == 0


def test_a_loop_of_steps_needs_no_more_memory(device):
    step = tw.jit(adam, donate_argnums=(0, 1, 2))
    state, g = put(X, Y, Z), tw.device_put(G)
    state = step(*state, g)
    used = device.pool.used_bytes
    for _ in range(3):
        state = step(*state, g)
    assert device.pool.used_bytes == used


def test_a_donated_array_that_is_given_twice_is_refused():
    x = tw.device_put(X)
    with pytest.raises(ValueError, match=r"twice, but one of them is donated.*test_donate.py"):
        tw.jit(lambda a, b: a + b, donate_argnums=0)(x, x)
    assert not x.is_deleted()


def test_what_shares_memory_with_a_donated_array_stays():
    increment = tw.jit(lambda a: a + 1, donate_argnums=0)
    x = tw.device_put(X)
    row = x.reshape(-1)  # the same bytes
    increment(x)
    np.testing.assert_array_equal(row, X.reshape(-1))
    same = tw.jit(lambda a: a)(y := tw.device_put(Y))
    increment(same)
    np.testing.assert_array_equal(y, Y)


def test_arguments_on_the_host_stay_as_they_are():
    before = X.copy()
    tw.jit(adam, donate_argnums=(0, 1, 2))(X, Y, Z, G)
    np.testing.assert_array_equal(X, before)
