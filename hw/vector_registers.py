"""VECTOR's registers: 32 of each lane for each row of a group, four reads and two writes per cycle.

The rows of a group take turns, so the two results that arrive in one cycle, the ALU's and a
load's, belong to rows an odd distance apart. Even and odd rows have a memory each: one write port
is enough.
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.isa.micro import REGISTERS
from tilewright.isa.timing import VECTOR_ROWS

READS = ("a", "b", "c", "store")
REGISTER = range(REGISTERS)
ROW = range(VECTOR_ROWS)


def write_layout(dim: int) -> data.StructLayout:
    """A result: of which row, for which register."""
    return data.StructLayout({"en": 1, "row": ROW, "register": REGISTER, "value": 32 * dim})


class VectorRegisters(wiring.Component):
    """The register file.

    Parameters
    ----------
    dim : lanes.

    **Members**

    i_row : In(range(VECTOR_ROWS))
        The row that reads.
    i_a, i_b, i_c, i_store : In(range(REGISTERS))
        Registers to read.
    o_a, o_b, o_c, o_store : Out(32 * dim)
        Their values.
    w_alu, w_load : In(write_layout(dim))
        Results; if both are valid, one row is even and one odd.

    **Timing** : read in the next cycle. A value written at t is read from t + 1 on; nobody reads a
    row's registers in the cycle in which one of them is written.
    """

    def __init__(self, dim: int):
        self.dim = dim
        super().__init__(
            {
                "i_row": In(ROW),
                **{f"i_{n}": In(REGISTER) for n in READS},
                **{f"o_{n}": Out(32 * dim) for n in READS},
                "w_alu": In(write_layout(dim)),
                "w_load": In(write_layout(dim)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = REGISTERS * VECTOR_ROWS // 2
        bits = exact_log2(VECTOR_ROWS)
        odd = Signal()  # the row that has read
        m.d.sync += odd.eq(self.i_row[0])
        found = []
        for bank in range(2):
            memory = Memory(shape=32 * self.dim, depth=depth, init=[])
            m.submodules[f"rows{bank}"] = memory
            write = memory.write_port()
            alu = self.w_alu.en & (self.w_alu.row[0] == bank)
            load = self.w_load.en & (self.w_load.row[0] == bank)
            m.d.comb += [
                write.en.eq(alu | load),
                write.addr.eq(Mux(alu, self._place(self.w_alu), self._place(self.w_load))),
                write.data.eq(Mux(alu, self.w_alu.value, self.w_load.value)),
            ]
            values = []
            for name in READS:
                read = memory.read_port()
                m.d.comb += read.en.eq(self.i_row[0] == bank)
                m.d.comb += read.addr.eq(Cat(getattr(self, f"i_{name}"), self.i_row[1:bits]))
                values.append(read.data)
            found.append(values)
        for name, even_value, odd_value in zip(READS, *found, strict=True):
            m.d.comb += getattr(self, f"o_{name}").eq(Mux(odd, odd_value, even_value))
        return m

    def _place(self, write):
        return Cat(write.register, write.row[1:])
