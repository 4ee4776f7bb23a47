"""Run an Amaranth design at Verilator's speed from a test: `build(...)` returns a `Model`.

The design is exported to Verilog, compiled by Verilator into a shared object with a small C++
harness, and driven through ctypes: port by port (`set`, `get`, `tick`), or in bulk (`run`).
Built once per design and session; the cache key is the Verilog text.
"""

import ctypes
import hashlib
import os
import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from amaranth.back import verilog

HARNESS = r"""
#include "V@TOP@.h"
#include "verilated.h"
#include <cstdint>
#include <cstring>
struct Port { void* data; unsigned bytes; };
struct Model { VerilatedContext ctx; V@TOP@ top{&ctx}; };
extern "C" {
void* tw_new() { return new Model; }
void tw_delete(void* p) { auto* m = (Model*)p; m->top.final(); delete m; }
static Port port(Model* m, int i) {
  switch (i) { @PORTS@ }
  return {nullptr, 0};
}
void tw_set(void* p, int i, const char* v) { Port q = port((Model*)p, i); memcpy(q.data, v, q.bytes); }
void tw_get(void* p, int i, char* v) { Port q = port((Model*)p, i); memcpy(v, q.data, q.bytes); }
void tw_eval(void* p) { ((Model*)p)->top.eval(); }
void tw_tick(void* p, long n) {
  auto* m = (Model*)p;
  for (long k = 0; k < n; k++) { @CLOCKS_LOW@ m->top.eval(); @CLOCKS_HIGH@ m->top.eval(); }
}
void tw_run(void* p, long n, int ni, const int* in, char** src, int no, const int* out, char** dst) {
  auto* m = (Model*)p;
  for (long k = 0; k < n; k++) {
    for (int j = 0; j < ni; j++) { Port q = port(m, in[j]); memcpy(q.data, src[j] + k * q.bytes, q.bytes); }
    @CLOCKS_LOW@ m->top.eval();
    for (int j = 0; j < no; j++) { Port q = port(m, out[j]); memcpy(dst[j] + k * q.bytes, q.data, q.bytes); }
    @CLOCKS_HIGH@ m->top.eval();
  }
}
}
"""  # noqa: E501

PORT = re.compile(r"^  (?:input|output) (?:wire )?(?:\[(\d+):0\] )?(\w+);", re.MULTILINE)
VERILATOR = [
    *("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert"),
    *("-Wno-fatal", "-Wno-WIDTH", "-Wno-CASEINCOMPLETE"),
    *("--output-split", "20000", "--output-split-cfuncs", "500"),
]

GXX = ["g++", "-fPIC", "-std=gnu++17"]
DEFINES = [f"-D{n}=0" for n in ("VM_COVERAGE", "VM_SC", "VM_TIMING", "VM_TRACE", "VM_TRACE_FST")]


def storage(width):
    """Bytes that Verilator keeps for a port of `width` bits."""
    return 1 if width <= 8 else 2 if width <= 16 else 4 * -(-width // 32)


class Model:
    """A compiled design. Port values are Python ints; bulk values are arrays of its raw storage."""

    def __init__(self, library, ports):
        self._lib = ctypes.CDLL(str(library))
        self._lib.tw_new.restype = ctypes.c_void_p
        self._ports = ports
        self._index = {name: i for i, name in enumerate(ports)}
        self._p = ctypes.c_void_p(self._lib.tw_new())

    def set(self, name, value):
        """Drive an input with an int."""
        width = self._ports[name]
        raw = (int(value) & ((1 << width) - 1)).to_bytes(storage(width), "little")
        self._lib.tw_set(self._p, self._index[name], raw)

    def get(self, name):
        """Read a port as an int (after `eval`, or the last `tick`)."""
        raw = ctypes.create_string_buffer(storage(self._ports[name]))
        self._lib.tw_get(self._p, self._index[name], raw)
        return int.from_bytes(raw.raw, "little")

    def eval(self):
        """Settle combinational logic."""
        self._lib.tw_eval(self._p)

    def tick(self, cycles=1):
        """Run whole clock cycles; outputs then show the state after the last edge."""
        self._lib.tw_tick(self._p, ctypes.c_long(cycles))

    def run(self, inputs, outputs):
        """Drive one row of each input array per cycle and sample outputs before each edge.

        Parameters
        ----------
        inputs : dict of name to array; the row's bytes are the port's storage (see `storage`)
        outputs : names of ports to sample

        Returns
        -------
        dict of name to uint8, uint16 or (cycles, words) uint32 array; (cycles,) if one word
        """
        cycles = len(next(iter(inputs.values())))
        src = []
        for name, values in inputs.items():
            raw = np.ascontiguousarray(values)
            want = storage(self._ports[name])
            if len(raw) != cycles or raw.nbytes != cycles * want:
                raise ValueError(f"{name} must be {cycles} rows of {want} bytes, not {raw.shape}")
            src.append(raw)
        result = {}
        for name in outputs:
            size = storage(self._ports[name])
            if size <= 4:
                result[name] = np.empty(cycles, f"u{size}")
            else:
                result[name] = np.empty((cycles, size // 4), np.uint32)

        def pointers(arrays):
            return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))

        def numbers(names):
            return (ctypes.c_int * len(names))(*(self._index[n] for n in names))

        dst = list(result.values())
        self._lib.tw_run(
            self._p, ctypes.c_long(cycles), len(src), numbers(inputs), pointers(src),
            len(dst), numbers(outputs), pointers(dst),
        )  # fmt: skip
        return result


def convert(design, ports=None, name="top"):
    """Export `design` with the builtin Yosys."""
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    extra = {} if ports is None else {"ports": ports}
    return verilog.convert(design, name=name, emit_src=False, **extra)


def build(design, ports=None, name="top", sources=None, opt="-O2"):
    """Compile `design` (or the Verilog texts in `sources`, with top module `name`) to a `Model`.

    Every input named ``clk`` or ``*_clk`` is toggled by `tick` and `run`.
    """
    texts = dict(sources) if sources is not None else {f"{name}.v": convert(design, ports, name)}
    top_text = next(t for t in texts.values() if re.search(rf"^module {name}\(", t, re.MULTILINE))
    body = top_text[re.search(rf"^module {name}\(", top_text, re.MULTILINE).start() :]
    body = body[: body.index("endmodule")]
    found = {n: int(w or 0) + 1 for w, n in PORT.findall(body)}
    clocks = [n for n in found if n == "clk" or n.endswith("_clk")]
    key = hashlib.sha256(repr((texts, name, opt, VERILATOR, HARNESS)).encode()).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"tilewright-vsim-{os.getuid()}" / key
    library = root / "model.so"
    if not library.exists():
        _compile(root, texts, name, found, clocks, opt)
    return Model(library, found)


def _compile(root, texts, name, ports, clocks, opt):
    root.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        (root / file).write_text(text)
    cases = "".join(
        f"case {i}: return {{(void*)&m->top.{n}, {storage(w)}}};\n"
        for i, (n, w) in enumerate(ports.items())
    )
    harness = HARNESS.replace("@TOP@", name).replace("@PORTS@", cases)
    for mark, level in (("@CLOCKS_LOW@", 0), ("@CLOCKS_HIGH@", 1)):
        harness = harness.replace(mark, "".join(f"m->top.{c} = {level}; " for c in clocks))
    (root / "harness.cpp").write_text(harness)
    home = Path(sysconfig.get_path("purelib")) / "verilator"
    env = dict(os.environ, VERILATOR_ROOT=str(home), MAKEFLAGS="CFG_CXXFLAGS_PCH_I=-include")
    run = [str(home / "bin" / "verilator"), *VERILATOR, "--top-module", name, "--Mdir", "obj"]
    _call([*run, "-CFLAGS", "-fPIC", *texts], root, env)
    flags = [f"OPT_FAST={opt}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1"]
    _call(["make", "-s", "-C", "obj", "-f", f"V{name}.mk", *flags, f"V{name}__ALL.a"], root, env)
    partial = root / f"model.{os.getpid()}.so"
    _call(
        [*GXX, "-shared", "-O2", f"-I{home}/include", "-Iobj", "harness.cpp",
         f"obj/V{name}__ALL.a", *_runtime(home), "-o", partial.name, "-lpthread"],
        root, env,
    )  # fmt: skip
    partial.rename(root / "model.so")


def _runtime(home):
    """Compile Verilator's own library once for all models."""
    folder = Path(tempfile.gettempdir()) / f"tilewright-vsim-{os.getuid()}" / "runtime"
    folder.mkdir(parents=True, exist_ok=True)
    objects = [folder / f"{name}.o" for name in ("verilated", "verilated_threads")]
    for target in objects:
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}.o")
            source = home / "include" / f"{target.stem}.cpp"
            include = [f"-I{home}/include", f"-I{home}/include/vltstd"]
            _call([*GXX, "-O1", *DEFINES, *include, "-c", str(source), "-o", partial], folder, None)
            partial.rename(target)
    return objects


def _call(command, cwd, env):
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
