"""Waves of the RTL, read back with pywellen (Surfer's library), which did not write them."""

import json
import re

import pytest
import pywellen
from click.testing import CliRunner
from tilewright import cli, sim, waveforms
from tilewright.isa.assembler import assemble
from tilewright.isa.config import parse_config
from tilewright.isa.table import Fault, Unit
from tilewright.sim import differences
from tilewright.sim.generate import generate
from tilewright.sim.rtl import RtlChip, RtlError
from tilewright.waveforms import WaveError, layouts
from tilewright.waveforms.fst_file import FstWriter

TW4 = parse_config("tw4")
PIPELINE = """\
.config tw4
.dram 0x1000
.data 0x0
    .word 1, 2, 3, 4
    load spad[0], dram[0x0], copy8, c0=4 c1=8 ; done s0
    load spad[0x40], dram[0x100], copy8, c0=4 c1=4 ; done s1
    li r1, 3
again:
    sub r1, r1, 1
    bne r1, r0, again
    halt
"""


def value_changes(path):
    """Full name -> [(time, value)] on demand, and all names."""
    wave = pywellen.Waveform(str(path))
    assert str(wave.timescale).replace(" ", "") == "100ps"
    variables = {v.full_name: v for v in wave.all_vars()}
    return lambda name: list(variables[name].signal), variables


def shown(changes):
    """(unit's) instructions as (id, pc, mnemonic): the cycle in which each appears."""
    out = {}
    for time, text in changes:
        if text:
            number, pc, name = re.match(r"#(\d+) @(\d+) (\S+)", text).groups()
            assert time % 10 == 0 and int(number) not in out, text
            out[int(number)] = (time // 10, int(pc), name)
    return out


def high(changes, cycles):
    """Cycle -> value of a signal, where that is not 0."""
    ends = [time for time, _ in changes[1:]] + [10 * (cycles + 1)]
    return {
        cycle: int(value)
        for (start, value), end in zip(changes, ends, strict=True)
        for cycle in range(start // 10, end // 10)
        if value
    }


def record(program, folder, name="run", **more):
    result, files = waveforms.record(
        program, sim.Memory(program.dram_size), folder, "rtl", name, **more
    )
    return result, files, *value_changes(files["waves"])


UNITS = {Unit.SEQ: "sequencer", Unit.LOAD: "load", Unit.MATMUL: "matmul", Unit.VECTOR: "vector",
         Unit.STORE: "store"}  # fmt: skip
#: 1, 5 and 29: loops; 3: ends in a fault; 6: nested loops that fit the instruction buffer.
SEEDS = (1, 3, 5, 6, 29)


@pytest.mark.parametrize("seed", SEEDS)
def test_fst_gives_the_issue_cycle_of_every_instruction(seed, tmp_path):
    program = generate(seed, TW4).program
    result, _, changes, _ = record(program, tmp_path)
    seen = {unit: shown(changes(f"units.{name}.instruction")) for unit, name in UNITS.items()}
    count = 0
    for row in result.trace:
        if row["start"] >= 0:
            cycle, pc, _ = seen[Unit(int(row["unit"]))][int(row["id"])]
            assert (cycle, pc) == (row["start"], row["pc"])
            count += 1
    assert count == len(result.trace) > 10
    strobes = high(changes("tilewright.trace_start"), result.cycles)
    for unit in list(UNITS)[1:]:  # and the RTL's own port, which is one cycle late
        rows = result.trace[result.trace["unit"] == int(unit)]
        assert [c - 1 for c, v in strobes.items() if v >> unit & 1] == sorted(rows["start"])
        assert seen[unit].keys() == set(rows["id"].tolist())
    loads = result.trace[result.trace["unit"] == int(Unit.LOAD)]
    inside = high(changes("tilewright.issue.load__start"), result.cycles)
    assert list(inside) == sorted(loads["start"]), "signals inside the chip are not late"


@pytest.mark.parametrize("seed", (1, 5))
def test_handshakes_in_the_wave_are_the_beats_that_the_chip_counts(seed, tmp_path):
    program = generate(seed, TW4).program
    result, _, changes, _ = record(program, tmp_path)

    def cycles(name):
        return set(high(changes(f"tilewright.data_{name}"), result.cycles))

    assert len(cycles("rvalid") & cycles("rready")) == result.counters["beats_read"] > 0
    assert len(cycles("wvalid") & cycles("wready")) == result.counters["beats_written"] > 0
    lengths = high(changes("tilewright.data_arlen"), result.cycles)
    bursts = cycles("arvalid") & cycles("arready")
    assert sum(lengths.get(c, 0) + 1 for c in bursts) == result.counters["beats_read"]


def test_tracing_changes_nothing(tmp_path):
    program = generate(5, TW4).program
    result, _, _, _ = record(program, tmp_path)
    assert differences(sim.run(program, engine="cycle"), result) == []


def test_faulting_program_leaves_its_waves(tmp_path):
    made = generate(3, TW4, ending=Fault.OPCODE)
    result, _, changes, _ = record(made.program, tmp_path)
    assert result.fault is not None and result.fault.code == Fault.OPCODE
    assert len(changes("units.sequencer.instruction")) > 2


def test_run_that_does_not_stop_leaves_its_waves(tmp_path, monkeypatch):
    finish = RtlChip.finish
    monkeypatch.setattr(RtlChip, "finish", lambda chip, limit: finish(chip, 60))
    with pytest.raises(RtlError, match="limit of 60 cycles"):
        waveforms.fst(assemble(PIPELINE), tmp_path / "hang.fst")
    changes, _ = value_changes(tmp_path / "hang.fst")
    assert changes("tilewright.clk")[-1][0] // 10 in range(58, 63)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hang.fst", "hang.gtkw", "hang.sucl"]


def test_timeline_of_the_rtl_is_that_of_the_cycle_engine(tmp_path):
    program = generate(1, TW4).program
    _, files, _, _ = record(program, tmp_path)
    _, other = waveforms.record(program, sim.Memory(program.dram_size), tmp_path, name="cycle")
    a, b = (json.loads(f["timeline"].read_text())["traceEvents"] for f in (files, other))
    assert a[1:] == b[1:] and "rtl engine" in a[0]["args"]["name"]


def test_text_ends_with_the_last_instruction_in_flight(tmp_path):
    program = assemble(PIPELINE)
    result, _, changes, _ = record(program, tmp_path)
    loads = result.trace[result.trace["unit"] == int(Unit.LOAD)]
    texts = changes("units.load.instruction")
    assert texts[0] == (0, "")
    assert texts[-1] == (10 * (int(loads["end"].max()) + 1), "")
    oldest = shown([c for c in changes("units.load.oldest") if c[1]])
    assert oldest[1][0] == loads["end"][0] + 1 if loads["end"][0] >= loads["start"][1] else True
    assert max(v for _, v in changes("units.load.in_flight")) in (1, 2)
    listing = [t for _, t in changes("units.sequencer.instruction") if "bne" in t]
    assert len(listing) == 3 and all("@4 bne r1, r0, L3" in t for t in listing)


def test_clock_and_time(tmp_path):
    result, _, changes, names = record(assemble(PIPELINE), tmp_path)
    clock = changes("tilewright.clk")
    assert clock[:4] == [(0, 1), (5, 0), (10, 1), (15, 0)]
    assert clock[-1][0] // 10 in (result.cycles - 1, result.cycles)
    assert not [n for n in names if "$rootio" in n or n.endswith(".clk_load")]
    assert all(changes(name) for name in list(names)[::50]), "a value from the start on"


def test_span_of_cycles(tmp_path):
    program = generate(1, TW4).program
    whole, _, all_of, _ = record(program, tmp_path, "whole")
    low, high = whole.cycles // 3, whole.cycles // 2
    part, _, some_of, _ = record(program, tmp_path, "part", first=low, last=high)
    assert part.cycles == whole.cycles
    for name in ("units.load.instruction", "units.sequencer.instruction", "tilewright.data_araddr",
                 "tilewright.issue.load__start"):  # fmt: skip
        before = [c for c in all_of(name) if c[0] <= 10 * low][-1]
        wanted = [(10 * low, before[1])]
        wanted += [c for c in all_of(name) if 10 * low < c[0] <= 10 * high + 5]
        assert some_of(name) == wanted, name
    with pytest.raises(WaveError, match="after the run"):
        record(program, tmp_path, "late", first=10**6)
    assert not (tmp_path / "late.fst").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "nothing half-written"


def test_layouts_name_signals_of_the_file(tmp_path):
    _, files, _, names = record(assemble(PIPELINE), tmp_path)
    widths = {name: v.length for name, v in names.items()}
    gtkw = [x for x in files["GTKWave"].read_text().splitlines() if x[0] not in "[@-*"]
    sucl = [x.split()[1] for x in files["Surfer"].read_text().splitlines()
            if x.startswith("variable_add")]  # fmt: skip
    assert [x.partition("[")[0] for x in gtkw] == sucl
    assert len(sucl) > 60 and not set(sucl) - set(names)
    for line in gtkw:
        name, _, bits = line.partition("[")
        text = names[name].is_string
        assert bits == ("" if text or widths[name] == 1 else f"{widths[name] - 1}:0]"), line
    assert sucl.index("units.load.instruction") < sucl.index("tilewright.issue.load__start")
    ports = ("instr_ar", "instr_r", "data_ar", "data_r", "data_aw", "data_w", "data_b")
    for port in ports:
        assert {f"tilewright.{port}valid", f"tilewright.{port}ready"} <= set(sucl)
    assert "@820\nunits.load.instruction\n" in files["GTKWave"].read_text()


def test_layout_leaves_out_what_is_not_there():
    signals = {"units.load.instruction": 0, "tilewright.issue.load__start": 1}
    found = {title: [r.name for r in rows] for title, rows in layouts.groups(signals).items()}
    assert found["LOAD"] == list(signals)
    assert "MATMUL" not in found and found["AXI_read"] == []


def test_picture_reads_what_pywellen_reads(tmp_path):
    _, files, changes, _ = record(generate(1, TW4).program, tmp_path)
    names = ["units.load.instruction", "tilewright.data_araddr", "tilewright.data_arvalid"]
    read = waveforms.read_fst(files["waves"], names)
    assert [read[n][0] for n in names] == [0, 32, 1]
    for name in names:
        mine = [(10 * t, v if read[name][0] == 0 else int(v, 2)) for t, v in read[name][1]]
        assert mine == changes(name)
    figure = waveforms.picture(files["waves"], names, 0, 300)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_yticklabels()] == names
    texts = [t.get_text() for t in axes.texts]
    assert any(re.match(r"#\d+ @\d+ load", t) for t in texts)
    for wrong, message in (((["nobody"], 0, 9), "no signal"), ((names, 9, 3), "first <= last")):
        with pytest.raises(WaveError, match=message):
            waveforms.picture(files["waves"], *wrong)
    with pytest.raises(WaveError, match="FST"):
        waveforms.read_fst(tmp_path / "none.fst", names)


def test_command_writes_all_and_says_where(tmp_path):
    source = tmp_path / "pipe.s"
    source.write_text(PIPELINE)
    out = tmp_path / "new" / "waves"
    done = CliRunner().invoke(
        cli.main, ["run", str(source), "--engine", "rtl", "--trace", str(out)]
    )
    assert done.exit_code == 0, done.output
    names = {"pipe.fst", "pipe.gtkw", "pipe.sucl", "pipe.perfetto.json"}
    assert {p.name for p in out.iterdir()} == names
    assert all(str(out / name) in done.output for name in names)


def test_damaged_file_is_refused(tmp_path):
    program = assemble(PIPELINE)
    with pytest.raises(WaveError, match="room on the disk"), FstWriter(tmp_path / "x.fst", program):
        for partial in tmp_path.iterdir():
            partial.write_bytes(b"")
    assert not (tmp_path / "x.fst").exists()


def test_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pylibfst", None)
    with pytest.raises(WaveError, match=r"pip install 'tilewright\[waves\]'"):
        waveforms.fst(assemble(PIPELINE), tmp_path / "x.fst")
    assert list(tmp_path.iterdir()) == []
