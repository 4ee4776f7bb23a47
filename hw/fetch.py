"""Instruction fetch: four lines of eight instructions, prefetched in order, and loops kept.

The window is the line of the program counter and the three after it; in a loop that a backward jump
has shown, the loop's first line and the three after it, so that prefetch never evicts a loop which
fits. Lines are requested as two bursts each; beats come in order and are written to the buffer in
order, so one position tells what can be read. A line stays until its slot is taken by the line four
after it. A jump out of the lines held discards: beats in flight are counted and dropped.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.axi import AXIRead
from tilewright.isa.config import IBUS_BYTES, INSTR_BYTES, LINE_INSTRS, LINES, MAX_BURST
from tilewright.isa.registers import PC_BITS

COUNT_BITS = PC_BITS + 1
LANES = INSTR_BYTES // IBUS_BYTES  # beats of one instruction
OUTSTANDING = 512  # beats in flight, at most; ideal memory stays far below


class Fetch(wiring.Component):
    """The instruction buffer and its prefetcher.

    **Members**

    run, start : In(1)
        Requests may be sent; the next cycle is the first one of a program.
    base, count : In(32), In(COUNT_BITS)
        Byte address of the program, 512-byte aligned; its instructions.
    pc : In(PC_BITS)
        The program counter; its line begins the window, unless it is in a loop.
    read : In(1)
        Read the instruction at `pc` in this cycle; only if `readable`.
    readable : Out(1)
        The instruction at `pc` is in the buffer.
    word : Out(512)
        What was read in the cycle before; stays until the next `read`.
    jump, target : In(1), In(PC_BITS)
        `pc` becomes `target` in the next cycle, and that is not simply the next instruction.
    error : Out(1)
        The memory answered with an error.
    idle : Out(1)
        No beat is in flight.
    busy : Out(1)
        The clock is needed, even if nothing is read and nothing jumps.
    bus : Out(AXIRead())
        To the boundary slice.

    **Timing** (isa.timing): a line's request in cycle t is on the pins at t + FETCH_AR; a beat that
    is on the pins at y can be read from y + FETCH_WRITE on.
    """

    def __init__(self):
        super().__init__(
            {
                "run": In(1),
                "start": In(1),
                "base": In(32),
                "count": In(COUNT_BITS),
                "pc": In(PC_BITS),
                "read": In(1),
                "readable": Out(1),
                "word": Out(8 * INSTR_BYTES),
                "jump": In(1),
                "target": In(PC_BITS),
                "error": Out(1),
                "idle": Out(1),
                "busy": Out(1),
                "bus": Out(AXIRead(data=8 * IBUS_BYTES)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shift = exact_log2(LINE_INSTRS)
        line_bits = COUNT_BITS - shift
        self._line = Signal(line_bits)  # of the program counter
        self._target = Signal(line_bits)
        self._oldest = Signal(line_bits)  # oldest line held
        self._next = Signal(line_bits)  # next line to request
        self._discard = Signal()
        self._backward = Signal()
        m.d.comb += [
            self._line.eq(self.pc[shift:]),
            self._target.eq(self.target[shift:]),
            self._backward.eq(self.jump & (self.target <= self.pc)),
            self._discard.eq(
                self.jump & ((self._target < self._oldest) | (self._target >= self._next))
            ),
        ]
        self._window(m)
        sent = self._request(m, (self.count + LINE_INSTRS - 1) >> shift)
        self._receive(m, sent)
        return m

    def _window(self, m):
        """The window's first line: that of the loop, while there is one, else that of `pc`."""
        loop = Signal()
        first = Signal.like(self._line, name="loop_first")
        last = Signal.like(self.pc, name="loop_last")  # the instruction that jumps back
        inside = Signal()
        self._base = Signal.like(self._line)
        m.d.comb += [
            inside.eq(loop & (self._line >= first) & (self.pc <= last)),
            self._base.eq(Mux(inside, first, self._line)),
        ]
        inner = inside & (self._target >= first)  # the jump is of a loop inside the loop
        with m.If(self.start):
            m.d.sync += loop.eq(0)
        with m.Elif(self._backward & ~inner), m.If(self._line < self._target + LINES):
            m.d.sync += [loop.eq(1), first.eq(self._target), last.eq(self.pc)]
        with m.Elif(loop & ~inside):
            m.d.sync += loop.eq(0)

    def _request(self, m, lines):
        """The address generator: two bursts of 16 cycles for a line. Returns: a burst is sent."""
        bus = self.bus
        phase = Signal(range(2 * MAX_BURST))  # cycles since the line's request
        cancel = Signal()  # the second burst is not wanted any more
        ask, sent = Signal(), Signal()
        self._in_flight = Signal(range(OUTSTANDING + MAX_BURST + 1))  # beats
        room = self._in_flight < OUTSTANDING
        first = Signal()
        m.d.comb += first.eq(
            (phase == 0)
            & (self._next < lines)
            & (self._next < self._base + LINES)
            & ~self._backward  # it may take the slot of the target
        )
        second = phase == MAX_BURST
        half = MAX_BURST * IBUS_BYTES
        following = Signal(32, reset_less=True)  # address of the second burst
        address = Signal(32)
        m.d.comb += [
            ask.eq(self.run & (first | second) & room & ~self._discard),
            sent.eq(ask & bus.arready),
            self.busy.eq(ask | (phase != 0) | (self._in_flight != 0)),
            address.eq(self.base + Cat(Const(0, exact_log2(2 * half)), self._next)),
            bus.arvalid.eq(ask),
            bus.araddr.eq(Mux(second, following, address)),
            bus.arlen.eq(MAX_BURST - 1),
            bus.arsize.eq(exact_log2(IBUS_BYTES)),
            bus.arburst.eq(1),
        ]
        with m.If(sent & ~second):
            m.d.sync += [self._next.eq(self._next + 1), following.eq(address + half)]
            with m.If(self._next - self._oldest == LINES):
                m.d.sync += self._oldest.eq(self._oldest + 1)
        with m.If(self._discard):
            m.d.sync += [self._next.eq(self._target), self._oldest.eq(self._target)]

        running = (phase != 0) & ~second
        with m.If(sent | running):
            m.d.sync += phase.eq(phase + 1)
        with m.If((phase == MAX_BURST - 1) & (cancel | self._discard)):
            m.d.sync += phase.eq(0)
        with m.If(second & (self._discard | ~self.run)):
            m.d.sync += phase.eq(0)
        m.d.sync += cancel.eq((cancel | self._discard) & (phase != 0) & (phase < MAX_BURST))
        with m.If(self.start):
            m.d.sync += [phase.eq(0), cancel.eq(0), self._next.eq(0), self._oldest.eq(0)]
        return sent

    def _receive(self, m, sent):
        """Write beats in order, or drop them; read instructions."""
        bus = self.bus
        m.submodules.buffer = buffer = memory.Memory(
            shape=8 * INSTR_BYTES, depth=LINES * LINE_INSTRS, init=[]
        )
        write, read = buffer.write_port(granularity=8 * IBUS_BYTES), buffer.read_port()
        lane_bits = exact_log2(LANES)
        at = Signal(COUNT_BITS + lane_bits)  # beat of the program that is written next
        drop = Signal.like(self._in_flight)  # the next beats to come are of discarded lines
        in_flight = Signal.like(self._in_flight, name="in_flight_next")
        taken = Signal()
        m.d.comb += [
            bus.rready.eq(1),
            taken.eq(bus.rvalid & (drop == 0)),
            in_flight.eq(self._in_flight + Mux(sent, MAX_BURST, 0) - bus.rvalid),
            write.addr.eq(at[lane_bits:]),
            write.en.eq(taken << at[:lane_bits]),
            write.data.eq(bus.rdata.replicate(LANES)),
            self.readable.eq(at[lane_bits:] > self.pc),
            read.addr.eq(self.pc),
            read.en.eq(self.read),
            self.word.eq(read.data),
            self.idle.eq(self._in_flight == 0),
        ]
        m.d.sync += self._in_flight.eq(in_flight)
        with m.If(bus.rvalid & (drop != 0)):
            m.d.sync += drop.eq(drop - 1)
        with m.If(taken):
            m.d.sync += [at.eq(at + 1), self.error.eq(self.error | bus.rresp[1])]
        with m.If(self._discard | self.start):
            m.d.sync += [drop.eq(in_flight), self.error.eq(0)]
            m.d.sync += at.eq(Mux(self.start, 0, self._target << exact_log2(LINE_INSTRS * LANES)))
