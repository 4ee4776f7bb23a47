"""MATMUL's front: cuts the instruction at the queue's head into passes.

A pass is one weight tile (`dim` x `dim`) times all rows; passes run over the N-blocks (outer) and
the K-blocks (inner). Bases advance by additions only. For each pass the front gives the issue
module the banks that it needs, and the core its addresses and valid sizes.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2
from tilewright.hw.payload import payload
from tilewright.isa.config import BANKS, LOCAL_BITS

_LOCAL = unsigned(LOCAL_BITS)
#: What the core (`hw.matmul.Matmul`) gets with each granted pass, besides the instruction. Its
#: members, as `hw.chip` connects them: unit In(UnitSignature("matmul")), where `start` is a pass;
#: pass_ In(PASS), valid with `unit.start`; spad_a, spad_w, acc_r, acc_w (clients of the memories);
#: busy_array Out(1), a register; o_row Out(1), in each row slot, with o_macs Out(11), PASS.macs.
PASS = data.StructLayout(
    {
        "a": _LOCAL,  # a + kb*ak
        "w": _LOCAL,  # w + kb*wk + nb*wn
        "c": _LOCAL,  # c + nb*cn
        "k": unsigned(6),  # valid k of the block, 1 to dim
        "n": unsigned(6),  # valid columns of the block, 1 to dim
        "first": unsigned(1),  # first K-block: overwrites unless the instruction accumulates
        "apart": unsigned(1),  # A and W lie in different banks
        "macs": unsigned(11),  # k * n: useful multiply-accumulates of one row
    }
)


class MatmulFrontSignature(wiring.Signature):
    """Between the issue module (as written) and the front (flipped).

    **Members**

    head_valid : Out(1)
        MATMUL's head holds an instruction.
    head : Out(payload("matmul"))
        The instruction; stays until its last pass is granted.
    advance : Out(1)
        The current pass is granted in this cycle.
    reading : Out(1)
        The read_release of a granted pass is outstanding.
    spad_r : In(BANKS)
        Banks that the pass reads in the scratchpad (A and W).
    acc : In(BANKS)
        Banks that the pass reads and writes in the accumulator.
    blocked : In(1)
        The pass's W banks meet the A banks of the previous pass, which is still reading.
    last : In(1)
        This is the instruction's last pass.

    **Timing**

    Head valid first at h: `spad_r`, `acc`, `last` hold from h + 1; after a grant at G, from G + 2.
    """

    def __init__(self):
        super().__init__(
            {
                "head_valid": Out(1),
                "head": Out(payload("matmul")),
                "advance": Out(1),
                "reading": Out(1),
                "spad_r": In(BANKS),
                "acc": In(BANKS),
                "blocked": In(1),
                "last": In(1),
            }
        )


def bank_span(low, high, bank_rows):
    """Mask of the banks from row `low` to row `high`, both in range, of banks of `bank_rows`."""
    shift = ceil_log2(bank_rows)
    first, last = low[shift : shift + 3], high[shift : shift + 3]
    above = (Const((1 << BANKS) - 1, BANKS) << first)[:BANKS]
    below = Const((1 << BANKS) - 1, BANKS) >> ((BANKS - 1) - last)[:3]
    return (above & below)[:BANKS]


class MatmulFront(wiring.Component):
    """Steps through the passes of MATMUL's head.

    **Members**

    issue : In(MatmulFrontSignature())
        The issue module.
    pass_ : Out(PASS)
        The current pass, for the core; taken with `start`.

    **Timing**

    `pass_` holds from h + 1, after a grant at G from G + 1; see `MatmulFrontSignature`.
    """

    def __init__(self, config):
        self.config = config
        super().__init__({"issue": In(MatmulFrontSignature()), "pass_": Out(PASS)})

    def elaborate(self, platform):
        m = Module()
        dim, cfg = self.config.dim, self.config
        issue, head = self.issue, self.issue.head
        fresh = Signal(init=1)  # the head has not been looked at yet
        stepped = Signal()  # the bases moved on in the cycle before
        load = Signal()
        m.d.comb += load.eq(fresh & issue.head_valid)

        a, w, c = (Signal(LOCAL_BITS, name=n, reset_less=True) for n in ("a", "w", "c"))
        w_block = Signal(LOCAL_BITS, reset_less=True)  # w + nb*wn
        k_left = Signal(16, reset_less=True)
        n_left = Signal(16, reset_less=True)
        first = Signal(reset_less=True)
        last_k, last_n = Signal(), Signal()
        m.d.comb += [
            last_k.eq(k_left <= dim),
            last_n.eq(n_left <= dim),
            issue.last.eq(last_k & last_n),
            self.pass_.a.eq(a),
            self.pass_.w.eq(w),
            self.pass_.c.eq(c),
            self.pass_.k.eq(Mux(last_k, k_left, dim)),
            self.pass_.n.eq(Mux(last_n, n_left, dim)),
            self.pass_.first.eq(first),
            self.pass_.macs.eq(self.pass_.k * self.pass_.n),
        ]
        m.d.sync += stepped.eq(issue.advance & ~issue.last)
        with m.If(load):
            m.d.sync += fresh.eq(0)
        with m.If(issue.advance & issue.last | ~issue.head_valid):
            m.d.sync += fresh.eq(1)

        next_w = Signal(LOCAL_BITS)
        m.d.comb += next_w.eq(w_block + head.wn)
        with m.If(load):
            m.d.sync += [w.eq(head.w), w_block.eq(head.w), c.eq(head.c), n_left.eq(head.n)]
        with m.If(load | (issue.advance & last_k)):
            m.d.sync += [a.eq(head.a), k_left.eq(head.k), first.eq(1)]
        with m.If(issue.advance & last_k):
            m.d.sync += [w.eq(next_w), w_block.eq(next_w)]
            m.d.sync += [c.eq(c + head.cn), n_left.eq(n_left - dim)]
        with m.Elif(issue.advance):
            m.d.sync += [a.eq(a + head.ak), w.eq(w + head.wk), k_left.eq(k_left - dim)]
            m.d.sync += first.eq(0)

        self._masks(m, load | stepped, Mux(load, Cat(head.a, head.w, head.c), Cat(a, w, c)), cfg)
        return m

    def _masks(self, m, enable, bases, cfg):
        """Registers for the banks of the pass at `bases`; remember those of the granted one."""
        issue, head = self.issue, self.issue.head
        a, w, c = (Signal(LOCAL_BITS, name=f"{n}_base") for n in ("a", "w", "c"))
        ends = {
            n: Signal(LOCAL_BITS, name=n) for n in ("a_lo", "a_hi", "w_lo", "w_hi", "c_lo", "c_hi")
        }
        m.d.comb += [
            Cat(a, w, c).eq(bases),
            ends["a_lo"].eq(a + head.a_lo),
            ends["a_hi"].eq(a + head.a_hi),
            ends["w_lo"].eq(w + head.w_lo),
            ends["w_hi"].eq(w + head.w_hi),
            ends["c_lo"].eq(c),
            ends["c_hi"].eq(c + head.rows - 1),
        ]
        a_mask, w_mask, previous = (
            Signal(BANKS, name=n, reset_less=True) for n in ("a_mask", "w_mask", "a_previous")
        )
        acc = Signal(BANKS, reset_less=True)
        with m.If(enable):
            m.d.sync += [
                a_mask.eq(bank_span(ends["a_lo"], ends["a_hi"], cfg.spad_bank)),
                w_mask.eq(bank_span(ends["w_lo"], ends["w_hi"], cfg.spad_bank)),
                acc.eq(bank_span(ends["c_lo"], ends["c_hi"], cfg.acc_bank)),
            ]
        with m.If(issue.advance):
            m.d.sync += previous.eq(a_mask)
        m.d.comb += [
            self.pass_.apart.eq(~(a_mask & w_mask).any()),
            issue.spad_r.eq(a_mask | w_mask),
            issue.acc.eq(acc),
            issue.blocked.eq(issue.reading & (w_mask & previous).any()),
        ]
