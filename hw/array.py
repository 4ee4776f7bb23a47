"""The weight-stationary systolic array: `dim` columns, and the triangles that skew rows and sums.

Its columns decide what it multiplies (`COLUMNS`); the rules of time are the same for all of them.

Rows enter and leave whole; inside, PE row r works `data_skew(r)` cycles and column c another c
cycles later. The next tile's weights, their enables and the switch travel with the data, so
loading never stops the rows. Weight rows arrive W[0] first.

For Verilog the column is one module, converted once and instanced `dim` times: see
`array_verilog_sources`. Elsewhere (`blackbox=False`) columns are ordinary submodules.
"""

import os

from amaranth.back import verilog
from amaranth.hdl import Cat, ClockSignal, Const, DomainRenamer, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.blackbox import keep_module
from tilewright.hw.column import Column, slices
from tilewright.hw.column_int8 import Int8Column
from tilewright.hw.float import delay
from tilewright.hw.memory import SRAM
from tilewright.hw.onestep import one_step
from tilewright.isa.config import ARRAYS
from tilewright.isa.timing import array_latency

COLUMNS = dict(zip(ARRAYS, (Column, Int8Column), strict=True))


class Array(wiring.Component):
    """A `dim` x `dim` array; every register in clock domain "array", which may be gated.

    Parameters
    ----------
    dim : int, a power of two of at least 2 (`ChipConfig` refuses others)
    tag_width : int, bits that accompany each row
    blackbox : bool, instance the column as a Verilog module of another source
    kind : str, one of `ARRAYS`

    Members
    -------
    i_valid : a row is presented
    i_a : (dim x 16) the row, bf16, element 0 lowest; "int8": (dim x 9) signed integers
    i_switch : this row is the first to use the weights loaded last
    i_tag : passes unchanged
    i_w_valid : a weight row is presented; `dim` of them make a tile, W[0] first, gaps are legal
    i_w : the weight row like `i_a`, column 0 lowest
    o_valid, o_tag, o_sum : a row of (dim x 32) fp32 column sums; "int8": (dim x
        `Int8Column.sum_width`) signed integers

    Timing
    ------
    `array_latency(dim)` cycles from `i_valid` to `o_valid`, for which the array needs its clock
    after the last valid input; one row and one weight row per cycle. Let a tile's switch be in
    cycle s and the previous one's in cycle p. Its weight row k must be presented in one of the
    cycles p + k to s - 1 + max(k - 1, 0): any time between the two switches, and, without gaps,
    from two cycles before s (`isa.timing.WEIGHT_LEAD`).
    """

    def __init__(self, dim, tag_width=1, blackbox=True, kind="bf16"):
        self.dim = dim
        self.column = COLUMNS[kind]
        lanes = dim * self.column.LANE
        self.tag_width = tag_width
        self.blackbox = blackbox
        super().__init__(
            {
                "i_valid": In(1),
                "i_a": In(lanes),
                "i_switch": In(1),
                "i_tag": In(tag_width),
                "i_w_valid": In(1),
                "i_w": In(lanes),
                "o_valid": Out(1),
                "o_tag": Out(tag_width),
                "o_sum": Out(dim * self.column.sum_width(dim)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = self._left_edge(m)
        tops = self._top_edge(m)
        sums = []
        for c in range(self.dim):
            left, total = self._column(m, c, left, tops[c])
            sums.append(delay(m, "array", total, self.dim - 1 - c, f"deskew{c}"))
        m.d.comb += self.o_sum.eq(self._late(m, Cat(*sums)))
        self._passengers(m)
        return m

    def _late(self, m, sums):
        """The sums when `array_latency` says so: rows may run down the columns faster."""
        late = array_latency(self.dim) - 2 - self.column.data_skew(self.dim) - (self.dim - 1)
        if not late:
            return sums
        depth = 1 << (late - 1).bit_length()
        ring = DomainRenamer("array")(SRAM(len(sums), depth))
        m.submodules.ring = ring
        at = Signal(range(depth))
        m.d.array += at.eq(at + 1)
        m.d.comb += [
            ring.w_en.eq(1),
            ring.w_addr.eq(at),
            ring.w_data.eq(sums),
            ring.r_en.eq(1),
            ring.r_addr.eq(at - (late - 1)),
        ]
        return ring.r_data

    def _left_edge(self, m):
        """Decode and skew a row; return the packed inputs of column 0."""
        index = Signal(range(self.dim))
        with m.If(self.i_w_valid):
            m.d.array += index.eq(index + 1)
        a, switch, enable = [], [], []
        go = self.i_valid & self.i_switch
        data_skew, weight_skew = self.column.data_skew, self.column.weight_skew
        decoded = [self.column.decode(word) for word in slices(self.i_a, self.column.LANE)]
        for r in range(self.dim):
            hop = data_skew(r) - data_skew(r - 1) if r else 0
            go = delay(m, "array", go, hop, f"go{r}")
            switch.append(go)
            a.append(delay(m, "array", decoded[r], data_skew(r), f"skew{r}"))
            take = self.i_w_valid & (index == r)
            enable.append(delay(m, "array", take, weight_skew(r), f"take{r}"))
        return {"a": Cat(*a), "switch": Cat(*switch), "enable": Cat(*enable)}

    def _top_edge(self, m):
        decoded = [self.column.decode(word) for word in slices(self.i_w, self.column.LANE)]
        return [delay(m, "array", word, c, f"wskew{c}") for c, word in enumerate(decoded)]

    def _column(self, m, c, left, top):
        """Add column `c`; return what it passes to the right, and its sum."""
        right = {
            "a": Signal(self.dim * self.column.WIDTH, name=f"a{c}"),
            "switch": Signal(self.dim, name=f"switch{c}"),
            "enable": Signal(self.dim, name=f"enable{c}"),
        }
        total = Signal(self.column.sum_width(self.dim), name=f"sum{c}")
        if self.blackbox:
            m.submodules[f"column{c}"] = Instance(
                self.column.name(self.dim),
                i_array_clk=ClockSignal("array"),
                i_array_rst=Const(0),  # a column has no reset
                i_i_w=top,
                o_o_sum=total,
                **{f"i_i_{k}": v for k, v in left.items()},
                **{f"o_o_{k}": v for k, v in right.items()},
            )
            return right, total
        column = self.column(self.dim)
        m.submodules[f"column{c}"] = column
        m.d.comb += [column.i_w.eq(top), total.eq(column.o_sum)]
        for name in left:
            m.d.comb += getattr(column, f"i_{name}").eq(left[name])
            m.d.comb += right[name].eq(getattr(column, f"o_{name}"))
        return right, total

    def _passengers(self, m):
        """Delay the valid bit (with reset) and the tag."""
        cycles = array_latency(self.dim)
        valid = Signal(cycles)
        m.d.array += valid.eq(Cat(self.i_valid, valid[: cycles - 1]))
        tags = Signal(cycles * self.tag_width, reset_less=True)
        m.d.array += tags.eq(Cat(self.i_tag, tags[: (cycles - 1) * self.tag_width]))
        m.d.comb += [
            self.o_valid.eq(valid[cycles - 1]),
            self.o_tag.eq(tags[(cycles - 1) * self.tag_width :]),
        ]


def array_verilog_sources(dim, fast=True, kind="bf16"):
    """Return ``{file name: Verilog}`` of the modules that `Array(dim)` instances as black boxes.

    With `fast` the column is one clocked block (`one_step`, SystemVerilog), which Verilator runs
    1.6 times as fast; without, it is Yosys' plain Verilog.
    """
    os.environ.setdefault("AMARANTH_USE_YOSYS", "builtin")
    column = COLUMNS[kind](dim)
    name = column.name(dim)
    ports = [member for _, _, member in column.signature.flatten(column)]
    text = verilog.convert(column, name=name, emit_src=False, ports=ports)
    if fast:
        text = one_step(text, "array_clk")
    return {f"{name}.v": keep_module(text, name)}
