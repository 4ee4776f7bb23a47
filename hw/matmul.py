"""MATMUL: streams weight tiles and activation rows through the array into the accumulator.

A granted pass waits in the *pending* registers while its first weights are read; the *row* stage
streams the pass before it. When that is over, the pass is taken: the first row carries the switch,
the other weights come while its rows are under way (each reaches its PE row before them), and then
those of the next pass may follow at once. Sums leave the array a fixed time later, where an
output walker finds their accumulator rows.

int8 and uint8 become bf16 at the array's edge, exactly (for an `int8` array: integers of 9 bits).
Rows of A beyond a K-block's end and weight rows beyond it enter as zeros, whatever memory holds.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from tilewright.hw.array import Array
from tilewright.hw.column import slices
from tilewright.hw.float import delay, wire
from tilewright.hw.foot import Foot
from tilewright.hw.matmul_front import PASS
from tilewright.hw.memory import AccRead, AccWrite, SpadRead
from tilewright.hw.payload import UnitSignature
from tilewright.isa.config import LOCAL_BITS
from tilewright.isa.table import Type
from tilewright.isa.timing import (
    FOOT_LATENCY,
    MATMUL_INFLIGHT,
    MATMUL_MIN_PERIOD,
    MATMUL_READ,
    MEM_READ,
    WEIGHT_LEAD,
    array_latency,
    matmul_done,
)

#: Slot to the array's input: the memory, then the conversion's register.
INPUT = MEM_READ + 1


def to_bf16(m, byte, signed, name):
    """The exact bf16 of an 8-bit integer, by shifts only: a simulator's branches would be slow."""
    negative = wire(m, signed & byte[7], f"{name}_negative")
    size = wire(m, ((byte ^ negative.replicate(8)) + negative)[:8], f"{name}_size")
    empty = []  # whether the upper 4, then 2, then 1 bits are zero
    for half in (4, 2, 1):
        empty.append(wire(m, ~size[8 - half :].any(), f"{name}_empty{half}"))
        places = Cat(Const(0, half.bit_length() - 1), empty[-1])
        size = wire(m, (size << places)[:8], f"{name}_from{half}")
    exponent = (127 + 7 - Cat(*reversed(empty)))[:8]
    return Cat(size[:7], exponent, negative) & size[7].replicate(16)


class Matmul(wiring.Component):
    """The MATMUL unit behind `MatmulFront`.

    **Members**

    unit : In(UnitSignature("matmul"))
        One grant for each pass.
    pass_ : In(PASS)
        Addresses and sizes of the pass that is granted.
    spad_a, spad_w, acc_r, acc_w : Out
        Memory clients.
    o_row, o_macs : Out
        A row enters in this cycle; its useful multiply-accumulates.
    busy_array : Out(1)
        From a register: the "array" domain must be clocked in this cycle.

    **Timing**

    docs/microarchitecture.md §5.
    """

    def __init__(self, config, blackbox=True):
        self.config = config
        self.blackbox = blackbox
        super().__init__(
            {
                "unit": In(UnitSignature("matmul")),
                "pass_": In(PASS),
                "spad_a": Out(SpadRead(config)),
                "spad_w": Out(SpadRead(config)),
                "acc_r": Out(AccRead(config)),
                "acc_w": Out(AccWrite(config)),
                "o_row": Out(1),
                "o_macs": Out(11),
                "busy_array": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        dim, kind = self.config.dim, self.config.array
        m.submodules.array = self.array = Array(dim, blackbox=self.blackbox, kind=kind)
        m.submodules.foot = self.foot = Foot(dim, kind)
        unit = self.unit
        self.pending = Signal()  # a granted pass has not been taken
        self.take = Signal()
        inflight = Signal(range(MATMUL_INFLIGHT + 1))
        m.d.sync += inflight.eq(inflight + unit.start - unit.done)
        with m.If(unit.start):
            m.d.sync += self.pending.eq(1)
        with m.Elif(self.take):
            m.d.sync += self.pending.eq(0)
        self.apart = Signal(reset_less=True)
        free, led = self._weights(m)
        m.d.comb += unit.ready.eq((~self.pending | self.take) & free & (inflight < MATMUL_INFLIGHT))
        m.d.comb += self.busy_array.eq(inflight != 0)
        self._rows(m, led)
        self._output(m)
        return m

    def _weights(self, m):
        """Read a pass's weight rows.

        Return whether those of another one may follow, and whether its first row may, too.
        """
        dim, unit, pass_ = self.config.dim, self.unit, self.pass_
        active = Signal()
        index = Signal(range(dim))
        address = Signal(LOCAL_BITS, reset_less=True)
        step = Signal(unit.instr.ws.shape(), reset_less=True)
        kind = Signal(3, reset_less=True)
        valid_k = Signal(6, reset_less=True)
        last = Signal()
        m.d.comb += last.eq(active & (index == dim - 1))
        with m.If(unit.start):
            m.d.sync += self.apart.eq(pass_.apart)
            m.d.sync += [active.eq(1), index.eq(0), address.eq(pass_.w), step.eq(unit.instr.ws)]
            m.d.sync += [kind.eq(unit.instr.w_type), valid_k.eq(pass_.k)]
        with m.Elif(active):
            m.d.sync += [index.eq(index + 1), address.eq(address + step)]
            with m.If(last):
                m.d.sync += active.eq(0)
        m.d.comb += [self.spad_w.en.eq(active), self.spad_w.addr.eq(address)]
        keep = Mux(index < valid_k, (1 << dim) - 1, 0)
        valid = self._chain(m, active, INPUT, "w_valid")
        m.d.comb += [
            self.array.i_w.eq(self._operand(m, "w", self.spad_w, kind, keep, valid)),
            self.array.i_w_valid.eq(valid[-1]),
        ]
        free = last | ~active
        return free, Mux(self.apart, ~active | (index >= WEIGHT_LEAD - 1), free)

    def _operand(self, m, name, port, kind, keep, valid):
        """`port`'s data as the array's lanes at its input, INPUT cycles after the slot.

        `keep` : a bit for each lane; the others are zero. `valid` : the slot's bit, delayed by 1 to
        INPUT cycles; without it the lanes stay.
        """
        kind = delay(m, "array", kind, MEM_READ, f"{name}_kind")
        keep = delay(m, "array", keep, MEM_READ, f"{name}_keep")
        keep = Cat(k.replicate(self.array.column.LANE) for k in keep)
        signed = kind == Type.I8
        held = Signal(self.array.i_a.shape(), name=f"{name}_lanes", reset_less=True)
        with m.If(valid[MEM_READ - 1]):
            if self.config.array == "int8":
                words = [Cat(byte, signed & byte[7]) for byte in slices(port.data, 8)]
                m.d.array += held.eq(Cat(words) & keep)
            else:
                with m.If(kind == Type.BF16):
                    m.d.array += held.eq(port.pair & keep)
                with m.Else():
                    words = [
                        to_bf16(m, byte, signed, f"{name}{j}")
                        for j, byte in enumerate(slices(port.data, 8))
                    ]
                    m.d.array += held.eq(Cat(words) & keep)
        return held

    def _chain(self, m, bit, cycles, name):
        """A control bit delayed by 1 to `cycles`; rests with the array, while no pass is inside."""
        chain = Signal(cycles, name=name)
        m.d.array += chain.eq(Cat(bit, chain[: cycles - 1]))
        return chain

    def _wait(self, m, bit, cycles, name):
        """A control bit delayed by `cycles`."""
        return self._chain(m, bit, cycles, name)[-1]

    def _rows(self, m, led):
        """Take the pending pass, stream its rows, keep its period."""
        dim, unit, instr = self.config.dim, self.unit, self.unit.instr
        latch = {n: Signal.like(instr[n], name=f"next_{n}", reset_less=True)
                 for n in ("rows", "r0", "as0", "as1", "a_type", "acc")}  # fmt: skip
        next_pass = Signal(PASS, reset_less=True)
        with m.If(unit.start):
            m.d.sync += [next_pass.eq(self.pass_), *(s.eq(instr[n]) for n, s in latch.items())]

        row, period = Signal(), Signal()  # a row slot; the pass's time is not over
        left, time = Signal(16, reset_less=True), Signal(16, reset_less=True)
        reads = Signal(16)  # cycles until all rows and weights of the pass have been read
        inner, inner_count = Signal(16, reset_less=True), Signal(16, reset_less=True)
        address = Signal(LOCAL_BITS, reset_less=True)
        line = Signal(LOCAL_BITS, reset_less=True)  # first row of the inner level
        as0, as1 = Signal.like(latch["as0"]), Signal.like(latch["as1"])
        kind = Signal(3, reset_less=True)
        macs = Signal(11, reset_less=True)
        keep = Signal(dim, reset_less=True)
        first = Signal()
        last_row, last_cycle = Signal(), Signal()
        m.d.comb += [
            last_row.eq(row & (left == 1)),
            last_cycle.eq(period & (time == 1)),
            self.take.eq(self.pending & led & (~period | last_cycle)),
            unit.issuing.eq(period),
            self.spad_a.en.eq(row),
            self.spad_a.addr.eq(address),
        ]
        m.d.sync += [time.eq(time - 1), first.eq(self.take)]
        with m.If(row):
            m.d.sync += [left.eq(left - 1), inner.eq(inner - 1), address.eq(address + as0)]
            with m.If(inner == 1):
                m.d.sync += [inner.eq(inner_count), line.eq(line + as1), address.eq(line + as1)]
        with m.If(last_row):
            m.d.sync += row.eq(0)
        with m.If(reads != 0):
            m.d.sync += reads.eq(reads - 1)
        with m.If(last_cycle):
            m.d.sync += period.eq(0)
        rows = latch["rows"]
        least = max(dim, MATMUL_MIN_PERIOD)
        with m.If(self.take):
            m.d.sync += [row.eq(1), period.eq(1), left.eq(rows)]
            m.d.sync += reads.eq(Mux(rows < dim - WEIGHT_LEAD, dim - WEIGHT_LEAD, rows))
            m.d.sync += [time.eq(Mux(rows < least, least, rows)), macs.eq(next_pass.macs)]
            m.d.sync += [inner.eq(latch["r0"]), inner_count.eq(latch["r0"])]
            m.d.sync += [as0.eq(latch["as0"]), as1.eq(latch["as1"]), kind.eq(latch["a_type"])]
            m.d.sync += [address.eq(next_pass.a), line.eq(next_pass.a)]
            m.d.sync += keep.eq(Cat(next_pass.k > j for j in range(dim)))
        valid = self._chain(m, row, INPUT, "valid")
        m.d.comb += [
            self.array.i_a.eq(self._operand(m, "a", self.spad_a, kind, keep, valid)),
            self.array.i_valid.eq(valid[-1]),
            self.array.i_switch.eq(self._wait(m, first, INPUT, "switch")),
            self.o_row.eq(row),
            self.o_macs.eq(macs),
            unit.read_release.eq(self._wait(m, reads == 1, MATMUL_READ, "read")),
        ]
        self.row, self.last_row, self.next_pass, self.latch = row, last_row, next_pass, latch

    def _output(self, m):
        """Follow the rows through the array: read the old accumulator row, write the new one."""
        dim = self.config.dim
        where = data.StructLayout({"c": unsigned(LOCAL_BITS), "overwrite": 1, "integer": 1})
        m.submodules.walk = fifo = SyncFIFO(width=where.size, depth=MATMUL_INFLIGHT)
        entry, head = Signal(where), data.View(where, fifo.r_data)
        m.d.comb += [
            entry.c.eq(self.next_pass.c),
            entry.overwrite.eq(self.next_pass.first & ~self.latch["acc"]),
            entry.integer.eq(self.latch["a_type"] != Type.BF16),
            fifo.w_data.eq(entry),
            fifo.w_en.eq(self.take),
        ]
        ask = INPUT + array_latency(dim) - MEM_READ  # slot to the old row's request
        asking = self._wait(m, self.row, ask, "ask")
        ask_last = self._wait(m, self.last_row, ask, "ask_last")
        index = Signal(16)
        address = Signal(LOCAL_BITS)
        m.d.comb += [
            address.eq(head.c + index),
            fifo.r_en.eq(ask_last),
            self.acc_r.en.eq(asking & ~head.overwrite),
            self.acc_r.addr.eq(address),
        ]
        with m.If(asking):
            m.d.sync += index.eq(Mux(ask_last, 0, index + 1))
        at_foot = MEM_READ
        m.d.comb += [
            self.foot.i_sum.eq(self.array.o_sum),
            self.foot.i_acc.eq(self.acc_r.data),
            self.foot.i_int.eq(delay(m, "array", head.integer, at_foot, "integer")),
            self.foot.i_overwrite.eq(delay(m, "array", head.overwrite, at_foot, "overwrite")),
            self.acc_w.en.eq(self._wait(m, asking, at_foot + FOOT_LATENCY, "write")),
            self.acc_w.addr.eq(delay(m, "array", address, at_foot + FOOT_LATENCY, "write_row")),
            self.acc_w.data.eq(self.foot.o_row),
            self.unit.done.eq(self._wait(m, ask_last, at_foot + FOOT_LATENCY, "done")),
        ]
        if ask + at_foot + FOOT_LATENCY != matmul_done(dim):
            raise ValueError(f"matmul_done({dim}) must be {ask + at_foot + FOOT_LATENCY}")
