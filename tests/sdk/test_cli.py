"""The command line: what each command prints, and one clear error for each kind of wrong input."""

import functools
import json

import numpy as np
import pytest
import tilewright
from click.testing import CliRunner
from tilewright import cli, device
from tilewright.isa.config import parse_config
from tilewright.isa.program import Port, Program

ADD = """\
.config tw4
.dram 0x100
.input x, int32[4], 0x0
.output y, int32[4], 0x40
.data 0x0
    .word 1, 2, 3, 4
    load acc[0], dram[0x0], copy32, c0=4 ; done s0
    store dram[0x40], acc[0], i32->i32, int_path c0=4 ; wait s0>=1
    halt
"""


@pytest.fixture
def add(tmp_path):
    path = tmp_path / "add.s"
    path.write_text(ADD)
    return path


def call(*args):
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(cli.main, [str(a) for a in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def one_error(*args):
    """The message of a command that must fail with code 1 and print nothing else."""
    code, _, err = call(*args)
    assert code == 1, err
    assert err.startswith("Error: ") and "Traceback" not in err
    return err


@pytest.mark.parametrize("command", [[], *([c] for c in cli.COMMANDS), ["bench", "gemm"],
                                     ["bench", "engines"], ["bench", "roofline"],
                                     ["bench", "costmodel"]])  # fmt: skip
def test_help_has_examples(command):
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert f"tilewright {' '.join(command)}".strip() in out


def test_unknown_command_lists_the_known_ones():
    code, _, err = call("runn")
    assert code == 2 and "demo" in err and "'runn'" in err


@pytest.mark.parametrize("engine", ["functional", "cycle"])
def test_run_prints_outputs(add, engine):
    code, out, _ = call("run", add, "--engine", engine)
    assert code == 0
    assert "[1 2 3 4]" in out and "3 instructions" in out


def test_run_json_input_dump_save(add, tmp_path):
    np.save(tmp_path / "x.npy", np.array([5, -6, 7, 8], np.int32))
    given = ["--input", f"x={tmp_path / 'x.npy'}"]
    code, out, _ = call("run", add, *given, "--json", "--save", tmp_path / "out")
    found = json.loads(out)
    assert code == 0
    assert found["outputs"]["y"] == [5, -6, 7, 8] and found["fault"] is None
    assert found["cycles"] > 0 and found["counters"]["beats_read"] == 4
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "y.npy"), [5, -6, 7, 8])
    _, out, _ = call("run", add, *given, "--dump", "0x40:8")
    assert "0x00000040  05 00 00 00 fa ff ff ff" in out


def test_asm_disasm_round_trip(add, tmp_path):
    assert call("asm", add)[0] == 0
    program = Program.load(tmp_path / "add.tw")
    assert len(program) == 3 and program.config.name == "tw4"
    code, text, _ = call("disasm", tmp_path / "add.tw")
    assert code == 0
    again = tmp_path / "again.s"
    again.write_text(text)
    assert call("asm", again, "-o", tmp_path / "again.tw")[0] == 0
    other = Program.load(tmp_path / "again.tw")
    assert (other.code, other.data, other.inputs) == (program.code, program.data, program.inputs)


def test_environment_chooses_engine_and_chip(add, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_ENGINE", "functional")
    monkeypatch.setenv("TILEWRIGHT_CONFIG", "tw8")
    add.write_text(ADD.replace(".config tw4\n", ""))
    code, out, _ = call("run", add)
    assert code == 0 and "functional engine" in out
    assert "for tw8" in call("asm", add)[1]
    monkeypatch.setenv("TILEWRIGHT_CONFIG", "tw9")
    code, _, err = call("run", add)
    assert code == 2 and "not 'tw9'" in err


def test_check_says_ok(add):
    assert call("check", add) == (0, "ok: 3 executed instructions\n", "")
    assert json.loads(call("check", add, "--json")[1])["ok"] is True


def test_report_shows_units_and_writes_files(add, tmp_path):
    files = [tmp_path / name for name in ("a.lst", "a.html", "a.png")]
    code, out, _ = call("report", add, "--listing", files[0], "--html", files[1],
                        "--picture", files[2])  # fmt: skip
    assert code == 0
    assert all(unit in out for unit in ("LOAD", "MATMUL", "STORE"))
    assert all(f.stat().st_size for f in files)
    assert "cycles" in call("report", add, "--json")[1]


def test_verilog_writes_the_chip(tmp_path):
    code = call("verilog", "--config", "dim=2,spad_kib=4,acc_kib=2", "--out", tmp_path)[0]
    assert code == 0
    assert "module tilewright(" in (tmp_path / "tilewright.v").read_text()


def test_doctor_says_what_works():
    code, out, _ = call("doctor")
    assert code == 0
    assert "cycle engines: work" in out and "rtl engine:" in out
    assert {"numpy", "g++", "verilator"} <= json.loads(call("doctor", "--json")[1])["found"].keys()


def test_doctor_names_a_wrong_setting(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_ENGINE", "quantum")
    code, out, _ = call("doctor")
    assert code == 1 and "TILEWRIGHT_ENGINE must be one of" in out


def test_bench_gemm_measures_one_size():
    code, out, _ = call("bench", "gemm", 20, 24, 28, "--config", "tw4", "--json")
    (row,) = json.loads(out)["gemm"]
    assert code == 0 and row["utilisation"] == 20 * 24 * 28 / (16 * row["cycles"])


# one clear error for each kind of wrong input


def test_missing_file_is_one_error(tmp_path):
    for command in ("run", "asm", "disasm", "check", "report"):
        assert "cannot be read (No such file" in one_error(command, tmp_path / "no.s")
        assert "cannot be read (No such file" in one_error(command, tmp_path / "no.s")


def test_foreign_file_is_one_error(tmp_path):
    path = tmp_path / "x.tw"
    path.write_bytes(b"\x89PNG\r\n" * 50)
    assert "is no Tilewright program" in one_error("run", path)


def test_truncated_and_flipped_files_are_one_error(add, tmp_path):
    call("asm", add)
    good, path = (tmp_path / "add.tw").read_bytes(), tmp_path / "bad.tw"
    for size in (4, 100, len(good) - 1):
        path.write_bytes(good[:size])
        assert "bad.tw: is" in one_error("run", path)
    for at in range(0, len(good), 97):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        assert "bad.tw: " in one_error("check", path)


def test_malformed_assembly_shows_line_and_hint(add):
    add.write_text(ADD.replace("load acc", "laod acc"))
    err = one_error("asm", add)
    assert "add.s:7:5:" in err and "did you mean 'load'?" in err


def test_illegal_program_is_one_error(add):
    add.write_text(ADD.replace("int_path c0=4", "int_path c0=0"))
    err = one_error("run", add)
    assert "fault FIELD at instruction 1" in err and "c0 must be nonzero" in err
    code, out, _ = call("check", add)
    assert code == 1 and "fault FIELD" in out


@pytest.mark.parametrize("command", ["run", "report", "check", "asm"])
@pytest.mark.parametrize("port, says", [
    ("int32[4], 0xf4", "'y' needs 16 bytes at 0xf4, up to 0x104, but the DRAM ends at 0x100"),
    ("int8[65536, 65537], 0x0", "'y' needs 4295032832 bytes at 0x0"),
])  # fmt: skip
def test_arrays_that_do_not_fit_the_dram_are_one_error(add, command, port, says):
    add.write_text(ADD.replace("int32[4], 0x40", port))
    err = one_error(command, add)
    assert "add.s:4:1: " in err and says in err and ".dram says how large it is" in err


def test_arrays_that_end_above_32_bits_are_one_error(add, tmp_path):
    add.write_text(ADD.replace(".dram 0x100\n", "").replace("[4], 0x40", "[4], 0xfffffff4"))
    err = one_error("run", add)
    assert "up to 0x100000004, but the DRAM ends at 0x100000000" in err
    port = Port("x", (1 << 16, 1 << 16), "int32", 0)
    big = Program(parse_config("tw4"), bytes(64), inputs=(port,))
    big.save(tmp_path / "big.tw")
    for command in ("run", "report", "check"):
        assert "x's address must be such that it ends in 32 bits" in one_error(
            command, tmp_path / "big.tw"
        )


def test_bench_of_a_product_that_no_dram_holds_is_one_error(monkeypatch):
    """Compiled and run in Python, a product's arrays come from the device's pool."""
    small = functools.partial(device.Device, dram_bytes=1 << 12)
    monkeypatch.setattr(tilewright, "Device", small)
    err = one_error("bench", "gemm", 128, 128, 128, "--config", "tw4")
    assert "the chip's DRAM must have 16384 contiguous bytes" in err and "are free" in err


def test_racy_program_is_refused(add):
    add.write_text(ADD.replace(" ; wait s0>=1", ""))
    err = one_error("run", add)
    assert "race:" in err and "must wait for done" in err
    code, out, _ = call("check", add)
    assert code == 1 and "race:" in out
    assert json.loads(call("check", add, "--json")[1])["errors"][0]["kind"] == "race"
    assert call("run", add, "--no-check", "--engine", "functional")[0] == 0


def test_deadlocked_program_is_refused(add):
    add.write_text(ADD.replace("wait s0>=1", "wait s0>=2"))
    err = one_error("run", add)
    assert "deadlock:" in err and "STORE" in err and "s0" in err
    err = one_error("run", add, "--no-check")
    assert "fault DEADLOCK at instruction" in err


def test_out_of_window_program_is_refused(add):
    add.write_text(ADD.replace("dram[0x40]", "dram[0xf8]"))
    assert "window:" in one_error("run", add)


def test_wrong_inputs_are_one_error(add, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3, np.float32))
    assert "must be NAME=FILE.npy" in one_error("run", add, "--input", "z=x.npy")
    err = one_error("run", add, "--input", f"x={tmp_path / 'x.npy'}")
    assert "must be int32[4], not float32[3]" in err
    (tmp_path / "y.npy").write_text("junk")
    assert "is no .npy file" in one_error("run", add, "--input", f"x={tmp_path / 'y.npy'}")


@pytest.mark.parametrize("option, says", [
    (["--config", "tw5"], "configuration must be one of tw4"),
    (["--engine", "quantum"], "'quantum' is not one of"),
    (["--dump", "12"], "must be ADDRESS:BYTES"),
])  # fmt: skip
def test_wrong_options_exit_with_2(add, option, says):
    code, _, err = call("run", add, *option)
    assert code == 2 and says in err


def test_missing_compiler_is_one_error(add, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    err = one_error("run", add, "--engine", "rtl")
    assert "needs a C++ compiler" in err and "engine='cycle'" in err
    code, out, _ = call("doctor")
    assert code == 0 and "g++          -" in out
