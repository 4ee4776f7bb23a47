"""The chip: sequencer, issue module, units, memories, and register slices at every boundary.

Ports are flat and have the names of docs/microarchitecture.md §7. Six clock inputs: `clk`, and
those of GATED, each of which may rest while its `busy_<name>` is 0. `rst` is registered first, so
that nothing but flip-flops sees the pins.
"""

from amaranth.hdl import Cat, ClockDomain, DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.axi import AXILite, AXIRead, AXIWrite, BusSlice
from tilewright.hw.debug import Peek
from tilewright.hw.dispatch import ID_BITS, UNITS
from tilewright.hw.fetch import PC_BITS
from tilewright.hw.host import Host
from tilewright.hw.issue import INFLIGHT, Issue
from tilewright.hw.load import Load
from tilewright.hw.matmul import Matmul
from tilewright.hw.matmul_front import MatmulFront
from tilewright.hw.memory import Accumulator, Scratchpad
from tilewright.hw.sequencer import Sequencer
from tilewright.hw.store import Store
from tilewright.hw.vector import Vector
from tilewright.isa.config import IBUS_BYTES, ChipConfig
from tilewright.isa.timing import (
    LOAD_INFLIGHT,
    MATMUL_INFLIGHT,
    STORE_INFLIGHT,
    VECTOR_INFLIGHT,
)

#: Clocks that may rest: the array with MATMUL's control, STORE's epilogue, and whole units.
GATED = ("array", "epilogue", "load", "vector", "store", "sequencer")
#: Cycles for which LOAD, VECTOR and STORE are clocked after their last item.
REST = 4
TRACE_UNITS = ("load", "matmul", "vector", "store")


def boundary(config: ChipConfig) -> dict:
    """AXI ports: prefix -> (signature, the chip is the master)."""
    return {
        "host": (AXILite(), False),
        "instr": (AXIRead(data=8 * IBUS_BYTES), True),
        "data_r": (AXIRead(data=8 * config.bus_bytes), True),
        "data_w": (AXIWrite(data=8 * config.bus_bytes), True),
    }


def port_prefix(name: str) -> str:
    """`data_r` and `data_w` are one port of the chip."""
    return name.partition("_")[0]


class Chip(wiring.Component):
    """The whole chip.

    **Members**

    clk, rst, clk_<gated> : In(1)
    busy_<gated> : Out(1)
        The gated clock is needed at the coming edge.
    host_*, instr_*, data_*
        AXI ports.
    irq : Out(1)
    trace_* : Out
        For simulation; one cycle late for all alike.

    **Timing** : docs/microarchitecture.md.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        members = {n: In(1) for n in ("clk", "rst", *(f"clk_{g}" for g in GATED))}
        members |= {n: Out(1) for n in ("irq", *(f"busy_{g}" for g in GATED))}
        for name, (signature, master) in boundary(config).items():
            for member, port in signature.members.items():
                inward = (port.flow == In) == master
                flat = f"{port_prefix(name)}_{member}"
                members[flat] = (In if inward else Out)(port.shape)
        members |= {n: Out(1) for n in ("trace_run", "trace_seq_begin", "trace_seq_end")}
        members |= {"trace_seq_pc": Out(PC_BITS), "trace_start": Out(4), "trace_done": Out(4)}
        members |= {f"trace_id_{unit}": Out(ID_BITS) for unit in TRACE_UNITS}
        super().__init__(members)
        for limit in (LOAD_INFLIGHT, MATMUL_INFLIGHT, VECTOR_INFLIGHT, STORE_INFLIGHT):
            if limit > INFLIGHT:
                raise ValueError(f"a unit's items in flight must be at most {INFLIGHT}")

    def elaborate(self, platform):
        m = Module()
        self._clocks(m)
        cfg = self.config
        sequencer = Sequencer(cfg)
        part = DomainRenamer({"sync": "sequencer", "always": "sync"})(sequencer)
        m.submodules.sequencer = part
        m.submodules.issue = issue = Issue()
        m.submodules.host = host = Host(cfg)
        load, store = Load(cfg), Store(cfg)
        m.submodules.load = DomainRenamer("load")(load)
        m.submodules.front = front = MatmulFront(cfg)
        m.submodules.matmul = matmul = Matmul(cfg)
        m.submodules.vector = DomainRenamer("vector")(vector := Vector(cfg))
        m.submodules.store = DomainRenamer("store")(store)
        m.submodules.spad = spad = Scratchpad(cfg)
        m.submodules.acc = acc = Accumulator(cfg)
        m.submodules.peek = peek = Peek(cfg)

        buses = {"host": host.bus, "instr": sequencer.bus, "data_r": load.axi, "data_w": store.bus}
        for name, inner in buses.items():
            self._slice(m, name, inner)
        for a, b in (
            (issue.load, load.unit),
            (issue.matmul, matmul.unit),
            (issue.vector, vector.unit),
            (issue.store, store.unit),
            (issue.front, front.issue),
            (sequencer.dispatch_load, issue.dispatch_load),
            (sequencer.dispatch_matmul, issue.dispatch_matmul),
            (sequencer.dispatch_vector, issue.dispatch_vector),
            (sequencer.dispatch_store, issue.dispatch_store),
            (sequencer.semaphore, issue.semaphore),
            (load.spad, spad.w_load),
            (load.spad_r, spad.r_load),
            (load.acc, acc.w_load),
            (matmul.spad_a, spad.r_matmul_a),
            (matmul.spad_w, spad.r_matmul_w),
            (matmul.acc_r, acc.r_matmul),
            (matmul.acc_w, acc.w_matmul),
            (vector.spad_r, spad.r_vector),
            (vector.spad_w, spad.w_vector),
            (vector.acc_r, acc.r_vector),
            (vector.acc_w, acc.w_vector),
            (store.spad_r, peek.store_spad),
            (peek.spad, spad.r_store),
            (store.spad_w, spad.w_store),
            (store.acc_r, peek.store_acc),
            (peek.acc, acc.r_store),
        ):
            wiring.connect(m, a, b)
        m.d.comb += [
            matmul.pass_.eq(front.pass_),
            issue.run.eq(sequencer.run),
            issue.clear.eq(sequencer.clear),
            sequencer.overflow.eq(issue.overflow),
            sequencer.oldest.eq(issue.oldest),
            sequencer.blame.eq(issue.blame),
            sequencer.load_error.eq(load.o_error),
            sequencer.store_error.eq(store.o_error),
            sequencer.flying_load.eq(issue.flying_load),
            sequencer.flying_store.eq(issue.flying_store),
            sequencer.abort.eq(host.abort),
            sequencer.watchdog.eq(host.watchdog),
            issue.hold.eq(sequencer.hold),
            *(getattr(host, f"head_{n}").eq(getattr(issue, f"head_{n}")) for n in UNITS),
            host.pc.eq(sequencer.pc),
            issue.debug_sem.eq(host.debug_sem),
            host.debug_count.eq(issue.debug_count),
            sequencer.break_at.eq(host.break_at),
            sequencer.resume.eq(host.resume),
            host.stopped.eq(sequencer.stopped),
            host.paused.eq(sequencer.paused),
            peek.go.eq(host.peek),
            peek.address.eq(host.peek_address),
            host.peek_word.eq(peek.word),
            load.ldw_valid.eq(sequencer.ldw.valid),
            load.ldw_addr.eq(sequencer.ldw.addr),
            sequencer.ldw.data_in.eq(load.ldw_data),
            sequencer.ldw.done.eq(load.ldw_done),
            store.stw_valid.eq(sequencer.stw.valid),
            store.stw_addr.eq(sequencer.stw.addr),
            store.stw_data.eq(sequencer.stw.data_out),
            sequencer.stw.done.eq(store.stw_done),
            host.row.eq(matmul.o_row),
            host.row_macs.eq(matmul.o_macs),
            host.beat_read.eq(load.o_beat),
            host.beat_written.eq(store.o_beat),
            *(into.eq(value) for into, value in zip(host.units, issue.counters, strict=True)),
            sequencer.start.eq(host.start),
            sequencer.base.eq(host.base),
            sequencer.count.eq(host.count),
            sequencer.window_base.eq(host.window_base),
            sequencer.window_limit.eq(host.window_limit),
            *(
                getattr(host, n).eq(getattr(sequencer, n))
                for n in ("run", "clear", "halted", "faulted", "fault", "fault_pc")
            ),
            self.irq.eq(host.irq),
            self.busy_array.eq(matmul.busy_array | self._reset),
            self.busy_epilogue.eq(store.busy_epilogue | self._reset),
            self.busy_sequencer.eq(sequencer.busy | self._reset),
        ]
        for name in ("load", "vector", "store"):
            awake, tail = Signal(name=f"awake_{name}"), Signal(REST, name=f"tail_{name}")
            m.d.comb += awake.eq(~getattr(issue, f"dispatch_{name}").still | sequencer.asking)
            m.d.sync += tail.eq(Cat(awake, tail[: REST - 1]))
            busy = tail.any() | sequencer.asking | self._reset
            m.d.comb += getattr(self, f"busy_{name}").eq(busy)
        self._trace(m, sequencer, issue)
        return m

    def _clocks(self, m):
        """Domains of the clocks; all are reset by the registered `rst`."""
        boot = ClockDomain("boot", reset_less=True)
        boot.clk = self.clk
        domains = [boot]
        gated = [(name, getattr(self, f"clk_{name}")) for name in GATED]
        for name, clock in [("sync", self.clk), *gated]:
            domain = ClockDomain(name)
            domain.clk = clock
            domains.append(domain)
        m.domains += domains
        self._reset = domains[1].rst
        m.d.boot += self._reset.eq(self.rst)
        m.d.comb += [d.rst.eq(self._reset) for d in domains[2:]]

    def _slice(self, m, name, inner):
        """A register slice between the pins and `inner`."""
        signature, master = boundary(self.config)[name]
        m.submodules[f"slice_{name}"] = part = BusSlice(signature)
        near, pins = (part.s, part.m) if master else (part.m, part.s)
        wiring.connect(m, near, inner)
        for member, port in signature.members.items():
            pin, wire = getattr(self, f"{port_prefix(name)}_{member}"), getattr(pins, member)
            outward = (port.flow == Out) == master
            m.d.comb += pin.eq(wire) if outward else wire.eq(pin)

    def _trace(self, m, sequencer, issue):
        m.d.sync += [
            self.trace_run.eq(sequencer.run),
            self.trace_seq_begin.eq(sequencer.begin),
            self.trace_seq_end.eq(sequencer.end),
            self.trace_start.eq(issue.started),
            self.trace_done.eq(issue.done),
        ]
        with m.If(sequencer.begin):
            m.d.sync += self.trace_seq_pc.eq(sequencer.pc)
        for unit in TRACE_UNITS:
            with m.If(issue.started[TRACE_UNITS.index(unit)]):
                m.d.sync += getattr(self, f"trace_id_{unit}").eq(getattr(issue, f"id_{unit}"))
