"""Prove every property of the control logic, and show that each can fail.

    python tests/full/formal_proof.py [name ...]

A proof is a property, its mode and depth. A mistake is the same property on a module with one text
changed: the solver must find a counterexample.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the folder's modules name each other plainly

import properties_bursts as bursts
import properties_extent as extent
import properties_gather as gather
import properties_issue as issue
import properties_small as small
import properties_window as window
import properties_write as write
from formal import Netlist
from mutate import mutant

__all__ = ["MISTAKES", "PROOFS", "mistake", "mutant", "prove"]

#: Name: (property, ((mode, depth), ...)).
PROOFS = {
    "queue": (small.Queue, (("cover", 24), ("induction", 2))),
    "slice": (small.Slice, (("cover", 12), ("induction", 2))),
    "semaphore tokens": (small.Tokens, (("cover", 4), ("induction", 1))),
    "semaphore overflow": (small.Overflow, (("cover", 4), ("induction", 1))),
    "issue ports": (issue.Ports, (("cover", 8), ("induction", 1))),
    "issue tokens": (issue.Conserved, (("cover", 8), ("induction", 1))),
    "load bursts": (bursts.Load, (("cover", 8), ("induction", 1))),
    "load coverage": (bursts.Covered, (("cover", 30), ("bmc", 12))),
    "load coverage, joined": (bursts.Joined, (("cover", 20), ("bmc", 12))),
    "load sequences": (bursts.Sequences, (("cover", 18), ("bmc", 14))),
    "store bursts": (bursts.Store, (("cover", 8), ("induction", 1))),
    "fetch bursts": (bursts.Fetch, (("cover", 20), ("induction", 20))),
    "window: verdict": (extent.Granted, (("cover", 17), ("induction", 1))),
    "window: load": (window.LoadWindow, (("cover", 8), ("induction", 1))),
    "window: gather indices": (gather.Indices, (("cover", 12), ("induction", 4))),
    "window: gather queue": (gather.Taken, (("cover", 16), ("bmc", 14))),
    "window: store": (write.StoreWindow, (("cover", 8), ("induction", 1))),
    "window: strobes": (write.Strobes, (("cover", 8), ("induction", 1))),
    "window: stw": (write.Word, (("cover", 4), ("induction", 1))),
}

#: Mistake: (proof, depth that shows it, text, its replacement). Depth INDUCTION: the proof's own
#: induction fails (a run from reset that shows the mistake would be long).
INDUCTION = 0
MISTAKES = {
    "queue drops a push while the head loads": (
        "queue", 8, "with m.If(self.push):", "with m.If(self.push & ~load):"),
    "queue shows its head twice": (
        "queue", 8, "m.d.sync += [r_at.eq(r_at + 1), self.valid.eq(1)]",
        "m.d.sync += [r_at.eq(r_at + ~self.pop), self.valid.eq(1)]"),
    "slice loses what arrives when refused": (
        "slice", 8, "with m.Elif(self.i_valid & free):\n            m.d.sync += [skid",
        "with m.Elif(self.i_valid & ~free):\n            m.d.sync += [skid"),
    "slice moves a refused payload": (
        "slice", 8, "with m.If(~valid | self.o_ready):", "with m.If(~valid | self.i_valid):"),
    "a signal is counted twice": (
        "semaphore tokens", 3, "carry.eq((a & b) | (a & c) | (b & c))", "carry.eq(a | b)"),
    "a take is lost": (
        "semaphore tokens", 3, '"left", total, taken,', '"left", total, [taken[0]] * 9,'),
    "overflow is not noticed": (
        "semaphore overflow", 4, "over.eq(total[COUNT_BITS] | total[COUNT_BITS + 1])",
        "over.eq(total[COUNT_BITS + 1])"),
    "held ports are not respected": (
        "issue ports", 6, "_any([o.held for o in others] + wanted)", "_any(wanted)"),
    "the younger overtakes": (
        "issue ports", 6, "older[o.name, lane.name]).replicate",
        "~older[o.name, lane.name]).replicate"),
    "ports are never freed": (
        "issue ports", 8, "(release, item.data.masks[mask]),",
        "(release, item.data.masks[mask] & 0),"),
    "matmul's passes signal each": (
        "issue tokens", 6, "write.data.done_en.eq(sync.done_en & lane.last)",
        "write.data.done_en.eq(sync.done_en)"),
    "each pass takes the waits": (
        "issue tokens", 8, "begin = lane.grant & lane.first", "begin = lane.grant"),
    "a head starts without its second wait": (
        "issue tokens", 6, "& (sems.read[2 * i + 1] >= need)", ""),
    "load forgets the page": (
        "load bursts", 8, "Mux(index[split:].all(), MAX_BURST - index[:split], MAX_BURST)",
        "MAX_BURST"),
    "load withdraws an address": (
        "load bursts", 8, "with m.If(self.arready):\n            m.d.sync += self.arvalid",
        "with m.If(1):\n            m.d.sync += self.arvalid"),
    "load reads a beat too few": (
        "load coverage", 12, 'comes["span"] + to[:low] + (bus - 1)', 'comes["span"] + (bus - 1)'),
    "load reads a shared beat again": (
        "load coverage, joined", 12, "step & (nest.end[0] | ~held.joined)", "step"),
    "load's odd row counts as two": (
        "load coverage, joined", 12, "held.run >> 1", "held.run"),
    "load's odd row comes first": (
        "load coverage, joined", 12, "self.near = left[0] == 2", "self.near = left[0] == 3"),
    "load completes the blocks of each i2 of a sequence": (
        "load sequences", 12, "self.over = Mux(several, runs == 1, left[0] == 1)",
        "self.over = left[0] == 1"),
    "load completes the blocks of the first i3 only": (
        "load sequences", 12, "with m.If(begins):", "with m.If(load):"),
    "load reads the rest of a sequence's last row": (
        "load sequences", 12, "several & (runs == 1)", "several & (runs == 1) & (left[0] == 1)"),
    "load skips the start of a sequence of the first i3 only": (
        "load sequences", 12, 'Mux(cut, held["first1"], held["c1"])', 'held["c1"]'),
    "load's second row begins where the first one did": (
        "load sequences", 12, 'levels[far][1].eq(self.next[far] - back)',
        'levels[far][1].eq(self.next[far])'),
    "load's second i3 begins where the first one did": (
        "load sequences", 12, 'levels[far][2].eq(new["outer"])', 'levels[far][2].eq(new["dram"])'),
    "store's last beat comes late": (
        "store bursts", 8, "late.wlast.eq(self.line_last | place.all())",
        "late.wlast.eq(self.line_last)"),
    "store sends a beat that a row has only opened": (
        "store bursts", 8, "(~self.goes_on | self.left[shift:].any())", "1"),
    "store forgets the rows that are joined to the first": (
        "store bursts", 8, "Mux(i.joined, i.span, length) - 1", "length - 1"),
    "store counts a block's reads as beats": (
        "store bursts", 8, "~self.in_index & ~self.in_block),", "~self.in_index),"),
    "store's bursts are not cut": (
        "store bursts", 8, "room.eq(MAX_BURST - 1 - place)", "room.eq(MAX_BURST - 1)"),
    "fetch's second burst is off": (
        "fetch bursts", 22, "following.eq(address + half)", "following.eq(address + half + 128)"),
    "extent forgets a row's last byte": (
        "window: verdict", INDUCTION, 'self._span.eq(v["run"] - 1)', 'self._span.eq(v["run"] - 2)'),
    "extent ignores negative strides": (
        "window: verdict", INDUCTION, "next_lo.eq(Mux(reach < 0, lo + reach, lo))",
        "next_lo.eq(lo)"),
    "a gather's extent is that of c1 rows": (
        "window: verdict", INDUCTION, 'Mux(v["gather"], v["bound"], v["c1"])', 'v["c1"]'),
    "extent leaves out a dimension that has more than one row": (
        "window: verdict", INDUCTION, '(v["c2"] != 1) | (v["c3"] != 1)', '(v["c2"] != 1)'),
    "extent joins rows with a gap": (
        "window: verdict", INDUCTION, '(v["s1"] == v["run"])', '(v["s1"] >= v["run"])'),
    "extent does not join the rows of a transposing store": (
        "window: verdict", INDUCTION, "follows & holds(JOINS[name], v)",
        'follows & holds(JOINS[name], v) & ~v["xpose"]'),
    "extent pairs rows as long as a beat": (
        "window: verdict", INDUCTION, 'v["c0"] < cfg.bus_bytes', 'v["c0"] <= cfg.bus_bytes'),
    "extent pairs what begins in an odd granule": (
        "window: verdict", INDUCTION, 'for n in ("loc", "l2", "l3")', 'for n in ("l2", "l3")'),
    "a row is not counted in the span": (
        "window: verdict", INDUCTION, "self.span.eq(next_hi + 1)", "self.span.eq(next_hi)"),
    "the verdict refuses words only": (
        "window: verdict", INDUCTION,
        "self._is(*UNITS) & self._extent.fenced | word & fenced", "word & fenced"),
    "a word's end is not looked at": (
        "window: verdict", INDUCTION, "ends = self._address | 3", "ends = self._address"),
    "load reads a beat too many": (
        "window: load", INDUCTION, 'comes["span"] + to[:low] + (bus - 1)',
        'comes["span"] + to[:low] + (2 * bus - 1)'),
    "load swaps two strides": (
        "window: load", INDUCTION, "Mux(~self.end[1], steps[1], steps[2])",
        "Mux(~self.end[1], steps[2], steps[1])"),
    "load walks two rows at a row's distance": (
        "window: load", INDUCTION, "out.s1.eq(instr.s1 << 1)", "out.s1.eq(instr.s1)"),
    "load reads an odd row's lacking half": (
        "window: load", INDUCTION, "out.odd.eq(instr.c1[0])", "out.odd.eq(0)"),
    "load adds an offset to every row": (
        "window: load", INDUCTION, "Mux(held.gather & ~self.start, self.offset, 0)", "self.offset"),
    "gather lets x = bound pass": (
        "window: gather indices", 12, "index >= held.bound", "index > held.bound"),
    "gather lets negative x pass": (
        "window: gather indices", INDUCTION, "with m.If(index[-1]):",
        "with m.If(index[-1] & index[0]):"),
    "gather reads its indices for one i2 only": (
        "window: gather queue", 14, "issue & nest.end[0] & nest.end[1] & nest.end[2]",
        "issue & nest.end[0]"),
    "store strobes before its row": (
        "window: store", INDUCTION, "late.head.eq(Mux(self.first, self.head, 0))",
        "late.head.eq(0)"),
    "store strobes behind its row": (
        "window: store", INDUCTION, "late.end.eq(Mux(self.line_last, left[:shift], 0))",
        "late.end.eq(0)"),
    "scatter adds a distance too early": (
        "window: store", INDUCTION, "with m.If(self.waiting == 1):",
        "with m.If(self.waiting == 2):"),
    "scatter takes index = bound": (
        "window: store", INDUCTION, 'inside = index < k["bound"]', 'inside = index <= k["bound"]'),
    "store strobes what joined rows wait for": (
        "window: store", INDUCTION, "late.end.eq(Mux(self.line_last,",
        "late.end.eq(Mux(~self.row_last,"),
    "the packer cuts joined rows' beginnings": (
        "window: strobes", INDUCTION, "(ones << late.head)", "(ones << late.offset)"),
    "stw strobes the wrong word": (
        "window: stw", 4, "at[2:shift]", "self.stw_addr[2:shift]"),
}  # fmt: skip


def prove(name: str) -> list:
    """The verdicts of one proof."""
    make, asks = PROOFS[name]
    with Netlist(make(), name) as netlist:
        return [netlist.ask(mode, depth) for mode, depth in asks]


def mistake(name: str):
    """The verdict on a mutant; it must not hold."""
    proof, depth, old, new = MISTAKES[name]
    with Netlist(PROOFS[proof][0]((old, new)), name) as netlist:
        return netlist.ask("induction", 1) if depth == INDUCTION else netlist.ask("bmc", depth)


def main():
    good = True
    for name in sys.argv[1:] or PROOFS:
        for verdict in prove(name):
            print(verdict, flush=True)
            good &= verdict.holds
        for text, (proof, *_) in MISTAKES.items():
            if proof == name:
                verdict = mistake(text)
                word = "NOT NOTICED" if verdict.holds else "noticed"
                print(f"    {text}: {word}, {verdict.seconds:.1f} s", flush=True)
                good &= not verdict.holds
    return not good


if __name__ == "__main__":
    sys.exit(main())
