"""MATMUL: a whole macro tile at once, exact int8 through BLAS, bf16 in the architectural order.

`prepare` works out once what follows from the fields; the function that it gives does the work.
Columns of the last N-block beyond `n` are computed from whatever the weights' granules hold, as in
the array; rows of A and W beyond `k` count as zero whatever memory holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Type
from tilewright.sim.local import View
from tilewright.sim.numerics import bfloat16, matmul_bf16

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

_DTYPE: dict[int, Any] = {Type.I8: np.int8, Type.U8: np.uint8, Type.BF16: np.uint16}
_PEAK: dict[int, int] = {Type.I8: 128, Type.U8: 255}
_EXACT = 1 << 24  # float32 holds every integer up to here


def macs(v: Mapping[str, int], dim: int) -> tuple[int, int]:
    """(useful, padding) multiply-accumulates."""
    rows = v["r0"] * v["r1"]
    useful = rows * v["k"] * v["n"]
    blocks = -(-v["k"] // dim) * -(-v["n"] // dim)
    return useful, rows * dim * dim * blocks - useful


def _operands(config: ChipConfig, v: Mapping[str, int]) -> tuple[View, View]:
    """A (r1, r0, K-blocks, dim) and W (K-blocks, dim, N-blocks, dim), in the scratchpad."""
    dim = config.dim
    kb, nb = -(-v["k"] // dim), -(-v["n"] // dim)
    counts, strides = (v["r1"], v["r0"], kb), (v["as1"], v["as0"], v["ak"])
    a = View(_DTYPE[v["a_type"]], v["a"], counts, strides, dim, dim)
    counts, strides = (kb, dim, nb), (v["wk"], v["ws"], v["wn"])
    return a, View(_DTYPE[v["w_type"]], v["w"], counts, strides, dim, dim)


def prepare(config: ChipConfig, v: Mapping[str, int]) -> Callable[[Machine], None]:
    """What one MATMUL with resolved values `v` does to a machine."""
    dim, k, rows, acc = config.dim, v["k"], v["r0"] * v["r1"], bool(v["acc"])
    nb = -(-v["n"] // dim)
    integer = v["a_type"] != Type.BF16
    a_view, w_view = _operands(config, v)
    whole = k % dim == 0
    # N-blocks whose accumulator rows overlap must be run one after the other
    step = nb if nb == 1 or abs(v["cn"]) >= rows else 1
    kind, word = (np.float32, np.int32) if integer else (np.uint16, np.float32)
    bases = {i: v["c"] + i * v["cn"] for i in range(0, nb, step)}
    places = [
        (slice(i, i + step), View(word, base, (step,), (v["cn"],), 4 * dim, rows * dim))
        for i, base in bases.items()
    ]
    chunk = _EXACT // (_PEAK[v["a_type"]] * _PEAK[v["w_type"]]) if integer else 0

    def run(m: Machine) -> None:
        a = a_view.of(m.spad).astype(kind, order="C").reshape(rows, -1)
        w = w_view.of(m.spad).astype(kind, order="C")
        if not whole:
            a = a[:, :k]
        for part, place in places:
            wide = (w if step == nb else w[:, :, part]).reshape(-1, step * dim)
            if not whole:
                wide = wide[:k]
            c = place.of(m.acc_bytes)  # (N-blocks, rows * dim)
            if integer:
                _int8(a, wide, chunk, c, acc)
            else:
                _bf16(a, wide, c, dim, acc)

    return run


def _int8(a: np.ndarray, w: np.ndarray, chunk: int, c: np.ndarray, acc: bool) -> None:
    """`c` (N-blocks, rows * dim) int32 = or += a @ w, float32 that hold 8-bit integers."""
    rows, depth = a.shape
    for k in range(0, depth, chunk):
        out = a @ w if depth <= chunk else a[:, k : k + chunk] @ w[k : k + chunk]
        part = out.reshape(rows, c.shape[0], -1).transpose(1, 0, 2)
        if k or acc:
            np.add(c, part.astype(np.int32, order="C").reshape(c.shape), out=c)
        else:
            c.reshape(part.shape)[...] = part


def _bf16(a: np.ndarray, w: np.ndarray, c: np.ndarray, dim: int, acc: bool) -> None:
    """`c` (N-blocks, rows * dim) float32 = or += a @ w, bits of bf16, in the array's order."""
    out = c.reshape(c.shape[0], a.shape[0], dim).transpose(1, 0, 2)  # (rows, N-blocks, dim), a view
    old = out.reshape(a.shape[0], -1) if acc else None
    out[...] = matmul_bf16(a.view(bfloat16), w.view(bfloat16), old, dim, acc).reshape(out.shape)
