"""The modes that random instructions are dealt from: a deck of cards for each unit."""

from itertools import product

from tilewright.isa.config import ChipConfig
from tilewright.isa.table import Conv, Dest, Mem, Type

LOAD_MODES = (
    (Mem.SPAD, Conv.COPY8),
    (Mem.SPAD, Conv.COPY16),
    (Mem.SPAD, Conv.COPY32),
    (Mem.SPAD, Conv.F32_BF16),
    (Mem.SPAD, Conv.F32_HI),
    (Mem.SPAD, Conv.F32_MID),
    (Mem.SPAD, Conv.F32_LO),
    (Mem.ACC, Conv.COPY32),
    (Mem.ACC, Conv.I8_I32),
    (Mem.ACC, Conv.U8_I32),
)
PARTS = (Conv.F32_BF16, Conv.F32_HI, Conv.F32_MID, Conv.F32_LO)
#: How a LOAD gets its elements.
COPY, FILL, XPOSE, GATHER = "copy", "fill", "xpose", "gather"
XPOSED = tuple(mode for mode in LOAD_MODES if mode[0] == Mem.SPAD and mode[1] != Conv.COPY32)
STORE_SOURCES = (
    (Mem.ACC, Type.I32),
    (Mem.ACC, Type.F32),
    (Mem.SPAD, Type.I8),
    (Mem.SPAD, Type.U8),
    (Mem.SPAD, Type.BF16),
)

STORE_TARGETS = (
    *((Dest.DRAM, out) for out in Type),
    *((Dest.SPAD, out) for out in (Type.I8, Type.U8, Type.BF16)),
)
STORE_WAYS = ("plain", "pool", "scatter", "pool_scatter", XPOSE)
#: What an instruction's synchronisation is to look like besides what it needs.
WISHES = ("needs", "free", "two_waits", "take_many", "read_done", "done", "both_signals")
#: The modes of each instruction: kind x how x pack x ragged; types x accumulate x ragged k, n;
#: source x target x ragged x way. No length is a multiple of 37, so a stride of 37 deals all.
DECKS = {
    "load": (
        *product(LOAD_MODES, (COPY, FILL), (1, 2, 3), (0, 1)),
        *product(XPOSED, (XPOSE,), (1, 2, 3), (0, 1)),
        *product(LOAD_MODES, (GATHER,), (1, 2, 3), (0, 1)),
    ),
    "matmul": tuple(product(((0, 0), (0, 1), (1, 0), (1, 1), (2, 2)), (0, 1), (0, 1), (0, 1))),
    "store": tuple(product(STORE_SOURCES, STORE_TARGETS, (0, 1), STORE_WAYS)),
}


def matmul_modes(config: ChipConfig) -> tuple[tuple, ...]:
    """MATMUL's modes that this chip's array has."""
    return tuple(c for c in DECKS["matmul"] if config.array == "bf16" or Type.BF16 not in c[0])
