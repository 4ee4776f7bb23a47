"""Emission: words, addresses, relocation and the source map."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright.compiler import emit
from tilewright.isa.encoding import Instr, decode_program, encode

from tests.compiler.backend_case import F32, I8, array, compiled, execute


def two_layers(x, w, v):
    y = tnp.maximum(x @ w, 0)
    return y @ v, x.T


def arguments():
    rng = np.random.default_rng(0)
    return [array(rng, s, F32) for s in ((9, 7), (7, 10), (10, 3))]


@pytest.mark.parametrize("name", ["load", "matmul", "store", "halt"])
def test_emit_word_is_the_encoding(name):
    rng = np.random.default_rng(0)
    layout = Instr.make(name).spec.layout
    for _ in range(50):
        fields = {
            k: int(rng.integers(f.low, f.high, endpoint=True))
            for k, (_, f) in layout.items()
            if rng.random() < 0.7
        }
        assert emit.word(name, fields) == encode(Instr.make(name, **fields))


def test_emit_word_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"load\.c0 must be in 0 to 65535, not 65536"):
        emit.word("load", {"c0": 65536})


def test_emit_word_refuses_an_unknown_field():
    with pytest.raises(ValueError, match="load has the fields"):
        emit.word("load", {"nothing": 1})


def test_emit_buffers_are_aligned_and_disjoint():
    back = compiled(two_layers, *arguments())
    spans = sorted((a, a + b.nbytes) for b, a in back.addresses.items())
    assert all(a % 64 == 0 for a, _ in spans)
    assert all(hi <= lo for (_, hi), (lo, _) in pairwise(spans))
    assert spans[-1][1] <= back.program.dram_size


def test_emit_link_with_the_default_layout_changes_nothing():
    back = compiled(two_layers, *arguments())
    assert back.link(back.addresses) == back.program.code


def test_emit_linked_elsewhere_computes_the_same():
    args = arguments()
    back = compiled(two_layers, *args)
    moved = {b: 1 << 20 | 64 * 37 * i for i, b in enumerate(reversed(back.buffers))}
    ports = [
        tuple(replace(p, addr=moved[b]) for p, b in zip(ports, buffers, strict=True))
        for ports, buffers in (
            (back.program.inputs, back.kernels.inputs),
            (back.program.outputs, back.kernels.outputs),
        )
    ]
    program = replace(
        back.program, code=back.link(moved), inputs=ports[0], outputs=ports[1], dram_size=1 << 21
    )
    for here, there in zip(
        execute(back, *args), execute(back, *args, program=program), strict=True
    ):
        assert here.tobytes() == there.tobytes()


def test_emit_every_instruction_knows_kernel_equations_and_line():
    back = compiled(two_layers, *arguments())
    first = two_layers.__code__.co_firstlineno
    lines = {"k0": first + 1, "k1": first + 2, "k2": first + 2}
    origins = back.program.source_map
    assert len(origins) == len(back.program.code) // 64
    for origin, op in zip(origins, back.tiles.ops, strict=False):
        kernel = back.kernels.kernels[op.kernel]
        assert origin.kernel == kernel.name and origin.equation == ",".join(map(str, kernel.eqns))
        assert f"test_emit.py:{lines[origin.kernel]} in two_layers" in origin.line
    assert {o.equation for o in origins[:-1]} == {"0,1", "2", "3"}


def test_emit_ends_with_halt_only():
    instructions = decode_program(compiled(two_layers, *arguments()).program.code)
    assert [i.spec.name for i in instructions].count("halt") == 1
    assert instructions[-1].spec.name == "halt"


def test_emit_constants_are_data_of_the_program():
    w = array(np.random.default_rng(0), (4, 4), I8)
    program = compiled(lambda x: x @ tnp.asarray(w), np.zeros((4, 4), I8)).program
    assert [raw for _, raw in program.data] == [w.tobytes()]
