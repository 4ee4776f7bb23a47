"""The bare array's speed in Verilator: the yardstick of the RTL engine.

The array alone, with registered inputs, compiled as the chip is, fed with rows and weights like a
busy chip's: a row of random int8 or normal bf16 in every cycle, a new tile's weights every `rows`
cycles. An `int8` array takes integers of 9 bits, any bits will do.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from pathlib import Path

from tilewright.isa.config import ChipConfig
from tilewright.sim.rtl_build import VERILATOR_FLAGS, compile_verilog
from tilewright.sim.rtl_sources import array_sources

_HARNESS = """
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include "Vtilewright.h"
#include "verilated.h"

static const int kDim = {dim}, kLane = {lane}, kRows = 512;
static uint16_t rows[kRows][kDim];

extern "C" uint32_t bare_run(uint64_t cycles, uint32_t period, int floats) {{
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::uniform_int_distribution<int> integer(-128, 127);
    for (auto& row : rows)
        for (auto& word : row) {{
            float value = floats ? normal(random) : integer(random);
            uint32_t bits;
            std::memcpy(&bits, &value, 4);
            word = kLane == 16 ? bits >> 16 : random();
        }}
    if (kLane < 16)  // packed: nothing above the port's last bit
        for (auto& row : rows) {{
            uint8_t* bytes = reinterpret_cast<uint8_t*>(row);
            std::memset(bytes + (kDim * kLane + 7) / 8, 0, sizeof row - (kDim * kLane + 7) / 8);
            if (kDim * kLane % 8) bytes[kDim * kLane / 8] &= (1 << kDim * kLane % 8) - 1;
        }}
    auto top = std::make_unique<Vtilewright>();
    uint32_t sum = 0, slot = 0;
    for (uint64_t t = 0; t < cycles; t++) {{
        std::memcpy(&top->a, rows[t % kRows], sizeof top->a);
        top->valid = 1, top->rst = t < 4, top->switch_ = slot == 0;
        top->w_valid = slot >= period - kDim;
        if (top->w_valid) std::memcpy(&top->w, rows[(t * 7 + 3) % kRows], sizeof top->w);
        if (++slot == period) slot = 0;
        top->clk = 1, top->eval();
        top->clk = 0, top->eval();
        uint32_t part;
        std::memcpy(&part, &top->sum, 4);
        sum ^= part;
    }}
    top->final();
    return sum;
}}
"""


class BareArray:
    """The compiled array of one chip; a context manager, because its library is temporary."""

    def __init__(self, config: ChipConfig):
        self.dim = config.dim
        self._folder = tempfile.TemporaryDirectory(prefix="tilewright-array-")
        folder = Path(self._folder.name)
        harness = folder / "harness.cpp"
        harness.write_text(
            _HARNESS.format(dim=config.dim, lane=16 if config.array == "bf16" else 9)
        )
        out = folder / "array.so"
        compile_verilog(array_sources(config), harness, out, config.bus_bytes, VERILATOR_FLAGS)
        self._run = ctypes.CDLL(str(out)).bare_run
        self._run.argtypes = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int]
        self._run.restype = ctypes.c_uint32

    def __enter__(self) -> BareArray:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()

    def rate(self, cycles: int, rows: int, kind: str) -> float:
        """Cycles per second when each tile of weights serves `rows` rows of int8 or bf16."""
        start = time.perf_counter()
        self._run(cycles, max(rows, self.dim), kind == "bf16")
        return cycles / (time.perf_counter() - start)
