"""The host's registers over AXI4-Lite, the chip-wide counters, and the interrupt.

Addresses and bits are `isa.registers`'. Writes outside of them are ignored, reads give 0; both are
answered OKAY. A write is a whole word: no strobes.
"""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.axi import AXILite
from tilewright.hw.dispatch import PC, UNITS
from tilewright.hw.fetch import PC_BITS
from tilewright.isa.config import ChipConfig
from tilewright.isa.registers import (
    COUNTERS,
    ID,
    QUEUED,
    REGISTERS,
    UNIT_COUNTERS,
    geometry_word,
    unit_counter,
)

CTRL, STATUS, BREAK = REGISTERS["CTRL"], REGISTERS["STATUS"], REGISTERS["BREAK"]


def word(name: str) -> int:
    """A register's number in words."""
    return REGISTERS[name].offset >> 2


def packed(name: str, **values):
    """What a register reads whose bits are these values; the bits between them are 0."""
    parts, at = [], 0
    for field in REGISTERS[name].bits:
        value = values[field.name]
        parts += [Const(0, field.low - at)] if field.low > at else []
        parts.append(value)
        at = field.low + len(value)
    return Cat(*parts)


class Host(wiring.Component):
    """Registers and counters.

    **Members**

    bus : In(AXILite())
        From the boundary slice.
    start : Out(1)
        One pulse: the host wrote CTRL bit 0 (while the chip does not run).
    abort : Out(1)
        One pulse: the host wrote CTRL bit 1.
    watchdog : Out(1)
        The program has run for WATCHDOG cycles (not 0).
    base, count : Out(32)
        CODE_BASE, CODE_COUNT.
    window_base, window_limit : Out(32)
        WINDOW_BASE, WINDOW_LIMIT; after reset all addresses.
    run, clear, halted, faulted, fault, fault_pc : In
        From the sequencer.
    row, row_macs : In(1), In(11)
        MATMUL is in a row slot; its useful multiply-accumulates.
    beat_read, beat_written : In(1)
        A beat passed the data port.
    units : In(32) array of 24
        The issue module's counters.
    pc, head_<unit> : In
        The sequencer's program counter, and each queue's head.
    debug_sem, debug_count : Out(5), In(8)
        A semaphore's count.
    break_at, resume, stopped, paused : Out(PC), Out(1), In(1), In(1)
        The breakpoint; the host wrote CTRL bit 2; the sequencer's answer.
    peek, peek_address, peek_word : Out(1), Out(32), In(32)
        Read a word of a local memory: DEBUG_ADDR was written while nothing ran, or at the
        breakpoint while the units were quiet.
    irq : Out(1)
        Halted or faulted, if enabled.

    **Timing** : a write's `start` is one cycle after AW and W are both there; the chip runs one
    cycle later. Reads answer in two cycles.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "bus": In(AXILite()),
                "start": Out(1),
                "abort": Out(1),
                "watchdog": Out(1),
                "base": Out(32),
                "count": Out(32),
                "window_base": Out(32),
                "window_limit": Out(32, init=0xFFFFFFFF),  # type: ignore[call-arg]
                "run": In(1),
                "clear": In(1),
                "halted": In(1),
                "faulted": In(1),
                "fault": In(4),
                "fault_pc": In(PC_BITS),
                "row": In(1),
                "row_macs": In(11),
                "beat_read": In(1),
                "beat_written": In(1),
                "units": In(32).array(len(QUEUED) * len(UNIT_COUNTERS)),
                "pc": In(PC_BITS),
                **{f"head_{name}": In(PC) for name in UNITS},
                "debug_sem": Out(5),
                "debug_count": In(8),
                "break_at": Out(PC),
                "resume": Out(1),
                "stopped": In(1),
                "paused": In(1),
                "peek": Out(1),
                "peek_address": Out(32),
                "peek_word": In(32),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counters = self._count(m)
        readable = self._control(m)
        self._read(m, readable, counters)
        return m

    def _control(self, m):
        """Writes. Returns what each register reads."""
        bus = self.bus
        write = Signal()
        address, value = bus.awaddr, bus.wdata
        m.d.comb += [
            write.eq(bus.awvalid & bus.wvalid & ~bus.bvalid),
            bus.awready.eq(write),
            bus.wready.eq(write),
        ]
        with m.If(write):
            m.d.sync += bus.bvalid.eq(1)
        with m.Elif(bus.bready):
            m.d.sync += bus.bvalid.eq(0)

        running, halted, faulted = Signal(), Signal(), Signal()
        fault, fault_pc = Signal.like(self.fault), Signal.like(self.fault_pc)
        enable = Signal()
        m.d.comb += running.eq(self.run | self.start)
        limit = Signal(32)
        m.d.sync += [self.start.eq(0), self.abort.eq(0), self.resume.eq(0), self.peek.eq(0)]
        m.d.sync += self.watchdog.eq(self.run & (limit != 0) & (self._cycles >= limit))
        with m.If(write), m.Switch(address[2:]):
            with m.Case(word("CTRL")):
                m.d.sync += self.start.eq(value[CTRL.bit("START")] & ~running)
                m.d.sync += self.abort.eq(value[CTRL.bit("ABORT")])
                m.d.sync += self.resume.eq(value[CTRL.bit("RESUME")])
            with m.Case(word("BREAK")):
                m.d.sync += self.break_at.pc.eq(value[BREAK.bit("PC") :])
                m.d.sync += self.break_at.exists.eq(value[BREAK.bit("ON")])
            with m.Case(word("DEBUG_ADDR")):
                m.d.sync += self.peek_address.eq(value)
                m.d.sync += self.peek.eq(~running | self.paused)
            with m.Case(word("WATCHDOG")):
                m.d.sync += limit.eq(value)
            with m.Case(word("STATUS")):
                m.d.sync += halted.eq(halted & ~value[STATUS.bit("HALTED")])
                m.d.sync += faulted.eq(faulted & ~value[STATUS.bit("FAULTED")])
            with m.Case(word("CODE_BASE")), m.If(~running):
                m.d.sync += self.base.eq(value)
            with m.Case(word("CODE_COUNT")), m.If(~running):
                m.d.sync += self.count.eq(value)
            for name in ("window_base", "window_limit"):
                with m.Case(word(name.upper())), m.If(~running):
                    m.d.sync += getattr(self, name).eq(value)
            with m.Case(word("IRQ_ENABLE")):
                m.d.sync += enable.eq(value[REGISTERS["IRQ_ENABLE"].bit("ENABLE")])
        with m.If(self.clear):
            m.d.sync += [halted.eq(0), faulted.eq(0), fault.eq(0), fault_pc.eq(0)]
        with m.If(self.halted):
            m.d.sync += halted.eq(1)
        with m.If(self.faulted):
            m.d.sync += [faulted.eq(1), fault.eq(self.fault), fault_pc.eq(self.fault_pc)]
        m.d.sync += self.irq.eq(enable & (halted | faulted))
        heads = {name.upper(): getattr(self, f"head_{name}") for name in UNITS}
        return {
            **{
                f"HEAD_{name}": packed(f"HEAD_{name}", PC=h.pc, VALID=h.exists)
                for name, h in heads.items()
            },
            "HEAD_VECTOR": Const(0, 32),
            "DEBUG_ADDR": self.peek_address,
            "DEBUG_DATA": self.peek_word,
            "BREAK": packed("BREAK", PC=self.break_at.pc, ON=self.break_at.exists),
            "PC": self.pc,
            "ID": Const(ID, 32),
            "CTRL": Const(0, 32),
            "STATUS": packed(
                "STATUS", RUNNING=running, HALTED=halted, FAULTED=faulted, STOPPED=self.stopped
            ),
            "FAULT": fault,
            "FAULT_PC": fault_pc,
            "CODE_BASE": self.base,
            "CODE_COUNT": self.count,
            "GEOMETRY": Const(geometry_word(self.config), 32),
            "IRQ_ENABLE": enable,
            "WINDOW_BASE": self.window_base,
            "WINDOW_LIMIT": self.window_limit,
            "WATCHDOG": limit,
        }

    def _count(self, m):
        """Chip-wide counters. Returns all counters by index."""
        dim2 = self.config.dim**2
        self._cycles = cycles = Signal(32, name="cycles")
        read, written = Signal(32), Signal(32)
        useful, padding = Signal(64), Signal(64)
        row, macs = Signal(), Signal.like(self.row_macs, reset_less=True)
        m.d.sync += row.eq(self.row)
        with m.If(self.row):
            m.d.sync += macs.eq(self.row_macs)
        steps = (
            (cycles, self.run, 1),
            (read, self.beat_read & self.run, 1),
            (written, self.beat_written & self.run, 1),
            (useful, row, macs),
            (padding, row, dim2 - macs),
        )
        for counter, event, step in steps:
            with m.If(self.clear):
                m.d.sync += counter.eq(0)
            with m.Elif(event):
                m.d.sync += counter.eq((counter + step)[: len(counter)])
        values = {
            "cycles": cycles, "macs_useful": useful, "macs_padding": padding,
            "beats_read": read, "beats_written": written,
        }  # fmt: skip
        out = {}
        for name, counter in COUNTERS.items():
            for i in range(counter.words):
                out[counter.index + i] = values[name][32 * i : 32 * (i + 1)]
        for unit in QUEUED:
            for i in range(len(UNIT_COUNTERS)):
                out[unit_counter(unit) + i] = self.units[unit * len(UNIT_COUNTERS) + i]
        return out

    def _read(self, m, readable, counters):
        """Answer a read two cycles later: first the address, then the value is registered."""
        bus = self.bus
        busy = Signal()
        address = Signal.like(bus.araddr, reset_less=True)
        table = {word(name): readable[name] for name in REGISTERS if name in readable}
        table |= {word("COUNTER") + i: value for i, value in counters.items()}
        for i in range(REGISTERS["SEMAPHORE"].count):
            table[word("SEMAPHORE") + i] = self.debug_count
        m.d.comb += [bus.arready.eq(~busy), self.debug_sem.eq(address[2:])]
        with m.If(~busy & bus.arvalid):
            m.d.sync += [busy.eq(1), address.eq(bus.araddr)]
        with m.If(busy & ~bus.rvalid):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(0)]
            with m.Switch(address[2:]):
                for at, value in table.items():
                    with m.Case(at):
                        m.d.sync += bus.rdata.eq(value)
        with m.Elif(bus.rvalid & bus.rready):
            m.d.sync += [bus.rvalid.eq(0), busy.eq(0)]
