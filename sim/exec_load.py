"""LOAD: DRAM (or a fill value) to a local memory, all rows in one NumPy assignment."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from tilewright.isa.extent import LOCAL_BYTES
from tilewright.isa.table import CONV_BYTES, Conv, Mem, Oob
from tilewright.sim.local import write_rows
from tilewright.sim.numerics import f32_parts, f32_to_bf16

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

_PARTS = (Conv.F32_HI, Conv.F32_MID, Conv.F32_LO)
_INTEGER = {Conv.I8_I32: np.int8, Conv.U8_I32: np.uint8}


def run_beats(
    address: int, counts: tuple[int, ...], strides: tuple[int, ...], run: int, bus: int
) -> int:
    """Data beats of strided runs of `run` bytes: each ceil((offset + bytes) / bus)."""
    starts = {address % bus: 1}  # offset in the bus word -> how many runs start there
    for n, s in zip(counts, strides, strict=True):
        step = s % bus if n > 1 else 0
        if step == 0:
            starts = {o: times * n for o, times in starts.items()}
            continue
        period = bus // gcd(step, bus)
        moved: dict[int, int] = {}
        for o, times in starts.items():
            for j in range(min(n, period)):
                to = (o + j * step) % bus
                moved[to] = moved.get(to, 0) + times * (n // period + (j < n % period))
        starts = moved
    return sum(times * -(-(o + run) // bus) for o, times in starts.items())


def beats(v: Mapping[str, int], bus: int) -> int:
    """Data beats that this LOAD reads."""
    if v["fill"]:
        return 0
    counts, strides = (v["c3"], v["c2"], v["c1"]), (v["s3"], v["s2"], v["s1"])
    return run_beats(v["dram"], counts, strides, v["c0"] * CONV_BYTES[Conv(v["conv"])], bus)


def _convert(raw: np.ndarray, conv: Conv) -> np.ndarray:
    """(..., bytes in DRAM) to (..., bytes in the local memory), both uint8."""
    if conv is Conv.F32_BF16:
        return f32_to_bf16(np.ascontiguousarray(raw).view(np.float32)).view(np.uint8)
    if conv in _PARTS:
        parts = f32_parts(np.ascontiguousarray(raw).view(np.float32))
        return parts[_PARTS.index(conv)].view(np.uint8)
    if conv in _INTEGER:
        return raw.view(_INTEGER[conv]).astype(np.int32, order="C").view(np.uint8)
    return raw


def execute(m: Machine, v: Mapping[str, int]) -> None:
    """Run one LOAD with resolved values `v` on machine `m`."""
    conv = Conv(v["conv"])
    local = LOCAL_BYTES[conv]
    counts = (v["c3"], v["c2"], v["c1"])
    if v["fill"]:
        value = np.array([v["value"] & 0xFFFFFFFF], "<u4").view(np.uint8)[:local]
        data = np.broadcast_to(value, (*counts, v["c0"], local)).reshape(*counts, v["c0"] * local)
    else:
        strides = (v["s3"], v["s2"], v["s1"])
        run = v["c0"] * CONV_BYTES[conv]
        if v["gather"]:
            raw = _gathered(m, v, run)
        else:
            raw = m.memory.gather(v["dram"], counts, strides, run)
        data = _convert(raw, conv)
    if v["xpose"]:
        _transposed(m, v, data.reshape(*counts, v["c0"], local))
        return
    outer = 4 - v["pack"]
    rows = counts[:outer]
    data = data.reshape(*rows, -1)
    dim = m.config.dim
    steps = (v["l3"], v["l2"], v["l1"])[:outer]
    if v["mem"] == Mem.ACC:
        write_rows(m.acc_bytes, v["loc"], rows, steps, v["l0"], 4 * dim, 4 * dim, data)
    else:
        width = dim if local == 1 else 2 * dim
        write_rows(m.spad, v["loc"], rows, steps, v["l0"], dim, width, data)


def _gathered(m: Machine, v: Mapping[str, int], run: int) -> np.ndarray:
    """(c3, c2, c1, run) bytes of the runs that the indices name."""
    at = v["index"] * m.config.dim
    index = m.spad[at : at + 4 * v["c1"]].view("<i4").astype(np.int64)
    inside = np.clip(index, 0, v["bound"] - 1)
    counts, strides = (v["c3"], v["c2"]), (v["s3"], v["s2"])
    rows = [m.memory.gather(v["dram"] + x * v["s1"], counts, strides, run) for x in inside.tolist()]
    out = np.stack(rows, axis=2)
    if v["oob"] == Oob.FILL:
        size = CONV_BYTES[Conv(v["conv"])]
        value = (v["value"] & 0xFFFFFFFF).to_bytes(4, "little")[:size]
        out[:, :, inside != index] = np.frombuffer(value * v["c0"], np.uint8)
    return out


def _transposed(m: Machine, v: Mapping[str, int], data: np.ndarray) -> None:
    """Write (c3, c2, c1, c0, local bytes): blocks of `dim` runs, a unit for each element."""
    dim, (c3, c2, c1, c0, local) = m.config.dim, data.shape
    blocks = -(-c1 // dim)
    padded = np.zeros((c3, c2, blocks * dim, c0, local), np.uint8)
    padded[:, :, :c1] = data
    units = padded.reshape(c3, c2, blocks, dim, c0, local).swapaxes(3, 4)
    rows, steps = (c3, c2, blocks), (v["l3"], v["l2"], v["l1"])
    flat = units.reshape(*rows, c0 * dim * local)
    write_rows(m.spad, v["loc"], rows, steps, v["l0"], dim, dim * local, flat)
