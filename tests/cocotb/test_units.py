"""cocotb on each exported unit, at its own ports: on Icarus; with `-m full` also on Verilator."""

import importlib
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from tilewright.hw.fetch import Fetch
from tilewright.hw.host import Host
from tilewright.hw.load import Load
from tilewright.hw.matmul import Matmul
from tilewright.hw.memory import Accumulator, Scratchpad
from tilewright.hw.store import Store
from tilewright.isa.config import parse_config
from tilewright.sim.rtl_build import build_key

HERE = str(Path(__file__).parent)
OWN_TEXT = Path(__file__).read_text()
sys.path.insert(0, HERE)
simulators = importlib.import_module("simulators")
sys.path.remove(HERE)


class Strobed(wiring.Component):
    """STORE, with zeros for the bytes that it does not strobe: those may be X."""

    def __init__(self, config):
        self.store = Store(config)
        super().__init__(self.store.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = self.store
        outer = {path: value for path, _, value in self.signature.flatten(self)}
        for path, member, inner in self.store.signature.flatten(self.store):
            if member.flow == In:
                m.d.comb += inner.eq(outer[path])
            else:
                lanes = Cat(bit.replicate(8) for bit in self.store.bus.wstrb)
                mask = lanes if path == ("bus", "wdata") else ~Const(0, len(inner))
                m.d.comb += outer[path].eq(inner & mask)
        return m


SMALL = "dim=2,spad_kib=4,acc_kib=2"
#: Name -> the unit, and its tests.
UNITS = {
    "load": (Load, "unit_load"),
    "store": (Strobed, "unit_store"),
    "matmul": (lambda config: Matmul(config, blackbox=False), "unit_matmul"),
    "fetch": (lambda config: Fetch(), "unit_fetch"),
    "host": (Host, "unit_host"),
    "scratchpad": (Scratchpad, "unit_memory"),
    "accumulator": (Accumulator, "unit_memory"),
}
FULL = pytest.mark.full
RUNS = [
    pytest.param("icarus", SMALL, id="icarus"),
    pytest.param("icarus", "tw4", id="icarus-tw4", marks=FULL),
    pytest.param("verilator", "tw4", id="verilator-tw4", marks=FULL),
]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(("simulator", "text"), RUNS)
def test_a_unit_passes_its_cocotb_tests(name, simulator, text, tmp_path):
    if simulator == "icarus" and not simulators.icarus_is_here():
        pytest.skip(simulators.NO_ICARUS)
    config = parse_config(text)
    make, module = UNITS[name]
    top = f"tw_{name}"

    def sources():
        return {f"{top}.v": simulators.powered_up(simulators.plain(make(config), top))}

    work = simulators.build(simulator, top, f"{build_key(config)} {OWN_TEXT}", sources)
    settings = {"config": text, "long": text != SMALL, "gaps": [0], "gated": False}
    simulators.simulate(work, simulator, top, [module], settings, tmp_path).check()
