"""VECTOR's micro-operations, and sequences of them, against oracles, at Verilator's speed.

Operations of one operand run over all 2^32 values, others over all pairs of TestFloat-style corners
(the third operand hashed) and random cases of many classes. The error of the special functions is
measured over all 2^32 inputs, in units in the last place (ulp) of the exact result. The RTL is
`hw.vector_alu`'s lane with its controls held, one lane for each operation of a sequence. `--model`
measures the C++ model instead, which the RTL equals: minutes instead of hours.

    python tests/full/special_proof.py [--cases N | --model] [unit ...]
"""

import argparse
import ctypes
import hashlib
import importlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import verilog
from amaranth.hdl import Const, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from tilewright.hw import vector_alu, vector_control
from tilewright.hw.float import delay
from tilewright.isa import special
from tilewright.isa.timing import VECTOR_ALU_LATENCY

HERE = Path(__file__).parent
LANES = 4
SEED = 2026
ALL = 1 << 32
RANDOM = 10**8
CHUNK = 1 << 26
LOG2E, LN2, ONE = 1549082005, 0x3F317218, 0x3F800000  # round(log2(e) * 2^30), fp32 ln 2, 1.0

#: Sequences: name -> steps (operation, a, b, c, n). Operands: x, y, z; r0, r1 ... earlier results;
#: or bits. Their limit in ulp, if the error is measured.
SEQUENCES = {
    "accurate_recip": ([("recip_f32", "x", 0, 0, 0)], 1),
    "accurate_rsqrt": ([("rsqrt_f32", "x", 0, 0, 0)], 1),
    "exp2": ([("mul_fx", "x", 1 << 30, 0, 6), ("exp2_fx", "r0", 0, 0, 0)], 2),
    "log2": ([("log2_slope_f32", "x", 0, 0, 0), ("log2_f32", "x", "r0", 0, 0)], 2),
    "sqrt": ([("rsqrt_f32", "x", 0, 0, 0), ("mul_f32", "x", "r0", 0, 0),
              ("sqrt_fix_f32", "x", "r1", 0, 0)], None),
    "div": ([("div_recip_f32", "y", 0, 0, 0), ("div_mul_f32", "x", "r0", 0, 0),
             ("div_fix_f32", "x", "y", "r1", 0)], None),
    "exp": ([("mul_fx", "x", LOG2E, 0, 6), ("exp2_fx", "r0", 0, 0, 0)], 4),
    "log": ([("log2_slope_f32", "x", 0, 0, 0), ("log2_f32", "x", "r0", 0, 0),
             ("mul_f32", "r1", LN2, 0, 0)], 4),
    "logistic": ([("mul_fx", "x", -LOG2E % ALL, 0, 6), ("exp2_fx", "r0", 0, 0, 0),
                  ("add_f32", ONE, "r1", 0, 0), ("recip_f32", "r2", 0, 0, 0)], 4),
    "mul_fx_0": ([("mul_fx", "x", "y", 0, 0)], None),
    "mul_fx_31": ([("mul_fx", "x", "y", 0, 31)], None),
}  # fmt: skip
#: Covered by the sequences only: what they compute has no meaning of its own.
INSIDE = ("div_mul_f32", "div_fix_f32", "sqrt_fix_f32", "log2_f32")
UNARY = {
    "neg_f32", "abs_f32", "sign_f32", "floor_f32", "round_f32", "recip_f32", "rsqrt_f32", "exp2_fx",
    "log2_slope_f32", "div_recip_f32", "clz", "popcount", "i32_f32", "u32_f32", "f32_i32",
    "f32_u32", "f32_bf16", "mov", *(name for name in SEQUENCES if name not in
                                    ("div", "mul_fx_0", "mul_fx_31")),
}  # fmt: skip
UNITS = tuple(SEQUENCES) + tuple(
    n for n in vector_control.DECODED if n not in INSIDE and n not in ("recip_f32", "rsqrt_f32")
)

#: Of each unit in the harness.
NUMBERS = {name: i for i, name in enumerate([*SEQUENCES, *vector_control.DECODED])}
MEASURED = tuple(name for name, (_, limit) in SEQUENCES.items() if limit is not None)


def steps(unit):
    """The micro-operations of a unit."""
    if unit in SEQUENCES:
        return SEQUENCES[unit][0]
    return [(unit, "x", "y", "z", 6 if unit == "mul_fx" else 0)]


class Chain(wiring.Component):
    """A sequence of micro-operations, a lane for each, pipelined."""

    x: In(32)
    y: In(32)
    z: In(32)
    q: Out(32)

    def __init__(self, unit, lane):
        self.unit, self.lane = unit, lane
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        known = {"x": (self.x, 0), "y": (self.y, 0), "z": (self.z, 0)}  # signal, its cycle
        for i, (op, *operands, n) in enumerate(steps(self.unit)):
            m.submodules[f"step{i}"] = lane = self.lane()
            begin = i * VECTOR_ALU_LATENCY
            for port, source in zip((lane.i_a, lane.i_b, lane.i_c), operands, strict=True):
                value, at = known.get(source, (None, 0))
                if value is None:
                    value = Const(source, 32)
                elif begin > at:
                    value = delay(m, "sync", value, begin - at, f"{source}_for{i}_{port.name}")
                m.d.comb += port.eq(value)
            for field, value in vector_control.DECODED[op].items():
                m.d.comb += lane.i_control[field].eq(value)
            m.d.comb += lane.i_control.n.eq(n)
            known[f"r{i}"] = (lane.o_q, begin + VECTOR_ALU_LATENCY)
        m.d.comb += self.q.eq(lane.o_q)
        return m


class Lanes(wiring.Component):
    """LANES of one unit side by side."""

    def __init__(self, unit, lane):
        self.unit, self.lane = unit, lane
        width = 32 * LANES
        super().__init__({"x": In(width), "y": In(width), "z": In(width), "q": Out(width)})

    def elaborate(self, platform):
        m = Module()
        for i in range(LANES):
            m.submodules[f"lane{i}"] = chain = Chain(self.unit, self.lane)
            at = slice(32 * i, 32 * i + 32)
            m.d.comb += [chain.x.eq(self.x[at]), chain.y.eq(self.y[at]), chain.z.eq(self.z[at])]
            m.d.comb += self.q[at].eq(chain.q)
        return m


class Failure(ctypes.Structure):
    """The first case that differs."""

    _fields_ = (
        ("index", ctypes.c_uint64),
        *((n, ctypes.c_uint32) for n in ("x", "y", "got", "want")),
    )


class Worst(ctypes.Structure):
    """The largest error."""

    _fields_ = (("ulp", ctypes.c_double), ("x", ctypes.c_uint32), ("got", ctypes.c_uint32))


@dataclass(frozen=True)
class Outcome:
    """What one unit's proof found."""

    unit: str
    cases: int
    wrong: int | None  # None: nothing was compared
    seconds: float
    first: str
    ulp: float | None
    worst: str

    def __str__(self):
        text = f"{self.unit:16} {self.cases:>13,} cases {self.seconds:7.1f} s"
        if self.wrong is not None:
            text += f"  {self.wrong:,} wrong, first: {self.first}" if self.wrong else "  all equal"
        return text if self.ulp is None else f"{text}  at most {self.ulp:.4f} ulp ({self.worst})"


def _harness(unit):
    """The C++ around the unit, with `isa.special`'s tables and the float proof's cases."""
    cases = (HERE / "float_harness.cpp").read_text()
    begin, end = cases.index("static uint64_t mix"), cases.index("static void operands")
    tables = ""
    for name in special.PLACES:
        rows = ",".join(f"{{{a},{b},{c}}}" for a, b, c in special.table(name))
        tables += f"static const Entry {name.upper()}[] = {{{rows}}};\n"
    tables = tables.replace("EXP2[]", "EXP2_TABLE[]").replace("LOG2[]", "LOG2_TABLE[]")
    marks = {
        "TOP": "lanes",
        "LANES": LANES,
        "LATENCY": VECTOR_ALU_LATENCY * len(steps(unit)),
        "TABLES": tables,
        "OPS": ", ".join(name.upper() for name in NUMBERS),
        "CASES": cases[begin:end],
    }
    text = (HERE / "special_harness.cpp").read_text()
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", str(value))
    return text


def model() -> ctypes.CDLL:
    """Compile the harness without RTL: its model and its measure of errors."""
    text = _harness("exp2")
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"tilewright-special-{os.getuid()}" / f"model-{key}"
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "model.so").exists():
        (root / "harness.cpp").write_text(text)
        command = ["g++", "-std=gnu++17", "-O2", "-fPIC", "-shared", "-DMODEL_ONLY", "-w",
                   "harness.cpp", "-o", "made.so"]  # fmt: skip
        _call(command, root)
        (root / "made.so").rename(root / "model.so")
    return _load(root / "model.so")


def measure(unit: str, chunk=CHUNK) -> Outcome:
    """The model's largest error over all 2^32 inputs of `unit`."""
    lib, worst, begin = model(), Worst(ulp=0), time.monotonic()
    for first in range(0, ALL, chunk):
        span = ctypes.c_uint64(first), ctypes.c_uint64(chunk)
        lib.errors(NUMBERS[unit], *span, ctypes.byref(worst))
    seconds = time.monotonic() - begin
    return Outcome(unit, ALL, None, seconds, "", worst.ulp, f"{worst.x:08x} gave {worst.got:08x}")


def _call(command, cwd, env=None):
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _load(library):
    """Load a harness behind SoftFloat, which it calls."""
    softfloat = importlib.import_module("_softfloat")
    ctypes.CDLL(softfloat.__file__, mode=ctypes.RTLD_GLOBAL)
    lib = ctypes.CDLL(str(library))
    lib.corner_pairs.restype = ctypes.c_uint64
    return lib


def build(unit: str, lane=vector_alu.VectorLane) -> ctypes.CDLL:
    """Compile `unit` with the harness; cached by its text."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    text = verilog.convert(Lanes(unit, lane), name="lanes", emit_src=False)
    harness = _harness(unit)
    key = hashlib.sha256((text + harness).encode()).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"tilewright-special-{os.getuid()}" / key
    library = root / "unit.so"
    if not library.exists():
        root.mkdir(parents=True, exist_ok=True)
        (root / "lanes.v").write_text(text)
        (root / "harness.cpp").write_text(harness)
        home = Path(sysconfig.get_path("purelib")) / "verilator"
        env = dict(os.environ, VERILATOR_ROOT=str(home), MAKEFLAGS="CFG_CXXFLAGS_PCH_I=-include")
        flags = ["-Wno-fatal", "-Wno-WIDTH", "-Wno-CASEINCOMPLETE", "-O3", "--noassert"]
        build_flags = ["--build", "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared", "-o", "../made.so"]
        build_flags += ["-MAKEFLAGS", "OPT_FAST=-O2 OPT_SLOW=-O0 OPT_GLOBAL=-O0"]
        command = [str(home / "bin" / "verilator"), "--cc", "--exe", *flags, *build_flags,
                   "--Mdir", "obj", "--top-module", "lanes", "lanes.v", "harness.cpp"]  # fmt: skip
        _call(command, root, env)
        (root / "made.so").rename(library)
    lib = _load(library)
    lib.prove.restype = ctypes.c_uint64
    return lib


def prove(unit: str, cases: int | None = None, lane=vector_alu.VectorLane, chunk=CHUNK) -> Outcome:
    """Run `cases` cases of `unit`; None is all 2^32, or the corner pairs and `RANDOM` more.

    Fewer cases than 2^32 of an operand are spread over all of them. Stops after the chunk that has
    a difference.
    """
    lib = build(unit, lane)
    exhaustive = unit in UNARY
    total = (ALL if exhaustive else lib.corner_pairs() + RANDOM) if cases is None else cases
    failure, worst, begin = Failure(), Worst(ulp=0), time.monotonic()
    wrong = done = 0
    while done < total and not wrong:
        count = min(chunk, total - done)
        args = [ctypes.c_uint64(v) for v in (SEED, done, count)]
        found = ctypes.byref(failure), ctypes.byref(worst)
        wrong = lib.prove(NUMBERS[unit], int(exhaustive), *args, *found)
        done += count
    first = ""
    if wrong:
        x, y, got, want = (f"{getattr(failure, n):08x}" for n in ("x", "y", "got", "want"))
        first = f"case {failure.index}: {x}, {y} gave {got}, must be {want}"
    measured = SEQUENCES[unit][1] is not None if unit in SEQUENCES else False
    return Outcome(
        unit, done, wrong, time.monotonic() - begin, first, worst.ulp if measured else None,
        f"{worst.x:08x} gave {worst.got:08x}",
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="cases of each unit (default: all of them)")
    parser.add_argument("--model", action="store_true", help="errors of the model, without RTL")
    parser.add_argument("unit", nargs="*", help=", ".join(UNITS))
    args = parser.parse_args()
    failed = 0
    for unit in args.unit or (MEASURED if args.model else UNITS):
        outcome = measure(unit) if args.model else prove(unit, args.cases)
        print(outcome, flush=True)
        limit = SEQUENCES[unit][1] if unit in SEQUENCES else None
        failed += bool(outcome.wrong) or (limit is not None and outcome.ulp > limit)
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
