"""EXTENT: walks the operands of an instruction with one multiplier, one step per cycle.

The steps are the data of `isa.extent_table`: first the products (elements of a packed row, runs of
a sequence, rows of a pass), in a `partial` LOAD what its sequences lack, then each operand's terms
(count - 1) * stride, gathered into a lowest and a highest offset; the DRAM operand comes last. What
an instruction does not have is left out. One cycle after an operand's last term its ends are
checked, against its memory or the window, and its banks are added to the masks.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2
from tilewright.hw.decode import IR_BITS, fields, holds
from tilewright.hw.matmul_front import bank_span
from tilewright.isa.config import BANKS, LOCAL_BITS, STORE_VECTOR_UNITS, XPOSE_BLOCKS, ChipConfig
from tilewright.isa.extent_table import (
    DRAM,
    JOINS,
    LACKED,
    LOCAL_BYTES,
    OPERANDS,
    PAIRS,
    PARTS,
    PRODUCT_BASE,
    PRODUCTS,
    SKIPPED,
)
from tilewright.isa.micro import WORD_BYTES
from tilewright.isa.table import INSTRUCTIONS, OPCODE_BITS, Mem
from tilewright.isa.units import LACKS, SECTIONS

UNITS = tuple(name for name in OPERANDS if OPERANDS[name])  # instructions that have steps
_SUM = signed(51)  # sums of four products of 16 x 32 bits, and a run
_OPERAND = data.StructLayout({"dram": 1, "acc": 1, "base": 32, "reads": 1, "writes": 1})


class Extent(wiring.Component):
    """The EXTENT stage.

    **Members**

    enter, word : In(1), In(IR_BITS)
        A new instruction comes next: this one, before its registers are resolved.
    ir : In(IR_BITS)
        The instruction, resolved; held from the first EXTENT cycle until it is pushed.
    step : In(1)
        This is an EXTENT cycle.
    last : Out(1)
        This is the last EXTENT cycle of the instruction.
    none : Out(1)
        `word` has no EXTENT cycle.
    window_base, window_limit : In(32)
        First and last byte of DRAM that may be touched.
    bad, fenced : Out(1)
        Faults RANGE, WINDOW. Valid from the cycle after `last`.
    product : Out(16)
        `row_elems` of a LOAD (see `hw.payload`), `rows` of a MATMUL. Valid likewise.
    units : Out(16)
        Units of a row (LOAD, VECTOR, STORE). Valid likewise.
    joined, span : Out(1), Out(32)
        See `hw.payload` (LOAD, STORE). Valid likewise.
    paired, begin, back : Out(1), Out(32), Out(32)
        See `hw.payload` (LOAD). Valid likewise.
    a_lo, a_hi, w_lo, w_hi : Out(signed(LOCAL_BITS + 1))
        Offsets of a MATMUL pass. Valid likewise.
    spad_r, spad_w, acc_r, acc_w : Out(BANKS)
        Banks that the instruction needs. Valid likewise.

    **Timing** : `isa.extent.extent_cycles` cycles.
    """

    def __init__(self, config: ChipConfig):
        self.config = config
        offset = signed(LOCAL_BITS + 1)
        super().__init__(
            {
                "enter": In(1),
                "word": In(IR_BITS),
                "ir": In(IR_BITS),
                "step": In(1),
                "last": Out(1),
                "none": Out(1),
                "window_base": In(32),
                "window_limit": In(32),
                "bad": Out(1),
                "fenced": Out(1),
                "product": Out(16),
                "units": Out(16),
                "joined": Out(1),
                "span": Out(32),
                "paired": Out(1),
                "begin": Out(32),
                "back": Out(32),
                **{n: Out(offset) for n in ("a_lo", "a_hi", "w_lo", "w_hi")},
                **{n: Out(BANKS) for n in ("spad_r", "spad_w", "acc_r", "acc_w")},
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._kept = Signal(16)  # the last product
        self._values = {name: self._fields(m, name) for name in UNITS}
        self._pick(m)
        self._accumulate(m)
        self._check(m)
        return m

    def _fields(self, m, name):
        """Fields and derived counts of one instruction, as in `isa.extent.derived`."""
        cfg = self.config
        v = fields(INSTRUCTIONS[name], self.ir)
        v["dim"] = Const(cfg.dim, 16)
        if name == "load":
            v["deep"] = (v["c2"] != 1) | (v["c3"] != 1)
            v["inside"] = v["pack"] + v["xpose"]
            v["partial"] = Cat(v[n] for n in LACKS).any()
            for part in (p for p in PARTS[name] if p.name == "products"):
                result = PRODUCTS[name][part.first][0]
                base = v[PRODUCT_BASE[result]]
                v[result] = Mux(holds(part.when, v), self._kept, base)
            full = _blocks(v["row_elems"], cfg.dim)
            half = _blocks(v["row_elems"], cfg.dim // 2)
            four = [c for c in LOCAL_BYTES if LOCAL_BYTES[c] == 4]
            wide = holds((("mem", (Mem.SPAD,)), ("conv", tuple(four))), v)
            v["units"] = Mux(v["xpose"], v["c0"], Mux(wide, half, full))
            v["rows"] = Mux(v["gather"], v["bound"], v["c1"])  # bound: less than 2 ** 16, else bad
            v["pairs"] = _blocks(v["c1"], cfg.dim // 2)
            runs = Mux(v["pack"] == 1, v["c1"], 1)
            v["runs"] = Mux(v["xpose"], _blocks(v["sequence"], cfg.dim), runs)
            rows = (v["l1"] == 1) & (v["c0"] < cfg.bus_bytes)
            units = (v["l0"] == 1) & ~v["l1"][0] if cfg.bus_bytes == cfg.dim else 0
            odd = Cat(v[n][0] for n in ("loc", "l2", "l3")).any()
            v["paired"] = holds(PAIRS, v) & ~odd & (rows | units)
        elif name == "matmul":
            v["rows"] = self._kept
            v["kblocks"] = _blocks(v["k"], cfg.dim)
            v["nblocks"] = _blocks(v["n"], cfg.dim)
        elif name == "store":
            v["deep"] = (v["c2"] != 1) | v["pool"]
            v["units"] = _blocks(v["c0"], cfg.dim)
            v["reads"] = Mux(v["xpose"], v["c0"], v["units"])
            v["vectors"] = (v["ibias"] + v["scale"] + v["bias"])[:2]
            for n, step, window in (("1", "pool_sw", "pool_w"), ("2", "pool_sh", "pool_h")):
                v["in" + n] = Signal(21, name=f"in{n}", reset_less=True)
                pooled = (v["c" + n] - 1)[:16] * v[step] + v[window]
                # first used in the second EXTENT cycle, so that no two multipliers are in a row
                m.d.sync += v["in" + n].eq(Mux(v["pool"], pooled, v["c" + n]))
            with m.If(v["xpose"]):
                m.d.sync += v["in1"].eq(_blocks(v["c1"], cfg.dim))
            v["span1"] = Mux(v["scatter"], v["bound"], v["c1"])
            v["index_pairs"] = _blocks(v["c1"], cfg.dim // 2)
        elif name == "vector":
            v["units"] = _blocks(v["cols"], cfg.dim)
            words = sum((v[n] for n in SECTIONS[1:]), v[SECTIONS[0]])
            v["kernel_rows"] = _blocks(words, 4 * cfg.dim // WORD_BYTES)
        if name in DRAM:
            v["run"] = Signal(19, name=f"{name}_run")  # bytes
            with m.Switch(v[DRAM[name].kind]):
                for kind, size in DRAM[name].sizes.items():
                    with m.Case(kind):
                        m.d.comb += v["run"].eq(v["c0"] << ceil_log2(size))
        return v

    def _pick(self, m):
        """What the multiplier gets in each step, and what follows a step."""
        total = sum(part.steps for name in UNITS for part in PARTS[name])
        self._at, self._next = (Signal(range(total), name=n, reset_less=True) for n in ("at", "to"))
        self._count = Signal(16)  # of a term: less one
        self._stride = Signal(signed(32))
        self._enable = Signal()  # the term exists
        self._is_product = Signal()
        self._lacks, self._more = Signal(), Signal(16)  # the product and `more` runs are lacked
        self._skips = Signal()  # the product is bytes that a sequence skips
        self._opens = Signal()  # first term of an operand
        self._operand = Signal(_OPERAND)  # of the current term
        self._closes = Signal()  # last term of an operand
        self._span = Signal(19)  # an access covers so many more granules, or bytes of DRAM
        self._captures = {}  # MATMUL pass offsets: step -> operand
        self._joins = Signal()  # a step in which `joined` and `span` are found
        self._joined = Signal()
        starts = {}  # of each unit's parts
        index = 0
        for name in UNITS:
            starts[name] = []
            for part in PARTS[name]:
                starts[name].append(index)
                index += part.steps
        m.d.comb += [self._next.eq(self._at + 1), self.none.eq(1)]
        with m.Switch(self._at):
            for name in UNITS:
                self._pick_unit(m, name, starts[name])
        with m.If(self.step):
            m.d.sync += self._at.eq(self._next)
        with m.Switch(self.word[:OPCODE_BITS]):
            for name in UNITS:
                with m.Case(INSTRUCTIONS[name].opcode):
                    m.d.comb += self.none.eq(0)
                    with m.If(self.enter):
                        m.d.sync += self._at.eq(self._first(name, starts[name]))

    def _first(self, name, starts):
        """The first step of `word`: that of the first part which its modes do not leave out.

        What a LOAD lacks comes after products, never first.
        """
        v = fields(INSTRUCTIONS[name], self.word)
        sure = next(i for i, part in enumerate(PARTS[name]) if not part.when)
        first = Const(starts[sure], self._at.shape())
        for part, start in reversed(list(zip(PARTS[name][:sure], starts[:sure], strict=True))):
            if part.name != "products":
                continue
            first = Mux(holds(part.when, v), start, first)
        return first

    def _pick_unit(self, m, name, starts):
        """The steps of a unit's parts; from the last of a part to the next part that is there."""
        v, parts = self._values[name], PARTS[name]
        operands = {o.name: o for o in OPERANDS[name]}
        for i, (part, start) in enumerate(zip(parts, starts, strict=True)):
            to, last = Const(0), Const(1, 1)
            for after, at in reversed(list(zip(parts[i + 1 :], starts[i + 1 :], strict=True))):
                there = holds(after.when, v)
                to, last = Mux(there, at, to), ~there & last
            more = i + 1 < len(parts) and parts[i + 1].name == part.name
            for step in range(part.steps):
                with m.Case(start + step):
                    if part.name == "products":
                        self._pick_product(m, v, PRODUCTS[name], part.first + step)
                    elif part.name == "lacked":
                        self._pick_lacked(m, v, LACKED[step])
                    elif part.name == "skipped":
                        self._pick_skipped(m, v, SKIPPED[step])
                    elif part.name == "DRAM":
                        self._pick_dram(m, v, name, part.first + step)
                    else:
                        self._pick_local(m, v, operands[part.name], part.first + step)
                    if step == part.steps - 1:
                        m.d.comb += [self._next.eq(to), self.last.eq(last)]
                        if part.name not in ("products", "lacked", "skipped"):
                            m.d.comb += self._closes.eq(~v["deep"] if more else 1)
                if part.name in ("a", "w") and step == operands[part.name].per_pass - 1:
                    self._captures[start + step] = part.name

    def _pick_product(self, m, v, products, step):
        result, factor, when = products[step]
        begun = any(other == result for other, _, _ in products[:step])
        m.d.comb += [
            self._is_product.eq(1),
            self._enable.eq(holds(when, v)),
            self._count.eq(self._kept if begun else v[PRODUCT_BASE[result]]),
            self._stride.eq(v[factor]),
        ]

    def _pick_lacked(self, m, v, lacked):
        count, factor, more = lacked
        m.d.comb += [
            self._lacks.eq(1),
            self._enable.eq(1),
            self._count.eq(v[count]),
            self._stride.eq(v[factor]),
            self._more.eq(v[more]),
        ]

    def _pick_skipped(self, m, v, skipped):
        count, stride = skipped
        m.d.comb += [
            self._skips.eq(1),
            self._enable.eq(1),
            self._count.eq(v[count]),
            self._stride.eq(v[stride]),
        ]

    def _pick_local(self, m, v, operand, step):
        acc = v[operand.mem] == Mem.ACC if isinstance(operand.mem, str) else operand.mem
        term = operand.terms[step]
        stride = v[term.stride] if isinstance(term.stride, str) else Const(term.stride, 2)
        m.d.comb += [
            self._count.eq(v[term.count] - 1),
            self._stride.eq(stride),
            self._enable.eq(holds(term.when, v)),
            self._opens.eq(step == 0),
            self._span.eq(holds(operand.pair, v) if operand.pair is not None else 0),
            self._operand.acc.eq(acc),
            self._operand.base.eq(v[operand.base]),
            self._operand.reads.eq("r" in operand.access),
            self._operand.writes.eq("w" in operand.access),
        ]

    def _pick_dram(self, m, v, name, step):
        operand = DRAM[name]
        term = operand.terms[step]
        m.d.comb += [
            self._count.eq(v[term.count] - 1),
            self._stride.eq(v[term.stride]),
            self._enable.eq(1),
            self._opens.eq(step == 0),
            self._span.eq(v["run"] - 1),
            self._operand.dram.eq(1),
            self._operand.base.eq(v[operand.base]),
        ]
        if step == 0:
            follows = (v["c1"] != 1) & (v["s1"] == v["run"])
            m.d.comb += self._joins.eq(1)
            m.d.comb += self._joined.eq(follows & holds(JOINS[name], v))

    def _accumulate(self, m):
        """Multiply; keep the product, or widen the operand's offsets by it."""
        self._lo, self._hi = (Signal(_SUM, name=n, reset_less=True) for n in ("lo", "hi"))
        reach, lo, hi = (Signal(_SUM, name=n) for n in ("reach", "lo_before", "hi_before"))
        next_lo, next_hi = Signal(_SUM), Signal(_SUM)
        left = Signal(_SUM)  # runs of a sequence
        m.d.comb += [
            reach.eq(Mux(self._enable, self._count * self._stride, 0)),
            lo.eq(Mux(self._opens, 0, self._lo)),
            hi.eq(Mux(self._opens, self._span, self._hi)),
            next_lo.eq(Mux(reach < 0, lo + reach, lo)),
            next_hi.eq(Mux(reach < 0, hi, hi + reach)),
            left.eq((self._kept - self._more) - reach),
        ]
        with m.If(self.step & self._is_product):
            m.d.sync += self._kept.eq(Mux(self._enable, reach, self._count))
        with m.Elif(self.step & self._lacks):
            m.d.sync += self._kept.eq(left)
        with m.Elif(self.step & ~self._skips):
            m.d.sync += [self._lo.eq(next_lo), self._hi.eq(next_hi)]
        for at, name in self._captures.items():
            with m.If(self.step & (self._at == at)):
                m.d.sync += getattr(self, f"{name}_lo").eq(next_lo)
                m.d.sync += getattr(self, f"{name}_hi").eq(next_hi)
        with m.If(self.enter):
            m.d.sync += self.joined.eq(0)
        with m.Elif(self.step & self._joins):
            m.d.sync += [self.joined.eq(self._joined), self.span.eq(next_hi + 1)]
        self._skip(m, reach)
        self._overflow = Signal()  # a product is too large, or no run is left
        large = self._is_product & self._enable & (reach >> 16).any()
        m.d.comb += self._overflow.eq(large | self._lacks & (left <= 0))

    def _skip(self, m, reach):
        """Where a LOAD's first run is."""
        ahead, again = Signal(32), Signal()  # bytes from `dram` to it; not the first product
        m.d.comb += self.begin.eq(self._values["load"]["dram"] + ahead)
        with m.If(self.enter):
            m.d.sync += [ahead.eq(0), self.back.eq(0), again.eq(0)]
        with m.Elif(self.step & self._skips):
            m.d.sync += [ahead.eq(ahead + reach), again.eq(1)]
            with m.If(~again):
                m.d.sync += self.back.eq(reach)

    def _check(self, m):
        """Ends and banks of the operand whose last term was added in the cycle before."""
        cfg = self.config
        check = Signal()
        operand = Signal(_OPERAND, reset_less=True)
        low, high = Signal(signed(53)), Signal(signed(53))
        outside, beyond, fenced = Signal(), Signal(), Signal()
        size = Mux(operand.acc, cfg.acc_rows, cfg.spad_granules)
        m.d.comb += [
            low.eq(operand.base + self._lo),
            high.eq(operand.base + self._hi),
            outside.eq(check & ~operand.dram & ((low < 0) | (high >= size))),
            beyond.eq(
                check & operand.dram & ((low < self.window_base) | (high > self.window_limit))
            ),
            self.fenced.eq(fenced | beyond),
        ]
        m.d.sync += check.eq(self.step & self._closes)
        with m.If(self.step & self._closes):
            m.d.sync += operand.eq(self._operand)

        bad = Signal()
        with m.If(self.enter):
            m.d.sync += [bad.eq(0), fenced.eq(0)]
        with m.Else():
            m.d.sync += bad.eq(bad | outside | (self.step & self._overflow))
            m.d.sync += fenced.eq(self.fenced)
        store, load = self._values["store"], self._values["load"]
        is_load = self.ir[:OPCODE_BITS] == INSTRUCTIONS["load"].opcode
        is_store = self.ir[:OPCODE_BITS] == INSTRUCTIONS["store"].opcode
        m.d.comb += self.units.eq(Mux(is_store, store["units"], load["units"]))
        m.d.comb += self.paired.eq(self.joined & is_load & load["paired"])
        packed = Mux(load["xpose"], load["sequence"], load["row_elems"])
        m.d.comb += self.product.eq(Mux(is_load, packed, self._kept))
        with m.If(self.ir[:OPCODE_BITS] == INSTRUCTIONS["vector"].opcode):
            m.d.comb += self.units.eq(self._values["vector"]["units"])
        many = (store["vectors"] != 0) & (store["units"] > STORE_VECTOR_UNITS)
        wide = (store["in1"] >> 16).any() | (store["in2"] >> 16).any()
        skew = store["scatter"] & store["s1"][: ceil_log2(cfg.bus_bytes)].any()
        uneven = load["s1"][: ceil_log2(cfg.bus_bytes)].any() | load["bound"][16:].any()
        broad = load["xpose"] & (load["c0"] > XPOSE_BLOCKS * cfg.dim)
        lacking = load["partial"] & Cat(load[n] >= load[f"c{n[-1]}"] for n in LACKS).any()
        tall = store["xpose"] & (store["c0"] > XPOSE_BLOCKS * cfg.dim)
        m.d.comb += self.bad.eq(
            bad
            | outside
            | (is_load & (broad | lacking | (load["gather"] & uneven)))
            | (is_store & (many | wide | skew | tall))
        )

        spans = (
            bank_span(low[:LOCAL_BITS], high[:LOCAL_BITS], cfg.spad_bank),
            bank_span(low[:LOCAL_BITS], high[:LOCAL_BITS], cfg.acc_bank),
        )
        for name in ("spad_r", "spad_w", "acc_r", "acc_w"):
            in_acc = name.startswith("acc")
            access = operand.reads if name.endswith("r") else operand.writes
            hit = check & ~operand.dram & access & (operand.acc == in_acc)
            now = Signal(BANKS, name=f"{name}_now")
            kept = Signal(BANKS, name=f"{name}_kept")
            m.d.comb += now.eq(Mux(hit, spans[in_acc], 0))
            m.d.comb += getattr(self, name).eq(kept | now)
            with m.If(self.enter):
                m.d.sync += kept.eq(0)
            with m.Else():
                m.d.sync += kept.eq(kept | now)


def _blocks(count, size):
    """count / size, rounded up; `size` is a power of two."""
    return (count + (size - 1)) >> ceil_log2(size)
