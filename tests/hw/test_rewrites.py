"""The rewriters of Verilog (`lazy`, `one_step`, `BlackBoxes`): same function, told by simulation.

Small modules as Yosys writes them run on Verilator before and after the rewriting, on the same
random inputs; another few claims are about the text.
"""

import importlib.util
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.blackbox import BlackBoxes, keep_module
from tilewright.hw.lazy import lazy
from tilewright.hw.onestep import names, one_step

_spec = importlib.util.spec_from_file_location("vsim", Path(__file__).parent / "vsim.py")
vsim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(vsim)

CYCLES = 4000
DESIGNS = 12  # random ones
INPUTS = {"a": 8, "b": 8, "sel": 2, "en": 1, "rst": 1}
_PORTS = "".join(
    f"  input {f'[{width - 1}:0] ' if width > 1 else ''}{name};\n"
    f"  wire {f'[{width - 1}:0] ' if width > 1 else ''}{name};\n"
    for name, width in ({"clk": 1} | INPUTS).items()
)
_HEAD = "(clk, a, b, sel, en, rst, q);\n" + _PORTS + "  output [7:0] q;\n"


def module(name, body):
    """A module with the common ports; `body` declares q."""
    return f"module {name}{_HEAD}{body.strip(chr(10))}\nendmodule\n"


ENABLE = module("m_enable", r"""
  reg \$dump = 0;
  reg [7:0] q = 8'h11;
  reg [7:0] \$next ;
  wire [8:0] \$sum ;
  assign \$sum  = a + b;
  always @* begin
    if (\$dump ) begin end // dump_module
    \$next  = q;
    if (en) begin
      \$next  = \$sum [7:0];
    end
    if (rst) begin
      \$next  = 8'h11;
    end
  end
  always @(posedge clk)
    q <= \$next ;
""")  # fmt: skip
CASE = module("m_case", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] \$next ;
  reg [7:0] old = 8'h05;
  wire [15:0] \$product ;
  wire [15:0] \$mixed ;
  wire [8:0] \$less ;
  assign \$mixed  = \$product  ^ { 8'h00, old };
  assign \$less  = a - q;
  always @(posedge clk)
    old <= \$less [7:0];
  assign \$product  = a * b;
  always @* begin
    \$next  = q;
    if (en) begin
      (* full_case = 32'd1 *)
      casez (sel)
        2'h0:
            \$next  = \$mixed [7:0];
        2'h1:
          begin
            \$next  = \$mixed [15:8];
            if (a[0]) begin
              \$next [3:0] = b[3:0];
            end else if (a[1]) begin
              \$next [7:6] = a[7:6];
            end else begin
              \$next [5] = b[5];
            end
          end
        2'b1?:
            \$next [3:0] = old[3:0];
      endcase
    end
  end
  always @(posedge clk)
    q <= \$next ;
""")  # fmt: skip
DEFAULT = module("m_default", r"""
  reg [7:0] q;
  reg [7:0] \$c ;
  wire [7:0] one;
  wire [7:0] two;
  assign two = one + 8'h03;
  assign one = a ^ b;
  always @* begin
    case (sel)
      2'h0:
          \$c  = two;
      2'h3:
          /* empty */;
      default:
          \$c  = ~a;
    endcase
    if (sel == 2'h3) begin
      \$c  = b;
    end
  end
  always @* begin
    q = a;
    if (en) begin
      q = \$c ;
    end
  end
""")  # fmt: skip
DEAD = module("m_dead", r"""
  wire [7:0] q;
  wire [7:0] unread;
  wire [7:0] \read.by.unread ;
  reg [7:0] lonely;
  assign \read.by.unread  = a * b;
  assign unread = \read.by.unread  + 8'h01;
  always @* begin
    lonely = unread;
    if (en) begin
      lonely = b;
    end
  end
  assign q = a - b;
""")  # fmt: skip
SHARED = module("m_shared", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] other = 8'h00;
  reg [7:0] \$1 ;
  reg [7:0] \$2 ;
  wire [7:0] twice;
  wire [7:0] both;
  wire [7:0] guard;
  assign twice = a + b;
  assign both = a & b;
  assign guard = a | b;
  always @* begin
    \$1  = q;
    if (guard[0]) begin
      \$1  = twice;
    end else if (en) begin
      \$1  = both;
    end else begin
      \$1  = both + other;
    end
  end
  always @* begin
    \$2  = other;
    if (sel[0]) begin
      \$2  = twice - guard;
    end
  end
  always @(posedge clk)
    q <= \$1 ;
  always @(posedge clk)
    other <= \$2 ;
""")  # fmt: skip
GUARDED = module("m_guarded", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] \$next ;
  wire [7:0] guard;
  wire [1:0] which;
  assign guard = a + b;
  assign which = a[1:0] ^ sel;
  always @* begin
    \$next  = q;
    if (en) begin
      if (guard[7]) begin
        \$next  = guard;
      end
      casez (which)
        2'h1:
            \$next  = { which, b[5:0] };
      endcase
    end
  end
  always @(posedge clk)
    q <= \$next ;
""")  # fmt: skip
TWO_READERS = module("m_two_readers", r"""
  wire [7:0] q;
  reg [7:0] kept = 8'h07;
  reg [7:0] \$next ;
  always @* begin
    \$next  = kept;
    if (en) begin
      \$next  = kept + a;
    end
  end
  assign q = \$next  ^ b;
  always @(posedge clk)
    kept <= \$next ;
""")  # fmt: skip
SWAP = module("m_swap", r"""
  wire [7:0] q;
  reg [7:0] x = 8'h01;
  reg [7:0] y = 8'h02;
  reg [7:0] \$x ;
  reg [7:0] \$y ;
  always @* begin
    \$x  = x;
    if (en) begin
      \$x  = y;
    end
  end
  always @* begin
    \$y  = y;
    if (en) begin
      \$y  = x + a;
    end
  end
  always @(posedge clk)
    x <= \$x ;
  always @(posedge clk)
    y <= \$y ;
  assign q = x ^ y;
""")  # fmt: skip
MEMORY = module("m_memory", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] words [15:0];
  wire [3:0] address;
  wire write;
  initial begin
    words[0] = 8'h42;
  end
  assign address = a[3:0];
  assign write = en & sel[0];
  always @(posedge clk) begin
    if (write)
      words[address] <= b;
  end
  always @(posedge clk) begin
    q <= words[b[3:0]];
  end
""")  # fmt: skip
SIGNED = module("m_signed", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] \$next ;
  wire \$less ;
  wire [15:0] \$wide ;
  assign \$less  = $signed(a) < $signed(b);
  assign \$wide  = $signed(a) * $signed({ 1'h0, b });
  always @* begin
    \$next  = q;
    if (\$less ) begin
      \$next  = \$wide [11:4];
    end
  end
  always @(posedge clk)
    q <= \$next ;
""")  # fmt: skip
UNKNOWN = module("m_unknown", r"""
  reg [7:0] q;
  wire [7:0] sum;
  integer i;
  assign sum = a + b;
  always @* begin
    for (i = 0; i < 8; i = i + 1) q[i] = sum[7 - i];
  end
""")  # fmt: skip
LAZY = {
    "enable": ENABLE, "case": CASE, "default": DEFAULT, "dead": DEAD, "shared": SHARED,
    "guarded": GUARDED, "two_readers": TWO_READERS, "swap": SWAP, "memory": MEMORY,
    "signed": SIGNED, "unknown": UNKNOWN,
}  # fmt: skip


class Random(Elaboratable):
    """A random design: logic that reads earlier logic and registers, nested conditions, parts."""

    REGISTERS, WIRES = 3, 6

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.inputs = {n: Signal(w, name=n) for n, w in INPUTS.items() if n != "rst"}
        self.q = Signal(8, name="q")

    def expression(self, depth=1):
        """Over all that may be read now."""
        pick = self.rng.choice
        if depth == 0 or self.rng.random() < 0.2:
            x = pick(self.readable)
            low = self.rng.randrange(len(x))
            number = Const(self.rng.randrange(256), 8)
            return pick([x, x, x[low:], x.as_signed()[: low + 1], number])
        a, b = self.expression(depth - 1), self.expression(depth - 1)
        return pick([a + b, a - b, a & b, a ^ b, a | b, ~a, Cat(a, b), Mux(a.any(), b, a),
                     a == b, a < b.as_signed(), a * b])[:12]  # fmt: skip

    def write(self, domain, target):
        """The whole, or a part of it."""
        if self.rng.random() < 0.3:
            low = self.rng.randrange(len(target))
            target = target[low : self.rng.randint(low + 1, len(target))]
        domain += target.eq(self.expression())

    def block(self, m, domain, target, depth):
        """Statements that drive `target`: assignments, if, switch."""
        for _ in range(self.rng.randint(1, 2)):
            kind = self.rng.random() if depth else 0
            if kind < 0.4:
                self.write(domain, target)
            elif kind < 0.7:
                with m.If(self.expression().any()):
                    self.block(m, domain, target, depth - 1)
                if self.rng.random() < 0.5:
                    with m.Elif(self.expression()[0]):
                        self.block(m, domain, target, depth - 1)
                if self.rng.random() < 0.5:
                    with m.Else():
                        self.block(m, domain, target, depth - 1)
            else:
                with m.Switch(Cat(self.expression()[0], self.expression()[0])):
                    for label in self.rng.sample(["00", "01", "1-"], self.rng.randint(1, 3)):
                        with m.Case(label):
                            self.block(m, domain, target, depth - 1)
                    if self.rng.random() < 0.5:
                        with m.Default():
                            self.block(m, domain, target, depth - 1)

    def elaborate(self, platform):
        m = Module()
        registers = [
            Signal(self.rng.randint(1, 12), name=f"r{i}", init=self.rng.randrange(2),
                   reset_less=i % 2)
            for i in range(self.REGISTERS)
        ]  # fmt: skip
        self.readable = [*self.inputs.values(), *registers]
        wires = [Signal(self.rng.randint(1, 12), name=f"w{i}") for i in range(self.WIRES)]
        for wire in wires:
            self.block(m, m.d.comb, wire, 1)
            self.readable.append(wire)
        for register in registers:
            self.block(m, m.d.sync, register, 2)
        mixed = Const(0, 8)
        for x in (*registers, *self.rng.sample(wires, 3)):
            mixed = (mixed << 1) ^ x ^ (mixed >> 7)
        m.d.comb += self.q.eq(mixed)
        return m

    def text(self, name):
        """Its Verilog."""
        ports = [*self.inputs.values(), self.q]
        text = verilog.convert(self, name=name, ports=ports, emit_src=False)
        return text[text.index("module ") :]


# feed-forward pipelines for `one_step`; the second has an enable afterwards
PIPE = module("m_pipe", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] first = 8'h00;
  reg [15:0] second = 16'h0000;
  reg [7:0] beside = 8'h00;
  wire [15:0] \$product ;
  wire [7:0] \$sum ;
  reg [7:0] \$pick ;
  assign \$sum  = second[11:4] + beside;
  assign \$product  = first * b;
  always @(posedge clk)
    q <= \$pick ;
  always @(posedge clk)
    second <= \$product ;
  always @(posedge clk)
    first <= a;
  always @(posedge clk)
    beside <= { first[6:0], first[7] };
  always @* begin
    (* full_case = 32'd1 *)
    casez (sel)
      2'h0:
          \$pick  = \$sum ;
      2'b1?:
          \$pick  = second[7:0];
      default:
          \$pick  = beside;
    endcase
  end
""")  # fmt: skip
ACCUMULATES = module("m_accumulates", r"""
  reg [7:0] q = 8'h00;
  reg [7:0] first = 8'h00;
  wire [7:0] \$1 ;
  assign \$1  = q + first;
  always @(posedge clk)
    q <= \$1 ;
  always @(posedge clk)
    first <= a ^ b;
""")  # fmt: skip
ENABLED = ACCUMULATES.replace("q <= ", "if (en) q <= ").replace("first <= ", "if (en) first <= ")
RANDOM = {f"random{seed}": seed for seed in range(DESIGNS)}
ONE_STEP = {"pipe": PIPE, "accumulates": ACCUMULATES}


def top(texts):
    """All modules with the same inputs and an output each, as one text."""
    found = [re.search(r"module (m_\w+)\(", text)[1] for text in texts]
    ports = ", ".join(["clk", *INPUTS, *(f"o_{m}" for m in found)])
    outs = "".join(f"  output [7:0] o_{m};\n  wire [7:0] o_{m};\n" for m in found)
    cells = "".join(
        f"  {m} i_{m} (.clk(clk), {', '.join(f'.{n}({n})' for n in INPUTS)}, .q(o_{m}));\n"
        for m in found
    )
    return "".join(texts) + f"module top({ports});\n{_PORTS}{outs}{cells}endmodule\n"


def stimuli():
    """Random inputs; reset is rare, values repeat."""
    rng = np.random.default_rng(5)
    out = {n: rng.integers(0, 1 << w, CYCLES).astype(np.uint8) for n, w in INPUTS.items()}
    hold = rng.random(CYCLES) < 0.3
    for i in np.flatnonzero(hold[1:]) + 1:
        out["a"][i] = out["a"][i - 1]
    out["rst"] &= (rng.random(CYCLES) < 0.1).astype(np.uint8)
    return out


@pytest.fixture(scope="module")
def runs():
    """Outputs of every module, before and after."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    modules = {f"m_{n}" for n in (*LAZY, *RANDOM, *ONE_STEP, "enabled")}
    drawn = [Random(seed).text(f"m_{name}") for name, seed in RANDOM.items()]
    before = [*LAZY.values(), *ONE_STEP.values(), ENABLED.replace("m_accumulates", "m_enabled")]
    before += drawn
    after = [lazy(text) for text in LAZY.values()]
    after += [one_step(text, "clk") for text in ONE_STEP.values()]
    after.append(one_step(ACCUMULATES, "clk", "en").replace("m_accumulates", "m_enabled"))
    after += [lazy(text) for text in drawn]
    outputs = [f"o_{m}" for m in sorted(modules)]
    return [
        vsim.build(None, sources={"top.v": top(texts)}, name="top", opt="-O0").run(
            stimuli(), outputs
        )
        for texts in (before, after)
    ]


@pytest.mark.parametrize("name", [*LAZY, *RANDOM, *ONE_STEP, "enabled"])
def test_rewritten_module_does_the_same(runs, name):
    before, after = (r[f"o_m_{name}"] for r in runs)
    assert len(np.unique(before)) > (1 if name in RANDOM else 16)
    np.testing.assert_array_equal(after, before)


def test_the_models_do_what_the_text_says(runs):
    """The registers with an enable, by hand: the simulation itself is no oracle."""
    given, want = stimuli(), []
    value, total, first = 0x11, 0, 0
    for a, b, en, rst in zip(*(given[n].tolist() for n in ("a", "b", "en", "rst")), strict=True):
        want.append((value, total))
        value = 0x11 if rst else (a + b) & 255 if en else value
        if en:
            total, first = (total + first) & 255, a ^ b
    for run in runs:
        got = np.stack([run["o_m_enable"], run["o_m_enabled"]], axis=1)
        np.testing.assert_array_equal(got, want)


def test_lazy_moves_logic_into_the_branch_that_reads_it():
    text = lazy(ENABLE)
    assert "assign" not in text and r"\$next  =" not in text
    inside = text[text.index("if (en) begin") :]
    assert inside.index(r"\$sum  = a + b;") < inside.index("end")
    mixed = lazy(CASE)
    assert re.search(r"automatic reg \[15:0\] \\\$product ;", mixed)


def test_lazy_keeps_what_two_blocks_read():
    text = lazy(SHARED)
    assert "  assign twice = a + b;" in text and "  assign guard = a | b;" in text
    assert "  assign both = a & b;" in text  # two branches of one block
    assert r"assign q = \$next  ^ b;" in lazy(TWO_READERS)


def test_lazy_drops_what_nobody_reads():
    text = lazy(DEAD)
    logic = "".join(line for line in text.splitlines(True) if "=" in line)
    assert "unread" not in logic and "lonely" not in logic
    assert "assign q = a - b;" in logic


def test_lazy_keeps_names_for_waves():
    text = lazy(DEAD, keep_names=True)
    for piece in ("unread = ", r"\read.by.unread  = a * b;", "lonely = b;", "assign q = a - b;"):
        assert piece in text


def test_lazy_leaves_memories_and_what_it_does_not_know_alone():
    text = lazy(MEMORY)
    for piece in ("reg [7:0] words [15:0];", "words[address] <= b;", "q <= words[b[3:0]];",
                  "assign address = a[3:0];", "words[0] = 8'h42;"):  # fmt: skip
        assert piece in text
    assert "for (i = 0; i < 8; i = i + 1) q[i] = sum[7 - i];" in lazy(UNKNOWN)
    assert "assign sum = a + b;" in lazy(UNKNOWN)


def test_lazy_rewrites_module_by_module():
    both = "/* head */\n" + ENABLE + "\n" + SHARED
    assert lazy(both) == "/* head */\n" + lazy(ENABLE) + "\n" + lazy(SHARED)


def test_names_are_found_in_verilog():
    text = r"{ 8'hff, \$1 [3:0], $signed(a), 4'sb10z? } & \x.y  | begin_ == if (z)"
    assert names(text) == {r"\$1", "a", r"\x.y", "begin_", "z"}


def test_one_step_is_one_clocked_block():
    text = one_step(PIPE, "clk")
    assert text.count("always") == 1 and "assign" not in text
    order = [text.index(f"{r} {how} ") for r, how in (("q", "<="), ("second", "="), ("first", "="))]
    assert order == sorted(order), "a register is written after the readers of its old value"


@pytest.mark.parametrize("line, says", [
    ("  sub cell (.a(a));", "must be declarations, logic and registers, not '  sub cell"),
    ("  always @(negedge clk)\n    q <= a;", "must be declarations, logic and registers"),
    ("  always @(posedge clk)\n    if (en) q <= a;", "register must be a plain assignment"),
    ("  reg [7:0] loop = 0;\n  reg [7:0] back = 0;\n  always @(posedge clk)\n    loop <= back;\n"
     "  always @(posedge clk)\n    back <= loop;", "registers must not form a loop, but"),
    ("  wire [7:0] x;\n  reg [7:0] r = 0;\n  assign x = a + b;\n  assign q = x;\n"
     "  always @(posedge clk)\n    r <= x;", "outputs must be registers, but logic reads"),
    ("  reg [7:0] r = 8'hb0;", "a register must not start from anything but 0"),
])  # fmt: skip
def test_one_step_refuses_what_is_not_feed_forward(line, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        one_step(module("m_bad", f"  reg [7:0] q = 8'h00;\n{line}"), "clk")


class Part(wiring.Component):
    """Feed-forward: q is a * b + 1 two cycles later."""

    a: In(8)
    b: In(8)
    q: Out(16)

    def elaborate(self, platform):
        if isinstance(platform, BlackBoxes):
            return platform.lane(self, "part", "fast")
        m = Module()
        product = Signal(16, reset_less=True)
        m.d.fast += product.eq(self.a * self.b)
        m.d.fast += self.q.eq(product + 1)
        return m


class Two(wiring.Component):
    """Two parts in a row."""

    a: In(8)
    b: In(8)
    q: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.submodules.x = x = Part()
        m.submodules.y = y = Part()
        m.d.comb += [x.a.eq(self.a), x.b.eq(self.b), y.a.eq(x.q[:8]), y.b.eq(x.q[8:])]
        m.d.comb += self.q.eq(y.q)
        return m


def test_black_boxes_are_converted_once_and_do_the_same(monkeypatch):
    monkeypatch.setitem(os.environ, "AMARANTH_USE_YOSYS", "builtin")
    boxes = BlackBoxes()
    text = verilog.convert(Two(), name="top", emit_src=False, platform=boxes)
    sources = boxes.sources()
    assert list(sources) == ["part.v"] and len(re.findall(r"^  part \S+ ", text, re.M)) == 2
    assert "); /*verilator no_inline_module*/" in sources["part.v"]
    plain = verilog.convert(Two(), name="top", emit_src=False)
    assert len(re.findall(r"^module ", plain, re.M)) == 3
    given = {n: stimuli()[n] for n in ("a", "b")}
    runs = [
        vsim.build(None, sources=s, name="top", opt="-O0").run(given, ["q"])["q"].tolist()
        for s in ({"top.v": plain}, {"top.v": text} | sources)
    ]
    first = given["a"].astype(int) * given["b"] + 1
    want = ((first & 255) * (first >> 8) + 1) & 0xFFFF
    assert runs[0][4:] == runs[1][4:] == want[:-4].tolist()


def test_keep_module_marks_the_module_it_names():
    text = "module other(a);\nendmodule\nmodule x(a, b);\nendmodule\n"
    assert keep_module(text, "x") == text.replace("b);", "b); /*verilator no_inline_module*/")
