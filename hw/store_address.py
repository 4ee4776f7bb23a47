"""STORE's slot generator: one instruction in, one slot per cycle out.

A slot is one vector row to fetch, one DRAM beat, or one scratchpad unit. Everything that the
slot's data will need on their way (byte window, unit index, destination) is decided here and
travels with them. A row's unit is a whole number of beats, so every so many beats a unit begins,
whatever the row's alignment is; a row whose alignment spills over ends with a beat that reads
nothing.

A *line* is what goes out as one run of beats, cut into bursts: a row, or the joined rows of an i2.
A joined row that another follows ends with the last beat that it fills; bytes behind that wait in
the packer for the next row. If it fills none, its only slot, or the one that reads its last unit,
sends nothing.

With max-pool a unit is read once for each row of its window, one slot each; the last of these slots
is the one that the unit would have without. A scatter's row begins with STORE_INDEX slots, in which
its index is read and multiplied. With `xpose` the rows' slots read units of columns in the
transposer; `store_block` says which slots read the rows that it takes.

Rows are counted down, addresses and the bytes left are stepped by addition: no multiplier.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.payload import payload
from tilewright.hw.store_block import BlockReader
from tilewright.hw.store_slot import ITEM, early_layout, late_layout
from tilewright.isa.config import LOCAL_BITS, MAX_BURST, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.table import Dest, Mem, Type
from tilewright.isa.timing import MEM_READ, STORE_INDEX


class SlotGenerator(wiring.Component):
    """Walks vector slots, then for each row (i2 outer, i1 inner) its beats or units.

    Parameters
    ----------
    config : geometry.

    **Members**

    start, instr, item : the instruction, and the number that its slots carry.
    go : In(1)
        A slot may be taken in this cycle (from registers).
    active, last : Out(1)
        A slot is in use; it is the instruction's last one. From registers.
    beat, burst : Out(1)
        The slot that is taken in this cycle makes a DRAM beat; it starts a burst.
    row, vector, block : Out(1)
        One cycle after the slot: a row slot, a vector slot, a slot that reads for the transposer.
    early, late : Out
        Its control words.
    acc_en, acc_addr, spad_en, spad_addr : its read.
    aw_valid, aw_addr, aw_len, aw_final : the burst that it starts; `aw_final`: the last one.
    index_data : In
        The pair of granules read at `spad_addr`, MEM_READ cycles later.
    read_release : one cycle after the last slot.

    **Timing** : start at s, first slot in s + 1 (`active`), registered outputs one cycle after it.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "instr": In(payload("store")),
                "item": In(ITEM),
                "go": In(1),
                "active": Out(1),
                "last": Out(1),
                "beat": Out(1),
                "burst": Out(1),
                "row": Out(1),
                "vector": Out(1),
                "block": Out(1),
                "early": Out(early_layout(config)),
                "late": Out(late_layout(config)),
                "acc_en": Out(1),
                "acc_addr": Out(LOCAL_BITS),
                "spad_en": Out(1),
                "spad_addr": Out(LOCAL_BITS),
                "aw_valid": Out(1),
                "aw_addr": Out(32),
                "aw_len": Out(range(MAX_BURST)),
                "aw_final": Out(1),
                "index_data": In(16 * config.dim),
                "read_release": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        self.shift = exact_log2(self.config.bus_bytes)
        keep = self._latch(m)
        self._vector_slots(m, keep)
        self._index_slots(m, keep)
        self._row_slots(m, keep)
        self._block_slots(m, keep)
        self._line(m, keep)
        self._outputs(m, keep)
        return m

    def _latch(self, m: Module) -> dict[str, Signal]:
        """Registers that hold the instruction's constants; `size`, `length`, `slices` derived."""
        i, config = self.instr, self.config
        size = Signal(2)
        with m.Switch(i.out):
            with m.Case(Type.BF16):
                m.d.comb += size.eq(1)
            with m.Case(Type.F32, Type.I32):
                m.d.comb += size.eq(2)
        spad = i.dest == Dest.SPAD
        ratio = config.dim // config.bus_bytes
        fields = ("type", "c1", "l0", "l1", "l2", "s1", "s2", "d0", "vs")
        stride = signed(LOCAL_BITS)
        across, down = Signal(stride), Signal(stride)  # from one row's first unit to the next's
        wide, high = Signal(4, init=1), Signal(4, init=1)
        m.d.comb += [across.eq(i.l1), down.eq(i.l2), wide.eq(1), high.eq(1)]
        with m.If(i.pool):
            m.d.comb += [across.eq(i.l1 * i.pool_sw), down.eq(i.l2 * i.pool_sh)]
            m.d.comb += [wide.eq(i.pool_w), high.eq(i.pool_h)]
        slices = ((Const(ratio) << size) - 1)[:8]  # beats of a unit, minus 1
        length = Mux(spad, i.c0, (i.c0 << size)[:18])  # of a row: bytes, or elements
        values = (
            {n: i[n] for n in fields}
            | {
                "across": across,
                "down": down,
                "pool_w": wide,
                "pool_h": high,
                "float": (i.out == Type.BF16) | (i.out == Type.F32),
                "size": size,
                "spad": spad,
                "length": length,
                "joined": i.joined,
                "reach": (Mux(i.joined, i.span, length) - 1)[:32],  # of a line: bytes, minus 1
                "slices": Mux(spad, 0, slices),
                "acc": i.mem == Mem.ACC,
                "vectors": Cat(i.ibias, i.scale, i.bias),
                "units": i.units[:5],
                "item": self.item,
                "scatter": i.scatter,
                "step1": Mux(i.scatter, 0, i.s1),
                "xpose": i.xpose,
                "reads": i.c0[: exact_log2(XPOSE_BLOCKS * config.dim) + 1],  # of a transposed block
                "bound": i.bound,
                "index": i.index,
            }
        )
        keep = {}
        for name, value in values.items():
            shape = value.shape() if hasattr(value, "shape") else unsigned(len(value))
            keep[name] = Signal(shape, name=f"k_{name}", reset_less=True)
            with m.If(self.start):
                m.d.sync += keep[name].eq(value)
        keep["new_offset"] = Mux(spad, 0, i.dst[: self.shift])
        keep["new_length"], keep["new_reach"] = length, values["reach"]
        keep["new_vectors"] = values["vectors"]
        keep["new_w"], keep["new_h"] = wide, high
        return keep

    def _vector_slots(self, m: Module, k: dict) -> None:
        """Vector-major walk over the enabled vectors' units; it comes before the rows."""
        i = self.instr
        self.pending = pending = Signal(3)  # vectors not finished yet; lowest first
        self.vector_at = at = Signal(LOCAL_BITS, reset_less=True)
        base = Signal(LOCAL_BITS, reset_less=True)
        left = Signal(5, reset_less=True)
        self.vector_unit = unit = Signal(4, reset_less=True)
        self.in_vectors = Signal()
        m.d.comb += self.in_vectors.eq(pending.any())
        after = Signal(LOCAL_BITS)
        m.d.comb += after.eq(base + k["vs"])
        with m.If(self.active & self.go & self.in_vectors):
            m.d.sync += [at.eq(at + 1), unit.eq(unit + 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += [
                    pending.eq(pending & (pending - 1)),
                    base.eq(after),
                    at.eq(after),
                    unit.eq(0),
                    left.eq(k["units"]),
                ]
        with m.If(self.start):
            m.d.sync += [
                pending.eq(k["new_vectors"]),
                base.eq(i.vec),
                at.eq(i.vec),
                unit.eq(0),
                left.eq(i.units),
            ]

    def _index_slots(self, m: Module, k: dict) -> None:
        """A scatter's index: read in a row's first slot, then multiplied; `distance` is the result.

        The pipeline never stops: if `go` holds a later slot up, the result waits.
        """
        lanes = self.config.dim // 2
        self.waiting = waiting = Signal(range(STORE_INDEX + 1))  # slots before the row's own
        self.in_index, self.reads_index = Signal(), Signal()
        self.index_at = Signal(LOCAL_BITS, reset_less=True)
        self.lane = Signal(range(lanes), reset_less=True)
        self.distance, self.skip = Signal(32, reset_less=True), Signal(reset_less=True)
        index = Signal(32, reset_less=True)
        fetch = Signal(MEM_READ + 2)  # bit n: the slot that read is n + 1 cycles old
        m.d.comb += [
            self.in_index.eq(waiting != 0),
            self.reads_index.eq(
                self.active & self.go & ~self.in_vectors & (waiting == STORE_INDEX)
            ),
        ]
        m.d.sync += fetch.eq(Cat(self.reads_index, fetch[:-1]))
        with m.If(fetch[MEM_READ]):
            m.d.sync += index.eq(self.index_data.word_select(self.lane, 32))
        with m.If(fetch[MEM_READ + 1]):
            inside = index < k["bound"]
            m.d.sync += [
                self.distance.eq(Mux(inside, index[:16] * k["s1"], 0)),
                self.skip.eq(~inside),
            ]
        with m.If(self.start):
            m.d.sync += [
                waiting.eq(Mux(self.instr.scatter, STORE_INDEX, 0)),
                self.index_at.eq(self.instr.index),
                self.lane.eq(0),
                self.skip.eq(0),
            ]

    def _next_index(self, m: Module, k: dict, last1) -> None:
        """A row ends."""
        wraps = self.lane == self.config.dim // 2 - 1
        m.d.sync += [
            self.waiting.eq(STORE_INDEX),
            self.lane.eq(Mux(last1 | wraps, 0, self.lane + 1)),
            self.index_at.eq(Mux(last1, k["index"], self.index_at + Mux(wraps, 2, 0))),
        ]

    def _row_slots(self, m: Module, k: dict) -> None:
        """Rows, their beats or units, and where each comes from and goes to."""
        i, shift = self.instr, self.shift

        def register(width: int, name: str) -> Signal:
            return Signal(width, name=name, reset_less=True)

        self.left = left = register(20, "left")  # bytes or elements from this slot to the row's end
        self.offset = offset = register(max(shift, 1), "offset")
        self.unit = unit = register(4, "unit")
        src_unit, src_row, src_outer = (register(LOCAL_BITS, n) for n in ("src", "row", "outer"))
        self.at, at_row = register(LOCAL_BITS, "at"), register(LOCAL_BITS, "at_row")
        wx, wy = register(4, "wx"), register(4, "wy")  # rows left in the window
        self.opens = opens = register(1, "opens")
        self.dst, dst_row, dst_outer = (register(32, n) for n in ("dst", "dst_row", "dst_outer"))
        slice_ = register(8, "slice_left")  # beats before the next unit
        n1, n2 = register(16, "n1"), register(16, "n2")
        active = Signal()
        m.d.comb += self.active.eq(active)

        step = Mux(k["spad"], self.config.dim, self.config.bus_bytes)
        self.row_last, self.last1, self.last2 = Signal(), Signal(), Signal()
        last1, self.goes_on = self.last1, Signal()
        self.final, self.read, coming = Signal(), Signal(), Signal(8)
        self.more, self.in_block, self.rows_left = Signal(), Signal(), n1
        m.d.comb += [
            coming.eq(Mux(slice_ == 0, k["slices"], slice_ - 1)),
            self.goes_on.eq(k["joined"] & ~last1),
            self.row_last.eq(Mux(self.goes_on, self._filled(coming == 0), left <= step)),
            last1.eq(n1 == 1),
            self.last2.eq(n2 == 1),
            self.final.eq(self.row_last & last1 & self.last2),
            self.read.eq((slice_ == 0) & (left > offset)),
            self.more.eq(self.read & ((wx != 1) | (wy != 1))),
            self.last.eq(
                ~self.in_vectors & ~self.in_index & ~self.in_block & self.final & ~self.more
            ),
        ]
        next_src, next_dst, self.begin = Signal(LOCAL_BITS), Signal(32), Signal(shift)
        m.d.comb += [
            next_src.eq(Mux(last1, src_outer, src_row) + Mux(last1, k["down"], k["across"])),
            next_dst.eq(Mux(last1, dst_outer, dst_row) + Mux(last1, k["s2"], k["step1"])),
            self.begin.eq(Mux(k["spad"], 0, next_dst[:shift])),
        ]

        def unit_begins(src, wide, high) -> list:
            return [
                src_unit.eq(src), self.at.eq(src), at_row.eq(src),
                wx.eq(wide), wy.eq(high), opens.eq(1),
            ]  # fmt: skip

        def row_begins(src, dst, offset_value, length, wide, high) -> list:
            return [
                *unit_begins(src, wide, high),
                src_row.eq(src),
                self.dst.eq(dst),
                dst_row.eq(dst),
                offset.eq(offset_value),
                left.eq(offset_value + length),
                unit.eq(0),
                slice_.eq(0),
            ]

        window = k["pool_w"], k["pool_h"]
        with m.If(active & self.go & ~self.in_vectors & ~self.in_block):
            with m.If(self.in_index):
                m.d.sync += self.waiting.eq(self.waiting - 1)
                with m.If(self.waiting == 1):
                    m.d.sync += self.dst.eq(dst_row + self.distance)
            with m.Elif(self.more):
                below = (at_row + k["l2"])[:LOCAL_BITS]
                m.d.sync += [opens.eq(0), wx.eq(wx - 1), self.at.eq(self.at + k["l1"])]
                with m.If(wx == 1):
                    m.d.sync += [wx.eq(k["pool_w"]), wy.eq(wy - 1)]
                    m.d.sync += [self.at.eq(below), at_row.eq(below)]
            with m.Elif(self.row_last):
                m.d.sync += row_begins(next_src, next_dst, self.begin, k["length"], *window)
                m.d.sync += n1.eq(n1 - 1)
                with m.If(last1):
                    m.d.sync += [n1.eq(k["c1"]), n2.eq(n2 - 1)]
                    m.d.sync += [src_outer.eq(next_src), dst_outer.eq(next_dst)]
                m.d.sync += active.eq(~self.final)
                with m.If(k["scatter"] & ~self.final):
                    self._next_index(m, k, last1)
            with m.Else():
                ahead = Mux(k["spad"], k["d0"], Const(self.config.bus_bytes, signed(LOCAL_BITS)))
                m.d.sync += [
                    left.eq(left - step),
                    self.dst.eq(self.dst + ahead),
                    slice_.eq(coming),
                ]
                with m.If(self.read):
                    m.d.sync += unit_begins((src_unit + k["l0"])[:LOCAL_BITS], *window)
                    m.d.sync += unit.eq(unit + 1)
        with m.If(self.start):
            m.d.sync += active.eq(1)
            new = k["new_offset"], k["new_length"], k["new_w"], k["new_h"]
            m.d.sync += row_begins(i.loc, i.dst, *new)
            m.d.sync += [n1.eq(i.c1), n2.eq(i.c2), src_outer.eq(i.loc), dst_outer.eq(i.dst)]

    def _block_slots(self, m: Module, k: dict) -> None:
        """What a transposing STORE reads: alone, or in the slots of rows."""
        m.submodules.block = self.reader = reader = BlockReader(self.config)
        m.d.comb += [
            reader.start.eq(self.start),
            reader.instr.eq(self.instr),
            reader.c0.eq(k["reads"]),
            *(getattr(reader, n).eq(k[n]) for n in ("l0", "l1", "l2")),
            reader.slot.eq(self.active & self.go & ~self.in_vectors & k["xpose"]),
            reader.row_ends.eq(self.row_last & ~reader.alone),
            reader.rows.eq(self.rows_left),
            self.in_block.eq(reader.alone & k["xpose"]),
        ]

    def _filled(self, turns):
        """No beat that ends in this row comes after this slot, and no slot has to read a unit.

        `turns`: if bytes of the row are left after this slot, the first is one of a new unit.
        """
        left, shift = self.left, self.shift
        unread = left[shift] & turns & (left[:shift] > self.offset)
        return ~left[shift + 1 :].any() & ~unread

    def _line(self, m: Module, k: dict) -> None:
        """The line's beats: where its first one begins, and how many come after this one."""
        shift = self.shift
        self.first = first = Signal(reset_less=True)  # it has sent no beat yet
        self.head = head = Signal(shift, reset_less=True)  # offset of its first byte
        self.after = after = Signal(32 - shift, reset_less=True)
        self.sends, self.line_last = Signal(), Signal()
        m.d.comb += [
            self.sends.eq(~k["spad"] & (~self.goes_on | self.left[shift:].any())),
            self.line_last.eq(self.row_last & ~self.goes_on),
        ]

        def begins(offset, reach) -> list:
            return [first.eq(1), head.eq(offset), after.eq((offset + reach) >> shift)]

        with m.If(self.beat):
            m.d.sync += [first.eq(0), after.eq(after - 1)]
            with m.If(self.line_last):
                m.d.sync += begins(self.begin, k["reach"])
        with m.If(self.start):
            m.d.sync += begins(k["new_offset"], k["new_reach"])

    def _outputs(self, m: Module, k: dict) -> None:
        """Register the slot, its read, and the burst that it starts."""
        shift, left = self.shift, self.left
        taken, vector, rows, reads = (Signal() for _ in range(4))
        block = self.reader.slot & self.reader.reads
        place = self.dst[shift : shift + exact_log2(MAX_BURST)]  # bursts are naturally aligned
        room = Signal(len(place))
        ends = Signal()  # the line ends in this burst
        m.d.comb += [
            taken.eq(self.active & self.go),
            vector.eq(taken & self.in_vectors),
            rows.eq(taken & ~self.in_vectors & ~self.in_index & ~self.in_block),
            reads.eq(block | (rows & self.read & ~k["xpose"])),
            self.beat.eq(rows & self.sends & ~self.more),
            self.burst.eq(self.beat & (self.first | (place == 0))),
            room.eq(MAX_BURST - 1 - place),
            ends.eq(self.after <= room),
        ]
        m.d.sync += [
            self.row.eq(rows),
            self.vector.eq(vector),
            self.block.eq(block),
            self.acc_en.eq(vector | (reads & k["acc"])),
            self.spad_en.eq(self.reads_index | (reads & ~k["acc"])),
            self.aw_valid.eq(self.burst),
            self.read_release.eq(taken & self.last),
        ]
        early, late, at = self.early, self.late, Mux(k["xpose"], self.reader.at, self.at)
        lane = (left - 1)[: len(late.lanes)]
        with m.If(self.active):
            m.d.sync += [
                self.acc_addr.eq(Mux(self.in_vectors, self.vector_at, at)),
                self.spad_addr.eq(Mux(self.in_index, self.index_at, at)),
                self.aw_addr.eq(Cat(Const(0, shift), self.dst[shift:])),
                self.aw_len.eq(Mux(ends, self.after, room)),
                self.aw_final.eq(ends & self.last2 & (self.last1 | k["joined"])),
                early.type.eq(k["type"]),
                early.item.eq(k["item"]),
                early.unit.eq(Mux(self.in_vectors, self.vector_unit, self.unit)),
                early.vectors.eq(Mux(self.in_vectors, self.pending & -self.pending, k["vectors"])),
                early.xpose.eq(k["xpose"]),
                *(early[n].eq(getattr(self.reader, n)) for n in ("row", "to", "column", "side")),
                late.read.eq(self.read),
                late.opens.eq(self.opens),
                late.more.eq(self.more),
                late.float.eq(k["float"]),
                late.size.eq(k["size"]),
                late.lanes.eq(Mux(k["spad"] & self.row_last, lane, self.config.dim - 1)),
                late.offset.eq(self.offset),
                late.sends.eq(self.sends),
                late.head.eq(Mux(self.first, self.head, 0)),
                late.end.eq(Mux(self.line_last, left[:shift], 0)),
                late.wlast.eq(self.line_last | place.all()),
                late.skip.eq(self.skip),
                late.spad.eq(k["spad"]),
                late.final.eq(self.final),
                late.dst.eq(self.dst[:LOCAL_BITS]),
            ]
