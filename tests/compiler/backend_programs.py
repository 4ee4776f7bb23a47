"""Random programs for the back end: a contraction or an array, element-wise steps, several results.

A program is a function of a seed alone: `random_program(seed, config)` gives it and its arguments.
"""

from functools import partial

import numpy as np
import tilewright.numpy as tnp
from tilewright.compiler.contraction import dot_general
from tilewright.compiler.errors import TilewrightError

from tests.compiler.backend_case import BF16, BOOL, F32, I8, I32, U8, U32, array

DTYPES = (F32, BF16, I8, U8, I32, U32, BOOL)
PAIRS = ((F32, F32), (BF16, BF16), (I8, I8), (U8, U8), (I8, U8), (U8, I8))
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 127.0, -128.0, 0.01, 1e30, np.inf, -7.0, 1e-40)
STEPS = (
    *("add", "add", "sub", "from", "mul", "mul", "neg", "max", "min", "clip", "relu"),
    *("round", "convert", "halve", "reshape", "quantise", "quantise"),
)


def size(rng, limit):
    """A dimension, small ones often, sometimes 0."""
    return 0 if rng.random() < 0.03 else int(np.exp(rng.uniform(0, np.log(limit + 1))))


def operand(rng, shape, dtype, special):
    """An array, and the function that shows it in `shape`: as it is, or through a view."""
    kind = rng.choice(["same", "transpose", "slice", "reshape", "broadcast"])
    if not shape or kind == "same":
        return array(rng, shape, dtype, special), lambda v: v
    if kind == "transpose":
        order = rng.permutation(len(shape))
        back = tuple(map(int, np.argsort(order)))
        given = array(rng, tuple(shape[i] for i in order), dtype, special)
        return given, lambda v: tnp.transpose(v, back)
    if kind == "slice":
        cuts = tuple(
            slice(a, a + (n - 1) * s + 1 if n else a, s)
            for n, a, s in zip(shape, rng.integers(0, 3, len(shape)).tolist(),
                               rng.integers(1, 3, len(shape)).tolist(), strict=True)
        )  # fmt: skip
        given = array(rng, tuple(c.stop + int(rng.integers(0, 3)) for c in cuts), dtype, special)
        return given, lambda v: v[cuts]
    if kind == "reshape":
        return array(rng, (int(np.prod(shape)),), dtype, special), lambda v: v.reshape(shape)
    axis = int(rng.integers(0, len(shape)))
    small = tuple(1 if i == axis else n for i, n in enumerate(shape))
    return array(rng, small, dtype, special), lambda v: tnp.broadcast_to(v, shape)


def constant(rng, dtype):
    """A number of a dtype."""
    if dtype.kind == "f" or dtype == BF16:
        return np.float32(rng.choice(FLOATS)).astype(dtype)
    return np.array(rng.integers(0, 100)).astype(dtype)


def quantise(rng, y, by):
    """Float, scale, round, zero point, clip, integer: some of these steps."""
    z = y.astype(np.float32)
    z = tnp.round(z * by if rng.random() < 0.7 else z)
    if rng.random() < 0.5:
        z = z + np.float32(rng.choice([3, -128, 0, 32767, 128]))
    if rng.random() < 0.6:
        z = tnp.clip(z, np.float32(-128), np.float32(127))
    return z.astype((I8, U8, I32)[rng.integers(0, 3)])


def one_step(rng, name, y, vectors):
    """One element-wise step; what the front end refuses leaves the value as it is."""
    number = constant(rng, y.dtype)
    by = number if rng.random() < 0.4 else vectors[rng.integers(0, len(vectors))]
    unsigned = y.dtype.kind == "u"
    steps = {
        "add": lambda: y + by,
        "sub": lambda: y - by,
        "from": lambda: by - y,
        "mul": lambda: y * by,
        "neg": lambda: -y,
        "max": lambda: tnp.maximum(y, number),
        "min": lambda: tnp.minimum(y, number),
        "clip": lambda: tnp.clip(y, 1 if unsigned else -100, 100),
        "relu": lambda: tnp.maximum(y, 0),
        "round": lambda: tnp.round(y),
        "convert": lambda: y.astype(DTYPES[rng.integers(0, 6)]),
        "halve": lambda: y / 2.0 ** rng.integers(-10, 10),
        "reshape": lambda: y.reshape((-1,)) if rng.random() < 0.3 else y,
        "quantise": lambda: quantise(rng, y, by),
    }
    try:
        z = steps[name]()
    except (TilewrightError, OverflowError):
        return y
    return z if z.shape == y.shape or name == "reshape" else y


def random_dot(rng, limit, special):
    """A matmul with batches and views, or a dot_general with any dimension numbers."""
    left, right = PAIRS[rng.integers(0, len(PAIRS))]
    small = left.itemsize == 1
    wide = np.int32 if small else np.float32
    preferred = wide if small and (left != right or rng.random() < 0.9) else None
    if not small and rng.random() < 0.4:
        preferred = wide
    if rng.random() < 0.7:
        m, k, n = (size(rng, limit) for _ in range(3))
        batch = tuple(rng.integers(1, 4, rng.integers(0, 3)).tolist()) if rng.random() < 0.2 else ()
        a, see_a = operand(rng, (*batch, m, k), left, special)
        w, see_w = operand(rng, (*(batch if rng.random() < 0.5 else ()), k, n), right, special)
        matmul = partial(tnp.matmul, preferred_element_type=preferred)
        return [a, w], n, lambda a, w: matmul(see_a(a), see_w(w))
    shared = [(kind, i) for kind in "bc" for i in range(rng.integers(0, 3))]
    lhs = [*shared, *(("f", i) for i in range(rng.integers(0, 3)))]
    rhs = [*shared, *(("g", i) for i in range(rng.integers(0, 3)))]
    sizes = {name: int(rng.integers(1, 9)) for name in sorted({*lhs, *rhs})}
    columns = sizes[rhs[-1]] if rhs and rhs[-1][0] == "g" else 1
    lhs, rhs = ([names[i] for i in rng.permutation(len(names))] for names in (lhs, rhs))
    numbers = tuple(
        tuple(tuple(names.index(s) for s in shared if s[0] == kind) for names in (lhs, rhs))
        for kind in "cb"
    )
    args = [
        array(rng, tuple(sizes[s] for s in lhs), left, special),
        array(rng, tuple(sizes[s] for s in rhs), right, special),
    ]
    return args, columns, lambda a, w: dot_general(a, w, numbers, preferred_element_type=preferred)


def random_map(rng, limit, special):
    """An array of any dtype and rank, seen through a view."""
    shape = tuple(size(rng, min(limit, 40)) for _ in range(rng.integers(0, 4)))
    x, see = operand(rng, shape, DTYPES[rng.integers(0, 7)], special)
    return [x], shape[-1] if shape else 1, see


def more_results(rng, results, args, vectors):
    """One more result: a duplicate, an input, a constant, a view, or a longer chain."""
    last = results[-1]
    kind = rng.integers(0, 6)
    if kind < 3:
        return (last, args[rng.integers(0, len(args))], tnp.zeros((3, 2)) + np.float32(1))[kind]
    if kind == 3:
        for name in rng.choice(STEPS, 3):
            last = one_step(rng, name, last, vectors)
        return last
    return (
        tnp.transpose(last) if kind == 4 else last[tuple(slice(n // 3, n, 2) for n in last.shape)]
    )


def random_program(seed, limit):
    """(function, arguments); dimensions up to `limit`, all else from the seed."""
    rng = np.random.default_rng(seed)
    special = bool(rng.random() < 0.5)
    source = random_map if rng.random() < 0.2 else random_dot
    args, columns, base = source(rng, limit, special)
    count, inner = len(args), int(rng.integers(1 << 30))
    for shape, dtype in (
        ((columns,), F32),
        ((columns,), I32),
        ((), F32),
        ((columns,), BF16),
        ((), I32),
    ):
        args.append(array(rng, shape, dtype, special))
    steps, extra = rng.choice(STEPS, rng.integers(0, 7)), int(rng.integers(0, 3))

    def program(*xs):
        again = np.random.default_rng(inner)
        results = [base(*xs[:count])]
        for name in steps:
            results[0] = one_step(again, name, results[0], xs[count:])
        for _ in range(extra):
            results.append(more_results(again, results, xs, xs[count:]))
        return tuple(results)

    return program, args
