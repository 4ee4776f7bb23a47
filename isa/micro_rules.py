"""What a micro-kernel must keep to, besides that its words are micro-operations.

The hardware checks nothing of this: an unknown source reads as it likes, a register that was not
written holds what an earlier row left. `check_kernel` refuses such a micro-kernel by name, so that
rows are independent of each other and engines agree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tilewright.isa.forms import TableError
from tilewright.isa.micro import OPERATIONS, REGISTERS, SOURCES, MicroOp
from tilewright.isa.units import LOAD_STREAMS, SECTIONS, STORE_STREAMS

#: Source fields that operations read -> the operations.
_READERS = {
    "": "nop const",
    "a": "mov rotate broadcast neg_f32 abs_f32 floor_f32 round_f32 recip_f32 rsqrt_f32 exp2_fx "
    "log2_slope_f32 sign_f32 div_recip_f32 clz popcount i32_f32 u32_f32 f32_i32 f32_u32 f32_bf16",
    "ab": "add_f32 sub_f32 mul_f32 min_f32 max_f32 eq_f32 lt_f32 le_f32 sqrt_fix_f32 log2_f32 "
    "div_mul_f32 add_i32 sub_i32 mul_i32 mulh_i32 mulh_u32 min_i32 max_i32 min_u32 max_u32 eq_i32 "
    "lt_i32 le_i32 lt_u32 le_u32 mul_fx and or xor shl shr sar",
    "abc": "select fnma_f32 div_fix_f32 fma_f32",
}
#: Operation -> the source fields that it reads, as letters.
READS = {name: fields for fields, names in _READERS.items() for name in names.split()}
#: Operations that read the field `n`.
COUNTED = ("rotate", "broadcast", "mul_fx")
if READS.keys() != OPERATIONS.keys():
    raise TableError(f"READS must name each operation: {READS.keys() ^ OPERATIONS.keys()}")
_ROW = SOURCES["row"]


class KernelError(ValueError):
    """A micro-kernel breaks a rule; `word` is the number of the micro-operation."""

    def __init__(self, word: int, message: str):
        super().__init__(message)
        self.word = word

    def __reduce__(self):
        return KernelError, (self.word, str(self))


def section_of(word: int, lengths: Mapping[str, int]) -> tuple[str, int]:
    """The section that micro-operation `word` belongs to, and its number in it."""
    for name in SECTIONS:
        if word < lengths[name]:
            return name, word
        word -= lengths[name]
    raise ValueError(f"word must be in the micro-kernel, not {word} behind its end")


def sources(op: MicroOp) -> list[int]:
    """Sources that the ALU slot reads."""
    return [op.values[f] for f in READS[op.name]]


def registers_read(op: MicroOp) -> list[int]:
    """Registers that the word reads."""
    out = [s for s in sources(op) if s < REGISTERS]
    return [*out, op.values["store_src"]] if op.values["store"] else out


def registers_written(op: MicroOp) -> list[int]:
    """Registers that the word writes."""
    out = [op.values["load_dst"]] if op.values["load"] else []
    return out if op.name == "nop" else [*out, op.values["dst"]]


def _slot(op: MicroOp, slot: str, streams: Sequence[str], on: Collection[str]) -> str:
    """What is wrong with a slot, or nothing."""
    number = op.values[slot]
    if number > len(streams):
        return f"{slot} must name {' or '.join(streams)}, not stream number {number}"
    if number and streams[number - 1] not in on:
        return f"{slot} names stream {streams[number - 1]}, which is not on"
    return ""


def _word(
    op: MicroOp, section: str, written: set[int], fixed: set[int], on: Collection[str]
) -> str:
    """What is wrong with a word, or nothing."""
    slots = _slot(op, "load", LOAD_STREAMS, on) or _slot(op, "store", STORE_STREAMS, on)
    if slots:
        return slots
    if section == "init" and (op.values["load"] or op.values["store"]):
        return "init must neither load nor store"
    for source in sources(op):
        if source >= REGISTERS and source not in SOURCES.values():
            return f"{op.name} reads source {source}, which is none"
        if section == "init" and source == _ROW:
            return "init must not read row: it runs once for all rows"
    for register in registers_read(op):
        if register not in written:
            return f"r{register} must be written before it is read"
    for register in registers_written(op):
        if section != "init" and register in fixed:
            return f"r{register} must not be written: init writes it for all rows"
    return ""


def check_kernel(ops: Sequence[MicroOp], lengths: Mapping[str, int], on: Collection[str]) -> None:
    """Check a micro-kernel as it is executed: init, then for each row head, body and tail.

    Parameters
    ----------
    ops : its words in order.
    lengths : words of each of `units.SECTIONS`.
    on : streams that are on.

    Raises
    ------
    KernelError
        For the first word that breaks a rule.
    """
    written: set[int] = set()
    fixed: set[int] = set()
    for number, op in enumerate(ops):
        section, _ = section_of(number, lengths)
        wrong = _word(op, section, written, fixed, on)
        if wrong:
            raise KernelError(number, wrong)
        written.update(registers_written(op))
        if section == "init":
            fixed.update(registers_written(op))
