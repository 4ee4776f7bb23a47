"""Tile programs: slots, what each operation touches, and the printed loop nest."""

import numpy as np
import pytest
import tilewright.numpy as tnp
from tilewright.compiler.kernels import Buffer, View
from tilewright.compiler.schedule import (
    Schedule,
)
from tilewright.compiler.schedule_pieces import walk
from tilewright.compiler.tile_contract import span_bytes
from tilewright.compiler.tiles import Slots
from tilewright.isa.table import Mem

from tests.compiler.backend_case import F32, I8, compiled

DENSE = """\
k0: out0:f32[3,5] = contract(in0[1:0,3:4,4:1], in1[1:0,4:5,5:1]) + in2 -> f32
  schedule: tile 3x4x4 order mn
  load   spad[1280:1288] <- in1[0:76]  (conv=3 loc=1280 l0=8 c0=4 c1=4 s1=20 l1=2 pack=1)
  load   spad[0:6] <- in0[0:48]  (conv=3 loc=0 l0=2 c0=4 c1=3 s1=16 l1=2 pack=1)
  load   acc[126:128] <- in2[0:20]  (conv=2 loc=126 l0=1 c0=5)
  load   acc[254:256] <- in2[0:20]  (conv=2 loc=254 l0=1 c0=5)
  load   spad[1288:1296] <- in1[16:80]  (conv=3 loc=1288 l0=8 c0=1 c1=4 s1=20 l1=2 pack=1)
  matmul acc[0:3] <- spad[0:6], spad[1280:1288]  (a_type=2 w_type=2 acc=0 a=0 r0=3 r1=1 as0=2 ak=2\
 w=1280 ws=2 wk=8 wn=8 k=4 n=4 c=0 cn=3)
  matmul acc[128:131] <- spad[0:6], spad[1288:1296]  (a_type=2 w_type=2 acc=0 a=0 r0=3 r1=1 as0=2\
 ak=2 w=1288 ws=2 wk=8 wn=8 k=4 n=1 c=128 cn=3)
  store  out0[0:56] <- acc[0:3], acc[126:128]  (type=3 out=3 dest=0 int_path=0 ibias=0 scale=0\
 bias=1 zp=0 loc=0 c0=4 c1=3 l0=3 l1=1 s1=20 vec=126 vs=2)
  store  out0[16:60] <- acc[128:131], acc[254:256]  (type=3 out=3 dest=0 int_path=0 ibias=0\
 scale=0 bias=1 zp=0 loc=128 c0=1 c1=3 l0=3 l1=1 s1=20 vec=255 vs=2)"""


def dense(schedule=None):
    x, w, b = np.zeros((3, 4), F32), np.zeros((4, 5), F32), np.zeros(5, F32)
    return compiled(lambda x, w, b: x @ w + b, x, w, b, schedules=schedule and {0: schedule})


def test_tiles_print_as_an_unrolled_loop_nest():
    assert str(dense(Schedule(3, 4, 4)).tiles) == DENSE


def test_tiles_store_every_result_byte_once():
    x, w = np.zeros((23, 9), I8), np.zeros((9, 30), I8)
    back = compiled(lambda x, w: x @ w, x, w, schedules={0: Schedule(5, 7, 4)})
    count = np.zeros((23, 30), int)
    for op in back.tiles.ops:
        if op.name == "store" and op.kernel == 0:
            row, col = divmod(op.offset // 4, 30)
            count[row : row + op.fields["c1"], col : col + op.fields["c0"]] += 1
    assert (count == 1).all()


@pytest.mark.parametrize(
    "order, want",
    [
        ("mn", [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0)]),
        ("nm", [(0, 0), (1, 0), (1, 1), (0, 1), (0, 2), (1, 2)]),
    ],
)
def test_tiles_are_walked_in_a_snake(order, want):
    assert list(walk(order, [(0, 4), (4, 8)], [(0, 4), (4, 8), (8, 12)])) == want


def test_tiles_slots_load_a_resident_chunk_once():
    slots = Slots(Mem.SPAD, 0, 4, 2, ["a", "b", "a", "b"])
    assert [slots.take(k)[1] for k in "abab"] == [True, True, False, False]


def test_tiles_slots_evict_the_farthest_next_use():
    uses = list("abcabab")
    slots = Slots(Mem.SPAD, 0, 4, 2, uses)
    missing = [k for k in uses if slots.take(k)[1]]
    assert missing.count("a") + missing.count("b") <= 3 and missing.count("c") == 1


def test_tiles_slots_in_use_are_distinct():
    slots = Slots(Mem.SPAD, 8, 4, 3, list("abcabc"))
    places = {str(slots.take(k)[0]) for k in "abc"}
    assert places == {"spad[8:12]", "spad[12:16]", "spad[16:20]"}


def test_tiles_span_of_a_strided_view_is_from_its_first_to_its_last_byte():
    view = View(Buffer("x", (10, 10), F32, "input"), (3, 2), (20, 3), 4)
    assert str(span_bytes(view, (1, 0), (3, 2))) == "x[96:192]"


def test_tiles_of_one_weight_for_all_batches_load_it_once():
    a, w = np.zeros((3, 4, 4), I8), np.zeros((4, 4), I8)
    back = compiled(lambda a, w: tnp.matmul(a, tnp.broadcast_to(w, (3, 4, 4))), a, w)
    loads = [op for op in back.tiles.ops if op.name == "load" and op.buffer.name == "in1"]
    assert len(loads) == 1
