"""What a slot of STORE carries down the pipeline: two control words, `early` and `late`."""

from amaranth.hdl import unsigned
from amaranth.lib import data
from tilewright.isa.config import LOCAL_BITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.timing import STORE_INFLIGHT

VECTORS = ("ibias", "scale", "bias")  # the order of vector slots
ITEM = range(STORE_INFLIGHT)


def early_layout(config: ChipConfig) -> data.StructLayout:
    """What a slot carries until its memory data arrive."""
    return data.StructLayout(
        {
            "type": unsigned(3),  # of the source
            "item": ITEM,  # whose epilogue parameters
            "unit": unsigned(4),  # index in the vector buffer
            "vectors": unsigned(3),  # to read (row slot) or to write (vector slot), of VECTORS
            "xpose": unsigned(1),  # a row slot takes a unit of a column of the transposer
            "column": range(config.dim),  # that column
            "side": unsigned(1),  # of the transposer, that has it
            "row": range(XPOSE_BLOCKS * config.dim),  # of a block: where its data go
            "to": unsigned(1),  # the side that takes them
        }
    )


def late_layout(config: ChipConfig) -> data.StructLayout:
    """What a slot carries until its data are packed."""
    return data.StructLayout(
        {
            "read": unsigned(1),  # its data are a new unit; else the next slice of the last one
            "opens": unsigned(1),  # first read of its unit
            "more": unsigned(1),  # another read of its unit follows: nothing goes out
            "float": unsigned(1),  # elements are bf16 or fp32
            "size": unsigned(2),  # log2 of the bytes of an output element
            "lanes": range(config.dim),  # valid lanes of a scratchpad unit, minus 1
            "offset": range(config.bus_bytes),  # of the row's first byte in its first beat
            "sends": unsigned(1),  # a DRAM beat, which this slot completes
            "head": range(config.bus_bytes),  # bytes below it are strobed off
            "end": range(config.bus_bytes),  # bytes from it on are strobed off, unless it is 0
            "wlast": unsigned(1),
            "skip": unsigned(1),  # all bytes are strobed off
            "spad": unsigned(1),
            "final": unsigned(1),  # slot of its instruction
            "dst": unsigned(LOCAL_BITS),
        }
    )
