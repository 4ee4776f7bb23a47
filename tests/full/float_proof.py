"""The chip's floating point against Berkeley SoftFloat, at Verilator's speed.

Products of two bf16 run over all 2^32 operand pairs, conversions over all 2^32 operands; fp32
addition and multiplication over all pairs of TestFloat-style corners (15 exponents, both signs,
92 fractions) and then over random cases of TestFloat's classes, cancellation, and results at the
flush border. Every case is a function of its index, so a failure is reproduced from one number.

    python tests/full/float_proof.py [--cases N] [unit ...]
"""

import argparse
import ctypes
import hashlib
import importlib
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw import float as chip_float

HERE = Path(__file__).parent
LANES = 16
SEED = 2026
ALL = 1 << 32
CHUNK = 1 << 28

#: Unit: (number in the harness, latency, exhaustive).
UNITS = {
    "fp32_add": (0, 4, False),
    "fp32_mul": (1, 3, False),
    "bf16_product": (2, 1, True),
    "bf16_product_first": (3, 1, True),
    "i32_to_fp32": (4, 2, True),
    "fp32_to_i32": (5, 2, True),
    "fp32_to_bf16": (6, 1, True),
}


class Lane(wiring.Component):
    """One unit; operands flushed as its users flush them."""

    x: In(32)
    y: In(32)
    q: Out(32)

    def __init__(self, unit, fp):
        self.unit, self.fp = unit, fp
        super().__init__()

    def elaborate(self, platform):
        m, fp = Module(), self.fp
        x, y = fp.flush(self.x), fp.flush(self.y)
        if self.unit.startswith("bf16_product"):
            a, w = fp.bf16_decode(self.x[16:]), fp.bf16_decode(self.y[16:])
            q = fp.bf16_product(m, "sync", a, w, first=self.unit.endswith("first"))
        elif self.unit == "i32_to_fp32":
            q = fp.i32_to_fp32(m, "sync", self.x)
        elif self.unit == "fp32_to_i32":
            q = fp.fp32_to_i32(m, "sync", x)
        elif self.unit == "fp32_to_bf16":  # its users give it canonical NaNs
            nan = (x[23:31] == 255) & x[0:23].any()
            m.d.comb += (canonical := fp.Signal(32)).eq(fp.Mux(nan, fp.NAN, x))
            q = fp.stage(m, "sync", fp.fp32_to_bf16(canonical), "bf16")
        else:
            q = getattr(fp, self.unit)(m, "sync", x, y)
        m.d.comb += self.q.eq(q)
        return m


class Lanes(wiring.Component):
    """LANES of one unit side by side."""

    x: In(32 * LANES)
    y: In(32 * LANES)
    q: Out(32 * LANES)

    def __init__(self, unit, fp):
        self.unit, self.fp = unit, fp
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        for i in range(LANES):
            m.submodules[f"lane{i}"] = lane = Lane(self.unit, self.fp)
            part = slice(32 * i, 32 * i + 32)
            m.d.comb += [
                lane.x.eq(self.x[part]),
                lane.y.eq(self.y[part]),
                self.q[part].eq(lane.q),
            ]
        return m


class Failure(ctypes.Structure):
    """The first case that differs."""

    _fields_ = (
        ("index", ctypes.c_uint64),
        *((n, ctypes.c_uint32) for n in ("x", "y", "got", "want")),
    )


@dataclass(frozen=True)
class Outcome:
    """What one unit's proof found."""

    unit: str
    cases: int
    wrong: int
    seconds: float
    first: str

    def __str__(self):
        text = f"{self.unit:20} {self.cases:>13,} cases {self.seconds:7.1f} s  "
        return text + (f"{self.wrong:,} wrong, first: {self.first}" if self.wrong else "all equal")


def build(unit: str, fp=chip_float) -> ctypes.CDLL:
    """Compile `unit` of the float module `fp` with the harness; cached by its Verilog."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    text = verilog.convert(Lanes(unit, fp), name="lanes", emit_src=False)
    harness = (HERE / "float_harness.cpp").read_text()
    for mark, value in (("TOP", "lanes"), ("LANES", LANES), ("LATENCY", UNITS[unit][1])):
        harness = harness.replace(f"@{mark}@", str(value))
    key = hashlib.sha256((text + harness).encode()).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"tilewright-float-{os.getuid()}" / key
    library = root / "unit.so"
    if not library.exists():
        root.mkdir(parents=True, exist_ok=True)
        (root / "lanes.v").write_text(text)
        (root / "harness.cpp").write_text(harness)
        home = Path(sysconfig.get_path("purelib")) / "verilator"
        env = dict(os.environ, VERILATOR_ROOT=str(home), MAKEFLAGS="CFG_CXXFLAGS_PCH_I=-include")
        flags = ["-Wno-fatal", "-Wno-WIDTH", "-O3", "--noassert"]
        build_flags = ["--build", "-CFLAGS", "-fPIC -O2", "-LDFLAGS", "-shared", "-o", "../made.so"]
        _call(
            [str(home / "bin" / "verilator"), "--cc", "--exe", *flags, *build_flags,
             "--Mdir", "obj", "--top-module", "lanes", "lanes.v", "harness.cpp"], root, env,
        )  # fmt: skip
        (root / "made.so").rename(library)
    softfloat = importlib.import_module("_softfloat")
    ctypes.CDLL(softfloat.__file__, mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(library))
    lib.prove.restype = lib.corner_pairs.restype = ctypes.c_uint64
    return lib


def _call(command, cwd, env):
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def prove(unit: str, cases: int | None = None, fp=chip_float, chunk: int = CHUNK) -> Outcome:
    """Run `cases` cases of `unit`; None is all 2^32, or the corner pairs and 10^8 random cases.

    Stops after the chunk of cases that holds the first difference.
    """
    lib = build(unit, fp)
    number, _, exhaustive = UNITS[unit]
    total = (ALL if exhaustive else lib.corner_pairs() + 10**8) if cases is None else cases
    failure, wrong, first, done, begin = Failure(), 0, "", 0, time.monotonic()
    while done < total and not wrong:
        count = min(chunk, total - done)
        args = [ctypes.c_uint64(v) for v in (SEED, done, count)]
        wrong, done = lib.prove(number, *args, ctypes.byref(failure)), done + count
    if wrong:
        x, y, got, want = (f"{getattr(failure, n):08x}" for n in ("x", "y", "got", "want"))
        first = f"case {failure.index}: {x}, {y} gave {got}, must be {want}"
    return Outcome(unit, done, wrong, time.monotonic() - begin, first)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="cases of each unit (default: all of them)")
    parser.add_argument("unit", nargs="*", help=", ".join(UNITS))
    args = parser.parse_args()
    wrong = 0
    for unit in args.unit or UNITS:
        outcome = prove(unit, args.cases)
        print(outcome, flush=True)
        wrong += outcome.wrong
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
