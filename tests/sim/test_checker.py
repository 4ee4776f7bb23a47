"""The checker on small programs whose faults are known by hand."""

import time

import pytest
from tilewright.isa.config import PRESETS
from tilewright.isa.encoding import Instr, Reg, encode
from tilewright.isa.program import Program
from tilewright.isa.table import Conv, Dest, Fault, Mem, Type
from tilewright.sim import run
from tilewright.sim.checker import CheckError, check
from tilewright.sim.footprint import accesses
from tilewright.sim.memory import Memory

TW4 = PRESETS["tw4"]
make = Instr.make


def report(*instrs, dram=4096, config=TW4):
    code = b"".join(map(encode, [*instrs, make("halt")]))
    return check(Program(config, code, dram_size=dram), Memory())


def load(loc=0, rows=4, dram=0, **kw):
    fields = dict(conv=Conv.COPY8, c0=4, c1=rows, s1=4, l1=1, loc=loc, dram=dram)
    return make("load", **fields | kw)


def matmul(a=0, w=64, c=0, rows=4, **kw):
    return make("matmul", **dict(k=4, n=4, r0=rows, as0=1, ws=1, a=a, w=w, c=c) | kw)


def store(loc=0, dst=1024, rows=4, **kw):
    fields = dict(mem=Mem.ACC, type=Type.I32, out=Type.I32, c0=4, c1=rows, l1=1, s1=16)
    return make("store", **fields | dict(loc=loc, dst=dst) | kw)


def done(sem):
    return {"done_en": 1, "done_sem": sem}


def rd(sem):
    return {"rd_en": 1, "rd_sem": sem}


def wait(sem, n=1, slot=0):
    return {f"wait{slot}": sem, f"wait{slot}_n": n}


def kinds(r):
    return [f.kind for f in r.errors]


def test_clean_pipeline_is_accepted():
    r = report(load(), load(64, **done(0)), matmul(**wait(0), **done(1)), store(**wait(1)))
    assert r.ok and not r.warnings and r.fault is None


def test_race_names_both_instructions_rows_and_the_missing_edge():
    r = report(load(), load(64, **done(0)), matmul(**wait(0), **done(1)), store(3, 1024))
    assert kinds(r) == ["race"] and r.racy
    assert "read after write at acc row 3" in str(r)
    assert "store #3 must wait for done of matmul #2" in str(r)
    assert "instruction 2: matmul" in str(r) and "instruction 3: store" in str(r)
    assert r.errors[0].pcs == (2, 3)


def test_dropping_the_operand_wait_is_a_race():
    r = report(load(), load(64, **done(0)), matmul(**done(1)), store(**wait(1)))
    assert kinds(r) == ["race", "race"]  # A and W


def test_waiting_for_an_earlier_load_does_not_cover_a_later_one():
    r = report(load(**done(0)), load(64), matmul(**wait(0)))
    assert kinds(r) == ["race"] and "load #1" in str(r) and "load #0" not in str(r)


def test_k_th_wait_matches_k_th_signal():
    pair = (load(0, **done(0)), load(64, **done(0)))
    assert report(*pair, matmul(**wait(0, 2))).ok
    assert report(*pair, matmul(0, 0, **wait(0)), matmul(8, 64, 8, **wait(0))).ok
    assert not report(*pair, matmul(8, 64, **wait(0))).ok


def test_read_done_covers_write_after_read_only():
    base = (load(), load(64, **done(0)), matmul(**wait(0), **rd(1)))
    assert report(*base, load(0, dram=64, **wait(1))).ok
    assert kinds(report(*base, store(**wait(1)))) == ["race"]
    assert kinds(report(*base, load(0, dram=64))) == ["race"]
    assert "must wait for read-done of matmul #2" in str(report(*base, load(0, dram=64)))


def test_interleaved_footprints_do_not_meet():
    even = make("load", conv=Conv.COPY8, c0=4, c1=16, s1=4, l1=2, **done(0))
    odd = dict(r0=16, as0=2, w=200, a=1, **wait(0))
    assert report(even, matmul(**odd)).ok  # rows 1, 3, 5 ... and weights elsewhere
    assert not report(even, matmul(**{**odd, "wait0_n": 0, "a": 0})).ok
    cols = [store(0, 1024 + 16 * i, s1=32, rows=8, mem=Mem.ACC) for i in (0, 1)]
    reads = load(0, 1, dram=1024 + 16, s1=1)
    assert kinds(report(cols[0], reads)) == [] and kinds(report(cols[1], reads)) == ["race"]


@pytest.mark.parametrize(("pack", "blocks"), [
    (1, (0, 3, 8, 11, 32, 35, 40, 43)),  # of 5 runs: two blocks for each (i2, i3)
    (2, (0, 16, 32, 48)),  # of 6 runs: two blocks for each i3
    (3, (0, 16, 32)),  # of 12 runs: three blocks
])  # fmt: skip
def test_a_transposing_load_touches_its_units_and_nothing_between_them(pack, blocks):
    l1 = 3 if pack == 1 else 16
    turned = make("load", xpose=1, pack=pack, c0=2, c1=5 if pack == 1 else 3, c2=2, c3=2, s1=3,
                  s2=9, s3=18, l0=2, l1=l1, l2=8, l3=32, loc=100)  # fmt: skip
    written, _ = accesses(TW4, turned.spec, turned.values)
    cells = {x for a, b in zip(*written.spans, strict=True) for x in range(a, b)}
    assert cells == {100 + b + e for b in blocks for e in (0, 2)}


@pytest.mark.parametrize(("pack", "lacks"), [
    (2, (1, 2, 0, 0)), (2, (4, 4, 0, 0)), (3, (2, 1, 1, 2)), (3, (4, 4, 3, 3)), (3, (0, 1, 2, 0)),
])  # fmt: skip
@pytest.mark.parametrize("counts", [(5, 4, 3), (5, 4, 2)])
def test_a_transposing_load_reads_the_runs_that_are_there_and_no_other(pack, lacks, counts):
    skip1, drop1, skip2, drop2 = lacks
    turned = make("load", xpose=1, pack=pack, c0=2, dram=5000, s1=3, s2=-100, s3=1000, l0=1,
                  **dict(zip(("c1", "c2", "c3"), counts, strict=True)), skip1=skip1, drop1=drop1,
                  skip2=skip2, drop2=drop2)  # fmt: skip
    runs = [(i3, i2, i1) for i3 in range(counts[2]) for i2 in range(4) for i1 in range(5)]
    size = 20 * (counts[2] if pack == 3 else 1)
    there = {
        5000 + 1000 * i3 - 100 * i2 + 3 * i1 + byte
        for n, (i3, i2, i1) in enumerate(runs)
        if skip1 + 5 * skip2 <= n % size < size - drop1 - 5 * drop2
        for byte in (0, 1)
    }
    _, read = accesses(TW4, turned.spec, turned.values)
    assert {x for a, b in zip(*read.spans, strict=True) for x in range(a, b)} == there


def test_runs_that_a_sequence_lacks_may_still_be_written():
    for skip, drop, racy in ((0, 0, True), (1, 0, True), (0, 1, True), (1, 1, False)):
        turned = make("load", xpose=1, pack=2, c0=4, c1=2, c2=2, s1=16, s2=100, dram=1024, l0=1,
                      loc=500, skip1=skip, drop1=drop)  # fmt: skip
        first, last = (store(mem=Mem.SPAD, type=Type.I8, out=Type.I8, rows=1, dst=at)
                       for at in (1024, 1024 + 116))  # fmt: skip
        assert ("race" in kinds(report(first, last, turned))) == racy


def test_weights_beyond_k_do_not_matter():
    base = load(66, 4)
    assert report(base, make("matmul", k=2, n=4, r0=1, w=64, ws=1, a=0)).ok
    assert not report(base, make("matmul", k=3, n=4, r0=1, w=64, ws=1, a=0)).ok


def test_accumulating_matmuls_on_the_same_rows_need_no_edge():
    assert report(matmul(), matmul(acc=1), matmul(acc=1)).ok
    assert kinds(report(matmul(), matmul(c=1, acc=1))) == ["race"]
    assert report(matmul(**done(0)), matmul(c=1, acc=1, **wait(0))).ok
    assert report(matmul(), matmul(c=1)).ok  # overwriting lands in order
    two = make("matmul", k=4, n=8, r0=4, as0=1, w=64, ws=1, wn=4, cn=2, acc=1)
    assert "reads" in str(report(two)) and not report(two).ok


def test_store_reading_what_an_earlier_store_wrote_needs_an_edge():
    s = dict(mem=Mem.SPAD, type=Type.I8, dest=Dest.SPAD, out=Type.I8, s1=1)
    assert kinds(report(store(0, 16, **s), store(18, 32, **s))) == ["race"]
    assert report(store(0, 16, **s, **done(0)), store(18, 32, **s, **wait(0))).ok
    assert report(store(8, 8, **s)).ok  # in place
    assert kinds(report(store(8, 9, **s))) == ["race"]


def test_dram_order_between_store_and_load_needs_an_edge():
    assert kinds(report(store(0, 100), load(0, dram=160))) == ["race"]
    assert report(store(0, 100, **done(0)), load(0, dram=160, **wait(0))).ok
    assert report(load(0, dram=100), store(0, 130)).ok  # bytes 100 to 115, 130 on
    assert kinds(report(load(0, dram=100), store(0, 108))) == ["race"]


def test_sequencer_edges():
    producer, consumer = store(0, 128, **done(2)), load(0, dram=128)
    assert report(producer, make("wait", sem=2), consumer).ok
    assert report(store(0, 128), make("fence"), consumer).ok
    assert report(store(0, 128), make("li", rd=1), make("stw", rd=1, ra=1, b=0), consumer).ok
    assert kinds(report(store(0, 128), make("ldw", rd=1, ra=1, b=128))) == ["race"]
    assert report(producer, make("wait", sem=2), make("ldw", rd=1, ra=1, b=128)).ok
    post = (make("wait", sem=2), make("post", sem=3), load(0, dram=128, **wait(3)))
    assert report(producer, *post).ok


def test_double_buffering_loop_with_credits_is_accepted_and_without_is_not():
    def program(credits):
        return (
            make("post", sem=1, n=credits), load(64, **done(3)), make("wait", sem=3),
            make("li", rd=1, b=0), make("li", rd=2, b=0),
            load(Reg(2), dram=0, **wait(1), **done(0)),  # 5
            matmul(Reg(2), **wait(0), **rd(1)),
            make("sub", rd=2, ra=2, b=4), make("mul", rd=2, ra=2, b=-1),
            make("add", rd=1, ra=1, b=1), make("blt", ra=1, b=5, target=5),
        )  # fmt: skip

    assert report(*program(2)).ok
    assert report(*program(1)).ok
    assert kinds(report(*program(3))) == ["race"]


def test_one_signaller_one_kind_one_waiter():
    text = str(report(load(**done(0)), matmul(8, 70, 9, **done(0)), make("wait", sem=0, n=2)))
    assert "one signalling unit" in text and "matmul #" not in text and "LOAD did" in text
    assert "one kind" in str(report(load(**done(0)), load(8, **rd(0)), make("wait", sem=0, n=2)))
    r = report(load(**done(0)), load(8, **done(0)), make("wait", sem=0), matmul(20, 80, **wait(0)))
    assert "one waiting unit" in str(r)
    r = report(load(**done(0)), make("wait", sem=0), make("post", sem=0), make("wait", sem=0))
    assert "initial credits" in str(r)
    assert report(make("post", sem=0, n=2), load(**wait(0)), load(**wait(0)), load(**done(5)),
                  make("wait", sem=5)).ok  # fmt: skip
    assert "both waits" in str(report(make("post", sem=0, n=2), load(**wait(0), **wait(0, 1, 1))))


def test_deadlock_names_each_stuck_instruction_and_semaphore():
    r = report(load(**wait(1)), matmul(**wait(0), **done(1)), store(**wait(1, 2)))
    assert kinds(r) == ["deadlock"] and r.fault.code == Fault.DEADLOCK
    for text in ("LOAD at #0", "MATMUL at #1", "STORE at #2", "semaphore 0", "SEQ at #3"):
        assert text in str(r), text
    late = report(load(**wait(1)), matmul(**done(1)))
    assert kinds(late) == ["deadlock"] and "luck" in str(late)


def test_dram_window():
    assert kinds(report(load(dram=4096 - 15))) == ["window"]
    assert kinds(report(load(dram=8, rows=4, s1=-4))) == ["window"]
    assert report(load(dram=4096 - 16)).ok
    assert kinds(report(make("ldw", rd=0, ra=0, b=4096))) == ["window"]
    assert "multiple of 4" in report(make("ldw", rd=0, ra=0, b=2)).fault.text


def test_overflow_of_a_semaphore():
    body = [load(i, 1, **done(0)) for i in range(256)]
    assert kinds(report(*body)) == ["legality"]
    assert "above 255" in str(report(*body))
    r = report(load(**done(0)))
    assert r.ok and "nobody waits" in r.warnings[0]


def test_faults_are_no_errors_but_are_reported():
    r = report(load(), make("vector"))
    assert r.ok and r.fault.code == Fault.FIELD


def test_run_refuses_a_racy_program():
    code = b"".join(map(encode, [load(), matmul(0), make("halt")]))
    with pytest.raises(CheckError, match="matmul #1 must wait for done of load #0"):
        run(Program(TW4, code, dram_size=64), engine="cycle")


def test_two_thousand_instructions_take_about_a_second():
    body = []
    for i in range(500):
        slot = 8 * (i % 2)
        first, last = i < 2, i >= 498
        body.append(load(slot, **({} if first else wait(1))))
        body.append(load(64 + slot, **done(3)))
        free = {} if first else wait(2, slot=1)
        body.append(
            matmul(slot, 64 + slot, slot, **wait(3), **free, **done(4), **({} if last else rd(1)))
        )
        body.append(store(slot, 1024 + 64 * i, **wait(4), **({} if last else rd(2))))
    start = time.perf_counter()
    r = report(*body, dram=1 << 16)
    assert r.ok, r
    assert time.perf_counter() - start < 4


def gather(index=0, **kw):
    return load(gather=1, index=index, bound=8, s1=4, **kw)


def test_a_gather_waits_for_its_indices_even_from_its_own_unit():
    r = report(load(0, 4), gather(0, loc=100))
    assert kinds(r) == ["race"] and "read after write at spad granules 0 to 3" in str(r)
    assert report(load(0, 4, **done(0)), gather(0, loc=100, **wait(0))).ok


def test_a_gather_must_not_write_its_indices():
    assert kinds(report(gather(0, loc=3))) == ["race"]
    assert report(gather(0, loc=4)).ok


def test_a_gather_may_read_every_row_below_its_bound():
    assert kinds(report(gather(0, loc=100, rows=1, dram=4096 - 28))) == ["window"]
    assert report(gather(0, loc=100, rows=1, dram=4096 - 32)).ok
