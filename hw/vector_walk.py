"""VECTOR's slots: which word runs in this cycle, for which row and unit, and where its streams are.

An instruction first fetches its micro-kernel, then fills the pipeline, then takes VECTOR_ROWS slots
for each word: init once, then for each group of rows head, body for each unit, tail. A word's slots
differ in their row only, so all that chooses the next word happens in the last one, and the next
word's bits have a whole word's time to come out of the buffer.

Addresses are stepped by addition: a stream has the address of its group's first row in unit 0, in
this unit, and of this slot.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.payload import payload
from tilewright.isa.config import LOCAL_BITS, ChipConfig
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import INSTRUCTIONS
from tilewright.isa.timing import VECTOR_LEAD, VECTOR_ROWS
from tilewright.isa.units import SECTIONS, STREAMS

#: Micro-operations of an instruction, at most.
WORDS = 1 << max(INSTRUCTIONS["vector"].layout[n][1].bits for n in SECTIONS) + 1
ROW = range(VECTOR_ROWS)
_INIT, _HEAD, _BODY, _TAIL = range(len(SECTIONS))


def most_words() -> int:
    """Words that all sections can hold together."""
    layout = INSTRUCTIONS["vector"].layout
    return sum((1 << layout[n][1].bits) - 1 for n in SECTIONS)


if most_words() > WORDS:
    raise AssertionError(f"WORDS must be at least {most_words()}, not {WORDS!r}")


def stream_layout() -> data.StructLayout:
    """What a slot needs to know of a stream."""
    return data.StructLayout({"on": 1, "acc": 1, "type": 3, "at": unsigned(LOCAL_BITS)})


class Walk(wiring.Component):
    """Walks the slots of an instruction.

    Parameters
    ----------
    config : geometry.

    **Members**

    start, instr : the instruction.
    active, last : Out(1)
        A slot is in use; it is the instruction's last one. From registers.
    fetch, fetch_at, fetch_row : Out
        The slot asks for the accumulator row `fetch_at`, number `fetch_row` of the micro-kernel.
    runs, exists, row : Out(1), Out(1), Out(range(VECTOR_ROWS))
        The slot runs a word; its row is one of the instruction's; its number in the group.
    next_word : Out(range(WORDS))
        The word of the slot after this one; at least two cycles before that slot.
    take : Out(1)
        The slot after this one is a word's first one.
    index, unit : Out(16), Out(16)
        The row and the unit, counted from 0.
    final_unit : Out(1)
        It is the row's last unit.
    columns : Out(range(dim))
        Columns of the last unit, less one.
    u, v : Out(32)
        The instruction's scalars; held for one cycle after its last slot.
    <stream> : Out(stream_layout())
        Each of STREAMS, for this slot.

    **Timing** : start at s, the first slot is that of cycle s + 1; docs/microarchitecture.md §6.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "instr": In(payload("vector")),
                "active": Out(1),
                "last": Out(1),
                "fetch": Out(1),
                "fetch_at": Out(LOCAL_BITS),
                "fetch_row": Out(range(WORDS)),
                "runs": Out(1),
                "exists": Out(1),
                "row": Out(ROW),
                "next_word": Out(range(WORDS)),
                "take": Out(1),
                "index": Out(16),
                "unit": Out(16),
                "final_unit": Out(1),
                "columns": Out(range(config.dim)),
                "u": Out(32),
                "v": Out(32),
                **{s: Out(stream_layout()) for s in STREAMS},
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        self._latch(m)
        self._fetch(m)
        self._words(m)
        for name in STREAMS:
            self._stream(m, name)
        return m

    def _latch(self, m: Module) -> None:
        """The instruction's constants; its scalars a cycle later, for the slot's next stage."""
        i = self.instr
        values = {n: i[n] for n in (*SECTIONS, "units", "kernel")}
        values["columns"] = (i.cols - 1)[: exact_log2(self.config.dim)]
        for s in STREAMS:
            values |= {f"{s}_{x}": i[f"{s}_{x}"] for x in ("on", "mem", "type", "row", "unit")}
        self._k = {}
        for name, value in values.items():
            shape = value.shape() if hasattr(value, "shape") else unsigned(len(value))
            self._k[name] = kept = Signal(shape, name=f"k_{name}", reset_less=True)
            with m.If(self.start):
                m.d.sync += kept.eq(value)
        m.d.comb += self.columns.eq(self._k["columns"])
        for name in ("u", "v"):
            kept = Signal(32, name=f"k_{name}", reset_less=True)
            with m.If(self.start):
                m.d.sync += kept.eq(i[name])
            m.d.sync += getattr(self, name).eq(kept)

    def _fetch(self, m: Module) -> None:
        """Rows of the micro-kernel, then slots in which the first word comes out of the buffer."""
        per_row = 4 * self.config.dim // WORD_BYTES
        words = sum((self.instr[n] for n in SECTIONS[1:]), self.instr[SECTIONS[0]])
        rows = (words + (per_row - 1)) >> exact_log2(per_row)
        left = Signal(range(WORDS + 1), reset_less=True)
        at, number = Signal(LOCAL_BITS, reset_less=True), Signal(range(WORDS), reset_less=True)
        lead = Signal(range(VECTOR_LEAD + 1), reset_less=True)
        self._fetching, active = Signal(), Signal()
        running = Signal()
        m.d.comb += [
            self.active.eq(active),
            self.fetch.eq(active & (left != 0)),
            self.fetch_at.eq(at),
            self.fetch_row.eq(number),
            running.eq(active & (left == 0) & (lead == 0)),
            self.runs.eq(running),
        ]
        self._begins = Signal()  # the slot after this one runs the first word
        m.d.comb += self._begins.eq(active & (left == 0) & (lead == 1))
        with m.If(self.fetch):
            m.d.sync += [left.eq(left - 1), at.eq(at + 1), number.eq(number + 1)]
        with m.Elif(lead != 0):
            m.d.sync += lead.eq(lead - 1)
        with m.If(self.start):
            m.d.sync += [active.eq(1), left.eq(rows), lead.eq(VECTOR_LEAD)]
            m.d.sync += [at.eq(self.instr.kernel), number.eq(0)]
        with m.Elif(self.last):
            m.d.sync += active.eq(0)

    def _words(self, m: Module) -> None:
        """The word of this slot, and of the next."""
        k, i = self._k, self.instr
        row, section = Signal(ROW, reset_less=True), Signal(2, reset_less=True)
        word, body_at = Signal(range(WORDS), reset_less=True), Signal(range(WORDS))
        left = Signal(7, reset_less=True)  # words of this section, this one included
        rows, index = Signal(16, reset_less=True), Signal(16, reset_less=True)
        unit = Signal(16, reset_less=True)
        self._wraps = wrap = Signal()  # a word's last slot
        section_ends = Signal()
        self._next_unit, self._rewind = Signal(), Signal()  # after this word
        self._next_group = Signal()
        ends, final_unit, final_group = Signal(), Signal(), Signal()
        following = Signal(2)  # section of the next word
        m.d.comb += [
            wrap.eq(self.runs & (row == VECTOR_ROWS - 1)),
            body_at.eq(k["init"] + k["head"]),
            section_ends.eq(left == 1),
            final_unit.eq(unit == k["units"] - 1),
            final_group.eq(rows <= VECTOR_ROWS),
            following.eq(section),
            self.final_unit.eq(final_unit),
        ]
        first = Mux(k["head"] == 0, _BODY, _HEAD)
        with m.If(section_ends), m.Switch(section):
            with m.Case(_INIT):
                m.d.comb += following.eq(first)
            with m.Case(_HEAD):
                m.d.comb += following.eq(_BODY)
            with m.Case(_BODY):
                with m.If(~final_unit):
                    m.d.comb += self._next_unit.eq(1)
                with m.Elif(k["tail"] != 0):
                    m.d.comb += [following.eq(_TAIL), self._rewind.eq(1)]
                with m.Else():
                    m.d.comb += ends.eq(1)
            with m.Default():
                m.d.comb += ends.eq(1)
        m.d.comb += self._next_group.eq(ends)
        with m.If(ends):
            m.d.comb += following.eq(first)
        starts = Mux(following == _HEAD, k["init"], body_at)  # of the next section, if it is these
        next_word = Signal(range(WORDS))
        m.d.comb += next_word.eq(word + 1)
        with m.If(section_ends & (ends | self._next_unit)):
            m.d.comb += next_word.eq(starts)
        m.d.comb += [
            self.row.eq(row),
            self.exists.eq(row < rows),
            self.index.eq(index + row),
            self.unit.eq(unit),
            self.last.eq(wrap & ends & final_group),
            self.take.eq(wrap | self._begins),
            self.next_word.eq(Mux(self.runs, next_word, 0)),
        ]
        with m.If(self.runs):
            m.d.sync += row.eq(row + 1)
        with m.If(wrap):
            m.d.sync += [word.eq(next_word), section.eq(following), left.eq(left - 1)]
            with m.If(section_ends):
                m.d.sync += left.eq(self._length(following))
            with m.If(self._next_unit):
                m.d.sync += unit.eq(unit + 1)
            with m.If(self._rewind | ends):
                m.d.sync += unit.eq(0)
            with m.If(ends):
                m.d.sync += [rows.eq(rows - VECTOR_ROWS), index.eq(index + VECTOR_ROWS)]
        with m.If(self.start):
            opening = Mux(i.init != 0, _INIT, Mux(i.head != 0, _HEAD, _BODY))
            length = Mux(i.init != 0, i.init, Mux(i.head != 0, i.head, i.body))
            m.d.sync += [row.eq(0), section.eq(opening), word.eq(0), left.eq(length)]
            m.d.sync += [rows.eq(i.rows), index.eq(0), unit.eq(0)]

    def _length(self, section):
        """Words of a section."""
        k = self._k
        return Mux(section == _HEAD, k["head"], Mux(section == _BODY, k["body"], k["tail"]))

    def _stream(self, m: Module, name: str) -> None:
        """A stream's address in this slot."""
        k, i = self._k, self.instr
        group, at_unit, at = (
            Signal(LOCAL_BITS, name=f"{name}_{n}", reset_less=True) for n in ("group", "unit", "at")
        )
        turn, following = Signal(LOCAL_BITS), Signal(LOCAL_BITS)
        across = Cat(Const(0, exact_log2(VECTOR_ROWS)), k[f"{name}_row"])
        m.d.comb += [turn.eq(group + across), following.eq(at_unit)]
        with m.If(self._next_group):
            m.d.comb += following.eq(turn)
        with m.Elif(self._rewind):
            m.d.comb += following.eq(group)
        with m.Elif(self._next_unit):
            m.d.comb += following.eq(at_unit + k[f"{name}_unit"])
        with m.If(self.start):
            base = i[name]
            m.d.sync += [group.eq(base), at_unit.eq(base), at.eq(base)]
        with m.Elif(self._wraps):
            m.d.sync += [at_unit.eq(following), at.eq(following)]
            with m.If(self._next_group):
                m.d.sync += group.eq(turn)
        with m.Elif(self.runs):
            m.d.sync += at.eq(at + k[f"{name}_row"])
        out = getattr(self, name)
        m.d.comb += [
            out.on.eq(k[f"{name}_on"]),
            out.acc.eq(k[f"{name}_mem"]),
            out.type.eq(k[f"{name}_type"]),
            out.at.eq(at),
        ]
