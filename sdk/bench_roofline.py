"""How near to the roofline compiled contractions come: DESIGN's table, and random products.

Every product comes from plain `jit`. What falls short is shown with the causes of its lost cycles:
those of the array's unit, and the beats and passes that its shape costs beyond the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import tilewright as tw
import tilewright.numpy as tnp
from tilewright import sim
from tilewright.bench import bf16_gemm, int8_gemm
from tilewright.compiler import emit
from tilewright.isa.config import ChipConfig
from tilewright.isa.program import Program
from tilewright.isa.table import Unit
from tilewright.sim.cycle import time_program
from tilewright.sim.timing import UNITS
from tilewright.sim.timing_causes import CAUSES

__tilewright_user_code__ = True
LONGEST = 2000  # sides of random products, log-uniform from 1
COUNT = 60  # random products
SLACK = 300  # cycles that a random product may have beyond its bound: fetch, first load, last store
MEDIAN, WORST = 0.97, 0.80
#: int8 with requantised results (M, N, K), and the utilisation to reach.
PRODUCTS = (
    ((512, 512, 512), 0.995), ((12544, 256, 64), 0.995), ((12544, 64, 256), 0.995),
    ((3136, 512, 128), 0.995), ((3136, 128, 512), 0.995), ((784, 1024, 256), 0.995),
    ((128, 128, 128), 0.955), ((64, 64, 64), 0.75),
)  # fmt: skip
#: Matrix and vector, over 1 MB: (rows, columns), type, and on which side the vector is.
VECTORS = (
    ((2048, 1024), "int8", "right"), ((2048, 1024), "int8", "left"),
    ((1024, 1024), "bf16", "right"), ((1024, 1024), "bf16", "left"),
    ((1024, 512), "float32", "right"), ((1024, 512), "float32", "left"),
    ((1999, 1003), "int8", "right"), ((1003, 1999), "int8", "left"),
)  # fmt: skip
DTYPE: dict[str, Any] = {"int8": np.int8, "bf16": tnp.bfloat16, "float32": np.float32}
SIZE = {"int8": 1, "bf16": 2, "float32": 4}


@tw.jit
def int32_gemm(x, w):
    """int8 (M, K) times int8 (K, N), int32 out."""
    return tnp.matmul(x, w, preferred_element_type=tnp.int32)


@dataclass
class Case:
    """One thing to measure.

    Parameters
    ----------
    bound : least cycles that count as 100 %.
    slack : cycles that are granted beyond it.
    reach : fraction to reach; None: it counts in the median and the worst of the random ones.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[np.ndarray, ...]
    bound: int
    slack: int = 0
    reach: float | None = None
    group: str = "table"


@dataclass
class Row:
    """What was measured; `share` is (bound + slack) / cycles, `lost` names cycles beyond them."""

    name: str
    group: str
    cycles: int
    bound: int
    share: float
    reach: float | None
    schedule: str
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.share >= (WORST if self.reach is None else self.reach)


def _up(a: int, b: int) -> int:
    return -(-a // b)


def product_bound(config: ChipConfig, m: int, n: int, k: int, size: int, out: int) -> int:
    """Cycles that array and bus need: either operand stationary, every byte moved once."""
    d, bus = config.dim, config.bus_bytes
    one = _up(k, d) * _up(n, d) * max(m, d)
    other = _up(k, d) * _up(m, d) * max(n, d)
    return max(min(one, other), _up((m * k + k * n) * size, bus), _up(m * n * out, bus))


def _zeros(kind: str, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.zeros(s, DTYPE[kind]) for s in shapes)


def table_cases(config: ChipConfig) -> Iterator[Case]:
    """DESIGN section 10, contractions."""
    cells = config.dim**2
    for (m, n, k), reach in PRODUCTS:
        arguments = (*_zeros("int8", (m, k), (k, n)), np.ones(n, np.float32))
        yield Case(f"int8 {m}x{n}x{k}", int8_gemm, arguments, m * n * k // cells, 0, reach)
    if config.array == "bf16":
        for kind, reach in (("bf16", 0.99), ("float32", 0.97)):
            arguments = _zeros(kind, (512, 512), (512, 512))
            function = bf16_gemm
            yield Case(
                f"{kind} 512x512x512 -> fp32", function, arguments, 512**3 // cells, 0, reach
            )
    for (rows, cols), kind, side in VECTORS:
        if kind != "int8" and config.array != "bf16":
            continue
        bound = _up(
            (rows * cols + (cols if side == "right" else rows)) * SIZE[kind], config.bus_bytes
        )
        left, right = ((rows, cols), (cols, 1)) if side == "right" else ((1, rows), (rows, cols))
        name = f"{kind} {'matrix x vector' if side == 'right' else 'vector x matrix'} {rows}x{cols}"
        function = int32_gemm if kind == "int8" else bf16_gemm
        yield Case(name, function, _zeros(kind, left, right), bound, 0, 0.97)


def random_cases(config: ChipConfig, seed: int, count: int = COUNT) -> Iterator[Case]:
    """Products with log-uniform sides, int8 -> int32 and bf16 -> float32 in turn."""
    rng = np.random.default_rng(seed)
    kinds = ("int8", "bf16") if config.array == "bf16" else ("int8",)
    for i in range(count):
        m, n, k = np.exp(rng.uniform(0, np.log(LONGEST), 3)).round().astype(int).tolist()
        kind = kinds[i % len(kinds)]
        function = int32_gemm if kind == "int8" else bf16_gemm
        bound = product_bound(config, m, n, k, SIZE[kind], 4)
        yield Case(f"{kind} {m}x{n}x{k}", function, _zeros(kind, (m, k), (k, n)), bound, SLACK,
                   group="random products")  # fmt: skip


def compiled(config: ChipConfig, case: Case) -> emit.Compiled:
    """The case's program with what it was made of."""
    with tw.default_device(tw.Device(config, "functional")):
        return case.function.lower(*case.arguments).compile().back  # type: ignore[attr-defined]


def _on_rtl(program: Program, case: Case) -> int:
    """Cycles of the RTL, which must leave the bytes of the functional engine on random operands."""
    rng = np.random.default_rng(0)
    memories = [sim.load_memory(program) for _ in range(2)]
    for port, like in zip(program.inputs, case.arguments, strict=True):
        value = rng.standard_normal(like.shape) * (50 if like.dtype == np.int8 else 1)
        for memory in memories:
            memory.write(port.addr, np.ascontiguousarray(value.astype(like.dtype)))
    results = [
        sim.run(program, memory, engine=engine, check=False)
        for engine, memory in zip(("rtl", "functional"), memories, strict=True)
    ]
    for port in program.outputs:
        count = int(np.prod(port.shape)) * np.dtype(port.dtype).itemsize
        got = [bytes(memory.read(port.addr, count)) for memory in memories]
        if got[0] != got[1]:
            raise AssertionError(f"{case.name}: the RTL's result is wrong")
    cycles = results[0].cycles
    assert cycles is not None
    return cycles


def measure(config: ChipConfig, case: Case, engine: str = "cycle") -> Row:
    """Compile and time one case; on the RTL its cycles must be those of the cycle engine."""
    back = compiled(config, case)
    timing = time_program(config, back.program.code)
    if engine == "rtl":
        cycles = _on_rtl(back.program, case)
        if cycles != timing.cycles:
            raise AssertionError(f"{case.name}: RTL {cycles} cycles, cycle engine {timing.cycles}")
    share = (case.bound + case.slack) / timing.cycles
    row = Row(case.name, case.group, timing.cycles, case.bound, share, case.reach,
              "; ".join(back.tiles.schedules))  # fmt: skip
    row.lost = _lost(case, timing)
    return row


def _lost(case: Case, timing: Any) -> dict[str, int]:
    """Cycles of the busiest unit beyond the bound, by its causes; they sum to cycles - bound."""
    units = {u: dict(zip(CAUSES, row, strict=True))
             for u, row in zip(UNITS, timing.causes, strict=True)}  # fmt: skip
    busiest = max(
        (Unit.MATMUL, Unit.VECTOR, Unit.LOAD, Unit.STORE), key=lambda u: units[u]["issuing"]
    )
    name = busiest.name
    what = {
        "MATMUL": "ragged blocks",
        "VECTOR": "words of loads and stores",
        "LOAD": "ragged runs or loads again",
        "STORE": "ragged runs",
    }
    out = {f"{name} {what[name]}": units[busiest]["issuing"] - case.bound}
    words = {"semaphore": "waits for others", "port": "waits for a port",
             "memory": "latency of memory or array", "empty": "start and end"}  # fmt: skip
    for cause, text in words.items():
        out[f"{name} {text}"] = units[busiest][cause]
    return {k: v for k, v in out.items() if v}


#: Products (M, N, K) on which the cost model is compared with exact cycles, and their type.
MODEL_SHAPES = (
    (64, 64, 64), (128, 128, 128), (256, 256, 256), (512, 512, 512), (784, 1024, 256),
    (101, 256, 62), (1, 484, 1030), (677, 1, 256), (4, 707, 61), (107, 18, 1958),
    (1729, 183, 140), (241, 54, 11), (40, 863, 1211), (3, 1624, 866), (60, 29, 1184),
)  # fmt: skip


def cost_model(config: ChipConfig) -> Iterator[dict[str, Any]]:
    """For each product the formula's price of its first choice, exact cycles, and those refined."""
    from tilewright.compiler import refine, schedule_cost, tile_contract

    for i, (m, n, k) in enumerate(MODEL_SHAPES):
        kind = ("int8", "bf16")[i % 2] if config.array == "bf16" else "int8"
        function = int32_gemm if kind == "int8" else bf16_gemm
        case = Case(f"{kind} {m}x{n}x{k}", function, _zeros(kind, (m, k), (k, n)), 0)
        back = compiled(config, case)
        kernel = back.kernels.kernels[0]
        problem = tile_contract.problem(kernel)
        first = schedule_cost.ranked(config, problem, 1)[0]
        price = round(schedule_cost.cost(config, problem, first))
        exact = refine.shaped_cycles(config, kernel, first)
        yield {"name": case.name, "schedule": str(first), "formula": price, "exact": exact,
               "off": price / exact - 1,
               "refined": time_program(config, back.program.code).cycles}  # fmt: skip


def summary(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Median and worst share of each group of random cases."""
    groups = dict.fromkeys(r.group for r in rows if r.group != "table")
    shares = {group: [r.share for r in rows if r.group == group] for group in groups}
    return {g: {"median": median(x), "worst": min(x), "count": len(x)} for g, x in shares.items()}
