"""The listing: assembles back, and shows cycles, kernel and source line beside instructions."""

import re

import numpy as np
import pytest
import tilewright as tw
import tilewright.numpy as tnp
from tilewright.isa.assembler import assemble
from tilewright.listing import listing


def layer(x, w):
    return tnp.maximum(x @ w, 0)


@pytest.fixture(scope="module")
def run():
    x, w = np.ones((9, 6), np.float32), np.ones((6, 5), np.float32)
    with tw.default_device(tw.Device("tw4", "cycle")), tw.profile() as p:
        tw.jit(layer)(x, w)
    return p.runs[0]


def test_assembles_back(run):
    for trace in (None, run.trace):
        assert assemble(listing(run.program, trace)).code == run.program.code


def test_shows_kernel_and_source_line(run):
    lines = [line for line in listing(run.program).splitlines() if " matmul " in line]
    assert lines
    first = layer.__code__.co_firstlineno + 1
    assert all(re.search(rf"# k0  test_listing\.py:{first} in layer$", line) for line in lines)


def test_shows_start_and_end_cycles(run):
    found = []
    for line in listing(run.program, run.trace).splitlines():
        match = re.search(r"# +(\d+) +(\d+)(  |$)", line)
        if match:
            found.append((int(match[1]), int(match[2])))
    expected = list(zip(run.trace["start"].tolist(), run.trace["end"].tolist(), strict=True))
    assert found == expected


def test_repeated_instructions_show_how_often():
    program = assemble(".config tw4\n li r1, 0\nloop: add r1, r1, 1\n blt r1, 3, loop\n halt\n")
    from tilewright import sim

    result = sim.run(program, engine="cycle")
    text = listing(program, result.trace)
    assert re.search(r"add r1, r1, 1 .*# +\d+ +\d+ x3\n", text)
