"""What passes between the sequencer, the issue module and the units.

A payload is an instruction with its register operands resolved, as the instruction table has it,
plus what the sequencer's EXTENT stage has computed. The synchronisation fields stay in the issue
module.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from tilewright.isa.config import LOCAL_BITS
from tilewright.isa.table import INSTRUCTIONS

_OFFSET = signed(LOCAL_BITS + 1)
# joined: rows of dimension 1 follow each other in DRAM (`isa.extent.joined`); span: bytes from the
# first one's start to the last one's end, if they do
_JOINED = {"joined": unsigned(1), "span": unsigned(32)}
EXTRAS = {
    # row_elems: elements of a local row (c0, times c1, c2 if packed), or, if transposed, runs of a
    # sequence (c1, times c2, c3, less those that it lacks); units: of a local row, or of a
    # transposed block; paired: as `isa.extent.paired`, and joined; begin: address of the first run
    # that is there; back: bytes to it from where its row would begin (skip1 * s1)
    "load": {
        "row_elems": unsigned(16),
        "units": unsigned(16),
        **_JOINED,
        "paired": unsigned(1),
        "begin": unsigned(32),
        "back": unsigned(32),
    },
    # rows: r0 * r1; a_lo, a_hi: granule offsets of a pass's lowest and highest A granule from
    # a + kb*ak; w_lo, w_hi: of its W granules from w + kb*wk + nb*wn
    "matmul": {
        "rows": unsigned(16),
        "a_lo": _OFFSET,
        "a_hi": _OFFSET,
        "w_lo": _OFFSET,
        "w_hi": _OFFSET,
    },
    # units: column blocks of a row
    "store": {"units": unsigned(16), **_JOINED},
    # units: of a row
    "vector": {"units": unsigned(16)},
}


def payload(name: str) -> data.StructLayout:
    """Layout of one instruction's resolved fields and extras, by mnemonic of the unit."""
    shapes = {
        f.name: signed(f.bits) if f.signed else unsigned(f.bits) for f in INSTRUCTIONS[name].fields
    }
    return data.StructLayout(shapes | EXTRAS[name])


class UnitSignature(wiring.Signature):
    """Between the issue module (as written) and a unit (flipped).

    **Members**

    start : Out(1)
        The unit's item is granted in this cycle; `instr` is valid with it and only then.
    instr : Out(payload(name))
        The instruction.
    ready : In(1)
        The unit can take a grant in this cycle. From registers only.
    read_release, done : In(1)
        One pulse for each granted item, in order (docs/microarchitecture.md §2).
    issuing : In(1)
        A slot is in use in this cycle.
    """

    def __init__(self, name: str):
        self.name = name
        super().__init__(
            {
                "start": Out(1),
                "instr": Out(payload(name)),
                "ready": In(1),
                "read_release": In(1),
                "done": In(1),
                "issuing": In(1),
            }
        )
