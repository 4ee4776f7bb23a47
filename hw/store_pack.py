"""STORE's packing: epilogue rows become bus beats at any byte alignment, or scratchpad units.

A unit's output bytes go into a shift register that moves by one beat per slot. A slice of it is
rotated by the row's byte offset in its beats: all units of a row are whole beats, so the offset is
the same for each. Its first bytes complete the open beat, its last ones open the next. At the end
of a joined row the next slice's first bytes may belong to that one, too; so that slice is rotated
as well. Strobes cut a line's ragged edges. With max-pool the rows of a unit's window come one after
the other, and the last brings out the maximum.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.store_slot import late_layout
from tilewright.isa.config import ChipConfig

#: Cycles from a row's slot at `row` to `unit_*`, and to `beat_*`.
UNIT_LATENCY = 1
BEAT_LATENCY = 2


class Packer(wiring.Component):
    """Shift register and byte window, in clock domain "epilogue".

    Parameters
    ----------
    config : geometry.

    **Members**

    i_row, i_late, i_valid : results of the epilogue (32 bits a lane), the slot's control word.
    i_window : In(1)
        `i_valid` of a slot without `more`, one cycle later, from the always running domain.
    unit_data, unit_late : the packed unit (bytes of 16-bit lanes at most) for the scratchpad.
    beat_data, beat_strb, beat_last : the beat.

    **Timing** : `UNIT_LATENCY`, `BEAT_LATENCY`; one slot per cycle.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        bus = config.bus_bytes
        super().__init__(
            {
                "i_row": In(32 * config.dim),
                "i_late": In(late_layout(config)),
                "i_valid": In(1),
                "i_window": In(1),
                "unit_data": Out(16 * config.dim),
                "unit_late": Out(late_layout(config)),
                "beat_data": Out(8 * bus),
                "beat_strb": Out(bus),
                "beat_last": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim, bus = self.config.dim, self.config.bus_bytes
        window = Signal(32 * dim, reset_less=True)
        self.late = late = Signal(late_layout(self.config), reset_less=True)
        highest = self._maximum(m)
        lanes = [highest[32 * i : 32 * i + 32] for i in range(dim)]
        valid = [i <= self.i_late.lanes for i in range(dim)]
        with m.If(self.i_valid):
            m.d.epilogue += late.eq(self.i_late)
            with m.If(~self.i_late.read):
                m.d.epilogue += window.eq(window >> 8 * bus)
            with m.Elif(~self.i_late.more), m.Switch(self.i_late.size):
                for size, bits in enumerate((8, 16)):
                    row = Cat(Mux(v, x[:bits], 0) for v, x in zip(valid, lanes, strict=True))
                    with m.Case(size):
                        m.d.epilogue += window.eq(row)
                with m.Default():
                    m.d.epilogue += window.eq(highest)
        m.d.comb += [self.unit_data.eq(window), self.unit_late.eq(late)]

        partial = Signal(8 * bus, reset_less=True)  # the open beat: bytes below `offset`
        data, strb = Signal(8 * bus, reset_less=True), Signal(bus, reset_less=True)
        wlast = Signal(reset_less=True)
        here, ahead = (self._rotated(window[8 * bus * n :][: 8 * bus]) for n in range(2))
        beat, opened = self._joined(partial, here), self._joined(here, ahead)
        ones = (1 << bus) - 1
        after = (ones << late.head)[:bus]
        before = Mux(late.end != 0, ~(ones << late.end), ones)[:bus]
        with m.If(self.i_window):
            m.d.epilogue += [
                partial.eq(Mux(late.sends, opened, beat)),
                data.eq(beat),
                strb.eq(Mux(late.skip, 0, after & before)),
                wlast.eq(late.wlast),
            ]
        m.d.comb += [self.beat_data.eq(data), self.beat_strb.eq(strb), self.beat_last.eq(wlast)]
        return m

    def _rotated(self, slice_):
        """Byte 0 to byte `offset` of a beat, and the last bytes to its beginning."""
        bus = self.config.bus_bytes
        distance = (bus - self.late.offset)[: exact_log2(bus) + 1]
        return (Cat(slice_, slice_) >> Cat(Const(0, 3), distance))[: 8 * bus]

    def _joined(self, below, above):
        """Bytes below `offset` of one, the others of another."""
        lanes = [slice(8 * b, 8 * b + 8) for b in range(self.config.bus_bytes)]
        return Cat(Mux(b < self.late.offset, below[x], above[x]) for b, x in enumerate(lanes))

    def _maximum(self, m: Module) -> Signal:
        """The row, or its lanes' maximum with the window's rows before it.

        The only NaN of a result is the canonical one, which is above all numbers as an integer too.
        """
        dim, late = self.config.dim, self.i_late
        held = Signal(32 * dim, reset_less=True)
        out = Signal(32 * dim)
        m.d.comb += out.eq(self.i_row)
        with m.If(~late.opens):
            pairs = ((self.i_row[i : i + 32], held[i : i + 32]) for i in range(0, 32 * dim, 32))
            m.d.comb += out.eq(Cat(Mux(self._order(a) < self._order(b), b, a) for a, b in pairs))
        with m.If(self.i_valid & late.more):
            m.d.epilogue += held.eq(out)
        return out

    def _order(self, lane):
        """An int32 that orders like a lane's value, -0 below +0."""
        late = self.i_late
        top = Mux(late.float & (late.size == 1), lane << 16, lane)[:32]
        return Cat(top[:31] ^ (top[31] & late.float).replicate(31), top[31]).as_signed()
