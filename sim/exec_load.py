"""LOAD: DRAM (or a fill value) to a local memory, all rows in one NumPy assignment.

`prepare` works out once what follows from the fields; the `Step` that it gives moves the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
from tilewright.isa.config import ChipConfig
from tilewright.isa.extent import boxes, derived, joined, lacks
from tilewright.isa.extent_table import LOCAL_BYTES
from tilewright.isa.table import CONV_BYTES, INSTRUCTIONS, Conv, Mem, Oob
from tilewright.sim.local import RowWriter
from tilewright.sim.memory import Runs
from tilewright.sim.numerics import f32_parts, f32_to_bf16

if TYPE_CHECKING:
    from tilewright.sim.functional import Machine

Step = Callable[["Machine"], None]  # the data of one instruction
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
    run = v["c0"] * CONV_BYTES[Conv(v["conv"])]
    if joined(INSTRUCTIONS["load"], v):  # they share beats as one run does
        return run_beats(v["dram"], (v["c3"], v["c2"]), (v["s3"], v["s2"]), run * v["c1"], bus)
    total = 0
    for offset, dims in boxes(v):
        counts, strides = tuple(n for n, _ in dims), tuple(s for _, s in dims)
        total += run_beats(v["dram"] + offset, counts, strides, run, bus)
    return total


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


def prepare(config: ChipConfig, v: Mapping[str, int]) -> Step:
    """What one LOAD with resolved values `v` does to a machine."""
    conv = Conv(v["conv"])
    read = _fill(v) if v["fill"] else _gathered(config, v) if v["gather"] else _strided(v)
    convert = not v["fill"] and LOCAL_BYTES[conv] != CONV_BYTES[conv]
    counts: tuple[int, ...] = (v["c3"], v["c2"], v["c1"])[: 4 - v["pack"]]
    if v["xpose"]:
        blocks = -(-derived(config, INSTRUCTIONS["load"], v)["sequence"] // config.dim)
        counts = (*counts[:-1], blocks)
        length = v["c0"] * config.dim * LOCAL_BYTES[conv]
    else:
        length = v["c0"] * LOCAL_BYTES[conv]
        length *= v["c1"] if v["pack"] > 1 else 1
        length *= v["c2"] if v["pack"] > 2 else 1
    writer = _writer(config, v, counts, length)
    accumulator = v["mem"] == Mem.ACC and not v["xpose"]
    shape = (*counts, length)

    def run(m: Machine) -> None:
        data = read(m)
        if convert:
            data = _convert(data, conv)
        if v["xpose"]:
            data = _blocks(config.dim, v, data)
        writer.write(m.acc_bytes if accumulator else m.spad, data.reshape(shape))

    return run


def _writer(
    config: ChipConfig, v: Mapping[str, int], counts: tuple[int, ...], length: int
) -> RowWriter:
    """Where rows of `length` bytes go."""
    dim, local = config.dim, LOCAL_BYTES[Conv(v["conv"])]
    row = unit = dim
    if v["xpose"]:
        unit = dim * local
    elif v["mem"] == Mem.ACC:
        row = unit = 4 * dim
    elif local > 1:
        unit = 2 * dim
    strides = (v["l3"], v["l2"], v["l1"])[: len(counts)]
    if v["xpose"]:
        strides = (*strides[:-1], v["l1"])
    return RowWriter(v["loc"], counts, strides, v["l0"], row, unit, length)


def _fill(v: Mapping[str, int]) -> Callable[[Machine], np.ndarray]:
    """(c3, c2, c1, bytes) of the fill value, as in the local memory."""
    local = LOCAL_BYTES[Conv(v["conv"])]
    value = np.array([v["value"] & 0xFFFFFFFF], "<u4").view(np.uint8)[:local]
    data = np.broadcast_to(np.tile(value, v["c0"]), (v["c3"], v["c2"], v["c1"], v["c0"] * local))
    return lambda m: data


def _strided(v: Mapping[str, int]) -> Callable[[Machine], np.ndarray]:
    """(c3, c2, c1, run) bytes of DRAM."""
    counts, strides = (v["c3"], v["c2"], v["c1"]), (v["s3"], v["s2"], v["s1"])
    runs = Runs(v["dram"], counts, strides, v["c0"] * CONV_BYTES[Conv(v["conv"])])
    return lambda m: m.memory.read_runs(runs)


def _gathered(config: ChipConfig, v: Mapping[str, int]) -> Callable[[Machine], np.ndarray]:
    """(c3, c2, c1, run) bytes of the runs that the indices name."""
    at = v["index"] * config.dim
    counts, strides = (v["c3"], v["c2"]), (v["s3"], v["s2"])
    size = CONV_BYTES[Conv(v["conv"])]
    run = v["c0"] * size
    outside = np.frombuffer((v["value"] & 0xFFFFFFFF).to_bytes(4, "little")[:size], np.uint8)

    def read(m: Machine) -> np.ndarray:
        index = m.spad[at : at + 4 * v["c1"]].view("<i4").astype(np.int64)
        inside = np.clip(index, 0, v["bound"] - 1)
        starts = (v["dram"] + inside * v["s1"]).tolist()
        out = np.stack([m.memory.gather(x, counts, strides, run) for x in starts], axis=2)
        if v["oob"] == Oob.FILL:
            out[:, :, inside != index] = np.tile(outside, v["c0"])
        return out

    return read


def _blocks(dim: int, v: Mapping[str, int], data: np.ndarray) -> np.ndarray:
    """Blocks of `dim` runs of (c3, c2, c1, local bytes of c0 elements), a unit for each element."""
    local, c0 = LOCAL_BYTES[Conv(v["conv"])], v["c0"]
    outer = (v["c3"], v["c2"])[: 3 - v["pack"]]
    sequences = data.reshape(*outer, -1, c0, local)
    skip, drop = lacks(v)
    sequences = sequences[..., skip : sequences.shape[-3] - drop, :, :]
    runs = sequences.shape[-3]
    blocks = -(-runs // dim)
    padded = np.zeros((*outer, blocks * dim, c0, local), np.uint8)
    padded[..., :runs, :, :] = sequences
    return padded.reshape(*outer, blocks, dim, c0, local).swapaxes(-2, -3)
