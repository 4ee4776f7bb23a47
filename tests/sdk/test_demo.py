"""The demo: its accuracy, its files, and the RTL's agreement."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tilewright import cli, demo
from tilewright.sim import rtl_build


def call(*args):
    result = CliRunner().invoke(cli.main, ["demo", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def nets():
    return demo.networks()


def test_data_are_the_last_360_images(nets):
    networks, labels, reference = nets
    assert labels.shape == (360,) and reference.shape == (360, 10)
    assert [n.images.shape for n in networks] == [(360, 64)] * 2
    assert networks[1].images.max() == 16


def test_int8_logits_equal_numpy(nets):
    networks, *_ = nets
    logits = demo.run_networks([networks[1]], "tw16", "functional").logits["int8"]
    x = networks[1].images.astype(np.int64)
    for i, (w, b, s) in enumerate(networks[1].layers):
        y = (x @ w.astype(np.int64) + b).astype(np.float32) * s
        x = np.clip(np.rint(y), 0, 127).astype(np.int64)
        if i == 2:
            np.testing.assert_array_equal(logits, y)


def test_demo_is_accurate_and_writes_its_files(tmp_path):
    code, out = call("--out", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0 and found["differences"] is None
    numpy, bf16, int8 = (n["accuracy"] for n in found["networks"])
    assert numpy > 0.96
    for chip in (bf16, int8):
        assert chip >= 0.96 and abs(chip - numpy) <= 0.01
    assert all(0.8 < n["utilisation"] < 1 for n in found["networks"][1:])
    listing = (tmp_path / "digits.lst").read_text()
    assert "demo.py:" in listing and "int8_network" in listing
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert "<html" in (tmp_path / "digits.html").read_text()


def test_demo_prints_the_figures(tmp_path):
    code, out = call("--out", tmp_path, "--engine", "functional", "--config", "tw8")
    assert code == 0
    assert "NumPy float32" in out and "chip bf16" in out and "digits.lst" in out


def test_demo_on_rtl_equals_the_cycle_engine(tmp_path):
    try:
        rtl_build.require_tools()
        rtl_build.verilator_root()
    except rtl_build.RtlUnavailableError as error:
        pytest.skip(str(error))
    code, out = call("--out", tmp_path, "--engine", "rtl", "--config", "tw8")
    assert code == 0, out
    assert "rtl = cycle: outputs, counters and the start and end cycle" in out


def test_differences_name_what_differs(nets):
    networks, *_ = nets
    a = demo.run_networks(networks[1:], "tw8", "cycle")
    b = demo.run_networks(networks[1:], "tw8", "cycle")
    assert demo.demo_differences(a, b) == []
    b.logits["int8"] = b.logits["int8"] + 1
    b.profile.runs[0].counters["load_port"] += 1
    b.profile.runs[0].trace["end"][3] += 1
    found = "\n".join(demo.demo_differences(a, b))
    assert "outputs differ" in found and "load_port" in found and "end differ" in found
