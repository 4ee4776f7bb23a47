"""STORE: local rows through the epilogue to DRAM or to the scratchpad.

`prepare` works out once what follows from the fields; the function that it gives does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.extent import joined
from tilewright.isa.table import INSTRUCTIONS, TYPE_BYTES, Dest, Mem, Type
from tilewright.sim.exec_load import run_beats
from tilewright.sim.local import RowWriter, View
from tilewright.sim.memory import Runs
from tilewright.sim.numerics import INT_RANGE, Epilogue, bf16_to_f32, bfloat16, epilogue

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

_OUT = {Type.I8: "int8", Type.U8: "uint8", Type.BF16: "bf16", Type.F32: "fp32", Type.I32: "int32"}
_DTYPE: dict[Type, Any] = {
    Type.I8: np.int8,
    Type.U8: np.uint8,
    Type.BF16: bfloat16,
    Type.F32: np.float32,
    Type.I32: np.int32,
}
#: int32 rows, ibias, scale, bias to rows of 8 bits.
Requantise = Callable[[np.ndarray, Any, Any, Any], np.ndarray]
_SMALL = np.float32(2.0**-60)  # a sum of multiples of its last place never reaches a subnormal
_LARGE = np.float32(2.0**60)


def beats(v: Mapping[str, int], bus: int) -> int:
    """Data beats that this STORE writes."""
    if v["dest"] != Dest.DRAM:
        return 0
    run = v["c0"] * TYPE_BYTES[Type(v["out"])]
    if joined(INSTRUCTIONS["store"], v):
        return run_beats(v["dst"], (v["c2"],), (v["s2"],), v["c1"] * run, bus)
    across = 0 if v["scatter"] else v["s1"]  # a scatter's is a multiple of the bus's bytes
    return run_beats(v["dst"], (v["c2"], v["c1"]), (v["s2"], across), run, bus)


def _source(config: ChipConfig, v: Mapping[str, int]) -> tuple[View, tuple[int, ...]]:
    """Where the rows are, and their shape (c2, c1, c0 in whole units) of the source type.

    With `pool` (c2, c1, pool_h, pool_w, c0 in whole units), with `xpose` (c2, blocks, c0, dim).
    """
    dim, kind = config.dim, Type(v["type"])
    row = 4 * dim if v["mem"] == Mem.ACC else dim
    if v["xpose"]:
        shape = v["c2"], -(-v["c1"] // dim), v["c0"]
        view = View(_DTYPE[kind], v["loc"], shape, (v["l2"], v["l1"], v["l0"]), row, dim)
        return view, (*shape, dim)
    units = -(-v["c0"] // dim)
    counts: tuple[int, ...] = (v["c2"], v["c1"])
    strides: tuple[int, ...] = (v["l2"], v["l1"])
    if v["pool"]:
        counts = (*counts, v["pool_h"], v["pool_w"])
        strides = (v["pool_sh"] * v["l2"], v["pool_sw"] * v["l1"], *strides)
    view = View(_DTYPE[kind], v["loc"], (*counts, units), (*strides, v["l0"]), row, dim)
    return view, (*counts, units * dim)


def _window_max(y: np.ndarray) -> np.ndarray:
    """Maximum over the two axes before the last; NaN (there is one only) wins, -0 is below +0."""
    words: dict[Any, Any] = {np.dtype(np.float32): np.int32, np.dtype(bfloat16): np.int16}
    bits = words.get(y.dtype)
    if bits is None:
        return y.max(axis=(-3, -2))
    order = np.ascontiguousarray(y).view(bits)
    low = order.dtype.type(np.iinfo(bits).max)
    order = np.where(order < 0, order ^ low, order).max(axis=(-3, -2))
    return np.where(order < 0, order ^ low, order).view(y.dtype)


def _vectors(config: ChipConfig, v: Mapping[str, int]) -> list[slice | None]:
    """Which words of the accumulator are ibias, scale, bias; None if it is not enabled."""
    out: list[slice | None] = []
    row = v["vec"]
    for name in ("ibias", "scale", "bias"):
        at = row * config.dim
        out.append(slice(at, at + v["c0"]) if v[name] else None)
        row += v["vs"] if v[name] else 0
    return out


def _clamp(v: Mapping[str, int]) -> tuple[Any, Any]:
    if not v["clamp"]:
        return None, None
    bits = np.array([v["lo"] & 0xFFFFFFFF, v["hi"] & 0xFFFFFFFF], np.uint32)
    return tuple(bits.view(np.int32 if v["int_path"] else np.float32))


def _tame(x: np.ndarray | None) -> bool:
    """Whether every value is zero or far from overflow and underflow."""
    if x is None:
        return True
    size = np.abs(x)
    if not size.max() <= _LARGE:  # NaN, too
        return False
    return bool(size.min() >= _SMALL or ((size >= _SMALL) | (size == 0)).all())


def _requantiser(kind: Type, spec: Epilogue) -> Requantise | None:
    """int32 to int8 or uint8 in plain float32, or None if special values could matter.

    The scale must be there, and scale and bias tame. Then no product or sum overflows, is subnormal
    or is NaN, and the sign of a zero is lost in rounding, so NumPy's arithmetic is the chip's.
    """
    bounds = [b for b in (spec.lo, spec.hi) if b is not None]
    narrow = spec.out in ("int8", "uint8") and not spec.int_path
    if kind is not Type.I32 or not narrow or not all(np.isfinite(b) for b in bounds):
        return None
    (low, high), zero = INT_RANGE[spec.out], np.float32(spec.zero_point)
    least, most, out = np.float32(low), np.float32(high), np.dtype(spec.out)
    inside = len(bounds) == 2 and all(low <= np.rint(b) + zero <= high for b in bounds)

    def run(x: np.ndarray, ibias: Any, scale: Any, bias: Any) -> np.ndarray:
        y = (x if ibias is None else np.add(x, ibias)).astype(np.float32, order="C")
        y *= scale
        if bias is not None:
            y += bias
        if spec.lo is not None:
            np.maximum(y, spec.lo, out=y)
        if spec.hi is not None:
            np.minimum(y, spec.hi, out=y)
        np.rint(y, out=y)
        if zero:
            y += zero
        if not inside:
            np.clip(y, least, most, out=y)
        return y.astype(out)

    return run


def _scatter(m: Machine, v: Mapping[str, int], raw: np.ndarray) -> None:
    """Write rows (c2, c1, bytes) at the places that the scratchpad names, in order."""
    dim, bound = m.config.dim, v["bound"]
    start = v["index"] * dim
    index = m.spad.reshape(-1)[start : start + 4 * v["c1"]].view("<i4").tolist()
    for i2 in range(v["c2"]):
        for row, x in zip(raw[i2], index, strict=True):
            if 0 <= x < bound:
                m.memory.write(v["dst"] + x * v["s1"] + i2 * v["s2"], row)


def _sink(config: ChipConfig, v: Mapping[str, int]) -> Callable[[Machine, np.ndarray], None]:
    """What writes rows (c2, c1, bytes)."""
    counts, strides = (v["c2"], v["c1"]), (v["s2"], v["s1"])
    size = TYPE_BYTES[Type(v["out"])]
    if v["scatter"]:
        return lambda m, raw: _scatter(m, v, raw)
    if v["dest"] == Dest.DRAM:
        runs = Runs(v["dst"], counts, strides, v["c0"] * size)
        return lambda m, raw: m.memory.write_runs(runs, raw)
    dim = config.dim
    rows = RowWriter(v["dst"], counts, strides, v["d0"], dim, dim * size, v["c0"] * size)
    return lambda m, raw: rows.write(m.spad, raw)


def prepare(config: ChipConfig, v: Mapping[str, int]) -> Callable[[Machine], None]:
    """What one STORE with resolved values `v` does to a machine."""
    kind, width, accumulator = Type(v["type"]), v["c0"], v["mem"] == Mem.ACC
    pool, xpose, blocks = v["pool"], v["xpose"], -(-v["c1"] // config.dim)
    view, shape = _source(config, v)
    lo, hi = _clamp(v)
    plain = Epilogue(
        int_path=bool(v["int_path"]), lo=lo, hi=hi, zero_point=v["zp"], out=_OUT[Type(v["out"])]
    )
    places = _vectors(config, v)
    requantise = _requantiser(kind, plain) if v["scale"] else None
    write = _sink(config, v)

    def run(m: Machine) -> None:
        x = view.of(m.acc_bytes if accumulator else m.spad).reshape(shape)
        if xpose:
            x = x.swapaxes(2, 3).reshape(v["c2"], blocks * config.dim, width)[:, : v["c1"]]
        x = x[..., :width]
        words = m.acc.reshape(-1)
        ibias, scale, bias = (None if at is None else words[at] for at in places)
        factor = None if scale is None else scale.view(np.float32)
        term = None if bias is None else bias.view(np.float32)
        if requantise is not None and _tame(factor) and _tame(term):
            y = requantise(x, ibias, factor, term)
        else:
            y = epilogue(_widened(x, kind), replace(plain, ibias=ibias, scale=factor, bias=term))
        if pool:
            y = _window_max(y)
        write(m, np.ascontiguousarray(y).view(np.uint8))

    return run


def _widened(x: np.ndarray, kind: Type) -> np.ndarray:
    """What the epilogue takes: int32 or float32."""
    if kind in (Type.I8, Type.U8):
        return x.astype(np.int32)
    return bf16_to_f32(x) if kind is Type.BF16 else x
