"""Measurements: how fast the engines run, and how busy compiled programs keep the array.

Every ratio is of figures from one run on one machine, measured alternately, best of several.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.isa.config import INSTR_BYTES, ChipConfig
from tilewright.isa.program import Program
from tilewright.sim import cycle, rtl_build

__tilewright_user_code__ = True
SIZE = 512  # of the matrix product that the engines run
CODE_BASE = 0xF0000000
IDLE_CYCLES = 1_000_000
BUSY_RATIO, IDLE_RATE, BUILD_SECONDS, CYCLE_RATIO = 0.75, 1e6, 90.0, 1 / 16


@tw.jit
def int8_gemm(x, w, scale):
    """int8 (M, K) times int8 (K, N), requantised to int8 with one scale per column."""
    y = tnp.matmul(x, w, preferred_element_type=tnp.int32).astype(tnp.float32) * scale
    return tnp.clip(tnp.round(y), -128, 127).astype(tnp.int8)


@tw.jit
def bf16_gemm(x, w):
    """bfloat16 (M, K) times bfloat16 (K, N), float32 out."""
    return tnp.matmul(x, w, preferred_element_type=tnp.float32)


def kinds_of(config: ChipConfig) -> tuple[str, ...]:
    """The products that a chip is measured with."""
    return ("bf16", "int8") if config.array == "bf16" else ("int8",)


def gemm_arguments(m: int, n: int, k: int, seed: int = 0) -> list[np.ndarray]:
    """Random operands of `int8_gemm`."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (m, k), np.int8)
    w = rng.integers(-128, 128, (k, n), np.int8)
    return [x, w, rng.uniform(1e-4, 1e-2, n).astype(np.float32)]


def expected_gemm(x: np.ndarray, w: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What `int8_gemm` must give, by NumPy: sums are exact in float64."""
    y = (x.astype(np.float64) @ w.astype(np.float64)).astype(np.float32) * scale
    return np.clip(np.rint(y), -128, 127).astype(np.int8)


def gemm_program(
    config: ChipConfig, m: int, n: int, k: int, kind: str = "int8"
) -> tuple[Program, sim.Memory]:
    """The compiled product, int8 or bf16, and a DRAM that holds its operands."""
    arguments = gemm_arguments(m, n, k)
    function = int8_gemm
    if kind == "bf16":
        rng = np.random.default_rng(0)
        arguments = [rng.standard_normal(s).astype(tnp.bfloat16) for s in ((m, k), (k, n))]
        function = bf16_gemm
    with tw.default_device(tw.Device(config, "functional")):
        program = function.lower(*arguments).compile().program
    memory = sim.load_memory(program)
    for port, value in zip(program.inputs, arguments, strict=True):
        memory.write(port.addr, value)
    return program, memory


def seconds(task: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of a call, by default on the wall."""
    start = clock()
    task()
    return clock() - start


@contextmanager
def fresh_cache() -> Iterator[None]:
    """Keep built chips in a folder that is empty now and gone afterwards."""
    before = os.environ.get("TILEWRIGHT_CACHE")
    with tempfile.TemporaryDirectory(prefix="tilewright-bench-") as folder:
        os.environ["TILEWRIGHT_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["TILEWRIGHT_CACHE"]
            else:
                os.environ["TILEWRIGHT_CACHE"] = before


def _busy(chip: Any, program: Program) -> float:
    """Cycles per second of a run in which the array is busy."""
    chip.start(CODE_BASE, len(program.code) // INSTR_BYTES)
    spent = seconds(lambda: chip.finish(100_000_000))
    return chip.counters()["cycles"] / spent


def _rows(program: Program) -> int:
    """Rows of a typical pass."""
    return max(i["r0"] * i["r1"] for i in program.instructions() if i.spec.name == "matmul")


def rtl_speed(config: ChipConfig, say: Callable[[str], None], rounds: int = 5) -> dict[str, float]:
    """Build times, and cycles per second: busy and bare array with the same kind of data, idle.

    Chip and array run in turn; what counts is the median of each.
    """
    from tilewright.bench_array import BareArray
    from tilewright.sim.rtl import RtlChip

    kinds = kinds_of(config)
    work = {kind: gemm_program(config, SIZE, SIZE, SIZE, kind) for kind in kinds}
    pairs: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with fresh_cache():
        say("building the RTL engine")
        first = seconds(lambda: rtl_build.library(config))
        cached = seconds(lambda: rtl_build.library(config))
        say("building the bare array")
        with BareArray(config) as bare, RtlChip(config) as chip:
            for kind, (program, memory) in work.items():
                for address, content in memory.chunks():
                    chip.write(address, content)
                chip.write(CODE_BASE, program.code)
                say(f"running both, {kind}")
                cycles, rows = SIZE**3 // config.dim**2, _rows(program)
                for _ in range(rounds):
                    pairs[kind].append((_busy(chip, program), bare.rate(cycles, rows, kind)))
            idle = max(IDLE_CYCLES / seconds(lambda: chip.spin(IDLE_CYCLES)) for _ in range(rounds))
    out = {
        "build_seconds": first,
        "cached_build_seconds": cached,
        "idle_cycles_per_second": idle,
    }
    for kind in kinds:
        busy, alone = (median(p[i] for p in pairs[kind]) for i in (0, 1))
        out[f"{kind}_busy_cycles_per_second"] = busy
        out[f"{kind}_bare_array_cycles_per_second"] = alone
        out[f"{kind}_busy_ratio"] = busy / alone
    return out


def cycle_speed(
    config: ChipConfig, say: Callable[[str], None], rounds: int = 15
) -> dict[str, float]:
    """MAC/s of the cycle engine with results, and of NumPy's float32 product of that size.

    `cold` rounds time the program anew; the others remember its cycles, as repeated calls do. All
    seconds are those of the calling thread on its CPU, so that other work on the machine does not
    count: NumPy's second thread counts as far as this one waits for it.
    """
    say("running the cycle engine and NumPy")
    program, memory = gemm_program(config, SIZE, SIZE, SIZE)
    a, b = (np.random.default_rng(i).random((SIZE, SIZE), np.float32) for i in (0, 1))

    def run() -> None:
        sim.run(program, memory, engine="cycle", check=False)

    def product() -> None:
        np.matmul(a, b)

    cold, warm, numpy = [], [], []
    for _ in range(rounds):
        cycle.forget()
        cold.append(seconds(run, time.thread_time))
        warm.append(seconds(run, time.thread_time))
        numpy.append(min(seconds(product, time.thread_time) for _ in range(5)))
    (port,) = program.outputs
    got = memory.read(port.addr, SIZE * SIZE).view(np.int8).reshape(SIZE, SIZE)
    if not np.array_equal(got, expected_gemm(*gemm_arguments(SIZE, SIZE, SIZE))):
        raise AssertionError("the cycle engine's product is wrong")
    macs = SIZE**3
    return {
        "cycle_macs_per_second": macs / min(cold),
        "cycle_warm_macs_per_second": macs / min(warm),
        "numpy_macs_per_second": macs / min(numpy),
        "cycle_ratio": min(numpy) / min(cold),
        "cycle_warm_ratio": min(numpy) / min(warm),
    }


def gemm_utilisation(config: ChipConfig, engine: str, m: int, n: int, k: int) -> dict[str, float]:
    """Cycles and utilisation of one int8 product from `jit`; its result is checked by NumPy."""
    arguments = gemm_arguments(m, n, k)
    device = tw.Device(config, engine)
    with tw.profile() as profile:
        got = np.asarray(int8_gemm(*tw.device_put(arguments, device)))
    if not np.array_equal(got, expected_gemm(*arguments)):
        raise AssertionError(f"the {engine} engine's product is wrong")
    return {
        "m": m, "n": n, "k": k,
        "cycles": profile.cycles,
        "utilisation": profile.utilisation,
        "roofline_utilisation": profile.roofline_utilisation,
    }  # fmt: skip
