"""The sequencer: fetches, decodes, resolves, computes extents, executes or dispatches.

One instruction at a time: FETCH, DECODE, one RESOLVE cycle for each register operand, EXTENT for
the units' instructions, EXEC. The instruction register holds the word from the end of DECODE on;
RESOLVE replaces register operands in it, so that what is pushed is the register, rearranged. A
fault waits, like `halt`, until all that was dispatched is done. If the sequencer waits while no
unit can move any more, that is fault DEADLOCK. An *alarm* (an imprecise fault, or the host's abort)
holds back everything that has not started; when all transfers have ended the fault is reported.

Domain "sync" may rest while the sequencer does (`busy` is 0); what must not is in domain "always".
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.axi import AXIRead
from tilewright.hw.decode import IR_BITS, OPCODES, Decoder, Resolver, Rules
from tilewright.hw.dispatch import (
    ENTRY_MASKS,
    ID_BITS,
    PC,
    UNITS,
    DispatchSignature,
    SemaphoreSignature,
    WordSignature,
)
from tilewright.hw.extent import Extent
from tilewright.hw.fetch import COUNT_BITS, PC_BITS, Fetch
from tilewright.hw.scalar import VALUES, register_file, results, scalar_field
from tilewright.isa.config import IBUS_BYTES, ChipConfig
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, SYNC, Fault


class Sequencer(wiring.Component):
    """The sequencer.

    **Members**

    start : In(1)
        Begin a program; ignored while `run`.
    base, count : In(32), In(32)
        Byte address of the code, its instructions; stable while `run`.
    run : Out(1)
        From the first cycle after `start` to the one in which halt or a fault is reported.
    clear : Out(1)
        A program begins in the next cycle.
    halted, faulted : Out(1)
        In the last cycle of `run`: why.
    fault, fault_pc : Out(4), Out(PC_BITS)
        With `faulted`.
    window_base, window_limit : In(32)
        First and last byte of DRAM that the program may touch; stable while `run`.
    oldest : In
        The issue module's oldest head: its pc, and whether there is one.
    overflow, blame : In(1), In(PC)
        Pulse: fault SEMAPHORE; who signalled, if it is not the sequencer.
    load_error, store_error : In(1)
        Pulses: fault BUS.
    flying_load, flying_store : In(PC)
        Who is in flight there.
    abort, watchdog : In(1)
        Pulse: fault ABORT; level: fault WATCHDOG.
    break_at, resume : In(PC), In(1)
        Stop before this instruction, if `exists`. Pulse: go on.
    stopped, paused : Out(1)
        At the breakpoint; and all units are quiet.
    busy : Out(1)
        Domain "sync" needs its clock: it is not idle, does not wait in EXEC, or fetches.
    hold : Out(1)
        There is an alarm: units must start nothing.
    bus : Out(AXIRead())
        Instructions.
    dispatch_<unit> : Out(DispatchSignature(unit))
    semaphore : Out(SemaphoreSignature())
    asking : Out(1)
        An `ldw` or `stw` is under way.
    ldw, stw : Out(WordSignature())
    begin, end, pc : Out(1), Out(1), Out(PC_BITS)
        First and last EXEC cycle (DECODE cycle of an illegal word) of the instruction at `pc`.

    **Timing** : docs/microarchitecture.md §1; constants SEQ_* in isa.timing.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        members = {f"dispatch_{name}": Out(DispatchSignature(name)) for name in UNITS}
        super().__init__(
            members
            | {
                "start": In(1),
                "base": In(32),
                "count": In(32),
                "run": Out(1),
                "clear": Out(1),
                "halted": Out(1),
                "faulted": Out(1),
                "fault": Out(4),
                "fault_pc": Out(PC_BITS),
                "window_base": In(32),
                "window_limit": In(32),
                "oldest": In(PC),
                "overflow": In(1),
                "blame": In(PC),
                "load_error": In(1),
                "store_error": In(1),
                "flying_load": In(PC),
                "flying_store": In(PC),
                "abort": In(1),
                "watchdog": In(1),
                "busy": Out(1),
                "hold": Out(1),
                "break_at": In(PC),
                "resume": In(1),
                "stopped": Out(1),
                "paused": Out(1),
                "bus": Out(AXIRead(data=8 * IBUS_BYTES)),
                "semaphore": Out(SemaphoreSignature()),
                "ldw": Out(WordSignature()),
                "asking": Out(1),
                "stw": Out(WordSignature()),
                "begin": Out(1),
                "end": Out(1),
                "pc": Out(PC_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._parts(m)
        self._registers(m)
        self._control(m)
        self._scalar(m)
        self._dispatch(m)
        return m

    def _parts(self, m):
        m.submodules.fetch = self._fetch = fetch = Fetch()
        m.submodules.decoder = self._decoder = decoder = Decoder()
        m.submodules.resolver = self._resolver = resolver = Resolver()
        m.submodules.rules = self._rules = rules = Rules(self.config.array)
        m.submodules.extent = self._extent = extent = Extent(self.config)
        wiring.connect(m, wiring.flipped(self.bus), fetch.bus)
        self._ir = ir = Signal(IR_BITS, reset_less=True)
        self._op = ir[:OPCODE_BITS]
        m.d.comb += [
            decoder.word.eq(fetch.word),
            resolver.ir.eq(ir),
            rules.ir.eq(ir),
            extent.ir.eq(ir),
            extent.word.eq(fetch.word),
            extent.window_base.eq(self.window_base),
            extent.window_limit.eq(self.window_limit),
            fetch.run.eq(self.run & ~self.hold),
            fetch.start.eq(self.clear),
            fetch.base.eq(self.base),
            fetch.count.eq(self._limit(m)),
            fetch.pc.eq(self.pc),
        ]

    def _limit(self, m):
        """`count`, clipped to what a program counter can reach."""
        most = 1 << PC_BITS
        limit = Signal(COUNT_BITS, reset_less=True)
        m.d.always += limit.eq(Mux(self.count > most, most, self.count))
        return limit

    def _registers(self, m):
        """The register file, and the operands of a scalar instruction."""
        self._write, read = register_file(m, self.clear)
        word = self._fetch.word
        m.d.comb += self._resolver.value.eq(read(self._resolver.register, "operand"))
        self._a, self._d = Signal(32, reset_less=True), Signal(32, reset_less=True)
        self._read_a = read(scalar_field(m, word, "word", "ra"), "read_a")
        self._read_d = read(scalar_field(m, word, "word", "rd"), "read_d")
        self._b = scalar_field(m, self._ir, "ir", "b")
        self._address = Signal(32)
        m.d.comb += self._address.eq(self._a + self._b)

    def _is(self, *names):
        """Whether the instruction register holds one of these."""
        return Cat(self._op == OPCODES[n] for n in names).any()

    def _control(self, m):
        fetch, decoder, extent = self._fetch, self._decoder, self._extent
        count = fetch.count
        self._in_exec = in_exec = Signal()
        self._finish = finish = Signal()  # what the instruction does is done in this EXEC cycle
        self._next_pc = Signal(PC_BITS)
        self._asking = Signal()  # a word's request is sent, or was
        self._refused = refused = Signal()  # found in EXEC
        code = Signal(4)  # its fault
        misfit = Signal()
        again = Signal()  # not the first EXEC cycle
        illegal = Signal()  # an illegal word waits in DECODE
        has_extent = Signal()
        pending = Signal.like(decoder.flags)
        self._quiet = quiet = Signal()
        waiting = Signal()  # for the units
        dead = Signal()  # for ever: nothing could move in the cycle before
        units = [getattr(self, f"dispatch_{n}") for n in UNITS]
        m.d.comb += quiet.eq(Cat(u.quiet for u in units).all())
        m.d.always += dead.eq(waiting & ~dead & Cat(u.still for u in units).all())
        alarm, alarm_pc = self._alarm(m)
        drained = Signal()  # nothing is in flight
        m.d.comb += drained.eq(Cat(u.idle for u in units).all() & fetch.idle & ~self._asking)

        resumed = Signal()
        breaks = self.break_at.exists & (self.break_at.pc == self.pc) & ~resumed
        with m.If(self.clear | fetch.read):
            m.d.always += resumed.eq(0)
        with m.Elif(self.stopped & self.resume):
            m.d.always += resumed.eq(1)

        def report(fault, pc):
            m.d.comb += [self.faulted.eq(1), self.fault.eq(fault), self.fault_pc.eq(pc)]
            m.next = "IDLE"

        def deadlock():
            """The oldest instruction that is blocked is to blame."""
            report(Fault.DEADLOCK, Mux(self.oldest.exists, self.oldest.pc, self.pc))

        def drain():
            with m.If(drained):
                report(alarm, alarm_pc)

        def stop(fault):
            """Report as soon as all is quiet."""
            with m.If(self.hold):
                drain()
            with m.Elif(dead):
                deadlock()
            with m.Elif(quiet):
                report(fault, self.pc)
            with m.Else():
                m.d.comb += waiting.eq(1)

        def prepare(flags, extents):
            """What comes before EXEC."""
            with m.If(flags.any()):
                m.next = "RESOLVE"
            with m.Elif(extents):
                m.next = "EXTENT"
            with m.Else():
                m.next = "EXEC"

        m.d.comb += self.busy.eq(fetch.busy | ~(waiting & in_exec & again))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.busy.eq(fetch.busy | self.start)
                with m.If(self.start):
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += self.pc.eq(0)
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += self.run.eq(1)
                with m.If(self.hold):
                    drain()
                with m.Elif(breaks):
                    m.d.comb += [self.stopped.eq(1), self.paused.eq(quiet)]
                with m.Elif(self.pc >= count):
                    stop(Fault.PC)
                with m.Elif(fetch.readable):
                    m.d.comb += fetch.read.eq(1)
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += [self.run.eq(1), illegal.eq(decoder.illegal), extent.enter.eq(1)]
                m.d.sync += [
                    self._ir.eq(fetch.word),
                    pending.eq(decoder.flags),
                    has_extent.eq(~extent.none),
                    misfit.eq(0),
                    self._a.eq(self._read_a),
                    self._d.eq(self._read_d),
                ]
                with m.If(illegal):
                    m.d.sync += again.eq(1)
                    m.d.comb += self.end.eq(quiet)
                    stop(Fault.OPCODE)
                with m.Else():
                    prepare(decoder.flags, ~extent.none)
            with m.State("RESOLVE"):
                m.d.comb += self.run.eq(1)
                m.d.sync += [
                    self._ir.eq(self._resolver.resolved),
                    pending.eq(self._resolver.left),
                    misfit.eq(misfit | self._resolver.misfit),
                ]
                prepare(self._resolver.left, has_extent)
            with m.State("EXTENT"):
                m.d.comb += [self.run.eq(1), extent.step.eq(1)]
                with m.If(extent.last):
                    m.next = "EXEC"
            with m.State("EXEC"):
                m.d.comb += [self.run.eq(1), in_exec.eq(1)]
                m.d.sync += again.eq(1)
                with m.If(refused):
                    m.d.comb += self.end.eq(quiet)
                    stop(code)
                with m.Elif(self._is("halt")):
                    m.d.comb += self.end.eq(self.halted)
                    with m.If(self.hold):
                        drain()
                    with m.Elif(dead):
                        deadlock()
                    with m.Elif(quiet & ~self.overflow):
                        m.d.comb += self.halted.eq(1)
                        m.next = "IDLE"
                    with m.Else():
                        m.d.comb += waiting.eq(1)
                with m.Elif(finish):
                    m.d.comb += self.end.eq(1)
                    m.d.sync += [again.eq(0), self.pc.eq(self._next_pc)]
                    m.next = "FETCH"
                with m.Elif(self.hold):
                    drain()
                with m.Elif(dead):
                    deadlock()
                with m.Else():
                    m.d.comb += waiting.eq(~self._asking)
        with m.If(self.clear):
            m.d.sync += again.eq(0)
        m.d.comb += [
            self._resolver.pending.eq(pending),
            self.begin.eq((in_exec | illegal) & ~again),
        ]
        self._verdict(m, refused, code, misfit)

    def _alarm(self, m):
        """The first imprecise fault, and the instruction to name."""
        alarm, pc = Signal(4), Signal(PC_BITS)
        before = Signal(PC_BITS)
        m.d.always += before.eq(self.pc)
        causes = (
            (self.overflow, Fault.SEMAPHORE, Mux(self.blame.exists, self.blame.pc, before)),
            (
                self.load_error,
                Fault.BUS,
                Mux(self.flying_load.exists, self.flying_load.pc, self.pc),
            ),
            (
                self.store_error,
                Fault.BUS,
                Mux(self.flying_store.exists, self.flying_store.pc, self.pc),
            ),
            (self._fetch.error, Fault.BUS, self.pc),
            (self.abort, Fault.ABORT, self.pc),
            (self.watchdog, Fault.WATCHDOG, self.pc),
        )
        m.d.comb += self.hold.eq(alarm != Fault.NONE)
        with m.If(self.clear):
            m.d.always += alarm.eq(Fault.NONE)
        for event, fault, blamed in causes:
            with m.Elif(event & ~self.hold):
                m.d.always += [alarm.eq(fault), pc.eq(blamed)]
        return alarm, pc

    def _verdict(self, m, refused, code, misfit):
        """Faults that EXEC finds, the first in order."""
        word = self._is("ldw", "stw")
        ends = self._address | 3
        fenced = (self._address < self.window_base) | (ends > self.window_limit)
        with m.If(misfit | self._rules.field | (word & self._address[:2].any())):
            m.d.comb += [refused.eq(1), code.eq(Fault.FIELD)]
        with m.Elif(self._rules.unimplemented):
            m.d.comb += [refused.eq(1), code.eq(Fault.UNIMPLEMENTED)]
        with m.Elif(self._is(*UNITS) & self._extent.bad):
            m.d.comb += [refused.eq(1), code.eq(Fault.RANGE)]
        with m.Elif(self._is(*UNITS) & self._extent.fenced | word & fenced):
            m.d.comb += [refused.eq(1), code.eq(Fault.WINDOW)]

    def _scalar(self, m):
        """What the sequencer executes itself."""
        active = Signal()  # a legal instruction is in EXEC
        m.d.comb += active.eq(self._in_exec & ~self._refused)
        self._active = active
        target = scalar_field(m, self._ir, "ir", "target")
        result, taken = results(m, self._op, self._a, self._b, self._address, self.ldw.data_in)
        m.d.comb += self._finish.eq(1)
        with m.Switch(self._op):
            for name, done in (
                ("fence", self._quiet),
                ("wait", self.semaphore.enough),
                ("ldw", self.ldw.done),
                ("stw", self.stw.done),
                *((name, ~getattr(self, f"dispatch_{name}").full) for name in UNITS),
            ):
                with m.Case(OPCODES[name]):
                    m.d.comb += self._finish.eq(done)
        write, fetch = self._write, self._fetch
        m.d.comb += [
            write.addr.eq(scalar_field(m, self._ir, "ir", "rd")),
            write.data.eq(result),
            write.en.eq(active & self._finish & self._is(*VALUES)),
            self._next_pc.eq(Mux(taken, target, self.pc + 1)),
            fetch.jump.eq(active & taken),
            fetch.target.eq(target),
            self.semaphore.sem.eq(scalar_field(m, self._ir, "ir", "sem")),
            self.semaphore.n.eq(scalar_field(m, self._ir, "ir", "n")),
            self.semaphore.post.eq(active & self._is("post")),
            self.semaphore.take.eq(active & self._is("wait") & self.semaphore.enough),
        ]
        asked = Signal()  # the word's request has been sent
        with m.If(active & self._finish):
            m.d.sync += asked.eq(0)
        with m.Elif(self.ldw.valid | self.stw.valid):
            m.d.sync += asked.eq(1)
        m.d.comb += self._asking.eq(asked | self.ldw.valid | self.stw.valid)
        m.d.comb += self.asking.eq(self._asking)
        for name, unit in (("ldw", "load"), ("stw", "store")):
            word = getattr(self, name)
            quiet = getattr(self, f"dispatch_{unit}").quiet
            m.d.comb += [
                word.valid.eq(active & self._is(name) & quiet & ~asked),
                word.addr.eq(self._address),
                word.data_out.eq(self._d),
            ]

    def _dispatch(self, m):
        """Push into the queues; count ids."""
        number = Signal(ID_BITS)
        with m.If(self.clear):
            m.d.sync += number.eq(0)
        with m.Elif(self._in_exec & self._finish):
            m.d.sync += number.eq(number + 1)
        extent = self._extent
        for name in UNITS:
            dispatch, spec = getattr(self, f"dispatch_{name}"), INSTRUCTIONS[name]
            entry = dispatch.entry
            m.d.comb += [
                dispatch.push.eq(self._active & self._is(name) & ~dispatch.full),
                entry.id.eq(number),
                entry.pc.eq(self.pc),
                *(entry.masks[p].eq(getattr(extent, p)) for p in ENTRY_MASKS[name]),
            ]
            for view, group in ((entry.sync, SYNC), (entry.instr, spec.fields)):
                for field in group:
                    at = spec.layout[field.name][0]
                    m.d.comb += view[field.name].eq(self._ir[at : at + field.bits])
            extras = {
                "load": ("row_elems", "units", "joined", "span", "paired", "begin", "back"),
                "vector": ("units",),
                "store": ("units", "joined", "span"),
            }.get(name, ())
            for extra in extras:
                source = "product" if extra == "row_elems" else extra
                m.d.comb += entry.instr[extra].eq(getattr(extent, source))
            if name == "matmul":
                m.d.comb += entry.instr.rows.eq(extent.product)
                for extra in ("a_lo", "a_hi", "w_lo", "w_hi"):
                    m.d.comb += entry.instr[extra].eq(getattr(extent, extra))
