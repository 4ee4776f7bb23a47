"""The VECTOR unit: a micro-kernel over rows in the local memories, `dim` lanes of 32 bits.

A slot runs one word for one row (`hw.vector_walk`): registers are read, the lanes compute, a load
is asked for, a store goes out. Nothing is ever stalled, and results are back before the same row's
next word, so there is no forwarding and no hazard. The pipeline, from the slot's cycle t on:

    t      word, row, unit, addresses            t + 3  store on the port; load's data are there
    t + 1  registers are there; load on the port t + 4  load's value into its register
    t + 2  lanes at work; store converted        t + 7  the lanes' result into its register
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.decode import is_in
from tilewright.hw.float import delay
from tilewright.hw.load_convert import f32_to_bf16
from tilewright.hw.memory import AccRead, AccWrite, SpadRead, SpadWrite, widened
from tilewright.hw.payload import UnitSignature
from tilewright.hw.vector_lanes import VectorLanes
from tilewright.hw.vector_registers import VectorRegisters
from tilewright.hw.vector_walk import WORDS, Walk, stream_layout
from tilewright.isa.config import ChipConfig
from tilewright.isa.micro import LAYOUTS, OPERATIONS, SOURCES, WORD_BYTES
from tilewright.isa.table import Type
from tilewright.isa.timing import (
    MEM_READ,
    VECTOR_ALU_LATENCY,
    VECTOR_DONE,
    VECTOR_INFLIGHT,
    VECTOR_LEAD,
    VECTOR_READ,
    VECTOR_ROWS,
)
from tilewright.isa.units import LOAD_STREAMS, STORE_STREAMS

#: Stages after a slot: its load is on the port, the data are there, they go into the register.
_AT_LOAD = 1
_AT_DATA = _AT_LOAD + MEM_READ
_AT_LOADED = _AT_DATA + 1
#: Its operands are there; its store is on the port; the lanes' result goes into its register.
_AT_OPERANDS = 1
_AT_STORE = 3
_AT_RESULT = VECTOR_ROWS - 1
for _name, _is, _must in (
    ("VECTOR_LEAD", VECTOR_LEAD, _AT_DATA + 2),
    ("VECTOR_READ", VECTOR_READ, _AT_LOAD),
    ("VECTOR_DONE", VECTOR_DONE, _AT_STORE + 1),
):
    if _is != _must:
        raise AssertionError(f"{_name} must be {_must}, not {_is!r}")
if _AT_OPERANDS + VECTOR_ALU_LATENCY > _AT_RESULT or (_AT_RESULT - _AT_LOADED) % 2 == 0:
    raise AssertionError("a result must be there in time, an odd number of cycles after a load's")
_WRITING = {code for name, (code, _) in OPERATIONS.items() if name != "nop"}
_ALU = {name: place for name, place in LAYOUTS["mov"].items()}
_IMMEDIATE, _CONST = LAYOUTS["const"]["imm"], OPERATIONS["const"][0]


def _field(word, name: str):
    at, field = _ALU[name]
    return word[at : at + field.bits]


class Vector(wiring.Component):
    """VECTOR.

    Parameters
    ----------
    config : geometry.

    **Members**

    unit : In(UnitSignature("vector"))
    acc_r, spad_r, acc_w, spad_w : clients of the memories.

    **Timing** : docs/microarchitecture.md §6. `done` pulses come in order.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "unit": In(UnitSignature("vector")),
                "acc_r": Out(AccRead(config)),
                "spad_r": Out(SpadRead(config)),
                "acc_w": Out(AccWrite(config)),
                "spad_w": Out(SpadWrite(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.walk = self.walk = walk = Walk(self.config)
        m.submodules.registers = self.registers = VectorRegisters(self.config.dim)
        self._order(m, walk)
        self.word = self._kernel(m, walk)
        self._load(m, walk)
        self._compute(m, walk)
        self._store(m, walk)
        return m

    def _order(self, m: Module, walk: Walk) -> None:
        """Instructions in flight: accept up to VECTOR_INFLIGHT."""
        unit = self.unit
        count = Signal(range(VECTOR_INFLIGHT + 1))
        ends = Signal(VECTOR_DONE + 1)  # bit n: the last slot is n cycles old
        m.d.comb += [
            walk.start.eq(unit.start),
            walk.instr.eq(unit.instr),
            ends[0].eq(walk.active & walk.last),
            unit.issuing.eq(walk.active),
            unit.ready.eq((~walk.active | walk.last) & (count != VECTOR_INFLIGHT)),
            unit.read_release.eq(ends[VECTOR_READ]),
            unit.done.eq(ends[VECTOR_DONE]),
        ]
        m.d.sync += [ends[1:].eq(ends[:-1]), count.eq(count + unit.start - unit.done)]

    def _kernel(self, m: Module, walk: Walk) -> Signal:
        """The buffer of the micro-kernel; the word of this slot."""
        per_row = 4 * self.config.dim // WORD_BYTES
        low = exact_log2(per_row)
        m.submodules.kernel = buffer = Memory(
            shape=32 * self.config.dim, depth=WORDS // per_row, init=[]
        )
        write, read = buffer.write_port(), buffer.read_port()
        arrives = Signal(_AT_DATA)
        m.d.sync += arrives.eq(Cat(walk.fetch, arrives[:-1]))
        number = delay(m, "sync", walk.fetch_row, _AT_DATA, "fetched")
        select = Signal(range(WORDS), reset_less=True)
        m.d.sync += select.eq(walk.next_word)
        m.d.comb += [
            write.en.eq(arrives[-1]),
            write.addr.eq(number),
            write.data.eq(self.acc_r.data),
            read.addr.eq(walk.next_word >> low),
        ]
        word = Signal(8 * WORD_BYTES, reset_less=True)
        with m.If(walk.take):
            m.d.sync += word.eq(read.data.word_select(select[:low], 8 * WORD_BYTES))
        return word

    def _stream(self, walk: Walk, names: tuple[str, ...], number):
        """The stream that a slot of the word names."""
        chosen = getattr(walk, names[0])
        for i, name in enumerate(names[1:], 2):
            chosen = Mux(number == i, getattr(walk, name).as_value(), chosen)
        return data.View(stream_layout(), chosen)

    def _load(self, m: Module, walk: Walk) -> None:
        """Ask for a micro-kernel's row, or for a unit; its value goes into a register."""
        number = _field(self.word, "load")
        stream = Signal(stream_layout())
        asks = Signal()
        m.d.comb += [
            stream.eq(self._stream(walk, LOAD_STREAMS, number)),
            asks.eq(walk.runs & walk.exists & stream.on & (number != 0)),
        ]
        m.d.sync += [
            self.acc_r.en.eq(walk.fetch | (asks & stream.acc)),
            self.spad_r.en.eq(asks & ~stream.acc),
            self.acc_r.addr.eq(Mux(walk.fetch, walk.fetch_at, stream.at)),
            self.spad_r.addr.eq(stream.at),
        ]
        valid = Signal(_AT_LOADED)
        m.d.sync += valid.eq(Cat(asks, valid[:-1]))
        kind = delay(m, "sync", stream.type, _AT_DATA, "load_type")
        place = Cat(walk.row, _field(self.word, "load_dst"))
        place = delay(m, "sync", place, _AT_LOADED, "load_place")
        value = Signal(32 * self.config.dim, reset_less=True)
        with m.If(valid[_AT_DATA - 1]):
            m.d.sync += value.eq(widened(m, self.acc_r, self.spad_r, kind))
        write = self.registers.w_load
        m.d.comb += [
            write.en.eq(valid[_AT_LOADED - 1]),
            Cat(write.row, write.register).eq(place),
            write.value.eq(value),
        ]

    def _compute(self, m: Module, walk: Walk) -> None:
        """Registers and other sources to the lanes; their result to its register."""
        dim, word, registers = self.config.dim, self.word, self.registers
        m.submodules.lanes = lanes = VectorLanes(dim)
        m.d.comb += registers.i_row.eq(walk.row)
        others = self._sources(m, walk)
        for name in "abc":
            source = _field(word, name)
            m.d.comb += getattr(registers, f"i_{name}").eq(source)
            chosen = delay(m, "sync", source, _AT_OPERANDS, f"source_{name}")
            with m.Switch(chosen):
                for code, value in others.items():
                    with m.Case(code):
                        m.d.comb += getattr(lanes, f"i_{name}").eq(value)
                with m.Default():
                    m.d.comb += getattr(lanes, f"i_{name}").eq(getattr(registers, f"o_{name}"))
        at, imm = _IMMEDIATE
        m.d.comb += [
            lanes.i_valid.eq(walk.runs & is_in(_field(word, "op"), _WRITING)),
            lanes.i_op.eq(_field(word, "op")),
            lanes.i_n.eq(_field(word, "n")),
        ]
        constant = delay(m, "sync", _field(word, "op") == _CONST, _AT_OPERANDS, "constant")
        value = delay(m, "sync", word[at : at + imm.bits], _AT_OPERANDS, "immediate")
        with m.If(constant):
            m.d.comb += lanes.i_a.eq(value.replicate(dim))
        place = Cat(walk.row, _field(word, "dst"))
        place = delay(m, "sync", place, _AT_RESULT, "result_place")
        rest = _AT_RESULT - _AT_OPERANDS - VECTOR_ALU_LATENCY
        valid = Signal(rest + 1)
        m.d.comb += valid[0].eq(lanes.o_valid)
        m.d.sync += valid[1:].eq(valid[:-1])
        write = registers.w_alu
        m.d.comb += [
            write.en.eq(valid[rest]),
            Cat(write.row, write.register).eq(place),
            write.value.eq(delay(m, "sync", lanes.o_result, rest, "result")),
        ]

    def _sources(self, m: Module, walk: Walk) -> dict:
        """Values of `SOURCES` by code, in the cycle of the operands."""
        dim = self.config.dim
        index, unit = Signal(16, reset_less=True), Signal(16, reset_less=True)
        active = Signal(dim, reset_less=True)
        whole = ~walk.final_unit
        m.d.sync += [
            index.eq(walk.index),
            unit.eq(walk.unit),
            active.eq(Cat(whole | (i <= walk.columns) for i in range(dim))),
        ]
        one = 0x3F800000
        values = {
            "u": walk.u.replicate(dim),
            "v": walk.v.replicate(dim),
            "lane": Cat(Const(i, 32) for i in range(dim)),
            "row": Cat(index, Const(0, 16)).replicate(dim),
            "unit": Cat(unit, Const(0, 16)).replicate(dim),
            "zero": Const(0, 32 * dim),
            "one": Const(one, 32).replicate(dim),
            "active": Cat(Cat(x, Const(0, 31)) for x in active),
        }
        return {code: values[name] for name, code in SOURCES.items()}

    def _store(self, m: Module, walk: Walk) -> None:
        """A register to a unit: converted, on the port."""
        dim, number = self.config.dim, _field(self.word, "store")
        stream, goes = Signal(stream_layout()), Signal()
        m.d.comb += [
            self.registers.i_store.eq(_field(self.word, "store_src")),
            stream.eq(self._stream(walk, STORE_STREAMS, number)),
            goes.eq(walk.runs & walk.exists & stream.on & (number != 0) & (number <= 2)),
        ]
        valid = Signal(_AT_STORE - 1)
        m.d.sync += valid.eq(Cat(goes, valid[:-1]))
        early = data.View(stream_layout(), delay(m, "sync", stream.as_value(), 1, "store_early"))
        late = delay(m, "sync", early.as_value(), _AT_STORE - 2, "store_late")
        late = data.View(stream_layout(), late)
        value = Signal(32 * dim, reset_less=True)
        with m.If(valid[0]):
            m.d.sync += value.eq(self._narrowed(m, early.type))
        wide = late.type == Type.BF16
        m.d.sync += [
            self.acc_w.en.eq(valid[-1] & late.acc),
            self.spad_w.en.eq(valid[-1] & ~late.acc),
        ]
        half = 8 * dim
        with m.If(valid[-1]):
            m.d.sync += [
                self.acc_w.addr.eq(late.at),
                self.acc_w.data.eq(value),
                self.spad_w.addr.eq(late.at),
                self.spad_w.data.eq(Mux(wide, value[: 2 * half], value[:half].replicate(2))),
                self.spad_w.mask.eq(Mux(wide, 3, 1 << late.at[0])),
            ]

    def _narrowed(self, m: Module, kind) -> Signal:
        """What is written of a register of type `kind`, dense from bit 0 up."""
        dim = self.config.dim
        lanes = [self.registers.o_store[32 * i : 32 * i + 32] for i in range(dim)]
        out = Signal(32 * dim)
        with m.Switch(kind):
            with m.Case(Type.I8):
                m.d.comb += out.eq(Cat(_saturated(x, -128, 127) for x in lanes))
            with m.Case(Type.U8):
                m.d.comb += out.eq(Cat(_saturated(x, 0, 255) for x in lanes))
            with m.Case(Type.BF16):
                m.d.comb += out.eq(Cat(f32_to_bf16(x) for x in lanes))
            with m.Default():
                m.d.comb += out.eq(self.registers.o_store)
        return out


def _saturated(x, low: int, high: int):
    """The byte nearest to an int32."""
    value = x.as_signed()
    return Mux(value < low, Const(low & 255, 8), Mux(value > high, Const(high, 8), x[:8]))
