"""MATMUL: a whole macro tile at once, exact int8 through BLAS, bf16 in the architectural order.

Columns of the last N-block beyond `n` are computed from whatever the weights' granules hold, as in
the array; rows of A and W beyond `k` count as zero whatever memory holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from tilewright.isa.table import Type
from tilewright.sim.local import view
from tilewright.sim.numerics import bfloat16, matmul_bf16

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

_DTYPE = {Type.I8: np.int8, Type.U8: np.uint8, Type.BF16: np.uint16}
_PEAK = {Type.I8: 128, Type.U8: 255}
_EXACT = 1 << 24  # float32 holds every integer up to here


def macs(v: Mapping[str, int], dim: int) -> tuple[int, int]:
    """(useful, padding) multiply-accumulates."""
    rows = v["r0"] * v["r1"]
    useful = rows * v["k"] * v["n"]
    blocks = -(-v["k"] // dim) * -(-v["n"] // dim)
    return useful, rows * dim * dim * blocks - useful


def _operands(m: Machine, v: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """A (r1, r0, K-blocks, dim) and W (K-blocks, dim, N-blocks, dim), in the scratchpad."""
    dim = m.config.dim
    kb, nb = -(-v["k"] // dim), -(-v["n"] // dim)
    a = view(
        m.spad, _DTYPE[v["a_type"]], v["a"],
        (v["r1"], v["r0"], kb), (v["as1"], v["as0"], v["ak"]), dim, dim,
    )  # fmt: skip
    w = view(
        m.spad, _DTYPE[v["w_type"]], v["w"],
        (kb, dim, nb), (v["wk"], v["ws"], v["wn"]), dim, dim,
    )  # fmt: skip
    return a, w


def _int8(a: np.ndarray, w: np.ndarray, chunk: int) -> np.ndarray:
    """(R, K) @ (K, N) of float32 that hold 8-bit integers, exact, wrapped to int32."""
    out = None
    for k in range(0, a.shape[1], chunk):
        part = (a[:, k : k + chunk] @ w[k : k + chunk]).astype(np.int32)
        out = part if out is None else np.add(out, part, out=out)
    return out


def execute(m: Machine, v: Mapping[str, int]) -> None:
    """Run one MATMUL with resolved values `v` on machine `m`."""
    dim, k, rows = m.config.dim, v["k"], v["r0"] * v["r1"]
    nb = -(-v["n"] // dim)
    a, w = _operands(m, v)
    # N-blocks whose accumulator rows overlap must be run one after the other
    blocks = [slice(0, nb)] if nb == 1 or abs(v["cn"]) >= rows else [
        slice(i, i + 1) for i in range(nb)
    ]  # fmt: skip
    integer = v["a_type"] != Type.BF16
    kind = np.float32 if integer else np.uint16
    a = a.astype(kind, order="C").reshape(rows, -1)[:, :k]
    for part in blocks:
        wide = w[:, :, part].astype(kind, order="C").reshape(-1, (part.stop - part.start) * dim)[:k]
        c = view(
            m.acc_bytes, np.int32 if integer else np.float32, v["c"] + part.start * v["cn"],
            (part.stop - part.start, rows), (v["cn"], 1), 4 * dim, dim,
        ).transpose(1, 0, 2)  # fmt: skip
        if integer:
            out = _int8(a, wide, _EXACT // (_PEAK[v["a_type"]] * _PEAK[v["w_type"]]))
            out = out.reshape(c.shape)
            if v["acc"]:
                np.add(c, out, out=c)
            else:
                c[...] = out
        else:
            old = c.reshape(rows, -1) if v["acc"] else None
            c[...] = matmul_bf16(
                a.view(bfloat16), wide.view(bfloat16), old, dim, bool(v["acc"])
            ).reshape(c.shape)
