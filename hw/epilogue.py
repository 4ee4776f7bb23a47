"""STORE's epilogue: a row of accumulators becomes a row of results, `dim` lanes at once.

int32 -> [+ ibias] -> fp32 -> [* scale] -> [+ bias] -> [clamp] -> round -> [+ zero point] ->
saturate; an fp32 source enters at the multiplication; the int path clamps in int32 and skips the
floats. Every step always runs: a step that is left out gets its neutral operand (`NEUTRAL`). Only
where all before the last one, which saturates, are left out a row may go the short way there.
Scalars and vectors travel with their row, so rows of different instructions may follow each other
without a gap.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw.blackbox import BlackBoxes
from tilewright.hw.column import slices
from tilewright.hw.float import (
    canonical,
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
from tilewright.isa.timing import EPILOGUE_LATENCY, EPILOGUE_SHORT, HOP


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
if EPILOGUE_SHORT != 2:
    raise AssertionError(f"EPILOGUE_SHORT must be 2, not {EPILOGUE_SHORT!r}")


class Epilogue(wiring.Component):
    """`dim` lanes in clock domain "epilogue".

    Members
    -------
    i_valid, i_tag : travel with the row to o_valid, o_tag
    i_row : (dim x 32) int32, or fp32 if `i_float`
    i_float : the source is fp32 (then neither `i_int_path` nor ibias applies)
    i_int_path : stay in int32; scale and bias are ignored, lo and hi are int32
    i_short : only saturate (with `i_int_path`) or round (bf16, fp32): no vectors, no bounds
    i_ibias : (dim x 32) int32
    i_scale, i_bias : (dim x 32) fp32
    i_lo, i_hi : (32) clamp bounds, fp32 or int32
    i_zero_point : int32, ignored for bf16 and fp32
    i_out : `Out32`
    o_row : (dim x 32) results

    Timing
    ------
    `EPILOGUE_LATENCY` cycles, with `i_short` EPILOGUE_SHORT; one row per cycle; all inputs are
    sampled with `i_valid`. No two rows' results may fall into one cycle.
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
                "i_short": In(1),
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
        valid, short = Signal(EPILOGUE_LATENCY), Signal()
        m.d.comb += short.eq(self.i_valid & self.i_short)
        m.d.epilogue += valid.eq(Cat(self.i_valid & ~short, valid[:-1]))
        with m.If(short):
            m.d.epilogue += valid[-2].eq(1)
        self._short = short
        m.d.comb += [
            self.o_valid.eq(valid[-1]),
            self.o_tag.eq(stage(m, "epilogue", self._late(m, self.i_tag, "tag"), "tag_q")),
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
        results = []
        for c, operands in enumerate(zip(*vectors, strict=True)):
            m.submodules[f"lane{c}"] = lane = EpilogueLane()
            values = dict(zip(("row", "ibias", "scale", "bias"), operands, strict=True)) | control
            m.d.comb += [getattr(lane, f"i_{n}").eq(v) for n, v in values.items()]
            results.append(lane.o)
        m.d.comb += self.o_row.eq(Cat(*results))
        return m

    def _late(self, m, value, name):
        """Delay a value to the last stage, on either way."""
        late = delay(m, "epilogue", value, _AT_SATURATE - 1, name)
        return last(m, self._short, value, late, name)

    def _controls(self, m):
        """Delay each scalar to the stage that uses it."""
        lo, hi = (stage(m, "epilogue", v, n) for v, n in ((self.i_lo, "lo"), (self.i_hi, "hi")))
        at_clamp = _AT_CLAMP - 1
        return {
            "float": self.i_float,
            "pass": delay(m, "epilogue", self.i_float, _AT_MUL, "float_x"),
            "short": self._short,
            "int_path": self._late(m, self.i_int_path, "int_path"),
            "int_lo": lo,
            "int_hi": hi,
            "lo": flush(delay(m, "epilogue", lo, at_clamp, "lo_x")),
            "hi": flush(delay(m, "epilogue", hi, at_clamp, "hi_x")),
            "out": Out32(self._late(m, self.i_out.as_value(), "out")),
            "zero_point": self._late(m, self.i_zero_point, "zero_point"),
        }


def last(m, short, row, value, name):
    """Register what the last stage takes: of the row that enters, or of the one that has come."""
    return stage(m, "epilogue", Mux(short, row, value), f"{name}_last")


class EpilogueLane(wiring.Component):
    """One lane, in clock domain "epilogue". Operands come when their unit needs them.

    Members
    -------
    i_float, i_row, i_ibias, i_short : with the row
    i_int_lo, i_int_hi : one cycle later
    i_pass, i_scale, i_bias, i_lo, i_hi, i_int_path, i_zero_point, i_out : `Epilogue` delays them
    o : the result

    Timing
    ------
    `EPILOGUE_LATENCY` cycles, with `i_short` EPILOGUE_SHORT.
    """

    def __init__(self):
        words = ("row", "ibias", "scale", "bias", "lo", "hi")
        super().__init__(
            {f"i_{n}": In(32) for n in words}
            | {f"i_{n}": In(1) for n in ("float", "pass", "int_path", "short")}
            | {f"i_{n}": In(signed(32)) for n in ("int_lo", "int_hi", "zero_point")}
            | {"i_out": In(Out32), "o": Out(32)}
        )

    def elaborate(self, platform):
        if isinstance(platform, BlackBoxes):
            return platform.lane(self, "tw_epilogue", "epilogue")
        m = Module()
        added = Mux(self.i_float, self.i_row, (self.i_row + self.i_ibias)[0:32])
        x = stage(m, "epilogue", added, "x")

        floating = i32_to_fp32(m, "epilogue", x)
        direct = delay(m, "epilogue", flush(x), _AT_MUL - 1, "direct")
        value = wire(m, Mux(self.i_pass, direct, floating), "value")
        scaled = fp32_mul(m, "epilogue", value, wire(m, flush(self.i_scale), "scale"))
        moved = fp32_add(m, "epilogue", scaled, wire(m, flush(self.i_bias), "bias"))
        bounded = clamp(m, moved, self.i_lo, self.i_hi)
        result = stage(m, "epilogue", bounded, "bounded")
        rounded = fp32_to_i32(m, "epilogue", result)
        result = delay(m, "epilogue", result, _AT_SATURATE - _AT_ROUND - 1, "result")
        result = last(m, self.i_short, canonical(self.i_row), result, "result")

        chosen = Mux(self.i_int_path, self._integer(m, x.as_signed()), rounded)
        m.d.comb += self.o.eq(stage(m, "epilogue", self._output(m, chosen, result), "result_q"))
        return m

    def _integer(self, m, x):
        """Clamp in int32 right away, then wait for the float path."""
        raised = Mux(x < self.i_int_lo, self.i_int_lo, x)
        bounded = Mux(raised > self.i_int_hi, self.i_int_hi, raised)[0:32]
        late = delay(m, "epilogue", bounded, _AT_SATURATE - 2, "int")
        return last(m, self.i_short, self.i_row, late, "int")

    def _output(self, m, integer, result):
        """Add the zero point and saturate, or take the float."""
        total = wire(m, integer.as_signed() + self.i_zero_point, "total")
        lane = Signal(32)
        lo, hi = Signal(signed(33), name="min"), Signal(signed(33), name="max")
        with m.Switch(self.i_out):
            with m.Case(Out32.INT8):
                m.d.comb += [lo.eq(-128), hi.eq(127)]
            with m.Case(Out32.UINT8):
                m.d.comb += [lo.eq(0), hi.eq(255)]
            with m.Default():
                m.d.comb += [lo.eq(-(2**31)), hi.eq(2**31 - 1)]
        with m.Switch(self.i_out):
            with m.Case(Out32.BF16):
                m.d.comb += lane.eq(fp32_to_bf16(result))
            with m.Case(Out32.FP32):
                m.d.comb += lane.eq(result)
            with m.Default():
                m.d.comb += lane.eq(Mux(total < lo, lo, Mux(total > hi, hi, total)))
        return lane
