"""A program for one chip, run on every engine, and the arithmetic that its result is held against.

The tests beside this file carry the names of Gemmini's bare-metal tests (docs/gemmini.md); programs
and expected values are our own. Expected values are plain NumPy: integers in int64, the epilogue's
fp32 steps in float32.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from tilewright import sim
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.program import Program
from tilewright.sim.rtl_build import RtlUnavailableError, require_tools, verilator_root

CHIPS = ("tw4", "tw8", "dim=2,spad_kib=4,acc_kib=2")
JUNK = 0xA5  # what rooms for results hold before the run
INFINITY = 0x7F800000
every_chip = pytest.mark.parametrize("chip", CHIPS)


def engines():
    """Those that this machine has."""
    try:
        require_tools()
        verilator_root()
    except RtlUnavailableError:
        return ("functional", "cycle")
    return sim.ENGINES


@dataclass(frozen=True)
class Room:
    """Where an array lies in DRAM; `pitch` is the bytes from one row to the next."""

    address: int
    shape: tuple
    dtype: np.dtype
    pitch: int

    @property
    def bytes(self):
        """From the first byte to the end of the last row."""
        *rows, width = self.shape
        return (int(np.prod(rows)) - 1) * self.pitch + width * self.dtype.itemsize


class Bench:
    """Collects data and assembly, then runs them.

    Parameters
    ----------
    chip : a configuration's name.
    seed : of `random`.
    """

    def __init__(self, chip, seed=0):
        self.config = parse_config(chip)
        self.dim = self.config.dim
        self.rng = np.random.default_rng(seed)
        self.lines = []
        self._data = []
        self._end = 64

    def _take(self, shape, dtype, pitch, skew):
        dtype = np.dtype(dtype)
        room = Room(self._end + skew, tuple(shape), dtype, pitch or shape[-1] * dtype.itemsize)
        self._end = (blocks(room.address + room.bytes, 64) + 1) * 64
        return room

    def put(self, array, pitch=None, skew=0):
        """An array's place in DRAM, `skew` bytes behind a multiple of 64; junk between its rows."""
        room = self._take(array.shape, array.dtype, pitch, skew)
        raw = np.full(room.bytes, JUNK, np.uint8)
        flat = np.ascontiguousarray(array).reshape(-1, array.shape[-1]).view(np.uint8)
        for i, row in enumerate(flat):
            raw[i * room.pitch :][: row.size] = row
        self._data.append((room.address, raw.tobytes()))
        return room

    def room(self, *shape, dtype=np.int8, pitch=None, skew=0):
        """A place for a result, full of junk."""
        room = self._take(shape, dtype, pitch, skew)
        self._data.append((room.address - 8, bytes([JUNK]) * (room.bytes + 16)))
        return room

    def random(self, *shape, dtype=np.int8):
        """Full-range integers."""
        info = np.iinfo(dtype)
        return self.rng.integers(info.min, info.max + 1, shape, dtype)

    def words(self, *shape):
        """int32, half of them small: a byte's range survives saturation, all bits are used."""
        small = self.rng.integers(-300, 300, shape, np.int32)
        return np.where(self.rng.random(shape) < 0.5, small, self.random(*shape, dtype=np.int32))

    def __iadd__(self, text):
        """Add assembly."""
        self.lines.append(text)
        return self

    def run(self):
        """Run on every engine; all must agree. Gives the last one's `Result`."""
        text = "\n".join([*self.lines, "halt"])
        code = assemble(text, config=self.config)
        program = Program(self.config, code.code, tuple(self._data), dram_size=self._end)
        results = [sim.run(program, engine=e, check=e == "cycle") for e in engines()]
        for result in results:
            assert result.fault is None, f"{result.fault}\n{text}"
            assert sim.differences(results[1], result) == []
        return Result(results[-1])


@dataclass(frozen=True)
class Result:
    """What a run left."""

    run: sim.RunResult

    def read(self, room):
        """The array of a room; what lies around and between its rows must be untouched."""
        raw = self.run.memory.read(room.address - 8, room.bytes + 16)
        *rows, width = room.shape
        width *= room.dtype.itemsize
        mine = np.zeros(raw.size, bool)
        for i in range(int(np.prod(rows))):
            mine[8 + i * room.pitch :][:width] = True
        assert (raw[~mine] == JUNK).all(), "bytes beside the result were written"
        return raw[mine].view(room.dtype).reshape(room.shape)


def requantise(total, scale=1.0, low=None, high=None, zero=0, dtype=np.int8):
    """STORE's epilogue: fp32, scale, clamp, nearest even, zero point, saturate."""
    y = np.asarray(total).astype(np.float32) * np.asarray(scale, np.float32)
    y = y if low is None else np.clip(y, np.float32(low), np.float32(high))
    info = np.iinfo(dtype)
    return np.clip(np.rint(y).astype(np.float64) + zero, info.min, info.max).astype(dtype)


def wrap(total):
    """int32 of an exact integer."""
    return (np.asarray(total, np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def product(a, b):
    """Exact integer product."""
    return a.astype(np.int64) @ b.astype(np.int64)


#: Gemmini's activations: flags of STORE, lower and upper bound.
ACTIVATIONS = {
    "none": ("", None, None),
    "relu": (f"clamp lo=0 hi={INFINITY}", 0, np.inf),
    "relu6": ("clamp lo=0 hi=f32(6)", 0, 6),
}
activations = pytest.mark.parametrize("activation", ACTIVATIONS)


def blocks(count, dim):
    """Units of a row of `count` elements."""
    return -(-count // dim)
