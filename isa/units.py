"""The units' instructions: fields, rules and semantics of LOAD, MATMUL, STORE and VECTOR."""

from __future__ import annotations

from tilewright.isa.config import LOCAL_BITS
from tilewright.isa.forms import Conv, Dest, Fault, Field, Mem, Oob, Rule, Type


def _local(name: str, meaning: str) -> Field:
    return Field(name, LOCAL_BITS, meaning, reg=True)


def _stride(name: str, meaning: str) -> Field:
    return Field(name, LOCAL_BITS, meaning, signed=True, reg=True)


def _count(name: str, meaning: str) -> Field:
    return Field(name, 16, meaning, reg=True, default=1)


def _lack(name: str, meaning: str) -> Field:
    return Field(name, 16, meaning, reg=True)


def _dram(name: str, meaning: str, signed: bool = False) -> Field:
    return Field(name, 32, meaning, signed=signed, reg=True)


_WIDE16 = (Conv.COPY16, Conv.F32_BF16, Conv.F32_HI, Conv.F32_MID, Conv.F32_LO)
#: LOAD's fields that make a sequence begin and end inside of a row.
LACKS = ("skip1", "drop1", "skip2", "drop2")
LOAD_TEXT = """\
Reads a strided box of DRAM, c0 contiguous elements by c1 by c2 by c3 runs (a stride of 0 repeats,
strides may overlap and be negative), converts each element and writes local rows. The innermost
`pack` dimensions are concatenated into one row; a row is cut into units (scratchpad: dim elements
of 1 byte in a granule, dim elements of 2 bytes or dim/2 of 4 bytes in an aligned pair;
accumulator: dim elements of 32 bits), and the tail of its last unit is zero. Unit u of the row at
(i1, i2, i3) goes to loc + u*l0 + i1*l1 + i2*l2 + i3*l3, without the terms of packed dimensions.
With `fill` nothing is read: every element is `value`. Any byte alignment is legal. Conversions:
copy8/16/32 move bytes; f32_bf16 rounds to nearest even; i8_i32 and u8_i32 widen; f32_hi, f32_mid
and f32_lo are bf16 parts of an fp32 x, whose sum is x unless a part flushes: hi = bf16(x), mid =
bf16(x - hi), lo = bf16(x - hi - mid), each difference an fp32 sum (exact, or flushed below 2^-126).
If hi is not finite (x is infinite or NaN, or rounds up to infinity), mid and lo are +0.
At most 65535 elements in a local row (else fault RANGE).

With `gather` the run at (i1, i2, i3) lies at dram + x*s1 + i2*s2 + i3*s3, x the int32 number i1 of
those that start in the scratchpad at granule `index` (even), dense. s1 is a multiple of bus_bytes,
bound at most 65535 (else fault RANGE). An x outside 0 to bound - 1 is clamped into it; with `oob`
fill, each element of such a run is `value` instead (one of DRAM's type, converted like the others;
the run is read all the same). The instruction must not write granules that hold its indices.

`xpose` (1 and 2 byte local elements) transposes blocks of dim runs. The runs of dimensions 1 to
`pack` are one sequence, dimension 1 innermost: blocks go on from one i2 (i3) to the next. Element e
of runs b*dim to b*dim + dim - 1 of a sequence becomes the unit at loc + e*l0 + b*l1 + i2*l2 +
i3*l3, without the terms of dimensions 2 and 3 that are in the sequence; run b*dim + j is in lane j,
lanes beyond the sequence's last run are zero. c0 units are written for each block, and c0 is at
most 8*dim (else fault RANGE): longer runs are cut, and their parts take a dimension. A sequence has
at most 65535 runs (else fault RANGE).

A sequence of several dimensions may begin and end inside of a row: it lacks its first skip1 +
skip2*c1 runs and its last drop1 + drop2*c1. The first run that is there is run 0 of block 0. Runs
that are not there are not read, but the whole box lies within the window, and `dram` is the address
of its first run, there or not; the 65535 runs count those that it lacks. skip1 and drop1 are less
than c1, skip2 and drop2 less than c2, and at least one run is there (else fault RANGE).
"""
LOAD = (
    Field("mem", 1, "destination memory", enum=Mem),
    Field("conv", 4, "conversion", enum=Conv),
    Field("pack", 2, "1 to 3: dimensions of a local row; of a sequence, if transposed", default=1),
    Field("fill", 1, "1: write `value` instead of reading DRAM"),
    Field("xpose", 1, "1: transpose blocks of dim runs"),
    Field("gather", 1, "1: the row index of dimension 1 comes from local memory"),
    Field("oob", 1, "out-of-range gather index", enum=Oob),
    _dram("dram", "byte address of the first element"),
    _count("c0", "elements of one contiguous run"),
    _count("c1", "runs of dimension 1"),
    _count("c2", "runs of dimension 2"),
    _count("c3", "runs of dimension 3"),
    _dram("s1", "bytes from one step of dimension 1 to the next", True),
    _dram("s2", "bytes from one step of dimension 2 to the next", True),
    _dram("s3", "bytes from one step of dimension 3 to the next", True),
    _local("loc", "first local row (granules; rows of the accumulator)"),
    _stride("l0", "local distance of consecutive units inside a row"),
    _stride("l1", "local distance of dimension 1 (if not packed), or of transposed blocks"),
    _stride("l2", "local distance of dimension 2 (if not packed)"),
    _stride("l3", "local distance of dimension 3 (if not in a sequence)"),
    Field("value", 32, "fill value: one element of the local type in its low bits", reg=True),
    _local("index", "granule of the first int32 gather index"),
    _dram("bound", "gather indices in 0 to bound - 1 are in range"),
    _lack("skip1", "runs of dimension 1 that a sequence's first row lacks at its start"),
    _lack("drop1", "runs of dimension 1 that a sequence's last row lacks at its end"),
    _lack("skip2", "steps of dimension 2 that the first step of dimension 3 lacks at its start"),
    _lack("drop2", "steps of dimension 2 that the last step of dimension 3 lacks at its end"),
)
LOAD_RULES = (
    Rule("in", "conv", tuple(Conv)),
    Rule("in", "pack", (1, 2, 3)),
    *(Rule("nonzero", c) for c in ("c0", "c1", "c2", "c3")),
    Rule(
        "in",
        "conv",
        (Conv.COPY32, Conv.I8_I32, Conv.U8_I32),
        when=(("mem", (Mem.ACC,)),),
        text="the accumulator holds 32-bit rows",
    ),
    Rule(
        "in",
        "conv",
        (Conv.COPY8, Conv.COPY32, *_WIDE16),
        when=(("mem", (Mem.SPAD,)),),
        text="int8 to int32 goes to the accumulator only",
    ),
    *(
        Rule(
            "even",
            f,
            when=(("mem", (Mem.SPAD,)), ("conv", (*_WIDE16, Conv.COPY32))),
            text="2 and 4 byte elements live in aligned pairs of granules",
        )
        for f in ("loc", "l0", "l1", "l2", "l3")
    ),
    Rule(
        "in",
        "conv",
        (Conv.COPY8, *_WIDE16),
        when=(("xpose", (1,)),),
        text="blocks of 1 and 2 byte elements are transposed",
    ),
    *(Rule("zero", f, when=(("xpose", (1,)),)) for f in ("fill", "gather")),
    Rule("zero", "fill", when=(("gather", (1,)),)),
    Rule("nonzero", "bound", when=(("gather", (1,)),)),
    Rule("even", "index", when=(("gather", (1,)),), text="indices are read by aligned pairs"),
    *(
        Rule("zero", f, when=(when,), text="a sequence of several dimensions lacks runs")
        for when in (("xpose", (0,)), ("pack", (1,)))
        for f in LACKS
    ),
    *(Rule("zero", f, when=(("pack", (2,)),)) for f in LACKS[2:]),
)

MATMUL_TEXT = """\
C[i, j] (+)= sum over kk of A[i, kk] * W[kk, j] for r0*r1 rows, k and n elements. It runs as
passes, N-blocks outer, K-blocks inner; a pass holds dim x dim weights and streams all rows. Row i
= (i1, i0) of A lies at a + kb*ak + i0*as0 + i1*as1, weight row j at w + kb*wk + nb*wn + j*ws, row
i of C at c + nb*cn + i. bf16 x bf16 sums in fp32: a column adds its products from row 0 of the
block down, starting from +0, then adds the sum to the accumulator; 8-bit operands, signed or
unsigned each, sum exactly and accumulate in wrapping int32. acc=0 overwrites C with the first
K-block, acc=1 adds. Operands beyond k count as zero, whatever memory holds; all dim weight rows
of a pass are addressed and must exist. Columns of C beyond n hold the sums of what W holds there.
At most 65535 rows (else fault RANGE).
"""
MATMUL = (
    Field("a_type", 3, "type of the activations", enum=Type),
    Field("w_type", 3, "type of the weights", enum=Type),
    Field("acc", 1, "1: add to the accumulator, 0: overwrite it with the first K-block"),
    _local("a", "granule of activation row 0, K-block 0"),
    _count("r0", "activation rows of the inner level"),
    _count("r1", "activation rows of the outer level; the pass has r0 * r1 rows"),
    _stride("as0", "granules between rows of the inner level"),
    _stride("as1", "granules between rows of the outer level"),
    _stride("ak", "granules between K-blocks of a row"),
    _local("w", "granule of weight row 0 (k = 0), N-block 0"),
    _stride("ws", "granules between weight rows (k and k + 1 of one K-block)"),
    _stride("wk", "granules between K-blocks of the weights"),
    _stride("wn", "granules between N-blocks of the weights"),
    _count("k", "contraction length in elements"),
    _count("n", "output columns in elements"),
    _local("c", "accumulator row of output row 0, N-block 0"),
    _stride("cn", "accumulator rows between N-blocks"),
)
_INT8 = (Type.I8, Type.U8)
MATMUL_RULES = (
    Rule("in", "a_type", (*_INT8, Type.BF16)),
    Rule("in", "w_type", (Type.BF16,), when=(("a_type", (Type.BF16,)),), text="operands agree"),
    Rule("in", "w_type", _INT8, when=(("a_type", _INT8),), text="operands agree"),
    *(Rule("nonzero", c) for c in ("r0", "r1", "k", "n")),
    *(
        Rule("even", f, when=(("a_type", (Type.BF16,)),), text="bf16 rows are pairs of granules")
        for f in ("a", "as0", "as1", "ak", "w", "ws", "wk", "wn")
    ),
    Rule(
        "in",
        "a_type",
        _INT8,
        fault=Fault.UNIMPLEMENTED,
        text="a bf16 MATMUL needs a chip with array=bf16, this one has array=int8",
        array="int8",
    ),
)

STORE_TEXT = """\
Reads c2 x c1 rows of c0 elements and writes them to DRAM, or to the scratchpad in granules. Unit
(block of dim columns) j of row (i1, i2) is read at loc + j*l0 + i1*l1 + i2*l2. Row (i1, i2)
begins at byte dst + i1*s1 + i2*s2 and is contiguous; in the scratchpad unit j goes to dst + j*d0
+ i1*s1 + i2*s2 and its tail is zero. Epilogue, in this order: add int32 vector (`ibias`,
wrapping); to fp32; times fp32 vector (`scale`); plus fp32 vector (`bias`); clamp to lo and hi;
round to nearest even; add zp; saturate to `out`. The integer path leaves out fp32: add, clamp as
int32, add zp, saturate. Vector v of the enabled ones (ibias, scale, bias in this order) has its
block j in accumulator row vec + v*vs + j; with any, a row has at most 16 units (else fault
RANGE). With `pool`, c2 x c1 is the grid of rows that are written: row (i1, i2) is the element-wise
maximum, after saturation, of the pool_h x pool_w rows whose unit j is read at loc + j*l0 +
(i1*pool_sw + x)*l1 + (i2*pool_sh + y)*l2, x below pool_w, y below pool_h; l1 and l2 are the steps
of the input. NaN wins, -0 is below +0. There is no padding; the grid that is read has at most
65535 rows in each dimension (else fault RANGE). With `scatter` (to DRAM only) row (i1, i2) begins
at byte dst + x*s1 + i2*s2, where x is int32 number i1 in the scratchpad, dim/2 to each aligned pair
of granules from `index` on. A row whose x is not in 0 to bound - 1 is not written (the beats of row
0 are sent without bytes). Of rows that meet, the later wins, i2 outer. s1 must be a multiple of
bus_bytes (else fault RANGE).

`xpose` transposes blocks of dim rows: element e of row (i1, i2) is lane i1 % dim of the unit read
at loc + e*l0 + (i1 // dim)*l1 + i2*l2; c0 is at most 8*dim (else fault RANGE). The epilogue comes
after the transposition, so its vectors belong to the elements of a row as always.
"""
STORE = (
    Field("mem", 1, "source memory", enum=Mem),
    Field("type", 3, "type of the source", enum=Type),
    Field("dest", 1, "where it writes", enum=Dest),
    Field("out", 3, "type that it writes", enum=Type),
    Field("int_path", 1, "1: integer epilogue without scale and bias"),
    Field("ibias", 1, "1: add an int32 vector first, wrapping"),
    Field("scale", 1, "1: multiply by an fp32 vector"),
    Field("bias", 1, "1: add an fp32 vector"),
    Field("clamp", 1, "1: clamp to lo and hi"),
    Field("scatter", 1, "1: row indices come from local memory"),
    Field("xpose", 1, "1: transpose blocks of dim rows"),
    Field("pool", 1, "1: max-pool pool_h x pool_w windows of rows on the way out"),
    Field("pool_h", 4, "window height"),
    Field("pool_w", 4, "window width"),
    Field("pool_sh", 4, "window step down"),
    Field("pool_sw", 4, "window step right"),
    Field("zp", 16, "zero point, added after rounding", signed=True),
    _local("loc", "first source row (granules; rows of the accumulator)"),
    _count("c0", "elements of one row"),
    _count("c1", "rows of dimension 1"),
    _count("c2", "rows of dimension 2"),
    _stride("l0", "local distance of consecutive units (column blocks) of a row"),
    _stride("l1", "local distance of dimension 1"),
    _stride("l2", "local distance of dimension 2"),
    _dram("dst", "byte address, or granule, of the first element"),
    _dram("s1", "bytes (granules) between rows of dimension 1", True),
    _dram("s2", "bytes (granules) between rows of dimension 2", True),
    _stride("d0", "scratchpad destination: granules between units"),
    _local("vec", "accumulator row of the first vector (ibias, scale, bias: those enabled)"),
    _stride("vs", "accumulator rows between one vector and the next"),
    Field("lo", 32, "lower clamp: fp32 bits, or int32 on the integer path", reg=True),
    Field("hi", 32, "upper clamp: fp32 bits, or int32 on the integer path", reg=True),
    _local("index", "granule of the first int32 scatter index"),
    _count("bound", "scatter indices in 0 to bound - 1 are in range"),
)
_SCATTER = (("scatter", (1,)),)
_SPAD_DST = (("dest", (Dest.SPAD,)),)
STORE_RULES = (
    Rule("in", "type", (Type.I32, Type.F32), when=(("mem", (Mem.ACC,)),)),
    Rule(
        "in",
        "type",
        (*_INT8, Type.BF16),
        when=(("mem", (Mem.SPAD,)),),
        text="32-bit rows are stored from the accumulator",
    ),
    Rule("in", "out", tuple(Type)),
    Rule(
        "in", "out", (*_INT8, Type.BF16), when=_SPAD_DST, text="the scratchpad takes 8 or 16 bits"
    ),
    *(Rule("nonzero", c) for c in ("c0", "c1", "c2")),
    Rule("in", "out", (*_INT8, Type.I32), when=(("int_path", (1,)),)),
    Rule("in", "type", (*_INT8, Type.I32), when=(("int_path", (1,)),)),
    Rule("zero", "scale", when=(("int_path", (1,)),)),
    Rule("zero", "bias", when=(("int_path", (1,)),)),
    Rule("zero", "ibias", when=(("type", (Type.BF16, Type.F32)),)),
    Rule("zero", "zp", when=(("out", (Type.BF16, Type.F32)),)),
    *(
        Rule("even", f, when=(("type", (Type.BF16,)),), text="bf16 rows are pairs of granules")
        for f in ("loc", "l0", "l1", "l2")
    ),
    *(
        Rule("even", f, when=(*_SPAD_DST, ("out", (Type.BF16,))), text="bf16 rows are pairs")
        for f in ("dst", "s1", "s2", "d0")
    ),
    *(
        Rule("nonzero", f, when=(("pool", (1,)),))
        for f in ("pool_h", "pool_w", "pool_sh", "pool_sw")
    ),
    *(Rule("zero", f, when=(("xpose", (1,)),)) for f in ("pool", "scatter")),
    Rule("in", "dest", (Dest.DRAM,), when=_SCATTER, text="scatter writes to DRAM"),
    Rule("even", "index", when=_SCATTER, text="4 byte elements live in aligned pairs of granules"),
    Rule("nonzero", "bound", when=_SCATTER),
)


def _stream(name: str, what: str) -> tuple[Field, ...]:
    return (
        Field(f"{name}_on", 1, f"1: there is {what}"),
        Field(f"{name}_mem", 1, f"{what}: memory", enum=Mem),
        Field(f"{name}_type", 3, f"{what}: element type", enum=Type),
        _local(name, f"{what}: unit 0 of row 0"),
        _stride(f"{name}_row", f"{what}: local distance of rows"),
        _stride(f"{name}_unit", f"{what}: local distance of consecutive units of a row"),
    )


VECTOR_TEXT = """\
Runs a micro-kernel (see micro-operations) over `rows` rows of `cols` elements, cut into units of
dim elements: `init` words once, then for each row `head` words, `body` words for each unit, `tail`
words. The words lie one after the other from accumulator row `kernel` on, dim/2 to a row. Each row
has its own registers; what `init` writes is the same for all rows and must not be written again,
and a register must be written before it is read. Unit j of row i of a stream lies at base + i*row +
j*unit; head and tail use unit 0; init neither loads nor stores, and does not read `row`. Streams of
32 bits lie in the accumulator, the others in the scratchpad. A load widens int8 and uint8 to int32,
bf16 to fp32; a store saturates int32 to 8 bits, and rounds fp32 to bf16. A slot must name a stream
that is on. A store may meet a load of the same instruction only in place (the same place for each
unit of each row, no two alike). Lanes beyond `cols` compute like the others: the source `active`
tells them.
"""
LOAD_STREAMS, STORE_STREAMS = ("x", "y", "z"), ("o", "p")
STREAMS = (*LOAD_STREAMS, *STORE_STREAMS)
SECTIONS = ("init", "head", "body", "tail")  # of a micro-kernel, in order
VECTOR = (
    _local("kernel", "accumulator row of the first micro-operation"),
    Field("init", 5, "micro-operations that run once"),
    Field("head", 6, "micro-operations of the head (once per row)"),
    Field("body", 7, "micro-operations of the body (once per unit of the row)"),
    Field("tail", 5, "micro-operations of the tail (once per row)"),
    _count("rows", "rows"),
    _count("cols", "elements of a row"),
    *_stream("x", "load stream x"),
    *_stream("y", "load stream y"),
    *_stream("z", "load stream z"),
    *_stream("o", "store stream o"),
    *_stream("p", "store stream p"),
    Field("u", 32, "scalar operand u", reg=True),
    Field("v", 32, "scalar operand v", reg=True),
)
VECTOR_RULES = (
    *(Rule("nonzero", c) for c in ("body", "rows", "cols")),
    *(
        Rule(
            "in",
            f"{s}_type",
            (Type.I32, Type.F32),
            when=((f"{s}_on", (1,)), (f"{s}_mem", (Mem.ACC,))),
            text="the accumulator holds 32-bit rows",
        )
        for s in STREAMS
    ),
    *(
        Rule(
            "in",
            f"{s}_type",
            (*_INT8, Type.BF16),
            when=((f"{s}_on", (1,)), (f"{s}_mem", (Mem.SPAD,))),
            text="streams of 32 bits lie in the accumulator",
        )
        for s in STREAMS
    ),
    *(
        Rule(
            "even",
            f"{s}{f}",
            when=((f"{s}_on", (1,)), (f"{s}_type", (Type.BF16,))),
            text="bf16 rows are pairs of granules",
        )
        for s in STREAMS
        for f in ("", "_row", "_unit")
    ),
)
