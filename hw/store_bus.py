"""STORE's end at the AXI write channels: FIFOs, credits, responses, and the sequencer's `stw`.

Addresses and beats wait in FIFOs that cannot overflow, because a slot reserves its place when it is
taken. Responses come in order (one ID), so one bit for each unanswered burst tells whether it was
the last of its instruction.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.axi import AXIWrite
from tilewright.isa.config import MAX_BURST, ChipConfig

BURSTS = 64  # unanswered at most
BEATS = 32  # between slot and W channel
INCR = 1


class StoreBus(wiring.Component):
    """AW, W and B of STORE.

    Parameters
    ----------
    config : geometry.

    **Members**

    bus : AXI write master.
    go : Out(1)
        A beat and a burst can be reserved. From registers.
    beat_taken, burst_taken : In(1)
        They are reserved in this cycle.
    aw_valid, aw_addr, aw_len, aw_final : In
        A reserved burst; `aw_final`: the last of its instruction.
    beat_valid, beat_data, beat_strb, beat_last : In
        A reserved beat.
    answered : Out(1)
        An instruction's last burst is answered in this cycle.
    stw_valid, stw_addr, stw_data, stw_done
        Write one aligned word, only while STORE is quiet. `stw_valid` may be a pulse, or be held up
        to and including the cycle of the `stw_done` pulse.
    o_beat, o_error : Out(1)
        A W beat is accepted; a response is an error.

    **Timing** : `beat_valid` at t is on W at t + 1; `stw_valid` at t: last beat on W at t + 3.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        bus = config.bus_bytes
        super().__init__(
            {
                "bus": Out(AXIWrite(data=8 * bus)),
                "go": Out(1),
                "beat_taken": In(1),
                "burst_taken": In(1),
                "aw_valid": In(1),
                "aw_addr": In(32),
                "aw_len": In(range(MAX_BURST)),
                "aw_final": In(1),
                "beat_valid": In(1),
                "beat_data": In(8 * bus),
                "beat_strb": In(bus),
                "beat_last": In(1),
                "answered": Out(1),
                "stw_valid": In(1),
                "stw_addr": In(32),
                "stw_data": In(32),
                "stw_done": Out(1),
                "o_beat": Out(1),
                "o_error": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        bytes_, bus = self.config.bus_bytes, self.bus
        address = Signal(32 + len(self.aw_len))
        beat = Signal(9 * bytes_ + 1)
        burst, push = Signal(), Signal()
        m.d.comb += [
            burst.eq(self.aw_valid),
            address.eq(Cat(self.aw_addr, self.aw_len)),
            push.eq(self.beat_valid),
            beat.eq(Cat(self.beat_data, self.beat_strb, self.beat_last)),
        ]
        writing = self._word(m, burst, address, push, beat)

        m.submodules.aw = aw = SyncFIFO(width=len(address), depth=BURSTS)
        m.submodules.w = w = SyncFIFO(width=len(beat), depth=BEATS)
        m.d.comb += [
            aw.w_data.eq(address),
            aw.w_en.eq(burst),
            Cat(bus.awaddr, bus.awlen[: len(self.aw_len)]).eq(aw.r_data),
            bus.awsize.eq(exact_log2(bytes_)),
            bus.awburst.eq(INCR),
            bus.awvalid.eq(aw.r_rdy),
            aw.r_en.eq(bus.awready),
            w.w_data.eq(beat),
            w.w_en.eq(push),
            Cat(bus.wdata, bus.wstrb, bus.wlast).eq(w.r_data),
            bus.wvalid.eq(w.r_rdy),
            w.r_en.eq(bus.wready),
            self.o_beat.eq(bus.wvalid & bus.wready),
            bus.bready.eq(1),
            self.o_error.eq(bus.bvalid & bus.bresp[1]),
        ]

        finals = Signal(BURSTS)
        head, tail = Signal(range(BURSTS)), Signal(range(BURSTS))
        with m.If(burst):
            m.d.sync += [finals.bit_select(tail, 1).eq(self.aw_final & ~writing), tail.eq(tail + 1)]
        with m.If(bus.bvalid):
            m.d.sync += head.eq(head + 1)
        m.d.comb += [
            self.answered.eq(bus.bvalid & finals.bit_select(head, 1)),
            self.stw_done.eq(writing & bus.bvalid),
        ]

        beats = Signal(range(BEATS + 1), init=BEATS)
        bursts = Signal(range(BURSTS + 1), init=BURSTS)
        m.d.sync += [
            beats.eq(beats - self.beat_taken + (self.o_beat & ~writing)),
            bursts.eq(bursts - self.burst_taken + (bus.bvalid & ~writing)),
        ]
        m.d.comb += self.go.eq((beats != 0) & (bursts != 0))
        return m

    def _word(self, m: Module, burst, address, push, beat) -> Signal:
        """The `stw` sequence: address and first beat, then, if the bus has 2 bytes, the second.

        A wider bus sends its only beat in the second cycle, so that the latency is the same.
        """
        bytes_ = self.config.bus_bytes
        shift = exact_log2(bytes_)
        writing, step = Signal(), Signal(2)
        at, word = Signal(32, reset_less=True), Signal(32, reset_less=True)
        with m.If(self.stw_valid & ~writing):
            m.d.sync += [writing.eq(1), step.eq(1), at.eq(self.stw_addr), word.eq(self.stw_data)]
        with m.Elif(writing):
            m.d.sync += step.eq(step << 1)
            with m.If(self.stw_done):
                m.d.sync += writing.eq(0)
        second = step[1]
        if bytes_ == 2:
            half, strobes, sends = Mux(second, word[16:], word[:16]), Const(3, 2), step.any()
        else:
            half, strobes = word.replicate(bytes_ // 4), (15 << Cat(Const(0, 2), at[2:shift]))
            sends = second
        with m.If(writing):
            m.d.comb += [
                burst.eq(step[0]),
                address.eq(Cat(Const(0, shift), at[shift:], Const(int(bytes_ == 2), 4))),
                push.eq(sends),
                beat.eq(Cat(half, strobes[:bytes_], second)),
            ]
        return writing
