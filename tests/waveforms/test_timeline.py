"""The Perfetto timeline: well-formed Trace Events that say what the run's trace says."""

import json
import re
from itertools import count, pairwise

import pytest
from click.testing import CliRunner
from tilewright import cli, sim, waveforms
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.disassembler import disassemble_program
from tilewright.isa.program import Origin, Program
from tilewright.isa.table import Fault, Unit
from tilewright.sim.generate import generate
from tilewright.sim.result import CAUSES, QUEUED
from tilewright.waveforms.trace_events import lanes, waits

TW4 = parse_config("tw4")
#: What the Trace Event format asks of each phase that is used.
FIELDS = {
    "M": {"name", "args"},
    "X": {"name", "ts", "dur", "tid", "args"},
    "C": {"name", "ts", "args"},
    "s": {"name", "cat", "id", "ts", "tid"},
    "f": {"name", "cat", "id", "ts", "tid", "bp"},
}
ADD = """\
.config tw4
.dram 0x100
.data 0x0
    .word 1, 2, 3, 4
    load acc[0], dram[0x0], copy32, c0=4 ; done s0
    store dram[0x40], acc[0], i32->i32, int_path c0=4 ; wait s0>=1
    halt
"""


def timeline(program, engine="cycle"):
    """The JSON, parsed as strictly as Perfetto's reader is, and the run."""
    before = sim.load_memory(program)
    result = sim.run(program, engine=engine)
    text = json.dumps(waveforms.perfetto(result, program, before), allow_nan=False)
    trace = json.loads(text)
    assert trace["displayTimeUnit"] == "ns"
    for event in trace["traceEvents"]:
        assert event.keys() - {"ph", "pid"} >= FIELDS[event["ph"]], event
        assert event["pid"] == 1
        assert event.get("ts", 0) >= 0 and event.get("dur", 1) > 0
    slices = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            slices.setdefault(event["tid"], []).append(event)
    for track in slices.values():  # slices of one track nest or follow; here they follow
        spans = sorted((cycle(e["ts"]), cycle(e["ts"] + e["dur"])) for e in track)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
    return trace, result


def cycle(ts):
    """Microseconds to cycles of 1 ns; whole ones."""
    assert abs(1000 * ts - round(1000 * ts)) < 1e-6
    return round(1000 * ts)


def tracks(trace):
    return {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}


def slices(trace):
    return [e for e in trace["traceEvents"] if e["ph"] == "X"]


@pytest.mark.parametrize("seed", range(12))
def test_slices_are_the_trace(seed):
    program = generate(seed, TW4).program
    trace, result = timeline(program)
    names = tracks(trace)
    seen = {}
    for e in slices(trace):
        if "id" in e["args"]:
            end = cycle(e["ts"] + e["dur"]) - 1
            unit = names[e["tid"]].partition(" ")[0].replace("sequencer", "SEQ")
            seen[e["args"]["id"]] = (e["args"]["pc"], unit, cycle(e["ts"]), end)
    wanted = {
        int(r["id"]): (
            r["pc"], Unit(int(r["unit"])).name, r["start"],
            r["end"] if r["end"] >= 0 else result.cycles - 1,
        )
        for r in result.trace if r["start"] >= 0
    }  # fmt: skip
    assert seen == wanted and len(seen) > 5


@pytest.mark.parametrize("seed", (0, 1, 3, 5))
def test_causes_tile_the_run_and_sum_to_the_counters(seed):
    program = generate(seed, TW4).program
    trace, result = timeline(program)
    names = tracks(trace)
    for unit in QUEUED:
        tids = [t for t, n in names.items() if n == f"{unit.name} cycles by cause"]
        if not tids:
            assert unit is Unit.VECTOR
            continue
        mine = [e for e in slices(trace) if e["tid"] == tids[0]]
        for cause in CAUSES:
            total = sum(e["args"]["cycles"] for e in mine if e["name"] == cause)
            assert total == result.counters[f"{unit.name.lower()}_{cause}"]
        assert sum(cycle(e["dur"]) for e in mine) == result.cycles


def area(trace, name):
    """Sum over cycles of a counter track."""
    points = [(cycle(e["ts"]), e["args"]["value"]) for e in trace["traceEvents"]
              if e["ph"] == "C" and e["name"] == name]  # fmt: skip
    assert points[-1][1] == 0
    return sum(v * (b - a) for (a, v), (b, _) in pairwise(points))


def test_counter_tracks_hold_the_run_s_work():
    programs = (generate(seed, TW4).program for seed in count(9))
    words = re.compile(r"\b(ldw|stw)\b")  # are no unit's
    program = next(p for p in programs if not words.search(disassemble_program(p)))
    trace, result = timeline(program)
    macs = area(trace, "array % (mean over each MATMUL)") * TW4.dim**2 / 100
    assert macs == pytest.approx(result.counters["macs_useful"], rel=1e-3)
    for name, label in (("read", "LOAD"), ("written", "STORE")):
        beats = area(trace, f"beats {name} per cycle (mean over each {label})")
        assert beats == pytest.approx(result.counters[f"beats_{name}"], rel=1e-3)


def test_waits_name_who_signalled_and_arrows_show_it():
    trace, _ = timeline(assemble(ADD))
    load, store = (next(e for e in slices(trace) if e["name"] == n) for n in ("load", "store"))
    ended = cycle(load["ts"] + load["dur"]) - 1
    assert store["args"]["waits"] == [f"s0>=1 from #0 of LOAD, which ended in cycle {ended}"]
    assert load["args"]["waits"] == []
    (start,) = (e for e in trace["traceEvents"] if e["ph"] == "s")
    (finish,) = (e for e in trace["traceEvents"] if e["ph"] == "f")
    assert (start["id"], start["name"], start["cat"]) == (finish["id"], "s0", "semaphore")
    assert (start["tid"], finish["tid"]) == (load["tid"], store["tid"])
    assert load["ts"] <= start["ts"] < load["ts"] + load["dur"] + 1e-9
    assert finish["ts"] == store["ts"]


def test_kernel_and_line_are_shown():
    program = assemble(ADD)
    origin = Origin("matmul_0", "dot_general", "src/mlp.py:12 in layer")
    program = Program(
        program.config, program.code, program.data, source_map=(origin, Origin(), Origin()),
        dram_size=program.dram_size,
    )  # fmt: skip
    trace, _ = timeline(program)
    args = next(e["args"] for e in slices(trace) if e["name"] == "load")
    assert (args["kernel"], args["line"]) == ("matmul_0", "src/mlp.py:12 in layer")
    assert args["assembly"].startswith("load acc[0x0], dram[0x0], copy32")


def test_engine_without_a_clock_is_refused():
    program = assemble(ADD)
    with pytest.raises(ValueError, match="engine with a clock"):
        waveforms.perfetto(sim.run(program), program)


def test_deadlock_shows_what_never_ended():
    text = """\
    .config tw4
    .dram 0x100
    load acc[0], dram[0x0], copy32, c0=4 ; wait s0>=1
    wait s1, 1
    halt
    """
    program = assemble(text)
    before = sim.load_memory(program)
    result = sim.run(program, before.snapshot(), engine="cycle", check=False)
    assert result.fault is not None and result.fault.code == Fault.DEADLOCK
    events = waveforms.perfetto(result, program, before)["traceEvents"]
    (stuck,) = (e for e in events if e["ph"] == "X" and e["name"] == "wait")
    assert stuck["args"]["unfinished"] and stuck["args"]["waits"] == ["s1>=1"]
    assert cycle(stuck["ts"] + stuck["dur"]) == result.cycles
    assert not [e for e in events if e["name"] in CAUSES]


def test_overlapping_slices_get_lanes():
    assert lanes([0, 1, 4, 5], [3, 6, 5, 9]) == [0, 1, 0, 0]


def test_third_wait_takes_the_third_token():
    text = """\
    .config tw4
    post s1, 2
    wait s1, 1
    post s1, 1
    wait s1, 2
    halt
    """
    program = assemble(text)
    result = sim.run(program, engine="cycle", check=False)
    found = waits(result.trace, program.instructions())
    assert [tuple(wait) for wait in found] == [(1, 1, 1, 0), (3, 1, 2, 2)]


def test_command_writes_the_timeline(tmp_path):
    source = tmp_path / "add.s"
    source.write_text(ADD)
    out = tmp_path / "trace"
    done = CliRunner().invoke(cli.main, ["run", str(source), "--trace", str(out), "--json"])
    assert done.exit_code == 0, done.output
    path = json.loads(done.output)["trace"]["timeline"]
    assert path == str(out / "add.perfetto.json")
    assert json.loads((out / "add.perfetto.json").read_text())["otherData"]["engine"] == "cycle"
    assert [p.name for p in out.iterdir()] == ["add.perfetto.json"]


@pytest.mark.parametrize(
    ("args", "says"),
    [(["--engine", "functional", "--trace", "t"], "engine with a clock"),
     (["--trace", "file"], "is a file"),
     (["--trace", "t", "--trace-to", "9"], "need --trace and --engine rtl"),
     (["--engine", "rtl", "--trace-from", "9"], "need --trace and --engine rtl"),
     (["--trace", "/proc/none"], "/proc/none")],
)  # fmt: skip
def test_wrong_traces_are_one_error(args, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "add.s").write_text(ADD)
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(cli.main, ["run", "add.s", *args])
    assert done.exit_code in (1, 2)
    assert says in done.output and "Traceback" not in done.output
