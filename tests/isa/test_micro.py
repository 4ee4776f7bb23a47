"""Micro-operations encode, decode and refuse like instructions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilewright.isa.encoding import IllegalInstruction
from tilewright.isa.micro import LAYOUTS, OPERATIONS, MicroOp, decode_micro, encode_micro


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(OPERATIONS)), st.data())
def test_decode_inverts_encode(name, data):
    fields = {
        k: data.draw(st.integers(0, f.high)) for k, (_, f) in LAYOUTS[name].items() if k != "op"
    }
    op = MicroOp.make(name, **fields)
    assert decode_micro(encode_micro(op)) == op


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(min_size=8, max_size=8))
def test_junk_is_decoded_or_refused(word):
    try:
        assert encode_micro(decode_micro(word)) == word
    except IllegalInstruction as e:
        assert "micro-operation" in str(e) or "must be zero" in str(e)


def test_golden_words():
    add = MicroOp.make("add_f32", dst=3, a=1, b=32, c=0, load=1, load_dst=5, store=2, store_src=3)
    word = 8 | 3 << 7 | 1 << 12 | 32 << 18 | 1 << 44 | 5 << 46 | 2 << 51 | 3 << 53
    assert encode_micro(add) == word.to_bytes(8, "little")
    const = MicroOp.make("const", dst=2, imm=0x3F800000)
    assert encode_micro(const) == (2 | 2 << 7 | 0x3F800000 << 12).to_bytes(8, "little")


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("ad", {}, "micro-operation must be one of nop"),
        ("mov", {"imm": 1}, "mov has no field 'imm'"),
        ("mov", {"dst": 32}, "mov.dst must be in 0 to 31, not 32"),
    ],
)
def test_make_refuses(name, fields, message):
    with pytest.raises(ValueError, match=message):
        MicroOp.make(name, **fields)
