"""STORE's epilogue: a row of accumulators becomes a row of results, `dim` lanes at once.

int32 -> [+ ibias] -> fp32 -> [* scale] -> [+ bias] -> [clamp] -> round -> [+ zero point] ->
saturate; an fp32 source enters at the multiplication; the int path clamps in int32 and skips the
floats. Every step always runs: a step that is left out gets its neutral operand (`NEUTRAL`).
Scalars and vectors travel with their row, so rows of different instructions may follow each other
without a gap.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.column import slices
from tilewright.hw.float import (
    clamp,
    delay,
    flush,
    fp32_add,
    fp32_mul,
    fp32_to_bf16,
    fp32_to_i32,
    i32_to_fp32,
    stage,
    wire,
)
from tilewright.isa.timing import EPILOGUE_LATENCY, HOP


class Out32(enum.Enum, shape=3):
    """What a lane holds: int8 and uint8 in the low byte (sign- or zero-extended), bf16 in the
    low half."""

    INT8 = 0
    UINT8 = 1
    INT32 = 2
    BF16 = 3
    FP32 = 4


#: Operands (raw bits) that leave a step without effect; the clamp's differ by path.
NEUTRAL = {
    "ibias": 0,
    "scale": 0x3F800000,
    "bias": 0x80000000,
    "zero_point": 0,
    "lo": 0xFF800000,
    "hi": 0x7F800000,
    "int_lo": 0x80000000,
    "int_hi": 0x7FFFFFFF,
}

#: Stages before each unit's operands are needed.
_AT_MUL = 1 + 2
_AT_ADD = _AT_MUL + 3
_AT_CLAMP = _AT_ADD + HOP
_AT_ROUND = _AT_CLAMP + 1
_AT_SATURATE = _AT_ROUND + 2
if _AT_SATURATE + 1 != EPILOGUE_LATENCY:
    raise AssertionError(f"EPILOGUE_LATENCY must be {_AT_SATURATE + 1}, not {EPILOGUE_LATENCY!r}")


class Epilogue(wiring.Component):
    """`dim` lanes in clock domain "epilogue".

    Members
    -------
    i_valid, i_tag : travel with the row to o_valid, o_tag
    i_row : (dim x 32) int32, or fp32 if `i_float`
    i_float : the source is fp32 (then neither `i_int_path` nor ibias applies)
    i_int_path : stay in int32; scale and bias are ignored, lo and hi are int32
    i_ibias : (dim x 32) int32
    i_scale, i_bias : (dim x 32) fp32
    i_lo, i_hi : (32) clamp bounds, fp32 or int32
    i_zero_point : int32, ignored for bf16 and fp32
    i_out : `Out32`
    o_row : (dim x 32) results

    Timing
    ------
    `EPILOGUE_LATENCY` cycles, one row per cycle; all inputs are sampled with `i_valid`.
    """

    def __init__(self, dim, tag_width=1):
        self.dim = dim
        super().__init__(
            {
                "i_valid": In(1),
                "i_tag": In(tag_width),
                "i_row": In(dim * 32),
                "i_float": In(1),
                "i_int_path": In(1),
                "i_ibias": In(dim * 32),
                "i_scale": In(dim * 32),
                "i_bias": In(dim * 32),
                "i_lo": In(32),
                "i_hi": In(32),
                "i_zero_point": In(signed(32)),
                "i_out": In(Out32),
                "o_valid": Out(1),
                "o_tag": Out(tag_width),
                "o_row": Out(dim * 32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = Signal(EPILOGUE_LATENCY)
        m.d.epilogue += valid.eq(Cat(self.i_valid, valid[:-1]))
        m.d.comb += [
            self.o_valid.eq(valid[-1]),
            self.o_tag.eq(delay(m, "epilogue", self.i_tag, EPILOGUE_LATENCY, "tag")),
        ]
        control = self._controls(m)
        vectors = [
            slices(v, 32)
            for v in (
                self.i_row,
                self.i_ibias,
                delay(m, "epilogue", self.i_scale, _AT_MUL, "scale"),
                delay(m, "epilogue", self.i_bias, _AT_ADD, "bias"),
            )
        ]
        lanes = zip(*vectors, strict=True)
        m.d.comb += self.o_row.eq(Cat(*(self._lane(m, c, v, control) for c, v in enumerate(lanes))))
        return m

    def _controls(self, m):
        """Delay each scalar to the stage that uses it."""
        lo, hi = (stage(m, "epilogue", v, n) for v, n in ((self.i_lo, "lo"), (self.i_hi, "hi")))
        out = delay(m, "epilogue", self.i_out.as_value(), _AT_SATURATE, "out")
        zero = delay(m, "epilogue", self.i_zero_point, _AT_SATURATE, "zero_point")
        at_clamp = _AT_CLAMP - 1
        return {
            "float": stage(m, "epilogue", self.i_float, "float_0"),
            "pass": delay(m, "epilogue", self.i_float, _AT_MUL, "float_x"),
            "int_path": delay(m, "epilogue", self.i_int_path, _AT_SATURATE, "int_path"),
            "int_lo": lo.as_signed(),
            "int_hi": hi.as_signed(),
            "lo": flush(delay(m, "epilogue", lo, at_clamp, "lo_x")),
            "hi": flush(delay(m, "epilogue", hi, at_clamp, "hi_x")),
            "out": Out32(out),
            "zero_point": zero,
        }

    def _lane(self, m, c, operands, control):
        row, ibias, scale, bias = operands
        added = Mux(self.i_float, row, (row + ibias)[0:32])
        x = stage(m, "epilogue", added, f"x{c}")

        floating = i32_to_fp32(m, "epilogue", x, f"itof{c}")
        direct = delay(m, "epilogue", flush(x), _AT_MUL - 1, f"direct{c}")
        value = wire(m, Mux(control["pass"], direct, floating), f"value{c}")
        scaled = fp32_mul(m, "epilogue", value, wire(m, flush(scale), f"scale{c}"), f"mul{c}")
        moved = fp32_add(m, "epilogue", scaled, wire(m, flush(bias), f"bias{c}"), f"add{c}")
        bounded = clamp(m, moved, control["lo"], control["hi"], f"clamp{c}")
        result = stage(m, "epilogue", bounded, f"bounded{c}")
        rounded = fp32_to_i32(m, "epilogue", result, f"ftoi{c}")
        result = delay(m, "epilogue", result, _AT_SATURATE - _AT_ROUND, f"result{c}")

        integer = self._integer(m, c, x.as_signed(), control)
        chosen = Mux(control["int_path"], integer, rounded)
        return stage(m, "epilogue", self._output(m, c, chosen, result, control), f"o{c}")

    def _integer(self, m, c, x, control):
        """Clamp in int32 right away, then wait for the float path."""
        raised = Mux(x < control["int_lo"], control["int_lo"], x)
        bounded = Mux(raised > control["int_hi"], control["int_hi"], raised)[0:32]
        return delay(m, "epilogue", bounded, _AT_SATURATE - 1, f"int{c}")

    def _output(self, m, c, integer, result, control):
        """Add the zero point and saturate, or take the float."""
        total = wire(m, integer.as_signed() + control["zero_point"], f"total{c}")
        lane = Signal(32, name=f"lane{c}")
        lo, hi = Signal(signed(33), name=f"min{c}"), Signal(signed(33), name=f"max{c}")
        with m.Switch(control["out"]):
            with m.Case(Out32.INT8):
                m.d.comb += [lo.eq(-128), hi.eq(127)]
            with m.Case(Out32.UINT8):
                m.d.comb += [lo.eq(0), hi.eq(255)]
            with m.Default():
                m.d.comb += [lo.eq(-(2**31)), hi.eq(2**31 - 1)]
        with m.Switch(control["out"]):
            with m.Case(Out32.BF16):
                m.d.comb += lane.eq(fp32_to_bf16(result))
            with m.Case(Out32.FP32):
                m.d.comb += lane.eq(result)
            with m.Default():
                m.d.comb += lane.eq(Mux(total < lo, lo, Mux(total > hi, hi, total)))
        return lane
