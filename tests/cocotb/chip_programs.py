"""Programs and constants that the tests of the whole chip share."""

import numpy as np
from chip_bench import Bench, settings
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.program import Program

CONFIG = parse_config(settings()["config"])
DIM = CONFIG.dim
OUT = 0x8000  # results
GAPS = tuple(settings()["gaps"])  # typical longest pauses of a channel
SLOW = GAPS[-1]


def program(text: str, *data: tuple[int, np.ndarray]) -> Program:
    """Assembled text with arrays at DRAM addresses."""
    code = assemble(text, config=CONFIG).code
    return Program(CONFIG, code, tuple((a, x.tobytes()) for a, x in data), dram_size=1 << 16)


def wipe() -> Program:
    """Zero into the local memories: they survive reset, the model starts from zero."""
    text = f"""
        load spad[0x0], fill, copy8, c0={DIM} c1={CONFIG.spad_granules} l1=1
        load acc[0x0], fill, copy32, c0={DIM} c1={CONFIG.acc_rows} l1=1
        halt"""
    return program(text)


_SMALL = f"""
    load acc[0x0], dram[0x1000], copy32, c0={DIM} c1=16 s1={4 * DIM} l1=1 ; done s0
    store dram[{OUT}], acc[0x0], i32->i32, int_path c0={DIM} c1=16 l1=1 s1={4 * DIM} ; wait s0>=1
    halt"""
_RNG = np.random.default_rng(7)
WORDS = _RNG.integers(-(1 << 31), 1 << 31, (16, DIM)).astype(np.int32)
#: A load, a store that waits for it, halt.
SMALL = program(_SMALL, (0x1000, WORDS))
_A, _W, _C = 0, CONFIG.spad_bank, CONFIG.acc_bank
_ROWS = f"c0={DIM} c1=16 l1=1 s1={4 * DIM}"
#: All units and all ports at once, for a while.
BUSY = program(
    f"""
        li r1, 0
    again:
        load spad[{_A}], dram[0x1000], copy8, c0={DIM} c1=32 s1={DIM} l1=1 ; done s0
        load spad[{_W}], dram[0x1000], copy8, c0={DIM} c1={DIM} s1={DIM} l1=1 ; done s0
        load acc[0x0], dram[0x1000], copy32, {_ROWS} ; done s1
        matmul acc[{_C}], spad[{_A}], spad[{_W}], i8*i8, r0=32 as0=1 ws=1 k={DIM} n={DIM} ; \
wait s0>=2 ; done s2
        store dram[{OUT}], acc[0x0], i32->i32, int_path {_ROWS} ; wait s1>=1
        store dram[{OUT + 0x800}], acc[{_C}], i32->i32, int_path {_ROWS} ; wait s2>=1
        fence
        add r1, r1, 1
        blt r1, 3, again
        halt""",
    (0x1000, WORDS),
)


async def ready(dut, gap: int = 0, seed: int = 0) -> Bench:
    """A chip out of reset."""
    bench = Bench(dut)
    await bench.power(gap, seed)
    await bench.reset()
    return bench


async def runs_right(bench: Bench):
    """SMALL gives what NumPy says, whatever happened before."""
    bench.data.mem.clear()
    await bench.run(SMALL)
    assert bench.data.read(OUT, WORDS.nbytes) == WORDS.tobytes()
