"""The banked local memories: scratchpad and accumulator.

Eight contiguous banks, each with one read and one write port behind `SRAM`. The issue module has
granted a bank's port to one unit before an access comes, so nothing is arbitrated here: each bank
takes the client that addresses it. Two clients in one bank's port in one cycle is a bug elsewhere.
"""

from amaranth.hdl import Cat, ClockSignal, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.blackbox import BlackBoxes
from tilewright.isa.config import BANKS, ChipConfig
from tilewright.isa.table import Type
from tilewright.isa.timing import MEM_READ, MEM_WRITE

SPAD_READERS = ("load", "matmul_a", "matmul_w", "vector", "store")
SPAD_WRITERS = ("load", "vector", "store")
ACC_READERS = ("matmul", "vector", "store")
ACC_WRITERS = ("load", "matmul", "vector")


class SpadRead(wiring.Signature):
    """A reader of the scratchpad, from the reader's side.

    **Members**

    en, addr : Out
        Read the granule `addr`, and the aligned pair that it lies in.
    pair : In(16 * dim)
        The pair, the even granule in the low half; holds until the reader's next read is there.
    data : In(8 * dim)
        The granule.
    """

    def __init__(self, config: ChipConfig):
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(exact_log2(config.spad_granules)),
                "pair": In(16 * config.dim),
                "data": In(8 * config.dim),
            }
        )


class SpadWrite(wiring.Signature):
    """A writer of the scratchpad: `mask` selects granules of the pair that holds granule `addr`."""

    def __init__(self, config: ChipConfig):
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(exact_log2(config.spad_granules)),
                "data": Out(16 * config.dim),
                "mask": Out(2),
            }
        )


class AccRead(wiring.Signature):
    """A reader of accumulator rows; `data` holds until the reader's next read is there."""

    def __init__(self, config: ChipConfig):
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(exact_log2(config.acc_rows)),
                "data": In(32 * config.dim),
            }
        )


class AccWrite(wiring.Signature):
    """A writer of accumulator rows."""

    def __init__(self, config: ChipConfig):
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(exact_log2(config.acc_rows)),
                "data": Out(32 * config.dim),
            }
        )


class SRAM(wiring.Component):
    """One bank: the only place to replace when the chip is built of a foundry's macros.

    Parameters
    ----------
    width, depth, parts : bits of a word, words, write enables of equal parts of a word.

    **Members** : r_en, r_addr, r_data; w_en (one bit for each part), w_addr, w_data.

    **Timing** : r_data one cycle after r_en, then held. Reading an address in the cycle in which it
    is written gives nothing that may be used.
    """

    def __init__(self, width: int, depth: int, parts: int = 1):
        self.width, self.depth, self.parts = width, depth, parts
        super().__init__(
            {
                "r_en": In(1),
                "r_addr": In(range(depth)),
                "r_data": Out(width),
                "w_en": In(parts),
                "w_addr": In(range(depth)),
                "w_data": In(width),
            }
        )

    def elaborate(self, platform) -> Module:
        if isinstance(platform, BlackBoxes):
            name = f"tw_sram_{self.width}x{self.depth}x{self.parts}"
            return platform.instance(self, name, lambda: self._verilog(name), i_clk=ClockSignal())
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write = memory.write_port(granularity=self.width // self.parts)
        read = memory.read_port()
        m.d.comb += [
            read.en.eq(self.r_en),
            read.addr.eq(self.r_addr),
            self.r_data.eq(read.data),
            write.en.eq(self.w_en),
            write.addr.eq(self.w_addr),
            write.data.eq(self.w_data),
        ]
        return m

    def _verilog(self, name: str) -> str:
        """The bank as a simulator likes it: no list of initial words, no delayed writes."""
        part, address = self.width // self.parts, exact_log2(self.depth) - 1
        lines = [
            f"module {name}(input clk, input r_en, input [{address}:0] r_addr,",
            f"    output reg [{self.width - 1}:0] r_data, input [{self.parts - 1}:0] w_en,",
            f"    input [{address}:0] w_addr, input [{self.width - 1}:0] w_data);",
            f"  reg [{self.width - 1}:0] words [0:{self.depth - 1}];",
            "  integer i;",
            f"  initial for (i = 0; i < {self.depth}; i = i + 1) words[i] = 0;",
            "  always @(posedge clk) begin",
            "    if (r_en) r_data <= words[r_addr];",
        ]
        for n in range(self.parts):
            bits = f"[{(n + 1) * part - 1}:{n * part}]"
            lines.append(f"    if (w_en[{n}]) words[w_addr]{bits} = w_data{bits};")
        return "\n".join([*lines, "  end", "endmodule", ""])


class _Banks(wiring.Component):
    """What both memories share: ports `r_<reader>` and `w_<writer>`, banks of `depth` words."""

    def __init__(self, readers: dict, writers: dict, width: int, depth: int, parts: int):
        self.width, self.depth, self.parts = width, depth, parts
        self.readers, self.writers = tuple(readers), tuple(writers)
        super().__init__(
            {f"r_{n}": In(s) for n, s in readers.items()}
            | {f"w_{n}": In(s) for n, s in writers.items()}
        )

    def _word(self, port):
        """(Bank, address in the bank) of a port's access."""
        word = port.addr[exact_log2(self.parts) :]
        bits = exact_log2(self.depth)
        return word[bits:], word[:bits]

    def elaborate(self, platform) -> Module:
        m = Module()
        reads = [getattr(self, f"r_{n}") for n in self.readers]
        writes = [getattr(self, f"w_{n}") for n in self.writers]
        reading, writing = self._hits(m, "r", reads), self._hits(m, "w", writes)
        banks = []
        for b in range(BANKS):
            bank = SRAM(self.width, self.depth, self.parts)
            m.submodules[f"bank{b}"] = bank
            banks.append(bank)
            words = [self._word(port)[1] for port in reads]
            m.d.comb += bank.r_en.eq(Cat(hit[b] for hit in reading).any())
            m.d.comb += bank.r_addr.eq(self._choose(b, reading, words))
            words = [self._word(port)[1] for port in writes]
            mask = self._choose(b, writing, [self._mask(port) for port in writes])
            m.d.comb += [
                bank.w_en.eq(Mux(Cat(hit[b] for hit in writing).any(), mask, 0)),
                bank.w_addr.eq(self._choose(b, writing, words)),
                bank.w_data.eq(self._choose(b, writing, [port.data for port in writes])),
            ]
        for name, port in zip(self.readers, reads, strict=True):
            self._output(m, name, port, banks)
        return m

    def _hits(self, m, name, ports):
        """For each port one bit a bank: the bank that it addresses, if any."""
        hits = []
        for i, port in enumerate(ports):
            hit = Signal(BANKS, name=f"{name}_hit{i}")
            bank, _ = self._word(port)
            m.d.comb += hit.eq(Mux(port.en, Const(1, 1) << bank, 0))
            hits.append(hit)
        return hits

    def _choose(self, b, hits, values):
        """The value of the port that addresses bank `b`."""
        chosen = values[0]
        for hit, value in zip(hits[1:], values[1:], strict=True):
            chosen = Mux(hit[b], value, chosen)
        return chosen

    def _mask(self, port):
        return port.mask if self.parts > 1 else Const(1, 1)

    def _output(self, m, name, port, banks):
        """The reader's word, MEM_READ cycles after its request."""
        if (MEM_READ, MEM_WRITE) != (2, 1):
            raise ValueError(f"MEM_READ, MEM_WRITE must be 2, 1, not {MEM_READ}, {MEM_WRITE}")
        bank, _ = self._word(port)
        en, select = Signal(name=f"en_{name}"), Signal(len(bank), name=f"bank_{name}")
        word = Signal(self.width, name=f"word_{name}", reset_less=True)
        m.d.sync += en.eq(port.en)
        with m.If(port.en):
            m.d.sync += select.eq(bank)
        with m.If(en), m.Switch(select):
            for b, sram in enumerate(banks):
                with m.Case(b):
                    m.d.sync += word.eq(sram.r_data)
        self._drive(m, name, port, word, en)

    def _drive(self, m, name, port, word, en):
        m.d.comb += port.data.eq(word)


class Scratchpad(_Banks):
    """Banks of granule pairs.

    **Members** : r_load, r_matmul_a, r_matmul_w, r_vector, r_store (`SpadRead`); w_load,
    w_vector, w_store (`SpadWrite`).

    **Timing** : a request at t has its data from t + MEM_READ until the same reader's next data. A
    write at t is seen by a read at t + MEM_WRITE.
    """

    def __init__(self, config: ChipConfig, readers=SPAD_READERS, writers=SPAD_WRITERS):
        self.config = config
        super().__init__(
            dict.fromkeys(readers, SpadRead(config)),
            dict.fromkeys(writers, SpadWrite(config)),
            width=16 * config.dim,
            depth=config.spad_bank // 2,
            parts=2,
        )

    def _drive(self, m, name, port, word, en):
        asked = Signal(name=f"asked_{name}")
        odd = Signal(name=f"odd_{name}")
        with m.If(port.en):
            m.d.sync += asked.eq(port.addr[0])
        with m.If(en):
            m.d.sync += odd.eq(asked)
        half = self.width // 2
        m.d.comb += [port.pair.eq(word), port.data.eq(Mux(odd, word[half:], word[:half]))]


class Accumulator(_Banks):
    """Banks of rows of `dim` x 32 bit.

    **Members** : r_matmul, r_vector, r_store (`AccRead`); w_load, w_matmul, w_vector
    (`AccWrite`).

    **Timing** : as the scratchpad.
    """

    def __init__(self, config: ChipConfig, readers=ACC_READERS, writers=ACC_WRITERS):
        self.config = config
        super().__init__(
            dict.fromkeys(readers, AccRead(config)),
            dict.fromkeys(writers, AccWrite(config)),
            width=32 * config.dim,
            depth=config.acc_bank,
            parts=1,
        )


def widened(m: Module, acc, spad, kind) -> Signal:
    """Lanes of 32 bits of what a unit has read: int32, fp32, or bf16's bits on top.

    Parameters
    ----------
    acc, spad : the unit's readers, `AccRead` and `SpadRead`, whose data are there.
    kind : `Type` of the elements.
    """
    dim = len(spad.data) // 8
    bytes_ = [spad.data[8 * i : 8 * i + 8] for i in range(dim)]
    lanes = Signal(32 * dim)
    with m.Switch(kind):
        with m.Case(Type.I8):
            m.d.comb += lanes.eq(Cat(Cat(b, b[7].replicate(24)) for b in bytes_))
        with m.Case(Type.U8):
            m.d.comb += lanes.eq(Cat(Cat(b, Const(0, 24)) for b in bytes_))
        with m.Case(Type.BF16):
            halves = (spad.pair[16 * i : 16 * i + 16] for i in range(dim))
            m.d.comb += lanes.eq(Cat(Cat(Const(0, 16), h) for h in halves))
        with m.Default():
            m.d.comb += lanes.eq(acc.data)
    return lanes
