"""The host's window on the local memories: one 32-bit word, through STORE's read ports.

Only while STORE is quiet: then nobody else uses its ports. No port is added to the memories.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from tilewright.hw.memory import AccRead, SpadRead
from tilewright.isa.config import ChipConfig

ADDRESS_BITS = 32
ACC = 31  # the bit of an address that selects the accumulator


class Peek(wiring.Component):
    """Reads a word for the host, or passes STORE's reads on.

    **Members**

    address : In(32)
        Byte offset of a word, a multiple of 4 (wraps at the memory's end); bit 31: accumulator.
    go : In(1)
        Read; only while STORE is quiet.
    word : Out(32)
        The word.
    store_spad, store_acc : In
        STORE's ports.
    spad, acc : Out
        The memories' ports.

    **Timing** : `word` from go + MEM_READ on, until STORE or another `go` reads. No latency is
    added to STORE's reads.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        super().__init__(
            {
                "address": In(ADDRESS_BITS),
                "go": In(1),
                "word": Out(32),
                "store_spad": In(SpadRead(config)),
                "store_acc": In(AccRead(config)),
                "spad": Out(SpadRead(config)),
                "acc": Out(AccRead(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        dim = self.config.dim
        in_acc = self.address[ACC]
        words = self.address[2:ACC]
        lanes = exact_log2(dim // 2)  # words of a pair of granules, as a power of two
        pair = Signal.like(self.spad.addr)
        m.d.comb += [
            pair.eq(words[lanes:] << 1),
            self.spad.en.eq(self.store_spad.en | (self.go & ~in_acc)),
            self.spad.addr.eq(Mux(self.go, pair, self.store_spad.addr)),
            self.store_spad.pair.eq(self.spad.pair),
            self.store_spad.data.eq(self.spad.data),
            self.acc.en.eq(self.store_acc.en | (self.go & in_acc)),
            self.acc.addr.eq(Mux(self.go, words[lanes + 1 :], self.store_acc.addr)),
            self.store_acc.data.eq(self.acc.data),
            self.word.eq(
                Mux(
                    in_acc,
                    self.acc.data.word_select(words[: lanes + 1], 32),
                    self.spad.pair.word_select(words[:lanes], 32),
                )
            ),
        ]
        return m
