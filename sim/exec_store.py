"""STORE: local rows through the epilogue to DRAM or to the scratchpad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from tilewright.isa.table import TYPE_BYTES, Dest, Mem, Type
from tilewright.sim.exec_load import run_beats
from tilewright.sim.local import view, write_rows
from tilewright.sim.numerics import INT_RANGE, Epilogue, bf16_to_f32, bfloat16, epilogue

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

_OUT = {Type.I8: "int8", Type.U8: "uint8", Type.BF16: "bf16", Type.F32: "fp32", Type.I32: "int32"}
_DTYPE = {
    Type.I8: np.int8,
    Type.U8: np.uint8,
    Type.BF16: bfloat16,
    Type.F32: np.float32,
    Type.I32: np.int32,
}
_VECTORS = ("ibias", "scale", "bias")
_SMALL = np.float32(2.0**-60)  # a sum of multiples of its last place never reaches a subnormal
_LARGE = np.float32(2.0**60)


def beats(v: Mapping[str, int], bus: int) -> int:
    """Data beats that this STORE writes."""
    if v["dest"] != Dest.DRAM:
        return 0
    run = v["c0"] * TYPE_BYTES[Type(v["out"])]
    across = 0 if v["scatter"] else v["s1"]  # a scatter's is a multiple of the bus's bytes
    return run_beats(v["dst"], (v["c2"], v["c1"]), (v["s2"], across), run, bus)


def _source(m: Machine, v: Mapping[str, int]) -> np.ndarray:
    """(c2, c1, c0) of the source type, a view or copy; with `pool` (c2, c1, pool_h, pool_w, c0)."""
    dim, kind = m.config.dim, Type(v["type"])
    units = -(-v["c0"] // dim)
    counts, strides = (v["c2"], v["c1"]), (v["l2"], v["l1"])
    if v["pool"]:
        counts = (*counts, v["pool_h"], v["pool_w"])
        strides = (v["pool_sh"] * v["l2"], v["pool_sw"] * v["l1"], *strides)
    buffer, row = (m.acc_bytes, 4 * dim) if v["mem"] == Mem.ACC else (m.spad, dim)
    steps = (*strides, v["l0"])
    x = view(buffer, _DTYPE[kind], v["loc"], (*counts, units), steps, row, dim)
    return x.reshape(*counts, units * dim)[..., : v["c0"]]


def _window_max(y: np.ndarray) -> np.ndarray:
    """Maximum over the two axes before the last; NaN (there is one only) wins, -0 is below +0."""
    bits = {np.dtype(np.float32): np.int32, np.dtype(bfloat16): np.int16}.get(y.dtype)
    if bits is None:
        return y.max(axis=(-3, -2))
    order = np.ascontiguousarray(y).view(bits)
    low = order.dtype.type(np.iinfo(bits).max)
    order = np.where(order < 0, order ^ low, order).max(axis=(-3, -2))
    return np.where(order < 0, order ^ low, order).view(y.dtype)


def _vectors(m: Machine, v: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The enabled vectors, (c0,) each."""
    out = {}
    row = v["vec"]
    words = m.acc.reshape(-1)
    for name in _VECTORS:
        if v[name]:
            start = row * m.config.dim
            bits = words[start : start + v["c0"]]
            out[name] = bits if name == "ibias" else bits.view(np.float32)
            row += v["vs"]
    return out


def _clamp(v: Mapping[str, int]) -> tuple[object, object]:
    if not v["clamp"]:
        return None, None
    bits = np.array([v["lo"] & 0xFFFFFFFF, v["hi"] & 0xFFFFFFFF], np.uint32)
    return tuple(bits.view(np.int32 if v["int_path"] else np.float32))


def _tame(x: np.ndarray | None) -> bool:
    """Whether every value is zero or far from overflow and underflow."""
    if x is None:
        return True
    size = np.abs(x)
    return bool(((size >= _SMALL) & (size <= _LARGE) | (size == 0)).all())


def _requantise(x: np.ndarray, spec: Epilogue) -> np.ndarray | None:
    """int32 to int8 or uint8 in plain float32, or None if special values could matter.

    With tame scale and bias no product or sum overflows, is subnormal or is NaN, and the sign of a
    zero is lost in rounding, so NumPy's arithmetic is the chip's.
    """
    bounds = [np.float32(b) for b in (spec.lo, spec.hi) if b is not None]
    if x.dtype != np.int32 or spec.int_path or spec.out not in ("int8", "uint8"):
        return None
    if spec.scale is None or not _tame(spec.scale) or not _tame(spec.bias):
        return None
    if not all(np.isfinite(b) for b in bounds):
        return None
    if spec.ibias is not None:
        x = np.add(x, spec.ibias)
    y = x.astype(np.float32)
    y *= spec.scale
    if spec.bias is not None:
        y += spec.bias
    if spec.lo is not None:
        np.maximum(y, spec.lo, out=y)
    if spec.hi is not None:
        np.minimum(y, spec.hi, out=y)
    np.rint(y, out=y)
    if spec.zero_point:
        y += np.float32(spec.zero_point)
    np.clip(y, *INT_RANGE[spec.out], out=y)
    return y.astype(spec.out)


def _scatter(m: Machine, v: Mapping[str, int], raw: np.ndarray) -> None:
    """Write rows (c2, c1, bytes) at the places that the scratchpad names, in order."""
    dim, bound = m.config.dim, v["bound"]
    start = v["index"] * dim
    index = m.spad.reshape(-1)[start : start + 4 * v["c1"]].view("<i4").tolist()
    for i2 in range(v["c2"]):
        for row, x in zip(raw[i2], index, strict=True):
            if 0 <= x < bound:
                m.memory.write(v["dst"] + x * v["s1"] + i2 * v["s2"], row)


def execute(m: Machine, v: Mapping[str, int]) -> None:
    """Run one STORE with resolved values `v` on machine `m`."""
    kind = Type(v["type"])
    x = _source(m, v)
    lo, hi = _clamp(v)
    spec = Epilogue(
        int_path=bool(v["int_path"]), lo=lo, hi=hi, zero_point=v["zp"],
        out=_OUT[Type(v["out"])], **_vectors(m, v),
    )  # fmt: skip
    if kind in (Type.I8, Type.U8):
        x = x.astype(np.int32)
    elif kind is Type.BF16:
        x = bf16_to_f32(x)
    y = _requantise(x, spec)
    if y is None:
        y = epilogue(x, spec)
    if v["pool"]:
        y = _window_max(y)
    raw = np.ascontiguousarray(y).view(np.uint8)
    counts = (v["c2"], v["c1"])
    if v["scatter"]:
        _scatter(m, v, raw)
        return
    if v["dest"] == Dest.DRAM:
        m.memory.scatter(v["dst"], counts, (v["s2"], v["s1"]), raw)
        return
    dim = m.config.dim
    width = dim * TYPE_BYTES[Type(v["out"])]
    write_rows(m.spad, v["dst"], counts, (v["s2"], v["s1"]), v["d0"], dim, width, raw)
